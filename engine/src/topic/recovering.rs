//! Connections of a worker that were given what a topic had kept, some of which is still on its way to this worker.

use std::collections::{HashMap, VecDeque};

use super::history::Position;

/// A connection's slot, and the hash of a topic.
pub(super) type Key = (u32, u64);

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct Recovering {
    by_key: HashMap<Key, Had>,
    /// When they can be forgotten, in this order.
    until: VecDeque<(u64, Key)>,
    /// Publications with a position that were delivered.
    delivered: u64,
}

#[derive(Debug)]
struct Had {
    /// Up to where.
    position: Position,
    /// Once so many were delivered, nothing of it is on its way any more.
    until: u64,
}

impl Recovering {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// A connection has had a topic up to a position, when so many publications had been posted.
    pub(super) fn begin(&mut self, key: Key, position: Position, until: u64) {
        if until > self.delivered {
            self.by_key.insert(key, Had { position, until });
            self.until.push_back((until, key));
        }
    }

    pub(super) fn has_had(&self, key: Key, position: Position) -> bool {
        self.by_key.get(&key).is_some_and(|had| position <= had.position)
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

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    #[test]
    fn what_is_on_its_way_is_passed_over_until_it_has_come() {
        let (mut recovering, ann, ben) = (Recovering::default(), (1, 7), (2, 7));
        recovering.begin(ann, at(5, 3), 0);
        assert!(recovering.is_empty(), "nothing is on its way");
        recovering.begin(ann, at(5, 3), 2);
        recovering.begin(ben, at(6, 1), 3);
        assert!(recovering.has_had(ann, at(5, 3)) && !recovering.has_had(ann, at(5, 4)));
        assert!(recovering.has_had(ben, at(5, 9)), "the epoch before");
        assert!(!recovering.has_had((1, 8), at(5, 3)), "another topic");
        recovering.begin(ann, at(5, 4), 4);
        recovering.note_delivered(2);
        assert!(recovering.has_had(ann, at(5, 4)), "it has come back a second time");
        recovering.note_delivered(1);
        assert!(!recovering.has_had(ben, at(6, 1)));
        recovering.note_delivered(1);
        assert!(recovering.is_empty() && recovering.until.is_empty());
    }
}
