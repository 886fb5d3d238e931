//! Connections by a name that the application gives them, a user's say, over all workers.

use crate::base::sharded::Sharded;
use crate::conn::id::ConnId;

/// The longest name, in bytes.
pub(crate) const MAX_NAME_LEN: usize = 255;
/// The most names of one connection.
pub(crate) const MAX_NAMES: usize = 64;

/// Why a connection did not get a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is longer than 255 bytes.
    #[error("a name is longer than {MAX_NAME_LEN} bytes")]
    TooLong,
    /// The connection has 64 of them.
    #[error("a connection has at most {MAX_NAMES} names")]
    TooMany,
    /// The connection is closing.
    #[error("the connection is closing")]
    Closing,
}

/// Who has which name.
#[derive(Debug, Default)]
pub(crate) struct Registry(Sharded<Box<str>, Vec<ConnId>>);

impl Registry {
    /// The connections with this name.
    pub(crate) fn find(&self, name: &str) -> Vec<ConnId> {
        self.0.lock(name).get(name).cloned().unwrap_or_default()
    }

    /// Whether it is the first with this name.
    pub(crate) fn add(&self, name: &str, conn: ConnId) -> bool {
        let mut shard = self.0.lock(name);
        if let Some(conns) = shard.get_mut(name) {
            conns.push(conn);
            return false;
        }
        shard.insert(name.into(), vec![conn]);
        true
    }

    /// Whether it was the last.
    pub(crate) fn remove(&self, name: &str, conn: ConnId) -> bool {
        let mut shard = self.0.lock(name);
        let Some(conns) = shard.get_mut(name) else { return false };
        conns.retain(|other| *other != conn);
        let is_last = conns.is_empty();
        if is_last {
            shard.remove(name);
        }
        is_last
    }
}
