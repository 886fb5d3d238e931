//! Topics that the bus numbers, for all nodes: this node follows some of them. What it has of one is without gaps, from
//! its floor to its top; the bus may have more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::{Bounds, Kept, Numbers, Place, Position, Record, Recorded, Shard};

/// How much this node has of a topic that the bus numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::topic) struct Followed {
    pub(in crate::topic) top: Position,
    pub(in crate::topic) floor: u64,
    /// What the bus numbers comes here.
    pub(in crate::topic) follows: bool,
    /// What is not here the bus has no more.
    pub(in crate::topic) is_whole: bool,
}

/// A message that the bus had kept, with its position and age.
pub(in crate::topic) type Old = (Position, (Vec<u8>, bool), Option<Instant>);

impl Followed {
    /// Whether the bus may know more of what came since a position.
    pub(in crate::topic) fn lacks(&self, since: Option<Position>) -> bool {
        !self.follows
            || since.is_some_and(|since| {
                let is_older = since.offset < self.floor && !self.is_whole;
                // It may have heard on another node what has yet to come here.
                let is_ahead = since.offset > self.top.offset;
                since.epoch == self.top.epoch && (is_older || is_ahead)
            })
    }
}

impl Record {
    fn followed(&self) -> Option<Followed> {
        match self.numbers {
            Numbers::Own => None,
            Numbers::Shared { follows, is_whole } => {
                Some(Followed { top: self.top, floor: self.floor, follows, is_whole })
            }
        }
    }

    /// Notes whether what the bus numbers comes here, and whether what is here is all.
    fn set_followed(&mut self, comes: bool, all: bool) {
        if let Numbers::Shared { follows, is_whole } = &mut self.numbers {
            *follows = comes;
            *is_whole = comes && (*is_whole || all);
        }
    }
}

impl Shard {
    /// What is known of a topic that the bus numbers.
    pub(in crate::topic) fn followed(&self, topic: &str) -> Option<Followed> {
        self.records[*self.by_topic.get(topic)?].followed()
    }

    /// All that comes here.
    pub(in crate::topic) fn all_followed(&self) -> impl Iterator<Item = (&str, Position)> {
        let all = self.records.iter().map(|(_, record)| record);
        all.filter_map(|record| Some((&*record.topic, record.followed()?)))
            .filter_map(|(topic, followed)| followed.follows.then_some((topic, followed.top)))
    }

    /// Moves a topic on to a publication that the bus has numbered and that has come here; where it stands, if it is
    /// one that had yet to come. Where others are missing between, nothing is left that was kept.
    pub(in crate::topic) fn admit(
        &mut self,
        topic: &str,
        (position, previous): (Position, Option<u64>),
        bounds: Bounds,
        epochs: &AtomicU64,
    ) -> Option<Place> {
        let known = self.by_topic.get(topic).copied();
        let top = known.and_then(|id| Some(self.records[id].followed()?.top));
        let top = top.filter(|top| top.epoch == position.epoch);
        if top.is_some_and(|top| position.offset <= top.offset) {
            return None;
        }
        let goes_on = top.is_some_and(|top| previous == Some(top.offset));
        let id = known.filter(|_| goes_on).unwrap_or_else(|| {
            let floor = previous.unwrap_or(position.offset);
            self.begin_at(topic, Position { offset: floor, ..position }, bounds, epochs)
        });
        self.records[id].top = position;
        self.records[id].set_followed(true, false);
        Some(Place { id, position, previous })
    }

    /// Begins a topic of which nothing is known but up to where nothing is asked for.
    pub(in crate::topic) fn begin_at(
        &mut self,
        topic: &str,
        top: Position,
        bounds: Bounds,
        epochs: &AtomicU64,
    ) -> usize {
        let id = self.record(topic, bounds, epochs);
        self.restart(id, top, Numbers::Shared { follows: true, is_whole: false });
        id
    }

    /// The same for a topic.
    pub(in crate::topic) fn set_followed(&mut self, topic: &str, comes: bool, all: bool) {
        if let Some(id) = self.by_topic.get(topic) {
            self.records[*id].set_followed(comes, all);
        }
    }

    /// Nothing comes any more of the topics that `ends` says.
    pub(in crate::topic) fn unfollow(&mut self, mut ends: impl FnMut(&str) -> bool) {
        for (_, record) in &mut self.records {
            if record.numbers != Numbers::Own && ends(&record.topic) {
                record.set_followed(false, false);
            }
        }
    }

    /// Puts what the bus had kept before what is kept here. `older` ends where that begins, and has no gap behind
    /// `floor`.
    pub(in crate::topic) fn put_before(
        &mut self,
        topic: &str,
        older: Vec<Old>,
        mut floor: u64,
        bounds: Bounds,
    ) {
        let Some(id) = self.by_topic.get(topic).copied() else { return };
        let record = &mut self.records[id];
        let first = record.kept.front().map_or(record.top.offset + 1, |it| it.position().offset);
        let mut added = VecDeque::new();
        for (position, (payload, is_text), at) in older.into_iter().rev() {
            if position.offset >= first {
                continue;
            }
            let recorded = Recorded(Arc::new(Kept { position, at, payload, is_text }));
            let len = record.len + recorded.len();
            if record.kept.len() + added.len() >= bounds.max_count || len > bounds.max_len {
                floor = position.offset;
                break;
            }
            record.len = len;
            self.len += recorded.len();
            added.push_front(recorded);
        }
        added.append(&mut record.kept);
        (record.kept, record.floor) = (added, floor);
        self.make_room(id);
    }
}
