//! What all workers and handles share: the way to each worker, and who is interested in what is published.

#![expect(
    clippy::disallowed_types,
    reason = "all workers and handles share who is interested in what"
)]

pub(crate) mod addresses;
pub(crate) mod directory;
pub(crate) mod handover;
pub(crate) mod mail;
pub(crate) mod names;
pub(crate) mod posted;
pub(crate) mod wakes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use crate::base::mailbox::Postbox;
use crate::config::Config;
use crate::hub::addresses::Addresses;
use crate::hub::directory::Directory;
use crate::hub::handover::Handover;
use crate::hub::mail::{Mail, Offer, Ways};
use crate::hub::names::Registry;
use crate::hub::wakes::Alarms;
use crate::limits::memory::{Allowance, Level, Slack, Total};
use crate::metrics::{Counters, MemoryStats};
use crate::topic::{Exchange, Feeder};

/// The number of the next server of this process.
static NEXT_SERVER: AtomicU16 = AtomicU16::new(0);

/// One worker, from outside.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) postbox: Postbox<Mail>,
    feeder: Feeder,
    pub(crate) offers: Postbox<Offer>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) counters: Arc<Counters>,
    /// Its open connections.
    pub(crate) directory: Directory,
    /// Connections that another worker has accepted for this one, on their way.
    expected: AtomicU32,
}

impl Link {
    pub(crate) fn new(ways: Ways, counters: Arc<Counters>) -> Self {
        let Ways { letters: postbox, publications: feeder, offers, alarms, .. } = ways;
        let (directory, expected) = (Directory::default(), AtomicU32::new(0));
        Self { postbox, feeder, offers, alarms, counters, directory, expected }
    }

    /// Connections that it has, or will have in a moment.
    fn load(&self) -> u64 {
        self.counters.connections.get() + u64::from(self.expected.load(Ordering::Relaxed))
    }
}

/// The way to all workers of a server.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    links: Arc<[Link]>,
    /// The server's number in this process. One of the last 65 536 has it.
    server: u16,
    common: Arc<Common>,
}

#[derive(Debug)]
struct Common {
    exchange: Exchange,
    registry: Registry,
    addresses: Addresses,
    /// Memory for connections.
    allowance: Allowance,
    slack: Slack,
    /// The end of the server has begun.
    draining: AtomicBool,
    handover: Handover,
    /// Output that may wait on a connection.
    max_queued_len: usize,
    /// Who has no connection to the other nodes is not ready.
    unready_apart: bool,
}

impl Hub {
    pub(crate) fn new(links: Vec<Link>, config: &Config, handover: Handover) -> Self {
        let feeders = links.iter().map(|link| link.feeder.clone());
        let workers = links.len();
        let common = Common {
            exchange: Exchange::new(config.topics.clone(), feeders),
            registry: Registry::new(workers),
            addresses: Addresses::new(config.max_connections_per_address.at()),
            allowance: Allowance::new(config.max_memory.fixed()),
            slack: Slack::default(),
            draining: AtomicBool::new(false),
            handover,
            max_queued_len: config.max_queued_len,
            unready_apart: config.cluster.unready_apart,
        };
        Self {
            links: links.into(),
            server: NEXT_SERVER.fetch_add(1, Ordering::Relaxed),
            common: Arc::new(common),
        }
    }

    pub(crate) fn handover(&self) -> &Handover {
        &self.common.handover
    }

    /// Where publications pass.
    pub(crate) fn exchange(&self) -> &Exchange {
        &self.common.exchange
    }

    /// Whether this is a node that should have a connection to the others, and has none.
    pub(crate) fn is_apart(&self) -> bool {
        let relay = self.exchange().relay().filter(|_| self.common.unready_apart);
        relay.is_some_and(|relay| !relay.counters().is_connected.load(Ordering::Relaxed))
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.common.addresses
    }

    /// Output that may wait on a connection, in bytes.
    pub(crate) fn max_queued_len(&self) -> usize {
        self.common.max_queued_len
    }

    /// The server's number in this process.
    #[inline]
    pub(crate) fn server(&self) -> u16 {
        self.server
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    /// The open connections of a worker.
    pub(crate) fn directory(&self, worker: u16) -> Option<&Directory> {
        self.links.get(usize::from(worker)).map(|link| &link.directory)
    }

    /// The worker with the fewest connections, if it has fewer than worker `own` and the server is not at its end. It
    /// has one more to expect then.
    pub(crate) fn assign(&self, own: u16) -> Option<u16> {
        let own_load = self.links.get(usize::from(own))?.load();
        let (worker, link) =
            (0_u16..).zip(self.links.iter()).min_by_key(|(_, link)| link.load())?;
        if link.load() >= own_load {
            return None;
        }
        // A worker ends once it expects nobody, after the drain was announced. So either it sees this, or this sees
        // that.
        link.expected.fetch_add(1, Ordering::SeqCst);
        if self.is_draining() {
            self.note_arrival(worker);
            return None;
        }
        Some(worker)
    }

    /// Whether connections are on their way to a worker that another has accepted for it.
    pub(crate) fn is_expecting(&self, worker: u16) -> bool {
        let link = self.links.get(usize::from(worker));
        link.is_some_and(|link| link.expected.load(Ordering::SeqCst) > 0)
    }

    /// A connection that was assigned to a worker has come there, or never will.
    pub(crate) fn note_arrival(&self, worker: u16) {
        if let Some(link) = self.links.get(usize::from(worker)) {
            link.expected.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Notes that the end of the server has begun, which a successor's death may put off unless it comes in any case.
    pub(crate) fn set_draining(&self, in_any_case: bool) {
        self.common.draining.store(true, Ordering::SeqCst);
        self.common.handover.begin_drain(self.links.len(), in_any_case);
    }

    /// The successor came to nothing: whether this server can go on, which its workers are to be told then.
    pub(crate) fn undrain(&self) -> bool {
        let goes_on = self.common.handover.undrain();
        if goes_on {
            self.common.draining.store(false, Ordering::SeqCst);
        }
        goes_on
    }

    /// The successor will not come to nothing any more.
    pub(crate) fn give_up_sockets(&self) {
        self.common.handover.give_up();
        self.links.iter().for_each(|link| link.postbox.nudge());
    }

    /// Whether a worker that drains and has nothing left to do may end.
    pub(crate) fn may_end(&self, worker: u16, is_counted: &mut bool) -> bool {
        let (may_end, is_last) = self.common.handover.may_end(is_counted);
        if is_last {
            self.nudge(worker);
        }
        may_end
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.common.draining.load(Ordering::SeqCst)
    }

    /// Whether requests for a WebSocket are refused, whatever the application would say.
    pub(crate) fn refuses_requests(&self) -> bool {
        self.is_draining() && !self.handover().is_outlived()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.common.registry
    }

    /// Memory that all workers hold for connections, publications included.
    pub(crate) fn memory(&self) -> MemoryStats {
        let workers = self.links.iter().map(|link| link.counters.memory_len());
        let used_len = workers.fold(self.common.exchange.held_len(), usize::saturating_add);
        MemoryStats { used_len, budget_len: self.common.allowance.len() }
    }

    /// How much of the budget so many bytes are.
    pub(crate) fn memory_level(&self, used_len: usize) -> Level {
        match self.common.allowance.len() {
            None => Level::Low,
            Some(_) => self.common.allowance.judge(used_len),
        }
    }

    /// Has the other workers give up what is beyond their share. Gives what [`memory_demands`](Self::memory_demands) is
    /// then.
    pub(crate) fn demand_memory(&self, but: u16) -> u32 {
        let demands = self.common.allowance.demand();
        self.nudge(but);
        demands
    }

    /// Changes with each demand.
    #[inline]
    pub(crate) fn memory_demands(&self) -> u32 {
        self.common.allowance.demands()
    }

    /// What of the memory is not used any more.
    pub(crate) fn slack(&self) -> &Slack {
        &self.common.slack
    }

    /// What a worker that holds `own` has to give up for others to be let in. `fixed` of it does not come free with
    /// connections.
    pub(crate) fn memory_excess(&self, own: usize, fixed: usize) -> usize {
        let connections = self.links.iter().map(|link| link.counters.memory_len()).sum();
        let total = Total {
            connections,
            publications: self.common.exchange.held_len(),
            workers: self.links.len(),
        };
        self.common.allowance.excess(total, own, fixed, self.memory_step())
    }

    /// How many bytes of free buffers each worker may keep.
    pub(crate) fn free_share(&self) -> usize {
        self.common.allowance.free_share(self.links.len())
    }

    /// What a worker may come to hold before it looks at the total again.
    pub(crate) fn memory_step(&self) -> usize {
        self.common.allowance.step(self.links.len())
    }

    /// Has a worker look around.
    pub(crate) fn wake(&self, worker: u16) {
        if let Some(link) = self.links.get(usize::from(worker)) {
            link.postbox.nudge();
        }
    }

    /// Has the other workers look around.
    pub(crate) fn nudge(&self, but: u16) {
        for (_, link) in (0_u16..).zip(self.links.iter()).filter(|(worker, _)| *worker != but) {
            link.postbox.nudge();
        }
    }
}
