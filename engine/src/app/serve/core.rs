//! What a socket and its handler have in common: what came and waits for the application, and what it has sent and
//! waits for the end of its turn.
//!
//! Both are on the worker's thread. The handler fills the one and polls the application's future; what the future does
//! is noted in the other, and done when it has returned. So no part of the engine is borrowed while the application
//! runs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use ringwire_codec::{CloseCode, Message, OwnedMessage};

use super::SocketState;
use crate::app::ctx::Ctx;
use crate::base::runtime::Runtime;
use crate::conn::cause::CloseCause;
use crate::conn::id::ConnId;
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
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    inbox: VecDeque<OwnedMessage>,
    inbox_cost: usize,
    outbox: VecDeque<Deed>,
    /// Output that the connection has waiting, that in `outbox` included.
    queued_len: usize,
    /// A close was begun by the application, in this poll or before.
    is_closing: bool,
    /// The engine takes no more messages.
    is_shut: bool,
    cause: Option<Rc<CloseCause>>,
    receiving: Option<Waker>,
    sending: Vec<Waker>,
    ending: Vec<Waker>,
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

impl Core {
    pub(super) fn new(id: ConnId, peer: SocketAddr, limits: &Limits) -> Self {
        let (high_water, runtime) = (limits.high_water, limits.runtime.clone());
        Self { id, peer, high_water, runtime, inner: RefCell::default() }
    }

    // The handler's side

    /// Takes in a message.
    pub(super) fn put(&self, message: Message<'_>) {
        let inner = &mut *self.inner.borrow_mut();
        inner.inbox_cost += message.len() + MESSAGE_COST;
        inner.inbox.push_back(message.into());
    }

    /// Whether as much waits for the application as may.
    pub(super) fn is_full(&self) -> bool {
        self.inner.borrow().inbox_cost >= self.high_water
    }

    /// Whether the application waits for a message, and for nothing else that this knows of.
    pub(super) fn is_idle(&self) -> bool {
        let inner = self.inner.borrow();
        inner.receiving.is_some() && inner.inbox.is_empty() && inner.sending.is_empty()
    }

    /// Whether the application waits for room.
    pub(super) fn wants_room(&self) -> bool {
        !self.inner.borrow().sending.is_empty()
    }

    pub(super) fn high_water(&self) -> usize {
        self.high_water
    }

    /// The future is about to be polled, with the waker `root`: how much output waits, and whether more is taken.
    pub(super) fn begin(&self, root: &Waker, queued_len: usize, is_open: bool) {
        let inner = &mut *self.inner.borrow_mut();
        inner.queued_len = queued_len;
        inner.is_shut = !is_open;
        if !inner.inbox.is_empty() || inner.is_shut {
            wake_parts(root, inner.receiving.take());
        }
        if queued_len < self.high_water || inner.is_shut {
            wake_parts(root, inner.sending.drain(..));
        }
        if inner.cause.is_some() {
            wake_parts(root, inner.ending.drain(..));
        }
    }

    /// The connection has ended.
    pub(super) fn end(&self, cause: &CloseCause) {
        let inner = &mut *self.inner.borrow_mut();
        inner.cause = Some(Rc::new(cause.clone()));
        inner.is_shut = true;
    }

    /// Bytes of messages that wait for the application, about.
    pub(super) fn waiting_len(&self) -> usize {
        self.inner.borrow().inbox_cost
    }

    /// The next thing that the application wants to happen.
    pub(super) fn next_deed(&self) -> Option<Deed> {
        self.inner.borrow_mut().outbox.pop_front()
    }

    // The application's side

    /// The next message, or why none will come; nothing if there may be one later, which `waker` wakes for.
    pub(super) fn receive(&self, waker: &Waker) -> Option<Result<OwnedMessage, Rc<CloseCause>>> {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(message) = inner.inbox.pop_front() {
            inner.inbox_cost -= message.as_bytes().len() + MESSAGE_COST;
            return Some(Ok(message));
        }
        if let Some(cause) = &inner.cause {
            return Some(Err(Rc::clone(cause)));
        }
        set(&mut inner.receiving, waker);
        None
    }

    /// Nobody waits for a message any more.
    pub(super) fn stop_receiving(&self) {
        self.inner.borrow_mut().receiving = None;
    }

    /// Takes a message to be sent, if there is room for it.
    pub(super) fn send(&self, message: OwnedMessage) -> Room {
        let inner = &mut *self.inner.borrow_mut();
        if inner.is_shut || inner.is_closing {
            return Room::Closed;
        }
        if inner.queued_len >= self.high_water {
            return Room::Full(message);
        }
        inner.queued_len += message.as_bytes().len();
        inner.outbox.push_back(Deed::Send(message));
        Room::Taken
    }

    /// Has `waker` woken once there is room.
    pub(super) fn await_room(&self, waker: &Waker) {
        add(&mut self.inner.borrow_mut().sending, waker);
    }

    /// Notes what else is to happen; not once the connection has ended.
    pub(super) fn push(&self, deed: Deed) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        if inner.cause.is_some() {
            return false;
        }
        inner.is_closing |= matches!(deed, Deed::Close(..));
        inner.outbox.push_back(deed);
        true
    }

    /// Whether messages can be sent.
    pub(super) fn is_open(&self) -> bool {
        let inner = self.inner.borrow();
        !inner.is_shut && !inner.is_closing
    }

    /// How the connection has ended, once it has; until then `waker` waits for it.
    pub(super) fn cause(&self, waker: Option<&Waker>) -> Option<Rc<CloseCause>> {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(waker) = waker.filter(|_| inner.cause.is_none()) {
            add(&mut inner.ending, waker);
        }
        inner.cause.clone()
    }
}

/// Notes who waits.
fn set(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) => known.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}

/// Notes another who waits, once.
fn add(all: &mut Vec<Waker>, waker: &Waker) {
    if !all.iter().any(|known| known.will_wake(waker)) {
        all.push(waker.clone());
    }
}

/// Wakes parts of a future that have wakers of their own. The whole is polled in any case.
fn wake_parts(root: &Waker, wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().filter(|waker| !waker.will_wake(root)).for_each(Waker::wake);
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("id", &self.id).finish_non_exhaustive()
    }
}
