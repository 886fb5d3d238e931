//! Masking of payloads (RFC 6455 §5.3): byte `i` of a payload is XORed with byte `i mod 4` of the key.
//!
//! The same operation masks and unmasks. What lives here is the XOR alone; where keys come from is
//! the mask source's business, and where payloads begin is the frame parser's.
//!
//! One algorithm (`vector.rs`) runs on whatever the CPU offers (`portable.rs`, `sse2.rs`,
//! `avx2.rs`). Most payloads are a few dozen bytes long, so those are done with the registers every
//! CPU of the target has, inline, and only longer ones ask which CPU this is.

#![expect(unsafe_code, reason = "SIMD over raw pointers, in place or from one buffer to another")]

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;
mod vector;

use vector::{Key, blocks, ends};

/// The widest vector that every CPU of the target has.
#[cfg(target_arch = "x86_64")]
type Baseline = sse2::Sse2;
#[cfg(not(target_arch = "x86_64"))]
type Baseline = portable::Words;

/// From this many bytes on, a wider vector repays the call into a function compiled for it.
#[cfg(target_arch = "x86_64")]
const WIDE_MIN_LEN: usize = 128;

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
            _ => xor_vectors(src, dst, len, key),
        }
    }
}

/// # Safety
/// As [`xor`], and `len >= Baseline::LEN`.
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
/// As [`xor`], and `len >= Baseline::LEN`.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn xor_vectors(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: the caller's promise.
    unsafe { blocks::<Baseline>(src, dst, len, key) }
}

#[cfg(test)]
mod tests {
    use super::vector::Vector;
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn scalar(src: &[u8], key: [u8; 4], offset: usize) -> Vec<u8> {
        src.iter().zip(key.iter().cycle().skip(offset % 4)).map(|(byte, key)| byte ^ key).collect()
    }

    /// Runs `path` in place and from buffer to buffer at each length and alignment at which the
    /// vector can be used, and compares with the definition.
    fn equals_scalar<V: Vector>(name: &str, path: unsafe fn(*const u8, *mut u8, usize, Key)) {
        let source: Vec<u8> = (0..=255).chain(0..=255).collect();
        let masked = scalar(&source, KEY, 0);
        for len in V::LEN..=256 {
            for alignment in 0..64 {
                let src = &source[alignment..alignment + len];
                let expected = masked[alignment..alignment + len].to_vec();
                let key = Key::new(KEY).at(alignment);

                let mut place = source.clone();
                let at = place[alignment..].as_mut_ptr();
                // SAFETY: `place` has `len` bytes at `alignment`, and `len` is at least a vector.
                unsafe { path(at, at, len, key) };
                assert_eq!(place[alignment..alignment + len], expected, "{name} {len} {alignment}");
                assert_eq!(place[..alignment], source[..alignment], "{name} wrote before");
                assert_eq!(
                    place[alignment + len..],
                    source[alignment + len..],
                    "{name} wrote after"
                );

                let untouched = [0xaa; 512];
                let mut copy = untouched;
                let at = copy[63 - alignment..].as_mut_ptr();
                // SAFETY: `copy` has `len` bytes there, is not `source`, and `len` is as above.
                unsafe { path(src.as_ptr(), at, len, key) };
                let end = 63 - alignment + len;
                assert_eq!(copy[63 - alignment..end], expected, "{name} {len} {alignment}");
                assert_eq!(copy[..63 - alignment], untouched[..63 - alignment], "{name} before");
                assert_eq!(copy[end..], untouched[end..], "{name} behind");
            }
        }
    }

    #[test]
    fn portable_equals_scalar() {
        equals_scalar::<portable::Words>("portable", blocks::<portable::Words>);
        equals_scalar::<u64>("u64", blocks::<u64>);
        equals_scalar::<u32>("u32", blocks::<u32>);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn sse2_equals_scalar() {
        equals_scalar::<sse2::Sse2>("sse2", blocks::<sse2::Sse2>);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn avx2_equals_scalar() {
        let Some(_) = avx2::Avx2::new() else { return };
        equals_scalar::<avx2::Lanes>("avx2", |src, dst, len, key| {
            let avx2 = avx2::Avx2::new().expect("the CPU has it, as seen above");
            // SAFETY: `equals_scalar` gives pointers and a length that fit.
            unsafe { avx2.xor(src, dst, len, key) }
        });
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
