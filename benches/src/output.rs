//! Results on their way to a file or the standard output.

use std::fs;

use anyhow::Context as _;
use serde::Serialize;

/// Writes JSON to a file, or to the standard output for `-`.
pub(crate) fn write_json(file: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let mut json = serde_json::to_string_pretty(value)?;
    json.push('\n');
    write_text(file, &json)
}

/// Writes text to a file, or to the standard output for `-`.
pub(crate) fn write_text(file: &str, text: &str) -> anyhow::Result<()> {
    if file == "-" {
        print!("{text}");
        return Ok(());
    }
    fs::write(file, text).with_context(|| format!("cannot write {file}"))
}
