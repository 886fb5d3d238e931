//! Patterns with wildcards, found by topic: a tree of tokens.

use std::collections::HashMap;

/// The place of a pattern in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PatternId(pub(crate) u32);

/// A place in the tree. Its depth is at most the number of tokens of a topic, 128.
#[derive(Debug, Default)]
pub(crate) struct Node {
    tokens: HashMap<Box<str>, Self>,
    /// Behind `*`.
    any: Option<Box<Self>>,
    /// The pattern that ends here with `>`.
    rest: Option<PatternId>,
    /// The pattern that ends here.
    end: Option<PatternId>,
}

impl Node {
    /// Adds a pattern that is not there yet.
    pub(crate) fn insert(&mut self, pattern: &str, id: PatternId) {
        let mut node = self;
        for token in pattern.split('.') {
            node = match token {
                ">" => {
                    node.rest = Some(id);
                    return;
                }
                "*" => node.any.get_or_insert_default(),
                token => node.tokens.entry(token.into()).or_default(),
            };
        }
        node.end = Some(id);
    }

    /// Removes a pattern, and what is empty without it.
    pub(crate) fn remove(&mut self, pattern: &str) {
        let (token, rest) = split(pattern);
        let below = match token {
            ">" => {
                self.rest = None;
                return;
            }
            "*" => self.any.as_deref_mut(),
            token => self.tokens.get_mut(token),
        };
        let Some(below) = below else { return };
        match rest {
            Some(rest) => below.remove(rest),
            None => below.end = None,
        }
        if !below.is_empty() {
            return;
        }
        match token {
            "*" => self.any = None,
            token => drop(self.tokens.remove(token)),
        }
    }

    /// Finds the patterns that take in a topic.
    pub(crate) fn find(&self, topic: &str, found: &mut Vec<PatternId>) {
        found.extend(self.rest);
        let (token, rest) = split(topic);
        for below in [self.tokens.get(token), self.any.as_deref()].into_iter().flatten() {
            match rest {
                Some(rest) => below.find(rest, found),
                None => found.extend(below.end),
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.any.is_none() && self.rest.is_none() && self.end.is_none()
    }
}

/// The first token, and what follows it.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((token, rest)) => (token, Some(rest)),
        None => (text, None),
    }
}
