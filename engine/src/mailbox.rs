//! How other threads reach a worker: a bounded queue and one coalesced wake-up.

#![expect(
    clippy::disallowed_types,
    reason = "a mailbox is shared between threads; it is not on a message's path"
)]

use std::any::Any;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use ringwire_codec::CloseCode;

use crate::conn::ConnId;
use crate::ctx::SendOptions;
use crate::dial::Outbound;
use crate::driver::Wake;
use crate::error::PostError;
use crate::handler::{Acceptance, Response};
use crate::secure::Shaken;

/// What can be asked of a worker from outside.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Send a message.
    Send { conn: ConnId, options: SendOptions, text: bool, payload: Vec<u8> },
    /// The peer may send longer messages from now on.
    Authenticated { conn: ConnId },
    /// Start the close handshake.
    Close { conn: ConnId, code: CloseCode, reason: String },
    /// Stop or go on reading.
    Pause { conn: ConnId, paused: bool },
    /// Serve a connection that someone else accepted, of which `received` was read already; with a state, one
    /// whose handshake is done.
    Adopt { stream: TcpStream, received: Vec<u8>, state: Option<Box<dyn Any + Send>> },
    /// Serve a connection that this side opens.
    Dial(Box<Outbound>),
    /// Answer a deferred request.
    Accept { conn: ConnId, acceptance: Acceptance },
    /// Answer a deferred request with an ordinary answer, which refuses an upgrade.
    Respond { conn: ConnId, response: Response },
    /// A TLS session is back from a compute thread.
    Shaken(Box<Shaken>),
    /// Stop accepting, close every connection with 1001, and end when they are gone or after the limit.
    Shutdown { limit: Duration },
}

/// A letter that was not taken.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: PostError,
    pub(crate) mail: Mail,
}

/// The sending side, one for each [`crate::Handle`].
#[derive(Clone)]
pub(crate) struct Postbox {
    sender: Sender<Mail>,
    wake_up: Arc<WakeUp>,
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Mailbox {
    receiver: Receiver<Mail>,
    wake_up: Arc<WakeUp>,
}

/// The wake-up and whether it was given since the worker last looked.
struct WakeUp {
    pending: AtomicBool,
    waker: Box<dyn Wake>,
}

/// A mailbox for `capacity` letters, whose arrival `waker` announces.
pub(crate) fn mailbox(capacity: usize, waker: impl Wake) -> (Postbox, Mailbox) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    let wake_up = Arc::new(WakeUp { pending: AtomicBool::new(false), waker: Box::new(waker) });
    (Postbox { sender, wake_up: Arc::clone(&wake_up) }, Mailbox { receiver, wake_up })
}

impl Postbox {
    /// Posts without blocking.
    ///
    /// # Errors
    /// The mailbox is full, or the worker has ended.
    pub(crate) fn post(&self, mail: Mail) -> Result<(), Refused> {
        self.sender.try_send(mail).map_err(|error| match error {
            TrySendError::Full(mail) => Refused { error: PostError::Busy, mail },
            TrySendError::Disconnected(mail) => Refused { error: PostError::Stopped, mail },
        })?;
        self.wake_up.wake();
        Ok(())
    }

    /// Posts, waiting for room up to `timeout`. Not for a worker's own thread.
    ///
    /// # Errors
    /// The mailbox stayed full, or the worker has ended.
    pub(crate) fn post_within(&self, mail: Mail, timeout: Duration) -> Result<(), PostError> {
        self.sender.send_timeout(mail, timeout).map_err(|error| {
            if error.is_timeout() { PostError::Busy } else { PostError::Stopped }
        })?;
        self.wake_up.wake();
        Ok(())
    }
}

impl Mailbox {
    /// Whether letters came since the last call; from now on a new one wakes the worker again. Costs a
    /// relaxed load where none came.
    pub(crate) fn open(&self) -> bool {
        let pending = &self.wake_up.pending;
        pending.load(Ordering::Relaxed) && pending.swap(false, Ordering::AcqRel)
    }

    /// The next letter.
    pub(crate) fn take(&self) -> Option<Mail> {
        self.receiver.try_recv().ok()
    }

    /// Whether letters are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl WakeUp {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

impl std::fmt::Debug for WakeUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WakeUp").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Postbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postbox").field("wake_up", &self.wake_up).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Count(Arc<AtomicUsize>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn letter() -> Mail {
        Mail::Shutdown { limit: Duration::ZERO }
    }

    #[test]
    fn one_wake_up_for_many_letters() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let (postbox, mailbox) = mailbox(16, Count(Arc::clone(&wakes)));
        for _ in 0..5 {
            postbox.post(letter()).unwrap();
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert!(mailbox.open());
        assert!(!mailbox.open());
        assert_eq!(std::iter::from_fn(|| mailbox.take()).count(), 5);
        postbox.post(letter()).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
        assert!(!mailbox.is_empty());
    }

    #[test]
    fn full_says_busy_and_gone_says_stopped() {
        let (postbox, mailbox) = mailbox(1, Count(Arc::default()));
        postbox.post(letter()).unwrap();
        assert_eq!(postbox.post(letter()).unwrap_err().error, PostError::Busy);
        assert_eq!(postbox.post_within(letter(), Duration::from_millis(1)), Err(PostError::Busy));
        drop(mailbox);
        assert_eq!(postbox.post(letter()).unwrap_err().error, PostError::Stopped);
    }
}
