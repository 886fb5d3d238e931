//! Topics: who subscribes to what, and what is published.
//!
//! A subscription belongs to a connection, and stands in the table of its worker only ([`table`]). A publication is
//! encoded once ([`publication`]) and goes by the [`exchange`] to each worker that has
//! subscribers for it. There it waits
//! for its turn ([`delivery`]); how it gets to the connections is in `worker/topics.rs`.

mod config;
mod delivery;
pub(crate) mod exchange;
mod name;
mod publication;
mod table;
mod trie;

use std::collections::VecDeque;

use crossbeam_channel::Sender;

pub use self::config::TopicConfig;
pub(crate) use self::delivery::Delivery;
pub use self::exchange::PublishError;
pub(crate) use self::exchange::{Exchange, Feed, Feeder, feed};
pub use self::name::TopicError;
#[cfg(test)]
pub(crate) use self::name::matches;
pub use self::publication::PublishOptions;
pub(crate) use self::publication::{Publication, SharedPublication};
pub use self::table::SubscribeOptions;
use self::table::{Removed, Table};
use crate::driver::Token;

/// A worker's topics.
#[derive(Debug)]
pub(crate) struct Topics {
    worker: u16,
    table: Table,
    pub(crate) exchange: Exchange,
    /// Publications that wait to be delivered here, in their order.
    waiting: VecDeque<SharedPublication>,
}

/// A question to a worker, from [`Handle::topics`](crate::Handle::topics).
#[derive(Debug)]
pub(crate) struct TopicQuery {
    /// How many connections get what is published here; none: all that is subscribed to.
    pub(crate) topic: Option<String>,
    pub(crate) reply: Sender<Vec<(String, usize)>>,
}

impl Topics {
    pub(crate) fn new(worker: u16, exchange: Exchange) -> Self {
        Self { worker, table: Table::default(), exchange, waiting: VecDeque::new() }
    }

    // Subscriptions

    /// What a connection is subscribed to.
    pub(crate) fn patterns_of(&self, slot: u32) -> impl Iterator<Item = &str> {
        self.table.patterns_of(slot)
    }

    /// Subscribes a connection; whether it was not subscribed to this before.
    ///
    /// # Errors
    /// The pattern is invalid, or the connection has as many subscriptions as may be.
    pub(crate) fn subscribe(
        &mut self,
        slot: u32,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<bool, TopicError> {
        let is_wild = name::check_pattern(pattern)?;
        if self.table.count_of(slot) >= self.exchange.settings().max_subscriptions {
            return Err(TopicError::TooMany);
        }
        let added = self.table.subscribe(slot, pattern, is_wild, options);
        if added.is_first {
            self.exchange.note_interest(self.worker, pattern, is_wild, true);
        }
        Ok(added.is_new)
    }

    /// Ends a subscription; whether there was one.
    pub(crate) fn unsubscribe(&mut self, slot: u32, pattern: &str) -> bool {
        let removed = self.table.unsubscribe(slot, pattern);
        removed.map(|removed| self.note(removed)).is_some()
    }

    /// Ends all subscriptions of a connection that has ended. Returns how many there were.
    pub(crate) fn forget(&mut self, slot: u32) -> usize {
        let mut count = 0;
        while let Some(removed) = self.table.unsubscribe_any(slot) {
            self.note(removed);
            count += 1;
        }
        count
    }

    pub(crate) fn answer(&mut self, query: &TopicQuery) {
        let found = match &query.topic {
            None => self.table.patterns().map(|(text, count)| (text.to_owned(), count)).collect(),
            Some(topic) => {
                let mut count = 0;
                self.table.for_each_subscriber(topic, |_| count += 1);
                vec![(topic.clone(), count)]
            }
        };
        // Who asked may have given up waiting.
        let _ = query.reply.send(found);
    }

    // Publications

    /// Publishes to all workers, this one included.
    ///
    /// # Errors
    /// Some worker is too far behind to get any more.
    pub(crate) fn publish(&mut self, publication: SharedPublication) -> Result<(), PublishError> {
        let outcome = self.exchange.post(&publication, Some(self.worker));
        if self.exchange.is_interested(self.worker, &publication) {
            self.waiting.push_back(publication);
        }
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
        while let Some(first) = self.waiting.pop_front() {
            delivery.begin(first);
            while let Some(next) = self.waiting.pop_front_if(|next| delivery.takes(next)) {
                delivery.add(next);
            }
            let Delivery { publications, targets, .. } = delivery;
            if let Some(first) = publications.first() {
                let each = |slot| targets.extend(token_of(slot));
                self.table.for_each_subscriber(&first.topic, each);
            }
            if !delivery.targets.is_empty() {
                return true;
            }
        }
        delivery.end();
        false
    }

    fn note(&self, removed: Removed) {
        if let Some((pattern, is_wild)) = removed.last {
            self.exchange.note_interest(self.worker, &pattern, is_wild, false);
        }
    }
}
