//! How other threads reach a worker: a bounded queue and one coalesced wake-up. Results of compute threads come by a
//! queue of their own, so that there is always room for them: it is as long as the jobs that the worker itself gave away.

#![expect(
    clippy::disallowed_types,
    reason = "a mailbox is shared between threads; it is not on a message's path"
)]

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use ringwire_codec::CloseCode;

use crate::adoption::Adoption;
use crate::budget::Budget;
use crate::compute::{Deflated, quietly};
use crate::conn::ConnId;
use crate::ctx::SendOptions;
use crate::dial::Outbound;
use crate::driver::{ListenerId, Wake};
use crate::error::PostError;
use crate::handler::{Acceptance, Response};
use crate::limits::{Drain, DrainReport};
use crate::offload::Finished;
use crate::secure::Shaken;
use crate::topic::{SharedPublication, TopicQuery};

/// What can be asked of a worker from outside.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Send a message.
    Send { conn: ConnId, options: SendOptions, text: bool, payload: Vec<u8> },
    /// The peer may send longer messages from now on.
    Authenticated { conn: ConnId },
    /// Start the close handshake.
    Close { conn: ConnId, code: CloseCode, reason: String },
    /// Stop or go on reading.
    Pause { conn: ConnId, paused: bool },
    /// Serve a connection that someone else accepted.
    Adopt(Box<Adoption>),
    /// Serve a connection that another worker has accepted.
    Accepted { fd: OwnedFd, listener: ListenerId, peer: Option<SocketAddr> },
    /// Serve a connection that this side opens.
    Dial(Box<Outbound>),
    /// Answer a deferred request.
    Accept { conn: ConnId, acceptance: Acceptance },
    /// Answer a deferred request with an ordinary answer, which refuses an upgrade.
    Respond { conn: ConnId, response: Response },
    /// Say who subscribes to what.
    Topics(TopicQuery),
    /// A TLS session is back from a compute thread.
    Shaken(Box<Shaken>),
    /// A message was compressed by a compute thread.
    Deflated(Box<Deflated>),
    /// The result of a handler's job.
    Finished(Box<Finished>),
    /// Close every connection, and end when they are gone or the time is up; what came of it is the reply.
    Drain { drain: Drain, reply: Sender<DrainReport> },
    /// Go on as if there had been no drain.
    Undrain,
}

/// A letter that was not taken.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: PostError,
    pub(crate) mail: Mail,
}

/// The sending side, one for each [`crate::Handle`].
#[derive(Clone)]
pub(crate) struct Postbox {
    sender: Sender<Mail>,
    /// Publications, bounded by their length.
    publications: Sender<SharedPublication>,
    in_transit: Budget,
    results: Sender<Mail>,
    wake_up: Arc<WakeUp>,
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Mailbox {
    receiver: Receiver<Mail>,
    publications: Receiver<SharedPublication>,
    in_transit: Budget,
    results: Receiver<Mail>,
    wake_up: Arc<WakeUp>,
}

/// The wake-up and whether it was given since the worker last looked.
struct WakeUp {
    pending: Pending<AtomicBool>,
    waker: Box<dyn Wake>,
}

/// Whether something came since the worker last looked.
#[derive(Debug, Default)]
struct Pending<F>(F);

/// An atomic yes or no.
trait Flag {
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
    /// Something came; whether the worker has to be woken for it.
    fn announce(&self) -> bool {
        !self.0.swap(true)
    }

    /// The worker looks; whether something came. From now on what comes is announced again.
    fn look(&self) -> bool {
        self.0.get() && self.0.swap(false)
    }
}

/// A mailbox for `capacity` letters and so many bytes of publications, whose arrival `waker` announces.
pub(crate) fn mailbox(
    capacity: usize,
    max_in_transit_len: usize,
    waker: impl Wake,
) -> (Postbox, Mailbox) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    let (publish, publications) = crossbeam_channel::unbounded();
    let in_transit = Budget::new(max_in_transit_len);
    let (deliver, results) = crossbeam_channel::unbounded();
    let wake_up = Arc::new(WakeUp { pending: Pending::default(), waker: Box::new(waker) });
    let postbox = Postbox {
        sender,
        publications: publish,
        in_transit: in_transit.clone(),
        results: deliver,
        wake_up: Arc::clone(&wake_up),
    };
    (postbox, Mailbox { receiver, publications, in_transit, results, wake_up })
}

impl Postbox {
    /// Posts without blocking.
    ///
    /// # Errors
    /// The mailbox is full, or the worker has ended.
    pub(crate) fn post(&self, mail: Mail) -> Result<(), Refused> {
        self.sender.try_send(mail).map_err(|error| match error {
            TrySendError::Full(mail) => Refused { error: PostError::Busy, mail },
            TrySendError::Disconnected(mail) => Refused { error: PostError::Stopped, mail },
        })?;
        self.wake_up.wake();
        Ok(())
    }

    /// Wakes the worker, which has no mail.
    pub(crate) fn nudge(&self) {
        self.wake_up.wake();
    }

    /// Posts, waiting for room up to `timeout`. Not for a worker's own thread.
    ///
    /// # Errors
    /// The mailbox stayed full, or the worker has ended.
    pub(crate) fn post_within(&self, mail: Mail, timeout: Duration) -> Result<(), PostError> {
        self.sender.send_timeout(mail, timeout).map_err(|error| {
            if error.is_timeout() { PostError::Busy } else { PostError::Stopped }
        })?;
        self.wake_up.wake();
        Ok(())
    }

    /// Posts a publication, without blocking. Publications from one thread are read in their order.
    ///
    /// # Errors
    /// As many bytes of them as may be are unread, or the worker has ended.
    pub(crate) fn publish(&self, publication: SharedPublication) -> Result<(), PostError> {
        let len = publication.frame.len();
        if !self.in_transit.take(len) {
            return Err(PostError::Busy);
        }
        if self.publications.send(publication).is_err() {
            self.in_transit.give(len);
            return Err(PostError::Stopped);
        }
        self.wake_up.wake();
        Ok(())
    }

    /// Brings the result of a job that the worker asked for, for which there is always room. A worker that has ended
    /// gets nothing any more.
    pub(crate) fn deliver(&self, result: Mail) {
        match self.results.send(result) {
            Ok(()) => self.wake_up.wake(),
            Err(undelivered) => quietly(undelivered),
        }
    }
}

impl Mailbox {
    /// Whether letters came since the last call; from now on a new one wakes the worker again. Costs a
    /// relaxed load where none came.
    pub(crate) fn open(&self) -> bool {
        self.wake_up.pending.look()
    }

    /// The next letter.
    pub(crate) fn take(&self) -> Option<Mail> {
        self.receiver.try_recv().ok()
    }

    /// The next publication.
    pub(crate) fn take_publication(&self) -> Option<SharedPublication> {
        let publication = self.publications.try_recv().ok()?;
        self.in_transit.give(publication.frame.len());
        Some(publication)
    }

    /// How many results wait.
    pub(crate) fn result_count(&self) -> usize {
        self.results.len()
    }

    /// The next result.
    pub(crate) fn take_result(&self) -> Option<Mail> {
        self.results.try_recv().ok()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty() && self.publications.is_empty() && self.results.is_empty()
    }
}

impl WakeUp {
    fn wake(&self) {
        if self.pending.announce() {
            self.waker.wake();
        }
    }
}

impl std::fmt::Debug for WakeUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WakeUp").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Postbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postbox").field("wake_up", &self.wake_up).finish_non_exhaustive()
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

    fn letter() -> Mail {
        let (reply, _) = crossbeam_channel::bounded(1);
        Mail::Drain { drain: Drain::new(Duration::ZERO, CloseCode::GOING_AWAY), reply }
    }

    #[test]
    fn one_wake_up_for_many_letters() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let (postbox, mailbox) = mailbox(16, 0, Count(Arc::clone(&wakes)));
        for _ in 0..5 {
            postbox.post(letter()).unwrap();
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert!(mailbox.open());
        assert!(!mailbox.open());
        assert_eq!(std::iter::from_fn(|| mailbox.take()).count(), 5);
        postbox.post(letter()).unwrap();
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

    /// Two threads post while a worker turns, in every order with up to three preemptions: what it has not taken, a wake-up
    /// that it has not seen is for.
    #[test]
    fn no_letter_waits_without_a_wake_up() {
        use loom::sync::atomic::{AtomicBool, AtomicUsize};
        use loom::sync::{Arc, Mutex};
        use loom::thread;

        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let letters = Arc::new(Mutex::new(0));
            let pending = Arc::new(Pending(AtomicBool::new(false)));
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
    fn there_is_always_room_for_results() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let (postbox, mailbox) = mailbox(1, 0, Count(Arc::clone(&wakes)));
        for _ in 0..100 {
            postbox.deliver(letter());
        }
        assert!(!mailbox.is_empty());
        assert_eq!((mailbox.result_count(), wakes.load(Ordering::Relaxed)), (100, 1));
        postbox.post(letter()).unwrap();
        assert_eq!(std::iter::from_fn(|| mailbox.take_result()).count(), 100);
        assert!(mailbox.take().is_some() && mailbox.is_empty());
        drop(mailbox);
        postbox.deliver(letter());
    }

    #[test]
    fn full_says_busy_and_gone_says_stopped() {
        let (postbox, mailbox) = mailbox(1, 0, Count(Arc::default()));
        postbox.post(letter()).unwrap();
        assert_eq!(postbox.post(letter()).unwrap_err().error, PostError::Busy);
        assert_eq!(postbox.post_within(letter(), Duration::from_millis(1)), Err(PostError::Busy));
        drop(mailbox);
        assert_eq!(postbox.post(letter()).unwrap_err().error, PostError::Stopped);
    }
}
