//! The end of a worker, at once or over a window: everybody is told, nobody is waited for too long.

use std::time::Duration;

use crossbeam_channel::Sender;
use http::StatusCode;
use ringwire_codec::MaskSource as _;
use ringwire_codec::http::Response;

use super::Worker;
use super::accepting::AcceptState;
use crate::app::handler::Handler;
use crate::base::timer::{TICK, TICKS_PER_SECOND, Tick, ticks_of};
use crate::conn::Phase;
use crate::conn::cause::CloseReason;
use crate::driver::{Driver, ListenerId, Op};
use crate::limits::drain::{Drain, DrainReport, Order};
use crate::state::Shared;
use crate::state::send;

/// Connections looked at in a turn, to be told or cut off. The others go on meanwhile.
const CLOSES_PER_TURN: u32 = 4096;

/// A drain under way. A shutdown is one without a window.
#[derive(Debug)]
pub(super) struct ShutdownState {
    drain: Drain,
    stage: Stage,
    /// When it began, by the worker's clock.
    began: Duration,
    /// When what is left is cut off.
    deadline: Tick,
    order: Order,
    /// The moment of the next place in the order.
    next_at: Duration,
    /// Requests that are under way may be finished.
    spares_requests: bool,
    replies: Vec<Sender<DrainReport>>,
    report: DrainReport,
    /// This worker has said that it has nothing left to do.
    is_counted: bool,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Each open connection is told when its moment comes; places below this had theirs.
    Window { next: u32 },
    /// All that are left are told. Slots below this were, and so is who opens from now on.
    Rest { next: u32 },
    /// They have until the deadline.
    Grace,
    /// What is left is cut off. Slots below this were.
    CutOff { next: u32 },
}

impl ShutdownState {
    /// Before what is left is cut off.
    fn is_patient(&self) -> bool {
        !matches!(self.stage, Stage::CutOff { .. })
    }

    fn is_in_window(&self) -> bool {
        matches!(self.stage, Stage::Window { .. })
    }

    fn window_end(&self) -> Duration {
        self.began.saturating_add(self.drain.window)
    }

    /// Reports to everybody who asked.
    fn conclude(&mut self, shared: &Shared) {
        self.report.conclude(shared);
        for reply in self.replies.drain(..) {
            // Nobody has to wait for it.
            let _ = reply.send(self.report);
        }
    }
}

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Whether connections are taken in, be it to be refused.
    pub(super) fn takes_connections(&self) -> bool {
        let Some(shutdown) = &self.shutdown else { return true };
        // Who was accepted on a socket that others go on with knows of no end.
        let is_outlived = self.shared.hub.handover().is_outlived();
        shutdown.is_in_window() || is_outlived && shutdown.is_patient()
    }

    /// Begins a drain, or has one that is under way go on as this one says.
    pub(super) fn begin_shutdown(&mut self, drain: Drain, reply: Sender<DrainReport>) {
        let Self { shared, clock, conns, .. } = self;
        shared.limits.shorten_linger();
        let began = clock.now();
        let end = drain.window.saturating_add(drain.grace);
        let (replies, report, is_counted) = match self.shutdown.take() {
            Some(before) => (before.replies, before.report, before.is_counted),
            None => (Vec::new(), DrainReport::begin(shared), false),
        };
        let order = Order::new(conns.end(), next_random(shared));
        let jitter = next_random(shared);
        let mut state = ShutdownState {
            drain,
            stage: Stage::Rest { next: 0 },
            began,
            deadline: shared.now + ticks_of(end),
            order,
            next_at: began + order.moment(0, jitter, drain.window),
            spares_requests: drain.window > Duration::ZERO || shared.hub.handover().is_outlived(),
            replies,
            report,
            is_counted,
        };
        state.replies.push(reply);
        if drain.window > Duration::ZERO {
            state.stage = Stage::Window { next: 0 };
        }
        shared.draining = Some(shared.now + ticks_of(drain.window));
        if !drain.keeps_listening {
            self.close_listeners();
        }
        self.shutdown = Some(Box::new(state));
    }

    /// Goes on as if there had been no drain, but for those who were told already: its successor came to nothing.
    pub(super) fn undrain(&mut self) {
        let Some(mut state) = self.shutdown.take() else { return };
        state.conclude(&self.shared);
        self.shared.draining = None;
        self.shared.limits.restore_linger();
        self.shared.latecomers.clear();
        self.look_at_kept_listeners();
    }

    /// Tells those whose moment has come, or cuts off what is left; whether all are gone.
    #[inline]
    pub(super) fn go_on_shutting_down(&mut self) -> bool {
        let Some(state) = self.shutdown.take() else { return false };
        self.shut_down_some(state)
    }

    fn shut_down_some(&mut self, mut state: Box<ShutdownState>) -> bool {
        let now = self.clock.now();
        let window_end = state.window_end();
        if self.shared.now >= state.deadline && !matches!(state.stage, Stage::CutOff { .. }) {
            state.stage = Stage::CutOff { next: 0 };
        }
        self.tell_latecomers(&state);
        for _ in 0..CLOSES_PER_TURN {
            match &mut state.stage {
                Stage::Window { next } if *next < state.order.len() => {
                    if state.next_at > now {
                        break;
                    }
                    let slot = state.order.slot_at(*next);
                    *next += 1;
                    let jitter = next_random(&mut self.shared);
                    let moment = state.order.moment(*next, jitter, state.drain.window);
                    state.next_at = state.began + moment;
                    self.tell(slot, &state.drain);
                }
                Stage::Window { .. } if now < window_end => break,
                Stage::Window { .. } => state.stage = Stage::Rest { next: 0 },
                Stage::Rest { next } if *next < self.conns.end() => {
                    let slot = *next;
                    *next += 1;
                    self.tell_or_end(slot, &state.drain, state.spares_requests);
                }
                Stage::Rest { .. } => state.stage = Stage::Grace,
                Stage::CutOff { next } if *next < self.conns.end() => {
                    let slot = *next;
                    *next += 1;
                    self.cut_off(slot, &mut state.report);
                }
                Stage::Grace | Stage::CutOff { .. } => break,
            }
        }
        if !state.is_in_window() {
            self.close_listeners();
        }
        let waits_for_more = state.drain.keeps_listening && state.is_in_window();
        let done = self.conns.len() == 0
            && !waits_for_more
            && !self.expects_connections()
            && self.shared.hub.may_end(self.shared.worker, &mut state.is_counted);
        if done {
            state.conclude(&self.shared);
        }
        self.shutdown = Some(state);
        self.look_at_kept_listeners();
        done
    }

    /// How long there is nothing to do for a shutdown.
    pub(super) fn shutdown_rests(&self) -> Option<Duration> {
        let state = self.shutdown.as_ref()?;
        let now = self.clock.now();
        let cut_off = (TICK * state.deadline).saturating_sub(now);
        match state.stage {
            Stage::Window { next } if next < state.order.len() => {
                Some(state.next_at.saturating_sub(now).min(cut_off))
            }
            Stage::Window { .. } => Some(state.window_end().saturating_sub(now).min(cut_off)),
            Stage::Rest { .. } => Some(Duration::ZERO),
            Stage::Grace => Some(cut_off),
            Stage::CutOff { next } => (next < self.conns.end()).then_some(Duration::ZERO),
        }
    }

    fn close_listeners(&mut self) {
        self.stop_accepting(AcceptState::Stopped);
        let handover = self.shared.hub.handover();
        let (takes_rest, keeps) = (handover.is_passed_on(), handover.may_go_on());
        if keeps && self.accepting.listeners > 0 {
            self.accepting.kept = self.accepting.listeners;
        }
        for listener in (0..std::mem::take(&mut self.accepting.listeners)).map(ListenerId) {
            let is_shared = self.terms.get(listener.0 as usize).is_some_and(|it| it.is_shared);
            if takes_rest || keeps || is_shared {
                self.accepting.leaving += 1;
                self.driver.submit(Op::LeaveListener { listener, takes_rest, keeps });
            } else {
                self.driver.submit(Op::CloseListener { listener });
            }
        }
    }

    /// Whether there may be connections that were accepted and have not come here yet.
    fn expects_connections(&self) -> bool {
        self.accepting.leaving > 0 || self.shared.hub.is_expecting(self.shared.worker)
    }

    /// Tells those that opened when it was too late for a moment of their own.
    fn tell_latecomers(&mut self, state: &ShutdownState) {
        let latecomers = std::mem::take(&mut self.shared.latecomers);
        if state.is_in_window() {
            // They are told with the rest.
            return;
        }
        for token in latecomers {
            if self.conns.get_mut(token).is_some() {
                self.tell(token.slot, &state.drain);
            }
        }
    }

    /// Closes an open connection, ends one that waits for another HTTP request, and refuses a request for a WebSocket
    /// whose answer was deferred. Whoever still asks is refused once the request is whole, and an HTTP request gets its
    /// answer.
    fn tell(&mut self, slot: u32, drain: &Drain) {
        let Some(token) = self.conns.token(slot) else { return };
        let Some(conn) = self.conns.get_mut(token) else { return };
        if let Some(exchange) = conn.wire.pending.as_mut().and_then(|it| it.exchange.as_mut()) {
            *exchange = exchange.closing();
        }
        match conn.wire.phase {
            Phase::Idle => self.end_idle(token),
            Phase::Open => {
                let why = CloseReason::Shutdown;
                // Only a close that has begun refuses another.
                let _ = send::close(&mut conn.wire, &mut self.shared, why, drain.code, "");
                self.after_work(token);
            }
            Phase::Deferred
                if conn.wire.is_deferred_upgrade() && self.shared.hub.refuses_requests() =>
            {
                let response = self.shared.refuse_while_draining();
                self.answer_deferred(self.shared.id(token), Err(response));
            }
            _ => {}
        }
    }

    fn tell_or_end(&mut self, slot: u32, drain: &Drain, spares_requests: bool) {
        let Some(token) = self.conns.token(slot) else { return };
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.wire.is_unanswered() && !spares_requests {
            self.finish(token, CloseReason::Shutdown);
        } else {
            self.tell(slot, drain);
        }
    }

    fn cut_off(&mut self, slot: u32, report: &mut DrainReport) {
        let Some(token) = self.conns.token(slot) else { return };
        let Some(conn) = self.conns.get_mut(token) else { return };
        let wire = &conn.wire;
        let counter = match wire.phase {
            Phase::Vacant | Phase::Closed => return,
            // All was said, and the application knows that it has ended.
            Phase::Lingering => return self.finish(token, CloseReason::Shutdown),
            Phase::Proxied | Phase::Handshake | Phase::Deferred => &mut report.cut_off.requests,
            Phase::Open => &mut report.cut_off.open,
            Phase::Closing if wire.is_flushed() => &mut report.cut_off.unanswered,
            Phase::Idle if wire.is_flushed() => &mut report.cut_off.open,
            Phase::Closing | Phase::Idle | Phase::Flushing => &mut report.cut_off.unread,
        };
        *counter += 1;
        report.unsent_len += wire.queued_len() as u64;
        self.shared.counters.drain_cut_offs.add(1);
        self.finish(token, CloseReason::Shutdown);
    }
}

impl Shared {
    /// The answer to requests that come while the server is drained. Whoever comes back after the window finds another
    /// server, or none.
    pub(super) fn refuse_while_draining(&self) -> Response {
        let left = self.draining.map_or(0, |end| end.saturating_sub(self.now));
        self.counters.drain_refusals.add(1);
        let response = Response::text("the server is shutting down\n");
        unavailable(response, left.div_ceil(TICKS_PER_SECOND).max(1))
    }
}

/// 503, and when to try again (RFC 9110 §15.6.4, §10.2.3).
pub(super) fn unavailable(response: Response, retry_after_secs: u32) -> Response {
    response
        .with_status(StatusCode::SERVICE_UNAVAILABLE)
        .with_header(http::header::RETRY_AFTER, retry_after_secs.into())
}

impl DrainReport {
    /// What there is at the beginning. The counts are those before, until it is concluded.
    fn begin(shared: &Shared) -> Self {
        let stats = shared.counters.read();
        Self { connections: stats.connections, closes: stats.closes, ..Self::default() }
    }

    fn conclude(&mut self, shared: &Shared) {
        let stats = shared.counters.read();
        // Some came before the letter about the drain was read.
        self.refused = stats.drain_refusals;
        self.closes = stats.closes - self.closes;
    }
}

fn next_random(shared: &mut Shared) -> u32 {
    u32::from_ne_bytes(shared.masks.next_mask())
}
