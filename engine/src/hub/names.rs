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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::hub::handover::Handover;

    fn conn(worker: u16, slot: u32) -> ConnId {
        ConnId { worker, slot, generation: 0 }
    }

    #[test]
    fn the_first_comes_and_the_last_goes() {
        let hub = Hub::new(Vec::new(), &Config::default(), Handover::default());
        let (mut here, mut there) = (Names::new(hub.clone()), Names::new(hub.clone()));
        assert_eq!(here.add(conn(0, 5), "ann"), Ok(true));
        assert_eq!(here.add(conn(0, 5), "ann"), Ok(false));
        assert_eq!(there.add(conn(1, 5), "ann"), Ok(true));
        assert_eq!(hub.registry().find("ann"), [conn(0, 5), conn(1, 5)]);
        assert_eq!(here.take_changes(), [("ann".into(), true)]);
        here.forget(conn(0, 5));
        assert_eq!(hub.registry().find("ann"), [conn(1, 5)]);
        assert!(!here.has_changes() && !there.has_changes());
        assert!(there.remove(conn(1, 5), "ann"));
        assert!(!there.remove(conn(1, 5), "ann"));
        assert_eq!(there.take_changes(), [("ann".into(), false)]);
        assert_eq!(hub.registry().find("ann"), []);
    }

    #[test]
    fn names_are_limited() {
        let mut names = Names::new(Hub::new(Vec::new(), &Config::default(), Handover::default()));
        assert_eq!(names.add(conn(0, 0), &"x".repeat(256)), Err(NameError::TooLong));
        for index in 0..MAX_NAMES {
            assert_eq!(names.add(conn(0, 0), &index.to_string()), Ok(true));
        }
        assert_eq!(names.add(conn(0, 0), "one more"), Err(NameError::TooMany));
        assert_eq!(names.of(0).count(), MAX_NAMES);
    }
}
