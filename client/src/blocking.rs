//! The client and its two halves.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use ringwire_codec::{CloseCode, Message, SendError, cut_reason};

use crate::channel::Channel;
use crate::compression::Deflate;
use crate::connection::{Agreed, Connection, Settings};
use crate::error::Error;
use crate::handshake::Upgraded;
use crate::message::{Event, OwnedMessage};
use crate::wire::after;

/// An open connection, blocking.
///
/// Pings are answered, and the client's own are sent, while somebody receives, or with
/// [`Builder::with_heartbeat_thread`](crate::Builder::with_heartbeat_thread) always. The last of a client's halves that
/// is dropped sends a close frame and waits for nothing; [`close`](Self::close) does it properly.
pub struct Client {
    sender: Sender,
    receiver: Receiver,
    subprotocol: Option<String>,
    has_compression: bool,
    headers: HeaderMap,
}

impl Client {
    pub(super) fn new(
        channel: Channel,
        upgraded: Upgraded,
        deflate: Option<Deflate>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let (wire, tls) = channel.into_parts();
        let has_compression = deflate.is_some();
        let agreed = Agreed { deflate, layer: upgraded.layer };
        let connection = Connection::new(wire, tls, agreed, &upgraded.rest, settings)?;
        Ok(Self {
            sender: Sender { connection: Arc::clone(&connection) },
            receiver: Receiver { connection },
            subprotocol: upgraded.subprotocol,
            has_compression,
            headers: upgraded.headers,
        })
    }

    /// The subprotocol that the server chose.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Whether the server has agreed to compression.
    #[must_use]
    pub const fn has_compression(&self) -> bool {
        self.has_compression
    }

    /// The headers of the server's answer.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Whether messages can be sent, as far as is known: what the peer has done since the last call is not.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.receiver.connection.is_open()
    }

    /// Code and reason of the peer's close frame, once it was received; 1005 if it had no code.
    #[must_use]
    pub fn close_frame(&self) -> Option<(CloseCode, String)> {
        self.receiver.close_frame()
    }

    /// As [`Receiver::receive`].
    ///
    /// # Errors
    /// As there.
    pub fn receive(&mut self) -> Result<Option<OwnedMessage>, Error> {
        self.receiver.receive()
    }

    /// As [`Receiver::receive_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn receive_timeout(&mut self, timeout: Duration) -> Result<Option<OwnedMessage>, Error> {
        self.receiver.receive_timeout(timeout)
    }

    /// As [`Receiver::receive_event`].
    ///
    /// # Errors
    /// As there.
    pub fn receive_event(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.receiver.receive_event(timeout)
    }

    /// The messages up to the end of the connection.
    pub fn messages(&mut self) -> Messages<'_> {
        self.receiver.messages()
    }

    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.sender.send(message)
    }

    /// Sends text.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send_text(&mut self, text: &str) -> Result<(), Error> {
        self.sender.send(text)
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send_binary(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.sender.send(bytes)
    }

    /// As [`Sender::ping`].
    ///
    /// # Errors
    /// As there.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.sender.ping(payload)
    }

    /// As [`Sender::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.sender.close(code, reason)
    }

    /// A sender and a receiver for two threads.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Another sender to this connection.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold cookies and tokens.
        f.debug_struct("Client")
            .field("is_open", &self.is_open())
            .field("subprotocol", &self.subprotocol)
            .finish_non_exhaustive()
    }
}

impl AsFd for Client {
    /// The socket, for its options and for poll(2). Reading or writing it breaks the connection.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.connection.wire().socket().as_fd()
    }
}

/// The half that sends. A clone sends on the same connection.
#[derive(Clone, Debug)]
pub struct Sender {
    connection: Arc<Connection>,
}

impl Sender {
    /// Sends a message, and returns when the socket has taken it.
    ///
    /// Nothing is received meanwhile, unless by another thread: a client and a server that both send much and receive
    /// nothing wait for each other until the write timeout.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Lost`] if the connection is over, [`Error::Timeout`] if it is over now.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.connection.send(message.into())
    }

    /// Sends a ping with a payload of at most 125 bytes. The pong is an [`Event`].
    ///
    /// # Errors
    /// [`Error::InvalidMessage`] for a longer one; as [`send`](Self::send).
    pub fn ping(&self, payload: &[u8]) -> Result<(), Error> {
        self.connection.ping(payload)
    }

    /// Why nothing can be sent any more, if that is so.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.connection.check()
    }

    /// Whether both send on the same connection.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }

    /// The whole close handshake: sends the close frame, and waits for the peer's and for the end of the stream.
    ///
    /// Messages that still come in are dropped, here and for a receiver. If the connection is closing already, no
    /// matter by whom, this waits for its end alone.
    ///
    /// # Errors
    /// [`Error::InvalidMessage`] for a code that must not be sent or a reason of more than 123 bytes.
    /// [`Error::Timeout`] if the peer does not answer in time, [`Error::Lost`] if it ends the stream instead.
    /// [`Error::Closed`] if the peer has closed first, with a code other than 1000, 1001 and none (1005).
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.connection.close(code, reason)
    }
}

/// Whether a close frame may say this, before anything is done about it.
pub(super) fn check_close(code: CloseCode, reason: &str) -> Result<(), Error> {
    if !code.is_sendable() {
        return Err(Error::InvalidMessage(SendError::BadCloseCode));
    }
    if cut_reason(reason) != reason {
        return Err(Error::InvalidMessage(SendError::ReasonTooLong));
    }
    Ok(())
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver {
    connection: Arc<Connection>,
}

impl Receiver {
    /// The next message; `None` once the connection is closed as it should be: by this side, or by the peer with the
    /// codes 1000, 1001 or none. Waits for at most the read timeout of the settings.
    ///
    /// # Errors
    /// [`Error::Timeout`], after which the connection is as it was if it is
    /// [`Waiting::Receive`](crate::Waiting::Receive); any other is how the connection ended, and comes again with each
    /// call: [`Error::Closed`], [`Error::Lost`], [`Error::Protocol`], [`Error::Tls`].
    pub fn receive(&mut self) -> Result<Option<OwnedMessage>, Error> {
        self.message(self.read_deadline())
    }

    /// The same, waiting for at most `timeout`; zero looks at what has arrived.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_timeout(&mut self, timeout: Duration) -> Result<Option<OwnedMessage>, Error> {
        self.message(after(Some(timeout)))
    }

    /// The next message, ping or pong, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_event(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.connection.receive(after(Some(timeout)))
    }

    /// The messages up to the end of the connection.
    pub fn messages(&mut self) -> Messages<'_> {
        Messages { receiver: self, has_ended: false }
    }

    /// Code and reason of the peer's close frame, once it was received; 1005 if it had no code.
    #[must_use]
    pub fn close_frame(&self) -> Option<(CloseCode, String)> {
        self.connection.close_frame()
    }

    /// The next event before the deadline.
    pub(super) fn receive_until(&self, deadline: Option<Instant>) -> Result<Option<Event>, Error> {
        self.connection.receive(deadline)
    }

    /// Another sender to this connection.
    pub(super) fn sender(&self) -> Sender {
        Sender { connection: Arc::clone(&self.connection) }
    }

    /// When the read timeout of the settings is over.
    pub(super) fn read_deadline(&self) -> Option<Instant> {
        after(self.connection.settings().read_timeout)
    }

    /// The next message before the deadline.
    pub(super) fn message(&self, deadline: Option<Instant>) -> Result<Option<OwnedMessage>, Error> {
        loop {
            match self.connection.receive(deadline)? {
                Some(Event::Message(message)) => return Ok(Some(message)),
                Some(Event::Ping(_) | Event::Pong(_)) => {}
                None => return Ok(None),
            }
        }
    }
}

/// An iterator over messages. It ends when the connection is closed as it should be, and after an error.
#[derive(Debug)]
pub struct Messages<'c> {
    receiver: &'c mut Receiver,
    has_ended: bool,
}

impl Iterator for Messages<'_> {
    type Item = Result<OwnedMessage, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let next = self.receiver.receive().transpose();
        self.has_ended = !matches!(next, Some(Ok(_)));
        next
    }
}
