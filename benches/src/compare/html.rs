//! The comparison as a page with plots: ratios first, then what they are ratios of, then each run over time.

use serde::Deserialize as _;

use super::markdown::{absolute_tables, lead, memory_tables, ratio_tables, spoken};
use super::results::{
    CellResult, MESSAGES_PER_SECOND, Metric, Results, SERVER_CPU, Spread, ended, errors,
};
use crate::echo::Bottleneck;
use crate::report::{
    Bars, Chart, Page, Part, Plot, Section, Tile, Timeline, Tone, Unit, Verdict, side_by_side,
};

/// Loads in one chart: the names of more would run into each other.
const LOADS_PER_CHART: usize = 4;

/// The page.
pub(crate) fn page(results: &Results) -> Page {
    let baseline = &results.head.baseline;
    let summary = vec![Part::Verdict(verdict(results)), Part::Tiles(tiles(results))];
    let mut sections = vec![Section::new("At a glance", summary)];
    for (metric, mut table) in ratio_tables(results) {
        let title = std::mem::take(&mut table.title);
        let mut parts = ratio_charts(results, metric);
        parts.push(Part::Table(table));
        sections.push(Section::new(title, parts));
    }
    let absolute = absolute_tables(results).into_iter().map(Part::Table);
    sections.push(Section::new("What these are ratios of", absolute.collect()));
    let memory: Vec<_> = memory_tables(results).into_iter().map(Part::Table).collect();
    if !memory.is_empty() {
        sections.push(Section::new("Memory", memory));
    }
    for (title, lines) in spoken(results) {
        sections.push(Section::new(title, lines.into_iter().map(Part::Text).collect()));
    }
    sections.extend(results.cells.iter().filter_map(over_time));
    let title = format!("{} servers, compared with {baseline}", results.servers().len());
    Page { title, lead: lead(results), sections }
}

/// Whether the figures count.
pub(super) fn verdict(results: &Results) -> Verdict {
    let is = |bottleneck| results.runs().filter(|run| ended(run, bottleneck)).count();
    let failed = results.runs().filter(|run| errors(run) > 0).count();
    let (disturbed, limited) = (is(Bottleneck::Disturbed), is(Bottleneck::Generator));
    let all = results.runs().count();
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
fn tiles(results: &Results) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for name in results.others() {
        for (what, metric) in [("messages/s", MESSAGES_PER_SECOND), ("CPU a message", SERVER_CPU)] {
            if let Some(Spread { min, median, max }) = over_loads(results, &name, metric) {
                let value = format!("{median:.2} × ({min:.2}–{max:.2})");
                tiles.push(Tile { name: format!("{name}: {what}"), value });
            }
        }
    }
    tiles
}

/// The ratio of a server to the baseline over all loads, each with its median.
pub(super) fn over_loads(results: &Results, server: &str, metric: Metric) -> Option<Spread> {
    let baseline = &results.head.baseline;
    let ratios = results.cells.iter().filter_map(|cell| cell.ratio(server, baseline, metric));
    Spread::of(ratios.map(|ratio| ratio.median))
}

/// A bar for each server at each load.
fn ratio_charts(results: &Results, metric: Metric) -> Vec<Part> {
    let baseline = &results.head.baseline;
    let chart = |cells: &[CellResult]| {
        let of = |name: String| {
            let value = |cell: &CellResult| Some(cell.ratio(&name, baseline, metric)?.median);
            Bars { values: cells.iter().map(value).collect(), name }
        };
        let categories = cells.iter().map(|cell| cell.load.to_string()).collect();
        let bars = results.others().into_iter().map(of).collect();
        let title = format!("{baseline} is 1");
        Part::Chart(Chart { title, unit: Unit::Ratio, plot: Plot::Bars { categories, bars } })
    };
    results.cells.chunks(LOADS_PER_CHART).map(chart).collect()
}

/// The last round of a load, where runs tell of each moment.
fn over_time(cell: &CellResult) -> Option<Section> {
    let timeline = |run: &serde_json::Value| Timeline::deserialize(run.get("timeline")?).ok();
    let last = cell.servers.iter().filter_map(|of| Some((&of.server, timeline(of.runs.last()?)?)));
    let runs: Vec<_> = last.collect();
    let runs: Vec<_> = runs.iter().map(|(name, timeline)| (name.as_str(), timeline)).collect();
    let title = format!("Over time: {}, the last round", cell.load);
    (!runs.is_empty()).then(|| Section::new(title, side_by_side(&runs)).folded())
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::*;

    #[test]
    fn ratios_come_first_as_bars_and_numbers() {
        let page = page(&results());
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
