//! AVX-512: 64 bytes at a time, a whole cache line, where the CPU gains by it.

#![expect(unsafe_code, reason = "SIMD loads and stores, compiled for a CPU that must be asked for")]

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_si512, _mm512_xor_si512,
};

use crate::mask::vector::{Key, Vector, aligned_blocks};

/// Proof that the CPU has AVX-512 and is fit for it.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    /// `None` where the CPU has no AVX-512. The answer is detected once a process.
    #[inline]
    pub(super) fn new() -> Option<Self> {
        std::is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    /// `None` also where AVX2 is as fast. CPUs up to Ice Lake lower their clock for AVX-512, and Zen 4 has half as wide
    /// units: 16 KiB take it as long in place, and 1.1 times as long from one buffer to another. AVX-VNNI came with
    /// those that have neither limit, Sapphire Rapids and Zen 5.
    #[inline]
    pub(super) fn where_it_pays() -> Option<Self> {
        Self::new().filter(|_| std::is_x86_feature_detected!("avxvnni"))
    }

    /// Writes `len` bytes of `src`, XORed with `key`, to `dst`.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `len` bytes; they are equal or do not overlap.
    /// `len >= 2 * Lanes::LEN`.
    #[inline]
    pub(super) unsafe fn xor(self, src: *const u8, dst: *mut u8, len: usize, key: Key) {
        // SAFETY: `self` proves the feature; the caller promises the rest.
        unsafe { xor(src, dst, len, key) }
    }
}

/// # Safety
/// As [`Avx512::xor`].
#[target_feature(enable = "avx512f")]
unsafe fn xor(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    // SAFETY: this function is compiled for AVX-512; the caller promises the rest.
    unsafe { aligned_blocks::<Lanes>(src, dst, len, key) }
}

/// An AVX-512 register.
#[derive(Clone, Copy)]
pub(super) struct Lanes(__m512i);

// SAFETY: an `__m512i` is 64 bytes.
unsafe impl Vector for Lanes {
    const LEN: usize = 64;

    #[inline(always)]
    unsafe fn splat(key: Key) -> Self {
        // SAFETY: the caller promises the feature.
        Self(unsafe { _mm512_set1_epi32(key.word().cast_signed()) })
    }

    #[inline(always)]
    unsafe fn load(src: *const u8) -> Self {
        // SAFETY: the caller's promise; `loadu` asks for no alignment.
        Self(unsafe { _mm512_loadu_si512(src.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, dst: *mut u8) {
        // SAFETY: the caller's promise; `storeu` asks for no alignment.
        unsafe { _mm512_storeu_si512(dst.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller promises the feature.
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }
}
