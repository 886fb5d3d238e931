//! Deadlines: what moves them, what holds them off, and that none is early. What follows from each is in
//! `closes.rs`.

#![expect(clippy::disallowed_methods, reason = "tests wait, and look at the clock")]

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use ringwire::{Backpressure, CloseReason, Config};
use ringwire_peers::{Client, Got, connect, frame, http, request, stays_so_for};

use crate::support::{Server, config, ms, wait_until};

/// No deadlines but those that a test sets.
fn quiet() -> Config {
    config().with_idle_timeout(None).with_write_stall_timeout(None)
}

/// What a peer that chats has between two words. A busy machine holds it up for less.
const SILENCE: Duration = ms(2000);

/// Sends something each 50 ms, for a time that is longer than [`SILENCE`]. What comes meanwhile is given.
fn chat(client: &mut Client, bytes: &[u8]) -> Vec<Got> {
    let mut got = Vec::new();
    let end = Instant::now() + SILENCE + ms(500);
    while Instant::now() < end {
        client.raw(bytes);
        got.extend(client.next_within(ms(50)));
    }
    got
}

#[test]
fn no_deadline_is_early() {
    const LIMIT: Duration = ms(300);
    let cases: [(Config, fn(Client)); 3] = [
        (quiet().with_idle_timeout(LIMIT), |mut client| {
            assert_eq!(client.close_frame().0, 1001);
        }),
        (quiet().with_max_lifetime(LIMIT), |mut client| {
            assert_eq!(client.close_frame().0, 1001);
        }),
        (quiet().with_ping_interval(LIMIT), |mut client| {
            assert_eq!(client.next(), Got::Ping(Vec::new()));
        }),
    ];
    for (config, wait) in cases {
        let server = Server::echo(config);
        let began = Instant::now();
        wait(server.client());
        assert!(began.elapsed() >= LIMIT, "after {:?}", began.elapsed());
    }
    let server = Server::echo(quiet().with_handshake_timeout(LIMIT));
    let began = Instant::now();
    assert_eq!(http(server.addr(), &request()[..20]), "");
    assert!(began.elapsed() >= LIMIT, "after {:?}", began.elapsed());
}

#[test]
fn whatever_is_received_holds_off_the_idle_timeout() {
    let server = Server::echo(quiet().with_idle_timeout(SILENCE));
    let mut client = server.client();
    let got = chat(&mut client, &frame(0x8a, b""));
    assert_eq!(got, [], "an unasked pong is enough");
    // A frame that trickles in is no silence either.
    let slow = frame(0x81, b"0123456789abcdef");
    for byte in &slow {
        client.raw(&[*byte]);
        assert_eq!(client.next_within(ms(120)).filter(|got| !matches!(got, Got::Text(_))), None);
    }
    assert_eq!(client.close_frame(), (1001, "idle".to_owned()));
}

#[test]
fn pings_keep_a_silent_peer() {
    let server = Server::echo(quiet().with_ping_interval(ms(200)).with_pong_timeout(ms(3000)));
    let mut client = server.client();
    // None comes before the last one is answered.
    for _ in 0..4 {
        assert_eq!(client.next(), Got::Ping(Vec::new()));
    }
    client.send("still here");
    let answer = std::iter::repeat_with(|| client.next()).find(|it| !matches!(it, Got::Ping(_)));
    assert_eq!(answer, Some(Got::Text("still here".into())));
}

#[test]
fn there_is_no_ping_while_something_comes() {
    let server = Server::echo(quiet().with_ping_interval(SILENCE));
    let mut client = server.client();
    let got = chat(&mut client, &frame(0x81, b"hello"));
    assert!(got.iter().all(|got| *got == Got::Text("hello".into())), "{got:?}");
}

#[test]
fn anything_received_is_an_answer_to_a_ping() {
    let server = Server::echo(quiet().with_ping_interval(ms(200)).with_pong_timeout(ms(3000)));
    let mut client = server.client();
    client.answers = false;
    for _ in 0..3 {
        assert_eq!(client.next(), Got::Ping(Vec::new()));
        client.send("busy");
        assert_eq!(client.text(), "busy");
    }
}

#[test]
fn a_pause_holds_off_the_idle_timeout() {
    // Also without another deadline whose timer would look again.
    for config in [quiet(), quiet().with_write_stall_timeout(ms(500))] {
        let server =
            Server::start(config.with_idle_timeout(ms(300)), |app| app.on_open(|ctx| ctx.pause()));
        let mut client = server.client();
        let id = server.opened();
        assert_eq!(client.next_within(ms(800)), None, "paused, there is no deadline");
        let resumed = Instant::now();
        server.handle().resume(id).unwrap();
        assert_eq!(client.close_frame(), (1001, "idle".to_owned()));
        assert!(resumed.elapsed() >= ms(300), "the silence begins with the resumption");
        assert_eq!(server.closed().reason, CloseReason::IdleTimeout);
    }
}

#[test]
fn a_pause_holds_off_the_pong_timeout() {
    let config = quiet().with_ping_interval(ms(200)).with_pong_timeout(ms(3000));
    let server = Server::echo(config.with_write_stall_timeout(ms(3100)));
    let mut client = server.client();
    let id = server.opened();
    client.answers = false;
    assert_eq!(client.next(), Got::Ping(Vec::new()));
    server.handle().pause(id).unwrap();
    // The pong comes while the server does not read.
    server.looks();
    client.raw(&frame(0x8a, b""));
    stays_so_for(ms(3900), "it is open", || server.stats().open_connections == 1);
    server.handle().resume(id).unwrap();
    assert_eq!(client.next(), Got::Ping(Vec::new()), "the pong counts, and the next ping comes");
}

#[test]
fn a_slow_reader_does_not_stall() {
    let config = quiet().with_write_stall_timeout(ms(2000)).with_max_queued_len(64 << 20);
    let server = Server::start(config, |app| {
        app.on_message(|ctx, _| {
            let _ = ctx.send(vec![7; 24 << 20].as_slice());
        })
    });
    let mut client = server.client();
    client.send("go");
    // Each read takes some of what waits; all of them take twice the limit.
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..20 {
        thread::sleep(ms(200));
        read += std::io::Read::read(&mut client.stream, &mut buffer).unwrap();
    }
    assert!(read < 24 << 20, "some still waits");
    assert_eq!(server.stats().open_connections, 1);
}

#[test]
fn last_words_have_a_deadline() {
    let server = Server::echo(quiet().with_close_timeout(ms(200)));
    // Neither of them reads, or closes.
    let mut misbehaved = server.client();
    misbehaved.raw(&frame(0xf1, b"reserved bits"));
    let mut refused = connect(server.addr());
    refused.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut served = connect(server.addr());
    served.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    wait_until("all were accepted", || server.stats().accepts == 3);
    wait_until("all are gone", || server.stats().connections == 0);
    assert!(matches!(server.closed().reason, CloseReason::Protocol(_)), "not the deadline");
}

#[test]
fn a_close_behind_much_output_has_a_deadline() {
    let config = quiet().with_close_timeout(ms(300)).with_backpressure(Backpressure::DropNewest);
    let server = Server::start(config, |app| {
        app.on_message(|ctx, _| {
            let _ = ctx.send(vec![7; 16 << 20].as_slice());
            ctx.close(ringwire::CloseCode::NORMAL, "").unwrap();
        })
    });
    let mut client = server.client();
    client.send("go");
    let cause = server.closed();
    assert_eq!(cause.reason, CloseReason::CloseTimeout);
    assert!(cause.unsent_len > 0);
    wait_until("it is gone", || server.stats().connections == 0);
}
