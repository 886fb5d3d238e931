//! How other threads reach a worker: queues of letters, and one coalesced wake-up for all of them.

#![expect(
    clippy::disallowed_types,
    reason = "a mailbox is shared between threads; it is not on a message's path"
)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::base::wake::Wake;

/// Why a [`Handle`](crate::Handle) could not post to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The worker's mailbox is full; try again later.
    #[error("the worker's mailbox is full (setting: mailbox_len)")]
    Busy,
    /// The worker has ended.
    #[error("the worker has ended")]
    Stopped,
    /// There is no such worker.
    #[error("no worker has this index")]
    NoSuchWorker,
    /// The connection is one of another server of this process, whose handle knows it.
    #[error("the connection is another server's")]
    OtherServer,
    /// No handler of the server has a state of this type, nor has a route of its [`Router`](crate::Router).
    #[error("no handler of the server has a state of this type")]
    WrongState,
}

/// What a [`Handle`](crate::Handle) could not post, and why.
#[derive(PartialEq, Eq)]
pub struct Refused<L> {
    pub(crate) error: PostError,
    pub(crate) letter: L,
}

impl<L> Refused<L> {
    /// Why it was not taken.
    pub fn reason(&self) -> PostError {
        self.error
    }

    /// What was not taken.
    pub fn into_inner(self) -> L {
        self.letter
    }

    pub(crate) fn map<T>(self, f: impl FnOnce(L) -> T) -> Refused<T> {
        Refused { error: self.error, letter: f(self.letter) }
    }
}

impl<L> From<Refused<L>> for PostError {
    fn from(refused: Refused<L>) -> Self {
        refused.error
    }
}

impl<L> fmt::Debug for Refused<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("reason", &self.error).finish_non_exhaustive()
    }
}

impl<L> fmt::Display for Refused<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<L> std::error::Error for Refused<L> {}

/// The sending side of a mailbox.
pub(crate) struct Postbox<L> {
    sender: Sender<L>,
    bell: Bell,
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Mailbox<L>(Receiver<L>);

/// Wakes a worker, once for all that comes before it looks.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<WakeUp>);

/// The wake-up and whether it was given since the worker last looked.
struct WakeUp {
    pending: Pending<AtomicBool>,
    waker: Box<dyn Wake>,
}

/// Whether something came since the worker last looked.
#[derive(Debug, Default)]
pub(crate) struct Pending<F>(F);

/// An atomic yes or no.
pub(crate) trait Flag {
    fn get(&self) -> bool;
    fn swap(&self, value: bool) -> bool;
}

impl Flag for AtomicBool {
    fn get(&self) -> bool {
        self.load(Ordering::Relaxed)
    }

    fn swap(&self, value: bool) -> bool {
        self.swap(value, Ordering::AcqRel)
    }
}

impl<F: Flag> Pending<F> {
    #[cfg(test)]
    pub(crate) fn of(flag: F) -> Self {
        Self(flag)
    }

    /// Something came; whether the worker has to be woken for it.
    pub(crate) fn announce(&self) -> bool {
        !self.0.swap(true)
    }

    /// The worker looks; whether something came. From now on what comes is announced again.
    pub(crate) fn look(&self) -> bool {
        self.0.get() && self.0.swap(false)
    }
}

/// A mailbox for `capacity` letters, or for any number of them, whose arrival `bell` announces.
pub(crate) fn mailbox<L>(capacity: Option<usize>, bell: &Bell) -> (Postbox<L>, Mailbox<L>) {
    let (sender, receiver) = match capacity {
        Some(capacity) => crossbeam_channel::bounded(capacity),
        None => crossbeam_channel::unbounded(),
    };
    (Postbox { sender, bell: bell.clone() }, Mailbox(receiver))
}

impl Bell {
    /// A bell that wakes by `waker`.
    pub(crate) fn new(waker: impl Wake) -> Self {
        Self(Arc::new(WakeUp { pending: Pending::default(), waker: Box::new(waker) }))
    }

    fn ring(&self) {
        if self.0.pending.announce() {
            self.0.waker.wake();
        }
    }

    /// Whether it rang since the last call; from now on it wakes the worker again. Costs a relaxed load where it did
    /// not.
    pub(crate) fn look(&self) -> bool {
        self.0.pending.look()
    }
}

impl<L> Postbox<L> {
    /// Posts without blocking.
    ///
    /// # Errors
    /// The mailbox is full, or the worker has ended.
    pub(crate) fn post(&self, letter: L) -> Result<(), Refused<L>> {
        self.sender.try_send(letter).map_err(|error| match error {
            TrySendError::Full(letter) => Refused { error: PostError::Busy, letter },
            TrySendError::Disconnected(letter) => Refused { error: PostError::Stopped, letter },
        })?;
        self.bell.ring();
        Ok(())
    }

    /// Wakes the worker, which has no mail.
    pub(crate) fn nudge(&self) {
        self.bell.ring();
    }

    /// Posts, waiting for room up to `timeout`. Not for a worker's own thread.
    ///
    /// # Errors
    /// The mailbox stayed full, or the worker has ended.
    pub(crate) fn post_within(&self, letter: L, timeout: Duration) -> Result<(), PostError> {
        self.sender.send_timeout(letter, timeout).map_err(|error| {
            if error.is_timeout() { PostError::Busy } else { PostError::Stopped }
        })?;
        self.bell.ring();
        Ok(())
    }
}

impl<L> Mailbox<L> {
    /// The next letter.
    pub(crate) fn take(&self) -> Option<L> {
        self.0.try_recv().ok()
    }

    /// How many letters wait.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<L> Clone for Postbox<L> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), bell: self.bell.clone() }
    }
}

impl fmt::Debug for WakeUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeUp").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl<L> fmt::Debug for Postbox<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postbox").field("bell", &self.bell).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Count(Arc<AtomicUsize>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pair(capacity: Option<usize>, waker: impl Wake) -> (Bell, Postbox<u32>, Mailbox<u32>) {
        let bell = Bell::new(waker);
        let (postbox, mailbox) = mailbox(capacity, &bell);
        (bell, postbox, mailbox)
    }

    #[test]
    fn one_wake_up_for_many_letters() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let (bell, postbox, mailbox) = pair(Some(16), Count(Arc::clone(&wakes)));
        for _ in 0..5 {
            postbox.post(7).unwrap();
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert!(bell.look());
        assert!(!bell.look());
        assert_eq!(std::iter::from_fn(|| mailbox.take()).count(), 5);
        postbox.post(7).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
        assert!(!mailbox.is_empty());
    }

    impl Flag for loom::sync::atomic::AtomicBool {
        fn get(&self) -> bool {
            self.load(Ordering::Relaxed)
        }

        fn swap(&self, value: bool) -> bool {
            self.swap(value, Ordering::AcqRel)
        }
    }

    /// Two threads post while a worker turns, in every order with up to three preemptions: what it has not taken, a
    /// wake-up that it has not seen is for.
    #[test]
    fn no_letter_waits_without_a_wake_up() {
        use loom::sync::atomic::{AtomicBool, AtomicUsize};
        use loom::sync::{Arc, Mutex};
        use loom::thread;

        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let letters = Arc::new(Mutex::new(0));
            let pending = Arc::new(Pending::of(AtomicBool::new(false)));
            let wakes = Arc::new(AtomicUsize::new(0));
            let posting = || {
                let (letters, pending, wakes) = (letters.clone(), pending.clone(), wakes.clone());
                move || {
                    *letters.lock().unwrap() += 1;
                    if pending.announce() {
                        wakes.fetch_add(1, Ordering::Release);
                    }
                }
            };
            let posts = [thread::spawn(posting()), thread::spawn(posting())];
            // The wait ends with all wake-ups that came.
            wakes.swap(0, Ordering::Acquire);
            pending.look();
            *letters.lock().unwrap() = 0;
            for post in posts {
                post.join().unwrap();
            }
            let left = *letters.lock().unwrap();
            assert!(left == 0 || wakes.load(Ordering::Acquire) > 0, "{left} letters wait");
        });
    }

    #[test]
    fn without_a_capacity_there_is_always_room() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let (_, postbox, mailbox) = pair(None, Count(Arc::clone(&wakes)));
        for number in 0..100 {
            postbox.post(number).unwrap();
        }
        assert_eq!((mailbox.len(), wakes.load(Ordering::Relaxed)), (100, 1));
        assert!(std::iter::from_fn(|| mailbox.take()).eq(0..100));
        assert!(mailbox.is_empty());
        drop(mailbox);
        assert_eq!(postbox.post(7).unwrap_err(), Refused { error: PostError::Stopped, letter: 7 });
    }

    #[test]
    fn full_says_busy_and_gone_says_stopped() {
        let (_, postbox, mailbox) = pair(Some(1), Count(Arc::default()));
        postbox.post(7).unwrap();
        assert_eq!(postbox.post(7).unwrap_err().error, PostError::Busy);
        assert_eq!(postbox.post_within(7, Duration::from_millis(1)), Err(PostError::Busy));
        drop(mailbox);
        assert_eq!(postbox.post(7).unwrap_err().error, PostError::Stopped);
    }
}
