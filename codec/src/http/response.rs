//! Answers to HTTP requests.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{BodyError, HttpDate};
use crate::head::{HandshakeError, lists, push_header};

/// The interim answer to a request that waits for it before it sends its body (RFC 9110 §10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What an answer has to know of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The request was sent by HTTP/1.0.
    is_old: bool,
    is_head: bool,
    keep_alive: bool,
}

impl Exchange {
    /// For an answer after which the connection ends, whatever the request was.
    pub const LAST: Self = Self { is_old: false, is_head: false, keep_alive: false };

    pub(crate) const fn new(is_old: bool, is_head: bool, keep_alive: bool) -> Self {
        Self { is_old, is_head, keep_alive }
    }

    /// The same, but the connection ends after it.
    #[must_use]
    pub const fn closing(mut self) -> Self {
        self.keep_alive = false;
        self
    }
}

/// An ordinary answer: a page, some JSON, a refusal, a redirect.
#[derive(Debug, Clone)]
pub struct Response {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Cow<'static, [u8]>,
    /// The connection ends after it.
    closes: bool,
}

impl Response {
    /// An answer without a body.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Cow::Borrowed(&[]), closes: false }
    }

    /// 200 with plain text.
    #[must_use]
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::ok("text/plain; charset=utf-8", text.into())
    }

    /// 200 with a page.
    #[must_use]
    pub fn html(page: impl Into<Cow<'static, str>>) -> Self {
        Self::ok("text/html; charset=utf-8", page.into())
    }

    /// 200 with JSON, which is given as text.
    #[must_use]
    pub fn json(text: impl Into<Cow<'static, str>>) -> Self {
        Self::ok("application/json", text.into())
    }

    fn ok(media_type: &'static str, text: Cow<'static, str>) -> Self {
        let body = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::new(StatusCode::OK).with_body(HeaderValue::from_static(media_type), body)
    }

    /// Sets the status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets the body and its media type.
    #[must_use]
    pub fn with_body(
        mut self,
        media_type: HeaderValue,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        self.body = body.into();
        self.with_header(header::CONTENT_TYPE, media_type)
    }

    /// Adds a header. Connection, Content-Length, Transfer-Encoding and Date are the encoder's, and are passed over,
    /// except that `Connection: close` is as [`with_close`](Self::with_close).
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if name == header::CONNECTION {
            self.closes |= lists(value.as_bytes(), "close");
        } else if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::DATE].contains(&name)
        {
            self.headers.push((name, value));
        }
        self
    }

    /// Ends the connection after this answer.
    #[must_use]
    pub fn with_close(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers that were added, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().map(|(name, value)| (name, value))
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The length of the body in bytes.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    /// Appends the answer to `out`, with `Connection: close`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_for(Exchange::LAST, None, out);
    }

    /// Appends the answer to a request to `out`, with the length of its body, and the date where there is a clock
    /// (RFC 9110 §6.6.1). Gives whether the connection may be used for another request.
    ///
    /// The answer to HEAD has no body (RFC 9110 §9.3.2), and 1xx, 204 and 304 have neither body nor length (§8.6). A
    /// client does not take 1xx for the end of it, so the connection ends there.
    pub fn encode_for(
        &self,
        exchange: Exchange,
        date: Option<&HttpDate>,
        out: &mut Vec<u8>,
    ) -> bool {
        let keeps_alive = exchange.keep_alive && !self.closes && !self.status.is_informational();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.headers {
            push_header(out, name.as_str(), value.as_bytes());
        }
        if let Some(date) = date {
            push_header(out, "date", date.as_bytes());
        }
        // RFC 9110 §7.8: who sends Upgrade lists it in Connection.
        let upgrade = self.headers.iter().any(|(name, _)| name == header::UPGRADE);
        let connection: &[u8] = match (keeps_alive, exchange.is_old, upgrade) {
            (false, _, false) => b"close",
            (false, _, true) => b"close, upgrade",
            // RFC 9112 §9.3: HTTP/1.0 has to be told.
            (true, true, false) => b"keep-alive",
            (true, true, true) => b"keep-alive, upgrade",
            (true, false, true) => b"upgrade",
            (true, false, false) => b"",
        };
        if !connection.is_empty() {
            push_header(out, "connection", connection);
        }
        let has_body = self.may_have_body();
        if has_body {
            push_header(out, "content-length", self.body.len().to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if has_body && !exchange.is_head {
            out.extend_from_slice(&self.body);
        }
        keeps_alive
    }

    /// RFC 9110 §8.6: no length, and so no body, in 1xx, 204 and 304.
    fn may_have_body(&self) -> bool {
        !(self.status.is_informational()
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED)
    }

    /// An error's status, and its text as the body. The connection ends after it.
    fn refusal(status: StatusCode, error: impl std::fmt::Display) -> Self {
        Self::text(format!("{error}\n")).with_status(status).with_close()
    }
}

impl From<HandshakeError> for Response {
    /// The refusal: the error's status, its text as the body, and what else the status asks for. The connection ends
    /// after it.
    fn from(error: HandshakeError) -> Self {
        let response = Self::refusal(error.status(), error);
        match error.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                response.with_header(header::ALLOW, HeaderValue::from_static("GET"))
            }
            // RFC 6455 §4.4 and RFC 9110 §15.5.22
            StatusCode::UPGRADE_REQUIRED => response
                .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
                .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            _ => response,
        }
    }
}

impl From<BodyError> for Response {
    /// The refusal: the error's status, and its text as the body. The connection ends after it.
    fn from(error: BodyError) -> Self {
        Self::refusal(error.status(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::server;
    use crate::head::HeadLimits;

    fn text(response: &Response) -> String {
        let mut out = Vec::new();
        response.encode(&mut out);
        String::from_utf8(out).expect("the test's headers are ASCII")
    }

    /// The answer to a request, and whether the connection stays.
    fn answer(request: &str, response: &Response) -> (String, bool) {
        let request = server::Request::parse(request.as_bytes(), &HeadLimits::DEFAULT).unwrap();
        let mut out = Vec::new();
        let stays = response.encode_for(Exchange::of(&request), None, &mut out);
        (String::from_utf8(out).unwrap(), stays)
    }

    #[test]
    fn length_and_body() {
        let page = Response::new(StatusCode::OK)
            .with_body(HeaderValue::from_static("text/html"), b"<p>".as_slice())
            .with_header(header::CONTENT_LENGTH, HeaderValue::from_static("7"));
        assert_eq!(
            text(&page),
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\
             content-length: 3\r\n\r\n<p>"
        );
        assert_eq!(
            text(&Response::new(StatusCode::NOT_FOUND)),
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            let none = Response::text("x").with_status(status);
            assert!(text(&none).ends_with("connection: close\r\n\r\n"));
        }
    }

    #[test]
    fn head_has_no_body() {
        let (head, stays) = answer("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", &Response::json("{}"));
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
        );
        assert!(stays);
    }

    #[test]
    fn connections_that_stay() {
        let ok = Response::new(StatusCode::OK);
        let closing = ok.clone().with_header(header::CONNECTION, HeaderValue::from_static("Close"));
        for (request, response, connection) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &ok, None),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", &ok, Some("close")),
            ("GET / HTTP/1.0\r\n\r\n", &ok, Some("close")),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", &ok, Some("keep-alive")),
            ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", &ok, Some("close")),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", &ok, Some("close")),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &closing, Some("close")),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &closing, Some("close")),
        ] {
            let (out, stays) = answer(request, response);
            let line = connection.map(|value| format!("connection: {value}\r\n"));
            assert_eq!(stays, connection.is_none_or(|value| value == "keep-alive"), "{request}");
            assert_eq!(out.contains("connection: "), line.is_some(), "{request}: {out}");
            assert!(line.is_none_or(|line| out.contains(&line)), "{request}: {out}");
        }
        let interim = Response::new(StatusCode::EARLY_HINTS);
        assert!(!answer("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &interim).1);
    }

    #[test]
    fn the_date_is_the_callers() {
        let date = HttpDate::from_unix(784_111_777);
        let mut out = Vec::new();
        let forged = HeaderValue::from_static("forged");
        let response = Response::new(StatusCode::OK).with_header(header::DATE, forged);
        response.encode_for(Exchange::LAST, Some(&date), &mut out);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{out}");
        assert!(!out.contains("forged"), "{out}");
    }

    #[test]
    fn refusals() {
        let refusal = text(&HandshakeError::UnsupportedVersion.into());
        assert!(refusal.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        assert!(refusal.contains("upgrade: websocket\r\nsec-websocket-version: 13\r\n"));
        assert!(refusal.contains("connection: close, upgrade\r\n"));
        let refusal = text(&HandshakeError::Method.into());
        assert!(refusal.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
        assert!(refusal.contains("allow: GET\r\n"));
        assert!(refusal.ends_with("\r\n\r\nthe method must be GET (RFC 6455 §4.2.1)\n"));
        let refusal = Response::from(BodyError::TooLong);
        assert_eq!(refusal.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let (_, stays) = answer("POST / HTTP/1.1\r\nHost: a\r\n\r\n", &refusal);
        assert!(!stays);
    }
}
