//! One connection.
//!
//! Here are its state and what its user calls. `receive.rs` takes messages out of the transport, `send.rs` puts them
//! in, `ending.rs` has how it ends, and `traits.rs` the same as `Stream` and `Sink`.

mod ending;
mod receive;
mod send;
mod traits;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use ringwire_codec::deflate::Agreement;
use ringwire_codec::{CloseCode, Connection, Role};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::deflate::Deflate;
use crate::input::Held;
use crate::keep_alive::KeepAlive;
use crate::output::Output;
use crate::waiting::{Side, Waiting};
use crate::{Config, Error, Message};
use ending::{Ending, Phase};

/// A WebSocket on a transport such as `TcpStream`, for either role.
///
/// It is what [`accept`](crate::accept), [`connect`](crate::connect) and the extractor for axum give. It is a `Stream`
/// and a `Sink` of [`Message`]s, and has the same as methods: [`receive`](Self::receive), [`send`](Self::send),
/// [`close`](Self::close).
///
/// *What goes on by itself* goes on while somebody receives: pings are answered, the peer's close frame is, keep-alive
/// pings are sent, and what was [fed](Self::feed) goes out before receiving waits. So a connection is received from as
/// long as it lives.
///
/// *Memory.* A connection at which nothing is under way holds no buffer. One with a message that is not whole holds
/// what has come of it; one whose messages nobody takes holds what one read brought, 32 KiB at most; one whose peer
/// does not read holds [`high_water`](Config::high_water) and a message.
///
/// *Copies.* A message that one read brought whole is copied once, out of the thread's read buffer, but for binary ones
/// from 16 KiB on, which take that buffer along; one that did not is put together in the buffer that it is handed over
/// in. A server's payloads of 4 KiB and more go to the kernel from
/// where they lie, by vectored writes; a client masks those in place that nobody shares.
pub struct WebSocketStream<S> {
    transport: S,
    codec: Connection,
    config: Arc<Config>,
    input: Held,
    output: Output,
    deflate: Option<Box<Deflate>>,
    keep_alive: Option<Box<KeepAlive>>,
    ending: Option<Box<Ending>>,
    waiting: Waiting,
    subprotocol: Option<Box<str>>,
    /// When the window of the limit on control frames began.
    window_began: Option<Instant>,
    phase: Phase,
    /// A pong was queued since the last read.
    owes_flush: bool,
    /// Bytes were written since the transport was flushed.
    needs_flush: bool,
    /// A write has failed, so that nothing more is written.
    write_failed: Option<io::ErrorKind>,
}

/// What a handshake has brought about.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    pub(crate) agreement: Option<Agreement>,
    pub(crate) subprotocol: Option<Box<str>>,
    /// What came behind the peer's head.
    pub(crate) rest: Vec<u8>,
}

impl<S> WebSocketStream<S> {
    /// A connection whose handshake was made elsewhere, without compression; `received` is what was read behind it.
    ///
    /// # Panics
    /// If [`keep_alive`](Config::keep_alive) is set, and there is no runtime of tokio or one without time.
    pub fn from_upgraded(
        transport: S,
        role: Role,
        config: impl Into<Arc<Config>>,
        received: Vec<u8>,
    ) -> Self {
        let handshake = Handshake { rest: received, ..Handshake::default() };
        Self::new(transport, role, config.into(), handshake)
    }

    pub(crate) fn new(transport: S, role: Role, config: Arc<Config>, handshake: Handshake) -> Self {
        let Handshake { agreement, subprotocol, rest } = handshake;
        let deflate = agreement.map(|agreement| Box::new(Deflate::new(agreement)));
        let codec = Connection::new(role);
        let len = rest.len();
        Self {
            transport,
            codec: if deflate.is_some() { codec.with_deflate() } else { codec },
            keep_alive: config.keep_alive.map(|settings| Box::new(KeepAlive::new(settings))),
            config,
            input: Held::new(rest, len),
            output: Output::default(),
            deflate,
            ending: None,
            waiting: Waiting::default(),
            subprotocol,
            window_began: None,
            phase: Phase::Open,
            owes_flush: false,
            needs_flush: false,
            write_failed: None,
        }
    }

    /// Which end this is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.codec.role()
    }

    /// The subprotocol that was agreed on (RFC 6455 §1.9).
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Whether compression was agreed on.
    #[must_use]
    pub const fn is_compressed(&self) -> bool {
        self.deflate.is_some()
    }

    /// The code and the reason of the peer's close frame, once it has come: 1005 if it had no code (RFC 6455 §7.1.5).
    #[must_use]
    pub fn close_frame(&self) -> Option<(CloseCode, &str)> {
        let (code, reason) = self.ending.as_ref()?.close_frame.as_ref()?;
        Some((*code, reason))
    }

    /// The number of bytes that were sent and wait for the transport.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.output.len()
    }

    /// The bytes of memory that the connection holds beside itself for input and output; 0 at rest. The timer of a
    /// keep-alive and the machines of a compression with takeover are not counted.
    #[must_use]
    pub fn buffered_len(&self) -> usize {
        self.codec.buffered_len() + self.input.capacity() + self.output.capacity()
    }

    /// The transport.
    #[must_use]
    pub const fn transport(&self) -> &S {
        &self.transport
    }

    /// The transport. What is read from it or written to it is lost to the connection.
    #[must_use]
    pub const fn transport_mut(&mut self) -> &mut S {
        &mut self.transport
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// The next message. `None`: the peer has closed with a close frame, which was answered, or this side has.
    ///
    /// Cancel safe: no message is lost when the future is dropped.
    ///
    /// # Errors
    /// Once, how the connection ended if not by close frames: [`Error::Io`], [`Error::Protocol`], [`Error::Ended`],
    /// [`Error::Timeout`]. After it there is `None`.
    pub async fn receive(&mut self) -> Result<Option<Message>, Error> {
        poll_fn(|cx| self.poll_receive(cx)).await.transpose()
    }

    /// Sends a message: it is with the kernel (or the transport's own buffer) when this is done.
    ///
    /// If the future is dropped, the message is either not sent, or goes out whole with what is sent next.
    ///
    /// # Errors
    /// [`Error::Send`] if the connection is closing or closed, [`Error::Io`].
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        let mut message = Some(message.into());
        poll_fn(|cx| self.poll_send(cx, &mut message)).await
    }

    /// Takes a message to be sent, as soon as there is room. It goes out with the next [`flush`](Self::flush) or
    /// [`send`](Self::send), before [`receive`](Self::receive) waits, or when room is needed: several in one write.
    ///
    /// ```
    /// # use ringwire_tokio::{Error, WebSocketStream};
    /// # use tokio::io::{AsyncRead, AsyncWrite};
    /// async fn echo<S>(mut socket: WebSocketStream<S>) -> Result<(), Error>
    /// where
    ///     S: AsyncRead + AsyncWrite + Unpin,
    /// {
    ///     while let Some(message) = socket.receive().await? {
    ///         socket.feed(message).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        let mut message = Some(message.into());
        poll_fn(|cx| self.poll_feed(cx, &mut message)).await
    }

    /// Sends what was fed.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_flush_output(cx)).await
    }

    /// Sends a ping with up to 125 bytes. Its pong is a sign of life and nothing else.
    ///
    /// # Errors
    /// As [`send`](Self::send), and if the payload is too long.
    pub async fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut payload = Some(payload);
        poll_fn(|cx| self.poll_ping(cx, &mut payload)).await
    }

    /// Closes the connection: sends a close frame, waits for the peer's and ends the transport (RFC 6455 §7.1.2).
    /// Messages that still come are dropped. If the connection has begun to end already, waits for its end.
    ///
    /// # Errors
    /// [`Error::Send`] for a code that must not be sent or a reason of more than 123 bytes; then the connection is as
    /// it was. Else as [`receive`](Self::receive).
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.begin_close(Side::Sender, code, reason)?;
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// [`receive`](Self::receive) as a function to be polled.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        self.poll_next_as(Side::Receiver, cx)
    }
}

impl<S> fmt::Debug for WebSocketStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketStream")
            .field("role", &self.role())
            .field("phase", &self.phase)
            .field("waiting_len", &self.waiting_len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<WebSocketStream<()>>() <= 264, "{}", size_of::<WebSocketStream<()>>());
    }
}
