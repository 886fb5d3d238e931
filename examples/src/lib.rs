//! What the programs share: the handlers, flags, units, logging and signals.

mod broadcast;
mod echo;
mod program;
mod server;
mod tls;
pub mod units;

pub use broadcast::Broadcast;
pub use echo::Echo;
pub use program::{announce, init_logging, program, write_note};
pub use server::run_server;
pub use tls::Certificate;

use std::io;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use ringwire::{DriverKind, Handle, Notifier, compression::CompressionMode, tuning::Pinning};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// The value of `--driver`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum DriverFlag {
    /// io_uring where this machine has it, else epoll.
    #[default]
    Auto,
    /// epoll(7).
    Epoll,
    /// io_uring(7).
    Uring,
}

impl From<DriverFlag> for DriverKind {
    fn from(flag: DriverFlag) -> Self {
        match flag {
            DriverFlag::Auto => Self::Auto,
            DriverFlag::Epoll => Self::Epoll,
            DriverFlag::Uring => Self::Uring,
        }
    }
}

/// The value of `--compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CompressionFlag {
    /// Clients' offers are declined.
    #[default]
    Off,
    /// Each worker has a compressor and a decompressor, and each message stands for itself.
    Shared,
    /// Each connection has its own, and messages refer to those before them.
    Dedicated,
}

impl From<CompressionFlag> for CompressionMode {
    fn from(flag: CompressionFlag) -> Self {
        match flag {
            CompressionFlag::Off => Self::Off,
            CompressionFlag::Shared => Self::Shared,
            CompressionFlag::Dedicated => Self::Dedicated,
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

/// On SIGTERM or SIGINT stops accepting, closes all connections with 1001 and gives them `limit` for it. A second
/// one ends the process at once. On SIGHUP reads the certificates again; on SIGUSR1 logs how many connections each
/// worker has. The service manager, if there is one, is told of the end.
///
/// # Errors
/// The signals can't be handled.
pub fn handle_signals(handle: Handle, limit: Duration) -> io::Result<()> {
    let notifier = Notifier::from_environment()?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut ending = false;
        for signal in signals.forever() {
            if signal == SIGHUP {
                // What is wrong is in the log, and the old ones stay.
                let _ = handle.reload_tls();
            } else if signal == SIGUSR1 {
                let stats = handle.stats();
                let counts: Vec<_> =
                    stats.workers.iter().map(|worker| worker.connections).collect();
                tracing::info!(connections = ?counts, imbalance = stats.imbalance());
            } else if ending {
                std::process::exit(128 + signal);
            } else {
                ending = true;
                if let Some(Err(error)) = notifier.as_ref().map(Notifier::stopping) {
                    tracing::warn!(%error, "the service manager does not listen");
                }
                handle.shutdown(limit);
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_a_list_or_a_word() {
        assert_eq!("auto".parse(), Ok(Cores(Pinning::Auto)));
        assert_eq!("none".parse(), Ok(Cores(Pinning::Off)));
        assert_eq!("0,1".parse(), Ok(Cores(Pinning::Cores(vec![0, 1]))));
        assert!("0,x".parse::<Cores>().is_err());
    }
}
