//! The listening sockets of a server that may outlive it: kept for a successor, until it drains.

#![expect(
    clippy::disallowed_types,
    reason = "handles of all threads ask for the sockets, on no message's path"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// One descriptor of each socket. None once the server drains: held any longer, they would keep the kernel from
    /// refusing connections that nobody accepts.
    sockets: Mutex<Option<Vec<OwnedFd>>>,
    /// All of them were made by somebody else, who goes on with them.
    borrowed: bool,
    /// A successor has them.
    passed_on: AtomicBool,
}

impl Handover {
    pub(crate) fn new(sockets: Vec<OwnedFd>, borrowed: bool) -> Self {
        Self { sockets: Mutex::new(Some(sockets)), borrowed, passed_on: AtomicBool::new(false) }
    }

    /// Duplicates for a successor, who has them from now on.
    pub(crate) fn pass_on(&self) -> io::Result<Vec<OwnedFd>> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sockets) = sockets.as_ref() else {
            return Err(io::Error::other("the server drains: its listening sockets are given up"));
        };
        let duplicates = sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        self.passed_on.store(true, Ordering::SeqCst);
        Ok(duplicates)
    }

    /// The successor came to nothing, and its descriptors are closed.
    pub(crate) fn take_back(&self) {
        self.passed_on.store(false, Ordering::SeqCst);
    }

    /// The server drains.
    pub(crate) fn give_up(&self) {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(sockets);
    }

    /// Whether a successor has the sockets.
    pub(crate) fn is_passed_on(&self) -> bool {
        self.passed_on.load(Ordering::SeqCst)
    }

    /// Whether somebody goes on with the sockets: who was accepted here has not come to a server that closes, but to
    /// one that is replaced.
    pub(crate) fn is_outlived(&self) -> bool {
        self.borrowed || self.is_passed_on()
    }
}
