//! Payloads in, compressed payloads out (RFC 7692 §7.2.1).

use std::fmt;

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

use super::{TAIL, WindowBits, raw};

/// How much work is done for a smaller output: 1 to 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    /// 1: the least work.
    pub const FASTEST: Self = Self(1);
    /// 6: what most programs use.
    pub const BALANCED: Self = Self(6);
    /// 9: the smallest output.
    pub const SMALLEST: Self = Self(9);

    /// The level of that number; `None` unless it is 1 to 9.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if matches!(level, 1..=9) { Some(Self(level)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// 2: a server pays for compression with each message it sends, and this is the least work that chooses codes for the
/// message (RFC 1951 §3.2.7). At 1, zlib-rs uses the fixed codes only: half to a third of the work, for a quarter to a
/// third more bytes where messages stand alone. docs/compression.md has the figures.
impl Default for Level {
    fn default() -> Self {
        Self(2)
    }
}

/// Compresses messages, one after the other.
///
/// It is made without context takeover: each message stands for itself, so one compressor serves any
/// number of connections. [`with_takeover`](Self::with_takeover) ties it to one.
///
/// ```
/// use ringwire_codec::deflate::{Compressor, Decompressor, Level, WindowBits};
///
/// let mut compressor = Compressor::new(Level::default(), WindowBits::MAX);
/// let (mut wire, mut message) = (Vec::new(), Vec::new());
/// compressor.compress(b"Hello, Hello, Hello", &mut wire);
/// Decompressor::new().decompress(&wire, 100, &mut message)?;
/// assert_eq!(message, b"Hello, Hello, Hello");
/// # Ok::<(), ringwire_codec::Error>(())
/// ```
pub struct Compressor {
    stream: Deflate,
    window_bits: WindowBits,
    takeover: bool,
    /// Whether the window is empty.
    fresh: bool,
}

impl Compressor {
    /// A compressor that refers back at most a window of that size. Allocates all the memory it will
    /// ever need.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    #[must_use]
    pub fn new(level: Level, window_bits: WindowBits) -> Self {
        let config = DeflateConfig {
            level: i32::from(level.0),
            // Negative: without the header and checksum of zlib.
            window_bits: -i32::from(window_bits.get()),
            mem_level: i32::from(mem_level(window_bits)),
            ..DeflateConfig::default()
        };
        Self { stream: Deflate::new_with_config(config), window_bits, takeover: false, fresh: true }
    }

    /// Lets messages refer to those before them, as long as [`reset`](Self::reset) is not called. For
    /// one connection alone, whose agreement allows it ([`Agreement::takeover`](super::Agreement)).
    #[must_use]
    pub fn with_takeover(mut self) -> Self {
        self.takeover = true;
        self
    }

    /// Whether messages may refer to those before them.
    #[must_use]
    pub fn takeover(&self) -> bool {
        self.takeover
    }

    /// The size of the window.
    #[must_use]
    pub fn window_bits(&self) -> WindowBits {
        self.window_bits
    }

    /// The bytes of memory that it holds: 288 KiB for a window of 15 bits, 151 KiB for one of 12, 137 KiB
    /// for one of 9. The hash table has 128 KiB in either case.
    #[must_use]
    pub fn memory_len(&self) -> usize {
        Self::memory_len_of(self.window_bits)
    }

    /// The same of one with a window of that size.
    #[must_use]
    pub const fn memory_len_of(window_bits: WindowBits) -> usize {
        memory_len(window_bits)
    }

    /// Forgets the messages so far; takes no memory. What comes next can be read by whoever has read
    /// them or has not.
    pub fn reset(&mut self) {
        if !self.fresh {
            self.stream.reset();
            self.fresh = true;
        }
    }

    /// Appends the compressed form of a message to `out`, without the four bytes that RFC 7692 §7.2.1
    /// removes. An empty message is one byte (§7.2.3.6).
    pub fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.compress_fragment(payload, true, out);
    }

    /// Appends the compressed form of a part of a message. The parts of a message make one deflate
    /// stream, and each can be inflated when it arrives. Without takeover, other messages may come in
    /// between.
    pub(crate) fn compress_fragment(&mut self, payload: &[u8], fin: bool, out: &mut Vec<u8>) {
        if !self.takeover {
            self.reset();
        }
        if payload.is_empty() {
            // An empty stored block up to its length, which is what is left out. All before it has
            // been flushed, so it begins at a byte. A second flush would give nothing.
            if fin {
                out.push(0);
            }
            return;
        }
        self.fresh = false;
        self.flush(payload, out);
        if fin {
            debug_assert!(out.ends_with(&TAIL), "a sync flush ends so");
            out.truncate(out.len() - TAIL.len());
        }
    }

    fn flush(&mut self, mut payload: &[u8], out: &mut Vec<u8>) {
        loop {
            // Level 1 takes 9 bits for a byte at worst; then the flush.
            out.reserve(payload.len() + payload.len() / 8 + 64);
            let room = out.capacity() - out.len();
            let step = raw::deflate(&mut self.stream, payload, DeflateFlush::SyncFlush, out);
            debug_assert!(step.status.is_some(), "only misuse of the stream is an error");
            payload = payload.get(step.used..).unwrap_or_default();
            // Room that is left says that the flush is complete.
            if step.produced < room || step.status != Some(Status::Ok) {
                return;
            }
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor")
            .field("window_bits", &self.window_bits)
            .field("takeover", &self.takeover)
            .finish_non_exhaustive()
    }
}

/// zlib's measure for the memory beside the window, which says how many symbols a block has at most: 512 for a window
/// of 12 bits or less, 4096 for one of 15. zlib's own default for that one, four times as many, makes documents of 16
/// KiB half a percent shorter and takes 84 KiB more.
const fn mem_level(window_bits: WindowBits) -> u8 {
    if window_bits.get() > 12 { window_bits.get() - 9 } else { 3 }
}

/// As zlib-rs takes it: in one piece.
const fn memory_len(window_bits: WindowBits) -> usize {
    let window_len = window_bits.window_len();
    let symbols = 1 << (mem_level(window_bits) + 6);
    let hash_table = 128 << 10;
    let state = 4 << 10;
    // The window twice; the chain of earlier positions; pending output; symbols of the block.
    2 * window_len + 2 * window_len + hash_table + 4 * symbols + 3 * symbols + state
}
