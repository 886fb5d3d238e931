//! Masking keys.

use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use ringwire_codec::MaskSource;

/// Masking keys of the client role from a CSPRNG (RFC 6455 §5.3, §10.3), one for each worker.
#[derive(Debug)]
pub(crate) struct Masks(ChaCha12Rng);

impl Masks {
    /// Seeded by the caller.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(rand_core::SeedableRng::from_seed(seed))
    }
}

impl MaskSource for Masks {
    fn next_mask(&mut self) -> [u8; 4] {
        self.0.next_u32().to_ne_bytes()
    }
}

/// The masks of frames that a server sends: none (RFC 6455 §5.1).
#[derive(Debug)]
pub(crate) struct Unmasked;

impl MaskSource for Unmasked {
    fn next_mask(&mut self) -> [u8; 4] {
        [0; 4]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A million masks: repeats as the birthday problem has them, and bytes that are evenly spread.
    #[test]
    fn mask_randomness() {
        const COUNT: usize = 1_000_000;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let mut masks = Masks::new(seed);
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
    fn two_workers_have_different_masks() {
        let mut first = Masks::new([1; 32]);
        let mut second = Masks::new([2; 32]);
        assert!((0..8).any(|_| first.next_mask() != second.next_mask()));
    }
}
