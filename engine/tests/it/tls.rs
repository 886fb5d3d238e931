//! TLS listeners: what goes through them, what the application learns, and what hostile peers may try.

#![expect(clippy::disallowed_types, reason = "tests own sockets, and share with threads")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ringwire::tls::pki_types::{ServerName, UnixTime};
use ringwire::tls::{
    CertificateSource, ClientAuth, ClientConfig, ClientSettings, Handshake, Roots, ServerConfig,
    ServerSettings, Session, Version,
};
use ringwire::{Answer, Backpressure, CloseReason, Config};
use ringwire_peers::{connect, http, masked, request, stays_so_for, trusting};
use tungstenite::{Bytes, Message, WebSocket};

use crate::support::app::{App, Seen};
use crate::support::{PATIENCE, Server, config, ms, wait_until};

/// An authority, and what it has signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
struct Issued {
    chain: String,
    key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("it signs").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let chain = params.signed_by(&key, &self.issuer).expect("it signs").pem();
        Issued { chain, key: key.serialize_pem() }
    }

    pub(crate) fn server(&self) -> ServerSettings {
        ServerSettings::new(self.issue("localhost").source())
    }

    fn client(&self) -> ClientSettings {
        ClientSettings::new(Roots::pem(self.pem.clone()))
    }
}

impl Issued {
    fn source(&self) -> CertificateSource {
        CertificateSource::pem(self.chain.clone(), self.key.clone())
    }
}

pub(crate) fn build_server(settings: ServerSettings) -> ServerConfig {
    settings.build(UnixTime::now()).expect("the settings can be")
}

fn build_client(settings: ClientSettings) -> ClientConfig {
    settings.build(UnixTime::now()).expect("the settings can be")
}

fn echo(authority: &Authority) -> Server {
    echo_with(config(), authority)
}

fn echo_with(config: Config, authority: &Authority) -> Server {
    Server::secure(config, build_server(authority.server()), |app| app)
}

/// The handshake on the worker, and on a thread beside it.
fn on_either_thread(test: impl Fn(Config)) {
    for threads in [0, 1] {
        test(config().with_compute_workers(threads));
    }
}

/// A client that owes nothing to this project: rustls's own connection under tungstenite.
pub(crate) fn foreign(
    addr: SocketAddr,
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
) -> WebSocket<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
    let config = trusting(&authority.pem, &[version]);
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = rustls::ClientConnection::new(config, name).expect("a connection");
    let stream = rustls::StreamOwned::new(tls, connect(addr));
    tungstenite::client("wss://localhost/", stream).expect("the server upgrades").0
}

/// A connection of which the test sees every byte: this project's session on a socket.
struct Wire {
    stream: TcpStream,
    session: Session,
    heard: Vec<u8>,
}

impl Wire {
    fn new(addr: SocketAddr, config: &ClientConfig) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = Session::client(config, name).expect("a session");
        Self { stream: connect(addr), session, heard: Vec::new() }
    }

    fn hello(&mut self) -> Vec<u8> {
        let mut hello = Vec::new();
        self.session.poll_transmit(&mut hello).expect("a hello");
        hello
    }

    fn shake(&mut self) {
        let hello = self.hello();
        self.raw(&hello);
        while self.session.is_handshaking() {
            assert!(self.read(), "the server ends the handshake");
        }
    }

    fn upgrade(&mut self) {
        self.say(request().as_bytes());
        while !self.heard.ends_with(b"\r\n\r\n") {
            assert!(self.read(), "the server upgrades");
        }
        assert!(self.heard.starts_with(b"HTTP/1.1 101"));
        self.heard.clear();
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it can be sent");
    }

    fn say(&mut self, bytes: &[u8]) {
        let mut out = Vec::new();
        self.session.send(bytes, &mut out).expect("it is open");
        self.raw(&out);
    }

    /// Reads once; whether there was something.
    fn read(&mut self) -> bool {
        let mut buffer = vec![0; 32 << 10];
        let len = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break 0,
                result => break result.expect("the server says something in time"),
            }
        };
        let mut out = Vec::new();
        // An alert is as good an end as any.
        let result = self.session.receive(&mut buffer[..len], &mut self.heard, &mut out);
        let _ = self.stream.write_all(&out);
        len > 0 && result.is_ok()
    }

    fn read_to_the_end(&mut self) {
        while self.read() {}
    }
}

// What goes through

#[test]
fn messages_of_all_lengths_in_both_versions() {
    on_either_thread(|config| {
        let authority = Authority::new();
        let server = echo_with(config, &authority);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut client = foreign(server.addrs()[1], &authority, version);
            for len in [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_535, 65_536, 200_000, 1 << 20] {
                let sent = Bytes::from(vec![u8::try_from(len % 251).expect("a byte"); len]);
                client.send(Message::Binary(sent.clone())).expect("it is sent");
                assert_eq!(
                    client.read().expect("it comes back"),
                    Message::Binary(sent),
                    "{len} bytes"
                );
            }
            client.close(None).expect("it is open");
            while client.read().is_ok() {}
        }
        assert_eq!(server.stats().tls_handshakes, 2);
    });
}

#[test]
fn many_small_messages_in_one_record() {
    let authority = Authority::new();
    let server = echo(&authority);
    let mut wire = Wire::new(server.addrs()[1], &build_client(authority.client()));
    wire.shake();
    wire.upgrade();
    let frames: Vec<u8> = (0..1000).flat_map(|_| masked(0x82, 3, b"abc")).collect();
    wire.say(&frames);
    while wire.heard.len() < 5 * 1000 {
        assert!(wire.read());
    }
    assert!(wire.heard.chunks(5).all(|frame| frame == b"\x82\x03abc"));
}

#[test]
fn both_kinds_of_listener_have_one_handler() {
    let authority = Authority::new();
    let server = echo(&authority);
    let mut plain = server.client();
    let mut secure = foreign(server.addrs()[1], &authority, &rustls::version::TLS13);
    plain.send("plain");
    assert_eq!(plain.text(), "plain");
    secure.send(Message::text("secure")).expect("it is sent");
    assert_eq!(secure.read().expect("it comes back"), Message::text("secure"));
    plain.leave();
}

#[test]
fn the_application_learns_what_was_agreed_on() {
    let authority = Authority::new();
    let (sender, facts) = mpsc::channel();
    let tls = build_server(authority.server());
    let server = Server::secure(config(), tls, move |app| {
        let (asked, opened) = (sender.clone(), sender.clone());
        app.on_request(move |request| {
            let facts = request.tls().map(|facts| (facts.version, facts.alpn.map(Vec::from)));
            asked.send(facts).expect("the test waits");
            Answer::accept(0)
        })
        .on_open(move |ctx| {
            let facts = ctx.tls().inspect(|facts| {
                assert_eq!(facts.server_name, Some("localhost"));
                assert_eq!(facts.handshake, Handshake::Full);
                assert!(facts.cipher_suite.contains("AES"), "{}", facts.cipher_suite);
            });
            let facts = facts.map(|facts| (facts.version, facts.alpn.map(Vec::from)));
            opened.send(facts).expect("the test waits");
        })
    });
    let expected = Some((Version::Tls12, Some(b"http/1.1".to_vec())));
    let settings = authority.client().with_max_version(Version::Tls12);
    let mut wire = Wire::new(server.addrs()[1], &build_client(settings));
    wire.shake();
    wire.upgrade();
    let next = || facts.recv_timeout(PATIENCE).expect("the application is asked");
    assert_eq!([next(), next()], [expected.clone(), expected]);
    let _plain = server.client();
    assert_eq!([next(), next()], [None, None]);
}

#[test]
fn sessions_are_resumed() {
    on_either_thread(|config| {
        let authority = Authority::new();
        let server = echo_with(config, &authority);
        let client = build_client(authority.client());
        for resumed in [0, 1, 2] {
            let mut wire = Wire::new(server.addrs()[1], &client);
            wire.shake();
            // The ticket comes with the first answer at the latest.
            wire.upgrade();
            wait_until("the handshake is counted", || server.stats().tls_handshakes == resumed + 1);
            assert_eq!(server.stats().tls_resumptions, resumed);
        }
    });
}

#[test]
fn the_end_is_said_with_close_notify() {
    let authority = Authority::new();
    let server = echo(&authority);
    let mut wire = Wire::new(server.addrs()[1], &build_client(authority.client()));
    wire.shake();
    wire.upgrade();
    wire.say(&masked(0x88, 2, &1000_u16.to_be_bytes()));
    wire.read_to_the_end();
    assert_eq!(wire.heard, b"\x88\x02\x03\xe8");
    assert!(wire.session.peer_has_closed(), "the stream was cut off");
    assert!(server.closed().is_clean());
}

#[test]
fn the_peers_close_notify_is_answered() {
    let authority = Authority::new();
    let server = echo(&authority);
    let client = build_client(authority.client());
    for state in [State::Shaken, State::HalfRequest, State::Open, State::HalfFrame] {
        let mut wire = bring_to(state, server.addrs()[1], &client);
        let mut notice = Vec::new();
        wire.session.close(&mut notice);
        wire.raw(&notice);
        wire.read_to_the_end();
        assert!(wire.session.peer_has_closed(), "a bare FIN in {state:?}");
    }
}

#[test]
fn a_refusal_arrives_whole() {
    let authority = Authority::new();
    let server = echo(&authority);
    let mut wire = Wire::new(server.addrs()[1], &build_client(authority.client()));
    wire.shake();
    wire.say(b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n");
    wire.read_to_the_end();
    assert!(wire.heard.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&wire.heard));
    assert!(wire.session.peer_has_closed(), "the stream was cut off");
}

#[test]
fn a_peer_that_reads_nothing_loses_the_oldest_messages_only() {
    const COUNT: u32 = 3000;
    let authority = Authority::new();
    let tls = build_server(authority.server());
    let config = config()
        .with_backpressure(Backpressure::DropOldest)
        .with_high_water(50_000)
        .with_max_queued_len(100_000);
    let server = Server::secure(config, tls, |app| {
        app.on_message(|ctx, _| {
            for number in 0..COUNT {
                let mut message = vec![0; 10_000];
                message[..4].copy_from_slice(&number.to_be_bytes());
                let _ = ctx.send(&message[..]);
            }
        })
    });
    let mut client = foreign(server.addrs()[1], &authority, &rustls::version::TLS13);
    client.send(Message::text("go")).expect("it is sent");
    wait_until("messages are dropped", || server.stats().messages_dropped > 0);
    let mut last = None;
    while last != Some(COUNT - 1) {
        let Message::Binary(message) = client.read().expect("a message") else { continue };
        let number = u32::from_be_bytes(message[..4].try_into().expect("four bytes"));
        assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
        last = Some(number);
    }
    assert!(server.stats().messages_dropped < u64::from(COUNT));
}

// Certificates

#[test]
fn clients_without_a_certificate_are_refused_where_one_is_required() {
    on_either_thread(|config| {
        let authority = Authority::new();
        let roots = Roots::pem(authority.pem.clone());
        let tls = build_server(authority.server().with_client_auth(ClientAuth::Require(roots)));
        let (sender, shown) = mpsc::channel();
        let server = Server::secure(config, tls, move |app| {
            let sender = sender.clone();
            app.on_open(move |ctx| {
                let certificates = ctx.tls().map(|facts| facts.peer_certificates.len());
                sender.send(certificates).expect("the test waits");
            })
        });
        let mut refused = Wire::new(server.addrs()[1], &build_client(authority.client()));
        let hello = refused.hello();
        refused.raw(&hello);
        refused.read_to_the_end();
        wait_until("the failure is counted", || server.stats().tls_failures == 1);

        let own = authority.issue("client").source();
        let client = build_client(authority.client().with_certificate(own));
        let mut welcome = Wire::new(server.addrs()[1], &client);
        welcome.shake();
        welcome.upgrade();
        assert_eq!(shown.recv_timeout(PATIENCE), Ok(Some(1)));
    });
}

#[test]
fn certificates_are_reloaded_or_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str, kind: &str| directory.path().join(format!("{name}.{kind}"));
    let store = |name: &str, issued: &Issued| {
        std::fs::write(path(name, "pem"), &issued.chain).expect("it can be written");
        std::fs::write(path(name, "key"), &issued.key).expect("it can be written");
    };
    let (first, second) = (Authority::new(), Authority::new());
    let configure = |name: &str| {
        store(name, &first.issue("localhost"));
        let files = CertificateSource::files(path(name, "pem"), path(name, "key"));
        build_server(ServerSettings::new(files))
    };
    let server = ringwire::Server::new(config())
        .listen_tls("127.0.0.1:0", configure("broken"))
        .listen_tls("127.0.0.1:0", configure("sound"));
    let server = Server::listening(server, |seen, _| App::new(seen));
    let (addr, other) = (server.addrs()[0], server.addrs()[1]);
    let mut early = foreign(addr, &first, &rustls::version::TLS13);
    std::fs::write(path("broken", "pem"), "no certificate").expect("it can be written");
    store("sound", &second.issue("localhost"));
    let error = server.handle().reload_tls().expect_err("there is no certificate");
    assert!(error.to_string().contains("broken.pem"), "{error}");
    drop(foreign(addr, &first, &rustls::version::TLS13));
    drop(foreign(other, &second, &rustls::version::TLS13));
    store("broken", &second.issue("localhost"));
    server.handle().reload_tls().expect("all is well");
    drop(foreign(addr, &second, &rustls::version::TLS13));
    early.send(Message::text("still here")).expect("it is sent");
    assert_eq!(early.read().expect("it comes back"), Message::text("still here"));
    let stats = server.handle().stats().tls;
    assert_eq!((stats.reloads, stats.reload_failures), (3, 1));
    assert!(stats.not_after.is_some_and(|end| end > 0));
}

// Hostile peers

#[test]
fn plain_http_on_the_tls_port() {
    on_either_thread(|config| {
        let authority = Authority::new();
        let server = echo_with(config, &authority);
        let answer = http(server.addrs()[1], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("speaks TLS"), "{answer}");
        assert_eq!(server.drained(), []);
        assert_eq!(server.stats().tls_failures, 1);
    });
}

#[test]
fn tls_on_a_plain_port() {
    let authority = Authority::new();
    let server = echo(&authority);
    let mut wire = Wire::new(server.addr(), &build_client(authority.client()));
    let hello = wire.hello();
    wire.raw(&hello);
    wire.read_to_the_end();
    assert_eq!(server.drained(), []);
}

#[derive(Clone, Copy, Debug)]
enum State {
    Connected,
    HalfHello,
    HelloSent,
    Shaken,
    HalfRequest,
    Open,
    HalfFrame,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Eof,
    Garbage,
    CloseNotify,
    Reset,
}

/// Brings a connection into a state.
fn bring_to(state: State, addr: SocketAddr, client: &ClientConfig) -> Wire {
    let mut wire = Wire::new(addr, client);
    match state {
        State::Connected => {}
        State::HalfHello => {
            let hello = wire.hello();
            wire.raw(&hello[..hello.len() / 2]);
        }
        State::HelloSent => {
            let hello = wire.hello();
            wire.raw(&hello);
        }
        State::Shaken => wire.shake(),
        State::HalfRequest => {
            wire.shake();
            wire.say(&request().as_bytes()[..20]);
        }
        State::Open | State::HalfFrame => {
            wire.shake();
            wire.upgrade();
            if matches!(state, State::HalfFrame) {
                wire.say(&masked(0x82, 100, b"not all of it"));
            }
        }
    }
    wire
}

#[test]
fn tls_states() {
    on_either_thread(|config| {
        use Event::{CloseNotify, Eof, Garbage, Reset};
        use State::{Connected, HalfFrame, HalfHello, HalfRequest, HelloSent, Open, Shaken};
        let authority = Authority::new();
        let server = echo_with(config, &authority);
        let addr = server.addrs()[1];
        let settings = [Version::Tls12, Version::Tls13]
            .map(|version| build_client(authority.client().with_max_version(version)));
        for state in [Connected, HalfHello, HelloSent, Shaken, HalfRequest, Open, HalfFrame] {
            for event in [Eof, Garbage, CloseNotify, Reset] {
                for client in &settings {
                    let mut wire = bring_to(state, addr, client);
                    match event {
                        Eof => wire.stream.shutdown(Shutdown::Write).expect("it is connected"),
                        Garbage => wire.raw(&[0xff; 2000]),
                        CloseNotify => {
                            let mut notice = Vec::new();
                            wire.session.close(&mut notice);
                            wire.raw(&notice);
                            // During the handshake there is nothing to be closed.
                            if notice.is_empty() {
                                wire.stream.shutdown(Shutdown::Write).expect("it is connected");
                            }
                        }
                        Reset => {
                            let socket = socket2::SockRef::from(&wire.stream);
                            socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER can be set");
                        }
                    }
                    if !matches!(event, Reset) {
                        wire.read_to_the_end();
                    }
                    drop(wire);
                    let what = format!("{event:?} in {state:?} ends the connection");
                    wait_until(&what, || server.stats().connections == 0);
                }
            }
        }
        let reasons: Vec<_> = server
            .drained()
            .into_iter()
            .filter_map(|seen| match seen {
                Seen::Close(cause) => Some(cause.reason),
                _ => None,
            })
            .collect();
        assert_eq!(reasons.len(), 16, "two open states, four events, two versions");
        let failures = reasons.iter().filter(|reason| **reason == CloseReason::Tls).count();
        assert_eq!(failures, 4, "{reasons:?}");
        let turns = server.stats().turns;
        stays_so_for(ms(300), "it does not spin", || server.stats().turns - turns < 20);
        let mut client = foreign(addr, &authority, &rustls::version::TLS13);
        client.send(Message::text("alive")).expect("it is sent");
        assert_eq!(client.read().expect("it comes back"), Message::text("alive"));
    });
}

#[test]
fn a_hello_in_one_byte_records() {
    on_either_thread(|config| {
        let authority = Authority::new();
        let server = echo_with(config, &authority);
        let mut wire = Wire::new(server.addrs()[1], &build_client(authority.client()));
        let hello = wire.hello();
        let (header, body) = hello.split_at(5);
        let pieces: Vec<u8> =
            body.iter().flat_map(|byte| [header[0], header[1], header[2], 0, 1, *byte]).collect();
        for piece in pieces.chunks(6) {
            wire.raw(piece);
        }
        while wire.session.is_handshaking() {
            assert!(wire.read(), "the server takes it");
        }
        wire.upgrade();
    });
}

#[test]
fn a_request_byte_by_byte_in_records_of_their_own() {
    let authority = Authority::new();
    let server = echo(&authority);
    let mut wire = Wire::new(server.addrs()[1], &build_client(authority.client()));
    wire.shake();
    let request = request();
    let (last, first) = request.as_bytes().split_last().expect("a request");
    for byte in first {
        wire.say(&[*byte]);
    }
    wire.say(&[*last]);
    while !wire.heard.ends_with(b"\r\n\r\n") {
        assert!(wire.read(), "the server upgrades");
    }
    assert!(wire.heard.starts_with(b"HTTP/1.1 101"));
}

#[test]
fn the_handshake_deadline_counts_tls_in() {
    on_either_thread(|config| {
        let authority = Authority::new();
        let tls = build_server(authority.server());
        let server = Server::secure(config.with_handshake_timeout(ms(2000)), tls, |app| app);
        let client = build_client(authority.client());
        let states = [State::Connected, State::HalfHello, State::HelloSent, State::Shaken];
        let mut wires: Vec<_> =
            states.iter().map(|state| bring_to(*state, server.addrs()[1], &client)).collect();
        wires.iter_mut().for_each(Wire::read_to_the_end);
        wait_until("all are gone", || server.stats().connections == 0);
        let stats = server.stats();
        assert_eq!((stats.handshake_failures, stats.tls_failures, stats.tls_handshakes), (4, 3, 1));
    });
}
