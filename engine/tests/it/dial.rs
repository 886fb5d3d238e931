//! Connections that the server opens itself: to another server of this engine, and to sockets that misbehave.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share with threads, and wait"
)]

use std::collections::HashSet;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use http::StatusCode;
use ringwire::tls::pki_types::{ServerName, UnixTime};
use ringwire::tls::{CertificateSource, ClientConfig, ClientSettings, Roots, ServerSettings};
use ringwire::{
    Answer, CloseCode, CloseReason, Config, Ctx, Handle, Handler, Message, PostError, Request,
    Running,
    transport::{Dial, DialError},
};
use ringwire_codec::handshake::client::Response;
use ringwire_peers::server::{answering, drain, read_head, serve_one, upgrade};
use ringwire_peers::{Identity, masked, unheard};

use crate::support::app::Seen;
use crate::support::{PATIENCE, Server, config, join_in_time, ms, wait_until};

/// What became of the connection with this number.
#[derive(Debug)]
enum Event {
    Answer(u32, StatusCode),
    Open(u32, SocketAddr),
    Text(u32, String),
    Closed(u32, CloseReason, bool),
    Failed(u32, String),
}

/// Opens connections, whose state is their number.
struct Caller {
    events: mpsc::Sender<Event>,
}

impl Caller {
    fn report(&self, event: Event) {
        // The test may have seen enough.
        let _ = self.events.send(event);
    }
}

impl Handler for Caller {
    type State = u32;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<u32> {
        Answer::accept(u32::MAX)
    }

    fn on_answer(&mut self, ctx: &mut Ctx<'_, u32>, answer: &Response<'_>) {
        let number = *ctx.state();
        self.report(Event::Answer(number, answer.status()));
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, u32>) {
        let number = *ctx.state();
        self.report(Event::Open(number, ctx.peer_addr()));
        let _ = ctx.send(format!("hello {number}").as_str());
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, u32>, message: Message<'_>) {
        let number = *ctx.state();
        let Message::Text(text) = message else { return };
        self.report(Event::Text(number, text.to_owned()));
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, u32>, cause: &ringwire::CloseCause) {
        let number = *ctx.state();
        self.report(Event::Closed(number, cause.reason, cause.is_clean()));
    }

    fn on_dial_failed(&mut self, state: u32, error: &DialError) {
        self.report(Event::Failed(state, format!("{error:?}")));
    }
}

/// The side that calls.
struct Side {
    running: Option<Running>,
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

impl Side {
    fn new(config: Config) -> Self {
        let (sender, events) = mpsc::channel();
        let running = ringwire::Server::new(config)
            .start(move |_| Caller { events: sender.clone() })
            .expect("it starts");
        Self { handle: running.handle(), running: Some(running), events }
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("something becomes of it")
    }

    fn call(&self, dial: &Dial, number: u32) {
        self.handle.connect(dial, number).expect("it begins to connect");
    }

    /// Why connection 7 to this server does not open.
    fn failure(&self, dial: &Dial) -> String {
        self.call(dial, 7);
        match self.next() {
            Event::Failed(7, why) => why,
            other => panic!("{other:?} where a failure was expected"),
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.handle.shutdown(Duration::ZERO);
        let ended = join_in_time(running);
        if !std::thread::panicking() {
            ended.expect("every worker ends well");
            let stats = self.handle.stats().total();
            assert_eq!((stats.connections, stats.queued_bytes), (0, 0));
        }
    }
}

fn to(addr: SocketAddr) -> Dial {
    Dial::new(addr, "localhost", "/chat?x=1").expect("a request")
}

// What works

#[test]
fn a_conversation_and_a_clean_end() {
    let server = Server::start(config(), |app| {
        app.on_request(|request| {
            assert_eq!((request.target(), request.host()), ("/chat?x=1", Some("localhost")));
            assert_eq!(request.header("authorization"), Some(&b"Bearer x"[..]));
            Answer::accept(0)
        })
    });
    let side = Side::new(config());
    let dial = to(server.addr())
        .with_header(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer x"))
        .expect("it is not the handshake's");
    side.call(&dial, 3);
    assert!(matches!(side.next(), Event::Answer(3, StatusCode::SWITCHING_PROTOCOLS)));
    assert!(matches!(side.next(), Event::Open(3, addr) if addr == server.addr()));
    assert!(matches!(side.next(), Event::Text(3, text) if text == "hello 3"));
    let id = server.opened();
    server.handle().close(id, CloseCode::NORMAL, "done").expect("the worker listens");
    assert!(matches!(side.next(), Event::Closed(3, CloseReason::Peer, true)));
    assert!(server.closed().is_clean());
}

#[test]
fn the_client_leaves_the_end_to_the_server() {
    let server = Server::echo(config());
    let side = Side::new(config());
    side.call(&to(server.addr()), 0);
    server.find("a message", |_, seen| matches!(seen, Seen::Text(_)).then_some(()));
    side.handle.shutdown(PATIENCE);
    let cause = server.closed();
    assert!(cause.is_clean() && cause.code == Some(CloseCode::GOING_AWAY), "{cause:?}");
    wait_until("the client is gone", || side.handle.stats().total().connections == 0);
}

#[test]
fn many_from_several_addresses() {
    const COUNT: u32 = 600;
    let server = Server::start(config(), |app| app.without_messages());
    let side = Side::new(config().with_io_workers(2));
    for number in 0..COUNT {
        let source = SocketAddr::from(([127, 0, 0, 2 + u8::try_from(number % 3).unwrap_or(0)], 0));
        side.call(&to(server.addr()).with_source(source), number);
        if number % 20 == 19 {
            // Which worker has the fewest is known by what the workers have begun.
            wait_until("they are begun", || {
                side.handle.stats().total().dials == u64::from(number) + 1
            });
        }
    }
    let mut answered = HashSet::new();
    while answered.len() < COUNT as usize {
        match side.next() {
            Event::Text(number, text) => {
                assert_eq!(text, format!("hello {number}"));
                assert!(answered.insert(number));
            }
            Event::Answer(..) | Event::Open(..) => {}
            other => panic!("{other:?}"),
        }
    }
    let workers = side.handle.stats().workers;
    let fewest = workers.iter().map(|worker| worker.connections).min();
    assert!(fewest > Some(u64::from(COUNT) / 4), "{workers:?}");
}

#[test]
fn over_tls() {
    let (client, server) = tls();
    let server = Server::secure(config(), server, |app| app);
    let side = Side::new(config());
    let name = ServerName::try_from("localhost").expect("a name");
    for number in 0..3 {
        side.call(&to(server.addrs()[1]).with_tls(client.clone(), name.clone()), number);
        assert!(matches!(side.next(), Event::Answer(..)));
        assert!(matches!(side.next(), Event::Open(..)));
        assert!(
            matches!(side.next(), Event::Text(n, text) if n == number && text == format!("hello {n}"))
        );
    }
    let other = ServerName::try_from("elsewhere").expect("a name");
    let why = side.failure(&to(server.addrs()[1]).with_tls(client, other));
    assert!(why.contains("Tls") && why.contains("certificate"), "{why}");
}

fn tls() -> (ClientConfig, ringwire::tls::ServerConfig) {
    let Identity { chain, key } = Identity::localhost();
    let now = UnixTime::now();
    let client = ClientSettings::new(Roots::pem(chain.clone())).build(now).expect("a client");
    let source = CertificateSource::pem(chain, key);
    (client, ServerSettings::new(source).build(now).expect("a server"))
}

// What does not

#[test]
fn nobody_listens() {
    let (_kept, addr) = unheard();
    let why = Side::new(config()).failure(&to(addr));
    assert_eq!(why, format!("Connect({:?})", ErrorKind::ConnectionRefused));
}

#[test]
fn a_server_that_refuses() {
    let server = Server::start(config(), |app| {
        app.on_request(|_| ringwire::Response::new(StatusCode::FORBIDDEN).into())
    });
    assert_eq!(Side::new(config()).failure(&to(server.addr())), "Refused(403)");
}

#[test]
fn a_server_that_answers_wrongly() {
    let side = Side::new(config());
    let upgraded =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    for (answer, expected) in [
        (format!("{upgraded}Sec-WebSocket-Accept: AAAA\r\n\r\n"), "Handshake(AcceptKey)"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), "Handshake(Upgrade)"),
        ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), "Handshake(NotHttp)"),
        ("\u{15}\u{3}".to_owned(), "Handshake(NotHttp)"),
        ("HTTP/1.1 abc\r\n\r\n".to_owned(), "Handshake(StartLine)"),
        (format!("{upgraded}{}", "X: y\r\n".repeat(200)), "Handshake("),
    ] {
        let why = side.failure(&to(answering(answer.clone())));
        assert!(why.starts_with(expected), "{why} for {answer}");
    }
}

/// What it has said by then tells one error from the other, as with the blocking client.
#[test]
fn a_server_that_hangs_up() {
    for (said, expected) in
        [("", "Handshake(NoAnswer)"), ("HTTP/1.1 101 Swi", "Handshake(Incomplete)")]
    {
        let (addr, _) = serve_one(|mut stream| {
            // Closing with unread input would be a reset.
            read_head(&mut stream);
            stream.write_all(said.as_bytes()).expect("it listens");
        });
        assert_eq!(Side::new(config()).failure(&to(addr)), expected);
    }
}

#[test]
fn a_server_that_says_nothing_or_too_little() {
    let side = Side::new(config().with_handshake_timeout(ms(300)));
    assert_eq!(side.failure(&to(answering(""))), "TimedOut");
    assert_eq!(side.failure(&to(answering("HTTP/1.1 101 Swi"))), "TimedOut");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let name = ServerName::try_from("localhost").expect("a name");
    let silent = to(listener.local_addr().expect("an address")).with_tls(tls().0, name);
    assert_eq!(side.failure(&silent), "TimedOut");
}

#[test]
fn a_server_that_masks_its_frames() {
    let (addr, thread) = serve_one(|mut stream| {
        upgrade(&mut stream);
        stream.write_all(&masked(0x82, 1, b"x")).expect("it listens");
        drain(stream)
    });
    let side = Side::new(config());
    side.call(&to(addr), 1);
    assert!(matches!(side.next(), Event::Answer(..)));
    assert!(matches!(side.next(), Event::Open(..)));
    assert!(matches!(side.next(), Event::Closed(1, CloseReason::Protocol(_), false)));
    let rest = thread.join().expect("it ends");
    assert!(rest.len() > 8 && rest[rest.len() - 8] == 0x88, "a close frame ends {rest:?}");
}

#[test]
fn a_source_that_is_none_of_ours() {
    let side = Side::new(config());
    let dial = to(SocketAddr::from(([127, 0, 0, 1], 9)));
    let foreign = dial.with_source(SocketAddr::from(([192, 0, 2, 1], 0)));
    let error = side.handle.connect(&foreign, 0_u32).expect_err("it can't be bound");
    assert!(matches!(error, DialError::Socket(_)), "{error:?}");
}

#[test]
fn what_is_asked_for_during_a_shutdown_comes_back() {
    let server = Server::echo(config());
    let side = Side::new(config());
    side.call(&to(server.addr()), 0);
    assert!(matches!(side.next(), Event::Answer(..)));
    side.handle.shutdown(ms(200));
    let mut number = 1;
    loop {
        match side.handle.connect(&to(server.addr()), number) {
            Ok(()) => number += 1,
            Err(DialError::Post(PostError::Stopped)) => break,
            Err(DialError::Post(PostError::Busy)) => std::thread::sleep(ms(1)),
            Err(other) => panic!("{other:?}"),
        }
    }
    let states: HashSet<u32> = side
        .events
        .try_iter()
        .filter_map(|event| match event {
            Event::Failed(number, _) | Event::Closed(number, ..) => Some(number),
            _ => None,
        })
        .collect();
    // One may come between the worker's last look and its end.
    let told = u32::try_from(states.len()).unwrap_or(u32::MAX);
    assert!(states.contains(&0) && told + 1 >= number, "{number} were asked for: {states:?}");
}
