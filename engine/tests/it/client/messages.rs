//! Messages there and back, halves on two threads, streams that others made.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;

use http::{HeaderName, HeaderValue};
use ringwire::client::{Error, ErrorKind, Event, OwnedMessage};
use ringwire::{Accept, CloseCode, Router, on_message, router::SocketOptions};
use ringwire_peers::server::{frame, read_frame};

use super::peer::{builder, connect, url};
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
        .connect(format!("ws://u:p@{}/chat?x=1", server.addr()))
        .unwrap();
    assert_eq!(client.subprotocol(), Some("v2"));
    assert_eq!(client.headers()["x-answer"], "yes");
}

#[test]
fn the_server_has_subprotocols_where_nobody_chooses() {
    let route = SocketOptions::default().with_subprotocols(["r"]);
    let server = ringwire::Server::new(config().with_subprotocols(["v2", "v1"]))
        .listen("127.0.0.1:0")
        .start(move |_worker| {
            Router::new().websocket("/plain", on_message(|_ctx, _message| {})).websocket_with(
                "/route",
                on_message(|_ctx, _message| {}),
                route.clone(),
            )
        })
        .unwrap();
    let agreed = |path: &str, offers: &[&str]| {
        let builder = offers.iter().fold(builder(), |builder, name| builder.with_subprotocol(name));
        let url = format!("ws://{}{path}", server.local_addrs()[0]);
        builder.connect(&url).unwrap().subprotocol().map(str::to_owned)
    };
    assert_eq!(agreed("/plain", &["v1", "v2"]).as_deref(), Some("v2"), "the server's order counts");
    assert_eq!(agreed("/plain", &["v0", "v1"]).as_deref(), Some("v1"));
    assert_eq!(agreed("/plain", &[]), None);
    assert_eq!(agreed("/route", &["v1", "r"]).as_deref(), Some("r"), "the route goes first");
    assert_eq!(agreed("/route", &["v1"]).as_deref(), Some("v1"));
    server.handle().shutdown(PATIENCE);
    server.join().unwrap();
}

#[test]
fn every_address_of_a_name_is_tried() {
    // localhost is ::1 as well as 127.0.0.1 on most machines, and the server is at one of them only.
    let server = Server::echo(config());
    let mut client =
        builder().connect(format!("ws://localhost:{}/", server.addr().port())).unwrap();
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
fn streams_that_somebody_else_made() {
    let server = Server::echo(config());
    let stream = TcpStream::connect(server.addr()).unwrap();
    let mut client = builder().from_stream(url(server.addr()), stream).unwrap();
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
    let mut client = builder().with_max_message_len(100).connect(url(server.addr())).unwrap();
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
fn a_dropped_client_says_goodbye() {
    let server = Server::echo(config());
    drop(connect(server.addr()));
    assert_eq!(server.closed().code, Some(CloseCode::NORMAL));
}
