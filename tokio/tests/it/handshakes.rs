//! The opening handshake (RFC 6455 §4).

use std::time::Duration;

use ringwire_tokio::handshake::server::{Accept, Response};
use ringwire_tokio::handshake::{HandshakeError, HeadLimits};
use ringwire_tokio::http::StatusCode;
use ringwire_tokio::{
    CompressionConfig, Config, Error, Incoming, Message, Timeout, accept, accept_with, client,
    connect_with, request,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::TcpListener;

use crate::{run, run_paused, text};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// What a server answers to these bytes, and what it makes of them.
async fn answer_to(bytes: &[u8], config: Config) -> (String, Error) {
    let (mut near, far) = duplex(1 << 16);
    near.write_all(bytes).await.unwrap();
    let serving =
        tokio::spawn(
            async move { accept_with(far, config, |_| Ok(Accept::new())).await.map(drop) },
        );
    let mut all = Vec::new();
    near.read_to_end(&mut all).await.unwrap();
    drop(near);
    (String::from_utf8(all).unwrap(), serving.await.unwrap().unwrap_err())
}

#[test]
fn refusals_have_the_right_status() {
    run(async {
        let limits = HeadLimits::default().with_max_head_len(400);
        for (head, status, error) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426, HandshakeError::Upgrade),
            (&UPGRADE.replace("13", "8"), 426, HandshakeError::UnsupportedVersion),
            (&UPGRADE.replace("GET", "POST"), 405, HandshakeError::Method),
            (&UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), 505, HandshakeError::HttpVersion),
            (&UPGRADE.replace("==", ""), 400, HandshakeError::InvalidKey),
            (&UPGRADE.replace("GET ", "GET  "), 400, HandshakeError::StartLine),
            (&format!("{UPGRADE}X: {}", "x".repeat(400)), 431, HandshakeError::HeadTooLong),
        ] {
            let head = format!("{head}\r\n");
            let config = Config::default().with_head_limits(limits);
            let (answer, found) = answer_to(head.as_bytes(), config).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains("\r\nconnection: close"), "{answer}");
            assert!(matches!(found, Error::Handshake(found) if found == error), "{found}");
        }
    });
}

#[test]
fn a_callback_decides() {
    run(async {
        let serve = |target: &'static str| async move {
            let (near, far) = duplex(1 << 12);
            let serving = tokio::spawn(accept_with(far, Config::default(), |request| {
                assert_eq!(request.header_str("x-token"), Some("7"));
                match request.path() {
                    "/chat" => Ok(Accept::new().with_subprotocol("v2")),
                    _ => Err(Response::new(StatusCode::NOT_FOUND)),
                }
            }));
            let request = request("localhost", target).unwrap();
            let request = request
                .with_subprotocol("v1")
                .and_then(|request| request.with_subprotocol("v2"))
                .and_then(|request| {
                    let value = http::HeaderValue::from_static("7");
                    request.with_header("x-token".parse().unwrap(), value)
                });
            let connected = client(near, request.unwrap(), Config::default()).await;
            (connected, serving.await.unwrap())
        };
        let (connected, served) = serve("/chat").await;
        let (socket, response) = connected.unwrap();
        assert_eq!(socket.subprotocol(), Some("v2"));
        assert_eq!(response.headers()["sec-websocket-protocol"], "v2");
        assert_eq!(served.unwrap().subprotocol(), Some("v2"));

        let (connected, served) = serve("/elsewhere").await;
        let refusal = connected.unwrap_err();
        assert!(matches!(&refusal, Error::Refused(it) if it.status() == 404), "{refusal}");
        assert!(matches!(served.unwrap_err(), Error::Rejected(StatusCode::NOT_FOUND)));
    });
}

#[test]
fn an_answer_that_cannot_be_is_500() {
    run(async {
        let (mut near, far) = duplex(1 << 12);
        near.write_all(format!("{UPGRADE}\r\n").as_bytes()).await.unwrap();
        near.shutdown().await.unwrap();
        let incoming = Incoming::read(far, Config::default()).await.unwrap();
        assert_eq!(incoming.request().unwrap().path(), "/chat");
        let error = incoming.accept(Accept::new().with_subprotocol("x")).await.unwrap_err();
        assert!(matches!(error, Error::Handshake(HandshakeError::SubprotocolNotOffered)));
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    });
}

/// Frames that come with the head are the first input, on both ends.
#[test]
fn frames_behind_the_head() {
    run(async {
        let (mut near, far) = duplex(1 << 12);
        let head = format!("{UPGRADE}\r\n");
        let hello = [head.as_bytes(), &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']].concat();
        near.write_all(&hello).await.unwrap();
        let mut server = accept(far).await.unwrap();
        assert_eq!(server.receive().await.unwrap(), text("hi"));

        let (mut far, near) = duplex(1 << 12);
        let answering = tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                far.read_buf(&mut head).await.unwrap();
            }
            let head = String::from_utf8(head).unwrap();
            let key = head.split("Sec-WebSocket-Key: ").nth(1).unwrap();
            let key = key.split("\r\n").next().unwrap();
            let accept = ringwire_tokio::handshake::accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 S\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                str::from_utf8(&accept).unwrap()
            );
            far.write_all(&[answer.as_bytes(), b"\x81\x02hi"].concat()).await.unwrap();
            far
        });
        let (mut socket, _) =
            client(near, request("a", "/").unwrap(), Config::default()).await.unwrap();
        assert_eq!(socket.receive().await.unwrap(), text("hi"));
        answering.await.unwrap();
    });
}

#[test]
fn who_dawdles_is_cut_off() {
    run_paused(async {
        let (mut near, far) = duplex(1 << 12);
        let began = tokio::time::Instant::now();
        let serving = tokio::spawn(accept(far));
        for byte in UPGRADE.bytes() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if near.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        let error = serving.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Timeout(Timeout::Handshake)), "{error}");
        assert!(began.elapsed().as_secs() < 12);

        let (near, _far) = duplex(1 << 12);
        let error = client(near, request("a", "/").unwrap(), Config::default()).await.unwrap_err();
        assert!(matches!(error, Error::Timeout(Timeout::Handshake)), "{error}");
    });
}

#[test]
fn a_server_that_does_not_speak_http() {
    run(async {
        let (near, mut far) = duplex(1 << 12);
        far.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        let error = client(near, request("a", "/").unwrap(), Config::default()).await.unwrap_err();
        assert!(matches!(error, Error::Handshake(HandshakeError::NotHttp)), "{error}");
        let (near, far) = duplex(1 << 12);
        let gone = tokio::spawn(async move {
            let mut far = far;
            far.read_buf(&mut Vec::new()).await.map(drop)
        });
        let error = client(near, request("a", "/").unwrap(), Config::default()).await.unwrap_err();
        assert!(matches!(error, Error::Handshake(HandshakeError::NoAnswer)), "{error}");
        gone.await.unwrap().unwrap();
    });
}

#[test]
fn what_compression_comes_to() {
    run(async {
        let with = |takeover| {
            let compression = CompressionConfig::default().with_takeover(takeover);
            Config::default().with_compression(compression)
        };
        for (server, offer, agreed) in [
            (Config::default(), with(true), None),
            (with(true), Config::default(), None),
            (with(false), with(true), Some("server_no_context_takeover; client_no_context")),
            (with(true), with(false), Some("server_no_context_takeover; client_no_context")),
            (with(true), with(true), Some("permessage-deflate")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("ws://{}/", listener.local_addr().unwrap());
            let serving = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut socket = accept_with(stream, server, |_| Ok(Accept::new())).await.unwrap();
                while let Some(message) = socket.receive().await.unwrap() {
                    socket.send(message).await.unwrap();
                }
            });
            let (mut socket, response) = connect_with(&url, offer, Ok).await.unwrap();
            let header = response.headers().get("sec-websocket-extensions");
            match (agreed, header) {
                (None, None) => assert!(!socket.is_compressed()),
                (Some(part), Some(value)) => {
                    assert!(socket.is_compressed());
                    assert!(value.to_str().unwrap().contains(part), "{value:?}");
                }
                (expected, found) => panic!("{expected:?}, but {found:?}"),
            }
            let long = "the same again and again; ".repeat(4000);
            for _ in 0..3 {
                socket.send(long.as_str()).await.unwrap();
                assert_eq!(socket.receive().await.unwrap(), Some(Message::from(long.as_str())));
            }
            socket.close(ringwire_tokio::CloseCode::NORMAL, "").await.unwrap();
            serving.await.unwrap();
        }
    });
}

/// What inflates to more than 200 times its length is a bomb, past 64 KiB (`max_inflate_ratio`).
#[test]
fn a_bomb_is_refused() {
    run(async {
        let config = Config::default().with_compression(CompressionConfig::default());
        let (near, far) = duplex(1 << 12);
        let shaking = client(near, request("a", "/").unwrap(), config.clone());
        let accepting = accept_with(far, config, |_| Ok(Accept::new()));
        let (client, server) = tokio::join!(shaking, accepting);
        let (mut client, mut server) = (client.unwrap().0, server.unwrap());
        let serving = tokio::spawn(async move { server.receive().await });
        client.send(vec![0; 1 << 20]).await.unwrap();
        assert_eq!(client.receive().await.unwrap(), None);
        let code = ringwire_tokio::CloseCode::MESSAGE_TOO_BIG;
        assert_eq!(client.close_frame(), Some((code, "")));
        let limit = ringwire_tokio::codec::Limit::InflateRatio;
        match serving.await.unwrap().unwrap_err() {
            Error::Protocol(error) => {
                assert_eq!(error, ringwire_tokio::codec::Error::LimitExceeded(limit));
            }
            error => panic!("{error}"),
        }
    });
}
