//! How a request for a WebSocket is accepted.

use http::{HeaderName, HeaderValue};
use ringwire_codec::extension::SharedExtension;

/// How a request is accepted, and the state of its connection.
#[derive(Debug)]
pub struct Accept<S> {
    pub(crate) state: S,
    pub(crate) acceptance: Acceptance,
}

impl<S> Accept<S> {
    /// Accepts without subprotocol, extra headers or streaming.
    pub fn new(state: S) -> Self {
        Self { state, acceptance: Acceptance::default() }
    }

    /// Agrees to one of the [offered](crate::Request::subprotocols) subprotocols. One that was not offered
    /// ends the handshake with 500, since the client would have to fail it (RFC 6455 §4.1).
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<String>) -> Self {
        self.acceptance = self.acceptance.with_subprotocol(name);
        self
    }

    /// Adds a header to the 101.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.acceptance = self.acceptance.with_header(name, value);
        self
    }

    /// Hands messages over in parts, as they come, to [`Handler::on_message_part`](crate::Handler::on_message_part).
    #[must_use]
    pub fn with_streaming(mut self) -> Self {
        self.acceptance = self.acceptance.with_streaming();
        self
    }

    /// Declines compression on this connection, whatever the settings say and the client offers.
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.acceptance = self.acceptance.without_compression();
        self
    }

    /// Agrees to an extension of the application's own, if the client offers it, it accepts the offer, and no other one
    /// that the client likes better has the same reserved bits. It comes behind compression. Default: none.
    ///
    /// A frame of such a connection is taken whole before it is looked at: with up to 9/8 of
    /// [`max_message_len`](crate::ProtocolConfig::max_message_len) and 4 KiB, also where messages are handed over in
    /// parts.
    #[must_use]
    pub fn with_extension(mut self, extension: SharedExtension) -> Self {
        self.acceptance = self.acceptance.with_extension(extension);
        self
    }
}

/// How a request is accepted.
#[derive(Clone, Debug, Default)]
pub struct Acceptance {
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) streaming: bool,
    pub(crate) declines_compression: bool,
    pub(crate) extensions: Vec<SharedExtension>,
}

impl Acceptance {
    /// As [`Accept::with_subprotocol`].
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// As [`Accept::with_header`].
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// As [`Accept::with_streaming`].
    #[must_use]
    pub fn with_streaming(mut self) -> Self {
        self.streaming = true;
        self
    }

    /// As [`Accept::without_compression`].
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.declines_compression = true;
        self
    }

    /// As [`Accept::with_extension`].
    #[must_use]
    pub fn with_extension(mut self, extension: SharedExtension) -> Self {
        self.extensions.push(extension);
        self
    }
}
