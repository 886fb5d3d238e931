//! Frame headers (RFC 6455 §5.2).

use crate::{Error, Violation};

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub(crate) const MAX_CONTROL_LEN: usize = 125;

/// The longest header, in bytes: 2, a length of 8, a masking key of 4.
pub(crate) const MAX_HEADER_LEN: usize = 14;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const MASKED: u8 = 0x80;
const LEN_16: u8 = 126;
const LEN_64: u8 = 127;

/// What a frame carries (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpCode {
    /// More of the message that is under way.
    Continuation = 0x0,
    /// The beginning of a text message.
    Text = 0x1,
    /// The beginning of a binary message.
    Binary = 0x2,
    /// The beginning or the answer of the close handshake.
    Close = 0x8,
    /// To be answered with a pong.
    Ping = 0x9,
    /// The answer to a ping, or unasked for.
    Pong = 0xA,
}

impl OpCode {
    /// The opcode in the lower four bits of a frame's first byte; `None` if it is a reserved one.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits & 0x0f {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is close, ping or pong (RFC 6455 §5.5).
    #[inline]
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a frame.
///
/// ```
/// use ringwire_codec::{FrameHeader, OpCode};
///
/// let header = FrameHeader::new(OpCode::Text, true, None, 5);
/// let mut wire = Vec::new();
/// header.encode(&mut wire);
/// assert_eq!(wire, [0x81, 0x05]);
/// assert_eq!(FrameHeader::parse(&wire), Ok(Some((header, 2))));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameHeader {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// The first reserved bit.
    pub rsv1: bool,
    /// The second reserved bit.
    pub rsv2: bool,
    /// The third reserved bit.
    pub rsv3: bool,
    /// What the frame carries.
    pub opcode: OpCode,
    /// What the payload is masked with, if it is: what clients send (RFC 6455 §5.3).
    pub masking_key: Option<[u8; 4]>,
    /// The number of bytes that follow the header, below 2^63.
    pub payload_len: u64,
}

impl FrameHeader {
    /// A header without reserved bits.
    #[inline]
    #[must_use]
    pub const fn new(
        opcode: OpCode,
        fin: bool,
        masking_key: Option<[u8; 4]>,
        payload_len: u64,
    ) -> Self {
        Self { fin, rsv1: false, rsv2: false, rsv3: false, opcode, masking_key, payload_len }
    }

    /// Whether one of the reserved bits is set.
    #[inline]
    #[must_use]
    pub const fn has_reserved_bits(&self) -> bool {
        self.rsv1 | self.rsv2 | self.rsv3
    }

    /// Parses the header that `bytes` begins with, and says how long it is. `None` as long as it is
    /// not all there: a header is judged when it is complete.
    ///
    /// # Errors
    ///
    /// What is wrong with a header whoever sends it and whatever was agreed: a reserved opcode, a
    /// control frame that is fragmented or too long, a length that is not in its shortest form or
    /// has its most significant bit set. Reserved bits are for the caller to judge, and so is
    /// whether there should be a mask.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let (payload_len, rest) = match second & !MASKED {
            LEN_16 => {
                let Some((&len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(len)), rest)
            }
            LEN_64 => {
                let Some((&len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(len), rest)
            }
            len => (u64::from(len), rest),
        };
        let (masking_key, rest) = if second & MASKED == 0 {
            (None, rest)
        } else {
            let Some((&key, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (Some(key), rest)
        };

        let opcode =
            OpCode::from_bits(first).ok_or(Error::PeerMisbehaved(Violation::ReservedOpCode))?;
        let header = Self {
            fin: first & FIN != 0,
            rsv1: first & RSV1 != 0,
            rsv2: first & RSV2 != 0,
            rsv3: first & RSV3 != 0,
            opcode,
            masking_key,
            payload_len,
        };
        header.check(second & !MASKED).map_err(Error::PeerMisbehaved)?;
        Ok(Some((header, bytes.len() - rest.len())))
    }

    /// `short_len` is the 7-bit length, which says in which form the length stood.
    const fn check(&self, short_len: u8) -> Result<(), Violation> {
        if self.opcode.is_control() {
            if !self.fin {
                return Err(Violation::FragmentedControl);
            }
            if short_len as usize > MAX_CONTROL_LEN {
                return Err(Violation::ControlTooLong);
            }
        }
        // RFC 6455 §5.2: "the minimal number of bytes MUST be used to encode the length".
        let shortest = match short_len {
            LEN_16 => self.payload_len >= LEN_16 as u64,
            LEN_64 => self.payload_len > u16::MAX as u64,
            _ => true,
        };
        if !shortest {
            return Err(Violation::LengthNotMinimal);
        }
        if self.payload_len > i64::MAX as u64 {
            return Err(Violation::LengthTooLarge);
        }
        Ok(())
    }

    /// The length of the header itself, in bytes: 2 to 14.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        let key_len = if self.masking_key.is_some() { 4 } else { 0 };
        let extended_len = match self.payload_len {
            0..=125 => 0,
            126..=0xffff => 2,
            0x1_0000.. => 8,
        };
        2 + extended_len + key_len
    }

    /// Appends the header to `out`, its length in the shortest form.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let first = (u8::from(self.fin) * FIN)
            | (u8::from(self.rsv1) * RSV1)
            | (u8::from(self.rsv2) * RSV2)
            | (u8::from(self.rsv3) * RSV3)
            | self.opcode as u8;
        let masked = u8::from(self.masking_key.is_some()) * MASKED;
        // Arrays of a fixed length, so that each form is one store.
        match (u8::try_from(self.payload_len), u16::try_from(self.payload_len)) {
            (Ok(len), _) if len < LEN_16 => out.extend_from_slice(&[first, masked | len]),
            (_, Ok(len)) => {
                let [high, low] = len.to_be_bytes();
                out.extend_from_slice(&[first, masked | LEN_16, high, low]);
            }
            (_, Err(_)) => {
                let [a, b, c, d, e, f, g, h] = self.payload_len.to_be_bytes();
                out.extend_from_slice(&[first, masked | LEN_64, a, b, c, d, e, f, g, h]);
            }
        }
        if let Some(key) = self.masking_key {
            out.extend_from_slice(&key);
        }
    }
}
