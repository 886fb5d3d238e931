//! Connections that another server has accepted, plain and over its own rustls: nothing that it has read, or not yet
//! written, is lost.

#![expect(clippy::disallowed_types, reason = "the tests are about sockets of others")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ringwire::tls::Session;
use ringwire::tls::pki_types::ServerName;
use ringwire::{Answer, CloseCode, CloseReason, PostError, transport::Adoption};
use ringwire_peers::{Identity, connect, frame, request};
use rustls::{ClientConnection, ServerConnection, SupportedProtocolVersion, version};
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Bytes, Message, WebSocket};

use crate::support::app::Seen;
use crate::support::{Server, config, wait_until};

/// First byte of a whole text message.
const TEXT: u8 = 0x81;

/// What is spoken between client and front: nothing but TCP, or a version of TLS.
const WAYS: [Option<&SupportedProtocolVersion>; 3] =
    [None, Some(&version::TLS12), Some(&version::TLS13)];

/// One end of a connection, plain or over rustls's own connection.
struct End<C> {
    stream: TcpStream,
    tls: Option<C>,
}

type Client = End<ClientConnection>;
type Front = End<ServerConnection>;

/// A client, and the other server that it has connected to. Their TLS handshake is over.
fn pair(way: Option<&'static SupportedProtocolVersion>) -> (Client, Front) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let mut stream = connect(listener.local_addr().expect("it listens"));
    let (mut accepted, _) = listener.accept().expect("it listens");
    let Some(version) = way else {
        return (End { stream, tls: None }, End { stream: accepted, tls: None });
    };
    let (mut client, mut server) = sessions(version);
    let front = thread::spawn(move || {
        while server.is_handshaking() || server.wants_write() {
            server.complete_io(&mut accepted).expect("a handshake");
        }
        End { stream: accepted, tls: Some(server) }
    });
    while client.is_handshaking() || client.wants_write() {
        client.complete_io(&mut stream).expect("a handshake");
    }
    (End { stream, tls: Some(client) }, front.join().expect("it does not panic"))
}

fn sessions(version: &'static SupportedProtocolVersion) -> (ClientConnection, ServerConnection) {
    let identity = Identity::localhost();
    let (client, server) = (identity.client(&[version]), identity.server(&[version]));
    let name = ServerName::try_from("localhost").expect("a name");
    (
        ClientConnection::new(client, name).expect("a connection"),
        ServerConnection::new(server).expect("a connection"),
    )
}

impl Client {
    /// The bytes that this is on the wire.
    fn wire(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let Some(tls) = &mut self.tls else { return plaintext.to_vec() };
        let mut out = Vec::new();
        tls.writer().write_all(plaintext).expect("it fits");
        while tls.wants_write() {
            tls.write_tls(&mut out).expect("there is room");
        }
        out
    }

    /// Sends bytes that are made for the wire.
    fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection is open");
    }

    /// Speaks frames from here on.
    fn upgraded(self) -> WebSocket<Self> {
        WebSocket::from_raw_socket(self, Role::Client, None)
    }
}

impl Front {
    /// Reads what has come, and gives so many bytes of it.
    fn read_len(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read_exact(&mut bytes).expect("the client says that much");
        bytes
    }

    /// Takes so many bytes off the socket, without looking at them.
    fn take_off_wire(&mut self, len: usize) {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("the client sends that much");
        let tls = self.tls.as_mut().expect("it speaks TLS");
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            tls.read_tls(&mut rest).expect("there is room");
            tls.process_new_packets().expect("no fault");
        }
    }

    fn adoption(self) -> Adoption {
        let adoption = Adoption::new(self.stream);
        match self.tls {
            Some(tls) => adoption.with_tls(Session::established(tls).expect("it is over")),
            None => adoption,
        }
    }
}

impl<C, D> Read for End<C>
where
    C: std::ops::DerefMut<Target = rustls::ConnectionCommon<D>>,
    D: rustls::SideData,
{
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).read(bytes),
            None => self.stream.read(bytes),
        }
    }
}

impl<C, D> Write for End<C>
where
    C: std::ops::DerefMut<Target = rustls::ConnectionCommon<D>>,
    D: rustls::SideData,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).write(bytes),
            None => self.stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).flush(),
            None => self.stream.flush(),
        }
    }
}

fn adopt(server: &Server, adoption: Adoption) {
    server.handle().adopt_with(adoption).expect("a worker takes it");
}

#[test]
fn messages_close_codes_and_the_end() {
    for way in WAYS {
        let server = Server::echo(config());
        let (client, front) = pair(way);
        adopt(&server, front.adoption().with_state(7_u32));
        let mut client = client.upgraded();
        for len in [0, 1, 125, 126, 65_536, 900_000] {
            let message = Message::Binary(Bytes::from(vec![b'm'; len]));
            client.send(message.clone()).expect("the server takes it");
            assert_eq!(client.read().expect("it comes back"), message, "{way:?}");
        }
        let frame = CloseFrame { code: 4001.into(), reason: "done".into() };
        client.close(Some(frame.clone())).expect("the server takes it");
        assert_eq!(client.read().expect("it is answered"), Message::Close(Some(frame)));
        // Over TLS an end without close_notify would be an error of another kind.
        let end = client.read().expect_err("the server closes");
        assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{way:?}: {end}");
        let cause = server.closed();
        assert_eq!((cause.reason, cause.code), (CloseReason::Peer, Some(CloseCode::new(4001))));
        let stats = server.stats();
        assert_eq!((stats.adopted, stats.handshakes, stats.handshake_failures), (1, 0, 0));
        // The TLS handshake was the other server's.
        assert_eq!((stats.tls_handshakes, stats.tls_failures), (0, 0));
    }
}

#[test]
fn what_was_read_behind_the_request_is_not_lost() {
    for way in WAYS {
        let server = Server::echo(config());
        let (mut client, mut front) = pair(way);
        let frames = [frame(TEXT, b"first"), frame(TEXT, b"second")].concat();
        // The second frame is cut at every place, by what was read already.
        for cut in frames.len() / 2..=frames.len() {
            let (early, late) = frames.split_at(cut);
            client.write_all(early).expect("the front reads");
            let received = front.read_len(early.len());
            adopt(&server, front.adoption().with_received(received).with_state(0_u32));
            client.write_all(late).expect("the server reads");
            let mut socket = client.upgraded();
            for text in ["first", "second"] {
                assert_eq!(socket.read().expect("an echo"), Message::text(text), "{way:?} {cut}");
            }
            (client, front) = pair(way);
        }
    }
}

#[test]
fn what_tls_holds_is_not_lost() {
    for way in WAYS.into_iter().flatten() {
        let server = Server::echo(config());
        let (mut client, mut front) = pair(Some(way));
        let read = client.wire(&frame(TEXT, b"read"));
        let second = frame(TEXT, b"the second");
        let (begin, end) = second.split_at(4);
        let unread = client.wire(begin);
        let cut = client.wire(end);
        let (cut_early, cut_late) = cut.split_at(cut.len() / 2);

        client.raw(&[&read, &unread, cut_early].concat());
        front.take_off_wire(read.len() + unread.len() + cut_early.len());
        let received = front.read_len(frame(TEXT, b"read").len());
        let tls = front.tls.as_mut().expect("it speaks TLS");
        tls.writer().write_all(b"HTTP/1.1 101 \r\n\r\n").expect("it fits");
        adopt(&server, front.adoption().with_received(received).with_state(0_u32));

        let mut head = [0; 17];
        client.read_exact(&mut head).expect("what was not written goes first");
        assert_eq!(&head, b"HTTP/1.1 101 \r\n\r\n");
        let mut socket = client.upgraded();
        assert_eq!(socket.read().expect("an echo"), Message::text("read"));
        socket.get_mut().raw(cut_late);
        assert_eq!(socket.read().expect("an echo"), Message::text("the second"));
    }
}

/// The server says something first, in the call that begins the connection.
#[test]
fn the_first_word_may_be_the_servers() {
    for way in WAYS {
        let server = Server::start(config(), |app| {
            app.on_open(|ctx| {
                let tls = ctx.tls().map(|facts| facts.version.to_string());
                let text = format!("{} over {}", ctx.state(), tls.as_deref().unwrap_or("TCP"));
                let _ = ctx.send(text.as_str());
            })
        });
        let (client, front) = pair(way);
        adopt(&server, front.adoption().with_state(42_u32));
        let over = way
            .map_or_else(|| "TCP".to_owned(), |way| format!("{:?}", way.version).replace('_', "."));
        let text = client.upgraded().read().expect("a word").into_text().expect("it is text");
        assert_eq!(text.as_str().replace('_', "."), format!("42 over {over}"));
    }
}

#[test]
fn a_connection_before_its_request() {
    for way in WAYS {
        let server = Server::start(config(), |app| {
            app.on_request(|request| {
                assert!(request.peer_addr().ip().is_loopback());
                Answer::accept(u32::from(request.tls().is_some()))
            })
            .on_open(|ctx| {
                let is_secure = *ctx.state() == 1;
                let _ = ctx.send(if is_secure { "secure" } else { "plain" });
            })
        });
        let (mut client, mut front) = pair(way);
        let request = request();
        client.write_all(request.as_bytes()).expect("the front reads");
        let received = front.read_len(request.len() / 2);
        adopt(&server, front.adoption().with_received(received));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
        let text = if way.is_some() { "secure" } else { "plain" };
        assert_eq!(client.upgraded().read().expect("a word"), Message::text(text));
        let stats = server.stats();
        assert_eq!((stats.adopted, stats.handshakes), (1, 1));
    }
}

#[test]
fn a_state_of_another_type_is_refused_and_the_connection_comes_back() {
    for way in WAYS {
        let server = Server::echo(config());
        let (mut client, front) = pair(way);
        let adoption = front.adoption().with_state("not a number");
        let refused =
            server.handle().adopt_with(adoption).expect_err("no handler has such a state");
        assert_eq!(refused.reason(), PostError::WrongState);
        assert_eq!(server.stats().adopted, 0);
        // With the right one it is served.
        adopt(&server, refused.into_inner().with_state(0_u32));
        client.write_all(&frame(TEXT, b"served")).expect("the server reads");
        let echo = client.upgraded().read().expect("an echo");
        assert_eq!(echo, Message::text("served"));
    }
}

#[test]
fn a_client_that_is_gone() {
    for way in WAYS {
        let server = Server::echo(config());
        let (mut client, front) = pair(way);
        if let Some(tls) = &mut client.tls {
            tls.send_close_notify();
            tls.complete_io(&mut client.stream).expect("it is written");
        }
        drop(client);
        adopt(&server, front.adoption().with_state(0_u32));
        assert_eq!(server.closed().reason, CloseReason::EndOfStream, "{way:?}");
        wait_until("it is gone", || server.stats().connections == 0);
    }
}

/// A fault of TLS that lies in what the other server has received.
#[test]
fn a_fault_in_what_was_received_already() {
    let server = Server::echo(config());
    let (mut client, mut front) = pair(Some(&version::TLS13));
    let mut record = client.wire(&frame(TEXT, b"never read"));
    *record.last_mut().expect("a record") ^= 1;
    client.raw(&record);
    let mut bytes = vec![0; record.len()];
    front.stream.read_exact(&mut bytes).expect("it comes");
    let tls = front.tls.as_mut().expect("it speaks TLS");
    tls.read_tls(&mut &bytes[..]).expect("there is room");
    adopt(&server, front.adoption().with_state(0_u32));
    assert_eq!(server.closed().reason, CloseReason::Tls);
    let error = client.read(&mut [0]).expect_err("an alert comes");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    drop(client);
    assert!(server.drained().iter().all(|seen| !matches!(seen, Seen::Text(_))));
}

#[test]
fn a_server_that_has_ended_gives_the_connection_back() {
    for way in WAYS {
        let server = Server::echo(config());
        let handle = server.handle();
        handle.shutdown(Duration::ZERO);
        server.join().expect("it ends well");
        let (mut client, front) = pair(way);
        let adoption = front.adoption().with_received(frame(TEXT, b"kept")).with_state(0_u32);
        let refused = handle.adopt_with(adoption).expect_err("it has ended");
        assert_eq!(refused.reason(), PostError::Stopped);
        // Another takes it, with all that there was.
        let server = Server::echo(config());
        adopt(&server, refused.into_inner());
        client.write_all(&frame(TEXT, b"more")).expect("the server reads");
        let mut socket = client.upgraded();
        for text in ["kept", "more"] {
            assert_eq!(socket.read().expect("an echo"), Message::text(text));
        }
    }
}
