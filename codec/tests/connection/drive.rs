//! Runs a connection over an input and writes down all that it says. The fuzz targets share this.

use ringwire_codec::{
    CloseCode, CloseFrame, CloseState, Config, Connection, Error, Event, Heap, Input, Message, Role,
};

/// The masking key of all that a client sends here.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Limits small enough to be met by short inputs.
pub(crate) fn tight() -> Config {
    Config::default()
        .with_max_message_len(300)
        .with_max_streamed_len(300)
        .with_max_fragment_count(9)
        .with_max_control_count(7)
}

/// In which state a connection meets its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Whole,
    Streaming,
    CloseSent,
}

/// What a connection said, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
    Failed(Error),
}

impl Seen {
    pub(crate) fn message(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
        }
    }
}

/// What came of an input: the events, and what is owed to the peer after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) seen: Vec<Seen>,
    pub(crate) owed: Vec<u8>,
}

/// A connection and what has been seen of it.
pub(crate) struct Driven {
    pub(crate) connection: Connection,
    pub(crate) seen: Vec<Seen>,
    config: Config,
    /// The parts so far of a message that is handed over in parts.
    parts: Vec<u8>,
    in_parts: bool,
}

impl Driven {
    pub(crate) fn new(role: Role, config: Config, mode: Mode) -> Self {
        let mut connection = Connection::new(role);
        connection.set_streaming(mode == Mode::Streaming);
        if mode == Mode::CloseSent {
            connection
                .close(CloseCode::NORMAL, "", &mut || KEY, &mut Vec::new())
                .expect("an open connection can be closed");
        }
        Self { connection, seen: Vec::new(), config, parts: Vec::new(), in_parts: false }
    }

    /// Receives one piece of input, all of it.
    pub(crate) fn receive(&mut self, piece: &[u8]) {
        let mut piece = piece.to_vec();
        let mut input = Input::new(&mut piece);
        loop {
            match self.connection.receive(&self.config, &mut Heap, &mut input) {
                Ok(Some(event)) => {
                    let seen = self.saw(event);
                    self.seen.extend(seen);
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(!self.connection.is_receiving_message(), "{error} left a message");
                    self.seen.push(Seen::Failed(error));
                }
            }
        }
        assert!(input.is_empty(), "None says that all was used");
    }

    fn saw(&mut self, event: Event<'_>) -> Option<Seen> {
        Some(match event {
            Event::Message(message) => Seen::message(message.as_message()),
            Event::Part(part) => {
                assert!(part.is_last || !part.bytes.is_empty(), "a part of nothing");
                assert_eq!(part.is_first, !self.in_parts);
                self.in_parts = !part.is_last;
                self.parts.extend_from_slice(part.bytes);
                if !part.is_last {
                    return None;
                }
                let bytes = std::mem::take(&mut self.parts);
                if part.is_text {
                    Seen::Text(String::from_utf8(bytes).expect("text was validated"))
                } else {
                    Seen::Binary(bytes)
                }
            }
            Event::InflatedPart(part) => panic!("{part:?}, and nothing was agreed on"),
            Event::Ping(payload) => Seen::Ping(payload.to_vec()),
            Event::Pong(payload) => Seen::Pong(payload.to_vec()),
            Event::Close(CloseFrame { code, reason }) => Seen::Close(code, reason.into_owned()),
        })
    }

    /// Ends the input.
    pub(crate) fn finish(mut self) -> Outcome {
        let mut owed = Vec::new();
        let wants = self.connection.wants_transmit();
        let wrote = self.connection.poll_transmit(&mut || KEY, &mut owed);
        assert_eq!(wants, wrote);
        assert_eq!(wrote, !owed.is_empty());
        assert!(!self.connection.poll_transmit(&mut || KEY, &mut owed), "nothing is owed twice");
        assert_ne!(self.connection.close_state(), CloseState::Failed);
        self.connection.clear(&mut Heap);
        assert_eq!(self.connection.buffered_len(), 0);
        Outcome { seen: self.seen, owed }
    }
}

/// Receives pieces of input one after the other.
pub(crate) fn drive<'a>(
    role: Role,
    config: Config,
    mode: Mode,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let mut driven = Driven::new(role, config, mode);
    for piece in pieces {
        driven.receive(piece);
    }
    driven.finish()
}

/// Cuts `wire` into pieces whose lengths are given, over and over.
pub(crate) fn cut<'a>(wire: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    let mut rest = wire;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let len = lengths.next().map_or(rest.len(), |len| (*len).clamp(1, rest.len()));
        let (piece, after) = rest.split_at(len);
        pieces.push(piece);
        rest = after;
    }
    pieces
}
