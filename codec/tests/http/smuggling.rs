//! Requests on whose end two recipients could disagree, one test for each kind: each is refused, and what follows it
//! is never taken for a request.

use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::http::BodyError;

use crate::bodies::{request, seen};
use crate::drive::Seen;

const SMUGGLED: &str = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";

/// What comes of a POST with these header lines, and a request behind its head.
fn with(lines: &str) -> Vec<Seen> {
    seen(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{SMUGGLED}"))
}

/// What comes of a chunked body, and a request behind it.
fn chunked(body: &str) -> Vec<Seen> {
    with(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"))
}

fn bad_head(error: HandshakeError) -> [Seen; 1] {
    [Seen::BadHead(error)]
}

#[test]
fn length_and_chunked() {
    for lines in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        assert_eq!(with(lines), bad_head(HandshakeError::ContentLength), "{lines}");
    }
}

#[test]
fn several_lengths() {
    for lines in [
        "Content-Length: 0\r\nContent-Length: 29",
        "Content-Length: 29\r\nContent-Length: 29",
        "Content-Length: 0, 29",
        "Content-Length: 0\r\ncontent-length: 29",
    ] {
        assert_eq!(with(lines), bad_head(HandshakeError::ContentLength), "{lines}");
    }
}

#[test]
fn lengths_that_are_no_numbers() {
    for value in ["+5", "-5", "0x5", "5 5", "5;", "", "\"5\"", "5e1", "\u{665}"] {
        let lines = format!("Content-Length: {value}");
        assert_eq!(with(&lines), bad_head(HandshakeError::ContentLength), "{value}");
    }
}

#[test]
fn codings_that_are_not_exactly_chunked() {
    for value in [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity",
        "",
    ] {
        let lines = format!("Transfer-Encoding: {value}");
        assert_eq!(with(&lines), bad_head(HandshakeError::TransferEncoding), "{value}");
    }
    for value in ["\x0bchunked", "chunked\x0c"] {
        let lines = format!("Transfer-Encoding: {value}");
        assert_eq!(with(&lines), bad_head(HandshakeError::HeaderValue), "{value:?}");
    }
}

#[test]
fn chunked_by_http_1_0() {
    let wire = format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    assert_eq!(seen(&wire), bad_head(HandshakeError::TransferEncoding));
}

#[test]
fn folded_lines() {
    for lines in [
        "X: y\r\n Content-Length: 29",
        "X: y\r\n\tTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
    ] {
        assert_eq!(with(lines), bad_head(HandshakeError::HeaderName), "{lines}");
    }
}

#[test]
fn bare_line_endings() {
    for lines in [
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\rContent-Length: 5",
        "X: y\n\nGET /admin HTTP/1.1",
    ] {
        assert_eq!(with(lines), bad_head(HandshakeError::LineEnding), "{lines:?}");
    }
}

#[test]
fn spaces_before_the_colon() {
    for lines in ["Content-Length : 29", "Transfer-Encoding\t: chunked", "Host : b"] {
        assert_eq!(with(lines), bad_head(HandshakeError::HeaderName), "{lines:?}");
    }
}

#[test]
fn nul_bytes() {
    assert_eq!(with("X: y\0z"), bad_head(HandshakeError::NulByte));
}

/// RFC 9112 §3.2.2: the target's host counts, not the header's.
#[test]
fn absolute_form() {
    use ringwire_codec::handshake::{HeadLimits, server::Request};
    let head = "GET http://inner:81/a?b HTTP/1.1\r\nHost: outer\r\n\r\n";
    let parsed = Request::parse(head.as_bytes(), &HeadLimits::default()).unwrap();
    assert_eq!((parsed.host(), parsed.path()), (Some("inner:81"), "/a"));
    for target in ["http://u@inner/", "http:///a", "ftp://inner/", "http://in ner/", "inner/a"] {
        let wire = format!("GET {target} HTTP/1.1\r\nHost: outer\r\n\r\n{SMUGGLED}");
        assert!(matches!(&seen(&wire)[..], [Seen::BadHead(_)]), "{target}");
    }
}

#[test]
fn bad_hosts() {
    for (hosts, error) in [
        ("", HandshakeError::MissingHost),
        ("Host: a\r\nHost: b\r\n", HandshakeError::RepeatedHost),
        ("Host: a\r\nHost: a\r\n", HandshakeError::RepeatedHost),
        ("Host: a, b\r\n", HandshakeError::InvalidHost),
        ("Host: u@a\r\n", HandshakeError::InvalidHost),
        ("Host: a/b\r\n", HandshakeError::InvalidHost),
        ("Host: a b\r\n", HandshakeError::InvalidHost),
    ] {
        let wire = format!("GET / HTTP/1.1\r\n{hosts}\r\n{SMUGGLED}");
        assert_eq!(seen(&wire), bad_head(error), "{hosts:?}");
    }
}

#[test]
fn chunk_sizes_that_are_no_numbers() {
    for body in [
        "\r\n",
        "x\r\n",
        "0x5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "-1\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5\t5;\r\nhello\r\n",
        "5_0\r\n",
        "00000000000000000\r\n\r\n",
        ";x\r\n",
        "5\nhello\r\n",
        "5\r\rhello\r\n",
        "5\rhello\r\n",
    ] {
        assert_eq!(chunked(body), [Seen::BadBody(BodyError::ChunkSize)], "{body:?}");
    }
}

/// RFC 9112 §7.1.1: an extension is where others have taken a bare LF for the end of the line.
#[test]
fn line_endings_in_extensions() {
    for body in ["5;a\nhello\r\n0\r\n\r\n", "5;a\0\r\nhello\r\n", "5;\x01\r\nhello\r\n"] {
        assert_eq!(chunked(body), [Seen::BadBody(BodyError::ChunkExtension)], "{body:?}");
    }
    let body = "5;a\rX\r\nhello\r\n0\r\n\r\n";
    assert_eq!(chunked(body), [Seen::BadBody(BodyError::ChunkSize)]);
}

#[test]
fn chunks_longer_than_their_size() {
    for body in ["5\r\nhello!\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\rX", "1\r\n\r\n0"]
    {
        assert_eq!(chunked(body), [Seen::BadBody(BodyError::ChunkEnd)], "{body:?}");
    }
}

#[test]
fn bad_trailers() {
    for body in [
        "0\r\n folded\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\rZ\r\n",
        "0\r\n\rX",
        "0\r\n\n",
        "0\r\nX: \0\r\n\r\n",
    ] {
        assert_eq!(chunked(body), [Seen::BadBody(BodyError::Trailer)], "{body:?}");
    }
}

/// What stands behind a body with nothing wrong is the next request, and nothing else is.
#[test]
fn what_follows_is_the_next_request() {
    assert_eq!(with("Content-Length: 0"), [request("/", ""), request("/admin", "")]);
    let len = SMUGGLED.len();
    assert_eq!(with(&format!("Content-Length: {len}")), [request("/", SMUGGLED)]);
    let wire = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(seen(&format!("{wire}{SMUGGLED}")), [request("/", ""), request("/admin", "")]);
    // RFC 9112 §2.2: old clients send an empty line behind a body, which is no part of it.
    let behind = seen(&format!("{wire}\r\n{SMUGGLED}"));
    assert_eq!(behind, [request("/", ""), request("/admin", "")]);
}

/// A request that asks for a WebSocket and has a body: what followed would be taken for frames.
#[test]
fn upgrades_with_bodies() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(seen(&format!("{upgrade}\r\n{SMUGGLED}")), [Seen::Upgrade]);
    for lines in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let wire = format!("{upgrade}{lines}\r\n{SMUGGLED}");
        assert_eq!(seen(&wire), bad_head(HandshakeError::Body), "{lines}");
    }
}
