//! A hashed timer wheel of coarse ticks: one timer for each connection slot.
//!
//! Setting, moving and clearing a timer are O(1). A timer further away than one turn of the wheel stays
//! in its bucket until its tick has come. Links are indices, so that the wheel holds 12 bytes for each
//! connection and allocates only when the connection table grows.

use std::time::Duration;

use crate::base::chunked::Chunked;

/// A point in time: ticks of [`TICK`] since the worker started. Good for 13 years.
pub(crate) type Tick = u32;

/// How coarse timers are. Deadlines fire up to one tick late, never early.
pub(crate) const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND as u64);
/// Ticks in a second.
pub(crate) const TICKS_PER_SECOND: Tick = 10;

const BUCKETS: usize = 512;
const NONE: u32 = u32::MAX;
/// Tick of a timer that is not set.
const UNSET: Tick = Tick::MAX;

/// The tick in which `time` lies.
pub(crate) fn tick_at(time: Duration) -> Tick {
    Tick::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(UNSET - 1)
}

/// How many ticks from now on a time is over: rounded up, plus the tick that has begun. Zero is over now.
pub(crate) fn ticks_of(duration: Duration) -> Tick {
    match duration.as_millis().div_ceil(TICK.as_millis()) {
        0 => 0,
        ticks => Tick::try_from(ticks + 1).unwrap_or(UNSET / 2).min(UNSET / 2),
    }
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Wheel {
    /// First timer of each bucket.
    heads: Box<[u32]>,
    links: Chunked<Link>,
    /// Everything before this tick has fired.
    next: Tick,
    /// No timer is set to a tick before this one. Kept so that a turn need not look for the first timer.
    soonest: Tick,
    count: usize,
}

#[derive(Debug)]
struct Link {
    tick: Tick,
    next: u32,
    previous: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { tick: UNSET, next: NONE, previous: NONE }
    }
}

impl Wheel {
    /// An empty wheel.
    pub(crate) fn new() -> Self {
        Self {
            heads: vec![NONE; BUCKETS].into_boxed_slice(),
            links: Chunked::new(),
            next: 0,
            soonest: UNSET,
            count: 0,
        }
    }

    /// Sets the slot's timer to `tick`, in place of what it was set to.
    pub(crate) fn set(&mut self, slot: u32, tick: Tick) {
        self.clear(slot);
        let tick = tick.max(self.next);
        let head = &mut self.heads[bucket(tick)];
        let following = std::mem::replace(head, slot);
        *self.links.entry(slot) = Link { tick, next: following, previous: NONE };
        if let Some(link) = self.links.get_mut(following) {
            link.previous = slot;
        }
        self.soonest = self.soonest.min(tick);
        self.count += 1;
    }

    /// Sets the slot's timer to `tick` unless it fires earlier anyway.
    pub(crate) fn set_earlier(&mut self, slot: u32, tick: Tick) {
        if self.links.get(slot).is_none_or(|link| link.tick > tick) {
            self.set(slot, tick);
        }
    }

    /// Clears the slot's timer.
    pub(crate) fn clear(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot) else { return };
        if link.tick == UNSET {
            return;
        }
        let Link { tick, next, previous } = std::mem::take(link);
        match self.links.get_mut(previous) {
            Some(before) => before.next = next,
            None => self.heads[bucket(tick)] = next,
        }
        if let Some(after) = self.links.get_mut(next) {
            after.previous = previous;
        }
        self.count -= 1;
    }

    /// Takes out the timers whose tick is before `now` or at it, and gives their slots to `expired`.
    pub(crate) fn expire(&mut self, now: Tick, expired: &mut Vec<u32>) {
        if now < self.next {
            return;
        }
        let passed = (now - self.next) as usize + 1;
        for index in 0..passed.min(BUCKETS) {
            let bucket = (self.next as usize + index) % BUCKETS;
            let mut slot = self.heads[bucket];
            while let Some(link) = self.links.get(slot) {
                let following = link.next;
                if link.tick <= now {
                    expired.push(slot);
                    self.clear(slot);
                }
                slot = following;
            }
        }
        self.next = now + 1;
        if self.soonest <= now {
            self.soonest = (self.next..)
                .take(BUCKETS)
                .find(|tick| self.heads[bucket(*tick)] != NONE)
                .unwrap_or(UNSET);
        }
    }

    /// The first tick at which [`expire`](Self::expire) could have something to do: a lower bound.
    #[inline]
    pub(crate) fn next_tick(&self) -> Option<Tick> {
        (self.count > 0).then_some(self.soonest)
    }
}

fn bucket(tick: Tick) -> usize {
    tick as usize % BUCKETS
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "proptest shares its strategies")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Action {
        Set(u32, Tick),
        SetEarlier(u32, Tick),
        Clear(u32),
        Advance(Tick),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            (0..40_u32, 0..3000_u32).prop_map(|(slot, ahead)| Action::Set(slot, ahead)),
            (0..40_u32, 0..3000_u32).prop_map(|(slot, ahead)| Action::SetEarlier(slot, ahead)),
            (0..40_u32).prop_map(Action::Clear),
            (0..1500_u32).prop_map(Action::Advance),
        ]
    }

    proptest! {
        #[test]
        fn fires_what_a_sorted_map_would(actions in proptest::collection::vec(action(), 1..200)) {
            let mut wheel = Wheel::new();
            let mut model = BTreeMap::new();
            let mut now = 0;
            for action in actions {
                match action {
                    Action::Set(slot, ahead) => {
                        wheel.set(slot, now + 1 + ahead);
                        model.insert(slot, now + 1 + ahead);
                    }
                    Action::SetEarlier(slot, ahead) => {
                        wheel.set_earlier(slot, now + 1 + ahead);
                        let tick = model.entry(slot).or_insert(now + 1 + ahead);
                        *tick = (*tick).min(now + 1 + ahead);
                    }
                    Action::Clear(slot) => {
                        wheel.clear(slot);
                        model.remove(&slot);
                    }
                    Action::Advance(by) => {
                        now += by;
                        let mut fired = Vec::new();
                        wheel.expire(now, &mut fired);
                        fired.sort_unstable();
                        let expected: Vec<u32> =
                            model.iter().filter(|(_, tick)| **tick <= now).map(|(slot, _)| *slot).collect();
                        prop_assert_eq!(&fired, &expected);
                        model.retain(|_, tick| *tick > now);
                    }
                }
                prop_assert_eq!(wheel.count, model.len());
                match (wheel.next_tick(), model.values().min()) {
                    (None, None) => {}
                    (Some(next), Some(first)) => prop_assert!(next <= *first),
                    (next, first) => prop_assert!(false, "{next:?} where the first is {first:?}"),
                }
            }
        }
    }

    #[test]
    fn a_setting_never_fires_early() {
        assert_eq!(ticks_of(Duration::ZERO), 0);
        assert_eq!(ticks_of(Duration::from_millis(1)), 2);
        assert_eq!(ticks_of(Duration::from_secs(1)), 11);
        assert_eq!(ticks_of(Duration::MAX), UNSET / 2);
        assert_eq!(tick_at(Duration::from_millis(199)), 1);
    }
}
