//! What can go wrong.

use std::io;

use http::{Response, StatusCode};
use ringwire_codec as codec;
use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::{AbnormalClosure, SendError};

/// What can go wrong with a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transport failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke the protocol or a limit. It was told so by a close frame.
    #[error(transparent)]
    Protocol(#[from] codec::Error),
    /// The transport ended without a close frame (RFC 6455 §7.1.5: code 1006).
    #[error(transparent)]
    Ended(#[from] AbnormalClosure),
    /// Something did not happen in time.
    #[error("{0}")]
    Timeout(Timeout),
    /// Something was not sent, and the connection is as it was: it is closing or closed, or the arguments are against
    /// the protocol.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The peer's part of the handshake is wrong, or this side asked for what cannot be.
    #[error("the handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    /// The server answered with something other than 101.
    #[error("the server refused with status {}", .0.status())]
    Refused(Box<Response<()>>),
    /// This side refused the upgrade, with that status.
    #[error("the upgrade was refused with status {0}")]
    Rejected(StatusCode),
    /// A client cannot connect to this URL.
    #[error("the URL cannot be used: {0}")]
    Url(UrlProblem),
    /// The TLS settings cannot be used.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(Box<ringwire_tls::ConfigError>),
}

impl Error {
    /// Whether a send failed because the connection is closing or closed: why is what receiving gives.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Send(SendError::Closing))
    }
}

/// What did not happen in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Timeout {
    /// The handshake did not end within [`handshake_timeout`](crate::Config::handshake_timeout).
    #[error("the handshake took too long (setting: handshake_timeout)")]
    Handshake,
    /// Nothing came within [`pong_timeout`](crate::KeepAliveConfig::pong_timeout) of a ping.
    #[error("the peer did not answer a ping (setting: pong_timeout)")]
    Pong,
    /// The peer did not answer the close frame within [`close_timeout`](crate::Config::close_timeout).
    #[error("the peer did not answer the close frame (setting: close_timeout)")]
    Close,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// It cannot be parsed.
    #[error("it is malformed")]
    Malformed,
    /// Its scheme is not `ws` or `wss`.
    #[error("its scheme must be ws or wss")]
    Scheme,
    /// It names no host.
    #[error("it names no host")]
    NoHost,
    /// It has a user or a password, which belongs into a header.
    #[error("it has credentials: give them as an Authorization header")]
    Credentials,
    /// It is `wss`, and the crate was built without the feature `tls`.
    #[error("wss needs the feature tls of ringwire-tokio")]
    NoTls,
}

const _: () = assert!(size_of::<Error>() <= 32);
