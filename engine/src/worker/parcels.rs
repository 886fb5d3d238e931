//! What [`Sender`](crate::Sender)s offer: the worker takes it as their connections' queues have room.
//!
//! A sender tells the worker once, when it has something and the worker has not. From then on the connection is listed
//! whenever a part of its output has gone out, until nothing is left; so it takes part in each turn like all others.

use super::Worker;
use crate::app::handler::Handler;
use crate::conn::Flags;
use crate::driver::{Driver, Token};
use crate::hub::mail::Offer;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Looks at which connections have something to take.
    pub(super) fn read_offers(&mut self) {
        // Those that come meanwhile are for the next turn.
        for _ in 0..self.inbox.offer_count() {
            let Some(offer) = self.inbox.take_offer() else { return };
            self.on_offer(offer);
        }
    }

    fn on_offer(&mut self, offer: Offer) {
        let Offer { conn: id, lane } = offer;
        let token = Token { slot: id.slot, generation: id.generation };
        let Self { conns, shared, .. } = self;
        match conns.get_mut(token).filter(|conn| conn.wire.flags.contains(Flags::OPENED)) {
            Some(conn) => {
                if let Some(lane) = lane {
                    conn.wire.pending_mut().lanes.get_or_insert_default().add(lane);
                }
                shared.list(&mut conn.wire, token);
            }
            None => {
                if let Some(lane) = lane {
                    lane.refuse();
                }
            }
        }
    }

    /// Takes what there is room for, if anything was offered.
    pub(super) fn take_parcels(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        if conn.wire.pending.as_ref().is_some_and(|pending| pending.lanes.is_some()) {
            shared.take_parcels(&mut conn.wire, token.slot);
        }
    }
}
