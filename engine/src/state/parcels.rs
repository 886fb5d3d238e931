//! What [`Sender`](crate::Sender)s have given for a connection, on its way into the connection's queue.
//!
//! It is taken as long as less output waits than the high-water mark, and never makes as much wait. So whoever gives it
//! can neither trip the backpressure policy nor hold up reading, whatever else the connection is sent.

use crate::conn::credit::Lanes;
use crate::conn::{Phase, Wire};
use crate::driver::Token;
use crate::state::{MAX_HEADER_LEN, Shared, send};

impl Shared {
    /// Takes as much as there is room for.
    pub(crate) fn take_parcels(&mut self, wire: &mut Wire, slot: u32) {
        if wire.phase != Phase::Open {
            return;
        }
        let Some(mut lanes) = wire.pending.as_mut().and_then(|pending| pending.lanes.take()) else {
            return;
        };
        let mut waiting = wire.queued_len().max(wire.queue_cost()) + self.out.len();
        let high_water = self.limits.high_water;
        let parcels = lanes.take(|len| {
            let len = len.saturating_add(MAX_HEADER_LEN);
            // One that is longer than the mark goes where nothing waits.
            let fits = waiting == 0 || waiting.saturating_add(len) < high_water;
            waiting += if fits { len } else { 0 };
            fits
        });
        for parcel in parcels {
            send::send_through(wire, self, slot, parcel.message());
        }
        if !lanes.is_empty() {
            wire.pending_mut().lanes = Some(lanes);
        }
    }

    /// The connection begins to close: what was given before goes out first, compressed or not.
    pub(super) fn take_last_parcels(&mut self, wire: &mut Wire) {
        let lanes = wire.pending.as_mut().and_then(|pending| pending.lanes.as_mut());
        let Some(parcels) = lanes.map(|lanes| lanes.take_last().collect::<Vec<_>>()) else {
            return;
        };
        for parcel in parcels {
            // The connection is open still, so it can't fail.
            let _ = send::send_plain(wire, self, parcel.message());
        }
    }

    /// Has parcels taken in this turn or the next, if there are any.
    #[inline]
    pub(crate) fn list_for_parcels(&mut self, wire: &mut Wire, token: Token) {
        if wire.has_parcels() {
            self.list(wire, token);
        }
    }
}

/// Ends the lanes of a connection that has ended; how many parcels are lost.
pub(crate) fn lose_parcels(lanes: Option<&mut Lanes>) -> usize {
    lanes.map_or(0, |lanes| lanes.take_last().count())
}
