//! A question to all workers, and their answers.

#![expect(
    clippy::disallowed_types,
    reason = "an answer is shared between threads; it is not on a message's path"
)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::mailbox::PostError;
use super::panics::panic_text;

/// A question to all workers, which answer it in their next turns. It blocks nobody who does not
/// [`wait`](Self::wait).
///
/// ```no_run
/// # use std::time::Duration;
/// # use ringwire::{Handle, PostError};
/// # fn ask(handle: &Handle) -> Result<(), PostError> {
/// // From a thread of its own:
/// let members = handle.subscribers("room.7").wait(Duration::from_secs(1))?;
/// println!("{} are in the room", members.len());
/// // From anywhere, a handler too; what is to be done is said to its end:
/// let sender = handle.clone();
/// handle.subscribers("room.7").then(move |members| {
///     for member in members.unwrap_or_default() {
///         let _ = sender.send(member, "who are you?");
///     }
/// });
/// # Ok(())
/// # }
/// ```
#[must_use = "nobody hears the answer"]
pub struct Inquiry<T>(Arc<Shared<T>>);

/// A worker's part in the answer. Dropped without one it says that the worker has ended.
pub(crate) struct Part<T> {
    shared: Arc<Shared<T>>,
    outcome: Result<(), PostError>,
}

type Then<T> = Box<dyn FnOnce(Result<T, PostError>) + Send>;

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// Of those that have answered. None once it was taken.
    answer: Option<Result<T, PostError>>,
    /// Workers that have not answered.
    awaited: usize,
    then: Option<Then<T>>,
}

/// A question to so many workers, and their parts in it. The answer begins with nothing.
pub(crate) fn inquiry<T: Default>(
    workers: usize,
) -> (Inquiry<T>, impl Iterator<Item = Part<T>> + use<T>) {
    let state = State { answer: Some(Ok(T::default())), awaited: workers, then: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    let part = |shared| Part { shared, outcome: Err(PostError::Stopped) };
    (Inquiry(Arc::clone(&shared)), std::iter::repeat_n(shared, workers).map(part))
}

impl<T> Inquiry<T> {
    /// The answer, once, if all workers have answered by now. Does not block.
    ///
    /// # Errors
    /// A worker was too busy to be asked, or has ended.
    pub fn poll(&mut self) -> Option<Result<T, PostError>> {
        self.0.lock().take()
    }

    /// Waits for the answer. Blocks, so it is not for a handler, whose own worker would never answer.
    ///
    /// # Errors
    /// A worker was too busy to be asked or did not answer in time, or has ended.
    pub fn wait(self, timeout: Duration) -> Result<T, PostError> {
        let is_awaited = |state: &mut State<T>| state.awaited > 0;
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), timeout, is_awaited);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.take().unwrap_or(Err(PostError::Busy))
    }

    /// Has `then` called with the answer, or with the error as of [`poll`](Self::poll): by the worker that answers
    /// last, on its thread, or at once if all have. It should not take long; a panic ends nothing but the call.
    pub fn then(self, then: impl FnOnce(Result<T, PostError>) + Send + 'static) {
        let mut state = self.0.lock();
        match state.take() {
            Some(answer) => {
                drop(state);
                then(answer);
            }
            None => state.then = Some(Box::new(then)),
        }
    }
}

impl<T> Part<T> {
    /// Adds to the answer.
    pub(crate) fn answer(mut self, add: impl FnOnce(&mut T)) {
        if let Some(Ok(answer)) = &mut self.shared.lock().answer {
            add(answer);
        }
        self.outcome = Ok(());
    }

    /// The worker can't be asked.
    pub(crate) fn refuse(mut self, error: PostError) {
        self.outcome = Err(error);
    }
}

impl<T> Drop for Part<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Err(error) = self.outcome
            && !matches!(state.answer, Some(Err(_)))
        {
            state.answer = Some(Err(error));
        }
        state.awaited -= 1;
        if state.awaited > 0 {
            return;
        }
        self.shared.changed.notify_all();
        if let Some(then) = state.then.take()
            && let Some(answer) = state.take()
        {
            drop(state);
            // On the thread of a worker, which goes on.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| then(answer))) {
                let panic = panic_text(panic);
                crate::base::event::error!(panic, "whoever waited for an answer panicked with it");
            }
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that is done under the lock leaves half of it done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<Result<T, PostError>> {
        if self.awaited == 0 { self.answer.take() } else { None }
    }
}

impl<T> fmt::Debug for Inquiry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry").field("awaited", &self.0.lock().awaited).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_answer_is_there_once_all_have_answered() {
        let (mut inquiry, parts) = inquiry::<u32>(3);
        for (number, part) in (1..).zip(parts) {
            assert_eq!(inquiry.poll(), None);
            part.answer(|sum| *sum += number);
        }
        assert_eq!(inquiry.poll(), Some(Ok(6)));
        assert_eq!(inquiry.poll(), None);
    }

    #[test]
    fn who_cannot_answer_says_why() {
        let ask = || {
            let (inquiry, parts) = inquiry::<u32>(2);
            (inquiry, parts.collect::<Vec<_>>())
        };
        let (inquiry, mut parts) = ask();
        parts.pop().unwrap().refuse(PostError::Busy);
        drop(parts);
        assert_eq!(inquiry.wait(Duration::ZERO), Err(PostError::Busy));
        let (inquiry, mut parts) = ask();
        parts.pop().unwrap().answer(|sum| *sum += 1);
        drop(parts);
        assert_eq!(inquiry.wait(Duration::ZERO), Err(PostError::Stopped));
        let (inquiry, _parts) = ask();
        assert_eq!(inquiry.wait(Duration::from_millis(1)), Err(PostError::Busy));
    }

    #[test]
    fn then_is_called_once_now_or_later() {
        let (sender, answers) = mpsc::channel();
        for early in [false, true] {
            let (inquiry, mut parts) = inquiry::<u32>(1);
            let (sender, part) = (sender.clone(), parts.next().unwrap());
            let then = move |answer| sender.send(answer).unwrap();
            if early {
                part.answer(|sum| *sum += 7);
                inquiry.then(then);
            } else {
                inquiry.then(then);
                assert!(answers.try_recv().is_err());
                part.answer(|sum| *sum += 7);
            }
            assert_eq!(answers.try_recv(), Ok(Ok(7)));
        }
        let (inquiry, mut parts) = inquiry::<u32>(1);
        inquiry.then(|_| panic!("in the callback"));
        parts.next().unwrap().answer(|_| {});
    }

    #[test]
    fn who_waits_is_woken() {
        let (inquiry, mut parts) = inquiry::<u32>(1);
        let part = parts.next().unwrap();
        let waiting = std::thread::spawn(move || inquiry.wait(Duration::from_secs(60)));
        part.answer(|sum| *sum += 7);
        assert_eq!(waiting.join().unwrap(), Ok(7));
    }
}
