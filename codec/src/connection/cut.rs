//! A header or frame that the end of a read has cut.

use crate::frame::MAX_HEADER_LEN;
use crate::utf8::Mask;
use crate::{Error, FrameHeader, Input, OpCode};

/// The beginning of a header that the end of a read has cut.
#[derive(Debug, Default)]
pub(super) struct CutHeader {
    bytes: [u8; MAX_HEADER_LEN],
    len: u8,
}

impl CutHeader {
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes what is missing, and gives the header once it is whole.
    pub(super) fn complete(&mut self, input: &mut Input<'_>) -> Result<Option<FrameHeader>, Error> {
        // A byte at a time, so that none is taken that belongs to the payload.
        while let Some(slot) = self.bytes.get_mut(usize::from(self.len)) {
            let [byte] = *input.take(1) else { return Ok(None) };
            *slot = byte;
            self.len += 1;
            let begun = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
            if let Some((header, _)) = FrameHeader::parse(begun)? {
                self.len = 0;
                return Ok(Some(header));
            }
        }
        // No header is longer.
        Ok(None)
    }
}

/// A frame whose header has arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) opcode: OpCode,
    pub(super) fin: bool,
    key: Option<[u8; 4]>,
    payload_len: u64,
    received_len: u64,
}

impl Frame {
    pub(super) const fn new(header: &FrameHeader) -> Self {
        Self {
            opcode: header.opcode,
            fin: header.fin,
            key: header.masking_key,
            payload_len: header.payload_len,
            received_len: 0,
        }
    }

    pub(super) const fn missing_len(&self) -> u64 {
        self.payload_len - self.received_len
    }

    /// How much of an input of `len` bytes belongs to this frame.
    pub(super) fn share_of(&self, len: usize) -> usize {
        usize::try_from(self.missing_len()).map_or(len, |missing| missing.min(len))
    }

    /// The mask of the next bytes.
    pub(super) fn mask(&self) -> Option<Mask> {
        // Only the offset's last two bits matter.
        let offset = usize::from(self.received_len.to_le_bytes()[0]);
        self.key.map(|key| Mask { key, offset })
    }

    /// The mask of the next `len` bytes, which it counts as received.
    pub(super) fn advance(&mut self, len: usize) -> Option<Mask> {
        let masked = self.mask();
        self.received_len += len as u64;
        debug_assert!(self.received_len <= self.payload_len);
        masked
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.received_len == self.payload_len
    }
}
