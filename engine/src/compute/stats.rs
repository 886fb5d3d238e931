//! What the compute threads do, counted by all who take part in it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Which queue a job waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The engine's own jobs, which take milliseconds at most and go first.
    Engine,
    /// The handlers' jobs.
    Application,
}

/// Counts jobs, and bounds how many may wait.
#[derive(Debug)]
pub(crate) struct Meter {
    thread_count: usize,
    queue_len: usize,
    /// By lane.
    waiting: [AtomicUsize; 2],
    running: AtomicUsize,
    done: AtomicU64,
    panicked: AtomicU64,
    cancelled: AtomicU64,
    refused: AtomicU64,
    wait: Histogram,
    run: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
    counts: [AtomicU64; Times::BUCKETS],
}

/// The compute threads, from [`Handle::stats`](crate::Handle::stats): jobs that handlers
/// [offloaded](crate::Ctx::offload), and the engine's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ComputeStats {
    /// Gauge: threads.
    pub threads: u64,
    /// Gauge: jobs that wait for a thread.
    pub waiting: u64,
    /// Gauge: jobs that run.
    pub running: u64,
    /// Jobs that ran to their end.
    pub done: u64,
    /// Jobs that ran and panicked. They are not among those [done](Self::done).
    pub panicked: u64,
    /// Jobs that were not begun, since their connection had ended.
    pub cancelled: u64,
    /// Jobs that were refused: the queue was full, or the connection had as many as it may.
    pub refused: u64,
    /// How long those that ran had waited.
    pub wait: Times,
    /// How long they ran.
    pub run: Times,
}

/// How long something took, each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Times {
    /// All of it.
    pub sum: Duration,
    /// The longest.
    pub max: Duration,
    /// How often it took less than 1 µs, 1 µs to less than 2, 2 to less than 4, and so on by powers of two; the last
    /// also counts all beyond.
    pub counts: [u64; Self::BUCKETS],
}

impl Times {
    /// The number of [`counts`](Self::counts): the last begins at 67 s.
    pub const BUCKETS: usize = 28;

    /// How often.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What the share `quantile` (0 to 1) of all took no longer than, rounded up to a power of two of microseconds
    /// or the longest. Zero where there was nothing.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let wanted = self.count() as f64 * quantile;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted && bucket + 1 < Self::BUCKETS {
                return Duration::from_micros(1 << bucket).min(self.max);
            }
        }
        self.max
    }
}

impl Meter {
    pub(crate) fn new(thread_count: usize, queue_len: usize) -> Self {
        Self {
            thread_count,
            queue_len,
            waiting: Default::default(),
            running: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            wait: Histogram::default(),
            run: Histogram::default(),
        }
    }

    /// Another job wants to wait; whether there is room, which it has then.
    pub(super) fn enter(&self, lane: Lane) -> bool {
        let more = |waiting| (waiting < self.queue_len).then_some(waiting + 1);
        let entered = self.waiting[lane as usize]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok();
        if !entered {
            self.note_refused();
        }
        entered
    }

    /// It waits no more.
    pub(super) fn leave(&self, lane: Lane) {
        self.waiting[lane as usize].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// A job begins that has waited for this long.
    pub(super) fn begin(&self, waited: Duration) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.wait.note(waited);
    }

    /// It is over.
    pub(super) fn end(&self, ran: Duration, panicked: bool) {
        self.run.note(ran);
        let count = if panicked { &self.panicked } else { &self.done };
        count.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// The present values.
    pub(crate) fn read(&self) -> ComputeStats {
        let waiting = self.waiting.iter().map(|waiting| waiting.load(Ordering::Relaxed));
        ComputeStats {
            threads: self.thread_count as u64,
            waiting: waiting.sum::<usize>() as u64,
            running: self.running.load(Ordering::Relaxed) as u64,
            done: self.done.load(Ordering::Relaxed),
            panicked: self.panicked.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            wait: self.wait.read(),
            run: self.run.read(),
        }
    }
}

impl Histogram {
    fn note(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
        // 0 µs has no bits, 1 has one, 2 and 3 have two.
        let bits = (u64::BITS - (ns / 1000).leading_zeros()) as usize;
        self.counts[bits.min(Times::BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Times {
        Times {
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
            max: Duration::from_nanos(self.max_ns.load(Ordering::Relaxed)),
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_by_powers_of_two() {
        let histogram = Histogram::default();
        for ns in [0, 999, 1000, 1999, 2000, 4_000_000, u64::MAX] {
            histogram.note(Duration::from_nanos(ns));
        }
        let times = histogram.read();
        assert_eq!(times.counts[..4], [2, 2, 1, 0]);
        assert_eq!(times.counts[12], 1, "2048 to 4095 µs");
        assert_eq!(times.counts[Times::BUCKETS - 1], 1);
        assert_eq!(times.count(), 7);
        assert_eq!(times.max, Duration::from_nanos(u64::MAX));
        assert_eq!(times.quantile(0.25), Duration::from_micros(1));
        assert_eq!(times.quantile(0.5), Duration::from_micros(2));
        assert_eq!(times.quantile(0.8), Duration::from_micros(4096));
        assert_eq!(times.quantile(1.0), times.max);
        assert_eq!(Times::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn no_more_wait_than_may() {
        let meter = Meter::new(1, 2);
        assert!(meter.enter(Lane::Application) && meter.enter(Lane::Application));
        assert!(!meter.enter(Lane::Application));
        assert!(meter.enter(Lane::Engine), "the engine's jobs wait elsewhere");
        assert_eq!((meter.read().waiting, meter.read().refused), (3, 1));
        meter.leave(Lane::Application);
        assert!(meter.enter(Lane::Application));
    }
}
