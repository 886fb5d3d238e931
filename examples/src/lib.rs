//! What the example programs share: flags, logging and signals.

use std::io;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use ringwire::{DriverKind, Handle, Pinning};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

/// The value of `--driver`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum DriverFlag {
    /// The best one that this machine has.
    #[default]
    Auto,
    /// epoll(7).
    Epoll,
}

impl From<DriverFlag> for DriverKind {
    fn from(flag: DriverFlag) -> Self {
        match flag {
            DriverFlag::Auto => Self::Auto,
            DriverFlag::Epoll => Self::Epoll,
        }
    }
}

/// The value of `--pin`: `auto`, `none`, or core numbers between commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(Pinning);

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pinning = match text {
            "auto" => Pinning::Auto,
            "none" => Pinning::Off,
            list => Pinning::Cores(
                list.split(',')
                    .map(|core| {
                        core.trim().parse().map_err(|_| format!("`{core}` is no core number"))
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Self(pinning))
    }
}

impl From<Cores> for Pinning {
    fn from(cores: Cores) -> Self {
        cores.0
    }
}

/// Reads a number of bytes such as `65536`, `64KiB` or `1MiB`.
///
/// # Errors
/// The text is none, in words.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => return Err(format!("`{unit}` is none of B, KiB, MiB, GiB")),
    };
    let count: usize =
        digits.trim().parse().map_err(|_| format!("`{digits}` is no whole number"))?;
    count.checked_mul(factor).ok_or_else(|| format!("`{text}` is too much"))
}

/// Reads a duration such as `90s`, `250ms`, `5m` or `0`.
///
/// # Errors
/// The text is none, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if digits == "0" => 1,
        "" => return Err(format!("`{text}` has no unit: ms, s, m or h")),
        unit => return Err(format!("`{unit}` is none of ms, s, m, h")),
    };
    let count: u64 = digits.trim().parse().map_err(|_| format!("`{digits}` is no whole number"))?;
    Ok(Duration::from_millis(count.saturating_mul(milliseconds)))
}

/// Logs to standard error; `RUST_LOG` says what, by default warnings and the start-up lines.
pub fn init_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

/// On SIGTERM or SIGINT stops accepting, closes all connections with 1001 and gives them `limit` for it. A second
/// signal ends the process at once.
///
/// # Errors
/// The signals can't be handled.
pub fn shutdown_on_signals(handle: Handle, limit: Duration) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 {
                std::process::exit(128 + signal);
            }
            handle.shutdown(limit);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("65536"), Ok(65536));
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1 KiB"), Ok(1024));
        for wrong in ["", "MiB", "1MB", "-1", "99999999999GiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "5d", "-1s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cores_are_a_list_or_a_word() {
        assert_eq!("auto".parse(), Ok(Cores(Pinning::Auto)));
        assert_eq!("none".parse(), Ok(Cores(Pinning::Off)));
        assert_eq!("0,1".parse(), Ok(Cores(Pinning::Cores(vec![0, 1]))));
        assert!("0,x".parse::<Cores>().is_err());
    }
}
