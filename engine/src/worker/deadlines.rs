//! Deadlines: one timer a connection, set to the first thing that could fall due.
//!
//! Traffic does not move the timer. When it fires, the deadline is computed again from the ticks that the
//! connection keeps, and either something is due or the timer is set anew.

use ringwire_codec::CloseCode;

use super::Worker;
use super::receive::call;
use crate::app::event::Event;
use crate::app::handler::Handler;
use crate::base::timer::{TICKS_PER_SECOND, Tick};
use crate::conn::cause::CloseReason;
use crate::conn::queue::Overdue;
use crate::conn::{Flags, Phase, Wire};
use crate::driver::{Driver, Token};
use crate::limits::deadline::Expiry;
use crate::limits::progress::{PingLook, Watched, step};
use crate::net::Delivery;
use crate::state::Shared;
use crate::state::limits::Limits;
use crate::state::send;

/// The server goes away from this connection.
const GOING_AWAY: CloseCode = CloseCode::GOING_AWAY;

/// What layers may add to little output, in bytes.
const LAYERED_LEN: usize = 1 << 10;

/// What falls due on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The handshake, or another request, took too long.
    Handshake,
    /// The application took too long for an answer that it has deferred.
    Answer,
    /// No other request came.
    KeepAlive,
    /// The peer did not finish closing.
    Close,
    /// Time to see whether the peer takes what is on its way to it.
    Progress,
    /// What is still to be said to a peer that has ended its stream takes too long.
    Unsaid,
    /// Nothing was received since the ping.
    Pong,
    /// Nothing was received for long.
    Idle,
    /// It was open for as long as may be.
    Lifetime,
    /// The application's own deadline has come: the connection is closed as it has said.
    Set(Expiry),
    /// There is something in the peer's bucket again.
    Refill,
    /// A message has waited for as long as it may.
    Message,
    /// A timer of the application's.
    Timer,
    /// Time to ask whether the peer lives.
    Ping,
    /// Nothing yet: time to look again.
    Look,
}

/// What a look at a peer's progress leads to.
#[derive(Debug)]
enum Verdict {
    /// It has the answer, and nothing more came.
    KeepAlive,
    /// It has taken nothing for too long, or too little.
    Over(CloseReason),
}

impl<D: Driver, H: Handler> Worker<D, H> {
    pub(super) fn expire_timers(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.shared.wheel.expire(self.shared.now, &mut expired);
        for slot in expired.drain(..) {
            if let Some(token) = self.conns.token(slot) {
                self.on_timer(token);
            }
        }
        self.expired = expired;
    }

    fn on_timer(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let shared = &mut self.shared;
        let due = shared.next_due(wire, token.slot).filter(|(tick, _)| *tick <= shared.now);
        match due.map(|(_, due)| due) {
            // A part of the time has passed: what is ahead of its peer shows now.
            None | Some(Due::Look) if wire.may_lag() => self.look_at_progress(token),
            None | Some(Due::Look) => {
                shared.end_watch(wire, token.slot);
                shared.set_deadline(wire, token);
            }
            Some(Due::Progress) => self.look_at_progress(token),
            Some(Due::Handshake) => {
                self.finish(token, CloseReason::Transport(std::io::ErrorKind::TimedOut))
            }
            Some(Due::Answer) => self.answer_for_it(token),
            Some(Due::KeepAlive) => self.look_at_progress(token),
            Some(Due::Close) => self.give_up(token, CloseReason::CloseTimeout),
            Some(Due::Unsaid) => self.finish(token, CloseReason::WriteStall),
            Some(Due::Pong) => self.finish(token, CloseReason::PongTimeout),
            Some(Due::Idle) => self.close_for(token, CloseReason::IdleTimeout, GOING_AWAY, "idle"),
            Some(Due::Lifetime) => {
                let text = "open for long enough";
                self.close_for(token, CloseReason::Lifetime, GOING_AWAY, text);
            }
            Some(Due::Set(expiry)) => {
                let text = shared.deadlines.reason(expiry);
                self.close_for(token, CloseReason::Deadline, expiry.code, text);
            }
            Some(Due::Ping) => self.ping(token),
            Some(Due::Message) => self.judge_late_messages(token),
            Some(Due::Timer) => self.call_timers(token),
            Some(Due::Refill) => {
                wire.release(Flags::THROTTLED, shared.now);
                shared.set_deadline(wire, token);
                shared.list(wire, token);
            }
        }
    }

    /// Asks how far the peer has come: it goes on, has taken what was ahead of it, or has taken nothing for too long.
    fn look_at_progress(&mut self, token: Token) {
        let Self { conns, shared, driver, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let delivery = driver.delivery(token).unwrap_or_default();
        shared.kernel.note(token.slot, driver.unsent_memory(token));
        let verdict = if wire.phase == Phase::Open {
            shared.look_at_open(wire, token.slot, delivery)
        } else {
            shared.look_at_draining(wire, token.slot, delivery)
        };
        match verdict {
            None => shared.set_deadline(wire, token),
            Some(Verdict::KeepAlive) => self.end_idle(token),
            Some(Verdict::Over(reason @ CloseReason::CloseTimeout)) => self.give_up(token, reason),
            Some(Verdict::Over(reason)) => self.finish(token, reason),
        }
    }

    /// Starts a close handshake of the engine's own.
    fn close_for(&mut self, token: Token, why: CloseReason, code: CloseCode, text: &str) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        // The phase is Open, so no close has begun.
        let _ = send::close(&mut conn.wire, &mut self.shared, why, code, text);
        self.after_work(token);
    }

    /// Drops the messages that have waited for too long, or closes the connection for one of them.
    fn judge_late_messages(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        while let Some(overdue) = wire.pending_mut().queue.take_overdue(shared.now) {
            match overdue {
                Overdue::Message(message) => shared.drop_message(message),
                Overdue::Close(code) => {
                    let code = if code.is_sendable() { code } else { CloseCode::NORMAL };
                    let text = "a message could not go out in time";
                    return self.close_for(token, CloseReason::Deadline, code, text);
                }
            }
        }
        shared.set_deadline(wire, token);
        if wire.is_flushed() {
            // Nothing was under way but what a thread still compressed.
            self.on_flushed_part(token);
        } else {
            self.after_work(token);
        }
    }

    /// Tells the handler of its timers that have run down.
    fn call_timers(&mut self, token: Token) {
        let Self { conns, handler, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        while conn.wire.phase == Phase::Open
            && let Some(key) = shared.timers.take_due(token.slot, shared.now)
        {
            call(handler, conn, shared, token, Event::Timer(key));
        }
        shared.set_deadline(&conn.wire, token);
        self.after_work(token);
    }

    fn ping(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let shared = &mut self.shared;
        wire.flags.insert(Flags::PINGED);
        wire.since = shared.now;
        // The phase is Open and the payload is empty, so it can't fail.
        let _ = wire.codec.send_ping(&[], &mut shared.masks, &mut shared.out);
        if let Some(delivery) = self.driver.delivery(token) {
            shared.watch_ping(wire, token.slot, delivery);
        }
        shared.set_deadline(wire, token);
        self.after_work(token);
    }
}

impl Shared {
    /// Sets the connection's timer to what could fall due first.
    pub(super) fn set_deadline(&mut self, wire: &Wire, token: Token) {
        match self.next_due(wire, token.slot) {
            Some((tick, _)) => self.wheel.set(token.slot, tick),
            None => self.wheel.clear(token.slot),
        }
    }

    /// What could fall due first, and when.
    fn next_due(&self, wire: &Wire, slot: u32) -> Option<(Tick, Due)> {
        let watched = self.progress.get(slot);
        let due = next_due(wire, watched, &self.limits, self.now);
        if wire.phase != Phase::Open {
            return due;
        }
        let set = self.deadlines.get(slot).map(|(tick, expiry)| (tick, Due::Set(expiry)));
        let refill = self.limits.rates.filter(|_| wire.flags.contains(Flags::THROTTLED));
        let refill = refill.map(|rates| (self.meters.ready_at(slot, rates), Due::Refill));
        let queue = wire.pending.as_ref().map(|pending| &pending.queue);
        let message = queue.and_then(|queue| queue.next_deadline());
        let message = message.map(|tick| (tick, Due::Message));
        let timer = self.timers.next(slot).map(|tick| (tick, Due::Timer));
        let own = set.into_iter().chain(refill).chain(message).chain(timer);
        due.into_iter().chain(own).min_by_key(|(tick, _)| *tick)
    }

    /// Looks at the peer of an open connection: `None`, it may go on.
    fn look_at_open(&mut self, wire: &mut Wire, slot: u32, delivery: Delivery) -> Option<Verdict> {
        let now = self.now;
        let is_pinged = wire.flags.contains(Flags::PINGED);
        let is_flushed = wire.is_flushed();
        let watched = self.progress.look(slot, now, wire.sent, delivery);
        if !is_pinged {
            watched.forget_ping();
        } else if watched.look_at_ping(is_flushed) == PingLook::Now {
            wire.since = now;
        }
        let watched = *watched;
        self.end_watch(wire, slot);
        if is_pinged
            && watched.has_ping()
            && wire.may_deliver()
            && let Some(pong) = self.limits.pong
            && now >= wire.since + wire.pong_limit(&watched, pong, &self.limits)
        {
            return Some(Verdict::Over(CloseReason::PongTimeout));
        }
        let limit = self.limits.write_stall.filter(|_| wire.flags.contains(Flags::SENDING))?;
        let is_stalled = now >= watched.stalls_at(wire.sent, limit);
        is_stalled.then_some(Verdict::Over(CloseReason::WriteStall))
    }

    /// Looks at a peer that is to take what is left: an answer, or what is ahead of a close frame and of FIN.
    fn look_at_draining(
        &mut self,
        wire: &mut Wire,
        slot: u32,
        delivery: Delivery,
    ) -> Option<Verdict> {
        let now = self.now;
        let is_idle = wire.phase == Phase::Idle;
        if delivery.waiting == 0 && wire.is_flushed() {
            let watched = self.progress.get(slot).is_some();
            self.progress.forget(slot);
            if watched {
                // What is waited for can come from now on.
                wire.since = now;
            }
            let limit = self.limits.http_keep_alive.filter(|_| is_idle && !watched)?;
            let is_over = now >= wire.since.max(wire.sent) + limit;
            return is_over.then_some(Verdict::KeepAlive);
        }
        let Some(limit) = wire.drain_limit(&self.limits) else {
            // No limit but that on silence.
            return (is_idle && wire.is_flushed()).then_some(Verdict::KeepAlive);
        };
        let reason = if is_idle || is_last_answer(wire) && !wire.is_flushed() {
            CloseReason::WriteStall
        } else {
            CloseReason::CloseTimeout
        };
        let start = if reason == CloseReason::WriteStall { wire.sent } else { wire.since };
        // One that lingers has nothing of its own left.
        let queued_len = if wire.phase == Phase::Lingering { 0 } else { wire.queued_len() };
        let left = delivery.waiting + queued_len;
        let watched = self.progress.look(slot, now, start, delivery);
        if watched.has_moved() && !is_idle {
            wire.since = now;
        }
        // Only between two requests something new may be owed.
        let owed_since = if is_idle { wire.since } else { wire.began };
        watched.owes(owed_since, time_for(left, self.limits.min_drain_rate, limit));
        let is_late = watched.until().is_some_and(|until| now >= until);
        let stall = wire.drain_stall(watched, limit, &self.limits);
        let is_over = is_late || now >= watched.stalls_at(start, stall);
        is_over.then_some(Verdict::Over(reason))
    }

    /// A ping goes out: what is ahead of it, if anything.
    fn watch_ping(&mut self, wire: &Wire, slot: u32, delivery: Delivery) {
        if delivery.waiting == 0 && wire.is_flushed() {
            if let Some(watched) = self.progress.get_mut(slot) {
                watched.forget_ping();
            }
            return;
        }
        // What TLS and extensions add is not known yet; as much as they may is right on the safe side.
        let queued_len = wire.queued_len();
        let layered = wire.flags.contains(Flags::LAYERED);
        let added = if layered { queued_len / 8 + LAYERED_LEN } else { 0 };
        let ping_len = self.out.len();
        let watched = self.progress.look(slot, self.now, wire.sent, delivery);
        watched.ping_behind(queued_len + added + ping_len);
    }

    /// Stops looking at a peer that has nothing ahead of it.
    fn end_watch(&mut self, wire: &Wire, slot: u32) {
        let is_watched = wire.flags.intersects(Flags::SENDING | Flags::PINGED);
        if wire.phase == Phase::Open && !is_watched {
            self.progress.forget(slot);
        }
    }

    /// Output begins to wait: looks again when it may have waited for too long.
    pub(super) fn set_stall_deadline(&mut self, wire: &Wire, token: Token) {
        if let Some(limit) = self.limits.write_stall {
            self.wheel.set_earlier(token.slot, wire.sent + step(limit));
        }
    }

    /// Closing has begun.
    pub(super) fn set_close_deadline(&mut self, wire: &Wire, token: Token) {
        if let Some(limit) = self.limits.close {
            self.wheel.set_earlier(token.slot, wire.since + step(limit));
        }
    }
}

/// What could fall due first by the settings, and when.
fn next_due(
    wire: &Wire,
    watched: Option<&Watched>,
    limits: &Limits,
    now: Tick,
) -> Option<(Tick, Due)> {
    let at = |start: Tick, limit: Option<Tick>, due| limit.map(|limit| (start + limit, due));
    match wire.phase {
        Phase::Vacant | Phase::Closed => None,
        Phase::Deferred if !wire.is_deferred_upgrade() => {
            at(wire.began, limits.handshake, Due::Answer)
        }
        Phase::Proxied | Phase::Handshake | Phase::Deferred => {
            at(wire.began, limits.handshake, Due::Handshake)
        }
        // An answer may take as long as it likes, as long as it moves.
        Phase::Idle if !wire.is_flushed() || watched.is_some() => {
            draining(wire, watched, limits, wire.sent)
        }
        Phase::Idle => at(wire.since.max(wire.sent), limits.http_keep_alive, Due::KeepAlive),
        Phase::Closing | Phase::Flushing | Phase::Lingering => {
            let is_answer = is_last_answer(wire);
            let start = if is_answer { wire.sent } else { wire.since };
            let limit = wire.drain_limit(limits)?;
            if watched.is_some() || !wire.is_flushed() && is_answer || now < start + step(limit) {
                return draining(wire, watched, limits, start);
            }
            Some((start + limit, Due::Close))
        }
        Phase::Open => {
            // While this side does not read, silence says nothing about the peer.
            let is_half_closed = wire.is_half_closed();
            let reads = wire.may_deliver() && !is_half_closed;
            let is_sending = wire.flags.contains(Flags::SENDING);
            let silence = silence(wire, watched, limits).into_iter().filter(|_| reads);
            let stall = limits.write_stall.map(|limit| match watched {
                // What is still to be said, by a job say, takes no longer than the peer may for taking it.
                _ if !is_sending && is_half_closed && wire.may_deliver() => {
                    (wire.sent.max(wire.received) + limit, Due::Unsaid)
                }
                // A send may get stuck at any time without moving the timer, so look at least that often.
                _ if !is_sending => (now + limit, Due::Look),
                None => (wire.sent + step(limit), Due::Progress),
                Some(watched) => {
                    let end = watched.stalls_at(wire.sent, limit);
                    (watched.next_look(limit).min(end), Due::Progress)
                }
            });
            let lifetime = at(wire.began, limits.lifetime, Due::Lifetime);
            silence.chain(stall).chain(lifetime).min_by_key(|(tick, _)| *tick)
        }
    }
}

/// What falls due on an open connection from which nothing comes.
fn silence(wire: &Wire, watched: Option<&Watched>, limits: &Limits) -> Option<(Tick, Due)> {
    let at = |start: Tick, limit: Option<Tick>, due| limit.map(|limit| (start + limit, due));
    let is_pinged = wire.flags.contains(Flags::PINGED);
    let watched = watched.filter(|watched| is_pinged && watched.has_ping());
    if let (Some(watched), Some(pong)) = (watched, limits.pong) {
        let limit = wire.pong_limit(watched, pong, limits);
        return Some((watched.next_look(pong).min(wire.since + limit), Due::Progress));
    }
    let (asked, idle_from) = match limits.pong {
        // Whoever answers the ping has until then.
        Some(_) if is_pinged => (at(wire.since, limits.pong, Due::Pong), wire.since),
        _ if is_pinged => (None, wire.received),
        _ => (at(wire.received, limits.ping, Due::Ping), wire.received),
    };
    let idle = at(idle_from.max(wire.received), limits.idle, Due::Idle);
    asked.into_iter().chain(idle).min_by_key(|(tick, _)| *tick)
}

/// When to look at output to which nothing is added.
fn draining(
    wire: &Wire,
    watched: Option<&Watched>,
    limits: &Limits,
    start: Tick,
) -> Option<(Tick, Due)> {
    let limit = wire.drain_limit(limits)?;
    let due = match watched {
        None => start + step(limit),
        Some(watched) => {
            let end = watched.stalls_at(start, wire.drain_stall(watched, limit, limits));
            let end = watched.until().map_or(end, |until| end.min(until));
            watched.next_look(limit).min(end)
        }
    };
    Some((due, Due::Progress))
}

/// How long a peer may take to take so many bytes, if so many a second are asked for.
fn time_for(len: usize, rate: usize, grace: Tick) -> Option<Tick> {
    let ticks = len.saturating_mul(TICKS_PER_SECOND as usize).checked_div(rate)?;
    Some(Tick::try_from(ticks).unwrap_or(Tick::MAX).saturating_add(grace))
}

/// Whether it flushes the answer to a request after which the connection ends.
fn is_last_answer(wire: &Wire) -> bool {
    wire.phase == Phase::Flushing && !wire.flags.contains(Flags::OPENED)
}

impl Wire {
    /// Whether its peer may still have output to take that no other deadline watches.
    fn may_lag(&self) -> bool {
        match self.phase {
            Phase::Open => self.flags.contains(Flags::SENDING),
            phase => matches!(phase, Phase::Closing | Phase::Flushing | Phase::Lingering),
        }
    }

    /// How long its peer may take nothing once no more output is added.
    fn drain_limit(&self, limits: &Limits) -> Option<Tick> {
        if self.phase == Phase::Idle || is_last_answer(self) && !self.is_flushed() {
            return limits.write_stall.or(limits.close);
        }
        if self.phase == Phase::Lingering {
            return Some(limits.linger);
        }
        limits.close
    }

    /// The same while some of it is on its way. The window of a peer that reads slowly moves in large steps, which may
    /// be further apart than a close may take (RFC 9293 §3.8.6.2.2). One that was never seen to take anything is not
    /// known to be slow.
    fn drain_stall(&self, watched: &Watched, limit: Tick, limits: &Limits) -> Tick {
        match self.phase {
            Phase::Lingering => limits.linger_stall,
            _ if watched.is_slow() => limit.max(limits.write_stall.unwrap_or(0)),
            _ => limit,
        }
    }

    /// How long a ping may stay without an answer from when its time began last.
    fn pong_limit(&self, watched: &Watched, pong: Tick, limits: &Limits) -> Tick {
        // Until it has reached the peer, it says no more than the output ahead of it.
        let stall = limits.write_stall.filter(|_| watched.holds_ping_back());
        pong.max(stall.unwrap_or(0))
    }
}
