//! The extensions of a worker's connections, for those that have any.
//!
//! They stand between the codec and the kernel, or TLS: frames go through them when they are sent, in the order in
//! which they are, and what is received goes through before it is looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringwire_codec::extension::{ExtensionError, FrameLayer};
use ringwire_codec::{Buffers, CloseCode};

use crate::base::buffers::BufferPool;
use crate::base::chunked::Chunked;
use crate::base::output::Output;
use crate::conn::cause::CloseReason;

/// What extensions and their headers may add to output, about, in bytes.
const OVERHEAD: usize = 64;
/// Working memory that is kept, in bytes.
const KEPT_LEN: usize = 64 << 10;

/// The layers, by slot: a pointer for each slot up to the highest that has one.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    table: Chunked<Option<Box<FrameLayer>>>,
    /// A payload at work.
    payload: Vec<u8>,
    /// What was received last, kept for its memory.
    frames: Vec<u8>,
    /// Memory of frames that are not whole, of all connections.
    memory_len: usize,
}

/// What came of received bytes.
#[derive(Debug)]
pub(crate) struct Unwrapped {
    /// To be given back by [`Layers::give_back`].
    pub(crate) frames: Vec<u8>,
    /// Why nothing that follows can be understood.
    pub(crate) failure: Option<Failure>,
}

/// Why a connection's extensions cannot go on.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(ExtensionError),
    Panicked,
}

impl Failure {
    /// What the connection ends with.
    pub(crate) fn verdict(&self) -> (CloseReason, CloseCode, &str) {
        match self {
            Self::Refused(error) => (CloseReason::Extension, error.code(), error.reason()),
            Self::Panicked => (CloseReason::HandlerPanic, CloseCode::INTERNAL_ERROR, ""),
        }
    }
}

impl Layers {
    pub(crate) fn insert(&mut self, slot: u32, layer: FrameLayer) {
        *self.table.entry(slot) = Some(Box::new(layer));
    }

    /// Forgets those of a connection that has ended.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(layer) = self.table.get_mut(slot).and_then(Option::take) {
            self.memory_len -= layer.memory_len();
        }
    }

    /// Memory of frames that are not whole, in bytes.
    pub(crate) fn memory_len(&self) -> usize {
        self.memory_len
    }

    /// The same of one connection.
    pub(crate) fn memory_of(&self, slot: u32) -> usize {
        let layer = self.table.get(slot).and_then(Option::as_ref);
        layer.map_or(0, |layer| layer.memory_len())
    }

    /// Takes received bytes, for messages of at most `max_message_len`. `None`: the connection has no extensions.
    pub(crate) fn receive(
        &mut self,
        slot: u32,
        bytes: &[u8],
        max_message_len: usize,
    ) -> Option<Unwrapped> {
        let Self { table, payload, frames, memory_len } = self;
        let layer = table.get_mut(slot)?.as_mut()?;
        let mut frames = std::mem::take(frames);
        let before = layer.memory_len();
        let result = catch_unwind(AssertUnwindSafe(|| {
            layer.receive(bytes, max_message_len, payload, &mut frames)
        }));
        *memory_len = *memory_len - before + layer.memory_len();
        keep(payload);
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Failure::Refused(error)),
            Err(_) => Some(Failure::Panicked),
        };
        Some(Unwrapped { frames, failure })
    }

    pub(crate) fn give_back(&mut self, mut frames: Vec<u8>) {
        keep(&mut frames);
        self.frames = frames;
    }

    /// What goes to the kernel, or to TLS, in place of the output. `Err`: a transform panicked, and what it was given
    /// is lost.
    pub(crate) fn send(
        &mut self,
        slot: u32,
        output: Output,
        pool: &mut BufferPool,
    ) -> Result<Output, Failure> {
        let Self { table, payload, memory_len, .. } = self;
        let Some(layer) = table.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(output);
        };
        let mut out = pool.take(output.len() + OVERHEAD);
        let before = layer.memory_len();
        let result = catch_unwind(AssertUnwindSafe(|| layer.send(&output, payload, &mut out)));
        *memory_len = *memory_len - before + layer.memory_len();
        keep(payload);
        pool.reclaim(output);
        match result {
            Ok(()) => Ok(Output::Own(out)),
            Err(_) => {
                pool.give(out);
                Err(Failure::Panicked)
            }
        }
    }
}

/// Working memory is used again, unless a long message has made it large.
fn keep(memory: &mut Vec<u8>) {
    if memory.capacity() > KEPT_LEN {
        *memory = Vec::new();
    }
    memory.clear();
}
