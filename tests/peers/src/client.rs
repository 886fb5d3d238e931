//! A client that speaks WebSocket through the codec.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use ringwire_codec::deflate::{Agreement, Compressor, Decompressor, Inflate, Level, Offer};
use ringwire_codec::extension::FrameLayer;
use ringwire_codec::handshake::{HeadLimits, client as handshake};
use ringwire_codec::{
    CloseCode, CloseState, Config, Connection, Event, Heap, Input, Message, Role,
};

use crate::PATIENCE;
use crate::frames::mask;
use crate::http::take_head;
use crate::line::{Heard, Line};

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame; 1005 if it has no code.
    Close(u16, String),
    /// The server ended the stream.
    Eof,
    /// The connection was reset.
    Reset,
}

/// A [`Line`] that was upgraded. Pings and close frames of the server are answered while [`answers`](Self::answers)
/// says so.
pub struct Client {
    line: Line,
    codec: Connection,
    config: Config,
    deflate: Option<Deflate>,
    layer: Option<FrameLayer>,
    got: VecDeque<Got>,
    /// Whether what the protocol owes is sent.
    pub answers: bool,
    /// The head of the server's answer.
    pub head: String,
}

impl Deref for Client {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.line
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Line {
        &mut self.line
    }
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
    #[must_use]
    pub fn offering(addr: SocketAddr, offer: Offer) -> Self {
        Self::upgrade(Line::connect(addr), &plain_request().with_deflate(offer))
    }

    /// Connects and shakes hands.
    #[must_use]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::upgrade(Line::connect(addr), &plain_request())
    }

    /// Shakes hands on a line with this request.
    pub fn upgrade(line: impl Into<Line>, request: &handshake::Request) -> Self {
        let mut line = line.into();
        let mut out = Vec::new();
        request.encode(&mut out);
        line.raw(&out);
        Self::await_upgrade(line, request)
    }

    /// Reads the answer to a request that was sent already.
    pub fn await_upgrade(line: impl Into<Line>, request: &handshake::Request) -> Self {
        let mut line = line.into();
        let head = take_head(&mut line);
        let response = handshake::Response::parse(&head, &HeadLimits::default())
            .expect("the answer is well-formed");
        let agreed = response.check_upgrade(request).expect("the server upgrades");
        let mut client = Self::speaking(line);
        if let Some(agreement) = agreed.deflate {
            client.codec = Connection::new(Role::Client).with_deflate();
            client.deflate = Some(Deflate::new(&agreement));
        }
        client.layer = agreed.layer;
        client.head = String::from_utf8(head).expect("the head is text");
        client.take_in();
        client
    }

    /// A client on a line that speaks frames already.
    pub fn speaking(line: impl Into<Line>) -> Self {
        let config =
            Config::default().with_max_message_len(64 << 20).with_max_control_count(u16::MAX);
        Self {
            line: line.into(),
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
    #[expect(clippy::should_implement_trait, reason = "what comes depends on what was sent")]
    pub fn next(&mut self) -> Got {
        self.next_within(PATIENCE).expect("the server says something")
    }

    /// The next thing that comes within `time`.
    pub fn next_within(&mut self, time: Duration) -> Option<Got> {
        if let Some(got) = self.got.pop_front() {
            return Some(got);
        }
        while self.got.is_empty() {
            match self.line.hear_within(time) {
                Heard::Some => self.take_in(),
                Heard::End => return Some(Got::Eof),
                Heard::Reset => return Some(Got::Reset),
                Heard::Nothing => return None,
            }
        }
        self.got.pop_front()
    }

    /// The next message, which is text.
    pub fn text(&mut self) -> String {
        match self.next() {
            Got::Text(text) => text,
            other => panic!("{other:?} where text was expected"),
        }
    }

    /// The next message, which is binary.
    pub fn binary(&mut self) -> Vec<u8> {
        match self.next() {
            Got::Binary(bytes) => bytes,
            other => panic!("{other:?} where a binary message was expected"),
        }
    }

    /// Passes over everything until a close frame, and gives that.
    pub fn close_frame(&mut self) -> (u16, String) {
        loop {
            match self.next() {
                Got::Close(code, reason) => return (code, reason),
                end @ (Got::Eof | Got::Reset) => panic!("{end:?} where a close frame was expected"),
                _ => {}
            }
        }
    }

    /// Waits for the end of the stream, past whatever comes before.
    pub fn end(&mut self) -> Got {
        loop {
            if let end @ (Got::Eof | Got::Reset) = self.next() {
                return end;
            }
        }
    }

    /// Everything until the server's end of the stream. A reset fails.
    pub fn rest_as_frames(&mut self) -> Vec<Got> {
        while self.line.hear() {}
        self.take_in();
        self.got.drain(..).collect()
    }

    fn take_in(&mut self) {
        let mut bytes = std::mem::take(&mut self.line.heard);
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
                let _ = self.line.try_raw(&bytes);
            }
        }
    }

    // What goes out

    /// Whether no close frame has come or gone, those included that were not looked at yet.
    pub fn is_open(&self) -> bool {
        self.codec.close_state() == CloseState::Open
    }

    /// Sends a message.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) {
        let mut out = Vec::new();
        self.codec.send(message.into(), &mut mask, &mut out).expect("the client is open");
        self.transmit(&out);
    }

    /// Sends a message compressed, as was agreed.
    pub fn send_compressed<'m>(&mut self, message: impl Into<Message<'m>>) {
        let out = self.encode_compressed(std::iter::once(message.into()));
        self.transmit(&out);
    }

    /// The compressed form of a message, as was agreed, for tests that cut it up. It counts as sent.
    pub fn compress(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let deflate = self.deflate.as_mut().expect("compression was agreed on");
        deflate.compressor.compress(payload, &mut out);
        out
    }

    /// Frames of compressed messages, as was agreed. They count as sent.
    pub fn encode_compressed<'m>(
        &mut self,
        messages: impl Iterator<Item = Message<'m>>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let compressor = &mut self.deflate.as_mut().expect("compression was agreed on").compressor;
        for message in messages {
            self.codec
                .send_compressed(message, compressor, &mut mask, &mut out)
                .expect("the client is open");
        }
        out
    }

    /// Whether compression was agreed on.
    pub fn is_compressed(&self) -> bool {
        self.deflate.is_some()
    }

    /// What the server answered to the offers.
    pub fn extensions(&self) -> Option<&str> {
        let (_, rest) = self.head.split_once("Sec-WebSocket-Extensions: ")?;
        rest.split("\r\n").next()
    }

    /// Sends a message in fragments.
    pub fn send_fragments<'m>(&mut self, fragments: &[Message<'m>]) {
        let mut out = Vec::new();
        for (index, fragment) in fragments.iter().enumerate() {
            let fin = index + 1 == fragments.len();
            self.codec
                .send_fragment(*fragment, fin, &mut mask, &mut out)
                .expect("fragments of one kind");
        }
        self.transmit(&out);
    }

    /// Sends a ping.
    pub fn ping(&mut self, payload: &[u8]) {
        let mut out = Vec::new();
        self.codec.send_ping(payload, &mut mask, &mut out).expect("a short ping");
        self.transmit(&out);
    }

    /// Sends a close frame.
    pub fn close(&mut self, code: u16, reason: &str) {
        let mut out = Vec::new();
        self.codec
            .close(CloseCode::new(code), reason, &mut mask, &mut out)
            .expect("the close may be sent");
        self.transmit(&out);
    }

    /// Closes, and waits until the server has.
    pub fn leave(mut self) {
        self.close(1000, "");
        assert_eq!(self.close_frame(), (1000, String::new()));
        assert_eq!(self.end(), Got::Eof);
    }

    /// Sends frames, as the extensions make of them.
    fn transmit(&mut self, frames: &[u8]) {
        let bytes = self.wrap(frames);
        self.line.raw(&bytes);
    }

    /// What the extensions make of frames.
    pub fn wrap(&mut self, frames: &[u8]) -> Vec<u8> {
        let Some(layer) = &mut self.layer else { return frames.to_vec() };
        let mut out = Vec::new();
        layer.send(frames, &mut Vec::new(), &mut out);
        out
    }

    /// The line, past what was heard of it.
    #[must_use]
    pub fn into_line(self) -> Line {
        self.line
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.line.reset();
    }
}

/// A correct request for an upgrade at `/`.
#[must_use]
pub fn plain_request() -> handshake::Request {
    client_request("/")
}

/// The same at another target.
#[must_use]
pub fn client_request(target: &str) -> handshake::Request {
    handshake::Request::new("localhost", target, *b"the sample nonce").expect("a good request")
}

/// A correct request for an upgrade as text, for tests that change it.
#[must_use]
pub fn request() -> String {
    let mut out = Vec::new();
    plain_request().encode(&mut out);
    String::from_utf8(out).expect("a head is text")
}
