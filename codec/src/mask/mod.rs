//! Masking of payloads (RFC 6455 §5.3): byte `i` of a payload is XORed with byte `i mod 4` of the key.
//!
//! The same operation masks and unmasks. What lives here is the XOR alone; where keys come from is
//! the mask source's business, and where payloads begin is the frame parser's.
//!
//! One algorithm (`vector.rs`) runs on whatever the CPU offers (`portable.rs`, `sse2.rs`,
//! `avx2.rs`, `avx512.rs`). Most payloads are a few dozen bytes long, so those are done with the registers every
//! CPU of the target has, inline, and only longer ones ask which CPU this is.

#![expect(unsafe_code, reason = "SIMD over raw pointers, in place or from one buffer to another")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;
mod vector;

use vector::{Key, aligned_blocks, blocks, ends};

/// The widest vector that every CPU of the target has.
#[cfg(target_arch = "x86_64")]
type Baseline = sse2::Sse2;
#[cfg(not(target_arch = "x86_64"))]
type Baseline = portable::Words;

/// From this many bytes on, a wider vector repays the call into a function compiled for it.
#[cfg(target_arch = "x86_64")]
const WIDE_MIN_LEN: usize = 128;

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
            16..LONG_LEN => xor_vectors(src, dst, len, key),
            _ => xor_long(src, dst, len, key),
        }
    }
}

/// # Safety
/// As [`xor`], and `16 <= len < LONG_LEN`.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn xor_vectors(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    if len >= WIDE_MIN_LEN
        && let Some(avx2) = avx2::Avx2::new()
    {
        // SAFETY: the caller's promise, and `WIDE_MIN_LEN` is no less than a vector.
        unsafe { avx2.xor(src, dst, len, key) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { blocks::<Baseline>(src, dst, len, key) }
    }
}

/// # Safety
/// As [`xor`], and `len >= LONG_LEN`.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn xor_long(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: the caller's promise, and `LONG_LEN` is no less than two of any vectors.
    unsafe {
        if let Some(avx512) = avx512::Avx512::where_it_pays() {
            avx512.xor(src, dst, len, key);
        } else if let Some(avx2) = avx2::Avx2::new() {
            avx2.xor_long(src, dst, len, key);
        } else {
            aligned_blocks::<Baseline>(src, dst, len, key);
        }
    }
}

/// # Safety
/// As [`xor`], and `16 <= len < LONG_LEN`.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn xor_vectors(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: the caller's promise.
    unsafe { blocks::<Baseline>(src, dst, len, key) }
}

/// # Safety
/// As [`xor`], and `len >= LONG_LEN`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(never)]
unsafe fn xor_long(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: the caller's promise, and `LONG_LEN` is no less than two vectors.
    unsafe { aligned_blocks::<Baseline>(src, dst, len, key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn scalar(src: &[u8], key: [u8; 4], offset: usize) -> Vec<u8> {
        src.iter().zip(key.iter().cycle().skip(offset % 4)).map(|(byte, key)| byte ^ key).collect()
    }

    /// Runs `path` in place and from buffer to buffer at each alignment, with each length from `min_len` to a few
    /// rounds of the longest loop, and compares with the definition.
    fn equals_scalar(name: &str, min_len: usize, path: unsafe fn(*const u8, *mut u8, usize, Key)) {
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
        equals_scalar("portable", 16, blocks::<portable::Words>);
        equals_scalar("u64", 8, blocks::<u64>);
        equals_scalar("u32", 4, blocks::<u32>);
        equals_scalar("aligned portable", 32, aligned_blocks::<portable::Words>);
        equals_scalar("aligned u64", 16, aligned_blocks::<u64>);
        equals_scalar("aligned u32", 8, aligned_blocks::<u32>);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn sse2_equals_scalar() {
        equals_scalar("sse2", 16, blocks::<sse2::Sse2>);
        equals_scalar("aligned sse2", 32, aligned_blocks::<sse2::Sse2>);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn avx2_equals_scalar() {
        let Some(_) = avx2::Avx2::new() else { return };
        equals_scalar("avx2", 32, |src, dst, len, key| {
            let avx2 = avx2::Avx2::new().expect("the CPU has it, as seen above");
            // SAFETY: `equals_scalar` gives pointers and a length that fit.
            unsafe { avx2.xor(src, dst, len, key) }
        });
        equals_scalar("aligned avx2", 64, |src, dst, len, key| {
            let avx2 = avx2::Avx2::new().expect("the CPU has it, as seen above");
            // SAFETY: `equals_scalar` gives pointers and a length that fit.
            unsafe { avx2.xor_long(src, dst, len, key) }
        });
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn avx512_equals_scalar() {
        let Some(_) = avx512::Avx512::new() else { return };
        equals_scalar("avx512", 128, |src, dst, len, key| {
            let avx512 = avx512::Avx512::new().expect("the CPU has it, as seen above");
            // SAFETY: `equals_scalar` gives pointers and a length that fit.
            unsafe { avx512.xor(src, dst, len, key) }
        });
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
