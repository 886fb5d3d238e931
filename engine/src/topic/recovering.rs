//! Connections of a worker that were given what a topic had kept, some of which is still on its way to this worker.

use std::collections::{HashMap, HashSet, VecDeque};

/// A connection's slot, and the hash of a topic.
pub(super) type Key = (u32, u64);

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct Recovering {
    /// Those that wait for what was kept, and get what comes meanwhile with it.
    held: HashSet<Key>,
    by_key: HashMap<Key, Had>,
    /// When they can be forgotten, in this order.
    until: VecDeque<(u64, Key)>,
    /// Publications with a position that were delivered.
    delivered: u64,
}

#[derive(Debug)]
struct Had {
    /// Up to where, among all publications of its class of topics.
    turn: u64,
    /// Once so many were delivered, nothing of it is on its way any more.
    until: u64,
}

impl Recovering {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.by_key.is_empty()
    }

    /// A connection gets nothing of a topic until it [begins](Self::begin).
    pub(super) fn hold(&mut self, key: Key) {
        self.held.insert(key);
    }

    /// A connection is not subscribed to a topic any more.
    pub(super) fn release(&mut self, key: Key) {
        self.held.remove(&key);
    }

    /// A connection has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        if !self.held.is_empty() {
            self.held.retain(|(held, _)| *held != slot);
        }
    }

    /// A connection has had a topic up to a turn, when so many publications had been posted.
    pub(super) fn begin(&mut self, key: Key, turn: u64, until: u64) {
        self.held.remove(&key);
        if until > self.delivered {
            self.by_key.insert(key, Had { turn, until });
            self.until.push_back((until, key));
        }
    }

    pub(super) fn has_had(&self, key: Key, turn: u64) -> bool {
        self.held.contains(&key) || self.by_key.get(&key).is_some_and(|had| turn <= had.turn)
    }

    /// So many more were delivered.
    pub(super) fn note_delivered(&mut self, count: u64) {
        self.delivered += count;
        let is_past = |(until, _): &mut (u64, Key)| *until <= self.delivered;
        while let Some((until, key)) = self.until.pop_front_if(is_past) {
            // Another one may have taken its place.
            if self.by_key.get(&key).is_some_and(|had| had.until <= until) {
                self.by_key.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_passed_over_until_it_has_come() {
        let (mut recovering, ann, ben) = (Recovering::default(), (1, 7), (2, 7));
        recovering.begin(ann, 3, 0);
        assert!(recovering.is_empty(), "nothing is on its way");
        recovering.begin(ann, 3, 2);
        recovering.begin(ben, 6, 3);
        assert!(recovering.has_had(ann, 3) && !recovering.has_had(ann, 4));
        assert!(!recovering.has_had((1, 8), 3), "another topic");
        recovering.begin(ann, 4, 4);
        recovering.note_delivered(2);
        assert!(recovering.has_had(ann, 4), "it has come back a second time");
        recovering.note_delivered(1);
        assert!(!recovering.has_had(ben, 6));
        recovering.note_delivered(1);
        assert!(recovering.is_empty() && recovering.until.is_empty());
    }

    #[test]
    fn who_waits_for_what_was_kept_gets_nothing_else() {
        let (mut recovering, ann, ben) = (Recovering::default(), (1, 7), (2, 7));
        recovering.hold(ann);
        recovering.hold(ben);
        assert!(recovering.has_had(ann, 9) && recovering.has_had(ben, u64::MAX));
        recovering.begin(ann, 9, 2);
        assert!(recovering.has_had(ann, 9) && !recovering.has_had(ann, 10));
        recovering.forget(2);
        recovering.note_delivered(2);
        assert!(recovering.is_empty());
        recovering.hold(ann);
        recovering.release(ann);
        assert!(recovering.is_empty());
    }
}
