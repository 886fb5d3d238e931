//! `ringwire-bench arena`: the WebSocket profiles of HttpArena.
#![expect(clippy::disallowed_methods, reason = "rests between two runs")]

use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use ringwire_examples::units::parse_duration;
use serde::Serialize;

use super::plan::Work;
use super::report::{self, Report, show_micros};
use super::{Common, Scenario};
use crate::flags::name_of;
use crate::output;
use crate::report::Table;
use crate::units::show_count;

/// What is sent.
const MESSAGE: &[u8] = b"hello";
/// In flight on each connection of echo-ws-pipeline.
const IN_FLIGHT: u32 = 16;
/// Messages of a connection of echo-ws-limited.
const MESSAGES: u64 = 10;
/// What a table has where there is nothing to be told.
const NOTHING: &str = "–";

/// Flags of `ringwire-bench arena`. The defaults are those of the profile.
#[derive(Debug, clap::Args)]
pub(crate) struct ArenaArgs {
    #[command(flatten)]
    common: Common,
    /// Profiles, one table for each.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "echo-ws")]
    profile: Vec<Profile>,
    /// Connections, one row for each. [default: 512,4096 and, but for echo-ws-limited, 16384]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
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

/// The value of `--profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
enum Profile {
    /// One message in flight on each connection.
    #[value(name = "echo-ws")]
    #[serde(rename = "echo-ws")]
    Echo,
    /// 16 of them.
    #[value(name = "echo-ws-pipeline")]
    #[serde(rename = "echo-ws-pipeline")]
    Pipeline,
    /// One, and 10 messages on a connection, which then makes room for another one.
    #[value(name = "echo-ws-limited")]
    #[serde(rename = "echo-ws-limited")]
    Limited,
}

/// A number of connections, and the runs with it. JSON has these names.
#[derive(Debug, Serialize)]
struct Row {
    profile: Profile,
    connections: u32,
    /// Which of the runs had most messages a second, from 0.
    best: usize,
    best_messages_per_second: f64,
    runs: Vec<Report>,
}

/// Runs the subcommand; whether no condition failed in any run.
pub(crate) fn command(mut args: ArenaArgs) -> anyhow::Result<bool> {
    args.common.payload = Some(MESSAGE.to_vec());
    let mut rows = Vec::new();
    let mut is_first = true;
    for (profile, connections) in args.cells() {
        let mut runs = Vec::new();
        for _ in 0..args.runs {
            if !std::mem::take(&mut is_first) {
                thread::sleep(args.rest);
            }
            runs.push(args.common.run(&args.scenario(profile, connections))?);
        }
        rows.push(Row::new(profile, connections, runs));
    }
    let runs = || rows.iter().flat_map(|row| &row.runs);
    args.common.write(&rows, || report::page(runs(), Report::rows))?;
    if !args.common.json.is_to_stdout() {
        output::say(text(&rows))?;
    }
    Ok(args.common.judge(runs()))
}

impl ArenaArgs {
    /// All rows.
    fn cells(&self) -> Vec<(Profile, u32)> {
        let of = |profile: &Profile| {
            let profile = *profile;
            let all =
                if self.connections.is_empty() { profile.connections() } else { &self.connections };
            all.iter().map(move |&connections| (profile, connections)).collect::<Vec<_>>()
        };
        self.profile.iter().flat_map(of).collect()
    }

    fn scenario(&self, profile: Profile, connections: u32) -> Scenario {
        Scenario {
            max_concurrent: self.max_concurrent,
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            size: MESSAGE.len() as u64,
            // The same for every number of connections.
            server_apart: true,
            ..Scenario::new("arena", connections, profile.work(self.duration))
        }
    }
}

impl Profile {
    fn work(self, duration: Duration) -> Work {
        match self {
            Self::Echo => Work::Loop { in_flight: 1, duration },
            Self::Pipeline => Work::Loop { in_flight: IN_FLIGHT, duration },
            Self::Limited => Work::Churn { messages: MESSAGES, interval: Duration::ZERO, duration },
        }
    }

    fn connections(self) -> &'static [u32] {
        match self {
            Self::Echo | Self::Pipeline => &[512, 4096, 16_384],
            Self::Limited => &[512, 4096],
        }
    }
}

impl Row {
    fn new(profile: Profile, connections: u32, runs: Vec<Report>) -> Self {
        let (best, best_messages_per_second) = runs
            .iter()
            .map(messages_per_second)
            .enumerate()
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .unwrap_or_default();
        Self { profile, connections, best, best_messages_per_second, runs }
    }

    fn cells(&self) -> Vec<String> {
        let best = self.runs.get(self.best);
        let latency = best.and_then(|best| best.work.as_ref()?.latency_us);
        let server = best.and_then(|best| best.server);
        let all: Vec<_> =
            self.runs.iter().map(|run| show_count(messages_per_second(run))).collect();
        let errors: u64 = self.runs.iter().flat_map(|run| run.errors.values()).sum();
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
        vec![
            show_count(f64::from(self.connections)),
            show_count(self.best_messages_per_second),
            all.join(", "),
            or_nothing(latency.map(|latency| show_micros(latency.mean))),
            or_nothing(latency.map(|latency| show_micros(latency.p99))),
            or_nothing(server.map(|server| format!("{:.0} %", server.cpus * 100.0))),
            or_nothing(best.map(|best| best.bottleneck.text().to_owned())),
            show_count(errors as f64),
        ]
    }
}

fn messages_per_second(run: &Report) -> f64 {
    run.work.as_ref().map_or(0.0, |work| work.messages_per_second)
}

/// For people: the table of the best runs, and what went wrong in any.
fn text(rows: &[Row]) -> String {
    let first = rows.first().and_then(|row| row.runs.first());
    let mut text =
        first.map_or(String::new(), |first| format!("{}\n{}\n", first.machine, first.target));
    for rows in rows.chunk_by(|one, next| one.profile == next.profile) {
        let name = rows.first().map(|row| name_of(&row.profile)).unwrap_or_default();
        text += &format!("\n{name}\n\n{}\n", table(rows));
    }
    for row in rows {
        for (number, run) in row.runs.iter().enumerate() {
            let of = format!(
                "{}, {} connections, run {}",
                name_of(&row.profile),
                row.connections,
                number + 1
            );
            run.notes.iter().for_each(|note| text += &format!("note, {of}: {note}\n"));
            for (kind, count) in &run.errors {
                text += &format!("ERROR, {of}: {count} × {kind}\n");
            }
        }
    }
    text
}

fn table(rows: &[Row]) -> Table {
    let columns = [
        "connections",
        "messages/s",
        "of all runs",
        "mean latency",
        "p99",
        "server CPU",
        "bottleneck",
        "errors",
    ];
    Table::new(&columns, rows.iter().map(Row::cells))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;

    #[test]
    fn defaults_are_those_of_the_profiles() {
        let args: ArenaArgs = parse("").unwrap();
        assert_eq!((args.duration, args.runs), (Duration::from_secs(5), 3));
        let all = [512, 4096, 16_384].map(|connections| (Profile::Echo, connections));
        assert_eq!(args.cells(), all);
        let Scenario { size, work, .. } = args.scenario(Profile::Echo, 512);
        let duration = Duration::from_secs(5);
        assert_eq!((size, work), (5, Work::Loop { in_flight: 1, duration }));
        let flags = "--profile echo-ws-pipeline,echo-ws-limited --duration 1s";
        let args: ArenaArgs = parse(flags).unwrap();
        let cells = args.cells();
        assert_eq!((cells.len(), cells[4]), (5, (Profile::Limited, 4096)));
        let duration = Duration::from_secs(1);
        let works = [cells[0], cells[4]].map(|(profile, count)| args.scenario(profile, count).work);
        let limited = Work::Churn { messages: 10, interval: Duration::ZERO, duration };
        assert_eq!(works, [Work::Loop { in_flight: 16, duration }, limited]);
        assert!(parse::<ArenaArgs>("--runs 0").is_err());
        assert!(parse::<ArenaArgs>("--connections 10,0").is_err());
    }
}
