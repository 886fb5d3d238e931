//! The message that a generator sends, and whether a message that comes is its reply.

use ringwire::Message;

use crate::echo::{Payload, Shape};

/// Bytes of a message that are its number, in hexadecimal digits, where it has one.
pub(crate) const NUMBER_LEN: usize = 8;

/// A message, which all connections send.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    text: bool,
}

impl Template {
    /// Of so many bytes, random ones, or random small letters as text.
    pub(crate) fn new(len: usize, text: bool) -> Self {
        let shape = Shape {
            payload_len: len,
            text,
            payload: Payload::Noise,
            compression: ringwire_examples::CompressionFlag::Off,
            raw: false,
        };
        let bytes = shape.payloads(1).pop().unwrap_or_default();
        Self { bytes, text }
    }

    /// The message.
    pub(crate) fn message(&self) -> Message<'_> {
        as_message(&self.bytes, self.text)
    }

    /// Writes the message with a number into `buffer`, in place of what was in it.
    pub(crate) fn numbered<'b>(&self, number: u32, buffer: &'b mut Vec<u8>) -> Message<'b> {
        buffer.clear();
        buffer.extend_from_slice(&self.bytes);
        let mut rest = number;
        for byte in buffer.iter_mut().take(NUMBER_LEN).rev() {
            let [digit, ..] = (rest & 15).to_le_bytes();
            *byte = if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
            rest >>= 4;
        }
        as_message(buffer, self.text)
    }

    /// Whether `reply` is the message.
    pub(crate) fn is_echo(&self, reply: Message<'_>) -> bool {
        reply.is_text() == self.text && reply.as_bytes() == self.bytes
    }

    /// The number of a message of which `reply` is the echo.
    pub(crate) fn number(&self, reply: Message<'_>) -> Option<u32> {
        let (digits, rest) = reply.as_bytes().split_at_checked(NUMBER_LEN)?;
        let is_echo = reply.is_text() == self.text && self.bytes.get(NUMBER_LEN..) == Some(rest);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_echo)?;
        u32::from_str_radix(digits, 16).ok()
    }
}

fn as_message(bytes: &[u8], text: bool) -> Message<'_> {
    match std::str::from_utf8(bytes) {
        Ok(letters) if text => Message::Text(letters),
        _ => Message::Binary(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for text in [false, true] {
            let template = Template::new(20, text);
            let mut buffer = Vec::new();
            for number in [0, 9, 10, 0xdead_beef, u32::MAX] {
                let message = template.numbered(number, &mut buffer);
                assert_eq!(message.is_text(), text);
                assert_eq!(template.number(message), Some(number));
            }
            let mut bytes = buffer.clone();
            bytes[19] ^= 1;
            assert_eq!(template.number(as_message(&bytes, text)), None);
            assert_eq!(template.number(as_message(&buffer[..19], text)), None);
            assert_eq!(template.number(Message::Binary(&buffer)).is_none(), text);
            assert!(template.is_echo(template.message()));
            assert!(!template.is_echo(as_message(&buffer, text)));
        }
    }
}
