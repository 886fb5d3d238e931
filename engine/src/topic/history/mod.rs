//! What topics keep of what was published to them, for connections that come back.
//!
//! Topics are in classes by their hash, each with a lock. A publication is numbered, kept and posted to the workers
//! under the lock of its topic, so that all workers get what is numbered in the same order.

#![expect(
    clippy::disallowed_types,
    reason = "what is kept is known to all workers; topics without a history take no lock"
)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringwire_codec::Message;
use slab::Slab;

use crate::base::sharded::remainder;

mod following;

pub(super) use self::following::Old;

/// Classes of topics.
const SHARDS: usize = 16;
/// What a topic takes beside its name: its record, and what finds it.
const RECORD_LEN: usize = 224;
/// What a message takes beside its bytes.
const KEPT_LEN: usize = size_of::<Kept>() + 32;

/// Up to where a topic was heard.
///
/// Both numbers are below 2^53, so that JSON has them as numbers. Positions of one epoch are in order. Where each
/// server numbers by itself, those of a topic are in order as long as it runs, and those of a server before it are of
/// other epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which life of the topic's numbers.
    pub epoch: u64,
    /// How many publications there were in it; or, where the [bus](crate::cluster) numbers for all nodes, the number of
    /// the last, which is higher than those of all before it.
    pub offset: u64,
}

/// A publication that was kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Recorded(Arc<Kept>);

/// What a connection gets that subscribes with [`Ctx::subscribe_since`](crate::Ctx::subscribe_since).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Where the topic is now. What comes by itself comes after this.
    pub position: Position,
    /// What was published since the position that the connection named, up to this one, in order. `None`: some of it is
    /// gone.
    pub missed: Option<Vec<Recorded>>,
}

#[derive(PartialEq, Eq)]
struct Kept {
    position: Position,
    at: Option<Instant>,
    payload: Vec<u8>,
    is_text: bool,
}

/// How much of a topic is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_count: usize,
    pub(super) max_len: usize,
    pub(super) max_age: Option<Duration>,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct History {
    shards: [Mutex<Shard>; SHARDS],
    epochs: AtomicU64,
    len: AtomicUsize,
}

/// Who gives a topic its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    /// This server.
    Own,
    /// The bus, for all nodes. `follows`: what it numbers comes here. `is_whole`: what is not here it has no more.
    Shared { follows: bool, is_whole: bool },
}

/// A class of topics.
#[derive(Debug, Default)]
pub(super) struct Shard {
    by_topic: HashMap<Arc<str>, usize>,
    records: Slab<Record>,
    /// What goes first for want of memory: topics that nothing was published to, then those that were longest ago.
    order: BTreeMap<Turn, usize>,
    turns: u64,
    len: usize,
    /// In bytes. One record without messages may always be there.
    max_len: usize,
    /// The record that is looked at next for what is too old.
    hand: usize,
}

type Turn = (bool, u64);

#[derive(Debug)]
struct Record {
    topic: Arc<str>,
    turn: Turn,
    /// Of the last message.
    top: Position,
    /// All that came behind this offset is kept.
    floor: u64,
    numbers: Numbers,
    /// The last ones, without gaps.
    kept: VecDeque<Recorded>,
    /// Their memory.
    len: usize,
    max_age: Option<Duration>,
}

impl Recorded {
    /// Where it stands in its topic.
    pub fn position(&self) -> Position {
        self.0.position
    }

    /// The message, as subscribers got it.
    pub fn message(&self) -> Message<'_> {
        match std::str::from_utf8(&self.0.payload) {
            Ok(text) if self.0.is_text => Message::Text(text),
            _ => Message::Binary(&self.0.payload),
        }
    }

    fn len(&self) -> usize {
        KEPT_LEN + self.0.payload.capacity()
    }

    fn is_aged(&self, max_age: Option<Duration>, now: Option<Instant>) -> bool {
        let age = now.zip(self.0.at).map(|(now, at)| now.saturating_duration_since(at));
        max_age.zip(age).is_some_and(|(max_age, age)| age > max_age)
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("position", &self.position())
            .field("message", &self.message())
            .finish()
    }
}

impl History {
    /// For so many bytes. The first epoch is near `seed`, which is random.
    pub(super) fn new(max_len: usize, seed: u64) -> Self {
        let max_len = max_len / SHARDS;
        let shard = || Mutex::new(Shard { max_len, ..Shard::default() });
        Self {
            shards: std::array::from_fn(|_| shard()),
            // Topics begin anew less often than 2^52 times.
            epochs: AtomicU64::new((seed >> 12).max(1)),
            len: AtomicUsize::new(0),
        }
    }

    /// Memory that is used, in bytes.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Has `work` done on the topics with this hash, while nobody else works on them.
    pub(super) fn with<T>(&self, hash: u64, work: impl FnOnce(&mut Shard, &AtomicU64) -> T) -> T {
        let shard = &self.shards[class_of(hash)];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shard.len;
        let done = work(&mut shard, &self.epochs);
        self.len.fetch_add(shard.len.wrapping_sub(before), Ordering::Relaxed);
        done
    }

    /// The same on each class of topics, one after the other.
    pub(super) fn with_each(&self, mut work: impl FnMut(&mut Shard)) {
        for class in 0..SHARDS as u64 {
            // Classes are remainders.
            self.with(class, |shard, _| work(shard));
        }
    }

    /// Has `work` done while nobody works on any topic. It finds the class of a hash by its index, which
    /// [`class_of`] gives.
    pub(super) fn with_all(&self, work: impl FnOnce(&mut [MutexGuard<'_, Shard>], &AtomicU64)) {
        let lock = |shard| Mutex::lock(shard).unwrap_or_else(PoisonError::into_inner);
        let mut shards: Vec<_> = self.shards.iter().map(lock).collect();
        let sum = |shards: &[MutexGuard<'_, Shard>]| shards.iter().map(|it| it.len).sum::<usize>();
        let before = sum(&shards);
        work(&mut shards, &self.epochs);
        self.len.fetch_add(sum(&shards).wrapping_sub(before), Ordering::Relaxed);
    }
}

/// Which class of topics has a hash.
pub(super) fn class_of(hash: u64) -> usize {
    remainder(hash, SHARDS)
}

/// Where a publication stands that is numbered and has yet to be kept. It holds until something else is done with its
/// class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    id: usize,
    pub(super) position: Position,
    /// The offset before it, of the same topic, if it is known.
    pub(super) previous: Option<u64>,
}

impl Shard {
    /// Where the next publication will stand that this server numbers.
    pub(super) fn next(&mut self, topic: &str, bounds: Bounds, epochs: &AtomicU64) -> Place {
        let id = self.record(topic, bounds, epochs);
        if self.records[id].numbers != Numbers::Own {
            let epoch = epochs.fetch_add(1, Ordering::Relaxed);
            self.restart(id, Position { epoch, offset: 0 }, Numbers::Own);
        }
        let Position { epoch, offset } = self.records[id].top;
        Place { id, position: Position { epoch, offset: offset + 1 }, previous: Some(offset) }
    }

    /// Keeps the publication that stands there.
    pub(super) fn keep(
        &mut self,
        Place { id, position, .. }: Place,
        (payload, is_text): (Vec<u8>, bool),
        bounds: Bounds,
        now: Option<Instant>,
    ) {
        self.touch(id);
        let record = &mut self.records[id];
        record.top = position;
        record.max_age = bounds.max_age;
        let recorded = Recorded(Arc::new(Kept { position, at: now, payload, is_text }));
        let len = recorded.len();
        record.kept.push_back(recorded);
        record.len += len;
        self.len += len;
        while self.records[id].kept.len() > bounds.max_count
            || self.records[id].len > bounds.max_len
        {
            self.drop_oldest(id);
        }
        self.make_room(id);
        self.drop_aged(id, now);
        self.look_at_another(now);
    }

    /// What was published to a topic since a position, and how many publications there were to any topic of this class.
    pub(super) fn since(
        &mut self,
        topic: &str,
        since: Option<Position>,
        bounds: Bounds,
        (epochs, now): (&AtomicU64, Option<Instant>),
    ) -> (Recovery, u64) {
        let id = self.record(topic, bounds, epochs);
        self.drop_aged(id, now);
        let Record { top, floor, kept, .. } = &self.records[id];
        let from = match since {
            None => Some(top.offset),
            Some(since) => {
                let is_kept = (*floor..=top.offset).contains(&since.offset);
                (since.epoch == top.epoch && is_kept).then_some(since.offset)
            }
        };
        let missed = from.map(|from| {
            let start = kept.partition_point(|recorded| recorded.position().offset <= from);
            kept.range(start..).cloned().collect()
        });
        (Recovery { position: *top, missed }, self.turns)
    }

    fn record(&mut self, topic: &str, bounds: Bounds, epochs: &AtomicU64) -> usize {
        if let Some(id) = self.by_topic.get(topic) {
            return *id;
        }
        let topic = Arc::<str>::from(topic);
        let turn = (false, self.turn());
        let top = Position { epoch: epochs.fetch_add(1, Ordering::Relaxed), offset: 0 };
        self.len += record_len(&topic);
        let id = self.records.insert(Record {
            topic: Arc::clone(&topic),
            turn,
            top,
            floor: 0,
            numbers: Numbers::Own,
            kept: VecDeque::new(),
            len: 0,
            max_age: bounds.max_age,
        });
        self.by_topic.insert(topic, id);
        self.order.insert(turn, id);
        self.make_room(id);
        id
    }

    /// Begins a topic anew, of which nothing is known but where it is.
    fn restart(&mut self, id: usize, top: Position, numbers: Numbers) {
        while !self.records[id].kept.is_empty() {
            self.drop_oldest(id);
        }
        let record = &mut self.records[id];
        (record.top, record.floor, record.numbers) = (top, top.offset, numbers);
    }

    fn touch(&mut self, id: usize) {
        let turn = (true, self.turn());
        let before = std::mem::replace(&mut self.records[id].turn, turn);
        self.order.remove(&before);
        self.order.insert(turn, id);
    }

    /// The number of what is done next, among all topics of this class.
    pub(super) fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// Gives up what there is no memory for, but not the topic `id`.
    fn make_room(&mut self, id: usize) {
        while self.len > self.max_len {
            let mut others = self.order.values().copied().filter(|other| *other != id);
            match others.next() {
                Some(other) if self.records[other].kept.is_empty() => self.forget(other),
                Some(other) => self.drop_oldest(other),
                None if self.records[id].kept.is_empty() => return,
                None => self.drop_oldest(id),
            }
        }
    }

    fn drop_oldest(&mut self, id: usize) {
        let record = &mut self.records[id];
        let Some(oldest) = record.kept.pop_front() else { return };
        if record.kept.is_empty() {
            record.kept = VecDeque::new();
        }
        record.floor = oldest.position().offset;
        record.len -= oldest.len();
        self.len -= oldest.len();
    }

    fn forget(&mut self, id: usize) {
        let record = self.records.remove(id);
        self.by_topic.remove(&record.topic);
        self.order.remove(&record.turn);
        self.len -= record.len + record_len(&record.topic);
    }

    fn drop_aged(&mut self, id: usize, now: Option<Instant>) {
        while let record = &self.records[id]
            && record.kept.front().is_some_and(|first| first.is_aged(record.max_age, now))
        {
            self.drop_oldest(id);
        }
    }

    /// With each publication another topic is looked at, so that what is too old goes everywhere.
    fn look_at_another(&mut self, now: Option<Instant>) {
        self.hand = if self.hand + 1 < self.records.capacity() { self.hand + 1 } else { 0 };
        if self.records.contains(self.hand) {
            self.drop_aged(self.hand, now);
        }
    }
}

fn record_len(topic: &str) -> usize {
    RECORD_LEN + topic.len()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has no turn")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOPICS: [&str; 3] = ["a", "b", "c"];

    #[derive(Clone, Debug)]
    enum Step {
        /// To a topic, so long.
        Publish(usize, usize),
        /// A topic, and how far back it was heard; nowhere, if that is before its beginning.
        Recover(usize, u64),
        /// So many seconds pass.
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..3_usize, 0..300_usize).prop_map(|(topic, len)| Step::Publish(topic, len)),
            3 => (0..3_usize, 0..14_u64).prop_map(|(topic, back)| Step::Recover(topic, back)),
            1 => (0..7_u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..150)
    }

    fn bounds(max_count: usize, max_len: usize, max_age: Option<u64>) -> Bounds {
        Bounds { max_count, max_len, max_age: max_age.map(Duration::from_secs) }
    }

    /// All that was ever published to a topic, in its last epoch: when, and what.
    type Model = Vec<(u64, Vec<u8>)>;

    proptest! {
        /// With memory for all: what comes is what the model has since then, unless the bounds say that it is gone.
        #[test]
        fn what_was_missed_is_given_or_told_as_gone(steps in steps(), max_age in 1..12_u64) {
            let history = History::new(SHARDS << 20, 77 << 12);
            let bounds = bounds(8, 8 * KEPT_LEN + 900, Some(max_age));
            let began = Instant::now();
            let mut models: [Model; 3] = Default::default();
            let mut seconds = 0;
            for step in steps {
                let now = Some(began + Duration::from_secs(seconds));
                match step {
                    Step::Wait(more) => seconds += more,
                    Step::Publish(topic, len) => {
                        let payload = vec![b'x'; len];
                        models[topic].push((seconds, payload.clone()));
                        history.with(0, |shard, epochs| {
                            let next = shard.next(TOPICS[topic], bounds, epochs);
                            assert_eq!(next.position.offset, models[topic].len() as u64);
                            shard.keep(next, (payload, false), bounds, now);
                        });
                    }
                    Step::Recover(topic, back) => {
                        let model = &models[topic];
                        let since = |since| history.with(0, |shard, epochs| {
                            shard.since(TOPICS[topic], since, bounds, (epochs, now)).0
                        });
                        let Recovery { position, missed } = since(None);
                        prop_assert_eq!(position.offset, model.len() as u64);
                        prop_assert_eq!(missed, Some(vec![]), "it missed nothing yet");
                        let Some(heard) = position.offset.checked_sub(back) else {
                            let ahead = Position { offset: position.offset + 1, ..position };
                            prop_assert_eq!(since(Some(ahead)).missed, None, "never was");
                            continue;
                        };
                        // The newest ones that the bounds leave.
                        let (mut count, mut len) = (0, 0);
                        for (at, payload) in model.iter().rev() {
                            len += KEPT_LEN + payload.len();
                            if count == 8 || len > bounds.max_len || seconds - at > max_age {
                                break;
                            }
                            count += 1;
                        }
                        let missed = since(Some(Position { offset: heard, ..position })).missed;
                        let start = |back| model.len() - usize::try_from(back).unwrap();
                        let expected = (back <= count).then(|| model[start(back)..].to_vec());
                        let got = missed.map(|all| {
                            all.iter().map(|it| it.message().as_bytes().to_vec()).collect::<Vec<_>>()
                        });
                        let expected = expected.map(|all| all.into_iter().map(|(_, it)| it).collect());
                        prop_assert_eq!(got, expected);
                        let other = Position { epoch: position.epoch + 1, offset: heard };
                        prop_assert_eq!(since(Some(other)).missed, None, "another epoch");
                    }
                }
            }
        }

        /// With little memory: never more than may be, and never a gap.
        #[test]
        fn memory_is_bounded_and_nothing_is_left_out(
            steps in prop::collection::vec((0..40_usize, 0..400_usize, any::<bool>()), 1..300),
        ) {
            const MAX_LEN: usize = 4 << 10;
            let history = History::new(SHARDS * MAX_LEN, 0);
            let bounds = bounds(100, 1 << 20, None);
            let mut tops = HashMap::<usize, Position>::new();
            for (topic, len, publishes) in steps {
                let name = format!("topic.{topic}");
                let before = tops.get(&topic).copied();
                history.with(5, |shard, epochs| {
                    if publishes {
                        let place = shard.next(&name, bounds, epochs);
                        shard.keep(place, (vec![0; len], false), bounds, None);
                        tops.insert(topic, place.position);
                    } else {
                        let (Recovery { position, missed }, _) =
                            shard.since(&name, before, bounds, (epochs, None));
                        let is_same = before.is_some_and(|before| before == position);
                        assert!(!is_same || missed == Some(vec![]), "it has heard all");
                        tops.insert(topic, position);
                    }
                    let top = tops[&topic];
                    assert!(before.is_none_or(|before| before <= top), "positions never go back");
                    let all = shard.records.iter().map(|(_, record)| record.len + record_len(&record.topic));
                    assert_eq!(all.sum::<usize>(), shard.len);
                    assert!(shard.len <= MAX_LEN, "{}", shard.len);
                    for (_, record) in &shard.records {
                        let numbers = record.kept.iter().rev().map(|it| it.position().offset);
                        assert!(numbers.eq((1..=record.top.offset).rev().take(record.kept.len())));
                    }
                    assert_eq!(shard.order.len(), shard.records.len());
                });
                prop_assert_eq!(history.len(), history.with(5, |shard, _| shard.len));
            }
        }
    }

    #[test]
    fn topics_that_were_only_subscribed_to_go_first() {
        let history = History::new(SHARDS * 2048, 0);
        let bounds = bounds(10, 1 << 20, None);
        history.with(0, |shard, epochs| {
            let first = shard.next("room", bounds, epochs);
            shard.keep(first, (b"hi".to_vec(), true), bounds, None);
            for number in 0..1000 {
                shard.since(&format!("cold.{number}"), None, bounds, (epochs, None));
            }
            let origin = Position { offset: 0, ..first.position };
            let missed = shard.since("room", Some(origin), bounds, (epochs, None)).0.missed;
            assert_eq!(missed.unwrap()[0].message(), Message::Text("hi"));
        });
    }

    #[test]
    fn what_is_too_old_goes_from_topics_that_are_silent_too() {
        let history = History::new(SHARDS << 20, 0);
        let bounds = bounds(10, 1 << 20, Some(5));
        let (began, later) = (Instant::now(), Instant::now() + Duration::from_secs(6));
        history.with(0, |shard, epochs| {
            for number in 0..20 {
                let topic = format!("topic.{number}");
                let next = shard.next(&topic, bounds, epochs);
                shard.keep(next, (vec![0; 100], false), bounds, Some(began));
            }
            for _ in 0..100 {
                let next = shard.next("loud", bounds, epochs);
                shard.keep(next, (vec![0; 100], false), bounds, Some(later));
            }
            let silent = shard.records.iter().filter(|(_, record)| &*record.topic != "loud");
            assert!(silent.into_iter().all(|(_, record)| record.kept.is_empty()));
        });
    }
}
