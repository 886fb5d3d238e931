//! Memory that all workers may take together.

#![expect(
    clippy::disallowed_types,
    reason = "a budget is shared by the workers; it is not on a message's path"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is left of a number of bytes; clones take from the same.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(crate) fn new(len: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(len)))
    }

    /// Takes `len` bytes, or nothing; whether it did.
    pub(crate) fn take(&self, len: usize) -> bool {
        let less = |left: usize| left.checked_sub(len);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Gives back `len` bytes that were taken.
    pub(crate) fn give(&self, len: usize) {
        self.0.fetch_add(len, Ordering::Relaxed);
    }

    /// What is left, in bytes.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
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
}
