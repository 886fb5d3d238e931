//! Futures that a handler waits for, on its own worker.

use std::future::poll_fn;
use std::task::{Poll, Waker, ready};

use crate::app::ctx::Ctx;
use crate::app::offload::JobRefusal;
#[cfg(feature = "async")]
use crate::conn::Flags;
use crate::conn::Phase;
use crate::conn::jobs::Continuation;
#[cfg(feature = "async")]
use crate::conn::jobs::OwnWork;
use crate::driver::Token;
use crate::hub::wakes::Sleeper;

/// What is done with the output of a future.
pub(crate) type LocalThen<S> = Box<dyn FnOnce(&mut Ctx<'_, S>)>;

impl<S: 'static> Ctx<'_, S> {
    /// A waker that has [`Handler::on_wake`](crate::Handler::on_wake) called for this connection, once for all wakes
    /// before it. A wake from the worker's own thread takes neither a lock nor a system call. Wakes after the
    /// connection has ended do nothing.
    pub fn waker(&mut self) -> Waker {
        let (id, _, shared) = self.engine();
        shared.alarms().waker(id, Sleeper::Handler)
    }

    /// Waits for a future, on this worker, and then calls `then` with its output and this connection. The worker goes
    /// on with everything else meanwhile. The future need not be `Send`.
    ///
    /// The contract is that of [`offload`](Self::offload): futures and jobs run side by side, and their results come in
    /// the order of the calls; a connection has at most
    /// [`max_jobs_per_connection`](crate::Config::max_jobs_per_connection) of both together. Where the connection ends
    /// first, the future is dropped and `then` is never called. A future that panics closes the connection with 1011.
    ///
    /// The future is polled on the worker: what it computes between two `await`s holds up the worker's other
    /// connections. It may wait for anything that wakes: channels, or a database on a runtime
    /// ([`Server::with_runtime`](crate::Server::with_runtime)).
    ///
    /// ```
    /// use ringwire::{Ctx, Message};
    ///
    /// async fn find(key: String) -> String {
    ///     key.to_uppercase() // waits for a database
    /// }
    ///
    /// let handler = ringwire::on_message(|ctx: &mut Ctx<'_, ()>, message: Message<'_>| {
    ///     let Message::Text(key) = message else { return };
    ///     let answer = find(key.to_owned());
    ///     if let Err(refused) = ctx.spawn(answer, |ctx, row| { let _ = ctx.send(row.as_str()); }) {
    ///         let _ = ctx.send(refused.to_string().as_str());
    ///     }
    /// });
    /// # let _: &dyn ringwire::Handler<State = ()> = &handler;
    /// ```
    ///
    /// # Errors
    /// The connection has as many jobs as it may, or is closing. The future is dropped.
    pub fn spawn<T, F, N>(&mut self, future: F, then: N) -> Result<(), JobRefusal>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
        N: FnOnce(&mut Ctx<'_, S>, T) + 'static,
    {
        self.begin(future, then, false)
    }

    /// As [`spawn`](Self::spawn). Where the future takes the connection's last room, reading waits, and goes on by
    /// itself once one of its jobs is done: so a handler that begins one future for each message has none refused. That
    /// has nothing to do with [`pause`](Self::pause), which holds until [`resume`](Self::resume).
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), where one message begins several futures.
    pub fn spawn_or_pause<T, F, N>(&mut self, future: F, then: N) -> Result<(), JobRefusal>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
        N: FnOnce(&mut Ctx<'_, S>, T) + 'static,
    {
        self.begin(future, then, true)
    }

    /// Notes what the handler has to do for this connection that it waits for.
    #[cfg(feature = "async")]
    pub(crate) fn set_own_work(&mut self, own: OwnWork) {
        let (_, wire, shared) = self.engine();
        wire.set_own_work(own, shared.now);
    }

    /// What of [`max_queued_len`](crate::Config::max_queued_len) is used up, this turn's output included.
    #[cfg(feature = "async")]
    pub(crate) fn queue_cost(&mut self) -> usize {
        let (_, wire, shared) = self.engine();
        wire.queue_cost() + wire.awaited_len() + shared.out.len()
    }

    /// Has [`Handler::on_drain`](crate::Handler::on_drain) called once nothing waits for the peer.
    #[cfg(feature = "async")]
    pub(crate) fn want_drain(&mut self) {
        self.engine().1.flags.insert(Flags::BACKLOGGED);
    }

    fn begin<T, F, N>(&mut self, future: F, then: N, pauses: bool) -> Result<(), JobRefusal>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
        N: FnOnce(&mut Ctx<'_, S>, T) + 'static,
    {
        let (id, wire, shared) = self.engine();
        if wire.phase != Phase::Open {
            return Err(JobRefusal::Closing);
        }
        let max_jobs = shared.limits.max_jobs;
        if wire.job_count() >= max_jobs {
            return Err(JobRefusal::TooManyJobs);
        }
        // In a box of its own: one that panics is dropped once the panic is over, as its destructors may panic as well.
        let (mut future, mut then) = (Box::pin(future), Some(then));
        let work = poll_fn(move |cx| {
            let output = ready!(future.as_mut().poll(cx));
            let then = then.take();
            let then: LocalThen<S> = Box::new(move |ctx| {
                if let Some(then) = then {
                    then(ctx, output);
                }
            });
            Poll::Ready(Box::new(then) as Continuation)
        });
        let token = Token { slot: id.slot, generation: id.generation };
        shared.spawn(wire, token, Box::pin(work), true);
        if pauses && wire.job_count() >= max_jobs {
            wire.await_job_end(shared.now);
        }
        Ok(())
    }
}
