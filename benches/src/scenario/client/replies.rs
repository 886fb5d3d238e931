//! Whether a message is the reply that is due, by the number in it: servers lose, double and reorder replies.

use std::sync::atomic::Ordering;

use ringwire::Message;

use super::Client;
use crate::echo::Failure;

/// What a message is where replies release messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The reply to a message in flight, of which so many older ones have none.
    Right { missing: u32 },
    /// Something else, in its place.
    Wrong,
    /// One that nobody waits for: it came before, or others came first. It takes the place of none.
    Stale,
}

impl Client {
    /// The message whose reply is the next one, or one so many after it.
    pub(super) fn next_message(&mut self, number: u32, ahead: usize) -> Message<'_> {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.template.set_number(self.common.next_reply(number).wrapping_add(ahead));
        self.template.message()
    }

    /// Counts a message as the reply to one in flight if it is that; when it came, and what it is.
    pub(super) fn count_reply(&mut self, number: u32, message: Message<'_>) -> (u64, Reply) {
        let now = self.now();
        let Some(mark) = self.common.sent_at.get(number as usize) else {
            return (now, Reply::Stale);
        };
        let sent_at = mark.swap(0, Ordering::Relaxed);
        if sent_at == 0 {
            // Nothing was asked.
            if !self.common.plan.any_reply {
                self.fail(Failure::Doubled);
            }
            return (now, Reply::Stale);
        }
        let expected = self.common.next_reply(number);
        let found = self.number_of(message, expected);
        let next = found.unwrap_or(expected);
        if next < expected {
            self.common.mark(number, sent_at);
            let has_window = self.common.plan.work.has_window();
            self.fail(if has_window { Failure::Reordered } else { Failure::Doubled });
            return (now, Reply::Stale);
        }
        self.common.set_next_reply(number, next.wrapping_add(1));
        if found.is_none() {
            self.fail(Failure::PayloadMismatch);
            return (now, Reply::Wrong);
        }
        let missing = next - expected;
        self.miss(missing);
        self.answered(now, sent_at);
        (now, Reply::Right { missing })
    }

    /// A reply with `Work::Rate`.
    pub(super) fn on_rate(&mut self, number: u32, message: Message<'_>) {
        let now = self.now();
        let expected = self.common.next_reply(number);
        let Some(found) = self.number_of(message, expected) else {
            return self.fail(Failure::PayloadMismatch);
        };
        if found < expected {
            return self.fail(Failure::Reordered);
        }
        self.miss(found - expected);
        self.common.set_next_reply(number, found.saturating_add(1));
        let began = self.common.began.load(Ordering::Relaxed);
        self.answered(now, began.saturating_add(self.common.due(number, found)));
    }

    /// The number of the message that this is the reply to; `None` where it is none.
    fn number_of(&self, message: Message<'_>, expected: u32) -> Option<u32> {
        let common = &self.common;
        if common.plan.any_reply {
            Some(expected)
        } else {
            common.template.number(message, expected)
        }
    }

    fn miss(&self, missing: u32) {
        self.tally().fail(Failure::ReplyMissing, missing.into());
        self.common.failed.fetch_add(missing.into(), Ordering::Relaxed);
    }

    /// A right reply came, to a message that was sent or due at `from`.
    fn answered(&self, now: u64, from: u64) {
        let took = now.saturating_sub(from);
        let mut tally = self.tally();
        tally.latency.record(took);
        tally.answered += 1;
        tally.last_answered = now;
        drop(tally);
        self.common.answered.fetch_add(1, Ordering::Relaxed);
        if u128::from(took) > self.common.plan.response_timeout.as_nanos() {
            self.fail(Failure::ReplyLate);
        }
    }
}
