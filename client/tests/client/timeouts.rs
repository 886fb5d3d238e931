//! Every time limit, and peers that are dead.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringwire_client::{Error, ErrorKind, Event, Waiting};
use ringwire_peers::server::{drain, frame, read_frame, upgrading};
use ringwire_peers::{PATIENCE, ms};

use crate::peer::{builder, refusal_of, url};

/// How long a peer may be silent: more than one takes that is there, on a machine that stalls for a second or two.
const TOO_LONG: Duration = Duration::from_secs(3);

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
    let mut client = builder().connect(url(address)).unwrap();
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
    let mut client = builder().with_write_timeout(ms(200)).connect(url(address)).unwrap();
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
    let begin = Instant::now();
    let mut client = builder()
        .with_ping_interval(ms(100))
        .with_peer_timeout(TOO_LONG)
        .connect(url(address))
        .unwrap();
    for _ in 0..3 {
        assert_eq!(client.receive_event(PATIENCE).unwrap(), Some(Event::Pong(Vec::new())));
    }
    let error = client.receive().unwrap_err();
    assert_eq!(timed_out(&error), Waiting::Peer);
    assert!(begin.elapsed() >= ms(300) + TOO_LONG, "three intervals and the timeout");
    assert_eq!(timed_out(&client.send("x").unwrap_err()), Waiting::Peer);
}

/// With a thread of its own: pings are answered and sent, and a dead peer is found, while nobody receives.
#[test]
fn a_heartbeat_while_nobody_receives() {
    let (sender, ended) = mpsc::channel();
    let address = upgrading(move |mut stream| {
        stream.write_all(&frame(0x81, b"first")).unwrap();
        stream.write_all(&frame(0x89, b"are you there?")).unwrap();
        stream.write_all(&frame(0x82, b"second")).unwrap();
        assert_eq!(read_frame(&mut stream), (0x8a, b"are you there?".to_vec()));
        for _ in 0..3 {
            assert_eq!(read_frame(&mut stream), (0x89, Vec::new()));
            stream.write_all(&frame(0x8a, b"")).unwrap();
        }
        // From here on it is dead, until the client has gone.
        drain(stream);
        sender.send(()).unwrap();
    });
    let begin = Instant::now();
    let mut client = builder()
        .with_ping_interval(ms(100))
        .with_peer_timeout(TOO_LONG)
        .with_heartbeat_thread(true)
        .connect(url(address))
        .unwrap();
    ended.recv_timeout(PATIENCE).unwrap();
    assert!(begin.elapsed() >= ms(300) + TOO_LONG, "three intervals and the timeout");
    assert_eq!(client.receive().unwrap(), Some("first".into()));
    assert_eq!(client.receive().unwrap(), Some(b"second"[..].into()));
    assert_eq!(timed_out(&client.receive().unwrap_err()), Waiting::Peer);
    assert_eq!(timed_out(&client.send("x").unwrap_err()), Waiting::Peer);
}

/// What comes in ahead is bounded, nothing of it is lost, and pings go out all the same.
#[test]
fn a_heartbeat_ahead_of_a_slow_receiver() {
    const COUNT: u32 = 20_000;
    let (sender, pinged) = mpsc::channel();
    let address = upgrading(move |mut stream| {
        let mut writing = stream.try_clone().unwrap();
        let writer = thread::spawn(move || {
            for number in 0..COUNT {
                let text = format!("{number:>100}");
                writing.write_all(&frame(0x81, text.as_bytes())).unwrap();
            }
        });
        for _ in 0..6 {
            assert_eq!(read_frame(&mut stream), (0x89, Vec::new()));
        }
        sender.send(()).unwrap();
        writer.join().unwrap();
        drain(stream);
    });
    let mut client = builder()
        .with_ping_interval(ms(700))
        .with_peer_timeout(TOO_LONG)
        .with_heartbeat_thread(true)
        .connect(url(address))
        .unwrap();
    // The peer answers no ping for longer than the timeout, but it is not read from either.
    pinged.recv_timeout(PATIENCE).unwrap();
    for number in 0..COUNT {
        let text = format!("{number:>100}");
        assert_eq!(client.receive().unwrap(), Some(text.into()));
    }
    assert_eq!(timed_out(&client.receive().unwrap_err()), Waiting::Peer);
}

/// The thread holds nothing that would keep the connection.
#[test]
fn a_heartbeat_ends_with_its_client() {
    let (sender, seen) = mpsc::channel();
    let address = upgrading(move |mut stream| {
        let close = read_frame(&mut stream);
        assert_eq!(drain(stream), b"");
        sender.send(close).unwrap();
    });
    let client = builder().with_heartbeat_thread(true).connect(url(address)).unwrap();
    drop(client);
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), (0x88, 1000_u16.to_be_bytes().to_vec()));
}

#[test]
fn no_time_at_all_is_no_setting() {
    let zero = Duration::ZERO;
    for (builder, setting) in [
        (builder().with_connect_timeout(zero), "connect_timeout"),
        (builder().with_handshake_timeout(zero), "handshake_timeout"),
        (builder().with_write_timeout(zero), "write_timeout"),
        (builder().with_ping_interval(zero), "ping_interval"),
        (builder().with_peer_timeout(zero), "peer_timeout"),
        (builder().with_peer_timeout(ms(1)), "peer_timeout"),
    ] {
        let error = builder.connect("ws://127.0.0.1:1/").unwrap_err();
        assert!(matches!(error, Error::Setting { setting: found, .. } if found == setting));
    }
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
