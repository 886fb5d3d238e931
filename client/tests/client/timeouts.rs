//! Every time limit, and peers that are dead.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringwire_client::{Error, ErrorKind, Event, Waiting};
use ringwire_peers::ms;
use ringwire_peers::server::{drain, frame, read_frame, upgrading};

use crate::peer::{builder, refusal_of, url};

fn timed_out(error: &Error) -> Waiting {
    assert_eq!(error.kind(), ErrorKind::Timeout);
    match error {
        Error::Timeout(waiting) => *waiting,
        other => panic!("{other}"),
    }
}

#[test]
fn a_message_that_never_ends_does_not_hold_a_receiver() {
    let address = upgrading(|mut stream| {
        stream.write_all(&frame(0x01, b"x")).unwrap();
        while stream.write_all(&frame(0x00, b"x")).is_ok() {
            thread::sleep(ms(1));
        }
    });
    let mut client = builder().connect(&url(address)).unwrap();
    let begin = Instant::now();
    assert_eq!(timed_out(&client.receive_timeout(ms(200)).unwrap_err()), Waiting::Receive);
    assert!(begin.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_peer_that_takes_nothing() {
    let (_until_the_end, end) = mpsc::channel::<()>();
    let address = upgrading(move |_stream| {
        let _ = end.recv();
    });
    let mut client = builder().with_write_timeout(ms(200)).connect(&url(address)).unwrap();
    let begin = Instant::now();
    let error = client.send(vec![0; 64 << 20].as_slice()).unwrap_err();
    assert_eq!(timed_out(&error), Waiting::Send);
    assert!(begin.elapsed() >= ms(200));
    assert!(!client.is_open());
    assert_eq!(timed_out(&client.send("more").unwrap_err()), Waiting::Send);
    assert_eq!(timed_out(&client.receive().unwrap_err()), Waiting::Send);
}

#[test]
fn pings_go_out_after_silence_and_an_answer_is_a_sign_of_life() {
    let address = upgrading(|mut stream| {
        for _ in 0..3 {
            assert_eq!(read_frame(&mut stream), (0x89, Vec::new()));
            stream.write_all(&frame(0x8a, b"")).unwrap();
        }
        // From here on it is dead.
        drain(stream);
    });
    let mut client = builder()
        .with_ping_interval(ms(100))
        .with_peer_timeout(ms(600))
        .connect(&url(address))
        .unwrap();
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(client.receive_event(ms(5_000)).unwrap(), Some(Event::Pong(Vec::new())));
    }
    let error = client.receive().unwrap_err();
    assert_eq!(timed_out(&error), Waiting::Peer);
    assert!(begin.elapsed() >= ms(900), "three intervals and the timeout");
    assert_eq!(timed_out(&client.send("x").unwrap_err()), Waiting::Peer);
}

#[test]
fn connecting_has_a_limit() {
    // A listener with a full backlog drops what else comes, and the client waits.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    let full = (0..16).any(|_| match std::net::TcpStream::connect_timeout(&address, ms(300)) {
        Ok(stream) => {
            held.push(stream);
            false
        }
        Err(_) => true,
    });
    assert!(full, "the backlog fills up");
    let begin = Instant::now();
    let error = refusal_of(&builder().with_connect_timeout(ms(300)), address);
    assert_eq!(timed_out(&error), Waiting::Connect);
    assert!(begin.elapsed() >= ms(300) && begin.elapsed() < Duration::from_secs(8));
}
