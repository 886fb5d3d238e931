//! Limits of topics, and what happens to subscribers who do not keep up.

use std::fmt;
use std::time::Duration;

use ringwire_codec::Message;

use super::history::{Bounds, Position};
use super::name;
use crate::base::setters::setters;
use crate::conn::options::Backpressure;
use crate::error::Error;

/// Settings of topics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicConfig {
    /// The most subscriptions of one connection. Default: 1024. Each takes about 20 bytes; a pattern that nobody
    /// else has, its text and about 150 bytes more.
    pub max_subscriptions: usize,
    /// Memory of the whole server for publications that wait for subscribers, in bytes: each publication counts once,
    /// and 64 bytes for each queue that it waits in. Default: 64 MiB. Where it is used up, a publication still goes
    /// to everyone whose output is not held up; for the others their topic's policy is carried out, as if their
    /// queue ([`max_queued_len`](crate::Config::max_queued_len)) were full.
    pub max_retained_len: usize,
    /// Publications on their way to one worker that it has not looked at, in bytes. Default: 16 MiB. A worker that is
    /// further behind (stuck in a handler, say) misses what is published meanwhile; see [`PublishError::Busy`].
    ///
    /// [`PublishError::Busy`]: crate::topics::PublishError::Busy
    pub max_in_transit_len: usize,
    /// What happens to a publication that finds a subscriber's queue full, by pattern: the first that matches the topic
    /// counts. Default: none; [`Config::backpressure`](crate::Config::backpressure) holds.
    pub policies: Vec<(String, Backpressure)>,
    /// What is kept of what was published, by pattern: the first that matches the topic counts. Default: none; nothing
    /// is kept.
    pub histories: Vec<(String, HistoryConfig)>,
    /// Memory of the whole server for what is kept, in bytes, of which each sixteenth of all topics has a sixteenth.
    /// Default: 64 MiB, which count in [`max_memory`](crate::Config::max_memory) as they are used. Past it the topic
    /// that was published to the longest ago loses its oldest message.
    pub max_history_len: usize,
}

/// How much is kept of each topic with a history, for connections that come back
/// ([`Ctx::subscribe_since`](crate::Ctx::subscribe_since)).
///
/// What is published to such a topic is numbered, and comes to all subscribers in the order of its numbers, whoever
/// publishes it. It goes to everybody: [`except`](crate::topics::PublishOptions::except),
/// [`except_name`](crate::topics::PublishOptions::except_name) and [`key`](crate::topics::PublishOptions::key) do not
/// hold for it, since whoever misses a number gets it on coming back.
///
/// ```
/// use std::time::Duration;
/// use ringwire::topics::{HistoryConfig, TopicConfig};
///
/// let history = HistoryConfig::default()
///     .with_max_count(50)
///     .with_max_age(Duration::from_secs(60))
///     .with_stamp(|message, position, _previous| {
///         let mut stamped = format!("{} {} ", position.epoch, position.offset).into_bytes();
///         stamped.extend_from_slice(message.as_bytes());
///         stamped
///     });
/// let topics = TopicConfig::default().with_history("room.>", history);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryConfig {
    /// The most messages. Default: 100.
    pub max_count: usize,
    /// The most bytes of them, with about 100 beside each. Default: 128 KiB, so that a connection that missed all of it
    /// has them in its queue ([`max_queued_len`](crate::Config::max_queued_len)).
    pub max_len: usize,
    /// How long. `None`: as long as there is room. Default: 5 minutes.
    pub max_age: Option<Duration>,
    /// Writes a publication's position into the message. Default: none; it goes out as it was published.
    pub stamp: Option<Stamp>,
}

/// How a position is written into a message: see [`HistoryConfig::with_stamp`].
#[derive(Clone, Copy)]
pub struct Stamp(fn(Message<'_>, Position, Option<u64>) -> Vec<u8>);

impl Stamp {
    pub(crate) fn apply(
        self,
        message: Message<'_>,
        position: Position,
        previous: Option<u64>,
    ) -> Vec<u8> {
        self.0(message, position, previous)
    }
}

/// Where it is.
impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stamp").field(&(self.0 as *const ())).finish()
    }
}

/// Whether it is the same function. Two with the same body may be one.
impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for Stamp {}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            max_count: 100,
            max_len: 128 << 10,
            max_age: Some(Duration::from_secs(300)),
            stamp: None,
        }
    }
}

setters! { HistoryConfig;
    with_max_count, max_count: usize;
    with_max_len, max_len: usize;
    with_max_age, max_age: impl Into<Option<Duration>>;
}

impl HistoryConfig {
    /// Sets [`stamp`](Self::stamp): what it makes of a message is what is kept, and what subscribers get, of the same
    /// kind as the message. It is called once for each publication, on each node of a
    /// [cluster](crate::cluster), while no other can be published to that topic: it should be quick, and must not
    /// publish itself. A text of which it makes anything but UTF-8 goes out as it was.
    ///
    /// The number is the offset of the publication before it, by which a client sees that it has missed none: one less,
    /// unless the bus of a cluster numbers the topic; `None` where this node does not know it.
    #[must_use]
    pub fn with_stamp(mut self, stamp: fn(Message<'_>, Position, Option<u64>) -> Vec<u8>) -> Self {
        self.stamp = Some(Stamp(stamp));
        self
    }

    pub(super) fn bounds(&self) -> Bounds {
        let Self { max_count, max_len, max_age, .. } = *self;
        Bounds { max_count, max_len, max_age }
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            max_subscriptions: 1024,
            max_retained_len: 64 << 20,
            max_in_transit_len: 16 << 20,
            policies: Vec::new(),
            histories: Vec::new(),
            max_history_len: 64 << 20,
        }
    }
}

impl TopicConfig {
    /// Sets [`max_subscriptions`](Self::max_subscriptions).
    #[must_use]
    pub fn with_max_subscriptions(mut self, count: usize) -> Self {
        self.max_subscriptions = count;
        self
    }

    /// Sets [`max_retained_len`](Self::max_retained_len).
    #[must_use]
    pub fn with_max_retained_len(mut self, len: usize) -> Self {
        self.max_retained_len = len;
        self
    }

    /// Sets [`max_in_transit_len`](Self::max_in_transit_len).
    #[must_use]
    pub fn with_max_in_transit_len(mut self, len: usize) -> Self {
        self.max_in_transit_len = len;
        self
    }

    /// Adds to [`policies`](Self::policies), for topics that `pattern` matches and none before it does.
    ///
    /// ```
    /// use ringwire::{Backpressure, CloseCode, topics::TopicConfig};
    /// let topics = TopicConfig::default()
    ///     .with_policy("prices.>", Backpressure::DropOldest)
    ///     .with_policy("orders.*", Backpressure::Close(CloseCode::TRY_AGAIN_LATER));
    /// ```
    #[must_use]
    pub fn with_policy(mut self, pattern: impl Into<String>, policy: Backpressure) -> Self {
        self.policies.push((pattern.into(), policy));
        self
    }

    /// Adds to [`histories`](Self::histories), for topics that `pattern` matches and none before it does.
    #[must_use]
    pub fn with_history(mut self, pattern: impl Into<String>, history: HistoryConfig) -> Self {
        self.histories.push((pattern.into(), history));
        self
    }

    /// Sets [`max_history_len`](Self::max_history_len).
    #[must_use]
    pub fn with_max_history_len(mut self, len: usize) -> Self {
        self.max_history_len = len;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let policies = self.policies.iter().map(|(pattern, _)| ("policy", pattern));
        let histories = self.histories.iter().map(|(pattern, _)| ("history", pattern));
        for (what, pattern) in policies.chain(histories) {
            name::check_pattern(pattern).map_err(|error| Error::Setting {
                setting: "topics",
                problem: format!("the {what} of `{pattern}` is for no topic: {error}"),
            })?;
        }
        Ok(())
    }

    /// The policy for what is published to `topic`, if it has one of its own.
    pub(crate) fn policy(&self, topic: &str) -> Option<Backpressure> {
        let matching = |(pattern, _): &&(String, _)| name::matches(pattern, topic);
        self.policies.iter().find(matching).map(|(_, policy)| *policy)
    }

    /// What is kept of `topic`, if it has a history.
    pub(crate) fn history(&self, topic: &str) -> Option<&HistoryConfig> {
        let matching = |(pattern, _): &&(String, _)| name::matches(pattern, topic);
        self.histories.iter().find(matching).map(|(_, history)| history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_policy_that_fits() {
        let settings = TopicConfig::default()
            .with_policy("prices.EURUSD", Backpressure::DropNewest)
            .with_policy("prices.>", Backpressure::DropOldest);
        assert_eq!(settings.policy("prices.EURUSD"), Some(Backpressure::DropNewest));
        assert_eq!(settings.policy("prices.EURCHF"), Some(Backpressure::DropOldest));
        assert_eq!(settings.policy("news"), None);
        settings.check().unwrap();
        let wrong = settings.with_policy("a..b", Backpressure::DropNewest).check().unwrap_err();
        assert!(wrong.to_string().contains("a..b"), "{wrong}");
    }
}
