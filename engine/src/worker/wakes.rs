//! Futures of the application that were woken.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use super::Worker;
use super::http::internal_error;
use super::receive::{call, on_panic};
use crate::app::event::Event;
use crate::app::handler::Handler;
use crate::base::panics::quietly;
use crate::conn::Phase;
use crate::conn::answer::Verdict;
use crate::conn::jobs::JobFuture;
use crate::driver::{Driver, Token};
use crate::hub::wakes::{self, Alarm, Sleeper};

/// Futures polled in a turn. What is woken beyond that comes in the next, so that those which wake each other without
/// end hold nobody up.
const POLLS_PER_TURN: usize = 1024;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Wakes go to this thread from here on.
    #[inline]
    pub(super) fn begin_wakes(&self) {
        self.alarms.begin_turn();
    }

    /// What was woken and not looked at is for the next turn.
    #[inline]
    pub(super) fn end_wakes(&mut self) {
        self.alarms.end_turn(&mut self.rung);
    }

    /// Goes on with what was woken, in its order.
    #[inline]
    pub(super) fn work_off_wakes(&mut self) {
        for (conn, work) in wakes::take_spawned() {
            self.begin(Token { slot: conn.slot, generation: conn.generation }, work);
        }
        // Those that come meanwhile are for the next turn.
        for _ in 0..self.inbox.alarm_count() {
            self.rung.extend(self.inbox.take_alarm());
        }
        self.alarms.take_rung(&mut self.rung);
        for _ in 0..self.rung.len().min(POLLS_PER_TURN) {
            let Some(alarm) = self.rung.pop_front() else { return };
            alarm.heard();
            self.on_wake(&alarm);
            self.bound_memory();
        }
    }

    /// Begins a future for a request whose answer was deferred.
    fn begin(&mut self, token: Token, work: JobFuture) {
        let Self { conns, shared, .. } = self;
        let conn = conns.get_mut(token).filter(|conn| conn.wire.phase == Phase::Deferred);
        let Some(conn) = conn else { return quietly(work) };
        shared.spawn(&mut conn.wire, token, work, false);
    }

    fn on_wake(&mut self, alarm: &Alarm) {
        let token = Token { slot: alarm.conn.slot, generation: alarm.conn.generation };
        match alarm.sleeper {
            Sleeper::Handler => {
                let Self { conns, handler, shared, .. } = self;
                let Some(conn) = conns.get_mut(token) else { return };
                call(handler, conn, shared, token, Event::Wake);
                self.after_work(token);
            }
            Sleeper::Future(future) => self.poll(token, future),
        }
    }

    /// Polls a future of a connection.
    fn poll(&mut self, token: Token, future: usize) {
        let Some((mut work, waker)) = self.jobs(token).and_then(|jobs| jobs.take_future(future))
        else {
            return;
        };
        let runtime = self.shared.limits.runtime.clone();
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _entered = runtime.enter();
            work.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        match polled {
            Ok(Poll::Pending) => {
                if let Some(jobs) = self.jobs(token) {
                    jobs.put_back(future, work);
                }
            }
            Ok(Poll::Ready(then)) => {
                quietly(work);
                let number = self.jobs(token).and_then(|jobs| jobs.end_future(future));
                match then.downcast::<Verdict>() {
                    Ok(verdict) => self.decide(token, *verdict),
                    Err(then) => self.on_result(token, number, then),
                }
            }
            Err(panic) => {
                quietly(work);
                quietly(panic);
                self.on_panicked_future(token);
            }
        }
    }

    /// Answers a deferred request as its future says.
    fn decide(&mut self, token: Token, verdict: Verdict) {
        if let Some(jobs) = self.jobs(token) {
            jobs.end();
            self.forget_jobs(token);
        }
        self.answer_deferred(self.shared.id(token), verdict);
    }

    fn on_panicked_future(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let id = shared.id(token);
        if conn.wire.phase == Phase::Deferred {
            crate::base::event::error!(conn = %id, "the future that answers a request panicked");
            return self.decide(token, Err(internal_error()));
        }
        on_panic(&mut conn.wire, shared, id);
        self.after_work(token);
    }
}
