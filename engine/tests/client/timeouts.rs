//! Every time limit, and peers that are dead.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringwire::CloseCode;
use ringwire::client::{Error, ErrorKind, Event, Waiting};

use crate::peer::{builder, drain, frame, read_frame, refusal_of, upgrading, url};
use crate::support::{Server, config, ms};

fn timed_out(error: &Error) -> Waiting {
    assert_eq!(error.kind(), ErrorKind::Timeout);
    match error {
        Error::Timeout(waiting) => *waiting,
        other => panic!("{other}"),
    }
}

#[test]
fn receiving_takes_as_long_as_it_may_and_can_go_on() {
    let server = Server::echo(config());
    let mut client = builder().with_read_timeout(ms(100)).connect(&url(server.addr())).unwrap();
    let begin = Instant::now();
    assert_eq!(timed_out(&client.receive().unwrap_err()), Waiting::Receive);
    assert!(begin.elapsed() >= ms(100));
    assert_eq!(timed_out(&client.receive_timeout(ms(50)).unwrap_err()), Waiting::Receive);
    assert_eq!(timed_out(&client.receive_timeout(Duration::ZERO).unwrap_err()), Waiting::Receive);
    assert_eq!(timed_out(&client.receive_event(Duration::ZERO).unwrap_err()), Waiting::Receive);
    client.send("hello").unwrap();
    assert_eq!(client.receive_timeout(ms(5_000)).unwrap(), Some("hello".into()));
    client.send("again").unwrap();
    thread::sleep(ms(200));
    assert_eq!(client.receive_timeout(Duration::ZERO).unwrap(), Some("again".into()));
    client.close(CloseCode::NORMAL, "").unwrap();
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
fn silence_does_not_count_while_nobody_receives() {
    let server = Server::echo(config());
    let mut client = builder()
        .with_ping_interval(ms(100))
        .with_peer_timeout(ms(1_500))
        .connect(&url(server.addr()))
        .unwrap();
    thread::sleep(ms(2_000));
    assert_eq!(timed_out(&client.receive_timeout(ms(1)).unwrap_err()), Waiting::Receive);
    client.send("hello").unwrap();
    assert_eq!(client.receive().unwrap(), Some("hello".into()));
    thread::sleep(ms(2_000));
    // Many short calls add up to silence that is answered.
    for _ in 0..200 {
        assert_eq!(timed_out(&client.receive_timeout(ms(10)).unwrap_err()), Waiting::Receive);
    }
    thread::sleep(ms(2_000));
    client.close(CloseCode::NORMAL, "").unwrap();
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
