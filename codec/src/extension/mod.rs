//! Extensions of the application's own (RFC 6455 §9).
//!
//! A [`FrameExtension`] is agreed on in the handshake and makes a [`FrameTransform`] for each connection, which sees
//! each data frame that is sent and received, and may change it. The transforms of a connection make a [`FrameLayer`],
//! which stands between the codec's [`Connection`](crate::Connection) and the wire.
//!
//! ```
//! use std::sync::Arc;
//! use ringwire_codec::extension::{
//!     DataFrame, ExtensionError, ExtensionParams, FrameExtension, FrameLayer, FrameTransform, ReservedBits,
//! };
//! use ringwire_codec::handshake::Params;
//!
//! /// Numbers the frames, so that the loss of one is noticed.
//! #[derive(Debug)]
//! struct Numbered;
//!
//! #[derive(Debug, Default)]
//! struct Numbers {
//!     sent: u32,
//!     received: u32,
//! }
//!
//! impl FrameExtension for Numbered {
//!     fn name(&self) -> &str {
//!         "x-numbered"
//!     }
//!
//!     fn reserved_bits(&self) -> ReservedBits {
//!         ReservedBits::RSV3
//!     }
//!
//!     fn accept(&self, _offer: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
//!         Some((ExtensionParams::new(), Box::<Numbers>::default()))
//!     }
//!
//!     fn confirm(&self, _answer: Params<'_>) -> Option<Box<dyn FrameTransform>> {
//!         Some(Box::<Numbers>::default())
//!     }
//! }
//!
//! impl FrameTransform for Numbers {
//!     fn send(&mut self, frame: &mut DataFrame<'_>) {
//!         frame.payload.extend_from_slice(&self.sent.to_be_bytes());
//!         frame.set_reserved_bits(ReservedBits::RSV3);
//!         self.sent += 1;
//!     }
//!
//!     fn receive(&mut self, frame: &mut DataFrame<'_>) -> Result<(), ExtensionError> {
//!         let Some((_, number)) = frame.payload.split_last_chunk() else {
//!             return Err(ExtensionError::new("a frame without its number"));
//!         };
//!         if u32::from_be_bytes(*number) != self.received {
//!             return Err(ExtensionError::new("a frame is missing"));
//!         }
//!         frame.payload.truncate(frame.payload.len() - 4);
//!         self.received += 1;
//!         Ok(())
//!     }
//! }
//!
//! // What a server's handshake does: the client offers it, the server accepts.
//! let offered = ringwire_codec::handshake::Extensions::of(b"x-numbered").flatten();
//! let (answer, layer) = FrameLayer::accept(&[Arc::new(Numbered)], offered);
//! assert_eq!(answer[0].0, "x-numbered");
//! assert!(layer.is_some());
//! ```

mod deframer;
mod layer;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::head::{HandshakeError, Params, is_token_byte};
use crate::{CloseCode, FrameHeader, OpCode};

pub(crate) use self::layer::find;
pub use self::layer::{ExtensionAnswers, FrameLayer};

/// An extension that both ends of a connection may agree on.
///
/// The name permessage-deflate is taken.
pub trait FrameExtension: fmt::Debug + Send + Sync {
    /// Its name in Sec-WebSocket-Extensions: a token (RFC 6455 §9.1), compared without regard to case.
    fn name(&self) -> &str;

    /// Those of RSV2 and RSV3 that its frames may have (RFC 6455 §9.2). Two extensions that claim the same are not
    /// agreed on together. Default: none.
    fn reserved_bits(&self) -> ReservedBits {
        ReservedBits::NONE
    }

    /// As a server: what is answered to an offer, and what transforms the connection's frames; `None` to decline. A
    /// client may offer the extension several times, with other parameters, in the order of its preference.
    fn accept(&self, offer: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)>;

    /// As a client: the parameters of the offer. Default: none.
    fn offer(&self) -> ExtensionParams {
        ExtensionParams::new()
    }

    /// As a client: what transforms the connection's frames, where the server has accepted with these parameters.
    /// `None` if they are no answer to the offer, which fails the handshake (RFC 6455 §9.1).
    fn confirm(&self, answer: Params<'_>) -> Option<Box<dyn FrameTransform>>;
}

/// An extension, as all connections use it.
#[expect(clippy::disallowed_types, reason = "one extension serves the connections of all workers")]
pub type SharedExtension = std::sync::Arc<dyn FrameExtension>;

/// What an extension does with the data frames of one connection, in order. Control frames pass by.
///
/// A message that the application sends is one frame, or more where it is long and compressed; one that it receives has
/// as many as its sender made of it.
pub trait FrameTransform: fmt::Debug + Send {
    /// Changes a frame that is about to be sent. Compression, if agreed on, is done.
    fn send(&mut self, frame: &mut DataFrame<'_>);

    /// Takes back what the peer's extension has done to a frame. What is then over the message limit, or text that is
    /// no UTF-8, ends the connection as if it had come so.
    ///
    /// # Errors
    /// The frame cannot have come from such an extension: the connection is closed.
    fn receive(&mut self, frame: &mut DataFrame<'_>) -> Result<(), ExtensionError>;
}

/// A data frame (RFC 6455 §5.6), whole and without its mask.
#[derive(Debug)]
pub struct DataFrame<'a> {
    header: FrameHeader,
    claimed: ReservedBits,
    /// Its payload, which may be changed and may change its length.
    pub payload: &'a mut Vec<u8>,
}

impl DataFrame<'_> {
    /// Text, binary, or the continuation of either.
    #[must_use]
    pub fn opcode(&self) -> OpCode {
        self.header.opcode
    }

    /// Whether the message ends with it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.header.fin
    }

    /// Whether it begins a message that is compressed (RSV1, RFC 7692 §6).
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.header.rsv1
    }

    /// Those of the extension's reserved bits that are set.
    #[must_use]
    pub fn reserved_bits(&self) -> ReservedBits {
        ReservedBits::of(&self.header).intersection(self.claimed)
    }

    /// Sets those of the extension's reserved bits that are in `bits`, and clears the others. Of a received frame they
    /// are cleared in any case.
    pub fn set_reserved_bits(&mut self, bits: ReservedBits) {
        let bits = bits.intersection(self.claimed);
        self.header.rsv2 = bits.rsv2 || (self.header.rsv2 && !self.claimed.rsv2);
        self.header.rsv3 = bits.rsv3 || (self.header.rsv3 && !self.claimed.rsv3);
    }
}

/// The reserved bits that are free beside permessage-deflate, whose is RSV1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReservedBits {
    rsv2: bool,
    rsv3: bool,
}

impl ReservedBits {
    /// Neither.
    pub const NONE: Self = Self { rsv2: false, rsv3: false };
    /// The second.
    pub const RSV2: Self = Self { rsv2: true, rsv3: false };
    /// The third.
    pub const RSV3: Self = Self { rsv2: false, rsv3: true };
    /// Both.
    pub const BOTH: Self = Self { rsv2: true, rsv3: true };

    fn of(header: &FrameHeader) -> Self {
        Self { rsv2: header.rsv2, rsv3: header.rsv3 }
    }

    const fn intersection(self, other: Self) -> Self {
        Self { rsv2: self.rsv2 && other.rsv2, rsv3: self.rsv3 && other.rsv3 }
    }
}

/// Parameters of an extension, as they are written (RFC 6455 §9.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtensionParams(Vec<(Cow<'static, str>, Option<Cow<'static, str>>)>);

impl ExtensionParams {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one without a value.
    #[must_use]
    pub fn with_flag(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.0.push((name.into(), None));
        self
    }

    /// Adds one with a value.
    #[must_use]
    pub fn with_value(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.0.push((name.into(), Some(value.into())));
        self
    }

    /// Appends an element of Sec-WebSocket-Extensions.
    ///
    /// # Errors
    /// [`InvalidExtensions`](HandshakeError::InvalidExtensions) if anything of it is no token; `out` is then as it was.
    pub(crate) fn encode(&self, name: &str, out: &mut String) -> Result<(), HandshakeError> {
        let words = self.0.iter().flat_map(|(name, value)| [Some(name), value.as_ref()]);
        let mut words = words.flatten().map(AsRef::as_ref).chain([name]);
        if !words.all(is_token) {
            return Err(HandshakeError::InvalidExtensions);
        }
        out.push_str(if out.is_empty() { "" } else { ", " });
        out.push_str(name);
        for (name, value) in &self.0 {
            // Writing to a string cannot fail.
            let _ = match value {
                Some(value) => write!(out, "; {name}={value}"),
                None => write!(out, "; {name}"),
            };
        }
        Ok(())
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Why an extension refuses a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ExtensionError {
    code: CloseCode,
    reason: Cow<'static, str>,
}

impl ExtensionError {
    /// The connection is closed with 1002 and this reason, of which as much is sent as a close frame has room for.
    #[must_use]
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: CloseCode::PROTOCOL_ERROR, reason: reason.into() }
    }

    /// Closes with another code, which must be one that can be sent; with 1002 otherwise.
    #[must_use]
    pub fn with_code(mut self, code: CloseCode) -> Self {
        if code.is_sendable() {
            self.code = code;
        }
        self
    }

    /// What the connection is closed with.
    #[must_use]
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The reason, whole.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
