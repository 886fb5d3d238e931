//! Compression of connections that the server opens itself: what is offered, what comes of the answers, and that
//! messages come through. Time and a network that breaks are tested in the simulation.

#![expect(clippy::disallowed_types, reason = "tests own sockets")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use http::StatusCode;
use ringwire::{
    Answer, CloseCause, CloseCode, CloseReason, Config, ConnId, Ctx, Handle, Handler, Message,
    Request, Running, SendOptions,
    compression::{Compress, CompressionConfig, CompressionLevel, WindowBits},
    stats::WorkerStats,
    transport::{Dial, DialError},
};
use ringwire_codec::deflate::{Compressor, Decompressor};
use ringwire_codec::{Error, Limit};
use ringwire_peers::server::{agreement, drain, read_head, serve};
use ringwire_peers::{frame, unheard};

use crate::support::{PATIENCE, Server, config, join_in_time, ms, wait_until};

const SHARED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const PLAIN: &str = "permessage-deflate";

/// What became of a connection.
#[derive(Debug)]
enum Event {
    Open(ConnId, bool),
    Message(Vec<u8>),
    Closed(CloseReason),
    Failed(String),
}

struct Caller(mpsc::Sender<Event>);

impl Caller {
    fn report(&self, event: Event) {
        // The test may have seen enough.
        let _ = self.0.send(event);
    }
}

impl Handler for Caller {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>) {
        ctx.subscribe("servers").expect("a topic");
        self.report(Event::Open(ctx.id(), ctx.is_compressed()));
    }

    fn on_message(&mut self, _ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        self.report(Event::Message(message.as_bytes().to_vec()));
    }

    fn on_close(&mut self, _ctx: &mut Ctx<'_, ()>, cause: &CloseCause) {
        self.report(Event::Closed(cause.reason));
    }

    fn on_dial_failed(&mut self, _state: (), error: &DialError) {
        self.report(Event::Failed(error.to_string()));
    }
}

/// The side that calls.
struct Side {
    running: Option<Running>,
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

impl Side {
    fn new(compression: CompressionConfig) -> Self {
        Self::with(config().with_compression(compression))
    }

    fn with(config: Config) -> Self {
        let (sender, events) = mpsc::channel();
        let running = ringwire::Server::new(config)
            .start(move |_| Caller(sender.clone()))
            .expect("it starts");
        Self { handle: running.handle(), running: Some(running), events }
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("something becomes of it")
    }

    /// Opens a connection, and says whether compression was agreed on.
    fn open(&self, dial: &Dial) -> (ConnId, bool) {
        self.handle.connect(dial, ()).expect("it begins to connect");
        match self.next() {
            Event::Open(id, compressed) => (id, compressed),
            other => panic!("{other:?} where a connection was expected"),
        }
    }

    /// Why a connection does not open.
    fn failure(&self, dial: &Dial) -> String {
        self.handle.connect(dial, ()).expect("it begins to connect");
        match self.next() {
            Event::Failed(why) => why,
            other => panic!("{other:?} where a failure was expected"),
        }
    }

    /// Why a connection ends that has opened.
    fn end(&self, dial: &Dial) -> CloseReason {
        assert!(self.open(dial).1, "it was agreed");
        match self.next() {
            Event::Closed(reason) => reason,
            other => panic!("{other:?} where an end was expected"),
        }
    }

    /// Sends a message to a server that echoes it.
    fn talk<'m>(&self, id: ConnId, message: impl Into<Message<'m>>) {
        let message = message.into();
        self.handle.send(id, message).expect("the worker listens");
        match self.next() {
            Event::Message(bytes) => assert!(bytes == message.as_bytes(), "another message"),
            other => panic!("{other:?} where a message was expected"),
        }
    }

    fn close(&self, id: ConnId) {
        self.handle.close(id, CloseCode::NORMAL, "").expect("the worker listens");
        assert!(matches!(self.next(), Event::Closed(CloseReason::Local)));
    }

    fn stats(&self) -> WorkerStats {
        self.handle.stats().total()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.handle.shutdown(Duration::ZERO);
        let ended = join_in_time(running);
        if !std::thread::panicking() {
            ended.expect("every worker ends well");
            let stats = self.stats();
            assert_eq!((stats.connections, stats.queued_bytes, stats.deflate_memory), (0, 0, 0));
        }
    }
}

fn to(addr: SocketAddr) -> Dial {
    Dial::new(addr, "localhost", "/").expect("a request")
}

/// An echo server, and what its clients offer.
fn echo(compression: CompressionConfig) -> (Server, mpsc::Receiver<Option<String>>) {
    let (sender, offers) = mpsc::channel();
    let server = Server::start(config().with_compression(compression), move |app| {
        let sender = sender.clone();
        app.without_messages().on_request(move |request| {
            let offer = request.header("sec-websocket-extensions");
            let offer = offer.map(|value| String::from_utf8_lossy(value).into_owned());
            // The test may have seen enough.
            let _ = sender.send(offer);
            Answer::accept(0)
        })
    });
    (server, offers)
}

/// A server for one connection that agrees to the upgrade with these headers, says this, and waits for the end.
fn scripted(headers: &str, rest: impl Into<Vec<u8>>) -> SocketAddr {
    let (headers, rest) = (headers.to_owned(), rest.into());
    serve(move |mut stream, _| {
        let head = read_head(&mut stream);
        let answer = agreement(&head, &headers);
        stream.write_all(&[answer.as_bytes(), &rest].concat()).expect("it listens");
        drain(stream);
    })
}

fn agreeing(extensions: &str, rest: impl Into<Vec<u8>>) -> Dial {
    to(scripted(&format!("Sec-WebSocket-Extensions: {extensions}\r\n"), rest))
}

fn window(bits: u8) -> WindowBits {
    WindowBits::new(bits).expect("a window")
}

/// Each way to have it, for messages of any length.
fn modes() -> [CompressionConfig; 2] {
    [
        CompressionConfig::shared().with_threshold(1),
        CompressionConfig::dedicated().with_threshold(1),
    ]
}

fn json(len: usize) -> String {
    let items = (0..len / 20).map(|number| format!("{{\"water\":{number:09}}},"));
    items.collect()
}

// What works

#[test]
fn round_trips() {
    let text = json(40_000);
    for ours in modes() {
        for theirs in modes() {
            let (server, _) = echo(theirs);
            let side = Side::new(ours);
            let (id, compressed) = side.open(&to(server.addr()));
            assert!(compressed);
            for _ in 0..3 {
                for part in [&text[..300], &text[100..], "", &text[..300], &text] {
                    side.talk(id, part);
                    side.talk(id, part.as_bytes());
                }
            }
            let (here, there) = (side.stats(), server.stats());
            // All but those that are empty.
            assert_eq!((here.deflated_messages, here.inflated_messages), (24, 24));
            assert_eq!((there.deflated_messages, there.inflated_messages), (24, 24));
            assert!(here.deflate_out_bytes < here.deflate_in_bytes / 4, "{here:?}");
            assert_eq!(here.inflate_out_bytes, here.deflate_in_bytes);
            let both = [ours, theirs]
                .map(|each| each.mode == ringwire::compression::CompressionMode::Dedicated);
            let takes_over = both == [true, true];
            let machines = Compressor::memory_len_of(window(12)) + Decompressor::MEMORY_LEN;
            let expected = if takes_over { machines as u64 } else { 0 };
            assert_eq!((here.deflate_memory, there.deflate_memory), (expected, expected));
            side.close(id);
        }
    }
}

#[test]
fn what_is_offered_and_what_is_made_of_it() {
    let [shared, dedicated] = modes();
    let with = |dial: Dial| dial.with_max_window(window(12));
    let plain = |dial: Dial| dial;
    let unlimited = |dial: Dial| dial.with_max_window(WindowBits::MAX);
    let vetoed = |dial: Dial| dial.without_compression().with_max_window(window(12));
    let bits = |offer: &str, bits: &str| Some(format!("{offer}; client_max_window_bits{bits}"));
    let ten = |compression: CompressionConfig| compression.with_max_window(window(10));
    type Change = fn(Dial) -> Dial;
    let table: [(CompressionConfig, Change, Option<String>); 11] = [
        (CompressionConfig::default(), plain, None),
        (CompressionConfig::default(), with, None),
        (shared, plain, Some(SHARED.to_owned())),
        (dedicated, plain, Some(PLAIN.to_owned())),
        (shared, vetoed, None),
        (dedicated, vetoed, None),
        (dedicated, with, bits(PLAIN, "=12")),
        (dedicated, unlimited, bits(PLAIN, "")),
        (ten(dedicated), unlimited, bits(PLAIN, "=10")),
        (ten(shared), plain, bits(SHARED, "=10")),
        (
            dedicated.with_decompress_only(true),
            plain,
            Some(format!("{PLAIN}; client_no_context_takeover")),
        ),
    ];
    let servers = [CompressionConfig::default(), shared, dedicated].map(echo);
    let text = json(40_000);
    for (compression, change, offer) in table {
        let side = Side::new(compression);
        for (index, (server, offers)) in servers.iter().enumerate() {
            let (id, compressed) = side.open(&change(to(server.addr())));
            assert_eq!(offers.recv().expect("a request"), offer);
            assert_eq!(compressed, offer.is_some() && index > 0, "{offer:?}");
            side.talk(id, text.as_str());
            side.talk(id, text.as_str());
            side.close(id);
        }
        let compresses = offer.is_some() && !compression.decompress_only;
        assert_eq!(side.stats().deflated_messages, if compresses { 4 } else { 0 });
        assert_eq!(side.stats().inflated_messages, if offer.is_some() { 4 } else { 0 });
    }
}

#[test]
fn each_message_may_be_excepted() {
    let (server, _) = echo(CompressionConfig::shared());
    let side = Side::new(CompressionConfig::shared());
    let (id, _) = side.open(&to(server.addr()));
    for (len, compress, expected) in [
        (1000, Compress::ByLength, 1),
        (100, Compress::ByLength, 1),
        (1000, Compress::Never, 1),
        (100, Compress::Always, 2),
    ] {
        let options = SendOptions::default().with_compress(compress);
        side.handle.send_with(id, json(len).as_str(), options).expect("the worker listens");
        assert!(matches!(side.next(), Event::Message(bytes) if bytes == json(len).as_bytes()));
        assert_eq!(side.stats().deflated_messages, expected, "{len} {compress:?}");
    }
    side.close(id);
}

/// Masked, and so compressed, for each of them.
#[test]
fn what_is_published_to_servers() {
    let text = json(2000);
    for ours in modes() {
        let (server, _) = echo(ours);
        let side = Side::new(ours);
        let dial = to(server.addr());
        side.open(&dial);
        side.open(&dial);
        side.open(&dial.without_compression());
        for round in 1..=3 {
            side.handle.publish("servers", text.as_str()).expect("the worker listens");
            for _ in 0..3 {
                assert!(matches!(side.next(), Event::Message(bytes) if bytes == text.as_bytes()));
            }
            let (here, there) = (side.stats(), server.stats());
            assert_eq!((here.deflated_messages, there.inflated_messages), (2 * round, 2 * round));
        }
    }
}

// Memory

#[test]
fn a_budget_that_is_used_up() {
    let [_, dedicated] = modes();
    let (server, offers) = echo(dedicated);
    // Room for two decompressors, and no compressor.
    let side = Side::new(dedicated.with_max_dedicated_len(2 * Decompressor::MEMORY_LEN));
    let dial = to(server.addr());
    let text = json(2000);
    let open = |expected: &str| {
        let (id, _) = side.open(&dial);
        assert_eq!(offers.recv().expect("a request").as_deref(), Some(expected));
        side.talk(id, text.as_str());
        side.talk(id, text.as_str());
        id
    };
    let [one, _, third] = [PLAIN, PLAIN, SHARED].map(open);
    assert_eq!(side.stats().deflate_memory, 2 * Decompressor::MEMORY_LEN as u64);
    side.close(third);
    let fourth = open(SHARED);
    side.close(one);
    open(PLAIN);
    open(SHARED);
    side.talk(fourth, text.as_str());
    assert_eq!(side.stats().deflated_messages, 13);
}

/// What was set aside for the answer comes back when the answer has no use for it, or does not come.
#[test]
fn what_is_set_aside_is_given_back() {
    let [shared, dedicated] = modes();
    let (server, offers) = echo(dedicated);
    let compression = dedicated.with_max_dedicated_len(Decompressor::MEMORY_LEN);
    // All but the silent one have to shake hands within that.
    let side = Side::with(config().with_compression(compression).with_handshake_timeout(ms(2000)));
    let there_is_room = |after: &str| {
        let (id, _) = side.open(&to(server.addr()));
        assert_eq!(offers.recv().expect("a request").as_deref(), Some(PLAIN), "after {after}");
        side.close(id);
        wait_until("it is gone", || side.stats().connections == 0);
    };
    there_is_room("nothing");
    there_is_room("a connection that used it");

    let (declining, _) = echo(CompressionConfig::default());
    let (id, compressed) = side.open(&to(declining.addr()));
    assert!(!compressed);
    // Even while that is open.
    let (other, _) = side.open(&to(server.addr()));
    assert_eq!(offers.recv().expect("a request").as_deref(), Some(PLAIN));
    side.close(other);
    wait_until("it is gone", || side.stats().connections == 1);
    side.close(id);
    there_is_room("a server that declines");

    let (economical, _) = echo(shared);
    let (id, compressed) = side.open(&to(economical.addr()));
    assert!(compressed);
    let (other, _) = side.open(&to(server.addr()));
    assert_eq!(offers.recv().expect("a request").as_deref(), Some(PLAIN));
    side.close(other);
    side.close(id);
    wait_until("they are gone", || side.stats().connections == 0);
    there_is_room("a server that refers to nothing");

    assert!(side.failure(&agreeing("x-other", "")).contains("not offered"));
    there_is_room("a wrong answer");
    let refusing = Server::start(config(), |app| {
        app.on_request(|_| ringwire::Response::new(StatusCode::FORBIDDEN).into())
    });
    assert!(side.failure(&to(refusing.addr())).contains("403"));
    there_is_room("a refusal");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = silent.local_addr().expect("an address");
    assert!(side.failure(&to(addr)).contains("timed out"));
    there_is_room("silence");
    let (_kept, addr) = unheard();
    assert!(side.failure(&to(addr)).contains("refused"));
    there_is_room("nobody");
}

// What does not work

#[test]
fn a_server_that_agrees_to_something_else() {
    let [shared, dedicated] = modes();
    let off = CompressionConfig::default();
    const UNOFFERED: &str = "an extension that was not offered";
    const PARAMS: &str = "permessage-deflate parameters";
    for (compression, answer, expected) in [
        (off, PLAIN, UNOFFERED),
        (off, SHARED, UNOFFERED),
        (shared, "x-webkit-deflate-frame", UNOFFERED),
        (shared, "permessage-deflate; server_no_context_takeover, x-other", UNOFFERED),
        (shared, PLAIN, PARAMS),
        (shared, "permessage-deflate; client_no_context_takeover", PARAMS),
        (dedicated, "permessage-deflate, permessage-deflate", UNOFFERED),
        (dedicated, "permessage-deflate; client_max_window_bits=10", PARAMS),
        (dedicated, "permessage-deflate; server_max_window_bits=16", PARAMS),
        (dedicated, "permessage-deflate; water=1", PARAMS),
        (dedicated, "permessage-deflate; ;", "Sec-WebSocket-Extensions"),
    ] {
        let why = Side::new(compression).failure(&agreeing(answer, ""));
        assert!(why.starts_with("the handshake failed"), "{why} for {answer}");
        assert!(why.contains(expected), "{why} for {answer}");
    }
    // A veto is no offer.
    let why = Side::new(shared).failure(&agreeing(SHARED, "").without_compression());
    assert!(why.contains(UNOFFERED), "{why}");
}

#[test]
fn a_server_whose_messages_are_no_good() {
    let mut bomb = Vec::new();
    Compressor::new(CompressionLevel::SMALLEST, WindowBits::MAX)
        .compress(&vec![b'x'; 2 << 20], &mut bomb);
    let length = u16::try_from(bomb.len()).expect("it is small").to_be_bytes();
    let bomb = [&[0xc2, 126, length[0], length[1]][..], &bomb].concat();
    for compression in modes() {
        let limits = ringwire_codec::Config::default().with_inflate_ratio_floor(1 << 20);
        let side = Side::with(config().with_compression(compression).with_protocol(limits));
        let end = |rest: Vec<u8>| side.end(&agreeing(SHARED, rest));
        assert_eq!(end(vec![0xc1, 2, 7, 0]), CloseReason::Protocol(Error::InvalidDeflate));
        assert_eq!(
            end(bomb.clone()),
            CloseReason::Protocol(Error::LimitExceeded(Limit::MessageLen))
        );
        // Masked, as only a client's are.
        assert!(matches!(end(frame(0xc1, b"\0")), CloseReason::Protocol(_)));
    }
}
