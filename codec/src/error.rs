//! Why a connection failed, and why something could not be sent.

use crate::CloseCode;

/// Why a connection failed. After it the connection is over; what is left to do is to send the
/// close frame that [`poll_transmit`](crate::Connection::poll_transmit) gives, with the code of
/// [`close_code`](Self::close_code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(Violation),
    /// The peer kept to the protocol and not to a limit of [`Config`](crate::Config).
    #[error("the peer exceeded a limit: {0}")]
    LimitExceeded(Limit),
    /// A compressed message is no deflate stream, or ends inside one (RFC 7692 §7.2.2).
    ///
    /// Its code is 1007, "data that is not consistent with the type of the message" (RFC 6455
    /// §7.4.1): the frames are right, what is in them is not.
    #[error("the peer sent a compressed message that cannot be inflated")]
    InvalidDeflate,
    /// A text message or the reason of a close frame is not UTF-8 (RFC 6455 §8.1).
    #[error("the peer sent text that is not UTF-8")]
    InvalidUtf8,
}

impl Error {
    /// The code that the peer is told (RFC 6455 §7.4.1).
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::PeerMisbehaved(_) => CloseCode::PROTOCOL_ERROR,
            Self::LimitExceeded(
                Limit::MessageLen | Limit::FragmentCount | Limit::Memory | Limit::InflateRatio,
            ) => CloseCode::MESSAGE_TOO_BIG,
            Self::LimitExceeded(Limit::ControlCount) => CloseCode::POLICY_VIOLATION,
            Self::InvalidDeflate | Self::InvalidUtf8 => CloseCode::INVALID_PAYLOAD,
        }
    }
}

/// A rule of RFC 6455 that a peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A reserved bit is set and no extension gives it a meaning (RFC 6455 §5.2).
    #[error("a reserved bit is set (RFC 6455 §5.2)")]
    ReservedBits,
    /// The opcode is one of 3–7 or 11–15 (RFC 6455 §5.2).
    #[error("the opcode is reserved (RFC 6455 §5.2)")]
    ReservedOpCode,
    /// A length stands in a longer form than it needs (RFC 6455 §5.2).
    #[error("a length is not in its shortest form (RFC 6455 §5.2)")]
    LengthNotMinimal,
    /// The most significant bit of a 64-bit length is set (RFC 6455 §5.2).
    #[error("a length has its most significant bit set (RFC 6455 §5.2)")]
    LengthTooLarge,
    /// A client sent a frame without a mask (RFC 6455 §5.1).
    #[error("a client's frame is not masked (RFC 6455 §5.1)")]
    UnmaskedClientFrame,
    /// A server sent a frame with a mask (RFC 6455 §5.1).
    #[error("a server's frame is masked (RFC 6455 §5.1)")]
    MaskedServerFrame,
    /// A control frame without FIN (RFC 6455 §5.5).
    #[error("a control frame is fragmented (RFC 6455 §5.5)")]
    FragmentedControl,
    /// A control frame with more than 125 bytes (RFC 6455 §5.5).
    #[error("a control frame is longer than 125 bytes (RFC 6455 §5.5)")]
    ControlTooLong,
    /// A continuation frame while no message is under way (RFC 6455 §5.4).
    #[error("a continuation frame continues nothing (RFC 6455 §5.4)")]
    ContinuationWithoutStart,
    /// A new text or binary frame while a message is under way (RFC 6455 §5.4).
    #[error("a message begins inside another (RFC 6455 §5.4)")]
    MessageInsideMessage,
    /// A close frame with a body of one byte, which is no code (RFC 6455 §5.5.1).
    #[error("a close frame has half a code (RFC 6455 §5.5.1)")]
    HalfCloseCode,
    /// A close frame with a code that must not be sent (RFC 6455 §7.4).
    #[error("a close frame has a code that must not be sent (RFC 6455 §7.4)")]
    BadCloseCode,
}

/// A limit of [`Config`](crate::Config), or of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// A message is longer than [`max_message_len`](crate::Config::max_message_len), or
    /// [`max_streamed_len`](crate::Config::max_streamed_len) when it is handed over in parts; a
    /// compressed one, inflated.
    #[error("the message is too long (limits: max_message_len, max_streamed_len)")]
    MessageLen,
    /// A message has more frames than [`max_fragment_count`](crate::Config::max_fragment_count).
    #[error("the message has too many fragments (limit: max_fragment_count)")]
    FragmentCount,
    /// More control frames and empty fragments in a window than
    /// [`max_control_count`](crate::Config::max_control_count).
    #[error("too many control frames or empty fragments (limit: max_control_count)")]
    ControlCount,
    /// A compressed message inflates to more than
    /// [`max_inflate_ratio`](crate::Config::max_inflate_ratio) allows.
    #[error("the message inflates to too much (limit: max_inflate_ratio)")]
    InflateRatio,
    /// There was no memory for a message that the settings allow.
    #[error("no memory for the message")]
    Memory,
}

/// Why something was not sent. Nothing was written, and the connection is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A close frame was sent or received, or the connection failed.
    #[error("the connection is closing or closed")]
    Closing,
    /// As much output waits for the peer as may wait. The codec itself has no such limit: the error comes from what
    /// queues its output.
    #[error("the queue of output is at its limit")]
    Full,
    /// A fragmented message must be ended before another one begins (RFC 6455 §5.4).
    #[error("a fragmented message is being sent")]
    MessageUnderWay,
    /// A fragment of text was sent to a binary message, one that is compressed to one that is not, or
    /// the other way round.
    #[error("the fragment is not of its message's kind")]
    KindMismatch,
    /// Compression was not agreed on (RFC 7692 §6.1).
    #[error("compression was not agreed on")]
    DeflateNotAgreed,
    /// The payload of a ping or pong is longer than 125 bytes (RFC 6455 §5.5).
    #[error("a control frame holds at most 125 bytes")]
    ControlTooLong,
    /// The reason of a close is longer than 123 bytes (RFC 6455 §5.5.1).
    #[error("the reason of a close holds at most 123 bytes")]
    ReasonTooLong,
    /// The close code must not be sent (RFC 6455 §7.4).
    #[error("the close code must not be sent")]
    BadCloseCode,
}

const _: () = assert!(size_of::<Error>() <= 32 && size_of::<SendError>() <= 32);
