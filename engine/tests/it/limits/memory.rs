//! The budget of memory: who is refused, who is ended, and that all of it is given back.

#![expect(clippy::disallowed_types, reason = "tests own sockets")]

use std::io::Write as _;
use std::net::TcpStream;

use ringwire::{
    CloseCode, CloseReason, Config, Ctx, DriverKind, Message, Response, Router,
    compression::CompressionConfig, on_message, shutdown::Readiness,
};
use ringwire_peers::{Client, Got, Http, connect, get, http, masked, read_answer, request};

use crate::support::app::Seen;
use crate::support::{PATIENCE, Server, config, driver, ms, wait_until};

const MIB: usize = 1 << 20;

/// What is kept back of a message that has begun, in bytes.
const KEPT_LEN: usize = 64;

/// Peers that begin a message of a mebibyte each, and keep the end of it back.
fn begin_messages(server: &Server, count: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..count).map(|_| server.client()).collect();
    for client in &mut clients {
        client.raw(&masked(0x82, MIB as u64, &vec![7; MIB - KEPT_LEN]));
    }
    clients
}

fn used(server: &Server) -> usize {
    server.handle().stats().memory.used_len
}

/// What connections hold, without the tables.
fn held(server: &Server) -> u64 {
    let stats = server.stats();
    stats.memory_input + stats.memory_output + stats.memory_tls + stats.deflate_memory
}

fn monitored(config: Config) -> Server {
    Server::with_handler(config, &["127.0.0.1:0"], |_, context| {
        let echo = on_message(|ctx, message| ctx.send(message));
        Router::new()
            .monitoring(context.handle())
            .get("/hello", |_| Response::text("hello\n"))
            .post("/upload", |request| Response::text(request.body().len().to_string()))
            .websocket("/", echo)
    })
}

#[test]
fn nobody_is_let_in_while_memory_is_short() {
    let server = monitored(config().with_max_memory(8 * MIB));
    let get = |path: &str| {
        http(server.addr(), get(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
    };
    assert!(get("/readyz").ends_with("ready\n"));
    let mut open = server.client();
    let mut kept = Http::connect(server.addr());
    assert_eq!(kept.get("/hello").status(), 200);
    // Seven mebibytes are the mark, with the tables beside the messages.
    let mut fat = begin_messages(&server, 7);
    wait_until("the server is not ready", || get("/readyz").starts_with("HTTP/1.1 503 "));
    assert!(get("/readyz").ends_with("short of memory\n"));
    assert_eq!(server.handle().readiness(), Readiness::ShortOfMemory);

    // A worker looks at it once a tick.
    wait_until("its worker knows", || get("/hello").starts_with("HTTP/1.1 503 "));
    let refusals = server.stats().memory_refusals;
    let mut refused = connect(server.addr());
    refused.write_all(request().as_bytes()).expect("it goes");
    let answer = read_answer(&mut refused);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 10"), "{answer}");
    let answer = get("/hello");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 10"), "{answer}");
    assert!(answer.ends_with("short of memory\n"), "{answer}");
    // RFC 9110 §9.3.2: without content.
    let head = http(server.addr(), "HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(kept.get("/hello").status(), 503);
    let body = format!("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\nabc");
    assert!(http(server.addr(), body).starts_with("HTTP/1.1 503 "));
    for path in ["/metrics", "/stats", "/healthz"] {
        assert!(get(path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    assert!(get("/metrics").contains("ringwire_memory_budget_bytes 8388608"));
    assert_eq!(server.stats().memory_refusals, refusals + 5);
    open.send("those who are in stay");
    assert_eq!(open.text(), "those who are in stay");
    assert_eq!(server.stats().memory_sheds, 0);

    // One mebibyte less is not enough, three are.
    fat.pop().expect("there are seven").reset();
    wait_until("it is gone", || server.stats().open_connections == 7);
    assert!(get("/readyz").starts_with("HTTP/1.1 503 "));
    fat.truncate(3);
    wait_until("the server is ready", || get("/readyz").starts_with("HTTP/1.1 200 "));
    wait_until("its worker knows", || get("/hello").starts_with("HTTP/1.1 200 "));
    let mut late = server.client();
    late.send("let in");
    assert_eq!(late.text(), "let in");
    // What was begun before is whole now.
    let mut last = fat.pop().expect("there are three");
    last.raw(&masked(0x82, MIB as u64, &[7; KEPT_LEN])[14..]);
    assert_eq!(last.binary().len(), MIB);
}

/// Messages for as many bytes as were asked for.
fn flood(ctx: &mut Ctx<'_, u32>, message: Message<'_>) {
    let Message::Text(text) = message else { return };
    let Ok(len) = text.parse::<usize>() else {
        let _ = ctx.send(message);
        return;
    };
    let payload = vec![b'x'; 32 << 10];
    for _ in 0..len / payload.len() {
        let _ = ctx.send(payload.as_slice());
    }
}

/// A peer that asks for `len` bytes and reads none of them.
fn never_reads(server: &Server, len: usize) -> Client {
    let mut client = server.client();
    client.send(len.to_string().as_str());
    client
}

#[test]
fn those_that_hold_most_are_ended_first() {
    let config = config()
        .with_max_memory(40 * MIB)
        .with_max_queued_len(64 * MIB)
        .with_write_stall_timeout(None);
    let server = Server::start(config, |app| app.without_messages().on_message(flood));
    let mut healthy: Vec<_> = (0..20).map(|_| server.client()).collect();
    let mut readers: Vec<_> = (0..2).map(|_| never_reads(&server, 6 * MIB)).collect();
    wait_until("they hold something", || server.stats().memory_output > 4 << 20);
    assert_eq!(server.stats().memory_sheds, 0);
    // Whatever the kernel takes of it, this is more than the budget; the others are below their share.
    let greedy = [never_reads(&server, 60 * MIB)];
    wait_until("it is ended", || server.stats().memory_sheds == 1);
    wait_until("all is well", || server.handle().readiness() == Readiness::Ready);
    let stats = server.stats();
    assert_eq!(stats.closes[CloseReason::Memory], 1);
    let cause = server.closed();
    assert_eq!(cause.reason, CloseReason::Memory);
    assert!(cause.unsent_len > 24 * MIB, "{}", cause.unsent_len);
    for client in &mut healthy {
        client.send("still here");
        assert_eq!(client.text(), "still here");
    }
    for client in &mut readers {
        for _ in 0..(6 * MIB) >> 15 {
            assert_eq!(client.binary().len(), 32 << 10);
        }
        client.send("and still here");
        assert_eq!(client.text(), "and still here");
    }
    assert_eq!(server.stats().memory_sheds, 1);
    drop(greedy);
}

#[test]
fn whoever_has_little_in_flight_is_told() {
    let server = Server::echo(config().with_max_memory(4 * MIB));
    let mut clients = begin_messages(&server, 6);
    wait_until("all have said it, and some are ended", || {
        let stats = server.stats();
        let whole = stats.memory_input / (MIB - KEPT_LEN) as u64;
        let enough = stats.memory_sheds > 0 && used(&server) < 4 * MIB;
        enough && stats.memory_sheds + whole == 6
    });
    let ended = server.stats().memory_sheds;
    assert!((1..6).contains(&ended), "{ended} of six");
    wait_until("they are gone", || server.stats().closes[CloseReason::Memory] == ended);
    let mut told = 0;
    wait_until("they are told", || {
        let heard = clients.iter_mut().filter_map(|client| client.next_within(ms(10)));
        told += heard.filter(|got| format!("{got:?}").contains("1013")).count() as u64;
        told >= ended
    });
    assert_eq!(told, ended);
}

#[test]
fn other_workers_give_up_what_they_hold_as_well() {
    let config = config().with_io_workers(2).with_max_memory(8 * MIB);
    let server = Server::echo(config.with_assignment(ringwire::tuning::Assignment::LeastLoaded));
    let clients = begin_messages(&server, 12);
    wait_until("both have shed", || {
        server.handle().stats().workers.iter().all(|worker| worker.memory_sheds > 0)
    });
    wait_until("less is held", || used(&server) < 8 * MIB);
    drop(clients);
    wait_until("nothing is held", || held(&server) == 0);
}

#[test]
fn what_a_peer_goes_on_to_say_while_it_is_paused_is_counted() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, message| {
            if message.as_bytes() == b"pause" {
                ctx.pause();
            }
        })
    });
    let mut client = server.client();
    client.send("pause");
    let paused = server.find("a message", |id, seen| matches!(seen, Seen::Text(_)).then_some(id));
    client.stream.set_nonblocking(true).expect("a socket");
    let message = masked(0x82, 1000, &[7; 1000]);
    // More than is ever read of a connection that rests.
    wait_until("the socket takes no more", || client.stream.write(&message.repeat(100)).is_err());
    if driver() == DriverKind::Uring {
        // It receives on until so much is held.
        wait_until("it is counted", || held(&server) >= 64 << 10);
    }
    server.handle().resume(paused).expect("the worker takes it");
    // But for the message that the end of a write has cut.
    wait_until("it is handed over", || held(&server) < 16 << 10);
    server.handle().pause(paused).expect("the worker takes it");
    let _ = client.stream.write(&message.repeat(1000));
    client.reset();
    // While it rests, nobody looks whether the peer is there.
    server.handle().resume(paused).expect("the worker takes it");
    // What is held is published at the end of the turn, the connection is gone within it.
    wait_until("all is given back", || server.stats().connections == 0 && held(&server) == 0);
}

#[test]
fn a_connection_gives_all_back_however_it_ends() {
    let compression = CompressionConfig::dedicated().with_threshold(1);
    let server = Server::start(
        config().with_compression(compression).with_max_queued_len(64 * MIB),
        |app| app.without_messages().on_message(flood),
    );
    let mut polite = Client::offering(server.addr(), ringwire_codec::deflate::Offer::default());
    polite.send_compressed("compressed, by its own compressor");
    assert_eq!(polite.text(), "compressed, by its own compressor");
    assert!(held(&server) > 0, "its compressors are counted");
    let unread = never_reads(&server, 6 * MIB);
    wait_until("its queue is counted", || server.stats().memory_output > 1 << 20);
    let unfinished = begin_messages(&server, 1);
    wait_until("its message is counted", || server.stats().memory_input > MIB as u64 / 2);
    let mut uploads = connect(server.addr());
    uploads
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nbeginning")
        .expect("it goes");
    let mut asks: TcpStream = connect(server.addr());
    asks.write_all(b"GET / HT").expect("it goes");
    let mut wrong = server.client();
    wrong.raw(&[0xff; 64]);

    polite.leave();
    unread.reset();
    drop((unfinished, uploads, asks, wrong));
    wait_until("nothing is held", || held(&server) == 0);
    let mut client = never_reads(&server, 6 * MIB);
    server.handle().close(server.opened(), CloseCode::NORMAL, "").ok();
    client.send("to be cut off");
    let handle = server.handle();
    handle.shutdown(ms(100));
    server.join().expect("it ends");
    let stats = handle.stats().total();
    assert_eq!((stats.memory_input, stats.memory_output, stats.memory_tls), (0, 0, 0));
}

#[test]
fn the_default_is_half_of_what_there_is() {
    let server = Server::echo(config());
    let budget = server.handle().stats().memory.budget_len.expect("the machine has memory");
    assert!(budget > 16 * MIB && budget < usize::MAX / 4, "{budget}");
}

/// What the kernel has of output on a server's sockets, in bytes of payload, and on how many of them: `tx_queue` of
/// proc_pid_net(5), which has those that are closed and not delivered too.
fn undelivered(server: &Server) -> (usize, usize) {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel has TCP");
    let port = format!("{:04X}", server.addr().port());
    let queues = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_its = fields.get(1)?.ends_with(&format!(":{port}"));
        let (queue, _) = fields.get(4)?.split_once(':')?;
        usize::from_str_radix(queue, 16).ok().filter(|len| is_its && *len > 0)
    });
    queues.fold((0, 0), |(len, count), queue| (len + queue, count + 1))
}

/// Subscribers that never read have next to nothing in the process, and a full socket each in the kernel.
#[test]
fn what_the_kernel_holds_is_held_to_the_budget() {
    const PUBLICATIONS: usize = 6;
    let config = config()
        .with_max_memory(16 * MIB)
        .with_max_queued_len(4 * MIB)
        .with_write_stall_timeout(None)
        .with_ping_interval(None);
    let server = Server::start(config, |app| {
        app.without_messages().on_message(|ctx, message| {
            if message.as_bytes() == b"subscribe" {
                assert_eq!(ctx.subscribe("news"), Ok(true));
            }
            let _ = ctx.send(message);
        })
    });
    let mut healthy = server.client();
    let mut subscribers: Vec<_> = (0..300).map(|_| server.client()).collect();
    for subscriber in &mut subscribers {
        subscriber.send("subscribe");
        assert_eq!(subscriber.text(), "subscribe");
    }
    for _ in 0..PUBLICATIONS {
        let news = Message::Binary(&[7; 60_000]);
        server.handle().publish("news", news).expect("there is such a topic");
    }
    wait_until("some are ended", || server.stats().memory_sheds > 0);
    wait_until("all of it is within the budget", || {
        let (len, _) = undelivered(&server);
        let stats = server.stats();
        let kernel = usize::try_from(stats.memory_kernel).expect("it fits");
        // The kernel's own count is more than the payload: what stands beside it, and pages that are not full.
        kernel >= len && used(&server) < 16 * MIB && stats.open_connections == stats.connections
    });
    // The table is read in pieces, and may have a socket twice that moves in it meanwhile.
    wait_until("only open ones hold something, and not the healthy one", || {
        let (_, count) = undelivered(&server);
        u64::try_from(count).is_ok_and(|count| count < server.stats().connections)
    });
    healthy.send("served");
    assert_eq!(healthy.text(), "served");

    // Who reads now gets all of it, or was cut off.
    let is_served = |reader: &mut Client| {
        (0..PUBLICATIONS).all(|_| matches!(reader.next_within(PATIENCE), Some(Got::Binary(_))))
    };
    let served = subscribers.iter_mut().map(is_served).filter(|is_served| *is_served).count();
    // A worker that is slow may have ended some of them in the meantime.
    let stats = server.stats();
    let ended = stats.closes[CloseReason::Memory];
    assert!((50..290).contains(&ended), "{ended} of 300: {stats:?}");
    assert_eq!(served as u64 + ended, 300);
    wait_until("nothing is held", || undelivered(&server) == (0, 0));
    wait_until("and that is known", || server.stats().memory_kernel == 0);
}

/// What nobody takes is not kept for minutes, as the kernel does with what was sent and not delivered.
#[test]
fn who_is_given_up_leaves_nothing_in_the_kernel() {
    let config = config().with_write_stall_timeout(ms(500)).with_max_queued_len(64 * MIB);
    let server = Server::start(config, |app| app.without_messages().on_message(flood));
    let mut stalled = never_reads(&server, 6 * MIB);
    assert_eq!(server.closed().reason, CloseReason::WriteStall);
    wait_until("nothing is", || undelivered(&server) == (0, 0));
    let last = std::iter::from_fn(|| stalled.next_within(PATIENCE))
        .find(|got| !matches!(got, Got::Binary(_)));
    assert_eq!(last, Some(Got::Reset));
}
