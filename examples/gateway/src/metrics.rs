//! What the gateway counts beside the engine, and all of it for Prometheus.

use std::collections::BTreeMap;

use ringwire::Request;
use ringwire::json::Problem;
use ringwire::stats::{MetricsText, Tally};

use crate::api::is_api_key;
use crate::app::App;
use crate::auth::Refused;
use crate::envelope::MessageType;
use crate::users::Users;

/// The types of messages, in the order of their declaration, and their names.
const TYPES: [(MessageType, &str); 9] = [
    (MessageType::Text, "text"),
    (MessageType::Notification, "notification"),
    (MessageType::SystemMessage, "system_message"),
    (MessageType::Ping, "ping"),
    (MessageType::Pong, "pong"),
    (MessageType::UserJoined, "user_joined"),
    (MessageType::UserLeft, "user_left"),
    (MessageType::Error, "error"),
    (MessageType::Refresh, "refresh"),
];

/// What the gateway counts beside the engine's own counters.
#[derive(Debug, Default)]
pub struct Counters {
    messages: Tally<{ TYPES.len() }>,
    refused: Tally<{ Refused::ALL.len() }>,
}

impl Counters {
    /// A token, or a user, was refused.
    pub fn refused(&self, refused: Refused) {
        self.refused.add(refused as usize);
    }

    /// A message of this type came from a client.
    pub fn message(&self, message_type: MessageType) {
        self.messages.add(message_type as usize);
    }

    /// How many tokens were refused, by reason. What has not happened yet is not there.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        let counts = Refused::ALL.iter().map(|refused| refused.reason()).zip(self.refused.sums());
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// How many messages came from clients, by type.
    #[must_use]
    pub fn messages(&self) -> BTreeMap<&'static str, u64> {
        TYPES.iter().map(|(_, name)| *name).zip(self.messages.sums()).collect()
    }
}

/// What the gateway counts, for Prometheus.
pub(crate) fn write(app: &App, text: &mut MetricsText) {
    let (counts, uptime) = (app.presence.counts(), app.started.elapsed());
    text.gauge("gateway_connections", "Connections of users.", counts.connections as f64);
    text.gauge("gateway_unique_users", "Users who are online.", counts.users_here as f64);
    text.gauge("gateway_uptime_seconds", "Since when the gateway runs.", uptime.as_secs_f64());
    if let Some((all, idle)) = app.users().map(Users::connections) {
        let busy = (all as usize).saturating_sub(idle);
        let states = [("idle", idle as f64), ("busy", busy as f64)];
        let help = "Connections to the database.";
        text.gauges("gateway_database_connections", help, "state", states);
    }
    let floats =
        |counts: BTreeMap<_, u64>| counts.into_iter().map(|(of, count)| (of, count as f64));
    let help = "Messages that came from clients, by type.";
    text.counters("gateway_messages_total", help, "type", floats(app.counters.messages()));
    let help = "Tokens and users that were refused, by reason.";
    text.counters("gateway_refused_total", help, "reason", floats(app.counters.refusals()));
}

/// Metrics say how the gateway is used. They are for whoever asks from the machine itself, with no proxy between, and
/// for whoever has the API key, as `X-Api-Key` or as a bearer token.
pub(crate) fn guard(app: &App, request: &Request<'_>) -> Result<(), Problem> {
    let by_proxies = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];
    let is_proxied = by_proxies.iter().any(|it| request.header(it).is_some());
    if !is_proxied && request.peer_addr().ip().is_loopback() {
        return Ok(());
    }
    let key = request.header_str("x-api-key").or_else(|| request.bearer_token());
    let key = key.ok_or(Refused::Missing)?;
    if is_api_key(app, key) { Ok(()) } else { Err(Refused::ApiKey.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type has a place of its own, and the name that it has in messages.
    #[test]
    fn messages_are_counted_by_type() {
        let counters = Counters::default();
        for (index, (each, name)) in TYPES.into_iter().enumerate() {
            assert_eq!(each as usize, index);
            assert_eq!(serde_json::to_value(each).unwrap(), name);
            (0..=index).for_each(|_| counters.message(each));
        }
        let counts = counters.messages();
        assert_eq!(counts.len(), TYPES.len());
        assert_eq!((counts["text"], counts["system_message"], counts["refresh"]), (1, 3, 9));
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let counters = Counters::default();
        assert!(counters.refusals().is_empty());
        counters.refused(Refused::Expired);
        counters.refused(Refused::Expired);
        counters.refused(Refused::Missing);
        let (expired, missing) = (Refused::Expired.reason(), Refused::Missing.reason());
        assert_eq!(counters.refusals(), BTreeMap::from([(expired, 2), (missing, 1)]));
    }
}
