//! What the coordinating thread and the load threads tell each other.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// How far a run is. The coordinator moves it on; the load threads look at it once a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Connections are made.
    Connect,
    /// Each connection has one message echoed, and rests: with compression, what it holds at rest is told by that.
    First,
    /// Messages flow, latencies do not count.
    WarmUp,
    /// Latencies count.
    Measure,
    /// The run is over.
    Stop,
}

/// The stage, shared, and the number of the interval between two samples.
#[derive(Debug)]
pub(crate) struct StageCell {
    stage: AtomicU8,
    interval: AtomicU32,
}

impl StageCell {
    /// Begins with `Connect`.
    pub(crate) fn new() -> Self {
        Self { stage: AtomicU8::new(Stage::Connect as u8), interval: AtomicU32::new(0) }
    }

    /// Moves on.
    pub(crate) fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// The stage now.
    pub(crate) fn get(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Connect,
            1 => Stage::First,
            2 => Stage::WarmUp,
            3 => Stage::Measure,
            _ => Stage::Stop,
        }
    }

    /// Begins another interval.
    pub(crate) fn set_interval(&self, interval: u32) {
        self.interval.store(interval, Ordering::Relaxed);
    }

    /// The interval now.
    pub(crate) fn interval(&self) -> u32 {
        self.interval.load(Ordering::Relaxed)
    }
}

/// Running totals of one load thread, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Gauge {
    /// The kernel's number of the thread; zero until it runs.
    pub(crate) thread_id: AtomicU32,
    /// Connections that became open.
    pub(crate) opened: AtomicU64,
    /// Connections that failed, before or after they were open.
    pub(crate) failed: AtomicU64,
    /// Those of them that were open.
    pub(crate) lost: AtomicU64,
    /// Those of them that had had an echo.
    pub(crate) served: AtomicU64,
    /// When the last connection became open, in microseconds since the run began.
    pub(crate) last_opened: AtomicU64,
    /// Messages whose echo is complete.
    pub(crate) messages: AtomicU64,
}

impl Gauge {
    /// Adds to a total that only the calling thread writes.
    #[inline]
    pub(crate) fn add(total: &AtomicU64, count: u64) {
        total.store(total.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

/// The sum of one total over all load threads.
pub(crate) fn sum(gauges: &[Gauge], total: impl Fn(&Gauge) -> &AtomicU64) -> u64 {
    gauges.iter().map(|gauge| total(gauge).load(Ordering::Relaxed)).sum()
}
