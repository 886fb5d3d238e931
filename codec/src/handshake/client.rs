//! The client's side of the handshake (RFC 6455 §4.1).
//!
//! ```
//! use ringwire_codec::handshake::{HeadLimits, client::{Request, Response}};
//!
//! // A program takes the nonce from a CSPRNG, fresh for each request.
//! let request = Request::new("example.org", "/chat", *b"the sample nonce")?;
//! let mut out = Vec::new();
//! request.encode(&mut out);
//!
//! let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
//!     Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
//! let response = Response::parse(answer, &HeadLimits::default())?;
//! let agreed = response.check_upgrade(&request)?;
//! assert_eq!(agreed.subprotocol, None);
//! # Ok::<(), ringwire_codec::handshake::HandshakeError>(())
//! ```

use std::mem::MaybeUninit;

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::deflate::{self, Agreement, Offer};
use crate::extension::{FrameLayer, SharedExtension, find};
use crate::head::{
    Extension, Extensions, HandshakeError, HeadLimits, HeadScanner, Headers, MAX_HEADER_COUNT,
    is_host, is_reserved, lists, push_header, token,
};

use super::accept_key::{accept_key, key_of};

/// The request for an upgrade.
#[derive(Debug, Clone)]
pub struct Request {
    host: String,
    target: String,
    key: [u8; 24],
    origin: Option<HeaderValue>,
    subprotocols: Vec<String>,
    deflate: Vec<Offer>,
    extensions: Vec<SharedExtension>,
    /// The offers of these, as they are written.
    extension_offers: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Request {
    /// A request for the resource `target` (the URI's path and query; `/` at least) of `host` (with
    /// its port, unless that is the scheme's own).
    ///
    /// The `nonce` is to be random and fresh for each request.
    ///
    /// # Errors
    /// [`InvalidHost`](HandshakeError::InvalidHost) and [`Target`](HandshakeError::Target).
    pub fn new(host: &str, target: &str, nonce: [u8; 16]) -> Result<Self, HandshakeError> {
        if host.is_empty() || !is_host(host.as_bytes()) {
            return Err(HandshakeError::InvalidHost);
        }
        let printable = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !target.starts_with('/') || !printable {
            return Err(HandshakeError::Target);
        }
        Ok(Self {
            host: host.to_owned(),
            target: target.to_owned(),
            key: key_of(nonce),
            origin: None,
            subprotocols: Vec::new(),
            deflate: Vec::new(),
            extensions: Vec::new(),
            extension_offers: String::new(),
            headers: Vec::new(),
        })
    }

    /// The same request with another nonce, random and fresh.
    #[must_use]
    pub fn with_nonce(mut self, nonce: [u8; 16]) -> Self {
        self.key = key_of(nonce);
        self
    }

    /// Sets the Origin header. Default: none, as for clients that are no browser.
    #[must_use]
    pub fn with_origin(mut self, origin: HeaderValue) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Offers a subprotocol, less preferred than those before it.
    ///
    /// # Errors
    /// [`InvalidSubprotocol`](HandshakeError::InvalidSubprotocol) if it is no token, or is offered
    /// already (RFC 6455 §4.1).
    pub fn with_subprotocol(mut self, name: &str) -> Result<Self, HandshakeError> {
        if token(name.as_bytes()).is_none() || self.subprotocols.iter().any(|each| each == name) {
            return Err(HandshakeError::InvalidSubprotocol);
        }
        self.subprotocols.push(name.to_owned());
        Ok(self)
    }

    /// Offers permessage-deflate (RFC 7692), less preferred than the offers before it. Default: none,
    /// and no Sec-WebSocket-Extensions.
    #[must_use]
    pub fn with_deflate(mut self, offer: Offer) -> Self {
        self.deflate.push(offer);
        self
    }

    /// Offers an extension, behind permessage-deflate and those before it. Default: none.
    ///
    /// # Errors
    /// [`InvalidExtensions`](HandshakeError::InvalidExtensions) if its name or a parameter of its offer is no token, or
    /// the name is permessage-deflate or offered already.
    pub fn with_extension(mut self, extension: SharedExtension) -> Result<Self, HandshakeError> {
        let name = extension.name();
        let is_taken = self.extensions.iter().any(|it| it.name().eq_ignore_ascii_case(name));
        if is_taken || name.eq_ignore_ascii_case(deflate::NAME) {
            return Err(HandshakeError::InvalidExtensions);
        }
        extension.offer().encode(name, &mut self.extension_offers)?;
        self.extensions.push(extension);
        Ok(self)
    }

    /// Adds a header, such as Authorization.
    ///
    /// # Errors
    /// [`ReservedHeader`](HandshakeError::ReservedHeader) for one that the handshake writes.
    pub fn with_header(
        mut self,
        name: HeaderName,
        value: HeaderValue,
    ) -> Result<Self, HandshakeError> {
        if is_reserved(&name) || name == header::HOST || name == header::ORIGIN {
            return Err(HandshakeError::ReservedHeader);
        }
        self.headers.push((name, value));
        Ok(self)
    }

    /// Appends the request to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        push_header(out, "Host", self.host.as_bytes());
        push_header(out, "Upgrade", b"websocket");
        push_header(out, "Connection", b"Upgrade");
        push_header(out, "Sec-WebSocket-Key", &self.key);
        push_header(out, "Sec-WebSocket-Version", b"13");
        if let Some(origin) = &self.origin {
            push_header(out, "Origin", origin.as_bytes());
        }
        if !self.subprotocols.is_empty() {
            push_header(out, "Sec-WebSocket-Protocol", self.subprotocols.join(", ").as_bytes());
        }
        let mut extensions = String::new();
        for offer in &self.deflate {
            extensions.push_str(if extensions.is_empty() { "" } else { ", " });
            offer.encode(&mut extensions);
        }
        if !self.extension_offers.is_empty() {
            extensions.push_str(if extensions.is_empty() { "" } else { ", " });
            extensions.push_str(&self.extension_offers);
        }
        if !extensions.is_empty() {
            push_header(out, "Sec-WebSocket-Extensions", extensions.as_bytes());
        }
        for (name, value) in &self.headers {
            push_header(out, name.as_str(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A server's answer without its body, as a borrow of the bytes that arrived.
#[derive(Debug, Clone)]
pub struct Response<'b> {
    status: StatusCode,
    version: u8,
    headers: Headers<'b>,
}

impl<'b> Response<'b> {
    /// Parses a whole head, as [`HeadScanner`] has found it.
    ///
    /// # Errors
    /// What the scanner gives; [`Incomplete`](HandshakeError::Incomplete) if `head` is less or more
    /// than a head; then what is malformed in the status line and the headers.
    pub fn parse(head: &'b [u8], limits: &HeadLimits) -> Result<Self, HandshakeError> {
        Self::check_start(head)?;
        if HeadScanner::default().scan(head, limits)? != Some(head.len()) {
            return Err(HandshakeError::Incomplete);
        }
        let mut table = [const { MaybeUninit::uninit() }; MAX_HEADER_COUNT];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        if !config.parse_response_with_uninit_headers(&mut parsed, head, &mut table)?.is_complete()
        {
            return Err(HandshakeError::Incomplete);
        }
        let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
            return Err(HandshakeError::StartLine);
        };
        let status = StatusCode::from_u16(code).map_err(|_| HandshakeError::StartLine)?;
        Ok(Self { status, version, headers: Headers::of(head) })
    }

    /// Whether these first bytes, however few, can begin an answer in HTTP (RFC 9112 §4). So that who speaks something
    /// else is not waited for.
    ///
    /// # Errors
    /// [`NotHttp`](HandshakeError::NotHttp).
    pub fn check_start(bytes: &[u8]) -> Result<(), HandshakeError> {
        let is_http = bytes.iter().zip(b"HTTP/").all(|(byte, expected)| byte == expected);
        if is_http { Ok(()) } else { Err(HandshakeError::NotHttp) }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
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

    /// The status and the headers as the types of `http`.
    #[must_use]
    pub fn to_http(&self) -> http::Response<()> {
        let mut response = http::Response::new(());
        *response.status_mut() = self.status;
        for (name, value) in self.headers() {
            // A head that parsed has no others.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
            {
                response.headers_mut().append(name, value);
            }
        }
        response
    }

    /// Checks everything that RFC 6455 §4.1 and RFC 7692 §7.1 ask of an answer to `request`, and gives what the server
    /// has agreed to.
    ///
    /// # Errors
    /// [`Refused`](HandshakeError::Refused) if the status is not 101; then the first rule that is broken:
    /// [`HttpVersion`](HandshakeError::HttpVersion), [`Upgrade`](HandshakeError::Upgrade),
    /// [`Connection`](HandshakeError::Connection), [`AcceptKey`](HandshakeError::AcceptKey),
    /// [`UnofferedSubprotocol`](HandshakeError::UnofferedSubprotocol). Then those of extensions:
    /// [`InvalidExtensions`](HandshakeError::InvalidExtensions) if the header is malformed;
    /// [`UnofferedExtension`](HandshakeError::UnofferedExtension) if one was not offered or is chosen twice;
    /// [`DeflateParams`](HandshakeError::DeflateParams) if the parameters of permessage-deflate answer no offer;
    /// [`UnusableExtension`](HandshakeError::UnusableExtension) if those of another are no answer to its offer, or if
    /// two have the same reserved bit, or one comes before permessage-deflate.
    pub fn check_upgrade(&self, request: &Request) -> Result<Agreed<'b>, HandshakeError> {
        if self.status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(HandshakeError::Refused(self.status));
        }
        if self.version != 1 {
            return Err(HandshakeError::HttpVersion);
        }
        // RFC 6455 §4.1 asks for this one value, where a request may have a list.
        let upgrade = self.once("upgrade").flatten();
        if !upgrade.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err(HandshakeError::Upgrade);
        }
        if !self.headers().all("connection").any(|value| lists(value, "upgrade")) {
            return Err(HandshakeError::Connection);
        }
        let accept = self.once("sec-websocket-accept").flatten();
        if accept != Some(&accept_key(&request.key)[..]) {
            return Err(HandshakeError::AcceptKey);
        }
        Ok(Agreed {
            subprotocol: self.subprotocol(request)?,
            deflate: self.deflate(request)?,
            layer: FrameLayer::confirm(&request.extensions, self.chosen_extensions())?,
        })
    }

    fn subprotocol(&self, request: &Request) -> Result<Option<&'b str>, HandshakeError> {
        match self.once("sec-websocket-protocol") {
            None => Err(HandshakeError::UnofferedSubprotocol),
            Some(None) => Ok(None),
            Some(Some(value)) => token(value)
                .filter(|chosen| request.subprotocols.iter().any(|offered| offered == chosen))
                .map(Some)
                .ok_or(HandshakeError::UnofferedSubprotocol),
        }
    }

    fn deflate(&self, request: &Request) -> Result<Option<Agreement>, HandshakeError> {
        let is_other = |choice: &Result<Extension<'_>, _>| {
            choice.as_ref().is_ok_and(|choice| find(&request.extensions, choice).is_some())
        };
        let chosen = self.chosen_extensions().filter(|choice| !is_other(choice));
        Agreement::of_response(&request.deflate, chosen)
    }

    fn chosen_extensions(&self) -> impl Iterator<Item = Result<Extension<'b>, HandshakeError>> {
        // An empty list is what some servers send, and chooses none.
        self.headers().all("sec-websocket-extensions").flat_map(Extensions::strict)
    }

    /// The value of a header that may be there once: `None` if it is repeated, `Some(None)` if absent.
    fn once(&self, name: &str) -> Option<Option<&'b [u8]>> {
        let mut values = self.headers().all(name);
        let first = values.next();
        if values.next().is_some() { None } else { Some(first) }
    }
}

/// What a server has agreed to, of what a [`Request`] offered.
#[derive(Debug)]
#[non_exhaustive]
pub struct Agreed<'b> {
    /// The subprotocol that it chose, if any.
    pub subprotocol: Option<&'b str>,
    /// What it made of the offers of permessage-deflate (RFC 7692 §7.1); `None` if it declined them.
    pub deflate: Option<Agreement>,
    /// What transforms the connection's frames, if it chose an extension that was offered by
    /// [`with_extension`](Request::with_extension).
    pub layer: Option<FrameLayer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\n\
        Upgrade: WebSocket\r\n\
        Connection: upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn request() -> Request {
        Request::new("example.org", "/", *b"the sample nonce")
            .and_then(|request| request.with_subprotocol("chat"))
            .and_then(|request| request.with_subprotocol("superchat"))
            .expect("the test's request is well-formed")
    }

    fn check(answer: &str) -> Result<Option<&str>, HandshakeError> {
        let response = Response::parse(answer.as_bytes(), &HeadLimits::default())?;
        Ok(response.check_upgrade(&request())?.subprotocol)
    }

    #[test]
    fn good_answers() {
        assert_eq!(check(&format!("{ANSWER}\r\n")), Ok(None));
        let with = |header: &str| format!("{ANSWER}{header}\r\n\r\n");
        assert_eq!(check(&with("Sec-WebSocket-Protocol: superchat")), Ok(Some("superchat")));
        assert_eq!(check(&with("Sec-WebSocket-Extensions: ")), Ok(None));
        assert_eq!(check(&with("Connection: keep-alive")), Ok(None));
    }

    #[test]
    fn bad_answers() {
        let without = |header: &str| {
            let lines = ANSWER.split_inclusive("\r\n").filter(|line| !line.starts_with(header));
            lines.chain(["\r\n"]).collect::<String>()
        };
        let with = |header: &str| format!("{ANSWER}{header}\r\n\r\n");
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        for (answer, error) in [
            (without("Upgrade"), HandshakeError::Upgrade),
            (without("Connection"), HandshakeError::Connection),
            (without("Sec-WebSocket-Accept"), HandshakeError::AcceptKey),
            (
                without("Sec-").replace("\r\n\r\n", "\r\nSec-WebSocket-Accept: \r\n\r\n"),
                HandshakeError::AcceptKey,
            ),
            (with("Upgrade: websocket"), HandshakeError::Upgrade),
            (with(accept), HandshakeError::AcceptKey),
            (ANSWER.replace("s3pP", "S3pP") + "\r\n", HandshakeError::AcceptKey),
            (ANSWER.replace("HTTP/1.1", "HTTP/1.0") + "\r\n", HandshakeError::HttpVersion),
            (ANSWER.replace("HTTP/1.1", "HTTP/2.0") + "\r\n", HandshakeError::HttpVersion),
            (with("Sec-WebSocket-Protocol: other"), HandshakeError::UnofferedSubprotocol),
            (with("Sec-WebSocket-Protocol: chat, superchat"), HandshakeError::UnofferedSubprotocol),
            (with("Sec-WebSocket-Protocol:"), HandshakeError::UnofferedSubprotocol),
            (
                with("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat"),
                HandshakeError::UnofferedSubprotocol,
            ),
            (
                with("Sec-WebSocket-Extensions: permessage-deflate"),
                HandshakeError::UnofferedExtension,
            ),
            (format!("\r\n{ANSWER}\r\n"), HandshakeError::NotHttp),
            ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), HandshakeError::NotHttp),
            ("\u{15}\u{3}\u{3}".to_owned(), HandshakeError::NotHttp),
            (with("Space : x"), HandshakeError::HeaderName),
            (with(" folded"), HandshakeError::HeaderName),
            ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), HandshakeError::Refused(StatusCode::OK)),
            ("HTTP/1.1 abc OK\r\n\r\n".to_owned(), HandshakeError::StartLine),
            ("HTTP/1.1 099 OK\r\n\r\n".to_owned(), HandshakeError::StartLine),
            (ANSWER.to_owned(), HandshakeError::Incomplete),
            (with("") + "frames", HandshakeError::Incomplete),
        ] {
            assert_eq!(check(&answer), Err(error), "{answer}");
        }
    }

    #[test]
    fn requests_cannot_be_injected_into() {
        for host in ["", "a b", "a\r\nX: y", "user@host", "a/b", "a,b"] {
            let request = Request::new(host, "/", [0; 16]).map(drop);
            assert_eq!(request, Err(HandshakeError::InvalidHost), "{host}");
        }
        for target in ["", "a", "/a b", "/a\r\nX: y", "/#a", "/\u{e9}"] {
            let request = Request::new("host", target, [0; 16]).map(drop);
            assert_eq!(request, Err(HandshakeError::Target), "{target}");
        }
        for name in ["", "a b", "a,b", "a\r\n", "chat"] {
            let request = request().with_subprotocol(name).map(drop);
            assert_eq!(request, Err(HandshakeError::InvalidSubprotocol), "{name}");
        }
        for name in [header::HOST, header::UPGRADE, header::SEC_WEBSOCKET_KEY, header::ORIGIN] {
            let request = request().with_header(name, HeaderValue::from_static("x")).map(drop);
            assert_eq!(request, Err(HandshakeError::ReservedHeader));
        }
    }
}
