//! `ringwire-bench handshakes`: how many connections a second a server opens, and at what CPU time.
//!
//! A handshake here is TCP, TLS and the upgrade. The same load on ws:// says what of it is not TLS.

use std::collections::BTreeMap;
use std::time::Duration;

use ringwire_examples::units::parse_duration;
use schemars::JsonSchema;
use serde::Serialize;

use crate::demand::Demand;
use crate::disturbance::Disturbance;
use crate::echo::{Bottleneck, Summary, TlsTotals};
use crate::endpoint::{Endpoint, ServerArgs};
use crate::machine;
use crate::output::JsonArgs;
use crate::report::{cpu_rows, last_rows, show_rows};
use crate::scenario::{End, Sessions, SessionsPlan, run_sessions};
use crate::spent::Judged;
#[cfg(test)]
use crate::spent::Spent;
use crate::units::{CpuList, ratio, show_count};

/// Flags of `ringwire-bench handshakes`. With `--resume` the server's tickets are used; what of it was full and
/// what was resumed is in the result.
#[derive(Debug, clap::Args)]
pub(crate) struct HandshakeArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Handshakes at a time. More than 8 are not all resumed with --resume: the client keeps 8 tickets.
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Measured time.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// Time under load before the measured time.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// CPUs for the load, such as 1.
    #[arg(long)]
    cpu: Option<CpuList>,
    /// The longest that one handshake may take.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    json: JsonArgs,
}

/// Runs the subcommand. Whether there were no errors.
pub(crate) fn command(mut args: HandshakeArgs) -> anyhow::Result<bool> {
    let demand = Demand { connections: args.concurrency, ..Demand::default() };
    let endpoint = args.server.open(demand, &mut args.cpu)?;
    machine::pin_load(args.cpu.as_ref())?;
    let plan = SessionsPlan {
        concurrency: args.concurrency,
        messages: 0,
        payload_len: 0,
        end: End::Time { warmup: args.warmup, measured: args.duration },
        timeout: args.timeout,
    };
    let sessions = run_sessions(&endpoint, plan)?;
    let report = Report::new(&endpoint, args.concurrency, sessions);
    args.json.tell(report.table(), &report)?;
    Ok(report.errors.is_empty())
}

/// The result. JSON has these names.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "HandshakeReport")]
pub(crate) struct Report {
    target: String,
    concurrency: u32,
    seconds: f64,
    handshakes: u64,
    pub(crate) handshakes_per_second: f64,
    /// `None` without TLS.
    tls: Option<TlsTotals>,
    /// From connect to open.
    latency_us: Option<Summary>,
    /// `None` where the server's process is not known.
    pub(crate) server_cpu_us_per_handshake: Option<f64>,
    server_utilisation: Option<f64>,
    generator_cpu_us_per_handshake: Option<f64>,
    pub(crate) generator_utilisation: f64,
    pub(crate) bottleneck: Bottleneck,
    /// What else went on; `None` where that cannot be told.
    disturbance: Option<Disturbance>,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Report {
    /// Does the arithmetic.
    pub(crate) fn new(endpoint: &Endpoint, concurrency: u32, sessions: Sessions) -> Self {
        Self::of(endpoint.target.to_string(), concurrency, sessions)
    }

    fn of(target: String, concurrency: u32, sessions: Sessions) -> Self {
        let handshakes = sessions.opened;
        let Judged { seconds, generator, server, disturbance, bottleneck } =
            sessions.spent.judge(handshakes);
        Self {
            target,
            concurrency,
            seconds,
            handshakes,
            handshakes_per_second: ratio(handshakes as f64, seconds),
            tls: sessions.tls.version.map(|_| sessions.tls),
            latency_us: sessions.opening,
            server_cpu_us_per_handshake: server.and_then(|server| server.cpu_us_per_message),
            server_utilisation: server.map(|server| server.utilisation),
            generator_cpu_us_per_handshake: generator.cpu_us_per_message,
            generator_utilisation: generator.utilisation,
            bottleneck,
            disturbance,
            errors: sessions.errors,
        }
    }

    /// Share of the handshakes that were resumed; `None` without TLS.
    pub(crate) fn resumed_share(&self) -> Option<f64> {
        let tls = self.tls?;
        Some(ratio(tls.resumed as f64, (tls.full + tls.resumed) as f64))
    }

    fn table(&self) -> String {
        let mut rows = vec![
            ("target", self.target.clone()),
            ("load", format!("{} at a time, {:.1} s", self.concurrency, self.seconds)),
            ("handshakes", format!("{}/s", show_count(self.handshakes_per_second))),
        ];
        if let Some(tls) = self.tls.and_then(|tls| tls.text()) {
            rows.push(("TLS", tls));
        }
        if let Some(latency) = self.latency_us {
            rows.push(("p50", format!("{:.0} µs", latency.p50)));
            rows.push(("p99", format!("{:.0} µs", latency.p99)));
        }
        rows.extend(cpu_rows(
            ("handshake", 1),
            self.server_cpu_us_per_handshake.zip(self.server_utilisation),
            self.generator_cpu_us_per_handshake.map(|each| (each, self.generator_utilisation)),
        ));
        rows.extend(last_rows(self.bottleneck, self.disturbance, &[], &self.errors));
        show_rows(&rows)
    }
}

/// A report of one second with 1000 handshakes that took the server so long each.
#[cfg(test)]
pub(crate) fn test_report(server_cpu_micros: u64) -> Report {
    let sessions = Sessions {
        opened: 1000,
        // Milliseconds, for a thousand.
        spent: Spent::for_tests(1, &[0], &[server_cpu_micros]),
        ..Sessions::default()
    };
    Report::of(String::new(), 1, sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_divided_by_handshakes() {
        let tls =
            TlsTotals { version: Some("1.3"), cipher_suite: Some("S"), full: 8, resumed: 992 };
        let sessions = Sessions {
            opened: 1000,
            spent: Spent::for_tests(2, &[500], &[0, 1900]),
            tls,
            ..Sessions::default()
        };
        let report = Report::of("wss://a/".to_owned(), 8, sessions);
        assert!((report.handshakes_per_second - 500.0).abs() < 1e-9);
        assert!((report.server_cpu_us_per_handshake.unwrap() - 1900.0).abs() < 1e-9);
        assert!((report.generator_cpu_us_per_handshake.unwrap() - 500.0).abs() < 1e-9);
        assert_eq!(report.bottleneck, Bottleneck::Server);
        let table = report.table();
        assert!((report.resumed_share().unwrap() - 0.992).abs() < 1e-9);
        assert!(table.contains("8 full handshakes, 992 resumed"), "{table}");
        assert!(table.contains("1900.0 µs per handshake, 95 % busy"), "{table}");
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let report = Report::of("ws://a/".to_owned(), 8, Sessions::default());
        assert_eq!((report.server_cpu_us_per_handshake, report.tls), (None, None));
        assert!(report.table().contains("0/s"), "{}", report.table());
    }
}
