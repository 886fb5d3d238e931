//! Messages there and back, halves on two threads, streams that others made.

use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ringwire::client::{Client, Error, ErrorKind, Event, OwnedMessage};
use ringwire::{Accept, CloseCode};

use crate::peer::{builder, connect, frame, read_frame, upgrade, upgrading, url};
use crate::support::{PATIENCE, Server, config};

#[test]
fn every_length_comes_back_as_it_was() {
    let server = Server::echo(config());
    let mut client = connect(server.addr());
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        client.send_binary(&bytes).unwrap();
        assert_eq!(client.receive().unwrap(), Some(OwnedMessage::Binary(bytes)), "{len} bytes");
        let text = "x".repeat(len);
        client.send_text(&text).unwrap();
        assert_eq!(client.receive().unwrap(), Some(OwnedMessage::Text(text)), "{len} bytes");
    }
    client.close(CloseCode::NORMAL, "done").unwrap();
    assert_eq!(client.receive().unwrap(), None);
    let cause = server.closed();
    assert!(cause.is_clean());
    assert_eq!((cause.code, cause.text.as_str()), (Some(CloseCode::NORMAL), "done"));
}

#[test]
fn messages_that_arrive_together_come_one_by_one() {
    let address = upgrading(|mut stream| {
        use std::io::Write;
        let mut bytes = frame(0x81, b"one");
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x02, b"t"));
        bytes.extend(frame(0x80, b"wo"));
        bytes.extend(frame(0x88, &1000_u16.to_be_bytes()));
        stream.write_all(&bytes).unwrap();
        assert_eq!(read_frame(&mut stream), (0x8a, b"ping".to_vec()));
        assert_eq!(read_frame(&mut stream), (0x88, 1000_u16.to_be_bytes().to_vec()));
    });
    let mut client = connect(address);
    let all: Result<Vec<_>, _> = client.messages().collect();
    assert_eq!(all.unwrap(), ["one".into(), OwnedMessage::Binary(b"two".to_vec())]);
    assert_eq!(client.close_frame(), Some((CloseCode::NORMAL, String::new())));
    assert!(!client.is_open());
}

#[test]
fn pings_and_pongs_are_events() {
    let server = Server::echo(config());
    let mut client = connect(server.addr());
    server.opened();
    client.ping(b"are you there").unwrap();
    assert_eq!(
        client.receive_event(PATIENCE).unwrap(),
        Some(Event::Pong(b"are you there".to_vec()))
    );
    let error = client.ping(&[0; 126]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidMessage);
    client.send("still here").unwrap();
    assert_eq!(client.receive().unwrap(), Some("still here".into()));
}

#[test]
fn two_threads_send_and_receive_more_than_sockets_hold() {
    const COUNT: usize = 400;
    let config = config().with_max_message_len(1 << 20);
    let server = Server::start(config, |app| app.without_messages());
    let (sender, mut receiver) = connect(server.addr()).split();
    let message = vec![7; 100_000];
    let sent = message.clone();
    let second = sender.clone();
    let sending = thread::spawn(move || {
        for _ in 0..COUNT {
            sender.send(sent.as_slice()).unwrap();
        }
    });
    for _ in 0..COUNT {
        assert!(receiver.receive().unwrap() == Some(OwnedMessage::Binary(message.clone())));
    }
    sending.join().unwrap();
    // The receiver is in its call while the other half closes.
    let receiving = thread::spawn(move || receiver.receive());
    second.close(CloseCode::GOING_AWAY, "").unwrap();
    assert_eq!(receiving.join().unwrap().unwrap(), None);
    assert_eq!(server.closed().code, Some(CloseCode::GOING_AWAY));
}

#[test]
fn a_receiver_answers_pings_while_a_sender_waits_for_the_socket() {
    use std::io::{Read, Write};
    let address = upgrading(|mut stream| {
        // Nothing is read until the client must be stuck, then a ping, then all that waited.
        thread::sleep(Duration::from_millis(200));
        stream.write_all(&frame(0x89, b"p")).unwrap();
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while !bytes.ends_with(b"end!") {
            let len = stream.read(&mut buffer).unwrap();
            assert!(len > 0, "the client stays until the pong was seen");
            bytes.extend_from_slice(&buffer[..len]);
            if bytes.len() > 20 << 20 {
                break;
            }
        }
        stream.write_all(&frame(0x81, b"enough")).unwrap();
        let _ = stream.read_to_end(&mut bytes);
        // The pong follows the one message of 20 MiB: FIN and pong, masked, one byte.
        let pong = &bytes[14 + (20 << 20)..];
        assert_eq!(pong[..2], [0x8a, 0x81]);
        assert_eq!(pong[2] ^ pong[6], b'p');
    });
    let (sender, mut receiver) = connect(address).split();
    let sending = thread::spawn(move || sender.send(vec![0; 20 << 20].as_slice()).map(|()| sender));
    assert_eq!(receiver.receive().unwrap(), Some("enough".into()));
    drop(receiver);
    drop(sending.join().unwrap().unwrap());
}

#[test]
fn headers_subprotocols_and_origin_reach_the_server() {
    let server = Server::start(config(), |app| {
        app.on_request(|request| {
            assert_eq!(request.header("x-token"), Some(&b"abc"[..]));
            assert_eq!(request.header("origin"), Some(&b"https://example.org"[..]));
            assert_eq!(request.header("authorization"), Some(&b"Basic dTpw"[..]));
            assert_eq!(request.path(), "/chat");
            let accept = Accept::new(0).with_subprotocol("v2");
            let name = HeaderName::from_static("x-answer");
            accept.with_header(name, HeaderValue::from_static("yes")).into()
        })
    });
    let client = builder()
        .with_header(HeaderName::from_static("x-token"), HeaderValue::from_static("abc"))
        .with_origin(HeaderValue::from_static("https://example.org"))
        .with_subprotocol("v1")
        .with_subprotocol("v2")
        .connect(&format!("ws://u:p@{}/chat?x=1", server.addr()))
        .unwrap();
    assert_eq!(client.subprotocol(), Some("v2"));
    assert_eq!(client.headers()["x-answer"], "yes");
}

#[test]
fn every_address_of_a_name_is_tried() {
    // localhost is ::1 as well as 127.0.0.1 on most machines, and the server is at one of them only.
    let server = Server::echo(config());
    let mut client =
        builder().connect(&format!("ws://localhost:{}/", server.addr().port())).unwrap();
    client.send("hello").unwrap();
    assert_eq!(client.receive().unwrap(), Some("hello".into()));
}

#[test]
fn ipv6() {
    let server = Server::start_at(config(), &["[::1]:0"], |app| app);
    let mut client = connect(server.addr());
    client.send("hello").unwrap();
    assert_eq!(client.receive().unwrap(), Some("hello".into()));
}

#[test]
fn unix_sockets_by_url_and_as_streams() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let head = upgrade(&mut stream);
            assert!(head.starts_with("GET /chat?x HTTP/1.1\r\nHost: localhost\r\n"), "{head}");
            let (_, payload) = read_frame(&mut stream);
            use std::io::Write;
            stream.write_all(&frame(0x81, &payload)).unwrap();
            assert_eq!(read_frame(&mut stream).0, 0x88);
        }
    });
    let url = format!("ws+unix:{}:/chat?x", path.display());
    // The server has one client at a time.
    let connects: [&dyn Fn() -> Result<Client, Error>; 2] = [&|| builder().connect(&url), &|| {
        builder().from_stream(&url, UnixStream::connect(&path).unwrap())
    }];
    for connect in connects {
        let mut client = connect().unwrap();
        client.send("hello").unwrap();
        assert_eq!(client.receive().unwrap(), Some("hello".into()));
    }
    server.join().unwrap();
    let error = builder().connect("ws+unix:/nowhere/at/all:/").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[test]
fn streams_that_somebody_else_made() {
    let server = Server::echo(config());
    let stream = TcpStream::connect(server.addr()).unwrap();
    let mut client = builder().from_stream(&url(server.addr()), stream).unwrap();
    client.send("hello").unwrap();
    assert_eq!(client.receive().unwrap(), Some("hello".into()));

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut client = builder().from_upgraded(ours, frame(0x81, b"early")).unwrap();
    assert_eq!(client.receive().unwrap(), Some("early".into()));
    client.send("late").unwrap();
    assert_eq!(read_frame(&mut theirs), (0x81, b"late".to_vec()));
}

#[test]
fn messages_beyond_the_limit_end_the_connection() {
    let server = Server::echo(config());
    let mut client = builder().with_max_message_len(100).connect(&url(server.addr())).unwrap();
    client.send(vec![0; 100].as_slice()).unwrap();
    assert!(client.receive().unwrap().is_some());
    client.send(vec![0; 101].as_slice()).unwrap();
    let error = client.receive().unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(server.closed().code, Some(CloseCode::MESSAGE_TOO_BIG));
    assert_eq!(client.send("more").unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(client.receive().unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn masks_differ_from_frame_to_frame() {
    use std::io::Read;
    let address = upgrading(|mut stream| {
        let mut masks = std::collections::HashSet::new();
        for _ in 0..100 {
            let mut bytes = [0; 7];
            stream.read_exact(&mut bytes).unwrap();
            masks.insert([bytes[2], bytes[3], bytes[4], bytes[5]]);
        }
        assert!(masks.len() > 95);
        use std::io::Write;
        stream.write_all(&frame(0x81, b"fine")).unwrap();
    });
    let mut client = connect(address);
    for _ in 0..100 {
        client.send("x").unwrap();
    }
    assert_eq!(client.receive().unwrap(), Some("fine".into()));
}

#[test]
fn a_dropped_client_says_goodbye() {
    let server = Server::echo(config());
    drop(connect(server.addr()));
    assert_eq!(server.closed().code, Some(CloseCode::NORMAL));
}
