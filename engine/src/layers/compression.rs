//! Settings of permessage-deflate (RFC 7692).

use std::time::Duration;

use ringwire_codec::deflate::{Decompressor, Level, WindowBits};

use crate::base::amount::Sizing;
use crate::base::setters::setters;
use crate::error::Error;

/// Whether and how messages are compressed (permessage-deflate, RFC 7692). The default is off.
///
/// Compression costs CPU time for each message, and makes the length of what is sent depend on its content: where
/// secrets and what an attacker chooses stand in one message (or, dedicated, in one connection), lengths tell
/// about the secrets. Send such messages with [`Compress::Never`](crate::compression::Compress::Never).
///
/// Whatever is set here, what a client sends inflates to no more than the message limit in force
/// ([`max_message_len`](ringwire_codec::Config::max_message_len),
/// [`max_unauthenticated_len`](crate::Config::max_unauthenticated_len)). It counts with its inflated length for
/// [`bytes_per_second`](crate::admission::RateLimit::bytes_per_second), and how much of a worker's time all of that
/// takes is bounded by
/// [`work_per_turn`](Self::work_per_turn).
///
/// Connections that this side [opens](crate::Handle::connect) offer it in the same way, unless
/// [told otherwise](crate::transport::Dial::without_compression): read "peer" for "client", and "this side" for "the
/// server".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressionConfig {
    /// Whose compressors and decompressors. Default: [`CompressionMode::Off`].
    pub mode: CompressionMode,
    /// The shortest message that is compressed, in bytes. Default: 256, since shorter ones fit into a packet anyway.
    /// With a context to refer to (dedicated) less makes sense as well.
    pub threshold: usize,
    /// The shortest message, in bytes, that is compressed by a compute thread instead of the worker, if there are
    /// [any](crate::Config::compute_workers). Default: 256 KiB, which takes 0.6 to 2.5 ms at level 1
    /// (docs/benchmarks/2026-11-22.md), much longer than the way there and back. `None`: the worker compresses all.
    ///
    /// The message is copied, compressed by itself, and keeps its place among the connection's output, which waits
    /// behind it. Until it is compressed it counts with its whole length for [`high_water`](crate::Config::high_water),
    /// and not for [`max_queued_len`](crate::Config::max_queued_len), which bounds apart how much of one connection may
    /// be on that way (a single message may go past it). What finds no room there or in the queue of the threads is
    /// compressed by the worker, and so are messages with a key, and those that would take the last of
    /// [`max_jobs_per_connection`](crate::Config::max_jobs_per_connection), which is left to the application.
    pub offload_threshold: Option<usize>,
    /// How much work is done for a smaller output, 1 to 9. Default: 2, as each message that is sent pays for it;
    /// docs/compression.md has what the levels cost.
    pub level: Level,
    /// The window of the server's compressors, as a power of two: 9 to 15 bits. Default: automatic, 15 bits (32 KiB)
    /// for those of workers and 12 bits (4 KiB) for those of connections. A client may ask for less. A compressor takes
    /// 288 KiB of memory with 15 bits, 151 KiB with 12, 137 KiB with 9; docs/compression.md says what a larger window
    /// is good for.
    pub max_window: Sizing<WindowBits>,
    /// Clients may compress, the server does not. Default: no.
    pub decompress_only: bool,
    /// Dedicated: how long a connection keeps a compressor without using it. Default: 60 s; `None`: as long as it
    /// is open. A new one begins with an empty window.
    pub compressor_timeout: Option<Duration>,
    /// Dedicated: the most memory of all connections' own compressors and decompressors in the server, in bytes.
    /// Default: 64 MiB; at least one decompressor's 48 KiB.
    ///
    /// A decompressor (48 KiB) is set aside during the handshake, as the client may refer back from its second
    /// message on. Where there is no room for it, the connection gets along without context takeover. A compressor
    /// is counted when it is made; where there is no room, the connection uses the worker's.
    pub max_dedicated_len: usize,
    /// How much of a turn a worker spends on compressed messages, in bytes that are inflated; the last message may go
    /// past it. Default: 1 MiB, a millisecond or so; at least 1.
    ///
    /// Answers that are compressed count as well, by about the time that it takes. What does not fit into a turn waits
    /// unread for the next, and those come first for whom least was done of late. Less makes turns shorter where peers
    /// send more than a worker can do.
    pub work_per_turn: usize,
}

/// Whose compressors and decompressors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CompressionMode {
    /// There are none: clients' offers are declined.
    #[default]
    Off,
    /// The worker's, for all its connections: a decompressor, and a compressor for each size of window that is in
    /// use. Each message stands for itself (no context takeover), and an idle connection holds no memory for it.
    ///
    /// A client that takes its time over a compressed message gets memory for that one: for its compressed form, up
    /// to 64 KiB, and from then on, or if it is [streamed](crate::Accept::with_streaming), a decompressor.
    Shared,
    /// The connection's own: messages refer to those before them (context takeover), which makes short, similar
    /// ones several times smaller. A connection has 24 bytes, a decompressor from its first compressed message until
    /// it ends, and a compressor while it sends compressed messages.
    Dedicated,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self {
            mode: CompressionMode::Off,
            threshold: 256,
            offload_threshold: Some(256 << 10),
            level: Level::default(),
            max_window: Sizing::Auto,
            decompress_only: false,
            compressor_timeout: Some(Duration::from_secs(60)),
            max_dedicated_len: 64 << 20,
            work_per_turn: 1 << 20,
        }
    }
}

setters! { CompressionConfig;
    with_mode, mode: CompressionMode;
    with_threshold, threshold: usize;
    with_offload_threshold, offload_threshold: impl Into<Option<usize>>;
    with_level, level: Level;
    with_max_window, max_window: impl Into<Sizing<WindowBits>>;
    with_decompress_only, decompress_only: bool;
    with_compressor_timeout, compressor_timeout: impl Into<Option<Duration>>;
    with_max_dedicated_len, max_dedicated_len: usize;
    with_work_per_turn, work_per_turn: usize;
}

impl CompressionConfig {
    /// The defaults, [shared](CompressionMode::Shared).
    #[must_use]
    pub fn shared() -> Self {
        Self::default().with_mode(CompressionMode::Shared)
    }

    /// The defaults, [dedicated](CompressionMode::Dedicated).
    #[must_use]
    pub fn dedicated() -> Self {
        Self::default().with_mode(CompressionMode::Dedicated)
    }

    /// Says which setting can't be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let least = Decompressor::MEMORY_LEN;
        if self.mode == CompressionMode::Dedicated && self.max_dedicated_len < least {
            return Err(Error::Setting {
                setting: "compression.max_dedicated_len",
                problem: format!(
                    "{} bytes are less than one decompressor ({least}); shared compression takes none",
                    self.max_dedicated_len
                ),
            });
        }
        if self.work_per_turn == 0 {
            return Err(Error::Setting {
                setting: "compression.work_per_turn",
                problem: "with 0 nothing would ever be inflated; 1MiB is the default".to_owned(),
            });
        }
        Ok(())
    }
}
