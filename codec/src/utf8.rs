//! Text that arrives in pieces (RFC 6455 §8.1): wrong at the first wrong byte, and never looked at
//! twice.

#![expect(unsafe_code, reason = "text was validated as it arrived; a second pass over it is waste")]

use simdutf8::{basic, compat};

use crate::buffers::{self, Buffers};
use crate::deflate::{Decompressor, Inflated};
use crate::{Error, mask};

/// How a payload is masked, and where in the key its next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mask {
    pub(crate) key: [u8; 4],
    pub(crate) offset: usize,
}

/// Appends `src` to `out`, unmasked on the way.
pub(crate) fn append_unmasked(out: &mut Vec<u8>, src: &[u8], masked: Option<Mask>) {
    match masked {
        Some(Mask { key, offset }) => mask::mask_extend(out, src, key, offset),
        None => buffers::append(out, src),
    }
}

/// Below this many bytes, `simdutf8` has nothing to add to the standard library.
const SHORT_LEN: usize = 64;

/// The text that `bytes` are, if they are.
#[inline]
pub(crate) fn from_utf8(bytes: &[u8]) -> Result<&str, Error> {
    if bytes.len() < SHORT_LEN && bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    basic::from_utf8(bytes).map_err(|_| Error::InvalidUtf8)
}

/// A text message that is being assembled.
#[derive(Debug)]
pub(crate) struct TextBuffer {
    bytes: Vec<u8>,
    /// Invariant: `bytes[..valid_len]` is UTF-8. At most 3 bytes follow, which may yet become a
    /// character.
    valid_len: usize,
}

impl TextBuffer {
    pub(crate) const fn new() -> Self {
        Self { bytes: Vec::new(), valid_len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// See [`buffers::grow`].
    pub(crate) fn grow<B: Buffers>(&mut self, pool: &mut B, capacity: usize) -> Result<(), Error> {
        buffers::grow(pool, &mut self.bytes, capacity)
    }

    /// Appends a piece of text.
    pub(crate) fn append(&mut self, src: &[u8], masked: Option<Mask>) -> Result<(), Error> {
        append_unmasked(&mut self.bytes, src, masked);
        self.validate()
    }

    /// Appends what [`Decompressor::inflate`] makes of a piece of text.
    pub(crate) fn inflate(
        &mut self,
        decompressor: &mut Decompressor,
        src: &[u8],
        room: usize,
    ) -> Result<Inflated, Error> {
        let inflated = decompressor.inflate(src, room, &mut self.bytes);
        self.validate()?;
        Ok(inflated)
    }

    fn validate(&mut self) -> Result<(), Error> {
        let unchecked = self.bytes.get(self.valid_len..).unwrap_or_default();
        match compat::from_utf8(unchecked) {
            Ok(text) => self.valid_len += text.len(),
            Err(error) if error.error_len().is_none() => self.valid_len += error.valid_up_to(),
            Err(_) => return Err(Error::InvalidUtf8),
        }
        Ok(())
    }

    /// The text, if it does not end inside a character; else its buffer.
    pub(crate) fn into_text(self) -> Result<String, Vec<u8>> {
        if self.valid_len != self.bytes.len() {
            return Err(self.bytes);
        }
        // SAFETY: by the invariant, the first `valid_len` bytes are UTF-8, and these are all. The
        // fields are private to this module, where only `append`, `inflate` and `grow` change
        // them: the first two add at the end (a decompressor only ever appends) and move `valid_len`
        // over what the validator accepted, beginning at a character boundary; `grow` keeps the
        // content.
        Ok(unsafe { String::from_utf8_unchecked(self.bytes) })
    }

    /// The buffer, and a validator that goes on where this text ends.
    pub(crate) fn into_validator(self) -> (Vec<u8>, Utf8Validator) {
        let mut validator = Utf8Validator::default();
        let tail = self.bytes.get(self.valid_len..).unwrap_or_default();
        validator.keep(tail);
        (self.bytes, validator)
    }
}

/// Validates text that is not kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Utf8Validator {
    /// The first bytes of a character whose end has not arrived.
    begun: [u8; 4],
    begun_len: usize,
}

impl Utf8Validator {
    /// Whether all bytes so far can begin a text.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while self.begun_len > 0 {
            let Some((&next, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            if let Some(slot) = self.begun.get_mut(self.begun_len) {
                *slot = next;
            }
            self.begun_len += 1;
            match std::str::from_utf8(self.begun.get(..self.begun_len).unwrap_or_default()) {
                Ok(_) => self.begun_len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Error::InvalidUtf8),
            }
        }
        match compat::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                self.keep(bytes.get(error.valid_up_to()..).unwrap_or_default());
                Ok(())
            }
            Err(_) => Err(Error::InvalidUtf8),
        }
    }

    /// Whether the text does not end inside a character.
    pub(crate) const fn is_complete(&self) -> bool {
        self.begun_len == 0
    }

    fn keep(&mut self, tail: &[u8]) {
        for (slot, &byte) in self.begun.iter_mut().zip(tail) {
            *slot = byte;
        }
        self.begun_len = tail.len().min(self.begun.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Heap;

    /// Sequences whose last byte is the first wrong one (RFC 3629 §4).
    const WRONG_AT_END: &[&[u8]] = &[
        b"\x80",
        b"\xc0",
        b"\xc1",
        b"\xc2\x41",
        b"\xe0\x9f",
        b"\xe1\x80\x41",
        b"\xed\xa0",
        b"\xf0\x8f",
        b"\xf1\x80\x80\x41",
        b"\xf4\x90",
        b"\xf5",
        b"\xff",
        b"abc\xfe",
    ];

    #[test]
    fn fails_at_the_first_wrong_byte_however_the_text_is_cut() {
        for &sequence in WRONG_AT_END {
            let (&last, good) = sequence.split_last().unwrap();
            for cut in 0..=good.len() {
                let (left, right) = good.split_at(cut);
                let mut text = TextBuffer::new();
                let mut validator = Utf8Validator::default();
                for piece in [left, right] {
                    assert_eq!(text.append(piece, None), Ok(()), "{sequence:x?}");
                    assert_eq!(validator.feed(piece), Ok(()), "{sequence:x?}");
                }
                assert_eq!(text.append(&[last], None), Err(Error::InvalidUtf8), "{sequence:x?}");
                assert_eq!(validator.feed(&[last]), Err(Error::InvalidUtf8), "{sequence:x?}");
            }
        }
    }

    #[test]
    fn takes_text_byte_by_byte() {
        let whole = "aä€😀\u{10ffff}\u{d7ff}\u{e000}";
        let mut text = TextBuffer::new();
        let mut validator = Utf8Validator::default();
        for byte in whole.bytes() {
            text.grow(&mut Heap, text.len() + 1).unwrap();
            text.append(&[byte], None).unwrap();
            validator.feed(&[byte]).unwrap();
        }
        assert!(validator.is_complete());
        assert_eq!(text.into_text().as_deref(), Ok(whole));
    }

    #[test]
    fn a_validator_goes_on_where_the_buffer_ended() {
        let mut text = TextBuffer::new();
        text.append(b"ab\xf0\x9f", None).unwrap();
        let (bytes, mut validator) = text.into_validator();
        assert_eq!(bytes, b"ab\xf0\x9f");
        assert!(!validator.is_complete());
        validator.feed(b"\x98\x80c").unwrap();
        assert!(validator.is_complete());
    }

    #[test]
    fn half_a_character_is_no_text() {
        let mut text = TextBuffer::new();
        text.append(b"a\xe2\x82", None).unwrap();
        assert_eq!(text.into_text(), Err(b"a\xe2\x82".to_vec()));
    }
}
