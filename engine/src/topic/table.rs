//! Who subscribes to what, of one worker.
//!
//! A pattern has a list of members, and each connection a list of its memberships; both know where they stand in the
//! other, so that subscribing, unsubscribing and forgetting a connection take no search.

use std::collections::HashMap;

use slab::Slab;

use super::trie::{Node, PatternId};
use crate::base::chunked::Chunked;

/// How a connection subscribes. The default is how [`Ctx::subscribe`](crate::Ctx::subscribe) does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscribeOptions {
    /// A publication that several subscriptions of the connection match comes once for this one, even if it also comes
    /// for others. Default: off, it comes once for all of them.
    pub duplicates: bool,
}

impl SubscribeOptions {
    /// Sets [`duplicates`](Self::duplicates).
    #[must_use]
    pub const fn with_duplicates(mut self) -> Self {
        self.duplicates = true;
        self
    }
}

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Table {
    by_text: HashMap<Box<str>, PatternId>,
    patterns: Slab<Pattern>,
    /// Those with wildcards.
    wild: Node,
    subscribers: Chunked<Subscriber>,
    /// Numbers what is looked up, so that it is seen who was found already.
    lookups: u64,
    found: Vec<PatternId>,
}

#[derive(Debug)]
struct Pattern {
    text: Box<str>,
    is_wild: bool,
    members: Vec<Member>,
}

/// A connection in the list of a pattern.
#[derive(Clone, Copy, Debug)]
struct Member {
    slot: u32,
    /// Where the pattern stands in the connection's list.
    place: u32,
    duplicates: bool,
}

/// A connection.
#[derive(Debug, Default)]
struct Subscriber {
    memberships: Vec<Membership>,
    /// The last lookup that found it.
    lookup: u64,
}

/// A pattern in the list of a connection.
#[derive(Clone, Copy, Debug)]
struct Membership {
    pattern: PatternId,
    /// Where the connection stands in the pattern's list.
    place: u32,
}

/// What subscribing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Added {
    /// The connection was not subscribed to this.
    pub(super) is_new: bool,
    /// Nobody was.
    pub(super) is_first: bool,
}

/// What unsubscribing changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Removed {
    /// The pattern, and whether it has a wildcard, if nobody is subscribed to it any more.
    pub(super) last: Option<(Box<str>, bool)>,
}

impl Table {
    /// Patterns to which a connection is subscribed.
    pub(crate) fn count_of(&self, slot: u32) -> usize {
        self.subscribers.get(slot).map_or(0, |subscriber| subscriber.memberships.len())
    }

    /// The same, one by one.
    pub(crate) fn patterns_of(&self, slot: u32) -> impl Iterator<Item = &str> {
        let memberships = self.subscribers.get(slot).map(|own| own.memberships.as_slice());
        memberships.unwrap_or_default().iter().map(|own| &*self.pattern(own.pattern).text)
    }

    /// Whether a connection is subscribed to this pattern.
    pub(super) fn has(&self, slot: u32, text: &str) -> bool {
        let (id, subscriber) = (self.by_text.get(text), self.subscribers.get(slot));
        id.zip(subscriber)
            .is_some_and(|(id, own)| own.memberships.iter().any(|own| own.pattern == *id))
    }

    /// All patterns, and how many connections are subscribed to each.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = (&str, usize)> {
        self.by_text.iter().map(|(text, id)| (&**text, self.pattern(*id).members.len()))
    }

    /// Adds a membership. With another `options` than before it is changed.
    pub(super) fn subscribe(
        &mut self,
        slot: u32,
        text: &str,
        is_wild: bool,
        options: SubscribeOptions,
    ) -> Added {
        let id = match self.by_text.get(text) {
            Some(id) => *id,
            None => self.add_pattern(text, is_wild),
        };
        let pattern = &mut self.patterns[id.0 as usize];
        let memberships = &mut self.subscribers.entry(slot).memberships;
        // A connection has few, a pattern may have very many.
        if let Some(own) = memberships.iter().find(|own| own.pattern == id) {
            pattern.members[own.place as usize].duplicates = options.duplicates;
            return Added { is_new: false, is_first: false };
        }
        let is_first = pattern.members.is_empty();
        let place = index(memberships.len());
        memberships.push(Membership { pattern: id, place: index(pattern.members.len()) });
        pattern.members.push(Member { slot, place, duplicates: options.duplicates });
        Added { is_new: true, is_first }
    }

    /// Removes a membership, if there is one.
    pub(super) fn unsubscribe(&mut self, slot: u32, text: &str) -> Option<Removed> {
        let id = *self.by_text.get(text)?;
        let memberships = &self.subscribers.get(slot)?.memberships;
        let place = memberships.iter().position(|own| own.pattern == id)?;
        Some(self.remove(slot, place))
    }

    /// Removes some membership of a connection, if it has any.
    pub(super) fn unsubscribe_any(&mut self, slot: u32) -> Option<Removed> {
        let subscriber = self.subscribers.get_mut(slot)?;
        match subscriber.memberships.len() {
            0 => {
                subscriber.memberships = Vec::new();
                None
            }
            count => Some(self.remove(slot, count - 1)),
        }
    }

    /// Calls `each` for every connection that gets what is published to `topic`, as often as it gets it.
    pub(crate) fn for_each_copy(&mut self, topic: &str, each: impl FnMut(u32)) {
        self.find(topic, true, each);
    }

    /// Calls `each` for every connection that gets what is published to `topic`, once.
    pub(crate) fn for_each_subscriber(&mut self, topic: &str, each: impl FnMut(u32)) {
        self.find(topic, false, each);
    }

    fn find(&mut self, topic: &str, with_duplicates: bool, mut each: impl FnMut(u32)) {
        let mut found = std::mem::take(&mut self.found);
        found.extend(self.by_text.get(topic));
        if !self.wild.is_empty() {
            self.wild.find(topic, &mut found);
        }
        self.lookups += 1;
        let is_only = found.len() == 1;
        for id in found.drain(..) {
            for member in &self.patterns[id.0 as usize].members {
                if is_only || with_duplicates && member.duplicates {
                    each(member.slot);
                    continue;
                }
                let Some(subscriber) = self.subscribers.get_mut(member.slot) else { continue };
                if subscriber.lookup != self.lookups {
                    subscriber.lookup = self.lookups;
                    each(member.slot);
                }
            }
        }
        self.found = found;
    }

    fn pattern(&self, id: PatternId) -> &Pattern {
        &self.patterns[id.0 as usize]
    }

    fn add_pattern(&mut self, text: &str, is_wild: bool) -> PatternId {
        let pattern = Pattern { text: text.into(), is_wild, members: Vec::new() };
        let id = PatternId(index(self.patterns.insert(pattern)));
        self.by_text.insert(text.into(), id);
        if is_wild {
            self.wild.insert(text, id);
        }
        id
    }

    /// Removes the membership at `place` of a connection's list.
    fn remove(&mut self, slot: u32, place: usize) -> Removed {
        let memberships = &mut self.subscribers.entry(slot).memberships;
        let gone = memberships.swap_remove(place);
        if let Some(moved) = memberships.get(place) {
            let pattern = &mut self.patterns[moved.pattern.0 as usize];
            pattern.members[moved.place as usize].place = index(place);
        }
        let pattern = &mut self.patterns[gone.pattern.0 as usize];
        pattern.members.swap_remove(gone.place as usize);
        if let Some(moved) = pattern.members.get(gone.place as usize).copied() {
            let memberships = &mut self.subscribers.entry(moved.slot).memberships;
            memberships[moved.place as usize].place = gone.place;
        }
        let pattern = &mut self.patterns[gone.pattern.0 as usize];
        if !pattern.members.is_empty() {
            return Removed { last: None };
        }
        let Pattern { text, is_wild, .. } = self.patterns.remove(gone.pattern.0 as usize);
        self.by_text.remove(&text);
        if is_wild {
            self.wild.remove(&text);
        }
        Removed { last: Some((text, is_wild)) }
    }
}

/// Neither connections of a worker nor subscriptions of a connection come near 2^32.
fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "proptest's macros share strategies")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::name;
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe(u32, &'static str, bool),
        Unsubscribe(u32, &'static str),
        Forget(u32),
        Publish(&'static str),
    }

    const PATTERNS: [&str; 12] =
        ["a", "b", "a.b", "a.b.c", "*", "a.*", "*.b", "a.*.c", ">", "a.>", "a.b.>", "*.*.*"];
    const TOPICS: [&str; 8] = ["a", "b", "a.b", "a.c", "b.b", "a.b.c", "a.x.c", "a.b.c.d"];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let pattern = || prop::sample::select(PATTERNS.as_slice());
        let step = prop_oneof![
            4 => (0..6_u32, pattern(), any::<bool>()).prop_map(|(s, p, d)| Step::Subscribe(s, p, d)),
            3 => (0..6_u32, pattern()).prop_map(|(s, p)| Step::Unsubscribe(s, p)),
            1 => (0..6_u32).prop_map(Step::Forget),
            3 => prop::sample::select(TOPICS.as_slice()).prop_map(Step::Publish),
        ];
        prop::collection::vec(step, 1..200)
    }

    /// What the table should say, found out the long way.
    #[derive(Default)]
    struct Naive(BTreeMap<(u32, &'static str), bool>);

    impl Naive {
        fn subscribers(&self, topic: &str) -> Vec<u32> {
            let mut all = Vec::new();
            for slot in 0..6 {
                let matching =
                    |(key, _): &(&(u32, &str), &bool)| key.0 == slot && name::matches(key.1, topic);
                let found: Vec<_> = self.0.iter().filter(matching).map(|(_, own)| *own).collect();
                let extra = found.iter().filter(|duplicates| **duplicates).count();
                let once = usize::from(found.iter().any(|duplicates| !duplicates));
                all.extend(std::iter::repeat_n(slot, extra + once));
            }
            all
        }
    }

    proptest! {
        #[test]
        fn members_are_those_of_the_naive_model(steps in steps()) {
            let mut table = Table::default();
            let mut naive = Naive::default();
            for step in steps {
                match step {
                    Step::Subscribe(slot, pattern, duplicates) => {
                        let is_wild = name::check_pattern(pattern).unwrap();
                        let is_first = !naive.0.keys().any(|key| key.1 == pattern);
                        let is_new = naive.0.insert((slot, pattern), duplicates).is_none();
                        let options = SubscribeOptions { duplicates };
                        let added = table.subscribe(slot, pattern, is_wild, options);
                        prop_assert_eq!(added, Added { is_new, is_first });
                    }
                    Step::Unsubscribe(slot, pattern) => {
                        let was = naive.0.remove(&(slot, pattern)).is_some();
                        let is_last = !naive.0.keys().any(|key| key.1 == pattern);
                        let removed = table.unsubscribe(slot, pattern);
                        prop_assert_eq!(removed.is_some(), was);
                        if let Some(removed) = removed {
                            prop_assert_eq!(removed.last.is_some(), is_last);
                        }
                    }
                    Step::Forget(slot) => {
                        let count = naive.0.keys().filter(|key| key.0 == slot).count();
                        naive.0.retain(|key, _| key.0 != slot);
                        let mut removed = 0;
                        while table.unsubscribe_any(slot).is_some() {
                            removed += 1;
                        }
                        prop_assert_eq!(removed, count);
                    }
                    Step::Publish(topic) => {
                        let mut found = Vec::new();
                        table.for_each_copy(topic, |slot| found.push(slot));
                        found.sort_unstable();
                        let mut expected = naive.subscribers(topic);
                        prop_assert_eq!(&found, &expected);
                        found.clear();
                        table.for_each_subscriber(topic, |slot| found.push(slot));
                        found.sort_unstable();
                        expected.dedup();
                        prop_assert_eq!(found, expected);
                    }
                }
                for slot in 0..6 {
                    let mut own: Vec<_> = table.patterns_of(slot).collect();
                    own.sort_unstable();
                    let keys = naive.0.keys().filter(|key| key.0 == slot);
                    prop_assert_eq!(&own, &keys.map(|key| key.1).collect::<Vec<_>>());
                    prop_assert_eq!(table.count_of(slot), own.len());
                }
            }
            let listed: usize = table.patterns().map(|(_, count)| count).sum();
            prop_assert_eq!(listed, naive.0.len());
            prop_assert_eq!(table.wild.is_empty(), !naive.0.keys().any(|key| key.1.contains(['*', '>'])));
        }
    }
}
