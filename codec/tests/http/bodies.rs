//! Bodies that are as they should be, and the limits.

use ringwire_codec::handshake::{HandshakeError, HeadLimits, server::Request};
use ringwire_codec::http::{BodyDecoder, BodyError, BodyFraming};

use crate::drive::{MAX_BODY_LEN, Seen, drive};

const CHUNKED: &str = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

pub(crate) fn seen(wire: &str) -> Vec<Seen> {
    drive([wire.as_bytes()])
}

pub(crate) fn request(target: &str, body: &str) -> Seen {
    Seen::Request(target.to_owned(), body.as_bytes().to_vec())
}

/// What comes of a chunked body, with a request behind it.
fn chunked(body: &str) -> Vec<Seen> {
    seen(&format!("{CHUNKED}{body}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"))
}

fn decode(wire: &[u8], max_len: usize) -> Result<Vec<u8>, BodyError> {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, max_len)?;
    let mut content = Vec::new();
    decoder.receive(wire, &mut content)?;
    assert!(decoder.is_complete());
    Ok(content)
}

#[test]
fn lengths() {
    let get = "GET /g HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let empty = "POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n";
    assert_eq!(
        seen(&[get, post, empty, post].concat()),
        [request("/g", ""), request("/p", "hello"), request("/e", ""), request("/p", "hello")]
    );
    assert_eq!(seen(&post[..post.len() - 1]), []);
}

#[test]
fn chunks_extensions_and_trailers() {
    let whole = [request("/c", "hello world"), request("/next", "")];
    for body in [
        "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        "00000005\r\nhello\r\n000006\r\n world\r\n0000\r\n\r\n",
        "b\r\nhello world\r\n0\r\n\r\n",
        "B;a\r\nhello world\r\n0;last\r\n\r\n",
        "b;a=b;c=\"d;e\\\" \u{e9}\"\r\nhello world\r\n0\r\n\r\n",
        // RFC 9112 §7.1.1: whitespace around the semicolon is bad, and has to be understood.
        "b \t; a = b\r\nhello world\r\n0\r\n\r\n",
        "b\r\nhello world\r\n0\r\nDigest: x\r\nX-Empty:\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(chunked(body), whole, "{body}");
    }
    assert_eq!(chunked("0\r\n\r\n"), [request("/c", ""), request("/next", "")]);
}

#[test]
fn limits_are_exact() {
    let post = |len: usize| {
        let body = "x".repeat(len);
        seen(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}"))
    };
    assert!(matches!(&post(MAX_BODY_LEN)[..], [Seen::Request(_, body)] if body.len() == 1024));
    assert_eq!(post(MAX_BODY_LEN + 1), [Seen::BadBody(BodyError::TooLong)]);
    let far = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n";
    assert_eq!(seen(far), [Seen::BadBody(BodyError::TooLong)]);

    assert_eq!(decode(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 5), Ok(b"abcde".to_vec()));
    assert_eq!(decode(b"3\r\nabc\r\n3\r\n", 5), Err(BodyError::TooLong));
    assert_eq!(decode(b"ffffffffffffffff\r\n", usize::MAX - 1), Err(BodyError::TooLong));
    assert_eq!(decode(b"10000000000000000\r\n", usize::MAX), Err(BodyError::ChunkSize));
}

/// Extensions cost as many bytes as they have, and count against what was sent as content.
#[test]
fn extension_flood() {
    let line = format!("1;{}\r\nx\r\n", "e".repeat(8 << 10));
    assert_eq!(decode(line.repeat(3).as_bytes(), 100), Err(BodyError::ExtensionsTooLong));
    // What signs its chunks is not refused.
    let line = format!("400;signature={}\r\n{}\r\n", "e".repeat(64), "x".repeat(1 << 10));
    let body = format!("{}0\r\n\r\n", line.repeat(1000));
    assert_eq!(decode(body.as_bytes(), 1 << 20).map(|content| content.len()), Ok(1000 << 10));
}

#[test]
fn trailer_flood() {
    let body = format!("0\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    assert_eq!(decode(body.as_bytes(), 100), Err(BodyError::TrailersTooLong));
    let body = format!("0\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert_eq!(decode(body.as_bytes(), 100), Ok(Vec::new()));
}

/// A declared length is no reason to take memory.
#[test]
fn declared_length_no_allocation() {
    let mut decoder = BodyDecoder::new(BodyFraming::Length(1 << 40), usize::MAX).unwrap();
    let mut content = Vec::new();
    decoder.receive(b"x", &mut content).unwrap();
    assert!(content.capacity() <= 16 << 10, "{}", content.capacity());

    let len = 100_000;
    let mut decoder = BodyDecoder::new(BodyFraming::Length(len as u64), len).unwrap();
    let mut content = Vec::new();
    for piece in vec![7; len].chunks(1000) {
        decoder.receive(piece, &mut content).unwrap();
    }
    assert!(decoder.is_complete());
    assert_eq!(content, vec![7; len]);
    assert!(content.capacity() <= len + 1000, "{}", content.capacity());
}

#[test]
fn persistence_and_expectations() {
    let facts = |head: &str| {
        let request = Request::parse(head.as_bytes(), &HeadLimits::default())?;
        Ok::<_, HandshakeError>((request.keep_alive(), request.expects_continue()))
    };
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", (true, false)),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", (false, false)),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: CLOSE\r\n\r\n",
            (false, false),
        ),
        ("GET / HTTP/1.0\r\n\r\n", (false, false)),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", (true, false)),
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n", (true, true)),
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", (true, false)),
        ("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", (false, false)),
    ] {
        assert_eq!(facts(head), Ok(expected), "{head}");
    }
}
