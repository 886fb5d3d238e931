//! Wakers of what waits on a worker: futures of the application.
//!
//! A wake on the worker's own thread, in its turn, goes on a list of that thread: no lock, and no system call. One from
//! elsewhere goes to the worker's mailbox and rings its bell. Either way a waker stands there once, however often it is
//! woken before the worker looks.

#![expect(clippy::disallowed_types, reason = "a waker may be woken from any thread")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};

use crate::base::mailbox::{Pending, Postbox};
use crate::base::panics::quietly;
use crate::conn::id::ConnId;
use crate::conn::jobs::JobFuture;

/// What a waker wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleeper {
    /// The handler, for the sake of a connection.
    Handler,
    /// A future of the connection, by its number.
    Future(usize),
}

/// A waker, and what it wakes.
#[derive(Debug)]
pub(crate) struct Alarm {
    alarms: Arc<Alarms>,
    pub(crate) conn: ConnId,
    pub(crate) sleeper: Sleeper,
    pending: Pending<AtomicBool>,
}

/// Where the wakers of one worker go.
#[derive(Debug)]
pub(crate) struct Alarms {
    /// No other worker of the process has it; 0 is nobody's.
    number: u64,
    /// There is always room: each waker stands in it once.
    postbox: Postbox<Arc<Alarm>>,
}

thread_local! {
    static HERE: Here = const {
        Here {
            worker: Cell::new(0),
            rung: RefCell::new(VecDeque::new()),
            spawned: RefCell::new(Vec::new()),
        }
    };
}

/// The turn that is under way on this thread.
struct Here {
    worker: Cell<u64>,
    rung: RefCell<VecDeque<Arc<Alarm>>>,
    /// Futures that handlers have begun for requests.
    spawned: RefCell<Vec<(ConnId, JobFuture)>>,
}

/// Begins a future for a connection that has no [`Ctx`](crate::Ctx) yet, in the turn that is under way on this thread.
/// Without one, in a test that calls a handler itself, nobody would ever poll it.
#[cfg(feature = "async")]
pub(crate) fn spawn(conn: ConnId, work: JobFuture) {
    HERE.with(|here| {
        if here.worker.get() != 0 {
            here.spawned.borrow_mut().push((conn, work));
        }
    });
}

impl Here {
    /// A turn panicked, in a simulation, which may be followed by another on the same thread: what was for that worker
    /// is for nobody.
    #[cold]
    fn forget(&self) {
        self.rung.take();
        quietly(self.spawned.take());
    }
}

impl Alarms {
    pub(crate) fn new(postbox: Postbox<Arc<Alarm>>) -> Arc<Self> {
        static LATEST: AtomicU64 = AtomicU64::new(0);
        let number = LATEST.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Self { number, postbox })
    }

    /// A waker for something that waits on this worker.
    pub(crate) fn waker(self: &Arc<Self>, conn: ConnId, sleeper: Sleeper) -> Waker {
        let (alarms, pending) = (Arc::clone(self), Pending::default());
        Waker::from(Arc::new(Alarm { alarms, conn, sleeper, pending }))
    }

    /// A turn of this worker begins on this thread.
    pub(crate) fn begin_turn(&self) {
        HERE.with(|here| {
            if here.worker.replace(self.number) != 0 {
                here.forget();
            }
        });
    }

    /// The turn ends: wakes come by the mailbox again.
    pub(crate) fn end_turn(&self, rung: &mut VecDeque<Arc<Alarm>>) {
        self.take_rung(rung);
        HERE.with(|here| here.worker.set(0));
    }

    /// Takes what was woken on this thread in this turn.
    #[inline]
    pub(crate) fn take_rung(&self, rung: &mut VecDeque<Arc<Alarm>>) {
        HERE.with(|here| {
            let mut here = here.rung.borrow_mut();
            if !here.is_empty() {
                rung.append(&mut here);
            }
        });
    }
}

/// The futures that were begun for requests since the last call.
#[inline]
pub(crate) fn take_spawned() -> Vec<(ConnId, JobFuture)> {
    HERE.with(|here| std::mem::take(&mut *here.spawned.borrow_mut()))
}

impl Alarm {
    /// The worker looks at what it wakes. From now on it can be woken again.
    pub(crate) fn heard(&self) {
        self.pending.look();
    }

    fn ring(self: &Arc<Self>) {
        let is_here = HERE.try_with(|here| {
            let is_here = here.worker.get() == self.alarms.number;
            if is_here {
                here.rung.borrow_mut().push_back(Arc::clone(self));
            }
            is_here
        });
        if is_here != Ok(true) {
            // Where the worker has ended, nothing is left to wake.
            let _ = self.alarms.postbox.post(Arc::clone(self));
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.pending.announce() {
            self.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::base::mailbox::{Bell, Mailbox, mailbox};
    use crate::base::wake;

    struct Count(Arc<AtomicUsize>);

    impl wake::Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn alarms() -> (Arc<Alarms>, Mailbox<Arc<Alarm>>, Arc<AtomicUsize>) {
        let wakes = Arc::default();
        let (postbox, rung) = mailbox(None, &Bell::new(Count(Arc::clone(&wakes))));
        (Alarms::new(postbox), rung, wakes)
    }

    fn conn() -> ConnId {
        ConnId { server: 0, worker: 0, slot: 7, generation: 1 }
    }

    #[test]
    fn a_turn_has_its_own_wakes_without_the_mailbox() {
        let (alarms, mail, wakes) = alarms();
        let waker = alarms.waker(conn(), Sleeper::Handler);
        let mut rung = VecDeque::new();
        alarms.begin_turn();
        (0..3).for_each(|_| waker.wake_by_ref());
        alarms.take_rung(&mut rung);
        assert_eq!((rung.len(), mail.len(), wakes.load(Ordering::Relaxed)), (1, 0, 0));
        // It stands there once, until it is looked at.
        waker.wake_by_ref();
        alarms.end_turn(&mut rung);
        assert_eq!(rung.len(), 1);
        rung.pop_front().unwrap().heard();
        // Between turns, and on other threads, the mailbox is the way.
        waker.wake_by_ref();
        assert_eq!((mail.len(), wakes.load(Ordering::Relaxed)), (1, 1));
        mail.take().unwrap().heard();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        assert_eq!(mail.len(), 1);
    }

    #[test]
    fn workers_that_share_a_thread_have_wakes_of_their_own() {
        let (one, _mail, _) = alarms();
        let (other, mail, wakes) = alarms();
        let waker = other.waker(conn(), Sleeper::Future(3));
        let mut rung = VecDeque::new();
        one.begin_turn();
        waker.wake();
        one.end_turn(&mut rung);
        assert!(rung.is_empty());
        assert_eq!((mail.len(), wakes.load(Ordering::Relaxed)), (1, 1));
        let alarm = mail.take().unwrap();
        assert_eq!((alarm.conn, alarm.sleeper), (conn(), Sleeper::Future(3)));
    }

    /// A scene of a simulation that fails in a turn, and the next one on its thread.
    #[test]
    fn a_turn_that_panicked_leaves_nothing_to_the_next() {
        let ((failed, _mail, _), (next, _next_mail, _)) = (alarms(), alarms());
        failed.begin_turn();
        failed.waker(conn(), Sleeper::Handler).wake();
        #[cfg(feature = "async")]
        spawn(conn(), Box::pin(async { Box::new(()) as _ }));
        let mut rung = VecDeque::new();
        next.begin_turn();
        next.end_turn(&mut rung);
        assert!(rung.is_empty() && take_spawned().is_empty());
        // Nor does what is called without a turn.
        #[cfg(feature = "async")]
        spawn(conn(), Box::pin(async { Box::new(()) as _ }));
        assert!(take_spawned().is_empty());
    }

    #[test]
    fn a_worker_that_has_ended_is_not_woken() {
        let (alarms, mail, _) = alarms();
        drop(mail);
        alarms.waker(conn(), Sleeper::Handler).wake();
    }

    /// A thread has something ready and wakes while the worker looks, in every order: the worker sees it, or will look
    /// again.
    #[test]
    fn nothing_is_ready_without_being_looked_at() {
        use loom::sync::atomic::{AtomicBool, Ordering};
        use loom::sync::{Arc, Mutex};

        loom::model(|| {
            let is_ready = Arc::new(AtomicBool::new(false));
            // It was rung before.
            let pending = Arc::new(Pending::of(AtomicBool::new(true)));
            let queue = Arc::new(Mutex::new(1_u32));
            let waking = {
                let (is_ready, pending, queue) = (is_ready.clone(), pending.clone(), queue.clone());
                loom::thread::spawn(move || {
                    is_ready.store(true, Ordering::Relaxed);
                    if pending.announce() {
                        *queue.lock().unwrap() += 1;
                    }
                })
            };
            *queue.lock().unwrap() -= 1;
            pending.look();
            let was_seen = is_ready.load(Ordering::Relaxed);
            waking.join().unwrap();
            assert!(was_seen || *queue.lock().unwrap() == 1);
        });
    }
}
