//! The tables of a comparison: ratios first, then what they are ratios of. As a page of Markdown, too.

use std::fmt::Write as _;

use serde::Deserialize as _;

use super::results::{
    CellResult, DELIVERY_CPU, Head, Load, MESSAGES_PER_SECOND, Metric, P99, RESIDENT_BYTES,
    Results, SERVER_CPU, ServerRuns, Spread,
};
use crate::echo::{Agreed, Bottleneck};
use crate::report::Table;
use crate::units::{show_bytes, show_count};

/// A value is marked with this when the load generator limited it.
const GENERATOR_MARK: &str = "†";
/// When other programs took a CPU.
const DISTURBED_MARK: &str = "‡";
/// When some connections failed.
const ERROR_MARK: &str = "✗";
const NO_VALUE: &str = "–";

/// How a value is written.
type Show = fn(f64) -> String;

const MICROS: Show = |value| format!("{value:.2}");
const BYTES: Show = |value| show_bytes(value.round());

const DELIVERIES_PER_SECOND: Metric = "/deliveries_per_second";
const REPLY_BYTES: Metric = "/compression/reply_bytes";

/// Metrics whose ratios to the baseline make tables. Runs need not have all of them.
const RATIOS: [(&str, Metric); 4] = [
    ("Messages per second", MESSAGES_PER_SECOND),
    ("Server CPU time per message", SERVER_CPU),
    ("Server CPU time per delivery", DELIVERY_CPU),
    ("Deliveries per second", DELIVERIES_PER_SECOND),
];
/// What is told of each server, where runs have it.
const ABSOLUTE: [(&str, Metric, Show); 8] = [
    ("Messages per second", MESSAGES_PER_SECOND, show_count),
    ("Server CPU time per message, µs", SERVER_CPU, MICROS),
    ("Server CPU time per delivery, µs", DELIVERY_CPU, MICROS),
    ("Deliveries per second", DELIVERIES_PER_SECOND, show_count),
    ("Latency p50, µs", "/latency_us/p50", show_count),
    ("Latency p99, µs", P99, show_count),
    ("Latency p99.9, µs", "/latency_us/p999", show_count),
    ("An echo on the wire, bytes", REPLY_BYTES, show_count),
];
/// The same, with compression alone.
const COMPRESSED: (&str, Metric, Show) =
    ("Payload each way, MB/s", "/megabytes_per_second", |value| format!("{value:.1}"));
/// What is told of each server at rest.
const MEMORY: [(&str, Metric); 2] = [
    ("Server memory per idle connection", RESIDENT_BYTES),
    (
        "Kernel memory per idle connection, both ends",
        "/server/memory/kernel_bytes_per_idle_connection",
    ),
];

/// The page.
pub(crate) fn page(results: &Results) -> String {
    let mut page = String::new();
    let Head { machine, date, commit, command, .. } = &results.head;
    let commit = commit.as_ref().map(|commit| format!(" Commit {commit}.")).unwrap_or_default();
    let _ = writeln!(page, "{machine}. {date}.{commit}\n\n```\n{command}\n```\n");
    for paragraph in lead(results) {
        let _ = writeln!(page, "{paragraph}\n");
    }
    let ratios = ratio_tables(results).into_iter().map(|(_, table)| table);
    page.extend(ratios.chain(absolute_tables(results)).map(|table| table.markdown()));
    for (title, lines) in spoken(results) {
        let _ = writeln!(page, "### {title}\n");
        for line in lines {
            let _ = writeln!(page, "- {line}");
        }
        page.push('\n');
    }
    page.extend(memory_tables(results).iter().map(Table::markdown));
    page
}

/// What the names of loads, the figures and their marks mean.
pub(super) fn lead(results: &Results) -> Vec<String> {
    let Head { rounds, seconds_per_run, .. } = results.head;
    let load = results.cells.first().map(|cell| &cell.load);
    let unit = load.map_or("messages", Load::unit);
    vec![
        format!(
            "Each load is {}. {rounds} rounds of {seconds_per_run} s, interleaved. Medians; a ratio is taken within a \
             round, and its lowest and highest value follow in brackets.",
            load.map_or("a row", Load::explained)
        ),
        format!(
            "{GENERATOR_MARK} the load generator was busy and the server was not: {unit} per second say nothing of the \
             server. {DISTURBED_MARK} other programs took a CPU. {ERROR_MARK} something failed."
        ),
    ]
}

/// What servers have at each load in comparison with the baseline, and by which number of their runs.
pub(super) fn ratio_tables(results: &Results) -> Vec<(Metric, Table)> {
    let baseline = &results.head.baseline;
    let table = |(title, metric)| {
        let title = format!("{title}, as a ratio to {baseline}");
        let table = matrix(title, results.others(), results.cells.iter(), |cell, name| {
            cell.ratio(name, baseline, metric).map(show_ratio)
        });
        (metric, table)
    };
    RATIOS.into_iter().filter(|(_, metric)| results.has(metric)).map(table).collect()
}

/// What each server has at each load.
pub(super) fn absolute_tables(results: &Results) -> Vec<Table> {
    let compressed = Some(COMPRESSED).filter(|_| results.has(REPLY_BYTES));
    let figures = ABSOLUTE.into_iter().chain(compressed);
    let table = |(title, metric, show): (&str, Metric, Show)| {
        matrix(title.to_owned(), results.servers(), results.cells.iter(), |cell, name| {
            cell.of(name)?.spread(metric).map(|spread| show(spread.median))
        })
    };
    figures.filter(|(_, metric, _)| results.has(metric)).map(table).collect()
}

/// What an idle connection of each server takes.
pub(super) fn memory_tables(results: &Results) -> Vec<Table> {
    let table = |(title, metric): (&str, Metric)| {
        matrix(title.to_owned(), results.servers(), results.at_rest().into_iter(), |cell, name| {
            cell.of(name)?.spread(metric).map(|spread| BYTES(spread.median))
        })
    };
    MEMORY.into_iter().filter(|(_, metric)| results.has(metric)).map(table).collect()
}

/// What was agreed on with those servers that compressed or spoke TLS, under a title each.
pub(super) fn spoken(results: &Results) -> Vec<(&'static str, Vec<String>)> {
    let of_servers = |find: fn(&serde_json::Value) -> Option<String>| -> Vec<String> {
        let line = |name: String| {
            let runs = results.cells.iter().filter_map(|cell| cell.of(&name));
            let found = runs.flat_map(|runs| &runs.runs).find_map(find)?;
            Some(format!("{name}: {found}"))
        };
        results.servers().into_iter().filter_map(line).collect()
    };
    let terms = of_servers(|run| {
        let agreed = Agreed::deserialize(run.pointer("/compression/agreed")?).ok()?;
        Some(agreed.to_string())
    });
    let suites = of_servers(|run| {
        let (version, suite) =
            (run["tls"]["version"].as_str()?, run["tls"]["cipher_suite"].as_str()?);
        Some(format!("{version}, {suite}"))
    });
    let all = [("Compression that was agreed on", terms), ("TLS that was spoken", suites)];
    all.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

/// A table with a row for each load and a column for each server, with the marks of its runs.
fn matrix<'a>(
    title: String,
    servers: Vec<String>,
    cells: impl Iterator<Item = &'a CellResult>,
    value: impl Fn(&CellResult, &str) -> Option<String>,
) -> Table {
    let shown = |cell: &CellResult, name: &String| {
        let shown = value(cell, name).unwrap_or_else(|| NO_VALUE.to_owned());
        format!("{shown}{}", cell.of(name).map(marks).unwrap_or_default())
    };
    let row = |cell: &CellResult| {
        let load = std::iter::once(cell.load.to_string());
        load.chain(servers.iter().map(|name| shown(cell, name))).collect()
    };
    let rows = cells.map(row).collect();
    Table { title, columns: std::iter::once("load".to_owned()).chain(servers).collect(), rows }
}

fn marks(runs: &ServerRuns) -> String {
    let marks = [
        (runs.was(Bottleneck::Generator), GENERATOR_MARK),
        (runs.was(Bottleneck::Disturbed), DISTURBED_MARK),
        (runs.errors() > 0, ERROR_MARK),
    ];
    marks.into_iter().filter(|(holds, _)| *holds).map(|(_, mark)| mark).collect()
}

/// The median, and in brackets the lowest and the highest value.
pub(super) fn show_ratio(Spread { min, median, max }: Spread) -> String {
    format!("{median:.2} ({min:.2}–{max:.2})")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::results::tests::{results, runs};
    use super::*;
    use crate::broadcast;

    #[test]
    fn ratios_come_first_and_the_baseline_has_none() {
        let page = page(&results());
        let ratios = "### Messages per second, as a ratio to base\n\n| load | other |\n|---|---:|\n\
             | 1000 × 16 × 1 KiB | 1.00 (0.90–1.10) |\n";
        let absolute =
            "| load | base | other |\n|---|---:|---:|\n| 1000 × 16 × 1 KiB | 200 | 220 |\n";
        let (first, second) = (page.find(ratios).unwrap(), page.find(absolute).unwrap());
        assert!(first < second, "{page}");
        assert!(page.starts_with("a machine. 2025-01-31. Commit abc1234.\n"), "{page}");
        assert!(!page.contains("eliver"), "{page}");
    }

    #[test]
    fn broadcasts_are_told_by_their_deliveries() {
        let mut results = results();
        let runs = |server: &str, micros: &[u64]| ServerRuns {
            server: server.to_owned(),
            runs: micros
                .iter()
                .map(|&micros| serde_json::to_value(broadcast::test_report(micros)).unwrap())
                .collect(),
        };
        results.cells[0].load = Load::Broadcast { subscribers: 100, window: 1, payload_bytes: 64 };
        results.cells[0].servers = vec![runs("base", &[100, 200]), runs("other", &[150, 200])];
        let page = page(&results);
        assert!(page.contains("Each load is subscribers × messages on their way"), "{page}");
        assert!(page.contains("| 100 × 1 × 64 B | 1.25 (1.00–1.50) |"), "{page}");
        assert!(page.contains("| 100 × 1 × 64 B | 150.00 | 175.00 |"), "{page}");
        assert!(page.contains("| 100 × 1 × 64 B | 1 000 | 1 000 |"), "{page}");
        assert!(!page.contains("essages per second"), "{page}");
    }

    #[test]
    fn doubtful_values_are_marked() {
        let mut other = runs("other", &[100]);
        assert_eq!(marks(&other), "");
        other.runs[0]["bottleneck"] = json!("generator");
        other.runs[0]["errors"] = json!({ "reset": 1 });
        assert_eq!(marks(&other), "†✗");
        other.runs[0]["bottleneck"] = json!("disturbed");
        assert_eq!(marks(&other), "‡✗");
    }

    #[test]
    fn cipher_suites_are_told_of_those_that_had_some() {
        let mut results = results();
        assert!(!page(&results).contains("TLS that was spoken"));
        let tls = json!({ "version": "1.3", "cipher_suite": "SUITE", "full": 1, "resumed": 0 });
        results.cells[0].servers[1].runs[0]["tls"] = tls;
        let page = page(&results);
        assert!(page.contains("### TLS that was spoken\n\n- other: 1.3, SUITE\n"), "{page}");
    }

    #[test]
    fn compression_is_told_of_those_that_had_some() {
        let mut results = results();
        assert!(!page(&results).contains("ompression"));
        let agreed = Agreed {
            client_takeover: false,
            server_takeover: false,
            client_window_bits: 15,
            server_window_bits: 15,
        };
        let totals = crate::echo::DeflateTotals {
            agreed: Some(agreed),
            request_bytes: 200.0,
            reply_bytes: 210.4,
            replies: 1,
        };
        results.cells[0].servers[1].runs[0]["compression"] = serde_json::to_value(totals).unwrap();
        let page = page(&results);
        let terms = "### Compression that was agreed on\n\n- other: no context takeover, ";
        assert!(page.contains(terms), "{page}");
        assert!(page.contains("| 1000 × 16 × 1 KiB | – | 210 |"), "{page}");
        assert!(page.contains("### Payload each way"), "{page}");
    }
}
