//! Hashes that nobody outside can foresee, so that no peer can choose names or topics that fall together.

use std::hash::{BuildHasher, DefaultHasher, Hasher as _, RandomState};

#[cfg(feature = "testing")]
thread_local! {
    static GIVEN: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// Makes hashers that begin with a secret.
#[derive(Clone, Debug)]
pub(crate) struct Hashes(u64);

impl Hashes {
    pub(crate) fn new() -> Self {
        #[cfg(feature = "testing")]
        if let Some(secret) = GIVEN.get() {
            return Self(secret);
        }
        Self(RandomState::new().hash_one(0))
    }
}

/// Has what `make` makes on this thread take this secret, so that a simulation can be had again.
#[cfg(feature = "testing")]
pub(crate) fn with_secret<T>(secret: u64, make: impl FnOnce() -> T) -> T {
    GIVEN.set(Some(secret));
    let made = make();
    GIVEN.set(None);
    made
}

impl BuildHasher for Hashes {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}
