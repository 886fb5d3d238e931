//! Long messages that are compressed by a thread, while their place among the connection's output is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;

use ringwire_codec::deflate::{Compressor, Level, WindowBits};
use ringwire_codec::{Connection, Message, Role};

use super::panic_text;
use crate::conn::id::ConnId;

/// A message that is to be compressed.
#[derive(Debug)]
pub(crate) struct Deflation {
    pub(crate) conn: ConnId,
    /// Where its frame belongs.
    pub(crate) place: u32,
    /// Gone when the connection has ended.
    pub(crate) alive: Weak<()>,
    pub(crate) role: Role,
    pub(crate) mask: [u8; 4],
    pub(crate) level: Level,
    pub(crate) window: WindowBits,
    pub(crate) text: bool,
    pub(crate) payload: Vec<u8>,
}

/// A message that was.
#[derive(Debug)]
pub(crate) struct Deflated {
    pub(crate) conn: ConnId,
    pub(crate) place: u32,
    pub(crate) frame: Vec<u8>,
    pub(crate) payload_len: usize,
}

/// A thread's compressors, one for each window in use.
#[derive(Debug, Default)]
pub(super) struct Compressors(Vec<Compressor>);

impl Deflation {
    pub(super) fn is_cancelled(&self) -> bool {
        self.alive.strong_count() == 0
    }

    /// Compresses the message by itself: the connection's own compressor, if it has one, is the worker's to use
    /// meanwhile.
    pub(super) fn run(self, compressors: &mut Compressors) -> Deflated {
        let Self { conn, place, role, mask, level, window, text, payload, .. } = self;
        let message = match std::str::from_utf8(&payload) {
            Ok(payload) if text => Message::Text(payload),
            _ => Message::Binary(&payload),
        };
        // The connection's codec is with the worker; this one begins a message as that one would.
        let mut codec = Connection::new(role).with_deflate();
        let mut masks = || mask;
        let mut frame = Vec::with_capacity(payload.len() + payload.len() / 8 + 64);
        let compressed = catch_unwind(AssertUnwindSafe(|| {
            let compressor = compressors.get(level, window);
            codec.send_compressed(message, compressor, &mut masks, &mut frame)
        }));
        if let Err(panic) = compressed {
            crate::base::event::error!(%conn, panic = panic_text(panic), "a compressor panicked");
            *compressors = Compressors::default();
            frame.clear();
            // Nothing refuses the first message of a connection.
            let _ = Connection::new(role).send(message, &mut masks, &mut frame);
        }
        // It may wait for long, and must not take more than it counts for.
        frame.shrink_to_fit();
        Deflated { conn, place, frame, payload_len: payload.len() }
    }
}

impl Compressors {
    fn get(&mut self, level: Level, window: WindowBits) -> &mut Compressor {
        let known = self.0.iter().position(|compressor| compressor.window_bits() == window);
        let index = known.unwrap_or_else(|| {
            self.0.push(Compressor::new(level, window));
            self.0.len() - 1
        });
        &mut self.0[index]
    }
}
