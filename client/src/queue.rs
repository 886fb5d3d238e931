//! A bounded queue between threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::wire::after;

/// What a full queue does with one more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest goes.
    #[default]
    DropOldest,
    /// The new one goes.
    DropNewest,
}

/// A bounded queue between threads, for messages on their way to a slower one.
///
/// What a full queue does is the choice of each [`push`](Self::push): to drop, or, with
/// [`push_blocking`](Self::push_blocking), to wait.
#[derive(Debug)]
pub struct Queue<T> {
    max_count: usize,
    state: Mutex<State<T>>,
    /// Told when something has changed.
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    is_closed: bool,
    dropped_count: u64,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed<T> {
    /// It is in the queue.
    Queued,
    /// It is, and this one, the oldest, is not any more.
    Displaced(T),
    /// It is not: the queue is full, and stayed so for as long as it was waited for, or closed.
    Rejected(T),
}

impl<T> Queue<T> {
    /// A queue of at most `max_count` items, at least one.
    #[must_use]
    pub fn new(max_count: usize) -> Self {
        let state = State { items: VecDeque::new(), is_closed: false, dropped_count: 0 };
        Self { max_count: max_count.max(1), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The number of items in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().items.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items were displaced or rejected, ever.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.state().dropped_count
    }

    /// Adds an item; a full queue drops one.
    pub fn push(&self, item: T, overflow: Overflow) -> Pushed<T> {
        self.insert(self.state(), item, overflow)
    }

    /// Adds an item, and waits for room for at most `timeout`.
    pub fn push_blocking(&self, item: T, timeout: Duration) -> Pushed<T> {
        let state =
            self.wait(timeout, |state| state.items.len() >= self.max_count && !state.is_closed);
        self.insert(state, item, Overflow::DropNewest)
    }

    /// The oldest item; waits for one for at most `timeout`. `None`: there was none, or the queue is closed and empty.
    pub fn pop(&self, timeout: Duration) -> Option<T> {
        let mut state = self.wait(timeout, |state| state.items.is_empty() && !state.is_closed);
        let item = state.items.pop_front();
        drop(state);
        self.changed.notify_all();
        item
    }

    /// Takes no more items. What is in it can still be taken out; nobody waits any more.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    fn insert(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        item: T,
        overflow: Overflow,
    ) -> Pushed<T> {
        let is_full = state.items.len() >= self.max_count;
        if state.is_closed || (is_full && overflow == Overflow::DropNewest) {
            state.dropped_count += 1;
            return Pushed::Rejected(item);
        }
        let displaced = if is_full { state.items.pop_front() } else { None };
        state.dropped_count += u64::from(displaced.is_some());
        state.items.push_back(item);
        drop(state);
        self.changed.notify_all();
        displaced.map_or(Pushed::Queued, Pushed::Displaced)
    }

    /// Waits while a condition holds.
    fn wait(
        &self,
        timeout: Duration,
        mut condition: impl FnMut(&State<T>) -> bool,
    ) -> MutexGuard<'_, State<T>> {
        let state = self.state();
        if after(Some(timeout)).is_none() {
            // As good as for ever.
            return self
                .changed
                .wait_while(state, |state| condition(state))
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.changed
            .wait_timeout_while(state, timeout, |state| condition(state))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(20);

    #[test]
    fn a_full_queue_drops_as_it_is_told() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(1, Overflow::DropNewest), Pushed::Queued);
        assert_eq!(queue.push(2, Overflow::DropNewest), Pushed::Queued);
        assert_eq!(queue.push(3, Overflow::DropNewest), Pushed::Rejected(3));
        assert_eq!(queue.push(4, Overflow::DropOldest), Pushed::Displaced(1));
        assert_eq!(queue.push_blocking(5, SOON), Pushed::Rejected(5));
        assert_eq!((queue.len(), queue.dropped_count()), (2, 3));
        assert_eq!([queue.pop(SOON), queue.pop(SOON), queue.pop(SOON)], [Some(2), Some(4), None]);
    }

    #[test]
    fn threads_wait_for_room_and_for_items() {
        let queue = Queue::new(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..1000 {
                    assert_eq!(queue.push_blocking(number, LATE), Pushed::Queued);
                }
                queue.close();
            });
            for number in 0..1000 {
                assert_eq!(queue.pop(Duration::MAX), Some(number));
            }
            assert_eq!(queue.pop(LATE), None);
        });
        assert_eq!(queue.push(0, Overflow::DropOldest), Pushed::Rejected(0));
        assert!(queue.is_closed() && queue.is_empty());
    }

    #[test]
    fn closing_wakes_who_waits() {
        let queue: Queue<u8> = Queue::new(1);
        assert_eq!(queue.push(1, Overflow::DropOldest), Pushed::Queued);
        thread::scope(|scope| {
            let blocked = scope.spawn(|| queue.push_blocking(2, Duration::MAX));
            thread::sleep(SOON);
            queue.close();
            assert_eq!(blocked.join().unwrap(), Pushed::Rejected(2));
        });
        assert_eq!((queue.pop(LATE), queue.pop(LATE)), (Some(1), None));
    }
}
