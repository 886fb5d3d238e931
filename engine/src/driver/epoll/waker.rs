//! Ending a wait from another thread.

#![expect(clippy::disallowed_types, reason = "a waker is shared with other threads")]

use std::sync::Arc;

use crate::driver::Wake;

/// An eventfd in the epoll set.
#[derive(Debug)]
pub(crate) struct EpollWaker(pub(super) Arc<mio::Waker>);

impl Wake for EpollWaker {
    fn wake(&self) {
        // Fails only when the counter is full, and then the wake-up stands already.
        let _ = self.0.wake();
    }
}
