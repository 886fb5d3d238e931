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
