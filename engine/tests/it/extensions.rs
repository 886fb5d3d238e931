//! Extensions of the application's own: what is agreed on, what goes through them, and what happens when they fail.

#![expect(clippy::disallowed_types, reason = "tests own sockets, and share with threads")]

use std::sync::{Arc, mpsc};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use ringwire::client;
use ringwire::extension::{
    DataFrame, ExtensionError, ExtensionParams, FrameExtension, FrameTransform, ReservedBits,
    SharedExtension,
};
use ringwire::tls::pki_types::{ServerName, UnixTime};
use ringwire::tls::{CertificateSource, ClientConfig, ClientSettings, Roots, ServerSettings};
use ringwire::{
    Accept, Answer, CloseCode, CloseReason, Config, Ctx, Handler, Message, Request,
    compression::{CompressionConfig, CompressionMode},
    transport::{Dial, DialError},
};
use ringwire_codec::FrameHeader;
use ringwire_codec::deflate::Offer;
use ringwire_codec::handshake::Params;
use ringwire_peers::{Client, Got, client_request, connect, frame};

use crate::support::app::{App, Seen};
use crate::support::{PATIENCE, Server, config, wait_until};

/// Puts the number of a frame before its payload, and refuses one out of order.
#[derive(Debug)]
struct Numbered;

#[derive(Debug, Default)]
struct Numbers {
    sent: u32,
    received: u32,
}

impl FrameExtension for Numbered {
    fn name(&self) -> &str {
        "x-numbered"
    }

    fn reserved_bits(&self) -> ReservedBits {
        ReservedBits::RSV2
    }

    fn accept(&self, mut offer: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
        assert!(offer.clone().all(|(name, _)| name != "panic"), "it was asked for");
        let is_wanted = offer.all(|(name, _)| name != "never");
        is_wanted.then(|| (ExtensionParams::new().with_flag("yes"), Box::<Numbers>::default() as _))
    }

    fn confirm(&self, answer: Params<'_>) -> Option<Box<dyn FrameTransform>> {
        answer.eq([("yes", None)]).then(|| Box::<Numbers>::default() as _)
    }
}

impl FrameTransform for Numbers {
    fn send(&mut self, frame: &mut DataFrame<'_>) {
        assert!(!frame.payload.ends_with(b"panic when sent"), "it was asked for");
        frame.payload.splice(..0, self.sent.to_be_bytes());
        frame.set_reserved_bits(ReservedBits::RSV2);
        self.sent += 1;
    }

    fn receive(&mut self, frame: &mut DataFrame<'_>) -> Result<(), ExtensionError> {
        assert!(!frame.payload.ends_with(b"panic when received"), "it was asked for");
        if frame.payload.get(..4) != Some(&self.received.to_be_bytes()) {
            let error =
                ExtensionError::new(format!("{} was expected {}", self.received, "!".repeat(200)));
            return Err(error.with_code(CloseCode::new(4000)));
        }
        frame.payload.drain(..4);
        self.received += 1;
        Ok(())
    }
}

/// Another one, without a bit of its own.
#[derive(Debug)]
struct Flipped;

#[derive(Debug)]
struct Flip;

impl FrameExtension for Flipped {
    fn name(&self) -> &str {
        "x-flipped"
    }

    fn accept(&self, _: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
        Some((ExtensionParams::new(), Box::new(Flip)))
    }

    fn confirm(&self, _: Params<'_>) -> Option<Box<dyn FrameTransform>> {
        Some(Box::new(Flip))
    }
}

impl FrameTransform for Flip {
    fn send(&mut self, frame: &mut DataFrame<'_>) {
        frame.payload.reverse();
    }

    fn receive(&mut self, frame: &mut DataFrame<'_>) -> Result<(), ExtensionError> {
        frame.payload.reverse();
        Ok(())
    }
}

fn numbered() -> SharedExtension {
    Arc::new(Numbered)
}

fn flipped() -> SharedExtension {
    Arc::new(Flipped)
}

/// A server whose application has both.
fn server(config: Config, build: impl Fn(App) -> App + Send + Sync + 'static) -> Server {
    Server::start(config, move |app| build(app.on_request(|_| accept().into())))
}

fn accept() -> Accept<u32> {
    Accept::new(0).with_extension(numbered()).with_extension(flipped())
}

/// A client that offers both.
fn offering(server: &Server) -> Client {
    let client = Client::upgrade(connect(server.addr()), &request());
    assert_eq!(client.extensions(), Some("x-numbered; yes, x-flipped"));
    client
}

fn request() -> ringwire_codec::handshake::client::Request {
    let request = client_request("/").with_extension(numbered()).expect("a token");
    request.with_extension(flipped()).expect("another token")
}

#[test]
fn messages_come_back_as_they_were_sent() {
    let server = server(config(), |app| app);
    let mut client = offering(&server);
    for len in [0, 1, 125, 126, 4_000, 65_535, 65_536, 900_000] {
        let message: Vec<u8> = (0..len).map(|index: u32| index.to_le_bytes()[0]).collect();
        client.send(message.as_slice());
        assert!(client.binary() == message, "{len} bytes");
    }
    client.send_fragments(&[
        Message::Text("in "),
        Message::Text(""),
        Message::Text("parts \u{e9}"),
    ]);
    assert_eq!(client.text(), "in parts \u{e9}");
    client.ping(b"ping");
    assert_eq!(client.next(), Got::Pong(b"ping".to_vec()));
    client.leave();
    let seen = server.drained();
    assert!(seen.iter().any(|seen| *seen == Seen::Text("in parts \u{e9}".to_owned())));
    // What is held is published at the end of the turn in which the connection goes.
    wait_until("nothing is held", || server.stats().memory_input == 0);
}

#[test]
fn what_is_on_the_wire_has_been_through_them() {
    let server = server(config(), |app| app);
    let mut stream = connect(server.addr());
    let mut bytes = Vec::new();
    request().encode(&mut bytes);
    // The first frame comes with the request: number 0 before the payload, and then all of it turned round.
    bytes.extend(frame(0xa2, b"cba\0\0\0\0"));
    use std::io::{Read as _, Write as _};
    stream.write_all(&bytes).expect("the request goes out");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\xa2\x07cba\0\0\0\0") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the answer comes");
        answer.extend(byte);
    }
    assert_eq!(
        server.find("a message", |_, seen| match seen {
            Seen::Binary(bytes) => Some(bytes),
            _ => None,
        }),
        b"abc"
    );
}

#[test]
fn they_are_agreed_on_only_where_both_sides_want_them() {
    let server = server(config(), |app| app);
    let mut plain = server.client();
    assert_eq!(plain.extensions(), None);
    plain.send("plain");
    assert_eq!(plain.text(), "plain");
    // An offer that the extension declines, one that nobody knows, and a header of the application's own.
    let raw = |offer: &str| {
        let request = ringwire_peers::request();
        let head =
            request.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"));
        let mut stream = connect(server.addr());
        use std::io::Write as _;
        stream.write_all(head.as_bytes()).expect("it goes out");
        let plain = ringwire_peers::plain_request();
        Client::await_upgrade(stream, &plain)
    };
    for offer in ["x-numbered; never", "x-other, x-numbered; never=1"] {
        let mut declined = raw(offer);
        assert_eq!(declined.extensions(), None, "{offer}");
        declined.send(offer);
        assert_eq!(declined.text(), offer);
    }
    // One that panics has not agreed to anything.
    let head = "\r\nSec-WebSocket-Extensions: x-numbered; panic\r\n\r\n";
    let request = ringwire_peers::request().replace("\r\n\r\n", head);
    let answer = ringwire_peers::http(server.addr(), request);
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    // Its bit is nobody's then.
    plain.raw(&frame(0xa2, b"numbered?"));
    assert_eq!(plain.close_frame().0, 1002);
}

#[test]
fn compression_comes_first() {
    let compression =
        CompressionConfig::default().with_mode(CompressionMode::Shared).with_threshold(0);
    let server = server(config().with_compression(compression), |app| app);
    let mut client =
        Client::upgrade(connect(server.addr()), &request().with_deflate(Offer::default()));
    let answer = client.extensions().expect("all were agreed on").to_owned();
    assert!(
        answer.starts_with("permessage-deflate") && answer.ends_with("x-numbered; yes, x-flipped")
    );
    let text = "again and again, ".repeat(1000);
    for _ in 0..3 {
        client.send_compressed(text.as_str());
        assert_eq!(client.text(), text);
    }
    assert!(server.stats().bytes_received < 5_000);
    client.leave();
}

#[test]
fn publications_go_through_the_extensions_of_each_subscriber() {
    let server = server(config().with_io_workers(2), |app| {
        app.on_open(|ctx| assert!(ctx.subscribe("news").expect("a topic")))
    });
    let mut clients: Vec<_> = (0..6).map(|_| offering(&server)).chain([server.client()]).collect();
    wait_until("all have subscribed", || server.stats().subscriptions == 7);
    for round in 0..200 {
        let text = format!("number {round}");
        server.handle().publish("news", Message::Text(&text)).expect("the workers take it");
    }
    for client in &mut clients {
        for round in 0..200 {
            assert_eq!(client.text(), format!("number {round}"));
        }
    }
}

#[test]
fn what_waits_is_transformed_in_the_order_in_which_it_goes_out() {
    const COUNT: u32 = 3000;
    let server = server(config().with_max_queued_len(64 << 20), |app| {
        app.without_messages().on_message(|ctx, _| {
            for number in 0..COUNT {
                let payload = number.to_be_bytes().repeat(500);
                let _ = ctx.send(payload.as_slice());
            }
        })
    });
    let mut client = offering(&server);
    client.send("go");
    wait_until("output waits", || server.stats().queued_bytes > 1 << 20);
    for number in 0..COUNT {
        assert_eq!(client.binary()[..4], number.to_be_bytes());
    }
    client.leave();
    wait_until("all is out", || server.stats().queued_bytes == 0);
}

#[test]
fn a_deferred_upgrade_has_them_too() {
    let (sender, deferred) = mpsc::channel();
    let server = Server::start(config(), move |app| {
        let sender = sender.clone();
        app.on_request(move |request| {
            sender.send(request.id()).expect("the test waits");
            Answer::Defer
        })
    });
    let mut stream = connect(server.addr());
    let mut bytes = Vec::new();
    request().encode(&mut bytes);
    bytes.extend(frame(0xa2, b"cba\0\0\0\0"));
    use std::io::Write as _;
    stream.write_all(&bytes).expect("the request goes out");
    let conn = deferred.recv_timeout(PATIENCE).expect("a request");
    server.looks();
    let acceptance = Accept::new(0_u32).with_extension(numbered()).with_extension(flipped());
    server.handle().accept(conn, acceptance).expect("the worker takes it");
    let mut client = Client::await_upgrade(stream, &request());
    assert_eq!(client.binary(), b"abc");
}

#[test]
fn a_frame_that_is_refused_ends_its_connection() {
    let server = server(config(), |app| app);
    let mut other = offering(&server);
    let mut client = offering(&server);
    client.send("good");
    let lost = client.wrap(&frame(0x81, b"lost"));
    assert!(FrameHeader::parse(&lost).expect("a header").expect("all of it").0.rsv2);
    client.send("after a loss");
    assert_eq!(client.text(), "good");
    let (code, reason) = client.close_frame();
    assert_eq!((code, reason.len()), (4000, 123));
    assert!(reason.starts_with("1 was expected !"));
    assert_eq!(client.end(), Got::Eof);
    let cause = server.closed();
    assert_eq!(
        (cause.reason, cause.code, cause.is_clean()),
        (CloseReason::Extension, Some(CloseCode::new(4000)), false)
    );
    assert_eq!(server.stats().closes[CloseReason::Extension], 1);
    other.send("undisturbed");
    assert_eq!(other.text(), "undisturbed");
}

#[test]
fn a_transform_that_panics_ends_its_connection() {
    let server = server(config(), |app| {
        app.on_message(|ctx, message| {
            let _ = ctx.send(message);
            let _ = ctx.send("more");
        })
    });
    let mut other = offering(&server);
    for text in ["panic when received", "panic when sent"] {
        let mut client = offering(&server);
        // As this side's own transforms would make of it.
        let mut payload = [&0_u32.to_be_bytes(), text.as_bytes()].concat();
        payload.reverse();
        client.raw(&frame(0xa1, &payload));
        assert_eq!(client.close_frame().0, 1011, "{text}");
        client.end();
        let cause = server.closed();
        assert_eq!((cause.reason, cause.is_clean()), (CloseReason::HandlerPanic, false), "{text}");
    }
    other.send("undisturbed");
    assert_eq!((other.text(), other.text()), ("undisturbed".into(), "more".into()));
}

#[test]
fn a_frame_is_no_longer_than_a_message_may_be() {
    let limits = ringwire::tuning::ProtocolConfig::default().with_max_message_len(64 << 10);
    let server = server(config().with_protocol(limits), |app| app);
    let mut fits = offering(&server);
    fits.send(vec![7; 64 << 10].as_slice());
    assert_eq!(fits.binary().len(), 64 << 10);
    // Short enough for the extension, and too long a message afterwards.
    fits.send(vec![7; (64 << 10) + 1].as_slice());
    assert_eq!(fits.close_frame().0, 1009);
    let mut long = offering(&server);
    long.raw(&ringwire_peers::masked(0xa2, 1 << 40, b"the beginning"));
    assert_eq!(long.close_frame().0, 1009);
    assert!(server.stats().memory_input < 1 << 20);
}

#[test]
fn messages_in_parts_come_through() {
    let server = Server::start(config(), |app| {
        app.on_request(|_| accept().with_streaming().into()).on_part(|ctx, part| {
            if part.is_last {
                let _ = ctx.send("all of it");
            }
        })
    });
    let mut client = offering(&server);
    let long = vec![7; 500_000];
    client.send_fragments(&[Message::Binary(&long), Message::Binary(b"end")]);
    assert_eq!(client.text(), "all of it");
    let parts = server.drained_after(client);
    assert_eq!(parts, long.len() + 3);
}

trait Parts {
    fn drained_after(&self, client: Client) -> usize;
}

impl Parts for Server {
    /// How many bytes of parts came.
    fn drained_after(&self, client: Client) -> usize {
        client.leave();
        let parts = self.drained().into_iter().map(|seen| match seen {
            Seen::Part { bytes, .. } => bytes.len(),
            _ => 0,
        });
        parts.sum()
    }
}

/// Dials, greets, and reports what comes of it.
struct Caller(mpsc::Sender<Result<String, String>>);

impl Handler for Caller {
    type State = ();

    fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>) {
        let _ = ctx.send("hello ".repeat(5000).as_str());
        let _ = ctx.send("server");
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
        if text == "server" {
            ctx.close(CloseCode::NORMAL, "").expect("it is open");
        }
        let _ = self.0.send(Ok(text));
    }

    fn on_dial_failed(&mut self, _: (), error: &DialError) {
        let _ = self.0.send(Err(error.to_string()));
    }
}

/// A server with both extensions at a plain address and at one with TLS, and what a client needs for that.
fn secure_server() -> (Server, ClientConfig) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let chain = params.self_signed(&key).expect("it signs").pem();
    let source = CertificateSource::pem(chain.clone(), key.serialize_pem());
    let tls = ServerSettings::new(source).build(UnixTime::now()).expect("a server");
    let server = Server::secure(config(), tls, |app| app.on_request(|_| accept().into()));
    let roots = Roots::pem(chain);
    let tls = ClientSettings::new(roots).build(UnixTime::now()).expect("a client");
    (server, tls)
}

#[test]
fn workers_offer_them_as_clients_also_over_tls() {
    let (server, tls) = secure_server();
    let (sender, events) = mpsc::channel();
    let caller =
        ringwire::Server::new(config()).start(move |_| Caller(sender.clone())).expect("it starts");
    let next = || events.recv_timeout(PATIENCE).expect("something comes of it");
    let dial = |addr| {
        let dial = Dial::new(addr, "localhost", "/").expect("a request");
        dial.with_extension(numbered())
            .expect("a token")
            .with_extension(flipped())
            .expect("a token")
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let plain = dial(server.addrs()[0]);
    let secure = dial(server.addrs()[1]).with_tls(tls, name);
    for dial in [plain, secure] {
        caller.handle().connect(&dial, ()).expect("it begins to connect");
        assert_eq!(next(), Ok("hello ".repeat(5000)));
        assert_eq!(next(), Ok("server".to_owned()));
        assert!(server.closed().is_clean());
    }
    assert!(dial(server.addr()).with_extension(numbered()).is_err(), "it is offered already");
    // A server that has never heard of them, and one that chooses what was not offered.
    let plain = Server::echo(config());
    caller.handle().connect(&dial(plain.addr()), ()).expect("it begins to connect");
    assert_eq!(next(), Ok("hello ".repeat(5000)));
    assert_eq!(next(), Ok("server".to_owned()));
    caller.handle().shutdown(Duration::ZERO);
    crate::support::join_in_time(caller).expect("it ends well");
}

#[test]
fn the_blocking_client_offers_them_too() {
    let (server, tls) = secure_server();
    let builder = || {
        client::Client::builder()
            .with_extension(numbered())
            .with_extension(flipped())
            .with_tls(tls.clone())
    };
    let port = |index: usize| server.addrs()[index].port();
    let long = "long ".repeat(20_000);
    for url in [format!("ws://localhost:{}/", port(0)), format!("wss://localhost:{}/", port(1))] {
        let mut client = builder().connect(&url).expect("it opens");
        for text in ["", "short", &long] {
            client.send_text(text).expect("it goes out");
            let echo = client.receive().expect("it comes").expect("it is open");
            assert!(echo.as_message() == Message::Text(text), "{url}");
        }
        client.ping(b"alive").expect("it goes out");
        client.close(CloseCode::NORMAL, "").expect("it ends well");
        assert!(server.closed().is_clean());
    }
    let twice =
        builder().with_extension(numbered()).connect(format!("ws://localhost:{}/", port(0)));
    assert!(matches!(twice, Err(client::Error::Setting { setting: "extension", .. })), "{twice:?}");
}

/// A server whose frames are numbered by nobody.
#[derive(Debug)]
struct Sloppy;

#[derive(Debug)]
struct Nothing;

impl FrameExtension for Sloppy {
    fn name(&self) -> &str {
        "x-numbered"
    }

    fn accept(&self, _: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
        Some((ExtensionParams::new().with_flag("yes"), Box::new(Nothing)))
    }

    fn confirm(&self, _: Params<'_>) -> Option<Box<dyn FrameTransform>> {
        None
    }
}

impl FrameTransform for Nothing {
    fn send(&mut self, _: &mut DataFrame<'_>) {}

    fn receive(&mut self, _: &mut DataFrame<'_>) -> Result<(), ExtensionError> {
        Ok(())
    }
}

#[test]
fn the_blocking_client_refuses_a_frame() {
    let server = Server::start(config(), |app| {
        let sloppy = || Accept::new(0).with_extension(Arc::new(Sloppy));
        app.on_request(move |_| sloppy().into()).on_open(|ctx| {
            let _ = ctx.send("unnumbered");
        })
    });
    let mut client = client::Client::builder()
        .with_extension(numbered())
        .connect(format!("ws://{}/", server.addr()))
        .expect("it opens");
    let error = client.receive().expect_err("the frame has no number");
    assert!(matches!(error, client::Error::Extension(_)), "{error:?}");
    let cause = server.closed();
    assert_eq!((cause.reason, cause.code), (CloseReason::Peer, Some(CloseCode::new(4000))));
}
