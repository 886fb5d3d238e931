//! How connections end: codes, states, the close frame, the end without one.

use std::borrow::Cow;
use std::fmt;

/// The code of a close frame (RFC 6455 §7.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: what the connection was for is done.
    pub const NORMAL: Self = Self(1000);
    /// 1001: a server goes down, or a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that the endpoint does not take.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1005: the close frame had no code. Never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: the connection ended without a close frame. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: data that is not what its message says, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: against the policy of the endpoint.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message that is too big.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: the server did not agree to an extension that the client needs.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: something unexpected in the endpoint.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: the service is overloaded.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got no good answer from what is behind it.
    pub const BAD_GATEWAY: Self = Self(1014);
    /// 1015: the TLS handshake failed. Never sent.
    pub const TLS_HANDSHAKE: Self = Self(1015);

    /// The code with that number. Whether it may be sent is [`is_sendable`](Self::is_sendable).
    #[must_use]
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether a close frame that arrives may have this code: 1000–1003, 1007–1014 as registered
    /// with IANA, and 3000–4999 (RFC 6455 §7.4).
    #[must_use]
    pub const fn is_valid_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// Whether an endpoint may send this code: exactly if its peer may find it in a close frame.
    #[must_use]
    pub const fn is_sendable(self) -> bool {
        self.is_valid_on_wire()
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The longest reason of a close frame, in bytes: the payload less the code (RFC 6455 §5.5.1).
pub(crate) const MAX_REASON_LEN: usize = 123;

/// As much of a reason as a close frame has room for, cut between characters (RFC 6455 §5.5.1).
#[must_use]
pub fn cut_reason(reason: &str) -> &str {
    reason.split_at(reason.floor_char_boundary(MAX_REASON_LEN)).0
}

/// How far the close handshake is (RFC 6455 §7).
///
/// ```text
///            close()                       peer's close
///  Open ───────────────► CloseSent ────────────────────► Closed
///   │ peer's close                                          ▲
///   └──────────► CloseReceived ── poll_transmit (echo) ─────┘
///   any state ── receive error ──► Failed ── poll_transmit (close frame) ──► Closed
/// ```
///
/// An error after the own close frame was sent leads to `Closed` at once: there is no second close
/// frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseState {
    /// Neither side has sent a close frame.
    Open,
    /// This side has. What the peer still sends is checked and dropped.
    CloseSent,
    /// The peer has, and this side owes the answer.
    CloseReceived,
    /// Both have, or the transport has ended.
    Closed,
    /// The peer did something wrong, and the close frame that tells it so is owed.
    Failed,
}

/// A peer's close frame (RFC 6455 §5.5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame<'b> {
    /// The code, if there was one.
    pub code: Option<CloseCode>,
    /// The reason, empty if there was none.
    pub reason: Cow<'b, str>,
}

impl CloseFrame<'_> {
    /// The code as the API of browsers reports it: 1005 if there was none (RFC 6455 §7.1.5).
    #[must_use]
    pub fn code_or_no_status(&self) -> CloseCode {
        self.code.unwrap_or(CloseCode::NO_STATUS)
    }
}

/// How a transport ended before the peer's close frame (RFC 6455 §7.1.5: code 1006).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AbnormalClosure {
    /// Between two messages.
    #[error("the transport ended without a close frame")]
    BetweenMessages,
    /// In a message or in a frame.
    #[error("the transport ended inside a message")]
    InsideMessage,
    /// After this side's close frame, which the peer has not answered.
    #[error("the transport ended before the peer answered the close frame")]
    CloseUnanswered,
    /// After an [`Error`](crate::Error), which says more.
    #[error("the transport ended after an error")]
    AfterError,
}

impl AbnormalClosure {
    /// 1006, always.
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        CloseCode::ABNORMAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §5.5: a control frame's payload has at most 125 bytes. §5.5.1: two of them are the code.
    #[test]
    fn a_reason_is_cut_between_characters() {
        let fits = "x".repeat(123);
        assert_eq!(cut_reason(&fits), fits);
        assert_eq!(cut_reason(&"x".repeat(124)), fits);
        // 41 × 3 bytes fit exactly; of 31 × 4 bytes the last does not.
        assert_eq!(cut_reason(&"€".repeat(42)), "€".repeat(41));
        assert_eq!(cut_reason(&"😀".repeat(31)), "😀".repeat(30));
        assert_eq!(cut_reason(""), "");
    }
}
