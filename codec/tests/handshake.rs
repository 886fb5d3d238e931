//! The handshake through its public functions: both sides joined, and input nobody chose.
#![expect(clippy::indexing_slicing, reason = "a slice out of bounds fails the test")]

use http::{HeaderName, HeaderValue, StatusCode, header};
use proptest::prelude::*;
use ringwire_codec::handshake::{
    Extensions, HandshakeError, HeadLimits, HeadScanner, accept_key, client, server,
};

const LIMITS: HeadLimits = HeadLimits::DEFAULT;

const REQUEST: &str = "GET /chat?room=1 HTTP/1.1\r\n\
    Host: server.example.com:8080\r\n\
    Upgrade: h2c, WebSocket\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\n\
    Sec-WebSocket-Protocol: v2\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x\r\n\
    Cookie: a=\u{e9}\r\n\r\n";

fn parse(head: &str) -> Result<server::Request<'_>, HandshakeError> {
    server::Request::parse(head.as_bytes(), &LIMITS)
}

fn refusal(head: &str) -> HandshakeError {
    let checked = parse(head).and_then(|request| request.check_upgrade().map(drop));
    checked.expect_err("the request is refused")
}

#[test]
fn request_is_read() -> Result<(), HandshakeError> {
    let request = parse(REQUEST)?;
    assert_eq!((request.method(), request.target()), ("GET", "/chat?room=1"));
    assert_eq!((request.path(), request.query()), ("/chat", Some("room=1")));
    assert_eq!(request.version(), http::Version::HTTP_11);
    assert_eq!(request.host(), Some("server.example.com:8080"));
    assert_eq!(request.origin(), Some("http://example.com"));
    assert_eq!(request.header("cookie"), Some("a=\u{e9}".as_bytes()));
    assert_eq!(request.header_str("COOKIE"), Some("a=\u{e9}"));
    assert_eq!(request.header("absent"), None);
    assert_eq!(request.headers().count(), 10);
    assert_eq!(request.subprotocols().collect::<Vec<_>>(), ["chat", "superchat", "v2"]);
    let extensions: Vec<_> = request.extensions().map(|each| each.map(|e| e.name())).collect();
    assert_eq!(extensions, [Ok("permessage-deflate"), Ok("x")]);
    assert!(request.is_upgrade());
    let upgrade = request.check_upgrade()?;
    // RFC 6455 §1.3
    assert_eq!(&upgrade.accept_key(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(upgrade.request().path(), "/chat");

    let absolute = REQUEST.replace("/chat?room=1", "http://other.example/x");
    let request = parse(&absolute)?;
    assert_eq!((request.host(), request.path()), (Some("other.example"), "/x"));

    let plain = parse("GET / HTTP/1.0\r\n\r\n")?;
    assert_eq!((plain.host(), plain.is_upgrade()), (None, false));
    Ok(())
}

#[test]
fn accept_is_written() -> Result<(), HandshakeError> {
    let request = parse(REQUEST)?;
    let upgrade = request.check_upgrade()?;
    let mut out = b"before".to_vec();
    server::Accept::new()
        .with_subprotocol("superchat")
        .with_header(header::SET_COOKIE, HeaderValue::from_static("a=b"))
        .encode(&upgrade, &mut out)?;
    assert_eq!(
        String::from_utf8_lossy(&out),
        "beforeHTTP/1.1 101 Switching Protocols\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Protocol: superchat\r\n\
         set-cookie: a=b\r\n\r\n"
    );

    let len = out.len();
    let unoffered = server::Accept::new().with_subprotocol("Chat").encode(&upgrade, &mut out);
    assert_eq!(unoffered, Err(HandshakeError::SubprotocolNotOffered));
    for name in [header::SEC_WEBSOCKET_EXTENSIONS, header::CONNECTION, header::CONTENT_LENGTH] {
        let reserved = server::Accept::new().with_header(name, HeaderValue::from_static("x"));
        let reserved = reserved.encode(&upgrade, &mut out);
        assert_eq!(reserved, Err(HandshakeError::ReservedHeader));
    }
    assert_eq!(out.len(), len, "a failed answer leaves nothing behind");
    Ok(())
}

#[test]
fn refusals_have_their_status() {
    let with = |from: &str, to: &str| {
        assert!(REQUEST.contains(from), "{from}");
        refusal(&REQUEST.replace(from, to))
    };
    for (error, expected, status) in [
        (with("GET", "POST"), HandshakeError::Method, 405),
        (with("GET", "get"), HandshakeError::Method, 405),
        (with("HTTP/1.1", "HTTP/1.0"), HandshakeError::HttpVersion, 505),
        (with("HTTP/1.1", "HTTP/2.0"), HandshakeError::HttpVersion, 505),
        (with("HTTP/1.1", "HTTP/3.0"), HandshakeError::HttpVersion, 505),
        (with("HTTP/1.1", "HTTQ/1.1"), HandshakeError::StartLine, 400),
        (with("HTTP/1.1", "HTTP/1.10"), HandshakeError::StartLine, 400),
        (with("GET /chat", "GET /c hat"), HandshakeError::StartLine, 400),
        (with("GET /chat", "GET /c HTTP/1.0"), HandshakeError::StartLine, 400),
        (with("HTTP/1.1", "HTTP/1.1 "), HandshakeError::StartLine, 400),
        (with("GET /chat", "GET  /chat"), HandshakeError::StartLine, 400),
        (with("/chat", "chat"), HandshakeError::Target, 400),
        (with("?room", "#room"), HandshakeError::Target, 400),
        (with("WebSocket", "WebSockets"), HandshakeError::Upgrade, 426),
        (with(", Upgrade", ""), HandshakeError::Connection, 400),
        (with("server.example.com:8080", ""), HandshakeError::InvalidHost, 400),
        (with("com:8080", "com:99999999"), HandshakeError::InvalidHost, 400),
        (with("com:8080", "com:65536"), HandshakeError::InvalidHost, 400),
        (with("com:8080", "com:80:80"), HandshakeError::InvalidHost, 400),
        (with("com:8080", "com:http"), HandshakeError::InvalidHost, 400),
        (with("server.example.com", "[::1"), HandshakeError::InvalidHost, 400),
        (with("server.example.com", "::1"), HandshakeError::InvalidHost, 400),
        (with("server.example.com", "[]"), HandshakeError::InvalidHost, 400),
        (with("server.example.com", "[::1]a"), HandshakeError::InvalidHost, 400),
        (with("Version: 13", "Version: 8"), HandshakeError::UnsupportedVersion, 426),
        (with("Version: 13", "Version: 013"), HandshakeError::UnsupportedVersion, 426),
        (with("Version: 13", "Version: 13, 8"), HandshakeError::UnsupportedVersion, 426),
        (with("Q==", "Q="), HandshakeError::InvalidKey, 400),
        (with("chat, super", "chat, \u{e9}"), HandshakeError::InvalidSubprotocol, 400),
        (with("chat, super", "chat; super"), HandshakeError::InvalidSubprotocol, 400),
        (with("_bits", "_bits=\""), HandshakeError::InvalidExtensions, 400),
    ] {
        assert_eq!(error, expected);
        assert_eq!(error.status().as_u16(), status, "{error}");
    }
}

#[test]
fn hosts_have_ports_that_exist_or_none() {
    for host in
        ["a", "a:", "a:0", "a:65535", "a:00080", "[::1]", "[::1]:9001", "[fe80::1%25eth0]:1"]
    {
        let head = REQUEST.replace("server.example.com:8080", host);
        assert_eq!(parse(&head).expect("well-formed").host(), Some(host));
    }
}

/// RFC 9112 §2.2: a server should ignore at least one empty line before the request line.
#[test]
fn an_empty_line_before_a_request_is_ignored() {
    let plain = parse(REQUEST).expect("well-formed");
    for late in [format!("\r\n{REQUEST}"), format!("\r\n\r\n\r\n{REQUEST}")] {
        let request = parse(&late).expect("well-formed");
        assert!(request.check_upgrade().is_ok());
        assert_eq!(request.target(), plain.target());
        assert!(request.headers().eq(plain.headers()));
    }
}

#[test]
fn client_and_server_agree() -> Result<(), HandshakeError> {
    let nonce = *b"0123456789abcdef";
    let request = client::Request::new("localhost:9001", "/a?b=c", nonce)?
        .with_origin(HeaderValue::from_static("http://localhost"))
        .with_subprotocol("one")?
        .with_subprotocol("two")?
        .with_header(HeaderName::from_static("x-extra"), HeaderValue::from_static("yes"))?;
    let mut wire = Vec::new();
    request.encode(&mut wire);

    let len = HeadScanner::default().scan(&wire, &LIMITS)?;
    assert_eq!(len, Some(wire.len()));
    let received = server::Request::parse(&wire, &LIMITS)?;
    assert_eq!(received.target(), "/a?b=c");
    assert_eq!(received.host(), Some("localhost:9001"));
    assert_eq!(received.origin(), Some("http://localhost"));
    assert_eq!(received.header_str("X-Extra"), Some("yes"));
    assert_eq!(received.subprotocols().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(received.header("sec-websocket-extensions"), None, "no empty header is sent");

    let mut answer = Vec::new();
    let upgrade = received.check_upgrade()?;
    server::Accept::new().with_subprotocol("two").encode(&upgrade, &mut answer)?;
    let response = client::Response::parse(&answer, &LIMITS)?;
    assert_eq!(response.check_upgrade(&request)?.subprotocol, Some("two"));
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);

    let other = client::Request::new("localhost:9001", "/", *b"fedcba9876543210")?;
    assert_eq!(response.check_upgrade(&other).unwrap_err(), HandshakeError::AcceptKey);

    let mut refused = Vec::new();
    server::Response::from(HandshakeError::UnsupportedVersion).encode(&mut refused);
    let head_len = HeadScanner::default().scan(&refused, &LIMITS)?.expect("the head is whole");
    assert!(head_len < refused.len(), "a body says why");
    let response = client::Response::parse(&refused[..head_len], &LIMITS)?;
    assert_eq!(response.header("sec-websocket-version"), Some(&b"13"[..]));
    let error = HandshakeError::Refused(StatusCode::UPGRADE_REQUIRED);
    assert_eq!(response.check_upgrade(&request).unwrap_err(), error);
    Ok(())
}

#[test]
fn accept_key_sample() {
    assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

/// Everything that can be done with bytes of a peer.
fn exercise(bytes: &[u8]) {
    if let Ok(request) = server::Request::parse(bytes, &LIMITS) {
        assert!(!request.path().is_empty());
        assert_eq!(request.headers().count(), count_with_httparse(bytes));
        let _ = (request.query(), request.host(), request.origin(), request.is_upgrade());
        let _ = (request.subprotocols().count(), request.extensions().count());
        if let Ok(upgrade) = request.check_upgrade() {
            let mut out = Vec::new();
            assert_eq!(server::Accept::new().encode(&upgrade, &mut out), Ok(()));
            let answer = client::Response::parse(&out, &LIMITS);
            assert!(answer.is_ok_and(|answer| answer.status().as_u16() == 101));
        }
    }
    if let Ok(response) = client::Response::parse(bytes, &LIMITS) {
        let request = client::Request::new("a", "/", [0; 16]).expect("it is well-formed");
        assert!(response.check_upgrade(&request).is_err());
    }
    for extension in Extensions::of(bytes).flatten() {
        assert!(extension.params().count() <= 16);
    }
}

fn count_with_httparse(head: &[u8]) -> usize {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    assert!(request.parse(head).is_ok_and(|status| status.is_complete()));
    request.headers.len()
}

/// Scans as the bytes come in, in pieces of these lengths and then the rest.
fn scan_cut(
    bytes: &[u8],
    pieces: &[usize],
    limits: &HeadLimits,
) -> Result<Option<usize>, HandshakeError> {
    let mut scanner = HeadScanner::default();
    let mut end = 0;
    for piece in pieces {
        end = (end + piece).min(bytes.len());
        if let Some(len) = scanner.scan(&bytes[..end], limits)? {
            return Ok(Some(len));
        }
    }
    scanner.scan(bytes, limits)
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        exercise(&bytes);
    }

    #[test]
    fn mutated_requests(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 1..6),
    ) {
        let mut bytes = REQUEST.as_bytes().to_vec();
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
        }
        exercise(&bytes);
        bytes.extend_from_slice(b"\r\n\r\n");
        exercise(&bytes);
    }

    #[test]
    fn mutated_responses(at: prop::sample::Index, byte: u8) {
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: abc\r\n\r\n".to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        exercise(&bytes);
    }

    #[test]
    fn cut_anywhere(
        text in "(\r\n)?([ -~\r\n\0]{0,12}(\r\n|\n|\r\r\n)?){0,8}(\r\n\r\n)?",
        pieces in prop::collection::vec(0_usize..10, 0..20),
        max_line_len in 0_usize..30,
        max_head_len in 0_usize..60,
        max_header_count in 0_usize..5,
    ) {
        let limits = LIMITS
            .with_max_line_len(max_line_len)
            .with_max_head_len(max_head_len)
            .with_max_header_count(max_header_count);
        let whole = scan_cut(text.as_bytes(), &[], &limits);
        prop_assert_eq!(scan_cut(text.as_bytes(), &pieces, &limits), whole);
        prop_assert_eq!(scan_cut(text.as_bytes(), &vec![1; text.len()], &limits), whole);
    }

    #[test]
    fn request_cut_anywhere(pieces in prop::collection::vec(0_usize..200, 0..10)) {
        let bytes = [REQUEST.as_bytes(), b"\x81\x00"].concat();
        prop_assert_eq!(scan_cut(&bytes, &pieces, &LIMITS), Ok(Some(REQUEST.len())));
    }
}
