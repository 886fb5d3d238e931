//! When the engine holds too much for its connections: who is not let in, and who has to go.

use std::collections::BinaryHeap;

use http::StatusCode;
use ringwire_codec::http::{Exchange, Response};
use ringwire_codec::{Buffers as _, CloseCode};

use super::Worker;
use super::http::write_answer;
use super::shutdown::unavailable;
use crate::app::handler::Handler;
use crate::base::timer::Tick;
use crate::conn::cause::CloseReason;
use crate::conn::options::Backpressure;
use crate::conn::{Flags, Phase, Wire};
use crate::driver::{Driver, Token};
use crate::limits::memory::{BESIDE_A_SLOT, Ended, Level, PATIENCE};
use crate::state::Shared;
use crate::state::send;

/// When whoever was refused may come back.
const RETRY_AFTER_SECS: u32 = 10;
/// How long the table is not walked over again where that found less than was too much, in ticks.
const REST: Tick = 2;
/// The same where it was about those who were not let in yet.
const STRANGERS_REST: Tick = 10;
/// What may stay in flight, or in the kernel, of a connection that is still told why it ends.
const MAX_FAREWELL_LEN: usize = 16 << 10;

/// Connections that hold less are spared where ending all of them would not free enough.
const TRIFLE_LEN: usize = 4 << 10;

/// Connections by what they hold, those that hold most first.
type Holders = BinaryHeap<(usize, u32)>;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Says what this worker holds, for the others to see.
    #[inline]
    pub(super) fn publish_memory(&self) {
        let Shared { ledger, sessions, layers, counters, pool, .. } = &self.shared;
        let slots = self.conns.end() as usize * BESIDE_A_SLOT;
        counters.memory_tables.set((self.conns.memory_len() + slots) as u64);
        let waiting = layers.memory_len() + self.driver.held_len();
        let input = ledger.input + ledger.unfinished + waiting;
        counters.memory_input.set(input as u64);
        counters.memory_output.set((ledger.queued + ledger.in_flight) as u64);
        counters.memory_kernel.set(self.shared.kernel.len() as u64);
        counters.memory_tls.set(sessions.memory_len() as u64);
        counters.memory_pool.set(pool.free_len() as u64);
    }

    /// Looks at what all workers hold: once a tick, and when this one holds much more or less than before.
    #[inline]
    pub(super) fn watch_memory(&mut self) {
        let Shared { watch, now, hub, .. } = &self.shared;
        if watch.is_due(*now, self.held_len()) || watch.met != hub.memory_demands() {
            self.look_at_memory();
        }
    }

    /// The same within a turn, after each piece of work: a turn may bring far more than there is room for.
    #[inline]
    pub(super) fn bound_memory(&mut self) {
        #[cfg(test)]
        self.note_peak();
        if self.shared.watch.has_grown(self.held_len()) {
            self.publish_memory();
            self.look_at_memory();
            self.make_room_if_short();
        }
    }

    /// The same at the end of a turn.
    #[inline]
    pub(super) fn make_room(&mut self) {
        self.watch_memory();
        if self.shared.watch.level != Level::Low {
            self.make_room_if_short();
        } else if self.shared.kernel.is_due(self.shared.now, Level::Low) {
            self.ask_kernel();
        }
    }

    /// While too much is held, nothing more is received of a connection with an unfinished message or request.
    #[inline]
    pub(super) fn hold_up_if_short(&mut self, token: Token) {
        if self.shared.watch.level == Level::Over {
            self.hold_up(token);
        }
    }

    #[inline]
    fn held_len(&self) -> usize {
        self.shared.held_len() + self.driver.held_len()
    }

    #[cold]
    fn look_at_memory(&mut self) {
        let held = self.held_len();
        let Shared { watch, now, hub, worker, limits, .. } = &mut self.shared;
        let (was_low, demands) = (watch.level == Level::Low, hub.memory_demands());
        let used = hub.memory().used_len;
        watch.note(*now, held, hub.memory_level(used));
        let delay = limits.memory_return.filter(|_| hub.slack().is_large(used));
        watch.returns_at = delay.map(|delay| watch.returns_at.unwrap_or(*now + delay));
        if watch.level == Level::Low {
            watch.met = demands;
        } else if was_low {
            // Others may hold the most of it, and be asleep.
            hub.nudge(*worker);
        }
        if watch.level < Level::Over {
            watch.rests_until = None;
            watch.leaving = 0;
            self.let_go_on();
        }
        if self.shared.watch.returns_at.is_some_and(|at| self.shared.now >= at) {
            self.return_memory(used);
        }
    }

    /// Much less has been used for a while than before.
    fn return_memory(&mut self, used: usize) {
        let Shared { watch, hub, pool, .. } = &mut self.shared;
        watch.returns_at = None;
        hub.slack().forget(used);
        pool.clear();
        self.driver.return_free_memory();
    }

    #[cold]
    fn make_room_if_short(&mut self) {
        let Shared { kernel, watch, now, .. } = &self.shared;
        if kernel.is_due(*now, watch.level) {
            self.ask_kernel();
        }
        // What was held at the last look may be gone.
        self.look_at_memory();
        let Shared { watch, now, hub, .. } = &mut self.shared;
        if watch.level == Level::Low {
            return;
        }
        let demands = hub.memory_demands();
        let is_demanded = std::mem::replace(&mut watch.met, demands) != demands;
        if *now >= watch.strangers_rest_until {
            self.send_strangers_away();
        }
        let Shared { watch, now, .. } = &self.shared;
        let is_due = |at: Option<Tick>| at.is_some_and(|at| *now >= at);
        if watch.level == Level::Over {
            if watch.rests_until.is_none() || is_due(watch.rests_until) {
                // If that does not help, they go on a little at a time.
                self.let_go_on();
                // What has not come back by now does not count as on its way.
                self.shared.watch.leaving = 0;
                self.shed();
            } else if watch.has_grown_in_rest() {
                self.shed();
            }
        } else if is_demanded {
            self.give_up_excess();
        } else if is_due(watch.patience_ends) {
            self.lose_patience();
        }
    }

    /// Asks the kernel what it holds of output that does not go out.
    #[cold]
    fn ask_kernel(&mut self) {
        let Self { conns, shared, driver, .. } = self;
        shared.kernel.ask(shared.now);
        for slot in 0..conns.end() {
            let Some(token) = conns.token(slot) else { continue };
            let Some(conn) = conns.get_mut(token) else { continue };
            let wire = &conn.wire;
            let waits = wire.phase != Phase::Closed && wire.flags.contains(Flags::SENDING);
            if waits || shared.kernel.of(slot) > 0 {
                shared.kernel.note(slot, driver.unsent_memory(token));
            }
        }
        self.publish_memory();
    }

    /// What of this worker's is too much for others to be let in.
    fn excess(&self) -> usize {
        let Shared { hub, counters, .. } = &self.shared;
        // Where the most of it is none that comes free with a connection, nobody is ended for holding a little.
        let fixed = counters.memory_tables.get() + counters.deflate_memory.get();
        let fixed = usize::try_from(fixed).unwrap_or(usize::MAX);
        hub.memory_excess(counters.memory_len(), fixed)
    }

    /// Answers those whose requests are not whole yet as they would be answered anyway, those that hold most first, so
    /// that others may come in their place.
    fn send_strangers_away(&mut self) {
        let excess = self.excess();
        let holders = self.holders(|wire, _, beside| {
            let holds = beside.session + wire.codec.unfinished_len() + beside.rest;
            let pending = wire.pending.as_ref().map_or(0, |pending| pending.charged.sum());
            if is_stranger(wire) { holds + pending } else { 0 }
        });
        let ended = self.end_some(holders, excess, Self::send_away);
        let Shared { watch, now, counters, .. } = &mut self.shared;
        if ended.freed < excess {
            watch.strangers_rest_until = *now + STRANGERS_REST;
        }
        counters.memory_refusals.add(ended.count);
        self.say_ended(excess, ended);
    }

    /// Too much is held. If it still is much when this worker has its share, others have more than theirs.
    fn shed(&mut self) {
        self.give_up_excess();
        let Shared { hub, watch, worker, .. } = &mut self.shared;
        if watch.level != Level::Low {
            watch.met = hub.demand_memory(*worker);
        }
    }

    /// Ends those connections that hold most, so that this worker has its share.
    fn give_up_excess(&mut self) {
        let excess = self.excess();
        if excess == 0 {
            // Others hold it. What comes in here meanwhile may be too much as well.
            return self.rest();
        }
        let goal = excess.saturating_sub(self.shared.watch.leaving);
        let holders = self.holders(|wire, now, beside| {
            wire.held_len(now, beside.kernel > 0) + beside.retained + beside.rest + beside.kernel
        });
        let ended = self.end_some(holders, goal, Self::shed_one);
        self.shared.counters.memory_sheds.add(ended.count);
        if ended.freed < goal || self.shared.watch.leaving > 0 {
            self.rest();
        }
        self.say_ended(excess, ended);
    }

    /// Another walk over the table would find next to nothing.
    fn rest(&mut self) {
        let left = self.held_len();
        let Shared { watch, now, .. } = &mut self.shared;
        watch.rest(*now + REST, left);
    }

    /// Others have been kept out for long enough. Queued output has deadlines of its own. An unfinished message has
    /// none, and a full socket need not have one, so the connections that hold most of these are ended.
    fn lose_patience(&mut self) {
        let Shared { watch, now, .. } = &mut self.shared;
        watch.patience_ends = Some(*now + PATIENCE);
        let excess = self.excess();
        if excess == 0 {
            return self.shared.hub.nudge(self.shared.worker);
        }
        let holders = self.holders(|wire, _, beside| {
            let unread = wire.pending.as_ref().map_or(0, |pending| pending.unread.capacity());
            let stuck = if beside.kernel > 0 { beside.kernel + wire.in_flight as usize } else { 0 };
            wire.codec.unfinished_len() + unread + beside.retained + beside.rest + stuck
        });
        let ended = self.end_some(holders, excess, Self::shed_one);
        self.shared.counters.memory_sheds.add(ended.count);
        self.say_ended(excess, ended);
    }

    /// Ends connections, those that hold most first, until so much came free. Where all of them hold less than that,
    /// the rest is on its way out, and nobody is ended for a trifle.
    fn end_some(&mut self, mut holders: Holders, goal: usize, end: fn(&mut Self, Token)) -> Ended {
        let all: usize = holders.iter().map(|(held, _)| held).sum();
        let least = if all < goal { TRIFLE_LEN } else { 0 };
        let mut ended = Ended::default();
        while ended.freed < goal
            && let Some((held, slot)) = holders.pop()
            && held >= least
        {
            ended.freed += held;
            ended.count += 1;
            if let Some(token) = self.conns.token(slot) {
                end(self, token);
            }
        }
        ended
    }

    /// Says that connections were ended, and looks at what that has changed.
    fn say_ended(&mut self, excess: usize, ended: Ended) {
        if ended.count == 0 {
            return;
        }
        let Shared { watch, now, .. } = &mut self.shared;
        if let Some(Ended { count, freed }) = watch.tell(*now, ended) {
            crate::base::event::warn!(
                excess,
                count,
                freed,
                "short of memory: connections were ended"
            );
        }
        self.publish_memory();
        self.look_at_memory();
    }

    /// The connections of which `measure` finds something.
    fn holders(&mut self, measure: impl Fn(&Wire, Tick, Beside) -> usize) -> Holders {
        let now = self.shared.now;
        let Self { conns, shared, driver, .. } = self;
        let held = (0..conns.end()).filter_map(|slot| {
            let wire = &conns.get_mut(conns.token(slot)?)?.wire;
            if wire.phase == Phase::Closed {
                return None;
            }
            let mut beside = Beside {
                rest: driver.held_of(slot),
                kernel: shared.kernel.of(slot),
                ..Beside::default()
            };
            if wire.flags.contains(Flags::LAYERED) {
                beside.rest += shared.layers.memory_of(slot);
                beside.retained = shared.sessions.retained_of(slot);
                beside.session = shared.sessions.charge_of(slot);
            }
            let held = measure(wire, now, beside);
            (held > 0).then_some((held, slot))
        });
        held.collect::<Vec<_>>().into()
    }

    /// Drops what a connection holds, and ends it: with a close frame, where that does not have to wait for much.
    fn shed_one(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let ahead = (wire.in_flight as usize).max(shared.kernel.of(token.slot));
        if wire.phase != Phase::Open || ahead > MAX_FAREWELL_LEN {
            shared.watch.leaving += wire.in_flight as usize;
            return self.finish(token, CloseReason::Memory);
        }
        let unsent_len = wire.queued_len() - wire.in_flight as usize;
        shared.drop_waiting(wire);
        let code = match shared.limits.backpressure {
            Backpressure::Close(code) => code,
            Backpressure::DropNewest | Backpressure::DropOldest => CloseCode::TRY_AGAIN_LATER,
        };
        // The phase is Open, so no close has begun.
        let text = "the server is short of memory";
        let _ = send::close(wire, shared, CloseReason::Memory, code, text);
        wire.blame(CloseReason::Memory).unsent_len = unsent_len;
        // What the peer says is not looked at any more: its beginning is gone.
        wire.phase = Phase::Flushing;
        self.after_work(token);
    }

    /// Refuses a request that is not whole. Who has not come as far as a request is cut off.
    fn send_away(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        if wire.phase == Phase::Proxied || shared.sessions.is_handshaking(token.slot) {
            return self.finish(token, CloseReason::Memory);
        }
        shared.drop_waiting(wire);
        shared.refuse_unfinished(wire);
        self.after_work(token);
    }

    #[cold]
    fn hold_up(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let receives = matches!(wire.phase, Phase::Proxied | Phase::Handshake | Phase::Open);
        let holds = wire.codec.unfinished_len() > 0
            || wire.has_unread()
            || shared.sessions.retained_of(token.slot) > 0;
        if receives && holds && !wire.flags.contains(Flags::THROTTLED) {
            wire.flags.insert(Flags::THROTTLED);
            shared.watch.held_up.push(token);
            self.after_work(token);
        }
    }

    /// There is memory again.
    fn let_go_on(&mut self) {
        for token in std::mem::take(&mut self.shared.watch.held_up) {
            let Some(conn) = self.conns.get_mut(token) else { continue };
            if conn.wire.flags.contains(Flags::THROTTLED) {
                conn.wire.release(Flags::THROTTLED, self.shared.now);
                self.shared.list(&mut conn.wire, token);
            }
        }
    }
}

/// What stands beside a connection, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    /// Its TLS session, if it has one.
    session: usize,
    /// Input in that which is not whole.
    retained: usize,
    /// What extensions and the driver hold.
    rest: usize,
    /// What the kernel holds of its output.
    kernel: usize,
}

/// Whether it has come in and asked for nothing yet.
fn is_stranger(wire: &Wire) -> bool {
    let asks = matches!(wire.phase, Phase::Proxied | Phase::Handshake);
    asks && !wire.flags.contains(Flags::CLIENT)
}

impl Shared {
    /// Drops all that waits on a connection, in either direction.
    pub(super) fn drop_waiting(&mut self, wire: &mut Wire) {
        self.drop_output(wire);
        if let Some(pending) = &mut wire.pending {
            self.pool.give(std::mem::take(&mut pending.unread));
            pending.unread_start = 0;
            self.pool.give(std::mem::take(&mut pending.head));
            if let Some(incoming) = pending.incoming.take() {
                self.pool.give(incoming.content);
            }
        }
        self.drop_unfinished(wire);
    }

    /// Drops the message that has begun.
    pub(super) fn drop_unfinished(&mut self, wire: &mut Wire) {
        self.ledger.unfinished -= wire.codec.unfinished_len();
        wire.codec.clear(&mut self.pool);
    }

    /// Whether nobody new is let in.
    #[inline]
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.watch.level != Level::Low
    }

    /// Refuses a request before it is whole. The answer has no body, for it may be one to HEAD.
    pub(super) fn refuse_unfinished(&mut self, wire: &mut Wire) {
        let refusal = unavailable(Response::new(StatusCode::SERVICE_UNAVAILABLE), RETRY_AFTER_SECS);
        self.counters.handshake_failures.add(1);
        write_answer(wire, self, Exchange::LAST, &refusal);
    }

    /// The answer to those who come while it is so.
    pub(super) fn refuse_for_memory(&self) -> Response {
        self.counters.memory_refusals.add(1);
        unavailable(Response::text("the server is short of memory\n"), RETRY_AFTER_SECS)
    }
}
