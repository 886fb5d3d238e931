//! SSE2: 16 bytes at a time, on every x86-64 CPU, so there is nothing to detect.

#![expect(unsafe_code, reason = "SIMD loads and stores")]

use std::arch::x86_64::{
    __m128i, _mm_loadu_si128, _mm_set1_epi32, _mm_storeu_si128, _mm_xor_si128,
};

use crate::mask::vector::{Key, Vector};

/// An SSE2 register.
#[derive(Clone, Copy)]
pub(super) struct Sse2(__m128i);

// SAFETY: an `__m128i` is 16 bytes.
unsafe impl Vector for Sse2 {
    const LEN: usize = 16;

    #[inline(always)]
    unsafe fn splat(key: Key) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_set1_epi32(key.word().cast_signed()) })
    }

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        // SAFETY: the caller's promise; `loadu` asks for no alignment.
        Self(unsafe { _mm_loadu_si128(src.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        // SAFETY: the caller's promise; `storeu` asks for no alignment.
        unsafe { _mm_storeu_si128(dst.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_xor_si128(self.0, other.0) })
    }
}
