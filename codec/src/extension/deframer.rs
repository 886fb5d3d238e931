//! Whole frames out of bytes that come in pieces.

use crate::FrameHeader;

/// Memory that is kept between frames, in bytes.
const KEPT_LEN: usize = 4 << 10;

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    /// The beginning of a frame, as far as it has come.
    held: Vec<u8>,
    /// What comes is no frame. The codec will say what it is.
    broken: bool,
}

/// What a stream consists of.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A data frame: its header and its payload, masked as it came.
    Data(FrameHeader, &'a [u8]),
    /// What is not for extensions: a control frame, or what is no frame.
    Other(&'a [u8]),
}

/// A data frame is longer than it may be.
#[derive(Debug)]
pub(super) struct TooLong;

/// What is known of a frame from its first bytes.
enum Beginning {
    /// There have to be so many bytes before more is known.
    Incomplete(usize),
    /// Its header, the length of that, and the length of the whole.
    Known(FrameHeader, usize, usize),
    Broken,
}

impl Deframer {
    /// Takes the next piece out of `bytes`, or holds what there is of it. A data frame has at most `max_len` bytes of
    /// payload.
    ///
    /// # Errors
    /// One declares more.
    pub(super) fn next<'p, 'b: 'p>(
        &'p mut self,
        bytes: &mut &'b [u8],
        max_len: usize,
    ) -> Result<Option<Piece<'p>>, TooLong> {
        if self.broken {
            return Ok(rest(bytes));
        }
        if self.held.is_empty() {
            return match Beginning::of(bytes, max_len)? {
                Beginning::Known(header, header_len, len) if len <= bytes.len() => {
                    Ok(Some(Piece::of(header, header_len, take(bytes, len))))
                }
                Beginning::Broken => {
                    self.broken = true;
                    Ok(rest(bytes))
                }
                Beginning::Known(..) | Beginning::Incomplete(_) => {
                    self.held.extend_from_slice(take(bytes, bytes.len()));
                    Ok(None)
                }
            };
        }
        loop {
            let (len, known) = match Beginning::of(&self.held, max_len)? {
                Beginning::Incomplete(len) => (len, None),
                Beginning::Known(header, header_len, len) => (len, Some((header, header_len))),
                Beginning::Broken => {
                    self.broken = true;
                    return Ok(Some(Piece::Other(&self.held)));
                }
            };
            let missing = len.saturating_sub(self.held.len());
            self.held.extend_from_slice(take(bytes, missing.min(bytes.len())));
            match known {
                Some((header, header_len)) if self.held.len() == len => {
                    return Ok(Some(Piece::of(header, header_len, &self.held)));
                }
                _ if bytes.is_empty() && self.held.len() < len => return Ok(None),
                _ => {}
            }
        }
    }

    /// Forgets the piece that was held, if one is whole. To be called after each that was taken.
    pub(super) fn advance(&mut self) {
        if self.held.capacity() > KEPT_LEN {
            self.held = Vec::new();
        }
        self.held.clear();
    }

    /// Memory that it holds, in bytes.
    pub(super) fn memory_len(&self) -> usize {
        self.held.capacity()
    }
}

impl Beginning {
    fn of(bytes: &[u8], max_len: usize) -> Result<Self, TooLong> {
        match FrameHeader::parse(bytes) {
            Err(_) => Ok(Self::Broken),
            Ok(None) => Ok(Self::Incomplete(bytes.len() + 1)),
            Ok(Some((header, header_len))) => match usize::try_from(header.payload_len) {
                Ok(len) if len <= max_len || header.opcode.is_control() => {
                    Ok(Self::Known(header, header_len, header_len.saturating_add(len)))
                }
                _ => Err(TooLong),
            },
        }
    }
}

impl<'a> Piece<'a> {
    fn of(header: FrameHeader, header_len: usize, whole: &'a [u8]) -> Self {
        match whole.get(header_len..) {
            Some(payload) if !header.opcode.is_control() => Self::Data(header, payload),
            _ => Self::Other(whole),
        }
    }
}

/// The first `len` bytes, which are there.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    bytes.split_off(..len).unwrap_or_default()
}

fn rest<'a>(bytes: &mut &'a [u8]) -> Option<Piece<'a>> {
    let rest = std::mem::take(bytes);
    if rest.is_empty() { None } else { Some(Piece::Other(rest)) }
}
