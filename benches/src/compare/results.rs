//! What a comparison found, as its JSON has it, and what the rounds come to: medians, ratios to a baseline, their
//! spread.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::echo::Bottleneck;
use crate::units::show_bytes;

/// All of a comparison. JSON has these names.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    #[serde(flatten)]
    pub(crate) head: Head,
    /// In the order in which they were run.
    pub(crate) cells: Vec<CellResult>,
}

/// What stands above the tables.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Head {
    pub(crate) machine: String,
    /// Year-month-day, UTC.
    pub(crate) date: String,
    /// The commit of the working directory, with `-dirty` where files were changed since; `None` outside a repository.
    #[serde(default)]
    pub(crate) commit: Option<String>,
    pub(crate) command: String,
    pub(crate) baseline: String,
    pub(crate) rounds: usize,
    pub(crate) seconds_per_run: f64,
}

/// One load, as a row of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Load {
    Echo {
        connections: u32,
        in_flight: usize,
        payload_bytes: u64,
        /// What messages say.
        payload: String,
    },
    Broadcast {
        subscribers: u32,
        /// Publications on their way at a time.
        window: u32,
        payload_bytes: u64,
    },
}

/// All runs of one load.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CellResult {
    #[serde(flatten)]
    pub(crate) load: Load,
    /// In the order of the command line.
    pub(crate) servers: Vec<ServerRuns>,
}

/// The runs of one server under one load, a round each.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ServerRuns<R = Value> {
    pub(crate) server: String,
    /// Reports as JSON.
    pub(crate) runs: Vec<R>,
}

/// Where the JSON of a run has a number (RFC 6901).
pub(crate) type Metric = &'static str;

pub(crate) const MESSAGES_PER_SECOND: Metric = "/messages_per_second";
pub(crate) const SERVER_CPU: Metric = "/server/cpu_us_per_message";
pub(crate) const DELIVERY_CPU: Metric = "/server_cpu_us_per_delivery";
pub(crate) const P99: Metric = "/latency_us/p99";
/// The server's memory for an idle connection, in bytes.
pub(crate) const RESIDENT_BYTES: Metric = "/server/memory/bytes_per_idle_connection";

impl Load {
    /// What the name of a load is made of.
    pub(crate) fn explained(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "connections × messages in flight × payload",
            Self::Broadcast { .. } => "subscribers × messages on their way × payload",
        }
    }

    /// What is counted.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "messages",
            Self::Broadcast { .. } => "deliveries",
        }
    }

    /// Connections that are open meanwhile.
    pub(crate) fn connections(&self) -> u32 {
        match *self {
            Self::Echo { connections: count, .. } | Self::Broadcast { subscribers: count, .. } => {
                count
            }
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, at_a_time, bytes) = match self {
            Self::Echo { connections, in_flight, payload_bytes, .. } => {
                (connections, *in_flight as u64, payload_bytes)
            }
            Self::Broadcast { subscribers, window, payload_bytes } => {
                (subscribers, u64::from(*window), payload_bytes)
            }
        };
        write!(f, "{count} × {at_a_time} × {}", show_bytes(*bytes as f64))?;
        match self {
            Self::Echo { payload, .. } if payload != "noise" => write!(f, " {payload}"),
            _ => Ok(()),
        }
    }
}

/// The middle and the ends of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
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

impl Results {
    /// Names of all servers, in the order of their turns.
    pub(crate) fn servers(&self) -> Vec<String> {
        let first = self.cells.first().map(|cell| &cell.servers[..]).unwrap_or_default();
        first.iter().map(|runs| runs.server.clone()).collect()
    }

    /// The same without the baseline.
    pub(crate) fn others(&self) -> Vec<String> {
        let mut names = self.servers();
        names.retain(|name| *name != self.head.baseline);
        names
    }

    /// All runs of all servers.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Value> {
        self.cells.iter().flat_map(|cell| &cell.servers).flat_map(|server| &server.runs)
    }

    /// Whether any run has such a number.
    pub(crate) fn has(&self, metric: Metric) -> bool {
        self.runs().any(|run| number(run, metric).is_some())
    }

    /// Whether nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.runs().all(|run| errors(run) == 0)
    }

    /// The first load of each number of connections: memory is read before messages flow.
    pub(crate) fn at_rest(&self) -> Vec<&CellResult> {
        let mut first: Vec<&CellResult> = Vec::new();
        for cell in &self.cells {
            let count = cell.load.connections();
            if first.iter().all(|known| known.load.connections() != count) {
                first.push(cell);
            }
        }
        first
    }
}

impl CellResult {
    /// The runs of a server.
    pub(crate) fn of(&self, server: &str) -> Option<&ServerRuns> {
        self.servers.iter().find(|runs| runs.server == server)
    }

    /// A metric of `server` divided by that of `baseline` in the same round, over all rounds.
    pub(crate) fn ratio(&self, server: &str, baseline: &str, metric: Metric) -> Option<Spread> {
        let (server, baseline) = (self.of(server)?, self.of(baseline)?);
        let rounds = server.runs.iter().zip(&baseline.runs);
        Spread::of(rounds.filter_map(|(run, base)| {
            let base = number(base, metric).filter(|base| *base > 0.0)?;
            Some(number(run, metric)? / base)
        }))
    }
}

impl ServerRuns {
    /// A metric over all rounds.
    pub(crate) fn spread(&self, metric: Metric) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| number(run, metric)))
    }

    /// Errors in all rounds.
    pub(crate) fn errors(&self) -> u64 {
        self.runs.iter().map(errors).sum()
    }

    /// Whether any round ended like this.
    pub(crate) fn was(&self, bottleneck: Bottleneck) -> bool {
        self.runs.iter().any(|run| ended(run, bottleneck))
    }
}

/// A number of a run, if it has it.
fn number(run: &Value, metric: Metric) -> Option<f64> {
    run.pointer(metric)?.as_f64()
}

/// How many things went wrong in a run.
pub(crate) fn errors(run: &Value) -> u64 {
    let kinds = run["errors"].as_object();
    kinds.into_iter().flat_map(|kinds| kinds.values()).filter_map(Value::as_u64).sum()
}

/// Whether the lack of this one's CPU limited a run.
pub(crate) fn ended(run: &Value, bottleneck: Bottleneck) -> bool {
    Bottleneck::deserialize(&run["bottleneck"]).is_ok_and(|found| found == bottleneck)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::echo::test_report;

    fn head() -> Head {
        Head {
            machine: "a machine".to_owned(),
            date: "2025-01-31".to_owned(),
            commit: Some("abc1234".to_owned()),
            command: "ringwire-bench compare".to_owned(),
            baseline: "base".to_owned(),
            rounds: 3,
            seconds_per_run: 1.5,
        }
    }

    /// Runs with so many messages per second each.
    pub(crate) fn runs(server: &str, rates: &[u64]) -> ServerRuns {
        let run = |&rate: &u64| serde_json::to_value(test_report(rate)).unwrap();
        ServerRuns { server: server.to_owned(), runs: rates.iter().map(run).collect() }
    }

    pub(crate) fn load(connections: u32, payload: &str) -> Load {
        let payload = payload.to_owned();
        Load::Echo { connections, in_flight: 16, payload_bytes: 1024, payload }
    }

    pub(crate) fn results() -> Results {
        let servers = vec![runs("base", &[100, 200, 400]), runs("other", &[90, 220, 400])];
        let head = head();
        Results { head, cells: vec![CellResult { load: load(1000, "noise"), servers }] }
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
        let cell = &results().cells[0];
        let ratio = cell.ratio("other", "base", MESSAGES_PER_SECOND).unwrap();
        assert!((ratio.min - 0.9).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.median - 1.0).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.max - 1.1).abs() < 1e-9, "{ratio:?}");
        assert_eq!(cell.ratio("other", "nobody", MESSAGES_PER_SECOND), None);
        let servers = vec![runs("base", &[0]), runs("other", &[9])];
        let idle = CellResult { servers, ..cell.clone() };
        assert_eq!(idle.ratio("other", "base", MESSAGES_PER_SECOND), None);
    }

    #[test]
    fn loads_are_named_by_their_numbers() {
        assert_eq!(load(5, "json").to_string(), "5 × 16 × 1 KiB json");
        assert_eq!(load(1000, "noise").to_string(), "1000 × 16 × 1 KiB");
        let heard = Load::Broadcast { subscribers: 100, window: 4, payload_bytes: 64 };
        assert_eq!(heard.to_string(), "100 × 4 × 64 B");
    }

    #[test]
    fn json_holds_all_of_a_comparison() {
        let results = results();
        let json = serde_json::to_string(&results).unwrap();
        let again: Results = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
        assert_eq!(again.cells[0].load, results.cells[0].load);
        let heard = Load::Broadcast { subscribers: 100, window: 4, payload_bytes: 64 };
        let cell = CellResult { load: heard.clone(), servers: Vec::new() };
        let json = serde_json::to_string(&cell).unwrap();
        assert_eq!(serde_json::from_str::<CellResult>(&json).unwrap().load, heard);
    }

    #[test]
    fn memory_has_one_row_for_each_number_of_connections() {
        let mut results = results();
        let first = results.cells[0].clone();
        results.cells.push(CellResult { load: load(1000, "json"), ..first.clone() });
        results.cells.push(CellResult { load: load(5, "noise"), ..first });
        let rows: Vec<_> = results.at_rest().into_iter().map(|row| row.load.clone()).collect();
        assert_eq!(rows, [load(1000, "noise"), load(5, "noise")]);
    }
}
