//! The log, start-up lines, and the error at the end. Nothing of it fails or waits.

use std::fmt::{Arguments, Display};
use std::io::{self, IsTerminal as _};
use std::process::{ExitCode, Termination};
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::server::logging::LogWriter;

/// How long the last lines may take at the end, and start-up lines at the start. Nobody may read them.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Runs `work` with a log on standard error, panics included. An error of it is logged, with its causes where the
/// error's alternate form (`{:#}`) has them, and the exit code 1.
///
/// `RUST_LOG` sets the level, `info` by default, and levels of modules: `info,ringwire=debug`. Colours are for
/// terminals, unless NO_COLOR is set. A subscriber of `tracing` that is installed already stays.
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
    let (levels, mistake) = levels_of(std::env::var("RUST_LOG").ok().as_deref());
    if let Some(log) = standard_error() {
        log.report_panics();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(!no_color && io::stderr().is_terminal())
            .with_writer(move || log.clone());
        // The application's own subscriber is as good.
        let _ = tracing_subscriber::registry().with(lines).with(levels).try_init();
    }
    if let Some(mistake) = mistake {
        note(format_args!("warning: {mistake}"));
    }
}

/// The levels in the text of `RUST_LOG`, and what is wrong with that text.
fn levels_of(text: Option<&str>) -> (Targets, Option<String>) {
    let info = Targets::new().with_default(LevelFilter::INFO);
    match text.filter(|text| !text.is_empty()).map(str::parse) {
        None => (info, None),
        Some(Ok(levels)) => (levels, None),
        Some(Err(error)) => {
            let example = "write it as `debug` or `info,ringwire=debug`";
            (info, Some(format!("RUST_LOG is ignored, the level is info: {error}; {example}")))
        }
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

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_are_of_all_and_of_modules() {
        let (levels, mistake) = levels_of(Some("info,ringwire::app=debug"));
        assert_eq!(mistake, None);
        assert!(levels.would_enable("ringwire::app::handler", &Level::DEBUG));
        assert!(levels.would_enable("elsewhere", &Level::INFO));
        assert!(!levels.would_enable("elsewhere", &Level::DEBUG));
    }

    #[test]
    fn without_levels_or_with_wrong_ones_the_level_is_info() {
        for text in [None, Some(""), Some("ringwire=loud")] {
            let (levels, mistake) = levels_of(text);
            assert!(levels.would_enable("ringwire", &Level::INFO), "{text:?}");
            assert!(!levels.would_enable("ringwire", &Level::DEBUG), "{text:?}");
            assert_eq!(mistake.is_some(), text.is_some_and(|text| !text.is_empty()), "{mistake:?}");
        }
        let (_, mistake) = levels_of(Some("ringwire=loud"));
        assert!(mistake.is_some_and(|mistake| mistake.contains("write it as")));
    }
}
