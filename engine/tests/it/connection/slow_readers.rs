//! Peers whose programs read slowly: they are alive, though the kernel holds seconds' worth of output for them, and a
//! ping waits behind it. Those that read nothing are not. Over TCP, TLS and Unix sockets.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share and wait"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::client::{Client, OwnedMessage};
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ClientSettings, Roots, ServerSettings};
use ringwire::{
    Backpressure, CloseReason, Config, SendOptions, Sizing,
    compression::{CompressionConfig, CompressionLevel},
};
use ringwire_peers::{Line, narrow, plain_request};
use ringwire_seeds::Random;

use crate::support::{PATIENCE, Server, config, ms};

/// More than a socket takes. Read at [`RATE`], six seconds.
const REPLY_LEN: usize = 6 << 20;
/// A receive buffer as small as slow devices have it.
const RECEIVE_LEN: usize = 32 << 10;
/// Bytes in a second.
const RATE: usize = 1 << 20;
/// Longer than a busy machine holds the pipe up.
const STALL: Duration = Duration::from_secs(2);
/// A send buffer that holds all that is sent to who reads late, or as much as the system gives (net.core.wmem_max).
const LONG: usize = 4 << 20;

/// With all that the kernel takes, and pings that are not held back by back-pressure.
fn slow_config() -> Config {
    config()
        .with_tcp_notsent_lowat(Sizing::Auto)
        .with_max_queued_len(64 << 20)
        .with_high_water(32 << 20)
        .with_write_stall_timeout(STALL)
}

/// How a client gets to the server: the pipe that reads slowly stands in between.
#[derive(Clone, Copy, Debug)]
enum Way {
    Tcp,
    Tls,
    Unix,
}

/// Forwards what the client says at once, and at [`RATE`] what the server says: the first `most` bytes of it.
fn pipe(mut far: TcpStream, most: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback socket works");
    let address = listener.local_addr().expect("a loopback socket works");
    thread::spawn(move || {
        let mut near = listener.accept().expect("a loopback socket works").0;
        let (mut from_near, mut to_far) = (
            near.try_clone().expect("a loopback socket works"),
            far.try_clone().expect("a loopback socket works"),
        );
        let forth = thread::spawn(move || std::io::copy(&mut from_near, &mut to_far));
        let mut buffer = vec![0; RATE / 20];
        let mut passed = 0;
        while passed < most {
            let Ok(len @ 1..) = far.read(&mut buffer) else { break };
            if near.write_all(&buffer[..len]).is_err() {
                break;
            }
            passed += len;
            thread::sleep(ms(50));
        }
        // The socket stays open until the server has given it up.
        let _ = forth.join();
    });
    address
}

/// A server, and a client that gets there through the pipe.
fn meet(way: Way, config: Config, most: usize) -> (Server, Client) {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a name");
    let (cert, key) = (key.cert.pem(), key.signing_key.serialize_pem());
    let source = CertificateSource::pem(cert.clone(), key);
    let tls = ServerSettings::new(source).build(UnixTime::now()).expect("a good certificate");
    let trusting = ClientSettings::new(Roots::pem(cert)).build(UnixTime::now()).expect("a root");
    let dir = tempfile::tempdir().expect("a loopback socket works");
    let path = dir.path().join("socket");
    let app = |app: crate::support::app::App| {
        app.without_messages().on_message(|ctx, message| {
            let _ = match message.as_bytes() {
                b"much" => ctx.send(vec![7; REPLY_LEN].as_slice()),
                b"noise" => ctx.send(noise().as_slice()),
                _ => ctx.send(message),
            };
        })
    };
    let server = match way {
        Way::Tcp => Server::start(config, app),
        Way::Tls => Server::secure(config, tls, app),
        Way::Unix => Server::at_path(config, &path, app),
    };
    let (scheme, address) = match way {
        Way::Tcp => ("ws", pipe(narrow(server.addr(), RECEIVE_LEN), most)),
        Way::Tls => ("wss", pipe(narrow(server.addrs()[1], RECEIVE_LEN), most)),
        Way::Unix => ("ws", pipe(Line::connect_unix(&path).stream, most)),
    };
    let builder = Client::builder().with_tls(trusting).without_proxy();
    let builder = builder.with_read_timeout(PATIENCE).with_max_message_len(16 << 20);
    // Which the server agrees to only where it compresses.
    let builder = builder.with_compression(ringwire::client::DeflateConfig::default());
    let client = builder.connect(format!("{scheme}://{address}")).expect("it is served");
    (server, client)
}

fn check_served(way: Way, config: Config) {
    let (server, mut client) = meet(way, config, usize::MAX);
    let began = Instant::now();
    client.send_text("much").expect("a loopback socket works");
    match client.receive() {
        Ok(Some(OwnedMessage::Binary(bytes))) => assert_eq!(bytes.len(), REPLY_LEN),
        other => panic!("{way:?}: {other:?} after {:?}", began.elapsed()),
    }
    assert!(began.elapsed() > STALL * 3 / 2, "it was not slow: {:?}", began.elapsed());
    client.send_text("still here").expect("a loopback socket works");
    let reply = client.receive();
    assert!(
        matches!(&reply, Ok(Some(OwnedMessage::Text(text))) if text == "still here"),
        "{reply:?}"
    );
    drop(client);
    drop(server);
}

#[test]
fn who_reads_slowly_over_tcp_stays() {
    check_served(Way::Tcp, slow_config());
}

#[test]
fn who_reads_slowly_over_tls_stays() {
    check_served(Way::Tls, slow_config());
}

#[test]
fn who_reads_slowly_over_a_unix_socket_stays() {
    check_served(Way::Unix, slow_config());
}

/// The ping is behind all of it.
#[test]
fn pings_behind_output_have_their_time() {
    for way in [Way::Tcp, Way::Tls, Way::Unix] {
        check_served(way, slow_config().with_ping_interval(ms(300)).with_pong_timeout(ms(2000)));
    }
}

#[test]
fn a_slow_reader_hears_all_before_the_close() {
    for way in [Way::Tcp, Way::Tls, Way::Unix] {
        let config = slow_config().with_close_timeout(STALL);
        let (server, mut client) = meet(way, config, usize::MAX);
        let id = server.opened();
        client.send_text("much").expect("a loopback socket works");
        crate::support::wait_until("the reply is under way", || {
            server.stats().bytes_sent > 32 << 10
        });
        server
            .handle()
            .close(id, ringwire::CloseCode::new(4001), "go")
            .expect("a loopback socket works");
        match client.receive() {
            Ok(Some(OwnedMessage::Binary(bytes))) => assert_eq!(bytes.len(), REPLY_LEN),
            other => panic!("{way:?}: {other:?}"),
        }
        assert!(!matches!(client.receive(), Ok(Some(_))));
        assert_eq!(server.closed().reason, CloseReason::Local, "{way:?}");
    }
}

/// What is counted is what goes over the wire.
#[test]
fn who_reads_slowly_with_compression_stays() {
    let compression = CompressionConfig::dedicated().with_level(CompressionLevel::FASTEST);
    let config = slow_config().with_compression(compression);
    for way in [Way::Tcp, Way::Tls] {
        let (server, mut client) = meet(way, config.clone(), usize::MAX);
        assert!(client.headers().contains_key("sec-websocket-extensions"));
        let began = Instant::now();
        client.send_text("noise").expect("a loopback socket works");
        match client.receive() {
            Ok(Some(OwnedMessage::Binary(bytes))) => assert!(bytes == noise()),
            other => panic!("{way:?}: {other:?} after {:?}", began.elapsed()),
        }
        assert!(began.elapsed() > STALL * 3 / 2, "it was not slow: {:?}", began.elapsed());
        drop(client);
        drop(server);
    }
}

/// What does not get shorter.
fn noise() -> Vec<u8> {
    let mut bytes = vec![0; REPLY_LEN * 2 / 3];
    Random::new(1).fill(&mut bytes);
    bytes
}

/// How many of many messages of 1 KB reach a peer that begins to read when all are sent.
fn kept(config: Config, options: SendOptions) -> usize {
    const COUNT: u64 = 6_000;
    /// Less than what may wait.
    const AT_ONCE: u64 = 16;
    let config = config.with_backpressure(Backpressure::DropOldest);
    let server = Server::echo(config.with_high_water(32 << 10).with_max_queued_len(64 << 10));
    let mut client =
        ringwire_peers::Client::upgrade(narrow(server.addr(), RECEIVE_LEN), &plain_request());
    let id = server.opened();
    let handle = server.handle();
    for number in 0..COUNT {
        let text = format!("{number:01000}");
        handle.send_with(id, text.as_str(), options).expect("the mailbox has room");
        if number % AT_ONCE == 0 {
            crate::support::wait_until("they are sent", || server.stats().messages_sent > number);
        }
    }
    (1..).find(|_| client.text().parse() == Ok(COUNT - 1)).expect("the newest comes")
}

/// Dropping and conflation begin when the kernel has little, so that who reads late gets little that is old.
#[test]
fn little_is_stale_for_who_reads_late() {
    // Of messages with a key that are sent at once, only the newest goes to the kernel: there are fewer to compare.
    for (options, halves) in [(SendOptions::default(), 4), (SendOptions::default().with_key(1), 3)]
    {
        let little = kept(config(), options);
        assert!(little < 400, "{little} KB were old");
        // A buffer that is not as long as the kernel finds it fit for who reads nothing.
        let unlimited =
            config().with_tcp_notsent_lowat(Sizing::Auto).with_tcp_send_buffer_len(LONG);
        let much = kept(unlimited, options);
        assert!(2 * much > halves * little, "{much} KB without a limit, {little} KB with it");
    }
}

#[test]
fn who_reads_nothing_is_ended_on_time() {
    for way in [Way::Tcp, Way::Tls, Way::Unix] {
        // Enough for the handshakes, and some of the reply.
        let (server, mut client) = meet(way, slow_config(), 40 << 10);
        let asked = Instant::now();
        for _ in 0..2 {
            client.send_text("much").expect("a loopback socket works");
        }
        // To make so much takes a test's build a while, in which nobody looks at the peer.
        crate::support::wait_until("it is answered", || server.stats().messages_sent == 2);
        let answered = Instant::now();
        let cause = server.closed();
        assert_eq!(cause.reason, CloseReason::WriteStall, "{way:?}");
        assert!(cause.unsent_len > 0);
        assert!(asked.elapsed() > STALL, "{way:?}: after {:?}", asked.elapsed());
        // The exact time is that of the simulation: from the last that it took, a quarter for the look that finds it
        // out, and ticks.
        assert!(answered.elapsed() < STALL * 3, "{way:?}: after {:?}", answered.elapsed());
    }
}
