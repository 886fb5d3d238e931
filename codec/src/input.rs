//! The bytes that arrived.

/// Bytes that arrived and that [`receive`](crate::Connection::receive) has not used yet.
///
/// Payloads are unmasked where they lie, and events borrow them for `'b`: the whole life of the
/// buffer, so that an event does not hold on to the `Input`.
#[derive(Debug)]
pub struct Input<'b> {
    bytes: &'b mut [u8],
}

impl<'b> Input<'b> {
    /// The bytes of one read.
    #[inline]
    #[must_use]
    pub const fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes }
    }

    /// Whether all bytes have been used.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The number of bytes not used yet.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes not used yet.
    #[inline]
    #[must_use]
    pub const fn remaining(&self) -> &[u8] {
        self.bytes
    }

    /// The bytes not used yet, for as long as the buffer lives.
    #[inline]
    #[must_use]
    pub const fn into_remaining(self) -> &'b mut [u8] {
        self.bytes
    }

    /// Takes the next `len` bytes, or all if there are fewer.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> &'b mut [u8] {
        let bytes = std::mem::take(&mut self.bytes);
        let len = len.min(bytes.len());
        let (taken, rest) = bytes.split_at_mut(len);
        self.bytes = rest;
        taken
    }

    /// The next `len` bytes, or all if there are fewer, which stay in the input.
    pub(crate) fn peek_mut(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.bytes.len());
        self.bytes.split_at_mut(len).0
    }

    /// Takes all that is left.
    pub(crate) fn take_all(&mut self) -> &'b mut [u8] {
        std::mem::take(&mut self.bytes)
    }
}

impl<'b> From<&'b mut [u8]> for Input<'b> {
    fn from(bytes: &'b mut [u8]) -> Self {
        Self::new(bytes)
    }
}
