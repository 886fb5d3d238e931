//! What came from a server, as far as it tells what the server did.

use ringwire_codec::{FrameHeader, OpCode};

/// Kept of what is not in frames: more than a status line.
const HEAD_LEN: usize = 64;
/// The longest header, and the longest payload of a control frame (RFC 6455 §5.2, §5.5).
const CONTROL_LEN: usize = 14 + 125;

/// What came so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Whether it is in frames.
    is_upgraded: bool,
    /// Bytes of it, without the head of an upgrade.
    pub(super) len: u64,
    /// Frames of messages; each of a fragmented one counts.
    pub(super) messages: u64,
    pub(super) pongs: u64,
    pub(super) close: Option<Close>,
    /// The payload of the newest ping.
    pub(super) ping: Option<Vec<u8>>,
    /// Something came that is no frame.
    pub(super) is_malformed: bool,
    /// The begin of what is not in frames; else that of a header or of a control frame.
    partial: Vec<u8>,
    /// Bytes of a payload that are still to come.
    skip: u64,
}

/// A close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: Option<u16>,
    pub(super) reason: String,
}

impl Heard {
    /// From now on what comes is in frames.
    pub(super) fn upgrade(&mut self) {
        self.is_upgraded = true;
    }

    /// Takes in what came next.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.is_upgraded {
            self.take_frames(bytes);
        } else {
            let room = HEAD_LEN.saturating_sub(self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..room]);
        }
    }

    /// The HTTP status, where what came is an answer of HTTP.
    pub(super) fn status(&self) -> Option<u16> {
        if self.is_upgraded {
            return None;
        }
        let line = self.partial.strip_prefix(b"HTTP/1.")?;
        let digits = line.get(2..5)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn take_frames(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.close.is_none() && !self.is_malformed {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            if skipped > 0 {
                self.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            let before = self.partial.len();
            let taken = (CONTROL_LEN - before).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            let used = match FrameHeader::parse(&self.partial) {
                Ok(Some((header, at))) => self.take_frame(&header, at),
                Ok(None) => None,
                Err(_) => {
                    self.is_malformed = true;
                    None
                }
            };
            bytes = match used {
                Some(used) => &bytes[used - before..],
                None => &bytes[taken..],
            };
            if used.is_some() {
                self.partial.clear();
            }
        }
    }

    /// Takes in a frame whose header ends at `at`; how many bytes of `partial` that takes, or `None` for more.
    fn take_frame(&mut self, header: &FrameHeader, at: usize) -> Option<usize> {
        if !header.opcode.is_control() {
            self.messages += 1;
            self.skip = header.payload_len;
            return Some(at);
        }
        let end = at + usize::try_from(header.payload_len).ok()?;
        let payload = self.partial.get(at..end)?;
        match header.opcode {
            OpCode::Close => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                self.close = Some(Close { code, reason: reason.into_owned() });
            }
            OpCode::Ping => self.ping = Some(payload.to_vec()),
            _ => self.pongs += 1,
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_any_cut_are_counted() {
        let mut bytes = vec![0x81, 3, b'a', b'b', b'c', 0x8a, 0, 0x89, 2, 7, 8, 0x82, 126, 1, 0];
        bytes.extend([0x88; 256]);
        bytes.extend([0x88, 5, 0x03, 0xf1, b'n', b'o', b'!']);
        for step in [1, 2, 3, 140, 1000] {
            let mut heard = Heard::default();
            heard.upgrade();
            bytes.chunks(step).for_each(|part| heard.take(part));
            assert_eq!((heard.messages, heard.pongs, heard.len), (2, 1, bytes.len() as u64));
            assert_eq!(heard.ping.as_deref(), Some(&[7, 8][..]));
            let close = Close { code: Some(1009), reason: "no!".to_owned() };
            assert_eq!(heard.close, Some(close), "{step}");
            assert_eq!(heard.status(), None);
        }
    }

    #[test]
    fn close_without_a_code_and_no_frame_at_all() {
        let mut heard = Heard::default();
        heard.upgrade();
        heard.take(&[0x88, 0]);
        assert_eq!(heard.close, Some(Close { code: None, reason: String::new() }));
        let mut heard = Heard::default();
        heard.upgrade();
        heard.take(b"HTTP/1.1 400 Bad Request\r\n");
        assert!(heard.is_malformed);
    }

    #[test]
    fn status_of_an_answer() {
        let mut heard = Heard::default();
        heard.take(b"HTTP/1");
        assert_eq!(heard.status(), None);
        heard.take(b".1 431 Request Header Fields Too Large\r\n\r\n");
        assert_eq!(heard.status(), Some(431));
        let mut other = Heard::default();
        other.take(b"220 mail.example ESMTP");
        assert_eq!(other.status(), None);
    }
}
