//! Upgrades of requests that another HTTP library has parsed.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{HeaderValue, StatusCode};

use super::{Accept, Request};
use crate::deflate::{Agreement, Policy};
use crate::handshake::client;
use crate::head::{HandshakeError, HeadLimits, push_header};

/// The answer that accepts an upgrade, for a server whose HTTP is another library's: 101, with Sec-WebSocket-Accept
/// and without subprotocol and extensions (RFC 6455 §4.2.2). Headers may be added, such as Sec-WebSocket-Protocol with
/// one of the subprotocols that the client offers.
///
/// The request is judged as one that came in here. Its origin is for the caller to judge.
///
/// # Errors
/// What [`Request::parse`] and [`Request::check_upgrade`] find; [`Response::from`](super::Response::from) makes the
/// answer of it.
///
/// ```
/// use ringwire_codec::handshake::server::answer_upgrade;
///
/// let request = http::Request::get("/chat")
///     .header("Host", "example.org")
///     .header("Upgrade", "websocket")
///     .header("Connection", "Upgrade")
///     .header("Sec-WebSocket-Version", "13")
///     .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
///     .body(())?;
/// let answer = answer_upgrade(&request)?;
/// assert_eq!(answer.status(), 101);
/// assert_eq!(answer.headers()["Sec-WebSocket-Accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn answer_upgrade<B>(request: &http::Request<B>) -> Result<http::Response<()>, HandshakeError> {
    // Written out, so that it is judged by the same rules as any other.
    let head = head_of(request)?;
    let accept = Request::parse(&head, &HeadLimits::DEFAULT)?.check_upgrade()?.accept_key();
    let mut answer = http::Response::new(());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_bytes(&accept).map_err(|_| HandshakeError::InvalidKey)?;
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// As [`answer_upgrade`], with what `accept` says, and permessage-deflate if the `policy` finds an offer of the
/// client's that it can take: for who goes on with the connection by this crate.
///
/// # Errors
/// As [`answer_upgrade`], and as [`Accept::encode`].
pub fn accept_upgrade<B>(
    request: &http::Request<B>,
    accept: Accept,
    policy: Option<&Policy>,
) -> Result<(http::Response<()>, Option<Agreement>), HandshakeError> {
    let head = head_of(request)?;
    let request = Request::parse(&head, &HeadLimits::DEFAULT)?;
    let upgrade = request.check_upgrade()?;
    let agreement = policy.and_then(|policy| upgrade.deflate(policy));
    let mut encoded = Vec::new();
    accept.with_deflate(agreement).encode(&upgrade, &mut encoded)?;
    // It was written here, so no limit of a peer's holds.
    let limits = HeadLimits::DEFAULT.with_max_head_len(usize::MAX).with_max_line_len(usize::MAX);
    let answer = client::Response::parse(&encoded, &limits)?.to_http();
    Ok((answer, agreement))
}

fn head_of<B>(request: &http::Request<B>) -> Result<Vec<u8>, HandshakeError> {
    let version = match request.version() {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_11 => "1.1",
        _ => return Err(HandshakeError::HttpVersion),
    };
    let mut head =
        format!("{} {} HTTP/{version}\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        push_header(&mut head, name.as_str(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade() -> http::request::Builder {
        http::Request::get("/chat?room=1")
            .header("host", "example.org")
            .header("upgrade", "WebSocket")
            .header("connection", "keep-alive, Upgrade")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    fn answer(request: http::request::Builder) -> Result<http::Response<()>, HandshakeError> {
        answer_upgrade(&request.body(()).map_err(|_| HandshakeError::StartLine)?)
    }

    #[test]
    fn a_proper_upgrade() {
        let request = || upgrade().header("sec-websocket-version", "13");
        let accepted = answer(request()).map(|answer| answer.into_parts().0);
        let Ok(parts) = accepted else { panic!("{accepted:?}") };
        assert_eq!(parts.status, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(parts.headers["upgrade"], "websocket");
        assert_eq!(parts.headers["connection"], "Upgrade");
        assert_eq!(parts.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(parts.headers.len(), 3);
        // The absolute form (RFC 9112 §3.2.2).
        assert!(answer(request().uri("http://example.org/chat")).is_ok());
    }

    #[test]
    fn what_is_none() {
        let request = || upgrade().header("sec-websocket-version", "13");
        for (request, error) in [
            (http::Request::get("/").header("host", "a"), HandshakeError::Upgrade),
            (upgrade(), HandshakeError::UnsupportedVersion),
            (upgrade().header("sec-websocket-version", "12"), HandshakeError::UnsupportedVersion),
            (request().method("POST"), HandshakeError::Method),
            (request().version(http::Version::HTTP_10), HandshakeError::HttpVersion),
            (request().version(http::Version::HTTP_2), HandshakeError::HttpVersion),
            (request().header("content-length", "1"), HandshakeError::Body),
            (request().header("host", "other"), HandshakeError::RepeatedHost),
            (request().header("x", "x".repeat(9000)), HandshakeError::LineTooLong),
        ] {
            assert_eq!(answer(request).map(|_| ()), Err(error));
        }
    }
}
