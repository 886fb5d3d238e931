//! Frames of a client as bytes, whether the protocol allows them or not (RFC 6455 §5.2).

/// A frame of a client, from its first byte and its payload.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload.len() as u64, payload)
}

/// A frame of a client that declares `len` bytes, and as much of its payload as is given.
#[must_use]
pub fn masked(first: u8, len: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    push_len(0x80, len, &mut out);
    let key = mask();
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// A test's masks need not be unpredictable.
#[must_use]
pub fn mask() -> [u8; 4] {
    [0x37, 0xfa, 0x21, 0x3d]
}

/// The length in its shortest form, beside the mask bit.
pub(crate) fn push_len(mask_bit: u8, len: u64, out: &mut Vec<u8>) {
    if let Some(short) = u8::try_from(len).ok().filter(|len| *len < 126) {
        out.push(mask_bit | short);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(mask_bit | 126);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend_from_slice(&len.to_be_bytes());
    }
}
