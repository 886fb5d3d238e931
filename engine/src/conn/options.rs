//! How a message is sent, and what comes of it.

use ringwire_codec::CloseCode;

/// What became of a message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It goes out with this turn, or soon after.
    OnItsWay,
    /// It waits, as more does than the [`high_water`](crate::Config::high_water) mark. Send no more until
    /// [`on_drain`](crate::Handler::on_drain), which always follows.
    Waits {
        /// Bytes that wait for the peer, this message's included.
        len: usize,
    },
}

/// How a message is sent. The default is how [`Ctx::send`](crate::Ctx::send) does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SendOptions {
    /// It replaces a message with the same key which still waits, as with
    /// [`Ctx::send_keyed`](crate::Ctx::send_keyed). Default: none.
    pub key: Option<u64>,
    /// Whether it is compressed, on a connection [where it may be](crate::Ctx::is_compressed). Default: by its length.
    pub compress: Compress,
}

impl SendOptions {
    /// Sets [`key`](Self::key).
    #[must_use]
    pub const fn with_key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets [`compress`](Self::compress).
    #[must_use]
    pub const fn with_compress(mut self, compress: Compress) -> Self {
        self.compress = compress;
        self
    }
}

/// Whether a message is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compress {
    /// If it is at least as long as [`threshold`](crate::compression::Compression::threshold).
    #[default]
    ByLength,
    /// However short it is. Goes out as it is if that makes it no shorter.
    Always,
    /// No: it is compressed already, or its length must not tell what is in it.
    Never,
}

/// What happens to a message that finds the connection's queue at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backpressure {
    /// The connection is closed with this code: the peer is too slow.
    Close(CloseCode),
    /// The message is dropped.
    DropNewest,
    /// The oldest messages that wait are dropped to make room for it.
    DropOldest,
}
