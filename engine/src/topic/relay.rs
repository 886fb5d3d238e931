//! What leaves the server for the other nodes of its cluster: what it has subscribers for, and publications.
//!
//! This is the workers' side; who takes it out is in `cluster/`.

#![expect(
    clippy::disallowed_types,
    reason = "whoever waits for what leaves is known to all workers; the lock is taken once for all that comes before it looks"
)]

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use ringwire_codec::Message;

use super::ears::Ears;
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
    /// Workers that have not ended.
    workers: AtomicUsize,
    counters: Arc<ClusterCounters>,
}

/// A publication that leaves.
#[derive(Debug)]
pub(crate) struct Departure {
    pub(crate) publication: SharedPublication,
    /// As the application gave it; the publication has its hash.
    pub(crate) key: Option<u64>,
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

    /// Has a publication leave; whether there was room for it, or somebody to take it.
    pub(super) fn send(&self, publication: &SharedPublication, key: Option<u64>) -> bool {
        let len = publication.frame.len();
        let departure = || Departure { publication: SharedPublication::clone(publication), key };
        let is_taken = self.room.take(len)
            && self.letters.post(departure()).inspect_err(|_| self.room.give(len)).is_ok();
        if !is_taken {
            self.counters.outgoing_dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_taken
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
        let departure = self.mailbox.take()?;
        relay.room.give(departure.publication.frame.len());
        Some(departure)
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
