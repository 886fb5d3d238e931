//! A server's answers.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::super::HandshakeError;
use super::super::headers::{is_reserved, push_header};
use super::Upgrade;
use crate::deflate::{Agreement, is_deflate};

/// The answer that makes a WebSocket of the connection: 101 (RFC 6455 §4.2.2).
#[derive(Debug, Clone, Default)]
pub struct Accept {
    subprotocol: Option<Cow<'static, str>>,
    deflate: Option<Agreement>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Accept {
    /// An answer with no more than there has to be.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses a subprotocol, which must be one that the client offers. Default: none.
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// Agrees to permessage-deflate, with what [`Upgrade::deflate`] has made of the same upgrade.
    /// Default: `None`, and no Sec-WebSocket-Extensions.
    #[must_use]
    pub fn with_deflate(mut self, agreement: Option<Agreement>) -> Self {
        self.deflate = agreement;
        self
    }

    /// Adds a header, such as Set-Cookie; those that the handshake writes cannot be given.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Appends the answer to `out`.
    ///
    /// # Errors
    /// [`SubprotocolNotOffered`](HandshakeError::SubprotocolNotOffered),
    /// [`DeflateNotOffered`](HandshakeError::DeflateNotOffered) and
    /// [`ReservedHeader`](HandshakeError::ReservedHeader); `out` is then as it was.
    pub fn encode(&self, upgrade: &Upgrade<'_>, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        if let Some(chosen) = &self.subprotocol
            && !upgrade.request().subprotocols().any(|offered| offered == chosen)
        {
            return Err(HandshakeError::SubprotocolNotOffered);
        }
        if self.deflate.is_some()
            && !upgrade.request().extensions().flatten().any(|offered| is_deflate(&offered))
        {
            return Err(HandshakeError::DeflateNotOffered);
        }
        if self.headers.iter().any(|(name, _)| is_reserved(name)) {
            return Err(HandshakeError::ReservedHeader);
        }
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\n\
              Upgrade: websocket\r\n\
              Connection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&upgrade.accept_key());
        out.extend_from_slice(b"\r\n");
        if let Some(chosen) = &self.subprotocol {
            // It equals one of the offered tokens, so it cannot end the line.
            push_header(out, "Sec-WebSocket-Protocol", chosen.as_bytes());
        }
        if let Some(agreement) = &self.deflate {
            let mut value = String::new();
            agreement.encode(&mut value);
            push_header(out, "Sec-WebSocket-Extensions", value.as_bytes());
        }
        for (name, value) in &self.headers {
            push_header(out, name.as_str(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Any other answer, after which the connection ends: a refusal or a small page.
#[derive(Debug, Clone)]
pub struct Response {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Cow<'static, [u8]>,
}

impl Response {
    /// An answer without a body.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Cow::Borrowed(&[]) }
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

    /// Adds a header. Connection, Content-Length and Transfer-Encoding are the encoder's, and are
    /// passed over.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if ![header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(&name)
        {
            self.headers.push((name, value));
        }
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The length of the body in bytes.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    /// Appends the answer to `out`, with `Connection: close` and the length of its body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_head(out);
        if self.may_have_body() {
            out.extend_from_slice(&self.body);
        }
    }

    /// Appends the answer without its body to `out`, as HEAD asks for (RFC 9110 §9.3.2).
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.headers {
            push_header(out, name.as_str(), value.as_bytes());
        }
        // RFC 9110 §7.8: who sends Upgrade lists it in Connection.
        let upgrade = self.headers.iter().any(|(name, _)| name == header::UPGRADE);
        push_header(out, "connection", if upgrade { b"close, upgrade" } else { b"close" });
        if self.may_have_body() {
            push_header(out, "content-length", self.body.len().to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// RFC 9110 §8.6: no length, and so no body, in 1xx, 204 and 304.
    fn may_have_body(&self) -> bool {
        !(self.status.is_informational()
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED)
    }
}

impl From<HandshakeError> for Response {
    /// The refusal: the error's status, its text as the body, and what else the status asks for.
    fn from(error: HandshakeError) -> Self {
        let response = Self::new(error.status()).with_body(
            HeaderValue::from_static("text/plain; charset=utf-8"),
            format!("{error}\n").into_bytes(),
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response) -> String {
        let mut out = Vec::new();
        response.encode(&mut out);
        String::from_utf8(out).expect("the test's headers are ASCII")
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
        let mut out = Vec::new();
        page.encode_head(&mut out);
        assert!(out.ends_with(b"content-length: 3\r\n\r\n"));
        assert_eq!(
            text(&Response::new(StatusCode::NOT_FOUND)),
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let none = Response::new(StatusCode::NO_CONTENT)
            .with_body(HeaderValue::from_static("text/plain"), b"x".as_slice());
        assert!(text(&none).ends_with("connection: close\r\n\r\n"));
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
    }
}
