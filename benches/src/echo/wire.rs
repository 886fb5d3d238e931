//! The bytes of one message, both ways, prepared before the load starts.
//!
//! All messages of a load thread share one payload and one random masking key; only a slot of eight
//! bytes at the start of the payload differs, so that an echo proves whose it is and where it stands in
//! the order. A fresh key for each frame would cost the generator a pass over the payload, and is the
//! same work for the server. The request template holds many copies side by side: one send covers them.

use std::ops::Range;

use ringwire_codec::{FrameHeader, OpCode};
use ringwire_examples::CompressionFlag;

use super::payload::Payload;

/// Bytes of the payload that identify a message.
const SLOT_LEN: usize = 8;
/// The templates of one send take no more than this, so that they stay in the cache.
pub(crate) const TEMPLATE_LEN: usize = 256 << 10;
/// One message of this many is compared byte by byte; the others by header and slot.
const SAMPLE_INTERVAL: u32 = 64;

/// First bytes of close, ping and pong.
pub(crate) const CONTROL: std::ops::RangeInclusive<u8> = 0x88..=0x8a;

/// How a message looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Payload bytes.
    pub(crate) payload_len: usize,
    /// A text message (of ASCII), not a binary one.
    pub(crate) text: bool,
    pub(crate) payload: Payload,
    pub(crate) compression: CompressionFlag,
    /// The other side returns what it gets and knows no WebSocket. It gets the same bytes as a
    /// WebSocket server, mask included, so its reply is longer by the masking key's four bytes.
    pub(crate) raw: bool,
}

impl Shape {
    /// A binary WebSocket message of random bytes.
    pub(crate) fn of_noise(payload_len: usize) -> Self {
        let (payload, compression) = (Payload::Noise, CompressionFlag::Off);
        Self { payload_len, text: false, payload, compression, raw: false }
    }

    /// The payloads of so many messages.
    pub(crate) fn payloads(self, count: usize) -> Vec<Vec<u8>> {
        self.payload.make(self.payload_len, self.text, count)
    }
}

/// Where the replies of one connection stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Whole messages received, wrapping.
    pub(crate) messages: u32,
    /// Bytes of the next one that have arrived.
    pub(crate) offset: usize,
}

/// Why the bytes of a server are not the echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A control frame begins here, which is no error yet.
    Control,
    /// The frame's header is not that of the message sent.
    Header,
    /// The payload is not that of the message sent.
    Payload,
}

/// Prepared messages and the check of their echoes.
pub(crate) struct Wire {
    requests: Vec<u8>,
    request: Layout,
    reply: Vec<u8>,
    reply_layout: Layout,
    slot_len: usize,
    /// The reply's header in the low bytes of a word and the bits it takes; `None` where the header
    /// does not fit or the slot is cut, and all replies go the slow way.
    reply_header: Option<(u64, u64)>,
    key: [u8; 4],
    raw: bool,
}

/// Sizes within one frame.
#[derive(Clone, Copy)]
struct Layout {
    len: usize,
    payload_at: usize,
}

impl Wire {
    /// Prepares messages of `shape`, of which up to `in_flight` are sent at once.
    pub(crate) fn new(shape: Shape, in_flight: usize, key: [u8; 4]) -> Self {
        let payload = shape.payloads(1).pop().unwrap_or_default();
        let frame = masked_frame(shape, false, &payload, key);
        let request = Layout { payload_at: frame.len() - payload.len(), len: frame.len() };

        let mut reply = frame.clone();
        let mut reply_layout = request;
        if !shape.raw {
            reply = header(opcode(shape), payload.len());
            reply_layout.payload_at = reply.len();
            reply.extend_from_slice(&payload);
            reply_layout.len = reply.len();
        }
        // A file is sent as it is.
        let slot_len = if shape.payload.len().is_some() { 0 } else { payload.len().min(SLOT_LEN) };
        let reply_header = reply.first_chunk().filter(|_| slot_len == SLOT_LEN).and_then(|first| {
            let mut mask = [0; 8];
            mask.get_mut(..reply_layout.payload_at)?.fill(0xff);
            let mask = u64::from_le_bytes(mask);
            Some((u64::from_le_bytes(*first) & mask, mask))
        });
        let copies = (TEMPLATE_LEN / frame.len()).clamp(1, in_flight.max(1));
        Self {
            requests: frame.repeat(copies),
            request,
            reply,
            reply_layout,
            slot_len,
            reply_header,
            key,
            raw: shape.raw,
        }
    }

    /// Length of one message as it is sent.
    pub(crate) fn request_len(&self) -> usize {
        self.request.len
    }

    /// Up to `count` messages of a connection from number `first` on, side by side.
    pub(crate) fn requests(&mut self, connection: u32, first: u32, count: usize) -> &[u8] {
        let run = (count * self.request.len).min(self.requests.len());
        let key = if self.slot_len == SLOT_LEN { repeat_key(self.key) } else { 0 };
        let mut number = first;
        for frame in self.requests[..run].chunks_exact_mut(self.request.len) {
            let slot = (identity(connection, number) ^ key).to_le_bytes();
            let place = slot_range(self.request, self.slot_len);
            if place.len() == SLOT_LEN {
                frame[place].copy_from_slice(&slot);
            } else {
                for ((byte, slot), key) in
                    frame[place].iter_mut().zip(slot).zip(self.key.iter().cycle())
                {
                    *byte = slot ^ key;
                }
            }
            number = number.wrapping_add(1);
        }
        &self.requests[..run]
    }

    /// Checks that `bytes` continue the echo of what the connection sent, and takes off what it used.
    pub(crate) fn check(
        &mut self,
        connection: u32,
        cursor: &mut Cursor,
        bytes: &mut &[u8],
    ) -> Result<(), Fault> {
        while let Some(&first) = bytes.first() {
            if cursor.offset == 0 && self.is_echo(connection, cursor.messages, bytes) {
                cursor.messages = cursor.messages.wrapping_add(1);
                *bytes = &bytes[self.reply_layout.len..];
                continue;
            }
            if cursor.offset == 0 && !self.raw && CONTROL.contains(&first) {
                return Err(Fault::Control);
            }
            if cursor.offset < self.guarded() {
                self.expect(connection, cursor.messages);
            }
            let part = bytes.split_off(..bytes.len().min(self.reply_layout.len - cursor.offset));
            let part = part.unwrap_or_default();
            self.compare(*cursor, part)?;
            cursor.offset += part.len();
            if cursor.offset == self.reply_layout.len {
                *cursor = Cursor { messages: cursor.messages.wrapping_add(1), offset: 0 };
            }
        }
        Ok(())
    }

    /// Whether `bytes` begin with the whole echo of a message that is not sampled. Nothing is known
    /// where this is false.
    #[inline]
    fn is_echo(&self, connection: u32, number: u32, bytes: &[u8]) -> bool {
        let Some((header, mask)) = self.reply_header else { return false };
        let key = if self.raw { repeat_key(self.key) } else { 0 };
        let Layout { len, payload_at } = self.reply_layout;
        let (Some(first), Some(slot)) = (bytes.first_chunk(), bytes.get(payload_at..len)) else {
            return false;
        };
        let Some(slot) = slot.first_chunk() else { return false };
        !number.is_multiple_of(SAMPLE_INTERVAL)
            && u64::from_le_bytes(*first) & mask == header
            && u64::from_le_bytes(*slot) ^ key == identity(connection, number)
    }

    /// Writes the slot of the message that is expected next into the reply's template.
    fn expect(&mut self, connection: u32, number: u32) {
        let mut slot = identity(connection, number).to_le_bytes();
        if self.raw {
            for (byte, key) in slot.iter_mut().zip(self.key.iter().cycle()) {
                *byte ^= key;
            }
        }
        let place = slot_range(self.reply_layout, self.slot_len);
        self.reply[place].copy_from_slice(&slot[..self.slot_len]);
    }

    /// Bytes at the start of each reply that are always compared.
    fn guarded(&self) -> usize {
        self.reply_layout.payload_at + self.slot_len
    }

    fn compare(&self, at: Cursor, part: &[u8]) -> Result<(), Fault> {
        let sampled = at.messages.is_multiple_of(SAMPLE_INTERVAL);
        let end = if sampled { self.reply_layout.len } else { self.guarded() };
        let compared = part.len().min(end.saturating_sub(at.offset));
        let expected = &self.reply[at.offset..at.offset + compared];
        if &part[..compared] == expected {
            return Ok(());
        }
        let wrong = part.iter().zip(expected).take_while(|(got, want)| got == want).count();
        let in_header = at.offset + wrong < self.reply_layout.payload_at;
        Err(if in_header { Fault::Header } else { Fault::Payload })
    }
}

fn slot_range(layout: Layout, slot_len: usize) -> Range<usize> {
    layout.payload_at..layout.payload_at + slot_len
}

/// Eight bytes of ASCII that only this message of this connection has, for any 32 million messages.
fn identity(connection: u32, number: u32) -> u64 {
    let mixed =
        (u64::from(connection) << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29) & 0x7f7f_7f7f_7f7f_7f7f
}

fn repeat_key(key: [u8; 4]) -> u64 {
    u64::from(u32::from_le_bytes(key)) * 0x1_0000_0001
}

fn opcode(shape: Shape) -> OpCode {
    if shape.text { OpCode::Text } else { OpCode::Binary }
}

/// The frame of a message as a client sends it, compressed with `rsv1`.
pub(crate) fn masked_frame(shape: Shape, rsv1: bool, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader::new(opcode(shape), true, Some(key), payload.len() as u64);
    let mut frame = Vec::new();
    FrameHeader { rsv1, ..header }.encode(&mut frame);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The frame of a text message as a client sends it.
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    let shape = Shape { text: true, ..Shape::of_noise(text.len()) };
    // A key of zeros leaves the payload as it is.
    masked_frame(shape, false, text.as_bytes(), [0; 4])
}

/// The start of a frame that is not masked.
pub(crate) fn header(opcode: OpCode, payload_len: usize) -> Vec<u8> {
    let mut header = Vec::new();
    FrameHeader::new(opcode, true, None, payload_len as u64).encode(&mut header);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x11, 0x82, 0x33, 0xf4];
    const SIZES: [usize; 9] = [0, 1, 7, 8, 64, 125, 126, 65_535, 65_536];

    fn shapes() -> impl Iterator<Item = Shape> {
        SIZES.into_iter().flat_map(|payload_len| {
            [(false, false), (true, false), (false, true)].map(|(text, raw)| Shape {
                text,
                raw,
                ..Shape::of_noise(payload_len)
            })
        })
    }

    /// What a server returns for `request`, computed independently of the templates.
    fn echo(request: &[u8], raw: bool) -> Vec<u8> {
        if raw {
            return request.to_vec();
        }
        let mut reply = vec![request[0], request[1] & 0x7f];
        let length_at = 2;
        let key_at = match reply[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        reply.extend_from_slice(&request[length_at..key_at]);
        let (key, payload) = request[key_at..].split_at(4);
        reply.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
        reply
    }

    #[test]
    fn echo_is_accepted_whole_and_in_any_cut() {
        for shape in shapes() {
            let mut wire = Wire::new(shape, 1, KEY);
            let mut replies = Vec::new();
            for number in 60..70 {
                replies.extend(echo(wire.requests(5, number, 1), shape.raw));
            }
            for step in [1, 2, 3, 7, 13, 1000, replies.len()] {
                let mut cursor = Cursor { messages: 60, offset: 0 };
                for mut part in replies.chunks(step) {
                    assert_eq!(wire.check(5, &mut cursor, &mut part), Ok(()), "{shape:?} {step}");
                    assert!(part.is_empty());
                }
                assert_eq!(cursor, Cursor { messages: 70, offset: 0 }, "{shape:?} {step}");
            }
        }
    }

    #[test]
    fn several_requests_side_by_side_are_those_sent_one_by_one() {
        for shape in shapes() {
            let mut one = Wire::new(shape, 1, KEY);
            let mut many = Wire::new(shape, 5, KEY);
            let run = many.requests(9, 3, 5).to_vec();
            assert_eq!(run.len() % many.request_len(), 0);
            for (number, frame) in (3..).zip(run.chunks(many.request_len())) {
                assert_eq!(one.requests(9, number, 1), frame, "{shape:?} {number}");
            }
        }
    }

    #[test]
    fn text_is_text() {
        let shape = Shape { text: true, ..Shape::of_noise(200) };
        let reply = echo(Wire::new(shape, 1, KEY).requests(77, 123_456, 1), false);
        assert!(reply[4..].is_ascii());
        assert_eq!(reply[0], 0x81);
    }

    #[test]
    fn wrong_echo_is_found() {
        let shape = Shape::of_noise(300);
        let mut wire = Wire::new(shape, 1, KEY);
        let reply = echo(wire.requests(1, 64, 1), false);
        let check = |wire: &mut Wire, connection, number, reply: &[u8]| {
            let mut cursor = Cursor { messages: number, offset: 0 };
            wire.check(connection, &mut cursor, &mut &*reply)
        };
        assert_eq!(check(&mut wire, 1, 64, &reply), Ok(()));
        assert_eq!(check(&mut wire, 1, 65, &reply), Err(Fault::Payload));
        assert_eq!(check(&mut wire, 2, 64, &reply), Err(Fault::Payload));
        for at in 0..reply.len() {
            let mut wrong = reply.clone();
            wrong[at] ^= 0x20;
            let expected = if at < 4 { Fault::Header } else { Fault::Payload };
            assert_eq!(check(&mut wire, 1, 64, &wrong), Err(expected), "{at}");
        }
        // A message that is not sampled has its header and its slot checked.
        let reply = echo(wire.requests(1, 65, 1), false);
        for at in 0..reply.len() {
            let mut wrong = reply.clone();
            wrong[at] ^= 0x20;
            let expected = match at {
                0..4 => Err(Fault::Header),
                4..12 => Err(Fault::Payload),
                _ => Ok(()),
            };
            assert_eq!(check(&mut wire, 1, 65, &wrong), expected, "{at}");
        }
        let mut close = reply;
        close.splice(..0, [0x88, 0x00]);
        assert_eq!(check(&mut wire, 1, 64, &close), Err(Fault::Control));
    }

    #[test]
    fn identities_differ() {
        let mut seen = std::collections::HashSet::new();
        for connection in 0..100 {
            for number in 0..1000 {
                assert!(seen.insert(identity(connection, number)));
            }
        }
    }
}
