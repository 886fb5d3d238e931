//! Words: what every CPU has. The compiler makes vectors of them where the target has any.

#![expect(unsafe_code, reason = "implements the loads and stores of Vector")]

use super::vector::{Key, Vector};

// SAFETY: a `u32` is 4 bytes.
unsafe impl Vector for u32 {
    const LEN: usize = 4;

    #[inline(always)]
    unsafe fn splat(key: Key) -> Self {
        key.word()
    }

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        // SAFETY: the caller's promise; the read asks for no alignment.
        unsafe { src.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        // SAFETY: the caller's promise; the write asks for no alignment.
        unsafe { dst.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        self ^ other
    }
}

// SAFETY: a `u64` is 8 bytes.
unsafe impl Vector for u64 {
    const LEN: usize = 8;

    #[inline(always)]
    unsafe fn splat(key: Key) -> Self {
        let word = Self::from(key.word());
        word << 32 | word
    }

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        // SAFETY: the caller's promise; the read asks for no alignment.
        unsafe { src.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        // SAFETY: the caller's promise; the write asks for no alignment.
        unsafe { dst.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        self ^ other
    }
}

/// Two words: the portable stand-in for a 16-byte register.
#[derive(Clone, Copy)]
#[cfg_attr(
    all(target_arch = "x86_64", not(test)),
    expect(dead_code, reason = "x86-64 always has SSE2")
)]
pub(super) struct Words([u64; 2]);

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
