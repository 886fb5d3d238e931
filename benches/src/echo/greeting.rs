//! What a connection says and hears between its upgrade and the load: a login, a subscription.

use ringwire_codec::FrameHeader;
use ringwire_codec::deflate::Agreement;

use super::control::Control;
use super::errors::Failure;
use super::upgrade::First;
use super::wire::CONTROL;

/// How far that is.
pub(super) struct Greeting {
    pub(super) deflate: Option<Agreement>,
    /// Frames that are still to be sent.
    pub(super) unsaid: Vec<u8>,
    /// What came with the upgrade.
    pub(super) early: Vec<u8>,
    /// The pong that is owed, if any.
    pub(super) control: Option<Box<Control>>,
    /// Messages that have to come.
    replies: u32,
    /// The begin of a header.
    partial: Vec<u8>,
    /// Bytes of a payload that are still to come, and whether a message ends with them.
    payload: Option<(u64, bool)>,
}

impl Greeting {
    pub(super) fn new(first: First, deflate: Option<Agreement>, early: &[u8]) -> Self {
        Self {
            deflate,
            unsaid: first.said,
            early: early.to_vec(),
            control: None,
            replies: first.replies,
            partial: Vec::new(),
            payload: None,
        }
    }

    /// Takes in what came. Once all replies are there, how much of it they were.
    ///
    /// # Errors
    /// When it is no frame, or the server closes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let mut left = bytes;
        loop {
            if let Some((len, is_end)) = self.payload {
                let skipped = usize::try_from(len).unwrap_or(usize::MAX).min(left.len());
                left = &left[skipped..];
                if skipped as u64 != len {
                    self.payload = Some((len - skipped as u64, is_end));
                    return Ok(None);
                }
                self.payload = None;
                self.replies -= u32::from(is_end);
            }
            // A frame that has begun is taken to its end.
            if self.replies == 0 && self.partial.is_empty() {
                return Ok(Some(bytes.len() - left.len()));
            }
            let Some(first) = left.first() else { return Ok(None) };
            let in_control = self.control.as_ref().is_some_and(|control| control.is_receiving());
            if in_control || (self.partial.is_empty() && CONTROL.contains(first)) {
                self.control.get_or_insert_default().receive(&mut left)?;
                continue;
            }
            self.partial.push(*first);
            left = &left[1..];
            match FrameHeader::parse(&self.partial) {
                Ok(None) => {}
                Ok(Some((header, _))) => {
                    self.partial.clear();
                    self.payload = Some((header.payload_len, header.fin));
                }
                Err(_) => return Err(Failure::ReplyMalformed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(replies: u32) -> Greeting {
        Greeting::new(First { said: Vec::new(), replies }, None, b"")
    }

    /// A message of two fragments with a ping between them, an empty one, and one of 300 bytes.
    fn replies() -> Vec<u8> {
        let mut bytes =
            vec![0x01, 2, b'a', b'b', 0x89, 1, b'p', 0x80, 1, b'c', 0x82, 0, 0x82, 126, 1, 44];
        bytes.extend([0x88; 300]);
        bytes
    }

    #[test]
    fn replies_in_any_cut_end_where_the_load_begins() {
        let mut bytes = replies();
        let end = bytes.len();
        bytes.extend_from_slice(&[0x81, 1, b'x']);
        for step in [1, 2, 3, 100, 1000] {
            let mut greeting = greeting(3);
            let mut seen = 0;
            for part in bytes.chunks(step) {
                if let Some(used) = greeting.take(part).unwrap() {
                    seen += used;
                    break;
                }
                seen += part.len();
            }
            assert_eq!(seen, end, "{step}");
            assert!(greeting.control.unwrap().has_pong());
        }
    }

    #[test]
    fn closes_and_noise_are_told() {
        assert_eq!(greeting(0).take(b"\x81").unwrap(), Some(0));
        let closed = greeting(1).take(&[0x88, 2, 0x0f, 0xa1]).unwrap_err();
        assert_eq!(closed, Failure::CloseFrame(4001));
        assert_eq!(greeting(1).take(b"HTTP/1.1 500").unwrap_err(), Failure::ReplyMalformed);
    }
}
