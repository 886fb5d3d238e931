//! A worker in a simulated network, and what stands around it.

#![expect(clippy::disallowed_types, reason = "a handle shares the worker's counters")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringwire_codec::Masks;

use super::app::{App, Log};
use super::secure;
use crate::base::budget::Budget;
use crate::compute::{Hand, Pool};
use crate::config::{Assignment, Config};
use crate::driver::Driver as _;
use crate::driver::sim::{Faults, Random, Sim, World};
use crate::entry::listener::Terms;
use crate::hub::handover::Handover;
use crate::hub::mail;
use crate::hub::{Hub, Link};
use crate::metrics::{Counters, WorkerStats};
use crate::net::TcpOptions;
use crate::server::handle::Handle;
use crate::state::Shared;
use crate::worker::clock::TurnClock;
use crate::worker::{Turn, Worker, WorkerSetup};

/// Turns at one point of virtual time that are a loop that would spin.
const MAX_IDLE_TURNS: usize = 5_000;

pub(super) struct Scene {
    pub world: World,
    pub handle: Handle,
    pub hub: Hub,
    pub log: Rc<RefCell<Log>>,
    worker: Worker<Sim, App>,
    /// The compute thread, if there is one, and when it works.
    hand: Option<(Hand, Random)>,
    counters: Arc<Counters>,
    pub budget: Budget,
    last_clock: Duration,
    idle_turns: usize,
    /// No bytes may wait beyond this.
    max_queued_len: usize,
    /// What the budget began with.
    max_dedicated_len: usize,
}

impl Scene {
    pub(super) fn new(seed: u64, config: &Config, faults: Faults, clients: usize) -> Self {
        Self::beside(seed, config, faults, clients, &[])
    }

    /// The same beside other workers, which do nothing but hold so many bytes each.
    pub(super) fn beside(
        seed: u64,
        config: &Config,
        faults: Faults,
        clients: usize,
        others: &[usize],
    ) -> Self {
        config.check().expect("the settings can be");
        let (driver, world) = Sim::new(seed, faults, 2);
        let transit = config.topics.max_in_transit_len;
        let (ways, inbox) = mail::inbox(config.mailbox_len, transit, driver.waker());
        let counters = Arc::new(Counters::default());
        let (pool, hand) = Pool::without_threads(1, config.compute_queue_len);
        let compute = (config.compute_workers > 0).then(|| pool.for_worker(ways.results.clone()));
        let hand = compute.is_some().then(|| (hand, Random::new(seed)));
        let mut links = vec![Link::new(ways, Arc::clone(&counters))];
        links.extend(others.iter().map(|held| {
            let counters = Arc::new(Counters::default());
            counters.memory_input.set(*held as u64);
            Link::new(mail::inbox(1, transit, driver.waker()).0, counters)
        }));
        let hub = Hub::new(links, config, Handover::new(Vec::new(), false));
        let handle =
            Handle::new(hub.clone(), TcpOptions::from(config), None).with_states_of::<App>();
        let budget = Budget::new(config.compression.max_dedicated_len);
        let masks = Masks::new([7; 32]);
        let shared =
            Shared::new(0, config, Arc::clone(&counters), masks, budget.clone(), hub.clone());
        let mut log = Log::default();
        log.clients.resize_with(clients, Default::default);
        let log = Rc::new(RefCell::new(log));
        let app = App { log: Rc::clone(&log), max_queued_len: config.max_queued_len };
        let max_connections = config.max_connections.fixed().unwrap_or(usize::MAX);
        let setup = WorkerSetup {
            shared,
            inbox,
            compute,
            listeners: vec![Terms::default(), Some(secure::server()).into()],
            assignment: Assignment::ReusePort,
            max_connections,
        };
        let clock = TurnClock::simulated(&world);
        Self {
            world,
            handle,
            hub,
            log,
            worker: Worker::new(driver, clock, app, setup),
            hand,
            counters,
            budget,
            last_clock: Duration::ZERO,
            idle_turns: 0,
            max_queued_len: config.max_queued_len,
            max_dedicated_len: config.compression.max_dedicated_len,
        }
    }

    pub(super) fn stats(&self) -> WorkerStats {
        self.counters.read()
    }

    /// The most that was ever held for connections, in bytes.
    pub(super) fn memory_peak(&self) -> usize {
        self.worker.memory_peak()
    }

    /// One turn, and a look at what must hold between turns.
    pub(super) fn turn(&mut self) -> Turn {
        let turn = self.worker.turn().expect("the driver works");
        assert_eq!(self.world.outstanding_buffers(), 0, "a receive buffer was kept");
        self.worker.check_memory();
        self.compute();
        let log = self.log.borrow();
        assert!(log.violations.is_empty(), "{:#?}", log.violations);
        let clock = self.world.clock();
        self.idle_turns = if clock == self.last_clock { self.idle_turns + 1 } else { 0 };
        self.last_clock = clock;
        assert!(self.idle_turns < MAX_IDLE_TURNS, "it spins at {clock:?}");
        turn
    }

    /// Some of what waits for the compute thread, which takes its time.
    fn compute(&mut self) {
        let Some((hand, random)) = &mut self.hand else { return };
        while random.chance(0.6)
            && let Some(job) = hand.next_waiting()
        {
            hand.carry_out(job);
        }
        if hand.is_wanted() {
            let soon = Duration::from_micros(1) + random.up_to(Duration::from_millis(5));
            self.world.alarm(self.world.clock() + soon);
        }
    }

    /// Checks that a worker which is done has nothing left, and that the books balance.
    pub(super) fn finish(self, largest_message: usize) {
        let Self { world, log, worker, hand, counters, budget, max_queued_len, .. } = self;
        let stats = counters.read();
        assert_eq!(stats.connections, 0);
        assert_eq!(stats.open_connections, 0);
        assert_eq!(stats.queued_bytes, 0);
        assert_eq!(stats.deflate_memory, 0);
        let held = [stats.memory_input, stats.memory_output, stats.memory_tls];
        assert_eq!(held, [0; 3]);
        assert_eq!(budget.left(), self.max_dedicated_len);
        let log = log.borrow();
        for (number, entry) in log.clients.iter().enumerate() {
            assert_eq!(entry.opened, usize::from(entry.closed.is_some()), "client {number}");
            // Beside the message that went past the mark, which compression may have made longer, a ping, a pong and a
            // close frame may wait.
            let most = max_queued_len + largest_message + largest_message / 8 + 512;
            // As much again may be with the compute thread.
            let most = most + hand.as_ref().map_or(0, |_| max_queued_len.max(largest_message));
            assert!(entry.most_queued <= most, "client {number}: {} waited", entry.most_queued);
        }
        let opened: usize = log.clients.iter().map(|entry| entry.opened).sum();
        let closes = stats.closes.total();
        assert_eq!(u64::try_from(opened), Ok(closes), "each end is counted once");
        assert_eq!(world.outstanding_buffers(), 0);
        drop(worker);
        if let Some((mut hand, _)) = hand {
            // For connections that have ended.
            while let Some(job) = hand.next_waiting() {
                hand.carry_out(job);
            }
        }
        assert_eq!(world.open_sockets(), 0);
    }
}
