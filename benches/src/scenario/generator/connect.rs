//! Connects: all of them at the begin of a run, or again and again with `Work::Churn`.

use std::time::Duration;

use super::{Connection, Generator, PACE_INTERVAL};
use crate::echo::Failure;
use crate::scenario::clock::nanos;
use crate::scenario::connection::Stage;
use crate::scenario::plan::Work;

impl Generator<'_> {
    /// Opens all connections.
    pub(super) fn connect(&mut self) -> anyhow::Result<()> {
        let plan = &self.load.desk.plan;
        let (mut asked, most, ramp_up) = (plan.connections, plan.max_concurrent, plan.ramp_up);
        let began = self.load.desk.clock.elapsed();
        let end = began + plan.limit;
        let mut dialled = 0;
        loop {
            let now = self.load.desk.clock.elapsed();
            // Open, or gone, be that before or after they were open.
            let settled = u32::try_from(self.load.free.len() + self.load.open);
            let outstanding = dialled - settled.unwrap_or(dialled).min(dialled);
            if dialled == asked && (outstanding == 0 || now >= end + self.patience()) {
                return Ok(());
            }
            if now >= end && dialled < asked {
                self.load.desk.fail(Failure::NotTried, u64::from(asked - dialled));
                asked = dialled;
                continue;
            }
            let due = due_connects(asked, now - began, ramp_up);
            let room = most.saturating_sub(outstanding);
            let end_of_pass = due.min(dialled.saturating_add(room));
            while dialled < end_of_pass {
                self.dial(dialled);
                dialled += 1;
            }
            self.turn(PACE_INTERVAL)?;
        }
    }

    /// Opens a connection at each interval, or as fast as they go without one, for so long, where the client closes
    /// them; then waits until all are gone.
    pub(super) fn churn(&mut self, interval: Duration, duration: Duration) -> anyhow::Result<()> {
        let began = Duration::from_nanos(self.load.desk.begin());
        let all = self.load.connections.len();
        self.load.free = (0..self.load.desk.plan.connections).collect();
        let mut dialled = 0;
        loop {
            let time = self.load.desk.clock.elapsed().saturating_sub(began);
            if time >= duration {
                break;
            }
            let due = match interval.as_nanos() {
                0 => u128::MAX,
                interval => time.as_nanos() / interval + 1,
            };
            // One that fails at once is free again, but for the next pass.
            let connecting = all - self.load.free.len() - self.load.open;
            let most = self.load.desk.plan.max_concurrent as usize;
            for _ in 0..most.saturating_sub(connecting).min(self.load.free.len()) {
                if dialled >= due {
                    break;
                }
                let Some(number) = self.load.free.pop_front() else { break };
                self.dial(number);
                dialled += 1;
            }
            self.turn(PACE_INTERVAL)?;
        }
        self.load.desk.working = false;
        // A connect that was begun has its time, and so have its reply and its close.
        let patience = self.patience() + self.load.desk.plan.response_timeout * 2;
        let end = self.load.desk.clock.elapsed() + patience;
        while self.load.free.len() < all && self.load.desk.clock.elapsed() < end {
            self.turn(PACE_INTERVAL)?;
        }
        self.load.fail_unanswered();
        Ok(())
    }

    /// Begins a connection.
    pub(super) fn dial(&mut self, number: u32) {
        let now = self.load.desk.read_clock();
        // From given addresses in turn.
        let turn = if self.load.desk.plan.sources.is_empty() { 0 } else { number as usize };
        match self.dialler.open(turn, number, number as usize, &self.poll) {
            Ok(socket) => {
                let connection = Connection::new(socket, number, now);
                self.load.connections[number as usize] = Some(connection);
                self.dialled.push_back((number, now));
            }
            Err(failure) => {
                self.load.desk.fail(failure, 1);
                self.load.free.push_back(number);
            }
        }
    }

    /// Gives up connections that take too long to become open, or to be closed.
    pub(super) fn expire(&mut self) {
        let now = nanos(self.load.desk.clock.elapsed());
        let limit = nanos(self.load.desk.plan.connect_timeout);
        while let Some(&(number, dialled)) = self.dialled.front() {
            let stage = self.load.stage_of(number, dialled);
            let is_session = matches!(self.load.desk.plan.work, Work::Sessions { .. });
            if matches!(stage, Some(Stage::Opening | Stage::Greeting(_)))
                || (is_session && stage.is_some())
            {
                if now.saturating_sub(dialled) < limit {
                    break;
                }
                let late = match stage {
                    Some(Stage::Opening) => Failure::ConnectTimeout,
                    Some(Stage::Greeting(_)) => Failure::FirstUnanswered,
                    _ => Failure::Unanswered,
                };
                self.load.gone(number as usize, late);
            }
            self.dialled.pop_front();
        }
        let limit = nanos(self.load.desk.plan.response_timeout);
        while let Some(&(number, dialled, closed)) = self.load.desk.closing.front() {
            if self.load.stage_of(number, dialled).is_some() {
                if now.saturating_sub(closed) < limit {
                    break;
                }
                self.load.gone(number as usize, Failure::ClosedHere("close_timeout"));
            }
            self.load.desk.closing.pop_front();
        }
    }

    /// After the limit of all connects, those that were begun have theirs.
    fn patience(&self) -> Duration {
        self.load.desk.plan.connect_timeout + Duration::from_secs(1)
    }
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
