//! The comparison as a page with plots: ratios first, then what they are ratios of, then each run over time.

use super::markdown::{
    ABSOLUTE, Head, MEMORY, RATIOS, explained, marks_explained, most_connections, rows, show_ratio,
    suites, terms,
};
use super::summary::{CellResult, Metric, Spread, messages_per_second, server_cpu};
use crate::echo::{Bottleneck, Report};
use crate::report::{
    Bars, Chart, Page, Part, Plot, Section, Table, Tile, Tone, Unit, Verdict, side_by_side,
};
use crate::units::show_bytes;

/// Loads in one chart: the names of more would run into each other.
const LOADS_PER_CHART: usize = 4;

/// The page.
pub(crate) fn page(head: &Head, servers: &[String], cells: &[CellResult]) -> Page {
    let baseline = &head.baseline;
    let others: Vec<String> = servers.iter().filter(|name| *name != baseline).cloned().collect();
    let summary = vec![Part::Verdict(verdict(cells)), Part::Tiles(tiles(&others, baseline, cells))];
    let mut sections = vec![Section::new("At a glance", summary)];
    for (title, metric) in RATIOS {
        let mut parts = ratio_charts(&others, baseline, cells, metric);
        let shown = rows(&others, cells, |cell, name| {
            cell.ratio(name, baseline, metric).map(|ratio| show_ratio(&ratio))
        });
        parts.push(table("", &others, shown));
        sections.push(Section::new(format!("{title} {baseline}"), parts));
    }
    let absolute = ABSOLUTE.into_iter().map(|(title, metric, show)| {
        let shown = rows(servers, cells, |cell, name| {
            cell.of(name)?.spread(metric).map(|spread| show(spread.median))
        });
        table(title, servers, shown)
    });
    sections.push(Section::new("What these are ratios of", absolute.collect()));
    let idle = most_connections(cells);
    let memory = MEMORY.into_iter().map(|(title, metric)| {
        let shown = rows(servers, &idle, |cell, name| {
            cell.of(name)?.spread(metric).map(|spread| show_bytes(spread.median.round()))
        });
        table(title, servers, shown)
    });
    sections.push(Section::new("Memory", memory.collect()));
    let spoken = [
        ("Compression that was agreed on", terms(servers, cells)),
        ("TLS that was spoken", suites(servers, cells)),
    ];
    for (title, lines) in spoken.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        let lines = lines.lines().map(|line| Part::Text(line.trim_start_matches("- ").to_owned()));
        sections.push(Section::new(title, lines.collect()));
    }
    sections.extend(cells.iter().map(over_time));
    let title = format!("{} servers, compared with {baseline}", servers.len());
    Page { title, lead: vec![explained(head), marks_explained("messages")], sections }
}

/// Whether the figures count.
fn verdict(cells: &[CellResult]) -> Verdict {
    let runs = || cells.iter().flat_map(|cell| &cell.servers).flat_map(|of| &of.runs);
    let count = |bad: fn(&&Report) -> bool| runs().filter(bad).count();
    let failed = count(|run| !run.errors.is_empty());
    let disturbed = count(|run| run.bottleneck == Bottleneck::Disturbed);
    let limited = count(|run| run.bottleneck == Bottleneck::Generator);
    let all = runs().count();
    let (tone, text) = if failed > 0 {
        (
            Tone::Bad,
            format!(
                "{failed} of {all} runs had errors (✗): these servers did less than they were asked."
            ),
        )
    } else if disturbed > 0 {
        (
            Tone::Careful,
            format!(
                "Other programs took a CPU in {disturbed} of {all} runs (‡): CPU times and ratios hold better than rates."
            ),
        )
    } else if limited > 0 {
        (
            Tone::Careful,
            format!(
                "The load was the limit in {limited} of {all} runs (†): their CPU times count, their rates do not."
            ),
        )
    } else {
        (Tone::Good, format!("Nothing disturbed the {all} runs."))
    };
    Verdict { tone, text }
}

/// The ratio of each server over all loads.
fn tiles(servers: &[String], baseline: &str, cells: &[CellResult]) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for name in servers {
        for (what, metric) in
            [("messages/s", messages_per_second as Metric), ("CPU a message", server_cpu)]
        {
            let ratios = cells.iter().filter_map(|cell| cell.ratio(name, baseline, metric));
            if let Some(spread) = Spread::of(ratios.map(|ratio| ratio.median)) {
                let Spread { min, median, max } = spread;
                let value = format!("{median:.2} × ({min:.2}–{max:.2})");
                tiles.push(Tile { name: format!("{name}: {what}"), value });
            }
        }
    }
    tiles
}

/// A bar for each server at each load.
fn ratio_charts(
    servers: &[String],
    baseline: &str,
    cells: &[CellResult],
    metric: Metric,
) -> Vec<Part> {
    let chart = |cells: &[CellResult]| {
        let of = |name: &String| {
            let value = |cell: &CellResult| Some(cell.ratio(name, baseline, metric)?.median);
            Bars { name: name.clone(), values: cells.iter().map(value).collect() }
        };
        let categories = cells.iter().map(|cell| cell.cell.to_string()).collect();
        let bars = servers.iter().map(of).collect();
        let title = format!("{baseline} is 1");
        Part::Chart(Chart { title, unit: Unit::Ratio, plot: Plot::Bars { categories, bars } })
    };
    cells.chunks(LOADS_PER_CHART).map(chart).collect()
}

/// The last round of a load.
fn over_time(cell: &CellResult) -> Section {
    let last = cell.servers.iter().filter_map(|of| Some((of.server.as_str(), of.runs.last()?)));
    let runs: Vec<_> = last.map(|(name, run)| (name, &run.timeline)).collect();
    Section::new(format!("Over time: {}, the last round", cell.cell), side_by_side(&runs)).folded()
}

fn table(title: &str, servers: &[String], rows: Vec<Vec<String>>) -> Part {
    let columns = std::iter::once("load".to_owned()).chain(servers.iter().cloned()).collect();
    Part::Table(Table { title: title.to_owned(), columns, rows })
}

#[cfg(test)]
mod tests {
    use super::super::markdown::tests::head;
    use super::super::summary::tests::result;
    use super::*;

    #[test]
    fn ratios_come_first_as_bars_and_numbers() {
        let servers = ["base".to_owned(), "other".to_owned()];
        let page = page(&head(), &servers, &[result()]);
        let [Part::Verdict(verdict), Part::Tiles(tiles)] = &page.sections[0].parts[..] else {
            panic!("{page:?}");
        };
        assert_eq!(verdict.tone, Tone::Good, "{verdict:?}");
        let tile = (tiles[0].name.as_str(), tiles[0].value.as_str());
        assert_eq!(tile, ("other: messages/s", "1.00 × (1.00–1.00)"));
        let [Part::Chart(chart), Part::Table(table)] = &page.sections[1].parts[..] else {
            panic!("{page:?}");
        };
        let Plot::Bars { bars, .. } = &chart.plot else { panic!("{chart:?}") };
        assert_eq!(bars.len(), 1, "the baseline has no ratio to itself");
        assert_eq!(bars[0].name, "other");
        assert!((bars[0].values[0].unwrap() - 1.0).abs() < 1e-9, "{bars:?}");
        assert_eq!(table.columns, ["load", "other"]);
        assert_eq!(table.rows, [["1000 × 16 × 1 KiB", "1.00 (0.90–1.10)"]]);
        let last = page.sections.last().unwrap();
        assert!(last.is_folded && last.title.contains("1000 × 16 × 1 KiB"), "{last:?}");
    }
}
