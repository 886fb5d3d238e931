//! Reading at the application's pace: pause and resume, and the budget of a turn.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests share counters with the application, and keep it busy"
)]

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ringwire::{Accept, CloseCode, CloseReason, Ctx};
use ringwire_peers::{Client, frame, wait_within};

use crate::support::app::Seen;
use crate::support::{PATIENCE, Server, config, ms, wait_until};

fn numbers(range: std::ops::Range<usize>) -> Vec<u8> {
    range.flat_map(|number| frame(0x81, number.to_string().as_bytes())).collect()
}

/// The reported messages are exactly these numbers, in order.
fn expect_numbers(server: &Server, range: std::ops::Range<usize>) {
    for number in range {
        server.find("the next message", |_, seen| match seen {
            Seen::Text(text) => {
                assert_eq!(text, number.to_string());
                Some(())
            }
            _ => None,
        });
    }
}

#[test]
fn nothing_is_handed_over_while_paused() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, message| {
            if message.as_bytes() == b"4" {
                ctx.pause();
            }
        })
    });
    let mut client = server.client();
    let id = server.opened();
    // In the same read as the message that pauses, in later ones, and cut.
    let mut wire = numbers(0..3000);
    let cut = wire.split_off(wire.len() - 2);
    client.raw(&wire);
    client.raw(&cut);
    expect_numbers(&server, 0..5);
    assert_eq!(server.next_within(ms(100)), None, "the handler paused");
    client.raw(&numbers(3000..3010));
    server.handle().resume(id).unwrap();
    expect_numbers(&server, 5..3010);
    server.handle().pause(id).unwrap();
    wait_until("the pause is in force", || {
        client.raw(&numbers(0..1));
        server.next_within(ms(20)).is_none()
    });
    server.handle().resume(id).unwrap();
    expect_numbers(&server, 0..1);
    client.raw(&frame(0x88, b""));
    assert_eq!(server.closed().reason, CloseReason::Peer);
}

#[test]
fn a_handler_that_pauses_at_each_message() {
    let server = Server::start(config(), |app| app.on_message(|ctx, _| ctx.pause()));
    let mut client = server.client();
    let id = server.opened();
    let handle = server.handle();
    client.raw(&numbers(0..200));
    for number in 0..200 {
        expect_numbers(&server, number..number + 1);
        handle.resume(id).unwrap();
    }
}

#[test]
fn a_pause_may_be_undone_at_once() {
    let server = Server::start(config(), |app| {
        app.on_open(|ctx| {
            ctx.pause();
            ctx.resume();
        })
        .on_message(|ctx, message| {
            ctx.pause();
            let _ = ctx.send(message);
            ctx.resume();
        })
    });
    let mut client = server.client();
    client.raw(&numbers(0..100));
    for number in 0..100 {
        assert_eq!(client.text(), number.to_string());
    }
}

#[test]
fn a_paused_peer_is_held_up_by_tcp() {
    const LEN: usize = 64 << 10;
    let server = Server::start(config(), |app| {
        app.without_messages().on_open(|ctx| ctx.pause()).on_message(|ctx, message| {
            let expected = *ctx.state();
            assert_eq!(message.as_bytes(), vec![u8::try_from(expected % 251).unwrap(); LEN]);
            *ctx.state_mut() += 1;
        })
    });
    let mut client = server.client();
    let id = server.opened();
    client.stream.set_write_timeout(Some(ms(200))).unwrap();
    // What neither socket takes is written after the pause.
    let mut sent = 0;
    let mut rest = Vec::new();
    while rest.is_empty() {
        let wire = frame(0x82, &vec![u8::try_from(sent % 251).unwrap(); LEN]);
        rest = write_some(&mut client, &wire);
        sent += 1;
    }
    assert!(sent * LEN < 256 << 20, "the kernel holds the peer up");
    let before = server.stats();
    assert_eq!(before.messages_received, 0);
    assert!(before.bytes_received <= 256 << 10, "{} bytes were read", before.bytes_received);

    server.handle().resume(id).unwrap();
    client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    client.raw(&rest);
    client.close(1000, "");
    assert_eq!(client.close_frame().0, 1000);
    assert_eq!(server.stats().messages_received, sent as u64);
    assert_eq!(server.closed().reason, CloseReason::Peer);
}

/// Writes until the socket is full, and gives what is left.
fn write_some(client: &mut Client, mut bytes: &[u8]) -> Vec<u8> {
    while !bytes.is_empty() {
        match client.stream.write(bytes) {
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    bytes.to_vec()
}

#[test]
fn the_end_waits_behind_what_is_unread() {
    for close in [true, false] {
        let server = Server::start(config(), |app| app.on_message(|ctx, _| ctx.pause()));
        let mut client = server.client();
        let id = server.opened();
        client.raw(&numbers(0..10));
        expect_numbers(&server, 0..1);
        if close {
            client.raw(&frame(0x88, &4000_u16.to_be_bytes()));
        }
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.next_within(ms(100)), None, "the end is not seen before its turn");
        for number in 1..10 {
            server.handle().resume(id).unwrap();
            expect_numbers(&server, number..number + 1);
        }
        server.handle().resume(id).unwrap();
        let reason = if close { CloseReason::Peer } else { CloseReason::EndOfStream };
        assert_eq!(server.closed().reason, reason);
    }
}

#[test]
fn a_busy_peer_does_not_starve_another() {
    const COUNT: usize = 6000;
    let handled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&handled);
    let server = Server::start(config().with_messages_per_turn(4), move |app| {
        let counter = Arc::clone(&counter);
        app.without_messages().on_message(move |ctx, message| {
            if message.as_bytes() == b"urgent" {
                let _ = ctx.send(message);
            } else {
                counter.fetch_add(1, Ordering::Relaxed);
                // All that the busy peer sends at once keeps the handler for three seconds.
                thread::sleep(std::time::Duration::from_micros(500));
            }
        })
    });
    let mut busy = server.client();
    let mut other = server.client();
    busy.raw(&numbers(0..COUNT));
    wait_until("the busy peer is served", || handled.load(Ordering::Relaxed) > 0);
    for _ in 0..5 {
        let before = handled.load(Ordering::Relaxed);
        other.send("urgent");
        assert_eq!(other.text(), "urgent");
        let meanwhile = handled.load(Ordering::Relaxed) - before;
        // Two turns, and what the client itself takes to wake up: on a busy machine perhaps a second.
        assert!(meanwhile < COUNT / 2, "{meanwhile} messages of the busy peer came first");
    }
    wait_within(2 * PATIENCE, "all are handled", || handled.load(Ordering::Relaxed) == COUNT);
}

#[test]
fn a_small_budget_keeps_the_order() {
    let server = Server::echo(config().with_messages_per_turn(1).with_receive_buffer_len(512));
    let mut client = server.client();
    client.raw(&numbers(0..2000));
    for number in 0..2000 {
        assert_eq!(client.text(), number.to_string());
    }
    client.leave();
}

#[test]
fn parts_wait_for_the_resumption_too() {
    let server = Server::start(config().with_receive_buffer_len(4096), |app| {
        app.on_request(|_| Accept::new(0).with_streaming().into()).on_part(|ctx, _| ctx.pause())
    });
    let mut client = server.client();
    let id = server.opened();
    let payload: Vec<u8> = (0..=250).cycle().take(50_000).collect();
    client.raw(&frame(0x82, &payload));
    let mut whole = Vec::new();
    let mut ended = false;
    while !ended {
        server.find("a part", |_, seen| match seen {
            Seen::Part { bytes, is_last, .. } => {
                whole.extend(bytes);
                ended = is_last;
                Some(())
            }
            _ => None,
        });
        assert_eq!(server.next_within(ms(5)), None, "it is paused");
        server.handle().resume(id).unwrap();
    }
    assert!(whole == payload);
}

/// A handler that sends on at each `on_drain`, to a peer that takes all of it at once, has one call in a turn: between
/// two of them others are served.
#[test]
fn a_handler_that_streams_takes_turns() {
    const DRAINS: usize = 2000;

    let drains = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&drains);
    let server = Server::start(config().with_high_water(1024), move |app| {
        let count = Arc::clone(&count);
        let send = |ctx: &mut Ctx<'_, u32>| {
            ctx.send(&[0; 2048]).unwrap();
        };
        app.on_open(send).on_drain(move |ctx| match count.fetch_add(1, Ordering::Relaxed) {
            ..DRAINS => send(ctx),
            _ => ctx.close(CloseCode::NORMAL, "").unwrap(),
        })
    });
    let mut client = server.client();
    for _ in 0..=DRAINS {
        assert_eq!(client.binary().len(), 2048);
    }
    assert_eq!(client.close_frame().0, 1000);
    assert_eq!(drains.load(Ordering::Relaxed), DRAINS + 1);
    let turns = server.stats().turns;
    assert!(turns >= DRAINS as u64, "{DRAINS} calls in {turns} turns");
}
