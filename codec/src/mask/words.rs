//! Single words, for payloads that are shorter than any vector.

#![expect(unsafe_code, reason = "implements the loads and stores of Vector")]

use super::vector::{Key, Vector};

/// A type of words is a vector of its size. `$splat` makes one of a key.
macro_rules! vector {
    ($word:ty, $splat:expr) => {
        // SAFETY: it has as many bytes as its size says.
        unsafe impl Vector for $word {
            const LEN: usize = size_of::<$word>();

            #[inline(always)]
            unsafe fn splat(key: Key) -> Self {
                $splat(key)
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
    };
}

vector!(u32, Key::word);
vector!(u64, |key: Key| {
    let word = u64::from(key.word());
    word << 32 | word
});
