//! Ways of a [`Handle`] into the workers: senders, calls with a connection, events for handlers.

use std::any::TypeId;

use crate::app::ctx::Ctx;
use crate::app::offload::Then;
use crate::base::mailbox::{PostError, Refused};
use crate::conn::credit::Credit;
use crate::conn::id::ConnId;
use crate::hub::mail::{Mail, Offer};
use crate::hub::posted::Posted;
use crate::server::handle::Handle;
use crate::server::sender::Sender;

impl Handle {
    /// A way to send to one connection with a bounded amount of room, which a producer that is faster than the peer
    /// waits for. What [`send`](Self::send) posts past [`max_queued_len`](crate::Config::max_queued_len) trips the
    /// connection's backpressure policy; what a sender takes does not. The room is half of that length, in bytes. See
    /// [`Sender`].
    ///
    /// # Errors
    /// The worker has ended, or the connection is one of another server. Whether the connection is still open shows
    /// with the first message.
    pub fn sender(&self, conn: ConnId) -> Result<Sender, PostError> {
        self.sender_with_capacity(conn, self.hub.max_queued_len() / 2)
    }

    /// As [`sender`](Self::sender), with room for so many bytes; at least for one message, and at most
    /// [`max_queued_len`](crate::Config::max_queued_len).
    ///
    /// # Errors
    /// As those of [`sender`](Self::sender).
    pub fn sender_with_capacity(&self, conn: ConnId, capacity: usize) -> Result<Sender, PostError> {
        let offers = &self.link_of(conn)?.offers;
        let (credit, lane) = Credit::new(capacity.min(self.hub.max_queued_len()));
        offers.post(Offer { conn, lane: Some(lane) })?;
        Ok(Sender::new(conn, credit, offers.clone()))
    }

    /// Calls `work` with a connection, on its worker, if it is open then and has a state of this type: the handler's,
    /// or that of its route. Otherwise `work` is dropped.
    ///
    /// ```
    /// use ringwire::{Config, Ctx, Handle, PostError, Server, on_message};
    ///
    /// /// Says how much waits for the peer, to the peer.
    /// fn report(handle: &Handle, conn: ringwire::ConnId) -> Result<(), PostError> {
    ///     handle.run(conn, |ctx: &mut Ctx<'_, ()>| {
    ///         let waiting = ctx.queued_len().to_string();
    ///         let _ = ctx.send(waiting.as_str());
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// No handler has a state of this type, or the worker is busy or has ended.
    pub fn run<S, F>(&self, conn: ConnId, work: F) -> Result<(), PostError>
    where
        S: 'static,
        F: FnOnce(&mut Ctx<'_, S>) + Send + 'static,
    {
        self.check_state(TypeId::of::<S>())?;
        let work: Then<S> = Box::new(work);
        self.post(conn, Mail::Run { conn, then: Box::new(work) })
    }

    /// Brings `event` to the handler of a worker: [`on_event`](crate::Handler::on_event). Workers are counted from 0.
    ///
    /// # Errors
    /// There is no such worker, or it is busy or has ended; the event comes back.
    pub fn post_event<E: Send + 'static>(&self, worker: u16, event: E) -> Result<(), Refused<E>> {
        let Some(link) = self.links().get(usize::from(worker)) else {
            return Err(Refused { error: PostError::NoSuchWorker, letter: event });
        };
        let Err(refused) = link.postbox.post(Mail::Event(Posted::new(event))) else {
            return Ok(());
        };
        Err(refused.map(|mail| match mail {
            Mail::Event(event) => event.downcast().expect("it is what was posted"),
            _ => unreachable!("a mailbox gives back the letter that it was given"),
        }))
    }

    /// Brings a copy of `event` to the handler of each worker.
    ///
    /// # Errors
    /// A worker is busy or has ended. Those with a lower index have theirs.
    pub fn post_event_to_all<E: Clone + Send + 'static>(&self, event: &E) -> Result<(), PostError> {
        let mut workers = (0..).take(self.links().len());
        workers.try_for_each(|worker| Ok(self.post_event(worker, event.clone())?))
    }
}
