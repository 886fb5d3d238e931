//! Compression of a client's messages (permessage-deflate, RFC 7692).

use ringwire_codec::deflate::{
    Agreement, Compressor, Decompressor, Inflate, Level, Offer, WindowBits,
};
use ringwire_codec::{Connection, MaskSource, Message, Role, SendError};

/// How messages are compressed, where the server agrees to it (permessage-deflate, RFC 7692).
///
/// Compression makes the length of what is sent depend on its content: where secrets and what an attacker chooses
/// stand in one message (or, with [`takeover`](Self::takeover), in one connection), lengths tell about the secrets.
///
/// What the server sends inflates to no more than
/// [`max_message_len`](crate::Builder::with_max_message_len).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeflateConfig {
    /// Messages may refer to those before them, which makes short, similar ones several times smaller. Default: yes,
    /// the plain offer, which all servers understand. Without it, the server is asked to do without as well, and may
    /// decline.
    ///
    /// Worst case in memory, either way, for windows of 15 bits: 288 KiB from the first message that is compressed, 48
    /// KiB from the first one that is inflated, until the connection is dropped.
    pub takeover: bool,
    /// The largest window of this side's compressor, as a power of two: 9 to 15 bits. The server is told so, and may
    /// ask for less. Default: `None`, 15 bits, and it may not.
    pub max_window: Option<WindowBits>,
    /// The shortest message that is compressed, in bytes. Default: 256, since shorter ones fit into a packet anyway.
    pub threshold: usize,
    /// How much work is done for a smaller output, 1 to 9. Default: 2.
    pub level: Level,
}

impl Default for DeflateConfig {
    fn default() -> Self {
        Self { takeover: true, max_window: None, threshold: 256, level: Level::default() }
    }
}

impl DeflateConfig {
    /// Sets [`takeover`](Self::takeover).
    #[must_use]
    pub const fn with_takeover(mut self, takeover: bool) -> Self {
        self.takeover = takeover;
        self
    }

    /// Sets [`max_window`](Self::max_window).
    #[must_use]
    pub const fn with_max_window(mut self, bits: WindowBits) -> Self {
        self.max_window = Some(bits);
        self
    }

    /// Sets [`threshold`](Self::threshold).
    #[must_use]
    pub const fn with_threshold(mut self, threshold: usize) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets [`level`](Self::level).
    #[must_use]
    pub const fn with_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    pub(super) fn offer(self) -> Offer {
        let offer = if self.takeover { Offer::default() } else { Offer::shared() };
        match self.max_window {
            Some(bits) => offer.with_client_max_window_bits(bits),
            None => offer,
        }
    }
}

/// What compresses and inflates the messages of one connection.
#[derive(Debug)]
pub(super) struct Deflate {
    settings: DeflateConfig,
    agreement: Agreement,
    /// Made when it is first needed, and so is the other.
    compressor: Option<Compressor>,
    decompressor: Option<Box<Decompressor>>,
}

impl Deflate {
    pub(super) const fn new(settings: DeflateConfig, agreement: Agreement) -> Self {
        Self { settings, agreement, compressor: None, decompressor: None }
    }

    /// The decompressor for the server's messages.
    pub(super) fn inflate(&mut self) -> Inflate<'_> {
        if self.agreement.takeover(Role::Server) {
            Inflate::Dedicated(&mut self.decompressor)
        } else {
            Inflate::Shared(self.decompressor.get_or_insert_default())
        }
    }

    /// Appends a message to `out`, compressed if it is long enough.
    pub(super) fn send(
        &mut self,
        codec: &mut Connection,
        message: Message<'_>,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if message.as_bytes().len() < self.settings.threshold {
            return codec.send(message, masks, out);
        }
        let Self { settings, agreement, compressor, .. } = self;
        let compressor = compressor.get_or_insert_with(|| {
            let compressor =
                Compressor::new(settings.level, agreement.compressor_window(Role::Client));
            if agreement.takeover(Role::Client) { compressor.with_takeover() } else { compressor }
        });
        codec.send_compressed(message, compressor, masks, out)
    }
}
