//! What the two ends agree on (RFC 7692 §7.1).

use std::fmt::Write as _;
use std::num::NonZeroU8;

use crate::Role;
use crate::head::{Extension, HandshakeError};

/// The name of the extension (RFC 7692 §7).
pub(crate) const NAME: &str = "permessage-deflate";

const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// The size of the window that a compressor refers back to, as a power of two: 9 to 15, which is
/// 512 bytes to 32 KiB.
///
/// RFC 7692 also has 8. The compressor cannot keep to that, so it is neither asked for nor promised;
/// a peer that compresses with it is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowBits(NonZeroU8);

impl WindowBits {
    /// 9: 512 bytes.
    pub const MIN: Self = Self(NonZeroU8::MIN.saturating_add(8));
    /// 15: 32 KiB, what is used where nothing else is said.
    pub const MAX: Self = Self(NonZeroU8::MIN.saturating_add(14));

    /// The size with that number of bits; `None` unless it is 9 to 15.
    #[must_use]
    pub const fn new(bits: u8) -> Option<Self> {
        match NonZeroU8::new(bits) {
            Some(bits) if matches!(bits.get(), 9..=15) => Some(Self(bits)),
            _ => None,
        }
    }

    /// The number of bits.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// The size in bytes.
    #[must_use]
    pub const fn window_len(self) -> usize {
        1 << self.0.get()
    }
}

impl Default for WindowBits {
    fn default() -> Self {
        Self::MAX
    }
}

/// What a client offers. The default is the plain offer, without parameters: the one that all
/// servers understand, and with which both ends may use context takeover.
///
/// Goes into [`Request::with_deflate`](crate::handshake::client::Request::with_deflate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Offer {
    /// The server must compress each message by itself, so that a shared decompressor is enough. A
    /// server that will not declines the offer. Default: false.
    pub server_no_context_takeover: bool,
    /// The client will compress each message by itself, whatever the server answers, so that a
    /// shared compressor is enough. Default: false.
    pub client_no_context_takeover: bool,
    /// The server must use a window of at most this size. A server that cannot declines the offer.
    /// Default: none is asked for, since it saves nothing here.
    pub server_max_window_bits: Option<WindowBits>,
    /// The client understands a server that asks it for a smaller window, and will use a window of at
    /// most this size in any case. Default: `None`, with which a server must not ask.
    pub client_max_window_bits: Option<WindowBits>,
}

impl Offer {
    /// The offer for a client with one compressor and one decompressor for all its connections.
    #[must_use]
    pub const fn shared() -> Self {
        Self {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: None,
            client_max_window_bits: None,
        }
    }

    /// Sets [`server_no_context_takeover`](Self::server_no_context_takeover).
    #[must_use]
    pub const fn with_server_no_context_takeover(mut self, holds: bool) -> Self {
        self.server_no_context_takeover = holds;
        self
    }

    /// Sets [`client_no_context_takeover`](Self::client_no_context_takeover).
    #[must_use]
    pub const fn with_client_no_context_takeover(mut self, holds: bool) -> Self {
        self.client_no_context_takeover = holds;
        self
    }

    /// Sets [`server_max_window_bits`](Self::server_max_window_bits).
    #[must_use]
    pub const fn with_server_max_window_bits(mut self, bits: WindowBits) -> Self {
        self.server_max_window_bits = Some(bits);
        self
    }

    /// Sets [`client_max_window_bits`](Self::client_max_window_bits).
    #[must_use]
    pub const fn with_client_max_window_bits(mut self, bits: WindowBits) -> Self {
        self.client_max_window_bits = Some(bits);
        self
    }

    /// Appends the element of Sec-WebSocket-Extensions.
    pub(crate) fn encode(&self, out: &mut String) {
        let params = Params {
            server_no_context_takeover: self.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover,
            server_max_window_bits: self.server_max_window_bits.map(WindowBits::get),
            client_max_window_bits: self.client_max_window_bits.map(|bits| {
                // The largest window is no limit: the parameter then says that one is understood.
                (bits < WindowBits::MAX).then_some(bits.get())
            }),
        };
        params.encode(out);
    }

    /// What a server's choice comes to; `None` if it does not answer this offer.
    fn agree(&self, chosen: &Params) -> Option<Agreement> {
        // RFC 7692 §7.1.1.1, §7.1.2.1: a server that accepts these says so.
        if self.server_no_context_takeover && !chosen.server_no_context_takeover {
            return None;
        }
        let server_window_bits = match (self.server_max_window_bits, chosen.server_max_window_bits)
        {
            (None, chosen) => chosen.unwrap_or(WindowBits::MAX.get()),
            (Some(offered), Some(chosen)) if chosen <= offered.get() => chosen,
            (Some(_), _) => return None,
        };
        // §7.1.2.2: only if the client said that it understands this, and with a value.
        let client_window_bits = match (self.client_max_window_bits, chosen.client_max_window_bits)
        {
            (offered, None) => offered.unwrap_or_default(),
            (Some(offered), Some(Some(chosen))) => {
                WindowBits::new(chosen).filter(|&chosen| chosen <= offered)?
            }
            (None, Some(_)) | (Some(_), Some(None)) => return None,
        };
        Some(Agreement {
            // §7.1.1.2: the client keeps to what it offered, answered or not.
            client_no_context_takeover: self.client_no_context_takeover
                || chosen.client_no_context_takeover,
            server_no_context_takeover: chosen.server_no_context_takeover,
            server_window_bits,
            client_window_bits: client_window_bits.get(),
            names_server_window: chosen.server_max_window_bits.is_some(),
            names_client_window: chosen.client_max_window_bits.is_some(),
        })
    }
}

/// What a server agrees to. The default is for machines that all connections of a thread share.
///
/// Goes into [`Upgrade::deflate`](crate::handshake::server::Upgrade::deflate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Policy {
    /// The server's messages may refer to those before them, if the client allows it: for a
    /// compressor of each connection's own. Default: false.
    pub server_context_takeover: bool,
    /// The client's messages may refer to those before them: for a decompressor of each connection's
    /// own. Default: false.
    pub client_context_takeover: bool,
    /// The largest window of the server's compressor. Default: 15 bits. A client may ask for less.
    pub server_max_window_bits: WindowBits,
    /// The largest window that a client is to use, told to those who say that they understand it.
    /// Default: 15 bits. A smaller one saves the client memory, and the server nothing.
    pub client_max_window_bits: WindowBits,
}

impl Policy {
    /// Sets [`server_context_takeover`](Self::server_context_takeover).
    #[must_use]
    pub const fn with_server_context_takeover(mut self, holds: bool) -> Self {
        self.server_context_takeover = holds;
        self
    }

    /// Sets [`client_context_takeover`](Self::client_context_takeover).
    #[must_use]
    pub const fn with_client_context_takeover(mut self, holds: bool) -> Self {
        self.client_context_takeover = holds;
        self
    }

    /// Sets [`server_max_window_bits`](Self::server_max_window_bits).
    #[must_use]
    pub const fn with_server_max_window_bits(mut self, bits: WindowBits) -> Self {
        self.server_max_window_bits = bits;
        self
    }

    /// Sets [`client_max_window_bits`](Self::client_max_window_bits).
    #[must_use]
    pub const fn with_client_max_window_bits(mut self, bits: WindowBits) -> Self {
        self.client_max_window_bits = bits;
        self
    }

    /// The first of a client's offers that can be accepted, and how. An offer that is malformed, or
    /// asks for what is not known or cannot be done, is declined (RFC 7692 §7).
    pub(crate) fn choose<'b>(
        &self,
        offers: impl Iterator<Item = Extension<'b>>,
    ) -> Option<Agreement> {
        offers
            .filter(|offer| is_deflate(offer))
            .find_map(|offer| self.accept(&Params::parse(&offer)?))
    }

    fn accept(&self, offered: &Params) -> Option<Agreement> {
        let server_window_bits = match offered.server_max_window_bits {
            None => self.server_max_window_bits,
            // 8 bits are the one valid size that the compressor does not have.
            Some(offered) => WindowBits::new(offered)?.min(self.server_max_window_bits),
        };
        let ours = self.client_max_window_bits.get();
        // A client that would use less anyway is not told to.
        let (client_window_bits, names_client_window) = match offered.client_max_window_bits {
            None => (WindowBits::MAX.get(), false),
            Some(None) => (ours, ours < WindowBits::MAX.get()),
            Some(Some(hint)) => (hint.min(ours), ours < hint),
        };
        Some(Agreement {
            server_no_context_takeover: offered.server_no_context_takeover
                || !self.server_context_takeover,
            client_no_context_takeover: offered.client_no_context_takeover
                || !self.client_context_takeover,
            server_window_bits: server_window_bits.get(),
            client_window_bits,
            // §7.1.2.1: this is how the offer is accepted. Unasked, it lets a client take less memory.
            names_server_window: offered.server_max_window_bits.is_some()
                || server_window_bits < WindowBits::MAX,
            names_client_window,
        })
    }
}

/// What the two ends agreed on: how each of them compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Agreement {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window_bits: u8,
    client_window_bits: u8,
    /// The server's answer says `server_window_bits`.
    names_server_window: bool,
    /// The server's answer says `client_window_bits`.
    names_client_window: bool,
}

impl Agreement {
    /// Whether the messages that `sender` compresses may refer to those before them. If so, the
    /// receiver needs a decompressor of this connection's own.
    #[must_use]
    pub const fn takeover(&self, sender: Role) -> bool {
        match sender {
            Role::Client => !self.client_no_context_takeover,
            Role::Server => !self.server_no_context_takeover,
        }
    }

    /// The largest window that `sender` compresses with, in bits: 8 to 15. A peer may have chosen 8;
    /// for what this side compresses with see [`compressor_window`](Self::compressor_window).
    #[must_use]
    pub const fn window_bits(&self, sender: Role) -> u8 {
        match sender {
            Role::Client => self.client_window_bits,
            Role::Server => self.server_window_bits,
        }
    }

    /// The largest window of a [`Compressor`](super::Compressor) of this side, which is `role`.
    #[must_use]
    pub fn compressor_window(&self, role: Role) -> WindowBits {
        // A negotiation that would need 8 has failed.
        WindowBits::new(self.window_bits(role)).unwrap_or(WindowBits::MIN)
    }

    /// What a client makes of the extensions that a server chose.
    ///
    /// # Errors
    ///
    /// [`UnofferedExtension`](HandshakeError::UnofferedExtension) for anything but one choice of
    /// something that was offered, [`DeflateParams`](HandshakeError::DeflateParams) if the choice
    /// answers no offer.
    pub(crate) fn of_response<'b>(
        offers: &[Offer],
        mut chosen: impl Iterator<Item = Result<Extension<'b>, HandshakeError>>,
    ) -> Result<Option<Self>, HandshakeError> {
        let Some(choice) = chosen.next() else { return Ok(None) };
        let choice = choice?;
        if offers.is_empty() || !is_deflate(&choice) || chosen.next().is_some() {
            return Err(HandshakeError::UnofferedExtension);
        }
        let params = Params::parse(&choice).ok_or(HandshakeError::DeflateParams)?;
        // The answer does not say which offer it is for.
        let agreement = offers.iter().find_map(|offer| offer.agree(&params));
        agreement.ok_or(HandshakeError::DeflateParams).map(Some)
    }

    /// Appends a server's element of Sec-WebSocket-Extensions.
    pub(crate) fn encode(&self, out: &mut String) {
        let params = Params {
            server_no_context_takeover: self.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover,
            server_max_window_bits: self.names_server_window.then_some(self.server_window_bits),
            client_max_window_bits: self
                .names_client_window
                .then_some(Some(self.client_window_bits)),
        };
        params.encode(out);
    }
}

pub(crate) fn is_deflate(extension: &Extension<'_>) -> bool {
    extension.is_named(NAME)
}

/// The parameters, as they stand on the wire (RFC 7692 §7.1.1, §7.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// The inner `None`: without a value, which only an offer may have.
    client_max_window_bits: Option<Option<u8>>,
}

impl Params {
    /// `None`: one is not known, is repeated, or has a value that it may not have.
    fn parse(extension: &Extension<'_>) -> Option<Self> {
        let mut params = Self::default();
        for (name, value) in extension.params() {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let repeated = if is(SERVER_NO_CONTEXT_TAKEOVER) && value.is_none() {
                std::mem::replace(&mut params.server_no_context_takeover, true)
            } else if is(CLIENT_NO_CONTEXT_TAKEOVER) && value.is_none() {
                std::mem::replace(&mut params.client_no_context_takeover, true)
            } else if is(SERVER_MAX_WINDOW_BITS) {
                params.server_max_window_bits.replace(parse_bits(value?)?).is_some()
            } else if is(CLIENT_MAX_WINDOW_BITS) {
                let bits = match value {
                    Some(value) => Some(parse_bits(value)?),
                    None => None,
                };
                params.client_max_window_bits.replace(bits).is_some()
            } else {
                return None;
            };
            if repeated {
                return None;
            }
        }
        Some(params)
    }

    fn encode(&self, out: &mut String) {
        out.push_str(NAME);
        if self.server_no_context_takeover {
            out.push_str("; ");
            out.push_str(SERVER_NO_CONTEXT_TAKEOVER);
        }
        if self.client_no_context_takeover {
            out.push_str("; ");
            out.push_str(CLIENT_NO_CONTEXT_TAKEOVER);
        }
        // Writing to a string does not fail.
        if let Some(bits) = self.server_max_window_bits {
            let _ = write!(out, "; {SERVER_MAX_WINDOW_BITS}={bits}");
        }
        match self.client_max_window_bits {
            Some(Some(bits)) => {
                let _ = write!(out, "; {CLIENT_MAX_WINDOW_BITS}={bits}");
            }
            Some(None) => {
                let _ = write!(out, "; {CLIENT_MAX_WINDOW_BITS}");
            }
            None => {}
        }
    }
}

/// A decimal number of 8 to 15 without leading zeros (RFC 7692 §7.1.2.1).
fn parse_bits(value: &str) -> Option<u8> {
    match value {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}
