//! A client's request, parsed and judged.

use std::mem::MaybeUninit;

use crate::deflate::{Agreement, Policy};
use crate::head::{
    Extension, Extensions, HandshakeError, HeadLimits, HeadScanner, Headers, MAX_HEADER_COUNT,
    Tokens, is_host, lists, token, trim, without_empty_lines,
};
use crate::http::BodyFraming;

use super::super::accept_key::{accept_key, is_key};
use super::target::Target;

/// An HTTP request without its body, as a borrow of the bytes that arrived.
///
/// Parsing takes no memory. It refuses what is malformed for any request; whether it is a proper
/// upgrade is [`check_upgrade`](Self::check_upgrade)'s question.
#[derive(Debug, Clone)]
pub struct Request<'b> {
    method: &'b str,
    target: Target<'b>,
    version: http::Version,
    headers: Headers<'b>,
    known: Known<'b>,
}

impl<'b> Request<'b> {
    /// Parses a whole head, as [`HeadScanner`] has found it.
    ///
    /// # Errors
    /// What the scanner gives; [`Incomplete`](HandshakeError::Incomplete) if `head` is less or more
    /// than a head; then what is malformed or ambiguous in any request (RFC 9112): the request line, the
    /// target, names and values of headers, Host, and how long the body is.
    pub fn parse(head: &'b [u8], limits: &HeadLimits) -> Result<Self, HandshakeError> {
        // httparse takes bare LFs, on which intermediaries disagree; so whoever calls this, the
        // scanner's rules hold.
        if HeadScanner::default().scan(head, limits)? != Some(head.len()) {
            return Err(HandshakeError::Incomplete);
        }
        let mut table = [const { MaybeUninit::uninit() }; MAX_HEADER_COUNT];
        let head = without_empty_lines(head);
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(head, &mut table);
        if !status.map_err(|error| blame(error, head))?.is_complete() {
            return Err(HandshakeError::Incomplete);
        }
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(HandshakeError::StartLine);
        };
        let version = if version == 0 { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
        let known = Known::of(parsed.headers);
        known.check_host(version)?;
        known.check_body(version)?;
        let target = Target::parse(target, method)?;
        Ok(Self { method, target, version, headers: Headers::of(head), known })
    }

    /// The method, such as `GET`; methods are case-sensitive (RFC 9110 §9.1).
    #[must_use]
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// The request target as it was sent.
    #[must_use]
    pub fn target(&self) -> &'b str {
        self.target.whole
    }

    /// The path of the target, never empty, as it was sent: percent-encoding and dots are left alone.
    #[must_use]
    pub fn path(&self) -> &'b str {
        self.target.path
    }

    /// What follows the target's first `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'b str> {
        self.target.query
    }

    /// The HTTP version: 1.0 or 1.1.
    #[must_use]
    pub fn version(&self) -> http::Version {
        self.version
    }

    /// How the end of the body is found.
    #[must_use]
    pub fn body_framing(&self) -> BodyFraming {
        match (self.known.coding, self.known.content_length) {
            (Coding::Chunked, _) => BodyFraming::Chunked,
            (_, Length::Known(len)) => BodyFraming::Length(len),
            // RFC 9112 §6.3: a request that announces no body has none.
            _ => BodyFraming::Length(0),
        }
    }

    /// Whether the client would use the connection for another request (RFC 9112 §9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        let known = &self.known;
        let is_default = self.version == http::Version::HTTP_11;
        !known.connection_close && (is_default || known.connection_keep_alive)
    }

    /// Whether the client waits for [`CONTINUE`](crate::http::CONTINUE) before it sends the body (RFC 9110 §10.1.1).
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        // RFC 9110 §10.1.1: from HTTP/1.0 it does not count.
        self.known.expects_continue && self.version == http::Version::HTTP_11
    }

    /// All headers, in order.
    #[must_use]
    pub fn headers(&self) -> Headers<'b> {
        self.headers.clone()
    }

    /// The value of the first header of that name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers().first(name)
    }

    /// As [`header`](Self::header), if the value is UTF-8.
    #[must_use]
    pub fn header_str(&self, name: &str) -> Option<&'b str> {
        self.header(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// The host, with its port if one was sent: the target's, else the Host header's.
    #[must_use]
    pub fn host(&self) -> Option<&'b str> {
        self.target.authority.or_else(|| str::from_utf8(self.known.host.once()?).ok())
    }

    /// The Origin header. An upgrade that passed [`check_upgrade`](Self::check_upgrade) has none or one.
    #[must_use]
    pub fn origin(&self) -> Option<&'b str> {
        self.known.origin.once().and_then(|value| str::from_utf8(value).ok())
    }

    /// Whether this is an attempt at a WebSocket, good or bad, and not a plain HTTP request.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        let Known { upgrade, key, ws_version, .. } = &self.known;
        *upgrade || !matches!((key, ws_version), (Single::Absent, Single::Absent))
    }

    /// The subprotocols that the client offers, in the order it prefers them.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'b str> {
        self.headers().all(SUBPROTOCOLS).flat_map(Tokens::of).flatten()
    }

    /// The extensions that the client offers, in the order it prefers them.
    ///
    /// Costs one pass over the header. In a request that passed
    /// [`check_upgrade`](Self::check_upgrade) no element is an error.
    pub fn extensions(&self) -> impl Iterator<Item = Result<Extension<'b>, HandshakeError>> {
        self.headers().all(EXTENSIONS).flat_map(Extensions::of)
    }

    /// Checks everything that RFC 6455 §4.2.1 asks of an upgrade.
    ///
    /// # Errors
    /// The first rule that is broken: [`HttpVersion`](HandshakeError::HttpVersion),
    /// [`Method`](HandshakeError::Method), [`Upgrade`](HandshakeError::Upgrade),
    /// [`UnsupportedVersion`](HandshakeError::UnsupportedVersion), then what is missing, repeated or
    /// malformed among Connection, Host, Origin, Sec-WebSocket-Key, -Protocol and -Extensions, and
    /// [`Body`](HandshakeError::Body).
    pub fn check_upgrade(&self) -> Result<Upgrade<'_>, HandshakeError> {
        let known = &self.known;
        let check = |holds: bool, error| if holds { Ok(()) } else { Err(error) };
        check(self.version == http::Version::HTTP_11, HandshakeError::HttpVersion)?;
        check(self.method == "GET", HandshakeError::Method)?;
        check(known.upgrade, HandshakeError::Upgrade)?;
        match known.ws_version {
            Single::Once(b"13") => {}
            Single::Once(_) | Single::Absent => return Err(HandshakeError::UnsupportedVersion),
            Single::Repeated => return Err(HandshakeError::RepeatedVersion),
        }
        check(known.connection_upgrade, HandshakeError::Connection)?;
        check(self.host().is_some_and(|host| !host.is_empty()), HandshakeError::InvalidHost)?;
        match known.origin {
            Single::Once(origin) => check(origin.is_ascii(), HandshakeError::InvalidOrigin)?,
            Single::Absent => {}
            Single::Repeated => return Err(HandshakeError::RepeatedOrigin),
        }
        let key = match known.key {
            Single::Once(key) if is_key(key) => key,
            Single::Once(_) => return Err(HandshakeError::InvalidKey),
            Single::Absent => return Err(HandshakeError::MissingKey),
            Single::Repeated => return Err(HandshakeError::RepeatedKey),
        };
        let no_body = matches!(known.content_length, Length::Absent | Length::Known(0));
        check(no_body && matches!(known.coding, Coding::Absent), HandshakeError::Body)?;
        if known.subprotocols {
            let mut subprotocols = self.headers().all(SUBPROTOCOLS).flat_map(Tokens::of);
            check(subprotocols.all(|each| each.is_some()), HandshakeError::InvalidSubprotocol)?;
        }
        if known.extensions {
            self.extensions().try_for_each(|each| each.map(drop))?;
        }
        Ok(Upgrade { request: self, key })
    }
}

/// What is wrong with a request that cannot be parsed. A target with a space in it looks like a bad version to a parser
/// that goes from left to right, and is a malformed request line (RFC 9112 §3).
fn blame(error: httparse::Error, head: &[u8]) -> HandshakeError {
    let error = HandshakeError::from(error);
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let words = [words.next(), words.next(), words.next(), words.next()];
    match (error, words) {
        (HandshakeError::HttpVersion, [Some(_), Some(_), Some(version), None])
            if is_version(version) =>
        {
            error
        }
        // Lines do end: what stands before the end of this one is no version.
        (HandshakeError::HttpVersion | HandshakeError::LineEnding, _) => HandshakeError::StartLine,
        _ => error,
    }
}

/// Whether it has the form of a version (RFC 9112 §2.3).
fn is_version(word: &[u8]) -> bool {
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// The proof that a request is a proper upgrade; what an [`Accept`](super::Accept) answers.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade<'r> {
    request: &'r Request<'r>,
    key: &'r [u8],
}

impl<'r> Upgrade<'r> {
    /// The request.
    #[must_use]
    pub fn request(&self) -> &'r Request<'r> {
        self.request
    }

    /// The value of Sec-WebSocket-Accept.
    #[must_use]
    pub fn accept_key(&self) -> [u8; 28] {
        accept_key(self.key)
    }

    /// What `policy` makes of the client's offers of permessage-deflate (RFC 7692 §7.1): the first
    /// one that can be accepted. `None`: there is none, and messages are not compressed.
    ///
    /// Takes effect through [`Accept::with_deflate`](super::Accept::with_deflate) and
    /// [`Connection::with_deflate`](crate::Connection::with_deflate).
    #[must_use]
    pub fn deflate(&self, policy: &Policy) -> Option<Agreement> {
        policy.choose(self.request.extensions().flatten())
    }
}

const SUBPROTOCOLS: &str = "sec-websocket-protocol";
const EXTENSIONS: &str = "sec-websocket-extensions";

/// What the handshake knows of the headers, gathered in one pass.
#[derive(Debug, Clone, Default)]
struct Known<'b> {
    host: Single<'b>,
    origin: Single<'b>,
    key: Single<'b>,
    ws_version: Single<'b>,
    content_length: Length,
    coding: Coding,
    /// An Upgrade header lists `websocket`.
    upgrade: bool,
    /// A Connection header lists `Upgrade`.
    connection_upgrade: bool,
    /// A Connection header lists `close`.
    connection_close: bool,
    /// A Connection header lists `keep-alive`.
    connection_keep_alive: bool,
    /// An Expect header lists `100-continue`.
    expects_continue: bool,
    /// There is a Sec-WebSocket-Protocol header.
    subprotocols: bool,
    /// There is a Sec-WebSocket-Extensions header.
    extensions: bool,
}

impl<'b> Known<'b> {
    fn of(headers: &[httparse::Header<'b>]) -> Self {
        let mut known = Self::default();
        for httparse::Header { name, value } in headers {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            // The length first: it tells most names apart without a comparison.
            match name.len() {
                4 if is("host") => known.host.add(value),
                6 if is("expect") => known.expects_continue |= lists(value, "100-continue"),
                6 if is("origin") => known.origin.add(value),
                7 if is("upgrade") => known.upgrade |= lists(value, "websocket"),
                10 if is("connection") => known.add_connection(value),
                14 if is("content-length") => known.content_length.add(value),
                17 if is("sec-websocket-key") => known.key.add(value),
                17 if is("transfer-encoding") => known.coding.add(value),
                21 if is("sec-websocket-version") => known.ws_version.add(value),
                22 if is(SUBPROTOCOLS) => known.subprotocols = true,
                24 if is(EXTENSIONS) => known.extensions = true,
                _ => {}
            }
        }
        known
    }

    fn add_connection(&mut self, value: &[u8]) {
        self.connection_upgrade |= lists(value, "upgrade");
        self.connection_close |= lists(value, "close");
        self.connection_keep_alive |= lists(value, "keep-alive");
    }

    /// Host is there once and well-formed; HTTP/1.0 may do without (RFC 9112 §3.2).
    fn check_host(&self, version: http::Version) -> Result<(), HandshakeError> {
        match self.host {
            Single::Once(host) if is_host(host) => Ok(()),
            Single::Once(_) => Err(HandshakeError::InvalidHost),
            Single::Absent if version == http::Version::HTTP_10 => Ok(()),
            Single::Absent => Err(HandshakeError::MissingHost),
            Single::Repeated => Err(HandshakeError::RepeatedHost),
        }
    }

    /// There is no doubt about where the body ends (RFC 9112 §6.1, §6.3).
    fn check_body(&self, version: http::Version) -> Result<(), HandshakeError> {
        match (self.content_length, self.coding) {
            (Length::Invalid, _) | (Length::Known(_), Coding::Chunked) => {
                Err(HandshakeError::ContentLength)
            }
            (_, Coding::Invalid) => Err(HandshakeError::TransferEncoding),
            (_, Coding::Chunked) if version == http::Version::HTTP_10 => {
                Err(HandshakeError::TransferEncoding)
            }
            (_, Coding::Absent | Coding::Chunked) => Ok(()),
        }
    }
}

/// A header that may be there once.
#[derive(Debug, Clone, Copy, Default)]
enum Single<'b> {
    #[default]
    Absent,
    Once(&'b [u8]),
    Repeated,
}

impl<'b> Single<'b> {
    fn add(&mut self, value: &'b [u8]) {
        *self = match self {
            Self::Absent => Self::Once(trim(value)),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    fn once(self) -> Option<&'b [u8]> {
        match self {
            Self::Once(value) => Some(value),
            Self::Absent | Self::Repeated => None,
        }
    }
}

/// What Content-Length says.
#[derive(Debug, Clone, Copy, Default)]
enum Length {
    #[default]
    Absent,
    /// A number; one that does not fit is the greatest that does.
    Known(u64),
    Invalid,
}

impl Length {
    fn add(&mut self, value: &[u8]) {
        *self = match self {
            Self::Absent if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                Self::Known(value.iter().fold(0, |len: u64, digit| {
                    len.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
                }))
            }
            // Also twice the same: RFC 9112 §6.3 leaves it open, and others have disagreed.
            _ => Self::Invalid,
        };
    }
}

/// What Transfer-Encoding says.
#[derive(Debug, Clone, Copy, Default)]
enum Coding {
    #[default]
    Absent,
    Chunked,
    Invalid,
}

impl Coding {
    fn add(&mut self, value: &[u8]) {
        *self = match (&self, token(value)) {
            (Self::Absent, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Self::Chunked,
            _ => Self::Invalid,
        };
    }
}
