//! Answers to the handshake: refusals, redirects, nonsense, silence.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode, header};
use ringwire_client::{Error, ErrorKind, RedirectProblem, UrlProblem, Waiting};
use ringwire_codec::handshake::HandshakeError;
use ringwire_peers::server::{agreement, answering, drain, frame, read_head, serve, upgrade};
use ringwire_peers::{PATIENCE, ms};

use crate::peer::{self, builder, refusal_of, url};

fn handshake_error(error: &Error) -> HandshakeError {
    match error {
        Error::Handshake(error) => *error,
        other => panic!("{other} is not of the handshake"),
    }
}

#[test]
fn credentials_are_a_kind_of_their_own() {
    for (status, kind) in [
        ("401 Unauthorized", ErrorKind::Authentication),
        ("403 Forbidden", ErrorKind::Authentication),
        ("404 Not Found", ErrorKind::Refused),
        ("200 OK", ErrorKind::Refused),
        ("500 Oh", ErrorKind::Refused),
    ] {
        let address = answering(format!(
            "HTTP/1.1 {status}\r\nSet-Cookie: secret=1\r\nContent-Length: 2\r\n\r\nno"
        ));
        let error = refusal_of(&builder(), address);
        assert_eq!(error.kind(), kind);
        assert_eq!(error.refusal().unwrap().body, b"no");
        assert!(!format!("{error} {error:?}").contains("secret=1"));
    }
}

#[test]
fn bodies_of_every_kind_are_bounded() {
    let limited = builder().with_max_refusal_len(10).with_handshake_timeout(ms(4000));
    for (answer, body, is_complete) in [
        ("Content-Length: 5\r\n\r\nhello", "hello", true),
        ("Content-Length: 20\r\n\r\n01234567890123456789", "0123456789", false),
        ("Content-Length: 5\r\n\r\nhel", "hel", false),
        ("Content-Length: 2\r\n\r\nnoise", "no", true),
        ("Content-Length: 2\r\n\r\nnoise of more than ten bytes", "no", true),
        ("Content-Length: 0\r\n\r\nnoise", "", true),
        ("\r\nby", "by", false),
        ("Content-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello", "hello", true),
        ("Content-Length: +5\r\n\r\nhello", "", false),
        ("Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello", "", false),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "hello", true),
        (
            "Transfer-Encoding: chunked\r\n\r\n9\r\n012345678\r\n9\r\n012345678\r\n",
            "0123456780",
            false,
        ),
    ] {
        let address = answering(format!("HTTP/1.1 404 Not Found\r\n{answer}"));
        let error = refusal_of(&limited, address);
        let refusal = error.refusal().unwrap();
        assert_eq!(String::from_utf8_lossy(&refusal.body), body, "{answer}");
        assert_eq!(refusal.is_complete, is_complete, "{answer}");
    }
    // Without a length, the end of the stream is the end of the body.
    let address = serve(|mut stream, _| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\nbye").unwrap();
    });
    let error = refusal_of(&limited, address);
    assert_eq!(error.refusal().unwrap().body, b"bye");
    assert!(error.refusal().unwrap().is_complete);
    let address = serve(|mut stream, _| {
        read_head(&mut stream);
        let head = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked, x-own\r\n\r\nbye";
        stream.write_all(head).unwrap();
    });
    let error = refusal_of(&limited, address);
    assert_eq!(error.refusal().unwrap().body, b"bye");
    assert!(error.refusal().unwrap().is_complete);
}

/// RFC 9112 §6.3: whatever their headers say, so that nothing is waited for.
#[test]
fn statuses_without_a_body() {
    for status in ["204 No Content", "304 Not Modified"] {
        for headers in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            let address = answering(format!("HTTP/1.1 {status}\r\n{headers}\r\n"));
            let begin = Instant::now();
            let builder = builder().with_handshake_timeout(PATIENCE * 2);
            let error = refusal_of(&builder, address);
            assert!(begin.elapsed() < PATIENCE, "not by the timeout");
            let refusal = error.refusal().unwrap();
            assert_eq!((&*refusal.body, refusal.is_complete), (&b""[..], true), "{status}");
        }
    }
}

/// Without a length only an end of the stream as it should be is the end of a body.
#[test]
fn a_body_that_a_reset_cuts() {
    let address = serve(|mut stream, _| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\nby").unwrap();
        // The reset must not take the bytes along.
        thread::sleep(ms(100));
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let error = refusal_of(&builder(), address);
    let refusal = error.refusal().unwrap();
    assert_eq!((&*refusal.body, refusal.is_complete), (&b"by"[..], false));
}

#[test]
fn endless_bodies_and_heads_end() {
    for (head, piece) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n", &b"endless"[..]),
        ("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        ("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n", b"0;xx"),
        ("HTTP/1.1 101 Switching Protocols\r\n", b"X-Endless: yes\r\n"),
        ("HTTP/1.1 101 ", b"Switching"),
    ] {
        let address = serve(move |mut stream, _| {
            read_head(&mut stream);
            stream.write_all(head.as_bytes()).unwrap();
            while stream.write_all(&piece.repeat(100)).is_ok() {}
        });
        let begin = Instant::now();
        let error = refusal_of(&builder(), address);
        assert!(begin.elapsed() < Duration::from_secs(8), "not by the timeout");
        match error.refusal() {
            Some(refusal) => assert!(refusal.body.len() <= 16 << 10 && !refusal.is_complete),
            None => assert!(matches!(
                handshake_error(&error),
                HandshakeError::LineTooLong
                    | HandshakeError::HeadTooLong
                    | HandshakeError::TooManyHeaders
            )),
        }
    }
}

#[test]
fn wrong_answers() {
    let upgraded = |wrong: fn(String) -> String| {
        serve(move |mut stream, _| {
            let head = read_head(&mut stream);
            stream.write_all(wrong(agreement(&head, "")).as_bytes()).unwrap();
            drain(stream);
        })
    };
    for (wrong, expected) in [
        (
            (|answer| answer.replace("Accept: ", "Accept: x")) as fn(String) -> String,
            HandshakeError::AcceptKey,
        ),
        (|answer| answer.replace("websocket", "h2c"), HandshakeError::Upgrade),
        (|answer| answer.replace("Connection: Upgrade\r\n", ""), HandshakeError::Connection),
        (|answer| answer.replace("HTTP/1.1", "HTTP/1.0"), HandshakeError::HttpVersion),
        (|answer| answer.replace("\r\n", "\n"), HandshakeError::LineEnding),
        (
            |answer| answer.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
            HandshakeError::UnofferedSubprotocol,
        ),
        (
            |answer| answer.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n"),
            HandshakeError::UnofferedExtension,
        ),
        (|answer| answer.replace("HTTP/1.1 101", "\r\nHTTP/1.1 101"), HandshakeError::NotHttp),
        (|_| "SSH-2.0-OpenSSH_9.6\r\n".to_owned(), HandshakeError::NotHttp),
        (|_| "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{46}".to_owned(), HandshakeError::NotHttp),
    ] {
        let error = refusal_of(&builder(), upgraded(wrong));
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert_eq!(handshake_error(&error), expected);
    }
}

#[test]
fn a_server_that_goes_in_the_middle() {
    for (part, expected) in [
        ("", HandshakeError::NoAnswer),
        ("H", HandshakeError::Incomplete),
        ("HTTP/1.1 1", HandshakeError::Incomplete),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n", HandshakeError::Incomplete),
    ] {
        let address = serve(move |mut stream, _| {
            read_head(&mut stream);
            stream.write_all(part.as_bytes()).unwrap();
        });
        let error = refusal_of(&builder(), address);
        assert_eq!(handshake_error(&error), expected);
    }
}

#[test]
fn interim_answers_are_passed_over() {
    let address = serve(|mut stream, _| {
        let head = read_head(&mut stream);
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let mut answer = format!("{interim}{interim}{}", agreement(&head, "")).into_bytes();
        answer.extend(frame(0x81, b"first"));
        stream.write_all(&answer).unwrap();
        drain(stream);
    });
    let mut client = peer::connect(address);
    assert_eq!(client.receive().unwrap(), Some("first".into()));

    let endless = answering("HTTP/1.1 100 Continue\r\n\r\n".repeat(50));
    assert_eq!(refusal_of(&builder(), endless).kind(), ErrorKind::Protocol);
}

#[test]
fn the_deadline_is_for_the_whole_handshake() {
    let slow = serve(|mut stream, _| {
        let head = read_head(&mut stream);
        for byte in agreement(&head, "").into_bytes() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(ms(20));
        }
    });
    let silent = serve(|stream, _| {
        drain(stream);
    });
    for address in [slow, silent] {
        let begin = Instant::now();
        let error = refusal_of(&builder().with_handshake_timeout(ms(300)), address);
        assert!(matches!(error, Error::Timeout(Waiting::Handshake)), "{error}");
        assert!(begin.elapsed() >= ms(300) && begin.elapsed() < Duration::from_secs(8));
    }
}

#[test]
fn redirects_in_a_loop_and_to_nowhere() {
    let (sender, asked) = std::sync::mpsc::channel();
    let looping = serve(move |mut stream, _| {
        read_head(&mut stream);
        sender.send(()).unwrap();
        stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n").unwrap();
    });
    let error = refusal_of(&builder().with_max_redirects(3), looping);
    assert!(matches!(error, Error::Redirect(RedirectProblem::TooMany)), "{error}");
    assert_eq!(asked.try_iter().count(), 4);

    // By default none is followed, as browsers follow none.
    let error = refusal_of(&builder(), looping);
    assert_eq!(error.refusal().unwrap().status, StatusCode::FOUND);
    assert_eq!(error.refusal().unwrap().headers[header::LOCATION], "/");
    assert!(error.to_string().contains("with_max_redirects"), "{error}");

    for (more, problem) in [
        ("", RedirectProblem::Location),
        ("Location: ftp://x/\r\n", RedirectProblem::Location),
        ("Location: ws+unix:/run/x.sock:/\r\n", RedirectProblem::EntersSocket),
    ] {
        let address = answering(format!("HTTP/1.1 301 Moved\r\n{more}\r\n"));
        let error = refusal_of(&builder().with_max_redirects(1), address);
        assert!(matches!(error, Error::Redirect(found) if found == problem), "{error}");
    }
}

#[test]
fn wrong_urls_and_settings() {
    for (url, problem) in [
        ("example.org", UrlProblem::Malformed),
        ("gopher://example.org/", UrlProblem::Scheme),
        ("ws://example.org/#x", UrlProblem::Fragment),
        ("ws+unix:", UrlProblem::SocketPath),
        ("ws://example.org/a b", UrlProblem::Character(' ')),
        ("ws://example.org/{id}", UrlProblem::Character('{')),
    ] {
        let error = builder().connect(url).unwrap_err();
        assert!(matches!(error, Error::Url(found) if found == problem), "{url}: {error}");
        assert_eq!(error.kind(), ErrorKind::Setting);
    }
    let address = serve(|stream, _| {
        drain(stream);
    });
    for wrong in [
        builder().with_subprotocol("a b"),
        builder().with_subprotocol("a").with_subprotocol("a"),
        builder().with_header(header::UPGRADE, HeaderValue::from_static("x")),
        builder().with_ping_interval(ms(100)).with_peer_timeout(ms(100)),
    ] {
        assert_eq!(refusal_of(&wrong, address).kind(), ErrorKind::Setting);
    }
}

/// What a stranger has written is shown as text, and moves no cursor and begins no line.
#[test]
fn what_the_server_wrote_is_escaped_where_it_is_shown() {
    let wild = "\u{1b}[31m\r\nred\u{9b}2J\u{202e}";
    let refused = answering(format!(
        "HTTP/1.1 403 {0}\r\nContent-Length: {1}\r\n\r\n{wild}\n\"'\\",
        "No",
        wild.len() + 4
    ));
    let error = refusal_of(&builder(), refused);
    let shown = error.refusal().unwrap().body_text();
    assert_eq!(shown, "\\u{1b}[31m\\r\nred\\u{9b}2J\\u{202e}\n\"'\\");
    assert_eq!(error.to_string(), "the server refused with 403 Forbidden");

    let closed = ringwire_peers::server::upgrading(move |mut stream| {
        stream.write_all(&ringwire_peers::server::close_frame(4000, wild)).unwrap();
        drain(stream);
    });
    let error = peer::connect(closed).receive().unwrap_err();
    let Error::Closed { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason, wild, "the application has it as it came");
    let shown = "the connection is closed (4000: \\u{1b}[31m\\r\\nred\\u{9b}2J\\u{202e})";
    assert_eq!(error.to_string(), shown);
}

#[test]
fn names_and_ports_that_nobody_answers() {
    let begin = Instant::now();
    let error = builder().connect("ws://no-such-host.invalid/").unwrap_err();
    assert!(matches!(error, Error::Resolve { .. } | Error::Timeout(Waiting::Resolve)), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(15));

    let (_kept, address) = ringwire_peers::unheard();
    let error = refusal_of(&builder(), address);
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    let Error::Connect { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!(attempts[0].address, Some(address));
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn a_stream_for_a_host_that_redirects() {
    let address = answering("HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n");
    let builder = builder().with_max_redirects(5);
    let stream = TcpStream::connect(address).unwrap();
    let error = builder.from_stream(url(address), stream).unwrap_err();
    assert_eq!(error.refusal().unwrap().status, StatusCode::MOVED_PERMANENTLY);
}

#[test]
fn frames_right_behind_the_head_are_not_lost() {
    let address = serve(|mut stream, _| {
        let mut head = Vec::new();
        let request = upgrade(&mut Recorded { stream: &mut stream, written: &mut head });
        assert!(request.starts_with("GET / HTTP/1.1\r\n"));
        head.extend(frame(0x81, b"a"));
        head.extend(frame(0x01, b"b"));
        stream.write_all(&head).unwrap();
        stream.write_all(&frame(0x80, b"c")).unwrap();
        drain(stream);
    });
    let mut client = peer::connect(address);
    assert_eq!(client.receive().unwrap(), Some("a".into()));
    assert_eq!(client.receive().unwrap(), Some("bc".into()));
}

/// Reads from a stream and keeps what is to be written.
struct Recorded<'s> {
    stream: &'s mut TcpStream,
    written: &'s mut Vec<u8>,
}

impl std::io::Read for Recorded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Recorded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
