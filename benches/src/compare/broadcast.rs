//! `ringwire-bench compare-broadcast`: the same broadcasts through several servers, in turn, round after round.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire_examples::CompressionFlag;
use ringwire_examples::units::{parse_bytes, parse_duration};
use serde::Serialize;

use super::field::{Field, FieldArgs};
use super::markdown::{Head, marks_explained, matrix, show_ratio};
use super::servers::Server;
use super::summary::{CellResult, Metric, Run};
use crate::broadcast::{self, Plan, Report};
use crate::demand::Service;
use crate::echo::Bottleneck;
use crate::endpoint::Endpoint;
use crate::tls::TlsArgs;
use crate::units::{show_bytes, show_count};

/// The longest that a message may take to get to everyone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Flags of `ringwire-bench compare-broadcast`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareBroadcastArgs {
    /// Servers, in the order of their turns. With -tls behind its name a server speaks TLS.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "ringwire-epoll,ringwire-uring,tokio-tungstenite,sockudo-ws,bun"
    )]
    servers: Vec<String>,
    /// The server that the others are compared with.
    #[arg(long, default_value = "ringwire-epoll")]
    baseline: String,
    /// Numbers of subscribers.
    #[arg(long, value_delimiter = ',', default_value = "1,100,10000", value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: Vec<u32>,
    /// Payloads.
    #[arg(long, value_delimiter = ',', default_value = "64,1KiB", value_parser = parse_bytes)]
    sizes: Vec<u64>,
    /// Messages on their way at a time.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    window: Vec<u32>,
    /// Measured time of a run.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    duration: Duration,
    /// Time under load before it.
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    warmup: Duration,
    #[command(flatten)]
    field: FieldArgs,
}

/// One load, as a row of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Cell {
    subscribers: u32,
    window: u32,
    payload_bytes: u64,
}

/// How a value is written.
type Show = fn(f64) -> String;

/// All runs of one load.
type Result = CellResult<Cell, Report>;

/// All of a comparison, for JSON.
#[derive(Debug, Serialize)]
struct Comparison {
    #[serde(flatten)]
    head: Head,
    cells: Vec<Result>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = show_bytes(self.payload_bytes as f64);
        write!(f, "{} × {} × {size}", self.subscribers, self.window)
    }
}

impl Run for Report {
    fn bottleneck(&self) -> Bottleneck {
        self.bottleneck
    }

    fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }
}

/// Runs the subcommand. Whether there were no errors.
pub(crate) fn command(mut args: CompareBroadcastArgs) -> anyhow::Result<bool> {
    args.field.add_peers(&mut args.servers);
    let args = &args;
    if !args.servers.contains(&args.baseline) {
        bail!("--baseline {} is none of --servers", args.baseline);
    }
    let field = args.field.find(&args.servers, Service::Broadcast, CompressionFlag::Off)?;
    args.field.pin_load()?;
    let mut cells = Vec::new();
    for cell in args.cells() {
        let servers = field.take_turns(|server, round| {
            let report = args.run(cell, server, &field);
            let report = report.with_context(|| format!("{}, {cell}", server.name))?;
            show(cell, round, &server.name, &report);
            Ok(report)
        });
        cells.push(CellResult { cell, servers: servers? });
    }
    let comparison = Comparison { head: args.field.head(&args.baseline, args.duration), cells };
    let page = page(&comparison.head, &args.servers, &comparison.cells);
    args.field.write(&page, &comparison)?;
    let mut all = comparison.cells.iter().flat_map(|cell| &cell.servers);
    Ok(all.all(|server| server.errors() == 0))
}

impl CompareBroadcastArgs {
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &subscribers in &self.subscribers {
            for &window in &self.window {
                let sizes = self.sizes.iter();
                cells.extend(sizes.map(|&payload_bytes| Cell {
                    subscribers,
                    window,
                    payload_bytes,
                }));
            }
        }
        cells
    }

    fn run(&self, cell: Cell, server: &Server, field: &Field) -> anyhow::Result<Report> {
        let (_running, endpoint) = field.start(server, &TlsArgs::default())?;
        let Endpoint { target, tls, account, .. } = endpoint;
        broadcast::run(&Plan {
            target,
            tls,
            server: account,
            subscribers: cell.subscribers,
            payload_len: usize::try_from(cell.payload_bytes).unwrap_or(usize::MAX),
            text: None,
            window: cell.window as usize,
            duration: self.duration,
            warmup: self.warmup,
            patience: PATIENCE,
        })
    }
}

fn show(cell: Cell, round: usize, server: &str, report: &Report) {
    let errors: u64 = report.errors.values().sum();
    let errors = if errors > 0 { format!(", {errors} ERRORS") } else { String::new() };
    eprintln!(
        "{cell}, round {round}, {server}: {}/s, {:.2} µs CPU, {:?}{errors}",
        show_count(report.deliveries_per_second),
        report.server_cpu_us_per_delivery.unwrap_or_default(),
        report.bottleneck
    );
}

fn page(head: &Head, servers: &[String], cells: &[Result]) -> String {
    let mut page = String::new();
    let Head { machine, date, command, baseline, rounds, seconds_per_run } = head;
    let _ = writeln!(page, "{machine}. {date}.\n\n```\n{command}\n```\n");
    let _ = writeln!(
        page,
        "Each load is subscribers × messages on their way × payload. {rounds} rounds of {seconds_per_run} s, interleaved. \
         Medians; a ratio is taken within a round, and its lowest and highest value follow in brackets.\n\n{}\n",
        marks_explained("deliveries")
    );
    let others: Vec<String> = servers.iter().filter(|name| *name != baseline).cloned().collect();
    let ratios: [(&str, Metric<Report>); 2] = [
        ("Server CPU time per delivery", |run| run.server_cpu_us_per_delivery),
        ("Deliveries per second", |run| Some(run.deliveries_per_second)),
    ];
    for (title, metric) in ratios {
        let title = format!("{title}, as a ratio to {baseline}");
        matrix(&mut page, &title, &others, cells, |cell, name| {
            cell.ratio(name, baseline, metric).map(|ratio| show_ratio(&ratio))
        });
    }
    let absolute: [(&str, Metric<Report>, Show); 5] = [
        (
            "Server CPU time per delivery, µs",
            |run| run.server_cpu_us_per_delivery,
            |value| format!("{value:.2}"),
        ),
        ("Deliveries per second", |run| Some(run.deliveries_per_second), show_count),
        ("Latency of the last delivery p50, µs", |run| Some(run.latency_us?.p50), show_count),
        ("Latency of the last delivery p99, µs", |run| Some(run.latency_us?.p99), show_count),
        ("Latency of the last delivery p99.9, µs", |run| Some(run.latency_us?.p999), show_count),
    ];
    for (title, metric, show) in absolute {
        matrix(&mut page, title, servers, cells, |cell, name| {
            cell.of(name)?.spread(metric).map(|spread| show(spread.median))
        });
    }
    page
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::summary::ServerRuns;
    use super::*;
    use crate::broadcast::test_report;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        args: CompareBroadcastArgs,
    }

    fn args(flags: &str) -> CompareBroadcastArgs {
        Flags::parse_from(["compare"].into_iter().chain(flags.split_whitespace())).args
    }

    #[test]
    fn every_load_is_a_row() {
        let cells = args("--subscribers 1,10000 --window 1,4 --sizes 64,1KiB").cells();
        let texts: Vec<_> = cells.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 8);
        assert_eq!(texts[..3], ["1 × 1 × 64 B", "1 × 1 × 1 KiB", "1 × 4 × 64 B"]);
    }

    #[test]
    fn baseline_must_take_part() {
        let error = command(args("--baseline floor-epoll")).unwrap_err().to_string();
        assert!(error.contains("none of --servers"), "{error}");
    }

    #[test]
    fn ratios_are_of_the_cpu_time_of_a_delivery() {
        let runs = |server: &str, micros: &[u64]| ServerRuns {
            server: server.to_owned(),
            runs: micros.iter().map(|&micros| test_report(micros)).collect(),
        };
        let cell = Cell { subscribers: 100, window: 1, payload_bytes: 64 };
        let servers = vec![runs("base", &[100, 200]), runs("other", &[150, 200])];
        let names = ["base".to_owned(), "other".to_owned()];
        let head = args("").field.head("base", Duration::from_secs(2));
        let page = page(&head, &names, &[CellResult { cell, servers }]);
        assert!(page.contains("| 100 × 1 × 64 B | 1.25 (1.00–1.50) |"), "{page}");
        assert!(page.contains("| 100 × 1 × 64 B | 150.00 | 175.00 |"), "{page}");
        assert!(page.contains("| 100 × 1 × 64 B | 1 000 | 1 000 |"), "{page}");
    }
}
