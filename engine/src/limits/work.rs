//! How much of a worker's turn goes into inflating and compressing, and whose messages get it.
//!
//! A few bytes that a peer sends may be a millisecond's work. So a turn has a budget for it, which all connections
//! share, and those that it does not suffice for stand in a queue, with their input unread. The queue is start-time
//! fair queueing (Goyal, Vin and Cheng, 1997): a virtual clock runs with the work that is done, each connection's
//! account says up to which time it has had its share, and who has had least comes first. So a peer whose messages are
//! little work passes by those whose messages are much, whatever their number.
//!
//! Work is counted by length instead of measured, so that a simulation is the same each time. The unit is what
//! inflating one byte takes: a nanosecond, about (docs/benchmarks/2026-11-22.md, Compression).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringwire_codec::deflate::{Level, Totals};

use crate::base::chunked::Chunked;
use crate::driver::Token;

/// What a message costs beside its bytes: the machine begins anew.
const PER_INFLATED: u64 = 1 << 10;
const PER_COMPRESSED: u64 = 4 << 10;
/// What a byte costs of the compressed form that is inflated, of a message that is compressed, and of what comes of it.
/// Bytes that repeat others take little time either way.
const PER_COMPRESSED_BYTE_IN: u64 = 3;
const PER_BYTE_TO_COMPRESS: u64 = 2;
const PER_COMPRESSED_BYTE_OUT: u64 = 12;
/// Who is served out of the queue gets this part of a turn at a time, while others wait. And who has had none for so
/// long may have it before them: one whose messages are little work would else come behind all whose turn it is at the
/// same time.
const SHARES: u64 = 4;

/// See the [module's documentation](self). The memory of accounts is taken once a turn's budget is used up.
#[derive(Debug, Default)]
pub(crate) struct Work {
    per_turn: u64,
    /// What this turn's messages may still cause. The last one may go past it.
    left: u64,
    /// All that was done so far.
    done: u64,
    /// How much longer messages have become so far by inflating them.
    gained: u64,
    /// The virtual clock: the latest start of a share that was used. It stands still while nobody waits, so that who
    /// has had much a moment ago still comes behind who has not.
    clock: u64,
    /// A connection out of the queue is at work.
    serving: bool,
    accounts: Chunked<Account>,
    queue: BinaryHeap<Reverse<Waiting>>,
    /// Of those that begin to wait, so that they are served in that order where they are equal.
    number: u64,
}

/// What a connection has had.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// When its share is used up, by the virtual clock.
    end: u64,
    /// Whether it stands in the queue.
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    start: u64,
    number: u64,
    token: Token,
}

/// What was done before a connection was at work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    done: u64,
    gained: u64,
}

impl Work {
    pub(crate) fn new(per_turn: usize) -> Self {
        let per_turn = per_turn as u64;
        Self { per_turn, left: per_turn, clock: per_turn, ..Self::default() }
    }

    /// A new turn has its budget.
    #[inline]
    pub(crate) fn begin_turn(&mut self) {
        self.left = self.per_turn;
    }

    // What is done

    #[inline]
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    pub(crate) fn note_inflated(&mut self, totals: Totals) {
        let Totals { message_count, compressed_len, inflated_len, .. } = totals;
        self.done +=
            inflated_len + compressed_len * PER_COMPRESSED_BYTE_IN + message_count * PER_INFLATED;
        self.gained += inflated_len.saturating_sub(compressed_len);
    }

    /// A message of `len` bytes became `compressed_len` bytes.
    pub(crate) fn note_compressed(&mut self, len: usize, compressed_len: usize, level: Level) {
        let least = len as u64 * PER_BYTE_TO_COMPRESS
            + compressed_len as u64 * PER_COMPRESSED_BYTE_OUT
            + PER_COMPRESSED;
        self.done += least * (3 + u64::from(level.get())) / 4;
    }

    // Whose turn it is

    /// Up to which sum of what is [`done`](Self::done) a connection may go now. `None`: others are before it.
    pub(crate) fn allowed(&self) -> Option<u64> {
        if self.serving {
            let is_last = self.queue.is_empty();
            let share = if is_last { self.left } else { self.left.min(self.share()) };
            return Some(self.done + share.max(1));
        }
        (!self.is_scarce()).then_some(self.done + self.left)
    }

    /// Whether others are before whoever comes now, or this turn's budget is used up.
    pub(crate) fn is_scarce(&self) -> bool {
        self.left == 0 || !self.queue.is_empty()
    }

    pub(crate) fn before(&self) -> Before {
        Before { done: self.done, gained: self.gained }
    }

    /// How much longer a connection's messages have become since.
    pub(crate) fn gained_since(&self, before: Before) -> usize {
        usize::try_from(self.gained - before.gained).unwrap_or(usize::MAX)
    }

    /// A connection was at work: it is charged for what was done.
    pub(crate) fn charge(&mut self, slot: u32, before: Before) {
        let cost = self.done - before.done;
        self.left = self.left.saturating_sub(cost);
        if cost > 0 && (self.serving || self.is_scarce()) {
            let start = self.start(slot);
            self.accounts.entry(slot).end = start + cost;
            // Whose turn was no work, such as half a frame, does not move it.
            self.clock = self.clock.max(start);
        }
    }

    /// A connection has input, and is to be served when those are that have had less.
    pub(crate) fn wait(&mut self, token: Token) {
        let start = self.start(token.slot);
        let account = self.accounts.entry(token.slot);
        if !account.waits {
            account.waits = true;
            self.number += 1;
            self.queue.push(Reverse(Waiting { start, number: self.number, token }));
        }
    }

    /// When a connection's next share begins.
    fn start(&self, slot: u32) -> u64 {
        let end = self.accounts.get(slot).map_or(0, |account| account.end);
        end.max(self.clock - self.share())
    }

    fn share(&self) -> u64 {
        self.per_turn / SHARES
    }

    /// Whether anybody waits.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Who comes next, as long as the turn has anything left. It may have ended meanwhile.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Token> {
        if self.left == 0 {
            return None;
        }
        self.queue.pop().map(|Reverse(Waiting { token, .. })| token)
    }

    /// Serves whoever comes now, whether or not others are before; gives what it was.
    pub(crate) fn serve(&mut self, serving: bool) -> bool {
        std::mem::replace(&mut self.serving, serving)
    }

    /// Serves a connection that has waited, until [`end_service`](Self::end_service).
    pub(crate) fn begin_service(&mut self, slot: u32) {
        self.accounts.entry(slot).waits = false;
        self.serving = true;
    }

    pub(crate) fn end_service(&mut self) {
        self.serving = false;
    }

    /// Whoever has the slot next begins with an account of its own.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(account) = self.accounts.get_mut(slot) {
            *account = Account::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PER_TURN: usize = 16_000;

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1 }
    }

    fn inflated(len: u64) -> Totals {
        let mut totals = Totals::default();
        totals.inflated_len = len;
        totals
    }

    /// A connection with messages that are each so much work has input; how many are handled now.
    fn deliver(work: &mut Work, slot: u32, len: u64, count: usize) -> usize {
        let Some(limit) = work.allowed() else {
            work.wait(token(slot));
            return 0;
        };
        let before = work.before();
        let mut handled = 0;
        while handled < count && work.done() < limit {
            work.note_inflated(inflated(len));
            handled += 1;
        }
        work.charge(slot, before);
        if handled < count {
            work.wait(token(slot));
        }
        handled
    }

    /// Serves who waits for the rest of the turn: a message of `len(slot)` after the other, as many as they like.
    fn serve(work: &mut Work, len: impl Fn(u32) -> u64) -> Vec<(u32, usize)> {
        let mut served = Vec::new();
        while let Some(token) = work.next() {
            work.begin_service(token.slot);
            let count = deliver(work, token.slot, len(token.slot), 1_000_000);
            work.end_service();
            served.push((token.slot, count));
        }
        served
    }

    #[test]
    fn who_is_alone_gets_the_whole_turn() {
        let mut work = Work::new(PER_TURN);
        assert_eq!(deliver(&mut work, 0, 1000, 100), 16);
        for _ in 0..3 {
            work.begin_turn();
            let served = serve(&mut work, |_| 1000);
            assert_eq!(served.iter().map(|(_, count)| count).sum::<usize>(), 16);
        }
    }

    #[test]
    fn within_the_budget_nobody_waits_and_nothing_is_kept() {
        let mut work = Work::new(PER_TURN);
        for _ in 0..10 {
            work.begin_turn();
            for slot in 0..15 {
                assert_eq!(deliver(&mut work, slot, 1000, 1), 1);
            }
        }
        assert!(!work.has_waiting());
        assert_eq!(work.accounts.memory_len(), 0);
    }

    #[test]
    fn a_turn_does_what_it_may_and_one_message_more() {
        let mut work = Work::new(PER_TURN);
        for slot in 0..40 {
            deliver(&mut work, slot, 10_000, 1000);
        }
        assert_eq!(work.done(), 20_000);
        for turn in 1..10 {
            work.begin_turn();
            serve(&mut work, |_| 10_000);
            assert_eq!(work.done(), 20_000 * (turn + 1));
        }
    }

    #[test]
    fn all_get_as_much() {
        let mut work = Work::new(PER_TURN);
        let len = |slot: u32| if slot < 10 { 10_000 } else { 100 };
        (0..20).for_each(|slot| {
            deliver(&mut work, slot, len(slot), 1_000_000);
        });
        let mut done = [0; 20];
        for _ in 0..1000 {
            work.begin_turn();
            for (slot, count) in serve(&mut work, len) {
                done[slot as usize] += count as u64 * len(slot);
            }
        }
        let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
        // Who is at work may be ahead by a share and a message.
        assert!(most - least <= 2 * (10_000 + PER_TURN as u64 / SHARES), "{done:?}");
    }

    #[test]
    fn who_has_had_little_is_served_in_the_turn_in_which_he_comes() {
        let mut work = Work::new(PER_TURN);
        (0..40).for_each(|slot| {
            deliver(&mut work, slot, 10_000, 1000);
        });
        // All are new to it as well until each has had something.
        for _ in 0..40 {
            work.begin_turn();
            serve(&mut work, |_| 10_000);
        }
        for _ in 0..100 {
            work.begin_turn();
            // While others wait it does not go at once, but before them.
            assert_eq!(deliver(&mut work, 40, 10, 1), 0);
            let token = work.next().unwrap();
            work.begin_service(token.slot);
            assert_eq!((token.slot, deliver(&mut work, 40, 10, 1)), (40, 1));
            work.end_service();
            serve(&mut work, |_| 10_000);
        }
    }

    #[test]
    fn that_nobody_waited_for_a_moment_makes_them_no_equals() {
        let mut work = Work::new(PER_TURN);
        for round in 0..10 {
            // As many as come at once have a message each, and then there is silence.
            let mut handled = 0;
            work.begin_turn();
            (0..40).for_each(|slot| handled += deliver(&mut work, slot, 10_000, 1));
            assert_eq!(deliver(&mut work, 40, 10, 1), 0);
            let mut order = Vec::new();
            while work.has_waiting() {
                while let Some(token) = work.next() {
                    work.begin_service(token.slot);
                    let len = if token.slot == 40 { 10 } else { 10_000 };
                    handled += deliver(&mut work, token.slot, len, 1);
                    work.end_service();
                    order.push(token.slot);
                }
                work.begin_turn();
            }
            assert_eq!(handled, 41);
            assert!(round == 0 || order[0] == 40, "{order:?}");
        }
    }

    /// It would bring all others up to where it stands, and with them to where a newcomer begins.
    #[test]
    fn half_a_message_is_no_way_to_move_the_clock() {
        let mut work = Work::new(PER_TURN);
        assert_eq!(deliver(&mut work, 0, PER_TURN as u64, 1), 1);
        for (slot, len) in [(1, 10_000), (2, 100_000)] {
            work.begin_turn();
            work.wait(token(slot));
            let next = work.next().unwrap();
            work.begin_service(next.slot);
            assert_eq!(deliver(&mut work, slot, len, 1), 1);
            work.end_service();
        }
        work.begin_turn();
        work.wait(token(2));
        let next = work.next().unwrap();
        work.begin_service(next.slot);
        assert_eq!(deliver(&mut work, 2, 0, 0), 0);
        work.end_service();
        work.wait(token(1));
        work.wait(token(3));
        assert_eq!(work.next(), Some(token(3)));
        assert_eq!(work.next(), Some(token(1)));
    }

    #[test]
    fn a_message_at_a_time_is_no_way_around() {
        let mut work = Work::new(PER_TURN);
        let mut handled = [0; 40];
        for _ in 0..400 {
            work.begin_turn();
            let before = work.done();
            for slot in 0..40 {
                handled[slot as usize] += deliver(&mut work, slot, 10_000, 1);
            }
            while let Some(token) = work.next() {
                work.begin_service(token.slot);
                handled[token.slot as usize] += deliver(&mut work, token.slot, 10_000, 1);
                work.end_service();
            }
            assert!(work.done() - before <= 20_000);
        }
        assert!(handled.iter().all(|count| (19..=21).contains(count)), "{handled:?}");
    }

    #[test]
    fn a_slot_that_is_used_again_owes_nothing() {
        let mut work = Work::new(PER_TURN);
        deliver(&mut work, 0, 100_000, 10);
        deliver(&mut work, 1, 1000, 10);
        work.begin_turn();
        work.forget(0);
        work.wait(Token { slot: 0, generation: 2 });
        let order: Vec<_> = std::iter::from_fn(|| work.next()).map(|token| token.slot).collect();
        // The one that has gone may come up as well, and is not there.
        assert_eq!(order, [1, 0, 0]);
    }

    #[test]
    fn messages_cost_something_beside_their_bytes() {
        let mut work = Work::new(PER_TURN);
        let mut totals = inflated(10);
        (totals.message_count, totals.compressed_len) = (3, 4);
        work.note_inflated(totals);
        assert_eq!((work.done(), work.gained), (10 + 3 * 4 + 3 * 1024, 6));
        let levels = [1, 9].map(|level| Level::new(level).unwrap());
        let costs = levels.map(|level| {
            let before = work.before();
            work.note_compressed(1000, 100, level);
            work.done() - before.done
        });
        let least = 4096 + 2000 + 1200;
        assert_eq!(costs, [least, 3 * least]);
        assert_eq!(work.gained, 6);
    }
}
