//! What signals do to a server.

use std::time::Duration;
use std::{io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::SetupError;
use crate::limits::Drain;
use crate::server::handle::Handle;
use crate::server::notify::Notifier;

/// On SIGTERM or SIGINT stops accepting, closes all connections with 1001 and gives them `limit` for it. A second
/// one ends the process at once, with 128 and the signal's number as exit code. On SIGHUP reads the certificates again;
/// on SIGUSR1 logs how many connections each worker has. The service manager, if there is one, is told of the end.
///
/// # Errors
/// The signals can't be handled.
pub fn handle_signals(handle: Handle, limit: Duration) -> io::Result<()> {
    watch(handle, Ending::Close(limit), None)
}

/// What SIGTERM and SIGINT do.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// All connections are closed with 1001, and have this long for it.
    Close(Duration),
    /// Connections are closed over a time.
    Drain(Drain),
}

/// What SIGHUP does beside certificates.
pub(super) type Reload = Box<dyn FnMut() -> Result<(), SetupError> + Send>;

/// [`handle_signals`], with another end and more to read again.
pub(super) fn watch(handle: Handle, end: Ending, mut reload: Option<Reload>) -> io::Result<()> {
    let notifier = Notifier::from_environment()?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut ending = false;
        for signal in signals.forever() {
            if signal == SIGHUP {
                // What is wrong is in the log, and the old ones stay.
                let _ = handle.reload_tls();
                if let Some(Err(error)) = reload.as_mut().map(|reload| reload()) {
                    crate::base::event::error!(%error, "cannot reload: the previous settings stay in effect");
                }
            } else if signal == SIGUSR1 {
                let stats = handle.stats();
                let counts: Vec<_> =
                    stats.workers.iter().map(|worker| worker.connections).collect();
                crate::base::event::info!(connections = ?counts, imbalance = stats.imbalance());
            } else if ending {
                std::process::exit(128 + signal);
            } else {
                ending = true;
                if let Some(Err(error)) = notifier.as_ref().map(Notifier::stopping) {
                    crate::base::event::warn!(%error, "cannot notify the service manager at NOTIFY_SOCKET");
                }
                match end {
                    Ending::Close(limit) => handle.shutdown(limit),
                    Ending::Drain(drain) => drop(handle.drain_with(&drain)),
                }
            }
        }
    })?;
    Ok(())
}
