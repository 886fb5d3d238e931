//! Where a head ends, found while its bytes trickle in.

use super::HandshakeError;

/// The most headers that a head may have, whatever [`HeadLimits`] says.
pub const MAX_HEADER_COUNT: usize = 128;

/// What a head may be. The default is fit for the open internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeadLimits {
    /// The longest head in bytes, with the blank line that ends it. Default: 16 KiB, what browsers
    /// with many cookies stay below. Worst case in memory: this much for each handshake under way.
    pub max_head_len: usize,
    /// The longest line in bytes, without its CRLF. Default: 8 KiB, as in other servers (RFC 9112
    /// §3 asks for 8000). Costs no memory beyond the head's.
    pub max_line_len: usize,
    /// The most headers. Default: 100, at most [`MAX_HEADER_COUNT`]. Costs no memory beyond the head's.
    pub max_header_count: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HeadLimits {
    /// The default, for where a constant is needed.
    pub const DEFAULT: Self =
        Self { max_head_len: 16 << 10, max_line_len: 8 << 10, max_header_count: 100 };

    /// Sets [`max_head_len`](Self::max_head_len).
    #[must_use]
    pub const fn with_max_head_len(mut self, len: usize) -> Self {
        self.max_head_len = len;
        self
    }

    /// Sets [`max_line_len`](Self::max_line_len).
    #[must_use]
    pub const fn with_max_line_len(mut self, len: usize) -> Self {
        self.max_line_len = len;
        self
    }

    /// Sets [`max_header_count`](Self::max_header_count).
    #[must_use]
    pub const fn with_max_header_count(mut self, count: usize) -> Self {
        self.max_header_count = count;
        self
    }
}

/// Finds the end of a head as its bytes arrive, and looks at each byte once.
///
/// Empty lines before the first line count for the head's length and for nothing else (RFC 9112 §2.2); a
/// [`client::Response`](crate::handshake::client::Response) takes none. An error is found at the byte that causes it,
/// so it makes no difference how the bytes are cut.
#[derive(Debug, Clone, Default)]
pub struct HeadScanner {
    /// The bytes before this position have been looked at.
    scanned: u32,
    /// Where the current line begins. Invariant: `line_start <= scanned`.
    line_start: u32,
    /// Lines that ended, the first line included.
    line_count: u16,
    /// The last byte looked at was a CR.
    after_cr: bool,
}

const _: () = assert!(size_of::<HeadScanner>() <= 16);

impl HeadScanner {
    /// Looks at what is new in `bytes_so_far`, all the bytes since the head began.
    ///
    /// Gives the length of the head, its blank line included, once it is whole; what is behind that is
    /// not looked at. A scanner that gave a length or an error is used up.
    ///
    /// # Errors
    /// [`LineEnding`](HandshakeError::LineEnding), [`NulByte`](HandshakeError::NulByte);
    /// [`LineTooLong`](HandshakeError::LineTooLong), [`HeadTooLong`](HandshakeError::HeadTooLong) and
    /// [`TooManyHeaders`](HandshakeError::TooManyHeaders) at the first byte beyond the limit.
    pub fn scan(
        &mut self,
        bytes_so_far: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, HandshakeError> {
        // One byte beyond the limit is enough to know that it is exceeded.
        let max_head_len = limits.max_head_len.min(MAX_POSITION);
        let bytes = bytes_so_far.get(..=max_head_len).unwrap_or(bytes_so_far);
        while let Some(rest) = bytes.get(to_index(self.scanned)..)
            && let Some(&first) = rest.first()
        {
            if self.after_cr {
                if self.finish_line(first, max_head_len, limits)? {
                    return Ok(Some(to_index(self.scanned)));
                }
            } else {
                self.scan_line(rest, max_head_len, limits)?;
            }
        }
        Ok(None)
    }

    /// Looks at the bytes of a line up to its CR, or to the end of `rest`.
    fn scan_line(
        &mut self,
        rest: &[u8],
        max_head_len: usize,
        limits: &HeadLimits,
    ) -> Result<(), HandshakeError> {
        let line_end = to_index(self.line_start).saturating_add(limits.max_line_len);
        let found = memchr::memchr3(b'\r', b'\n', 0, rest);
        let stop = to_index(self.scanned) + found.unwrap_or(rest.len());
        if stop > line_end.min(max_head_len) {
            return Err(if line_end <= max_head_len {
                HandshakeError::LineTooLong
            } else {
                HandshakeError::HeadTooLong
            });
        }
        self.scanned = to_position(stop);
        let Some(&byte) = found.and_then(|at| rest.get(at)) else { return Ok(()) };
        if stop >= max_head_len {
            return Err(HandshakeError::HeadTooLong);
        }
        if byte == b'\r' {
            self.scanned += 1;
            self.after_cr = true;
            return Ok(());
        }
        Err(if stop >= line_end {
            HandshakeError::LineTooLong
        } else if byte == b'\n' {
            HandshakeError::LineEnding
        } else {
            HandshakeError::NulByte
        })
    }

    /// Looks at the byte behind a CR. Gives whether the line was the blank one.
    fn finish_line(
        &mut self,
        byte: u8,
        max_head_len: usize,
        limits: &HeadLimits,
    ) -> Result<bool, HandshakeError> {
        if to_index(self.scanned) >= max_head_len {
            return Err(HandshakeError::HeadTooLong);
        }
        if byte != b'\n' {
            return Err(HandshakeError::LineEnding);
        }
        self.scanned += 1;
        self.after_cr = false;
        let blank = self.scanned - self.line_start == 2;
        self.line_start = self.scanned;
        if blank {
            return Ok(self.line_count > 0);
        }
        let header_count = usize::from(self.line_count);
        self.line_count = self.line_count.saturating_add(1);
        if header_count > limits.max_header_count.min(MAX_HEADER_COUNT) {
            return Err(HandshakeError::TooManyHeaders);
        }
        Ok(false)
    }
}

/// No position is beyond this, so that they fit 32 bits.
const MAX_POSITION: usize = (u32::MAX >> 1) as usize;

fn to_index(position: u32) -> usize {
    position as usize
}

fn to_position(index: usize) -> u32 {
    debug_assert!(index <= MAX_POSITION + 1, "scan cuts its input at the longest head");
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HandshakeError> {
        HeadScanner::default().scan(bytes, limits)
    }

    #[test]
    fn end_of_head() {
        let limits = HeadLimits::default();
        assert_eq!(scan(b"", &limits), Ok(None));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: b\r\n\r", &limits), Ok(None));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: b\r\n\r\n", &limits), Ok(Some(24)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\n\r\n\0\n\0", &limits), Ok(Some(18)));
    }

    #[test]
    fn malformed_lines() {
        let limits = HeadLimits::default();
        for (head, error) in [
            (&b"\n"[..], HandshakeError::LineEnding),
            (b"\r\n\n", HandshakeError::LineEnding),
            (b"\r\r\n", HandshakeError::LineEnding),
            (b"\r\n\0", HandshakeError::NulByte),
            (b"a\n", HandshakeError::LineEnding),
            (b"a\r\nb\n", HandshakeError::LineEnding),
            (b"a\rb", HandshakeError::LineEnding),
            (b"a\r\r\n", HandshakeError::LineEnding),
            (b"a\r\nb: \0", HandshakeError::NulByte),
            (b"a\r\0", HandshakeError::LineEnding),
        ] {
            assert_eq!(scan(head, &limits), Err(error), "{head:?}");
        }
    }

    /// RFC 9112 §2.2: a server ignores at least one empty line before a request line.
    #[test]
    fn empty_lines_before_the_first_line_are_part_of_the_head() {
        let limits = HeadLimits::default();
        assert_eq!(scan(b"\r\n", &limits), Ok(None));
        assert_eq!(scan(b"\r\n\r\n", &limits), Ok(None));
        assert_eq!(scan(b"\r\nGET / HTTP/1.1\r\n\r\n", &limits), Ok(Some(20)));
        assert_eq!(scan(b"\r\n\r\nGET / HTTP/1.1\r\n\r\nmore", &limits), Ok(Some(22)));
        let limits = limits.with_max_head_len(8).with_max_header_count(0);
        assert_eq!(scan(b"\r\na\r\n\r\n", &limits), Ok(Some(7)));
        assert_eq!(scan(b"\r\n\r\n\r\n\r\n\r\n", &limits), Err(HandshakeError::HeadTooLong));
    }

    #[test]
    fn limits_are_exact() {
        let limits = HeadLimits::default().with_max_line_len(10);
        assert_eq!(scan(b"0123456789\r\n\r\n", &limits), Ok(Some(14)));
        assert_eq!(scan(b"0123456789\r", &limits), Ok(None));
        assert_eq!(scan(b"0123456789a", &limits), Err(HandshakeError::LineTooLong));
        assert_eq!(scan(b"a\r\n0123456789a", &limits), Err(HandshakeError::LineTooLong));
        assert_eq!(scan(b"0123456789\n", &limits), Err(HandshakeError::LineTooLong));

        let limits = HeadLimits::default().with_max_head_len(8);
        assert_eq!(scan(b"abcd\r\n\r\n", &limits), Ok(Some(8)));
        assert_eq!(scan(b"abcd\r\n\r\nmore", &limits), Ok(Some(8)));
        assert_eq!(scan(b"abcdefgh", &limits), Ok(None));
        assert_eq!(scan(b"abcdefghi", &limits), Err(HandshakeError::HeadTooLong));
        assert_eq!(scan(b"abcde\r\n\r\n", &limits), Err(HandshakeError::HeadTooLong));
        assert_eq!(scan(b"a\r\nbcdef\r", &limits), Err(HandshakeError::HeadTooLong));

        let limits = HeadLimits::default().with_max_header_count(2);
        assert_eq!(scan(b"a\r\nb\r\nc\r\n\r\n", &limits), Ok(Some(11)));
        assert_eq!(scan(b"a\r\nb\r\nc\r\nd\r\n", &limits), Err(HandshakeError::TooManyHeaders));
        let limits = limits.with_max_header_count(usize::MAX).with_max_head_len(usize::MAX);
        assert_eq!(scan(&b"a\r\n".repeat(129), &limits), Ok(None));
        assert_eq!(scan(&b"a\r\n".repeat(130), &limits), Err(HandshakeError::TooManyHeaders));
    }
}
