//! What a socket and its handler have in common: what came and waits for the application, and what it has sent and
//! waits for the end of its turn.
//!
//! Both are on the worker's thread. The handler fills the one and polls the application's future; what the future does
//! is noted in the other, and done when it has returned. So no part of the engine is borrowed while the application
//! runs. Where another future of the worker has a half of the socket, what it does wakes this one, which does it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use ringwire_codec::{CloseCode, Message, OwnedMessage};

use super::SocketState;
use super::waiters::Waiters;
use crate::app::ctx::Ctx;
use crate::base::runtime::Runtime;
use crate::conn::cause::CloseCause;
use crate::conn::id::ConnId;
use crate::conn::jobs::OwnWork;
use crate::state::limits::Limits;

/// What a message takes beside its payload, about.
const MESSAGE_COST: usize = 64;

/// See the [module's documentation](self).
pub(super) struct Core {
    pub(super) id: ConnId,
    pub(super) peer: SocketAddr,
    /// What may wait for the application, and what it may have waiting for the peer before it has to wait itself.
    high_water: usize,
    /// What the future may use while it is polled.
    pub(super) runtime: Runtime,
    /// Has the future polled.
    pub(super) root: Waker,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    inbox: VecDeque<OwnedMessage>,
    inbox_cost: usize,
    /// The half that receives is gone: what comes is dropped.
    is_deaf: bool,
    outbox: VecDeque<Deed>,
    /// Output that the connection has waiting, that in `outbox` included.
    queued_len: usize,
    /// The future is polled, or what it wants is carried out.
    is_polled: bool,
    /// A close was begun by the application, in this poll or before.
    is_closing: bool,
    /// The engine takes no more messages.
    is_shut: bool,
    /// The future has returned, or has panicked.
    is_over: bool,
    cause: Option<Rc<CloseCause>>,
    receiving: Option<Waker>,
    sending: Waiters,
    ending: Waiters,
}

/// What the application wants to happen.
pub(super) enum Deed {
    Send(OwnedMessage),
    Ping(Vec<u8>),
    Close(CloseCode, String),
    Call(Call),
}

/// What is called with the connection.
type Call = Box<dyn FnOnce(&mut Ctx<'_, SocketState>)>;

/// What becomes of a message that the application sends.
pub(super) enum Room {
    Taken,
    Full(OwnedMessage),
    Closed,
}

/// What part of a future waits for.
#[derive(Clone, Copy)]
pub(super) enum Event {
    Room,
    End,
}

impl Core {
    pub(super) fn new(id: ConnId, peer: SocketAddr, limits: &Limits, root: Waker) -> Self {
        let (high_water, runtime) = (limits.high_water, limits.runtime.clone());
        Self { id, peer, high_water, runtime, root, inner: RefCell::default() }
    }

    // The handler's side

    /// Takes in a message. Whether anybody may want it.
    pub(super) fn put(&self, message: Message<'_>) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        if inner.is_deaf || inner.is_over {
            return false;
        }
        inner.inbox_cost += message.len() + MESSAGE_COST;
        inner.inbox.push_back(message.into());
        true
    }

    /// What the application has to do, as far as this knows. It has nothing where it waits for a message, and for
    /// nothing else.
    pub(super) fn own_work(&self) -> OwnWork {
        let inner = self.inner.borrow();
        let is_idle =
            inner.receiving.is_some() && inner.inbox.is_empty() && inner.sending.is_empty();
        let (held_len, is_full) = (inner.inbox_cost, inner.inbox_cost >= self.high_water);
        OwnWork { is_busy: !is_idle, held_len, is_full }
    }

    /// Whether somebody waits for room.
    pub(super) fn wants_room(&self) -> bool {
        !self.inner.borrow().sending.is_empty()
    }

    pub(super) fn high_water(&self) -> usize {
        self.high_water
    }

    /// The future is about to be polled: how much output waits, and whether more is taken.
    pub(super) fn begin(&self, queued_len: usize, is_open: bool) {
        let mut inner = self.inner.borrow_mut();
        inner.is_polled = true;
        inner.queued_len = queued_len;
        inner.is_shut = !is_open;
        let has_come = !inner.inbox.is_empty() || inner.is_shut;
        let receiving = if has_come { inner.receiving.take() } else { None };
        let has_room = queued_len < self.high_water || inner.is_shut;
        let sending = has_room.then(|| inner.sending.take());
        drop(inner);
        self.wake(receiving.into_iter().chain(sending.into_iter().flatten()));
    }

    /// What it wanted has been done.
    pub(super) fn done(&self) {
        self.inner.borrow_mut().is_polled = false;
    }

    /// The future has returned, or has panicked: nobody is to wait for what it would have done.
    pub(super) fn finish(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.is_over = true;
        inner.is_shut = true;
        (inner.inbox_cost, inner.queued_len) = (0, 0);
        let left = (mem::take(&mut inner.inbox), mem::take(&mut inner.outbox));
        let sending = inner.sending.take();
        drop(inner);
        self.wake(sending);
        drop(left);
    }

    /// The connection has ended.
    pub(super) fn end(&self, cause: &CloseCause) {
        let mut inner = self.inner.borrow_mut();
        inner.cause = Some(Rc::new(cause.clone()));
        inner.is_shut = true;
        let left = mem::take(&mut inner.outbox);
        let receiving = inner.receiving.take();
        let waiting = inner.sending.take().chain(inner.ending.take());
        drop(inner);
        self.wake(receiving.into_iter().chain(waiting));
        drop(left);
    }

    /// Wakes parts of futures that have wakers of their own. The whole of this one is polled in any case.
    fn wake(&self, wakers: impl Iterator<Item = Waker>) {
        wakers.filter(|waker| !waker.will_wake(&self.root)).for_each(Waker::wake);
    }

    /// The next thing that the application wants to happen.
    pub(super) fn next_deed(&self) -> Option<Deed> {
        self.inner.borrow_mut().outbox.pop_front()
    }

    // The application's side

    /// Changes something that the handler is to look at, unless it is about to in any case.
    fn change<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.borrow_mut();
        let result = work(&mut inner);
        let is_asleep = !inner.is_polled && !inner.is_over && inner.cause.is_none();
        drop(inner);
        if is_asleep {
            self.root.wake_by_ref();
        }
        result
    }

    /// The next message, or why none will come; nothing if there may be one later, which `waker` wakes for.
    pub(super) fn receive(&self, waker: &Waker) -> Option<Result<OwnedMessage, Rc<CloseCause>>> {
        self.change(|inner| {
            if let Some(message) = inner.inbox.pop_front() {
                inner.inbox_cost -= message.as_bytes().len() + MESSAGE_COST;
                return Some(Ok(message));
            }
            if let Some(cause) = &inner.cause {
                return Some(Err(Rc::clone(cause)));
            }
            match &mut inner.receiving {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            None
        })
    }

    /// Nobody waits for a message any more.
    pub(super) fn stop_receiving(&self) {
        self.inner.borrow_mut().receiving = None;
    }

    /// Nobody will receive a message any more.
    pub(super) fn stop_listening(&self) {
        let left = self.change(|inner| {
            inner.is_deaf = true;
            inner.inbox_cost = 0;
            mem::take(&mut inner.inbox)
        });
        drop(left);
    }

    /// Takes a message to be sent, if there is room for it.
    pub(super) fn send(&self, message: OwnedMessage) -> Room {
        self.change(|inner| {
            if inner.is_shut || inner.is_closing {
                return Room::Closed;
            }
            if inner.queued_len >= self.high_water {
                return Room::Full(message);
            }
            inner.queued_len += message.as_bytes().len() + MESSAGE_COST;
            inner.outbox.push_back(Deed::Send(message));
            Room::Taken
        })
    }

    /// Has `waker` woken for the event. `place` is where it stands, for as long as it waits.
    pub(super) fn wait(&self, event: Event, place: &mut Option<u64>, waker: &Waker) {
        self.change(|inner| inner.waiters(event).wait(place, waker));
    }

    /// Who stands there waits no more.
    pub(super) fn leave(&self, event: Event, place: u64) {
        self.change(|inner| inner.waiters(event).leave(place));
    }

    /// Notes what else is to happen; not once the function has returned, or the connection has ended.
    pub(super) fn push(&self, deed: Deed) -> bool {
        self.change(|inner| {
            if inner.is_over || inner.cause.is_some() {
                return false;
            }
            inner.is_closing |= matches!(deed, Deed::Close(..));
            inner.outbox.push_back(deed);
            true
        })
    }

    /// Whether messages can be sent.
    pub(super) fn is_open(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.is_shut && !inner.is_closing
    }

    /// How the connection has ended, once it has.
    pub(super) fn cause(&self) -> Option<Rc<CloseCause>> {
        self.inner.borrow().cause.clone()
    }
}

impl Inner {
    fn waiters(&mut self, event: Event) -> &mut Waiters {
        match event {
            Event::Room => &mut self.sending,
            Event::End => &mut self.ending,
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("id", &self.id).finish_non_exhaustive()
    }
}
