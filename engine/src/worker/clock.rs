//! The worker's clock. It is read at the two ends of the wait and at no other time.

#![expect(clippy::disallowed_methods, reason = "here is where the clock is read, twice a turn")]

use std::time::{Duration, Instant};

#[cfg(any(test, feature = "testing"))]
use crate::driver::sim::World;

/// The time of a turn, and what the turn before took.
#[derive(Debug)]
pub(crate) struct TurnClock {
    source: Source,
    now: Duration,
    busy: Duration,
}

#[derive(Debug)]
enum Source {
    /// The monotonic clock, from here on.
    Since(Instant),
    /// That of a simulated network.
    #[cfg(any(test, feature = "testing"))]
    Simulated(World),
}

impl TurnClock {
    /// A clock that begins at zero.
    pub(crate) fn start() -> Self {
        Self::of(Source::Since(Instant::now()))
    }

    /// The clock of a simulated network, which stands still while the worker is at work.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn simulated(world: &World) -> Self {
        Self::of(Source::Simulated(world.clone()))
    }

    fn of(source: Source) -> Self {
        Self { source, now: Duration::ZERO, busy: Duration::ZERO }
    }

    /// Time since the worker was made, as of the end of the last wait.
    #[inline]
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// How long the worker was at work between the last two waits.
    #[inline]
    pub(crate) fn busy(&self) -> Duration {
        self.busy
    }

    #[inline]
    pub(super) fn wait_begins(&mut self) {
        self.busy = self.read().saturating_sub(self.now);
    }

    #[inline]
    pub(super) fn wait_ended(&mut self) {
        self.now = self.read();
    }

    #[inline]
    fn read(&self) -> Duration {
        match &self.source {
            Source::Since(start) => start.elapsed(),
            #[cfg(any(test, feature = "testing"))]
            Source::Simulated(world) => world.clock(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::sim::{Faults, Sim};

    #[test]
    fn work_and_waiting_are_told_apart() {
        let (_driver, world) = Sim::new(0, Faults::none(), 0);
        let mut clock = TurnClock::simulated(&world);
        let until = |ms| {
            world.alarm(Duration::from_millis(ms));
            world.advance();
        };
        until(3);
        clock.wait_begins();
        until(10);
        assert_eq!(clock.now(), Duration::ZERO, "it is read at the ends of a wait only");
        clock.wait_ended();
        let (now, busy) = (clock.now(), clock.busy());
        assert_eq!((now, busy), (Duration::from_millis(10), Duration::from_millis(3)));
        until(12);
        assert_eq!(clock.now(), now, "time passes in a wait only");
        clock.wait_begins();
        assert_eq!((clock.now(), clock.busy()), (now, Duration::from_millis(2)));
    }
}
