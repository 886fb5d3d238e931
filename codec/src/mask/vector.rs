//! The algorithm, over whatever a vector is.

#![expect(unsafe_code, reason = "loads and stores at raw pointers, with no bounds to check")]

/// A masking key as it lies in memory, beginning at some position of the payload.
#[derive(Clone, Copy)]
pub(super) struct Key([u8; 4]);

impl Key {
    #[inline(always)]
    pub(super) fn new(key: [u8; 4]) -> Self {
        Self(key)
    }

    /// The key for bytes that begin `offset` bytes further on.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of 4 is less than 4")]
    pub(super) fn at(self, offset: usize) -> Self {
        let bits = (offset % 4) as u32 * 8;
        Self(u32::from_le_bytes(self.0).rotate_right(bits).to_le_bytes())
    }

    /// The key as a word to be repeated: its bytes in memory are those of the key.
    #[inline(always)]
    pub(super) fn word(self) -> u32 {
        u32::from_ne_bytes(self.0)
    }
}

/// A register's worth of bytes.
///
/// The methods are `#[inline(always)]` and without `target_feature`, so that [`blocks`] becomes part of
/// the caller's function and is compiled for the caller's CPU.
///
/// # Safety
/// [`LEN`](Self::LEN) is a multiple of 4 and is what `load` reads and `store` writes.
pub(super) unsafe trait Vector: Copy {
    /// Bytes in the vector.
    const LEN: usize;

    /// Repeats the key over the vector.
    ///
    /// # Safety
    /// The CPU has the feature.
    unsafe fn splat(key: Key) -> Self;

    /// # Safety
    /// The CPU has the feature; `src` is readable for [`LEN`](Self::LEN) bytes, at any alignment.
    unsafe fn load(src: *const u8) -> Self;

    /// # Safety
    /// The CPU has the feature; `dst` is writable for [`LEN`](Self::LEN) bytes, at any alignment.
    unsafe fn store(self, dst: *mut u8);

    /// # Safety
    /// The CPU has the feature.
    unsafe fn xor(self, other: Self) -> Self;
}

/// Vectors loaded before the first of them is stored, in the main loop.
const UNROLL: usize = 4;

/// Writes `len` bytes of `src`, XORed with `key`, to `dst`, a vector at a time.
///
/// The end is a vector of its own that overlaps the one before it. It is loaded first and stored last:
/// in place, its bytes are the original ones, and those of the overlap are written twice alike.
///
/// # Safety
/// The CPU has the vector's feature. `src` is readable and `dst` writable for `len` bytes; they are
/// equal or do not overlap. `len >= V::LEN`.
#[inline(always)]
pub(super) unsafe fn blocks<V: Vector>(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    debug_assert!(len >= V::LEN, "{len} bytes are less than a vector");
    // SAFETY: every access below is `V::LEN` bytes at some `at <= len - V::LEN`.
    unsafe {
        let last_at = len - V::LEN;
        // `V::LEN` is a multiple of the key's length, so this is the key at `last_at`.
        let last = V::load(src.add(last_at)).xor(V::splat(key.at(len)));
        let mask = V::splat(key);
        let mut at = 0;
        while len - at >= UNROLL * V::LEN {
            let mut vectors = [mask; UNROLL];
            for (i, vector) in vectors.iter_mut().enumerate() {
                *vector = V::load(src.add(at + i * V::LEN)).xor(mask);
            }
            for (i, vector) in vectors.into_iter().enumerate() {
                vector.store(dst.add(at + i * V::LEN));
            }
            at += UNROLL * V::LEN;
        }
        while at < last_at {
            V::load(src.add(at)).xor(mask).store(dst.add(at));
            at += V::LEN;
        }
        last.store(dst.add(last_at));
    }
}

/// The same with stores at multiples of the vector's length, so that none of them crosses a cache line.
///
/// Half of the 32-byte stores cross one where a payload begins a few bytes behind a page, as it does behind its
/// header. The beginning, up to the first such multiple, is a vector of its own, loaded first and stored last like the
/// end.
///
/// # Safety
/// As [`blocks`], and `len >= 2 * V::LEN`.
#[inline(always)]
pub(super) unsafe fn aligned_blocks<V: Vector>(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    debug_assert!(len >= 2 * V::LEN, "{len} bytes are less than two vectors");
    let first_len = dst.addr().wrapping_neg() % V::LEN;
    // SAFETY: `first_len < V::LEN`, so that at least a vector is left behind it. The first vector lies within `len`; it
    // is loaded before any byte of it is written, and written twice alike where it overlaps the rest.
    unsafe {
        let first = V::load(src).xor(V::splat(key));
        blocks::<V>(src.add(first_len), dst.add(first_len), len - first_len, key.at(first_len));
        first.store(dst);
    }
}

/// Writes `len` bytes of `src`, XORed with `key`, to `dst`, as a first and a last vector that overlap.
///
/// # Safety
/// As [`blocks`], and `len <= 2 * V::LEN`.
#[inline(always)]
pub(super) unsafe fn ends<V: Vector>(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    debug_assert!(V::LEN <= len && len <= 2 * V::LEN, "{len} bytes are not one or two vectors");
    // SAFETY: both accesses are `V::LEN` bytes within `len`; both loads precede the stores.
    unsafe {
        let last_at = len - V::LEN;
        let last = V::load(src.add(last_at)).xor(V::splat(key.at(len)));
        V::load(src).xor(V::splat(key)).store(dst);
        last.store(dst.add(last_at));
    }
}

/// Writes `len` bytes of `src`, XORed with `key`, to `dst`, byte by byte.
///
/// # Safety
/// As [`blocks`], but `len < 4`, the length of the key.
#[inline(always)]
pub(super) unsafe fn bytes(src: *const u8, dst: *mut u8, len: usize, key: Key) {
    for (at, key) in key.0.into_iter().enumerate().take(len) {
        // SAFETY: `at < len`.
        unsafe { dst.add(at).write(src.add(at).read() ^ key) };
    }
}
