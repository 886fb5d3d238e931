//! Who is online, over all workers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use ringwire::ConnId;

/// Users are spread over so many maps, by the first bits of their id, so that the maps in their order are one list.
const SHARDS: usize = 64;

/// Who is online.
#[derive(Debug)]
pub struct Presence {
    shards: [Mutex<BTreeMap<Uuid, User>>; SHARDS],
    max_connections_per_user: usize,
    /// Since when the server counts.
    pub started: Instant,
}

#[derive(Debug)]
struct User {
    username: String,
    connected_at: SystemTime,
    connections: Vec<ConnId>,
}

/// A user who is online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Online {
    /// The user.
    pub user_id: Uuid,
    /// The name in the newest connection's token.
    pub username: String,
    /// Since when the user has been online.
    pub connected_at: SystemTime,
    /// How many connections the user has.
    pub connection_count: usize,
}

/// Some users who are online, by their id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The users.
    pub users: Vec<Online>,
    /// Whether more follow.
    pub has_more: bool,
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
            let found = shard.range((from, Bound::Unbounded)).map(|(id, user)| Online {
                user_id: *id,
                username: user.username.clone(),
                connected_at: user.connected_at,
                connection_count: user.connections.len(),
            });
            users.extend(found.take(limit + 1 - users.len()));
            if users.len() > limit {
                users.truncate(limit);
                return Page { users, has_more: true };
            }
        }
        Page { users, has_more: false }
    }

    /// How much is online.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shards.iter().map(lock).fold(Counts::default(), |sum, shard| Counts {
            connections: sum.connections
                + shard.values().map(|it| it.connections.len()).sum::<usize>(),
            users: sum.users + shard.len(),
        })
    }

    /// The connections of a user.
    #[must_use]
    pub fn connections(&self, user: Uuid) -> Vec<ConnId> {
        lock(&self.shards[shard_of(user)])
            .get(&user)
            .map(|it| it.connections.clone())
            .unwrap_or_default()
    }

    /// A user has one connection more. Whether that is as it may be.
    pub(crate) fn enter(&self, user: Uuid, username: &str, conn: ConnId) -> bool {
        let mut shard = lock(&self.shards[shard_of(user)]);
        let entry = shard.entry(user).or_insert_with(|| User {
            username: username.to_owned(),
            connected_at: SystemTime::now(),
            connections: Vec::new(),
        });
        let fits = entry.connections.len() < self.max_connections_per_user;
        if fits {
            entry.connections.push(conn);
        }
        fits
    }

    /// A connection has ended.
    pub(crate) fn leave(&self, user: Uuid, conn: ConnId) {
        let mut shard = lock(&self.shards[shard_of(user)]);
        let Some(entry) = shard.get_mut(&user) else { return };
        entry.connections.retain(|it| *it != conn);
        if entry.connections.is_empty() {
            shard.remove(&user);
        }
    }
}

fn shard_of(user: Uuid) -> usize {
    usize::from(user.as_bytes()[0]) * SHARDS / 256
}

/// A map is in order between two calls, whatever has panicked.
fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
