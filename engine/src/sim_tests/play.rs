//! A scene and the clients in it.

use std::time::Duration;

use super::client::Client;
use super::plan::Plan;
use super::scene::Scene;
use crate::config::Config;
use crate::conn::cause::CloseCause;
use crate::driver::sim::{Faults, Random};
use crate::worker::Turn;

pub(super) struct Play {
    pub scene: Scene,
    pub clients: Vec<Client>,
}

impl Play {
    pub(super) fn new(seed: u64, config: &Config, faults: Faults, plans: Vec<Plan>) -> Self {
        let mut random = Random::new(seed);
        let scene = Scene::new(random.seed(), config, faults, plans.len());
        let clients: Vec<_> = (0..)
            .zip(plans)
            .map(|(number, plan)| Client::new(number, plan, random.seed()))
            .collect();
        for client in &clients {
            scene.world.alarm(client.at);
        }
        Self { scene, clients }
    }

    /// The clients act, the worker turns, the clients look at what came.
    pub(super) fn step(&mut self) -> Turn {
        let Self { scene, clients } = self;
        for client in &mut *clients {
            client.act(&scene.world, &scene.handle, &mut scene.log.borrow_mut());
        }
        let turn = scene.turn();
        for client in clients {
            client.observe(&scene.world, &scene.log.borrow());
        }
        turn
    }

    /// Lets the clients take what is still on its way once the worker is done.
    pub(super) fn wind_down(&mut self) {
        while self.scene.world.advance() {
            for client in &mut self.clients {
                client.observe(&self.scene.world, &self.scene.log.borrow());
            }
        }
    }

    pub(super) fn clock(&self) -> Duration {
        self.scene.world.clock()
    }

    /// Steps until then.
    pub(super) fn run_until(&mut self, at: Duration) {
        self.scene.world.alarm(at);
        while self.clock() < at {
            self.step();
        }
    }

    /// Steps until the client's connection has ended, and says how.
    pub(super) fn run_to_the_end_of(&mut self, client: usize) -> CloseCause {
        loop {
            if let Some(cause) = self.scene.log.borrow().clients[client].closed.clone() {
                return cause;
            }
            self.step();
        }
    }
}
