//! The extractor, served by axum.

use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::any;
use ringwire_tokio::axum::WebSocketUpgrade;
use ringwire_tokio::http::{HeaderValue, header};
use ringwire_tokio::{CloseCode, CompressionConfig, Config, Message, connect_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::run;

fn compressing() -> Config {
    let compression = CompressionConfig::default().with_takeover(true);
    Config::default().with_compression(compression)
}

async fn start(app: Router) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[test]
fn an_echo() {
    async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
        assert_eq!(upgrade.offered_subprotocols().collect::<Vec<_>>(), ["chat", "chat.v2"]);
        let upgrade = upgrade
            .with_config(compressing())
            .with_header(header::SET_COOKIE, HeaderValue::from_static("a=b"))
            .with_subprotocols(["chat.v3", "chat.v2", "chat"]);
        assert_eq!(upgrade.subprotocol(), Some("chat.v2"));
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(message) = socket.receive().await.unwrap() {
                socket.feed(message).await.unwrap();
            }
            assert_eq!(socket.close_frame(), Some((CloseCode::NORMAL, "")));
        })
    }
    run(async {
        let address = start(Router::new().route("/ws", any(upgrade))).await;
        let url = format!("ws://{address}/ws?x=y");
        let (mut socket, response) = connect_with(&url, compressing(), |request| {
            request.with_subprotocol("chat")?.with_subprotocol("chat.v2")
        })
        .await
        .unwrap();
        assert_eq!(socket.subprotocol(), Some("chat.v2"));
        assert_eq!(response.headers()[header::SET_COOKIE], "a=b");
        assert!(socket.is_compressed());
        for count in [0, 200, 30_000] {
            let words: Vec<_> = (0..count).map(|number: u32| number.to_string()).collect();
            let message = Message::from(words.join(" "));
            socket.send(message.clone()).await.unwrap();
            assert!(socket.receive().await.unwrap().unwrap() == message);
        }
        socket.close(CloseCode::NORMAL, "").await.unwrap();
    });
}

/// The answer of a server to a request without an upgrade in it, and with one that is wrong.
#[test]
fn rejections() {
    async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(|_| async {})
    }
    run(async {
        let address = start(Router::new().route("/ws", any(upgrade))).await;
        for (rest, status) in [
            ("", "426 Upgrade Required"),
            ("Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 8\r\n", "426 "),
            ("Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n", "400 "),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{rest}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            let says_version = answer.contains("sec-websocket-version: 13");
            assert_eq!(says_version, status.starts_with("426"), "{answer}");
        }
    });
}

/// A client that has gone before the answer is told of by the callback.
#[test]
fn failed_upgrades() {
    let (failures, mut failed) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/ws",
        any(move |upgrade: WebSocketUpgrade| async move {
            let failures = failures.clone();
            let response = upgrade
                .on_failed_upgrade(move |error| drop(failures.send(error.to_string())))
                .on_upgrade(|_| async { panic!("nobody was upgraded") });
            // The answer takes so long that the client has gone.
            tokio::time::sleep(Duration::from_millis(100)).await;
            response
        }),
    );
    run(async {
        let address = start(app).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
        assert!(failed.recv().await.is_some());
    });
}
