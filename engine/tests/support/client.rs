//! A client that speaks bytes: what the codec's client role makes, or whatever a test wants on the wire.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ringwire_codec::deflate::{Agreement, Compressor, Decompressor, Inflate, Level, Offer};
use ringwire_codec::extension::FrameLayer;
use ringwire_codec::handshake::{HeadLimits, HeadScanner, client as handshake};
use ringwire_codec::{
    CloseCode, CloseState, Config, Connection, Event, Heap, Input, Message, Role,
};

use super::PATIENCE;

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A close frame; 1005 if it has no code.
    Close(u16, String),
    /// The server ended the stream.
    Eof,
    /// The connection was reset.
    Reset,
}

/// One connection. Pings and close frames of the server are answered while [`answers`](Self::answers) says so.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    codec: Connection,
    config: Config,
    deflate: Option<Deflate>,
    layer: Option<FrameLayer>,
    got: VecDeque<Got>,
    /// Whether what the protocol owes is sent.
    pub(crate) answers: bool,
    /// The head of the server's answer.
    pub(crate) head: String,
}

/// How a client compresses.
struct Deflate {
    compressor: Compressor,
    decompressor: Option<Box<Decompressor>>,
    /// The server may refer back to earlier messages.
    takeover: bool,
}

impl Deflate {
    fn new(agreement: &Agreement) -> Self {
        let compressor =
            Compressor::new(Level::SMALLEST, agreement.compressor_window(Role::Client));
        Self {
            compressor: match agreement.takeover(Role::Client) {
                true => compressor.with_takeover(),
                false => compressor,
            },
            decompressor: None,
            takeover: agreement.takeover(Role::Server),
        }
    }

    /// One that forgets, where the server must not refer back.
    fn inflate(deflate: &mut Option<Self>) -> Inflate<'_> {
        let Some(Self { decompressor, takeover, .. }) = deflate else { return Inflate::Off };
        if *takeover {
            Inflate::Dedicated(decompressor)
        } else {
            Inflate::Shared(decompressor.get_or_insert_default())
        }
    }
}

impl Client {
    /// Connects, and offers compression.
    pub(crate) fn offering(addr: SocketAddr, offer: Offer) -> Self {
        Self::upgrade(connect(addr), &plain_request().with_deflate(offer))
    }

    /// Connects and shakes hands.
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::upgrade(connect(addr), &plain_request())
    }

    /// Shakes hands on a stream with this request.
    pub(crate) fn upgrade(mut stream: TcpStream, request: &handshake::Request) -> Self {
        let mut out = Vec::new();
        request.encode(&mut out);
        stream.write_all(&out).expect("the request goes out");
        Self::await_upgrade(stream, request)
    }

    /// Reads the answer to a request that was sent already.
    pub(crate) fn await_upgrade(mut stream: TcpStream, request: &handshake::Request) -> Self {
        let (head, rest) = read_head(&mut stream);
        let response = handshake::Response::parse(&head, &HeadLimits::default())
            .expect("the answer is well-formed");
        let agreed = response.check_upgrade(request).expect("the server upgrades");
        let mut client = Self::speaking(stream);
        if let Some(agreement) = agreed.deflate {
            client.codec = Connection::new(Role::Client).with_deflate();
            client.deflate = Some(Deflate::new(&agreement));
        }
        client.layer = agreed.layer;
        client.head = String::from_utf8(head).expect("the head is text");
        client.take_in(rest);
        client
    }

    /// A client on a stream that speaks frames already.
    pub(crate) fn speaking(stream: TcpStream) -> Self {
        let config =
            Config::default().with_max_message_len(64 << 20).with_max_control_count(u16::MAX);
        Self {
            stream,
            codec: Connection::new(Role::Client),
            config,
            deflate: None,
            layer: None,
            got: VecDeque::new(),
            answers: true,
            head: String::new(),
        }
    }

    // What came in

    /// The next thing that comes from the server.
    pub(crate) fn next(&mut self) -> Got {
        self.next_within(PATIENCE).expect("the server says something")
    }

    /// The next thing that comes within `time`.
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<Got> {
        if let Some(got) = self.got.pop_front() {
            return Some(got);
        }
        self.stream.set_read_timeout(Some(time)).expect("a time above zero");
        let mut buffer = vec![0; 64 << 10];
        while self.got.is_empty() {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(Got::Eof),
                Ok(len) => self.take_in(buffer[..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return None;
                }
                Err(_) => return Some(Got::Reset),
            }
        }
        self.got.pop_front()
    }

    /// The next message, which is text.
    pub(crate) fn text(&mut self) -> String {
        match self.next() {
            Got::Text(text) => text,
            other => panic!("{other:?} where text was expected"),
        }
    }

    /// The next message, which is binary.
    pub(crate) fn binary(&mut self) -> Vec<u8> {
        match self.next() {
            Got::Binary(bytes) => bytes,
            other => panic!("{other:?} where a binary message was expected"),
        }
    }

    /// Passes over everything until a close frame, and gives that.
    pub(crate) fn close_frame(&mut self) -> (u16, String) {
        loop {
            match self.next() {
                Got::Close(code, reason) => return (code, reason),
                end @ (Got::Eof | Got::Reset) => panic!("{end:?} where a close frame was expected"),
                _ => {}
            }
        }
    }

    /// Waits for the end of the stream, past whatever comes before.
    pub(crate) fn end(&mut self) -> Got {
        loop {
            if let end @ (Got::Eof | Got::Reset) = self.next() {
                return end;
            }
        }
    }

    fn take_in(&mut self, mut bytes: Vec<u8>) {
        if let Some(layer) = &mut self.layer {
            let mut frames = Vec::new();
            layer
                .receive(&bytes, usize::MAX, &mut Vec::new(), &mut frames)
                .expect("the server keeps to the extension");
            bytes = frames;
        }
        let mut input = Input::new(&mut bytes);
        loop {
            let event = self
                .codec
                .receive_with(
                    &self.config,
                    &mut Heap,
                    Deflate::inflate(&mut self.deflate),
                    &mut input,
                )
                .expect("the server keeps to the protocol");
            let Some(event) = event else { break };
            self.got.push_back(match event {
                Event::Message(message) => match message.as_message() {
                    Message::Text(text) => Got::Text(text.to_owned()),
                    Message::Binary(bytes) => Got::Binary(bytes.to_vec()),
                },
                Event::Part(_) | Event::InflatedPart(_) => unreachable!("streaming is off"),
                Event::Ping(payload) => Got::Ping(payload.to_vec()),
                Event::Pong(payload) => Got::Pong(payload.to_vec()),
                Event::Close(frame) => {
                    Got::Close(frame.code_or_no_status().get(), frame.reason.into_owned())
                }
            });
        }
        if self.answers {
            let mut out = Vec::new();
            if self.codec.poll_transmit(&mut mask, &mut out) {
                let bytes = self.wrap(&out);
                // The server may be gone already.
                let _ = self.stream.write_all(&bytes);
            }
        }
    }

    // What goes out

    /// Whether no close frame has come or gone, those included that were not looked at yet.
    pub(crate) fn is_open(&self) -> bool {
        self.codec.close_state() == CloseState::Open
    }

    pub(crate) fn send<'m>(&mut self, message: impl Into<Message<'m>>) {
        let mut out = Vec::new();
        self.codec.send(message.into(), &mut mask, &mut out).expect("the client is open");
        self.transmit(&out);
    }

    /// Sends a message compressed, as was agreed.
    pub(crate) fn send_compressed<'m>(&mut self, message: impl Into<Message<'m>>) {
        let mut out = Vec::new();
        let compressor = &mut self.deflate.as_mut().expect("compression was agreed on").compressor;
        self.codec
            .send_compressed(message.into(), compressor, &mut mask, &mut out)
            .expect("the client is open");
        self.transmit(&out);
    }

    /// The compressed form of a message, as was agreed, for tests that cut it up. It counts as sent.
    pub(crate) fn compress(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let deflate = self.deflate.as_mut().expect("compression was agreed on");
        deflate.compressor.compress(payload, &mut out);
        out
    }

    /// Whether compression was agreed on.
    pub(crate) fn is_compressed(&self) -> bool {
        self.deflate.is_some()
    }

    /// What the server answered to the offers.
    pub(crate) fn extensions(&self) -> Option<&str> {
        let (_, rest) = self.head.split_once("Sec-WebSocket-Extensions: ")?;
        rest.split("\r\n").next()
    }

    /// Sends a message in fragments.
    pub(crate) fn send_fragments<'m>(&mut self, fragments: &[Message<'m>]) {
        let mut out = Vec::new();
        for (index, fragment) in fragments.iter().enumerate() {
            let fin = index + 1 == fragments.len();
            self.codec
                .send_fragment(*fragment, fin, &mut mask, &mut out)
                .expect("fragments of one kind");
        }
        self.transmit(&out);
    }

    pub(crate) fn ping(&mut self, payload: &[u8]) {
        let mut out = Vec::new();
        self.codec.send_ping(payload, &mut mask, &mut out).expect("a short ping");
        self.transmit(&out);
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        let mut out = Vec::new();
        self.codec
            .close(CloseCode::new(code), reason, &mut mask, &mut out)
            .expect("the close may be sent");
        self.transmit(&out);
    }

    /// Closes, and waits until the server has.
    pub(crate) fn leave(mut self) {
        self.close(1000, "");
        assert_eq!(self.close_frame(), (1000, String::new()));
        assert_eq!(self.end(), Got::Eof);
    }

    /// Sends frames, as the extensions make of them.
    fn transmit(&mut self, frames: &[u8]) {
        let bytes = self.wrap(frames);
        self.raw(&bytes);
    }

    /// What the extensions make of frames.
    pub(crate) fn wrap(&mut self, frames: &[u8]) -> Vec<u8> {
        let Some(layer) = &mut self.layer else { return frames.to_vec() };
        let mut out = Vec::new();
        layer.send(frames, &mut Vec::new(), &mut out);
        out
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER can be set");
    }
}

/// A connection to the server, before any request.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("the server accepts");
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time above zero");
    stream
}

pub(crate) fn plain_request() -> handshake::Request {
    client_request("/")
}

pub(crate) fn client_request(target: &str) -> handshake::Request {
    handshake::Request::new("localhost", target, *b"the sample nonce").expect("a good request")
}

/// A correct request for an upgrade as text, for tests that change it.
pub(crate) fn request() -> String {
    let mut out = Vec::new();
    plain_request().encode(&mut out);
    String::from_utf8(out).expect("a head is text")
}

/// Sends bytes on a connection of their own, and gives everything that comes back until the server's FIN.
pub(crate) fn http(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(addr);
    stream.write_all(bytes.as_ref()).expect("the request goes out");
    read_answer(&mut stream)
}

/// Everything that comes until the server's FIN. A reset fails.
pub(crate) fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the whole answer comes, and then FIN");
    String::from_utf8(answer).expect("the answer is text")
}

/// Reads a head, and what came behind it.
pub(crate) fn read_head(stream: &mut TcpStream) -> (Vec<u8>, Vec<u8>) {
    let mut scanner = HeadScanner::default();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let len = match stream.read(&mut buffer) {
            // A thread that made a ring may be interrupted for it.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.expect("the server answers"),
        };
        assert_ne!(len, 0, "the stream ended in the answer: {}", bytes.escape_ascii());
        bytes.extend_from_slice(&buffer[..len]);
        let head = scanner.scan(&bytes, &HeadLimits::default()).expect("the answer is well-formed");
        if let Some(head_len) = head {
            let rest = bytes.split_off(head_len);
            return (bytes, rest);
        }
    }
}

/// A frame of a client, from its first byte and its payload.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload.len() as u64, payload)
}

/// A frame of a client that declares `len` bytes, and as much of its payload as is given.
pub(crate) fn masked(first: u8, len: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    if let Some(short) = u8::try_from(len).ok().filter(|len| *len < 126) {
        out.push(0x80 | short);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(0x80 | 126);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(0x80 | 127);
        out.extend_from_slice(&len.to_be_bytes());
    }
    let key = mask();
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// A test's masks need not be unpredictable.
pub(crate) fn mask() -> [u8; 4] {
    [0x37, 0xfa, 0x21, 0x3d]
}
