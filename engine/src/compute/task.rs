//! A handler's job on its way to a thread and back.

use std::any::Any;
use std::fmt;
use std::sync::Weak;

use crate::conn::id::ConnId;

/// What follows a job, of which nobody but the handler's worker knows the type.
pub(crate) type Continuation = Box<dyn Any + Send>;

/// A handler's job on its way to a thread.
pub(crate) struct Task {
    pub(crate) conn: ConnId,
    pub(crate) number: Option<u64>,
    /// Gone when the connection has ended.
    pub(crate) alive: Weak<()>,
    /// What follows, and whether the job panicked.
    pub(crate) work: Box<dyn FnOnce() -> (Continuation, bool) + Send>,
}

/// A result on its way back.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) conn: ConnId,
    /// Its place in the order, if it has one.
    pub(crate) number: Option<u64>,
    pub(crate) panicked: bool,
    pub(crate) then: Continuation,
}

impl Task {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.alive.strong_count() == 0
    }

    pub(crate) fn run(self) -> Finished {
        let (then, panicked) = (self.work)();
        Finished { conn: self.conn, number: self.number, panicked, then }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("conn", &self.conn)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
