//! A publication between nodes, as bytes. Numbers are big-endian:
//!
//! | bytes | |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | bits: 0 a text; 1 a key follows; 2 and 3 compressed by length (0), always (1) or never (2); 4 a name follows |
//! | 2..10 | the node that published it |
//! | 10..18 | the epoch of its topic there |
//! | 18..26 | its number in this epoch, from 1 |
//! | 8 more | the key, if there is one |
//! | 1 more | the length of the name, if there is one |
//! | as many | the name: connections that have it do not get the message |
//! | the rest | the message |

use ringwire_codec::Message;

use super::NodeId;
use crate::conn::options::Compress;

const VERSION: u8 = 1;
const TEXT: u8 = 1;
const KEY: u8 = 1 << 1;
const COMPRESS_SHIFT: u8 = 2;
const NAME: u8 = 1 << 4;

/// What stands around a message, but for a name.
const MAX_HEADER_LEN: usize = 35;

/// Which publication it is of which node's topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) origin: NodeId,
    /// Of epochs of one topic of a node the later is the higher.
    pub(super) epoch: u64,
    /// In the epoch, from 1 on without gaps.
    pub(super) number: u64,
}

/// See the [module's documentation](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Envelope<'a> {
    pub(super) stamp: Stamp,
    pub(super) key: Option<u64>,
    /// At most 255 bytes.
    pub(super) except_name: Option<&'a str>,
    pub(super) compress: Compress,
    pub(super) message: Message<'a>,
}

impl<'a> Envelope<'a> {
    pub(super) fn write(&self) -> Vec<u8> {
        let payload = self.message.as_bytes();
        // A longer name is nobody's.
        let name = self.except_name.and_then(|name| Some((u8::try_from(name.len()).ok()?, name)));
        let name_len = name.map_or(0, |(_, name)| name.len());
        let mut bytes = Vec::with_capacity(MAX_HEADER_LEN + name_len + payload.len());
        let compress = match self.compress {
            Compress::ByLength => 0,
            Compress::Always => 1,
            Compress::Never => 2,
        };
        let text = if self.message.is_text() { TEXT } else { 0 };
        let key = if self.key.is_some() { KEY } else { 0 };
        let Stamp { origin, epoch, number } = self.stamp;
        let named = if name.is_some() { NAME } else { 0 };
        bytes.extend([VERSION, text | key | named | compress << COMPRESS_SHIFT]);
        for number in [origin.0, epoch, number].into_iter().chain(self.key) {
            bytes.extend(number.to_be_bytes());
        }
        if let Some((len, name)) = name {
            bytes.push(len);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    /// `None`: it is none, or of another version.
    pub(super) fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let [version, flags] = *bytes.split_off(..2)?.first_chunk()?;
        if version != VERSION || flags >> 5 != 0 {
            return None;
        }
        let mut number = || Some(u64::from_be_bytes(*bytes.split_off(..8)?.first_chunk::<8>()?));
        let (origin, epoch) = (NodeId(number()?), number()?);
        let stamp = Stamp { origin, epoch, number: number()? };
        let key = if flags & KEY == 0 { None } else { Some(number()?) };
        let compress = match flags >> COMPRESS_SHIFT & 3 {
            0 => Compress::ByLength,
            1 => Compress::Always,
            2 => Compress::Never,
            _ => return None,
        };
        let except_name = match flags & NAME {
            0 => None,
            _ => {
                let len = usize::from(*bytes.split_off_first()?);
                Some(std::str::from_utf8(bytes.split_off(..len)?).ok()?)
            }
        };
        let message = match flags & TEXT {
            0 => Message::Binary(bytes),
            _ => Message::Text(std::str::from_utf8(bytes).ok()?),
        };
        (stamp.number > 0).then_some(Self { stamp, key, except_name, compress, message })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp() -> Stamp {
        Stamp { origin: NodeId(1), epoch: 2, number: 3 }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            numbers in any::<[u64; 3]>(),
            key in any::<Option<u64>>(),
            name in prop::option::of(".{0,20}"),
            compress in 0..3_usize,
            is_text in any::<bool>(),
            text in ".{0,40}",
        ) {
            let [origin, epoch, number] = numbers;
            let message = if is_text {
                Message::Text(&text)
            } else {
                Message::Binary(text.as_bytes())
            };
            let envelope = Envelope {
                stamp: Stamp { origin: NodeId(origin), epoch, number: number.max(1) },
                key,
                except_name: name.as_deref(),
                compress: [Compress::ByLength, Compress::Always, Compress::Never][compress],
                message,
            };
            let bytes = envelope.write();
            let name_len = name.as_ref().map_or(0, String::len);
            prop_assert!(bytes.len() <= MAX_HEADER_LEN + name_len + text.len());
            prop_assert_eq!(Envelope::parse(&bytes), Some(envelope));
        }

        #[test]
        fn whatever_comes_is_one_or_none(
            flags in 0..36_u8,
            rest in prop::collection::vec(any::<u8>(), 20..60),
        ) {
            let bytes: Vec<_> = [VERSION, flags].into_iter().chain(rest).collect();
            if let Some(envelope) = Envelope::parse(&bytes) {
                prop_assert_eq!(envelope.write(), bytes);
            }
        }
    }

    #[test]
    fn what_is_no_envelope() {
        let message = Message::Text("é");
        let whole = Envelope {
            stamp: stamp(),
            key: None,
            except_name: None,
            compress: Compress::ByLength,
            message,
        }
        .write();
        assert_eq!(whole.len(), 26 + 2);
        assert!((0..26).all(|len| Envelope::parse(&whole[..len]).is_none()));
        assert_eq!(Envelope::parse(&whole[..27]), None, "no UTF-8");
        let with = |at: usize, byte| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(Envelope::parse(&with(0, 2)), None, "another version");
        assert_eq!(Envelope::parse(&with(1, 0x20)), None, "a flag of another version");
        assert_eq!(Envelope::parse(&with(1, 3 << 2)), None, "no way to compress");
        assert_eq!(Envelope::parse(&with(25, 0)), None, "numbers begin with 1");
    }
}
