//! Whether the sums of what is held are right, for the simulation.

use super::Worker;
use crate::app::handler::Handler;
use crate::conn::charge::Charge;
use crate::conn::{Flags, Phase};
use crate::driver::Driver;
use crate::limits::memory::Ledger;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// The most that was ever held between two pieces of work, in bytes.
    pub(crate) fn memory_peak(&self) -> usize {
        self.shared.watch.peak
    }

    pub(super) fn note_peak(&mut self) {
        let held = self.shared.held_len() + self.driver.held_len();
        self.shared.watch.peak = self.shared.watch.peak.max(held);
    }

    /// Checks that the sums are what a walk over all connections finds.
    pub(crate) fn check_memory(&mut self) {
        let Self { conns, shared, .. } = self;
        let (mut walked, mut unfinished, mut tls) = (Ledger::default(), 0, 0);
        let mut layers = 0;
        let mut is_sending = false;
        for slot in 0..conns.end() {
            let Some(token) = conns.token(slot) else { continue };
            let Some(conn) = conns.get_mut(token) else { continue };
            let wire = &conn.wire;
            // The driver has not given back yet what was in flight of one that has ended.
            is_sending |= wire.flags.contains(Flags::SENDING) || wire.phase == Phase::Closed;
            let charge = wire.pending.as_ref().map(|pending| pending.charge()).unwrap_or_default();
            walked.replace(Charge::default(), charge);
            unfinished += wire.codec.unfinished_len();
            tls += shared.sessions.memory_of(slot);
            layers += shared.layers.memory_of(slot);
        }
        let ledger = &shared.ledger;
        assert_eq!((ledger.input, ledger.queued), (walked.input, walked.queued));
        assert_eq!(ledger.unfinished, unfinished);
        assert!(is_sending || ledger.in_flight == 0, "{} bytes are in flight", ledger.in_flight);
        assert_eq!((shared.sessions.memory_len(), shared.layers.memory_len()), (tls, layers));
    }
}
