//! What was read and not used yet.

use bytes::Bytes;

use crate::buffers;

/// Bytes that were read and not used yet. Holds no memory when it is empty.
#[derive(Debug, Default)]
pub(crate) struct Held {
    buffer: Vec<u8>,
    /// Invariant: `begin <= end <= buffer.len()`.
    begin: usize,
    end: usize,
}

impl Held {
    /// The first `len` bytes of a buffer.
    pub(crate) fn new(buffer: Vec<u8>, len: usize) -> Self {
        let end = len.min(buffer.len());
        Self { buffer, begin: 0, end }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    pub(crate) fn unused(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.begin..self.end).unwrap_or_default()
    }

    /// All but the last `len` bytes are used.
    pub(crate) fn keep(&mut self, len: usize) {
        self.begin = self.end - len.min(self.end - self.begin);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Gives the last `len` bytes away with the buffer, which comes back to a thread when they are dropped.
    pub(crate) fn lend(&mut self, len: usize) -> Bytes {
        let Self { buffer, begin, end } = std::mem::take(self);
        Bytes::from_owner(Lent(buffer)).slice(end - len.min(end - begin)..end)
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    pub(crate) fn clear(&mut self) {
        buffers::give_read_buffer(std::mem::take(self).buffer);
    }
}

/// A read buffer with a message in it.
struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        buffers::give_read_buffer(std::mem::take(&mut self.0));
    }
}
