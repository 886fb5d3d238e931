//! Publications that an application tells in words of its own: a message of the user's, with its number.

use anyhow::bail;
use memchr::memmem;
use ringwire_codec::FrameHeader;

use crate::echo::{Failure, Shape, masked_frame};
use crate::scenario::{NUMBER_LEN, Template};

/// A text message, unmasked and whole (RFC 6455 §5.2).
const TEXT: u8 = 0x81;

/// A message whose deliveries are all texts that have its words in them: those between the quotation marks around
/// `{number}`. Other texts are none, and are what the application tells its users beside.
#[derive(Debug)]
pub(crate) struct Told {
    template: Template,
    before: Vec<u8>,
    after: Vec<u8>,
    key: [u8; 4],
}

impl Told {
    /// # Errors
    /// When a delivery would not be known by such words.
    pub(crate) fn new(text: &str, key: [u8; 4]) -> anyhow::Result<Self> {
        let words = text.split('"').find_map(|words| words.split_once("{number}"));
        let Some((before @ [_, ..], after)) =
            words.map(|(before, after)| (before.as_bytes(), after.as_bytes()))
        else {
            bail!(
                "the payload has no {{number}} with a word of its own in front of it, by which deliveries are known: \
                 write {{\"content\": \"tick {{number}}\"}}, say"
            );
        };
        let (before, after) = (before.to_vec(), after.to_vec());
        Ok(Self { template: Template::of(text.as_bytes()), before, after, key })
    }

    /// Appends a message to `out`, as a client sends it.
    pub(crate) fn publish(&self, number: u64, out: &mut Vec<u8>) {
        let mut buffer = Vec::new();
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let message = self.template.write(0, number, &mut buffer);
        let payload = message.as_bytes();
        let shape = Shape { text: true, ..Shape::of_noise(payload.len()) };
        out.extend(masked_frame(shape, false, payload, self.key));
    }

    /// The length of the frame that begins so, once that is there.
    pub(crate) fn frame_len(bytes: &[u8]) -> Option<usize> {
        let (header, len) = FrameHeader::parse(bytes).ok()??;
        Some(usize::try_from(header.payload_len).unwrap_or(usize::MAX).saturating_add(len))
    }

    /// Whether `bytes` may be the start of a delivery.
    pub(crate) fn begins(bytes: &[u8]) -> bool {
        // Without a mask, whose bit is the highest of the second byte.
        FrameHeader::parse(bytes).is_ok()
            && bytes.first().is_none_or(|first| *first == TEXT)
            && bytes.get(1).is_none_or(u8::is_ascii)
    }

    /// The number of the message whose delivery `frame` is. `None`: it is none.
    ///
    /// # Errors
    /// It has the words with another end, or is no text.
    pub(crate) fn check(&self, frame: &[u8]) -> Result<Option<u64>, Failure> {
        if !Self::begins(frame) {
            return Err(Failure::HeaderMismatch);
        }
        let Some(at) = memmem::find(frame, &self.before) else { return Ok(None) };
        let rest = frame.get(at + self.before.len()..).unwrap_or_default();
        let digits = rest.split_at_checked(NUMBER_LEN).filter(|(_, rest)| {
            rest.starts_with(&self.after) && rest.get(self.after.len()) == Some(&b'"')
        });
        let number = digits
            .and_then(|(digits, _)| u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        number.map(|number| Some(number.into())).ok_or(Failure::PayloadMismatch)
    }
}

#[cfg(test)]
mod tests {
    use ringwire_codec::OpCode;

    use super::*;
    use crate::echo::header;

    const KEY: [u8; 4] = [1, 2, 3, 4];

    fn frame(text: &str) -> Vec<u8> {
        [&header(OpCode::Text, text.len()), text.as_bytes()].concat()
    }

    #[test]
    fn deliveries_have_the_words_and_the_number() {
        let told = Told::new(r#"{"id":"{number}","text":"tick {number}, you"}"#, KEY);
        assert!(told.is_err(), "nothing is in front of the first number");
        let told = Told::new(r#"{"type":"text","text":"tick {number}, you"}"#, KEY).unwrap();
        for (text, number) in [
            (r#"{"text":"tick 0000002a, you"}"#, Ok(Some(42))),
            (r#"{"more":["tick 0000002a, you"],"at":1}"#, Ok(Some(42))),
            (r#"{"text":"tack 0000002a, you"}"#, Ok(None)),
            (r#"{"text":"tick 0000002a, yo"}"#, Err(Failure::PayloadMismatch)),
            (r#"{"text":"tick 0000002a, you too"}"#, Err(Failure::PayloadMismatch)),
            (r#"{"text":"tick 2a, you"}"#, Err(Failure::PayloadMismatch)),
            ("", Ok(None)),
        ] {
            assert_eq!(told.check(&frame(text)), number, "{text}");
        }
        let mut binary = frame("x");
        binary[0] = 0x82;
        assert_eq!(told.check(&binary), Err(Failure::HeaderMismatch));
    }

    #[test]
    fn a_frame_is_as_long_as_its_header_says() {
        for len in [0, 1, 125, 126, 65535, 65536] {
            let frame = frame(&"x".repeat(len));
            let known = if len < 126 { 2 } else { frame.len() - len };
            for cut in 0..known {
                assert_eq!(Told::frame_len(&frame[..cut]), None, "{len}");
            }
            assert_eq!(Told::frame_len(&frame[..known]), Some(frame.len()));
        }
    }
}
