//! Control frames of a server: rare, so a connection has room for them only once it gets one.

use std::io::{self, ErrorKind, Write};

use super::errors::Failure;

const CLOSE: u8 = 0x88;
/// The first byte of a ping.
pub(crate) const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;
const NO_CODE: u16 = 1005;

/// A control frame on its way in, and a pong on its way out.
#[derive(Default)]
pub(crate) struct Control {
    incoming: Vec<u8>,
    pong: Vec<u8>,
    pong_sent: usize,
}

impl Control {
    /// Whether a frame has begun and is not complete.
    pub(crate) fn is_receiving(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Whether a pong is owed.
    pub(crate) fn has_pong(&self) -> bool {
        self.pong_sent < self.pong.len()
    }

    /// Takes the bytes of one control frame off `bytes`, as far as they have arrived.
    ///
    /// # Errors
    /// When the frame is malformed, or closes the connection.
    pub(crate) fn receive(&mut self, bytes: &mut &[u8]) -> Result<(), Failure> {
        while let Some(&byte) = bytes.split_off_first() {
            self.incoming.push(byte);
            let [op, len, payload @ ..] = self.incoming.as_slice() else { continue };
            if *len > 125 {
                return Err(Failure::HeaderMismatch);
            }
            if payload.len() == usize::from(*len) {
                match *op {
                    CLOSE => return Err(Failure::CloseFrame(close_code(payload))),
                    // A pong that is partly sent is followed by another; else the newest ping counts.
                    PING if self.pong_sent > 0 => self.pong.extend(pong(*len, payload)),
                    PING => self.pong = pong(*len, payload),
                    _ => {}
                }
                self.incoming.clear();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends what is owed. Whether all of it went out.
    pub(crate) fn send(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        while self.has_pong() {
            match stream.write(&self.pong[self.pong_sent..]) {
                Ok(sent) => self.pong_sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.pong.clear();
        self.pong_sent = 0;
        Ok(true)
    }
}

fn pong(len: u8, payload: &[u8]) -> Vec<u8> {
    // A key of zeros leaves the payload as it is.
    let mut frame = vec![PONG, MASKED | len, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(NO_CODE, |code| u16::from_be_bytes(*code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_in_any_cut_is_answered() {
        let input = [PING, 3, b'a', b'b', b'c', PONG, 0, 0x82];
        for step in 1..=input.len() {
            let mut control = Control::default();
            let mut left = 0;
            for mut part in input[..7].chunks(step) {
                while !part.is_empty() {
                    control.receive(&mut part).unwrap();
                }
                left += part.len();
            }
            assert_eq!(left, 0);
            assert!(!control.is_receiving() && control.has_pong());
            let mut sent = Vec::new();
            assert!(control.send(&mut sent).unwrap());
            assert_eq!(sent, [PONG, 0x83, 0, 0, 0, 0, b'a', b'b', b'c']);
            assert!(!control.has_pong());
        }
        let mut control = Control::default();
        let mut rest = &input[5..];
        control.receive(&mut rest).unwrap();
        assert_eq!(rest, [0x82]);
    }

    #[test]
    fn close_and_nonsense_end_the_connection() {
        let failure = |mut bytes: &[u8]| Control::default().receive(&mut bytes).unwrap_err();
        assert_eq!(failure(&[CLOSE, 2, 3, 0xf0]), Failure::CloseFrame(1008));
        assert_eq!(failure(&[CLOSE, 0]), Failure::CloseFrame(NO_CODE));
        assert_eq!(failure(&[PING, 126, 0, 200]), Failure::HeaderMismatch);
        assert_eq!(failure(&[PING, 0x85]), Failure::HeaderMismatch);
    }
}
