//! Why a handshake failed.

use http::StatusCode;

/// Why a handshake failed, in either role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A line does not end with CRLF: a bare LF, or a CR that none follows (RFC 9112 §2.2).
    #[error("a line ends with something other than CRLF (RFC 9112 §2.2)")]
    LineEnding,
    /// The head has a NUL in it (RFC 9110 §5.5).
    #[error("a NUL byte in the head (RFC 9110 §5.5)")]
    NulByte,
    /// The request line or the status line is malformed or missing (RFC 9112 §3, §4).
    #[error("the first line is malformed (RFC 9112 §3)")]
    StartLine,
    /// The request target is in no form that the method allows (RFC 9112 §3.2).
    #[error("the request target is malformed (RFC 9112 §3.2)")]
    Target,
    /// A header's name is malformed, has whitespace before its colon, or the line is folded
    /// (RFC 9112 §5.1, §5.2).
    #[error("a header name is malformed (RFC 9112 §5)")]
    HeaderName,
    /// A header's value has a control character in it (RFC 9110 §5.5).
    #[error("a header value is malformed (RFC 9110 §5.5)")]
    HeaderValue,
    /// What was to be parsed is not one whole head (RFC 9112 §2.1).
    #[error("the head is not complete (RFC 9112 §2.1)")]
    Incomplete,
    /// The bytes that came are not the beginning of an answer in HTTP (RFC 9112 §4).
    #[error(
        "the server does not speak HTTP: is this the right port, and `wss` where TLS is spoken?"
    )]
    NotHttp,
    /// The server closed the connection before the first byte of an answer.
    #[error("the server closed the connection before it answered")]
    NoAnswer,
    /// A line is longer than [`max_line_len`](super::HeadLimits::max_line_len) (RFC 6585 §5).
    #[error("a line of the head is too long (limit: max_line_len)")]
    LineTooLong,
    /// The head is longer than [`max_head_len`](super::HeadLimits::max_head_len) (RFC 6585 §5).
    #[error("the head is too long (limit: max_head_len)")]
    HeadTooLong,
    /// More headers than [`max_header_count`](super::HeadLimits::max_header_count) (RFC 6585 §5).
    #[error("too many headers (limit: max_header_count)")]
    TooManyHeaders,
    /// The HTTP version is not 1.x, or is 1.0 in an upgrade (RFC 6455 §4.2.1, §4.1).
    #[error("the HTTP version is not 1.1 (RFC 6455 §4.2.1)")]
    HttpVersion,

    /// Content-Length is repeated, no number, or beside Transfer-Encoding (RFC 9112 §6.3).
    #[error("Content-Length is ambiguous (RFC 9112 §6.3)")]
    ContentLength,
    /// Transfer-Encoding is something other than `chunked` once, or is used with HTTP/1.0
    /// (RFC 9112 §6.1).
    #[error("Transfer-Encoding is not understood (RFC 9112 §6.1)")]
    TransferEncoding,
    /// An upgrade request announces a body, which would be taken for frames (RFC 9110 §9.3.1).
    #[error("an upgrade request must not have a body (RFC 9110 §9.3.1)")]
    Body,

    /// The method of an upgrade is not GET (RFC 6455 §4.2.1).
    #[error("the method must be GET (RFC 6455 §4.2.1)")]
    Method,
    /// No Host (RFC 9112 §3.2, RFC 6455 §4.2.1).
    #[error("the Host header is missing (RFC 9112 §3.2)")]
    MissingHost,
    /// More than one Host (RFC 9112 §3.2).
    #[error("the Host header is repeated (RFC 9112 §3.2)")]
    RepeatedHost,
    /// Host is no host with or without a port, or empty in an upgrade (RFC 9112 §3.2).
    #[error("the Host header is malformed (RFC 9112 §3.2)")]
    InvalidHost,
    /// More than one Origin (RFC 6454 §7.3).
    #[error("the Origin header is repeated (RFC 6454 §7.3)")]
    RepeatedOrigin,
    /// Origin is not ASCII (RFC 6454 §7.1).
    #[error("the Origin header is malformed (RFC 6454 §7.1)")]
    InvalidOrigin,
    /// Upgrade does not list `websocket`: no attempt at a WebSocket, or one that an intermediary has
    /// undone (RFC 6455 §4.2.1, §4.1).
    #[error("the Upgrade header does not ask for websocket (RFC 6455 §4.2.1)")]
    Upgrade,
    /// Connection does not list `Upgrade` (RFC 6455 §4.2.1, §4.1).
    #[error("the Connection header does not list Upgrade (RFC 6455 §4.2.1)")]
    Connection,
    /// Sec-WebSocket-Version is missing or not 13 (RFC 6455 §4.2.1, §4.4).
    #[error("the Sec-WebSocket-Version header must be 13 (RFC 6455 §4.2.1)")]
    UnsupportedVersion,
    /// More than one Sec-WebSocket-Version (RFC 6455 §11.3.5).
    #[error("the Sec-WebSocket-Version header is repeated (RFC 6455 §11.3.5)")]
    RepeatedVersion,
    /// No Sec-WebSocket-Key (RFC 6455 §4.2.1).
    #[error("the Sec-WebSocket-Key header is missing (RFC 6455 §4.2.1)")]
    MissingKey,
    /// More than one Sec-WebSocket-Key (RFC 6455 §11.3.1).
    #[error("the Sec-WebSocket-Key header is repeated (RFC 6455 §11.3.1)")]
    RepeatedKey,
    /// Sec-WebSocket-Key is not 16 bytes in Base64 (RFC 6455 §4.2.1).
    #[error("the Sec-WebSocket-Key header is not 16 bytes in Base64 (RFC 6455 §4.2.1)")]
    InvalidKey,
    /// Sec-WebSocket-Protocol is no list of tokens (RFC 6455 §4.1, §11.3.4).
    #[error("the Sec-WebSocket-Protocol header is malformed (RFC 6455 §11.3.4)")]
    InvalidSubprotocol,
    /// Sec-WebSocket-Extensions is malformed, or one extension has more than 16 parameters
    /// (RFC 6455 §9.1).
    #[error("the Sec-WebSocket-Extensions header is malformed (RFC 6455 §9.1)")]
    InvalidExtensions,

    /// The server answered with a status other than 101 (RFC 6455 §4.1).
    #[error("the server refused with status {0}")]
    Refused(StatusCode),
    /// Sec-WebSocket-Accept is missing, repeated or not the answer to the key (RFC 6455 §4.1).
    #[error("the Sec-WebSocket-Accept header does not answer the key (RFC 6455 §4.1)")]
    AcceptKey,
    /// The server chose a subprotocol that was not offered, or more than one (RFC 6455 §4.1).
    #[error("the server chose a subprotocol that was not offered (RFC 6455 §4.1)")]
    UnofferedSubprotocol,
    /// The server chose an extension that was not offered (RFC 6455 §4.1, §9.1).
    #[error("the server chose an extension that was not offered (RFC 6455 §4.1)")]
    UnofferedExtension,
    /// The server's choice of permessage-deflate answers no offer, or has a parameter that is
    /// unknown, repeated or out of range (RFC 7692 §7).
    #[error("the server's permessage-deflate parameters answer no offer (RFC 7692 §7)")]
    DeflateParams,

    /// The server has chosen extensions in a way that was not offered: with parameters that are no answer, with the
    /// same reserved bit twice, or with another one before permessage-deflate (RFC 6455 §9.1).
    #[error("the server's choice of extensions is no answer to the offer (RFC 6455 §9.1)")]
    UnusableExtension,

    /// This side's answer names a subprotocol that the client did not offer (RFC 6455 §4.2.2).
    #[error("the chosen subprotocol was not offered by the client (RFC 6455 §4.2.2)")]
    SubprotocolNotOffered,
    /// This side's answer has permessage-deflate, which the client did not offer (RFC 6455 §9.1).
    #[error("permessage-deflate was not offered by the client (RFC 6455 §9.1)")]
    DeflateNotOffered,
    /// This side's answer has an extension that the client did not offer (RFC 6455 §9.1).
    #[error("the extension was not offered by the client (RFC 6455 §9.1)")]
    ExtensionNotOffered,
    /// This side gave a header that the handshake itself writes (RFC 6455 §4.1, §4.2.2).
    #[error("a header that belongs to the handshake was given as an extra one")]
    ReservedHeader,
}

impl HandshakeError {
    /// The HTTP status that this is answered with.
    ///
    /// What only a client finds wrong with an answer is 502, as for a gateway, except that
    /// [`Refused`](Self::Refused) gives the server's own status. What this side got wrong is 500.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::LineEnding
            | Self::NulByte
            | Self::StartLine
            | Self::Target
            | Self::HeaderName
            | Self::HeaderValue
            | Self::Incomplete
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::Body
            | Self::MissingHost
            | Self::RepeatedHost
            | Self::InvalidHost
            | Self::RepeatedOrigin
            | Self::InvalidOrigin
            | Self::Connection
            | Self::RepeatedVersion
            | Self::MissingKey
            | Self::RepeatedKey
            | Self::InvalidKey
            | Self::InvalidSubprotocol
            | Self::InvalidExtensions => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Upgrade | Self::UnsupportedVersion => StatusCode::UPGRADE_REQUIRED,
            Self::LineTooLong | Self::HeadTooLong | Self::TooManyHeaders => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::HttpVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Refused(status) => status,
            Self::NotHttp
            | Self::NoAnswer
            | Self::AcceptKey
            | Self::UnofferedSubprotocol
            | Self::UnofferedExtension
            | Self::UnusableExtension
            | Self::DeflateParams => StatusCode::BAD_GATEWAY,
            Self::SubprotocolNotOffered
            | Self::DeflateNotOffered
            | Self::ExtensionNotOffered
            | Self::ReservedHeader => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<httparse::Error> for HandshakeError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::HeaderName,
            httparse::Error::HeaderValue => Self::HeaderValue,
            httparse::Error::NewLine => Self::LineEnding,
            httparse::Error::Status | httparse::Error::Token => Self::StartLine,
            httparse::Error::TooManyHeaders => Self::TooManyHeaders,
            httparse::Error::Version => Self::HttpVersion,
        }
    }
}

const _: () = assert!(size_of::<HandshakeError>() <= 32);
