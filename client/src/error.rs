//! What can go wrong with a client.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use ringwire_codec::extension::ExtensionError;
use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::{CloseCode, SendError};

/// Why a connection could not be made, or why it failed. [`Error::kind`] sorts them for decisions.
///
/// No text of an error holds a password or a header's value, and what the peer has written is escaped in it: it can be
/// shown in a terminal and logged as a line. The fields have it as it came.
///
/// Its `Debug` form is the same text, since that is what a `main` prints that returns it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A client cannot connect to this URL.
    #[error("the URL cannot be used: {0}")]
    Url(UrlProblem),
    /// A setting is out of its range.
    #[error("setting {setting}: {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The host's name has no address, or could not be looked up.
    #[error("cannot find {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address of the host accepted a connection.
    #[error("cannot connect to {host}: {}", Attempts(.attempts))]
    Connect {
        /// The host, or the path of the Unix socket.
        host: String,
        /// What each address said that was tried.
        attempts: Vec<ConnectAttempt>,
    },
    /// The proxy could not do what it was asked for.
    #[error("proxy {proxy}: {problem}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// What is wrong.
        problem: ProxyProblem,
    },
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] ringwire_tls::Error),
    /// The TLS settings cannot be used.
    #[error(transparent)]
    TlsSettings(#[from] ringwire_tls::ConfigError),
    /// The server's answer to the handshake is wrong, or the request cannot be made.
    #[error("the handshake failed: {0}")]
    Handshake(#[source] HandshakeError),
    /// The server answered with something other than 101.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A redirect was not followed.
    #[error("a redirect was not followed: {0}")]
    Redirect(RedirectProblem),
    /// Something did not happen in time. After [`Waiting::Receive`] and [`Waiting::Response`] the connection is as it
    /// was; after any other it is over.
    #[error("timed out {0}")]
    Timeout(Waiting),
    /// The peer broke the protocol or a limit. It was told so by a close frame.
    #[error(transparent)]
    Protocol(ringwire_codec::Error),
    /// An extension that was agreed on refused what the server sent, which was told so by a close frame.
    #[error("an extension failed: {0}")]
    Extension(#[source] ExtensionError),
    /// The message cannot be sent as it is; nothing was sent.
    #[error("the message cannot be sent: {0}")]
    InvalidMessage(#[source] SendError),
    /// The hook of [`Reconnecting::prepare`](crate::Reconnecting::prepare) failed, so that there was no attempt.
    #[error("the attempt could not be prepared: {0}")]
    Prepare(#[source] BoxError),
    /// The connection of a request ended, or nobody receives from it any more, before its response came.
    #[error(
        "no response will come: {}",
        if *.was_sent { "the connection is lost, and what the server has done is unknown" }
        else { "the request was not sent" }
    )]
    Unanswered {
        /// Whether the server may have acted on the request. If not, it is safe to send it again.
        was_sent: bool,
    },
    /// The message has no place for an id, as [`MessageIds`](crate::MessageIds) sees it; nothing was sent.
    #[error("the message has no place for an id")]
    NoPlaceForId,
    /// A request with this id waits for its response already; nothing was sent.
    #[error("a request with this id waits for its response already")]
    IdInUse,
    /// There is no connection, and the queue for when there is one did not take the message.
    #[error(
        "not connected, and the queue of messages is full: send again after the client has reconnected"
    )]
    OutboxFull,
    /// As many requests wait for their responses as may; nothing was sent.
    #[error("too many requests are pending: wait for a response before the next request")]
    TooManyPending,
    /// The connection is closed. From [`receive`](crate::Client::receive) only if the peer's code is none of 1000,
    /// 1001 and 1005 (no code).
    #[error(
        "the connection is closed ({code}{}{})",
        if .reason.is_empty() { "" } else { ": " },
        .reason.escape_debug()
    )]
    Closed {
        /// The code of the close frame; 1005 if it had none.
        code: CloseCode,
        /// The reason in it.
        reason: String,
    },
    /// The connection ended without the peer's close frame (code 1006 of RFC 6455 §7.1.5).
    #[error("the connection was lost: {0}")]
    Lost(#[source] io::Error),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An error of the application.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What sort of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection is closed, with or without a close frame.
    Closed,
    /// Something did not happen in time.
    Timeout,
    /// The peer broke the protocol, in the handshake or after it.
    Protocol,
    /// TLS failed, or its settings.
    Tls,
    /// The server or the proxy asks for credentials, or for others: 401, 403, 407, and a SOCKS5 proxy that refuses. A
    /// close frame is [`Closed`](Self::Closed) whatever its code; [`verdict_on`](crate::verdict_on) knows that 4401
    /// says the same.
    Authentication,
    /// The caller's message cannot be sent.
    InvalidMessage,
    /// A bound of this side is reached; later it may not be.
    Busy,
    /// There is no connection to the server: name, network or proxy.
    ConnectFailed,
    /// The server answered, but not with an upgrade.
    Refused,
    /// The caller's URL or a setting is wrong.
    Setting,
    /// The application's hook failed.
    Prepare,
}

impl Error {
    /// What sort of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url(_) | Self::Setting { .. } => ErrorKind::Setting,
            Self::Resolve { .. } | Self::Connect { .. } => ErrorKind::ConnectFailed,
            Self::Proxy { problem, .. } if problem.is_authentication() => ErrorKind::Authentication,
            Self::Proxy { .. } => ErrorKind::ConnectFailed,
            Self::Tls(_) | Self::TlsSettings(_) => ErrorKind::Tls,
            Self::Handshake(error) if is_of_the_caller(*error) => ErrorKind::Setting,
            Self::Handshake(_) | Self::Protocol(_) | Self::Extension(_) => ErrorKind::Protocol,
            Self::Refused(refusal) if refusal.is_authentication() => ErrorKind::Authentication,
            Self::Refused(_) | Self::Redirect(_) => ErrorKind::Refused,
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::InvalidMessage(_) | Self::NoPlaceForId | Self::IdInUse => {
                ErrorKind::InvalidMessage
            }
            Self::TooManyPending | Self::OutboxFull => ErrorKind::Busy,
            Self::Closed { .. } | Self::Lost(_) | Self::Unanswered { .. } => ErrorKind::Closed,
            Self::Prepare(_) => ErrorKind::Prepare,
        }
    }

    /// The server's answer, if it refused the upgrade.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

/// Whether the request cannot be made, rather than the answer be taken.
fn is_of_the_caller(error: HandshakeError) -> bool {
    matches!(
        error,
        HandshakeError::InvalidHost
            | HandshakeError::Target
            | HandshakeError::InvalidSubprotocol
            | HandshakeError::ReservedHeader
    )
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Waiting {
    /// The host's addresses.
    #[error("looking up the host's name")]
    Resolve,
    /// An address to accept a connection.
    #[error("connecting")]
    Connect,
    /// The proxy to connect to the server.
    #[error("waiting for the proxy")]
    Proxy,
    /// The TLS handshake or the server's answer to the upgrade.
    #[error("in the handshake")]
    Handshake,
    /// A message.
    #[error("waiting for a message")]
    Receive,
    /// The socket to take what is sent.
    #[error("sending")]
    Send,
    /// Any sign of life of the peer.
    #[error("waiting for a sign of life of the peer")]
    Peer,
    /// The peer's answer to the close frame.
    #[error("waiting for the end of the close handshake")]
    Close,
    /// The response to a request.
    #[error("waiting for the response")]
    Response,
    /// A free client of a pool.
    #[error("waiting for a free client")]
    Pool,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// It is no URI (RFC 3986); names with letters beyond ASCII are written in punycode.
    #[error("it is not well-formed (names beyond ASCII need punycode)")]
    Malformed,
    /// The scheme is none of `ws`, `wss`, `http`, `https`, `ws+unix` and `wss+unix`.
    #[error("its scheme is not ws, wss, ws+unix or wss+unix")]
    Scheme,
    /// A character that stands in no URL (RFC 3986 §2), such as a space.
    #[error("it has {0:?} in it, which must be percent-encoded")]
    Character(char),
    /// There is no host.
    #[error("it has no host")]
    NoHost,
    /// The port is none of 1–65535.
    #[error("its port is not 1 to 65535")]
    Port,
    /// It has a fragment, which RFC 6455 §3 forbids.
    #[error("it has a fragment (RFC 6455 §3)")]
    Fragment,
    /// A Unix socket's path is empty or too long (unix(7)).
    #[error("it has no usable path of a socket")]
    SocketPath,
}

impl From<Infallible> for UrlProblem {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<UrlProblem> for Error {
    fn from(problem: UrlProblem) -> Self {
        Self::Url(problem)
    }
}

/// What is wrong with a proxy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyProblem {
    /// The settings do not name one.
    #[error("it is not http://, socks5://, socks5h:// or socks://, a host and a port")]
    Malformed,
    /// It answered CONNECT with this status.
    #[error("it answered CONNECT with {0}")]
    Refused(StatusCode),
    /// What it said is no answer.
    #[error("its answer is malformed: {0}")]
    BadAnswer(&'static str),
    /// It takes none of the SOCKS5 methods of authentication that are possible (RFC 1928 §3).
    #[error("it accepts no method of authentication that is possible")]
    NoMethod,
    /// It refused user and password (RFC 1929).
    #[error("it refused user and password")]
    Credentials,
    /// Its SOCKS5 answer is a failure (RFC 1928 §6).
    #[error("it could not connect: {0}")]
    Socks(SocksReply),
    /// The connection to it failed.
    #[error("the connection to it failed: {0}")]
    Io(#[source] io::Error),
}

impl ProxyProblem {
    fn is_authentication(&self) -> bool {
        match self {
            Self::Refused(status) => *status == StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::NoMethod | Self::Credentials => true,
            _ => false,
        }
    }
}

/// The failure in a SOCKS5 proxy's answer (RFC 1928 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocksReply(pub u8);

impl fmt::Display for SocksReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "general failure",
            2 => "not allowed by its rules",
            3 => "network unreachable",
            4 => "host unreachable",
            5 => "connection refused",
            6 => "TTL expired",
            7 => "command not supported",
            8 => "address type not supported",
            other => return write!(f, "unknown failure {other}"),
        })
    }
}

/// Why a redirect was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectProblem {
    /// There were as many as the settings allow.
    #[error("there were too many")]
    TooMany,
    /// There is no usable Location header.
    #[error("it does not say where to")]
    Location,
    /// From `wss` to `ws`.
    #[error("it leads from TLS to plain text")]
    Downgrade,
    /// From a Unix socket to a host, or to another socket.
    #[error("it leads away from a Unix socket")]
    LeavesSocket,
    /// From a host to a Unix socket of this machine, which is none of the server's business.
    #[error("it leads from a host to a Unix socket")]
    EntersSocket,
}

/// A server's answer that is no upgrade.
#[derive(Clone)]
#[non_exhaustive]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// All headers. Those whose name or value `http` does not take are left out.
    pub headers: HeaderMap,
    /// The body, decoded if it was chunked, up to [`max_refusal_len`](crate::Builder::with_max_refusal_len).
    pub body: Vec<u8>,
    /// Whether the body is all there.
    pub is_complete: bool,
}

impl Refusal {
    /// The body as text that can be shown in a terminal or logged: what is no UTF-8 is replaced, and control characters
    /// but for line feeds are escaped.
    #[must_use]
    pub fn body_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let mut shown = String::with_capacity(text.len());
        for char in text.chars() {
            match char {
                '\n' | '\\' | '\'' | '"' => shown.push(char),
                other => shown.extend(other.escape_debug()),
            }
        }
        shown
    }

    /// Whether credentials are asked for: 401, 403, 407.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        matches!(self.status.as_u16(), 401 | 403 | 407)
    }

    /// How long the server asks to wait (Retry-After in seconds, RFC 9110 §10.2.3). A date is not understood.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        value.trim().parse().ok().map(Duration::from_secs)
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold cookies and tokens: their names are enough for a log.
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_len", &self.body.len())
            .field("is_complete", &self.is_complete)
            .finish()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused with {}", self.status)?;
        if self.status.is_redirection() && self.headers.contains_key(header::LOCATION) {
            f.write_str(" (no redirect is followed unless with_max_redirects says so)")?;
        }
        Ok(())
    }
}

/// An attempt to connect to one address.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectAttempt {
    /// The address; a Unix socket has none.
    pub address: Option<SocketAddr>,
    /// What it said.
    pub error: io::Error,
}

struct Attempts<'a>(&'a [ConnectAttempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConnectAttempt { address, error }) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            if let Some(address) = address {
                write!(f, "{address}: ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// How a connection ended: what every later call reports.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// Close frames went both ways, or the peer went after its own.
    Closed {
        code: CloseCode,
        reason: String,
        by_us: bool,
    },
    Timeout(Waiting),
    Protocol(ringwire_codec::Error),
    Tls(ringwire_tls::Error),
    Extension(ExtensionError),
    Lost(io::ErrorKind, &'static str),
}

impl End {
    /// Whether it ended as it should.
    pub(super) fn is_normal(&self) -> bool {
        match self {
            Self::Closed { by_us: true, .. } => true,
            Self::Closed { code, .. } => matches!(code.get(), 1000 | 1001 | 1005),
            _ => false,
        }
    }
}

impl From<End> for Error {
    fn from(end: End) -> Self {
        match end {
            End::Closed { code, reason, .. } => Self::Closed { code, reason },
            End::Timeout(waiting) => Self::Timeout(waiting),
            End::Protocol(error) => Self::Protocol(error),
            End::Tls(error) => Self::Tls(error),
            End::Extension(error) => Self::Extension(error),
            End::Lost(kind, text) => Self::Lost(io::Error::new(kind, text)),
        }
    }
}
