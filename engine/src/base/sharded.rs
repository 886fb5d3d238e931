//! A map that all workers share, in parts with a lock each.

#![expect(
    clippy::disallowed_types,
    reason = "for what happens once for each connection, on no message's path"
)]

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::hashing::Hashes;

/// Parts that are locked by themselves.
const SHARDS: usize = 16;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Sharded<K, V> {
    shards: [Mutex<HashMap<K, V>>; SHARDS],
    /// Seeded at random, so that nobody can choose keys that collide.
    hasher: Hashes,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self { shards: Default::default(), hasher: Hashes::new() }
    }
}

impl<K, V> Sharded<K, V> {
    /// The part in which `key` is, or would be. `key` may be what a key is borrowed as.
    pub(crate) fn lock<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, HashMap<K, V>> {
        let index = remainder(self.hasher.hash_one(key), SHARDS);
        // Nothing that is done under the lock leaves half of it done.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().unwrap().is_empty())
    }
}

/// `hash % count`, for an index.
pub(crate) fn remainder(hash: u64, count: usize) -> usize {
    // Below `count`, so it fits.
    usize::try_from(hash % count as u64).unwrap_or(0)
}
