//! Compressed payloads in, payloads out (RFC 7692 §7.2.2).

use std::fmt;

use zlib_rs::{InflateFlush, Status};

use super::{TAIL, raw};
use crate::{Error, Limit};

/// The window of every decompressor, in bits: it takes the streams of any smaller one.
const WINDOW_BITS: u8 = 15;

/// Decompresses messages, one after the other.
///
/// Without [`reset`](Self::reset) between them, a message may refer to those before it (context
/// takeover). It takes the messages of any window size that may be agreed on, at the same cost of
/// memory: zlib-rs always has a window of 32 KiB.
pub struct Decompressor {
    stream: zlib_rs::Inflate,
    /// The stream has ended with a final block, and nothing has come after it.
    ended: bool,
    /// Whether nothing has come yet.
    fresh: bool,
    totals: Totals,
}

/// What a [`Decompressor`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Messages that came to their end.
    pub message_count: u64,
    /// Bytes that were inflated.
    pub compressed_len: u64,
    /// What came out of them, in bytes.
    pub inflated_len: u64,
}

impl Decompressor {
    /// A decompressor that has seen no message. Allocates all the memory it will ever need.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    #[must_use]
    pub fn new() -> Self {
        let stream = zlib_rs::Inflate::new(false, WINDOW_BITS);
        Self { stream, ended: false, fresh: true, totals: Totals::default() }
    }

    /// The bytes of memory that each of them holds: 48 KiB.
    pub const MEMORY_LEN: usize = 48 << 10;

    /// The bytes of memory that it holds: [`MEMORY_LEN`](Self::MEMORY_LEN).
    #[must_use]
    pub fn memory_len(&self) -> usize {
        Self::MEMORY_LEN
    }

    /// What it has done since it was last asked; a reset does not matter. A shared one counts for the
    /// decompressors that take its place in long messages.
    pub fn take_totals(&mut self) -> Totals {
        std::mem::take(&mut self.totals)
    }

    pub(crate) const fn add_totals(&mut self, more: Totals) {
        self.totals.message_count += more.message_count;
        self.totals.compressed_len += more.compressed_len;
        self.totals.inflated_len += more.inflated_len;
    }

    /// Forgets the messages so far; takes no memory.
    pub fn reset(&mut self) {
        if !self.fresh {
            self.stream.reset(false);
            self.ended = false;
            self.fresh = true;
        }
    }

    /// Appends the message whose compressed form is `payload` to `out`. It may have `max_len` bytes;
    /// at most one more is ever inflated.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] with [`Limit::MessageLen`], and [`Error::InvalidDeflate`]. `out` may
    /// have got something then, and the decompressor needs a [`reset`](Self::reset).
    pub fn decompress(
        &mut self,
        mut payload: &[u8],
        max_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if payload.is_empty() {
            return Ok(());
        }
        let mut len = 0;
        loop {
            let room = (payload.len() * 4).max(256).min((max_len - len).saturating_add(1));
            out.reserve(room);
            let inflated = self.inflate(payload, room, out);
            len += inflated.produced;
            if len > max_len {
                return Err(Error::LimitExceeded(Limit::MessageLen));
            }
            inflated.check()?;
            payload = payload.get(inflated.used..).unwrap_or_default();
            if inflated.produced < room {
                return self.end_message();
            }
        }
    }

    /// Inflates into at most `room` bytes that `out` has spare, one at least. If less came out, all of
    /// `input` is used; else some output may still be to come, also without more input.
    ///
    /// What came out before something wrong counts as well, so that it is judged first however the
    /// input was cut.
    pub(crate) fn inflate(&mut self, mut input: &[u8], room: usize, out: &mut Vec<u8>) -> Inflated {
        debug_assert!(room > 0 && room <= out.capacity() - out.len());
        let mut sum = Inflated { used: 0, produced: 0, is_valid: true };
        loop {
            if self.ended && !input.is_empty() {
                // RFC 7692 §7.2.3.4: more blocks may follow a final one; a new stream, from the next
                // byte on, that cannot refer to the one before (RFC 1951 §2).
                self.reset();
            }
            if self.ended {
                return sum;
            }
            self.fresh = false;
            let room = room - sum.produced;
            let step = raw::inflate(&mut self.stream, input, InflateFlush::NoFlush, room, out);
            sum.used += step.used;
            sum.produced += step.produced;
            self.totals.compressed_len += step.used as u64;
            self.totals.inflated_len += step.produced as u64;
            input = input.get(step.used..).unwrap_or_default();
            match step.status {
                None => {
                    sum.is_valid = false;
                    return sum;
                }
                Some(Status::StreamEnd) => self.ended = true,
                Some(Status::Ok | Status::BufError) => {}
            }
            let stuck = step.used == 0 && step.produced == 0 && !self.ended;
            if step.produced == room || input.is_empty() || stuck {
                debug_assert!(input.is_empty() || step.produced == room);
                return sum;
            }
        }
    }

    /// Ends a message all of whose output has been taken.
    ///
    /// RFC 7692 §7.2.2 appends the four bytes that the sender has removed. They complete an empty
    /// block exactly if the message was not cut short, so it is refused if they do anything else.
    pub(crate) fn end_message(&mut self) -> Result<(), Error> {
        if self.ended {
            // A final block is an end as well, though it should be followed by an empty one.
            self.totals.message_count += 1;
            return Ok(());
        }
        let [a, b, c, d] = TAIL;
        // The fifth byte is there to be left over: inflate is told to stop behind a block.
        let tail = [a, b, c, d, 0];
        let (used, produced) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(&tail, &mut [0], InflateFlush::Block);
        let used = self.stream.total_in() - used;
        if status == Ok(Status::Ok)
            && used == TAIL.len() as u64
            && self.stream.total_out() == produced
        {
            self.totals.message_count += 1;
            Ok(())
        } else {
            Err(Error::InvalidDeflate)
        }
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// What was used and what came out of it, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inflated {
    pub(crate) used: usize,
    pub(crate) produced: usize,
    /// The input went wrong behind that.
    is_valid: bool,
}

impl Inflated {
    pub(crate) const fn check(self) -> Result<(), Error> {
        if self.is_valid { Ok(()) } else { Err(Error::InvalidDeflate) }
    }
}

/// The decompressor that [`receive_with`](crate::Connection::receive_with) is to use for compressed
/// messages. A connection is given the same kind as long as it lives.
#[derive(Debug)]
pub enum Inflate<'a> {
    /// None: compression was not agreed on.
    Off,
    /// One for any number of connections, for messages without context takeover. It is reset before
    /// each message, so no connection reads what another one has sent.
    ///
    /// A message that arrives whole is inflated there and then. Of one that does not, the compressed
    /// form is kept, up to 64 KiB. A peer that has paid that much gets a decompressor for
    /// the message, and the rest is inflated as it arrives.
    Shared(&'a mut Decompressor),
    /// One for this connection, made when its first compressed message is inflated, which is when with the shared
    /// one.
    Dedicated(&'a mut Option<Box<Decompressor>>),
}
