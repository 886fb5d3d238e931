//! How a request for a WebSocket is accepted.

use std::any::Any;

use http::{HeaderName, HeaderValue};
use ringwire_codec::extension::SharedExtension;
use ringwire_codec::http::Response;

/// A state whose type is known to the handler alone.
pub(crate) type AnyState = Box<dyn Any + Send>;

/// The answer to a request that was deferred. One that is accepted was for an upgrade.
pub(crate) type Verdict = Result<Accept<AnyState>, Response>;

/// How a request is accepted, and the state of its connection.
#[derive(Clone, Debug)]
pub struct Accept<S> {
    pub(crate) state: S,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) streaming: bool,
    pub(crate) declines_compression: bool,
    pub(crate) extensions: Vec<SharedExtension>,
}

impl<S> Accept<S> {
    /// Accepts without extra headers or streaming, and with a subprotocol only where the
    /// [server](crate::Config::subprotocols) or the [route](crate::router::SocketOptions::subprotocols) has one that is
    /// offered.
    pub fn new(state: S) -> Self {
        Self {
            state,
            subprotocol: None,
            headers: Vec::new(),
            streaming: false,
            declines_compression: false,
            extensions: Vec::new(),
        }
    }

    /// Agrees to one of the [offered](crate::Request::subprotocols) subprotocols. One that was not offered
    /// ends the handshake with 500, since the client would have to fail it (RFC 6455 §4.1).
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// Adds a header to the 101.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Hands messages over in parts, as they come, to [`Handler::on_message_part`](crate::Handler::on_message_part).
    #[must_use]
    pub fn with_streaming(mut self) -> Self {
        self.streaming = true;
        self
    }

    /// Declines compression on this connection, whatever the settings say and the client offers.
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.declines_compression = true;
        self
    }

    /// Agrees to an extension of the application's own, if the client offers it, it accepts the offer, and no other one
    /// that the client likes better has the same reserved bits. It comes behind compression. Default: none.
    ///
    /// A frame of such a connection is taken whole before it is looked at: with up to 9/8 of
    /// [`max_message_len`](crate::tuning::ProtocolConfig::max_message_len) and 4 KiB, also where messages are handed
    /// over in parts.
    #[must_use]
    pub fn with_extension(mut self, extension: SharedExtension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The same with another state, and this one's.
    pub(crate) fn replace_state<T>(self, state: T) -> (Accept<T>, S) {
        let Self { state: old, subprotocol, headers, streaming, declines_compression, extensions } =
            self;
        let accept =
            Accept { state, subprotocol, headers, streaming, declines_compression, extensions };
        (accept, old)
    }

    /// The same with what `f` makes of the state: for a handler around another.
    pub fn map<T>(self, f: impl FnOnce(S) -> T) -> Accept<T> {
        let (accept, state) = self.replace_state(());
        accept.replace_state(f(state)).0
    }
}
