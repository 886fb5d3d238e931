//! The simulation: workers, each in a network of its own, that go on together, and the peers in these networks.

use std::fmt;
use std::time::Duration;

use super::get::Get;
use super::talk::Talk;
use crate::app::handler::Handler;
use crate::compute::Hand;
use crate::driver::sim::{Faults, Peer as End, Random, Sim as Driver, World};
use crate::hub::Hub;
use crate::worker::{Turn, Worker};

/// Time that passes at once while something happens.
const SHORT: Duration = Duration::from_millis(1);

/// The same while nothing does: half a tick of the workers' timers.
const LONG: Duration = Duration::from_millis(50);

/// Turns of a worker within a step, at one point of the time. More are a loop that would spin.
const MAX_TURNS: usize = 100_000;

/// A worker, whatever its handler.
pub(super) trait Turning {
    /// One turn. Whether there will be another.
    fn turn(&mut self) -> bool;
}

impl<H: Handler> Turning for Worker<Driver, H> {
    fn turn(&mut self) -> bool {
        match Self::turn(self) {
            Ok(turn) => turn == Turn::Again,
            Err(error) => panic!("the simulated driver failed: {error}"),
        }
    }
}

/// See the [module's documentation](self).
pub(super) struct Core {
    pub(super) worlds: Vec<World>,
    /// None once it has ended.
    pub(super) workers: Vec<Option<Box<dyn Turning>>>,
    /// The compute threads, in turn with the workers.
    pub(super) hand: Option<Hand>,
    pub(super) random: Random,
    /// What all workers have in common.
    hub: Hub,
    peers: Vec<Attendant>,
    /// The worker of the next peer.
    next: usize,
    clock: Duration,
    /// How long the next step is.
    pace: Duration,
}

/// A peer, as long as anything may come for it.
struct Attendant {
    end: End,
    talk: Talk,
    reads: bool,
}

impl Core {
    pub(super) fn new(
        worlds: Vec<World>,
        workers: Vec<Box<dyn Turning>>,
        hand: Option<Hand>,
        random: Random,
        hub: Hub,
    ) -> Self {
        hub.exchange().simulate(Duration::ZERO);
        let workers = workers.into_iter().map(Some).collect();
        let (peers, next, clock, pace) = (Vec::new(), 0, Duration::ZERO, SHORT);
        Self { worlds, workers, hand, random, hub, peers, next, clock, pace }
    }

    /// Connects to the next worker, and sends a request.
    pub(super) fn connect(&mut self, get: &Get, upgrades: bool) -> usize {
        let end = self.worlds[self.next].connect(0);
        self.next = (self.next + 1) % self.worlds.len();
        let mut talk = Talk::new(get, upgrades);
        end.write(&talk.take_out());
        self.peers.push(Attendant { end, talk, reads: true });
        self.pace = SHORT;
        self.peers.len() - 1
    }

    pub(super) fn talk(&self, peer: usize) -> &Talk {
        &self.peers[peer].talk
    }

    pub(super) fn talk_mut(&mut self, peer: usize) -> &mut Talk {
        &mut self.peers[peer].talk
    }

    pub(super) fn write(&self, peer: usize, bytes: &[u8]) {
        self.peers[peer].end.write(bytes);
    }

    pub(super) fn finish(&self, peer: usize) {
        self.peers[peer].end.finish();
    }

    pub(super) fn reset(&mut self, peer: usize) {
        self.peers[peer].end.reset();
        self.peers[peer].talk.end();
    }

    pub(super) fn hang_up(&mut self, peer: usize) {
        self.peers[peer].end.close();
        self.peers[peer].reads = false;
    }

    pub(super) fn set_reading(&mut self, peer: usize, reads: bool) {
        self.peers[peer].reads = reads;
    }

    pub(super) fn clock(&self) -> Duration {
        self.clock
    }

    pub(super) fn set_faults(&self, faults: &Faults) {
        self.worlds.iter().for_each(|world| world.set_faults(faults.clone()));
    }

    /// Lets so much time pass.
    pub(super) fn advance(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            left -= self.step(left);
        }
    }

    /// Lets a little time pass, `most` at most, and gives how much.
    pub(super) fn step(&mut self, most: Duration) -> Duration {
        let time = self.pace.min(most);
        let until = self.clock + time;
        let mut has_happened = false;
        for (world, place) in self.worlds.iter().zip(&mut self.workers) {
            world.alarm(until);
            let mut turns = 0;
            while world.clock() < until {
                match place {
                    Some(worker) => {
                        if !worker.turn() {
                            *place = None;
                        }
                    }
                    None => has_happened |= world.advance(),
                }
                turns += 1;
                assert!(
                    turns < MAX_TURNS,
                    "the worker spins at {:?}: something asks for another turn without end, a future \
                     that wakes itself say",
                    world.clock()
                );
            }
            // A step with nothing in it is a turn or two.
            has_happened |= turns > 2;
        }
        has_happened |= self.compute();
        has_happened |= self.attend();
        self.clock = until;
        self.hub.exchange().simulate(until);
        self.pace = if has_happened { SHORT } else { (self.pace * 2).min(LONG) };
        time
    }

    /// Does some of the jobs that wait.
    fn compute(&mut self) -> bool {
        let Some(hand) = &mut self.hand else { return false };
        while self.random.chance(0.7)
            && let Some(job) = hand.next_waiting()
        {
            hand.carry_out(job);
        }
        hand.is_wanted()
    }

    /// Has all peers read and answer.
    fn attend(&mut self) -> bool {
        let mut has_happened = false;
        for Attendant { end, talk, reads } in self.peers.iter_mut().filter(|peer| peer.reads) {
            let bytes = end.read();
            has_happened |= !bytes.is_empty();
            if !bytes.is_empty() {
                talk.hear(&bytes);
                end.write(&talk.take_out());
            }
            if end.is_eof() || end.is_reset() {
                // Its own side ends as well: nothing more will be said.
                talk.end();
                end.close();
                *reads = false;
            }
        }
        has_happened
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("clock", &self.clock).finish_non_exhaustive()
    }
}
