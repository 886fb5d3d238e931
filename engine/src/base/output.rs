//! Bytes on their way out: of one connection, or shared by many.

#![expect(
    clippy::disallowed_types,
    reason = "what is published is encoded once, and referred to by the workers whose connections get it"
)]

use std::ops::Deref;
use std::sync::Arc;

use crate::base::budget::Budget;

/// What a queued reference takes beside the bytes that it refers to.
pub(crate) const REFERENCE_LEN: usize = 64;

/// A piece of output.
#[derive(Debug)]
pub(crate) enum Output {
    /// One connection's own, from its worker's pool.
    Own(Vec<u8>),
    /// What many connections send.
    Shared(SharedBytes),
    /// The same, while it waits for a peer.
    Retained(Retained),
}

/// Bytes that several connections send, over all workers. Their memory is charged to a budget until the last of them
/// is through.
#[derive(Clone, Debug)]
pub(crate) struct SharedBytes(Arc<Charged>);

/// A reference that waits in a queue: charged to the same budget.
#[derive(Debug)]
pub(crate) struct Retained(SharedBytes);

#[derive(Debug)]
struct Charged {
    bytes: Vec<u8>,
    budget: Budget,
}

impl SharedBytes {
    /// Charged to `budget` whatever is left of it.
    pub(crate) fn new(bytes: Vec<u8>, budget: &Budget) -> Self {
        budget.take_anyway(bytes.capacity());
        Self(Arc::new(Charged { bytes, budget: budget.clone() }))
    }

    /// A reference for a queue, unless the budget is used up.
    pub(crate) fn retain(&self) -> Option<Retained> {
        self.0.budget.take(REFERENCE_LEN).then(|| Retained(self.clone()))
    }

    /// A reference for a queue, whatever is left of the budget.
    pub(crate) fn retain_anyway(&self) -> Retained {
        self.0.budget.take_anyway(REFERENCE_LEN);
        Retained(self.clone())
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.budget.give(self.bytes.capacity());
    }
}

impl Drop for Retained {
    fn drop(&mut self) {
        self.0.0.budget.give(REFERENCE_LEN);
    }
}

impl Output {
    /// The memory of it that is this connection's own.
    #[inline]
    pub(crate) fn own_len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.capacity(),
            Self::Shared(_) | Self::Retained(_) => 0,
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Deref for Output {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) | Self::Retained(Retained(bytes)) => bytes,
        }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_has_what_is_referred_to() {
        let budget = Budget::new(1000);
        let bytes = SharedBytes::new(vec![7; 800], &budget);
        assert_eq!(budget.left(), 200);
        let queued = [bytes.retain().unwrap(), bytes.retain().unwrap(), bytes.retain().unwrap()];
        assert_eq!(budget.left(), 200 - 3 * 64);
        assert!(bytes.retain().is_none());
        drop(queued);
        let sent = Output::Shared(bytes.clone());
        drop(bytes);
        assert_eq!(budget.left(), 200);
        assert_eq!(&*sent, &[7; 800]);
        drop(sent);
        assert_eq!(budget.left(), 1000);
    }

    #[test]
    fn what_is_published_may_go_past_the_budget_but_then_nothing_waits() {
        let budget = Budget::new(100);
        let bytes = SharedBytes::new(vec![0; 300], &budget);
        assert!(bytes.retain().is_none());
        assert!(!budget.take(1));
        drop(bytes);
        assert_eq!(budget.left(), 100);
    }

    #[test]
    fn is_no_larger_than_a_vector() {
        assert_eq!(size_of::<Output>(), size_of::<Vec<u8>>());
    }
}
