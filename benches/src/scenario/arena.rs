//! `ringwire-bench arena`: the profile echo-ws of HttpArena.
#![expect(clippy::disallowed_methods, reason = "rests between two runs")]

use std::thread;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use ringwire_examples::units::parse_duration;
use serde::Serialize;

use super::conductor::Watch;
use super::plan::Work;
use super::report::{self, Report, show_micros};
use super::{Common, Scenario};
use crate::units::show_count;

/// Bytes of a message, as those of "hello".
const SIZE: u64 = 5;
/// What a table has where there is nothing to be told.
const NOTHING: &str = "–";

/// Flags of `ringwire-bench arena`. The defaults are those of the profile.
#[derive(Debug, clap::Args)]
pub(crate) struct ArenaArgs {
    #[command(flatten)]
    common: Common,
    /// Connections, one row for each.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "512,4096,16384",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    connections: Vec<u32>,
    /// Time for which messages are sent in a run.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    duration: Duration,
    /// Runs of which the best counts.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Rest between two runs.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    rest: Duration,
    /// Connects outstanding at a time.
    #[arg(long, default_value = "512", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: u32,
    /// Time for one connection to become open.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// A reply that takes longer is an error.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    response_timeout: Duration,
}

/// A number of connections, and the runs with it. JSON has these names.
#[derive(Debug, Serialize)]
struct Row {
    connections: u32,
    /// Which of the runs had most messages a second, from 0.
    best: usize,
    best_messages_per_second: f64,
    runs: Vec<Report>,
}

/// Runs the subcommand; whether no condition failed in any run.
pub(crate) fn command(mut args: ArenaArgs) -> anyhow::Result<bool> {
    args.common.text = true;
    let mut rows = Vec::new();
    let mut is_first = true;
    for connections in args.connections.clone() {
        let mut runs = Vec::new();
        for _ in 0..args.runs {
            if !std::mem::take(&mut is_first) {
                thread::sleep(args.rest);
            }
            runs.push(args.common.run(&args.scenario(connections))?);
        }
        rows.push(Row::new(connections, runs));
    }
    if args.common.json.as_deref() != Some("-") {
        println!("{}", text(&rows));
    }
    let runs = || rows.iter().flat_map(|row| &row.runs);
    args.common.write(&rows, || report::page(runs(), Report::rows))?;
    Ok(args.common.judge(runs()))
}

impl ArenaArgs {
    fn scenario(&self, connections: u32) -> Scenario {
        Scenario {
            name: "arena",
            connections,
            max_concurrent: self.max_concurrent,
            ramp_up: Duration::ZERO,
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            size: SIZE,
            work: Work::Loop { in_flight: 1, duration: self.duration },
            hold: Duration::ZERO,
            watch: Watch::Nothing,
            // The same for every number of connections.
            server_apart: true,
        }
    }
}

impl Row {
    fn new(connections: u32, runs: Vec<Report>) -> Self {
        let (best, best_messages_per_second) = runs
            .iter()
            .map(messages_per_second)
            .enumerate()
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .unwrap_or_default();
        Self { connections, best, best_messages_per_second, runs }
    }

    fn cells(&self) -> Vec<Cell> {
        let best = self.runs.get(self.best);
        let latency = best.and_then(|best| best.work.as_ref()?.latency_us);
        let server = best.and_then(|best| best.server);
        let all: Vec<_> =
            self.runs.iter().map(|run| show_count(messages_per_second(run))).collect();
        let errors: u64 = self.runs.iter().flat_map(|run| run.errors.values()).sum();
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
        let texts = [
            show_count(f64::from(self.connections)),
            show_count(self.best_messages_per_second),
            all.join(", "),
            or_nothing(latency.map(|latency| show_micros(latency.mean))),
            or_nothing(latency.map(|latency| show_micros(latency.p99))),
            or_nothing(server.map(|server| format!("{:.0} %", server.cpus * 100.0))),
            or_nothing(best.map(|best| best.bottleneck.text().to_owned())),
            show_count(errors as f64),
        ];
        texts.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right)).collect()
    }
}

fn messages_per_second(run: &Report) -> f64 {
    run.work.as_ref().map_or(0.0, |work| work.messages_per_second)
}

/// For people: the table of the best runs, and what went wrong in any.
fn text(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "connections",
        "messages/s",
        "of all runs",
        "mean latency",
        "p99",
        "server CPU",
        "bottleneck",
        "errors",
    ]);
    for row in rows {
        table.add_row(row.cells());
    }
    let first = rows.first().and_then(|row| row.runs.first());
    let head =
        first.map_or(String::new(), |first| format!("{}\n{}\n\n", first.machine, first.target));
    let mut text = format!("{head}{table}\n");
    for row in rows {
        for (number, run) in row.runs.iter().enumerate() {
            let of = format!("{} connections, run {}", row.connections, number + 1);
            run.notes.iter().for_each(|note| text += &format!("note, {of}: {note}\n"));
            for (kind, count) in &run.errors {
                text += &format!("ERROR, {of}: {count} × {kind}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        args: ArenaArgs,
    }

    #[test]
    fn defaults_are_those_of_the_profile() {
        let Flags { args } = Flags::parse_from([""]);
        assert_eq!(args.connections, [512, 4096, 16_384]);
        assert_eq!((args.duration, args.runs), (Duration::from_secs(5), 3));
        let Scenario { size, work, .. } = args.scenario(512);
        assert_eq!(
            (size, work),
            (5, Work::Loop { in_flight: 1, duration: Duration::from_secs(5) })
        );
        assert!(Flags::try_parse_from(["x", "--runs", "0"]).is_err());
        assert!(Flags::try_parse_from(["x", "--connections", "10,0"]).is_err());
    }
}
