//! The messages of a load thread, compressed or not.

use ringwire_examples::CompressionFlag;

use super::deflated::Deflated;
use super::wire::{Shape, Wire};

/// Prepared messages and the check of their echoes.
pub(crate) enum Messages {
    Plain(Wire),
    Deflated(Box<Deflated>),
}

impl Messages {
    /// Prepares messages of `shape`, of which up to `in_flight` are sent at once.
    pub(crate) fn new(shape: Shape, in_flight: usize, key: [u8; 4]) -> Self {
        match shape.compression {
            CompressionFlag::Off => Self::Plain(Wire::new(shape, in_flight, key)),
            CompressionFlag::Shared | CompressionFlag::Dedicated => {
                Self::Deflated(Box::new(Deflated::new(shape, key)))
            }
        }
    }

    /// Up to `count` messages of a connection from number `first` on, side by side.
    pub(crate) fn requests(&mut self, connection: u32, first: u32, count: usize) -> &[u8] {
        match self {
            Self::Plain(wire) => wire.requests(connection, first, count),
            Self::Deflated(deflated) => deflated.requests(connection, first, count),
        }
    }

    /// How many messages from `first` on, and how much of the next one, that many bytes are.
    pub(crate) fn covered(&self, connection: u32, first: u32, bytes: usize) -> (usize, usize) {
        match self {
            Self::Plain(wire) => (bytes / wire.request_len(), bytes % wire.request_len()),
            Self::Deflated(deflated) => deflated.covered(connection, first, bytes),
        }
    }
}
