//! A connection's jobs: those that the compute threads have, futures, and results that wait for others before them.

#![expect(clippy::disallowed_types, reason = "jobs find out on other threads that they are void")]

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Waker;

use crate::base::panics::quietly;
use crate::conn::Wire;

/// What follows a job, of which nobody but the handler knows the type.
pub(crate) type Continuation = Box<dyn Any>;

/// A future of the application, which ends with what follows it.
pub(crate) type JobFuture = Pin<Box<dyn Future<Output = Continuation>>>;

/// A connection's jobs whose results were not handed over.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// Goes with the connection, which cancels them.
    alive: Arc<()>,
    count: usize,
    /// The number of the next in order.
    next: u64,
    /// The number of the result that comes next.
    due: u64,
    /// Results from that one on, as far as they are there; the first is not.
    early: VecDeque<Option<Continuation>>,
    futures: Vec<Spawned>,
    /// The number of the next future.
    next_future: u64,
    /// The handler itself has something to do that it waits for, and that is no job.
    is_busy: bool,
    /// Bytes of messages that wait for the handler meanwhile.
    held_len: usize,
    /// Reading waits for a job to end.
    pub(crate) is_full: bool,
}

/// A future that was not ready when it was last polled.
struct Spawned {
    future: u64,
    /// Its place in the order, if it has one.
    number: Option<u64>,
    /// None while it is polled.
    work: Option<JobFuture>,
    waker: Waker,
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // It is the application's, and may panic.
        if let Some(work) = self.work.take() {
            quietly(work);
        }
    }
}

impl fmt::Debug for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned").field("future", &self.future).finish_non_exhaustive()
    }
}

impl Jobs {
    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.count + usize::from(self.is_busy)
    }

    /// Notes whether the handler has something to do, and what of the peer's waits for it.
    #[cfg(feature = "async")]
    pub(crate) fn set_busy(&mut self, is_busy: bool, held_len: usize) {
        self.is_busy = is_busy;
        self.held_len = held_len;
    }

    /// Bytes of messages that wait for the handler.
    pub(crate) fn held_len(&self) -> usize {
        self.held_len
    }

    /// The number that the next future will have.
    pub(crate) fn next_future(&self) -> u64 {
        self.next_future
    }

    /// Takes in a future, which `waker` wakes.
    pub(crate) fn spawn(&mut self, work: JobFuture, waker: Waker, ordered: bool) {
        let (number, _) = self.begin(ordered);
        let future = self.next_future;
        self.next_future += 1;
        self.futures.push(Spawned { future, number, work: Some(work), waker });
    }

    /// Takes a future out, to be polled, with its waker.
    pub(crate) fn take_future(&mut self, future: u64) -> Option<(JobFuture, Waker)> {
        let spawned = self.futures.iter_mut().find(|spawned| spawned.future == future)?;
        Some((spawned.work.take()?, spawned.waker.clone()))
    }

    /// It is not ready.
    pub(crate) fn put_back(&mut self, future: u64, work: JobFuture) {
        if let Some(spawned) = self.futures.iter_mut().find(|spawned| spawned.future == future) {
            spawned.work = Some(work);
        }
    }

    /// It is done: gives its place in the order.
    pub(crate) fn end_future(&mut self, future: u64) -> Option<u64> {
        let index = self.futures.iter().position(|spawned| spawned.future == future)?;
        self.futures.swap_remove(index).number
    }

    /// Another one: its number, if its result has a place in the order, and what tells whether it is still wanted.
    pub(crate) fn begin(&mut self, ordered: bool) -> (Option<u64>, Weak<()>) {
        self.count += 1;
        let number = ordered.then_some(self.next);
        self.next += u64::from(ordered);
        (number, Arc::downgrade(&self.alive))
    }

    /// One is over that has no place in the order.
    pub(crate) fn end(&mut self) {
        self.count -= 1;
    }

    /// Takes in a result, and gives it back if it has no place in the order.
    pub(crate) fn finish(
        &mut self,
        number: Option<u64>,
        then: Continuation,
    ) -> Option<Continuation> {
        let Some(number) = number else {
            self.end();
            return Some(then);
        };
        // Less than `count`.
        let place = usize::try_from(number - self.due).unwrap_or(usize::MAX);
        if self.early.len() <= place {
            self.early.resize_with(place + 1, || None);
        }
        self.early[place] = Some(then);
        None
    }

    /// The result that comes next, if it is there.
    pub(crate) fn next_due(&mut self) -> Option<Continuation> {
        let then = self.early.front_mut()?.take()?;
        self.early.pop_front();
        self.due += 1;
        self.count -= 1;
        Some(then)
    }
}

impl Wire {
    pub(crate) fn jobs_mut(&mut self) -> &mut Jobs {
        self.pending_mut().jobs.get_or_insert_default()
    }

    /// Jobs whose results were not handed over.
    pub(crate) fn job_count(&self) -> usize {
        let jobs = self.pending.as_ref().and_then(|pending| pending.jobs.as_ref());
        jobs.map_or(0, |jobs| jobs.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(value: u32) -> Continuation {
        Box::new(value)
    }

    fn due(jobs: &mut Jobs) -> Vec<u32> {
        let all = std::iter::from_fn(|| jobs.next_due());
        all.map(|then| *then.downcast().unwrap()).collect()
    }

    #[test]
    fn results_wait_for_those_before_them() {
        let mut jobs = Jobs::default();
        let numbers: Vec<_> = (0..4).map(|_| jobs.begin(true).0).collect();
        let (unordered, _) = jobs.begin(false);
        assert_eq!(jobs.count(), 5);
        assert!(jobs.finish(numbers[2], result(2)).is_none());
        assert!(jobs.finish(numbers[1], result(1)).is_none());
        assert!(due(&mut jobs).is_empty());
        assert!(jobs.finish(unordered, result(9)).is_some(), "which nobody waits for");
        assert!(jobs.finish(numbers[0], result(0)).is_none());
        assert_eq!(due(&mut jobs), [0, 1, 2]);
        assert!(jobs.finish(numbers[3], result(3)).is_none());
        assert_eq!(due(&mut jobs), [3]);
        assert_eq!(jobs.count(), 0);
    }

    #[test]
    fn jobs_are_cancelled_with_their_connection() {
        let mut jobs = Jobs::default();
        let (_, alive) = jobs.begin(true);
        assert_eq!(alive.strong_count(), 1);
        drop(jobs);
        assert_eq!(alive.strong_count(), 0);
    }
}
