//! Parts of futures that wait for the same thing.

use std::mem;
use std::task::Waker;

/// Wakers, each with a place that it leaves with whoever waits: one that gives up, in a `select!` say, leaves nothing
/// behind.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    all: Vec<(u64, Waker)>,
    /// The number of the next place. No other has it.
    next: u64,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Has this waker woken: at its place, or at one that it is given.
    pub(super) fn wait(&mut self, place: &mut Option<u64>, waker: &Waker) {
        let known = self.all.iter_mut().find(|(number, _)| Some(*number) == *place);
        if let Some((_, known)) = known {
            known.clone_from(waker);
            return;
        }
        self.all.push((self.next, waker.clone()));
        *place = Some(self.next);
        self.next += 1;
    }

    pub(super) fn leave(&mut self, place: u64) {
        if let Some(index) = self.all.iter().position(|(number, _)| *number == place) {
            self.all.remove(index);
        }
    }

    /// All of them, in the order in which they came. Places that were given are not given again.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        mem::take(&mut self.all).into_iter().map(|(_, waker)| waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let mut waiters = Waiters::default();
        for _ in 0..1000 {
            let mut place = None;
            waiters.wait(&mut place, Waker::noop());
            waiters.wait(&mut place, Waker::noop());
            assert_eq!(waiters.all.len(), 1, "it stands there once");
            waiters.leave(place.unwrap());
        }
        assert!(waiters.is_empty());
    }

    #[test]
    fn a_place_that_was_taken_is_nobody_elses() {
        let mut waiters = Waiters::default();
        let (mut first, mut second) = (None, None);
        waiters.wait(&mut first, Waker::noop());
        assert_eq!(waiters.take().count(), 1);
        waiters.wait(&mut second, Waker::noop());
        waiters.leave(first.unwrap());
        assert!(!waiters.is_empty());
        // It was woken for nothing, and waits again.
        waiters.wait(&mut first, Waker::noop());
        assert_eq!(waiters.take().count(), 2);
    }
}
