//! `ringwire-bench wss-presets`: the WSS scenarios that others have published figures of.
//!
//! Each client is a session of its own with a full TLS handshake, but no process of its own, as in some
//! published results.

use std::time::Duration;

use ringwire_examples::units::{parse_bytes, parse_duration};
use serde::Serialize;

use crate::demand::Demand;

use crate::endpoint::ServerArgs;
use crate::machine;
use crate::output::JsonArgs;
use crate::report::Table;
use crate::scenario::{End, Sessions, SessionsPlan, run_sessions};
use crate::units::{CpuList, ratio, show_count};

/// Flags of `ringwire-bench wss-presets`.
#[derive(Debug, clap::Args)]
pub(crate) struct PresetArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Payload of a message.
    #[arg(long, default_value = "64", value_parser = parse_bytes)]
    size: u64,
    /// CPUs for the load, such as 1.
    #[arg(long)]
    cpu: Option<CpuList>,
    /// The longest that one client may take.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    json: JsonArgs,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    clients: u64,
    /// Clients at a time.
    at_once: u32,
    /// Messages of each, one in flight.
    messages: u64,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { clients: 100, at_once: 1, messages: 0 },
    Scenario { clients: 50, at_once: 50, messages: 10 },
    Scenario { clients: 100, at_once: 100, messages: 20 },
    Scenario { clients: 200, at_once: 200, messages: 50 },
];

/// What came of a scenario. JSON has these names.
#[derive(Clone, Debug, Serialize)]
struct Row {
    scenario: String,
    connections: u64,
    /// Share of the clients that did all they were to do.
    success_rate: f64,
    /// From the first connect to the end of the last client.
    seconds: f64,
    /// Until the last connection was open; nothing else goes on meanwhile only where there are no messages.
    connects_per_second: f64,
    /// Over the whole time, connects included; `None` without messages.
    messages_per_second: Option<f64>,
    /// TLS handshakes with certificate and signature.
    full_handshakes: u64,
    errors: std::collections::BTreeMap<String, u64>,
}

/// Runs the subcommand. Whether there were no errors.
pub(crate) fn command(mut args: PresetArgs) -> anyhow::Result<bool> {
    args.server.own_tls = true;
    let payload_len = usize::try_from(args.size).unwrap_or(usize::MAX);
    let connections = SCENARIOS.iter().map(|scenario| scenario.at_once).max().unwrap_or_default();
    let demand = Demand { connections, payload_len, ..Demand::default() };
    let endpoint = args.server.open(demand, &mut args.cpu)?;
    machine::pin_load(args.cpu.as_ref())?;
    let mut rows = Vec::new();
    for scenario in SCENARIOS {
        let plan = SessionsPlan {
            concurrency: scenario.at_once,
            messages: scenario.messages,
            payload_len,
            end: End::Count(scenario.clients),
            timeout: args.timeout,
        };
        rows.push(Row::new(scenario, &run_sessions(&endpoint, plan)?));
    }
    args.json.tell(format_args!("{}\n{}", endpoint.target, table(&rows)), &rows)?;
    Ok(rows.iter().all(|row| row.errors.is_empty()))
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.messages {
            0 => write!(f, "{} sequential connects", self.clients),
            messages => write!(f, "{} clients × {messages} messages", self.clients),
        }
    }
}

impl Row {
    fn new(scenario: Scenario, sessions: &Sessions) -> Self {
        let seconds = sessions.spent.time.as_secs_f64();
        Self {
            scenario: scenario.to_string(),
            connections: sessions.opened,
            success_rate: ratio(sessions.completed as f64, scenario.clients as f64),
            seconds,
            connects_per_second: ratio(sessions.opened as f64, sessions.open_time.as_secs_f64()),
            messages_per_second: (scenario.messages > 0)
                .then(|| ratio(sessions.messages as f64, seconds)),
            full_handshakes: sessions.tls.full,
            errors: sessions.errors.clone(),
        }
    }
}

fn table(rows: &[Row]) -> Table {
    let columns =
        ["scenario", "connections", "success", "total time", "connects/s", "messages/s", "errors"];
    let cells = |row: &Row| {
        let errors: Vec<_> =
            row.errors.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        vec![
            row.scenario.clone(),
            row.connections.to_string(),
            format!("{:.1} %", row.success_rate * 100.0),
            format!("{:.1} ms", row.seconds * 1000.0),
            show_count(row.connects_per_second),
            row.messages_per_second.map_or_else(|| "–".to_owned(), show_count),
            errors.join(", "),
        ]
    };
    Table::new(&columns, rows.iter().map(cells))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spent::Spent;

    #[test]
    fn rates_are_of_the_right_times() {
        let sessions = Sessions {
            opened: 45,
            completed: 40,
            messages: 440,
            spent: Spent::for_tests(2, &[], &[]),
            open_time: Duration::from_millis(500),
            ..Sessions::default()
        };
        let row = Row::new(SCENARIOS[1], &sessions);
        assert_eq!(row.scenario, "50 clients × 10 messages");
        assert!((row.success_rate - 0.8).abs() < 1e-9);
        assert!((row.connects_per_second - 90.0).abs() < 1e-9);
        assert!((row.messages_per_second.unwrap() - 220.0).abs() < 1e-9);
        let row = Row::new(SCENARIOS[0], &Sessions::default());
        assert_eq!(
            (row.scenario.as_str(), row.messages_per_second),
            ("100 sequential connects", None)
        );
        let text = table(&[row]).to_string();
        assert!(text.contains("| 100 sequential connects |"), "{text}");
    }
}
