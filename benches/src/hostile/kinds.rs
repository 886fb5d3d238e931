//! The kinds of hostile peers, and what each of them says.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use fastrand::Rng;
use ringwire_codec::deflate::{Compressor, Level, WindowBits};
use ringwire_codec::handshake::client::Request;
use ringwire_codec::{FrameHeader, OpCode, Role};
use ringwire_examples::CompressionFlag;

use super::crowd;
use super::ending::{Ending, Part};
use super::line::{Begin, Goal, Line};
use super::log::Log;
use crate::echo::{Failure, text_frame};
use crate::flags::name_of;
use crate::target::Resource;

/// Between two bytes of peers that speak slowly.
const PACE: Duration = Duration::from_millis(50);
/// What a peer that never reads sends at most, in messages of such a length.
const FLOOD_LEN: usize = 64 << 20;
const MESSAGE_LEN: usize = 64 << 10;
const FRAGMENTS: usize = 100_000;
/// A message of zeros, and the piece of it that is compressed at a time: so much may inflate at any ratio by default.
const BOMB_LEN: usize = 128 << 20;
const SMALL_BOMB_LEN: usize = 64 << 10;
/// Small ones of a peer, and so many at once.
const BOMBS: usize = 5000;
const BOMBS_AT_ONCE: usize = 100;
/// Heads of crowds: a little less than a server takes by default, and less than it would look for to free memory.
const LARGEST_HEAD_LEN: usize = 16_000;
const HALF_HEAD_LEN: usize = 600;
/// What a sender cuts off a compressed message, and has to be between two pieces (RFC 7692 §7.2.1).
const FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];
const PINGS: usize = 100_000;
/// Connections of a peer that has a server log.
const LOGGED_LINES: usize = 10;
/// Frames that are sent at once.
const BATCH: usize = 1000;
/// A head of so many lines of such a length.
const HEAD_LINES: usize = 1024;
const HEAD_LINE_LEN: usize = 1024;
const GARBAGE_LEN: usize = 4096;
/// A mask that leaves a payload as it is.
const NO_MASK: Option<[u8; 4]> = Some([0; 4]);
/// What comes after an answer that is none to a violation tells that the server goes on.
const SECOND_THOUGHTS: Duration = Duration::from_millis(500);

/// A kind of peer. Its name on the command line is that in kebab case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Connects and says nothing.
    Silent,
    /// Sends its request byte by byte, and never the end of it.
    SlowHead,
    /// Sends a request with a head of a MiB.
    LongHead,
    /// Sends 4 KiB of noise instead of a request.
    GarbageRequest,
    /// Sends a frame byte by byte.
    SlowFrame,
    /// Upgrades, and then reads nothing and says nothing, pongs neither: as one whose network is gone.
    HalfOpen,
    /// Sends up to 64 MiB of messages and reads nothing.
    SlowReader,
    /// Sends a message in 100 000 fragments of a byte.
    TinyFragments,
    /// Sends a message in 100 000 fragments of nothing.
    EmptyFragments,
    /// Sends a compressed message that inflates to 128 MiB, 1000 times its length.
    Bomb,
    /// Sends a header that declares 2^63 − 1 bytes, and no byte of them.
    HugeLength,
    /// Sends 100 000 pings of 125 bytes.
    PingFlood,
    /// Sends a frame with a reserved bit.
    ReservedBit,
    /// Sends a frame with a reserved opcode.
    ReservedOpcode,
    /// Sends a frame without a mask.
    Unmasked,
    /// Sends a ping of 126 bytes.
    LongControl,
    /// Sends the first half of a ping in a frame of its own.
    SplitControl,
    /// Sends a text message that is not UTF-8.
    BadUtf8,
    /// Sends a close frame with the code 1005, which never is on the wire.
    BadCloseCode,
    /// Is a crowd: hundreds of connections at once, each with 16 KB of a head and not its end.
    HeadBurst,
    /// Is a crowd whose members send 600 bytes of a head.
    HalfHeads,
    /// Is a crowd whose members send 64 KiB of a TLS ClientHello and not its end.
    HelloBurst,
    /// Is a crowd whose members upgrade and send 64 KiB of a message of a MiB.
    HalfMessages,
    /// Sends 5 000 messages of 70 bytes which inflate to 64 KiB each, so long as any ratio is allowed.
    BombVolume,
    /// Is ten connections in turn that send a frame with all reserved bits, to a server of which nobody reads the log:
    /// a pipe of 4 KiB.
    LogPipe,
    /// The same to a server whose log goes to a full disk.
    LogDisk,
}

impl Kind {
    /// Its name, as on the command line.
    pub(super) fn name(self) -> String {
        name_of(&self)
    }

    /// Whether a server has to end it: all but those who may be what they look like, slow or busy peers.
    pub(super) fn has_to_end(self) -> bool {
        !matches!(
            self,
            Self::SlowFrame
                | Self::SlowReader
                | Self::TinyFragments
                | Self::EmptyFragments
                | Self::PingFlood
                | Self::BombVolume
                | Self::HalfMessages
        )
    }

    /// Whether it is about how much a server holds and does for many, rather than about what one peer says.
    pub(super) fn is_flood(self) -> bool {
        self.is_crowd() || self == Self::BombVolume
    }

    /// Where the log goes of a server that is started for it, if one is.
    pub(super) fn log(self) -> Option<Log> {
        match self {
            Self::LogPipe => Some(Log::Pipe),
            Self::LogDisk => Some(Log::FullDisk),
            _ => None,
        }
    }

    /// Whether a peer is many connections.
    pub(super) fn is_crowd(self) -> bool {
        matches!(self, Self::HeadBurst | Self::HalfHeads | Self::HelloBurst | Self::HalfMessages)
    }

    /// Plays it once; a crowd has so many members.
    pub(super) fn play(self, goal: &Goal, crowd: usize, until: Instant) -> Part {
        let alone = |ending| Part { ending, sent: 0, received: 0 };
        if self.is_crowd() {
            // A head in plain text is for a plain server, and a ClientHello for one with TLS.
            // Its connections are of TCP.
            let is_apart = goal.target.unix().is_some();
            if is_apart || goal.tls.is_some() != (self == Self::HelloBurst) {
                return alone(Ending::Inapplicable);
            }
            return crowd::play(goal.target.address(), &self.beginning(goal), crowd, until);
        }
        let line = match self {
            Self::Bomb | Self::BombVolume => match open_compressed(goal, until) {
                Err(Failure::CompressionDeclined) => return alone(Ending::Declined),
                line => line,
            },
            _ => Line::open(goal, self.begin(), until),
        };
        match line {
            Ok(mut line) => {
                for _ in 1..self.lines() {
                    self.act(&mut line, until);
                    match Line::open(goal, self.begin(), until) {
                        Ok(next) => line = next,
                        Err(failure) => return alone(Ending::NotOpened(failure)),
                    }
                }
                self.act(&mut line, until);
                Part { ending: Ending::of(&line), sent: line.sent, received: line.heard.len }
            }
            Err(failure) => alone(Ending::NotOpened(failure)),
        }
    }

    /// Connections that one makes in turn. How the last one ends is told.
    fn lines(self) -> usize {
        if self.log().is_some() { LOGGED_LINES } else { 1 }
    }

    /// What each of a crowd says.
    fn beginning(self, goal: &Goal) -> Vec<u8> {
        let head = |len: usize| {
            let mut head = b"GET / HTTP/1.1\r\nHost: localhost\r\n".to_vec();
            let line = format!("X-A: {}\r\n", "a".repeat(192));
            while head.len() + line.len() < len {
                head.extend_from_slice(line.as_bytes());
            }
            head
        };
        match self {
            Self::HalfHeads => head(HALF_HEAD_LEN),
            Self::HelloBurst => hello(),
            Self::HalfMessages => half_message(goal),
            _ => head(LARGEST_HEAD_LEN),
        }
    }

    fn begin(self) -> Begin {
        match self {
            Self::Silent | Self::SlowHead | Self::LongHead | Self::GarbageRequest => Begin::Connect,
            _ => Begin::Upgrade(CompressionFlag::Off),
        }
    }

    fn act(self, line: &mut Line, until: Instant) {
        match self {
            Self::Silent => line.listen(until, |_| false),
            Self::SlowHead => {
                let head = b"GET / HTTP/1.1\r\nHost: localhost\r\n".iter();
                say_slowly(line, head.chain(b"X-A: b\r\n".iter().cycle()), until);
            }
            Self::LongHead => {
                let mut head = b"GET / HTTP/1.1\r\nHost: localhost\r\n".to_vec();
                let padding = "a".repeat(HEAD_LINE_LEN - "X-A: \r\n".len());
                (0..HEAD_LINES).for_each(|_| head.extend(format!("X-A: {padding}\r\n").bytes()));
                head.extend_from_slice(b"\r\n");
                say_and_wait(line, &head, until);
            }
            Self::GarbageRequest => say_and_wait(line, &garbage(), until),
            Self::SlowFrame => {
                let frame = frame(true, OpCode::Text, &[b'a'; MESSAGE_LEN]);
                say_slowly(line, frame.iter(), until);
            }
            Self::HalfOpen => {
                line.turn_deaf();
                line.listen(until, |_| false);
            }
            Self::SlowReader => {
                line.turn_deaf();
                let message = frame(true, OpCode::Binary, &[7; MESSAGE_LEN]);
                say_often(line, &message, FLOOD_LEN / MESSAGE_LEN, until);
                line.listen(until, |_| false);
            }
            Self::TinyFragments => say_in_fragments(line, b"a", until),
            Self::EmptyFragments => say_in_fragments(line, b"", until),
            Self::Bomb => say_and_wait(line, &bomb(line), until),
            Self::BombVolume => {
                let bombs = compressed(line, 1).repeat(BOMBS_AT_ONCE);
                say_often(line, &bombs, BOMBS / BOMBS_AT_ONCE, until);
                line.rest(SECOND_THOUGHTS, until);
            }
            // They have no line.
            Self::HeadBurst | Self::HalfHeads | Self::HelloBurst | Self::HalfMessages => {}
            Self::LogPipe | Self::LogDisk => {
                say_and_wait(line, &[0xf1, 0x80, 0, 0, 0, 0], until);
            }
            Self::HugeLength => {
                let mut bytes = Vec::new();
                let len = u64::MAX >> 1;
                FrameHeader::new(OpCode::Binary, true, NO_MASK, len).encode(&mut bytes);
                say_and_wait(line, &bytes, until);
            }
            Self::PingFlood => {
                let pings = frame(true, OpCode::Ping, &[b'p'; 125]).repeat(BATCH);
                say_often(line, &pings, PINGS / BATCH, until);
                line.rest(SECOND_THOUGHTS, until);
            }
            Self::ReservedBit => say_and_wait(line, &[0xa1, 0x81, 0, 0, 0, 0, b'a'], until),
            Self::ReservedOpcode => say_and_wait(line, &[0x83, 0x81, 0, 0, 0, 0, b'a'], until),
            Self::Unmasked => say_and_wait(line, &[0x81, 1, b'a'], until),
            Self::LongControl => {
                say_and_wait(line, &frame(true, OpCode::Ping, &[b'p'; 126]), until);
            }
            Self::SplitControl => {
                say_and_wait(line, &frame(false, OpCode::Ping, b"half"), until);
            }
            Self::BadUtf8 => say_and_wait(line, &frame(true, OpCode::Text, &[0xc0, 0xaf]), until),
            Self::BadCloseCode => {
                let code = 1005_u16.to_be_bytes();
                say_and_wait(line, &frame(true, OpCode::Close, &code), until);
            }
        }
    }
}

/// An upgrade with compression on whatever terms the server has.
fn open_compressed(goal: &Goal, until: Instant) -> Result<Line, Failure> {
    match Line::open(goal, Begin::Upgrade(CompressionFlag::Shared), until) {
        Err(Failure::CompressionTerms) => {}
        other => return other,
    }
    match Line::open(goal, Begin::Upgrade(CompressionFlag::Dedicated), until) {
        Err(Failure::CompressionTerms) => Err(Failure::CompressionDeclined),
        other => other,
    }
}

/// Sends it all, and waits for what the server does about it.
fn say_and_wait(line: &mut Line, bytes: &[u8], until: Instant) {
    if line.say(bytes, until) {
        line.listen(until, |heard| heard.messages > 0 || heard.status().is_some());
        // A server that has answered may end it yet.
        line.rest(SECOND_THOUGHTS, until);
    }
}

/// Sends a byte at a time, to the end of the line or the time.
fn say_slowly<'a>(line: &mut Line, bytes: impl Iterator<Item = &'a u8>, until: Instant) {
    for byte in bytes {
        if !line.say(&[*byte], until) {
            return;
        }
        line.rest(PACE, until);
    }
    line.listen(until, |_| false);
}

fn say_often(line: &mut Line, bytes: &[u8], count: usize, until: Instant) {
    for _ in 0..count {
        if !line.say(bytes, until) {
            return;
        }
    }
}

fn say_in_fragments(line: &mut Line, payload: &[u8], until: Instant) {
    if !line.say(&frame(false, OpCode::Text, payload), until) {
        return;
    }
    let fragments = frame(false, OpCode::Continuation, payload).repeat(BATCH);
    say_often(line, &fragments, FRAGMENTS / BATCH, until);
    say_and_wait(line, &frame(true, OpCode::Continuation, payload), until);
}

/// A frame as clients send it.
pub(super) fn frame(fin: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameHeader::new(opcode, fin, NO_MASK, payload.len() as u64).encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// A message of zeros in one frame, for what was agreed on.
fn bomb(line: &Line) -> Vec<u8> {
    compressed(line, BOMB_LEN / SMALL_BOMB_LEN)
}

/// The same, of so many pieces.
fn compressed(line: &Line, pieces: usize) -> Vec<u8> {
    let window = line
        .agreement()
        .map_or(WindowBits::MIN, |agreement| agreement.compressor_window(Role::Client));
    let mut piece = Vec::new();
    Compressor::new(Level::default(), window).compress(&[0; SMALL_BOMB_LEN], &mut piece);
    let mut payload = piece.clone();
    for _ in 1..pieces {
        payload.extend_from_slice(&FLUSH);
        payload.extend_from_slice(&piece);
    }
    let mut bytes = Vec::new();
    let header = FrameHeader::new(OpCode::Binary, true, NO_MASK, payload.len() as u64);
    FrameHeader { rsv1: true, ..header }.encode(&mut bytes);
    bytes.extend_from_slice(&payload);
    bytes
}

/// All but the last byte of a ClientHello of 64 KiB, in records of 16 KiB (RFC 8446 §4, §5.1).
fn hello() -> Vec<u8> {
    const RECORD_LEN: usize = 16 << 10;
    let mut message = vec![1, 0, 0xff, 0xfb];
    message.resize(4 * RECORD_LEN - 2, 0);
    let records = message.chunks(RECORD_LEN).flat_map(|piece| {
        let len = u16::try_from(piece.len()).unwrap_or_default().to_be_bytes();
        [&[22, 3, 1, len[0], len[1]], piece].concat()
    });
    records.collect()
}

/// A request for a WebSocket (RFC 6455 §4.1), and behind it the beginning of a message of a MiB.
fn half_message(goal: &Goal) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(Resource { authority, path, ask, .. }) = goal.target.resource() {
        let number = ask.next_number();
        let request =
            Request::new(authority.as_str(), &ask.fill(path, number), *b"the sample nonce");
        if let Ok(request) = request.and_then(|request| ask.request(request, number)) {
            request.encode(&mut bytes);
        }
        bytes.extend(ask.first_messages(number).flat_map(|text| text_frame(&text)));
    }
    FrameHeader::new(OpCode::Binary, true, NO_MASK, 1 << 20).encode(&mut bytes);
    bytes.extend_from_slice(&[7; MESSAGE_LEN]);
    bytes
}

/// Noise that is no begin of anything, with the end of a head at its end.
fn garbage() -> Vec<u8> {
    let mut random = Rng::with_seed(1);
    std::iter::repeat_with(|| random.u8(..)).take(GARBAGE_LEN).chain(*b"\r\n\r\n").collect()
}
