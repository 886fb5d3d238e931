//! A connection with what it inflates and compresses with, and what it has seen.

use ringwire_codec::deflate::{
    Agreement, Compressor, Decompressor, Inflate, Level, Offer, Policy, WindowBits,
};
use ringwire_codec::handshake::{HeadLimits, client, server};
use ringwire_codec::{Buffers, Config, Connection, Error, Event, FrameHeader, Input, OpCode, Role};

/// The masking key of all that a client sends here.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// How messages are inflated.
#[derive(Debug)]
pub(crate) enum Machine {
    Off,
    Shared(Decompressor),
    Dedicated(Option<Box<Decompressor>>),
}

impl Machine {
    pub(crate) fn shared() -> Self {
        Self::Shared(Decompressor::new())
    }

    pub(crate) fn inflate(&mut self) -> Inflate<'_> {
        match self {
            Self::Off => Inflate::Off,
            Self::Shared(shared) => Inflate::Shared(shared),
            Self::Dedicated(dedicated) => Inflate::Dedicated(dedicated),
        }
    }
}

/// A pool that counts what is out, and how much of it.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) out_count: isize,
    pub(crate) max_capacity: usize,
}

impl Buffers for Pool {
    fn take(&mut self, min_capacity: usize) -> Vec<u8> {
        assert!(min_capacity <= 16 << 10, "more than a pool has");
        self.out_count += 1;
        let mut buffer = Vec::with_capacity(min_capacity);
        buffer.extend_from_slice(&b"old"[..min_capacity.min(3)]);
        buffer
    }

    fn give(&mut self, buffer: Vec<u8>) {
        assert!(buffer.capacity() > 0, "nothing was given back");
        self.max_capacity = self.max_capacity.max(buffer.capacity());
        self.out_count -= 1;
    }

    fn try_take(&mut self, capacity: usize) -> Option<Vec<u8>> {
        self.out_count += 1;
        Some(Vec::with_capacity(capacity))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Control(Vec<u8>),
    Close,
    Failed(Error),
}

pub(crate) struct End {
    pub(crate) connection: Connection,
    pub(crate) machine: Machine,
    pub(crate) compressor: Compressor,
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) seen: Vec<Seen>,
    pub(crate) part_count: usize,
    parts: Vec<u8>,
}

impl End {
    pub(crate) fn new(role: Role, machine: Machine) -> Self {
        Self {
            connection: Connection::new(role).with_deflate(),
            machine,
            compressor: Compressor::new(Level::default(), WindowBits::MAX),
            config: Config::default(),
            pool: Pool::default(),
            seen: Vec::new(),
            part_count: 0,
            parts: Vec::new(),
        }
    }

    pub(crate) fn server(machine: Machine) -> Self {
        Self::new(Role::Server, machine)
    }

    pub(crate) fn with_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    pub(crate) fn with_streaming(mut self, streaming: bool) -> Self {
        self.connection.set_streaming(streaming);
        self
    }

    /// An end with the machines that an agreement asks for.
    pub(crate) fn agreed(role: Role, agreement: Agreement, level: Level) -> Self {
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        let machine =
            if agreement.takeover(other) { Machine::Dedicated(None) } else { Machine::shared() };
        let mut end = Self::new(role, machine);
        end.compressor = Compressor::new(level, agreement.compressor_window(role));
        if agreement.takeover(role) {
            end.compressor = end.compressor.with_takeover();
        }
        end
    }

    /// Receives one piece of input, all of it.
    pub(crate) fn receive(&mut self, piece: &[u8]) {
        let mut piece = piece.to_vec();
        let mut input = Input::new(&mut piece);
        loop {
            let Self { connection, machine, config, pool, .. } = self;
            match connection.receive_with(config, pool, machine.inflate(), &mut input) {
                Ok(Some(event)) => self.saw(event),
                Ok(None) => break,
                Err(error) => {
                    assert!(!self.connection.is_receiving_message(), "{error} left a message");
                    assert_eq!(self.pool.out_count, 0, "{error} left a buffer");
                    self.seen.push(Seen::Failed(error));
                }
            }
        }
        assert!(input.is_empty(), "None says that all was used");
    }

    fn saw(&mut self, event: Event<'_>) {
        let seen = match event {
            Event::Message(message) => {
                let seen = if message.is_text() {
                    let text = String::from_utf8(message.as_bytes().to_vec());
                    Seen::Text(text.expect("text was validated"))
                } else {
                    Seen::Binary(message.as_bytes().to_vec())
                };
                if let Some(buffer) = message.into_buffer() {
                    self.pool.give(buffer);
                }
                Some(seen)
            }
            Event::Part(part) => self.saw_part(part.bytes, part.is_text, part.is_last),
            Event::InflatedPart(inflated) => {
                let part = inflated.as_part();
                assert!(part.is_last || !part.bytes.is_empty(), "a part of nothing");
                assert_eq!(part.is_first, self.part_count == 0);
                assert!(part.bytes.len() <= 32 << 10, "a long part");
                let seen = self.saw_part(part.bytes, part.is_text, part.is_last);
                self.pool.give(inflated.into_buffer());
                seen
            }
            Event::Ping(payload) | Event::Pong(payload) => Some(Seen::Control(payload.to_vec())),
            Event::Close(_) => Some(Seen::Close),
        };
        self.seen.extend(seen);
    }

    fn saw_part(&mut self, bytes: &[u8], is_text: bool, is_last: bool) -> Option<Seen> {
        self.part_count += 1;
        self.parts.extend_from_slice(bytes);
        if !is_last {
            return None;
        }
        self.part_count = 0;
        let bytes = std::mem::take(&mut self.parts);
        Some(if is_text {
            Seen::Text(String::from_utf8(bytes).expect("text was validated"))
        } else {
            Seen::Binary(bytes)
        })
    }

    /// All that was seen, once nothing is under way.
    pub(crate) fn finish(mut self) -> Vec<Seen> {
        self.connection.clear(&mut self.pool);
        assert_eq!((self.connection.buffered_len(), self.pool.out_count), (0, 0));
        self.seen
    }
}

/// A frame, masked if a client sends it.
pub(crate) fn frame(
    sender: Role,
    opcode: OpCode,
    fin: bool,
    rsv1: bool,
    payload: &[u8],
) -> Vec<u8> {
    let key = (sender == Role::Client).then_some(KEY);
    let mut header = FrameHeader::new(opcode, fin, key, payload.len() as u64);
    header.rsv1 = rsv1;
    let mut wire = Vec::new();
    header.encode(&mut wire);
    wire.extend(payload.iter().enumerate().map(|(i, byte)| match key {
        Some(key) => byte ^ key[i % 4],
        None => *byte,
    }));
    wire
}

/// A compressed message of a client in one frame.
pub(crate) fn message(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    frame(Role::Client, opcode, true, true, payload)
}

/// The compressed form of a message that stands for itself.
pub(crate) fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Compressor::new(Level::BALANCED, WindowBits::MAX).compress(bytes, &mut out);
    out
}

/// A handshake in memory: the values of Sec-WebSocket-Extensions, and what each end makes of them.
pub(crate) struct Shaken {
    pub(crate) request: Option<String>,
    pub(crate) response: Option<String>,
    pub(crate) client: Option<Agreement>,
    pub(crate) server: Option<Agreement>,
}

pub(crate) fn shake(offers: &[Offer], policy: Option<&Policy>) -> Shaken {
    let limits = HeadLimits::default();
    let request = client::Request::new("a", "/", [7; 16]).expect("it is well-formed");
    let request = offers.iter().fold(request, |request, offer| request.with_deflate(*offer));
    let mut wire = Vec::new();
    request.encode(&mut wire);
    let parsed = server::Request::parse(&wire, &limits).expect("it is well-formed");
    let upgrade = parsed.check_upgrade().expect("it is an upgrade");
    let agreed = policy.and_then(|policy| upgrade.deflate(policy));
    let mut answer = Vec::new();
    server::Accept::new()
        .with_deflate(agreed)
        .encode(&upgrade, &mut answer)
        .expect("it was offered");
    let response = client::Response::parse(&answer, &limits).expect("it is well-formed");
    let answered = response.check_upgrade(&request).expect("it answers the request");
    let value = |bytes: Option<&[u8]>| {
        bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("it is ASCII"))
    };
    Shaken {
        request: value(parsed.header("sec-websocket-extensions")),
        response: value(response.header("sec-websocket-extensions")),
        client: answered.deflate,
        server: agreed,
    }
}
