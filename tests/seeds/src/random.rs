//! The randomness of a seed.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Everything that a seed decides comes from one of these, so a run can be had again.
#[derive(Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// What follows from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// True with this probability. Draws nothing for what never happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && f64::from(self.0.next_u32()) < probability * 4_294_967_296.0
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let drawn = self.0.next_u64() % u64::try_from(bound).expect("a usize fits in 64 bits");
        usize::try_from(drawn).expect("below a usize")
    }

    /// A number of the range.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// At least 1 and at most `whole`; every other time just a few.
    pub fn part_of(&mut self, whole: usize) -> usize {
        if self.chance(0.5) { self.within(1..=whole.min(8)) } else { self.within(1..=whole) }
    }

    /// A time of at most `longest`, to the microsecond.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        let micros = usize::try_from(longest.as_micros()).expect("a delay in a test is short");
        Duration::from_micros(u64::try_from(self.below(micros + 1)).expect("fits"))
    }

    /// Any bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// A seed for another source of randomness.
    pub fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }
}
