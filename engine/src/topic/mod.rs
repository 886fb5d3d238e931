//! Topics: who subscribes to what, and what is published.
//!
//! A subscription belongs to a connection, and stands in the table of its worker only ([`table`]). A publication is
//! encoded once ([`publication`]) and goes by the [`exchange`] to each worker that has
//! subscribers for it, and by the [`relay`] to other nodes. There it waits
//! for its turn ([`delivery`]); how it gets to the connections is in `worker/topics.rs`.

mod config;
mod delivery;
pub(crate) mod ears;
pub(crate) mod exchange;
mod history;
pub(crate) mod loads;
mod name;
mod publication;
mod recovering;
pub(crate) mod relay;
mod table;
pub(crate) mod trie;

use std::collections::{BTreeMap, VecDeque};

use ringwire_codec::Message;

pub use self::config::{HistoryConfig, Stamp, TopicConfig};
pub(crate) use self::delivery::Delivery;
pub use self::exchange::PublishError;
pub(crate) use self::exchange::{Entry, Exchange, Feed, Feeder, Loaded, feed};
pub use self::history::{Position, Recorded, Recovery};
use self::loads::Loading;
pub use self::name::{Subscription, TopicError, topic_token};
pub(crate) use self::name::{check_pattern, has_wildcard, matches};
pub(crate) use self::publication::SharedPublication;
pub use self::publication::{PublishOptions, Reach};
use self::recovering::Recovering;
pub use self::table::SubscribeOptions;
use self::table::{Removed, Table};
use crate::base::inquiry::Part;
use crate::base::mailbox::PostError;
use crate::conn::id::ConnId;
use crate::driver::Token;

/// A worker's topics.
#[derive(Debug)]
pub(crate) struct Topics {
    worker: u16,
    table: Table,
    pub(crate) exchange: Exchange,
    /// Publications that wait to be delivered here, in their order.
    waiting: VecDeque<SharedPublication>,
    /// Who has had what is on its way to here.
    recovering: Recovering,
    /// Handlers want to know what has subscribers.
    calls_out: bool,
}

/// A question to a worker, from [`Handle::topics`](crate::Handle::topics) and others.
#[derive(Debug)]
pub(crate) enum TopicQuery {
    /// All that is subscribed to, and by how many.
    All(Part<BTreeMap<String, usize>>),
    /// How many connections get what is published to a topic.
    Count(String, Part<usize>),
    /// Which do.
    Subscribers(String, Part<Vec<ConnId>>),
}

impl TopicQuery {
    /// The worker can't be asked.
    pub(crate) fn refuse(self, error: PostError) {
        match self {
            Self::All(part) => part.refuse(error),
            Self::Count(_, part) => part.refuse(error),
            Self::Subscribers(_, part) => part.refuse(error),
        }
    }
}

impl Topics {
    pub(crate) fn new(worker: u16, exchange: Exchange) -> Self {
        Self {
            worker,
            table: Table::default(),
            exchange,
            waiting: VecDeque::new(),
            recovering: Recovering::default(),
            calls_out: false,
        }
    }

    /// The handler wants to know what has subscribers. Before anything has.
    pub(crate) fn call_out(&mut self) {
        self.calls_out = true;
        self.exchange.begin_roll();
    }

    // Subscriptions

    /// What a connection is subscribed to.
    pub(crate) fn subscriptions_of(&self, slot: u32) -> impl Iterator<Item = Subscription<'_>> {
        self.table.patterns_of(slot).map(Subscription::of)
    }

    /// Whether a connection is subscribed to exactly this.
    pub(crate) fn is_subscribed(&self, slot: u32, wanted: Subscription<'_>) -> bool {
        self.subscriptions_of(slot).any(|own| own == wanted)
    }

    /// Subscribes a connection to one topic; whether it was not subscribed to it before.
    ///
    /// # Errors
    /// The topic is invalid, or the connection has too many subscriptions.
    pub(crate) fn subscribe(
        &mut self,
        slot: u32,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<bool, TopicError> {
        name::check_topic(topic)?;
        self.add(slot, topic, false, options)
    }

    /// Subscribes a connection to all that a pattern takes in; whether it was not subscribed to this before.
    ///
    /// # Errors
    /// The pattern is invalid, or the connection has too many subscriptions.
    pub(crate) fn subscribe_pattern(
        &mut self,
        slot: u32,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<bool, TopicError> {
        let is_wild = check_pattern(pattern)?;
        self.add(slot, pattern, is_wild, options)
    }

    /// Subscribes a connection to a topic with a history, and gives what was published since a position; whether it was
    /// not subscribed before.
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe), or nothing is kept of this topic.
    pub(crate) fn subscribe_since(
        &mut self,
        slot: u32,
        topic: &str,
        since: Option<Position>,
    ) -> Result<(Recovery, bool), TopicError> {
        name::check_topic(topic)?;
        if self.exchange.settings().history(topic).is_none() {
            return Err(TopicError::NoHistory);
        }
        // What is published from here on is posted to this worker, so that nothing is left out between the two.
        let is_new = self.add(slot, topic, false, SubscribeOptions::default())?;
        let since = self.exchange.since(topic, since, self.worker)?;
        self.recovering.begin((slot, self.exchange.hash(topic)), since.turn, since.posted);
        Ok((since.recovery, is_new))
    }

    /// Where the bus may know more of what a connection has missed than this node: subscribes it, so that it gets
    /// nothing until [`subscribe_since`](Self::subscribe_since), and asks the bus. Whether it was not subscribed
    /// before.
    ///
    /// # Errors
    /// As for [`subscribe_since`](Self::subscribe_since).
    pub(crate) fn load_since(
        &mut self,
        slot: u32,
        topic: &str,
        since: Option<Position>,
    ) -> Result<Option<(Loading, bool)>, TopicError> {
        name::check_topic(topic)?;
        if !self.exchange.lacks(topic, since)? {
            return Ok(None);
        }
        let is_new = self.add(slot, topic, false, SubscribeOptions::default())?;
        self.recovering.hold((slot, self.exchange.hash(topic)));
        // The bus hears of the subscription first, so that nothing is left out between the two.
        Ok(self.exchange.ask(topic).map(|loading| (loading, is_new)))
    }

    /// Whether a connection has had a publication already, which is on its way to it for the second time.
    #[inline]
    pub(crate) fn has_had(&self, slot: u32, delivery: &Delivery) -> bool {
        !self.recovering.is_empty()
            && delivery
                .publications
                .last()
                .and_then(|last| Some((last.hash, last.turn?)))
                .is_some_and(|(hash, turn)| self.recovering.has_had((slot, hash), turn))
    }

    fn add(
        &mut self,
        slot: u32,
        pattern: &str,
        is_wild: bool,
        options: SubscribeOptions,
    ) -> Result<bool, TopicError> {
        let is_full = self.table.count_of(slot) >= self.exchange.settings().max_subscriptions;
        // One that is there already takes no other place.
        if is_full && !self.table.has(slot, pattern) {
            return Err(TopicError::TooMany);
        }
        let added = self.table.subscribe(slot, pattern, is_wild, options);
        if added.is_first {
            self.note(pattern, is_wild, true);
        }
        Ok(added.is_new)
    }

    /// Ends a subscription; whether there was one.
    pub(crate) fn unsubscribe(&mut self, slot: u32, subscription: Subscription<'_>) -> bool {
        // What a pattern looks like is no topic.
        if subscription != Subscription::of(subscription.as_str()) {
            return false;
        }
        let removed = self.table.unsubscribe(slot, subscription.as_str());
        if !self.recovering.is_empty() {
            self.recovering.release((slot, self.exchange.hash(subscription.as_str())));
        }
        removed.map(|removed| self.note_removed(removed)).is_some()
    }

    /// Ends all subscriptions of a connection that has ended. Returns how many there were.
    pub(crate) fn forget(&mut self, slot: u32) -> usize {
        let mut count = 0;
        self.recovering.forget(slot);
        while let Some(removed) = self.table.unsubscribe_any(slot) {
            self.note_removed(removed);
            count += 1;
        }
        count
    }

    /// All that is subscribed to, and how many connections are.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, usize)> {
        self.table.patterns()
    }

    /// Calls `each` once for every connection that gets what is published to `topic`.
    pub(crate) fn for_each_subscriber(&mut self, topic: &str, each: impl FnMut(u32)) {
        // A pattern is subscribed to, and nothing can be published to it.
        if name::check_topic(topic).is_ok() {
            self.table.for_each_subscriber(topic, each);
        }
    }

    // Publications

    /// Publishes to all workers, this one included, and to the other nodes.
    ///
    /// # Errors
    /// The topic is invalid, some worker is too far behind to get any more, or other nodes don't get it.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        message: Message<'_>,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        let (own, outcome) = self.exchange.publish(topic, message, options, Some(self.worker));
        self.waiting.extend(own);
        outcome
    }

    /// A publication came from elsewhere.
    pub(crate) fn take_in(&mut self, publication: SharedPublication) {
        self.waiting.push_back(publication);
    }

    /// Whether publications wait to be delivered.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Fills `delivery` with what is to be delivered next; whether there is anything.
    pub(crate) fn begin(
        &mut self,
        delivery: &mut Delivery,
        token_of: impl Fn(u32) -> Option<Token>,
    ) -> bool {
        loop {
            // What was under way is delivered.
            let numbered = delivery.publications.iter().filter(|it| it.turn.is_some());
            self.recovering.note_delivered(numbered.count() as u64);
            delivery.end();
            let Some(first) = self.waiting.pop_front() else { return false };
            // Some connections have had one and not the other.
            let joins = self.recovering.is_empty() || first.turn.is_none();
            delivery.begin(first);
            while joins && let Some(next) = self.waiting.pop_front_if(|next| delivery.takes(next)) {
                delivery.add(next);
            }
            let Delivery { publications, targets, .. } = delivery;
            if let Some(first) = publications.first() {
                let each = |slot| targets.extend(token_of(slot));
                self.table.for_each_copy(&first.topic, each);
            }
            if !delivery.targets.is_empty() {
                return true;
            }
        }
    }

    fn note_removed(&self, removed: Removed) {
        if let Some((pattern, is_wild)) = removed.last {
            self.note(&pattern, is_wild, false);
        }
    }

    /// The first subscriber of this worker has come, or its last is gone.
    fn note(&self, pattern: &str, is_wild: bool, has: bool) {
        self.exchange.note_interest(self.worker, pattern, is_wild, has);
        if self.calls_out {
            self.exchange.call_out(self.worker, pattern, has);
        }
    }
}
