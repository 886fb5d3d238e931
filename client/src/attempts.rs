//! How often a client has tried, and when it tries again. Without a clock: the caller says what time it is.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::policy::{RetryPolicy, Verdict};

/// The attempts since a connection was stable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    count: u32,
    /// When the next one is due; `None`: at once.
    next: Option<Instant>,
    /// Since when there is a connection, if there is one.
    open_since: Option<Instant>,
    /// How many times in a row other credentials were asked for.
    renewals: u32,
}

impl Attempts {
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// When the next attempt is due, if it is not yet.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|moment| *moment > now)
    }

    /// An attempt has succeeded. Gives how many it took.
    pub(super) fn on_connected(&mut self, now: Instant) -> u32 {
        // It may be lost again at once: until it is stable, it is one more attempt.
        self.count = self.count.saturating_add(1);
        self.open_since = Some(now);
        self.count
    }

    /// The connection is lost or the attempt has failed. Gives how long to wait for the next one; `None`: there is
    /// none. `random` chooses the jitter; `may_renew` says that the next attempt can have other credentials.
    pub(super) fn on_lost(
        &mut self,
        policy: &RetryPolicy,
        error: &Error,
        now: Instant,
        random: u64,
        may_renew: bool,
    ) -> Option<Duration> {
        match self.open_since.take() {
            Some(since) if now.saturating_duration_since(since) >= policy.stable_after => {
                self.count = 0;
                self.renewals = 0;
            }
            Some(_) => {}
            None => self.count = self.count.saturating_add(1),
        }
        if policy.max_attempts.is_some_and(|most| self.count >= most) {
            return None;
        }
        match (policy.verdict_on)(error) {
            Verdict::Retry => self.renewals = 0,
            Verdict::Renew if may_renew && self.renewals < policy.max_renewals => {
                self.renewals += 1;
            }
            Verdict::Renew | Verdict::GiveUp => return None,
        }
        let delay = policy.delay_after(error, self.count, random);
        self.next = now.checked_add(delay);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;

    use proptest::prelude::*;
    use ringwire_codec::CloseCode;

    use super::*;
    use crate::outbox::{Outbox, OutboxConfig};
    use crate::{Backoff, Waiting};

    /// What the server does next.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Nobody listens.
        Down,
        /// It never answers, and the attempt times out.
        Silent,
        /// It takes the connection, and this many messages of the queue, then dies after so many milliseconds.
        Up { taken: usize, millis: u64 },
        /// It restarts: a close frame with 1012 after so many milliseconds.
        Restart { millis: u64 },
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Down),
            Just(Step::Silent),
            (0_usize..20, 0_u64..20_000).prop_map(|(taken, millis)| Step::Up { taken, millis }),
            (0_u64..20_000).prop_map(|millis| Step::Restart { millis }),
        ]
    }

    fn lost() -> Error {
        Error::Lost(io::ErrorKind::ConnectionReset.into())
    }

    /// The client's own part of coming back, against a server of steps, in a time that only the test moves.
    struct World {
        now: Instant,
        policy: RetryPolicy,
        attempts: Attempts,
        outbox: Outbox,
        /// What the outbox should hold: the numbers of messages that are neither dropped nor received.
        waiting: VecDeque<u64>,
        sent_count: u64,
        received: Vec<u64>,
        /// Failures in a row, connections that were not stable included.
        failures: u32,
    }

    impl World {
        const MAX_WAITING: usize = 8;

        fn new(policy: RetryPolicy) -> Self {
            Self {
                now: Instant::now(),
                policy,
                attempts: Attempts::default(),
                outbox: Outbox::new(OutboxConfig::default().with_max_count(Self::MAX_WAITING)),
                waiting: VecDeque::new(),
                sent_count: 0,
                received: Vec::new(),
                failures: 0,
            }
        }

        /// The application sends while there is no connection.
        fn send(&mut self) {
            self.outbox.push(self.sent_count.to_string().into());
            self.waiting.push_back(self.sent_count);
            if self.waiting.len() > Self::MAX_WAITING {
                self.waiting.pop_front();
            }
            self.sent_count += 1;
        }

        /// Sends what waits until the server takes no more. Gives whether it took all.
        fn flush(&mut self, taken: usize) -> bool {
            for _ in 0..taken {
                let Some(message) = self.outbox.pop() else { return true };
                self.received.extend(message.as_text().and_then(|text| text.parse::<u64>().ok()));
                self.waiting.pop_front();
            }
            match self.outbox.pop() {
                Some(message) => {
                    self.outbox.push_front(message);
                    false
                }
                None => true,
            }
        }

        /// One attempt, and what becomes of it. Gives the delay after it.
        fn run(&mut self, step: Step, random: u64) -> Duration {
            assert_eq!(self.attempts.due(self.now), None, "attempts are made when they are due");
            let open_for = |millis| Some(Duration::from_millis(millis));
            let (open_for, error) = match step {
                Step::Down => (None, lost()),
                Step::Silent => {
                    self.now += Duration::from_secs(10);
                    (None, Error::Timeout(Waiting::Connect))
                }
                Step::Up { taken, millis } if self.flush(taken) => (open_for(millis), lost()),
                Step::Up { .. } => (None, lost()),
                Step::Restart { millis } => {
                    self.flush(usize::MAX);
                    let code = CloseCode::new(1012);
                    (open_for(millis), Error::Closed { code, reason: String::new() })
                }
            };
            self.failures += 1;
            if let Some(time) = open_for {
                assert_eq!(self.attempts.on_connected(self.now), self.failures);
                self.now += time;
                if time >= self.policy.stable_after {
                    self.failures = 0;
                }
            }
            let delay =
                self.attempts.on_lost(&self.policy, &error, self.now, random, false).unwrap();
            let ceiling = self.policy.backoff.ceiling(self.failures.saturating_sub(1));
            assert_eq!(self.attempts.count(), self.failures);
            assert!(delay <= ceiling, "{delay:?} after {} failures", self.failures);
            delay
        }

        fn check(&self) {
            let dropped_count = self.outbox.dropped_count();
            let all = self.received.len() as u64 + self.waiting.len() as u64 + dropped_count;
            assert_eq!(all, self.sent_count, "each message is received, waits, or was dropped");
            assert!(self.received.is_sorted_by(|one, next| one < next), "in order, each once");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// 200 runs of 100 cycles each.
        #[test]
        fn a_server_that_is_killed_and_started_again(
            steps in prop::collection::vec((any_step(), any::<u64>(), 0_u8..10), 100),
        ) {
            let mut world = World::new(RetryPolicy::default());
            for (step, random, send_count) in steps {
                for _ in 0..send_count {
                    world.send();
                }
                let delay = world.run(step, random);
                world.now += delay;
                world.check();
            }
            world.flush(usize::MAX);
            prop_assert!(world.waiting.is_empty() && world.outbox.drain().is_empty());
            world.check();
        }
    }

    #[test]
    fn attempts_end() {
        let policy = RetryPolicy::default().with_max_attempts(3);
        let mut attempts = Attempts::default();
        let now = Instant::now();
        assert!(attempts.on_lost(&policy, &lost(), now, 0, false).is_some());
        attempts.on_connected(now);
        assert!(attempts.on_lost(&policy, &lost(), now, 0, false).is_some(), "it was not stable");
        assert!(attempts.on_lost(&policy, &lost(), now, 0, false).is_none());
        // A connection that was stable lets all begin anew.
        attempts.on_connected(now);
        let later = now + policy.stable_after;
        assert!(attempts.on_lost(&policy, &lost(), later, 0, false).is_some());
        assert_eq!(attempts.count(), 0);
    }

    /// A token that is refused, before the handshake or after it, is renewed so often and no more.
    #[test]
    fn renewals_end() {
        let now = Instant::now();
        let closed = |code| Error::Closed { code: CloseCode::new(code), reason: String::new() };
        let policy = RetryPolicy::default().with_max_renewals(2);
        let mut attempts = Attempts::default();
        let lose = |attempts: &mut Attempts, error: &Error, after: Duration, may_renew| {
            attempts.on_connected(now);
            attempts.on_lost(&policy, error, now + after, 0, may_renew).is_some()
        };
        let soon = Duration::ZERO;
        assert!(!lose(&mut attempts, &closed(4401), soon, false), "nobody can renew");
        assert!(lose(&mut attempts, &closed(4401), soon, true));
        assert!(lose(&mut attempts, &closed(3000), soon, true));
        assert!(!lose(&mut attempts, &closed(4401), soon, true), "the third in a row");
        assert!(lose(&mut attempts, &closed(4401), policy.stable_after, true), "it was good");
        assert!(lose(&mut attempts, &closed(4401), soon, true));
        assert!(lose(&mut attempts, &lost(), soon, true), "this says nothing about the token");
        assert!(lose(&mut attempts, &closed(4401), soon, true));
    }

    #[test]
    fn a_thousand_clients_of_a_server_that_restarts_come_back_spread_out() {
        const CLIENTS: u64 = 1000;
        let policy = RetryPolicy::default()
            .with_backoff(Backoff::default().with_first_delay(Duration::from_secs(10)));
        let now = Instant::now();
        let mut seconds = [0; 10];
        for client in 0..CLIENTS {
            let random = client.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut attempts = Attempts::default();
            attempts.on_connected(now);
            let delay = attempts.on_lost(&policy, &lost(), now, random, false).unwrap();
            assert_eq!(attempts.due(now), Some(now + delay).filter(|due| *due > now));
            seconds[usize::try_from(delay.as_secs().min(9)).unwrap()] += 1;
        }
        assert!(seconds.iter().all(|count| (50..150).contains(count)), "{seconds:?}");
    }
}
