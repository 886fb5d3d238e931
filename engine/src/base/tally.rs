//! Counts that many threads add to.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Threads count in lines of their own, as long as there are no more of them than these.
const SHARDS: usize = 64;

/// What an application counts by kind, in a handler, say: `KINDS` counts that all workers add to without waiting for
/// each other, and that anybody can read. Each takes 64 × 8 bytes, and at least 8 KiB are taken in all.
///
/// ```
/// use ringwire::stats::Tally;
///
/// #[derive(Clone, Copy)]
/// enum Kind {
///     Chat,
///     Ping,
/// }
///
/// static MESSAGES: std::sync::LazyLock<Tally<2>> = std::sync::LazyLock::new(Tally::default);
///
/// MESSAGES.add(Kind::Ping as usize);
/// assert_eq!(MESSAGES.sums(), [0, 1]);
/// # let _ = Kind::Chat;
/// ```
#[derive(Debug)]
pub struct Tally<const KINDS: usize> {
    shards: Box<[Shard<KINDS>]>,
}

/// Two cache lines at least, since processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<const KINDS: usize>([AtomicU64; KINDS]);

impl<const KINDS: usize> Default for Tally<KINDS> {
    fn default() -> Self {
        let shard = || Shard(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
    }
}

impl<const KINDS: usize> Tally<KINDS> {
    /// Counts one of this kind.
    ///
    /// # Panics
    /// There is no such kind: it is `KINDS` or more.
    pub fn add(&self, kind: usize) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        let Shard(counts) = &self.shards[SHARD.get()];
        counts[kind].fetch_add(1, Ordering::Relaxed);
    }

    /// How many of each kind were counted. What others count meanwhile may be in it or not.
    #[must_use]
    pub fn sums(&self) -> [u64; KINDS] {
        let sum = |kind: usize| {
            self.shards.iter().map(|Shard(counts)| counts[kind].load(Ordering::Relaxed)).sum()
        };
        std::array::from_fn(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_into_one_sum() {
        let tally = Tally::<3>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|number| tally.add(number % 2 * 2)));
            }
        });
        assert_eq!(tally.sums(), [2000, 0, 2000]);
    }

    #[test]
    fn threads_share_no_cache_line() {
        assert_eq!(align_of::<Shard<1>>(), 128);
        assert_eq!(size_of::<Shard<17>>(), 256);
    }
}
