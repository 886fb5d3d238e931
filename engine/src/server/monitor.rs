//! What a server says about itself: metrics as Prometheus reads them, and JSON.

use std::fmt::{self, Write as _};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use ringwire_codec::http::Response;

use crate::app::router::{Router, SocketRoutes};
use crate::compute::Times;
use crate::limits::Readiness;
use crate::metrics::{ClusterStats, Stats};
use crate::server::exposition::{MetricsText, ProcessStats};
use crate::server::handle::Handle;

/// Prometheus' text format 0.0.4.
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Answers are of this moment.
const NOT_STORED: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

impl<S: SocketRoutes> Router<S> {
    /// Adds what monitoring and balancers ask for:
    ///
    /// | path | answer |
    /// |---|---|
    /// | `/metrics` | [`Stats::prometheus`], and [`ProcessStats`] |
    /// | `/stats` | [`Stats::json`] |
    /// | `/healthz` | 200: the worker that answers is alive |
    /// | `/readyz` | 200, or 503 while the server is draining, short of memory, or apart: [`Readiness`] |
    ///
    /// These are answered as well where others are refused for want of memory.
    ///
    /// They say how the server is used, so they are for a port that the internet does not reach, or behind a proxy
    /// that keeps them back, or behind a [guard](Self::guard).
    ///
    /// # Panics
    /// A path is in conflict with another one.
    #[must_use]
    pub fn monitoring(self, handle: &Handle) -> Self {
        self.monitoring_with(handle, |_| {})
    }

    /// The same, with metrics of the application's own: `more` writes them behind those of the engine and the process.
    ///
    /// ```
    /// use ringwire::{Handle, Router, StatusCode};
    ///
    /// fn routes(handle: &Handle) -> impl ringwire::Handler + use<> {
    ///     Router::new()
    ///         .monitoring_with(handle, |text| text.gauge("chat_rooms", "Rooms with members.", 3.0))
    ///         .guard("/metrics", |request| match request.peer_addr().ip().is_loopback() {
    ///             true => Ok(()),
    ///             false => Err(StatusCode::FORBIDDEN),
    ///         })
    /// }
    /// ```
    ///
    /// # Panics
    /// A path is in conflict with another one.
    #[must_use]
    pub fn monitoring_with(
        self,
        handle: &Handle,
        more: impl Fn(&mut MetricsText) + 'static,
    ) -> Self {
        let (metrics, stats, readiness) = (handle.clone(), handle.clone(), handle.clone());
        self.get("/metrics", move |_| {
            let mut text = metrics.stats().metrics();
            ProcessStats::now().write(&mut text);
            more(&mut text);
            let body = text.into_string().into_bytes();
            fresh(Response::new(StatusCode::OK).with_body(PROMETHEUS, body))
        })
        .get("/stats", move |_| fresh(Response::json(stats.stats().json())))
        .get("/healthz", |_| fresh(Response::text("ok\n")))
        .get("/readyz", move |_| {
            let readiness = readiness.readiness();
            fresh(Response::text(format!("{readiness}\n")).with_status(match readiness {
                Readiness::Ready => StatusCode::OK,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            }))
        })
        .answered_always(&["/metrics", "/stats", "/healthz", "/readyz"])
    }
}

fn fresh(response: Response) -> Response {
    let (name, value) = NOT_STORED;
    response.with_header(name, value)
}

impl Stats {
    /// The metrics in Prometheus' text format (0.0.4): what workers count has the label `worker`, and `reason` for
    /// connections that ended; times are in seconds, lengths in bytes.
    pub fn prometheus(&self) -> String {
        self.metrics().into_string()
    }

    fn metrics(&self) -> MetricsText {
        let mut text = Text(MetricsText::with_capacity(16 << 10));
        self.write_workers(&mut text);
        let topics = self.topics.retained_len as f64;
        text.metric(
            "retained_bytes",
            "gauge",
            "Memory in publications that are under way or wait.",
        );
        text.sample("retained_bytes", &[], topics);
        let help = "Memory in what topics keep for connections that come back.";
        text.metric("history_bytes", "gauge", help);
        text.sample("history_bytes", &[], self.topics.history_len as f64);
        text.metric(
            "memory_used_bytes",
            "gauge",
            "Memory that is held for connections, publications that wait or are kept included.",
        );
        text.sample("memory_used_bytes", &[], self.memory.used_len as f64);
        if let Some(budget) = self.memory.budget_len {
            text.metric("memory_budget_bytes", "gauge", "How much that may be.");
            text.sample("memory_budget_bytes", &[], budget as f64);
        }
        text.counter("tls_reloads", "Times that certificates were replaced.", self.tls.reloads);
        text.counter(
            "tls_reload_failures",
            "Times that they were not, since something was wrong with the new ones.",
            self.tls.reload_failures,
        );
        if let Some(not_after) = self.tls.not_after {
            let help = "When the first certificate in use expires, in seconds since 1970.";
            text.metric("certificate_not_after_seconds", "gauge", help);
            text.sample("certificate_not_after_seconds", &[], not_after as f64);
        }
        if self.compute.threads > 0 {
            self.write_compute(&mut text);
        }
        if let Some(cluster) = &self.cluster {
            write_cluster(&mut text, cluster);
        }
        text.0
    }

    /// The same as JSON: an object with `workers`, an array of objects, `total`, their sum, and members for what is not
    /// counted by worker.
    pub fn json(&self) -> String {
        let workers: Vec<String> = self.workers.iter().map(json_of).collect();
        let not_after = self.tls.not_after.map_or_else(|| "null".to_owned(), |at| at.to_string());
        let cluster = self.cluster.as_ref().map_or_else(|| "null".to_owned(), cluster_json);
        let budget = self.memory.budget_len;
        let budget = budget.map_or_else(|| "null".to_owned(), |len| len.to_string());
        format!(
            "{{\"workers\":[{}],\"total\":{},\"imbalance\":{:.3},\"retained_bytes\":{},\
             \"history_bytes\":{},\
             \"memory\":{{\"used\":{},\"budget\":{budget}}},\"tls\":{{\"reloads\":{},\
             \"reload_failures\":{},\"not_after\":{not_after}}},\"compute\":{{\"threads\":{},\"waiting\":{},\
             \"running\":{},\"done\":{},\"panicked\":{},\"cancelled\":{},\"refused\":{}}},\"cluster\":{cluster}}}",
            workers.join(","),
            json_of(&self.total()),
            self.imbalance(),
            self.topics.retained_len,
            self.topics.history_len,
            self.memory.used_len,
            self.tls.reloads,
            self.tls.reload_failures,
            self.compute.threads,
            self.compute.waiting,
            self.compute.running,
            self.compute.done,
            self.compute.panicked,
            self.compute.cancelled,
            self.compute.refused,
        )
    }

    fn write_workers(&self, text: &mut Text) {
        let rows: Vec<Vec<_>> = self.workers.iter().map(|stats| stats.fields().collect()).collect();
        let Some(first) = rows.first() else { return };
        for (index, (name, doc, _)) in first.iter().enumerate() {
            let is_gauge = doc.trim_start().starts_with("Gauge:");
            let kind = if is_gauge { "gauge" } else { "counter" };
            let name = if is_gauge { (*name).to_owned() } else { format!("{name}_total") };
            text.metric(&name, kind, &help(doc));
            for (worker, row) in rows.iter().enumerate() {
                let (.., value) = row[index];
                text.sample(&name, &[("worker", &worker)], value as f64);
            }
        }
        text.metric("closes_total", "counter", "Connections that ended, by what ended them.");
        for (worker, stats) in self.workers.iter().enumerate() {
            for (reason, count) in stats.closes.iter() {
                text.sample(
                    "closes_total",
                    &[("worker", &worker), ("reason", &reason)],
                    count as f64,
                );
            }
        }
        text.metric("longest_turn_seconds", "gauge", "The longest that one turn of the loop took.");
        for (worker, stats) in self.workers.iter().enumerate() {
            let longest = stats.longest_turn.as_secs_f64();
            text.sample("longest_turn_seconds", &[("worker", &worker)], longest);
        }
    }

    fn write_compute(&self, text: &mut Text) {
        let compute = &self.compute;
        for (name, help, value) in [
            ("compute_threads", "Threads beside the workers.", compute.threads),
            ("compute_waiting", "Jobs that wait for one of them.", compute.waiting),
            ("compute_running", "Jobs that run.", compute.running),
        ] {
            text.metric(name, "gauge", help);
            text.sample(name, &[], value as f64);
        }
        text.counter("compute_done", "Jobs that ran to their end.", compute.done);
        text.counter("compute_panicked", "Jobs that panicked.", compute.panicked);
        text.counter("compute_cancelled", "Jobs whose connection had ended.", compute.cancelled);
        text.counter("compute_refused", "Jobs for which there was no room.", compute.refused);
        text.histogram("compute_wait_seconds", "How long jobs waited.", &compute.wait);
        text.histogram("compute_run_seconds", "How long jobs ran.", &compute.run);
    }
}

/// The numbers of a cluster: name, whether it is a gauge, what it says, value.
fn cluster_fields(cluster: &ClusterStats) -> [(&'static str, bool, &'static str, f64); 12] {
    let count = |value: u64| value as f64;
    let connected = f64::from(u8::from(cluster.is_connected));
    [
        ("connected", true, "1 if there is a connection to the other nodes, else 0.", connected),
        ("subscriptions", true, "Topics and patterns brought here.", count(cluster.subscriptions)),
        ("outgoing_bytes", true, "Publications that wait to leave.", cluster.outgoing_len as f64),
        ("held_bytes", true, "Publications that wait for others.", count(cluster.held_len)),
        ("sent", false, "Publications given to the bus.", count(cluster.sent)),
        (
            "outgoing_dropped",
            false,
            "Publications that found no room to wait for the bus.",
            count(cluster.outgoing_dropped),
        ),
        (
            "undeliverable",
            false,
            "Publications that the bus could not send.",
            count(cluster.undeliverable),
        ),
        ("received", false, "Publications from other nodes.", count(cluster.received)),
        (
            "incoming_dropped",
            false,
            "Publications from other nodes that a worker was too far behind for.",
            count(cluster.incoming_dropped),
        ),
        ("missed", false, "Publications that were lost between nodes.", count(cluster.missed)),
        (
            "passed_over",
            false,
            "Publications that came a second time, or too late.",
            count(cluster.passed_over),
        ),
        ("malformed", false, "What no node of this version sends.", count(cluster.malformed)),
    ]
}

fn write_cluster(text: &mut Text, cluster: &ClusterStats) {
    for (name, is_gauge, help, value) in cluster_fields(cluster) {
        let (kind, end) = if is_gauge { ("gauge", "") } else { ("counter", "_total") };
        let name = format!("cluster_{name}{end}");
        text.metric(&name, kind, help);
        text.sample(&name, &[], value);
    }
}

fn cluster_json(cluster: &ClusterStats) -> String {
    let fields = cluster_fields(cluster);
    let fields: Vec<_> =
        fields.iter().map(|(name, _, _, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn json_of(stats: &crate::metrics::WorkerStats) -> String {
    let mut json = String::from("{");
    for (name, _, value) in stats.fields() {
        let _ = write!(json, "\"{name}\":{value},");
    }
    let _ = write!(json, "\"longest_turn_us\":{},\"closes\":{{", stats.longest_turn.as_micros());
    let closes = stats.closes.iter().map(|(reason, count)| format!("\"{reason}\":{count}"));
    let closes: Vec<_> = closes.collect();
    json + &closes.join(",") + "}}"
}

/// A counter's documentation up to its first link, in one line.
fn help(doc: &str) -> String {
    let line = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = line.split(" ([").next().unwrap_or_default();
    plain.strip_prefix("Gauge: ").unwrap_or(plain).replace('`', "")
}

/// The engine's own metrics, whose names begin with that of the engine.
struct Text(MetricsText);

impl Text {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.0.family(&format!("ringwire_{name}"), kind, help);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn fmt::Display)], value: f64) {
        self.0.sample(&format!("ringwire_{name}"), labels, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = format!("{name}_total");
        self.metric(&name, "counter", help);
        self.sample(&name, &[], value as f64);
    }

    fn histogram(&mut self, name: &str, help: &str, times: &Times) {
        self.metric(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        let (last, bounded) =
            times.counts.split_last().map_or((0, &[][..]), |(last, rest)| (*last, rest));
        for (exponent, count) in (0_u32..).zip(bounded) {
            sum += count;
            let bound = Duration::from_micros(1 << exponent).as_secs_f64();
            self.sample(&bucket, &[("le", &bound)], sum as f64);
        }
        self.sample(&bucket, &[("le", &"+Inf")], (sum + last) as f64);
        self.sample(&format!("{name}_sum"), &[], times.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], (sum + last) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::cause::Closes;
    use crate::metrics::WorkerStats;

    fn stats() -> Stats {
        let mut worker =
            WorkerStats { connections: 3, messages_received: 10, ..Default::default() };
        worker.closes = Closes::from_fn(|index| if index == 0 { 7 } else { 0 });
        worker.longest_turn = Duration::from_micros(250);
        let mut stats = Stats { workers: vec![worker.clone(), worker], ..Stats::default() };
        stats.compute.threads = 1;
        stats.compute.wait.counts[0] = 2;
        stats.compute.wait.counts[5] = 1;
        stats.tls.not_after = Some(1_800_000_000);
        stats.memory.used_len = 1000;
        stats.memory.budget_len = Some(4000);
        stats.cluster =
            Some(ClusterStats { is_connected: true, missed: 5, ..ClusterStats::default() });
        stats
    }

    #[test]
    fn metrics_of_each_worker() {
        let text = stats().prometheus();
        for line in [
            "# TYPE ringwire_connections gauge",
            "# HELP ringwire_connections sockets that the worker owns, in whatever state.",
            "ringwire_connections{worker=\"1\"} 3",
            "# TYPE ringwire_messages_received_total counter",
            "ringwire_messages_received_total{worker=\"0\"} 10",
            "ringwire_longest_turn_seconds{worker=\"0\"} 0.00025",
            "ringwire_certificate_not_after_seconds 1800000000",
            "ringwire_memory_used_bytes 1000",
            "ringwire_cluster_connected 1",
            "# TYPE ringwire_cluster_missed_total counter",
            "ringwire_cluster_missed_total 5",
            "ringwire_memory_budget_bytes 4000",
            "ringwire_compute_wait_seconds_bucket{le=\"0.000001\"} 2",
            "ringwire_compute_wait_seconds_bucket{le=\"+Inf\"} 3",
            "ringwire_compute_wait_seconds_count 3",
        ] {
            assert!(text.lines().any(|each| each == line), "{line}\n{text}");
        }
        let closes = "ringwire_closes_total{worker=\"0\",reason=\"peer\"} 7";
        assert!(text.contains(closes), "{closes}");
    }

    /// The dashboard and the alarms in deploy/ ask for metrics, and for ends by reasons, that there are.
    #[test]
    fn what_operators_are_given_names_metrics_that_exist() {
        let metrics = stats().prometheus();
        let exists = |name: &str| {
            metrics.lines().any(|line| {
                line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
            })
        };
        let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
        for file in ["grafana.json", "alerts.yml"] {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/").to_owned() + file;
            let text = std::fs::read_to_string(&path).expect("it is in the repository");
            let mut names =
                text.split(|char| !is_part(char)).filter(|word| word.starts_with("ringwire_"));
            let unknown: Vec<_> = names.by_ref().filter(|name| !exists(name)).collect();
            assert!(unknown.is_empty(), "{file}: {unknown:?}");
            assert!(text.matches("ringwire_").count() > 5, "{file} asks for something");
            let reasons =
                text.split("reason=~\"").skip(1).filter_map(|rest| rest.split('"').next());
            for reason in reasons.flat_map(|reasons| reasons.split('|')) {
                assert!(metrics.contains(&format!("reason=\"{reason}\"")), "{file}: {reason}");
            }
        }
        let text = include_str!("../../../deploy/grafana.json");
        serde_json::from_str::<serde_json::Value>(text).expect("it is JSON");
    }

    /// Every sample follows the type of its metric, names are of the right characters, and none comes twice.
    #[test]
    fn the_text_is_well_formed() {
        let text = stats().prometheus();
        let (mut metric, mut seen) = (String::new(), std::collections::HashSet::new());
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.split(' ');
                let (kind, name) = (words.next().unwrap(), words.next().unwrap());
                assert!(matches!(kind, "HELP" | "TYPE"), "{line}");
                name.clone_into(&mut metric);
                assert!(seen.insert((kind.to_owned(), name.to_owned())), "twice: {line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = series.split('{').next().unwrap();
            assert!(name.starts_with(&metric), "{line} under {metric}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            assert!(seen.insert(("sample".to_owned(), series.to_owned())), "twice: {line}");
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn the_same_as_json() {
        let json: serde_json::Value = serde_json::from_str(&stats().json()).unwrap();
        assert_eq!(json["workers"][1]["connections"], 3);
        assert_eq!(json["total"]["messages_received"], 20);
        assert_eq!(json["total"]["closes"]["peer"], 14);
        assert_eq!(json["memory"]["used"], 1000);
        assert_eq!(json["memory"]["budget"], 4000);
        assert_eq!(json["compute"]["threads"], 1);
        assert_eq!(json["tls"]["not_after"], 1_800_000_000);
        assert_eq!(json["cluster"]["missed"], 5);
        assert_eq!(json["cluster"]["connected"], 1);
    }
}
