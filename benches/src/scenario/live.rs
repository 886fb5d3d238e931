//! What a run has counted so far, for Prometheus (text format 0.0.4), on a port of its own while the run goes on.
#![expect(clippy::disallowed_types, reason = "a scrape and the conductor meet once a second")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use ringwire::tuning::Pinning;
use ringwire::{Config, HeaderValue, Response, Router, Running, Server, StatusCode};

use super::plan::Pulse;
use super::tally::Tally;
use crate::echo::Latencies;

/// Upper ends of the buckets of latency, in seconds.
const BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The port. Dropping it closes it.
pub(super) struct Live {
    running: Option<Running>,
    text: Arc<Mutex<String>>,
}

impl Live {
    /// Answers `/metrics` at `address`.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub(super) fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let text = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&text);
        let config = Config::default().with_io_workers(1).with_pinning(Pinning::Off);
        let running = Server::new(config).listen(address.to_string()).start(move |_worker| {
            let shown = Arc::clone(&shown);
            Router::new().get("/metrics", move |_| {
                let text = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                Response::new(StatusCode::OK).with_body(format, text.into_bytes())
            })
        });
        let running = running.context("cannot listen at --metrics")?;
        for address in running.local_addrs() {
            crate::output::note(format_args!("metrics at http://{address}/metrics"));
        }
        Ok(Self { running: Some(running), text })
    }

    /// Shows what a run has counted.
    pub(super) fn show(&self, scenario: &str, sum: Pulse, total: &Tally) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text(scenario, sum, total);
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.handle().shutdown(Duration::ZERO);
            let _ = running.join();
        }
    }
}

fn text(scenario: &str, sum: Pulse, total: &Tally) -> String {
    let Pulse { opened, closed, failed, sent, answered } = sum;
    let mut text = String::new();
    let metrics = [
        ("connections", "gauge", "Connections that are open.", opened.saturating_sub(closed)),
        ("connections_opened_total", "counter", "Connections that became open.", opened),
        ("messages_sent_total", "counter", "Messages given to a connection.", sent),
        ("replies_total", "counter", "Messages whose reply was right.", answered),
        ("failures_total", "counter", "What went wrong, of all kinds.", failed),
    ];
    for (name, kind, help, value) in metrics {
        let _ = writeln!(
            text,
            "# HELP ringwire_bench_{name} {help}\n# TYPE ringwire_bench_{name} {kind}\n\
             ringwire_bench_{name}{{scenario=\"{scenario}\"}} {value}"
        );
    }
    histogram(
        &mut text,
        scenario,
        "connect_seconds",
        "Time of a connect, handshake included.",
        &total.connect,
    );
    histogram(
        &mut text,
        scenario,
        "latency_seconds",
        "Time from a message to its reply.",
        &total.latency,
    );
    text
}

fn histogram(text: &mut String, scenario: &str, name: &str, help: &str, sample: &Latencies) {
    let name = format!("ringwire_bench_{name}");
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    let counts = sample.micros();
    for end in BUCKETS {
        let below: u64 =
            counts.iter().filter(|(micros, _)| micros / 1e6 <= end).map(|(_, count)| count).sum();
        let _ = writeln!(text, "{name}_bucket{{scenario=\"{scenario}\",le=\"{end}\"}} {below}");
    }
    let count: u64 = counts.iter().map(|(_, count)| count).sum();
    let seconds: f64 = counts.iter().map(|(micros, count)| micros / 1e6 * *count as f64).sum();
    let _ = writeln!(
        text,
        "{name}_bucket{{scenario=\"{scenario}\",le=\"+Inf\"}} {count}\n{name}_sum{{scenario=\"{scenario}\"}} {seconds}\n\
         {name}_count{{scenario=\"{scenario}\"}} {count}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_buckets_are_those_of_the_run() {
        let mut total = Tally::default();
        for millis in [1_u64, 3, 300] {
            total.latency.record_nanos(millis * 1_000_000);
        }
        let pulse = Pulse { opened: 5, closed: 2, failed: 1, sent: 4, answered: 3 };
        let text = text("rate", pulse, &total);
        for line in [
            "ringwire_bench_connections{scenario=\"rate\"} 3",
            "ringwire_bench_failures_total{scenario=\"rate\"} 1",
            "ringwire_bench_latency_seconds_bucket{scenario=\"rate\",le=\"0.0005\"} 0",
            "ringwire_bench_latency_seconds_bucket{scenario=\"rate\",le=\"0.005\"} 2",
            "ringwire_bench_latency_seconds_bucket{scenario=\"rate\",le=\"+Inf\"} 3",
            "ringwire_bench_latency_seconds_count{scenario=\"rate\"} 3",
            "ringwire_bench_connect_seconds_count{scenario=\"rate\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap();
            assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1, "{line}");
        }
    }
}
