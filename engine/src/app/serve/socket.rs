//! A connection, for an async function.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ringwire_codec::{CloseCode, OwnedMessage, SendError};

use super::SocketState;
use super::core::{Core, Deed, Event, Room};
use super::request::OwnedRequest;
use crate::app::ctx::Ctx;
use crate::conn::cause::{CloseCause, CloseReason};
use crate::conn::id::ConnId;

/// A WebSocket connection, for the async function that serves it.
///
/// The function runs on the connection's worker. When it returns, the connection is closed: with 1000 after `Ok`, with
/// 1011 after an error or a panic. When the connection ends, [`receive`](Self::receive) says so; the function goes on
/// to its next `await` that is not ready, and is dropped there.
///
/// Everything is bounded: as much as [`high_water`](crate::Config::high_water) waits for the application before reading
/// from the peer pauses, and as much for the peer before [`send`](Self::send) waits, during which reading pauses too.
/// Pings are answered while reading goes on, whether anybody receives or not.
///
/// ```
/// use ringwire::{Config, Server, Socket, SocketError};
///
/// let server = Server::new(Config::default().with_io_workers(1))
///     .listen("127.0.0.1:0")
///     .serve(async |mut socket: Socket| {
///         while let Some(message) = socket.receive().await? {
///             socket.send(message).await?;
///         }
///         Ok::<(), SocketError>(())
///     })?;
/// # server.handle().shutdown(std::time::Duration::ZERO);
/// # server.join()?;
/// # Ok::<(), ringwire::Error>(())
/// ```
#[derive(Debug)]
pub struct Socket {
    ear: Ear,
    request: Option<Box<OwnedRequest>>,
}

/// The half of a [`Socket`] that sends. `Clone`, for several parts of one async function, and for the functions of
/// other connections of the same worker.
#[derive(Clone, Debug)]
pub struct SocketSender {
    core: Rc<Core>,
}

/// The half of a [`Socket`] that receives. A function that wants no messages drops it: from then on messages that come
/// are dropped, where otherwise they would wait and hold up what the peer sends behind them.
#[derive(Debug)]
pub struct SocketReceiver {
    ear: Ear,
}

/// Who may receive.
#[derive(Debug)]
struct Ear(Rc<Core>);

impl Drop for Ear {
    fn drop(&mut self) {
        self.0.stop_listening();
    }
}

/// Why an operation on a [`Socket`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The connection has ended otherwise than by a regular close: the cause says how.
    #[error("the connection has ended: {}", .0.reason)]
    Ended(Box<CloseCause>),
    /// The connection is closing: nothing can be sent any more.
    #[error("the connection is closing")]
    Closing,
    /// Code or reason of a close, or the payload of a ping, may not be sent.
    #[error(transparent)]
    Invalid(#[from] SendError),
}

/// A message that was not taken, from [`Socket::try_send`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySocketError {
    /// As much waits for the peer as [`high_water`](crate::Config::high_water) allows. The message comes back.
    #[error("the peer reads too slowly: its queue is full (setting: high_water)")]
    Full(OwnedMessage),
    /// The connection is closing, or has ended.
    #[error("the connection is closing")]
    Closing,
}

impl Socket {
    pub(super) fn new(core: Rc<Core>, request: Option<Box<OwnedRequest>>) -> Self {
        Self { ear: Ear(core), request }
    }

    /// The connection's identity, for [`Handle`](crate::Handle).
    pub fn id(&self) -> ConnId {
        self.ear.0.id
    }

    /// The other side's address; the unspecified one (`[::]:0`) on a Unix socket.
    pub fn peer_addr(&self) -> SocketAddr {
        self.ear.0.peer
    }

    /// The request that opened the connection, once: it is kept until it is taken, or the function returns.
    pub fn take_request(&mut self) -> Option<OwnedRequest> {
        self.request.take().map(|request| *request)
    }

    /// The request that opened the connection, unless it was [taken](Self::take_request).
    pub fn request(&self) -> Option<&OwnedRequest> {
        self.request.as_deref()
    }

    /// The next message; `None` once the connection has ended by a regular close: by either side, a drain or shutdown,
    /// its deadline, or the end of its lifetime. Cancel-safe: a future that is dropped before it is ready has taken
    /// nothing.
    ///
    /// # Errors
    /// [`SocketError::Ended`]: the connection ended in another way.
    pub async fn receive(&mut self) -> Result<Option<OwnedMessage>, SocketError> {
        receive(&self.ear.0).await
    }

    /// Sends a message, once there is room for it. It goes out with the worker's turn.
    ///
    /// # Errors
    /// The connection is closing, or has ended.
    pub async fn send(&mut self, message: impl Into<OwnedMessage>) -> Result<(), SocketError> {
        send(&self.ear.0, message.into()).await
    }

    /// Sends a message, if there is room for it now.
    ///
    /// # Errors
    /// There is none, or the connection is closing, or has ended.
    pub fn try_send(&mut self, message: impl Into<OwnedMessage>) -> Result<(), TrySocketError> {
        try_send(&self.ear.0, message.into())
    }

    /// Sends a ping with at most 125 bytes (RFC 6455 §5.5.2). The engine sends pings of its own after silence.
    ///
    /// # Errors
    /// The payload is too long, or the connection is closing.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SocketError> {
        ping(&self.ear.0, payload)
    }

    /// Starts the close handshake (RFC 6455 §7.1.2). What was sent before goes out first. [`closed`](Self::closed)
    /// waits for its end.
    ///
    /// # Errors
    /// The code may not be sent, the reason is longer than 123 bytes, or a close has begun already.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), SocketError> {
        close(&self.ear.0, code, reason)
    }

    /// Waits until the connection has ended, and says how.
    pub async fn closed(&mut self) -> CloseCause {
        closed(&self.ear.0).await
    }

    /// Whether messages can be sent: no close has begun.
    pub fn is_open(&self) -> bool {
        self.ear.0.is_open()
    }

    /// Calls `work` with the connection, at the end of this poll: for topics, names, deadlines, and all else that a
    /// [`Ctx`] has.
    ///
    /// ```
    /// # use ringwire::{Socket, SocketError, topics::TopicError};
    /// # async fn join(socket: &mut Socket) -> Result<(), Box<dyn std::error::Error>> {
    /// socket.with(|ctx| ctx.subscribe("room.7")).await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn with<T: 'static>(
        &mut self,
        work: impl FnOnce(&mut Ctx<'_, SocketState>) -> T + 'static,
    ) -> Result<T, SocketError> {
        with(&self.ear.0, work).await
    }

    /// A half that sends and one that receives, for parts of one async function that go on side by side.
    pub fn split(self) -> (SocketSender, SocketReceiver) {
        (SocketSender { core: Rc::clone(&self.ear.0) }, SocketReceiver { ear: self.ear })
    }
}

impl SocketSender {
    /// As [`Socket::send`].
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn send(&self, message: impl Into<OwnedMessage>) -> Result<(), SocketError> {
        send(&self.core, message.into()).await
    }

    /// As [`Socket::try_send`].
    ///
    /// # Errors
    /// As [`Socket::try_send`].
    pub fn try_send(&self, message: impl Into<OwnedMessage>) -> Result<(), TrySocketError> {
        try_send(&self.core, message.into())
    }

    /// As [`Socket::ping`].
    ///
    /// # Errors
    /// As [`Socket::ping`].
    pub fn ping(&self, payload: &[u8]) -> Result<(), SocketError> {
        ping(&self.core, payload)
    }

    /// As [`Socket::close`].
    ///
    /// # Errors
    /// As [`Socket::close`].
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), SocketError> {
        close(&self.core, code, reason)
    }

    /// As [`Socket::closed`].
    pub async fn closed(&self) -> CloseCause {
        closed(&self.core).await
    }

    /// As [`Socket::with`].
    ///
    /// # Errors
    /// As [`Socket::with`].
    pub async fn with<T: 'static>(
        &self,
        work: impl FnOnce(&mut Ctx<'_, SocketState>) -> T + 'static,
    ) -> Result<T, SocketError> {
        with(&self.core, work).await
    }

    /// As [`Socket::is_open`].
    pub fn is_open(&self) -> bool {
        self.core.is_open()
    }
}

impl SocketReceiver {
    /// As [`Socket::receive`].
    ///
    /// # Errors
    /// As [`Socket::receive`].
    pub async fn receive(&mut self) -> Result<Option<OwnedMessage>, SocketError> {
        receive(&self.ear.0).await
    }
}

async fn receive(core: &Core) -> Result<Option<OwnedMessage>, SocketError> {
    /// Whoever gives up waiting is waited for no more.
    struct Waiting<'a>(&'a Core);

    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.stop_receiving();
        }
    }

    let waiting = Waiting(core);
    let received = poll_fn(|cx| core.receive(cx.waker()).map_or(Poll::Pending, Poll::Ready)).await;
    drop(waiting);
    match received {
        Ok(message) => Ok(Some(message)),
        Err(cause) if is_regular(&cause) => Ok(None),
        Err(cause) => Err(ended(&cause)),
    }
}

/// Part of a future that waits for something, and leaves its place when it gives up.
struct Waiting<'a> {
    core: &'a Core,
    event: Event,
    place: Option<u64>,
}

impl<'a> Waiting<'a> {
    fn new(core: &'a Core, event: Event) -> Self {
        Self { core, event, place: None }
    }

    fn wait(&mut self, waker: &Waker) {
        self.core.wait(self.event, &mut self.place, waker);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.core.leave(self.event, place);
        }
    }
}

async fn send(core: &Core, message: OwnedMessage) -> Result<(), SocketError> {
    let mut message = Some(message);
    let mut waiting = Waiting::new(core, Event::Room);
    poll_fn(|cx| {
        let Some(next) = message.take() else { return Poll::Ready(Ok(())) };
        match core.send(next) {
            Room::Taken => Poll::Ready(Ok(())),
            Room::Closed => Poll::Ready(Err(gone(core))),
            Room::Full(back) => {
                message = Some(back);
                waiting.wait(cx.waker());
                Poll::Pending
            }
        }
    })
    .await
}

fn try_send(core: &Core, message: OwnedMessage) -> Result<(), TrySocketError> {
    match core.send(message) {
        Room::Taken => Ok(()),
        Room::Full(message) => Err(TrySocketError::Full(message)),
        Room::Closed => Err(TrySocketError::Closing),
    }
}

fn ping(core: &Core, payload: &[u8]) -> Result<(), SocketError> {
    if payload.len() > 125 {
        return Err(SendError::ControlTooLong.into());
    }
    let taken = core.is_open() && core.push(Deed::Ping(payload.to_owned()));
    if taken { Ok(()) } else { Err(gone(core)) }
}

fn close(core: &Core, code: CloseCode, reason: &str) -> Result<(), SocketError> {
    if !code.is_sendable() {
        return Err(SendError::BadCloseCode.into());
    }
    if reason.len() > 123 {
        return Err(SendError::ReasonTooLong.into());
    }
    let taken = core.is_open() && core.push(Deed::Close(code, reason.to_owned()));
    if taken { Ok(()) } else { Err(gone(core)) }
}

async fn closed(core: &Core) -> CloseCause {
    let mut waiting = Waiting::new(core, Event::End);
    let cause = poll_fn(|cx| {
        let cause = core.cause();
        if cause.is_none() {
            waiting.wait(cx.waker());
        }
        cause.map_or(Poll::Pending, Poll::Ready)
    });
    (*cause.await).clone()
}

async fn with<T: 'static>(
    core: &Core,
    work: impl FnOnce(&mut Ctx<'_, SocketState>) -> T + 'static,
) -> Result<T, SocketError> {
    let place = Rc::new(RefCell::new((None, None::<Waker>)));
    let result = Rc::clone(&place);
    let deed = Deed::Call(Box::new(move |ctx| {
        let output = work(ctx);
        let waker = {
            let mut place = place.borrow_mut();
            place.0 = Some(output);
            place.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }));
    if !core.push(deed) {
        return Err(gone(core));
    }
    let mut waiting = Waiting::new(core, Event::End);
    poll_fn(|cx| {
        let mut place = result.borrow_mut();
        if let Some(output) = place.0.take() {
            return Poll::Ready(Ok(output));
        }
        if let Some(cause) = core.cause() {
            return Poll::Ready(Err(ended(&cause)));
        }
        place.1 = Some(cx.waker().clone());
        waiting.wait(cx.waker());
        Poll::Pending
    })
    .await
}

fn gone(core: &Core) -> SocketError {
    core.cause().map_or(SocketError::Closing, |cause| ended(&cause))
}

fn ended(cause: &CloseCause) -> SocketError {
    SocketError::Ended(Box::new(cause.clone()))
}

/// Whether both sides knew that it was to end.
fn is_regular(cause: &CloseCause) -> bool {
    matches!(
        cause.reason,
        CloseReason::Peer
            | CloseReason::Local
            | CloseReason::Shutdown
            | CloseReason::Deadline
            | CloseReason::Lifetime
    )
}
