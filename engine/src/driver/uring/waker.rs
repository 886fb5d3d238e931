//! An eventfd whose read is kept in the ring, and the other threads' way to it.

#![expect(clippy::disallowed_types, reason = "a waker is shared with other threads")]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use crate::driver::Wake;

/// Ends the waits of a ring that reads this eventfd.
#[derive(Clone, Debug)]
pub(crate) struct UringWaker(Arc<File>);

impl UringWaker {
    pub(super) fn new() -> io::Result<Self> {
        // Not EFD_NONBLOCK: then the ring's read would fail instead of waiting.
        let fd = eventfd(0, EventfdFlags::CLOEXEC)?;
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
