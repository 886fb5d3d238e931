//! Lists with names, over all workers: who is in which, and the order in which they came and went.
//!
//! Each change of a list has a version, higher than those of all changes of the list before it, and waits for one
//! worker, always the same for a list: the *teller*, which tells its handler. So all changes of a list are told in
//! their order, wherever they happened.

#![expect(
    clippy::disallowed_types,
    reason = "for what happens a few times for each connection, on no message's path"
)]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, Hash};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::sharded::remainder;

use crate::base::hashing::Hashes;

/// Parts that are locked by themselves: as many as a word has bits.
const PARTS: usize = u64::BITS as usize;

/// Changes of a part that wait, above which those that have come to nothing are looked for.
const MIN_COMPACTED: usize = 1024;

/// Members that are searched one by one.
const MAX_FEW: usize = 32;

/// Lists that are looked at under one lock.
const PAGE_LEN: usize = 256;

/// See the [module's documentation](self). `M` is a member of lists.
#[derive(Debug)]
pub(crate) struct Roll<M> {
    parts: [Mutex<Part<M>>; PARTS],
    /// Seeded at random, so that nobody can choose names that all go to one part.
    hasher: Hashes,
    /// For each worker, the parts that have changes for it, a bit each.
    waiting: Box<[AtomicU64]>,
    /// Whether a worker still tells its handler.
    tells: Mutex<Box<[bool]>>,
}

#[derive(Debug)]
struct Part<M> {
    teller: u16,
    /// In order, for those that begin alike.
    lists: BTreeMap<Box<str>, List<M>>,
    /// Of the last change.
    version: u64,
    /// What the teller has yet to take.
    changes: VecDeque<(Box<str>, Change<M>)>,
    compact_at: usize,
}

/// There while it has members, or its teller has yet to hear that it has none.
#[derive(Debug)]
struct List<M> {
    members: Members<M>,
    /// How many the teller knows of.
    told: u32,
}

/// Most lists have a few, and some may have all connections of a server.
#[derive(Debug)]
enum Members<M> {
    Few(Vec<M>),
    Many(HashSet<M>),
}

/// A member has come or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change<M> {
    pub(crate) member: M,
    pub(crate) has_joined: bool,
    /// The first to come, or the last to go, of those that the teller knows of.
    pub(crate) is_edge: bool,
    pub(crate) version: u64,
}

/// How far a walk through all lists has come.
#[derive(Debug, Default)]
pub(crate) struct Place {
    part: usize,
    after: Option<Box<str>>,
}

impl<M: Copy + Eq + Hash> Roll<M> {
    /// Lists of so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let part = |index: usize| Part {
            teller: u16::try_from(index % workers.max(1)).unwrap_or(0),
            lists: BTreeMap::new(),
            version: 0,
            changes: VecDeque::new(),
            compact_at: MIN_COMPACTED,
        };
        Self {
            parts: std::array::from_fn(|index| Mutex::new(part(index))),
            hasher: Hashes::new(),
            waiting: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            tells: Mutex::new(vec![true; workers].into()),
        }
    }

    /// The members of a list.
    pub(crate) fn find(&self, name: &str) -> Vec<M> {
        let part = self.part(self.index_of(name));
        part.lists.get(name).map(|list| list.members.all()).unwrap_or_default()
    }

    /// Some lists whose names begin with `prefix`, and their members, until there are no more of them. Those that are
    /// there all the time come once each.
    pub(crate) fn page(&self, prefix: &str, place: &mut Place) -> Option<Vec<(Box<str>, Vec<M>)>> {
        if place.part >= PARTS {
            return None;
        }
        let from = match &place.after {
            Some(after) => Bound::Excluded(&**after),
            None => Bound::Included(prefix),
        };
        let part = self.part(place.part);
        let lists = part.lists.range::<str, _>((from, Bound::Unbounded));
        let lists = lists.take_while(|(name, _)| name.starts_with(prefix)).take(PAGE_LEN);
        let lists = lists.map(|(name, list)| (name.clone(), list.members.all()));
        let mut found: Vec<_> = lists.collect();
        drop(part);
        place.after = found.last().map(|(name, _)| name.clone());
        place.part += usize::from(place.after.is_none());
        found.retain(|(_, members)| !members.is_empty());
        Some(found)
    }

    /// Puts a member on a list on which it is not. Returns the worker that has a change to tell.
    pub(crate) fn add(&self, name: &str, member: M) -> u16 {
        let index = self.index_of(name);
        let mut part = self.part(index);
        part.list(name).members.add(member);
        self.note(index, part, name, member, true)
    }

    /// Takes a member off a list on which it is. Returns the worker that has a change to tell.
    pub(crate) fn remove(&self, name: &str, member: M) -> u16 {
        let index = self.index_of(name);
        let mut part = self.part(index);
        part.list(name).members.remove(member);
        self.note(index, part, name, member, false)
    }

    fn note(
        &self,
        index: usize,
        mut part: MutexGuard<'_, Part<M>>,
        name: &str,
        member: M,
        has_joined: bool,
    ) -> u16 {
        part.version += 1;
        let change = Change { member, has_joined, is_edge: false, version: part.version };
        part.changes.push_back((name.into(), change));
        if part.changes.len() >= part.compact_at {
            part.compact();
        }
        self.announce(part.teller, index);
        part.teller
    }

    /// Under the lock of the part, so that its teller does not change meanwhile.
    fn announce(&self, teller: u16, index: usize) {
        if let Some(waiting) = self.waiting.get(usize::from(teller)) {
            waiting.fetch_or(1 << index, Ordering::Release);
        }
    }

    /// Whether a worker has changes to tell.
    #[inline]
    pub(crate) fn has_changes(&self, worker: u16) -> bool {
        let waiting = self.waiting.get(usize::from(worker));
        waiting.is_some_and(|waiting| waiting.load(Ordering::Relaxed) != 0)
    }

    /// What a worker has to tell, about `max` changes of it.
    pub(crate) fn take(&self, worker: u16, max: u32) -> Vec<(Box<str>, Change<M>)> {
        let mut taken = Vec::new();
        let Some(waiting) = self.waiting.get(usize::from(worker)) else { return taken };
        let mut left = waiting.swap(0, Ordering::AcqRel);
        let share = max.div_ceil(left.count_ones().max(1));
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let mut part = self.part(index);
            if part.teller != worker {
                continue;
            }
            taken.extend((0..share).map_while(|_| part.next()));
            if !part.changes.is_empty() {
                self.announce(worker, index);
            }
        }
        taken
    }

    /// A worker ends, and tells nothing more. Returns the one that goes on with its lists, and has to look for changes;
    /// the last to end has none.
    pub(crate) fn retire(&self, worker: u16) -> Option<u16> {
        let mut tells = self.tells.lock().unwrap_or_else(PoisonError::into_inner);
        *tells.get_mut(usize::from(worker))? = false;
        let count = tells.len();
        let after = (1..count).map(|distance| (usize::from(worker) + distance) % count);
        let heir = after.into_iter().find(|other| tells[*other])?;
        let heir = u16::try_from(heir).ok()?;
        for index in 0..PARTS {
            let mut part = self.part(index);
            if part.teller == worker {
                part.teller = heir;
                if !part.changes.is_empty() {
                    self.announce(heir, index);
                }
            }
        }
        Some(heir)
    }

    fn index_of(&self, name: &str) -> usize {
        remainder(self.hasher.hash_one(name), PARTS)
    }

    fn part(&self, index: usize) -> MutexGuard<'_, Part<M>> {
        // Nothing that is done under the lock leaves half of it done.
        self.parts[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Copy + Eq + Hash> Members<M> {
    fn all(&self) -> Vec<M> {
        match self {
            Self::Few(few) => few.clone(),
            Self::Many(many) => many.iter().copied().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    fn add(&mut self, member: M) {
        match self {
            Self::Few(few) if few.len() >= MAX_FEW => {
                *self = Self::Many(few.iter().copied().chain([member]).collect());
            }
            Self::Few(few) => few.push(member),
            Self::Many(many) => drop(many.insert(member)),
        }
    }

    fn remove(&mut self, member: M) {
        match self {
            Self::Few(few) => few.retain(|other| *other != member),
            Self::Many(many) => {
                many.remove(&member);
                // With room to come and go before it is many again.
                if many.len() <= MAX_FEW / 2 {
                    *self = Self::Few(self.all());
                }
            }
        }
    }
}

impl<M: Copy + Eq + Hash> Part<M> {
    fn list(&mut self, name: &str) -> &mut List<M> {
        if !self.lists.contains_key(name) {
            self.lists.insert(name.into(), List { members: Members::Few(Vec::new()), told: 0 });
        }
        self.lists.get_mut(name).expect("it is there, or was put there")
    }

    /// The next change for the teller.
    fn next(&mut self) -> Option<(Box<str>, Change<M>)> {
        let (name, mut change) = self.changes.pop_front()?;
        let list = self.list(&name);
        if change.has_joined {
            change.is_edge = list.told == 0;
            list.told += 1;
        } else {
            list.told = list.told.saturating_sub(1);
            change.is_edge = list.told == 0;
        }
        self.tidy(&name);
        Some((name, change))
    }

    fn tidy(&mut self, name: &str) {
        let list = self.lists.get(name);
        if list.is_some_and(|list| list.told == 0 && list.members.is_empty()) {
            self.lists.remove(name);
        }
    }

    /// Passes over members who have come and gone before anybody was told. What is left is no more than who is there,
    /// and who was when the teller took changes last.
    fn compact(&mut self) {
        let mut came = HashMap::new();
        let mut is_void = vec![false; self.changes.len()];
        for (at, (name, change)) in self.changes.iter().enumerate() {
            let who = (&**name, change.member);
            if change.has_joined {
                came.insert(who, at);
            } else if let Some(before) = came.remove(&who) {
                is_void[before] = true;
                is_void[at] = true;
            }
        }
        let mut void = Vec::new();
        for (change, is_void) in std::mem::take(&mut self.changes).into_iter().zip(is_void) {
            if is_void { void.push(change.0) } else { self.changes.push_back(change) }
        }
        void.iter().for_each(|name| self.tidy(name));
        self.compact_at = MIN_COMPACTED.max(2 * self.changes.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORKERS: u16 = 4;
    const NAMES: [&str; 5] = ["user.1", "user.2", "user.10", "room", ""];

    #[derive(Clone, Debug)]
    enum Step {
        /// On the list or off it.
        Turn(&'static str, u8),
        Take(u16, u32),
        Compact,
        Retire(u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = prop::sample::select(NAMES.as_slice());
        let step = prop_oneof![
            20 => (name, 0..4_u8).prop_map(|(name, member)| Step::Turn(name, member)),
            4 => (0..WORKERS, 1..9_u32).prop_map(|(worker, max)| Step::Take(worker, max)),
            1 => Just(Step::Compact),
            1 => (1..WORKERS).prop_map(Step::Retire),
        ];
        prop::collection::vec(step, 1..300)
    }

    /// What the handlers were told, taken at its word.
    #[derive(Default)]
    struct Told {
        members: HashSet<(Box<str>, u8)>,
        versions: HashMap<Box<str>, u64>,
    }

    impl Told {
        fn hear(&mut self, changes: Vec<(Box<str>, Change<u8>)>) {
            for (name, change) in changes {
                let before = self.versions.insert(name.clone(), change.version);
                assert!(before.is_none_or(|before| before < change.version), "{name}");
                let who = (name.clone(), change.member);
                let changed = match change.has_joined {
                    true => self.members.insert(who),
                    false => self.members.remove(&who),
                };
                assert!(changed, "{name}: twice");
                let count = self.members.iter().filter(|(other, _)| *other == name).count();
                let expected = count == usize::from(change.has_joined);
                assert_eq!(change.is_edge, expected, "{name}: {change:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_happened_in_its_order(steps in steps()) {
            let roll = Roll::new(usize::from(WORKERS));
            let (mut model, mut told) = (HashSet::<(Box<str>, u8)>::new(), Told::default());
            for step in steps {
                match step {
                    Step::Turn(name, member) if model.remove(&(name.into(), member)) => {
                        prop_assert!(roll.has_changes(roll.remove(name, member)));
                    }
                    Step::Turn(name, member) => {
                        model.insert((name.into(), member));
                        prop_assert!(roll.has_changes(roll.add(name, member)));
                    }
                    Step::Take(worker, max) => told.hear(roll.take(worker, max)),
                    Step::Compact => (0..PARTS).for_each(|index| roll.part(index).compact()),
                    Step::Retire(worker) => {
                        // It may have ended before.
                        let heir = roll.retire(worker).expect("the first never ends");
                        prop_assert_ne!(heir, worker);
                        prop_assert!(roll.take(worker, u32::MAX).is_empty());
                    }
                }
                for name in NAMES {
                    let mut found = roll.find(name);
                    found.sort_unstable();
                    let of_name = model.iter().filter(|(other, _)| &**other == name);
                    let mut expected: Vec<_> = of_name.map(|(_, member)| *member).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
            }
            for prefix in ["", "user.1", "user.", "x"] {
                let mut place = Place::default();
                let pages = std::iter::from_fn(|| roll.page(prefix, &mut place)).flatten();
                let listed: Vec<_> = pages.flat_map(|(name, members)| {
                    members.into_iter().map(move |member| (name.clone(), member))
                }).collect();
                let expected: HashSet<_> =
                    model.iter().filter(|(name, _)| name.starts_with(prefix)).cloned().collect();
                prop_assert_eq!(listed.len(), expected.len());
                prop_assert_eq!(listed.into_iter().collect::<HashSet<_>>(), expected);
            }
            (0..WORKERS).for_each(|worker| told.hear(roll.take(worker, u32::MAX)));
            prop_assert_eq!(&told.members, &model);
            for (name, member) in model {
                roll.remove(&name, member);
            }
            (0..WORKERS).for_each(|worker| told.hear(roll.take(worker, u32::MAX)));
            prop_assert!((0..PARTS).all(|index| roll.part(index).lists.is_empty()));
            prop_assert!((0..WORKERS).all(|worker| !roll.has_changes(worker)));
        }
    }

    /// A worker that tells nothing for long holds up no more than who is there.
    #[test]
    fn members_who_come_and_go_meanwhile_are_passed_over() {
        let roll = Roll::new(1);
        roll.add("here", 1);
        for member in 0..100_000 {
            roll.add("lobby", member);
            roll.remove("lobby", member);
        }
        let taken = roll.take(0, u32::MAX);
        assert!(taken.len() <= 2 * MIN_COMPACTED, "{}", taken.len());
        assert!(taken.iter().any(|(name, change)| &**name == "here" && change.has_joined));
        assert!((0..PARTS).map(|index| roll.part(index).lists.len()).sum::<usize>() == 1);
    }

    #[test]
    fn a_list_of_many_is_like_one_of_few() {
        let roll = Roll::new(1);
        let all = || {
            let mut all = roll.find("all");
            all.sort_unstable();
            all
        };
        for member in 0..1000_u32 {
            roll.add("all", member);
            assert!(all().into_iter().eq(0..=member));
        }
        for member in 0..1000 {
            roll.remove("all", member);
            assert!(all().into_iter().eq(member + 1..1000));
        }
    }

    #[test]
    fn the_last_worker_has_no_heir() {
        let roll = Roll::<u8>::new(2);
        assert_eq!(roll.retire(1), Some(0));
        assert_eq!(roll.retire(0), None);
        roll.add("a", 1);
        assert_eq!(roll.take(0, 1).len(), 1);
    }
}
