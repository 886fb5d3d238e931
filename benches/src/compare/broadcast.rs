//! `ringwire-bench compare-broadcast`: the same broadcasts through several servers, in turn, round after round.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire_examples::CompressionFlag;
use ringwire_examples::units::{parse_bytes, parse_duration};
use serde::Serialize;

use super::TestCertificate;
use super::child::Running;
use super::markdown::{Head, marks_explained, matrix, show_ratio};
use super::servers::{Places, Server};
use super::summary::{CellResult, Metric, Run, ServerRuns};
use crate::broadcast::{self, Plan, Report};
use crate::echo::Bottleneck;
use crate::endpoint::Service;
use crate::procstat::Account;
use crate::target::Target;
use crate::tls::TlsArgs;
use crate::units::{CpuList, show_bytes, show_count};
use crate::{machine, output, report};

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
    /// Rounds.
    #[arg(long, default_value = "4")]
    rounds: usize,
    /// Measured time of a run.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    duration: Duration,
    /// Time under load before it.
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    warmup: Duration,
    /// CPUs of the servers.
    #[arg(long, default_value = "0")]
    server_cpu: CpuList,
    /// CPUs of the load.
    #[arg(long, default_value = "1")]
    load_cpu: CpuList,
    /// Folder of Ringwire's programs; by default the one of this program.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Folder of other projects' servers.
    #[arg(long, default_value = "benches/peers")]
    peers_dir: PathBuf,
    /// Writes all runs as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Writes the tables as Markdown; they are printed in any case.
    #[arg(long, value_name = "FILE")]
    markdown: Option<String>,
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
pub(crate) fn command(args: &CompareBroadcastArgs) -> anyhow::Result<bool> {
    if !args.servers.contains(&args.baseline) {
        bail!("--baseline {} is none of --servers", args.baseline);
    }
    let places = Places::new(args.bin_dir.clone(), args.peers_dir.clone())?;
    let (service, compression) = (Service::Broadcast, CompressionFlag::Off);
    let servers = args.servers.iter().map(|name| Server::find(name, service, compression, &places));
    let servers: Vec<Server> = servers.collect::<anyhow::Result<_>>()?;
    let certificate = match servers.iter().any(|server| server.secure) {
        true => Some(TestCertificate::make()?),
        false => None,
    };
    machine::pin_thread(&args.load_cpu.0).context("cannot pin to --load-cpu")?;
    let mut cells = Vec::new();
    for cell in args.cells() {
        cells.push(args.run_cell(cell, &servers, certificate.as_ref())?);
    }
    let comparison = Comparison { head: args.head(), cells };
    let page = page(&comparison.head, &args.servers, &comparison.cells);
    println!("{page}");
    if let Some(file) = &args.markdown {
        output::write_text(file, &page)?;
    }
    if let Some(file) = &args.json {
        output::write_json(file, &comparison)?;
    }
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

    fn run_cell(
        &self,
        cell: Cell,
        servers: &[Server],
        certificate: Option<&TestCertificate>,
    ) -> anyhow::Result<Result> {
        let named = |server: &Server| ServerRuns { server: server.name.clone(), runs: Vec::new() };
        let mut results: Vec<ServerRuns<Report>> = servers.iter().map(named).collect();
        for round in 1..=self.rounds {
            for (server, result) in servers.iter().zip(&mut results) {
                let run = self.run(cell, server, certificate);
                let report = run.with_context(|| format!("{}, {cell}", server.name))?;
                show(cell, round, &server.name, &report);
                result.runs.push(report);
            }
        }
        Ok(CellResult { cell, servers: results })
    }

    fn run(
        &self,
        cell: Cell,
        server: &Server,
        certificate: Option<&TestCertificate>,
    ) -> anyhow::Result<Report> {
        let files = certificate.map(|certificate| &certificate.files);
        let running = Running::start(server, &self.server_cpu.0, files)?;
        let target = Target::from_url(&server.url(running.address()))?;
        let tls = match certificate {
            Some(certificate) => TlsArgs::default().client_of(&target, &certificate.pem)?,
            None => None,
        };
        broadcast::run(&Plan {
            target,
            tls,
            server: Some(Account::Process(running.pid())),
            subscribers: cell.subscribers,
            payload_len: usize::try_from(cell.payload_bytes).unwrap_or(usize::MAX),
            window: cell.window as usize,
            duration: self.duration,
            warmup: self.warmup,
            patience: PATIENCE,
        })
    }

    fn head(&self) -> Head {
        Head {
            machine: machine::describe(),
            date: report::today(),
            command: report::command_line(),
            baseline: self.baseline.clone(),
            rounds: self.rounds,
            seconds_per_run: self.duration.as_secs_f64(),
        }
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
        let error = command(&args("--baseline floor-epoll")).unwrap_err().to_string();
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
        let head = Head { baseline: "base".to_owned(), ..args("").head() };
        let page = page(&head, &names, &[CellResult { cell, servers }]);
        assert!(page.contains("| 100 × 1 × 64 B | 1.25 (1.00–1.50) |"), "{page}");
        assert!(page.contains("| 100 × 1 × 64 B | 150.00 | 175.00 |"), "{page}");
        assert!(page.contains("| 100 × 1 × 64 B | 1 000 | 1 000 |"), "{page}");
    }
}
