//! What came before the end of a peer's stream is answered, and a clean close is no reset.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, and send when the server has answered"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use ringwire::{CloseReason, Config};
use support::client::{connect, frame, request};
use support::{Server, config, ms};

fn server() -> Server {
    Server::echo(
        config().with_protocol(ringwire_codec::Config::default().with_max_message_len(8 << 20)),
    )
}

fn upgraded(server: &Server) -> TcpStream {
    let mut stream = connect(server.addr());
    stream.write_all(request().as_bytes()).expect("it is connected");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the head comes");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// All until the end of the stream. A reset is an error.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("FIN, no reset");
    all
}

/// A masked frame as the server sends it: without its mask.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let len = payload.len();
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..=125), _) => out.push(len),
        (_, Ok(len)) => {
            out.push(126);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend(u64::try_from(len).expect("a usize fits").to_be_bytes());
        }
    }
    out.extend(payload);
    out
}

/// RFC 9293 §3.6: FIN ends one direction.
#[test]
fn a_message_before_a_half_close_is_answered() {
    let server = server();
    for _ in 0..5 {
        let mut stream = upgraded(&server);
        stream.write_all(&frame(0x81, b"hello")).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut stream), unmasked(0x81, b"hello"));
        assert_eq!(server.closed().reason, CloseReason::EndOfStream);
    }
}

#[test]
fn forty_thousand_messages_before_a_half_close_are_all_answered() {
    let server = server();
    let mut stream = upgraded(&server);
    let mut writer = stream.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let messages = frame(0x82, &[7; 100]).repeat(40_000);
        writer.write_all(&messages).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // It begins to read late, so that replies wait in the server.
    thread::sleep(ms(200));
    let replies = rest(&mut stream);
    sender.join().unwrap();
    assert_eq!(replies.len(), 40_000 * unmasked(0x82, &[7; 100]).len());
    assert_eq!(server.closed().unsent_len, 0);
}

/// RFC 6455 §7.1.1: the sending side is shut down first, and what still comes is read and dropped.
#[test]
fn what_follows_a_close_frame_loses_neither_reply_nor_close() {
    let server = server();
    let late = [frame(0x89, b""), frame(0x81, b"late"), frame(0x88, &[3, 0xe8])];
    for len in [5, 300_000, 4 << 20] {
        for late in &late {
            let payload = vec![b'x'; len];
            let mut stream = upgraded(&server);
            stream.write_all(&frame(0x82, &payload)).unwrap();
            stream.write_all(&frame(0x88, b"\x03\xe8bye")).unwrap();
            thread::sleep(ms(20));
            // The server may have ended by then, but has not reset it.
            stream.write_all(late).unwrap();
            thread::sleep(ms(50));
            let mut expected = unmasked(0x82, &payload);
            expected.extend(unmasked(0x88, b"\x03\xe8bye"));
            assert!(rest(&mut stream) == expected, "{len} bytes, then {late:?}");
            drop(stream);
            let cause = server.closed();
            assert_eq!(cause.reason, CloseReason::Peer);
            assert!(cause.is_clean());
        }
    }
}

/// The application hears of the end when both close frames and FIN are out, whenever the peer's FIN comes.
#[test]
fn a_lingering_peer_keeps_no_application_waiting_and_is_closed_in_time() {
    let settings: Config = config().with_close_timeout(ms(500));
    let server = Server::echo(settings);
    let mut stream = upgraded(&server);
    stream.write_all(&frame(0x88, &[3, 0xe8])).unwrap();
    let cause = server.closed();
    assert!(cause.is_clean());
    assert_eq!(rest(&mut stream), unmasked(0x88, &[3, 0xe8]));
    // It closes nothing itself, and the server does not wait for ever.
    support::wait_until("the socket is closed", || server.stats().connections == 0);
}

/// A close that may take as long as it likes is no socket that stays for ever.
#[test]
fn a_connection_lingers_for_a_limited_time_whatever_the_close_timeout() {
    let server = Server::echo(config().with_close_timeout(ms(0)));
    let mut stream = upgraded(&server);
    stream.write_all(&frame(0x88, &[3, 0xe8])).expect("it is connected");
    assert!(server.closed().is_clean());
    assert_eq!(rest(&mut stream), unmasked(0x88, &[3, 0xe8]));
    // A shutdown waits for a second of it at most.
    let begun = std::time::Instant::now();
    server.handle().shutdown(ms(60_000));
    server.join().unwrap();
    assert!(begun.elapsed() < ms(7_000), "{:?}", begun.elapsed());
}
