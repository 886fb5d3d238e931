//! What NATS brings to the node, of all subscriptions.

#![expect(clippy::disallowed_methods, reason = "no worker is here, whose turn would have a time")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringwire::cluster::Inlet;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use crate::subject::Subjects;

/// What has happened to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Down,
    Up,
}

/// The node's inlet, for all subscriptions.
pub(crate) struct Receiving {
    pub(crate) inlet: RefCell<Inlet>,
    pub(crate) subjects: Subjects,
    began: Instant,
    /// When the inlet is to be looked at, since something in it waits.
    due: Cell<Option<Duration>>,
    is_due_earlier: Notify,
}

impl Receiving {
    pub(crate) fn new(inlet: Inlet, subjects: Subjects) -> Rc<Self> {
        let (began, due, is_due_earlier) = (Instant::now(), Cell::new(None), Notify::new());
        Rc::new(Self { inlet: RefCell::new(inlet), subjects, began, due, is_due_earlier })
    }

    /// Takes what another node has published.
    pub(crate) fn take(&self, topic: &str, payload: &[u8]) {
        self.inlet.borrow_mut().receive(topic, payload, self.began.elapsed());
        self.look();
    }

    /// Passes on what has waited long enough.
    fn look(&self) {
        let due = self.inlet.borrow_mut().expire(self.began.elapsed());
        let before = self.due.replace(due);
        if due.is_some_and(|due| before.is_none_or(|before| due < before)) {
            self.is_due_earlier.notify_one();
        }
    }
}

/// Passes on in time what waits, for as long as the bus lives.
pub(crate) async fn expire(receiving: Rc<Receiving>) {
    loop {
        let earlier = receiving.is_due_earlier.notified();
        match receiving.due.get() {
            None => earlier.await,
            Some(due) => {
                tokio::select! {
                    () = earlier => {}
                    () = sleep_until((receiving.began + due).into()) => receiving.look(),
                }
            }
        }
    }
}
