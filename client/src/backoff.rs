//! When to try again.

use std::time::Duration;

/// Delays that grow from attempt to attempt, with full jitter: each is anywhere between nothing and its ceiling, so
/// that the clients of a server that restarts do not come back all at once.
///
/// The ceiling of attempt *n*, counted from 0, is `first_delay · multiplierⁿ`, at most `max_delay`; the jitter is
/// applied after that limit, which would otherwise gather the late attempts of all clients at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Backoff {
    /// The ceiling of the first delay. Default: 500 ms.
    pub first_delay: Duration,
    /// What the ceiling grows by, at least 1. Default: 2.
    pub multiplier: f64,
    /// The highest ceiling. Default: 30 s.
    pub max_delay: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(500),
            multiplier: 2.0,
            max_delay: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// Sets [`first_delay`](Self::first_delay).
    #[must_use]
    pub const fn with_first_delay(mut self, delay: Duration) -> Self {
        self.first_delay = delay;
        self
    }

    /// Sets [`multiplier`](Self::multiplier). What is no number, or below 1, counts as 1.
    #[must_use]
    pub const fn with_multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// Sets [`max_delay`](Self::max_delay).
    #[must_use]
    pub const fn with_max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// The longest delay of this attempt, counted from 0.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        // `max` takes the other side of what is no number.
        let multiplier = self.multiplier.max(1.0);
        let exponent = i32::try_from(attempt).unwrap_or(i32::MAX);
        let seconds = self.first_delay.as_secs_f64() * multiplier.powi(exponent);
        // What is too long for a duration is beyond the limit in any case; so is 0 · ∞, unless it should be 0.
        match Duration::try_from_secs_f64(seconds) {
            _ if self.first_delay.is_zero() => Duration::ZERO,
            Ok(delay) => delay.min(self.max_delay),
            Err(_) => self.max_delay,
        }
    }

    /// The delay of this attempt, as `random` chooses it between nothing and the ceiling, both included.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let ceiling = self.ceiling(attempt).as_nanos();
        let nanos = (ceiling * u128::from(random)) / u128::from(u64::MAX);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ceilings() {
        let backoff = Backoff::default();
        let millis: Vec<_> = (0..9).map(|attempt| backoff.ceiling(attempt).as_millis()).collect();
        assert_eq!(millis, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.with_multiplier(f64::NAN).ceiling(9), backoff.first_delay);
        assert_eq!(backoff.with_multiplier(-3.0).ceiling(9), backoff.first_delay);
        assert_eq!(backoff.with_multiplier(f64::INFINITY).ceiling(1), backoff.max_delay);
        assert_eq!(backoff.with_first_delay(Duration::ZERO).ceiling(u32::MAX), Duration::ZERO);
    }

    /// Years: what a person may set. The nanoseconds of the longest fit into 64 bits.
    fn any_delay() -> impl Strategy<Value = Duration> {
        (0_u64..100_000_000, 0_u32..1_000_000_000).prop_map(|(s, n)| Duration::new(s, n))
    }

    fn any_backoff() -> impl Strategy<Value = Backoff> {
        (any_delay(), any::<f64>(), any_delay()).prop_map(|(first_delay, multiplier, max_delay)| {
            Backoff { first_delay, multiplier, max_delay }
        })
    }

    proptest! {
        #[test]
        fn a_delay_is_between_nothing_and_the_ceiling(
            backoff in any_backoff(), attempt: u32, random: u64,
        ) {
            let ceiling = backoff.ceiling(attempt);
            prop_assert!(ceiling <= backoff.max_delay);
            prop_assert!(backoff.delay(attempt, random) <= ceiling);
            prop_assert_eq!(backoff.delay(attempt, 0), Duration::ZERO);
            prop_assert_eq!(backoff.delay(attempt, u64::MAX), ceiling);
        }

        #[test]
        fn ceilings_never_sink(backoff in any_backoff(), attempt in 0..u32::MAX) {
            prop_assert!(backoff.ceiling(attempt) <= backoff.ceiling(attempt + 1));
        }

        #[test]
        fn more_random_is_more_delay(
            backoff in any_backoff(), attempt: u32, random in 0..u64::MAX,
        ) {
            prop_assert!(backoff.delay(attempt, random) <= backoff.delay(attempt, random + 1));
        }
    }
}
