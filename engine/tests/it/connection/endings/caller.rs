//! The worker's own client: a server that ends its stream may still be listening.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use ringwire::tls::pki_types::{ServerName, UnixTime};
use ringwire::tls::{ClientSettings, Roots};
use ringwire::{Answer, CloseCause, CloseReason, Ctx, Handler, Message, Request, transport::Dial};
use ringwire_codec::handshake::accept_key;
use ringwire_codec::{Connection, Event, Heap, Input, Role};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConnection, Stream};

use super::peer::{End, certified, numbered};
use crate::support::{PATIENCE, config, join_in_time, ms};

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

fn read_head(stream: &mut impl std::io::Read) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    head
}

fn agreement(head: &[u8]) -> Vec<u8> {
    let head = String::from_utf8(head.to_vec()).unwrap();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
    });
    let accept = accept_key(key.unwrap().as_bytes());
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: "
        .to_vec();
    answer.extend(accept);
    answer.extend(b"\r\n\r\n");
    answer
}

type Heard = JoinHandle<Vec<u8>>;

/// A server for one connection that says all, ends its stream, and then hears what comes back until its end.
fn plain_server() -> (SocketAddr, Heard) {
    serve(|mut stream| {
        let head = read_head(&mut stream);
        stream.write_all(&agreement(&head)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&messages()).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        thread::sleep(ms(100));
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("FIN, no reset");
        sender.join().unwrap();
        heard
    })
}

fn secure_server(end: End) -> (SocketAddr, Heard) {
    serve(move |mut stream| {
        let (chain, key) = certified();
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let settings = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let mut tls = ServerConnection::new(Arc::new(settings)).unwrap();
        tls.set_buffer_limit(None);
        let head = read_head(&mut Stream::new(&mut tls, &mut stream));
        tls.writer().write_all(&agreement(&head)).unwrap();
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
        thread::sleep(ms(100));
        let mut heard = Vec::new();
        // Without close_notify at its end this is an error.
        Stream::new(&mut tls, &mut stream).read_to_end(&mut heard).expect("close_notify");
        assert_eq!(stream.read(&mut [0]).expect("FIN, no reset"), 0);
        sender.join().unwrap();
        heard
    })
}

fn serve(talk: impl FnOnce(TcpStream) -> Vec<u8> + Send + 'static) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let heard = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        talk(stream)
    });
    (addr, heard)
}

fn check((addr, heard): (SocketAddr, Heard), is_secure: bool) {
    let (sender, causes) = mpsc::channel();
    let running =
        ringwire::Server::new(config()).start(move |_| Echo(sender.clone())).expect("it starts");
    let handle = running.handle();
    let mut dial = Dial::new(addr, "localhost", "/").unwrap();
    if is_secure {
        let settings = ClientSettings::new(Roots::pem(certified().0.clone()));
        let tls = settings.build(UnixTime::now()).unwrap();
        dial = dial.with_tls(tls, ServerName::try_from("localhost").unwrap());
    }
    handle.connect(&dial, ()).unwrap();
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
    check(plain_server(), false);
}

#[test]
fn a_server_that_says_close_notify_gets_all_replies() {
    for end in [End::Notice, End::NoticeAndFin] {
        check(secure_server(end), true);
    }
}
