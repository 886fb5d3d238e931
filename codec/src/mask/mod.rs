//! Masking of payloads (RFC 6455 §5.3): byte `i` of a payload is XORed with byte `i mod 4` of the key.
//!
//! The same operation masks and unmasks. What lives here is the XOR alone; where keys come from is
//! the mask source's business, and where payloads begin is the frame parser's.

/// Masks or unmasks a whole payload where it lies.
#[inline]
pub fn mask(buf: &mut [u8], key: [u8; 4]) {
    mask_from(buf, key, 0);
}

/// Masks or unmasks a piece of a payload where it lies; `offset` is the position of `buf[0]` in the
/// payload, in bytes.
#[inline]
pub fn mask_from(buf: &mut [u8], key: [u8; 4], offset: usize) {
    for (byte, key) in buf.iter_mut().zip(key.into_iter().cycle().skip(offset % 4)) {
        *byte ^= key;
    }
}

/// Appends `src`, masked or unmasked, to `out`; `offset` is the position of `src[0]` in the payload,
/// in bytes.
///
/// Copies and masks in one pass, and grows `out` at most once.
#[inline]
pub fn mask_extend(out: &mut Vec<u8>, src: &[u8], key: [u8; 4], offset: usize) {
    let key = key.into_iter().cycle().skip(offset % 4);
    out.extend(src.iter().zip(key).map(|(byte, key)| byte ^ key));
}
