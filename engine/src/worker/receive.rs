//! What comes in once a connection is open: frames, and the calls they lead to.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringwire_codec::{Buffers, CloseCode, CloseFrame, Error, Event as Received, Input};

use crate::app::ctx::Ctx;
use crate::app::event::Event;
use crate::app::handler::Handler;
use crate::conn::cause::{CloseCause, CloseReason};
use crate::conn::id::ConnId;
use crate::conn::{Conn, Flags, Phase, Wire};
use crate::driver::{SendNow, Token};
use crate::limits::Excess;
use crate::limits::rate::{Rates, Verdict};
use crate::state::Shared;
use crate::state::send;

/// Keeps input for later.
pub(super) fn keep_unread(wire: &mut Wire, shared: &mut Shared, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let pending = wire.pending_mut();
    if pending.unread.capacity() == 0 {
        pending.unread = shared.pool.take(bytes.len());
    }
    pending.unread.extend_from_slice(bytes);
}

// Frames

/// Delivers what may be delivered now, and keeps the rest.
#[inline]
pub(super) fn deliver_or_keep<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    bytes: &mut [u8],
    direct: Option<&dyn SendNow>,
) {
    let unused = if conn.wire.may_deliver() && !conn.wire.has_unread() {
        deliver(handler, conn, shared, token, bytes, direct)
    } else {
        bytes.len()
    };
    if unused > 0 && conn.wire.keeps_input() {
        keep_unread(&mut conn.wire, shared, &bytes[bytes.len() - unused..]);
    }
}

/// Delivers what was left unread, as far as that is possible now.
pub(super) fn deliver_unread<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    direct: Option<&dyn SendNow>,
) {
    if !conn.wire.has_unread() || !conn.wire.may_deliver() {
        return;
    }
    let Some(pending) = &mut conn.wire.pending else { return };
    let mut unread = std::mem::take(&mut pending.unread);
    let start = std::mem::take(&mut pending.unread_start);
    let unused = deliver(handler, conn, shared, token, &mut unread[start..], direct);
    if unused > 0 && conn.wire.keeps_input() {
        let pending = conn.wire.pending_mut();
        pending.unread_start = unread.len() - unused;
        pending.unread = unread;
    } else {
        shared.pool.give(unread);
    }
}

/// The connection is about to fail for what came behind all that is unread: delivers this, whatever the turn's budget,
/// but for what may not be delivered yet.
pub(super) fn deliver_before_failure<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
) {
    let was_served = shared.work.serve(true);
    let mut before = usize::MAX;
    while conn.wire.may_deliver() && (1..before).contains(&conn.wire.unread_len()) {
        before = conn.wire.unread_len();
        deliver_unread(handler, conn, shared, token, None);
    }
    shared.work.serve(was_served);
}

/// Takes frames out of `bytes` and calls the handler, until all are used up, the turn's budget is, or nothing may
/// be delivered any more. Returns how many bytes at the end were not used.
pub(super) fn deliver<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    bytes: &mut [u8],
    direct: Option<&dyn SendNow>,
) -> usize {
    if conn.wire.flags.contains(Flags::DEFLATE) {
        return deliver_in_turn(handler, conn, shared, token, bytes);
    }
    let budget = Budget { messages: shared.limits.messages_per_turn, work: u64::MAX, direct };
    deliver_budgeted(budget, handler, conn, shared, token, bytes)
}

/// The same where a message may be much work, with what the turn has left for that.
#[inline(never)]
fn deliver_in_turn<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    bytes: &mut [u8],
) -> usize {
    let Some(work) = shared.work.allowed() else { return bytes.len() };
    let before = shared.work.before();
    let messages = shared.limits.messages_per_turn;
    let budget = Budget { messages, work, direct: None };
    let unused = deliver_budgeted(budget, handler, conn, shared, token, bytes);
    shared.work.charge(token.slot, before);
    unused
}

/// The same within a budget, whether or not a peer may say only so much.
#[inline]
fn deliver_budgeted<H: Handler>(
    mut budget: Budget<'_>,
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    bytes: &mut [u8],
) -> usize {
    if shared.limits.rates.is_some() {
        return deliver_metered(budget, handler, conn, shared, token, bytes);
    }
    deliver_within(&mut budget, handler, conn, shared, token, bytes)
}

/// The same where a peer may say only so much, whose budget may be less.
#[inline(never)]
fn deliver_metered<H: Handler>(
    mut budget: Budget<'_>,
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    bytes: &mut [u8],
) -> usize {
    let len = bytes.len();
    let per_turn = budget.messages;
    let Some(rates) = shared.limits.rates.filter(|_| conn.wire.phase == Phase::Open) else {
        return deliver_within(&mut budget, handler, conn, shared, token, bytes);
    };
    let allowed = shared.meters.allowed(token.slot, rates, shared.now);
    let (granted, looked_at) = match rates.excess {
        // A receive, or what waited unread, may hold seconds' worth of bytes.
        Excess::Pause => (allowed.messages.min(per_turn), allowed.len.min(len)),
        // The first message too much is known only once it is there.
        Excess::Close(_) => (allowed.messages.saturating_add(1).min(per_turn), len),
    };
    budget.messages = granted;
    // What inflates to more than is left ends it as well.
    budget.work = budget.work.min(shared.work.done().saturating_add(allowed.len.max(1) as u64));
    let before = shared.work.before();
    let (bytes, later) = bytes.split_at_mut(looked_at);
    let unused = deliver_within(&mut budget, handler, conn, shared, token, bytes) + later.len();
    let taken = (len - unused).saturating_add(shared.work.gained_since(before));
    let messages = granted - budget.messages;
    let verdict = shared.meters.charge(token.slot, rates, messages, taken);
    let Verdict::Empty { is_overdrawn } = verdict else { return unused };
    if conn.wire.phase == Phase::Open {
        on_excess(&mut conn.wire, shared, token, rates, unused, is_overdrawn);
    }
    unused
}

/// A peer has used up what it may say.
fn on_excess(
    wire: &mut Wire,
    shared: &mut Shared,
    token: Token,
    rates: Rates,
    unused: usize,
    is_overdrawn: bool,
) {
    match rates.excess {
        Excess::Pause if unused > 0 || is_overdrawn => {
            wire.flags.insert(Flags::THROTTLED);
            shared.counters.throttles.add(1);
            let ready = shared.meters.ready_at(token.slot, rates);
            shared.wheel.set_earlier(token.slot, ready);
        }
        Excess::Close(code) if is_overdrawn => {
            let why = CloseReason::RateLimit;
            let text = "too much at once";
            // The phase is Open, so no close has begun.
            let _ = send::close(wire, shared, why, code, text);
        }
        _ => {}
    }
}

/// What a connection may still take of a turn.
struct Budget<'d> {
    messages: usize,
    /// Up to which sum of all [`Work`](crate::limits::work::Work) that is done.
    work: u64,
    /// Where long replies go out at once, if they may.
    direct: Option<&'d dyn SendNow>,
}

/// The same within a budget. Nothing else changes what is held of a message that is not whole.
#[inline]
fn deliver_within<H: Handler>(
    budget: &mut Budget<'_>,
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    bytes: &mut [u8],
) -> usize {
    let before = conn.wire.codec.unfinished_len();
    let mut input = Input::new(bytes);
    let unused = loop {
        let is_used_up = budget.messages == 0 || shared.work.done() >= budget.work;
        if is_used_up || !conn.wire.may_deliver() {
            break input.len();
        }
        let event = if conn.wire.flags.intersects(Flags::SPECIAL_INPUT) {
            shared.receive_specially(&mut conn.wire, token.slot, &mut input)
        } else {
            conn.wire.codec.receive(&shared.limits.protocol, &mut shared.pool, &mut input)
        };
        match event {
            Ok(Some(event)) => on_event(handler, conn, shared, token, event, budget.direct),
            Ok(None) => break 0,
            Err(error) => {
                fail(&mut conn.wire, shared, error);
                break 0;
            }
        }
        budget.messages -= 1;
    };
    shared.ledger.unfinished += conn.wire.codec.unfinished_len();
    shared.ledger.unfinished -= before;
    unused
}

#[inline]
fn on_event<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    event: Received<'_>,
    direct: Option<&dyn SendNow>,
) {
    match event {
        Received::Message(message) => {
            shared.counters.messages_received.add(1);
            shared.heard_len = shared.heard_len.max(message.as_message().len());
            call_with(handler, conn, shared, token, Event::Message(message.as_message()), direct);
            if let Some(buffer) = message.into_buffer() {
                shared.pool.give(buffer);
            }
        }
        Received::Part(part) => {
            shared.counters.messages_received.add(1);
            call(handler, conn, shared, token, Event::Part(part));
        }
        Received::InflatedPart(part) => {
            shared.counters.messages_received.add(1);
            call(handler, conn, shared, token, Event::Part(part.as_part()));
            shared.pool.give(part.into_buffer());
        }
        Received::Ping(payload) => {
            // In its place among the answers.
            if conn.wire.takes_pongs() {
                conn.wire.codec.poll_transmit(&mut shared.masks, &mut shared.out);
            }
            call(handler, conn, shared, token, Event::Ping(&payload));
        }
        Received::Pong(_) if !shared.limits.reports_pongs => {}
        Received::Pong(payload) => {
            call(handler, conn, shared, token, Event::Pong(&payload));
        }
        Received::Close(frame) => on_close_frame(&mut conn.wire, shared, &frame),
    }
}

/// The peer's close frame: it is answered with what it says (RFC 6455 §5.5.1), or it was the answer.
fn on_close_frame(wire: &mut Wire, shared: &mut Shared, frame: &CloseFrame<'_>) {
    if wire.phase != Phase::Open {
        return;
    }
    let cause = wire.blame(CloseReason::Peer);
    cause.code = frame.code;
    frame.reason.as_ref().clone_into(&mut cause.text);
    wire.phase = Phase::Closing;
    wire.since = shared.now;
    if let Some(code) = frame.code {
        let Shared { masks, out, .. } = shared;
        // A code that may be received and not sent is answered by the codec, without the reason.
        let _ = wire.codec.close(code, &frame.reason, masks, out);
    }
}

/// The peer broke the protocol: the codec owes the close frame that says so.
fn fail(wire: &mut Wire, shared: &Shared, error: Error) {
    condemn(wire, shared, CloseReason::Protocol(error), error.close_code(), "");
}

/// Ends a connection for what its peer did: the close frame that says so is the last that is sent.
pub(super) fn condemn(
    wire: &mut Wire,
    shared: &Shared,
    reason: CloseReason,
    code: CloseCode,
    text: &str,
) {
    match &mut wire.pending_mut().cause {
        // The close frame that is out already stands, and so does a fault that it was for.
        Some(cause) if cause.is_fault() && cause.reason != CloseReason::EndOfStream => {}
        Some(cause) if cause.reason != CloseReason::EndOfStream => cause.reason = reason,
        none => {
            let cause = none.insert(CloseCause::new(reason));
            cause.code = Some(code);
            text.clone_into(&mut cause.text);
        }
    }
    wire.phase = Phase::Flushing;
    wire.since = shared.now;
}

// Calls

/// Calls the handler. If it panics, the connection is closed and the worker lives on.
#[inline]
pub(super) fn call<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    event: Event<'_>,
) {
    call_with(handler, conn, shared, token, event, None);
}

/// The same where what it sends may go out at once.
#[inline]
fn call_with<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    event: Event<'_>,
    direct: Option<&dyn SendNow>,
) {
    let Conn { wire, state: Some(state) } = conn else { return };
    let id = shared.id(token);
    let result = catch_unwind(AssertUnwindSafe(|| {
        handler.handle(&mut Ctx::new(id, wire, state, shared, direct), event);
    }));
    if result.is_err() {
        on_panic(wire, shared, id);
    }
}

#[cold]
pub(super) fn on_panic(wire: &mut Wire, shared: &mut Shared, id: ConnId) {
    crate::base::event::error!(conn = %id, "the handler panicked");
    let why = CloseReason::HandlerPanic;
    // Only a close that has begun refuses another.
    let _ = send::close(wire, shared, why, CloseCode::INTERNAL_ERROR, "");
}

/// Tells the handler that the connection has ended. A panic changes nothing any more.
pub(super) fn call_on_close<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    cause: &CloseCause,
) {
    call(handler, conn, shared, token, Event::Close(cause));
    // The application's destructor may panic as well.
    let state = conn.state.take();
    let _ = catch_unwind(AssertUnwindSafe(|| drop(state)));
    // Whatever it tried is void.
    conn.wire.pending = None;
    conn.wire.phase = Phase::Closed;
}
