//! Where publications pass from one worker to the others: who is interested in what, and a feed for each worker.

#![expect(
    clippy::disallowed_types,
    reason = "all workers and handles share who is interested in what"
)]

mod shared;

use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
#[cfg(feature = "testing")]
use std::time::Duration;
use std::time::Instant;

use ringwire_codec::Message;

use super::config::{HistoryConfig, TopicConfig};
use super::history::{History, Place, Position, Recovery, Shard};
use super::name::{self, TopicError};
use super::publication::{Publication, PublishOptions, Reach, SharedPublication, Terms};
use super::relay::{Departure, Numbering, Relay};
use crate::base::budget::Budget;
use crate::base::hashing::Hashes;
use crate::base::mailbox::{self, Bell, Mailbox, PostError, Postbox};
use crate::base::roll::{Change, Roll};
use crate::base::sharded::remainder;

pub(crate) use self::shared::{Entry, Loaded};

/// Classes of topics by which a worker says what it has subscribers for.
const INTERESTS: usize = 256;

/// Why a message was not published, or not to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is invalid.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// So many workers are too far behind to get any more
    /// ([`max_in_transit_len`](crate::topics::TopicConfig::max_in_transit_len)), or have ended; their subscribers miss
    /// it. It went to the others.
    #[error(
        "{0} workers are too far behind and missed the publication (setting: topics.max_in_transit_len)"
    )]
    Busy(usize),
    /// As much waits for the other nodes of the cluster as may
    /// ([`max_outgoing_len`](crate::cluster::ClusterConfig::max_outgoing_len)): they miss it. Subscribers of this
    /// server get it, except where the bus numbers a topic with a history: then nobody does.
    #[error(
        "the queue to the other nodes is full, and they missed the publication (setting: cluster.max_outgoing_len)"
    )]
    Cluster,
    /// Nothing numbers the topic for all nodes of the cluster at present, and this node does for its own subscribers:
    /// the others miss it.
    #[error(
        "the bus is disconnected: subscribers of this node got the publication, those of other nodes missed it"
    )]
    Apart,
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

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let counts = self.topics.iter().chain([&self.wild]);
        counts.map(|count| count.load(Ordering::Relaxed)).sum::<u32>() == 0
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

/// The way of publications to one worker, bounded by their length.
#[derive(Clone, Debug)]
pub(crate) struct Feeder {
    postbox: Postbox<SharedPublication>,
    in_transit: Budget,
    /// How many publications with a position were posted. Of those before one that is in the mailbox none is left out.
    numbered: Arc<AtomicU64>,
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Feed {
    mailbox: Mailbox<SharedPublication>,
    in_transit: Budget,
}

/// A feed for so many bytes of publications, whose arrival `bell` announces.
pub(crate) fn feed(max_len: usize, bell: &Bell) -> (Feeder, Feed) {
    let (postbox, mailbox) = mailbox::mailbox(None, bell);
    let in_transit = Budget::new(max_len);
    let feeder = Feeder { postbox, in_transit: in_transit.clone(), numbered: Arc::default() };
    (feeder, Feed { mailbox, in_transit })
}

impl Feeder {
    /// Posts a publication, without blocking. Publications from one thread are read in their order.
    ///
    /// # Errors
    /// As many bytes of them as may be are unread, or the worker has ended.
    fn post(&self, publication: SharedPublication) -> Result<(), PostError> {
        let len = publication.frame.len();
        if !self.in_transit.take(len) {
            return Err(PostError::Busy);
        }
        let numbered = u64::from(publication.turn.is_some());
        if numbered > 0 {
            self.numbered.fetch_add(numbered, Ordering::Relaxed);
        }
        self.postbox.post(publication).map_err(|refused| {
            self.in_transit.give(len);
            self.numbered.fetch_sub(numbered, Ordering::Relaxed);
            refused.error
        })
    }
}

impl Feed {
    /// The next publication.
    pub(crate) fn take(&self) -> Option<SharedPublication> {
        let publication = self.mailbox.take()?;
        self.in_transit.give(publication.frame.len());
        Some(publication)
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.mailbox.is_empty()
    }
}

/// What a subscriber has missed, and what of that is still on its way.
#[derive(Debug)]
pub(super) struct Since {
    pub(super) recovery: Recovery,
    /// All publications up to this turn are in it.
    pub(super) turn: u64,
    /// How many publications with numbers were posted to the subscriber's worker before it.
    pub(super) posted: u64,
}

/// See the [module's documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct Exchange(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: TopicConfig,
    /// Memory for what waits.
    budget: Budget,
    /// Seeded at random, so that nobody can choose topics that collide.
    hasher: Hashes,
    /// By worker.
    members: Box<[(Feeder, Interest)]>,
    /// Which workers have subscribers for which topic or pattern, if handlers want to know.
    roll: OnceLock<Roll<u16>>,
    /// The way to other nodes, if there is one.
    relay: OnceLock<Relay>,
    history: History,
    /// When a simulation began, and the nanoseconds that have passed in it.
    #[cfg(feature = "testing")]
    simulated: OnceLock<(Instant, AtomicU64)>,
}

impl Exchange {
    pub(crate) fn new(settings: TopicConfig, feeders: impl Iterator<Item = Feeder>) -> Self {
        let hasher = Hashes::new();
        Self(Arc::new(Inner {
            budget: Budget::new(settings.max_retained_len),
            history: History::new(settings.max_history_len, hasher.hash_one("epochs")),
            settings,
            hasher,
            members: feeders.map(|feeder| (feeder, Interest::new())).collect(),
            roll: OnceLock::new(),
            relay: OnceLock::new(),
            #[cfg(feature = "testing")]
            simulated: OnceLock::new(),
        }))
    }

    /// So much time has passed in a simulation. What is kept ages by that and by no other clock from now on.
    #[cfg(feature = "testing")]
    #[expect(clippy::disallowed_methods, reason = "a simulation begins at some time, once")]
    pub(crate) fn simulate(&self, passed: Duration) {
        let (_, clock) = self.0.simulated.get_or_init(|| (Instant::now(), AtomicU64::new(0)));
        clock.store(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What ages in a history are told by.
    fn now(&self, history: &HistoryConfig) -> Option<Instant> {
        #[cfg(feature = "testing")]
        if let Some((began, passed)) = self.0.simulated.get() {
            let passed = Duration::from_nanos(passed.load(Ordering::Relaxed));
            return history.max_age.map(|_| *began + passed);
        }
        now(history)
    }

    pub(crate) fn settings(&self) -> &TopicConfig {
        &self.0.settings
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Memory for what is under way or waits, in bytes.
    pub(crate) fn retained_len(&self) -> usize {
        self.0.settings.max_retained_len.saturating_sub(self.0.budget.left())
    }

    /// Memory for what is kept, in bytes.
    pub(crate) fn history_len(&self) -> usize {
        self.0.history.len()
    }

    /// Memory for both.
    pub(crate) fn held_len(&self) -> usize {
        self.retained_len().saturating_add(self.history_len())
    }

    pub(super) fn hash(&self, value: impl Hash) -> u64 {
        self.0.hasher.hash_one(value)
    }

    /// Encodes a message to a topic that is valid.
    fn encode(
        &self,
        topic: &str,
        message: Message<'_>,
        options: PublishOptions<'_>,
        turn: Option<u64>,
    ) -> SharedPublication {
        let terms = Terms {
            hash: self.hash(topic),
            key: options.key.map(|key| self.hash((topic, key))),
            policy: self.settings().policy(topic),
            budget: self.budget(),
            turn,
        };
        Publication::new(topic, terms, message, options)
    }

    /// Notes that a worker has its first subscriber for a pattern, or lost its last.
    pub(crate) fn note_interest(&self, worker: u16, pattern: &str, is_wild: bool, has: bool) {
        let Some((_, interest)) = self.0.members.get(usize::from(worker)) else { return };
        let count = if is_wild { &interest.wild } else { interest.of(self.hash(pattern)) };
        if has {
            count.fetch_add(1, Ordering::Release);
        } else {
            count.fetch_sub(1, Ordering::Release);
        }
        if let Some(relay) = self.relay() {
            relay.note(worker, pattern, has);
        }
    }

    /// From now on other nodes hear what is published. Before any worker runs.
    pub(crate) fn connect(&self, relay: Relay) {
        let before = self.0.relay.set(relay);
        debug_assert!(before.is_ok(), "a server has one way to other nodes");
    }

    /// The way to other nodes.
    #[inline]
    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.0.relay.get()
    }

    /// How many workers there are.
    pub(crate) fn worker_count(&self) -> usize {
        self.0.members.len()
    }

    /// A worker wants to know what has subscribers.
    pub(crate) fn begin_roll(&self) {
        self.0.roll.get_or_init(|| Roll::new(self.0.members.len()));
    }

    /// The same for handlers, once any of them wants to know.
    pub(crate) fn call_out(&self, worker: u16, pattern: &str, has: bool) {
        let Some(roll) = self.0.roll.get() else { return };
        let teller = if has { roll.add(pattern, worker) } else { roll.remove(pattern, worker) };
        // Its own worker looks anyway.
        if teller != worker
            && let Some((feeder, _)) = self.0.members.get(usize::from(teller))
        {
            feeder.postbox.nudge();
        }
    }

    /// Whether a worker has to tell its handler what has subscribers.
    #[inline]
    pub(crate) fn has_changes(&self, worker: u16) -> bool {
        self.0.roll.get().is_some_and(|roll| roll.has_changes(worker))
    }

    /// What a worker has to tell.
    pub(crate) fn take_changes(&self, worker: u16, max: u32) -> Vec<(Box<str>, Change<u16>)> {
        self.0.roll.get().map(|roll| roll.take(worker, max)).unwrap_or_default()
    }

    /// A worker ends. As [`Roll::retire`].
    pub(crate) fn retire(&self, worker: u16) -> Option<u16> {
        self.0.roll.get()?.retire(worker)
    }

    /// Whether a worker may have subscribers for a publication.
    fn is_interested(&self, worker: u16, publication: &SharedPublication) -> bool {
        let member = self.0.members.get(usize::from(worker));
        member.is_some_and(|(_, interest)| interest.takes(publication.hash))
    }

    /// Whether no worker has any subscriber.
    #[cfg(test)]
    pub(crate) fn has_no_interest(&self) -> bool {
        self.0.members.iter().all(|(_, interest)| interest.is_empty())
    }

    /// Publishes a message to the other nodes and to all workers, `but` one, which gets it from here if it has to.
    ///
    /// # Errors
    /// The topic is invalid, some workers are too far behind, or too much waits for the other nodes. What is to be
    /// taken is beside it.
    pub(crate) fn publish(
        &self,
        topic: &str,
        message: Message<'_>,
        options: PublishOptions<'_>,
        but: Option<u16>,
    ) -> (Option<SharedPublication>, Result<(), PublishError>) {
        if let Err(error) = name::check_topic(topic) {
            return (None, Err(error.into()));
        }
        if let Some(history) = self.settings().history(topic) {
            return (None, self.record(history, topic, message, options));
        }
        let publication = self.encode(topic, message, options, None);
        let posted = self.post(&publication, but);
        let outcome = self.relay_on(&publication, options, posted);
        let own = but.is_some_and(|worker| self.is_interested(worker, &publication));
        (own.then_some(publication), outcome)
    }

    /// The same for a topic with a history. All workers get it by their feeds, so that they get it in one order.
    fn record(
        &self,
        history: &HistoryConfig,
        topic: &str,
        message: Message<'_>,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        let PublishOptions { compress, reach, .. } = options;
        let options = PublishOptions { compress, reach, ..PublishOptions::default() };
        self.0.history.with(self.hash(topic), |shard, epochs| {
            let Some(relay) = self.relay() else {
                return self.number(shard, epochs, history, topic, message, options);
            };
            match (relay.numbering(), reach) {
                (Numbering::Own, _) => {
                    let posted = self.number(shard, epochs, history, topic, message, options);
                    // The others number it themselves.
                    self.relay_on(&self.encode(topic, message, options, None), options, posted)
                }
                // It comes back with its number, for the subscribers of this node as well.
                (Numbering::Shared, Reach::Cluster) => {
                    let publication = self.encode(topic, message, options, None);
                    let departure = Departure { publication, key: None, to_number: true };
                    if relay.send(departure) { Ok(()) } else { Err(PublishError::Cluster) }
                }
                (Numbering::Apart, Reach::Cluster) => {
                    relay.note_dropped();
                    self.number(shard, epochs, history, topic, message, options)
                        .and(Err(PublishError::Apart))
                }
                // What others don't hear has no number of theirs.
                (_, Reach::Server) => self.post(&self.encode(topic, message, options, None), None),
            }
        })
    }

    /// Numbers a publication here, posts it to the workers, and keeps it.
    fn number(
        &self,
        shard: &mut Shard,
        epochs: &AtomicU64,
        history: &HistoryConfig,
        topic: &str,
        message: Message<'_>,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        let place = shard.next(topic, history.bounds(), epochs);
        self.post_numbered(shard, history, topic, message, place, options)
    }

    /// Posts a publication to the workers with its number, and keeps it.
    fn post_numbered(
        &self,
        shard: &mut Shard,
        history: &HistoryConfig,
        topic: &str,
        message: Message<'_>,
        place: Place,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        let stamped = stamped(history, message, place.position, place.previous);
        let kept = if message.is_text() {
            // Stamped or not, it is UTF-8.
            Message::Text(std::str::from_utf8(&stamped).unwrap_or_default())
        } else {
            Message::Binary(&stamped)
        };
        let publication = self.encode(topic, kept, options, Some(shard.turn()));
        let posted = self.post(&publication, None);
        let kept = (stamped, message.is_text());
        shard.keep(place, kept, history.bounds(), self.now(history));
        posted
    }

    /// Has the workers hear what another node has published.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub(crate) fn receive(
        &self,
        topic: &str,
        message: Message<'_>,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        self.publish(topic, message, options.with_reach(Reach::Server), None).1
    }

    /// What was published to a topic since a position.
    ///
    /// # Errors
    /// Nothing is kept of this topic.
    pub(super) fn since(
        &self,
        topic: &str,
        since: Option<Position>,
        worker: u16,
    ) -> Result<Since, TopicError> {
        let history = self.settings().history(topic).ok_or(TopicError::NoHistory)?;
        let now = self.now(history);
        let feeder = self.0.members.get(usize::from(worker)).map(|(feeder, _)| feeder);
        Ok(self.0.history.with(self.hash(topic), |shard, epochs| {
            let (recovery, turn) = shard.since(topic, since, history.bounds(), (epochs, now));
            let posted = feeder.map_or(0, |feeder| feeder.numbered.load(Ordering::Relaxed));
            Since { recovery, turn, posted }
        }))
    }

    /// Has the other nodes hear it, if that is wanted.
    fn relay_on(
        &self,
        publication: &SharedPublication,
        options: PublishOptions<'_>,
        posted: Result<(), PublishError>,
    ) -> Result<(), PublishError> {
        match self.relay() {
            Some(relay) if options.reach == Reach::Cluster => {
                let publication = SharedPublication::clone(publication);
                let sent =
                    relay.send(Departure { publication, key: options.key, to_number: false });
                posted.and(if sent { Ok(()) } else { Err(PublishError::Cluster) })
            }
            _ => posted,
        }
    }

    /// Posts a publication to the workers that may have subscribers for it, `but` one.
    ///
    /// # Errors
    /// Some of them are too far behind, or have ended.
    fn post(&self, publication: &SharedPublication, but: Option<u16>) -> Result<(), PublishError> {
        let mut missing = 0;
        for (worker, (feeder, interest)) in (0_u16..).zip(&self.0.members) {
            if Some(worker) == but || !interest.takes(publication.hash) {
                continue;
            }
            if feeder.post(publication.clone()).is_err() {
                missing += 1;
            }
        }
        if missing == 0 { Ok(()) } else { Err(PublishError::Busy(missing)) }
    }
}

/// A message with its position in it.
fn stamped(
    history: &HistoryConfig,
    message: Message<'_>,
    position: Position,
    previous: Option<u64>,
) -> Vec<u8> {
    let stamped = history.stamp.map(|stamp| stamp.apply(message, position, previous));
    let is_sound = |bytes: &Vec<u8>| !message.is_text() || std::str::from_utf8(bytes).is_ok();
    stamped.filter(is_sound).unwrap_or_else(|| message.as_bytes().to_vec())
}

/// What ages in a history are told by outside a simulation.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever publishes need not be a worker, which has a clock"
)]
fn now(history: &HistoryConfig) -> Option<Instant> {
    history.max_age.map(|_| Instant::now())
}
