//! Long messages that are compressed by a thread, while their place among the connection's output is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;

use ringwire_codec::deflate::{Compressor, Level, WindowBits};
use ringwire_codec::{Connection, MaskSource, Message, Role};

use super::{Job, Lane, panic_text};
use crate::conn::{ConnId, Flags, Wire};
use crate::send_queue::SegmentKind;
use crate::shared::Shared;

/// A message that is to be compressed.
#[derive(Debug)]
pub(crate) struct Deflation {
    conn: ConnId,
    /// Where its frame belongs.
    place: u32,
    /// Gone when the connection has ended.
    alive: Weak<()>,
    role: Role,
    mask: [u8; 4],
    level: Level,
    window: WindowBits,
    text: bool,
    payload: Vec<u8>,
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

    /// Compresses the message by itself: the connection's own compressor, if it has one, is the worker's to use meanwhile.
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
            crate::event::error!(%conn, panic = panic_text(panic), "a compressor panicked");
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

impl Shared {
    /// Has a thread compress a message, if it is long enough for that, there is room, and not too much of this connection
    /// is on its way already. Output behind it waits. `droppable`: while it waits for the peer, it may be dropped.
    #[cold]
    pub(crate) fn deflate_elsewhere(
        &mut self,
        wire: &mut Wire,
        slot: u32,
        message: Message<'_>,
        droppable: bool,
    ) -> bool {
        let len = message.len();
        let awaited_len = wire.awaited_len();
        let too_much = awaited_len > 0 && awaited_len + len > self.limits.max_queued_len;
        if self.compute.is_none() || too_much || wire.job_count() >= self.limits.max_jobs {
            return false;
        }
        self.enqueue_out(wire, SegmentKind::Stream);
        let conn = ConnId { worker: self.worker, slot, generation: wire.generation };
        let Self { compute, deflate, masks, .. } = self;
        let Some(room) = compute.as_ref().and_then(|compute| compute.room(Lane::Engine)) else {
            return false;
        };
        if wire.flags.contains(Flags::OWN_COMPRESSOR) {
            // The peer's window will hold this message, and that of the connection's compressor will not.
            deflate.start_anew(slot);
        }
        let is_client = wire.flags.contains(Flags::CLIENT);
        let (role, mask) =
            if is_client { (Role::Client, masks.next_mask()) } else { (Role::Server, [0; 4]) };
        let (_, alive) = wire.jobs_mut().begin(false);
        room.submit(Job::Deflate(Box::new(Deflation {
            conn,
            place: wire.pending_mut().queue.reserve(len, droppable),
            alive,
            role,
            mask,
            level: deflate.level(),
            window: wire.window.unwrap_or(WindowBits::MIN),
            text: message.is_text(),
            payload: message.as_bytes().to_vec(),
        })));
        true
    }
}
