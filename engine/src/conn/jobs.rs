//! A connection's jobs: those that the compute threads have, futures, and results that wait for others before them.

#![expect(clippy::disallowed_types, reason = "jobs find out on other threads that they are void")]

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Waker;

use slab::Slab;

use crate::base::panics::quietly;
use crate::base::timer::Tick;
use crate::conn::{Flags, Wire};

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
    futures: Slab<Spawned>,
    /// Reading waits for one of them to end.
    awaits_end: bool,
    /// What the handler itself has to do, which is no job.
    own: OwnWork,
}

/// What a handler has to do for a connection that it waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnWork {
    /// Until it has not, the end of the peer's stream does not end the connection.
    pub(crate) is_busy: bool,
    /// Bytes of messages that wait for it meanwhile.
    pub(crate) held_len: usize,
    /// As much waits as may, so that reading waits as well.
    pub(crate) is_full: bool,
}

/// A future that was not ready when it was last polled.
struct Spawned {
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
        f.debug_struct("Spawned").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Jobs {
    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether nothing is under way, of the handler's own neither.
    pub(crate) fn is_done(&self) -> bool {
        self.count == 0 && !self.own.is_busy
    }

    /// Bytes of messages that wait for the handler.
    pub(crate) fn held_len(&self) -> usize {
        self.own.held_len
    }

    /// What wakes the next future has this for its name. That of one which is done may be given again: a waker of the
    /// past wakes what has its name then, which polls it once too often.
    pub(crate) fn next_future(&self) -> usize {
        self.futures.vacant_key()
    }

    /// Takes in a future, which `waker` wakes.
    pub(crate) fn spawn(&mut self, work: JobFuture, waker: Waker, ordered: bool) {
        let (number, _) = self.begin(ordered);
        self.futures.insert(Spawned { number, work: Some(work), waker });
    }

    /// Takes a future out, to be polled, with its waker.
    pub(crate) fn take_future(&mut self, future: usize) -> Option<(JobFuture, Waker)> {
        let spawned = self.futures.get_mut(future)?;
        Some((spawned.work.take()?, spawned.waker.clone()))
    }

    /// It is not ready.
    pub(crate) fn put_back(&mut self, future: usize, work: JobFuture) {
        if let Some(spawned) = self.futures.get_mut(future) {
            spawned.work = Some(work);
        }
    }

    /// It is done: gives its place in the order.
    pub(crate) fn end_future(&mut self, future: usize) -> Option<u64> {
        self.futures.try_remove(future)?.number
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

    fn jobs(&self) -> Option<&Jobs> {
        self.pending.as_ref()?.jobs.as_deref()
    }

    /// Jobs whose results were not handed over.
    pub(crate) fn job_count(&self) -> usize {
        self.jobs().map_or(0, Jobs::count)
    }

    /// Whether there are any, or the handler has something to do itself.
    pub(crate) fn has_jobs(&self) -> bool {
        self.jobs().is_some_and(|jobs| !jobs.is_done())
    }

    /// Notes what the handler has to do itself.
    #[cfg(feature = "async")]
    pub(crate) fn set_own_work(&mut self, own: OwnWork, now: Tick) {
        if own == OwnWork::default() && self.jobs().is_none() {
            return;
        }
        let jobs = self.jobs_mut();
        jobs.own = own;
        if jobs.is_done() {
            self.pending_mut().jobs = None;
        }
        self.follow_jobs(now);
    }

    /// The connection has as many jobs as it may: reading waits for one of them to end.
    pub(crate) fn await_job_end(&mut self, now: Tick) {
        self.jobs_mut().awaits_end = true;
        self.follow_jobs(now);
    }

    /// One of its jobs has ended: reading goes on, if it waited for that.
    pub(crate) fn note_job_end(&mut self, max_jobs: usize, now: Tick) {
        let is_short = self.job_count() < max_jobs;
        if let Some(jobs) = self.pending.as_mut().and_then(|pending| pending.jobs.as_deref_mut())
            && jobs.awaits_end
            && is_short
        {
            jobs.awaits_end = false;
            self.follow_jobs(now);
        }
    }

    /// Reading waits where a job or the handler says so, whatever else it waits for.
    fn follow_jobs(&mut self, now: Tick) {
        if self.jobs().is_some_and(|jobs| jobs.awaits_end || jobs.own.is_full) {
            self.flags.insert(Flags::FULL);
        } else {
            self.release(Flags::FULL, now);
        }
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
