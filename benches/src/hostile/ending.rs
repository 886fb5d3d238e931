//! How a server and a hostile peer parted.

use std::fmt;

use super::heard::Close;
use super::line::Line;
use crate::echo::Failure;

/// What became of one peer.
pub(super) struct Part {
    pub(super) ending: Ending,
    /// Bytes that it said and heard.
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// What the server did in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It answered with an HTTP status, other than that of an upgrade.
    Status(u16),
    /// It sent a close frame.
    Closed(Close),
    /// It ended the connection without a word.
    EndOfStream,
    Reset,
    /// The connection ended in another way.
    Failed(Failure),
    /// It took what was sent, answered, and went on.
    WentOn,
    /// The connection was still there at the time limit.
    KeptOpen,
    /// It sent something that is no frame.
    Malformed,
    /// The peer did not come to play.
    NotOpened(Failure),
    /// The server agreed to no compression, so that there was nothing to play.
    Declined,
    /// The server speaks TLS and the peer does not, or the other way round; or it is not ours to be started anew.
    Inapplicable,
}

impl Ending {
    /// Of a line that has played.
    pub(super) fn of(line: &Line) -> Self {
        let heard = &line.heard;
        if let Some(close) = &heard.close {
            return Self::Closed(close.clone());
        }
        if heard.is_malformed {
            return Self::Malformed;
        }
        match (heard.status(), line.ended()) {
            (Some(101), _) => Self::WentOn,
            (Some(status), _) => Self::Status(status),
            (None, Some(Failure::UnexpectedEnd)) => Self::EndOfStream,
            (None, Some(Failure::Reset | Failure::ConnectReset)) => Self::Reset,
            (None, Some(failure)) => Self::Failed(failure),
            (None, None) if heard.messages + heard.pongs > 0 => Self::WentOn,
            (None, None) => Self::KeptOpen,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "HTTP {status}"),
            Self::Closed(Close { code: None, .. }) => f.write_str("close without a code"),
            Self::Closed(Close { code: Some(code), reason }) if reason.is_empty() => {
                write!(f, "close {code}")
            }
            Self::Closed(Close { code: Some(code), reason }) => {
                write!(f, "close {code} {reason:?}")
            }
            Self::EndOfStream => f.write_str("end of stream"),
            Self::Reset => f.write_str("reset"),
            Self::Failed(failure) => write!(f, "ended: {failure}"),
            Self::WentOn => f.write_str("went on"),
            Self::KeptOpen => f.write_str("kept open"),
            Self::Malformed => f.write_str("sent what is no frame"),
            Self::NotOpened(failure) => write!(f, "not opened: {failure}"),
            Self::Inapplicable => f.write_str("not for such a server"),
            Self::Declined => f.write_str("no compression agreed"),
        }
    }
}
