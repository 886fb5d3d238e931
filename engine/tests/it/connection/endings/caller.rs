//! The worker's own client: a server that ends its stream may still be listening.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use ringwire::tls::pki_types::{ServerName, UnixTime};
use ringwire::tls::{ClientSettings, Roots};
use ringwire::{Answer, CloseCause, CloseReason, Ctx, Handler, Message, Request, transport::Dial};
use ringwire_codec::{Connection, Event, Heap, Input, Role};
use ringwire_peers::End;
use ringwire_peers::server::{serve_one, upgrade};
use rustls::{ServerConnection, Stream};

use super::peer::{identity, numbered};
use crate::support::{Gate, PATIENCE, config, join_in_time, ms, wait_until};

/// More replies than a socket takes.
const COUNT: u32 = 40_000;
const LEN: usize = 100;

/// Echoes what the server says.
struct Echo(mpsc::Sender<CloseCause>);

impl Handler for Echo {
    type State = ();

    fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let _ = ctx.send(message);
    }

    fn on_close(&mut self, _: &mut Ctx<'_, ()>, cause: &CloseCause) {
        self.0.send(cause.clone()).unwrap();
    }
}

fn messages() -> Vec<u8> {
    let mut out = Vec::new();
    let mut codec = Connection::new(Role::Server);
    for number in 0..COUNT {
        let message = numbered(number, LEN);
        codec.send(Message::Binary(&message), &mut || [0; 4], &mut out).unwrap();
    }
    out
}

/// The payloads of a client's frames.
fn payloads(mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let mut codec = Connection::new(Role::Server);
    let settings = ringwire_codec::Config::default();
    let mut input = Input::new(&mut bytes);
    let mut all = Vec::new();
    while let Some(event) = codec.receive(&settings, &mut Heap, &mut input).unwrap() {
        let Event::Message(message) = event else { panic!("{event:?} where a reply was expected") };
        all.push(message.as_message().as_bytes().to_vec());
    }
    all
}

type Heard = JoinHandle<Vec<u8>>;

/// A server for one connection that says all, ends its stream, and hears what comes back until its end, once the gate
/// is open.
fn plain_server(begin: Gate) -> (SocketAddr, Heard) {
    serve_one(move |mut stream| {
        upgrade(&mut stream);
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&messages()).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        begin.pass();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("FIN, no reset");
        sender.join().unwrap();
        heard
    })
}

fn secure_server(end: End, begin: Gate) -> (SocketAddr, Heard) {
    serve_one(move |mut stream| {
        let mut tls = ServerConnection::new(identity().server(rustls::ALL_VERSIONS)).unwrap();
        tls.set_buffer_limit(None);
        upgrade(&mut Stream::new(&mut tls, &mut stream));
        tls.writer().write_all(&messages()).unwrap();
        tls.send_close_notify();
        let mut sealed = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut sealed).unwrap();
        }
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&sealed).unwrap();
            if end == End::NoticeAndFin {
                writer.shutdown(Shutdown::Write).unwrap();
            }
        });
        begin.pass();
        let mut heard = Vec::new();
        // Without close_notify at its end this is an error.
        Stream::new(&mut tls, &mut stream).read_to_end(&mut heard).expect("close_notify");
        assert_eq!(stream.read(&mut [0]).expect("FIN, no reset"), 0);
        sender.join().unwrap();
        heard
    })
}

fn check(serve: impl FnOnce(Gate) -> (SocketAddr, Heard), is_secure: bool) {
    let begin = Gate::new();
    let (addr, heard) = serve(begin.clone());
    let (sender, causes) = mpsc::channel();
    let running =
        ringwire::Server::new(config()).start(move |_| Echo(sender.clone())).expect("it starts");
    let handle = running.handle();
    let mut dial = Dial::new(addr, "localhost", "/").unwrap();
    if is_secure {
        let settings = ClientSettings::new(Roots::pem(identity().chain.clone()));
        let tls = settings.build(UnixTime::now()).unwrap();
        dial = dial.with_tls(tls, ServerName::try_from("localhost").unwrap());
    }
    handle.connect(&dial, ()).unwrap();
    wait_until("replies wait in the worker", || handle.stats().total().queued_bytes > 0);
    begin.open();
    let replies = payloads(heard.join().expect("the server hears all"));
    for (number, reply) in (0..).zip(&replies) {
        assert!(*reply == numbered(number, LEN), "reply {number} is another");
    }
    assert_eq!(u32::try_from(replies.len()), Ok(COUNT));
    let cause = causes.recv_timeout(PATIENCE).unwrap();
    assert_eq!((cause.reason, cause.unsent_len), (CloseReason::EndOfStream, 0));
    handle.shutdown(ms(0));
    join_in_time(running).unwrap();
}

#[test]
fn a_server_that_ends_its_stream_gets_all_replies() {
    check(plain_server, false);
}

#[test]
fn a_server_that_says_close_notify_gets_all_replies() {
    for end in [End::Notice, End::NoticeAndFin] {
        check(|begin| secure_server(end, begin), true);
    }
}
