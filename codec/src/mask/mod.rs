//! Masking of payloads (RFC 6455 §5.3): byte `i` of a payload is XORed with byte `i mod 4` of the key.
//!
//! The same operation masks and unmasks. What lives here is the XOR alone; where keys come from is
//! the mask source's business, and where payloads begin is the frame parser's.
//!
//! One algorithm (`vector.rs`) runs on whatever the CPU offers: the vectors of `x86_64`, or on every
//! other target, and where `--cfg ringwire_portable_masks` asks for them, pairs of words (`portable.rs`). Most payloads
//! are a few dozen bytes long, so those are done with the registers every CPU of the target has, inline, and only
//! longer ones ask which CPU this is.

#![expect(unsafe_code, reason = "SIMD over raw pointers, in place or from one buffer to another")]

#[cfg(any(test, ringwire_portable_masks, not(target_arch = "x86_64")))]
mod portable;
mod vector;
mod words;
#[cfg(all(target_arch = "x86_64", not(ringwire_portable_masks)))]
mod x86_64;

#[cfg(any(ringwire_portable_masks, not(target_arch = "x86_64")))]
use portable as target;
use vector::{Key, ends};
#[cfg(all(target_arch = "x86_64", not(ringwire_portable_masks)))]
use x86_64 as target;

/// From this many bytes on, aligned stores repay the vector at the unaligned beginning.
const LONG_LEN: usize = 2 << 10;

/// Masks or unmasks a whole payload where it lies.
#[inline]
pub fn mask(buf: &mut [u8], key: [u8; 4]) {
    mask_from(buf, key, 0);
}

/// Masks or unmasks a piece of a payload where it lies; `offset` is the position of `buf[0]` in the
/// payload, in bytes.
#[inline]
pub fn mask_from(buf: &mut [u8], key: [u8; 4], offset: usize) {
    let bytes = buf.as_mut_ptr();
    // SAFETY: the exclusive borrow makes `buf.len()` bytes readable and writable, and source and
    // destination are the same.
    unsafe { xor(bytes, bytes, buf.len(), Key::new(key).at(offset)) }
}

/// Appends `src`, masked or unmasked, to `out`; `offset` is the position of `src[0]` in the payload,
/// in bytes.
///
/// Copies and masks in one pass, grows `out` at most once and fills nothing with zeros first.
#[inline]
pub fn mask_extend(out: &mut Vec<u8>, src: &[u8], key: [u8; 4], offset: usize) {
    out.reserve(src.len());
    let spare = out.spare_capacity_mut().as_mut_ptr().cast();
    // SAFETY: `reserve` made at least `src.len()` bytes of spare capacity, which `out` owns alone,
    // so they do not overlap `src`; all of them are initialised before the length covers them.
    unsafe {
        xor(src.as_ptr(), spare, src.len(), Key::new(key).at(offset));
        out.set_len(out.len() + src.len());
    }
}

/// Writes `len` bytes of `src`, XORed with `key`, to `dst`.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes; they are equal or do not overlap.
#[inline]
unsafe fn xor(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: the caller's promise holds for each callee, and each arm's bounds are those that the
    // callee asks for.
    unsafe {
        match len {
            0..4 => vector::bytes(src, dst, len, key),
            4..8 => ends::<u32>(src, dst, len, key),
            8..16 => ends::<u64>(src, dst, len, key),
            16..LONG_LEN => target::xor_vectors(src, dst, len, key),
            _ => target::xor_long(src, dst, len, key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::vector::{aligned_blocks, blocks};
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn scalar(src: &[u8], key: [u8; 4], offset: usize) -> Vec<u8> {
        src.iter().zip(key.iter().cycle().skip(offset % 4)).map(|(byte, key)| byte ^ key).collect()
    }

    /// Runs `path` in place and from buffer to buffer at each alignment, with each length from `min_len` to a few
    /// rounds of the longest loop, and compares with the definition.
    pub(super) fn equals_scalar(
        name: &str,
        min_len: usize,
        path: unsafe fn(*const u8, *mut u8, usize, Key),
    ) {
        const MAX_LEN: usize = if cfg!(miri) { 150 } else { 640 };
        let source: Vec<u8> = (0..=u8::MAX).cycle().take(MAX_LEN + 64).collect();
        let masked = scalar(&source, KEY, 0);
        for len in min_len..=MAX_LEN {
            for alignment in 0..64 {
                let end = alignment + len;
                let key = Key::new(KEY).at(alignment);

                let mut expected = source.clone();
                expected[alignment..end].copy_from_slice(&masked[alignment..end]);
                let mut place = source.clone();
                let at = place[alignment..].as_mut_ptr();
                // SAFETY: `place` has `len` bytes at `alignment`, and `len` is at least `min_len`.
                unsafe { path(at, at, len, key) };
                assert!(place == expected, "{name} in place: {len} bytes at {alignment}");

                let start = 63 - alignment;
                let mut expected = vec![0xaa; MAX_LEN + 64];
                let mut copy = expected.clone();
                expected[start..start + len].copy_from_slice(&masked[alignment..end]);
                let (from, to) = (source[alignment..].as_ptr(), copy[start..].as_mut_ptr());
                // SAFETY: `copy` has `len` bytes there, is not `source`, and `len` is as above.
                unsafe { path(from, to, len, key) };
                assert!(copy == expected, "{name} copying: {len} bytes at {alignment}");
            }
        }
    }

    #[test]
    fn portable_equals_scalar() {
        equals_scalar("portable", 16, portable::xor_vectors);
        equals_scalar("u64", 8, blocks::<u64>);
        equals_scalar("u32", 4, blocks::<u32>);
        equals_scalar("aligned portable", 32, portable::xor_long);
        equals_scalar("aligned u64", 16, aligned_blocks::<u64>);
        equals_scalar("aligned u32", 8, aligned_blocks::<u32>);
    }

    /// Whatever is chosen for a length: around each length at which the choice changes.
    #[test]
    fn what_is_chosen_equals_scalar() {
        let borders = [0, 4, 8, 16, 128, LONG_LEN, 8 * LONG_LEN];
        for len in borders.into_iter().flat_map(|border| border.saturating_sub(3)..border + 67) {
            for offset in 0..16 {
                let source: Vec<u8> = (0..=u8::MAX).cycle().take(offset + len).collect();
                let expected = scalar(&source[offset..], KEY, offset);
                let mut place = source.clone();
                mask_from(&mut place[offset..], KEY, offset);
                assert!(place[offset..] == expected, "in place: {len} bytes at {offset}");
                assert_eq!(place[..offset], source[..offset]);
                let mut out = vec![0xaa; 15 - offset];
                mask_extend(&mut out, &source[offset..], KEY, offset);
                assert!(out[15 - offset..] == expected, "appended: {len} bytes at {offset}");
                assert_eq!(out[..15 - offset], vec![0xaa; 15 - offset]);
            }
        }
    }

    #[test]
    fn ends_cover_up_to_two_vectors() {
        for len in 8..=16_u8 {
            let mut bytes: Vec<u8> = (0..len).collect();
            let expected = scalar(&bytes, KEY, 0);
            let at = bytes.as_mut_ptr();
            // SAFETY: `bytes` has `len` bytes, between one and two vectors.
            unsafe { ends::<u64>(at, at, usize::from(len), Key::new(KEY)) };
            assert_eq!(bytes, expected, "{len}");
        }
    }
}
