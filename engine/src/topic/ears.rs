//! Who hears what other nodes publish, beside connections: code of the application.

#![expect(
    clippy::disallowed_types,
    reason = "whoever listens is known to the bus's thread and to handles"
)]

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ringwire_codec::Message;

use super::name;

/// See the [module's documentation](self).
#[derive(Default)]
pub(crate) struct Ears {
    all: Mutex<Arc<Vec<Ear>>>,
    are_any: AtomicBool,
}

type Hear = dyn Fn(&str, Message<'_>) + Send + Sync;

#[derive(Clone)]
struct Ear {
    pattern: Arc<str>,
    hear: Arc<Hear>,
}

impl Ears {
    /// Has `hear` called for what `pattern` takes in; whether nobody had this pattern before.
    pub(super) fn add(
        &self,
        pattern: &str,
        hear: impl Fn(&str, Message<'_>) + Send + Sync + 'static,
    ) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = all.iter().all(|ear| &*ear.pattern != pattern);
        let ear = Ear { pattern: pattern.into(), hear: Arc::new(hear) };
        Arc::make_mut(&mut all).push(ear);
        self.are_any.store(true, Ordering::Release);
        is_first
    }

    /// Another node has published something.
    pub(crate) fn call(&self, topic: &str, message: Message<'_>) {
        if !self.are_any.load(Ordering::Acquire) {
            return;
        }
        // They may add others.
        let all = Arc::clone(&self.all.lock().unwrap_or_else(PoisonError::into_inner));
        for ear in all.iter().filter(|ear| name::matches(&ear.pattern, topic)) {
            (ear.hear)(topic, message);
        }
    }
}

impl fmt::Debug for Ears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(all.iter().map(|ear| &ear.pattern)).finish()
    }
}
