//! What a reconnecting client has of the outside, so that tests can give it another.

use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Instant;

use super::State;
use crate::blocking::Client;
use crate::builder::Builder;
use crate::error::Error;
use crate::random::random;
use crate::url::Url;

/// A clock, chance and a network. Connections that are open are no part of it: they have the system's clock.
pub(super) trait World: Send {
    fn now(&self) -> Instant;

    /// Any number, to choose the jitter.
    fn random(&self) -> Result<u64, Error>;

    fn connect(&self, builder: &Builder, url: &Url) -> Result<Client, Error>;

    /// Waits for the moment, or until `closed` is told.
    fn wait<'s>(
        &self,
        closed: &Condvar,
        state: MutexGuard<'s, State>,
        until: Instant,
    ) -> MutexGuard<'s, State>;
}

/// The real one.
pub(super) struct System;

impl World for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn random(&self) -> Result<u64, Error> {
        random().map(u64::from_ne_bytes)
    }

    fn connect(&self, builder: &Builder, url: &Url) -> Result<Client, Error> {
        builder.connect(url)
    }

    fn wait<'s>(
        &self,
        closed: &Condvar,
        state: MutexGuard<'s, State>,
        until: Instant,
    ) -> MutexGuard<'s, State> {
        let left = until.saturating_duration_since(Instant::now());
        closed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }
}
