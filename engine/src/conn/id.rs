//! The identity of a connection.

use std::fmt;

/// The identity of a connection, which stays unique after it has ended.
///
/// It is how anything outside the worker names a connection. What is posted for one that has ended is
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) worker: u16,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// The index of the worker that owns the connection.
    pub fn worker(self) -> u16 {
        self.worker
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.worker, self.slot, self.generation)
    }
}
