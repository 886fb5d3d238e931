//! What compression makes of messages, by level, mode and window: `cargo bench -p ringwire-bench --bench levels`.
//!
//! It prints bytes and microseconds for each message, the best of some rounds. docs/compression.md has what came of it.

#![expect(clippy::disallowed_methods, reason = "times are measured")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use comfy_table::Table;
use ringwire_codec::deflate::{Compressor, Decompressor, Level, WindowBits};

use self::texts::Text;

#[path = "../src/texts.rs"]
mod texts;

/// Rounds over the same messages; the first fills the window.
const ROUNDS: usize = 7;

/// What chat lines and documents are made of; those at the beginning are the more frequent ones.
const WORDS: &str = "the be to of and a in that have I it for not on with he as you do at this but his by from they we say \
    her she or an will my one all would there their what so up out if about who get which go me when make can like time \
    no just him know take people into year your good some could them see other than then now look only come its over \
    think also back after use two how our work first well way even new want because any these give day most us tomorrow \
    meeting please thanks okay server deploy build release review merge branch test failed passed again coffee lunch \
    later today morning really maybe sure great nice cool sorry wait check link https example com issue message channel \
    thread update production database query index cache latency";

fn main() {
    // As a test, it shows that it runs.
    let rounds = if std::env::args().any(|arg| arg == "--test") { 2 } else { ROUNDS };
    let mut random = Random(88_172_645_463_325_252);
    let sets = [
        ("letters, 512 B", Text::Letters.texts(512, 2000)),
        ("JSON feed, 128 B", Text::Json.texts(128, 2000)),
        ("JSON feed, 512 B", Text::Json.texts(512, 2000)),
        ("JSON feed, 2 KiB", Text::Json.texts(2 << 10, 600)),
        ("chat, 80-400 B", (0..2000).map(|id| chat_line(id, &mut random)).collect()),
        ("documents, 16 KiB", (0..80).map(|_| document(&mut random)).collect()),
    ];
    let mut table = Table::new();
    table.set_header([""].into_iter().chain(sets.iter().map(|(name, _)| *name)));
    let small = WindowBits::new(12).expect("a window");
    for (mode, window, takeover) in [
        ("shared", WindowBits::MAX, false),
        ("dedicated, 12 bits", small, true),
        ("dedicated, 15 bits", WindowBits::MAX, true),
    ] {
        for level in 1..=6 {
            let level = Level::new(level).expect("a level");
            let row = sets.iter().map(|(_, messages)| {
                let mut compressor = Compressor::new(level, window);
                if takeover {
                    compressor = compressor.with_takeover();
                }
                measure(compressor, messages, rounds)
            });
            table.add_row([format!("{mode}, level {}", level.get())].into_iter().chain(row));
        }
    }
    println!("{table}");
}

/// The mean length in bytes and the mean time in µs.
fn measure(mut compressor: Compressor, messages: &[String], rounds: usize) -> String {
    let mut decompressor = Decompressor::new();
    let (mut wire, mut text) = (Vec::with_capacity(64 << 10), Vec::new());
    let (mut len, mut best) = (0, Duration::MAX);
    for round in 0..rounds {
        len = 0;
        let mut spent = Duration::ZERO;
        for message in messages {
            wire.clear();
            let begin = Instant::now();
            compressor.compress(black_box(message.as_bytes()), black_box(&mut wire));
            spent += begin.elapsed();
            len += wire.len();
            if round == 0 {
                text.clear();
                if !compressor.takeover() {
                    decompressor.reset();
                }
                decompressor.decompress(&wire, message.len(), &mut text).expect("a message");
                assert_eq!(text, message.as_bytes());
            }
        }
        if round > 0 {
            best = best.min(spent);
        }
    }
    let micros = best.as_secs_f64() * 1e6 / messages.len() as f64;
    format!("{} B, {micros:.1}", len / messages.len())
}

/// Random numbers, the same each time (xorshift).
struct Random(u64);

impl Random {
    /// One below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// That many bytes of words.
fn words(len: usize, random: &mut Random) -> String {
    let words: Vec<_> = WORDS.split_whitespace().collect();
    let mut text = String::new();
    while text.len() < len {
        let count = words.len() as u64;
        let index = random.below(count).min(random.below(count));
        text += words[usize::try_from(index).unwrap_or(0)];
        text += if random.below(12) == 0 { ", " } else { " " };
    }
    text.truncate(len);
    text
}

fn chat_line(number: u64, random: &mut Random) -> String {
    const NAMES: [&str; 8] = ["anna", "bjorn", "chioma", "dmitri", "eve", "farid", "greta", "hiro"];
    let id = 918_273_645 + number * 450 + random.below(450);
    let name = NAMES[usize::try_from(random.below(8)).unwrap_or(0)];
    let at = 1_764_000_000_000 + number * 4000 + random.below(4000);
    let head = format!(
        "{{\"type\":\"message\",\"id\":\"{id}\",\"room\":\"general\",\"from\":\"{name}\",\"at\":{at},\"text\":\""
    );
    let len = usize::try_from(80 + random.below(321)).unwrap_or(80);
    let text = words(len.saturating_sub(head.len() + 2).max(4), random);
    format!("{head}{text}\"}}")
}

fn document(random: &mut Random) -> String {
    let mut document = String::from("{\"document\":[");
    while document.len() < 16 << 10 {
        let (id, revision) = (random.below(1 << 48), random.below(500));
        let (author, is_bold) = (random.below(40), random.below(2) == 0);
        let len = usize::try_from(120 + random.below(300)).unwrap_or(120);
        document += &format!(
            "{{\"id\":\"{id:012x}\",\"type\":\"paragraph\",\"author\":\"user-{author}\",\"revision\":{revision},\
             \"attributes\":{{\"bold\":{is_bold},\"align\":\"left\"}},\"text\":\"{}\"}},",
            words(len, random)
        );
    }
    document.truncate(16 << 10);
    document
}
