//! How connections behave.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ringwire_codec as codec;
use ringwire_codec::deflate::{Level, Offer, Policy, WindowBits};
use ringwire_codec::handshake::HeadLimits;

/// How connections behave. The default is fit for the open internet.
///
/// One value serves any number of connections: functions that take it take an `Arc` of it too.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use ringwire_tokio::{CompressionConfig, Config, KeepAliveConfig};
///
/// let config = Config::default()
///     .with_max_message_len(64 << 10)
///     .with_compression(CompressionConfig::default())
///     .with_keep_alive(KeepAliveConfig::default().with_interval(Duration::from_secs(15)));
/// let config = Arc::new(config);
/// # drop(config);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What a peer may send: lengths, fragments, pings, and how far a message may inflate. Default: messages of up to 1
    /// MiB.
    pub limits: codec::Config,
    /// What the head of a request or an answer may be. Default: 16 KiB.
    pub head_limits: HeadLimits,
    /// permessage-deflate (RFC 7692). Default: none.
    pub compression: Option<CompressionConfig>,
    /// Pings for peers from which nothing comes. Default: none.
    pub keep_alive: Option<KeepAliveConfig>,
    /// How long the peer's head may take, however its bytes trickle in. Connecting has as long, and so has this side's
    /// answer. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long a connection may take to end, from the first close frame or from what ended it: the peer has to read
    /// what is left for it, to answer, and to close. Default: 5 s.
    pub close_timeout: Duration,
    /// Output that waits, in bytes, from which on a further message has to wait for room. Default: 128 KiB. Worst case
    /// in memory: this and one message for each connection whose peer does not read.
    pub high_water: usize,
    /// What `wss` is spoken with. Default: TLS 1.2 and 1.3, and the authorities of the system and of Mozilla.
    #[cfg(feature = "tls")]
    pub tls: Option<ringwire_tls::ClientConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: codec::Config::default(),
            head_limits: HeadLimits::default(),
            compression: None,
            keep_alive: None,
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            high_water: 128 << 10,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Config {
    /// The default, which is made once.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Config>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(Arc::default))
    }

    /// Sets the longest message, in bytes: a part of [`limits`](Self::limits).
    #[must_use]
    pub const fn with_max_message_len(mut self, len: usize) -> Self {
        self.limits.max_message_len = len;
        self
    }

    /// Sets [`limits`](Self::limits).
    #[must_use]
    pub const fn with_limits(mut self, limits: codec::Config) -> Self {
        self.limits = limits;
        self
    }

    /// Sets [`head_limits`](Self::head_limits).
    #[must_use]
    pub const fn with_head_limits(mut self, limits: HeadLimits) -> Self {
        self.head_limits = limits;
        self
    }

    /// Sets [`compression`](Self::compression).
    #[must_use]
    pub const fn with_compression(mut self, compression: CompressionConfig) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets [`keep_alive`](Self::keep_alive).
    #[must_use]
    pub const fn with_keep_alive(mut self, keep_alive: KeepAliveConfig) -> Self {
        self.keep_alive = Some(keep_alive);
        self
    }

    /// Sets [`handshake_timeout`](Self::handshake_timeout).
    #[must_use]
    pub const fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets [`close_timeout`](Self::close_timeout).
    #[must_use]
    pub const fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Sets [`high_water`](Self::high_water).
    #[must_use]
    pub const fn with_high_water(mut self, len: usize) -> Self {
        self.high_water = len;
        self
    }

    /// Sets [`tls`](Self::tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: ringwire_tls::ClientConfig) -> Self {
        self.tls = Some(tls);
        self
    }
}

/// How messages are compressed, where the peer agrees to it (permessage-deflate, RFC 7692).
///
/// Compression makes the length of what is sent depend on its content: where secrets and what an attacker chooses
/// stand in one message (or, with [`takeover`](Self::takeover), in one connection), lengths tell about the secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressionConfig {
    /// Messages may refer to those before them, which makes short, similar ones several times smaller. Default: no.
    ///
    /// Without it the machines are the thread's, and a connection holds no memory for them. With it, each connection
    /// has its own, for windows of 15 bits: 288 KiB from the first message that is compressed, 48 KiB from the first
    /// one that is inflated. A peer that asks for none in a direction is heard.
    pub takeover: bool,
    /// The largest window of this side's compressor, as a power of two: 9 to 15 bits. Default: 15.
    pub max_window: WindowBits,
    /// The shortest message that is compressed, in bytes. Default: 256, since shorter ones fit into a packet anyway.
    pub threshold: usize,
    /// How much work is done for a smaller output, 1 to 9. Default: 2.
    pub level: Level,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self {
            takeover: false,
            max_window: WindowBits::MAX,
            threshold: 256,
            level: Level::default(),
        }
    }
}

impl CompressionConfig {
    /// Sets [`takeover`](Self::takeover).
    #[must_use]
    pub const fn with_takeover(mut self, takeover: bool) -> Self {
        self.takeover = takeover;
        self
    }

    /// Sets [`max_window`](Self::max_window).
    #[must_use]
    pub const fn with_max_window(mut self, bits: WindowBits) -> Self {
        self.max_window = bits;
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

    pub(crate) fn policy(self) -> Policy {
        Policy::default()
            .with_server_context_takeover(self.takeover)
            .with_client_context_takeover(self.takeover)
            .with_server_max_window_bits(self.max_window)
    }

    pub(crate) fn offer(self) -> Offer {
        let offer = if self.takeover { Offer::default() } else { Offer::shared() };
        offer.with_client_max_window_bits(self.max_window)
    }
}

/// Pings that ask whether a peer is still there.
///
/// They are sent while somebody receives, as is everything that the protocol does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeepAliveConfig {
    /// A ping is sent after this long without anything received, or up to twice as long: traffic only leaves a mark,
    /// which is looked at once in this time. Default: 30 s.
    pub interval: Duration,
    /// How long a ping may stay without an answer; anything received is one. Default: 10 s.
    pub pong_timeout: Duration,
}

impl Default for KeepAliveConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), pong_timeout: Duration::from_secs(10) }
    }
}

impl KeepAliveConfig {
    /// Sets [`interval`](Self::interval).
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets [`pong_timeout`](Self::pong_timeout).
    #[must_use]
    pub const fn with_pong_timeout(mut self, timeout: Duration) -> Self {
        self.pong_timeout = timeout;
        self
    }
}
