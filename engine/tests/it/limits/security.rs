//! What hostile peers have done to other servers, one test for each row that concerns sockets. What needs none is
//! tested with the codec; running out of descriptors has a process of its own in `fd_exhaustion.rs`.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, wait, and look at the clock"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::StatusCode;
use ringwire::{
    Backpressure, CloseCode, CloseReason, Config, Response, admission::OriginPolicy,
    handshake::HeadLimits, tuning::ProtocolConfig,
};
use ringwire_codec::{Error, Limit};

use crate::support::app::Seen;
use crate::support::client::{
    Client, Got, connect, frame, http, masked, plain_request, read_answer, request,
};
use crate::support::process::{ran_alone, resident_len};
use crate::support::{PATIENCE, Server, config, ms, wait_until};

/// No deadlines but those that a test sets.
fn quiet() -> Config {
    config().with_idle_timeout(Duration::ZERO).with_write_stall_timeout(Duration::ZERO)
}

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// A client whose socket takes as little as the kernel allows.
fn narrow(addr: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a socket can be made");
    socket.set_recv_buffer_size(1024).expect("SO_RCVBUF can be set");
    socket.connect(&addr.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time above zero");
    Client::upgrade(stream, &plain_request())
}

/// What a message costs everyone else: an echo, timed.
fn round_trip(client: &mut Client) -> Duration {
    let began = Instant::now();
    client.send("ping");
    assert_eq!(client.text(), "ping");
    began.elapsed()
}

// Handshakes

#[test]
fn handshake_deadline() {
    const COUNT: usize = 500;
    let limit = ms(500);
    let server = Server::echo(quiet().with_handshake_timeout(limit));
    let mut early = server.client();
    let began = Instant::now();
    let mut slow: Vec<_> = (0..COUNT).map(|_| connect(server.addr())).collect();
    let head = request();
    // A byte each 50 ms would take seven seconds, and a deadline for each read would never pass.
    let mut fresh = Vec::new();
    for byte in head.as_bytes() {
        for stream in &mut slow {
            // Those whose time is up are closed.
            let _ = stream.write_all(&[*byte]);
        }
        let mut client = server.client();
        round_trip(&mut client);
        fresh.push(client);
        if server.stats().handshake_failures == COUNT as u64 {
            break;
        }
        thread::sleep(ms(50));
    }
    let took = began.elapsed();
    assert!(took >= limit, "after {took:?}");
    assert!(took < ms(50) * u32::try_from(head.len()).unwrap(), "after {took:?}");
    for stream in &mut slow {
        assert!(!matches!(stream.read(&mut [0; 64]), Ok(len) if len > 0), "nothing to be read");
    }
    // The deadline ends with the upgrade.
    round_trip(&mut early);
    for client in &mut fresh {
        round_trip(client);
    }
    let stats = server.stats();
    assert_eq!(stats.handshake_failures, COUNT as u64);
    assert_eq!(stats.connections, 1 + fresh.len() as u64);
}

#[test]
fn handshake_header_linear() {
    let limits = HeadLimits::default();
    assert_eq!((limits.max_line_len, limits.max_head_len), (8 << 10, 16 << 10));
    let server = Server::echo(config());
    let with = |headers: &str| request().replacen("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"), 1);
    let long_line = with(&format!("X: {}", "x".repeat(8 << 10)));
    let long_head = with(&vec![format!("X: {}", "x".repeat(1000)); 17].join("\r\n"));
    let many = with(&vec!["X: y"; 100].join("\r\n"));
    for head in [long_line, long_head, many] {
        // Also where it does not end: the limit is found before that.
        for head in [head.as_str(), head.trim_end()] {
            assert_eq!(status_of(&http(server.addr(), head)), "431");
        }
    }
    // Byte by byte, as much as may be.
    let head = with(&vec![format!("X: {}", "x".repeat(1000)); 15].join("\r\n"));
    let mut stream = connect(server.addr());
    for byte in head.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut client = Client::await_upgrade(stream, &plain_request());
    round_trip(&mut client);
}

#[test]
fn handshake_missing_headers() {
    let server = Server::echo(config());
    let whole = request();
    let mut lines: Vec<&str> = whole.trim_end().split("\r\n").collect();
    let first = lines.remove(0);
    assert_eq!(lines.len(), 5);
    let head = |lines: &[String]| format!("{first}\r\n{}\r\n\r\n", lines.join("\r\n"));
    let refused = |what: &str, lines: &[String]| {
        let answer = http(server.addr(), head(lines));
        assert!(status_of(&answer).starts_with('4'), "{what} {lines:?}: {answer}");
    };
    // Every subset but the whole.
    for subset in 0..(1 << lines.len()) - 1 {
        let kept = lines.iter().enumerate().filter(|(index, _)| subset & (1 << index) != 0);
        refused("missing", &kept.map(|(_, line)| (*line).to_owned()).collect::<Vec<_>>());
    }
    for index in 0..lines.len() {
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let name = changed[index].split_once(':').unwrap().0.to_owned();
        changed[index] = format!("{name}:");
        refused("empty", &changed);
        // Lists may come in several lines (RFC 9110 §5.3), the others may not.
        if !["Upgrade", "Connection"].contains(&name.as_str()) {
            changed[index] = lines[index].to_owned();
            changed.push(lines[index].to_owned());
            refused("doubled", &changed);
        }
    }
    assert_eq!(server.stats().handshakes, 0);
    round_trip(&mut server.client());
}

#[test]
fn handshake_smuggling() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let server = Server::start(config(), move |app| {
        let calls = Arc::clone(&counter);
        app.on_http(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            Response::new(StatusCode::OK)
        })
    });
    let smuggled = "GET /admin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let with = |headers: &str| request().replacen("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"), 1);
    let len = smuggled.len();
    for head in [
        with(&format!("Content-Length: {len}")),
        with(&format!("Content-Length: {len}\r\nTransfer-Encoding: chunked")),
        with(&format!("Content-Length: {len}\r\nContent-Length: {len}")),
        with("Content-Length: +5"),
        with("Transfer-Encoding: xchunked"),
        with("Transfer-Encoding: chunked"),
        with("Transfer-Encoding : chunked"),
        with("X: y\nTransfer-Encoding: chunked"),
        request().replace("\r\n", "\n"),
        request().replacen("Host: localhost", " folded\r\nHost: localhost", 1),
    ] {
        let answer = http(server.addr(), format!("{head}{smuggled}"));
        assert_eq!(status_of(&answer), "400", "{head}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer: {answer}");
    }
    // A refusal for any other cause, and a last request, end the connection as well.
    let old = request().replacen("Version: 13", "Version: 8", 1);
    let answer = http(server.addr(), format!("{old}{smuggled}"));
    assert_eq!((status_of(&answer), answer.matches("HTTP/1.1").count()), ("426", 1));
    assert_eq!(calls.load(Ordering::Relaxed), 0, "what followed was dropped");
    let answer = http(server.addr(), smuggled.repeat(2));
    assert_eq!((status_of(&answer), answer.matches("HTTP/1.1").count()), ("200", 1));
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    // What follows a good one is frames: here one with reserved bits, without a mask.
    let mut stream = connect(server.addr());
    stream.write_all(format!("{}{smuggled}", request()).as_bytes()).unwrap();
    let mut client = Client::await_upgrade(stream, &plain_request());
    assert_eq!(client.close_frame().0, 1002);
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

// Frames

#[test]
fn declared_length_no_allocation() {
    if ran_alone(declared_length_no_allocation) {
        return;
    }
    let server = Server::echo(config());
    let mut bystander = server.client();
    for len in [(1 << 20) + 1, 1 << 40, (1 << 63) - 1] {
        let mut client = server.client();
        client.raw(&masked(0x82, len, b""));
        assert_eq!(client.close_frame().0, 1009, "{len} bytes");
        assert_eq!(client.end(), Got::Eof);
    }
    let mut client = server.client();
    client.raw(&masked(0x82, 1 << 63, b""));
    assert_eq!(client.close_frame().0, 1002, "the most significant bit");
    // A fragment that is within the limit, and its continuation beyond it.
    let mut client = server.client();
    client.raw(&frame(0x02, &[7; 1000]));
    client.raw(&masked(0x80, (1 << 20) - 999, b""));
    assert_eq!(client.close_frame().0, 1009);
    round_trip(&mut bystander);

    // Where so much is allowed, it is believed only as it comes.
    let roomy = Server::echo(quiet().with_max_message_len(1 << 30));
    let before = resident_len();
    let mut clients: Vec<_> = (0..100).map(|_| roomy.client()).collect();
    for client in &mut clients {
        client.raw(&masked(0x82, 1 << 30, &[7; 20_000]));
    }
    wait_until("all has arrived", || roomy.stats().bytes_received > 100 * 20_000);
    let grown = resident_len().saturating_sub(before);
    // 100 GiB were declared.
    assert!(grown < 256 << 20, "{grown} bytes");
    round_trip(&mut roomy.client());
}

#[test]
fn fragments_forever() {
    let protocol =
        ProtocolConfig::default().with_max_message_len(300_000).with_max_fragment_count(1000);
    let server = Server::echo(config().with_protocol(protocol));
    for (len, count) in [(0, 1000), (1, 1000), (64 << 10, 4)] {
        let mut client = server.client();
        client.raw(&frame(0x02, &vec![7; len]));
        for _ in 0..count {
            client.raw(&frame(0x00, &vec![7; len]));
        }
        assert_eq!(client.close_frame().0, 1009, "fragments of {len} bytes");
        assert_eq!(client.end(), Got::Eof);
    }
    // The counts begin anew with each message.
    let mut client = server.client();
    let message = [frame(0x02, &[1; 100]), frame(0x00, &[2; 100]), frame(0x80, &[3; 100])].concat();
    for _ in 0..20 {
        client.raw(&message.repeat(100));
        for _ in 0..100 {
            assert_eq!(client.binary().len(), 300);
        }
    }
    client.leave();
    let causes = std::iter::repeat_with(|| server.closed().reason);
    let too_long = |limit| CloseReason::Protocol(Error::LimitExceeded(limit));
    assert_eq!(
        causes.take(4).collect::<Vec<_>>(),
        [
            too_long(Limit::FragmentCount),
            too_long(Limit::FragmentCount),
            too_long(Limit::MessageLen),
            CloseReason::Peer,
        ]
    );
}

#[test]
fn length_encoding() {
    let server = Server::echo(config());
    let longest = masked(0x82, 70_000, &[7; 4]);
    let frames = [frame(0x81, b"text"), frame(0x82, &[7; 200]), longest, frame(0x89, b"ping")];
    let mut count = 0;
    for frame in frames {
        for cut in 1..frame.len().min(20) {
            let mut client = server.client();
            client.raw(&frame[..cut]);
            client.stream.shutdown(Shutdown::Write).unwrap();
            client.end();
            count += 1;
        }
    }
    wait_until("all are gone", || server.stats().connections == 0);
    assert_eq!(server.stats().closes.total(), count);
    for bytes in [
        masked(0x82, 1 << 63, b""),
        // A length of 5 in 16 bits, one of 500 in 64.
        vec![0x82, 0xfe, 0, 5, 1, 2, 3, 4],
        vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 1, 0xf4, 1, 2, 3, 4],
    ] {
        let mut client = server.client();
        client.raw(&bytes);
        assert_eq!(client.close_frame().0, 1002, "{bytes:x?}");
    }
}

#[test]
fn reserved_bits() {
    let server = Server::echo(config());
    let unmasked = vec![0x81, 2, b'h', b'i'];
    let fragmented_ping = frame(0x09, b"");
    let long_ping = frame(0x89, &[7; 126]);
    let mut wrong = vec![unmasked, fragmented_ping, long_ping];
    wrong.extend([0xc1, 0xa1, 0x91].map(|first| frame(first, b"x")));
    wrong.extend([0x83, 0x87, 0x8b, 0x8f].map(|first| frame(first, b"x")));
    for bytes in wrong {
        let mut client = server.client();
        client.raw(&bytes);
        assert_eq!(client.close_frame().0, 1002, "{bytes:x?}");
        assert_eq!(client.end(), Got::Eof);
    }
}

#[test]
fn control_payload_exact() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, message| ctx.ping(message.as_bytes()).unwrap())
    });
    let mut client = server.client();
    for len in 0..=125 {
        let payload: Vec<u8> = (1..=len).rev().collect();
        client.ping(&payload);
        assert_eq!(client.next(), Got::Pong(payload.clone()));
        client.send(payload.as_slice());
        assert_eq!(client.next(), Got::Ping(payload));
    }
    for reason in ["", "é", &"x".repeat(123)] {
        let mut client = server.client();
        client.close(4321, reason);
        assert_eq!(client.close_frame(), (4321, reason.to_owned()));
    }
}

#[test]
fn close_codes() {
    let server = Server::echo(config());
    let answer_to = |body: &[u8]| {
        let mut client = server.client();
        client.answers = false;
        client.raw(&frame(0x88, body));
        let answer = client.close_frame().0;
        assert_eq!(client.end(), Got::Eof);
        answer
    };
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4999]
    {
        assert_eq!(answer_to(&u16::to_be_bytes(code)), code);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(answer_to(&u16::to_be_bytes(code)), 1002, "{code}");
    }
    assert_eq!(answer_to(&[]), 1005);
    assert_eq!(answer_to(&[3]), 1002, "half a code");
    assert_eq!(answer_to(&[3, 0xe8, 0xff]), 1007, "a reason that is not UTF-8");
    assert_eq!(answer_to(&[3, 0xe8, 0xc3]), 1007, "a reason that ends in a character");
}

#[test]
fn utf8_incremental() {
    let server = Server::echo(config());
    let fails_after = |pieces: &[Vec<u8>]| {
        let mut client = server.client();
        for piece in pieces {
            client.raw(piece);
        }
        let (code, _) = client.close_frame();
        assert_eq!(client.end(), Got::Eof);
        code
    };
    // Most of the frame has not come, and never will.
    assert_eq!(fails_after(&[masked(0x81, 1000, b"so far so good \xff")]), 1007);
    assert_eq!(fails_after(&[masked(0x81, 1000, b"\xc0\xaf")]), 1007, "overlong");
    assert_eq!(fails_after(&[masked(0x81, 1000, b"\xed\xa0")]), 1007, "half of a surrogate");
    assert_eq!(fails_after(&[masked(0x81, 1000, b"\xf4\x90")]), 1007, "beyond U+10FFFF");
    // Across fragments: the first ends inside a character.
    let begin = frame(0x01, b"caf\xc3");
    assert_eq!(fails_after(&[begin.clone(), masked(0x00, 1000, b"x")]), 1007);
    assert_eq!(fails_after(&[begin, frame(0x80, b"")]), 1007, "the end of the message");
    // Across reads: nothing is wrong until the last of these bytes.
    let mut client = server.client();
    let wire = masked(0x81, 1000, b"\xf0\x9f\x98x");
    for byte in &wire[..wire.len() - 1] {
        client.raw(&[*byte]);
        assert_eq!(client.next_within(ms(5)), None);
    }
    client.raw(&wire[wire.len() - 1..]);
    assert_eq!(client.close_frame().0, 1007);
    // A close frame between does not matter to what is under way, and binary may be anything.
    let mut client = server.client();
    client.send(b"\xff\xfe".as_slice());
    assert_eq!(client.binary(), b"\xff\xfe");
}

// Load

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
    let mut slowest = Duration::ZERO;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        slowest = slowest.max(round_trip(&mut bystander));
    }
    stop.store(true, Ordering::Relaxed);
    for flooder in flooders {
        flooder.join().unwrap();
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[test]
fn half_open_peer() {
    let config = quiet().with_ping_interval(ms(200)).with_pong_timeout(ms(200));
    let server = Server::echo(config);
    let mut living = server.client();
    let mut dead: Vec<_> = (0..50).map(|_| server.client()).collect();
    for client in &mut dead {
        // It has its last words, and then the machine is gone: nothing comes any more, not even FIN.
        client.answers = false;
    }
    let began = Instant::now();
    while server.stats().open_connections > 1 {
        assert!(began.elapsed() < PATIENCE, "not in time: the dead are found out");
        // A living one need not say anything but pongs.
        living.next_within(ms(20));
    }
    assert!(began.elapsed() >= ms(300), "after {:?}", began.elapsed());
    for _ in 0..50 {
        assert_eq!(server.closed().reason, CloseReason::PongTimeout);
    }
    round_trip(&mut living);
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

// Last words

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

/// Scripts of foreign pages are kept out, however their origin is dressed up.
#[test]
fn origin_policy() {
    let ask = |server: &Server, origin: &str| {
        let request = request().replace("\r\n\r\n", &format!("\r\n{origin}\r\n\r\n"));
        let mut stream = connect(server.addr());
        stream.write_all(request.as_bytes()).expect("the request goes out");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("the server answers");
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    let listed = OriginPolicy::list([
        "https://example.org",
        "https://*.example.org",
        "https://xn--bcher-kva.example",
    ])
    .expect("good patterns");
    let server = Server::echo(config().with_origin_policy(listed.clone()));
    for origin in [
        "https://example.org",
        "https://EXAMPLE.org:443",
        "https://a.b.example.org",
        "https://xn--bcher-kva.example",
    ] {
        assert_eq!(ask(&server, &format!("Origin: {origin}")), "101", "{origin}");
    }
    let foreign = [
        "http://example.org",
        "https://example.org:8443",
        "https://evilexample.org",
        "https://.example.org",
        "https://example.org.evil.net",
        "https://example.org@evil.net",
        "https://evil.net@a.example.org",
        "https://evil.net/.example.org",
        "https://xn--bcher-kva.example.evil.net",
        "null",
        "",
    ];
    for origin in foreign {
        assert_eq!(ask(&server, &format!("Origin: {origin}")), "403", "{origin}");
    }
    assert_eq!(server.stats().origin_refusals, foreign.len() as u64);
    assert_eq!(ask(&server, "Origin: https://b\u{fc}cher.example"), "400", "no origin at all");
    let twice = "Origin: https://example.org\r\nOrigin: https://evil.net";
    assert_eq!(ask(&server, twice), "400");
    // Whoever is no browser sends none.
    assert_eq!(ask(&server, "X-Other: 1"), "101");
    let strict = config().with_origin_policy(listed).with_requires_origin(true);
    assert_eq!(ask(&Server::echo(strict), "X-Other: 1"), "403");

    let server = Server::echo(config().with_origin_policy(OriginPolicy::Same));
    assert_eq!(ask(&server, "Origin: http://localhost"), "101");
    for origin in ["http://localhost:81", "http://evil.localhost", "null"] {
        assert_eq!(ask(&server, &format!("Origin: {origin}")), "403", "{origin}");
    }
    let server = Server::echo(config());
    assert_eq!(ask(&server, "Origin: https://anyone.example"), "101", "open by default");
}
