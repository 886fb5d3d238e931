//! The load against servers in this process: the floor, and tungstenite as an independent one.
#![expect(clippy::disallowed_types, reason = "a blocking server is the simplest other side")]

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringwire::compression::CompressionConfig;
use ringwire::{Config, Ctx, Server, on_message, tuning::Pinning};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use super::errors::Failure;
use super::*;
use crate::floor::EpollFloor;
use crate::own_server::OwnServer;
use crate::tls::TlsArgs;

const LOCALHOST: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn plan(target: Target) -> Plan {
    let load = LoadArgs {
        connections: 20,
        in_flight: 4,
        size: 300,
        duration: Duration::from_secs(1),
        warmup: Duration::from_millis(50),
        threads: 2,
        connect_concurrency: 8,
        connect_timeout: Duration::from_secs(5),
        ..LoadArgs::default()
    };
    let server = Some(Account::Process(std::process::id()));
    Plan { target, load, tls: None, server, show_progress: false }
}

fn websocket(address: SocketAddr) -> Target {
    Target::from_url(&format!("ws://{address}/")).unwrap()
}

/// Runs `load` beside a floor, which lives as long.
fn with_floor(buffer_len: usize, load: impl FnOnce(SocketAddr)) {
    let mut floor = EpollFloor::bind(LOCALHOST.into(), buffer_len).unwrap();
    let address = floor.local_addr().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| floor.run(&stop));
        load(address);
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
    });
}

/// A thread for each connection that gives it to `serve`; the threads end with their connections.
fn serve_with(
    serve: impl Fn(&mut WebSocket<TcpStream>) -> tungstenite::Result<()> + Copy + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while serve(&mut socket).is_ok() {}
            });
        }
    });
    address
}

fn check(report: &Report) {
    assert_eq!(report.errors, [].into(), "{report:?}");
    assert_eq!(report.opened, 20);
    assert!(report.messages >= 80, "{report:?}");
    let latency = report.latency_us.unwrap();
    assert!(latency.p50 > 0.0 && latency.p50 <= latency.p99 && latency.p99 <= latency.max);
    assert!(report.server.unwrap().cpu_us_per_message.unwrap() > 0.0);
    assert!(report.generator.cpu_us_per_message.unwrap() > 0.0);
    assert!(report.connects_per_second > 0.0);
}

#[test]
fn raw_echo() {
    with_floor(64 << 10, |address| check(&run(&plan(Target::Raw(address))).unwrap()));
}

#[test]
fn raw_echo_through_full_sockets_and_a_small_buffer() {
    with_floor(1000, |address| {
        let mut plan = plan(Target::Raw(address));
        plan.load.size = 400_000;
        plan.load.connections = 3;
        plan.load.in_flight = 8;
        plan.load.duration = Duration::from_secs(1);
        let report = run(&plan).unwrap();
        assert_eq!(report.errors, [].into());
        assert!(report.messages > 24, "{report:?}");
    });
}

#[test]
fn websocket_echo() {
    let address = serve_with(|socket| {
        let message = socket.read()?;
        socket.send(message)
    });
    for (size, text) in [(0, false), (1, true), (300, true), (300, false), (70_000, false)] {
        let mut plan = plan(websocket(address));
        (plan.load.size, plan.load.text) = (size, text);
        check(&run(&plan).unwrap());
    }
}

#[test]
fn pings_between_echoes_are_answered() {
    let address = serve_with(|socket| {
        let message = socket.read()?;
        if message.is_binary() {
            socket.send(Message::Ping(vec![7; 40].into()))?;
            let pong = loop {
                match socket.read()? {
                    Message::Pong(pong) => break pong,
                    queued => socket.send(queued)?,
                }
            };
            assert_eq!(&pong[..], [7; 40]);
            socket.send(message)?;
        }
        Ok(())
    });
    let mut plan = plan(websocket(address));
    plan.load.in_flight = 1;
    check(&run(&plan).unwrap());
}

#[test]
fn errors_are_told_by_kind() {
    let swapped = serve_with(|socket| {
        let message = socket.read()?;
        socket.send(match message {
            Message::Binary(bytes) => Message::Binary([&bytes[1..], &bytes[..1]].concat().into()),
            other => other,
        })
    });
    let text = serve_with(|socket| {
        socket.read()?;
        socket.send(Message::text("x".repeat(300)))
    });
    let closing = serve_with(|socket| {
        socket.read()?;
        socket.close(Some(CloseFrame { code: CloseCode::Policy, reason: "no".into() }))
    });
    let silent = serve_with(|socket| {
        socket.read()?;
        Ok(())
    });
    let doubled = serve_with(|socket| {
        let message = socket.read()?;
        socket.send(message.clone())?;
        socket.send(message)
    });
    let reordered = serve_with(|socket| {
        let (first, second) = (socket.read()?, socket.read()?);
        socket.send(second)?;
        socket.send(first)
    });
    let vanishing = serve_with(|socket| {
        socket.read()?;
        socket.get_ref().shutdown(Shutdown::Write)?;
        Err(tungstenite::Error::ConnectionClosed)
    });
    let nobody = {
        let listener = TcpListener::bind(LOCALHOST).unwrap();
        listener.local_addr().unwrap()
    };
    let cases = [
        (swapped, "reply payload mismatch"),
        (text, "reply header mismatch"),
        (closing, "close frame 1008"),
        (nobody, "connect refused"),
        (silent, "unanswered"),
        (doubled, "reply payload mismatch"),
        (reordered, "reply payload mismatch"),
    ];
    for (address, kind) in cases {
        let mut plan = plan(websocket(address));
        plan.load.duration = Duration::from_millis(2200);
        let report = run(&plan).unwrap();
        assert_eq!(report.errors, [(kind.to_owned(), 20)].into());
        assert!(!report.is_clean());
    }
    // What was unread when it closed may reset the connection.
    let report = run(&plan(websocket(vanishing))).unwrap();
    let ends = ["unexpected end", "reset"].map(|kind| report.errors.get(kind).unwrap_or(&0));
    assert_eq!(ends.into_iter().sum::<u64>(), 20, "{report:?}");
}

#[test]
fn refused_upgrade_and_deaf_server_are_told() {
    with_floor(1000, |address| {
        let report = run(&plan(websocket(address))).unwrap();
        assert_eq!(report.errors, [("handshake invalid".to_owned(), 20)].into());
    });
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let mut plan = plan(websocket(listener.local_addr().unwrap()));
    plan.load.connect_timeout = Duration::from_millis(200);
    let report = run(&plan).unwrap();
    assert_eq!(report.errors, [("connect timeout".to_owned(), 20)].into());
}

#[test]
fn shares_cover_all_connections() {
    let mut plan = plan(Target::Raw(LOCALHOST.into()));
    for (connections, threads) in [(1, 4), (10, 3), (20, 2), (7, 7)] {
        (plan.load.connections, plan.load.threads) = (connections, threads);
        let all: Vec<u32> = plan.shares().into_iter().flatten().collect();
        assert_eq!(all, (0..connections).collect::<Vec<_>>());
    }
}

fn compressing_server(compression: CompressionFlag) -> OwnServer {
    let demand = Demand { connections: 20, payload_len: 400_000, compression, ..Demand::default() };
    OwnServer::for_tests(demand, false)
}

#[test]
fn compressed_echo() {
    for compression in [CompressionFlag::Shared, CompressionFlag::Dedicated] {
        let own = compressing_server(compression);
        for (size, payload) in [
            (0, Payload::Noise),
            (1, Payload::Noise),
            (300, Payload::Json),
            (20_000, Payload::Letters),
            (300, Payload::Noise),
        ] {
            let mut plan = plan(own.target());
            (plan.load.size, plan.load.payload, plan.load.compression) =
                (size, payload, compression);
            let report = run(&plan).unwrap();
            assert_eq!((&report.errors, report.opened), (&[].into(), 20), "{report:?}");
            let deflate = report.compression.unwrap();
            let takeover = compression == CompressionFlag::Dedicated;
            let agreed = deflate.agreed.unwrap();
            assert_eq!([agreed.client_takeover, agreed.server_takeover], [takeover; 2]);
            assert!(deflate.replies >= 20, "{deflate:?}");
            if payload == Payload::Json {
                assert!(deflate.request_bytes < size as f64 * 0.7, "{deflate:?}");
                assert!(deflate.reply_bytes < size as f64 * 0.7, "{deflate:?}");
            }
            assert!(report.table().contains("context takeover"), "{}", report.table());
        }
    }
}

#[test]
fn servers_that_do_not_agree_to_compression_are_told() {
    let shared = compressing_server(CompressionFlag::Shared);
    let silent = serve_with(|socket| socket.read().map(drop));
    for (target, kind) in [
        (websocket(silent), "compression declined"),
        (shared.target(), "compression agreed on otherwise than asked for"),
    ] {
        let mut plan = plan(target);
        plan.load.compression = CompressionFlag::Dedicated;
        let report = run(&plan).unwrap();
        assert_eq!(report.errors, [(kind.to_owned(), 20)].into());
    }
    let mut raw = plan(Target::Raw(LOCALHOST.into()));
    raw.load.compression = CompressionFlag::Shared;
    assert!(run(&raw).unwrap_err().to_string().contains("raw bytes are not compressed"));
}

fn own_server() -> OwnServer {
    OwnServer::for_tests(Demand::default(), true)
}

fn secure_plan(own: &OwnServer) -> Plan {
    let mut plan = plan(own.target());
    plan.tls = TlsArgs::default().client(&plan.target, own.certificate()).unwrap();
    plan
}

#[test]
fn secure_echo() {
    let own = own_server();
    for (size, text) in [(0, false), (300, true), (20_000, false)] {
        let mut plan = secure_plan(&own);
        (plan.load.size, plan.load.text) = (size, text);
        plan.load.duration = Duration::from_secs(1);
        let report = run(&plan).unwrap();
        check(&report);
        let tls = report.tls.unwrap();
        assert_eq!((tls.version, tls.full, tls.resumed), (Some("1.3"), 20, 0));
        assert!(report.target.starts_with("wss://"), "{report:?}");
        assert!(report.table().contains("20 full handshakes"), "{}", report.table());
    }
}

#[test]
fn secure_echo_through_full_sockets() {
    let own = own_server();
    let mut plan = secure_plan(&own);
    plan.load.size = 400_000;
    plan.load.connections = 1;
    plan.load.in_flight = 8;
    plan.load.duration = Duration::from_secs(3);
    let report = run(&plan).unwrap();
    assert_eq!(report.errors, [].into());
    // Some of those that follow the first ones: without optimization a message takes the server some 70 ms.
    assert!(report.messages > 8, "{report:?}");
}

#[test]
fn refused_certificates_and_servers_without_tls_are_told() {
    let own = own_server();
    let mut plan = secure_plan(&own);
    // Somebody else's certificate for the same name.
    let other = own_server();
    plan.tls = TlsArgs::default().client(&plan.target, other.certificate()).unwrap();
    let report = run(&plan).unwrap();
    let refused = Failure::Certificate.to_string();
    assert_eq!(report.errors, [(refused, 20)].into());

    with_floor(1000, |address| {
        let url = format!("wss://{address}/");
        plan.target = Target::from_url(&url).unwrap();
        let report = run(&plan).unwrap();
        assert_eq!(report.errors.keys().collect::<Vec<_>>(), ["TLS failed"], "{report:?}");
    });
}

/// A server whose connections end as soon as they are open, all but the first five after a second.
fn end_at_once() -> Target {
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                thread::sleep(Duration::from_secs(if number < 5 { 0 } else { 1 }));
                drop(tungstenite::accept(stream));
            });
        }
    });
    websocket(address)
}

#[test]
fn connections_that_open_and_end_do_not_stand_for_others() {
    let mut plan = plan(end_at_once());
    (plan.load.connections, plan.load.threads, plan.load.connect_concurrency) = (10, 1, 10);
    // It is over once all are gone.
    (plan.load.warmup, plan.load.duration) = (Duration::ZERO, Duration::from_secs(5));
    let report = run(&plan).unwrap();
    assert_eq!(report.opened, 10, "{report:?}");
    assert_eq!(report.errors.values().sum::<u64>(), 10, "{report:?}");

    // One at a time: those that have opened and ended are not on their way any more.
    plan.target = end_at_once();
    (plan.load.connections, plan.load.connect_concurrency) = (5, 1);
    let report = run(&plan).unwrap();
    assert_eq!((report.opened, report.errors.values().sum::<u64>()), (5, 5), "{report:?}");
}

#[test]
fn first_messages_of_connections_that_end_do_not_stand_for_others() {
    let seen = Arc::new(AtomicU64::new(0));
    let config = Config::default()
        .with_io_workers(1)
        .with_pinning(Pinning::Off)
        .with_compression(CompressionConfig::shared());
    let server = Server::new(config).listen("127.0.0.1:0");
    let server = server.start(move |worker| {
        let (seen, handle) = (Arc::clone(&seen), worker.handle().clone());
        on_message(move |ctx: &mut Ctx<'_, ()>, message: ringwire::Message<'_>| {
            if seen.fetch_add(1, Ordering::Relaxed) < 5 {
                let _ = ctx.send(message);
                ctx.set_deadline(Duration::from_millis(50), ringwire::CloseCode::new(4000))
                    .unwrap();
                return;
            }
            let (handle, id, bytes) = (handle.clone(), ctx.id(), message.as_bytes().to_vec());
            thread::spawn(move || {
                thread::sleep(Duration::from_secs(1));
                let _ = handle.send(id, &bytes[..]);
            });
        })
    });
    let server = server.unwrap();
    let mut plan = plan(websocket(server.local_addrs()[0]));
    (plan.load.connections, plan.load.threads) = (10, 1);
    (plan.load.warmup, plan.load.duration) = (Duration::ZERO, Duration::from_millis(100));
    plan.load.compression = CompressionFlag::Shared;
    let report = run(&plan).unwrap();
    server.handle().shutdown(Duration::ZERO);
    server.join().unwrap();
    assert_eq!(report.errors, [("close frame 4000".to_owned(), 5)].into());
    assert!(report.compression.unwrap().replies >= 10, "{:?}", report.compression);
}
