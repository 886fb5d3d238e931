//! `ringwire-bench million`: connects very many, holds them, and has them echo.

use std::time::Duration;

use ringwire_examples::units::{parse_bytes, parse_duration};

use super::plan::Work;
use super::report::{Report, Row, WorkDone, show_micros};
use super::{Common, Scenario};
use crate::echo::Summary;
use crate::units::{show_bytes, show_count};

/// Flags of `ringwire-bench million`. The defaults are those of published tables of a million connections.
#[derive(Debug, clap::Args)]
pub(crate) struct MillionArgs {
    #[command(flatten)]
    common: Common,
    /// Connections.
    #[arg(long, default_value = "1000000", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Echoes, over all connections, each on the connection whose turn it is.
    #[arg(long, default_value = "2000000")]
    echoes: u64,
    /// Echoes in flight, over all connections; one at most on each.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Payload of a message, such as 64 or 16KiB.
    #[arg(long, default_value = "1024", value_parser = parse_bytes)]
    size: u64,
    /// Connects outstanding at a time.
    #[arg(long, default_value = "4000", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: u32,
    /// Rest between the last connect and the first echo.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    hold: Duration,
    /// Time for one connection to become open.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// A reply that takes longer is an error.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    response_timeout: Duration,
}

/// Runs the subcommand; whether no condition failed.
pub(crate) fn command(mut args: MillionArgs) -> anyhow::Result<bool> {
    let work = Work::Pool { messages: args.echoes, in_flight: args.concurrency };
    let scenario = Scenario {
        max_concurrent: args.max_concurrent,
        connect_timeout: args.connect_timeout,
        response_timeout: args.response_timeout,
        size: args.size,
        hold: args.hold,
        // In a process of its own its memory can be told.
        server_apart: true,
        ..Scenario::new("million", args.connections, work)
    };
    let (report, _remains) = args.common.begin(&scenario)?;
    args.common.conclude(&[report], rows)
}

/// The fields of the published table, and below them what that leaves out.
fn rows(report: &Report) -> Vec<Row> {
    let mut rows: Vec<Row> =
        vec![("BenchType", "BenchEcho".to_owned()), ("Framework", framework(report))];
    if let Some(work) = &report.work {
        rows.extend(work_rows(work));
    }
    rows.push(("Conns", report.opened.to_string()));
    let in_flight = report.work.as_ref().and_then(|work| work.in_flight);
    rows.push(("Concurrency", in_flight.unwrap_or_default().to_string()));
    rows.push(("Payload", report.payload_bytes.to_string()));
    if let Some(cpu) = report.server_cpu_percent {
        rows.push(("CPU Min", format!("{:.2}%", cpu.min)));
        rows.push(("CPU Avg", format!("{:.2}%", cpu.mean)));
        rows.push(("CPU Max", format!("{:.2}%", cpu.max)));
    }
    if let Some(memory) = report.server_resident {
        rows.push(("MEM Min", show_bytes(memory.min)));
        rows.push(("MEM Avg", show_bytes(memory.mean)));
        rows.push(("MEM Max", show_bytes(memory.max)));
    }
    rows.push((
        "Connects",
        format!(
            "{} of {} in {:.2} s ({}/s)",
            report.opened,
            report.connections,
            report.connect_seconds,
            show_count(report.connects_per_second)
        ),
    ));
    rows.push(("Held", format!("{:.1} s", report.hold_seconds)));
    rows.extend(report.tail_rows());
    rows
}

fn framework(report: &Report) -> String {
    match report.server_processes {
        0 => report.target.clone(),
        1 => format!("{} in a process of its own", report.target),
        count => format!("{} in {count} processes", report.target),
    }
}

fn work_rows(work: &WorkDone) -> Vec<Row> {
    let failed = work.asked.unwrap_or_default().saturating_sub(work.answered);
    let mut rows = vec![("TPS", format!("{:.0}", work.messages_per_second))];
    // Echoes a second for each percent of a CPU; real clocks cannot make it negative.
    if let Some(efficiency) = work.efficiency {
        rows.push(("EER", format!("{efficiency:.2}")));
    }
    if let Some(Summary { min, mean, p50, p75, p90, p95, p99, p999, max }) = work.latency_us {
        let named = [
            ("Min", min),
            ("Avg", mean),
            ("Max", max),
            ("TP50", p50),
            ("TP75", p75),
            ("TP90", p90),
            ("TP95", p95),
            ("TP99", p99),
            ("TP99.9", p999),
        ];
        rows.extend(named.map(|(name, micros)| (name, show_micros(micros))));
    }
    rows.push(("Used", format!("{:.2}s", work.seconds)));
    rows.push(("Total", work.asked.unwrap_or(work.sent).to_string()));
    rows.push(("Success", work.answered.to_string()));
    rows.push(("Failed", failed.to_string()));
    rows
}
