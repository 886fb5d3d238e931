//! Where masking keys come from (RFC 6455 §5.3).

#[cfg(feature = "masks")]
use rand_chacha::ChaCha12Rng;

/// Where the masking keys of a client's frames come from. A server never asks for one.
///
/// Each frame takes a fresh key, which must be unpredictable: a CSPRNG (RFC 6455 §5.3, §10.3).
/// Any `FnMut() -> [u8; 4]` is a source.
pub trait MaskSource {
    /// The key of the next frame.
    fn next_mask(&mut self) -> [u8; 4];
}

impl<F: FnMut() -> [u8; 4]> MaskSource for F {
    #[inline]
    fn next_mask(&mut self) -> [u8; 4] {
        self()
    }
}

/// The masks of frames that a server sends: none (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Unmasked;

impl MaskSource for Unmasked {
    #[inline]
    fn next_mask(&mut self) -> [u8; 4] {
        [0; 4]
    }
}

/// Keys of a CSPRNG (ChaCha12), for any number of connections.
#[cfg(feature = "masks")]
#[derive(Debug)]
pub struct Masks(ChaCha12Rng);

#[cfg(feature = "masks")]
impl Masks {
    /// Keys that nobody can foretell who does not know the seed, which the system's random source should give.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self(rand_core::SeedableRng::from_seed(seed))
    }
}

#[cfg(feature = "masks")]
impl MaskSource for Masks {
    #[inline]
    fn next_mask(&mut self) -> [u8; 4] {
        rand_core::Rng::next_u32(&mut self.0).to_ne_bytes()
    }
}

#[cfg(all(test, feature = "masks"))]
mod tests {
    use std::collections::HashSet;

    use super::*;
    /// A million masks: repeats as the birthday problem has them, and bytes that are evenly spread.
    #[test]
    fn mask_randomness() {
        const COUNT: usize = 1_000_000;
        let mut masks = Masks::new([7; 32]);
        let mut seen = HashSet::with_capacity(COUNT);
        let mut counts = [[0_u32; 256]; 4];
        let mut repeats = 0;
        for _ in 0..COUNT {
            let mask = masks.next_mask();
            repeats += usize::from(!seen.insert(mask));
            for (counts, byte) in counts.iter_mut().zip(mask) {
                counts[usize::from(byte)] += 1;
            }
        }
        // COUNT² / 2³³ = 116 are expected, with a standard deviation of 11.
        assert!((30..250).contains(&repeats), "{repeats} repeats");
        for counts in counts {
            let expected = COUNT as f64 / 256.0;
            let chi_squared: f64 =
                counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
            // 255 degrees of freedom: mean 255, standard deviation 22.6.
            assert!((120.0..400.0).contains(&chi_squared), "chi² = {chi_squared}");
        }
    }

    #[test]
    fn two_seeds_have_different_masks() {
        let mut first = Masks::new([1; 32]);
        let mut second = Masks::new([2; 32]);
        assert!((0..8).any(|_| first.next_mask() != second.next_mask()));
    }
}
