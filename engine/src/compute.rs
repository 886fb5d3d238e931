//! Threads beside the workers, for what would hold up an event loop.
//!
//! A job owns what it works on and touches no descriptor; its result comes back to the worker by mailbox. A job that
//! panics is lost, and the thread goes on. The threads end when the last worker is gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::error::Error;
use crate::mailbox::Postbox;
use crate::secure::Shake;

/// Work for the threads.
#[derive(Debug)]
pub(crate) enum Job {
    /// The first flight of a TLS handshake, in which the server signs.
    Shake(Box<Shake>),
}

/// The way to the threads, for a worker.
#[derive(Clone, Debug)]
pub(crate) struct Compute {
    jobs: Sender<Job>,
    /// The worker's own mailbox, for results.
    pub(crate) postbox: Postbox,
}

/// The threads, before they are told who they work for.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// A thread for each entry of `cores`, on that core if one is named. `queue_len` jobs may wait.
    ///
    /// # Errors
    /// A thread can't be started.
    pub(crate) fn start(cores: &[Option<CoreId>], queue_len: usize) -> Result<Self, Error> {
        let (jobs, waiting) = crossbeam_channel::bounded(queue_len);
        for (index, core) in (0_u16..).zip(cores.iter().copied()) {
            let waiting = waiting.clone();
            thread::Builder::new()
                .name(format!("compute-{index}"))
                .spawn(move || work(&waiting, core))
                .map_err(|error| Error::Thread {
                    worker: index,
                    problem: format!("for computing could not be started: {error}"),
                })?;
        }
        Ok(Self { jobs })
    }

    /// The way for a worker with this mailbox.
    pub(crate) fn for_worker(&self, postbox: Postbox) -> Compute {
        Compute { jobs: self.jobs.clone(), postbox }
    }
}

impl Compute {
    /// Gives a job to the threads, or back if as many wait as may.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }
}

fn work(jobs: &Receiver<Job>, core: Option<CoreId>) {
    if let Some(core) = core
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(core = core.id, "a compute thread could not be pinned");
    }
    for job in jobs {
        let done = catch_unwind(AssertUnwindSafe(|| match job {
            Job::Shake(shake) => shake.run(),
        }));
        if done.is_err() {
            tracing::error!("a job panicked");
        }
    }
}
