//! A peer that speaks bytes, plain or through rustls's own connection, and ends its stream as a test wants it to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};

use ringwire::tls::pki_types::{ServerName, UnixTime};
use ringwire::tls::{CertificateSource, ServerConfig, ServerSettings};
use ringwire::{CloseCause, Config};
use ringwire_codec::deflate::{Agreement, Compressor, Decompressor, Inflate, Level, Offer};
use ringwire_codec::handshake::{HeadLimits, client as handshake};
use ringwire_codec::{Connection, Event, Heap, Input, Message, Role};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::support::Server;
use crate::support::app::App;
use crate::support::client::{Got, connect, mask, plain_request};

/// Certificate and key, as PEM.
static CERTIFIED: LazyLock<(String, String)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name");
    (made.cert.pem(), made.signing_key.serialize_pem())
});

pub(crate) fn certified() -> &'static (String, String) {
    &CERTIFIED
}

/// How a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Tls12,
    Tls13,
}

/// How a peer ends what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    /// close_notify alone: the TCP connection stays open both ways.
    Notice,
    /// close_notify, and FIN behind it.
    NoticeAndFin,
}

/// Each way to be connected with each way to end.
pub(crate) const ENDS: [(Way, End); 6] = [
    (Way::Plain, End::Fin),
    (Way::Tls13, End::Fin),
    (Way::Tls13, End::Notice),
    (Way::Tls13, End::NoticeAndFin),
    (Way::Tls12, End::Notice),
    (Way::Tls12, End::NoticeAndFin),
];

/// A server on a plain port and on one for TLS.
pub(crate) fn serve(config: Config, build: impl Fn(App) -> App + Send + Sync + 'static) -> Server {
    Server::secure(config, tls(), build)
}

pub(crate) fn tls() -> ServerConfig {
    let (chain, key) = CERTIFIED.clone();
    ServerSettings::new(CertificateSource::pem(chain, key))
        .build(UnixTime::now())
        .expect("a good certificate")
}

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    tls: Option<rustls::ClientConnection>,
    /// What came and was not looked at.
    heard: Vec<u8>,
    codec: Connection,
    pub(crate) deflate: Option<Agreement>,
}

impl Peer {
    /// Connected, and through the TLS handshake.
    pub(crate) fn connect(server: &Server, way: Way) -> Self {
        let addr = server.addrs()[usize::from(way != Way::Plain)];
        let stream = connect(addr);
        let tls = match way {
            Way::Plain => None,
            Way::Tls12 => Some(session(&rustls::version::TLS12)),
            Way::Tls13 => Some(session(&rustls::version::TLS13)),
        };
        let codec = Connection::new(Role::Client);
        let mut peer = Self { stream, tls, heard: Vec::new(), codec, deflate: None };
        while let Some(tls) = peer.tls.as_mut().filter(|tls| tls.is_handshaking()) {
            tls.complete_io(&mut peer.stream).expect("the server shakes hands");
        }
        peer
    }

    /// Upgraded.
    pub(crate) fn open(server: &Server, way: Way) -> Self {
        Self::upgrade(server, way, &plain_request())
    }

    /// Upgraded, with compression.
    pub(crate) fn offering(server: &Server, way: Way) -> Self {
        let peer = Self::upgrade(server, way, &plain_request().with_deflate(Offer::default()));
        assert!(peer.deflate.is_some(), "the server compresses");
        peer
    }

    fn upgrade(server: &Server, way: Way, request: &handshake::Request) -> Self {
        let mut peer = Self::connect(server, way);
        let mut out = Vec::new();
        request.encode(&mut out);
        peer.say(&out);
        let end = loop {
            if let Some(at) = peer.heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(peer.hear(), Heard::End, "the server answers");
        };
        let head: Vec<u8> = peer.heard.drain(..end).collect();
        let response = handshake::Response::parse(&head, &HeadLimits::default());
        let response = response.expect("a correct answer");
        peer.deflate = response.check_upgrade(request).expect("it upgrades").deflate;
        if peer.deflate.is_some() {
            peer.codec = Connection::new(Role::Client).with_deflate();
        }
        peer
    }

    // What it says

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let bytes = self.seal(bytes);
        self.stream.write_all(&bytes).expect("the server takes it");
    }

    /// What goes over the wire for these bytes.
    pub(crate) fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(tls) = &mut self.tls else { return bytes.to_vec() };
        tls.writer().write_all(bytes).expect("it takes all");
        drain(tls)
    }

    /// Messages, compressed as was agreed.
    pub(crate) fn compress<'m>(&mut self, messages: impl Iterator<Item = Message<'m>>) -> Vec<u8> {
        let agreement = self.deflate.as_ref().expect("compression was agreed on");
        let window = agreement.compressor_window(Role::Client);
        let compressor = Compressor::new(Level::SMALLEST, window);
        let mut compressor = match agreement.takeover(Role::Client) {
            true => compressor.with_takeover(),
            false => compressor,
        };
        let mut out = Vec::new();
        for message in messages {
            self.codec
                .send_compressed(message, &mut compressor, &mut mask, &mut out)
                .expect("it is open");
        }
        out
    }

    pub(crate) fn end(&mut self, how: End) {
        let notice = self.last_words(how);
        end(&mut self.stream, &notice, how);
    }

    /// close_notify, where that is a part of the end.
    fn last_words(&mut self, how: End) -> Vec<u8> {
        match &mut self.tls {
            Some(tls) if how != End::Fin => {
                tls.send_close_notify();
                drain(tls)
            }
            _ => Vec::new(),
        }
    }

    /// Says this and ends its stream, on a thread, while it may read already.
    pub(crate) fn say_and_end(&mut self, bytes: &[u8], how: End) -> JoinHandle<()> {
        let bytes = self.seal(bytes);
        let notice = self.last_words(how);
        let mut stream = self.stream.try_clone().expect("a loopback socket works");
        thread::spawn(move || {
            stream.write_all(&bytes).expect("the server takes it");
            end(&mut stream, &notice, how);
        })
    }

    // What it hears

    /// All until the server's end of the stream, which over TLS is close_notify and FIN (RFC 8446 §6.1). A reset fails.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.hear() != Heard::End {}
        std::mem::take(&mut self.heard)
    }

    /// The same as messages and close frames.
    pub(crate) fn rest_as_frames(&mut self) -> Vec<Got> {
        let mut bytes = self.rest();
        let config = ringwire_codec::Config::default().with_max_message_len(64 << 20);
        let mut decompressor: Option<Box<Decompressor>> = None;
        let takeover = self.deflate.as_ref().is_some_and(|it| it.takeover(Role::Server));
        let mut input = Input::new(&mut bytes);
        let mut got = Vec::new();
        loop {
            let inflate = match (&self.deflate, takeover) {
                (None, _) => Inflate::Off,
                (Some(_), true) => Inflate::Dedicated(&mut decompressor),
                (Some(_), false) => Inflate::Shared(decompressor.get_or_insert_default()),
            };
            let event = self.codec.receive_with(&config, &mut Heap, inflate, &mut input);
            match event.expect("the server keeps to the protocol") {
                None => return got,
                Some(Event::Message(message)) => got.push(match message.as_message() {
                    Message::Text(text) => Got::Text(text.to_owned()),
                    Message::Binary(bytes) => Got::Binary(bytes.to_vec()),
                }),
                Some(Event::Close(frame)) => {
                    let code = frame.code_or_no_status().get();
                    got.push(Got::Close(code, frame.reason.into_owned()));
                }
                Some(Event::Ping(payload)) => got.push(Got::Ping(payload.to_vec())),
                Some(Event::Pong(payload)) => got.push(Got::Pong(payload.to_vec())),
                Some(Event::Part(_) | Event::InflatedPart(_)) => unreachable!("streaming is off"),
            }
        }
    }

    fn hear(&mut self) -> Heard {
        let mut buffer = [0; 64 << 10];
        let len = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.expect("bytes or FIN, no reset"),
            }
        };
        let Some(tls) = &mut self.tls else {
            self.heard.extend(&buffer[..len]);
            return if len == 0 { Heard::End } else { Heard::Some };
        };
        let mut received = &buffer[..len];
        let mut ended = false;
        while !received.is_empty() {
            tls.read_tls(&mut received).expect("a slice can be read");
            let state = tls.process_new_packets().expect("correct records");
            let mut plaintext = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut plaintext).expect("it is there");
            self.heard.append(&mut plaintext);
            ended |= state.peer_has_closed();
        }
        if len == 0 {
            let notified = matches!(tls.reader().read(&mut [0]), Ok(0));
            assert!(notified || ended, "FIN without close_notify");
            return Heard::End;
        }
        Heard::Some
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Some,
    End,
}

fn end(stream: &mut TcpStream, notice: &[u8], how: End) {
    stream.write_all(notice).expect("the server takes it");
    if how != End::Notice {
        stream.shutdown(Shutdown::Write).expect("it is connected");
    }
}

fn drain(tls: &mut rustls::ClientConnection) -> Vec<u8> {
    let mut out = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut out).expect("memory takes it");
    }
    out
}

fn session(version: &'static rustls::SupportedProtocolVersion) -> rustls::ClientConnection {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(CERTIFIED.0.as_bytes());
    roots.add(root.expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).expect("a connection");
    tls.set_buffer_limit(None);
    tls
}

/// A message whose beginning is its number.
pub(crate) fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut message = number.to_be_bytes().to_vec();
    message.resize(len, 7);
    message
}

/// Checks that the messages with these numbers came, each once, in their order, and nothing else.
pub(crate) fn assert_numbers(got: &[Got], count: u32, len: usize) {
    for (number, got) in (0..).zip(got) {
        assert!(*got == Got::Binary(numbered(number, len)), "reply {number} is another");
    }
    assert_eq!(u32::try_from(got.len()), Ok(count), "all replies");
}

/// A connection whose peer has ended its stream, and that has said all.
pub(crate) fn assert_whole(cause: &CloseCause) {
    assert_eq!(cause.reason, ringwire::CloseReason::EndOfStream);
    assert_eq!(cause.unsent_len, 0);
}
