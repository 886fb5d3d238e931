//! `ringwire-bench traffic` and `tps`: connections that have messages in flight all the time, for so long.

use std::time::Duration;

use ringwire_examples::units::parse_duration;

use super::plan::Work;
use super::report::{Report, Row, WorkDone};
use super::stress::With;
use super::{Scenario, Watch};
use crate::units::show_count;

/// Figures in a line of the series.
const PER_LINE: usize = 10;

/// Flags of `ringwire-bench traffic`, and of `tps`.
pub(crate) type TrafficArgs = With<Window>;
pub(crate) type TpsArgs = TrafficArgs;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Window {
    /// Messages in flight on each connection.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// How long messages go round; a bare number is seconds.
    #[arg(long, default_value = "30", value_parser = parse_duration)]
    duration: Duration,
}

/// Runs `traffic`; whether no condition failed.
pub(crate) fn traffic(mut args: TrafficArgs) -> anyhow::Result<bool> {
    let scenario = args.stress.scenario("traffic", args.work.work());
    args.stress.common.run_one(&scenario, traffic_rows)
}

/// Runs `tps`; whether no condition failed.
pub(crate) fn tps(mut args: TpsArgs) -> anyhow::Result<bool> {
    let scenario = args.stress.scenario("tps", args.work.work());
    let scenario = Scenario { watch: Watch::Seconds, ..scenario };
    args.stress.common.run_one(&scenario, tps_rows)
}

impl Window {
    fn work(self) -> Work {
        let Self { in_flight, duration } = self;
        Work::Loop { in_flight, duration }
    }
}

/// The lines of published tables, and below them what these leave out.
fn traffic_rows(report: &Report) -> Vec<Row> {
    let mut rows = report.work.as_ref().map(bandwidth_rows).unwrap_or_default();
    rows.extend(report.rows());
    rows
}

fn bandwidth_rows(work: &WorkDone) -> Vec<Row> {
    let traffic = work.traffic;
    let total =
        |bytes: u64| format!("{:.1} MiB ({bytes} bytes)", bytes as f64 / f64::from(1 << 20));
    vec![
        ("Total data sent", total(traffic.bytes_sent)),
        ("Total data received", total(traffic.bytes_received)),
        (
            "Bandwidth per channel",
            format!(
                "{:.3}⇅ Mbps ({:.1} kBps)",
                traffic.connection_mbps, traffic.connection_kilobytes_per_second
            ),
        ),
        ("Aggregate bandwidth", format!("{:.3}↓, {:.3}↑ Mbps", traffic.down_mbps, traffic.up_mbps)),
        (
            "Packet rate estimate",
            format!(
                "{:.1}↓, {:.1}↑ ({}↓, {}↑ TCP MSS/op)",
                traffic.down_packets_per_second,
                traffic.up_packets_per_second,
                traffic.down_segments,
                traffic.up_segments
            ),
        ),
        ("Test duration", format!("{:.3} s", work.seconds)),
    ]
}

/// What there was of each second, among the rest.
fn tps_rows(report: &Report) -> Vec<Row> {
    let mut rows = report.head_rows();
    if let Some(each) = report.work.as_ref().and_then(|work| work.each_second.as_ref()) {
        rows.push(("messages/s", each.shown()));
        rows.extend(series(&each.counts).into_iter().map(|line| ("each second", line)));
    }
    rows.extend(report.work_rows());
    rows.extend(report.tail_rows());
    rows
}

/// `1s:357 999/s 2s:418 860/s …`, so many in a line.
fn series(counts: &[u64]) -> Vec<String> {
    let shown =
        |(second, &count): (usize, &u64)| format!("{}s:{}/s", second + 1, show_count(count as f64));
    let all: Vec<_> = counts.iter().enumerate().map(shown).collect();
    all.chunks(PER_LINE).map(|line| line.join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;
    use crate::scenario::report::Traffic;

    #[test]
    fn flags_are_those_of_the_other_scenarios() {
        let args: TrafficArgs = parse("").unwrap();
        let window = Work::Loop { in_flight: 1, duration: Duration::from_secs(30) };
        assert_eq!(args.work.work(), window);
        let text = "--connections 10000 --size 4KiB --in-flight 16 --duration 2m";
        let args: TrafficArgs = parse(text).unwrap();
        let scenario = args.stress.scenario("traffic", args.work.work());
        assert_eq!((scenario.connections, scenario.size), (10_000, 4096));
        let window = Work::Loop { in_flight: 16, duration: Duration::from_secs(120) };
        assert_eq!(scenario.work, window);
        assert!(parse::<TrafficArgs>("--in-flight 0").is_err());
    }

    #[test]
    fn bandwidth_is_written_as_published() {
        // The figures of a published table of 10 000 connections.
        let traffic = Traffic::new((124_941_915_494, 125_404_036_361), 30.001, 10_000)
            .with_packets((1_000_000, 100_000_000), 30.001);
        let rows = bandwidth_rows(&WorkDone { traffic, seconds: 30.001, ..WorkDone::default() });
        let row = |name: &str| rows.iter().find(|row| row.0 == name).unwrap().1.clone();
        assert_eq!(row("Total data sent"), "119153.9 MiB (124941915494 bytes)");
        assert_eq!(row("Total data received"), "119594.6 MiB (125404036361 bytes)");
        assert_eq!(row("Aggregate bandwidth"), "33439.962↓, 33316.734↑ Mbps");
        assert_eq!(row("Bandwidth per channel"), "6.676⇅ Mbps (834.5 kBps)");
        // 86 segments of 124 941 bytes, and one of 1 254.
        let packets = row("Packet rate estimate");
        assert_eq!(packets, "3333222.2↓, 2866571.1↑ (1↓, 86↑ TCP MSS/op)");
        assert_eq!(row("Test duration"), "30.001 s");
    }

    #[test]
    fn series_is_cut_into_lines() {
        let lines = series(&[357_999, 0, 3]);
        assert_eq!(lines, ["1s:357 999/s 2s:0/s 3s:3/s"]);
        let lines = series(&[7; 21]);
        assert_eq!((lines.len(), lines[2].as_str()), (3, "21s:7/s"));
    }
}
