//! Workers in simulated networks, put together as those of a server are.

#![expect(clippy::disallowed_types, reason = "handles share counters")]

use std::sync::Arc;

use ringwire_codec::Masks;

use crate::app::handler::Handler;
use crate::base::budget::Budget;
use crate::config::{Assignment, Config};
use crate::driver::Driver as _;
use crate::driver::sim::{Faults, Sim, World};
use crate::hub::handover::Handover;
use crate::hub::mail::inbox;
use crate::hub::{Hub, Link};
use crate::metrics::Counters;
use crate::net::TcpOptions;
use crate::server::handle::Handle;
use crate::state::Shared;
use crate::worker::clock::TurnClock;
use crate::worker::{Worker, WorkerSetup};

/// The workers of one server, each with its network.
pub(super) struct Assembly<H: Handler> {
    pub(super) worlds: Vec<World>,
    pub(super) workers: Vec<Worker<Sim, H>>,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) hub: Hub,
    pub(super) handle: Handle,
}

impl<H: Handler> Assembly<H> {
    /// A worker for each of these seeds, with the handler that `make` gives for its number. They listen nowhere, and
    /// have no threads beside them.
    pub(super) fn new(
        seeds: impl IntoIterator<Item = u64>,
        config: &Config,
        faults: &Faults,
        budget: &Budget,
        mut make: impl FnMut(u16) -> H,
    ) -> Self {
        let (mut worlds, mut links, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for seed in seeds {
            let (driver, world) = Sim::new(seed, faults.clone(), 0);
            let transit = config.topics.max_in_transit_len;
            let (ways, inbox) = inbox(config.mailbox_len, transit, driver.waker());
            let counters = Arc::new(Counters::default());
            links.push(Link::new(ways, Arc::clone(&counters)));
            parts.push((driver, TurnClock::simulated(&world), inbox, counters));
            worlds.push(world);
        }
        let hub = Hub::new(links, config, Handover::default());
        let handle = Handle::new(hub.clone(), TcpOptions::from(config), None).with_states_of::<H>();
        let counters = parts.iter().map(|(.., counters)| Arc::clone(counters)).collect();
        let workers = (0..).zip(parts).map(|(index, (driver, clock, inbox, counters))| {
            let masks = Masks::new([7; 32]);
            let setup = WorkerSetup {
                shared: Shared::new(index, config, counters, masks, budget.clone(), hub.clone()),
                inbox,
                compute: None,
                listeners: Vec::new(),
                assignment: Assignment::ReusePort,
                max_connections: usize::MAX,
            };
            Worker::new(driver, clock, make(index), setup)
        });
        Self { worlds, workers: workers.collect(), counters, hub, handle }
    }

    /// A single worker with this handler, its network, and the way to it.
    pub(super) fn one(
        seed: u64,
        config: &Config,
        faults: &Faults,
        budget: &Budget,
        handler: H,
    ) -> (Worker<Sim, H>, World, Handle) {
        let mut handler = Some(handler);
        let make = |_| handler.take().expect("there is one worker");
        let Self { mut worlds, mut workers, handle, .. } =
            Self::new([seed], config, faults, budget, make);
        (workers.remove(0), worlds.remove(0), handle)
    }
}
