//! The identity of a connection.

use std::fmt;

/// The identity of a connection, which stays unique after it has ended.
///
/// It is how anything outside the worker names a connection: its server, worker, slot and generation. What is posted
/// for one that has ended is dropped; one of another server in the same process is
/// [`PostError::OtherServer`](crate::PostError::OtherServer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// The number of the server in this process.
    pub(crate) server: u16,
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

/// Server, worker, slot and generation, as in `0/3/17/2`.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.server, self.worker, self.slot, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_small_as_it_was_without_the_server() {
        assert_eq!(size_of::<ConnId>(), 12);
    }
}
