//! Deadlines that the application sets: when an authorisation runs out, say.

use std::time::{Duration, SystemTime};

use ringwire_codec::CloseCode;

use crate::base::chunked::Chunked;
use crate::base::timer::{Tick, ticks_of};

/// When something is due: a [`Duration`] from now, or a [`SystemTime`], such as the `exp` of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Duration);

impl From<Duration> for Deadline {
    fn from(from_now: Duration) -> Self {
        Self(from_now)
    }
}

impl From<SystemTime> for Deadline {
    /// What the wall clock shows later does not move it: a token is as long valid as it was when it was looked at.
    #[expect(
        clippy::disallowed_methods,
        reason = "a token says when it expires by the wall clock; that is looked at once, on no message's path"
    )]
    fn from(at: SystemTime) -> Self {
        Self(at.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

impl Deadline {
    /// The tick in which it is due. One that has passed is due now.
    pub(crate) fn tick(self, now: Tick) -> Tick {
        now + ticks_of(self.0)
    }
}

/// The deadlines of a worker's connections, by slot. Holds no memory until one is set.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(Chunked<Option<(Tick, CloseCode)>>);

impl Deadlines {
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<(Tick, CloseCode)> {
        *self.0.get(slot)?
    }

    pub(crate) fn set(&mut self, slot: u32, tick: Tick, code: CloseCode) {
        *self.0.entry(slot) = Some((tick, code));
    }

    /// Whether there was one.
    pub(crate) fn clear(&mut self, slot: u32) -> bool {
        self.0.get_mut(slot).is_some_and(|deadline| deadline.take().is_some())
    }
}
