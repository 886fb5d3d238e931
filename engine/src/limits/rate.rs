//! How much one peer may say: token buckets, in ticks of the worker's clock.

use ringwire_codec::CloseCode;

use crate::base::amount::{Limit, Sizing};
use crate::base::chunked::Chunked;
use crate::base::timer::{TICKS_PER_SECOND, Tick};

/// What a token is counted in, so that each tick brings a whole number of these.
const UNIT: u64 = TICKS_PER_SECOND as u64;

/// How much one connection's peer may send, and what happens past it. The default is no limit.
///
/// Each rate is a bucket that holds a burst and fills at the rate. Where the worker's turns share it out by themselves
/// (a byte and a message budget for each), this is for peers whose every message costs something elsewhere. A
/// connection takes 24 bytes more with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// Messages in a second; parts of streamed messages, pings and pongs count as one each. Default: unlimited.
    pub messages_per_second: Limit<u32>,
    /// Messages that may come at once after silence. Default: as many as in a second.
    pub message_burst: Sizing<u32>,
    /// Bytes in a second, framing included; a message that is compressed counts with what it inflates to. Default:
    /// unlimited. Looked at in pieces of 16 KiB and whole messages, so that one may go past it, which is made up for.
    pub bytes_per_second: Limit<u32>,
    /// Bytes that may come at once after silence. Default: as many as in a second.
    pub byte_burst: Sizing<u32>,
    /// What happens to a peer that goes past a rate. Default: it is held up.
    pub excess: Excess,
}

/// What happens to a peer that says more than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Excess {
    /// Reading from it pauses until its bucket has filled again; TCP's flow control holds it up, and nothing is lost.
    /// What it has sent meanwhile, its close frame and pongs included, waits.
    #[default]
    Pause,
    /// The connection is closed with this code: [`CloseCode::POLICY_VIOLATION`], 1008, or one of the application's.
    Close(CloseCode),
}

impl RateLimit {
    /// So many messages in a second, and as many at once.
    #[must_use]
    pub fn with_messages_per_second(mut self, count: impl Into<Limit<u32>>) -> Self {
        self.messages_per_second = count.into();
        self
    }

    /// Sets [`message_burst`](Self::message_burst).
    #[must_use]
    pub fn with_message_burst(mut self, count: impl Into<Sizing<u32>>) -> Self {
        self.message_burst = count.into();
        self
    }

    /// So many bytes in a second, and as many at once.
    #[must_use]
    pub fn with_bytes_per_second(mut self, len: impl Into<Limit<u32>>) -> Self {
        self.bytes_per_second = len.into();
        self
    }

    /// Sets [`byte_burst`](Self::byte_burst).
    #[must_use]
    pub fn with_byte_burst(mut self, len: impl Into<Sizing<u32>>) -> Self {
        self.byte_burst = len.into();
        self
    }

    /// Sets [`excess`](Self::excess).
    #[must_use]
    pub fn with_excess(mut self, excess: Excess) -> Self {
        self.excess = excess;
        self
    }
}

/// A rate and a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Units that come with each tick: as many as tokens with each second.
    per_tick: u64,
    /// Units that a full bucket holds.
    capacity: u64,
}

impl Rate {
    /// Without a burst: as many at once as in a second.
    pub(crate) fn new(per_second: u32, burst: Option<u32>) -> Self {
        let burst = burst.unwrap_or(per_second);
        Self { per_tick: per_second.into(), capacity: u64::from(burst) * UNIT }
    }
}

/// What was taken out of a bucket and has not come back yet. The default is a full bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    spent: u64,
}

impl Bucket {
    pub(crate) fn fill(&mut self, rate: Rate, ticks: Tick) {
        self.spent = self.spent.saturating_sub(rate.per_tick * u64::from(ticks));
    }

    /// Tokens that are left.
    pub(crate) fn left(self, rate: Rate) -> u64 {
        rate.capacity.saturating_sub(self.spent) / UNIT
    }

    /// Takes tokens, also such as are not there.
    pub(crate) fn take(&mut self, count: u64) {
        self.spent = self.spent.saturating_add(count.saturating_mul(UNIT));
    }

    /// Whether more was taken than was there.
    pub(crate) fn is_overdrawn(self, rate: Rate) -> bool {
        self.spent > rate.capacity
    }

    /// In how many ticks there is a token.
    pub(crate) fn wait(self, rate: Rate) -> Tick {
        let missing = (self.spent + UNIT).saturating_sub(rate.capacity);
        Tick::try_from(missing.div_ceil(rate.per_tick)).unwrap_or(Tick::MAX / 2)
    }
}

/// The rates of all connections of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    messages: Option<Rate>,
    bytes: Option<Rate>,
    pub(crate) excess: Excess,
}

impl Rates {
    /// `None`: both are off.
    pub(crate) fn new(limit: &RateLimit) -> Option<Self> {
        let rate = |per_second: Limit<u32>, burst: Sizing<u32>| {
            per_second.at().map(|per_second| Rate::new(per_second, burst.fixed()))
        };
        let messages = rate(limit.messages_per_second, limit.message_burst);
        let bytes = rate(limit.bytes_per_second, limit.byte_burst);
        let on = messages.is_some() || bytes.is_some();
        on.then_some(Self { messages, bytes, excess: limit.excess })
    }
}

/// Bytes that are looked at even where fewer tokens are left, so that a slow rate does not cut messages into crumbs.
const PIECE_LEN: usize = 16 << 10;

/// What may be taken of one peer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) messages: usize,
    pub(crate) len: usize,
}

/// What one peer has said of late.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    messages: Bucket,
    bytes: Bucket,
    /// When the buckets were last filled.
    tick: Tick,
}

/// What came of it when a peer was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There are tokens left.
    Within,
    /// They are all used, or more than these.
    Empty { is_overdrawn: bool },
}

/// The meters of a worker's connections, by slot. Holds no memory where rates are off.
#[derive(Debug, Default)]
pub(crate) struct Meters(Chunked<Meter>);

impl Meters {
    /// What may be taken now.
    pub(crate) fn allowed(&mut self, slot: u32, rates: Rates, now: Tick) -> Allowance {
        let meter = self.0.entry(slot);
        let ticks = now.saturating_sub(meter.tick);
        meter.tick = now;
        let left = |bucket: &mut Bucket, rate: Option<Rate>| {
            let Some(rate) = rate else { return usize::MAX };
            bucket.fill(rate, ticks);
            usize::try_from(bucket.left(rate)).unwrap_or(usize::MAX)
        };
        let messages = left(&mut meter.messages, rates.messages);
        match left(&mut meter.bytes, rates.bytes) {
            0 => Allowance { messages: 0, len: 0 },
            len => Allowance { messages, len: len.max(PIECE_LEN) },
        }
    }

    /// Notes what was taken.
    pub(crate) fn charge(
        &mut self,
        slot: u32,
        rates: Rates,
        messages: usize,
        len: usize,
    ) -> Verdict {
        let meter = self.0.entry(slot);
        meter.messages.take(messages as u64);
        meter.bytes.take(len as u64);
        let judge = |bucket: Bucket, rate: Option<Rate>| {
            rate.map_or((false, false), |rate| (bucket.left(rate) == 0, bucket.is_overdrawn(rate)))
        };
        let (messages, bytes) =
            (judge(meter.messages, rates.messages), judge(meter.bytes, rates.bytes));
        match messages.0 || bytes.0 {
            true => Verdict::Empty { is_overdrawn: messages.1 || bytes.1 },
            false => Verdict::Within,
        }
    }

    /// When there will be a message's worth again.
    pub(crate) fn ready_at(&self, slot: u32, rates: Rates) -> Tick {
        let meter = self.0.get(slot).copied().unwrap_or_default();
        let wait = |bucket: Bucket, rate: Option<Rate>| rate.map_or(0, |rate| bucket.wait(rate));
        let wait = wait(meter.messages, rates.messages).max(wait(meter.bytes, rates.bytes));
        meter.tick + wait
    }

    /// Whoever has the slot next begins with full buckets.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(meter) = self.0.get_mut(slot) {
            *meter = Meter::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(limit: RateLimit) -> Rates {
        Rates::new(&limit).unwrap()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let rates = rates(RateLimit::default().with_messages_per_second(5).with_message_burst(20));
        let mut meters = Meters::default();
        let mut taken = 0;
        for now in 0..100 {
            let allowed = meters.allowed(0, rates, now).messages;
            taken += allowed;
            assert_eq!(
                meters.charge(0, rates, allowed, 10),
                Verdict::Empty { is_overdrawn: false }
            );
            assert_eq!(meters.allowed(0, rates, now).messages, 0);
            let ready = meters.ready_at(0, rates);
            assert!(ready > now && ready <= now + 2, "{ready} at {now}");
        }
        assert_eq!(taken, 20 + 5 * 99 / 10);
        // Another connection has a bucket of its own, and so has the next one in this slot.
        assert_eq!(meters.allowed(1, rates, 99).messages, 20);
        meters.forget(0);
        assert_eq!(meters.allowed(0, rates, 99).messages, 20);
    }

    #[test]
    fn a_bucket_never_holds_more_than_the_burst() {
        let rates = rates(RateLimit::default().with_messages_per_second(1000));
        let mut meters = Meters::default();
        meters.allowed(0, rates, 0);
        assert_eq!(meters.allowed(0, rates, 1_000_000).messages, 1000);
    }

    #[test]
    fn bytes_that_went_past_the_rate_are_made_up_for() {
        let rates = rates(RateLimit::default().with_bytes_per_second(1000));
        let mut meters = Meters::default();
        let some = Allowance { messages: usize::MAX, len: PIECE_LEN };
        assert_eq!(meters.allowed(0, rates, 0), some);
        assert_eq!(meters.charge(0, rates, 1, 900), Verdict::Within);
        assert_eq!(meters.charge(0, rates, 1, 2100), Verdict::Empty { is_overdrawn: true });
        assert_eq!(meters.ready_at(0, rates), 21);
        assert_eq!(meters.allowed(0, rates, 20), Allowance { messages: 0, len: 0 });
        assert_eq!(meters.allowed(0, rates, 21), some);
    }

    #[test]
    fn as_many_bytes_may_be_looked_at_as_are_left() {
        let rates = rates(RateLimit::default().with_bytes_per_second(1_000_000));
        let mut meters = Meters::default();
        assert_eq!(meters.allowed(0, rates, 0).len, 1_000_000);
        meters.charge(0, rates, 1, 400_000);
        assert_eq!(meters.allowed(0, rates, 0).len, 600_000);
        meters.charge(0, rates, 1, 599_999);
        assert_eq!(meters.allowed(0, rates, 0).len, PIECE_LEN);
    }

    #[test]
    fn nothing_is_metered_by_default() {
        assert!(Rates::new(&RateLimit::default()).is_none());
    }
}
