//! Deadlines: one timer a connection, set to the first thing that could fall due.
//!
//! Traffic does not move the timer. When it fires, the deadline is computed again from the ticks that the
//! connection keeps, and either something is due or the timer is set anew.

use ringwire_codec::CloseCode;

use super::Worker;
use crate::conn::{Flags, Phase, Wire};
use crate::ctx;
use crate::driver::{Driver, Token};
use crate::error::CloseReason;
use crate::handler::Handler;
use crate::shared::{Limits, Shared};
use crate::timer::Tick;

/// The server goes away from this connection.
const GOING_AWAY: CloseCode = CloseCode::GOING_AWAY;

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
    /// The peer takes no output.
    WriteStall,
    /// Nothing was received since the ping.
    Pong,
    /// Nothing was received for long.
    Idle,
    /// It was open for as long as may be.
    Lifetime,
    /// The application's own deadline has come: the connection is closed with this code.
    Set(CloseCode),
    /// There is something in the peer's bucket again.
    Refill,
    /// Time to ask whether the peer lives.
    Ping,
    /// Nothing yet: time to look again.
    Look,
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
            None | Some(Due::Look) => shared.set_deadline(wire, token),
            Some(Due::Handshake) => {
                self.finish(token, CloseReason::Transport(std::io::ErrorKind::TimedOut))
            }
            Some(Due::Answer) => self.answer_for_it(token),
            Some(Due::KeepAlive) => self.end_idle(token),
            Some(Due::Close) => self.give_up(token, CloseReason::CloseTimeout),
            Some(Due::WriteStall) => self.finish(token, CloseReason::WriteStall),
            Some(Due::Pong) => self.finish(token, CloseReason::PongTimeout),
            Some(Due::Idle) => self.close_for(token, CloseReason::IdleTimeout, GOING_AWAY, "idle"),
            Some(Due::Lifetime) => {
                let text = "open for long enough";
                self.close_for(token, CloseReason::Lifetime, GOING_AWAY, text);
            }
            Some(Due::Set(code)) => {
                self.close_for(token, CloseReason::Deadline, code, "the time is up");
            }
            Some(Due::Ping) => self.ping(token),
            Some(Due::Refill) => {
                wire.flags.remove(Flags::THROTTLED);
                shared.set_deadline(wire, token);
                shared.list(wire, token);
            }
        }
    }

    /// Starts a close handshake of the engine's own.
    fn close_for(&mut self, token: Token, why: CloseReason, code: CloseCode, text: &str) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        // The phase is Open, so no close has begun.
        let _ = ctx::close(&mut conn.wire, &mut self.shared, why, code, text);
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
        let due = next_due(wire, &self.limits, self.now);
        if wire.phase != Phase::Open {
            return due;
        }
        let set = self.deadlines.get(slot).map(|(tick, code)| (tick, Due::Set(code)));
        let refill = self.limits.rates.filter(|_| wire.flags.contains(Flags::THROTTLED));
        let refill = refill.map(|rates| (self.meters.ready_at(slot, rates), Due::Refill));
        due.into_iter().chain(set).chain(refill).min_by_key(|(tick, _)| *tick)
    }

    /// Output begins to wait: looks again when it may have waited for too long.
    pub(super) fn set_stall_deadline(&mut self, wire: &Wire, token: Token) {
        if let Some(limit) = self.limits.write_stall {
            self.wheel.set_earlier(token.slot, wire.sent + limit);
        }
    }

    /// Closing has begun.
    pub(super) fn set_close_deadline(&mut self, wire: &Wire, token: Token) {
        if let Some(limit) = self.limits.close {
            self.wheel.set_earlier(token.slot, wire.since + limit);
        }
    }
}

/// What could fall due first by the settings, and when.
fn next_due(wire: &Wire, limits: &Limits, now: Tick) -> Option<(Tick, Due)> {
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
        Phase::Idle if !wire.is_flushed() => at(wire.sent, limits.write_stall, Due::WriteStall),
        Phase::Idle => at(wire.since.max(wire.sent), limits.http_keep_alive, Due::KeepAlive),
        Phase::Flushing if !wire.is_flushed() && !wire.flags.contains(Flags::OPENED) => {
            at(wire.sent, limits.write_stall, Due::WriteStall)
        }
        Phase::Closing | Phase::Flushing | Phase::Lingering => {
            at(wire.since, limits.close, Due::Close)
        }
        Phase::Open => {
            // While this side does not read, silence says nothing about the peer.
            let reads = wire.may_deliver() && !wire.is_half_closed();
            let silence = [
                at(wire.received, limits.idle, Due::Idle),
                if wire.flags.contains(Flags::PINGED) {
                    at(wire.since, limits.pong, Due::Pong)
                } else {
                    at(wire.received, limits.ping, Due::Ping)
                },
            ];
            let silence = silence.into_iter().flatten().filter(|_| reads);
            // A send may get stuck at any time without moving the timer, so look at least that often.
            let stall = if wire.flags.contains(Flags::SENDING) {
                at(wire.sent, limits.write_stall, Due::WriteStall)
            } else if wire.is_half_closed() && wire.may_deliver() {
                // What is still to be said, by a job say, takes no longer than the peer may for taking it.
                at(wire.sent.max(wire.received), limits.write_stall, Due::WriteStall)
            } else {
                at(now, limits.write_stall, Due::Look)
            };
            let lifetime = at(wire.began, limits.lifetime, Due::Lifetime);
            silence.chain(stall).chain(lifetime).min_by_key(|(tick, _)| *tick)
        }
    }
}
