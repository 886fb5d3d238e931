//! What a peer is told before its connection ends, though it goes on sending.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;

use http::StatusCode;
use ringwire::Response;
use ringwire_peers::{Got, connect, frame, masked, read_answer, request};

use super::status_of;
use crate::support::app::Seen;
use crate::support::{Server, config};

/// Sends all of it whatever happens, and then FIN.
fn flood(stream: &TcpStream, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    let stream = stream.try_clone().expect("the socket can be shared");
    thread::spawn(move || {
        (&stream).write_all(&bytes).expect("the server reads on, and drops it");
        stream.shutdown(Shutdown::Write).expect("the connection stands");
    })
}

#[test]
fn last_words_reach_a_peer_that_sends_on() {
    const FLOOD_LEN: usize = 16 << 20;
    let server = Server::start(config(), |app| {
        app.on_request(|_| Response::new(StatusCode::FORBIDDEN).into())
            .on_http(|_| Response::new(StatusCode::NOT_FOUND))
    });
    for (head, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (request(), "403"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 16777216\r\n\r\n".to_owned(), "413"),
    ] {
        let mut stream = connect(server.addr());
        let mut bytes = head.into_bytes();
        bytes.resize(bytes.len() + FLOOD_LEN, b'x');
        let flood = flood(&stream, bytes);
        // It looks at the answer only when it has sent everything.
        flood.join().unwrap();
        assert_eq!(status_of(&read_answer(&mut stream)), status);
    }

    let server = Server::echo(config());
    for (bytes, code) in [
        (masked(0x82, FLOOD_LEN as u64, &vec![7; FLOOD_LEN]), 1009),
        (frame(0xf1, b"").into_iter().chain(vec![7; FLOOD_LEN]).collect(), 1002),
    ] {
        let mut client = server.client();
        let flood = flood(&client.stream, bytes);
        flood.join().unwrap();
        assert_eq!(client.close_frame().0, code);
        assert_eq!(client.end(), Got::Eof);
    }
    let seen = server.drained();
    assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Close(_))).count(), 2);
}
