//! Beside tungstenite, in both roles.

use std::net::{TcpListener, TcpStream};
use std::thread;

use ringwire_tokio::{CloseCode, Config, Message, accept, connect};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message as Other, WebSocket};

use crate::run;

const LENGTHS: [usize; 9] = [0, 1, 125, 126, 4095, 4096, 65_535, 65_536, 300_000];

fn echo(mut socket: WebSocket<TcpStream>) {
    loop {
        match socket.read() {
            Ok(message @ (Other::Text(_) | Other::Binary(_))) => socket.send(message).unwrap(),
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_client_of_a_tungstenite_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        echo(tungstenite::accept(stream).unwrap());
    });
    run(async {
        let mut socket = connect(&url).await.unwrap();
        for len in LENGTHS {
            for message in [Message::from("é".repeat(len / 2)), Message::from(vec![7; len])] {
                socket.send(message.clone()).await.unwrap();
                assert!(socket.receive().await.unwrap().unwrap() == message, "{len}");
                // Again, from memory that is shared.
                socket.feed(message.clone()).await.unwrap();
                socket.ping(b"between").await.unwrap();
                assert!(socket.receive().await.unwrap().unwrap() == message, "{len}");
            }
        }
        socket.close(CloseCode::new(3999), "enough").await.unwrap();
        assert_eq!(socket.close_frame().map(|(code, _)| code), Some(CloseCode::new(3999)));
    });
    serving.join().unwrap();
}

#[test]
fn a_server_of_a_tungstenite_client() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asking = thread::spawn(move || {
            let stream = TcpStream::connect(address).unwrap();
            let (mut socket, _) = tungstenite::client(format!("ws://{address}/"), stream).unwrap();
            for len in LENGTHS {
                for message in [Other::text("é".repeat(len / 2)), Other::binary(vec![7; len])] {
                    socket.send(Other::Ping("ping".into())).unwrap();
                    socket.send(message.clone()).unwrap();
                    let mut pong = false;
                    let reply = loop {
                        match socket.read().unwrap() {
                            Other::Pong(payload) => {
                                assert_eq!(&payload[..], b"ping");
                                pong = true;
                            }
                            reply => break reply,
                        }
                    };
                    assert!(reply == message, "{len}");
                    // It is owed before what is sent later.
                    assert!(pong, "{len}");
                }
            }
            let frame = CloseFrame { code: 1001.into(), reason: "bye".into() };
            socket.close(Some(frame)).unwrap();
            loop {
                match socket.read() {
                    Ok(_) => {}
                    Err(tungstenite::Error::ConnectionClosed) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept(stream).await.unwrap();
        while let Some(message) = socket.receive().await.unwrap() {
            socket.send(message).await.unwrap();
        }
        assert_eq!(socket.close_frame(), Some((CloseCode::GOING_AWAY, "bye")));
        asking.join().unwrap();
        let _ = Config::default();
    });
}
