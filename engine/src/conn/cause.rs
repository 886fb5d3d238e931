//! How a connection ended.

use std::io;

use ringwire_codec::CloseCode;

/// How a connection ended. Given to [`Handler::on_close`](crate::Handler::on_close) and counted in the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseCause {
    /// Why.
    pub reason: CloseReason,
    /// The code of the close frame that began it, the peer's or ours. `None`: a frame without a code, or none
    /// at all (1005 and 1006 of RFC 6455 §7.4.1).
    pub code: Option<CloseCode>,
    /// The text of that close frame. With [`CloseReason::Tls`], what failed.
    pub text: String,
    /// Bytes of output that were not handed to the kernel.
    pub unsent_len: usize,
    /// Messages from other threads ([`Handle::send`](crate::Handle::send), [`Sender`](crate::Sender)) that came as the
    /// connection was closing already, or whose coming made it close, or that still waited for room in its queue: none
    /// of their bytes are in `unsent_len`. What is posted after [`on_close`](crate::Handler::on_close) is in no cause;
    /// it counts among [`messages_dropped`](crate::stats::WorkerStats::messages_dropped).
    pub lost_messages: usize,
    clean: bool,
}

impl CloseCause {
    pub(crate) fn new(reason: CloseReason) -> Self {
        Self {
            reason,
            code: None,
            text: String::new(),
            unsent_len: 0,
            lost_messages: 0,
            clean: false,
        }
    }

    /// Whether close frames went both ways, and nothing was wrong (RFC 6455 §7.1.4: "cleanly").
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// What is known at the very end.
    pub(crate) fn conclude(&mut self, answered: bool, unsent_len: usize) {
        // What was dropped to end it is there already.
        self.unsent_len += unsent_len;
        self.clean = answered && self.unsent_len == 0 && !self.is_fault();
    }

    /// Whether it began with something that went wrong.
    pub(crate) fn is_fault(&self) -> bool {
        !matches!(self.reason, CloseReason::Peer | CloseReason::Local | CloseReason::Shutdown)
    }

    /// Who began it.
    pub fn initiator(&self) -> Initiator {
        match self.reason {
            CloseReason::Peer => Initiator::Peer,
            CloseReason::Local
            | CloseReason::Shutdown
            | CloseReason::Protocol(_)
            | CloseReason::IdleTimeout
            | CloseReason::PongTimeout
            | CloseReason::CloseTimeout
            | CloseReason::WriteStall
            | CloseReason::Lifetime
            | CloseReason::Deadline
            | CloseReason::RateLimit
            | CloseReason::Backpressure
            | CloseReason::Memory
            | CloseReason::Extension
            | CloseReason::Tls
            | CloseReason::HandlerPanic => Initiator::Local,
            CloseReason::EndOfStream | CloseReason::Transport(_) => Initiator::Transport,
        }
    }
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Initiator {
    /// This side.
    Local,
    /// The peer, by a close frame.
    Peer,
    /// Neither: the TCP connection ended under it.
    Transport,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer sent a close frame first.
    Peer,
    /// The application closed it, through [`Ctx`](crate::Ctx) or [`Handle`](crate::Handle).
    Local,
    /// The server was [drained](crate::Handle::drain) or [shut down](crate::Handle::shutdown).
    Shutdown,
    /// The peer broke the protocol or a limit of it ([`protocol`](crate::Config::protocol)). It was told by a close
    /// frame.
    Protocol(ringwire_codec::Error),
    /// The peer ended the stream without a close frame.
    EndOfStream,
    /// The connection failed: reset, unreachable, ….
    Transport(io::ErrorKind),
    /// Nothing was received for [`idle_timeout`](crate::Config::idle_timeout). Closed with 1001.
    IdleTimeout,
    /// A ping was not answered within [`pong_timeout`](crate::Config::pong_timeout). Cut off, without a close frame.
    PongTimeout,
    /// The peer did not finish the close handshake within [`close_timeout`](crate::Config::close_timeout).
    CloseTimeout,
    /// The peer took none of the queued output within
    /// [`write_stall_timeout`](crate::Config::write_stall_timeout).
    WriteStall,
    /// The connection was open for [`max_lifetime`](crate::Config::max_lifetime). Closed with 1001.
    Lifetime,
    /// The queued output reached [`max_queued_len`](crate::Config::max_queued_len), and the policy was to close
    /// ([`Backpressure::Close`](crate::Backpressure::Close)).
    Backpressure,
    /// The handler panicked. Closed with 1011.
    HandlerPanic,
    /// A deadline that the application had set has passed: that of the connection
    /// ([`Ctx::set_deadline`](crate::Ctx::set_deadline)), or that of a message ([`Late::Close`](crate::Late::Close)).
    Deadline,
    /// The peer said more than it may ([`rate_limit`](crate::Config::rate_limit)).
    RateLimit,
    /// TLS failed: bad records, a refused certificate, an alert. The cause's text says what.
    Tls,
    /// The server was out of memory for connections, and this one held more than others
    /// ([`max_memory`](crate::Config::max_memory)).
    Memory,
    /// An extension that was agreed on refused what came, with the cause's code and text
    /// ([`FrameTransform::receive`](crate::extension::FrameTransform::receive)).
    Extension,
}

impl CloseReason {
    /// All names, in the order of [`index`](Self::index).
    pub(crate) const NAMES: [&str; 18] = [
        "peer",
        "local",
        "shutdown",
        "protocol",
        "end_of_stream",
        "transport",
        "idle_timeout",
        "pong_timeout",
        "close_timeout",
        "write_stall",
        "lifetime",
        "backpressure",
        "handler_panic",
        "tls",
        "deadline",
        "rate_limit",
        "memory",
        "extension",
    ];

    /// Its place in [`NAMES`](Self::NAMES) and in what is counted.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Peer => 0,
            Self::Local => 1,
            Self::Shutdown => 2,
            Self::Protocol(_) => 3,
            Self::EndOfStream => 4,
            Self::Transport(_) => 5,
            Self::IdleTimeout => 6,
            Self::PongTimeout => 7,
            Self::CloseTimeout => 8,
            Self::WriteStall => 9,
            Self::Lifetime => 10,
            Self::Backpressure => 11,
            Self::HandlerPanic => 12,
            Self::Tls => 13,
            Self::Deadline => 14,
            Self::RateLimit => 15,
            Self::Memory => 16,
            Self::Extension => 17,
        }
    }

    /// Whether its peer took too little, so that nothing is kept for it any more.
    pub(crate) fn gives_peer_up(self) -> bool {
        matches!(self, Self::Memory | Self::WriteStall | Self::PongTimeout | Self::CloseTimeout)
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Protocol(error) => write!(f, "protocol: {error}"),
            Self::Transport(kind) => write!(f, "transport: {kind}"),
            other => f.write_str(other.name()),
        }
    }
}

/// How many connections have ended, by what ended them: `closes[CloseReason::IdleTimeout]`. Where a reason has a cause
/// of its own, as [`CloseReason::Protocol`] has, all of them count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closes([u64; CloseReason::NAMES.len()]);

impl Closes {
    pub(crate) fn from_fn(count: impl FnMut(usize) -> u64) -> Self {
        Self(std::array::from_fn(count))
    }

    /// How many there are of all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The [name](CloseReason::name) of each reason, and how often it ended a connection.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CloseReason::NAMES.into_iter().zip(self.0)
    }
}

impl std::ops::Index<CloseReason> for Closes {
    type Output = u64;

    fn index(&self, reason: CloseReason) -> &u64 {
        &self.0[reason.index()]
    }
}

impl std::ops::AddAssign for Closes {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }
}

impl std::ops::Sub for Closes {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self::from_fn(|index| self.0[index].saturating_sub(before.0[index]))
    }
}
