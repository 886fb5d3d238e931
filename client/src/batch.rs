//! Many small items as few large ones.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::queue::{Overflow, Pushed, Queue};

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchLimits {
    /// The most items of a batch, at least 1. Default: 100.
    pub max_count: usize,
    /// The longest time that the first item of a batch waits for others. Default: 10 ms.
    pub max_delay: Duration,
    /// The most items that wait while a batch is being sent. Default: 10 000, which is the worst case in memory.
    pub max_waiting: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_count: 100, max_delay: Duration::from_millis(10), max_waiting: 10_000 }
    }
}

impl BatchLimits {
    /// Sets [`max_count`](Self::max_count).
    #[must_use]
    pub const fn with_max_count(mut self, count: usize) -> Self {
        self.max_count = count;
        self
    }

    /// Sets [`max_delay`](Self::max_delay).
    #[must_use]
    pub const fn with_max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    #[must_use]
    pub const fn with_max_waiting(mut self, count: usize) -> Self {
        self.max_waiting = count;
        self
    }
}

/// Collects items and hands them on together: when there are enough, or when the first has waited long enough.
///
/// A thread of its own calls the sink, which sends a batch in whatever form the application has for it. Dropped, the
/// batcher hands on the rest and waits for that.
pub struct Batcher<T> {
    queue: Arc<Queue<Entry<T>>>,
    thread: Option<JoinHandle<()>>,
}

enum Entry<T> {
    Item(T),
    /// Somebody waits until all before it are handed on.
    Flush(SyncSender<()>),
}

impl<T: Send + 'static> Batcher<T> {
    /// A batcher that hands its batches to `sink`.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn new(
        limits: BatchLimits,
        sink: impl FnMut(Vec<T>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(limits.max_waiting));
        let worker = Worker { queue: Arc::clone(&queue), limits, sink, batch: Vec::new() };
        let thread = thread::Builder::new().name("batcher".into()).spawn(move || worker.run())?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Adds an item; where too many wait already, one is dropped.
    pub fn push(&self, item: T, overflow: Overflow) -> Pushed<T> {
        // A flush that would be displaced is done, as far as it can be, when its channel goes.
        unwrap(self.queue.push(Entry::Item(item), overflow))
    }

    /// Adds an item, and waits for room for at most `timeout`.
    pub fn push_blocking(&self, item: T, timeout: Duration) -> Pushed<T> {
        unwrap(self.queue.push_blocking(Entry::Item(item), timeout))
    }

    /// Hands on what there is, and waits for that for at most `timeout`. Gives whether it was done.
    pub fn flush(&self, timeout: Duration) -> bool {
        let begin = Instant::now();
        let (done, wait) = sync_channel(1);
        match self.queue.push_blocking(Entry::Flush(done), timeout) {
            Pushed::Queued => wait.recv_timeout(timeout.saturating_sub(begin.elapsed())).is_ok(),
            Pushed::Displaced(_) | Pushed::Rejected(_) => false,
        }
    }
}

/// The item that a queue gave back.
fn unwrap<T>(pushed: Pushed<Entry<T>>) -> Pushed<T> {
    match pushed {
        Pushed::Rejected(Entry::Item(item)) => Pushed::Rejected(item),
        Pushed::Displaced(Entry::Item(item)) => Pushed::Displaced(item),
        _ => Pushed::Queued,
    }
}

struct Worker<T, S> {
    queue: Arc<Queue<Entry<T>>>,
    limits: BatchLimits,
    sink: S,
    batch: Vec<T>,
}

impl<T, S: FnMut(Vec<T>)> Worker<T, S> {
    fn run(mut self) {
        let mut since = Instant::now();
        loop {
            let left = if self.batch.is_empty() {
                Duration::MAX
            } else {
                self.limits.max_delay.saturating_sub(since.elapsed())
            };
            match self.queue.pop(left) {
                Some(Entry::Item(item)) => {
                    if self.batch.is_empty() {
                        since = Instant::now();
                    }
                    self.batch.push(item);
                    if self.batch.len() >= self.limits.max_count {
                        self.hand_on();
                    }
                }
                Some(Entry::Flush(done)) => {
                    self.hand_on();
                    // Nobody may wait for it any more.
                    let _ = done.try_send(());
                }
                None => {
                    self.hand_on();
                    if self.queue.is_closed() && self.queue.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn hand_on(&mut self) {
        if !self.batch.is_empty() {
            (self.sink)(std::mem::take(&mut self.batch));
        }
    }
}

impl<T> Drop for Batcher<T> {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A sink that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl<T> fmt::Debug for Batcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LATE: Duration = Duration::from_secs(20);

    fn batcher(limits: BatchLimits) -> (Batcher<u32>, mpsc::Receiver<Vec<u32>>) {
        let (sender, batches) = mpsc::channel();
        let sink = move |batch| {
            let _ = sender.send(batch);
        };
        (Batcher::new(limits, sink).unwrap(), batches)
    }

    fn fill(batcher: &Batcher<u32>, items: std::ops::Range<u32>) {
        for item in items {
            assert_eq!(batcher.push_blocking(item, LATE), Pushed::Queued);
        }
    }

    #[test]
    fn by_count_by_flush_and_at_the_end() {
        let limits = BatchLimits::default().with_max_count(3).with_max_delay(LATE);
        let (batcher, batches) = batcher(limits);
        fill(&batcher, 0..7);
        assert!(batcher.flush(LATE));
        let sent: Vec<_> = batches.try_iter().collect();
        assert_eq!(sent, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert!(batcher.flush(LATE), "with nothing to send");
        fill(&batcher, 7..9);
        drop(batcher);
        assert_eq!(batches.iter().collect::<Vec<_>>(), [[7, 8]]);
    }

    #[test]
    fn by_time() {
        let delay = Duration::from_millis(30);
        let limits = BatchLimits::default().with_max_delay(delay);
        let (batcher, batches) = batcher(limits);
        let begin = Instant::now();
        fill(&batcher, 0..2);
        let mut sent = batches.recv_timeout(LATE).unwrap();
        assert!(begin.elapsed() >= delay);
        if sent.len() < 2 {
            // The test's thread was held up between its two items.
            sent.extend(batches.recv_timeout(LATE).unwrap());
        }
        assert_eq!(sent, [0, 1]);
    }

    #[test]
    fn a_slow_sink_is_waited_for_or_not() {
        let (release, blocked) = mpsc::channel::<()>();
        let limits = BatchLimits::default().with_max_count(1).with_max_waiting(1);
        let batcher = Batcher::new(limits, move |_batch: Vec<u32>| {
            let _ = blocked.recv_timeout(LATE);
        })
        .unwrap();
        fill(&batcher, 0..2);
        let soon = Duration::from_millis(20);
        assert_eq!(batcher.push_blocking(2, soon), Pushed::Rejected(2));
        assert_eq!(batcher.push(3, Overflow::DropOldest), Pushed::Displaced(1));
        assert!(!batcher.flush(soon));
        drop(release);
        assert!(batcher.flush(LATE));
    }
}
