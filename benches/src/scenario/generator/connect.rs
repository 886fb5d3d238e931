//! Connects: all of them at the begin of a run, or again and again with `Work::Churn`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use ringwire::{
    PostError,
    transport::{Dial, DialError},
};

use super::{Generator, PACE_INTERVAL};
use crate::echo::Failure;
use crate::scenario::client::{Common, Seat};
use crate::scenario::plan::Pulse;

impl Generator<'_> {
    /// Opens all connections.
    pub(super) fn connect(&mut self) {
        let plan = &self.common.plan;
        let (asked, most, ramp_up) = (plan.connections, plan.max_concurrent, plan.ramp_up);
        let began = self.common.clock.elapsed();
        let end = began + plan.limit;
        let mut dialled = 0;
        loop {
            let Pulse { opened, failed, .. } = self.common.pulse();
            let now = self.common.clock.elapsed();
            // A failure of an open connection counts here too: then a few more are outstanding.
            let outstanding = u64::from(dialled).saturating_sub(opened + failed);
            if dialled == asked && (outstanding == 0 || now >= end + plan_patience(&self.common)) {
                break;
            }
            if now >= end && dialled < asked {
                self.fail(Failure::NotTried, u64::from(asked - dialled));
                dialled = asked;
                continue;
            }
            let due = due_connects(asked, now - began, ramp_up);
            let room = u64::from(most).saturating_sub(outstanding);
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            let end_of_pass = due.min(dialled.saturating_add(room));
            while dialled < end_of_pass && self.dial(dialled) {
                dialled += 1;
            }
            self.listen(PACE_INTERVAL);
        }
        // All that is open was told before it was counted.
        self.listen(Duration::ZERO);
    }

    /// Opens a connection at each interval, or as fast as they go without one, for so long, where the client closes
    /// them; then waits until all are gone.
    pub(super) fn churn(&mut self, interval: Duration, duration: Duration) {
        let began = Duration::from_nanos(self.common.begin(&[]));
        let all = self.conns.len();
        self.free = (0..self.common.plan.connections).collect();
        let mut dialled = 0;
        loop {
            let time = self.common.clock.elapsed().saturating_sub(began);
            if time >= duration {
                break;
            }
            let due = match interval.as_nanos() {
                0 => u128::MAX,
                interval => time.as_nanos() / interval + 1,
            };
            // One that fails at once is free again, but for the next pass.
            let connecting = all - self.free.len() - self.open;
            let room = (self.common.plan.max_concurrent as usize).saturating_sub(connecting);
            for _ in 0..room.min(self.free.len()) {
                if dialled >= due || !self.dial_again() {
                    break;
                }
                dialled += 1;
            }
            self.listen(PACE_INTERVAL);
        }
        self.common.pause();
        // A connect that was begun has its time, and so have its reply and its close.
        let patience = plan_patience(&self.common) + self.common.plan.response_timeout * 2;
        let end = self.common.clock.elapsed() + patience;
        while self.free.len() < all && self.common.clock.elapsed() < end {
            self.listen(PACE_INTERVAL);
        }
        self.fail(Failure::Unanswered, self.common.in_flight());
    }

    /// Begins a connection with the number that has been free for the longest; `false`: later.
    fn dial_again(&mut self) -> bool {
        let Some(number) = self.free.pop_front() else { return false };
        self.common.renew(number);
        let has_begun = self.dial(number);
        if !has_begun {
            self.free.push_front(number);
        }
        has_begun
    }

    /// Begins a connection; `false`: later.
    fn dial(&mut self, number: u32) -> bool {
        loop {
            let seat = Seat::new(number, self.common.clock.nanos());
            let Ok(dial) = self.dial_from(number) else {
                self.fail_dial(number, Failure::HandshakeInvalid);
                return true;
            };
            match self.handle.connect(&dial, seat) {
                Ok(()) => return true,
                Err(DialError::Post(PostError::Busy)) => return false,
                Err(DialError::Socket(error))
                    if out_of_ports(&error) && self.source + 1 < self.common.plan.sources.len() =>
                {
                    self.source += 1;
                }
                Err(error) => {
                    self.fail_dial(number, Failure::of_dial(&error));
                    return true;
                }
            }
        }
    }

    fn fail_dial(&mut self, number: u32, failure: Failure) {
        self.fail(failure, 1);
        self.free.push_back(number);
    }

    fn dial_from(&self, number: u32) -> anyhow::Result<Dial> {
        let resource = self.target.resource().context("no WebSocket server")?;
        let path = resource.ask.fill(&resource.path, number);
        let dial = Dial::new(self.target.address(), &resource.authority, &path)?;
        let is_plain = self.common.plan.takeover.is_none();
        let dial = if is_plain { dial.without_compression() } else { dial };
        let mut dial = resource.ask.dial(dial, number)?;
        if let Some(tls) = &self.tls {
            dial = tls.dial(dial);
        }
        Ok(match self.source_of(number) {
            Some(source) => dial.with_source(SocketAddr::new(source, 0)),
            None => dial,
        })
    }

    fn source_of(&self, number: u32) -> Option<IpAddr> {
        let sources = &self.common.plan.sources;
        let at = (number as usize + self.source).checked_rem(sources.len())?;
        sources.get(at).copied()
    }
}

/// After the limit of all connects, those that were begun have theirs.
fn plan_patience(common: &Common) -> Duration {
    common.plan.connect_timeout + Duration::from_secs(1)
}

/// How many of the connects are due.
fn due_connects(asked: u32, elapsed: Duration, ramp_up: Duration) -> u32 {
    if elapsed >= ramp_up {
        return asked;
    }
    let share = (u128::from(asked) * elapsed.as_nanos()).div_ceil(ramp_up.as_nanos());
    // From the first moment on one.
    u32::try_from(share).unwrap_or(asked).clamp(1, asked.max(1))
}

fn out_of_ports(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connects_are_spread_over_the_ramp() {
        let second = Duration::from_secs(1);
        assert_eq!(due_connects(100, Duration::ZERO, second), 1);
        assert_eq!(due_connects(100, second / 2, second), 50);
        assert_eq!(due_connects(100, second, second), 100);
        assert_eq!(due_connects(100, Duration::ZERO, Duration::ZERO), 100);
    }
}
