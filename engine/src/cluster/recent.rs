//! What is known of topics, by owner: so many that were used last, at least.

use std::collections::HashMap;
use std::mem;

type Generation<V> = HashMap<u64, HashMap<Box<str>, V>>;

/// Two generations: what is used comes to the young one, and once that has as many as may be it becomes the old one,
/// whose place it takes.
#[derive(Debug)]
pub(super) struct Recent<V> {
    young: Generation<V>,
    old: Generation<V>,
    /// Of the young one.
    count: usize,
    max: usize,
}

impl<V> Recent<V> {
    /// Of `max` that were used last none is forgotten.
    pub(super) fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), count: 0, max }
    }

    /// What is known, which counts as a use. What is forgotten for it is kept all the same where `keeps` says so.
    pub(super) fn get_mut(
        &mut self,
        owner: u64,
        topic: &str,
        keeps: impl Fn(&V) -> bool,
    ) -> Option<&mut V> {
        let is_young = self.young.get(&owner).is_some_and(|topics| topics.contains_key(topic));
        if !is_young {
            let topics = self.old.get_mut(&owner)?;
            let (topic, value) = topics.remove_entry(topic)?;
            if topics.is_empty() {
                self.old.remove(&owner);
            }
            self.put(owner, topic, value, keeps);
        }
        self.young.get_mut(&owner)?.get_mut(topic)
    }

    /// Adds what is not known.
    pub(super) fn insert(&mut self, owner: u64, topic: &str, value: V, keeps: impl Fn(&V) -> bool) {
        self.put(owner, topic.into(), value, keeps);
    }

    /// Forgets topics of which `is_over` says so, of all owners. Returns what was known of them.
    pub(super) fn forget(&mut self, mut is_over: impl FnMut(&str) -> bool) -> Vec<V> {
        self.take_out(|topics, gone| {
            gone.extend(topics.extract_if(|topic, _| is_over(topic)).map(|(_, value)| value));
        })
    }

    /// As [`forget`](Self::forget), for one topic.
    pub(super) fn forget_topic(&mut self, topic: &str) -> Vec<V> {
        self.take_out(|topics, gone| gone.extend(topics.remove(topic)))
    }

    /// Has `take` move values out of the topics of each owner.
    fn take_out(&mut self, mut take: impl FnMut(&mut HashMap<Box<str>, V>, &mut Vec<V>)) -> Vec<V> {
        let mut gone = Vec::new();
        let mut take_from = |generation: &mut Generation<V>, gone: &mut Vec<V>| {
            generation.retain(|_, topics| {
                take(topics, gone);
                !topics.is_empty()
            });
        };
        take_from(&mut self.young, &mut gone);
        self.count -= gone.len();
        take_from(&mut self.old, &mut gone);
        gone
    }

    fn put(&mut self, owner: u64, topic: Box<str>, value: V, keeps: impl Fn(&V) -> bool) {
        if self.count >= self.max {
            let dropped = mem::replace(&mut self.old, mem::take(&mut self.young));
            self.count = 0;
            for (owner, topics) in dropped {
                for (topic, value) in topics.into_iter().filter(|(_, value)| keeps(value)) {
                    self.add(owner, topic, value);
                }
            }
        }
        self.add(owner, topic, value);
    }

    fn add(&mut self, owner: u64, topic: Box<str>, value: V) {
        self.young.entry(owner).or_default().insert(topic, value);
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no(_: &u32) -> bool {
        false
    }

    #[test]
    fn those_that_were_used_last_are_there() {
        let mut recent = Recent::new(10);
        recent.insert(7, "used", 0, no);
        for number in 0..1000 {
            recent.insert(1, &number.to_string(), number, no);
            assert!(recent.get_mut(7, "used", no).is_some());
            for back in number.saturating_sub(4)..=number {
                assert_eq!(recent.get_mut(1, &back.to_string(), no), Some(&mut back.clone()));
            }
            let all = |of: &Generation<u32>| of.values().map(HashMap::len).sum::<usize>();
            assert_eq!(all(&recent.young), recent.count);
            assert!(all(&recent.young) + all(&recent.old) <= 20);
        }
        assert_eq!(recent.get_mut(1, "0", no), None);
        assert_eq!(recent.get_mut(2, "999", no), None, "another's");
    }

    #[test]
    fn what_is_kept_or_forgotten() {
        let mut recent = Recent::new(2);
        recent.insert(1, "kept", 1, no);
        for number in 0..100 {
            recent.insert(1, &number.to_string(), 0, |value| *value == 1);
        }
        assert!(recent.get_mut(1, "kept", no).is_some());
        recent.insert(2, "kept", 2, |_| true);
        let mut gone = recent.forget_topic("kept");
        gone.sort_unstable();
        assert_eq!(gone, [1, 2]);
        recent.insert(3, "a.b", 3, |_| true);
        recent.insert(3, "b.b", 4, |_| true);
        assert_eq!(recent.forget(|topic| topic.starts_with("a.")), [3]);
        assert_eq!(recent.get_mut(3, "b.b", no), Some(&mut 4));
        recent.forget(|_| true);
        assert_eq!((recent.count, recent.young.len(), recent.old.len()), (0, 0, 0));
    }
}
