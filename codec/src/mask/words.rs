//! Single words, for payloads that are shorter than any vector.

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
