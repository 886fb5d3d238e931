//! Who is online, over all workers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use ringwire::ConnId;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::envelope::timestamp;
use crate::lock;

/// Users are spread over so many maps, by the first bits of their id, so that the maps in their order are one list.
const SHARDS: usize = 64;

/// Who is online.
///
/// A connection is here from its opening to its end, so that pages and counts are of now. What others are told of a
/// user goes by the engine's [`on_presence`](ringwire::Handler::on_presence), one call after the other for each user;
/// this is where it is noted what they have been told.
#[derive(Debug)]
pub struct Presence {
    shards: [Mutex<BTreeMap<Uuid, User>>; SHARDS],
    connection_count: AtomicUsize,
    user_count: AtomicUsize,
    max_connections_per_user: usize,
    /// Since when the server counts.
    pub started: Instant,
}

/// A user who has connections, or whose leaving has not been told.
#[derive(Debug)]
struct User {
    username: String,
    connected_at: SystemTime,
    /// And whether each takes envelopes.
    connections: Vec<(ConnId, bool)>,
    /// Others have been told that the user has joined.
    is_known: bool,
}

impl User {
    fn online(&self, user_id: Uuid) -> Online {
        Online {
            user_id,
            username: self.username.clone(),
            connected_at: self.connected_at,
            connection_count: self.connections.len(),
            envelope_count: self.connections.iter().filter(|(_, takes)| *takes).count(),
        }
    }
}

/// A user who is online.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Online {
    /// The user.
    pub user_id: Uuid,
    /// The name in the token of the first connection.
    pub username: String,
    /// Since when the user has been online.
    #[serde(serialize_with = "as_timestamp")]
    pub connected_at: SystemTime,
    /// How many connections the user has.
    #[serde(skip)]
    pub connection_count: usize,
    /// How many of them take envelopes.
    #[serde(skip)]
    pub envelope_count: usize,
}

/// Some users who are online, by their id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Page {
    /// The users.
    pub users: Vec<Online>,
    /// Behind whom the next page begins, if there is one.
    pub next: Option<Uuid>,
}

fn as_timestamp<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp(*time))
}

/// How much is online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections of users.
    pub connections: usize,
    /// Users with connections.
    pub users: usize,
}

impl Presence {
    /// Nobody yet.
    #[must_use]
    pub fn new(max_connections_per_user: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            connection_count: AtomicUsize::new(0),
            user_count: AtomicUsize::new(0),
            max_connections_per_user,
            started: Instant::now(),
        }
    }

    /// The first users behind `after`, by their id.
    #[must_use]
    pub fn online(&self, after: Option<Uuid>, limit: usize) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut users = Vec::new();
        for shard in &self.shards[after.map_or(0, shard_of)..] {
            let shard = lock(shard);
            let here = shard.range((from, Bound::Unbounded));
            let here = here.filter(|(_, user)| !user.connections.is_empty());
            // One more says that there is more.
            users.extend(here.take(limit + 1 - users.len()).map(|(id, user)| user.online(*id)));
            if users.len() > limit {
                users.truncate(limit);
                let next = users.last().map(|user: &Online| user.user_id);
                return Page { users, next };
            }
        }
        Page { users, next: None }
    }

    /// How much is online.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            connections: self.connection_count.load(Ordering::Relaxed),
            users: self.user_count.load(Ordering::Relaxed),
        }
    }

    /// The connections of a user.
    #[must_use]
    pub fn connections(&self, user: Uuid) -> Vec<ConnId> {
        self.with(user, |user| user.connections.iter().map(|(conn, _)| *conn).collect())
    }

    /// A user who is online here.
    #[must_use]
    pub fn of(&self, user: Uuid) -> Option<Online> {
        self.with(user, |it| (!it.connections.is_empty()).then(|| it.online(user)))
    }

    fn with<T: Default>(&self, user: Uuid, look: impl FnOnce(&User) -> T) -> T {
        lock(&self.shards[shard_of(user)]).get(&user).map(look).unwrap_or_default()
    }

    /// A user has one connection more, unless that would be too many: whether it is fine.
    pub(crate) fn enter(
        &self,
        user: Uuid,
        username: &str,
        conn: ConnId,
        takes_envelopes: bool,
    ) -> bool {
        let mut shard = lock(&self.shards[shard_of(user)]);
        let entry = shard.entry(user).or_insert_with(|| User {
            username: String::new(),
            connected_at: SystemTime::UNIX_EPOCH,
            connections: Vec::new(),
            is_known: false,
        });
        if entry.connections.len() >= self.max_connections_per_user {
            return false;
        }
        if entry.connections.is_empty() {
            username.clone_into(&mut entry.username);
            entry.connected_at = SystemTime::now();
            self.user_count.fetch_add(1, Ordering::Relaxed);
        }
        entry.connections.push((conn, takes_envelopes));
        self.connection_count.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// A connection has ended.
    pub(crate) fn leave(&self, user: Uuid, conn: ConnId) {
        let mut shard = lock(&self.shards[shard_of(user)]);
        let Some(entry) = shard.get_mut(&user) else { return };
        let Some(index) = entry.connections.iter().position(|(it, _)| *it == conn) else { return };
        entry.connections.swap_remove(index);
        self.connection_count.fetch_sub(1, Ordering::Relaxed);
        if entry.connections.is_empty() {
            self.user_count.fetch_sub(1, Ordering::Relaxed);
            if !entry.is_known {
                shard.remove(&user);
            }
        }
    }

    /// The engine says that a connection of a user has come. The user's name, if that is news.
    pub(crate) fn tell_joined(&self, user: Uuid) -> Option<String> {
        let mut shard = lock(&self.shards[shard_of(user)]);
        // Who has gone again meanwhile is passed over.
        let entry = shard.get_mut(&user).filter(|it| !it.is_known && !it.connections.is_empty())?;
        entry.is_known = true;
        Some(entry.username.clone())
    }

    /// The engine says that the last connection of a user has gone. The user's name, if that is news. One that has come
    /// since will be told of.
    pub(crate) fn tell_left(&self, user: Uuid) -> Option<String> {
        let mut shard = lock(&self.shards[shard_of(user)]);
        let entry = shard.get_mut(&user).filter(|it| it.is_known)?;
        entry.is_known = false;
        let username = entry.username.clone();
        if entry.connections.is_empty() {
            shard.remove(&user);
        }
        Some(username)
    }
}

fn shard_of(user: Uuid) -> usize {
    usize::from(user.as_bytes()[0]) * SHARDS / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire::Request;

    fn user(number: u8) -> Uuid {
        Uuid::from_bytes([number; 16])
    }

    /// An id, which only the engine makes.
    fn conn() -> ConnId {
        Request::builder("/").build().with(|request| request.id())
    }

    #[test]
    fn pages_are_one_list_over_all_maps() {
        let presence = Presence::new(2);
        let numbers = [0, 3, 4, 5, 64, 65, 127, 128, 200, 255];
        for number in numbers.iter().rev() {
            assert!(presence.enter(user(*number), "ann", conn(), true));
        }
        for limit in [1, 2, 3, 9, 10, 100] {
            let (mut after, mut found) = (None, Vec::new());
            loop {
                let page = presence.online(after, limit);
                assert!(page.users.len() <= limit);
                found.extend(page.users.iter().map(|it| it.user_id));
                assert!(page.next.is_none_or(|next| Some(&next) == found.last()));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, numbers.map(user), "{limit} a page");
        }
        assert_eq!(presence.counts(), Counts { connections: 10, users: 10 });
    }

    #[test]
    fn joining_and_leaving_is_told_in_turn() {
        let (presence, ann) = (Presence::new(2), user(1));
        assert_eq!(presence.tell_joined(ann), None);
        assert!(presence.enter(ann, "ann", conn(), true));
        assert!(presence.enter(ann, "anna", conn(), false));
        assert!(!presence.enter(ann, "ann", conn(), true), "two are enough");
        let online = presence.of(ann).unwrap();
        assert_eq!((online.connection_count, online.envelope_count), (2, 1));
        assert_eq!(presence.tell_joined(ann).as_deref(), Some("ann"));
        assert_eq!(presence.tell_joined(ann), None);
        presence.leave(ann, conn());
        presence.leave(ann, conn());
        assert_eq!(presence.online(None, 9).users, []);
        assert_eq!(presence.counts(), Counts::default());
        // Back before anybody has been told.
        assert!(presence.enter(ann, "ann", conn(), true));
        assert_eq!(presence.tell_left(ann).as_deref(), Some("ann"));
        assert_eq!(presence.tell_left(ann), None);
        assert_eq!(presence.tell_joined(ann).as_deref(), Some("ann"));
        presence.leave(ann, conn());
        assert_eq!(presence.tell_left(ann).as_deref(), Some("ann"));
        assert_eq!(presence.tell_joined(ann), None);
        assert!(lock(&presence.shards[0]).is_empty(), "nothing is left of the user");
    }
}
