//! Clients that come, talk and go in every way at once, on several workers: afterwards nothing is left of them,
//! and each that was open was closed once.

#![expect(
    clippy::disallowed_types,
    reason = "clients own sockets and share the list of connections"
)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use ringwire::{Backpressure, CloseCode, ConnId};
use ringwire_peers::{Client, connect, frame, masked, request};
use ringwire_seeds::Random;

use crate::support::app::Seen;
use crate::support::{Server, config, ms, wait_until};

/// One client's life. The server may end it at any time, so that nothing said here is sure to be taken.
fn live(addr: SocketAddr, random: &mut Random) {
    let mut stream = connect(addr);
    let head = request();
    match random.below(10) {
        0 => return,
        1 => {
            let cut = random.below(head.len());
            let _ = stream.write_all(&head.as_bytes()[..cut]);
            return;
        }
        2 => {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nand more");
            let _ = stream.read(&mut [0; 1000]);
            return;
        }
        3 => {
            // Everything at once, and gone.
            let _ = stream.write_all(&[head.as_bytes(), &frame(0x81, b"eager")].concat());
            return;
        }
        _ => {}
    }
    let _ = stream.write_all(head.as_bytes());
    let client = Client::speaking(stream);
    let mut stream = client.stream.try_clone().expect("the socket can be shared");
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..random.below(8) {
        let bytes = match random.below(9) {
            0 => frame(0x89, b"ping"),
            1 => frame(0x82, &vec![7; 100_000]),
            2 => frame(0x01, b"begun and"),
            3 => frame(0x80, b" ended"),
            4 => frame(0x82, b"").repeat(500),
            5 => masked(0x82, 5000, b"cut"),
            6 => frame(0x88, b""),
            _ => frame(0x81, b"hello"),
        };
        let _ = stream.write_all(&bytes);
        if random.below(2) == 0 {
            let _ = stream.set_read_timeout(Some(ms(1 + random.below(5) as u64)));
            let _ = stream.read(&mut buffer);
        }
    }
    match random.below(3) {
        0 => client.reset(),
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.set_read_timeout(Some(ms(20)));
            while matches!(stream.read(&mut buffer), Ok(len) if len > 0) {}
        }
        _ => {}
    }
}

#[test]
fn nothing_is_left_of_anybody() {
    const THREADS: u64 = 4;
    const LIVES: usize = 300;
    let open = Arc::new(Mutex::new(Vec::<ConnId>::new()));
    let list = Arc::clone(&open);
    let config = config()
        .with_io_workers(2)
        .with_handshake_timeout(ms(300))
        .with_close_timeout(ms(200))
        .with_ping_interval(ms(200))
        .with_pong_timeout(ms(200))
        .with_write_stall_timeout(ms(300))
        .with_max_lifetime(ms(3000))
        .with_messages_per_turn(16)
        .with_backpressure(Backpressure::DropOldest);
    let server = Server::start(config, move |app| {
        let open = Arc::clone(&list);
        app.without_messages().on_open(move |ctx| {
            open.lock().expect("nobody panics with it").push(ctx.id());
        })
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let addr = server.addr();
        let clients: Vec<_> = (1..=THREADS)
            .map(|seed| {
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    (0..LIVES).for_each(|_| live(addr, &mut random));
                })
            })
            .collect();
        // Meanwhile, the application does as it likes with whoever is or was there.
        let (handle, open, stop) = (server.handle(), &open, &stop);
        scope.spawn(move || {
            let mut random = Random::new(42);
            while !stop.load(Ordering::Relaxed) {
                let id = {
                    let open = open.lock().expect("nobody panics with it");
                    let recent = open.iter().rev().take(20).collect::<Vec<_>>();
                    recent.get(random.below(recent.len().max(1))).map(|id| **id)
                };
                let Some(id) = id else { continue };
                // A full mailbox is no matter.
                let _ = match random.below(6) {
                    0 => handle.close(id, CloseCode::NORMAL, "chosen"),
                    1 => handle.pause(id),
                    2 => handle.send(id, vec![7; 300_000].as_slice()),
                    3 => handle.send(id, "news"),
                    _ => handle.resume(id),
                };
                thread::yield_now();
            }
        });
        for client in clients {
            client.join().expect("a client's life ends");
        }
        stop.store(true, Ordering::Relaxed);
    });
    wait_until("the last has been accepted", || server.stats().accepts == THREADS * LIVES as u64);
    // It is counted among the connections later in the same turn.
    server.looks();
    let seen = server.drained_by_id();
    let mut calls: HashMap<ConnId, (u32, u32)> = HashMap::new();
    for (id, seen) in seen {
        let (opens, closes) = calls.entry(id).or_default();
        assert_eq!(*closes, 0, "on_close is the last call");
        match seen {
            Seen::Open => *opens += 1,
            Seen::Close(_) => *closes += 1,
            _ => assert_eq!(*opens, 1, "on_open is the first call"),
        }
    }
    assert!(calls.values().all(|calls| *calls == (1, 1)), "each was opened and closed once");
    wait_until("the last figures are in", || server.stats().queued_bytes == 0);
    let stats = server.stats();
    assert_eq!((stats.connections, stats.open_connections), (0, 0));
    assert_eq!(stats.accepts, THREADS * LIVES as u64);
    assert_eq!(stats.handshakes, calls.len() as u64);
    assert!(stats.handshakes > LIVES as u64, "many were open");
    assert_eq!(stats.closes.total(), stats.handshakes);
    assert_eq!(stats.accepts, stats.handshakes + stats.handshake_failures + stats.http_requests);
}
