//! The requests that wait for their responses, and what becomes of them as connections come and go.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::mpsc::SyncSender;

use crate::blocking::Sender;
use crate::error::Error;
use crate::message::OwnedMessage;

/// What a request is waited for with.
pub(super) type Respond = SyncSender<Result<OwnedMessage, Error>>;

pub(super) struct Table<Id> {
    /// Requests without a response.
    pending: HashMap<Id, Entry>,
    /// The connection on which they go out, while there is one.
    current: Option<Sender>,
    next_number: u64,
    late_count: u64,
    has_ended: bool,
}

struct Entry {
    /// Requests that wait for a connection go out in this order. It also tells apart what had the same id.
    number: u64,
    respond: Respond,
    stage: Stage,
    /// The request, while it may have to be sent.
    message: Option<OwnedMessage>,
    is_idempotent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits for a connection.
    Waiting,
    /// A thread has taken it and sends it, on whatever connection there was.
    Sending,
    /// The connection that there is has taken it.
    Sent,
}

impl<Id: Clone + Eq + Hash> Table<Id> {
    pub(super) fn new(current: Option<Sender>) -> Self {
        Self { pending: HashMap::new(), current, next_number: 1, late_count: 0, has_ended: false }
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) const fn late_count(&self) -> u64 {
        self.late_count
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn current(&self) -> Option<Sender> {
        self.current.clone()
    }

    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Adds a request, which waits to be sent.
    pub(super) fn insert(
        &mut self,
        id: Id,
        number: u64,
        message: OwnedMessage,
        is_idempotent: bool,
        respond: Respond,
    ) -> Result<(), Error> {
        if self.pending.contains_key(&id) {
            return Err(Error::IdInUse);
        }
        let message = Some(message);
        let stage = Stage::Waiting;
        self.pending.insert(id, Entry { number, respond, stage, message, is_idempotent });
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &Id, number: u64) {
        if self.pending.get(id).is_some_and(|entry| entry.number == number) {
            self.pending.remove(id);
        }
    }

    /// Takes a request that waits, to be sent on the connection that there is, unless that is the one that has failed.
    pub(super) fn take(
        &mut self,
        id: &Id,
        number: u64,
        failed: Option<&Sender>,
    ) -> Option<(Sender, OwnedMessage)> {
        let is_good = |sender: &Sender| failed.is_none_or(|old| !sender.is_same(old));
        let sender = self.current.clone().filter(is_good)?;
        let entry = self.pending.get_mut(id).filter(|entry| entry.number == number)?;
        let message = entry.message.take_if(|_| entry.stage == Stage::Waiting)?;
        entry.stage = Stage::Sending;
        Some((sender, message))
    }

    /// A request that was taken has gone out, or has not. What did on a connection that is lost by now has no response.
    pub(super) fn on_sent(
        &mut self,
        (id, number): (&Id, u64),
        message: OwnedMessage,
        sender: &Sender,
        was_sent: bool,
    ) -> Result<(), Error> {
        let is_current = self.current.as_ref().is_some_and(|current| current.is_same(sender));
        let entry = self.pending.get_mut(id).filter(|entry| entry.number == number);
        // It has its response already, or nobody waits for that any more.
        let Some(entry) = entry else { return Ok(()) };
        if was_sent && is_current {
            entry.stage = Stage::Sent;
            entry.message = entry.is_idempotent.then_some(message);
        } else if was_sent && !entry.is_idempotent {
            return Err(Error::Unanswered { was_sent });
        } else {
            entry.stage = Stage::Waiting;
            entry.message = Some(message);
        }
        Ok(())
    }

    /// There is a connection. Gives what waits for it, in order.
    pub(super) fn on_connected(&mut self, sender: Option<Sender>) -> Vec<(Id, u64)> {
        self.current = sender;
        let waiting = self.pending.iter().filter(|(_, entry)| entry.stage == Stage::Waiting);
        let mut waiting: Vec<_> = waiting.map(|(id, entry)| (id.clone(), entry.number)).collect();
        waiting.sort_unstable_by_key(|(_, number)| *number);
        waiting
    }

    /// The connection is lost. What is being sent is left to who sends it.
    pub(super) fn on_lost(&mut self) {
        self.current = None;
        self.pending.retain(|_, entry| {
            let is_lost = entry.stage == Stage::Sent && !entry.is_idempotent;
            match entry.stage {
                Stage::Sent if is_lost => entry.end(),
                Stage::Sent => entry.stage = Stage::Waiting,
                Stage::Waiting | Stage::Sending => {}
            }
            !is_lost
        });
    }

    /// No response comes any more.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
        self.current = None;
        for (_, entry) in self.pending.drain() {
            entry.end();
        }
    }

    /// A response has come. A second one to the same request finds nobody.
    pub(super) fn on_response(&mut self, id: &Id, message: OwnedMessage) {
        let entry = self.pending.remove(id);
        let was_taken = entry.is_some_and(|entry| entry.respond.try_send(Ok(message)).is_ok());
        self.late_count += u64::from(!was_taken);
    }

    /// A request has failed on its own.
    pub(super) fn on_failed(&mut self, id: &Id, number: u64, error: Error) {
        if let Some(entry) = self.pending.get(id).filter(|entry| entry.number == number) {
            // Who does not wait any more needs no answer.
            let _ = entry.respond.try_send(Err(error));
            self.pending.remove(id);
        }
    }
}

impl Entry {
    fn end(&self) {
        let was_sent = self.stage != Stage::Waiting;
        // As above.
        let _ = self.respond.try_send(Err(Error::Unanswered { was_sent }));
    }
}
