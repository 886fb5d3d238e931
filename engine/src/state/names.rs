//! The names of a worker's connections.

use crate::base::chunked::Chunked;
use crate::conn::id::ConnId;
use crate::hub::Hub;
use crate::hub::names::{MAX_NAME_LEN, MAX_NAMES, NameError};

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Names {
    hub: Hub,
    of: Chunked<Vec<Box<str>>>,
}

impl Names {
    pub(crate) fn new(hub: Hub) -> Self {
        Self { hub, of: Chunked::new() }
    }

    pub(crate) fn of(&self, slot: u32) -> impl Iterator<Item = &str> {
        self.of.get(slot).into_iter().flatten().map(|name| &**name)
    }

    /// Gives a connection a name; whether it did not have it.
    ///
    /// # Errors
    /// The name is too long, or the connection has too many.
    pub(crate) fn add(&mut self, conn: ConnId, name: &str) -> Result<bool, NameError> {
        if name.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong);
        }
        let own = self.of.entry(conn.slot);
        if own.iter().any(|other| &**other == name) {
            return Ok(false);
        }
        if own.len() >= MAX_NAMES {
            return Err(NameError::TooMany);
        }
        own.push(name.into());
        let teller = self.hub.registry().add(name, conn);
        self.wake(conn, teller);
        Ok(true)
    }

    /// Takes a name away; whether the connection had it.
    pub(crate) fn remove(&mut self, conn: ConnId, name: &str) -> bool {
        let Some(own) = self.of.get_mut(conn.slot) else { return false };
        let Some(index) = own.iter().position(|other| &**other == name) else { return false };
        let name = own.swap_remove(index);
        self.gone(conn, &name);
        true
    }

    /// Takes all names of a connection that has ended away.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        let Some(own) = self.of.get_mut(conn.slot) else { return };
        for name in std::mem::take(own) {
            self.gone(conn, &name);
        }
    }

    fn gone(&self, conn: ConnId, name: &str) {
        let teller = self.hub.registry().remove(name, conn);
        self.wake(conn, teller);
    }

    /// A worker has a change to tell. The connection's own looks for it anyway.
    fn wake(&self, conn: ConnId, teller: u16) {
        if teller != conn.worker {
            self.hub.wake(teller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::hub::handover::Handover;

    fn conn(worker: u16, slot: u32) -> ConnId {
        ConnId { server: 0, worker, slot, generation: 0 }
    }

    #[test]
    fn connections_of_all_workers_are_found() {
        let hub = Hub::new(Vec::new(), &Config::default(), Handover::default());
        let (mut here, mut there) = (Names::new(hub.clone()), Names::new(hub.clone()));
        assert_eq!(here.add(conn(0, 5), "ann"), Ok(true));
        assert_eq!(here.add(conn(0, 5), "ann"), Ok(false));
        assert_eq!(there.add(conn(1, 5), "ann"), Ok(true));
        assert_eq!(hub.registry().find("ann"), [conn(0, 5), conn(1, 5)]);
        here.forget(conn(0, 5));
        assert_eq!(hub.registry().find("ann"), [conn(1, 5)]);
        assert!(there.remove(conn(1, 5), "ann"));
        assert!(!there.remove(conn(1, 5), "ann"));
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
