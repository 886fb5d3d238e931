//! Timers that the application sets for its connections.

use crate::base::chunked::Chunked;
use crate::base::timer::Tick;

/// The most timers of a connection.
pub(crate) const MAX_TIMERS: usize = 64;

/// Why a timer could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimerError {
    /// The connection has 64 timers.
    #[error("a connection has at most {MAX_TIMERS} timers")]
    TooMany,
    /// The connection is closing.
    #[error("the connection is closing")]
    Closing,
}

/// The timers of a worker's connections, by slot. Holds no memory until one is set.
#[derive(Debug, Default)]
pub(crate) struct Timers(Chunked<Vec<Timer>>);

#[derive(Clone, Copy, Debug)]
struct Timer {
    key: u64,
    due: Tick,
}

impl Timers {
    /// Sets the timer with this key, anew if there is one.
    ///
    /// # Errors
    /// The connection has as many as it may.
    pub(crate) fn set(&mut self, slot: u32, key: u64, due: Tick) -> Result<(), TimerError> {
        self.clear(slot, key);
        let own = self.0.entry(slot);
        if own.len() >= MAX_TIMERS {
            return Err(TimerError::TooMany);
        }
        own.push(Timer { key, due });
        Ok(())
    }

    /// Takes a timer away; whether there was one.
    pub(crate) fn clear(&mut self, slot: u32, key: u64) -> bool {
        let Some(own) = self.0.get_mut(slot) else { return false };
        let index = own.iter().position(|timer| timer.key == key);
        index.map(|index| own.remove(index)).is_some()
    }

    /// When the first one runs down.
    #[inline]
    pub(crate) fn next(&self, slot: u32) -> Option<Tick> {
        self.0.get(slot)?.iter().map(|timer| timer.due).min()
    }

    /// Takes out the first one that has run down; of several the one that was set first.
    pub(crate) fn take_due(&mut self, slot: u32, now: Tick) -> Option<u64> {
        let own = self.0.get_mut(slot)?;
        let due = own.iter().enumerate().filter(|(_, timer)| timer.due <= now);
        let (index, _) = due.min_by_key(|(_, timer)| timer.due)?;
        Some(own.remove(index).key)
    }

    /// Forgets a connection that has ended.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(own) = self.0.get_mut(slot) {
            *own = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_run_down_in_their_order() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(3), None);
        for (key, due) in [(1, 50), (2, 30), (3, 30), (4, 10)] {
            timers.set(3, key, due).unwrap();
        }
        timers.set(3, 4, 70).unwrap();
        assert!(timers.clear(3, 1) && !timers.clear(3, 1));
        assert_eq!(timers.next(3), Some(30));
        assert_eq!(timers.take_due(3, 29), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.take_due(3, 60)).collect();
        assert_eq!(due, [2, 3]);
        timers.forget(3);
        assert_eq!((timers.next(3), timers.next(4)), (None, None));
    }

    #[test]
    fn there_are_only_so_many() {
        let mut timers = Timers::default();
        for key in 0..64 {
            timers.set(0, key, 1).unwrap();
        }
        assert_eq!(timers.set(0, 64, 1), Err(TimerError::TooMany));
        assert_eq!(timers.set(0, 5, 2), Ok(()), "it takes the place of one");
        assert_eq!(timers.set(1, 64, 1), Ok(()));
    }
}
