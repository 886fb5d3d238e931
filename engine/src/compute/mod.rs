//! Threads beside the workers, for what would hold up an event loop.
//!
//! A job owns what it works on and touches no descriptor; its result comes back to the worker by mailbox, in which
//! there is always room for it. A job that panics is reported, and the thread goes on. The threads end when the last
//! worker is gone. What a handler gives them is in `app::offload`.

#![expect(clippy::disallowed_types, reason = "the threads and all workers count in one place")]
#![expect(clippy::disallowed_methods, reason = "the clock is read for a job, not for a message")]

mod deflation;
pub(crate) mod handshake;
mod stats;
pub(crate) mod task;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, Sender, select_biased};
use deflation::Compressors;
pub(crate) use deflation::{Deflated, Deflation};
pub use stats::{ComputeStats, Times};
pub(crate) use stats::{Lane, Meter};

use crate::base::mailbox::Postbox;
use crate::base::panics::{panic_text, quietly};
use crate::compute::handshake::{Shake, Shaken};
use crate::compute::task::{Finished, Task};
use crate::error::Error;

/// Work for the threads.
#[derive(Debug)]
pub(crate) enum Job {
    /// The first flight of a TLS handshake, in which the server signs.
    Shake(Box<Shake>),
    /// A long message to be compressed.
    Deflate(Box<Deflation>),
    /// What a handler offloaded.
    Task(Box<Task>),
    /// What makes the answer to an HTTP request, and sends it off. Gives whether it panicked.
    Answer(Answer),
}

/// See [`Job::Answer`].
pub(crate) struct Answer(pub(crate) Box<dyn FnOnce() -> bool + Send>);

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A TLS session is back.
    Shaken(Box<Shaken>),
    /// A message was compressed.
    Deflated(Box<Deflated>),
    /// The result of a handler's job.
    Finished(Box<Finished>),
}

/// A job that waits.
#[derive(Debug)]
pub(crate) struct Queued {
    job: Job,
    /// Where the result goes.
    home: Postbox<Outcome>,
    since: Instant,
}

/// The way to the threads, for a worker.
#[derive(Clone, Debug)]
pub(crate) struct Compute {
    pool: Pool,
    /// The worker's own mailbox.
    home: Postbox<Outcome>,
}

/// The threads, before they are told who they work for.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    engine: Sender<Queued>,
    application: Sender<Queued>,
    meter: Arc<Meter>,
}

/// Room for one job in the queue, to be used at once.
#[derive(Debug)]
#[must_use]
pub(crate) struct Room<'a>(&'a Compute);

/// What a thread has: the other ends of the queues, and tools of its own.
#[derive(Debug)]
pub(crate) struct Hand {
    engine: Receiver<Queued>,
    application: Receiver<Queued>,
    meter: Arc<Meter>,
    compressors: Compressors,
}

impl Pool {
    /// A thread for each entry of `cores`, on that core if one is named. `queue_len` jobs may wait in each lane.
    ///
    /// # Errors
    /// A thread can't be started.
    pub(crate) fn start(cores: &[Option<CoreId>], queue_len: usize) -> Result<Self, Error> {
        let (pool, hand) = Self::without_threads(cores.len(), queue_len);
        for (index, core) in (0_u16..).zip(cores.iter().copied()) {
            let mut hand = hand.another();
            thread::Builder::new()
                .name(format!("compute-{index}"))
                .spawn(move || {
                    if let Some(core) = core
                        && !core_affinity::set_for_current(core)
                    {
                        crate::base::event::warn!(
                            core = core.id,
                            "a compute thread could not be pinned"
                        );
                    }
                    hand.work();
                })
                .map_err(|error| Error::Thread {
                    worker: index,
                    problem: format!("for computing could not be started: {error}"),
                })?;
        }
        Ok(pool)
    }

    /// The same for somebody else who does the work.
    pub(crate) fn without_threads(thread_count: usize, queue_len: usize) -> (Self, Hand) {
        let meter = Arc::new(Meter::new(thread_count, queue_len));
        // The meter bounds what waits in them.
        let (engine, engine_jobs) = crossbeam_channel::unbounded();
        let (application, application_jobs) = crossbeam_channel::unbounded();
        let hand = Hand {
            engine: engine_jobs,
            application: application_jobs,
            meter: Arc::clone(&meter),
            compressors: Compressors::default(),
        };
        (Self { engine, application, meter }, hand)
    }

    /// The way for a worker with this mailbox.
    pub(crate) fn for_worker(&self, home: Postbox<Outcome>) -> Compute {
        Compute { pool: self.clone(), home }
    }

    /// What is counted of the threads.
    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }
}

impl Compute {
    /// Room for one job, unless as many wait as may, which is counted.
    pub(crate) fn room(&self, lane: Lane) -> Option<Room<'_>> {
        self.pool.meter.enter(lane).then_some(Room(self))
    }

    /// Counts a job that was refused for another reason.
    pub(crate) fn note_refused(&self) {
        self.pool.meter.note_refused();
    }
}

impl Room<'_> {
    /// Gives the threads the job that the room was for.
    pub(crate) fn submit(self, job: Job) {
        let Compute { pool, home } = self.0;
        let lane = match job.lane() {
            Lane::Engine => &pool.engine,
            Lane::Application => &pool.application,
        };
        // The threads live for as long as anyone can submit.
        let _ = lane.send(Queued { job, home: home.clone(), since: Instant::now() });
    }
}

impl Job {
    fn lane(&self) -> Lane {
        match self {
            Self::Shake(_) | Self::Deflate(_) => Lane::Engine,
            Self::Task(_) | Self::Answer(_) => Lane::Application,
        }
    }

    fn is_cancelled(&self) -> bool {
        match self {
            Self::Shake(_) | Self::Answer(_) => false,
            Self::Deflate(deflation) => deflation.is_cancelled(),
            Self::Task(task) => task.is_cancelled(),
        }
    }

    /// The result, and whether it is that of a panic.
    fn run(self, compressors: &mut Compressors) -> (Option<Outcome>, bool) {
        match self {
            Self::Shake(shake) => match catch_unwind(AssertUnwindSafe(|| shake.run())) {
                Ok(shaken) => (Some(Outcome::Shaken(Box::new(shaken))), false),
                Err(panic) => {
                    // The handshake's deadline ends the connection.
                    crate::base::event::error!(
                        panic = panic_text(panic),
                        "a TLS handshake panicked"
                    );
                    (None, true)
                }
            },
            Self::Deflate(deflation) => {
                (Some(Outcome::Deflated(Box::new(deflation.run(compressors)))), false)
            }
            Self::Task(task) => {
                let finished = task.run();
                let panicked = finished.panicked;
                (Some(Outcome::Finished(Box::new(finished))), panicked)
            }
            Self::Answer(Answer(work)) => (None, work()),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Hand {
    /// The same for another thread.
    fn another(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            application: self.application.clone(),
            meter: Arc::clone(&self.meter),
            compressors: Compressors::default(),
        }
    }

    /// Does one job after the other until all workers are gone. The engine's go first: they are short.
    fn work(&mut self) {
        loop {
            let queued = select_biased! {
                recv(self.engine) -> queued => queued,
                recv(self.application) -> queued => queued,
            };
            let Ok(queued) = queued else { break };
            self.carry_out(queued);
        }
        // Those left are for connections that have ended.
        while let Some(queued) = self.next_waiting() {
            self.carry_out(queued);
        }
    }

    /// The next job, if one waits.
    pub(crate) fn next_waiting(&self) -> Option<Queued> {
        self.engine.try_recv().or_else(|_| self.application.try_recv()).ok()
    }

    /// Whether a job waits.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_wanted(&self) -> bool {
        !self.engine.is_empty() || !self.application.is_empty()
    }

    /// Does a job, and brings home what came of it.
    pub(crate) fn carry_out(&mut self, queued: Queued) {
        let Queued { job, home, since } = queued;
        let begun = Instant::now();
        self.meter.leave(job.lane());
        if job.is_cancelled() {
            self.meter.note_cancelled();
            return quietly(job);
        }
        self.meter.begin(begun.saturating_duration_since(since));
        let (outcome, panicked) = job.run(&mut self.compressors);
        self.meter.end(begun.elapsed(), panicked);
        if let Some(outcome) = outcome {
            // Whose worker has ended, that is dropped.
            if let Err(refused) = home.post(outcome) {
                quietly(refused);
            }
        }
    }
}
