//! What the kernel holds of output that peers do not take: memory like any other, which nobody reports.
//!
//! A socket is asked when there is a reason to: a timer fires on its connection, or memory is short. Until then a send
//! that does not go out says that its socket is full, and that counts for the least that a full socket has.

use std::collections::HashMap;

use crate::base::timer::Tick;
use crate::limits::memory::Level;

/// Where no mark is set that is less, what a full socket has at least, in bytes: the send buffer that tcp(7) starts
/// with grows to that before the first acknowledgement.
const FULL_LEN: usize = 32 << 10;
/// How old an answer may be while memory is short, in ticks, and how old at other times.
const SHORT: Tick = 2;
const LONG: Tick = 50;

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(crate) struct KernelMemory {
    /// Sockets that had something when they were asked, by slot.
    seen: HashMap<u32, usize>,
    seen_len: usize,
    /// Sends that did not go out.
    stuck: usize,
    /// What each of them stands for.
    full_len: usize,
    asked: Tick,
}

impl KernelMemory {
    /// A socket is full when it has as much as one of these marks, in bytes.
    pub(crate) fn new(marks: [Option<usize>; 2]) -> Self {
        let full_len = marks.into_iter().flatten().min().unwrap_or(FULL_LEN);
        Self { full_len, ..Self::default() }
    }

    /// In bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.seen_len + self.unseen() * self.full_len
    }

    /// Full sockets that were not asked.
    fn unseen(&self) -> usize {
        self.stuck.saturating_sub(self.seen.len())
    }

    /// What the socket of a connection had when it was asked.
    pub(crate) fn of(&self, slot: u32) -> usize {
        if self.seen.is_empty() { 0 } else { self.seen.get(&slot).copied().unwrap_or(0) }
    }

    /// A turn is over with so many sends that did not go out.
    #[inline]
    pub(crate) fn set_stuck(&mut self, count: usize) {
        self.stuck = count;
    }

    /// A socket was asked.
    pub(crate) fn note(&mut self, slot: u32, len: usize) {
        let before = match len {
            0 => self.seen.remove(&slot),
            len => self.seen.insert(slot, len),
        };
        self.seen_len = self.seen_len - before.unwrap_or(0) + len;
        if self.seen.is_empty() {
            // A burst of slow peers leaves nothing behind.
            self.seen = HashMap::new();
        }
    }

    /// A connection has ended, and its socket is closed.
    #[inline]
    pub(crate) fn forget(&mut self, slot: u32) {
        if self.of(slot) > 0 {
            self.note(slot, 0);
            self.stuck = self.stuck.saturating_sub(1);
        }
    }

    /// Whether all are to be asked once more.
    #[inline]
    pub(crate) fn is_due(&self, now: Tick, level: Level) -> bool {
        let age = now.saturating_sub(self.asked);
        let (has_seen, has_unseen) = (!self.seen.is_empty(), self.unseen() > 0);
        match level {
            Level::Low => has_seen && age >= LONG,
            Level::High => (has_seen || has_unseen) && age >= SHORT,
            Level::Over => has_unseen || age >= SHORT,
        }
    }

    /// When answers are too old though memory is not short.
    pub(crate) fn next_tick(&self) -> Option<Tick> {
        (!self.seen.is_empty()).then_some(self.asked + LONG)
    }

    /// All are asked now.
    pub(crate) fn ask(&mut self, now: Tick) {
        self.asked = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: usize = 128 << 10;

    fn memory() -> KernelMemory {
        KernelMemory::new([Some(MARK), None])
    }

    #[test]
    fn a_full_socket_counts_for_the_lowest_mark_until_it_is_asked() {
        let len_of = |marks| {
            let mut memory = KernelMemory::new(marks);
            memory.set_stuck(3);
            memory.len()
        };
        assert_eq!(len_of([Some(MARK), None]), 3 * MARK);
        assert_eq!(len_of([Some(MARK), Some(9000)]), 27_000);
        assert_eq!(len_of([None, None]), 3 * FULL_LEN);
        let mut memory = memory();
        memory.set_stuck(3);
        memory.note(7, 200_000);
        memory.note(9, 1000);
        assert_eq!(memory.len(), 201_000 + MARK);
        memory.note(7, 100_000);
        assert_eq!((memory.of(7), memory.of(8), memory.len()), (100_000, 0, 101_000 + MARK));
    }

    #[test]
    fn who_has_ended_or_has_nothing_counts_for_nothing() {
        let mut memory = memory();
        memory.set_stuck(2);
        memory.note(7, 200_000);
        memory.note(9, 1000);
        memory.forget(7);
        memory.forget(8);
        assert_eq!(memory.len(), 1000);
        memory.set_stuck(1);
        memory.note(9, 0);
        memory.set_stuck(0);
        assert_eq!(memory.len(), 0);
        for level in [Level::Low, Level::High] {
            assert!(!memory.is_due(1000, level), "there is nobody to be asked");
        }
        assert_eq!(memory.next_tick(), None);
    }

    #[test]
    fn answers_get_old() {
        let mut memory = memory();
        memory.note(7, 200_000);
        memory.ask(100);
        for level in [Level::High, Level::Over] {
            assert!(!memory.is_due(101, level) && memory.is_due(102, level));
        }
        assert_eq!(memory.next_tick(), Some(150));
        assert!(!memory.is_due(149, Level::Low) && memory.is_due(150, Level::Low));
        memory.set_stuck(2);
        assert!(memory.is_due(100, Level::Over), "one was not asked at all");
        assert!(!memory.is_due(100, Level::High) && !memory.is_due(100, Level::Low));
    }
}
