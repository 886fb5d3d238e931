//! Jobs that a handler gives to the compute threads, and what comes back of them.
//!
//! A job and its continuation travel as one closure, and come back as another that holds the result: the threads know
//! no handler, and a connection's [`Jobs`] know no types. They are there only while there are jobs.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::app::ctx::Ctx;
use crate::base::panics::panic_text;
use crate::compute::task::{Continuation, Task};
use crate::compute::{Compute, Job, Lane};
use crate::conn::{Phase, Wire};

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// It panicked, with these words. The panic was logged and counted.
    #[error("the job panicked: {0}")]
    Panicked(String),
}

/// A job that was not taken, from [`Ctx::offload`], with all that was given.
#[non_exhaustive]
pub struct RefusedJob<J, F> {
    /// Why.
    pub reason: JobRefusal,
    /// The job.
    pub job: J,
    /// What was to follow it.
    pub then: F,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobRefusal {
    /// There are no threads for it: [`compute_workers`](crate::Config::compute_workers) is 0.
    #[error("the server has no compute workers: set compute_workers to 1 or more")]
    NoComputeWorkers,
    /// As many jobs wait as [`compute_queue_len`](crate::Config::compute_queue_len) allows.
    #[error("the queue of the compute workers is full (setting: compute_queue_len)")]
    QueueFull,
    /// The connection has as many jobs as [`max_jobs_per_connection`](crate::Config::max_jobs_per_connection) allows.
    #[error("the connection has too many jobs (setting: max_jobs_per_connection)")]
    TooManyJobs,
    /// The connection is closing, so that nobody could be told the result.
    #[error("the connection is closing")]
    Closing,
}

impl<S: 'static> Ctx<'_, S> {
    /// Gives `job` to the compute threads, so that it does not hold up the worker, and calls `then` with its result
    /// afterwards, on this worker and with this connection.
    ///
    /// Jobs run in parallel; their results come in the order of the calls, so that one that takes long holds back those
    /// behind it ([`offload_unordered`](Self::offload_unordered) does not). They come whether or not the connection is
    /// paused, and the worker goes on with other messages meanwhile.
    ///
    /// Where the connection ends first, a job that has not begun is not run, and `then` is dropped; so it is never
    /// called after [`on_close`](crate::Handler::on_close). Closing does not wait for jobs: `then` may find that the
    /// connection is [not open](Self::is_open) any more, and what it sends is dropped. To answer before closing, close
    /// in `then`. A job that runs when the server has shut down goes on to its end, or that of the process.
    ///
    /// ```
    /// use ringwire::{Config, Ctx, Message, Server, on_message};
    ///
    /// fn digest(text: &str) -> String {
    ///     text.chars().rev().collect() // takes long
    /// }
    ///
    /// let server = Server::new(Config::default().with_io_workers(1).with_compute_workers(1))
    ///     .listen("127.0.0.1:0")
    ///     .start(|_worker| on_message(|ctx: &mut Ctx<'_, ()>, message: Message<'_>| {
    ///         let Message::Text(text) = message else { return };
    ///         let text = text.to_owned();
    ///         let offloaded = ctx.offload(move || digest(&text), |ctx, result| {
    ///             ctx.send(result.unwrap_or_else(|error| error.to_string()).as_str());
    ///         });
    ///         if let Err(refused) = offloaded {
    ///             ctx.send(refused.to_string().as_str());
    ///         }
    ///     }))?;
    /// # server.handle().shutdown(std::time::Duration::ZERO);
    /// # server.join()?;
    /// # Ok::<(), ringwire::Error>(())
    /// ```
    ///
    /// # Errors
    /// The job is not taken, and comes back: there are no compute threads, their queue is full, the connection has as
    /// many jobs as it may, or is closing. A handler that may not lose it can [pause](Self::pause) the connection until
    /// another of its jobs is done.
    pub fn offload<T, J, F>(&mut self, job: J, then: F) -> Result<(), RefusedJob<J, F>>
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
        F: FnOnce(&mut Ctx<'_, S>, Result<T, JobError>) + Send + 'static,
    {
        self.submit(job, then, true)
    }

    /// As [`offload`](Self::offload), with the result as soon as it is there, whatever was offloaded before.
    ///
    /// # Errors
    /// As those of [`offload`](Self::offload).
    pub fn offload_unordered<T, J, F>(&mut self, job: J, then: F) -> Result<(), RefusedJob<J, F>>
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
        F: FnOnce(&mut Ctx<'_, S>, Result<T, JobError>) + Send + 'static,
    {
        self.submit(job, then, false)
    }

    fn submit<T, J, F>(&mut self, job: J, then: F, ordered: bool) -> Result<(), RefusedJob<J, F>>
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
        F: FnOnce(&mut Ctx<'_, S>, Result<T, JobError>) + Send + 'static,
    {
        let (conn, wire, shared) = self.engine();
        let max_jobs = shared.limits.max_jobs;
        let Some(compute) = &shared.compute else {
            return Err(RefusedJob { reason: JobRefusal::NoComputeWorkers, job, then });
        };
        let room = match admit(wire, compute, max_jobs) {
            Ok(room) => room,
            Err(reason) => return Err(RefusedJob { reason, job, then }),
        };
        let (number, alive) = wire.jobs_mut().begin(ordered);
        let work = move || {
            let result = catch_unwind(AssertUnwindSafe(job)).map_err(|panic| {
                let text = panic_text(panic);
                crate::base::event::error!(%conn, panic = text, "a job panicked");
                JobError::Panicked(text)
            });
            let panicked = result.is_err();
            let then: Then<S> = Box::new(move |ctx| then(ctx, result));
            (Box::new(then) as Continuation, panicked)
        };
        room.submit(Job::Task(Box::new(Task { conn, number, alive, work: Box::new(work) })));
        Ok(())
    }
}

/// Room for another job of this connection.
fn admit<'a>(
    wire: &Wire,
    compute: &'a Compute,
    max_jobs: usize,
) -> Result<crate::compute::Room<'a>, JobRefusal> {
    if wire.phase != Phase::Open {
        return Err(JobRefusal::Closing);
    }
    if wire.job_count() >= max_jobs {
        compute.note_refused();
        return Err(JobRefusal::TooManyJobs);
    }
    compute.room(Lane::Application).ok_or(JobRefusal::QueueFull)
}

/// What is done with the result, for the handler that it belongs to.
pub(crate) type Then<S> = Box<dyn FnOnce(&mut Ctx<'_, S>) + Send>;

impl<J, F> fmt::Debug for RefusedJob<J, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusedJob").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<J, F> fmt::Display for RefusedJob<J, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<J, F> std::error::Error for RefusedJob<J, F> {}
