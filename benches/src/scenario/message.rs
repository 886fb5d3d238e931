//! The message that a generator sends, and whether a message that comes is its reply.

use memchr::memmem;
use ringwire::Message;

use crate::echo::{Payload, Shape};

/// Bytes of a message that are its number, in hexadecimal digits, where it has one.
pub(crate) const NUMBER_LEN: usize = 8;
/// Where the number stands in a message of the user's: as long as the number.
const NUMBER: &[u8; NUMBER_LEN] = b"{number}";

/// A message, which all connections send.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    text: bool,
    /// Where the number begins, if there is a place for it.
    number_at: Option<usize>,
}

impl Template {
    /// Of so many bytes, random ones, or random small letters as text, with the number at the begin.
    pub(crate) fn noise(len: usize, text: bool) -> Self {
        let shape = Shape {
            payload_len: len,
            text,
            payload: Payload::Noise,
            compression: ringwire_examples::CompressionFlag::Off,
            raw: false,
        };
        let bytes = shape.payloads(1).pop().unwrap_or_default();
        let mut template = Self { number_at: (len >= NUMBER_LEN).then_some(0), bytes, text };
        template.set_number(0);
        template
    }

    /// The user's: text if it is UTF-8, with the number where `{number}` stands.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        let (text, number_at) = (std::str::from_utf8(&bytes).is_ok(), memmem::find(&bytes, NUMBER));
        let mut template = Self { bytes, text, number_at };
        template.set_number(0);
        template
    }

    /// The message.
    pub(crate) fn message(&self) -> Message<'_> {
        as_message(&self.bytes, self.text)
    }

    /// Writes the message with a number into `buffer`, in place of what was in it.
    pub(crate) fn numbered<'b>(&self, number: u32, buffer: &'b mut Vec<u8>) -> Message<'b> {
        buffer.clear();
        buffer.extend_from_slice(&self.bytes);
        if let Some(at) = self.number_at {
            write_number(&mut buffer[at..at + NUMBER_LEN], number);
        }
        as_message(buffer, self.text)
    }

    /// Whether `reply` is the message.
    pub(crate) fn is_echo(&self, reply: Message<'_>) -> bool {
        reply.is_text() == self.text && reply.as_bytes() == self.bytes
    }

    /// The number of a message of which `reply` is the echo; one without has the number that is expected.
    pub(crate) fn number(&self, reply: Message<'_>, expected: u32) -> Option<u32> {
        let Some(at) = self.number_at else { return self.is_echo(reply).then_some(expected) };
        let (before, rest) = reply.as_bytes().split_at_checked(at)?;
        let (digits, after) = rest.split_at_checked(NUMBER_LEN)?;
        let is_echo = reply.is_text() == self.text
            && self.bytes.get(..at) == Some(before)
            && self.bytes.get(at + NUMBER_LEN..) == Some(after);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_echo)?;
        u32::from_str_radix(digits, 16).ok()
    }

    /// Has the message carry a number, where it has a place for one.
    pub(crate) fn set_number(&mut self, number: u32) {
        if let Some(at) = self.number_at {
            write_number(&mut self.bytes[at..at + NUMBER_LEN], number);
        }
    }
}

fn write_number(place: &mut [u8], number: u32) {
    let mut rest = number;
    for byte in place.iter_mut().rev() {
        let [digit, ..] = (rest & 15).to_le_bytes();
        *byte = if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
        rest >>= 4;
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
            let template = Template::noise(20, text);
            let mut buffer = Vec::new();
            for number in [0, 9, 10, 0xdead_beef, u32::MAX] {
                let message = template.numbered(number, &mut buffer);
                assert_eq!(message.is_text(), text);
                assert_eq!(template.number(message, 3), Some(number));
            }
            let mut bytes = buffer.clone();
            bytes[19] ^= 1;
            assert_eq!(template.number(as_message(&bytes, text), 0), None);
            assert_eq!(template.number(as_message(&buffer[..19], text), 0), None);
            assert_eq!(template.number(Message::Binary(&buffer), 0).is_none(), text);
            assert!(template.is_echo(template.message()));
            assert!(!template.is_echo(as_message(&buffer, text)));
        }
    }

    #[test]
    fn messages_of_users_have_numbers_where_they_say() {
        let template = Template::of(br#"{"id":"{number}","n":1}"#.to_vec());
        let mut buffer = Vec::new();
        let message = template.numbered(0xab, &mut buffer);
        assert_eq!(message, Message::Text(r#"{"id":"000000ab","n":1}"#));
        assert_eq!(template.number(message, 0), Some(0xab));
        assert_eq!(template.message(), Message::Text(r#"{"id":"00000000","n":1}"#));
        assert_eq!(template.number(Message::Text(r#"{"id":"000000ab","n":2}"#), 0), None);
        // Without a place there is an order at least.
        let plain = Template::of(b"hello".to_vec());
        assert_eq!(plain.numbered(7, &mut buffer), Message::Text("hello"));
        assert_eq!(plain.number(Message::Text("hello"), 4), Some(4));
        assert_eq!(plain.number(Message::Text("hullo"), 4), None);
        assert!(!Template::of(vec![0xff, 0xfe]).message().is_text());
    }
}
