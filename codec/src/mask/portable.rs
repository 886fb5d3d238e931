//! Pairs of words: what every CPU has. The compiler makes vectors of them where the target has any.

#![expect(unsafe_code, reason = "implements the loads and stores of Vector")]

use super::vector::{Key, Vector, aligned_blocks, blocks};

/// # Safety
/// `src` is readable and `dst` writable for `len` bytes; they are equal or do not overlap. `16 <= len`.
#[inline]
pub(super) unsafe fn xor_vectors(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: the caller's promise.
    unsafe { blocks::<Words>(src, dst, len, key) }
}

/// # Safety
/// As [`xor_vectors`], and `32 <= len`.
#[inline(never)]
pub(super) unsafe fn xor_long(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: the caller's promise.
    unsafe { aligned_blocks::<Words>(src, dst, len, key) }
}

/// Two words: the stand-in for a 16-byte register.
#[derive(Clone, Copy)]
struct Words([u64; 2]);

// SAFETY: two `u64` are 16 bytes.
unsafe impl Vector for Words {
    const LEN: usize = 16;

    #[inline(always)]
    unsafe fn splat(key: Key) -> Self {
        // SAFETY: a word needs no CPU feature.
        Self([unsafe { u64::splat(key) }; 2])
    }

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        // SAFETY: the caller's promise; the read asks for no alignment.
        Self(unsafe { src.cast::<[u64; 2]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        // SAFETY: the caller's promise; the write asks for no alignment.
        unsafe { dst.cast::<[u64; 2]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self([a ^ c, b ^ d])
    }
}
