//! The answer that accepts an upgrade.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::Upgrade;
use crate::deflate::{self, Agreement};
use crate::extension::ExtensionAnswers;
use crate::head::{HandshakeError, is_reserved, push_header};

/// The answer that makes a WebSocket of the connection: 101 (RFC 6455 §4.2.2).
#[derive(Debug, Clone, Default)]
pub struct Accept {
    subprotocol: Option<Cow<'static, str>>,
    deflate: Option<Agreement>,
    extensions: ExtensionAnswers,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Accept {
    /// An answer with no more than there has to be.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses a subprotocol, which must be one that the client offers. Default: none.
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// The subprotocol that is chosen.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Agrees to permessage-deflate, with what [`Upgrade::deflate`] has made of the same upgrade.
    /// Default: `None`, and no Sec-WebSocket-Extensions.
    #[must_use]
    pub fn with_deflate(mut self, agreement: Option<Agreement>) -> Self {
        self.deflate = agreement;
        self
    }

    /// Accepts extensions, as [`FrameLayer::accept`](crate::extension::FrameLayer::accept) has answered them; they come
    /// after permessage-deflate. Default: none.
    #[must_use]
    pub fn with_extensions(mut self, answers: ExtensionAnswers) -> Self {
        self.extensions = answers;
        self
    }

    /// Adds a header, such as Set-Cookie; those that the handshake writes cannot be given.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Appends the answer to `out`.
    ///
    /// # Errors
    /// [`SubprotocolNotOffered`](HandshakeError::SubprotocolNotOffered),
    /// [`DeflateNotOffered`](HandshakeError::DeflateNotOffered),
    /// [`ExtensionNotOffered`](HandshakeError::ExtensionNotOffered),
    /// [`InvalidExtensions`](HandshakeError::InvalidExtensions) for parameters that are no tokens, and
    /// [`ReservedHeader`](HandshakeError::ReservedHeader); `out` is then as it was.
    pub fn encode(&self, upgrade: &Upgrade<'_>, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        if let Some(chosen) = &self.subprotocol
            && !upgrade.request().subprotocols().any(|offered| offered == chosen)
        {
            return Err(HandshakeError::SubprotocolNotOffered);
        }
        let extensions = self.extensions(upgrade)?;
        if self.headers.iter().any(|(name, _)| is_reserved(name)) {
            return Err(HandshakeError::ReservedHeader);
        }
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\n\
              Upgrade: websocket\r\n\
              Connection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&upgrade.accept_key());
        out.extend_from_slice(b"\r\n");
        if let Some(chosen) = &self.subprotocol {
            // It equals one of the offered tokens, so it cannot end the line.
            push_header(out, "Sec-WebSocket-Protocol", chosen.as_bytes());
        }
        if !extensions.is_empty() {
            push_header(out, "Sec-WebSocket-Extensions", extensions.as_bytes());
        }
        for (name, value) in &self.headers {
            push_header(out, name.as_str(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The value of Sec-WebSocket-Extensions.
    fn extensions(&self, upgrade: &Upgrade<'_>) -> Result<String, HandshakeError> {
        let is_offered =
            |name: &str| upgrade.request().extensions().flatten().any(|it| it.is_named(name));
        let mut value = String::new();
        if let Some(agreement) = &self.deflate {
            if !is_offered(deflate::NAME) {
                return Err(HandshakeError::DeflateNotOffered);
            }
            agreement.encode(&mut value);
        }
        for (name, params) in &self.extensions {
            if !is_offered(name) {
                return Err(HandshakeError::ExtensionNotOffered);
            }
            params.encode(name, &mut value)?;
        }
        Ok(value)
    }
}
