//! A pool that counts.

use ringwire_codec::Buffers;

/// Counts what was taken and given back.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    /// The capacities asked for, in order.
    pub(crate) taken: Vec<usize>,
    pub(crate) given_count: usize,
    /// Whether there is no memory for what is long.
    pub(crate) exhausted: bool,
}

impl Counting {
    /// Buffers that are out.
    pub(crate) fn out_count(&self) -> usize {
        self.taken.len() - self.given_count
    }
}

impl Buffers for Counting {
    fn take(&mut self, min_capacity: usize) -> Vec<u8> {
        self.taken.push(min_capacity);
        // What a pool gives may hold something.
        let mut buffer = Vec::with_capacity(min_capacity);
        buffer.extend_from_slice(b"old");
        buffer
    }

    fn give(&mut self, buffer: Vec<u8>) {
        assert!(buffer.capacity() > 0, "nothing was given back");
        self.given_count += 1;
    }

    fn try_take(&mut self, capacity: usize) -> Option<Vec<u8>> {
        if self.exhausted {
            return None;
        }
        self.taken.push(capacity);
        Some(Vec::with_capacity(capacity))
    }
}
