//! Draining: how a server is emptied, and what came of it.

use std::fmt;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use ringwire_codec::CloseCode;

use crate::base::mailbox::PostError;
use crate::conn::cause::Closes;

/// How a server is drained. See [`Handle::drain`](crate::Handle::drain).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drain {
    /// Over which time the connections are closed: each at a moment of its own, spread evenly and with jitter, so that
    /// clients that come back at once do not all come back at once. Zero: all in this moment.
    pub window: Duration,
    /// The code of the close frames: 1001 (going away) or 1012 (service restart), say. One that may not be sent (RFC
    /// 6455 §7.4) becomes 1001.
    pub code: CloseCode,
    /// How long after the window connections may take to end, and requests under way to be finished; what is left then
    /// is cut off. Default: 5 s.
    pub grace: Duration,
    /// Whether the server goes on accepting during the window, to answer requests with 503. Default: no, the listeners
    /// are closed at once, and the kernel refuses what comes, unless [a successor](crate::Handle::listeners) has them.
    /// For servers behind a balancer that has to see the answer.
    pub keeps_listening: bool,
}

impl Drain {
    /// Closes with `code` over `window`.
    pub fn new(window: Duration, code: CloseCode) -> Self {
        let code = if code.is_sendable() { code } else { CloseCode::GOING_AWAY };
        Self { window, code, grace: Duration::from_secs(5), keeps_listening: false }
    }

    /// Sets [`grace`](Self::grace).
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets [`keeps_listening`](Self::keeps_listening).
    #[must_use]
    pub fn with_listeners_kept(mut self) -> Self {
        self.keeps_listening = true;
        self
    }
}

/// What a server is ready for, for those who ask on behalf of a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// New connections are welcome.
    Ready,
    /// It is draining or shutting down: new connections should go elsewhere.
    Draining,
    /// Most of the memory for connections is used up ([`max_memory`](crate::Config::max_memory)): requests are refused
    /// until some of it is free.
    ShortOfMemory,
    /// It is a node of a [cluster](crate::cluster) and has no connection to the others, where that counts
    /// ([`unready_apart`](crate::cluster::ClusterConfig::unready_apart)). Those that it has are served.
    Apart,
}

/// In a few words, as `/readyz` answers.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::ShortOfMemory => "short of memory",
            Self::Apart => "apart from the cluster",
        })
    }
}

/// A drain under way. Dropping this changes nothing.
#[derive(Debug)]
pub struct Draining {
    pub(crate) reports: Receiver<DrainReport>,
    pub(crate) workers: usize,
}

impl Draining {
    /// Waits until all workers have ended, `timeout` at most, and says what came of it. Blocks: not for a handler.
    ///
    /// # Errors
    /// [`PostError::Busy`]: not all have ended in time. [`PostError::Stopped`]: one had ended before, or failed.
    #[expect(clippy::disallowed_methods, reason = "whoever waits is no worker")]
    pub fn wait(&self, timeout: Duration) -> Result<DrainReport, PostError> {
        let began = Instant::now();
        let mut total = DrainReport::default();
        for _ in 0..self.workers {
            let left = timeout.saturating_sub(began.elapsed());
            let report = self.reports.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => PostError::Busy,
                RecvTimeoutError::Disconnected => PostError::Stopped,
            })?;
            total.add(&report);
        }
        Ok(total)
    }
}

/// What came of a drain or shutdown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections when it began, in whatever state.
    pub connections: u64,
    /// Requests that were refused with 503 meanwhile.
    pub refused: u64,
    /// Open connections that have ended since, by what ended them; those that were cut off are among them.
    pub closes: Closes,
    /// What was left when the time was up.
    pub cut_off: CutOff,
    /// Bytes of output that those did not take.
    pub unsent_len: u64,
}

impl DrainReport {
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.refused += other.refused;
        self.closes += other.closes;
        self.cut_off.requests += other.cut_off.requests;
        self.cut_off.open += other.cut_off.open;
        self.cut_off.unread += other.cut_off.unread;
        self.cut_off.unanswered += other.cut_off.unanswered;
        self.unsent_len += other.unsent_len;
    }
}

/// Connections that were cut off when a drain's time was up, by what they waited for. One to which all was said, FIN
/// included, is none of them: its application knows that it has ended, and only its socket waits for the peer's FIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutOff {
    /// For the rest of a request, or for the application's answer to it.
    pub requests: u64,
    /// For their moment, WebSockets and those between two HTTP requests: the time was shortened meanwhile.
    pub open: u64,
    /// For the peer to take what was sent to it: answers, messages, the close frame.
    pub unread: u64,
    /// For the peer's answer to the close frame.
    pub unanswered: u64,
}

impl CutOff {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.requests + self.open + self.unread + self.unanswered
    }
}

/// An order of all slots below a power of two in which neighbours are far apart, and each range of slots is evenly
/// spread: clients that came together do not leave together, and it does not matter which slots are in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// The number of slots, less one.
    mask: u32,
    inverse: u32,
    offset: u32,
}

impl Order {
    /// An order of at least `count` slots, which differs with the `seed`.
    pub(crate) fn new(count: u32, seed: u32) -> Self {
        let mask = count.max(1).next_power_of_two() - 1;
        // The multiples of the golden ratio are spread as evenly as can be. Odd, so that each place comes once.
        let step = (((u64::from(mask) + 1) * 2_654_435_769) >> 32) as u32 | 1;
        // Newton's iteration: each step doubles the bits that are right, of which three are to begin with.
        let inverse = (0..4).fold(step, |inverse, _| {
            inverse.wrapping_mul(2_u32.wrapping_sub(step.wrapping_mul(inverse)))
        });
        Self { mask, inverse, offset: seed }
    }

    /// How many places there are.
    pub(crate) fn len(self) -> u32 {
        self.mask + 1
    }

    /// The slot in a place.
    pub(crate) fn slot_at(self, place: u32) -> u32 {
        place.wrapping_sub(self.offset).wrapping_mul(self.inverse) & self.mask
    }

    /// When in the window a place has its moment; `jitter` says where between its neighbours.
    pub(crate) fn moment(self, place: u32, jitter: u32, window: Duration) -> Duration {
        let share =
            (f64::from(place) + f64::from(jitter) / 4_294_967_296.0) / f64::from(self.len());
        window.mul_f64(share.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_slot_has_one_place() {
        for count in [0, 1, 2, 3, 7, 8, 9, 500, 4096, 5000] {
            let order = Order::new(count, 0xDEAD_BEEF);
            let slots: HashSet<_> = (0..order.len()).map(|place| order.slot_at(place)).collect();
            assert_eq!(slots.len(), order.len() as usize);
            assert!((0..count).all(|slot| slots.contains(&slot)), "{count}");
        }
    }

    /// Whichever range of slots is in use, about as many of them stand in each tenth.
    #[test]
    fn a_range_of_slots_is_spread_evenly() {
        for seed in [0, 1, 77_777, u32::MAX] {
            let order = Order::new(10_000, seed);
            for range in [0..10_000, 0..500, 3000..3300, 9000..10_000] {
                let mut tenths = [0_u32; 10];
                for place in (0..order.len()).filter(|it| range.contains(&order.slot_at(*it))) {
                    tenths[(place * 10 / order.len()) as usize] += 1;
                }
                let fair = f64::from(range.end - range.start) / 10.0;
                let worst = tenths.iter().map(|count| (f64::from(*count) - fair).abs());
                let worst = worst.fold(0.0, f64::max);
                assert!(worst < 4.0 + fair * 0.03, "{range:?}: {tenths:?}");
            }
        }
    }

    #[test]
    fn moments_are_in_their_order() {
        let (order, window) = (Order::new(100, 5), Duration::from_secs(60));
        let mut last = Duration::ZERO;
        for place in 0..order.len() {
            let jitter = place.wrapping_mul(0x9E37_79B9);
            let moment = order.moment(place, jitter, window);
            assert!(last <= moment && moment <= window);
            last = moment;
        }
        assert_eq!(order.moment(order.len(), 0, window), window);
    }

    #[test]
    fn a_code_that_may_not_be_sent_becomes_1001() {
        assert_eq!(Drain::new(Duration::ZERO, CloseCode::ABNORMAL).code, CloseCode::GOING_AWAY);
        assert_eq!(Drain::new(Duration::ZERO, CloseCode::new(1012)).code, CloseCode::new(1012));
    }
}
