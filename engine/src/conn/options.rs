//! How a message is sent, and what comes of it.

use std::time::Duration;

use ringwire_codec::CloseCode;

/// What became of a message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It goes out with this turn, or soon after.
    OnItsWay,
    /// It waits, and what waits has reached the [`high_water`](crate::Config::high_water) mark. Send no more until
    /// [`on_drain`](crate::Handler::on_drain), which follows unless the connection begins to close first.
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
    /// How long it may wait for the peer, and what happens if it is not on its way by then. Default: as long as it has
    /// to.
    pub deadline: Option<(Duration, Late)>,
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

    /// Sets [`deadline`](Self::deadline), `after` from when the worker takes the message: for what is of no use later.
    ///
    /// It looks at what waits in the connection's queue. What was handed to the kernel is on its way, since a frame
    /// that has begun can't be taken back; how long that may take is for
    /// [`write_stall_timeout`](crate::Config::write_stall_timeout). Fires up to two ticks of 100 ms late, never early.
    /// A message with a deadline is compressed without reference to others.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ringwire::{Ctx, Late, SendOptions};
    /// # fn on_quote(ctx: &mut Ctx<'_, ()>, quote: &str) {
    /// let options = SendOptions::default().with_deadline(Duration::from_secs(1), Late::Drop);
    /// let _ = ctx.send_with(quote, options);
    /// # }
    /// ```
    #[must_use]
    pub const fn with_deadline(mut self, after: Duration, late: Late) -> Self {
        self.deadline = Some((after, late));
        self
    }
}

/// What happens where a message still waits at its [deadline](SendOptions::with_deadline).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Late {
    /// It is dropped, and counts among [`messages_dropped`](crate::stats::WorkerStats::messages_dropped).
    Drop,
    /// The connection is closed with this code, 1000 if it may not be sent:
    /// [`CloseReason::Deadline`](crate::CloseReason::Deadline).
    Close(CloseCode),
}

/// Whether a message is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compress {
    /// If it is at least as long as [`threshold`](crate::compression::CompressionConfig::threshold).
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
