//! What leaves the server for the other nodes of its cluster: what it has subscribers for, and publications.
//!
//! This is the workers' side; who takes it out is in `cluster/`.

#![expect(
    clippy::disallowed_types,
    reason = "whoever waits for what leaves is known to all workers; the lock is taken once for all that comes before it looks"
)]

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use ringwire_codec::Message;

use super::ears::Ears;
use super::loads::Loads;
use super::publication::SharedPublication;
use crate::base::budget::Budget;
use crate::base::mailbox::{self, Bell, Mailbox, Postbox};
use crate::base::roll::{Change, Roll};
use crate::base::wake::Wake;
use crate::metrics::{ClusterCounters, ClusterStats};

/// Stands among the workers for who hears beside connections. Servers have fewer workers.
const NO_WORKER: u16 = u16::MAX;

/// See the [module's documentation](self).
pub(crate) struct Relay {
    letters: Postbox<Departure>,
    /// For publications that nobody has taken out yet, in bytes.
    room: Budget,
    max_len: usize,
    /// Which workers have subscribers for which topic or pattern. There is one teller.
    interest: Roll<u16>,
    /// Who hears the others beside connections.
    pub(crate) ears: Ears,
    numbering: AtomicU8,
    /// What the bus is asked for.
    pub(crate) loads: Loads,
    /// Workers that have not ended.
    workers: AtomicUsize,
    counters: Arc<ClusterCounters>,
}

/// Who numbers what is published to topics with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Numbering {
    /// Each node, whatever it hears.
    Own,
    /// The bus.
    Shared,
    /// This node, what is published on it; the others miss it, since the bus can't number it.
    Apart,
}

/// A publication that leaves.
#[derive(Debug)]
pub(crate) struct Departure {
    pub(crate) publication: SharedPublication,
    /// As the application gave it; the publication has its hash.
    pub(crate) key: Option<u64>,
    /// The bus is to give it a number.
    pub(crate) to_number: bool,
}

/// Where they are taken out.
#[derive(Debug)]
pub(crate) struct Departures {
    mailbox: Mailbox<Departure>,
    bell: Bell,
    waiting: Waiting,
}

/// Who is to be woken.
#[derive(Clone, Debug, Default)]
struct Waiting(Arc<Mutex<Option<Waker>>>);

impl Wake for Waiting {
    fn wake(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Relay {
    /// For so many workers, and bytes of publications that wait.
    pub(crate) fn new(
        workers: usize,
        max_len: usize,
        counters: Arc<ClusterCounters>,
    ) -> (Self, Departures) {
        let waiting = Waiting::default();
        let bell = Bell::new(waiting.clone());
        let (letters, mailbox) = mailbox::mailbox(None, &bell);
        let relay = Self {
            letters,
            room: Budget::new(max_len),
            max_len,
            interest: Roll::new(1),
            ears: Ears::default(),
            numbering: AtomicU8::new(Numbering::Own as u8),
            loads: Loads::default(),
            workers: AtomicUsize::new(workers),
            counters,
        };
        (relay, Departures { mailbox, bell, waiting })
    }

    pub(crate) fn counters(&self) -> &ClusterCounters {
        &self.counters
    }

    /// What is counted.
    pub(crate) fn stats(&self) -> ClusterStats {
        self.counters.read(self.waiting_len())
    }

    /// Bytes of publications that wait.
    fn waiting_len(&self) -> usize {
        self.max_len.saturating_sub(self.room.left())
    }

    /// A publication does not wait any more.
    pub(crate) fn settle(&self, departure: &Departure) {
        self.room.give(departure.publication.frame.len());
    }

    /// Has a publication leave; whether there was room for it, or somebody to take it.
    pub(super) fn send(&self, departure: Departure) -> bool {
        let len = departure.publication.frame.len();
        let is_taken = self.room.take(len)
            && self.letters.post(departure).inspect_err(|_| self.room.give(len)).is_ok();
        if !is_taken {
            self.note_dropped();
        }
        is_taken
    }

    /// The others miss a publication.
    pub(super) fn note_dropped(&self) {
        self.counters.outgoing_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Who numbers. While a topic is worked on it does not change from [`Shared`](Numbering::Shared).
    pub(crate) fn numbering(&self) -> Numbering {
        match self.numbering.load(Ordering::Acquire) {
            it if it == Numbering::Shared as u8 => Numbering::Shared,
            it if it == Numbering::Apart as u8 => Numbering::Apart,
            _ => Numbering::Own,
        }
    }

    pub(super) fn set_numbering(&self, numbering: Numbering) {
        self.numbering.store(numbering as u8, Ordering::Release);
    }

    /// The bus is to bring the history of a topic.
    pub(super) fn ask(&self, topic: &str) -> super::loads::Loading {
        let loading = self.loads.ask(topic);
        self.letters.nudge();
        loading
    }

    /// A worker has its first subscriber for a pattern, or lost its last.
    pub(super) fn note(&self, worker: u16, pattern: &str, has: bool) {
        if has {
            self.interest.add(pattern, worker);
        } else {
            self.interest.remove(pattern, worker);
        }
        self.letters.nudge();
    }

    /// Has `hear` called for what other nodes publish to a pattern that is valid.
    pub(crate) fn listen(
        &self,
        pattern: &str,
        hear: impl Fn(&str, Message<'_>) + Send + Sync + 'static,
    ) {
        if self.ears.add(pattern, hear) {
            self.note(NO_WORKER, pattern, true);
        }
    }

    /// What has subscribers now and had none, or the other way round, over all workers.
    pub(crate) fn take_interest(&self, max: u32) -> Vec<(Box<str>, Change<u16>)> {
        let mut changes = self.interest.take(0, max);
        changes.retain(|(_, change)| change.is_edge);
        changes
    }

    /// Whether a topic or pattern has subscribers now, whatever was taken of that.
    pub(super) fn is_wanted(&self, pattern: &str) -> bool {
        !self.interest.find(pattern).is_empty()
    }

    /// Whether there may be changes to take.
    pub(crate) fn has_interest(&self) -> bool {
        self.interest.has_changes(0)
    }

    /// A worker has ended.
    pub(crate) fn leave(&self) {
        self.workers.fetch_sub(1, Ordering::AcqRel);
        self.letters.nudge();
    }

    /// Whether all have, so that nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.workers.load(Ordering::Acquire) == 0
    }
}

impl Departures {
    /// Has `waker` woken by whatever comes from now on.
    pub(crate) fn watch(&self, waker: &Waker) {
        let mut waiting = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiting {
            Some(before) => before.clone_from(waker),
            None => *waiting = Some(waker.clone()),
        }
        drop(waiting);
        self.bell.look();
    }

    /// The next publication.
    pub(crate) fn take(&self, relay: &Relay) -> Option<Departure> {
        self.take_unpaid().inspect(|departure| relay.settle(departure))
    }

    /// The same, which still counts among those that wait until [`settle`](Relay::settle).
    pub(crate) fn take_unpaid(&self) -> Option<Departure> {
        self.mailbox.take()
    }

    /// How many publications wait.
    pub(crate) fn len(&self) -> usize {
        self.mailbox.len()
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("waiting_len", &self.waiting_len()).finish_non_exhaustive()
    }
}
