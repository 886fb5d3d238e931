//! The comparison as a page: ratios first, then what they are ratios of.

use std::fmt::{Display, Write as _};

use super::summary::{
    CellResult, Metric, Run, ServerRuns, Spread, kernel_bytes, megabytes_per_second,
    messages_per_second, p50, p99, p999, reply_bytes, resident_bytes, server_cpu,
};
use crate::echo::Bottleneck;
use crate::units::{show_bytes, show_count};

/// A value is marked with this when the load generator limited it.
const GENERATOR_MARK: &str = "†";
/// When other programs took a CPU.
const DISTURBED_MARK: &str = "‡";
/// When some connections failed.
const ERROR_MARK: &str = "✗";
const NO_VALUE: &str = "–";

/// How a value is written.
pub(super) type Show = fn(f64) -> String;

/// What is told as a ratio to the baseline.
pub(super) const RATIOS: [(&str, Metric); 2] = [
    ("Messages per second, as a ratio to", messages_per_second),
    ("Server CPU time per message, as a ratio to", server_cpu),
];
/// What is told of each server.
pub(super) const ABSOLUTE: [(&str, Metric, Show); 5] = [
    ("Messages per second", messages_per_second, show_count),
    ("Server CPU time per message, µs", server_cpu, |value| format!("{value:.2}")),
    ("Latency p50, µs", p50, show_count),
    ("Latency p99, µs", p99, show_count),
    ("Latency p99.9, µs", p999, show_count),
];

/// What is told of each server at rest.
pub(super) const MEMORY: [(&str, Metric); 2] = [
    ("Server memory per idle connection", resident_bytes),
    ("Kernel memory per idle connection, both ends", kernel_bytes),
];

/// What stands above the tables.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Head {
    pub(crate) machine: String,
    /// Year-month-day, UTC.
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) baseline: String,
    pub(crate) rounds: usize,
    pub(crate) seconds_per_run: f64,
}

/// The page.
pub(crate) fn page(head: &Head, servers: &[String], cells: &[CellResult]) -> String {
    let mut page = String::new();
    let Head { machine, date, command, baseline, .. } = head;
    let _ = writeln!(page, "{machine}. {date}.\n\n```\n{command}\n```\n");
    let _ = writeln!(page, "{}\n\n{}\n", explained(head), marks_explained("messages"));
    let others: Vec<String> = servers.iter().filter(|name| *name != baseline).cloned().collect();
    for (title, metric) in RATIOS {
        let title = format!("{title} {baseline}");
        matrix(&mut page, &title, &others, cells, |cell, name| {
            cell.ratio(name, baseline, metric).map(|ratio| show_ratio(&ratio))
        });
    }
    for (title, metric, show) in ABSOLUTE {
        matrix(&mut page, title, servers, cells, |cell, name| {
            cell.of(name)?.spread(metric).map(|spread| show(spread.median))
        });
    }
    let mut runs = cells.iter().flat_map(|cell| &cell.servers).flat_map(|runs| &runs.runs);
    if runs.any(|run| run.compression.is_some()) {
        let compressed: [(&str, Metric, Show); 2] = [
            ("Payload each way, MB/s", megabytes_per_second, |value| format!("{value:.1}")),
            ("An echo on the wire, bytes", reply_bytes, show_count),
        ];
        for (title, metric, show) in compressed {
            matrix(&mut page, title, servers, cells, |cell, name| {
                cell.of(name)?.spread(metric).map(|spread| show(spread.median))
            });
        }
        let _ = writeln!(page, "### Compression that was agreed on\n\n{}", terms(servers, cells));
    }
    let suites = suites(servers, cells);
    if !suites.is_empty() {
        let _ = writeln!(page, "### TLS that was spoken\n\n{suites}");
    }
    let cells = most_connections(cells);
    for (title, metric) in MEMORY {
        matrix(&mut page, title, servers, &cells, |cell, name| {
            cell.of(name)?.spread(metric).map(|spread| show_bytes(spread.median.round()))
        });
    }
    page
}

/// What the names of loads and the figures mean.
pub(super) fn explained(head: &Head) -> String {
    let Head { rounds, seconds_per_run, .. } = head;
    format!(
        "Each load is connections × messages in flight × payload. {rounds} rounds of {seconds_per_run} s, \
         interleaved. Medians; a ratio is taken within a round, and its lowest and highest value follow in brackets."
    )
}

/// A line for each server that compressed.
pub(super) fn terms(servers: &[String], cells: &[CellResult]) -> String {
    let mut lines = String::new();
    for name in servers {
        let mut runs = cells.iter().filter_map(|cell| cell.of(name)).flat_map(|runs| &runs.runs);
        if let Some(agreed) = runs.find_map(|run| run.compression?.agreed) {
            let _ = writeln!(lines, "- {name}: {agreed}");
        }
    }
    lines
}

/// A line for each server that spoke TLS.
pub(super) fn suites(servers: &[String], cells: &[CellResult]) -> String {
    let mut lines = String::new();
    for name in servers {
        let mut runs = cells.iter().filter_map(|cell| cell.of(name)).flat_map(|runs| &runs.runs);
        let spoken = runs.find_map(|run| {
            let tls = run.tls?;
            tls.version.zip(tls.cipher_suite)
        });
        if let Some((version, suite)) = spoken {
            let _ = writeln!(lines, "- {name}: {version}, {suite}");
        }
    }
    lines
}

/// Memory is told for the first load of each number of connections: it is read before messages flow.
pub(super) fn most_connections(cells: &[CellResult]) -> Vec<CellResult> {
    let mut first: Vec<CellResult> = Vec::new();
    for cell in cells {
        if first.iter().all(|known| known.cell.connections != cell.cell.connections) {
            first.push(cell.clone());
        }
    }
    first
}

/// What the marks behind values mean, of which the speed is that of `what`.
pub(crate) fn marks_explained(what: &str) -> String {
    format!(
        "{GENERATOR_MARK} the load generator was busy and the server was not: {what} per second say nothing of the \
         server. {DISTURBED_MARK} other programs took a CPU. {ERROR_MARK} something failed."
    )
}

/// A table with a row for each load and a column for each server.
pub(crate) fn matrix<C: Display, R: Run>(
    page: &mut String,
    title: &str,
    servers: &[String],
    cells: &[CellResult<C, R>],
    value: impl Fn(&CellResult<C, R>, &str) -> Option<String>,
) {
    let _ = writeln!(page, "### {title}\n");
    let _ = writeln!(page, "| load | {} |", servers.join(" | "));
    let _ = writeln!(page, "|---|{}", "---:|".repeat(servers.len()));
    for row in rows(servers, cells, value) {
        let _ = writeln!(page, "| {} |", row.join(" | "));
    }
    page.push('\n');
}

/// The rows of such a table: the load, and what each server has there with the marks of its runs.
pub(super) fn rows<C: Display, R: Run>(
    servers: &[String],
    cells: &[CellResult<C, R>],
    value: impl Fn(&CellResult<C, R>, &str) -> Option<String>,
) -> Vec<Vec<String>> {
    let shown = |cell: &CellResult<C, R>, name: &String| {
        let shown = value(cell, name).unwrap_or_else(|| NO_VALUE.to_owned());
        format!("{shown}{}", cell.of(name).map(marks).unwrap_or_default())
    };
    let row = |cell: &CellResult<C, R>| {
        let load = std::iter::once(cell.cell.to_string());
        load.chain(servers.iter().map(|name| shown(cell, name))).collect()
    };
    cells.iter().map(row).collect()
}

fn marks<R: Run>(runs: &ServerRuns<R>) -> String {
    let marks = [
        (runs.was(Bottleneck::Generator), GENERATOR_MARK),
        (runs.was(Bottleneck::Disturbed), DISTURBED_MARK),
        (runs.errors() > 0, ERROR_MARK),
    ];
    marks.into_iter().filter(|(holds, _)| *holds).map(|(_, mark)| mark).collect()
}

/// The median, and in brackets the lowest and the highest value.
pub(crate) fn show_ratio(ratio: &Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::summary::tests::{result, runs};
    use super::*;

    pub(crate) fn head() -> Head {
        Head {
            machine: "a machine".to_owned(),
            date: "2025-01-31".to_owned(),
            command: "ringwire-bench compare".to_owned(),
            baseline: "base".to_owned(),
            rounds: 3,
            seconds_per_run: 1.5,
        }
    }

    #[test]
    fn ratios_come_first_and_the_baseline_has_none() {
        let servers = ["base".to_owned(), "other".to_owned()];
        let page = page(&head(), &servers, &[result()]);
        let ratios = "### Messages per second, as a ratio to base\n\n| load | other |\n|---|---:|\n\
             | 1000 × 16 × 1 KiB | 1.00 (0.90–1.10) |\n";
        let absolute =
            "| load | base | other |\n|---|---:|---:|\n| 1000 × 16 × 1 KiB | 200 | 220 |\n";
        let (first, second) = (page.find(ratios).unwrap(), page.find(absolute).unwrap());
        assert!(first < second, "{page}");
    }

    #[test]
    fn doubtful_values_are_marked() {
        let mut other = runs("other", &[100]);
        assert_eq!(marks(&other), "");
        other.runs[0].bottleneck = Bottleneck::Generator;
        other.runs[0].errors.insert("reset".to_owned(), 1);
        assert_eq!(marks(&other), "†✗");
        other.runs[0].bottleneck = Bottleneck::Disturbed;
        assert_eq!(marks(&other), "‡✗");
    }

    #[test]
    fn cipher_suites_are_told_of_those_that_had_some() {
        let servers = ["base".to_owned(), "other".to_owned()];
        assert!(!page(&head(), &servers, &[result()]).contains("TLS that was spoken"));
        let mut result = result();
        let (version, cipher_suite) = (Some("1.3"), Some("SUITE"));
        let tls = crate::echo::TlsTotals { version, cipher_suite, full: 1, resumed: 0 };
        result.servers[1].runs[0].tls = Some(tls);
        let page = page(&head(), &servers, &[result]);
        assert!(page.contains("### TLS that was spoken\n\n- other: 1.3, SUITE\n"), "{page}");
    }

    #[test]
    fn compression_is_told_of_those_that_had_some() {
        let servers = ["base".to_owned(), "other".to_owned()];
        let mut result = result();
        assert!(!page(&head(), &servers, std::slice::from_ref(&result)).contains("ompression"));
        let agreed = crate::echo::Agreed {
            client_takeover: false,
            server_takeover: false,
            client_window_bits: 15,
            server_window_bits: 15,
        };
        result.servers[1].runs[0].compression = Some(crate::echo::DeflateTotals {
            agreed: Some(agreed),
            request_bytes: 200.0,
            reply_bytes: 210.4,
            replies: 1,
        });
        let page = page(&head(), &servers, &[result]);
        let terms = "### Compression that was agreed on\n\n- other: no context takeover, ";
        assert!(page.contains(terms), "{page}");
        assert!(page.contains("| 1000 × 16 × 1 KiB | – | 210 |"), "{page}");
    }

    #[test]
    fn memory_has_one_row_for_each_number_of_connections() {
        let mut more = result();
        more.cell.connections = 5;
        let mut larger = result();
        larger.cell.payload_bytes = 9;
        let rows = most_connections(&[result(), larger, more.clone()]);
        let rows: Vec<_> = rows.iter().map(|row| row.cell).collect();
        assert_eq!(rows, [result().cell, more.cell]);
    }
}
