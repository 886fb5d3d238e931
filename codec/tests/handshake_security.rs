//! What hostile peers have done to handshakes elsewhere, one test each.
#![expect(clippy::indexing_slicing, reason = "a slice out of bounds fails the test")]
#![expect(clippy::disallowed_methods, reason = "growth of cost is compared on the clock")]

use std::time::{Duration, Instant};

use http::StatusCode;
use ringwire_codec::deflate::Policy;
use ringwire_codec::handshake::server::{Request, Response};
use ringwire_codec::handshake::{Extensions, HandshakeError, HeadLimits, HeadScanner};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn head(lines: &[&str]) -> String {
    let mut head = String::from("GET /chat HTTP/1.1\r\n");
    for line in lines {
        head += line;
        head += "\r\n";
    }
    head + "\r\n"
}

fn good() -> Vec<&'static str> {
    vec![
        "Host: example.org",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
}

/// What a server does with a head: the status it would answer with.
fn judge(head: &str) -> Result<(), HandshakeError> {
    let limits = HeadLimits::default();
    let len = HeadScanner::default().scan(head.as_bytes(), &limits)?;
    let len = len.expect("the tests' heads are whole");
    Request::parse(&head.as_bytes()[..len], &limits)?.check_upgrade().map(drop)
}

/// Gives the scanner a head byte by byte, and makes everything it has been given before unreadable:
/// whatever it looked at again would be an error.
fn scan_once(head: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HandshakeError> {
    let mut scanner = HeadScanner::default();
    let mut seen = Vec::with_capacity(head.len());
    for &byte in head {
        seen.push(byte);
        if let Some(len) = scanner.scan(&seen, limits)? {
            return Ok(Some(len));
        }
        if let Some(last) = seen.last_mut() {
            *last = 0;
        }
    }
    Ok(None)
}

#[test]
fn handshake_header_linear() {
    let limits = HeadLimits::default();
    let line = format!("X-Filler: {}", "x".repeat(100));
    let mut lines = good();
    lines.extend(std::iter::repeat_n(line.as_str(), 90));
    let whole = head(&lines);
    assert_eq!(scan_once(whole.as_bytes(), &limits), Ok(Some(whole.len())));

    let line = format!("X-Filler: {}", "x".repeat(7000));
    let mut lines = good();
    lines.extend(std::iter::repeat_n(line.as_str(), 9));
    let long = head(&lines);
    assert!(long.len() > 60_000);
    let lenient = limits.with_max_head_len(1 << 20);
    assert_eq!(scan_once(long.as_bytes(), &lenient), Ok(Some(long.len())));

    // The limits are known at the first byte beyond them, not when the head is whole.
    assert_eq!(scan_once(&long.as_bytes()[..16 << 10], &limits), Ok(None));
    let beyond = scan_once(&long.as_bytes()[..(16 << 10) + 1], &limits);
    assert_eq!(beyond, Err(HandshakeError::HeadTooLong));

    let line = vec![b'x'; 8 << 10];
    assert_eq!(scan_once(&line, &limits), Ok(None));
    assert_eq!(scan_once(&[&line[..], b"x"].concat(), &limits), Err(HandshakeError::LineTooLong));

    let many = head(&["a: b"; 100]);
    assert_eq!(scan_once(many.as_bytes(), &limits), Ok(Some(many.len())));
    let too_many = head(&["a: b"; 101]);
    let blank_line_len = 2;
    let before_it = &too_many.as_bytes()[..too_many.len() - blank_line_len];
    assert_eq!(scan_once(before_it, &limits), Err(HandshakeError::TooManyHeaders));

    for error in
        [HandshakeError::HeadTooLong, HandshakeError::LineTooLong, HandshakeError::TooManyHeaders]
    {
        assert_eq!(error.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let mut out = Vec::new();
        Response::from(error).encode(&mut out);
        let answer = String::from_utf8_lossy(&out);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

#[test]
fn handshake_missing_headers() {
    assert_eq!(judge(&head(&good())), Ok(()));
    // Each required header is there, missing, doubled or empty: 4^5 requests, of which one is good,
    // and those are too that repeat only the headers that are lists.
    let mut accepted = Vec::new();
    for case in 0..4_u32.pow(5) {
        let mut lines = Vec::new();
        let mut ways = Vec::new();
        for (i, line) in (0..).zip(good()) {
            let way = case / 4_u32.pow(i) % 4;
            let name = line.split_once(':').map(|(name, _)| format!("{name}:")).expect("a header");
            match way {
                0 => lines.push(line.to_owned()),
                1 => {}
                2 => lines.extend([line.to_owned(), line.to_owned()]),
                _ => lines.push(name),
            }
            ways.push(way);
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        match judge(&head(&lines)) {
            Ok(()) => accepted.push(ways),
            Err(error) => assert!(error.status().is_client_error(), "{ways:?}: {error}"),
        }
    }
    accepted.sort();
    assert_eq!(
        accepted,
        [[0, 0, 0, 0, 0], [0, 0, 2, 0, 0], [0, 2, 0, 0, 0], [0, 2, 2, 0, 0]],
        "Upgrade and Connection are lists, which may be spread over lines"
    );

    let status = |lines: &[&str]| judge(&head(lines)).expect_err("it is refused").status();
    assert_eq!(status(&[]), StatusCode::BAD_REQUEST);
    assert_eq!(status(&["Host: a"]), StatusCode::UPGRADE_REQUIRED);
    let many: Vec<_> = std::iter::repeat_n("Sec-WebSocket-Key: x", 101).collect();
    assert_eq!(status(&many), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[test]
fn handshake_extension_redos() {
    let malformed = [
        ";".repeat(64 << 10),
        "\"".repeat(64 << 10),
        "\\".repeat(64 << 10),
        format!("a;b=\"{}", "\\".repeat(64 << 10)),
        format!("a;b=\"{}", "\\\"".repeat(32 << 10)),
        format!("a;b=\"{}", "x".repeat(64 << 10)),
        format!("a{}", ";b".repeat(32 << 10)),
        format!("a{}", "; b=\"1\"".repeat(8 << 10)),
        ",;\"\\".repeat(16 << 10),
    ];
    for value in &malformed {
        let parsed: Vec<_> = Extensions::of(value.as_bytes()).collect();
        assert_eq!(parsed, [Err(HandshakeError::InvalidExtensions)], "{}", &value[..10]);
        let line = format!("Sec-WebSocket-Extensions: {}", &value[..4000]);
        let mut lines = good();
        lines.push(&line);
        let refused = judge(&head(&lines));
        assert_eq!(refused, Err(HandshakeError::InvalidExtensions), "{}", &value[..10]);
    }
    assert_eq!(Extensions::of(&[b','; 64 << 10]).next(), None);

    // Offers of permessage-deflate without end, of which none can be accepted.
    let offers = "permessage-deflate; server_max_window_bits=8, ".repeat(150);
    let mut lines = good();
    let line = format!("Sec-WebSocket-Extensions: {offers}");
    lines.push(&line);
    let head = head(&lines);
    let request = Request::parse(head.as_bytes(), &HeadLimits::default()).expect("well-formed");
    let upgrade = request.check_upgrade().expect("it is an upgrade");
    assert_eq!(upgrade.deflate(&Policy::default()), None);

    // What is well-formed to its end takes time in proportion to its length: sixteen times the bytes
    // would be 256 times the time if any of this looked back.
    let ways: [fn(usize) -> String; 4] = [
        |len| ",".repeat(len),
        |len| ", \t".repeat(len / 3),
        |len| "a;b;b,".repeat(len / 6),
        |len| format!("a;b=\"{}\"", "x".repeat(len)),
    ];
    for way in ways {
        let time = |value: &str| {
            let begin = Instant::now();
            let errors = Extensions::of(value.as_bytes()).filter(Result::is_err).count();
            assert_eq!(errors, 0);
            begin.elapsed()
        };
        let least = |len| {
            let value = way(len);
            (0..20).map(|_| time(&value)).min().unwrap_or(Duration::MAX)
        };
        let (short, long) = (least(4 << 10), least(64 << 10));
        assert!(long < short * 100, "{short:?} for 4 KiB, {long:?} for 64 KiB: {}", way(8));
    }
}

#[test]
fn handshake_smuggling() {
    let with = |lines: &[&'static str]| {
        let mut all = good();
        all.extend(lines);
        judge(&head(&all))
    };
    assert_eq!(with(&[]), Ok(()));
    assert_eq!(with(&["Content-Length: 0"]), Ok(()));
    for (lines, error) in [
        (&["Content-Length: 5", "Transfer-Encoding: chunked"][..], HandshakeError::ContentLength),
        (&["Transfer-Encoding: chunked", "Content-Length: 0"], HandshakeError::ContentLength),
        (&["Content-Length: 0", "Content-Length: 0"], HandshakeError::ContentLength),
        (&["Content-Length: 0", "Content-Length: 5"], HandshakeError::ContentLength),
        (&["Content-Length: 0, 0"], HandshakeError::ContentLength),
        (&["Content-Length: +5"], HandshakeError::ContentLength),
        (&["Content-Length: -1"], HandshakeError::ContentLength),
        (&["Content-Length: 0x0"], HandshakeError::ContentLength),
        (&["Content-Length:"], HandshakeError::ContentLength),
        (&["Transfer-Encoding: xchunked"], HandshakeError::TransferEncoding),
        (&["Transfer-Encoding: chunked, identity"], HandshakeError::TransferEncoding),
        (&["Transfer-Encoding: \x0bchunked"], HandshakeError::HeaderValue),
        (&["Transfer-Encoding: chunked", "Transfer-Encoding: x"], HandshakeError::TransferEncoding),
        (&["Transfer-Encoding:"], HandshakeError::TransferEncoding),
        (&["Transfer-Encoding: chunked"], HandshakeError::Body),
        (&["Content-Length: 5"], HandshakeError::Body),
        (&["Content-Length: 99999999999999999999999999"], HandshakeError::Body),
        (&["Content-Length : 5"], HandshakeError::HeaderName),
        (&["Transfer-Encoding\t: chunked"], HandshakeError::HeaderName),
        (&[" folded: x"], HandshakeError::HeaderName),
        (&["\tfolded"], HandshakeError::HeaderName),
        (&["X: a", " b"], HandshakeError::HeaderName),
        (&[": no name"], HandshakeError::HeaderName),
        (&["no colon"], HandshakeError::HeaderName),
        (&["X: a\nContent-Length: 5"], HandshakeError::LineEnding),
        (&["X: a\rContent-Length: 5"], HandshakeError::LineEnding),
        (&["X: a\n"], HandshakeError::LineEnding),
        (&["X: a\0b"], HandshakeError::NulByte),
        (&["X: a\x01b"], HandshakeError::HeaderValue),
        (&["Host: evil.example"], HandshakeError::RepeatedHost),
        (&["Origin: a", "Origin: b"], HandshakeError::RepeatedOrigin),
        (&["Origin: \u{e9}"], HandshakeError::InvalidOrigin),
    ] {
        assert_eq!(with(lines), Err(error), "{lines:?}");
        assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{error}");
    }
    for host in ["a b", "a, b", "user@a", "a/b", "a?b", "a\\b", "a#b"] {
        let request = head(&[&format!("Host: {host}")]);
        assert_eq!(judge(&request), Err(HandshakeError::InvalidHost), "{host}");
    }

    // The same first lines, though the request is no upgrade: a body is no harm, a doubtful one is.
    let post = |lines: &str| {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        Request::parse(bytes.as_bytes(), &HeadLimits::default()).map(|request| request.is_upgrade())
    };
    assert_eq!(post("Content-Length: 5\r\n"), Ok(false));
    assert_eq!(post("Transfer-Encoding: Chunked\r\n"), Ok(false));
    let both = post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    assert_eq!(both, Err(HandshakeError::ContentLength));

    // The parser keeps to the scanner's rules also when it is not asked first.
    let limits = HeadLimits::default();
    let bare = format!("GET / HTTP/1.1\nHost: a\nSec-WebSocket-Key: {KEY}\n\n");
    let parsed = Request::parse(bare.as_bytes(), &limits).map(drop);
    assert_eq!(parsed, Err(HandshakeError::LineEnding));

    // What follows an upgrade is no part of it.
    let followed = head(&good()) + "GET /admin HTTP/1.1\n\0";
    let len = HeadScanner::default().scan(followed.as_bytes(), &limits);
    assert_eq!(len, Ok(Some(head(&good()).len())));
    let more = Request::parse(followed.as_bytes(), &limits).map(drop);
    assert_eq!(more, Err(HandshakeError::Incomplete));
}
