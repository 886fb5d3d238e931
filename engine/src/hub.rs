//! What all workers and handles share: the way to each worker, and who is interested in what is published.

#![expect(
    clippy::disallowed_types,
    reason = "all workers and handles share who is interested in what"
)]

use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::budget::Budget;
use crate::config::Config;
use crate::handover::Handover;
use crate::limits::address::Addresses;
use crate::mailbox::Postbox;
use crate::memory::{Allowance, Level, Slack, Total};
use crate::metrics::{Counters, MemoryStats};
use crate::registry::Registry;
use crate::sharded::remainder;
use crate::topic::{SharedPublication, TopicError, TopicSettings};

/// Classes of topics by which a worker says what it has subscribers for.
const INTERESTS: usize = 256;

/// Why a message was not published, or not to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is none.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// So many workers are too far behind to get any more
    /// ([`max_in_transit_len`](crate::TopicSettings::max_in_transit_len)), or have ended; their subscribers miss it.
    /// It went to the others.
    #[error("{0} workers are too far behind, and miss what was published")]
    Busy(usize),
}

/// One worker, from outside.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) postbox: Postbox,
    pub(crate) counters: Arc<Counters>,
    interest: Interest,
    /// Connections that another worker has accepted for this one, on their way.
    expected: AtomicU32,
}

impl Link {
    pub(crate) fn new(postbox: Postbox, counters: Arc<Counters>) -> Self {
        Self { postbox, counters, interest: Interest::new(), expected: AtomicU32::new(0) }
    }

    /// Connections that it has, or will have in a moment.
    fn load(&self) -> u64 {
        self.counters.connections.get() + u64::from(self.expected.load(Ordering::Relaxed))
    }

    /// Whether the worker has no subscribers at all.
    #[cfg(test)]
    pub(crate) fn has_no_interest(&self) -> bool {
        let counts = self.interest.topics.iter().chain([&self.interest.wild]);
        counts.map(|count| count.load(Ordering::Relaxed)).sum::<u32>() == 0
    }
}

/// What a worker has subscribers for: how many patterns in each class of topics. It may say yes for nothing, never
/// no for something.
struct Interest {
    topics: [AtomicU32; INTERESTS],
    /// Patterns with wildcards.
    wild: AtomicU32,
}

impl Interest {
    fn new() -> Self {
        Self { topics: [const { AtomicU32::new(0) }; INTERESTS], wild: AtomicU32::new(0) }
    }

    fn of(&self, hash: u64) -> &AtomicU32 {
        &self.topics[remainder(hash, INTERESTS)]
    }

    fn takes(&self, hash: u64) -> bool {
        self.wild.load(Ordering::Acquire) > 0 || self.of(hash).load(Ordering::Acquire) > 0
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interest").field("wild", &self.wild).finish_non_exhaustive()
    }
}

/// The way to all workers of a server.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    links: Arc<[Link]>,
    common: Arc<Common>,
}

#[derive(Debug)]
struct Common {
    settings: TopicSettings,
    /// Memory for what waits.
    budget: Budget,
    /// Seeded at random, so that nobody can choose topics that collide.
    hasher: RandomState,
    registry: Registry,
    addresses: Addresses,
    /// Memory for connections.
    allowance: Allowance,
    slack: Slack,
    /// The end of the server has begun.
    draining: AtomicBool,
    handover: Handover,
}

impl Hub {
    pub(crate) fn new(links: Vec<Link>, config: &Config, handover: Handover) -> Self {
        let common = Common {
            settings: config.topics.clone(),
            budget: Budget::new(config.topics.max_retained_len),
            hasher: RandomState::new(),
            registry: Registry::default(),
            addresses: Addresses::new(config.max_connections_per_address),
            allowance: Allowance::new(config.max_memory),
            slack: Slack::default(),
            draining: AtomicBool::new(false),
            handover,
        };
        Self { links: links.into(), common: Arc::new(common) }
    }

    pub(crate) fn handover(&self) -> &Handover {
        &self.common.handover
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.common.addresses
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    /// The worker with the fewest connections, if it has fewer than worker `own` and the server is not at its end. It has
    /// one more to expect then.
    pub(crate) fn assign(&self, own: u16) -> Option<u16> {
        let own_load = self.links.get(usize::from(own))?.load();
        let (worker, link) =
            (0_u16..).zip(self.links.iter()).min_by_key(|(_, link)| link.load())?;
        if link.load() >= own_load {
            return None;
        }
        // A worker ends once it expects nobody, after the drain was announced. So either it sees this, or this sees that.
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

    pub(crate) fn settings(&self) -> &TopicSettings {
        &self.common.settings
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.common.budget
    }

    /// Memory for what is under way or waits, in bytes.
    pub(crate) fn retained_len(&self) -> usize {
        self.common.settings.max_retained_len.saturating_sub(self.common.budget.left())
    }

    /// Memory that all workers hold for connections, publications included.
    pub(crate) fn memory(&self) -> MemoryStats {
        let workers = self.links.iter().map(|link| link.counters.memory_len());
        let used_len = workers.fold(self.retained_len(), usize::saturating_add);
        MemoryStats { used_len, budget_len: self.common.allowance.len() }
    }

    /// How much of the budget so many bytes are.
    pub(crate) fn memory_level(&self, used_len: usize) -> Level {
        match self.common.allowance.len() {
            None => Level::Low,
            Some(_) => self.common.allowance.judge(used_len),
        }
    }

    /// What of the memory is not used any more.
    pub(crate) fn slack(&self) -> &Slack {
        &self.common.slack
    }

    /// What a worker that holds `own` has to give up for others to be let in. `fixed` of it does not come free with
    /// connections.
    pub(crate) fn memory_excess(&self, own: usize, fixed: usize) -> usize {
        let connections = self.links.iter().map(|link| link.counters.memory_len()).sum();
        let total =
            Total { connections, publications: self.retained_len(), workers: self.links.len() };
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

    /// Has the other workers look around.
    pub(crate) fn nudge(&self, but: u16) {
        for (_, link) in (0_u16..).zip(self.links.iter()).filter(|(worker, _)| *worker != but) {
            link.postbox.nudge();
        }
    }

    pub(crate) fn hash(&self, value: impl Hash) -> u64 {
        self.common.hasher.hash_one(value)
    }

    /// Notes that a worker has its first subscriber for a pattern, or lost its last.
    pub(crate) fn note_interest(&self, worker: u16, pattern: &str, is_wild: bool, has: bool) {
        let Some(link) = self.links.get(usize::from(worker)) else { return };
        let interest = &link.interest;
        let count = if is_wild { &interest.wild } else { interest.of(self.hash(pattern)) };
        if has {
            count.fetch_add(1, Ordering::Release);
        } else {
            count.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether a worker may have subscribers for a publication.
    pub(crate) fn is_interested(&self, worker: u16, publication: &SharedPublication) -> bool {
        let link = self.links.get(usize::from(worker));
        link.is_some_and(|link| link.interest.takes(publication.hash))
    }

    /// Posts a publication to the workers that may have subscribers for it, `but` one.
    ///
    /// # Errors
    /// Some of them are too far behind, or have ended.
    pub(crate) fn post(
        &self,
        publication: &SharedPublication,
        but: Option<u16>,
    ) -> Result<(), PublishError> {
        let mut missing = 0;
        for (worker, link) in (0_u16..).zip(self.links.iter()) {
            if Some(worker) == but || !link.interest.takes(publication.hash) {
                continue;
            }
            if link.postbox.publish(publication.clone()).is_err() {
                missing += 1;
            }
        }
        if missing == 0 { Ok(()) } else { Err(PublishError::Busy(missing)) }
    }
}
