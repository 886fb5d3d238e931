//! A request's body.

use ringwire_codec::http::{BodyDecoder, BodyError, BodyFraming};

const MAX_LEN: usize = 1 << 12;

/// How a body came out.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    content: Vec<u8>,
    /// Bytes that belong to it, once it is complete.
    len: Result<Option<usize>, BodyError>,
}

fn decode<'p>(
    framing: BodyFraming,
    max_len: usize,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Decoded {
    let mut content = Vec::new();
    let mut decoder = match BodyDecoder::new(framing, max_len) {
        Ok(decoder) => decoder,
        Err(error) => return Decoded { content, len: Err(error) },
    };
    let mut len = 0;
    for piece in pieces {
        match decoder.receive(piece, &mut content) {
            Err(error) => return Decoded { content, len: Err(error) },
            Ok(used) => {
                assert!(used == piece.len() || decoder.is_complete());
                len += used;
            }
        }
        assert!(content.len() <= max_len);
    }
    Decoded { content, len: Ok(decoder.is_complete().then_some(len)) }
}

/// Where the reads cut a body makes no difference, a complete one ends at its last byte and not before, a length is what it
/// says, and what is written in chunks is read from them.
pub(crate) fn body(input: &[u8]) {
    let [kind, limit, low, high, a, b, wire @ ..] = input else { return };
    let declared = u16::from_le_bytes([*low, *high]);
    let framing = match kind & 1 {
        0 => BodyFraming::Chunked,
        _ => BodyFraming::Length(declared.into()),
    };
    let max_len = MAX_LEN.min(usize::from(*limit) << 4);
    let whole = decode(framing, max_len, [wire]);
    assert_eq!(decode(framing, max_len, wire.chunks(1)), whole);
    let (first, rest) = wire.split_at(wire.len().min((*a).into()));
    let (second, third) = rest.split_at(rest.len().min((*b).into()));
    assert_eq!(decode(framing, max_len, [first, second, third]), whole);
    if let Ok(Some(len)) = whole.len {
        assert_eq!(decode(framing, max_len, [&wire[..len]]), whole, "what follows is not its own");
        if let Some(shorter) = len.checked_sub(1) {
            assert_eq!(decode(framing, max_len, [&wire[..shorter]]).len, Ok(None));
        }
        round_trip(&whole.content, (*a).into());
    }
    if let BodyFraming::Length(_) = framing {
        let declared = usize::from(declared);
        let expected = match wire.get(..declared) {
            _ if declared > max_len => Err(BodyError::TooLong),
            Some(_) => Ok(Some(declared)),
            None => Ok(None),
        };
        assert_eq!(whole.len, expected);
        let content = if expected.is_err() { &[] } else { &wire[..declared.min(wire.len())] };
        assert_eq!(whole.content, content);
    }
    round_trip(&wire[..wire.len().min(MAX_LEN)], (*b).into());
}

/// Content in chunks of so many bytes (RFC 9112 §7.1), with an extension and a trailer, comes out as it was.
fn round_trip(content: &[u8], chunk_len: usize) {
    let mut wire = Vec::new();
    for chunk in content.chunks(chunk_len.max(1)) {
        wire.extend(format!("{:X};a=\"b\"\r\n", chunk.len()).bytes());
        wire.extend(chunk);
        wire.extend(b"\r\n");
    }
    wire.extend(b"0\r\nX: y\r\n\r\n");
    let len = wire.len();
    wire.extend(b"GET / HTTP/1.1\r\n");
    let decoded = decode(BodyFraming::Chunked, content.len(), [&wire[..]]);
    // Extensions may come to 16 KiB beside as much as there is content.
    let extensions_len = content.chunks(chunk_len.max(1)).count() * b";a=\"b\"".len();
    if extensions_len <= 16 << 10 {
        assert_eq!(decoded, Decoded { content: content.to_vec(), len: Ok(Some(len)) });
    }
    if let Some(too_short) = content.len().checked_sub(1) {
        let refused = decode(BodyFraming::Chunked, too_short, [&wire[..]]);
        assert!(refused.len.is_err(), "{refused:?}");
    }
}
