//! Deadlines that the application sets: when an authorisation runs out, say.

use std::num::NonZero;
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
pub(crate) struct Deadlines {
    by_slot: Chunked<Option<(Tick, Expiry)>>,
    /// All reasons that were ever given, each once: an application has a handful.
    reasons: Vec<&'static str>,
}

/// How a connection is closed when its deadline has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub(crate) code: CloseCode,
    /// Which of the reasons, from 1 on, so that a slot without a deadline takes no more.
    reason: NonZero<u16>,
}

impl Deadlines {
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<(Tick, Expiry)> {
        *self.by_slot.get(slot)?
    }

    pub(crate) fn reason(&self, expiry: Expiry) -> &'static str {
        self.reasons.get(usize::from(expiry.reason.get()) - 1).copied().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, slot: u32, tick: Tick, code: CloseCode, reason: &'static str) {
        let known = self.reasons.iter().position(|known| *known == reason);
        let number = known.unwrap_or(self.reasons.len()) + 1;
        // Past so many reasons a close says none.
        let number =
            u16::try_from(number).ok().and_then(NonZero::<u16>::new).unwrap_or(NonZero::<u16>::MAX);
        if known.is_none() && number < NonZero::<u16>::MAX {
            self.reasons.push(reason);
        }
        *self.by_slot.entry(slot) = Some((tick, Expiry { code, reason: number }));
    }

    /// Whether there was one.
    pub(crate) fn clear(&mut self, slot: u32) -> bool {
        self.by_slot.get_mut(slot).is_some_and(|deadline| deadline.take().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_kept_once_and_a_deadline_takes_eight_bytes() {
        let mut deadlines = Deadlines::default();
        let said = |deadlines: &Deadlines, slot| {
            deadlines.get(slot).map(|(_, expiry)| deadlines.reason(expiry))
        };
        for round in 0..3 {
            for (slot, reason) in ["expired", "no login", "expired"].into_iter().enumerate() {
                deadlines.set(u32::try_from(slot).unwrap(), round, CloseCode::new(4000), reason);
            }
        }
        assert_eq!(deadlines.reasons, ["expired", "no login"]);
        assert_eq!(said(&deadlines, 1), Some("no login"));
        assert_eq!(said(&deadlines, 2), Some("expired"));
        assert!(deadlines.clear(2) && !deadlines.clear(2));
        assert_eq!(said(&deadlines, 2), None);
        assert_eq!(size_of::<Option<(Tick, Expiry)>>(), 8);
    }
}
