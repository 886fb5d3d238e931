//! Sending to one connection from other threads, no faster than its peer reads.

#![expect(
    clippy::disallowed_types,
    reason = "a sender is shared between threads of the application"
)]

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringwire_codec::Message;

use crate::base::mailbox::Postbox;
use crate::conn::cause::CloseCause;
use crate::conn::credit::{Credit, Refusal};
use crate::conn::id::ConnId;
use crate::hub::mail::Offer;

/// A way to send to one connection from any thread, or task, no faster than its peer reads: from
/// [`Handle::sender`](crate::Handle::sender).
///
/// A sender has room for so many bytes. What it takes waits there, and the worker takes it from there as long as less
/// than [`high_water`](crate::Config::high_water) waits in the connection's own queue. So it trips no backpressure
/// policy and holds up no reading, whatever else the connection is sent. There is room again as the peer takes what was
/// sent. A message takes its length and 64 bytes; one that is longer than all of the room is taken when nothing else is
/// there.
///
/// Messages come in the order in which a sender took them. Clones share its room; two senders for one connection have
/// each their own, and take turns. What is sent by [`Handle::send`](crate::Handle::send) or by the handler does not
/// wait, and may overtake. When the connection is closed by this side, what was taken before goes out first, in front
/// of the close frame.
///
/// What is lost where the connection ends otherwise is counted in
/// [`CloseCause::lost_messages`](crate::CloseCause::lost_messages).
///
/// ```
/// use std::thread;
///
/// use ringwire::senders::SendClosed;
/// use ringwire::{ConnId, Handle, PostError};
///
/// /// Streams to a client, which may read as slowly as it likes.
/// fn stream(handle: &Handle, conn: ConnId) -> Result<(), PostError> {
///     let sender = handle.sender(conn)?;
///     thread::spawn(move || {
///         for number in 0..1_000_000 {
///             if let Err(SendClosed { cause }) = sender.send(number.to_string().as_str()) {
///                 return println!("it went away after {number}: {}", cause.reason);
///             }
///         }
///     });
///     Ok(())
/// }
/// ```
///
/// Not for a worker's own thread but for [`try_send`](Self::try_send): a handler that waits holds up the worker that it
/// waits for.
#[derive(Clone)]
pub struct Sender(Arc<Inner>);

struct Inner {
    conn: ConnId,
    credit: Arc<Credit>,
    offers: Postbox<Offer>,
}

/// Why [`Sender::try_send`] and [`Sender::send_timeout`] have not taken a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// There is no room: the peer has not taken enough of what was sent before.
    #[error("the sender has no room for the message")]
    Full,
    /// The connection has ended.
    #[error("the connection has ended: {}", .0.reason)]
    Closed(CloseCause),
}

/// The connection has ended, and [`Sender::send`] has not taken the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended: {}", cause.reason)]
pub struct SendClosed {
    /// How it ended. [`NotConnected`](std::io::ErrorKind::NotConnected): it was not open when the sender was made.
    pub cause: CloseCause,
}

/// Sends once there is room: from [`Sender::send_async`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sending<'a> {
    sender: &'a Sender,
    message: Message<'a>,
}

impl Sender {
    pub(crate) fn new(conn: ConnId, credit: Arc<Credit>, offers: Postbox<Offer>) -> Self {
        Self(Arc::new(Inner { conn, credit, offers }))
    }

    /// The connection.
    pub fn id(&self) -> ConnId {
        self.0.conn
    }

    /// For how many bytes there is room when nothing waits.
    pub fn capacity(&self) -> usize {
        self.0.credit.capacity()
    }

    #[cfg(test)]
    pub(crate) fn used_len(&self) -> usize {
        self.0.credit.used_len()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.closed().is_some()
    }

    /// How the connection ended, if it has.
    pub fn closed(&self) -> Option<CloseCause> {
        self.0.credit.closed()
    }

    /// Sends a message, which is copied, if there is room.
    ///
    /// # Errors
    /// There is no room, or the connection has ended.
    pub fn try_send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), TrySendError> {
        Ok(self.0.announce(self.0.credit.give(message.into()))?)
    }

    /// Sends a message, which is copied, once there is room. Blocks until then.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), SendClosed> {
        let message = message.into();
        loop {
            match self.0.announce(self.0.credit.give_within(message, None)) {
                Ok(()) => return Ok(()),
                Err(Refusal::Closed(cause)) => return Err(SendClosed { cause }),
                Err(Refusal::Full) => {}
            }
        }
    }

    /// Sends a message, which is copied, if there is room within `timeout`. Blocks until then.
    ///
    /// # Errors
    /// There was no room in time, or the connection has ended.
    pub fn send_timeout<'m>(
        &self,
        message: impl Into<Message<'m>>,
        timeout: Duration,
    ) -> Result<(), TrySendError> {
        Ok(self.0.announce(self.0.credit.give_within(message.into(), Some(timeout)))?)
    }

    /// Sends a message, which is copied, once there is room, for a task of any runtime. A future that is dropped has
    /// sent nothing.
    ///
    /// ```
    /// # async fn copy(sender: ringwire::Sender, lines: Vec<String>) -> Result<(), ringwire::senders::SendClosed> {
    /// for line in &lines {
    ///     sender.send_async(line.as_str()).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_async<'a>(&'a self, message: impl Into<Message<'a>>) -> Sending<'a> {
        Sending { sender: self, message: message.into() }
    }
}

impl Future for Sending<'_> {
    type Output = Result<(), SendClosed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = &*self.sender.0;
        match inner.announce(inner.credit.give_or_wake(self.message, context.waker())) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Refusal::Closed(cause)) => Poll::Ready(Err(SendClosed { cause })),
            Err(Refusal::Full) => Poll::Pending,
        }
    }
}

impl Inner {
    /// Tells the worker of what was given, if it does not know.
    fn announce(&self, given: Result<bool, Refusal>) -> Result<(), Refusal> {
        if given? {
            self.tell();
        }
        Ok(())
    }

    fn tell(&self) {
        // A worker that has ended has closed the credit.
        let _ = self.offers.post(Offer { conn: self.conn, lane: None });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.credit.abandon() {
            self.tell();
        }
    }
}

impl From<Refusal> for TrySendError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::Closed(cause) => Self::Closed(cause),
        }
    }
}

impl From<SendClosed> for TrySendError {
    fn from(closed: SendClosed) -> Self {
        Self::Closed(closed.cause)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { conn, credit, .. } = &*self.0;
        f.debug_struct("Sender")
            .field("conn", conn)
            .field("capacity", &credit.capacity())
            .finish_non_exhaustive()
    }
}
