//! `ringwire-bench compare-broadcast`: the same broadcasts through several servers, in turn, round after round.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire_examples::CompressionFlag;
use ringwire_examples::units::{parse_bytes, parse_duration};

use super::field::{Field, FieldArgs};
use super::markdown;
use super::results::{CellResult, Load, Results};
use super::servers::Server;
use crate::broadcast::{self, Plan, Report};
use crate::demand::Service;
use crate::endpoint::Endpoint;
use crate::tls::TlsArgs;
use crate::units::show_count;

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

/// What one load is made of.
#[derive(Clone, Copy, Debug)]
struct Cell {
    subscribers: u32,
    window: u32,
    payload_bytes: u64,
}

impl Cell {
    fn load(self) -> Load {
        let Self { subscribers, window, payload_bytes } = self;
        Load::Broadcast { subscribers, window, payload_bytes }
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
        let load = cell.load();
        let servers = field.take_turns(|server, round| {
            let report = args.run(cell, server, &field);
            let report = report.with_context(|| format!("{}, {load}", server.name))?;
            show(&load, round, &server.name, &report);
            Ok(serde_json::to_value(&report)?)
        })?;
        cells.push(CellResult { load, servers });
    }
    let results = Results { head: args.field.head(&args.baseline, args.duration), cells };
    args.field.write(&markdown::page(&results), &results)?;
    Ok(results.is_clean())
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

fn show(load: &Load, round: usize, server: &str, report: &Report) {
    let errors: u64 = report.errors.values().sum();
    let errors = if errors > 0 { format!(", {errors} ERRORS") } else { String::new() };
    crate::output::note(format_args!(
        "{load}, round {round}, {server}: {}/s, {:.2} µs CPU, {:?}{errors}",
        show_count(report.deliveries_per_second),
        report.server_cpu_us_per_delivery.unwrap_or_default(),
        report.bottleneck
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: &str) -> CompareBroadcastArgs {
        crate::flags::parse(flags).unwrap()
    }

    #[test]
    fn every_load_is_a_row() {
        let cells = args("--subscribers 1,10000 --window 1,4 --sizes 64,1KiB").cells();
        let texts: Vec<_> = cells.iter().map(|cell| cell.load().to_string()).collect();
        assert_eq!(texts.len(), 8);
        assert_eq!(texts[..3], ["1 × 1 × 64 B", "1 × 1 × 1 KiB", "1 × 4 × 64 B"]);
    }

    #[test]
    fn baseline_must_take_part() {
        let error = command(args("--baseline floor-epoll")).unwrap_err().to_string();
        assert!(error.contains("none of --servers"), "{error}");
    }
}
