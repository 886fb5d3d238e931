//! Compressed messages (RFC 7692), made before the load starts, and the check of their echoes.
//!
//! All connections go through the same cycle of messages, each from a place of its own on, so that what is sent
//! is compressed once and not at each send. With context takeover the cycle is longer than the window, so that no
//! message meets itself there. A frame of the second round refers to nothing but what the window holds, and
//! that is the same in all later rounds; a new connection sends frames that stand for themselves until it has filled
//! the window, which a sender may do at any time.
//!
//! Every echo is inflated and compared. It proves its place in the order, as all messages of the cycle differ, and not
//! whose it is.

use ringwire_codec::deflate::{Agreement, Compressor, Decompressor, Inflate, Level, WindowBits};
use ringwire_codec::{Config, Connection, Event, Heap, Input, Message, Role};
use ringwire_examples::CompressionFlag;

use super::control::{Control, PING};
use super::deflate_totals::DeflateTotals;
use super::errors::Failure;
use super::wire::{Cursor, Shape, TEMPLATE_LEN, masked_frame};
use crate::units::ratio;

/// All messages of the cycle together, in bytes, unless they are very short or very long.
const CYCLE_LEN: usize = 256 << 10;
/// Connections begin that many messages apart in the cycle.
const STRIDE: u32 = 7;

/// What all connections of a load thread share.
pub(crate) struct Deflated {
    messages: Vec<Vec<u8>>,
    is_text: bool,
    /// The frame of each message, compressed by itself.
    alone: Vec<Vec<u8>>,
    /// The same with the messages before it in the window; empty without takeover.
    following: Vec<Vec<u8>>,
    /// Messages after which a window is full.
    fill_count: u32,
    run: Vec<u8>,
    config: Config,
    decompressor: Decompressor,
    totals: DeflateTotals,
    /// Bytes of all echoes.
    replied_len: u64,
}

/// What a connection has of its own.
pub(crate) struct Inflating {
    codec: Connection,
    has_takeover: bool,
    decompressor: Option<Box<Decompressor>>,
}

impl Inflating {
    /// For a connection with that agreement.
    pub(crate) fn new(agreement: Agreement) -> Self {
        let has_takeover = agreement.takeover(Role::Server);
        let codec = Connection::new(Role::Client).with_deflate();
        Self { codec, has_takeover, decompressor: None }
    }
}

impl Deflated {
    /// Prepares messages of `shape`, whose frames have that masking key.
    pub(crate) fn new(shape: Shape, key: [u8; 4]) -> Self {
        let len = shape.payload_len.max(1);
        let count = (CYCLE_LEN / len).clamp(2, 4096).next_power_of_two();
        let messages = shape.payloads(count);
        let compressor = Compressor::new(Level::default(), WindowBits::MAX);
        let frames = |mut compressor: Compressor, warm_up: usize| -> Vec<Vec<u8>> {
            let mut compressed = Vec::new();
            let mut compress = |message: &Vec<u8>| {
                compressed.clear();
                compressor.compress(message, &mut compressed);
                masked_frame(shape, true, &compressed, key)
            };
            messages.iter().cycle().take(warm_up).for_each(|message| drop(compress(message)));
            messages.iter().map(compress).collect()
        };
        let fill_count = WindowBits::MAX.window_len() / len + 1;
        let following = match shape.compression {
            CompressionFlag::Dedicated => {
                let takeover = Compressor::new(Level::default(), WindowBits::MAX).with_takeover();
                frames(takeover, fill_count.next_multiple_of(count))
            }
            CompressionFlag::Off | CompressionFlag::Shared => Vec::new(),
        };
        let alone = frames(compressor, 0);
        let sent = if following.is_empty() { &alone } else { &following };
        let sum: usize = sent.iter().map(Vec::len).sum();
        let totals =
            DeflateTotals { request_bytes: sum as f64 / count as f64, ..DeflateTotals::default() };
        Self {
            is_text: shape.text,
            alone,
            following,
            fill_count: u32::try_from(fill_count).unwrap_or(u32::MAX),
            run: Vec::new(),
            config: Config::default().with_max_message_len(len),
            decompressor: Decompressor::new(),
            totals,
            replied_len: 0,
            messages,
        }
    }

    /// A connection has agreed on that.
    pub(crate) fn agreed(&mut self, agreement: Agreement) {
        self.totals.agreed = Some(agreement.into());
    }

    /// What was agreed on and what came so far.
    pub(crate) fn totals(&self) -> DeflateTotals {
        let reply_bytes = ratio(self.replied_len as f64, self.totals.replies as f64);
        DeflateTotals { reply_bytes, ..self.totals }
    }

    /// Up to `count` messages of a connection from number `first` on, side by side.
    pub(crate) fn requests(&mut self, connection: u32, first: u32, count: usize) -> &[u8] {
        let mut run = std::mem::take(&mut self.run);
        run.clear();
        let mut number = first;
        for _ in 0..count {
            let frame = self.frame(connection, number);
            if !run.is_empty() && run.len() + frame.len() > TEMPLATE_LEN {
                break;
            }
            run.extend_from_slice(frame);
            number = number.wrapping_add(1);
        }
        self.run = run;
        &self.run
    }

    /// How many messages from `first` on, and how much of the next one, that many bytes are.
    pub(crate) fn covered(&self, connection: u32, first: u32, mut bytes: usize) -> (usize, usize) {
        let mut messages = 0;
        let mut number = first;
        while bytes >= self.frame(connection, number).len() {
            bytes -= self.frame(connection, number).len();
            messages += 1;
            number = number.wrapping_add(1);
        }
        (messages, bytes)
    }

    /// Checks that `bytes` continue the echo of what the connection sent. A ping goes to `control`.
    pub(crate) fn check(
        &mut self,
        inflating: &mut Inflating,
        connection: u32,
        cursor: &mut Cursor,
        bytes: &mut [u8],
        control: &mut Option<Box<Control>>,
    ) -> Result<(), Failure> {
        self.replied_len += bytes.len() as u64;
        let mut input = Input::new(bytes);
        loop {
            let inflate = match inflating.has_takeover {
                true => Inflate::Dedicated(&mut inflating.decompressor),
                false => Inflate::Shared(&mut self.decompressor),
            };
            let received =
                inflating.codec.receive_with(&self.config, &mut Heap, inflate, &mut input);
            match received.map_err(|_| Failure::ReplyMalformed)? {
                None => break,
                Some(Event::Message(message)) => {
                    self.compare(connection, cursor.messages, message.as_message())?;
                    cursor.messages = cursor.messages.wrapping_add(1);
                    self.totals.replies += 1;
                }
                Some(Event::Ping(payload)) => {
                    let len = u8::try_from(payload.len()).unwrap_or(u8::MAX);
                    let ping = [&[PING, len], payload.as_bytes()].concat();
                    control.get_or_insert_default().receive(&mut ping.as_slice())?;
                }
                Some(Event::Close(close)) => {
                    return Err(Failure::CloseFrame(close.code_or_no_status().get()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn place(&self, connection: u32, number: u32) -> usize {
        // The number of messages is a power of two, so that numbers may wrap.
        let number = connection.wrapping_mul(STRIDE).wrapping_add(number);
        number as usize % self.messages.len()
    }

    fn frame(&self, connection: u32, number: u32) -> &[u8] {
        let is_full = number >= self.fill_count && !self.following.is_empty();
        let frames = if is_full { &self.following } else { &self.alone };
        &frames[self.place(connection, number)]
    }

    fn compare(&self, connection: u32, number: u32, message: Message<'_>) -> Result<(), Failure> {
        if matches!(message, Message::Text(_)) != self.is_text {
            return Err(Failure::HeaderMismatch);
        }
        if message.as_bytes() != self.messages[self.place(connection, number)] {
            return Err(Failure::PayloadMismatch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ringwire_codec::deflate::Policy;
    use ringwire_codec::handshake::{HeadLimits, client, server};

    use super::super::payload::Payload;
    use super::*;

    const KEY: [u8; 4] = [0x11, 0x82, 0x33, 0xf4];

    fn shape(payload_len: usize, compression: CompressionFlag) -> Shape {
        Shape { text: true, payload: Payload::Json, compression, ..Shape::of_noise(payload_len) }
    }

    fn agreement(takeover: bool) -> Agreement {
        let request = client::Request::new("localhost", "/", [0; 16]).unwrap();
        let mut bytes = Vec::new();
        request.with_deflate(ringwire_codec::deflate::Offer::default()).encode(&mut bytes);
        let request = server::Request::parse(&bytes, &HeadLimits::default()).unwrap();
        let policy = Policy::default()
            .with_client_context_takeover(takeover)
            .with_server_context_takeover(takeover);
        request.check_upgrade().unwrap().deflate(&policy).unwrap()
    }

    /// A server's connection that echoes, with takeover or without.
    struct Server {
        codec: Connection,
        takeover: bool,
        decompressor: Option<Box<Decompressor>>,
        shared: Decompressor,
        compressor: Compressor,
    }

    impl Server {
        fn new(takeover: bool) -> Self {
            let compressor = Compressor::new(Level::default(), WindowBits::MAX);
            Self {
                codec: Connection::new(Role::Server).with_deflate(),
                takeover,
                decompressor: None,
                shared: Decompressor::new(),
                compressor: if takeover { compressor.with_takeover() } else { compressor },
            }
        }

        fn echo(&mut self, requests: &[u8]) -> Vec<u8> {
            let (mut requests, mut replies) = (requests.to_vec(), Vec::new());
            let mut input = Input::new(&mut requests);
            loop {
                let inflate = match self.takeover {
                    true => Inflate::Dedicated(&mut self.decompressor),
                    false => Inflate::Shared(&mut self.shared),
                };
                let config = Config::default();
                let event =
                    self.codec.receive_with(&config, &mut Heap, inflate, &mut input).unwrap();
                let Some(Event::Message(message)) = event else { return replies };
                let message = message.as_message();
                self.codec
                    .send_compressed(message, &mut self.compressor, &mut || KEY, &mut replies)
                    .unwrap();
            }
        }
    }

    #[test]
    fn echoes_of_three_rounds_are_accepted_in_any_cut() {
        for (len, takeover) in [(2000, true), (2000, false), (70_000, true), (70_000, false)] {
            let mode = if takeover { CompressionFlag::Dedicated } else { CompressionFlag::Shared };
            let mut deflated = Deflated::new(shape(len, mode), KEY);
            let count = u32::try_from(deflated.messages.len()).unwrap();
            for (connection, step) in [(0, 1000), (5, 77), (9, 1 << 20)] {
                let mut server = Server::new(takeover);
                let mut inflating = Inflating::new(agreement(takeover));
                let mut cursor = Cursor::default();
                for number in 0..3 * count {
                    let mut replies = server.echo(deflated.requests(connection, number, 1));
                    for part in replies.chunks_mut(step) {
                        deflated
                            .check(&mut inflating, connection, &mut cursor, part, &mut None)
                            .unwrap();
                    }
                    assert_eq!(cursor.messages, number + 1, "{len} {takeover}");
                }
            }
            let totals = deflated.totals();
            assert_eq!(totals.replies, u64::from(count) * 9);
            assert!(totals.request_bytes < len as f64 / 2.0 && totals.request_bytes > 0.0);
            assert!(totals.reply_bytes < len as f64 / 2.0 && totals.reply_bytes > 0.0);
        }
    }

    #[test]
    fn what_was_sent_is_counted_in_messages() {
        let mut deflated = Deflated::new(shape(1000, CompressionFlag::Dedicated), KEY);
        let first = deflated.fill_count - 2;
        let run = deflated.requests(3, first, 5).to_vec();
        let mut lens: Vec<usize> = Vec::new();
        for number in first..first + 5 {
            lens.push(deflated.requests(3, number, 1).len());
        }
        assert_eq!(run.len(), lens.iter().sum::<usize>());
        assert!(lens[2] < lens[1], "the window helps: {lens:?}");
        assert_eq!(deflated.covered(3, first, run.len()), (5, 0));
        assert_eq!(deflated.covered(3, first, lens[0] - 1), (0, lens[0] - 1));
        assert_eq!(deflated.covered(3, first, lens[0] + lens[1] + 4), (2, 4));
    }

    #[test]
    fn wrong_echoes_are_told() {
        let mut deflated = Deflated::new(shape(100, CompressionFlag::Shared), KEY);
        let mut failure = |bytes: &[u8]| {
            let mut inflating = Inflating::new(agreement(false));
            let mut control = None;
            let result = deflated.check(
                &mut inflating,
                0,
                &mut Cursor::default(),
                &mut bytes.to_vec(),
                &mut control,
            );
            (result, control)
        };
        assert_eq!(failure(&[0x81, 1, b'x']).0, Err(Failure::PayloadMismatch));
        assert_eq!(failure(&[0x82, 1, b'x']).0, Err(Failure::HeaderMismatch));
        assert_eq!(failure(&[0xc1, 1, 0xff]).0, Err(Failure::ReplyMalformed));
        assert_eq!(failure(&[0x88, 2, 3, 0xf0]).0, Err(Failure::CloseFrame(1008)));
        let (result, control) = failure(&[PING, 1, b'x']);
        assert_eq!(result, Ok(()));
        assert!(control.unwrap().has_pong());
    }
}
