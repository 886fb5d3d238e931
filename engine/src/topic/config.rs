//! Limits of topics, and what happens to subscribers who do not keep up.

use super::name;
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
    /// What happens to a publication that finds a subscriber's queue full, by topic: of the first pattern that takes it
    /// in. Default: none; [`Config::backpressure`](crate::Config::backpressure) holds.
    pub policies: Vec<(String, Backpressure)>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            max_subscriptions: 1024,
            max_retained_len: 64 << 20,
            max_in_transit_len: 16 << 20,
            policies: Vec::new(),
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

    /// Adds to [`policies`](Self::policies): what `pattern` takes in and none before it does.
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

    pub(crate) fn check(&self) -> Result<(), Error> {
        for (pattern, _) in &self.policies {
            name::check_pattern(pattern).map_err(|error| Error::Setting {
                setting: "topics",
                problem: format!("the policy of `{pattern}` is for no topic: {error}"),
            })?;
        }
        Ok(())
    }

    /// The policy for what is published to `topic`, if it has one of its own.
    pub(crate) fn policy(&self, topic: &str) -> Option<Backpressure> {
        let matching = |(pattern, _): &&(String, _)| name::matches(pattern, topic);
        self.policies.iter().find(matching).map(|(_, policy)| *policy)
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
