//! What has begun and not ended: the frame, and the message it belongs to.

use super::cut::{CutHeader, Frame};
use super::inflating::Inflating;
use crate::buffers::{self, Buffers, MIN_FRAGMENTED_LEN, give_back};
use crate::utf8::{Mask, TextBuffer, Utf8Validator, append_unmasked};
use crate::{Config, Error, FrameHeader, Limit, MessagePart, ReceivedMessage, mask};

/// A header, frame or message that has begun and not ended; both, if the header or frame is one of the message.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) header: CutHeader,
    pub(super) frame: Option<Frame>,
    pub(super) message: Option<Assembly>,
    /// What has arrived of the payload of `frame`, if that is a control frame.
    pub(super) control: Vec<u8>,
}

impl Progress {
    /// Whether nothing would be lost without it.
    pub(super) fn is_empty(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    pub(super) fn memory_len(&self) -> usize {
        let message = self.message.as_ref().map_or(0, Assembly::memory_len);
        size_of::<Self>() + self.control.capacity() + message
    }

    pub(super) fn give_back<B: Buffers>(self, buffers: &mut B) {
        if let Some(message) = self.message {
            message.give_back(buffers);
        }
    }
}

/// A message that has begun and not ended.
#[derive(Debug)]
pub(super) struct Assembly {
    store: Store,
    /// Bytes of all frames whose header has arrived.
    declared_len: u64,
    fragment_count: u32,
    empty_count: u16,
}

/// Where the bytes of a message go.
#[derive(Debug)]
enum Store {
    Text(TextBuffer),
    Binary(Vec<u8>),
    /// Through a decompressor.
    Compressed(Box<Inflating>),
    /// Nowhere: they are handed over as they arrive, or dropped.
    Passing {
        text: Option<Utf8Validator>,
        is_first: bool,
        dropped: bool,
    },
}

impl Assembly {
    /// A message to be handed over whole.
    pub(super) const fn whole(is_text: bool) -> Self {
        Self::new(if is_text { Store::Text(TextBuffer::new()) } else { Store::Binary(Vec::new()) })
    }

    /// A message to be handed over in parts, or to be checked and dropped.
    pub(super) fn passing(is_text: bool, dropped: bool) -> Self {
        let text = is_text.then(Utf8Validator::default);
        Self::new(Store::Passing { text, is_first: true, dropped })
    }

    /// A message that is compressed.
    pub(super) fn compressed(inflating: Inflating) -> Self {
        Self::new(Store::Compressed(Box::new(inflating)))
    }

    /// The state of its decompression, if it is compressed.
    pub(super) fn inflating(&mut self) -> Option<&mut Inflating> {
        match &mut self.store {
            Store::Compressed(inflating) => Some(inflating),
            Store::Text(_) | Store::Binary(_) | Store::Passing { .. } => None,
        }
    }

    pub(super) fn into_inflating(self) -> Option<Box<Inflating>> {
        match self.store {
            Store::Compressed(inflating) => Some(inflating),
            Store::Text(_) | Store::Binary(_) | Store::Passing { .. } => None,
        }
    }

    const fn new(store: Store) -> Self {
        Self { store, declared_len: 0, fragment_count: 0, empty_count: 0 }
    }

    /// From now on, the message is only checked.
    pub(super) fn drop_content<B: Buffers>(&mut self, buffers: &mut B) {
        let passing = |text| Store::Passing { text, is_first: false, dropped: true };
        let buffer = match &mut self.store {
            Store::Passing { dropped, .. } => {
                *dropped = true;
                return;
            }
            Store::Compressed(inflating) => {
                // Its text is not checked: only what is handed over is inflated.
                let inflating = std::mem::take(&mut **inflating);
                self.store = passing(None);
                inflating.give_back(buffers);
                return;
            }
            Store::Binary(bytes) => {
                let bytes = std::mem::take(bytes);
                self.store = passing(None);
                bytes
            }
            Store::Text(text) => {
                let text = std::mem::replace(text, TextBuffer::new());
                let (bytes, validator) = text.into_validator();
                self.store = passing(Some(validator));
                bytes
            }
        };
        give_back(buffer, buffers);
    }

    /// Counts a frame of the message against the limits, before any memory is taken for it.
    pub(super) fn charge(&mut self, header: &FrameHeader, config: &Config) -> Result<(), Error> {
        if self.fragment_count >= config.max_fragment_count {
            return Err(Error::LimitExceeded(Limit::FragmentCount));
        }
        let max_len = match self.store {
            Store::Passing { .. } => config.max_streamed_len,
            Store::Text(_) | Store::Binary(_) => config.max_message_len as u64,
            Store::Compressed(ref inflating) => inflating.max_compressed_len(config),
        };
        // Both are below 2^63, unless the limit is not: then the sum still fits 64 bits.
        let declared_len = self.declared_len.saturating_add(header.payload_len);
        if declared_len > max_len {
            return Err(Error::LimitExceeded(Limit::MessageLen));
        }
        self.declared_len = declared_len;
        self.fragment_count += 1;
        if header.payload_len == 0 && !header.fin {
            self.empty_count = self.empty_count.saturating_add(1);
        }
        Ok(())
    }

    pub(super) const fn empty_count(&self) -> u16 {
        self.empty_count
    }

    /// Takes the next bytes of `frame`; gives a part if they are to be handed over at once.
    pub(super) fn append<'b, B: Buffers>(
        &mut self,
        frame: &mut Frame,
        piece: &'b mut [u8],
        config: &Config,
        buffers: &mut B,
    ) -> Result<Option<MessagePart<'b>>, Error> {
        let masked = frame.advance(piece.len());
        match &mut self.store {
            Store::Text(text) => {
                let (len, capacity) = (text.len() + piece.len(), text.capacity());
                let room = Room { len, capacity, missing: frame.missing_len() };
                if let Some(capacity) = room.wanted(self.fragment_count == 1 && frame.fin, config) {
                    text.grow(buffers, capacity)?;
                }
                text.append(piece, masked)?;
                Ok(None)
            }
            Store::Binary(bytes) => {
                let (len, capacity) = (bytes.len() + piece.len(), bytes.capacity());
                let room = Room { len, capacity, missing: frame.missing_len() };
                if let Some(capacity) = room.wanted(self.fragment_count == 1 && frame.fin, config) {
                    buffers::grow(buffers, bytes, capacity)?;
                }
                append_unmasked(bytes, piece, masked);
                Ok(None)
            }
            // The connection inflates these itself.
            Store::Compressed(_) | Store::Passing { text: None, dropped: true, .. } => Ok(None),
            Store::Passing { text, is_first, dropped } => {
                if let Some(Mask { key, offset }) = masked {
                    mask::mask_from(piece, key, offset);
                }
                let is_last = frame.fin && frame.is_complete();
                if let Some(validator) = text {
                    validator.feed(piece)?;
                    if is_last && !validator.is_complete() {
                        return Err(Error::InvalidUtf8);
                    }
                }
                if *dropped || (piece.is_empty() && !is_last) {
                    return Ok(None);
                }
                let is_first = std::mem::replace(is_first, false);
                Ok(Some(MessagePart { bytes: piece, is_text: text.is_some(), is_first, is_last }))
            }
        }
    }

    /// The message, which has ended; `None` if it has gone where it should already.
    pub(super) fn finish<'b, B: Buffers>(
        self,
        buffers: &mut B,
    ) -> Result<Option<ReceivedMessage<'b>>, Error> {
        match self.store {
            Store::Text(text) => match text.into_text() {
                Ok(text) => Ok(Some(ReceivedMessage::assembled_text(text))),
                Err(buffer) => {
                    give_back(buffer, buffers);
                    Err(Error::InvalidUtf8)
                }
            },
            Store::Binary(bytes) => Ok(Some(ReceivedMessage::assembled_binary(bytes))),
            Store::Compressed(_) | Store::Passing { .. } => Ok(None),
        }
    }

    fn memory_len(&self) -> usize {
        match &self.store {
            Store::Text(text) => text.capacity(),
            Store::Binary(bytes) => bytes.capacity(),
            Store::Compressed(inflating) => inflating.memory_len(),
            Store::Passing { .. } => 0,
        }
    }

    fn give_back<B: Buffers>(self, buffers: &mut B) {
        match self.store {
            Store::Text(text) => give_back(text.into_validator().0, buffers),
            Store::Binary(bytes) => give_back(bytes, buffers),
            Store::Compressed(inflating) => inflating.give_back(buffers),
            Store::Passing { .. } => {}
        }
    }
}

/// What a buffer must hold once the bytes at hand are in it, and what it can.
struct Room {
    len: usize,
    capacity: usize,
    /// Bytes of the frame that have not arrived.
    missing: u64,
}

impl Room {
    /// The capacity to grow to, if the buffer must grow.
    ///
    /// A peer pays with [`BELIEVED_LEN`](buffers::BELIEVED_LEN) bytes before a length that it declares is believed.
    /// Then a message of one frame gets exactly its length. A fragmented one has no known length, so its buffer at
    /// least doubles.
    fn wanted(&self, is_only_frame: bool, config: &Config) -> Option<usize> {
        if self.len <= self.capacity {
            return None;
        }
        let missing = usize::try_from(self.missing).unwrap_or(usize::MAX);
        let declared = self.len.saturating_add(missing);
        let believed = declared.min(buffers::believed_len(self.len));
        if is_only_frame {
            return Some(believed);
        }
        let doubled = self.capacity.saturating_mul(2).max(MIN_FRAGMENTED_LEN);
        Some(believed.max(doubled.min(config.max_message_len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::BELIEVED_LEN;

    fn wanted(len: usize, capacity: usize, missing: u64, is_only_frame: bool) -> Option<usize> {
        let config = Config::default();
        Room { len, capacity, missing }.wanted(is_only_frame, &config)
    }

    #[test]
    fn one_frame_gets_its_length_once_it_is_believed() {
        assert_eq!(wanted(10, 0, 90, true), Some(100));
        assert_eq!(wanted(10, 0, 1 << 19, true), Some(BELIEVED_LEN));
        assert_eq!(wanted(BELIEVED_LEN, BELIEVED_LEN, 1 << 19, true), None);
        assert_eq!(
            wanted(BELIEVED_LEN + 1, BELIEVED_LEN, 999, true),
            Some(BELIEVED_LEN + 1000),
            "the first byte that does not fit"
        );
        assert_eq!(wanted(20_000, 0, 5_000, true), Some(25_000), "a long first read");
    }

    #[test]
    fn fragments_double_up_to_the_limit() {
        assert_eq!(wanted(1, 0, 0, false), Some(MIN_FRAGMENTED_LEN));
        assert_eq!(wanted(1025, 1024, 0, false), Some(2048));
        assert_eq!(wanted(32_769, 32_768, 100_000, false), Some(132_769));
        assert_eq!(wanted(600_001, 600_000, 0, false), Some(1 << 20));
    }
}
