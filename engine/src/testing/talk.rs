//! The client's side of one connection, without IO: bytes in, messages out.

use std::collections::VecDeque;
use std::mem;

use http::StatusCode;
use ringwire_codec::handshake::{HeadLimits, HeadScanner, client};
use ringwire_codec::{Connection, Event, Heap, Input, Masks, OwnedMessage, Role};

use super::get::Get;

/// The longest message that a test may receive.
const MAX_MESSAGE_LEN: usize = 256 << 20;

/// An answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, in their order. A value that is not UTF-8 has replacement characters.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of this name, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text. What is not UTF-8 has replacement characters.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The code of the server's close frame; 1005 if it has none, 1006 if the connection ended without one (RFC 6455
    /// §7.1.5).
    pub code: u16,
    /// The text of that frame.
    pub reason: String,
}

/// What a peer has received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A message.
    Message(OwnedMessage),
    /// A ping, which was answered.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct Talk {
    method: String,
    upgrades: bool,
    head: Vec<u8>,
    scanner: HeadScanner,
    codec: Connection,
    masks: Masks,
    /// What the server answered, once its head is there, with what came of the body.
    pub(super) reply: Option<Reply>,
    /// The body has so many bytes; `None`: as many as come.
    body_len: Option<usize>,
    pub(super) is_open: bool,
    pub(super) received: VecDeque<Received>,
    pub(super) closed: Option<Closed>,
    /// What the server did that a client must not take.
    pub(super) fault: Option<String>,
    out: Vec<u8>,
}

impl Talk {
    /// One that begins with a request for a WebSocket, or an ordinary one.
    pub(super) fn new(get: &Get, upgrades: bool) -> Self {
        // The sample of RFC 6455 §1.3: nothing depends on it here.
        let out = get.encode(upgrades.then_some("dGhlIHNhbXBsZSBub25jZQ=="));
        Self {
            method: get.method.clone(),
            upgrades,
            head: Vec::new(),
            scanner: HeadScanner::default(),
            codec: Connection::new(Role::Client),
            masks: Masks::new([7; 32]),
            reply: None,
            body_len: None,
            is_open: false,
            received: VecDeque::new(),
            closed: None,
            fault: None,
            out,
        }
    }

    /// What is to be sent now.
    pub(super) fn take_out(&mut self) -> Vec<u8> {
        mem::take(&mut self.out)
    }

    /// Whether the answer to an ordinary request is whole.
    pub(super) fn has_reply(&self) -> bool {
        let whole = |reply: &Reply| self.body_len.is_some_and(|len| reply.body.len() >= len);
        self.reply.as_ref().is_some_and(|reply| whole(reply) || self.closed.is_some())
    }

    pub(super) fn send(&mut self, message: &OwnedMessage) {
        let Self { codec, masks, out, .. } = self;
        if let Err(error) = codec.send(message.as_message(), masks, out) {
            panic!("the peer cannot send: {error}");
        }
    }

    pub(super) fn ping(&mut self, payload: &[u8]) {
        let Self { codec, masks, out, .. } = self;
        if let Err(error) = codec.send_ping(payload, masks, out) {
            panic!("the peer cannot ping: {error}");
        }
    }

    pub(super) fn close(&mut self, code: u16, reason: &str) {
        let Self { codec, masks, out, .. } = self;
        if let Err(error) = codec.close(code.into(), reason, masks, out) {
            panic!("the peer cannot close: {error}");
        }
    }

    /// Takes in what came.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        if self.is_open {
            return self.hear_frames(bytes.to_vec());
        }
        match &mut self.reply {
            Some(reply) => reply.body.extend_from_slice(bytes),
            None => self.hear_head(bytes),
        }
    }

    /// The server has ended its stream, or the connection broke.
    pub(super) fn end(&mut self) {
        self.closed.get_or_insert_with(|| Closed { code: 1006, reason: String::new() });
    }

    fn hear_head(&mut self, bytes: &[u8]) {
        self.head.extend_from_slice(bytes);
        let limits = HeadLimits::default();
        let len = match self.scanner.scan(&self.head, &limits) {
            Ok(Some(len)) => len,
            Ok(None) => return,
            Err(error) => return self.blame(&error.to_string()),
        };
        let rest = self.head.split_off(len);
        let head = mem::take(&mut self.head);
        let (status, headers) = match client::Response::parse(&head, &limits) {
            Ok(response) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers = response.headers();
                let owned = headers.map(|(name, value)| (name.to_owned(), text(value)));
                (response.status(), owned.collect())
            }
            Err(error) => return self.blame(&error.to_string()),
        };
        if status == StatusCode::CONTINUE {
            return self.hear_head(&rest);
        }
        let reply = Reply { status, headers, body: Vec::new() };
        let has_none = self.method == "HEAD" || matches!(status.as_u16(), 101 | 204 | 304);
        let said = reply.header("content-length").and_then(|len| len.parse().ok());
        self.body_len = if has_none { Some(0) } else { said };
        self.reply = Some(reply);
        self.is_open = self.upgrades && status == StatusCode::SWITCHING_PROTOCOLS;
        if !rest.is_empty() {
            self.hear(&rest);
        }
    }

    fn hear_frames(&mut self, mut bytes: Vec<u8>) {
        let config = ringwire_codec::Config::default().with_max_message_len(MAX_MESSAGE_LEN);
        let mut input = Input::new(&mut bytes);
        loop {
            match self.codec.receive(&config, &mut Heap, &mut input) {
                Ok(Some(Event::Message(message))) => {
                    self.received.push_back(Received::Message(message.as_message().into()));
                }
                Ok(Some(Event::Ping(payload))) => {
                    self.received.push_back(Received::Ping(payload.to_vec()));
                }
                Ok(Some(Event::Pong(payload))) => {
                    self.received.push_back(Received::Pong(payload.to_vec()));
                }
                Ok(Some(Event::Close(frame))) => {
                    let code = frame.code.map_or(1005, |code| code.get());
                    self.closed = Some(Closed { code, reason: frame.reason.into_owned() });
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return self.blame(&error.to_string()),
            }
        }
        self.codec.poll_transmit(&mut self.masks, &mut self.out);
    }

    fn blame(&mut self, fault: &str) {
        self.fault.get_or_insert_with(|| fault.to_owned());
    }
}
