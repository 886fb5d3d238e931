//! The memory that the engine holds for connections, and what happens when that gets too much.
//!
//! Each worker keeps its own sums ([`Ledger`]) in plain numbers and publishes them once a turn among its counters;
//! whoever needs the total adds them up ([`Allowance`]). What a worker does about it is in `worker/memory.rs`.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::base::amount::Sizing;
use crate::base::timer::Tick;
use crate::conn::charge::Charge;
use crate::driver::Token;
use crate::limits::machine;

/// What the engine keeps beside each slot of the connection table: the driver's entry and the timer's.
pub(crate) const BESIDE_A_SLOT: usize = 24;
/// What a TLS session takes once its handshake is over (`ringwire_tls`, `tests/memory.rs`), rounded up for its
/// allocations. What it keeps of a record that is not whole is counted apart.
pub(crate) const SESSION_LEN: usize = 4 << 10;
/// What a worker has to hold more or less to look at the total again, though the tick has not changed. Less where the
/// budget is small: all workers together go past it by a sixteenth unseen.
const MAX_STEP: usize = 256 << 10;
const MIN_STEP: usize = 16 << 10;

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
    /// How often a worker that gave up what it had to has asked the others to do so.
    demands: AtomicU32,
}

/// What all workers hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Total {
    /// For connections, in bytes.
    pub(crate) connections: usize,
    /// For publications.
    pub(crate) publications: usize,
    pub(crate) workers: usize,
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
    /// `None`: without a limit.
    pub(crate) fn new(max_memory: Option<usize>) -> Self {
        Self {
            len: max_memory.unwrap_or(usize::MAX),
            refuses: AtomicBool::new(false),
            demands: AtomicU32::new(0),
        }
    }

    /// In bytes, where there is a limit.
    pub(crate) fn len(&self) -> Option<usize> {
        (self.len != usize::MAX).then_some(self.len)
    }

    /// Asks all workers to give up what is beyond their share, also where all together hold less than the budget. Gives
    /// what [`demands`](Self::demands) is then.
    pub(crate) fn demand(&self) -> u32 {
        self.demands.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Changes with each demand.
    pub(crate) fn demands(&self) -> u32 {
        self.demands.load(Ordering::Relaxed)
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

    /// What a worker may hold once it has ended connections, so that others are let in again: less than where refusing
    /// ends. Publications have a limit of their own; where that leaves next to nothing, connections are not ended for
    /// it.
    pub(crate) fn share(&self, publications: usize, workers: usize) -> usize {
        (self.len / 16 * 11 - publications.min(self.len / 2)) / workers.max(1)
    }

    /// What a worker that holds `own` has to give up: what is beyond its share, and no more than all together hold
    /// beyond theirs. `fixed` of it does not come free with connections.
    pub(crate) fn excess(&self, total: Total, own: usize, fixed: usize, step: usize) -> usize {
        let Total { connections, publications, workers } = total;
        let share = self.share(publications, workers);
        let own = own.saturating_sub(share.max(fixed.saturating_add(step)));
        own.min(connections.saturating_sub(share * workers))
    }

    /// How many bytes of free buffers each worker may keep: no more than an eighth of the budget for all of them.
    pub(crate) fn free_share(&self, workers: usize) -> usize {
        self.len / 8 / workers.max(1)
    }

    /// What one of so many workers may come to hold before it looks at the total again.
    pub(crate) fn step(&self, workers: usize) -> usize {
        (self.len / 16 / workers.max(1)).clamp(MIN_STEP, MAX_STEP)
    }
}

/// When a worker looks at the total, and what it saw.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) level: Level,
    looked_at: Tick,
    held: usize,
    step: usize,
    /// When memory that is not needed any more goes back to the system.
    pub(crate) returns_at: Option<Tick>,
    /// When patience ends with those that keep others out, while it is [`Level::High`] at least.
    pub(crate) patience_ends: Option<Tick>,
    /// Until then the table is not walked over again, unless the last walk found all that was too much, or much more
    /// has come in since.
    pub(crate) rests_until: Option<Tick>,
    /// What was held after that walk.
    left_len: usize,
    /// The same for those who were not let in yet.
    pub(crate) strangers_rest_until: Tick,
    /// The demand of another worker that was met last ([`Allowance::demands`]).
    pub(crate) met: u32,
    /// What is in flight of connections that were ended for want of memory, and comes back when the driver says so.
    pub(crate) leaving: usize,
    /// Connections of which nothing is received until there is memory again.
    pub(crate) held_up: Vec<Token>,
    told: Told,
    /// The most that was ever held.
    #[cfg(test)]
    pub(crate) peak: usize,
}

/// How long others may be kept out by what is not finished, in ticks. Less than they are told to stay away.
pub(crate) const PATIENCE: Tick = 50;

/// Memory that was used for connections and is not any more: the allocator keeps it, whatever the system needs.
#[derive(Debug, Default)]
pub(crate) struct Slack {
    /// The most that was used since it last went back.
    most: AtomicUsize,
}

impl Slack {
    /// Less is not worth a call that holds allocations up.
    const MIN_LEN: usize = 4 << 20;

    /// Notes what is used now. Whether half of what was used is free.
    pub(crate) fn is_large(&self, used: usize) -> bool {
        let most = self.most.fetch_max(used, Ordering::Relaxed).max(used);
        most - used >= used.max(Self::MIN_LEN)
    }

    /// It goes back.
    pub(crate) fn forget(&self, used: usize) {
        self.most.store(used, Ordering::Relaxed);
    }
}

/// What was logged of connections that were ended, which an attack makes many.
#[derive(Debug, Default)]
struct Told {
    next: Tick,
    ended: Ended,
}

/// Connections that were ended, and how many bytes that freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) count: usize,
    pub(crate) freed: usize,
}

/// How long nothing more is logged of it, in ticks.
const SILENCE: Tick = 10;

impl Watch {
    pub(crate) fn new(step: usize) -> Self {
        Self {
            level: Level::Low,
            looked_at: 0,
            held: 0,
            step,
            returns_at: None,
            patience_ends: None,
            rests_until: None,
            left_len: 0,
            strangers_rest_until: 0,
            met: 0,
            leaving: 0,
            held_up: Vec::new(),
            told: Told::default(),
            #[cfg(test)]
            peak: 0,
        }
    }

    /// Connections were ended. What to log of that and of what was not logged before.
    pub(crate) fn tell(&mut self, now: Tick, ended: Ended) -> Option<Ended> {
        let told = &mut self.told;
        told.ended.count += ended.count;
        told.ended.freed = told.ended.freed.saturating_add(ended.freed);
        if now < told.next {
            return None;
        }
        told.next = now + SILENCE;
        Some(std::mem::take(&mut told.ended))
    }

    /// Whether it is time to look again.
    #[inline]
    pub(crate) fn is_due(&self, now: Tick, held: usize) -> bool {
        self.looked_at != now || held.abs_diff(self.held) > self.step
    }

    /// The same within a turn: whether so much has come in since the last look.
    #[inline]
    pub(crate) fn has_grown(&self, held: usize) -> bool {
        held > self.held + self.step
    }

    /// The table is not walked over again for a while: it has next to nothing beside the `left` bytes that stay.
    pub(crate) fn rest(&mut self, until: Tick, left: usize) {
        (self.rests_until, self.left_len) = (Some(until), left);
    }

    /// Whether that is no longer so, since so much has come in.
    pub(crate) fn has_grown_in_rest(&self) -> bool {
        self.held > self.left_len + self.step
    }

    pub(crate) fn note(&mut self, now: Tick, held: usize, level: Level) {
        (self.looked_at, self.held, self.level) = (now, held, level);
        if level == Level::Low {
            self.patience_ends = None;
        } else if self.patience_ends.is_none() {
            self.patience_ends = Some(now + PATIENCE);
        }
    }
}

/// Has the allocator leave most of the address space to what is allocated, where that is limited (RLIMIT_AS). To be
/// called before there are threads.
pub(crate) fn fit_address_space() {
    if let Some(left) = machine::address_space() {
        crate::driver::heap::limit_arenas(left / 8);
    }
}

/// The budget that the settings ask for: by itself half of what this process may have beyond what it needs in any case,
/// where something says how much that is.
pub(crate) fn budget_of(max_memory: Sizing) -> Option<usize> {
    max_memory.fixed().or_else(|| machine::memory().map(default_of))
}

/// The program takes some of it for itself, and the kernel 4 KiB for each socket, which a cgroup counts.
fn default_of(len: usize) -> usize {
    const OWN_LEN: usize = 32 << 20;
    (len.saturating_sub(OWN_LEN) / 2).max(len / 8)
}

/// A budget inside that of all memory: at most half of it.
pub(crate) fn within(len: usize, max_memory: Option<usize>) -> usize {
    max_memory.map_or(len, |all| len.min(all / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusing_outlives_its_beginning() {
        let allowance = Allowance::new(Some(800));
        assert_eq!(allowance.judge(699), Level::Low);
        assert_eq!(allowance.judge(700), Level::High);
        assert_eq!(allowance.judge(650), Level::High);
        assert_eq!(allowance.judge(900), Level::Over);
        assert_eq!(allowance.judge(599), Level::Low);
        assert_eq!(allowance.judge(650), Level::Low);
    }

    #[test]
    fn shares_leave_room_for_publications() {
        let allowance = Allowance::new(Some(1600));
        assert_eq!(allowance.share(0, 2), 550);
        assert_eq!(allowance.share(500, 2), 300);
        assert_eq!(allowance.share(5000, 2), 150);
        let unlimited = Allowance::new(None);
        assert_eq!((unlimited.len(), unlimited.judge(usize::MAX / 2)), (None, Level::Low));
    }

    #[test]
    fn room_for_newcomers_is_below_where_refusing_ends() {
        let allowance = Allowance::new(Some(1600));
        assert_eq!(allowance.judge(1400), Level::High);
        assert_eq!(allowance.judge(allowance.share(0, 1)), Level::Low);
    }

    #[test]
    fn a_worker_gives_up_no_more_than_is_too_much_in_all() {
        let excess = |connections, own, fixed| {
            let total = Total { connections, publications: 0, workers: 2 };
            Allowance::new(Some(1600)).excess(total, own, fixed, 10)
        };
        assert_eq!(excess(1600, 1600, 0), 500, "the other holds nothing");
        assert_eq!(excess(1600, 800, 0), 250);
        assert_eq!(excess(1600, 500, 0), 0, "the other holds it");
        assert_eq!(excess(1600, 1600, 1500), 90, "most of it is fixed");
    }

    #[test]
    fn all_workers_together_go_past_it_by_a_sixteenth_unseen() {
        for (len, workers) in [(16 << 20, 1), (16 << 20, 8), (4 << 20, 4), (1 << 20, 2)] {
            assert!(
                Allowance::new(Some(len)).step(workers) * workers <= len / 16,
                "{len} {workers}"
            );
        }
        assert_eq!(Allowance::new(None).step(1), MAX_STEP);
    }

    #[test]
    fn the_total_is_looked_at_once_a_tick_and_after_a_step() {
        const STEP: usize = MAX_STEP;
        let mut watch = Watch::new(STEP);
        watch.note(7, 1000, Level::High);
        assert!(!watch.is_due(7, 1000 + STEP) && !watch.has_grown(1000 + STEP));
        assert!(watch.is_due(7, 1001 + STEP) && watch.has_grown(1001 + STEP));
        watch.note(7, 1001 + STEP, Level::High);
        assert!(watch.is_due(7, 1000) && !watch.is_due(7, 1001) && !watch.has_grown(0));
        assert!(watch.is_due(8, 0));
    }

    #[test]
    fn by_default_half_is_left_to_others() {
        const MIB: usize = 1 << 20;
        let defaults = [8, 64, 128, 256, 1024].map(|len| default_of(len * MIB) / MIB);
        assert_eq!(defaults, [1, 16, 48, 112, 496]);
    }

    #[test]
    fn memory_goes_back_when_half_of_it_is_free() {
        const MIB: usize = 1 << 20;
        let slack = Slack::default();
        assert!(!slack.is_large(20 * MIB) && !slack.is_large(11 * MIB) && slack.is_large(10 * MIB));
        slack.forget(10 * MIB);
        assert!(!slack.is_large(7 * MIB) && !slack.is_large(12 * MIB), "it is worth nothing");
        assert!(slack.is_large(0));
        slack.forget(0);
        assert!(!slack.is_large(3 * MIB) && !slack.is_large(0));
    }

    #[test]
    fn what_is_not_logged_is_added_to_the_next_line() {
        let mut watch = Watch::new(MAX_STEP);
        let ended = |count| Ended { count, freed: 10 * count };
        assert_eq!(watch.tell(7, ended(1)), Some(ended(1)));
        assert_eq!(watch.tell(8, ended(2)), None);
        assert_eq!(watch.tell(16, ended(3)), None);
        assert_eq!(watch.tell(17, ended(4)), Some(ended(9)));
        assert_eq!(watch.tell(17, ended(5)), None);
    }
}
