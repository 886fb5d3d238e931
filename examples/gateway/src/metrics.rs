//! What the gateway counts beside the engine, and all of it for Prometheus.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwire::http::header;
use ringwire::shutdown::Readiness;
use ringwire::{
    Answer, Handler, HeaderValue, IntoResponse, Request, Responder, Response, StatusCode,
};

use crate::api::{Problem, fresh, is_api_key};
use crate::app::App;
use crate::auth::{Refused, api_key_of, token_of};
use crate::envelope::MessageType;
use crate::lock;
use crate::users::Users;

/// Threads that count do so in different cache lines, as long as there are no more of them than these.
const SHARDS: usize = 64;

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
#[derive(Debug)]
pub struct Counters {
    messages: [Shard; SHARDS],
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicU64; TYPES.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self { messages: std::array::from_fn(|_| Shard::default()), refused: Mutex::default() }
    }
}

impl Counters {
    /// A token, or a user, was refused.
    pub fn refused(&self, refused: Refused) {
        let mut counts = lock(&self.refused);
        *counts.entry(refused.reason()).or_default() += 1;
    }

    /// A message of this type came from a client.
    pub fn message(&self, message_type: MessageType) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        let Shard(counts) = &self.messages[SHARD.with(|shard| *shard)];
        counts[message_type as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many tokens were refused, by reason. What has not happened yet is not there.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.refused).clone()
    }

    /// How many messages came from clients, by type.
    #[must_use]
    pub fn messages(&self) -> BTreeMap<&'static str, u64> {
        let sum = |index: usize| {
            self.messages.iter().map(|Shard(counts)| counts[index].load(Ordering::Relaxed)).sum()
        };
        TYPES.iter().map(|(each, name)| (*name, sum(*each as usize))).collect()
    }
}

/// What the process has used of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// CPU time, of all threads.
    pub cpu: Duration,
    /// Resident memory, in bytes (proc_pid_statm(5)).
    pub resident_len: u64,
}

impl Process {
    /// As it is now. Memory is 0 where `/proc` is not mounted.
    #[must_use]
    pub fn now() -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = pages.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or_default();
        let page_len = rustix::param::page_size() as u64;
        Self { cpu: cpu.try_into().unwrap_or_default(), resident_len: pages * page_len }
    }
}

/// The metrics of the engine and of the gateway, in Prometheus' text format (0.0.4).
#[must_use]
pub fn prometheus(app: &App) -> String {
    let mut text = app.handle().stats().prometheus();
    let (counts, process) = (app.presence.counts(), Process::now());
    let uptime = app.presence.started.elapsed().as_secs_f64();
    let gauges: [(&str, &str, f64); 4] = [
        ("gateway_connections", "Connections of users.", counts.connections as f64),
        ("gateway_unique_users", "Users who are online.", counts.users as f64),
        ("gateway_uptime_seconds", "Since when the gateway runs.", uptime),
        ("process_resident_memory_bytes", "Resident memory.", process.resident_len as f64),
    ];
    for (name, help, value) in gauges {
        metric(&mut text, name, "gauge", help, [("", value)]);
    }
    let cpu = [("", process.cpu.as_secs_f64())];
    metric(&mut text, "process_cpu_seconds_total", "counter", "CPU time, user and system.", cpu);
    if let Some((all, idle)) = app.users().map(Users::connections) {
        let busy = (all as usize).saturating_sub(idle);
        let states = [("{state=\"idle\"}", idle as f64), ("{state=\"busy\"}", busy as f64)];
        let help = "Connections to the database.";
        metric(&mut text, "gateway_database_connections", "gauge", help, states);
    }
    let help = "Messages that came from clients, by type.";
    let types = app.counters.messages();
    metric(&mut text, "gateway_messages_total", "counter", help, labelled("type", &types));
    let help = "Tokens and users that were refused, by reason.";
    let reasons = app.counters.refusals();
    metric(&mut text, "gateway_refused_total", "counter", help, labelled("reason", &reasons));
    text
}

fn labelled<'a>(
    label: &'a str,
    counts: &'a BTreeMap<&'static str, u64>,
) -> impl Iterator<Item = (String, f64)> + 'a {
    counts.iter().map(move |(value, count)| (format!("{{{label}=\"{value}\"}}"), *count as f64))
}

fn metric<L: Display>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, f64)>,
) {
    // A string takes whatever is written to it.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// `/metrics`, `/healthz` or `/readyz`, by the path at which it is nested. They are answered as well where other
/// requests are refused for want of memory.
///
/// Metrics say how the gateway is used. They are for whoever asks from the machine itself, with no proxy between, and
/// for whoever has the API key, as `X-Api-Key` or as a bearer token.
#[derive(Clone, Debug)]
pub(crate) struct Monitoring(pub(crate) Arc<App>);

impl Monitoring {
    fn answer(&self, request: &Request<'_>) -> Result<Response, Problem> {
        match (request.path(), self.0.handle().readiness()) {
            ("/metrics", _) => self.metrics(request),
            ("/healthz", _) | ("/readyz", Readiness::Ready) => Ok(Response::text("ok\n")),
            ("/readyz", unready) => {
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, unready.to_string()))
            }
            _ => Err(Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")),
        }
    }

    fn metrics(&self, request: &Request<'_>) -> Result<Response, Problem> {
        let is_proxied =
            ["x-forwarded-for", "forwarded"].iter().any(|it| request.header(it).is_some());
        if is_proxied || !request.peer_addr().ip().is_loopback() {
            let token = token_of(request);
            let key = api_key_of(request).or(token.as_deref()).ok_or(Refused::Missing)?;
            if !is_api_key(&self.0, key) {
                return Err(Refused::ApiKey.into());
            }
        }
        let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        let body = prometheus(&self.0).into_bytes();
        Ok(Response::new(StatusCode::OK).with_body(media_type, body))
    }
}

impl Handler for Monitoring {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Problem::new(StatusCode::NOT_FOUND, "there is no WebSocket at this path")
            .into_response()
            .into()
    }

    fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
        let response = match request.method() {
            "GET" | "HEAD" => self.answer(request).into_response(),
            _ => Response::new(StatusCode::METHOD_NOT_ALLOWED)
                .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD")),
        };
        responder.send(fresh(response));
    }

    fn is_monitoring(&mut self, _request: &Request<'_>) -> bool {
        true
    }
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
    fn threads_count_into_one_sum() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counters.message(MessageType::Ping)));
            }
        });
        assert_eq!(counters.messages()["ping"], 4000);
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

    #[test]
    fn the_process_uses_what_it_uses() {
        let before = Process::now();
        let block = vec![1_u8; 32 << 20];
        let sum = || block.iter().map(|it| u64::from(*it)).sum::<u64>();
        while Process::now().cpu < before.cpu + Duration::from_millis(20) {
            assert_eq!(sum(), 32 << 20);
        }
        let now = Process::now();
        assert_eq!(sum(), 32 << 20);
        assert!(now.resident_len >= 32 << 20, "{now:?}");
        assert!(now.cpu < Duration::from_secs(3600), "{now:?}");
    }
}
