//! The log, start-up lines, and the error at the end. Nothing of it fails or waits.

use std::fmt::{Arguments, Display};
use std::io::{self, IsTerminal as _};
use std::process::{ExitCode, Termination};
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::server::logging::LogWriter;

/// How long the last lines may take at the end, and start-up lines at the start. Nobody may read them.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Runs `work` with a log on standard error, panics included. An error of it is logged, with its causes where the
/// error's alternate form (`{:#}`) has them, and the exit code 1.
///
/// `RUST_LOG` says what is logged, by default what is of level INFO or above. Colours are for terminals, unless
/// NO_COLOR is set. A subscriber of `tracing` that is there already stays.
///
/// ```no_run
/// use std::process::ExitCode;
/// use ringwire::program::with_log;
/// use ringwire::{Config, Server, on_message};
///
/// fn main() -> ExitCode {
///     with_log(|| {
///         let server = Server::new(Config::default()).listen("127.0.0.1:0");
///         server.start(|_worker| on_message(|_ctx, _message| {}))?.join()
///     })
/// }
/// ```
pub fn with_log<T: Termination, E: Display>(work: impl FnOnce() -> Result<T, E>) -> ExitCode {
    init_log();
    let code = match work() {
        Ok(done) => done.report(),
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    };
    if let Some(log) = standard_error() {
        log.flush_within(FLUSH_LIMIT);
    }
    code
}

/// The log of [`with_log`] alone, for programs that end in a way of their own.
pub fn init_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    if let Some(log) = standard_error() {
        log.report_panics();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        // The application's own subscriber is as good.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(!no_color && io::stderr().is_terminal())
            .with_writer(move || log.clone())
            .try_init();
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
pub fn note(line: Arguments<'_>) {
    if let Some(log) = standard_error() {
        log.log(format!("{line}\n").as_bytes());
    }
}

/// `None`: there is no thread to be had for it.
fn standard_error() -> Option<&'static LogWriter> {
    static LOG: OnceLock<Option<LogWriter>> = OnceLock::new();
    LOG.get_or_init(|| LogWriter::new(io::stderr()).ok()).as_ref()
}
