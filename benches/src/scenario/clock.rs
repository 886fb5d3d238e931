//! The time of a run.
#![expect(clippy::disallowed_methods, reason = "a load generator measures time")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of a run: the same in all its processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunClock {
    started: Instant,
    /// Time of the run when `started` was.
    offset: Duration,
}

impl RunClock {
    /// A clock whose zero is so many nanoseconds after 1970.
    pub(crate) fn new(epoch: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = now.saturating_sub(Duration::from_nanos(epoch));
        Self { started: Instant::now(), offset }
    }

    /// Time since the run began.
    pub(crate) fn elapsed(self) -> Duration {
        self.offset + self.started.elapsed()
    }

    /// The same in nanoseconds.
    pub(crate) fn nanos(self) -> u64 {
        nanos(self.elapsed())
    }
}

/// A duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
