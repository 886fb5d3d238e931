//! When the engine holds too much for its connections: who is not let in, and who has to go.

use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ringwire_codec::http::Response;
use ringwire_codec::{Buffers as _, CloseCode};

use super::Worker;
use super::shutdown::unavailable;
use crate::app::ctx;
use crate::app::handler::Handler;
use crate::app::request::Request;
use crate::base::timer::Tick;
use crate::conn::cause::CloseReason;
use crate::conn::options::Backpressure;
use crate::conn::{Phase, Wire};
use crate::driver::{Driver, Token};
use crate::limits::memory::{BESIDE_A_SLOT, Level};
use crate::state::Shared;

/// When whoever was refused may come back.
const RETRY_AFTER_SECS: u32 = 10;
/// How long nothing more is shed, in ticks, so that what was shed is out before it is looked again.
const REST: Tick = 2;
/// A connection that holds less than this is not ended for it.
const MIN_HELD_LEN: usize = 4 << 10;
/// What may stay in flight of a connection that is still told why it ends.
const MAX_FAREWELL_LEN: u32 = 16 << 10;

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
        counters.memory_kernel.set(self.shared.progress.waiting_len() as u64);
        counters.memory_tls.set(sessions.memory_len() as u64);
        counters.memory_pool.set(pool.free_len() as u64);
    }

    /// Looks at what all workers hold: once a tick, and when this one holds much more or less than before.
    #[inline]
    pub(super) fn watch_memory(&mut self) {
        let Shared { watch, ledger, now, .. } = &self.shared;
        if watch.is_due(*now, ledger.held()) {
            self.look_at_memory();
        }
    }

    /// The same at the end of a turn, when what the driver had is given back: ends connections where it is too much.
    #[inline]
    pub(super) fn make_room(&mut self) {
        self.watch_memory();
        if self.shared.watch.level == Level::Over {
            self.shed_if_rested();
        }
    }

    #[cold]
    fn look_at_memory(&mut self) {
        let Shared { watch, ledger, now, hub, .. } = &mut self.shared;
        let level = hub.memory_level();
        watch.note(*now, ledger.held(), level);
        if level < Level::Over {
            watch.rests_until = None;
        }
    }

    #[cold]
    fn shed_if_rested(&mut self) {
        // What was held at the last look may be gone.
        self.look_at_memory();
        let Shared { watch, now, .. } = &mut self.shared;
        if watch.level == Level::Over && watch.rests_until.is_none_or(|until| *now >= until) {
            watch.rests_until = Some(*now + REST);
            self.shed();
        }
    }

    /// Ends those connections that hold most, so that this worker has its share.
    ///
    /// A send in flight has more memory than what is left of it, by an amount that only its end shows. So this ends
    /// what surely frees half of what is too much, and looks again after a rest.
    fn shed(&mut self) {
        let hub = &self.shared.hub;
        let own = self.shared.counters.memory_len();
        let excess = own.saturating_sub(hub.memory_share());
        if excess == 0 {
            // Others hold it, and may be asleep.
            return hub.nudge(self.shared.worker);
        }
        let mut holders = self.holders();
        let (mut count, mut freed) = (0_usize, 0);
        while freed < excess / 2
            && let Some((held, slot)) = holders.pop()
        {
            freed += held;
            count += 1;
            if let Some(token) = self.conns.token(slot) {
                self.shed_one(token);
            }
        }
        self.shared.counters.memory_sheds.add(count);
        crate::base::event::warn!(
            own,
            excess,
            count,
            freed,
            "out of memory: connections were ended"
        );
    }

    /// The connections that hold something, those that hold most first.
    fn holders(&mut self) -> BinaryHeap<(usize, u32)> {
        let now = self.shared.now;
        let Self { conns, shared, driver, .. } = self;
        let held = (0..conns.end()).filter_map(|slot| {
            let wire = &conns.get_mut(conns.token(slot)?)?.wire;
            let beside = shared.layers.memory_of(slot) + driver.held_of(slot);
            let beside = beside + shared.progress.waiting_of(slot);
            let held = wire.held_len(now) + beside;
            (wire.phase != Phase::Closed && held >= MIN_HELD_LEN).then_some((held, slot))
        });
        held.collect::<Vec<_>>().into()
    }

    /// Drops what a connection holds, and ends it: with a close frame, where that does not have to wait for much.
    fn shed_one(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        if wire.phase != Phase::Open || wire.in_flight > MAX_FAREWELL_LEN {
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
        let _ = ctx::close(wire, shared, CloseReason::Memory, code, text);
        wire.blame(CloseReason::Memory).unsent_len = unsent_len;
        // What the peer says is not looked at any more: its beginning is gone.
        wire.phase = Phase::Flushing;
        self.after_work(token);
    }
}

impl Shared {
    /// Drops all that waits on a connection, in either direction.
    fn drop_waiting(&mut self, wire: &mut Wire) {
        self.drop_output(wire);
        if let Some(pending) = &mut wire.pending {
            self.pool.give(std::mem::take(&mut pending.unread));
            pending.unread_start = 0;
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

    /// The answer to those who come while it is so.
    pub(super) fn refuse_for_memory(&self) -> Response {
        self.counters.memory_refusals.add(1);
        unavailable(RETRY_AFTER_SECS)
    }
}

/// Whether a request is answered whatever memory there is. A handler that panics over it does not say so.
pub(super) fn is_monitoring<H: Handler>(handler: &mut H, request: &Request<'_>) -> bool {
    catch_unwind(AssertUnwindSafe(|| handler.is_monitoring(request))).unwrap_or(false)
}
