//! An eventfd whose read is kept in the ring, and the other threads' way to it.

#![expect(unsafe_code, reason = "eventfd(2) has no safe wrapper")]
#![expect(clippy::disallowed_types, reason = "a waker is shared with other threads")]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;

use crate::driver::Wake;

/// Ends the waits of a ring that reads this eventfd.
#[derive(Clone, Debug)]
pub(crate) struct UringWaker(Arc<File>);

impl UringWaker {
    pub(super) fn new() -> io::Result<Self> {
        // Not EFD_NONBLOCK: then the ring's read would fail instead of waiting.
        // SAFETY: it takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(fd.into())))
    }
}

impl AsRawFd for UringWaker {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Wake for UringWaker {
    fn wake(&self) {
        // Waits only at 2^64 wakes that nobody has read.
        let _ = (&*self.0).write(&1_u64.to_ne_bytes());
    }
}
