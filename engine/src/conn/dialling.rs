//! What is kept of a connection that this side opens, until it is open, and what can go wrong before.

use std::io;

use http::StatusCode;
use ringwire_codec::handshake::{HandshakeError, client};

use crate::base::mailbox::PostError;
use crate::conn::cause::{CloseCause, CloseReason};

/// Why a connection that this side wanted to open is not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No socket could be made, or it could not begin to connect.
    #[error("cannot connect: {0}")]
    Socket(#[source] io::Error),
    /// The worker is busy, or has ended.
    #[error(transparent)]
    Post(#[from] PostError),
    /// The server could not be reached, or the connection failed before the server's answer was whole.
    #[error("the connection failed: {0}")]
    Connect(io::ErrorKind),
    /// The handshake took longer than [`handshake_timeout`](crate::Config::handshake_timeout).
    #[error("the handshake timed out")]
    TimedOut,
    /// TLS failed: the server's certificate was refused, or there is nothing that both sides speak.
    #[error("{0}")]
    Tls(String),
    /// The server answered with another status than 101.
    #[error("the server refused: {0}")]
    Refused(StatusCode),
    /// The server's answer breaks the protocol, or agrees to what was not offered; or the server has ended the
    /// connection before it: [`NoAnswer`](HandshakeError::NoAnswer), and [`Incomplete`](HandshakeError::Incomplete)
    /// within it.
    #[error("the handshake failed: {0}")]
    Handshake(#[source] HandshakeError),
}

impl DialError {
    pub(crate) fn of_answer(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Refused(status) => Self::Refused(status),
            other => Self::Handshake(other),
        }
    }

    /// What the end of a connection means that was never open, with a part of the answer or without.
    pub(crate) fn of_end(cause: &CloseCause, was_answering: bool) -> Self {
        match cause.reason {
            CloseReason::Transport(io::ErrorKind::TimedOut) => Self::TimedOut,
            CloseReason::Transport(kind) => Self::Connect(kind),
            CloseReason::Tls => Self::Tls(cause.text.clone()),
            CloseReason::Shutdown => Self::Post(PostError::Stopped),
            _ if was_answering => Self::Handshake(HandshakeError::Incomplete),
            _ => Self::Handshake(HandshakeError::NoAnswer),
        }
    }
}

/// What a connection that this side opens keeps until it is open.
#[derive(Debug)]
pub(crate) struct Dialling {
    pub(crate) request: client::Request,
    pub(crate) error: Option<DialError>,
}
