//! What of a connection's memory the sums of its worker have.

/// What one connection holds beside its slot, its message under way and its send in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) input: usize,
    pub(crate) queued: usize,
}

impl Charge {
    pub(crate) fn sum(self) -> usize {
        self.input + self.queued
    }
}
