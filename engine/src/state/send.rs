//! Sending on a connection: at once, or behind what waits.

use ringwire_codec::mask::mask_extend;
use ringwire_codec::{CloseCode, Message, SendError, cut_reason};

use crate::base::output::Output;
use crate::base::timer::ticks_of;
use crate::conn::cause::CloseReason;
use crate::conn::options::{Backpressure, Compress, SendOptions, Sent};
use crate::conn::queue::SegmentKind;
use crate::conn::{Flags, Phase, Wire};
use crate::driver::{SendNow, Token};
use crate::state::Shared;

/// See [`Ctx::send`](crate::Ctx::send).
#[inline]
pub(crate) fn send(
    wire: &mut Wire,
    shared: &mut Shared,
    slot: u32,
    message: Message<'_>,
    options: SendOptions,
) -> Result<Sent, SendError> {
    if wire.phase != Phase::Open {
        return Err(SendError::Closing);
    }
    if wire.has_queue()
        || wire.in_flight as usize + shared.out.len() >= shared.limits.max_queued_len
        || options.deadline.is_some()
    {
        return send_behind(wire, shared, slot, message, options);
    }
    let may_leave = options.key.is_none();
    produce(wire, shared, slot, message, options.compress, false, may_leave)?;
    Ok(taken(wire, shared))
}

/// Whether a message goes out as it is, and nothing is before it but what was sent in this turn.
pub(crate) fn may_go_at_once(wire: &Wire, shared: &Shared, options: SendOptions) -> bool {
    let is_other = Flags::SENDING | Flags::LAYERED | Flags::CLIENT | Flags::DEFLATE;
    wire.phase == Phase::Open
        && !wire.flags.intersects(is_other)
        && !wire.has_queue()
        && options.deadline.is_none()
        // What the socket did not take of the last one would be moved again and again.
        && shared.out.len() < shared.limits.receive_buffer_len.min(shared.limits.max_queued_len)
}

/// Sends a long message behind the turn's output while the payload is borrowed. Only what the socket does not take is
/// copied (docs/decisions/replies-are-copied.md).
#[inline(never)]
pub(crate) fn send_at_once(
    wire: &mut Wire,
    shared: &mut Shared,
    token: Token,
    message: Message<'_>,
    direct: &dyn SendNow,
) -> Result<Sent, SendError> {
    wire.codec.send_header(message, &mut shared.out)?;
    let payload = message.as_bytes();
    let sent = direct.send_now(token, [&shared.out, payload]);
    shared.counters.bytes_sent.add(sent);
    if sent > 0 {
        wire.sent = shared.now;
    }
    let rest = match sent.checked_sub(shared.out.len()) {
        Some(of_payload) => {
            shared.out.clear();
            payload.get(of_payload..).unwrap_or_default()
        }
        None => {
            shared.out.drain(..sent);
            payload
        }
    };
    if !rest.is_empty() {
        shared.reserve_out(rest.len());
        mask_extend(&mut shared.out, rest, [0; 4], 0);
    }
    Ok(taken(wire, shared))
}

/// A message was taken.
#[inline]
fn taken(wire: &mut Wire, shared: &Shared) -> Sent {
    shared.counters.messages_sent.add(1);
    status(wire, shared)
}

/// Encodes a message into the turn's output, compressed where it is to be: `alone`, if what follows must not depend on
/// it. A long one that `may_leave` goes to the compute threads, and has a place in the queue. Whether it is in the
/// output.
#[inline]
fn produce(
    wire: &mut Wire,
    shared: &mut Shared,
    slot: u32,
    message: Message<'_>,
    compress: Compress,
    alone: bool,
    may_leave: bool,
) -> Result<bool, SendError> {
    if wire.flags.contains(Flags::DEFLATE) && shared.deflate.wants(message.len(), compress) {
        return produce_compressed(wire, shared, slot, message, alone, may_leave);
    }
    encode(wire, shared, message)?;
    Ok(true)
}

#[inline]
fn encode(wire: &mut Wire, shared: &mut Shared, message: Message<'_>) -> Result<(), SendError> {
    shared.reserve_out(message.len());
    let Shared { masks, out, .. } = &mut *shared;
    wire.codec.send(message, masks, out)
}

/// Sends a message as it is, whatever waits.
pub(super) fn send_plain(
    wire: &mut Wire,
    shared: &mut Shared,
    message: Message<'_>,
) -> Result<Sent, SendError> {
    encode(wire, shared, message)?;
    Ok(taken(wire, shared))
}

#[inline(never)]
fn produce_compressed(
    wire: &mut Wire,
    shared: &mut Shared,
    slot: u32,
    message: Message<'_>,
    alone: bool,
    may_leave: bool,
) -> Result<bool, SendError> {
    if may_leave
        && shared.deflate.is_long(message.len())
        && shared.deflate_elsewhere(wire, slot, message, alone)
    {
        return Ok(false);
    }
    shared.send_compressed(wire, slot, message, alone)?;
    Ok(true)
}

/// Sends a message for which there is room below the high-water mark, or that goes out by itself.
pub(super) fn send_through(wire: &mut Wire, shared: &mut Shared, slot: u32, message: Message<'_>) {
    let sent = produce(wire, shared, slot, message, Compress::ByLength, false, true);
    shared.counters.messages_sent.add(usize::from(sent.is_ok()));
}

/// Past the high-water mark the application is told, and reading waits.
fn status(wire: &mut Wire, shared: &Shared) -> Sent {
    let waiting = wire.queued_len() + shared.out.len();
    if waiting < shared.limits.high_water {
        return Sent::OnItsWay;
    }
    wire.flags.insert(Flags::BACKLOGGED);
    Sent::Waits { len: waiting }
}

/// Sends a message by the queue: output waits already, or the turn has produced as much as may wait, or the
/// connection is not at work. The limit holds, and the message is kept apart where it may be dropped or replaced; then
/// it is compressed by itself, since what is compressed behind it must not depend on whether it goes out.
#[cold]
pub(crate) fn send_behind(
    wire: &mut Wire,
    shared: &mut Shared,
    slot: u32,
    message: Message<'_>,
    options: SendOptions,
) -> Result<Sent, SendError> {
    if wire.phase != Phase::Open {
        return Err(SendError::Closing);
    }
    shared.enqueue_out(wire, SegmentKind::Stream);
    let replaced =
        options.key.and_then(|key| wire.pending_mut().queue.find(SegmentKind::Keyed(key)));
    if replaced.is_none()
        && wire.queue_cost() >= shared.limits.max_queued_len
        && !make_room(wire, shared)
    {
        shared.counters.messages_dropped.add(1);
        return Err(SendError::Full);
    }
    let kind = match options.key {
        Some(key) => SegmentKind::Keyed(key),
        None if shared.limits.backpressure == Backpressure::DropOldest => SegmentKind::Message,
        None if options.deadline.is_some() => SegmentKind::Message,
        None => SegmentKind::Stream,
    };
    let stays = kind == SegmentKind::Stream;
    if !stays {
        shared.cut_context(wire, slot);
    }
    let may_leave = options.key.is_none();
    let produced = produce(wire, shared, slot, message, options.compress, !stays, may_leave);
    let sent = produced.map(|_| taken(wire, shared));
    if produced == Ok(false) {
        set_deadline(wire, shared, slot, None, options);
        return sent;
    }
    match replaced {
        Some(index) => replace(wire, shared, index),
        None => shared.enqueue_out(wire, kind),
    }
    set_deadline(wire, shared, slot, replaced, options);
    sent
}

/// Sets the deadline of a message that waits at this place, or at the end.
fn set_deadline(
    wire: &mut Wire,
    shared: &mut Shared,
    slot: u32,
    index: Option<usize>,
    options: SendOptions,
) {
    let Some((after, late)) = options.deadline else { return };
    let due = shared.now + ticks_of(after).max(1);
    wire.pending_mut().queue.set_deadline(index, due, late);
    shared.wheel.set_earlier(slot, due);
}

/// Puts the turn's output, which is one message, in the place of a waiting one.
fn replace(wire: &mut Wire, shared: &mut Shared, index: usize) {
    let data = Output::Own(std::mem::take(&mut shared.out));
    shared.counters.queued_bytes.add(data.len());
    let old = wire.pending_mut().queue.replace(index, data);
    shared.drop_message(old);
}

/// The queue is at its limit: carries out the policy. Whether there is room now.
fn make_room(wire: &mut Wire, shared: &mut Shared) -> bool {
    match shared.limits.backpressure {
        Backpressure::DropNewest => {
            wire.flags.insert(Flags::BACKLOGGED);
            false
        }
        Backpressure::Close(code) => {
            // The peer would not read a close frame behind all that either; but it is owed one.
            let text = "too much output waits";
            let _ = close(wire, shared, CloseReason::Backpressure, code, text);
            false
        }
        Backpressure::DropOldest => {
            while wire.queue_cost() >= shared.limits.max_queued_len
                && let Some(oldest) = wire.pending_mut().queue.drop_oldest()
            {
                shared.drop_message(oldest);
            }
            true
        }
    }
}

/// See [`Ctx::close`](crate::Ctx::close).
pub(crate) fn close(
    wire: &mut Wire,
    shared: &mut Shared,
    why: CloseReason,
    code: CloseCode,
    text: &str,
) -> Result<(), SendError> {
    let begins = wire.phase == Phase::Open && code.is_sendable() && cut_reason(text) == text;
    if begins && spares_parcels(why) {
        shared.take_last_parcels(wire);
    }
    shared.reserve_out(text.len() + 2);
    let Shared { masks, out, .. } = &mut *shared;
    wire.codec.close(code, text, masks, out)?;
    let cause = wire.blame(why);
    cause.code = Some(code);
    text.clone_into(&mut cause.text);
    wire.phase = Phase::Closing;
    wire.since = shared.now;
    wire.flags.remove(Flags::HELD_UP);
    Ok(())
}

/// Whether a close for this reason lets go out what was given before.
fn spares_parcels(why: CloseReason) -> bool {
    !matches!(why, CloseReason::Backpressure | CloseReason::Memory)
}
