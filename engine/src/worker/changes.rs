//! What the handler is told of all workers: who has got which name and who has it no more, and what has subscribers.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Worker;
use crate::app::handler::Handler;
use crate::app::presence::{Interest, Presence};
use crate::driver::Driver;

/// About so many calls of each kind in a turn. The rest follows in the next ones.
const CALLS_PER_TURN: u32 = 1024;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Whether there is something to tell.
    #[inline]
    pub(super) fn has_changes(&self) -> bool {
        let hub = &self.shared.hub;
        let worker = self.shared.worker;
        hub.registry().has_changes(worker) || hub.exchange().has_changes(worker)
    }

    /// Tells the handler what has changed in the lists that are this worker's to tell.
    #[inline]
    pub(super) fn tell_changes(&mut self) {
        if self.has_changes() {
            self.call_of_changes();
        }
    }

    /// The worker ends, and another goes on with its lists.
    pub(super) fn leave_changes(&mut self) {
        let (hub, worker) = (self.shared.hub.clone(), self.shared.worker);
        let heirs = [hub.registry().retire(worker), hub.exchange().retire(worker)];
        heirs.into_iter().flatten().for_each(|heir| hub.wake(heir));
        // Without another worker, it keeps what is left.
        while self.has_changes() {
            self.call_of_changes();
        }
    }

    /// There is no connection that could be closed if a call panics.
    fn call_of_changes(&mut self) {
        let Self { handler, shared, .. } = self;
        let (hub, worker) = (&shared.hub, shared.worker);
        for (name, change) in hub.registry().take(worker, CALLS_PER_TURN) {
            let presence = Presence::new(&name, change);
            let call = || handler.on_presence(&presence);
            if catch_unwind(AssertUnwindSafe(call)).is_err() {
                crate::base::event::error!(?presence, "the handler panicked when told of a name");
            }
        }
        for (text, change) in hub.exchange().take_changes(worker, CALLS_PER_TURN) {
            let Some(interest) = Interest::new(&text, change) else { continue };
            let call = || handler.on_interest(&interest);
            if catch_unwind(AssertUnwindSafe(call)).is_err() {
                crate::base::event::error!(?interest, "the handler panicked when told of a topic");
            }
        }
    }
}
