//! What was sent while there was no connection.

use std::collections::VecDeque;

use crate::message::OwnedMessage;
use crate::queue::Overflow;

/// What waits to be sent while there is no connection: see [`Reconnecting`](crate::Reconnecting).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxConfig {
    /// The most messages. Default: 1024.
    pub max_count: usize,
    /// The most bytes of all payloads together. Default: 1 MiB, which is the worst case in memory but for the
    /// messages' own 32 bytes each.
    pub max_len: usize,
    /// Which message goes when there are too many. Default: the oldest.
    pub overflow: Overflow,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { max_count: 1024, max_len: 1 << 20, overflow: Overflow::DropOldest }
    }
}

impl OutboxConfig {
    /// Sets [`max_count`](Self::max_count).
    #[must_use]
    pub const fn with_max_count(mut self, count: usize) -> Self {
        self.max_count = count;
        self
    }

    /// Sets [`max_len`](Self::max_len).
    #[must_use]
    pub const fn with_max_len(mut self, len: usize) -> Self {
        self.max_len = len;
        self
    }

    /// Sets [`overflow`](Self::overflow).
    #[must_use]
    pub const fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }
}

/// Messages in order, within limits. What is dropped is counted.
#[derive(Debug)]
pub(super) struct Outbox {
    config: OutboxConfig,
    messages: VecDeque<OwnedMessage>,
    /// The bytes of all payloads.
    len: usize,
    dropped_count: u64,
}

impl Outbox {
    pub(super) const fn new(config: OutboxConfig) -> Self {
        Self { config, messages: VecDeque::new(), len: 0, dropped_count: 0 }
    }

    /// Adds a message behind the others. Gives whether it is in.
    pub(super) fn push(&mut self, message: OwnedMessage) -> bool {
        let len = message.as_bytes().len();
        let fits_alone = len <= self.config.max_len && self.config.max_count > 0;
        while fits_alone && !self.has_room_for(len) && self.config.overflow == Overflow::DropOldest
        {
            self.pop();
            self.dropped_count += 1;
        }
        let fits = fits_alone && self.has_room_for(len);
        if fits {
            self.len += len;
            self.messages.push_back(message);
        } else {
            self.dropped_count += 1;
        }
        fits
    }

    /// Puts a message back that could not be sent after all.
    pub(super) fn push_front(&mut self, message: OwnedMessage) {
        self.len += message.as_bytes().len();
        self.messages.push_front(message);
    }

    pub(super) fn pop(&mut self) -> Option<OwnedMessage> {
        let message = self.messages.pop_front()?;
        self.len -= message.as_bytes().len();
        Some(message)
    }

    pub(super) fn drain(&mut self) -> Vec<OwnedMessage> {
        self.len = 0;
        self.messages.drain(..).collect()
    }

    /// What waits, in order.
    #[cfg(test)]
    pub(super) fn texts(&self) -> Vec<String> {
        let texts = self.messages.iter().filter_map(|message| message.as_text());
        texts.map(str::to_owned).collect()
    }

    /// How many were dropped, ever.
    pub(super) const fn dropped_count(&self) -> u64 {
        self.dropped_count
    }

    fn has_room_for(&self, len: usize) -> bool {
        self.messages.len() < self.config.max_count && self.len + len <= self.config.max_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(config: OutboxConfig, messages: &[&str]) -> (Vec<String>, u64) {
        let mut outbox = Outbox::new(config);
        for message in messages {
            outbox.push((*message).into());
        }
        let texts = outbox.drain().into_iter().filter_map(|each| each.as_text().map(str::to_owned));
        (texts.collect(), outbox.dropped_count())
    }

    #[test]
    fn limits_in_messages_and_in_bytes() {
        let two = OutboxConfig::default().with_max_count(2);
        assert_eq!(outbox(two, &["a", "b", "c"]), (vec!["b".into(), "c".into()], 1));
        let newest = two.with_overflow(Overflow::DropNewest);
        assert_eq!(outbox(newest, &["a", "b", "c"]), (vec!["a".into(), "b".into()], 1));
        let bytes = OutboxConfig::default().with_max_len(4);
        assert_eq!(outbox(bytes, &["aa", "b", "cc"]), (vec!["b".into(), "cc".into()], 1));
        assert_eq!(outbox(bytes, &["aa", "bbbbb"]), (vec!["aa".into()], 1), "no victim in vain");
        assert_eq!(outbox(two.with_max_count(0), &["a"]), (vec![], 1));
    }
}
