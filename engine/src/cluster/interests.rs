//! What has subscribers on this node, and what the bus is to bring for it: each topic by one subscription of the bus,
//! as far as patterns allow, so that a publication comes once.
//!
//! A topic that a pattern takes in, and a pattern that another includes, needs no subscription of its own. Patterns
//! that only overlap (`a.*` and `*.b`) bring what they have in common twice, of which one is passed over.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use crate::topic::trie::{Node, PatternId};
use crate::topic::{has_wildcard, matches};

/// What the bus is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Subscribe(Box<str>),
    Unsubscribe(Box<str>),
}

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(super) struct Interests {
    /// In order, for those that begin alike.
    topics: BTreeSet<Box<str>>,
    patterns: HashMap<Box<str>, PatternId>,
    /// The same, to be found by topic.
    tree: Node,
    next_id: u32,
    found: Vec<PatternId>,
}

impl Interests {
    /// Whether a topic has subscribers here.
    pub(super) fn includes(&mut self, topic: &str) -> bool {
        self.topics.contains(topic) || self.count_patterns(topic) > 0
    }

    /// A topic or pattern has its first subscriber. What the bus has to do keeps what it brings complete at each step.
    pub(super) fn begin(&mut self, text: &str, wishes: &mut VecDeque<Wish>) {
        if !has_wildcard(text) {
            self.topics.insert(text.into());
            if self.count_patterns(text) == 0 {
                wishes.push_back(Wish::Subscribe(text.into()));
            }
            return;
        }
        let covered = self.is_included(text);
        let narrower = if covered { Vec::new() } else { self.outermost_in(text) };
        let topics = if covered { Vec::new() } else { self.bare_topics_in(text) };
        let id = PatternId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.tree.insert(text, id);
        self.patterns.insert(text.into(), id);
        if !covered {
            wishes.push_back(Wish::Subscribe(text.into()));
            wishes.extend(narrower.into_iter().chain(topics).map(Wish::Unsubscribe));
        }
    }

    /// A topic or pattern has lost its last subscriber.
    pub(super) fn end(&mut self, text: &str, wishes: &mut VecDeque<Wish>) {
        if !has_wildcard(text) {
            self.topics.remove(text);
            if self.count_patterns(text) == 0 {
                wishes.push_back(Wish::Unsubscribe(text.into()));
            }
            return;
        }
        self.patterns.remove(text);
        self.tree.remove(text);
        if !self.is_included(text) {
            let narrower = self.outermost_in(text);
            let topics = self.bare_topics_in(text);
            wishes.extend(narrower.into_iter().chain(topics).map(Wish::Subscribe));
            wishes.push_back(Wish::Unsubscribe(text.into()));
        }
    }

    /// How many patterns take in a topic.
    fn count_patterns(&mut self, topic: &str) -> usize {
        self.found.clear();
        self.tree.find(topic, &mut self.found);
        self.found.len()
    }

    /// Whether another pattern includes this one.
    fn is_included(&self, pattern: &str) -> bool {
        self.patterns.keys().any(|other| **other != *pattern && is_wider(other, pattern))
    }

    /// The patterns in this one that no other includes.
    fn outermost_in(&self, pattern: &str) -> Vec<Box<str>> {
        let inside = self.patterns.keys().filter(|other| is_wider(pattern, other));
        inside.filter(|other| !self.is_included(other)).cloned().collect()
    }

    /// The topics in this pattern that no other takes in.
    fn bare_topics_in(&mut self, pattern: &str) -> Vec<Box<str>> {
        let literal = pattern.find(['*', '>']).unwrap_or_default();
        let (literal, _) = pattern.split_at(literal);
        let from = self.topics.range::<str, _>((Bound::Included(literal), Bound::Unbounded));
        let mut inside: Vec<_> = from
            .take_while(|topic| topic.starts_with(literal))
            .filter(|topic| matches(pattern, topic))
            .cloned()
            .collect();
        inside.retain(|topic| self.count_patterns(topic) == 0);
        inside
    }
}

/// Whether all that `inner` takes in, `outer` does.
fn is_wider(outer: &str, inner: &str) -> bool {
    let (mut wanted, mut tokens) = (outer.split('.'), inner.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXTS: [&str; 14] = [
        "a", "b", "a.b", "a.b.c", "a.x", "*", "a.*", "*.b", "a.*.c", ">", "a.>", "a.b.>", "*.*",
        "*.>",
    ];
    const TOPICS: [&str; 9] = ["a", "b", "c", "a.b", "a.c", "b.b", "a.b.c", "a.x.c", "a.b.c.d"];

    proptest! {
        /// The bus, which does what it is told, step by step.
        #[test]
        fn the_bus_brings_what_has_subscribers_and_as_little_as_can_be(
            steps in prop::collection::vec(prop::sample::select(TEXTS.as_slice()), 1..80)
        ) {
            let mut interests = Interests::default();
            let (mut wanted, mut active) = (BTreeSet::new(), BTreeSet::new());
            for text in steps {
                let mut wishes = VecDeque::new();
                let before = wanted.clone();
                if wanted.remove(text) {
                    interests.end(text, &mut wishes);
                } else {
                    wanted.insert(text);
                    interests.begin(text, &mut wishes);
                }
                for wish in wishes {
                    match wish {
                        Wish::Subscribe(text) => prop_assert!(active.insert(text)),
                        Wish::Unsubscribe(text) => prop_assert!(active.remove(&text)),
                    }
                    for topic in TOPICS {
                        let has = |all: &BTreeSet<&str>| all.iter().any(|own| matches(own, topic));
                        let is_brought = active.iter().any(|own| matches(own, topic));
                        prop_assert!(is_brought || !(has(&before) && has(&wanted)), "{}", topic);
                    }
                }
                let is_outermost = |text: &&&str| {
                    !wanted.iter().any(|other| other != *text && is_wider(other, text))
                };
                let outermost = wanted.iter().filter(is_outermost).copied();
                let active = active.iter().map(|text| &**text);
                prop_assert!(active.eq(outermost), "for {:?}", wanted);
                for topic in TOPICS {
                    let expected = wanted.iter().any(|own| matches(own, topic));
                    prop_assert_eq!(interests.includes(topic), expected);
                }
            }
        }
    }

    #[test]
    fn which_pattern_includes_which() {
        for (outer, inner) in
            [("a.*", "a.b"), (">", "*"), ("a.>", "a.*.c"), ("*.>", "a.>"), ("*", "*"), (">", ">")]
        {
            assert!(is_wider(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [
            ("a.b", "a.*"),
            ("*", ">"),
            ("a.*", "a.>"),
            ("a.*.c", "a.>"),
            ("*.b", "a.*"),
            ("a.>", "a"),
        ] {
            assert!(!is_wider(outer, inner), "{outer} {inner}");
        }
    }
}
