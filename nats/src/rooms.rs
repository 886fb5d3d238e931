//! Who is in which room, over all workers of a server, and who is on the other nodes of a cluster, which are asked. As
//! with [`online`](crate::online), nothing here names NATS.
//!
//! A room is there as long as somebody is in it. A member is a connection, which leaves when it ends. What is said in a
//! room is not for here: that goes by topics.
//!
//! ```
//! use ringwire::ConnId;
//! use ringwire_nats::rooms::{JoinError, Limits, Rooms};
//!
//! fn enter(rooms: &Rooms<String>, user: &str, conn: ConnId) -> Result<(), JoinError> {
//!     rooms.join("lobby", user.to_owned(), user, conn)
//! }
//!
//! let limits = Limits { max_name_len: 64, max_rooms_per_user: 100, max_members: 10_000 };
//! let rooms = Rooms::<String>::new(limits);
//! assert!(rooms.tally(Some("lobby")).is_empty());
//! # let _ = enter;
//! ```
//!
//! A member takes about 150 bytes, and the names. All of it is under one lock, which joins, leaves and tallies take.

#![expect(clippy::disallowed_types, reason = "workers share who is in which room")]

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringwire::{ConnId, Handle};

use crate::survey::Survey;

/// The most rooms or members in a tally.
const MAX_LISTED: usize = 1000;

/// How long other nodes have to say who is in which room.
const PATIENCE: Duration = Duration::from_secs(1);

/// Names, and how often each counts.
pub type Tally = BTreeMap<String, usize>;

/// What rooms take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest name, in bytes.
    pub max_name_len: usize,
    /// The most rooms that a user may be in, by all connections to this node together.
    pub max_rooms_per_user: usize,
    /// The most members of a room on this node.
    pub max_members: usize,
}

/// Why a connection does not come into a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The room can't have this name.
    #[error("a room's name has 1 to {0} bytes, without spaces and control characters")]
    Name(usize),
    /// The user is in as many rooms as may be.
    #[error("you are in {0} rooms already")]
    TooManyRooms(usize),
    /// The room has as many members as may be.
    #[error("the room is full")]
    Full,
}

/// Who is in which room. See the [module's documentation](self). Clones are the same.
#[derive(Clone, Debug)]
pub struct Rooms<K> {
    limits: Limits,
    tables: Arc<Mutex<Tables<K>>>,
    survey: Survey,
}

/// The same from both sides: a connection that is in a room stands in both.
#[derive(Debug)]
struct Tables<K> {
    /// The members of each room, with the names of their users.
    rooms: BTreeMap<Arc<str>, HashMap<ConnId, Arc<str>>>,
    /// The rooms of each user, and the connections by which the user is there.
    users: HashMap<K, HashMap<Arc<str>, Vec<ConnId>>>,
}

impl<K: Eq + Hash + Send + 'static> Rooms<K> {
    /// Without anybody.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let tables = Tables { rooms: BTreeMap::new(), users: HashMap::new() };
        let survey = Survey::new(PATIENCE);
        Self { limits, tables: Arc::new(Mutex::new(tables)), survey }
    }

    /// Has the other nodes know who is in which room of this one, when they ask. To be called once there is a server
    /// that is a node of a cluster.
    ///
    /// # Panics
    /// The system has no thread left.
    pub fn start(&self, handle: &Handle) {
        let tables = Arc::downgrade(&self.tables);
        self.survey.start(handle, move |room| {
            let room: Option<String> = serde_json::from_str(room).unwrap_or_default();
            let tally = tables.upgrade().map(|tables| lock(&tables).tally(room.as_deref()));
            serde_json::to_string(&tally.unwrap_or_default()).unwrap_or_default()
        });
    }

    /// The first rooms of this node by name, and how many members each has; of one room, the first users in it, and how
    /// many connections each has there.
    #[must_use]
    pub fn tally(&self, room: Option<&str>) -> Tally {
        lock(&self.tables).tally(room)
    }

    /// Has `done` called with the [tally](Self::tally) of all nodes that answer within a second, and how many of so
    /// many others do not; at once, where there is no other node. How many there are,
    /// [`Online::nodes`](crate::online::Online::nodes) knows.
    pub fn tally_all(
        &self,
        nodes: usize,
        room: Option<&str>,
        done: impl FnOnce(&Tally, usize) + Send + 'static,
    ) {
        let question = serde_json::to_string(&room).unwrap_or_default();
        let (tables, room) = (self.tables.clone(), room.map(str::to_owned));
        self.survey.ask(nodes, &question, move |outcome| {
            let mut all = lock(&tables).tally(room.as_deref());
            for answer in outcome.answers {
                for (name, count) in serde_json::from_str::<Tally>(&answer).unwrap_or_default() {
                    *all.entry(name).or_default() += count;
                }
            }
            done(&all.into_iter().take(MAX_LISTED).collect(), outcome.silent);
        });
    }

    /// Whether a room may have this name.
    ///
    /// # Errors
    /// It may not.
    pub fn check_name(&self, room: &str) -> Result<(), JoinError> {
        let max_len = self.limits.max_name_len;
        let is_wrong = |c: char| c.is_whitespace() || c.is_control();
        match room.is_empty() || room.len() > max_len || room.contains(is_wrong) {
            true => Err(JoinError::Name(max_len)),
            false => Ok(()),
        }
    }

    /// Puts a connection into a room; nothing happens if it is there already.
    ///
    /// # Errors
    /// The name can't be one, or there are as many rooms or members as may be.
    pub fn join(&self, room: &str, user: K, username: &str, conn: ConnId) -> Result<(), JoinError> {
        let Limits { max_rooms_per_user, max_members, .. } = self.limits;
        self.check_name(room)?;
        let mut tables = lock(&self.tables);
        let Tables { rooms, users } = &mut *tables;
        let is_full = |own: &HashMap<Arc<str>, _>| own.len() >= max_rooms_per_user;
        if users.get(&user).is_some_and(|own| is_full(own) && !own.contains_key(room)) {
            return Err(JoinError::TooManyRooms(max_rooms_per_user));
        }
        let found = rooms.get_key_value(room);
        if found.is_some_and(|(_, members)| members.contains_key(&conn)) {
            return Ok(());
        }
        if found.map_or(0, |(_, members)| members.len()) >= max_members {
            return Err(JoinError::Full);
        }
        let name = found.map_or_else(|| room.into(), |(name, _)| name.clone());
        rooms.entry(Arc::clone(&name)).or_default().insert(conn, username.into());
        users.entry(user).or_default().entry(name).or_default().push(conn);
        Ok(())
    }

    /// Takes a connection out of a room; whether it was there.
    pub fn leave(&self, room: &str, user: &K, conn: ConnId) -> bool {
        lock(&self.tables).take_out(room, user, conn)
    }

    /// Takes a connection out of all rooms.
    pub fn leave_all(&self, user: &K, conn: ConnId) {
        let mut tables = lock(&self.tables);
        let own = tables.users.get(user).into_iter().flat_map(HashMap::keys);
        for room in own.cloned().collect::<Vec<_>>() {
            tables.take_out(&room, user, conn);
        }
    }
}

impl<K: Eq + Hash> Tables<K> {
    fn tally(&self, room: Option<&str>) -> Tally {
        let Some(room) = room else {
            let rooms = self.rooms.iter().take(MAX_LISTED);
            return rooms.map(|(room, members)| (room.to_string(), members.len())).collect();
        };
        let mut tally = Tally::new();
        for name in self.rooms.get(room).into_iter().flat_map(HashMap::values) {
            *tally.entry(name.to_string()).or_default() += 1;
        }
        tally.into_iter().take(MAX_LISTED).collect()
    }

    fn take_out(&mut self, room: &str, user: &K, conn: ConnId) -> bool {
        let Some(own) = self.users.get_mut(user) else { return false };
        let Some(conns) = own.get_mut(room) else { return false };
        let Some(index) = conns.iter().position(|it| *it == conn) else { return false };
        conns.swap_remove(index);
        if conns.is_empty() {
            own.remove(room);
        }
        if own.is_empty() {
            self.users.remove(user);
        }
        let members = self.rooms.get_mut(room).map_or(0, |members| {
            members.remove(&conn);
            members.len()
        });
        if members == 0 {
            self.rooms.remove(room);
        }
        true
    }
}

/// The tables are in order between two calls, whatever has panicked.
fn lock<K>(tables: &Mutex<Tables<K>>) -> MutexGuard<'_, Tables<K>> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use ringwire::Request;

    use super::*;

    fn conn() -> ConnId {
        Request::builder("/").build().with(|request| request.id())
    }

    fn rooms(max_rooms_per_user: usize, max_members: usize) -> Rooms<u64> {
        Rooms::new(Limits { max_name_len: 8, max_rooms_per_user, max_members })
    }

    #[test]
    fn names_have_no_spaces_and_are_not_too_long() {
        let rooms = rooms(100, 100);
        for name in ["", "a b", "a\tb", "a\u{a0}b", "a\u{0}", "123456789", "ääääö"] {
            let joined = rooms.join(name, 0, "ann", conn());
            assert_eq!(joined, Err(JoinError::Name(8)), "{name:?}");
        }
        for name in ["a", "12345678", "a.b", ">", "*", "%", "ääää"] {
            assert_eq!(rooms.join(name, 0, "ann", conn()), Ok(()), "{name:?}");
        }
        assert_eq!(rooms.tally(None).len(), 7);
    }

    #[test]
    fn a_user_has_so_many_rooms_and_leaves_nothing() {
        let (rooms, ann) = (rooms(2, 100), 0);
        assert_eq!(rooms.join("a", ann, "ann", conn()), Ok(()));
        assert_eq!(rooms.join("a", ann, "ann", conn()), Ok(()), "it is there already");
        assert_eq!(rooms.join("b", ann, "ann", conn()), Ok(()));
        assert_eq!(rooms.join("c", ann, "ann", conn()), Err(JoinError::TooManyRooms(2)));
        assert_eq!(rooms.tally(None), Tally::from([("a".into(), 1), ("b".into(), 1)]));
        assert_eq!(rooms.tally(Some("a")), Tally::from([("ann".into(), 1)]));
        assert!(rooms.leave("a", &ann, conn()));
        assert!(!rooms.leave("a", &ann, conn()));
        assert_eq!(rooms.join("c", ann, "ann", conn()), Ok(()));
        rooms.leave_all(&ann, conn());
        let tables = lock(&rooms.tables);
        assert!(tables.rooms.is_empty() && tables.users.is_empty());
    }

    #[test]
    fn a_room_has_so_many_members() {
        let rooms = rooms(2, 0);
        assert_eq!(rooms.join("a", 0, "ann", conn()), Err(JoinError::Full));
        assert!(lock(&rooms.tables).rooms.is_empty());
    }
}
