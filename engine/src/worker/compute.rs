//! Results of the compute threads, handed over to the handler.

use super::Worker;
use super::receive::call;
use crate::app::event::{Call, Event};
use crate::app::handler::Handler;
use crate::base::panics::quietly;
use crate::compute::Deflated;
use crate::compute::task::{self, Finished};
use crate::conn::id::ConnId;
use crate::conn::jobs::{Continuation, Jobs};
use crate::conn::{Flags, Phase};
use crate::driver::{Driver, Token};

impl<D: Driver, H: Handler> Worker<D, H> {
    /// A job is done. Hands over its result and those that waited for it, or keeps it for those before it.
    pub(super) fn on_finished(&mut self, finished: Finished) {
        let Finished { conn: id, number, then, .. } = finished;
        self.on_result(Token { slot: id.slot, generation: id.generation }, number, then);
    }

    /// The same for the result of any job.
    pub(super) fn on_result(&mut self, token: Token, number: Option<u64>, then: Continuation) {
        let Some(jobs) = self.jobs(token) else { return quietly(then) };
        if let Some(then) = jobs.finish(number, then) {
            self.hand_over(token, then);
        }
        while let Some(then) = self.jobs(token).and_then(Jobs::next_due) {
            self.hand_over(token, then);
        }
        let Self { conns, shared, .. } = self;
        if let Some(conn) = conns.get_mut(token) {
            conn.wire.note_job_end(shared.limits.max_jobs, shared.now);
        }
        if self.jobs(token).is_some_and(|jobs| jobs.is_done()) {
            self.forget_jobs(token);
        }
        self.after_work(token);
    }

    /// A message was compressed: its frame takes the place that was kept for it.
    pub(super) fn on_deflated(&mut self, deflated: Deflated) {
        let Deflated { conn: id, place, frame, payload_len } = deflated;
        let token = Token { slot: id.slot, generation: id.generation };
        let Some(jobs) = self.jobs(token) else { return };
        jobs.end();
        let is_last = jobs.is_done();
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        conn.wire.note_job_end(shared.limits.max_jobs, shared.now);
        let frame_len = frame.len();
        shared.counters.deflated_messages.add(1);
        shared.counters.deflate_in_bytes.add(payload_len);
        shared.counters.deflate_out_bytes.add(frame_len);
        // Where there is none, the message was dropped meanwhile.
        if conn.wire.pending_mut().queue.fill(place, frame) {
            shared.counters.queued_bytes.add(frame_len);
        }
        if is_last {
            self.forget_jobs(token);
        }
        self.after_work(token);
    }

    /// Does what a handle has posted for a connection.
    pub(super) fn run_on(&mut self, id: ConnId, then: task::Continuation) {
        let token = Token { slot: id.slot, generation: id.generation };
        let conn = self.conns.get_mut(token);
        if conn.is_none_or(|conn| !conn.wire.flags.contains(Flags::OPENED)) {
            return quietly(then);
        }
        self.hand_over(token, then);
        self.after_work(token);
    }

    fn hand_over(&mut self, token: Token, then: Continuation) {
        let Self { conns, handler, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return quietly(then) };
        call(handler, conn, shared, token, Event::Call(Call::new(then)));
    }

    /// The jobs of a connection whose handler was not told yet that it has ended.
    pub(super) fn jobs(&mut self, token: Token) -> Option<&mut Jobs> {
        let conn = self.conns.get_mut(token)?;
        let is_told = conn.wire.flags.contains(Flags::OPENED) || conn.wire.phase == Phase::Deferred;
        conn.wire.pending.as_mut().filter(|_| is_told)?.jobs.as_deref_mut()
    }

    pub(super) fn forget_jobs(&mut self, token: Token) {
        if let Some(conn) = self.conns.get_mut(token)
            && let Some(pending) = &mut conn.wire.pending
        {
            pending.jobs = None;
            self.shared.tidy(&mut conn.wire);
        }
    }
}
