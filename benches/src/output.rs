//! Results on their way to people, to a file or to the standard output.

use std::fmt::Display;
use std::io::Write as _;
use std::{fs, io};

use anyhow::Context as _;
use serde::Serialize;

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
