//! The memory that the engine holds for connections, and what happens when that gets too much.
//!
//! Each worker keeps its own sums ([`Ledger`]) in plain numbers and publishes them once a turn among its counters;
//! whoever needs the total adds them up ([`Allowance`]). What a worker does about it is in `worker/memory.rs`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::timer::Tick;
use crate::conn::charge::Charge;
use crate::limits::machine;

/// What the engine keeps beside each slot of the connection table: the driver's entry and the timer's.
pub(crate) const BESIDE_A_SLOT: usize = 24;
/// What a TLS session takes once its handshake is over (`ringwire_tls`, `tests/memory.rs`), rounded up for its
/// allocations. What it keeps of a record that is not whole is counted apart.
pub(crate) const SESSION_LEN: usize = 4 << 10;
/// What a worker has to hold more or less to look at the total again, though the tick has not changed.
const STEP: usize = 256 << 10;

/// What a worker holds for its connections, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Messages that are being assembled.
    pub(crate) unfinished: usize,
    /// Input that waits, requests and bodies.
    pub(crate) input: usize,
    /// Output that waits.
    pub(crate) queued: usize,
    /// Output that the driver has. What many connections send counts among the publications.
    pub(crate) in_flight: usize,
}

impl Ledger {
    /// A connection holds something else than before.
    #[inline]
    pub(crate) fn replace(&mut self, before: Charge, now: Charge) {
        self.input = self.input - before.input + now.input;
        self.queued = self.queued - before.queued + now.queued;
    }

    /// What connections hold that could be had by ending them.
    pub(crate) fn held(&self) -> usize {
        self.unfinished + self.input + self.queued + self.in_flight
    }
}

/// What all workers may hold together, and whether they hold too much.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// In bytes.
    len: usize,
    /// New connections are refused. Outlives the moment at which it began, so that it does not change with each buffer.
    refuses: AtomicBool,
}

/// How much of the budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Not much.
    Low,
    /// So much that nobody new is let in.
    High,
    /// All of it: connections are ended.
    Over,
}

impl Allowance {
    /// 0: without a limit.
    pub(crate) fn new(max_memory: usize) -> Self {
        let len = if max_memory == 0 { usize::MAX } else { max_memory };
        Self { len, refuses: AtomicBool::new(false) }
    }

    /// In bytes, where there is a limit.
    pub(crate) fn len(&self) -> Option<usize> {
        (self.len != usize::MAX).then_some(self.len)
    }

    /// Refusing begins at seven eighths of the budget, and ends at three quarters of it.
    pub(crate) fn judge(&self, used: usize) -> Level {
        let from =
            if self.refuses.load(Ordering::Relaxed) { self.len / 4 * 3 } else { self.len / 8 * 7 };
        let refuses = used >= from;
        self.refuses.store(refuses, Ordering::Relaxed);
        match refuses {
            _ if used >= self.len => Level::Over,
            true => Level::High,
            false => Level::Low,
        }
    }

    /// What a worker may hold where all together hold too much, so that they do not do so again at once. Publications
    /// have a limit of their own; where that leaves next to nothing, connections are not ended for it.
    pub(crate) fn share(&self, publications: usize, workers: usize) -> usize {
        (self.len / 16 * 15 - publications.min(self.len / 2)) / workers.max(1)
    }
}

/// When a worker looks at the total, and what it saw.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) level: Level,
    looked_at: Tick,
    held: usize,
    /// Until then nothing is shed, since what was shed last is still on its way out.
    pub(crate) rests_until: Option<Tick>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { level: Level::Low, looked_at: 0, held: 0, rests_until: None }
    }
}

impl Watch {
    /// Whether it is time to look again.
    #[inline]
    pub(crate) fn is_due(&self, now: Tick, held: usize) -> bool {
        self.looked_at != now || held.abs_diff(self.held) > STEP
    }

    pub(crate) fn note(&mut self, now: Tick, held: usize, level: Level) {
        (self.looked_at, self.held, self.level) = (now, held, level);
    }
}

/// The budget that the settings ask for: 0 is half of what this process may have, by its cgroup and the machine.
pub(crate) fn budget_of(max_memory: usize) -> usize {
    match max_memory {
        0 => machine::memory().map_or(0, |len| len / 2),
        set => set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusing_outlives_its_beginning() {
        let allowance = Allowance::new(800);
        assert_eq!(allowance.judge(699), Level::Low);
        assert_eq!(allowance.judge(700), Level::High);
        assert_eq!(allowance.judge(650), Level::High);
        assert_eq!(allowance.judge(900), Level::Over);
        assert_eq!(allowance.judge(599), Level::Low);
        assert_eq!(allowance.judge(650), Level::Low);
    }

    #[test]
    fn shares_leave_room_for_publications() {
        let allowance = Allowance::new(1600);
        assert_eq!(allowance.share(0, 2), 750);
        assert_eq!(allowance.share(500, 2), 500);
        assert_eq!(allowance.share(5000, 2), 350);
        let unlimited = Allowance::new(0);
        assert_eq!((unlimited.len(), unlimited.judge(usize::MAX / 2)), (None, Level::Low));
    }

    #[test]
    fn the_total_is_looked_at_once_a_tick_and_after_a_step() {
        let mut watch = Watch::default();
        watch.note(7, 1000, Level::High);
        assert!(!watch.is_due(7, 1000 + STEP));
        assert!(watch.is_due(7, 1001 + STEP));
        watch.note(7, 1001 + STEP, Level::High);
        assert!(watch.is_due(7, 1000) && !watch.is_due(7, 1001));
        assert!(watch.is_due(8, 0));
    }
}
