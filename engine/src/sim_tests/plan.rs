//! What a seed decides: the server's settings, and what each client does.

use std::collections::VecDeque;
use std::time::Duration;

use ringwire_codec::CloseCode;
use ringwire_codec::deflate::{Level, Offer, WindowBits};

use super::app::Said;
use crate::base::amount::Sizing;
use crate::config::Config;
use crate::conn::options::Backpressure;
use crate::driver::sim::{Faults, Random};
use crate::layers::compression::{CompressionConfig, CompressionMode};

/// Longer messages are not sent.
pub(super) const LARGEST_MESSAGE: usize = 40_000;

/// What no client may send (RFC 6455 §5.1, §5.2, §5.5, §8.1): unmasked, reserved bits, reserved opcode, a long
/// ping, a fragmented ping, text that is no UTF-8, a message longer than the limit, a compressed one that is no
/// deflate stream (RFC 1951 §3.2.3: a reserved type of block).
pub(super) const GARBAGE: [&[u8]; 8] = [
    &[0x82, 0x03, 1, 2, 3],
    &[0xf2, 0x80, 0, 0, 0, 0],
    &[0x83, 0x80, 0, 0, 0, 0],
    &[0x89, 0xfe, 0, 200, 0, 0, 0, 0],
    &[0x09, 0x80, 0, 0, 0, 0],
    &[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff],
    &[0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0xc2, 0x82, 0, 0, 0, 0, 0x06, 0xff],
];

/// What a client may say behind its close frame, to no effect (RFC 6455 §5.5.1): a ping, a text, a second close frame.
pub(super) const LATE: [&[u8]; 3] = [
    &[0x89, 0x80, 0, 0, 0, 0],
    &[0x81, 0x84, 0, 0, 0, 0, b'l', b'a', b't', b'e'],
    &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8],
];

/// How a connection comes to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    Connect,
    /// The same, over TLS.
    Secure,
    /// Somebody else accepted it.
    Adopted,
    /// Somebody else has answered its request as well.
    Upgraded,
}

/// How a client ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The close handshake.
    CloseFrame,
    /// The same, and goes on after the close frame.
    CloseAndMore,
    /// The same, and ends its stream behind the close frame.
    CloseAndFinish,
    /// Has the application begin the close handshake.
    AskServer,
    /// Waits for the server's shutdown.
    Stay,
    /// Breaks the protocol.
    Garbage,
    /// Closes without a word.
    HangUp,
    /// Ends its stream without a word, and reads on.
    Finish,
    Reset,
    /// Neither answers nor says anything any more.
    Mute,
    /// Sends half a request and nothing more.
    HalfAsk,
}

#[derive(Clone, Debug)]
pub(super) enum Speech {
    Say(Said),
    Ping,
    /// Has the server send something from outside.
    Push(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub entrance: Entrance,
    pub query: String,
    pub speeches: VecDeque<Speech>,
    pub ending: Ending,
    /// The longest time between two things that it does.
    pub pace: Duration,
    /// Reads only now and then.
    pub slow: bool,
    pub window: usize,
    /// What its kernel acknowledges before it reads.
    pub receive_len: usize,
    /// The server may drop messages when it reads slowly.
    pub lossy: bool,
    /// The compression that it offers.
    pub offer: Option<Offer>,
}

impl Plan {
    pub(super) fn draw(random: &mut Random, config: &Config) -> Self {
        let entrance = match random.below(10) {
            0 => Entrance::Adopted,
            1 => Entrance::Upgraded,
            2..5 => Entrance::Secure,
            _ => Entrance::Connect,
        };
        let query = ["", "", "", "stream", "defer", "defer-forbid"][random.below(6)].to_owned();
        let ending = match random.below(24) {
            0..4 => Ending::CloseFrame,
            4..7 => Ending::CloseAndMore,
            7 | 8 => Ending::CloseAndFinish,
            9..12 => Ending::AskServer,
            12 | 13 => Ending::Stay,
            14 | 15 => Ending::Garbage,
            16 => Ending::HangUp,
            17..21 => Ending::Finish,
            21 | 22 => Ending::Reset,
            _ if matches!(entrance, Entrance::Connect | Entrance::Secure) && random.chance(0.5) => {
                Ending::HalfAsk
            }
            _ => Ending::Mute,
        };
        let slow = random.chance(0.3);
        let speeches = (0..random.below(10)).map(|number| Speech::draw(random, number)).collect();
        Self {
            entrance,
            query,
            speeches,
            ending,
            pace: Duration::from_millis([0, 2, 50, 1000, 45_000][random.below(5)]),
            slow,
            window: if slow { [512, 4096, 40_000][random.below(3)] } else { 64 * 1024 },
            receive_len: [0, 0, 1000, 20_000][random.below(4)],
            lossy: matches!(
                config.backpressure,
                Backpressure::DropNewest | Backpressure::DropOldest
            ),
            offer: random.chance(0.8).then(|| draw_offer(random)),
        }
    }

    /// Ends with a close frame of its own.
    pub(super) fn closes(&self) -> bool {
        let with_a_frame = [Ending::CloseFrame, Ending::CloseAndMore, Ending::CloseAndFinish];
        with_a_frame.contains(&self.ending)
    }

    /// The application will refuse its request.
    pub(super) fn is_forbidden(&self) -> bool {
        let asks = self.entrance != Entrance::Upgraded && self.ending != Ending::HalfAsk;
        asks && self.query.contains("forbid")
    }
}

impl Speech {
    fn draw(random: &mut Random, number: usize) -> Self {
        let command = match random.below(20) {
            0 | 1 => return Self::Ping,
            2 => return Self::Push(random.below(3000)),
            3 => "!pause".to_owned(),
            4 => format!("!burst {} {}", random.below(30), random.below(3000)),
            5 => format!("!flood {} {}", random.below(10), random.below(3000)),
            6 => format!("!keyed {}", random.below(10)),
            _ => String::new(),
        };
        if !command.is_empty() {
            return Self::Say(Said { text: true, bytes: command.into_bytes() });
        }
        let len = match random.below(8) {
            0..3 => random.below(20),
            3 | 4 => random.within(120..=130),
            5 | 6 => random.below(3000),
            _ => random.below(LARGEST_MESSAGE),
        };
        let text = random.chance(0.5);
        let mut bytes = format!("{number}.").into_bytes();
        if text {
            let words = ["water ", "naïve ", "水 ", "💧 "];
            while bytes.len() < len {
                bytes.extend(words[random.below(words.len())].as_bytes());
            }
        } else {
            let start = bytes.len();
            bytes.resize(start + len, 0);
            random.fill(&mut bytes[start..]);
        }
        Self::Say(Said { text, bytes })
    }
}

fn draw_offer(random: &mut Random) -> Offer {
    let windows = [None, None, Some(WindowBits::MIN), WindowBits::new(12), Some(WindowBits::MAX)];
    let mut offer = Offer::default()
        .with_server_no_context_takeover(random.chance(0.3))
        .with_client_no_context_takeover(random.chance(0.3));
    offer.server_max_window_bits = windows[random.below(5)];
    offer.client_max_window_bits = windows[random.below(5)];
    offer
}

pub(super) fn draw_compression(random: &mut Random) -> CompressionConfig {
    let mode = match random.below(3) {
        0 => CompressionMode::Off,
        1 => CompressionMode::Shared,
        _ => CompressionMode::Dedicated,
    };
    CompressionConfig::default()
        .with_mode(mode)
        .with_threshold([0, 100, 256][random.below(3)])
        .with_offload_threshold([None, Some(1), Some(1000), Some(10_000)][random.below(4)])
        .with_level(Level::new([1, 6, 9][random.below(3)]).expect("a level"))
        .with_max_window(WindowBits::new([9, 12, 15][random.below(3)]).expect("a window"))
        .with_decompress_only(random.chance(0.1))
        .with_compressor_timeout(
            [None, Some(1), Some(60)][random.below(3)].map(Duration::from_secs),
        )
        .with_max_dedicated_len([48 << 10, 600 << 10, 64 << 20][random.below(3)])
        .with_work_per_turn([1, 20_000, 1 << 20][random.below(3)])
}

/// Settings that make something happen soon.
pub(super) fn draw_config(random: &mut Random) -> Config {
    let (high_water, max_queued_len) =
        [(1, 1), (1000, 4000), (20_000, 50_000), (128 << 10, 256 << 10)][random.below(4)];
    let backpressure = match random.below(6) {
        0 => Backpressure::DropNewest,
        1 => Backpressure::DropOldest,
        _ => Backpressure::Close(CloseCode::TRY_AGAIN_LATER),
    };
    Config::default()
        .with_protocol(ringwire_codec::Config::default().with_max_control_count(u16::MAX))
        .with_messages_per_turn([1, 2, 1024][random.below(3)])
        .with_high_water(high_water)
        .with_max_queued_len(max_queued_len)
        .with_backpressure(backpressure)
        .with_pool_len([0, 10_000, 4 << 20][random.below(3)])
        .with_max_connections([Sizing::Auto, Sizing::Auto, Sizing::Fixed(2)][random.below(3)])
        // Longer than a slow reader takes in a slow network.
        .with_close_timeout(Duration::from_secs(200))
        .with_handshake_timeout(Duration::from_secs(60))
        .with_compression(draw_compression(random))
        .with_compute_workers(random.below(2))
        .with_compute_queue_len(random.within(0..=4))
        .with_max_unauthenticated_len([None, Some(LARGEST_MESSAGE + 100)][random.below(2)])
        // Longer messages go out while the handler runs.
        .with_receive_buffer_len([512, 4096, 64 << 10][random.below(3)])
}

pub(super) fn draw_faults(random: &mut Random) -> Faults {
    let mut faults = match random.below(4) {
        0 => Faults::none(),
        _ => Faults::mixed(random),
    };
    // One small buffer for all, and each time late, would hold up pongs for longer than the pong timeout.
    if faults.max_delay > Duration::from_millis(20) {
        (faults.receive_buffers, faults.receive_buffer_len) = (16, 4096);
    } else if faults.receive_buffer_len < 512 && random.chance(0.9) {
        faults.receive_buffer_len = 512;
    }
    faults
}
