//! What a program does around its work: the log, start-up lines, the error at the end. Nothing of it fails or waits.

use std::fmt::{Arguments, Display};
use std::io::{self, IsTerminal as _};
use std::process::{ExitCode, Termination};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;
use ringwire::logging::LogWriter;
use tracing_subscriber::EnvFilter;

/// How long the last lines may take at the end, and start-up lines at the start. Nobody may read them.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Runs `work` with a log on standard error. An error of it is logged, and the exit code 1.
pub fn program<T: Termination>(work: impl FnOnce() -> Result<T>) -> ExitCode {
    init_logging();
    let code = match work() {
        Ok(done) => done.report(),
        Err(error) => {
            crate::note!("Error: {error:?}");
            ExitCode::FAILURE
        }
    };
    if let Some(log) = standard_error() {
        log.flush_within(FLUSH_LIMIT);
    }
    code
}

/// Logs to standard error, panics as well; `RUST_LOG` says what, by default warnings and the start-up lines. Colours are for
/// terminals, unless NO_COLOR is set.
pub fn init_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    if let Some(log) = standard_error() {
        log.report_panics();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(!no_color && io::stderr().is_terminal())
            .with_writer(move || log.clone())
            .init();
    }
}

/// Lines on standard output on which nothing depends, such as where a server listens.
pub fn announce(lines: impl IntoIterator<Item = impl Display>) {
    // Without a thread there is nobody to write them.
    let Ok(out) = LogWriter::new(io::stdout()) else { return };
    for line in lines {
        out.log(format!("{line}\n").as_bytes());
    }
    out.flush_within(FLUSH_LIMIT);
}

/// A line on standard error, among those of the log.
#[macro_export]
macro_rules! note {
    ($($argument:tt)*) => { $crate::write_note(format_args!($($argument)*)) };
}

#[doc(hidden)]
pub fn write_note(line: Arguments<'_>) {
    if let Some(log) = standard_error() {
        log.log(format!("{line}\n").as_bytes());
    }
}

/// `None`: there is no thread to be had for it.
fn standard_error() -> Option<&'static LogWriter> {
    static LOG: OnceLock<Option<LogWriter>> = OnceLock::new();
    LOG.get_or_init(|| LogWriter::new(io::stderr()).ok()).as_ref()
}
