//! Peers that do not read, or say too much.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::{Backpressure, CloseCode, CloseReason, tuning::ProtocolConfig};
use ringwire_codec::{Error, Limit};
use ringwire_peers::{Client, Got, connect, frame};

use super::{narrow, quiet, round_trip};
use crate::support::process::{ran_alone, resident_len};
use crate::support::{PATIENCE, Server, ms, wait_until};

#[test]
fn never_reading_peer() {
    if ran_alone(never_reading_peer) {
        return;
    }
    const LEN: usize = 1000;
    for policy in [
        Backpressure::Close(CloseCode::TRY_AGAIN_LATER),
        Backpressure::DropNewest,
        Backpressure::DropOldest,
    ] {
        let config = quiet().with_backpressure(policy).with_close_timeout(ms(200));
        let limit = (config.max_queued_len + LEN + 200) as u64;
        let server = Server::echo(config);
        let mut bystander = server.client();
        let bystander_id = server.opened();
        let deaf = narrow(server.addr());
        let deaf_id = server.opened();
        let before = resident_len();
        // A hot topic: 30 MB for each of them.
        let handle = server.handle();
        let payload = vec![7; LEN];
        let mut received = 0;
        for round in 0..30_000 {
            for id in [deaf_id, bystander_id] {
                wait_until("the mailbox has room", || {
                    server.handle().send(id, payload.as_slice()).is_ok()
                });
            }
            if round % 50 == 49 {
                let queued = handle.stats().total().queued_bytes;
                assert!(queued <= limit + 100 * LEN as u64, "{policy:?}: {queued} bytes wait");
                while received <= round {
                    assert_eq!(bystander.binary().len(), LEN);
                    received += 1;
                }
            }
        }
        let grown = resident_len().saturating_sub(before);
        assert!(grown < 256 << 20, "{policy:?}: {grown} bytes");
        let stats = server.stats();
        assert!(stats.messages_dropped > 0, "{policy:?}");
        if matches!(policy, Backpressure::Close(_)) {
            let cause = server.closed();
            assert_eq!(cause.reason, CloseReason::Backpressure);
            assert_eq!(cause.code, Some(CloseCode::TRY_AGAIN_LATER));
        } else {
            assert_eq!(server.stats().open_connections, 2, "{policy:?}");
        }
        drop(deaf);
        wait_until("nothing waits", || server.stats().queued_bytes == 0);
        round_trip(&mut bystander);
    }
}

#[test]
fn never_reading_peer_with_a_deadline() {
    let config =
        quiet().with_backpressure(Backpressure::DropOldest).with_write_stall_timeout(ms(300));
    let server = Server::echo(config);
    let _deaf = narrow(server.addr());
    let id = server.opened();
    let payload = vec![7; 10_000];
    wait_until("it is cut off", || {
        // Whatever the policy, output that does not move for long ends the connection.
        let _ = server.handle().send(id, payload.as_slice());
        server.stats().open_connections == 0
    });
    assert_eq!(server.closed().reason, CloseReason::WriteStall);
}

#[test]
fn control_flood() {
    const COUNT: u32 = 150_000;
    // Within the cap, a client that does not read its pongs.
    let unlimited = ProtocolConfig::default().with_max_control_count(u16::MAX);
    let server = Server::echo(quiet().with_protocol(unlimited));
    let mut deaf = server.client();
    let sent = deaf.stream.try_clone().unwrap();
    let pings: Vec<u8> =
        (0..COUNT).flat_map(|number| frame(0x89, format!("{number:0125}").as_bytes())).collect();
    let writer = thread::spawn(move || (&sent).write_all(&pings));
    let mut most = 0;
    while !writer.is_finished() {
        most = most.max(server.stats().queued_bytes);
        thread::sleep(ms(1));
    }
    writer.join().unwrap().unwrap();
    // What one turn reads may be answered in it; after that, only the newest waits.
    assert!(most <= 256 << 10, "{most} bytes of pongs wait");
    let last = format!("{:0125}", COUNT - 1).into_bytes();
    let mut count = 0;
    loop {
        count += 1;
        if deaf.next() == Got::Pong(last.clone()) {
            break;
        }
    }
    assert!(count < COUNT, "most were never answered");

    // Beyond the cap.
    let server = Server::echo(quiet());
    for flood in [
        frame(0x89, b"ping").repeat(600),
        frame(0x8a, b"pong").repeat(600),
        [frame(0x01, b"").as_slice(), &frame(0x00, b""), &frame(0x80, b"")].concat().repeat(600),
    ] {
        let mut client = server.client();
        client.raw(&flood);
        assert_eq!(client.close_frame().0, 1008);
        assert_eq!(client.end(), Got::Eof);
        drop(client);
        let cause = server.closed();
        let error = Error::LimitExceeded(Limit::ControlCount);
        assert_eq!(cause.reason, CloseReason::Protocol(error));
    }
    // A client may ping now and then for as long as it likes: the count begins anew each second.
    let protocol = ProtocolConfig::default().with_max_control_count(20);
    let server = Server::echo(quiet().with_protocol(protocol));
    let mut client = server.client();
    for _ in 0..30 {
        client.ping(b"");
        assert_eq!(client.next(), Got::Pong(Vec::new()));
        thread::sleep(ms(80));
    }
}

#[test]
fn a_flood_leaves_others_their_latency() {
    let server = Server::echo(quiet());
    let stop = Arc::new(AtomicBool::new(false));
    let addr = server.addr();
    let flooders: Vec<_> = (0..4)
        .map(|kind: usize| {
            let stop = Arc::clone(&stop);
            let burst = [
                frame(0x89, b"ping").repeat(200),
                frame(0x81, b"").repeat(10_000),
                frame(0x82, &[7; 100_000]),
                [frame(0x01, b"a"), frame(0x80, b"b")].concat().repeat(1000),
            ];
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                // It reads, so that it goes on for as long as it is let.
                let mut reader = client.stream.try_clone().expect("the socket can be shared");
                let drain = thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
                while !stop.load(Ordering::Relaxed) {
                    if client.stream.write_all(&burst[kind]).is_err() {
                        client = Client::connect(addr);
                    }
                }
                let _ = client.stream.shutdown(Shutdown::Both);
                drain.join().expect("the reader ends").ok();
            })
        })
        .collect();
    let mut bystander = server.client();
    let mut waits = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        waits.push(round_trip(&mut bystander));
    }
    stop.store(true, Ordering::Relaxed);
    for flooder in flooders {
        flooder.join().unwrap();
    }
    waits.sort();
    // The flood does not end before the answers come. A busy machine may hold one of them up by itself.
    let (usual, slowest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    assert!(usual < Duration::from_secs(2), "{usual:?}");
    assert!(slowest < PATIENCE / 2, "{slowest:?}");
}

#[test]
fn half_open_peer() {
    // The living have that long to answer, on a machine that is busy.
    let config = quiet().with_ping_interval(ms(200)).with_pong_timeout(ms(3000));
    let server = Server::echo(config);
    let mut living = server.client();
    let began = Instant::now();
    let mut dead: Vec<_> = (0..50).map(|_| server.client()).collect();
    for client in &mut dead {
        // It has its last words, and then the machine is gone: nothing comes any more, not even FIN.
        client.answers = false;
    }
    while server.stats().open_connections > 1 {
        assert!(began.elapsed() < PATIENCE, "not in time: the dead are found out");
        // A living one need not say anything but pongs.
        living.next_within(ms(20));
    }
    assert!(began.elapsed() >= ms(3100), "after {:?}", began.elapsed());
    for _ in 0..50 {
        assert_eq!(server.closed().reason, CloseReason::PongTimeout);
    }
    living.send("still here");
    let answer = std::iter::repeat_with(|| living.next()).find(|it| !matches!(it, Got::Ping(_)));
    assert_eq!(answer, Some(Got::Text("still here".into())));
    for client in &mut dead {
        assert_eq!(client.next(), Got::Ping(Vec::new()));
        assert_eq!(client.end(), Got::Eof);
    }

    // Where data is under way, the kernel gives up after TCP_USER_TIMEOUT; adopted sockets get it too.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = connect(listener.local_addr().unwrap());
    let (accepted, _) = listener.accept().unwrap();
    let same = accepted.try_clone().unwrap();
    server.handle().adopt(accepted, Vec::new()).unwrap();
    wait_until("it is adopted", || server.stats().adopted == 1);
    let socket = socket2::SockRef::from(&same);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
    assert!(socket.tcp_nodelay().unwrap());
}
