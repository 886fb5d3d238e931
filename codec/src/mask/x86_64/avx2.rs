//! AVX2: 32 bytes at a time, where the CPU has it.

#![expect(unsafe_code, reason = "SIMD loads and stores, compiled for a CPU that must be asked for")]

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_storeu_si256, _mm256_xor_si256,
};

use crate::mask::vector::{Key, Vector, aligned_blocks, blocks};

/// Proof that the CPU has AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// `None` where the CPU has no AVX2. The answer is detected once a process.
    #[inline]
    pub(super) fn new() -> Option<Self> {
        std::is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Writes `len` bytes of `src`, XORed with `key`, to `dst`.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `len` bytes; they are equal or do not overlap.
    /// `len >= Lanes::LEN`.
    #[inline]
    pub(super) unsafe fn xor(self, src: *const u8, dst: *mut u8, len: usize, key: Key) {
        // SAFETY: `self` proves the feature; the caller promises the rest.
        unsafe { xor(src, dst, len, key) }
    }

    /// The same with [aligned stores](aligned_blocks).
    ///
    /// # Safety
    /// As [`xor`](Self::xor), and `len >= 2 * Lanes::LEN`.
    #[inline]
    pub(super) unsafe fn xor_long(self, src: *const u8, dst: *mut u8, len: usize, key: Key) {
        // SAFETY: `self` proves the feature; the caller promises the rest.
        unsafe { xor_long(src, dst, len, key) }
    }
}

/// # Safety
/// As [`Avx2::xor`].
#[target_feature(enable = "avx2")]
unsafe fn xor(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: this function is compiled for AVX2; the caller promises the rest.
    unsafe { blocks::<Lanes>(src, dst, len, key) }
}

/// # Safety
/// As [`Avx2::xor_long`].
#[target_feature(enable = "avx2")]
unsafe fn xor_long(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: this function is compiled for AVX2; the caller promises the rest.
    unsafe { aligned_blocks::<Lanes>(src, dst, len, key) }
}

/// An AVX2 register.
#[derive(Clone, Copy)]
pub(super) struct Lanes(__m256i);

// SAFETY: an `__m256i` is 32 bytes.
unsafe impl Vector for Lanes {
    const LEN: usize = 32;

    #[inline(always)]
    unsafe fn splat(key: Key) -> Self {
        // SAFETY: the caller promises the feature.
        Self(unsafe { _mm256_set1_epi32(key.word().cast_signed()) })
    }

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        // SAFETY: the caller's promise; `loadu` asks for no alignment.
        Self(unsafe { _mm256_loadu_si256(src.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        // SAFETY: the caller's promise; `storeu` asks for no alignment.
        unsafe { _mm256_storeu_si256(dst.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller promises the feature.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }
}
