//! `ringwire-bench compare-handshakes`: handshakes of several servers, full and resumed, in turn.

use std::time::Duration;

use anyhow::Context as _;
use ringwire_examples::CompressionFlag;
use ringwire_examples::units::parse_duration;
use serde::Serialize;

use super::field::{Field, FieldArgs};
use super::markdown::show_ratio;
use super::results::{ServerRuns, Spread};
use super::servers::Server;
use crate::demand::Service;
use crate::handshakes::Report;
use crate::machine;
use crate::report::{self, Table};
use crate::scenario::{End, SessionsPlan, run_sessions};
use crate::tls::TlsArgs;
use crate::units::show_count;

/// The longest that one handshake may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of `ringwire-bench compare-handshakes`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareHandshakesArgs {
    /// Servers, in the order of their turns; the first one is what the others are compared with. A plain one
    /// tells what TCP and the upgrade cost.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "ringwire-epoll-tls,ringwire-uring-tls,tokio-tungstenite-tls,\
                         sockudo-ws-tls,bun-tls,ringwire-epoll"
    )]
    servers: Vec<String>,
    /// Handshakes at a time.
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Measured time of a run.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    duration: Duration,
    /// Time under load before it.
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    warmup: Duration,
    #[command(flatten)]
    field: FieldArgs,
}

/// Runs of one server.
#[derive(Clone, Debug, Serialize)]
struct Runs {
    server: String,
    /// A round each.
    full: Vec<Report>,
    /// With tickets; none without TLS.
    resumed: Vec<Report>,
}

impl From<ServerRuns<(Report, Option<Report>)>> for Runs {
    fn from(ServerRuns { server, runs }: ServerRuns<(Report, Option<Report>)>) -> Self {
        let (full, resumed): (_, Vec<_>) = runs.into_iter().unzip();
        Self { server, full, resumed: resumed.into_iter().flatten().collect() }
    }
}

/// Runs the subcommand. Whether there were no errors.
pub(crate) fn command(mut args: CompareHandshakesArgs) -> anyhow::Result<bool> {
    args.field.add_peers(&mut args.servers);
    let args = &args;
    let field = args.field.find(&args.servers, Service::Echo, CompressionFlag::Off)?;
    args.field.pin_load()?;
    let turns = field.take_turns(|server, round| {
        let full = args.run(server, &field, false, round)?;
        let resumed = server.secure.then(|| args.run(server, &field, true, round)).transpose()?;
        Ok((full, resumed))
    })?;
    let all: Vec<Runs> = turns.into_iter().map(Runs::from).collect();
    args.field.write(&args.page(&all), &all)?;
    let mut reports = all.iter().flat_map(|runs| runs.full.iter().chain(&runs.resumed));
    Ok(reports.all(|report| report.errors.is_empty()))
}

impl CompareHandshakesArgs {
    fn run(
        &self,
        server: &Server,
        field: &Field,
        resume: bool,
        round: usize,
    ) -> anyhow::Result<Report> {
        let (_running, endpoint) = field.start(server, &TlsArgs::resuming(resume))?;
        let plan = SessionsPlan {
            concurrency: self.concurrency,
            messages: 0,
            payload_len: 0,
            end: End::Time { warmup: self.warmup, measured: self.duration },
            timeout: TIMEOUT,
        };
        let sessions = run_sessions(&endpoint, plan).with_context(|| server.name.clone())?;
        let report = Report::new(&endpoint, self.concurrency, sessions);
        crate::output::note(format_args!(
            "round {round}, {}, {}: {}/s, {:.1} µs CPU, {:?}",
            server.name,
            if resume { "resumed" } else { "full" },
            show_count(report.handshakes_per_second),
            report.server_cpu_us_per_handshake.unwrap_or_default(),
            report.bottleneck
        ));
        Ok(report)
    }

    fn page(&self, all: &[Runs]) -> String {
        let (machine, today, command) =
            (machine::describe(), report::today(), report::command_line());
        let how = format!(
            "TCP, TLS and upgrade, {} at a time, {} rounds of {:?}, interleaved. Medians; a ratio is taken within a \
             round, and its lowest and highest value follow in brackets. Where the generator was busy, handshakes \
             per second say nothing of the server.",
            self.concurrency, self.field.rounds, self.duration
        );
        let full = table("Full handshakes", all, |runs| &runs.full);
        let resumed = table("Resumed handshakes", all, |runs| &runs.resumed);
        format!("{machine}. {today}.\n\n```\n{command}\n```\n\n{how}\n\n{full}{resumed}")
    }
}

/// A line for each server with runs.
fn table(title: &str, all: &[Runs], pick: fn(&Runs) -> &Vec<Report>) -> String {
    let Some(baseline) = all.first() else { return String::new() };
    let row = |runs: &Runs| {
        let reports = pick(runs);
        let median = |value: fn(&Report) -> Option<f64>| {
            Spread::of(reports.iter().filter_map(value)).map_or(0.0, |spread| spread.median)
        };
        let ratio = ratio(reports, pick(baseline)).map_or_else(|| "–".to_owned(), show_ratio);
        let errors: u64 = reports.iter().flat_map(|report| report.errors.values()).sum();
        vec![
            runs.server.clone(),
            show_count(median(|report| Some(report.handshakes_per_second))),
            format!("{:.1}", median(|report| report.server_cpu_us_per_handshake)),
            ratio,
            format!("{:.0} %", median(|report| Some(report.generator_utilisation * 100.0))),
            format!("{:.0} %", median(Report::resumed_share) * 100.0),
            errors.to_string(),
        ]
    };
    let ratio = format!("CPU, as a ratio to {}", baseline.server);
    let columns =
        ["server", "per second", "server CPU, µs", &ratio, "generator busy", "resumed", "errors"];
    let table = Table::new(&columns, all.iter().filter(|runs| !pick(runs).is_empty()).map(row));
    Table { title: title.to_owned(), ..table }.markdown()
}

/// Server CPU time for a handshake, round by round.
fn ratio(runs: &[Report], baseline: &[Report]) -> Option<Spread> {
    let rounds = runs.iter().zip(baseline);
    Spread::of(rounds.filter_map(|(run, base)| {
        let base = base.server_cpu_us_per_handshake.filter(|base| *base > 0.0)?;
        Some(run.server_cpu_us_per_handshake? / base)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshakes::test_report;

    #[test]
    fn ratios_are_to_the_first_server() {
        let runs = |server: &str, full: &[u64], resumed: &[u64]| Runs {
            server: server.to_owned(),
            full: full.iter().map(|&micros| test_report(micros)).collect(),
            resumed: resumed.iter().map(|&micros| test_report(micros)).collect(),
        };
        let all = [runs("base", &[100, 200], &[50, 50]), runs("other", &[150, 200], &[])];
        let page = table("Full", &all, |runs| &runs.full);
        assert!(page.contains("| base | 1 000 | 150.0 | 1.00 (1.00–1.00) |"), "{page}");
        assert!(page.contains("| other | 1 000 | 175.0 | 1.25 (1.00–1.50) |"), "{page}");
        let page = table("Resumed", &all, |runs| &runs.resumed);
        assert!(page.contains("| base | 1 000 | 50.0 |") && !page.contains("other"), "{page}");
    }
}
