//! What a connection does next when its reply is there: with several in flight, and where connections come and go.

use std::sync::atomic::Ordering;

use ringwire::{CloseCode, Ctx, Message};

use super::replies::Reply;
use super::{Client, Seat};

impl Client {
    /// A reply with `Work::Loop`.
    pub(super) fn on_loop(
        &mut self,
        ctx: &mut Ctx<'_, Seat>,
        message: Message<'_>,
        in_flight: u32,
    ) {
        let number = ctx.state().number;
        let (now, reply) = self.count_reply(number, message);
        let missing = match reply {
            Reply::Stale => return,
            Reply::Right { missing } => missing as usize,
            Reply::Wrong => 0,
        };
        let mut behind = std::mem::take(&mut ctx.state_mut().behind);
        let before = behind.len();
        // Those that were skipped are given up: others take their places.
        behind.drain(..missing.min(before));
        let oldest = behind.pop_front();
        if let Some(sent_at) = oldest {
            self.common.mark(number, sent_at);
        }
        // The first reply opens the connection's window, each other one releases a message.
        let waiting = behind.len() + usize::from(oldest.is_some());
        let room = (in_flight as usize).saturating_sub(waiting);
        let room = if self.common.working.load(Ordering::Acquire) { room } else { 0 };
        for _ in 0..room {
            let is_first = self.common.mark(number, now);
            let ahead = if is_first { 0 } else { behind.len() + 1 };
            let _ = ctx.send(self.next_message(number, ahead));
            if !is_first {
                behind.push_back(now);
            }
        }
        self.count_sent(room as u64);
        self.common.set_behind(before, behind.len());
        ctx.state_mut().behind = behind;
    }

    /// Goes on with a connection that has had its last reply, or that is new.
    pub(super) fn churn(&mut self, ctx: &mut Ctx<'_, Seat>, now: u64, messages: u64) {
        let &mut Seat { number, answered, .. } = ctx.state_mut();
        let goes_on = answered < messages && self.common.working.load(Ordering::Acquire);
        if goes_on && self.common.mark(number, now) {
            let _ = ctx.send(self.next_message(number, 0));
            self.count_sent(1);
        } else {
            // Refused only if a close has begun already.
            let _ = ctx.close(CloseCode::NORMAL, "");
        }
    }

    /// A reply with `Work::Churn`.
    pub(super) fn on_churn(
        &mut self,
        ctx: &mut Ctx<'_, Seat>,
        message: Message<'_>,
        messages: u64,
    ) {
        let (now, reply) = self.count_reply(ctx.state().number, message);
        if reply == Reply::Stale {
            return;
        }
        ctx.state_mut().answered += 1;
        self.churn(ctx, now, messages);
    }
}
