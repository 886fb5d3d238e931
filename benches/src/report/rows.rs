//! Tables of names and values, as loads print them.

use std::collections::BTreeMap;

use super::Table;
use crate::bottleneck::Bottleneck;
use crate::disturbance::Disturbance;

/// A row of a table: a name and a value.
pub(crate) type Row = (&'static str, String);

/// A table of names and values.
pub(crate) fn show_rows(rows: &[Row]) -> String {
    Table::of_pairs("", rows.iter().cloned()).to_string()
}

/// CPU time of both sides for each of what is counted, in microseconds with so many digits, and how busy they were.
pub(crate) fn cpu_rows(
    (unit, digits): (&str, usize),
    server: Option<(f64, f64)>,
    generator: Option<(f64, f64)>,
) -> Vec<Row> {
    let row = |(name, cpu): (_, Option<(f64, f64)>)| {
        let (micros, busy) = cpu?;
        Some((name, format!("{micros:.digits$} µs per {unit}, {:.0} % busy", busy * 100.0)))
    };
    [("server CPU", server), ("generator CPU", generator)].into_iter().filter_map(row).collect()
}

/// What every table ends with: whose limit the figures are, what else went on, and what went wrong.
pub(crate) fn last_rows(
    bottleneck: Bottleneck,
    disturbance: Option<Disturbance>,
    notes: &[String],
    errors: &BTreeMap<String, u64>,
) -> Vec<Row> {
    let mut rows = vec![("bottleneck", bottleneck.text().to_owned())];
    let disturbance = disturbance.filter(|found| found.is_worth_telling());
    rows.extend(disturbance.map(|found| ("meanwhile", found.to_string())));
    rows.extend(notes.iter().map(|note| ("note", note.clone())));
    rows.extend(errors.iter().map(|(kind, count)| ("ERROR", format!("{count} × {kind}"))));
    rows
}
