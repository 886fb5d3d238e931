//! Results on their way to people, to a file or to the standard output.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;
use std::{fs, io};

use anyhow::Context as _;
use serde::Serialize;

use crate::bottleneck::Bottleneck;
use crate::disturbance::Disturbance;
use crate::report::Table;

/// The flag of where a result goes beside the terminal.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct JsonArgs {
    /// Writes the result as JSON to a file, or to the standard output for `-`.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

impl JsonArgs {
    /// Whether the standard output has to be JSON alone.
    pub(crate) fn is_to_stdout(&self) -> bool {
        self.json.as_deref() == Some("-")
    }

    /// Prints what people read, unless JSON goes there, and writes that to where it is asked for.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn tell(&self, text: impl Display, result: &impl Serialize) -> anyhow::Result<()> {
        // The file first: who reads the text may have enough of it.
        self.write(result)?;
        if self.is_to_stdout() { Ok(()) } else { say(text) }
    }

    /// Writes JSON to where it is asked for.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn write(&self, result: &impl Serialize) -> anyhow::Result<()> {
        self.json.as_ref().map_or(Ok(()), |file| write_json(file, result))
    }
}

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

/// Prints a line or more.
///
/// # Errors
/// When nobody reads the standard output any more, which [`is_unread`] knows.
pub(crate) fn say(text: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Says something beside the result, on the standard error. Nobody may read it.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether an error is that nobody reads the standard output any more, as behind `| head`.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes JSON to a file, or to the standard output for `-`.
pub(crate) fn write_json(file: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let mut json = serde_json::to_string_pretty(value)?;
    json.push('\n');
    write_text(file, &json)
}

/// Writes text to a file, or to the standard output for `-`.
pub(crate) fn write_text(file: &str, text: &str) -> anyhow::Result<()> {
    if file == "-" {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        return Ok(output.flush()?);
    }
    fs::write(file, text).with_context(|| format!("cannot write {file}"))
}
