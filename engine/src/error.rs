//! Errors of start-up and of handles.

use std::{fmt, io};

/// Why the server could not start, or why a worker ended.
///
/// Its `Debug` form is the same text, since that is what a `main` prints that returns it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its range.
    #[error("setting {setting}: {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}{}", crate::net::hint(.source))]
    Listen {
        /// The address.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The driver could not be made.
    #[error("cannot start the {driver} driver: {source}{}", crate::net::hint(.source))]
    Driver {
        /// Which one.
        driver: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The bus to the other nodes could not be started.
    #[error("cannot start the bus of the cluster: {0}")]
    Bus(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A worker's driver failed while it ran.
    #[error("worker {worker} ended: {source}")]
    Worker {
        /// Its index.
        worker: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker's thread could not be started, or panicked.
    #[error("worker {worker}: its thread {problem}")]
    Thread {
        /// Its index.
        worker: u16,
        /// What happened.
        problem: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
