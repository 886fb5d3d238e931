//! Connections that somebody else has accepted.

#![expect(
    clippy::disallowed_types,
    reason = "what others accept is a stream of the standard library"
)]

use std::any::Any;
use std::net::TcpStream;

use ringwire_tls::Session;

/// A TCP connection that somebody else has accepted, for [`Handle::adopt_with`](crate::Handle::adopt_with).
///
/// ```no_run
/// use ringwire::{Handle, PostError, transport::Adoption};
///
/// # fn example(handle: Handle, stream: std::net::TcpStream, behind_the_request: Vec<u8>) -> Result<(), PostError> {
/// let adoption = Adoption::new(stream).with_received(behind_the_request).with_state(());
/// Ok(handle.adopt_with(adoption)?)
/// # }
/// ```
#[derive(Debug)]
pub struct Adoption {
    pub(crate) stream: TcpStream,
    pub(crate) session: Option<Session>,
    pub(crate) received: Vec<u8>,
    pub(crate) state: Option<Box<dyn Any + Send>>,
}

impl Adoption {
    /// A connection that has yet to make its first request. It may block or not; TCP options become those of
    /// [`Config`](crate::Config).
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, session: None, received: Vec::new(), state: None }
    }

    /// The connection speaks TLS, and this is where that stands: [`Session::established`] makes it of a
    /// `rustls::ServerConnection`. Without it the connection is plain.
    #[must_use]
    pub fn with_tls(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }

    /// What was read already, decrypted: from the first byte of the request on, or of an
    /// [upgraded](Self::with_state) connection what came behind the request. Default: nothing.
    #[must_use]
    pub fn with_received(mut self, received: Vec<u8>) -> Self {
        self.received = received;
        self
    }

    /// Somebody else has answered the request with 101, by which `state` began, the handler's
    /// [`State`](crate::Handler::State), or that of a route of its [`Router`](crate::Router). With a value of another
    /// type the connection is not adopted.
    ///
    /// All of the answer must have been written. No extension may have been agreed on, compression included, and the
    /// origin is for that side to judge: the handler's first call is [`on_open`](crate::Handler::on_open).
    /// [`answer_upgrade`](crate::handshake::answer_upgrade) makes such an answer.
    #[must_use]
    pub fn with_state<S: Send + 'static>(mut self, state: S) -> Self {
        self.state = Some(Box::new(state));
        self
    }

    /// The connection alone, where it was not adopted.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}
