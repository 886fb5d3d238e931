//! Memory that all workers may take together.

#![expect(
    clippy::disallowed_types,
    reason = "a budget is shared by the workers; it is not on a message's path"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

/// What is left of a number of bytes; clones take from the same.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<AtomicIsize>);

impl Budget {
    pub(crate) fn new(len: usize) -> Self {
        Self(Arc::new(AtomicIsize::new(signed(len))))
    }

    /// Takes `len` bytes, or nothing; whether it did.
    pub(crate) fn take(&self, len: usize) -> bool {
        let len = signed(len);
        let less = |left: isize| (left >= len).then(|| left - len);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Takes `len` bytes even if there are not as many: then others get nothing until that is made up for.
    pub(crate) fn take_anyway(&self, len: usize) {
        self.0.fetch_sub(signed(len), Ordering::Relaxed);
    }

    /// Gives back `len` bytes that were taken.
    pub(crate) fn give(&self, len: usize) {
        self.0.fetch_add(signed(len), Ordering::Relaxed);
    }

    /// What is left, in bytes.
    pub(crate) fn left(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

fn signed(len: usize) -> isize {
    isize::try_from(len).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_all_or_nothing() {
        let budget = Budget::new(100);
        let other = budget.clone();
        assert!(budget.take(60));
        assert!(!other.take(41));
        assert!(other.take(40));
        assert!(!budget.take(1));
        budget.give(60);
        assert_eq!(other.left(), 60);
        assert!(budget.take(0));
    }

    #[test]
    fn may_be_overdrawn() {
        let budget = Budget::new(100);
        budget.take_anyway(150);
        assert_eq!(budget.left(), 0);
        budget.give(50);
        assert!(!budget.take(1));
        budget.give(1);
        assert!(budget.take(1));
    }
}
