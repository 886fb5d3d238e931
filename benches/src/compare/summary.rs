//! What the rounds of a comparison come to: medians, ratios to a baseline and their spread.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::echo::{Bottleneck, Payload, Report};
use crate::units::show_bytes;

/// One load, as a row of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    pub(crate) connections: u32,
    pub(crate) in_flight: usize,
    pub(crate) payload_bytes: u64,
    pub(crate) payload: Payload,
}

impl Cell {
    /// Bytes that may be on the way at a time, in one direction.
    pub(crate) fn outstanding_bytes(&self) -> u64 {
        u64::from(self.connections)
            .saturating_mul(self.in_flight as u64)
            .saturating_mul(self.payload_bytes)
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = show_bytes(self.payload_bytes as f64);
        write!(f, "{} × {} × {size}", self.connections, self.in_flight)?;
        match self.payload {
            Payload::Noise => Ok(()),
            payload => write!(f, " {payload}"),
        }
    }
}

/// What every run is judged by.
pub(crate) trait Run {
    /// Whose lack of CPU limited it.
    fn bottleneck(&self) -> Bottleneck;

    /// What went wrong, by kind.
    fn errors(&self) -> &BTreeMap<String, u64>;
}

impl Run for Report {
    fn bottleneck(&self) -> Bottleneck {
        self.bottleneck
    }

    fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }
}

/// All runs of one load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CellResult<C = Cell, R = Report> {
    #[serde(flatten)]
    pub(crate) cell: C,
    /// In the order of the command line.
    pub(crate) servers: Vec<ServerRuns<R>>,
}

/// The runs of one server under one load, a round each.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerRuns<R = Report> {
    pub(crate) server: String,
    pub(crate) runs: Vec<R>,
}

/// A number that a run gives, if it has it.
pub(crate) type Metric<R = Report> = fn(&R) -> Option<f64>;

/// Messages per second.
pub(crate) fn messages_per_second(run: &Report) -> Option<f64> {
    Some(run.messages_per_second)
}

/// Payload in one direction, in millions of bytes per second.
pub(crate) fn megabytes_per_second(run: &Report) -> Option<f64> {
    Some(run.megabytes_per_second)
}

/// An echo as it arrives, in bytes; only with compression.
pub(crate) fn reply_bytes(run: &Report) -> Option<f64> {
    Some(run.compression?.reply_bytes)
}

/// The server's CPU time for a message, in microseconds.
pub(crate) fn server_cpu(run: &Report) -> Option<f64> {
    run.server?.cpu_us_per_message
}

/// Half of the echoes take no longer, in microseconds.
pub(crate) fn p50(run: &Report) -> Option<f64> {
    Some(run.latency_us?.p50)
}

/// 99 of 100 echoes take no longer, in microseconds.
pub(crate) fn p99(run: &Report) -> Option<f64> {
    Some(run.latency_us?.p99)
}

/// 999 of 1000 echoes take no longer, in microseconds.
pub(crate) fn p999(run: &Report) -> Option<f64> {
    Some(run.latency_us?.p999)
}

/// The server's memory for an idle connection, in bytes.
pub(crate) fn resident_bytes(run: &Report) -> Option<f64> {
    run.server?.memory?.bytes_per_idle_connection
}

/// The kernel's memory for both ends of an idle connection, in bytes.
pub(crate) fn kernel_bytes(run: &Report) -> Option<f64> {
    run.server?.memory?.kernel_bytes_per_idle_connection
}

/// The middle and the ends of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without any value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { min, median: f64::midpoint(low, high), max })
    }
}

impl<C, R: Run> CellResult<C, R> {
    /// The runs of a server.
    pub(crate) fn of(&self, server: &str) -> Option<&ServerRuns<R>> {
        self.servers.iter().find(|runs| runs.server == server)
    }

    /// A metric of `server` divided by that of `baseline` in the same round, over all rounds.
    pub(crate) fn ratio(&self, server: &str, baseline: &str, metric: Metric<R>) -> Option<Spread> {
        let (server, baseline) = (self.of(server)?, self.of(baseline)?);
        let rounds = server.runs.iter().zip(&baseline.runs);
        Spread::of(rounds.filter_map(|(run, base)| {
            let base = metric(base).filter(|base| *base > 0.0)?;
            Some(metric(run)? / base)
        }))
    }
}

impl<R: Run> ServerRuns<R> {
    /// A metric over all rounds.
    pub(crate) fn spread(&self, metric: Metric<R>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(metric))
    }

    /// Errors in all rounds.
    pub(crate) fn errors(&self) -> u64 {
        self.runs.iter().flat_map(|run| run.errors().values()).sum()
    }

    /// Whether any round ended like this.
    pub(crate) fn was(&self, bottleneck: Bottleneck) -> bool {
        self.runs.iter().any(|run| run.bottleneck() == bottleneck)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::echo::test_report;

    /// Runs with so many messages per second each.
    pub(crate) fn runs(server: &str, rates: &[u64]) -> ServerRuns {
        let runs = rates.iter().map(|&rate| test_report(rate)).collect();
        ServerRuns { server: server.to_owned(), runs }
    }

    pub(crate) fn result() -> CellResult {
        let payload = Payload::Noise;
        let cell = Cell { connections: 1000, in_flight: 16, payload_bytes: 1024, payload };
        let servers = vec![runs("base", &[100, 200, 400]), runs("other", &[90, 220, 400])];
        CellResult { cell, servers }
    }

    #[test]
    fn spread_of_odd_even_and_no_values() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        let odd = Spread { min: 1.0, median: 2.0, max: 9.0 };
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some(odd));
        let even = Spread { min: 1.0, median: 2.5, max: 9.0 };
        assert_eq!(spread(&[9.0, 1.0, 2.0, 3.0]), Some(even));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratio = result().ratio("other", "base", messages_per_second).unwrap();
        assert!((ratio.min - 0.9).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.median - 1.0).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.max - 1.1).abs() < 1e-9, "{ratio:?}");
        assert_eq!(result().ratio("other", "nobody", messages_per_second), None);
        let idle =
            CellResult { servers: vec![runs("base", &[0]), runs("other", &[9])], ..result() };
        assert_eq!(idle.ratio("other", "base", messages_per_second), None);
    }

    #[test]
    fn outstanding_bytes_do_not_overflow() {
        assert_eq!(result().cell.outstanding_bytes(), 1000 * 16 * 1024);
        let payload = Payload::Json;
        let cell = Cell { connections: u32::MAX, in_flight: 7 << 40, payload_bytes: 9, payload };
        assert_eq!(cell.outstanding_bytes(), u64::MAX);
        let small = Cell { connections: 5, in_flight: 1, ..cell };
        assert_eq!(small.to_string(), "5 × 1 × 9 B json");
        assert_eq!(result().cell.to_string(), "1000 × 16 × 1 KiB");
    }
}
