//! The vectors of x86-64: SSE2, which each of these CPUs has, and wider ones where the CPU has them.

#![expect(unsafe_code, reason = "SIMD over raw pointers")]

mod avx2;
mod avx512;
mod sse2;

use avx2::Avx2;
use avx512::Avx512;
use sse2::Sse2;

use super::vector::{Key, aligned_blocks, blocks};

/// From this many bytes on, a wider vector repays the call into a function compiled for it.
const WIDE_MIN_LEN: usize = 128;

/// # Safety
/// `src` is readable and `dst` writable for `len` bytes; they are equal or do not overlap. `16 <= len`.
#[inline]
pub(super) unsafe fn xor_vectors(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    if len >= WIDE_MIN_LEN
        && let Some(avx2) = Avx2::new()
    {
        // SAFETY: the caller's promise, and `WIDE_MIN_LEN` is no less than a vector.
        unsafe { avx2.xor(src, dst, len, key) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { blocks::<Sse2>(src, dst, len, key) }
    }
}

/// # Safety
/// As [`xor_vectors`], and `len >= LONG_LEN`.
#[inline(never)]
pub(super) unsafe fn xor_long(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: the caller's promise, and `LONG_LEN` is no less than two of any vectors.
    unsafe {
        if let Some(avx512) = Avx512::where_it_pays() {
            avx512.xor(src, dst, len, key);
        } else if let Some(avx2) = Avx2::new() {
            avx2.xor_long(src, dst, len, key);
        } else {
            aligned_blocks::<Sse2>(src, dst, len, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::tests::equals_scalar;

    #[test]
    fn sse2_equals_scalar() {
        equals_scalar("sse2", 16, blocks::<Sse2>);
        equals_scalar("aligned sse2", 32, aligned_blocks::<Sse2>);
    }

    #[test]
    fn avx2_equals_scalar() {
        let Some(_) = Avx2::new() else { return };
        equals_scalar("avx2", 32, |src, dst, len, key| {
            let avx2 = Avx2::new().expect("the CPU has it, as seen above");
            // SAFETY: `equals_scalar` gives pointers and a length that fit.
            unsafe { avx2.xor(src, dst, len, key) }
        });
        equals_scalar("aligned avx2", 64, |src, dst, len, key| {
            let avx2 = Avx2::new().expect("the CPU has it, as seen above");
            // SAFETY: `equals_scalar` gives pointers and a length that fit.
            unsafe { avx2.xor_long(src, dst, len, key) }
        });
    }

    #[test]
    fn avx512_equals_scalar() {
        let Some(_) = Avx512::new() else { return };
        equals_scalar("avx512", 128, |src, dst, len, key| {
            let avx512 = Avx512::new().expect("the CPU has it, as seen above");
            // SAFETY: `equals_scalar` gives pointers and a length that fit.
            unsafe { avx512.xor(src, dst, len, key) }
        });
    }
}
