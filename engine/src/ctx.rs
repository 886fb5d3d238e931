//! What a handler can do with a connection.

use std::net::SocketAddr;

use ringwire_codec::{CloseCode, Message, SendError};
use ringwire_tls::Facts;

use crate::config::Backpressure;
use crate::conn::{ConnId, Flags, Phase, SegmentKind, Wire};
use crate::error::CloseReason;
use crate::shared::Shared;

/// A connection, during a call of the handler.
#[derive(Debug)]
pub struct Ctx<'a, S> {
    id: ConnId,
    wire: &'a mut Wire,
    state: &'a mut S,
    shared: &'a mut Shared,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendStatus {
    /// On its way: it goes out with this turn, or soon after.
    Sent,
    /// Taken, but this many bytes wait for the peer. Send no more until [`on_drain`](crate::Handler::on_drain),
    /// which always follows.
    Queued(usize),
    /// Not taken: the queue is at its limit, or the connection is closing.
    Dropped,
}

/// How a message is sent. The default is how [`Ctx::send`] does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SendOptions {
    /// It replaces a message with the same key which still waits, as with [`Ctx::send_keyed`]. Default: none.
    pub key: Option<u64>,
    /// Whether it is compressed, on a connection [where it may be](Ctx::is_compressed). Default: by its length.
    pub compress: Compress,
}

impl SendOptions {
    /// Sets [`key`](Self::key).
    #[must_use]
    pub const fn with_key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets [`compress`](Self::compress).
    #[must_use]
    pub const fn with_compress(mut self, compress: Compress) -> Self {
        self.compress = compress;
        self
    }
}

/// Whether a message is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compress {
    /// If it is at least as long as [`threshold`](crate::Compression::threshold).
    #[default]
    ByLength,
    /// However short it is. Goes out as it is if that makes it no shorter.
    Always,
    /// No: it is compressed already, or its length must not tell what is in it.
    Never,
}

impl<'a, S> Ctx<'a, S> {
    pub(crate) fn new(
        id: ConnId,
        wire: &'a mut Wire,
        state: &'a mut S,
        shared: &'a mut Shared,
    ) -> Self {
        Self { id, wire, state, shared }
    }

    /// The same connection with a part of its state, if it has that.
    pub(crate) fn project<'s, T>(
        &'s mut self,
        pick: impl FnOnce(&'s mut S) -> Option<&'s mut T>,
    ) -> Option<Ctx<'s, T>> {
        let Self { id, wire, state, shared } = self;
        Some(Ctx { id: *id, wire, state: pick(state)?, shared })
    }

    /// The connection's identity, for [`Handle`](crate::Handle).
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The other side's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.wire.peer.into()
    }

    /// What the TLS handshake agreed on: version, cipher suite, SNI, ALPN, the client's certificate. `None` on a
    /// plain connection.
    pub fn tls(&self) -> Option<Facts<'_>> {
        self.shared.sessions.facts(self.id.slot)
    }

    /// The application's state of this connection.
    pub fn state(&mut self) -> &mut S {
        self.state
    }

    /// Whether messages can be sent: no close has begun.
    pub fn is_open(&self) -> bool {
        self.wire.phase == Phase::Open
    }

    /// Whether compression was agreed on with this client (permessage-deflate, RFC 7692).
    pub fn is_compressed(&self) -> bool {
        self.wire.flags.contains(Flags::DEFLATE)
    }

    /// Bytes of output that wait, this turn's included.
    pub fn queued_len(&self) -> usize {
        self.wire.queued_len() + self.shared.out.len()
    }

    // What the application wants to happen

    /// Pauses reading: no more calls with messages until [`resume`](Self::resume). The peer is held up
    /// by TCP's flow control. Pings are not answered meanwhile, and the idle timeout does not run.
    pub fn pause(&mut self) {
        self.wire.flags.insert(Flags::PAUSED);
    }

    /// Goes on reading. What came in before the pause is handed over first.
    pub fn resume(&mut self) {
        self.wire.flags.remove(Flags::PAUSED);
    }

    /// Says that the peer is who it should be: from now on its messages may be as long as anyone's, instead of
    /// [`max_unauthenticated_len`](crate::Config::max_unauthenticated_len). That holds from the next frame on, also
    /// inside a message that has begun. Where the request already proved it, the place for this is
    /// [`on_open`](crate::Handler::on_open).
    pub fn authenticated(&mut self) {
        self.wire.flags.remove(Flags::UNAUTHENTICATED);
    }

    // What goes out

    /// Sends a message. It is encoded at once and goes out at the end of this connection's turn.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> SendStatus {
        self.send_with(message, SendOptions::default())
    }

    /// Sends a message that replaces one with the same key which still waits: for values of which only the
    /// newest counts. Where nothing waits it is sent as any other.
    pub fn send_keyed<'m>(&mut self, key: u64, message: impl Into<Message<'m>>) -> SendStatus {
        self.send_with(message, SendOptions::default().with_key(key))
    }

    /// Sends a message, with a word on how.
    #[inline]
    pub fn send_with<'m>(
        &mut self,
        message: impl Into<Message<'m>>,
        options: SendOptions,
    ) -> SendStatus {
        send(self.wire, self.shared, self.id.slot, message.into(), options)
    }

    /// Sends a ping with at most 125 bytes (RFC 6455 §5.5.2). The engine sends pings of its own after silence.
    ///
    /// # Errors
    /// The payload is too long, or a close has begun.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.shared.reserve_out(payload.len());
        let Shared { masks, out, .. } = &mut *self.shared;
        self.wire.codec.send_ping(payload, masks, out)
    }

    /// Starts the close handshake (RFC 6455 §7.1.2). What was sent before goes out first.
    ///
    /// # Errors
    /// The code may not be sent, the reason is longer than 123 bytes, or a close has begun already.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), SendError> {
        close(self.wire, self.shared, CloseReason::Local, code, reason)
    }
}

/// See [`Ctx::send`].
#[inline]
pub(crate) fn send(
    wire: &mut Wire,
    shared: &mut Shared,
    slot: u32,
    message: Message<'_>,
    options: SendOptions,
) -> SendStatus {
    if wire.phase != Phase::Open {
        return SendStatus::Dropped;
    }
    if wire.has_queue()
        || wire.in_flight as usize + shared.out.len() >= shared.limits.max_queued_len
    {
        return send_behind(wire, shared, slot, message, options);
    }
    if wire.flags.contains(Flags::DEFLATE) && shared.deflate.wants(message.len(), options.compress)
    {
        return encode_compressed(wire, shared, slot, message, false);
    }
    encode(wire, shared, message)
}

#[inline]
fn encode(wire: &mut Wire, shared: &mut Shared, message: Message<'_>) -> SendStatus {
    shared.reserve_out(message.len());
    let Shared { masks, out, .. } = &mut *shared;
    if wire.codec.send(message, masks, out).is_err() {
        return SendStatus::Dropped;
    }
    shared.counters.messages_sent.add(1);
    status(wire, shared)
}

#[inline(never)]
fn encode_compressed(
    wire: &mut Wire,
    shared: &mut Shared,
    slot: u32,
    message: Message<'_>,
    alone: bool,
) -> SendStatus {
    if shared.send_compressed(wire, slot, message, alone).is_err() {
        return SendStatus::Dropped;
    }
    shared.counters.messages_sent.add(1);
    status(wire, shared)
}

/// Past the high-water mark the application is told, and reading waits.
fn status(wire: &mut Wire, shared: &Shared) -> SendStatus {
    let waiting = wire.queued_len() + shared.out.len();
    if waiting < shared.limits.high_water {
        return SendStatus::Sent;
    }
    wire.flags.insert(Flags::BACKLOGGED);
    SendStatus::Queued(waiting)
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
) -> SendStatus {
    if wire.phase != Phase::Open {
        return SendStatus::Dropped;
    }
    shared.enqueue_out(wire, SegmentKind::Stream);
    let replaced = options.key.and_then(|key| wire.pending_mut().queue.find(key));
    if replaced.is_none()
        && wire.queue_cost() >= shared.limits.max_queued_len
        && !make_room(wire, shared)
    {
        shared.counters.messages_dropped.add(1);
        return SendStatus::Dropped;
    }
    let kind = match options.key {
        Some(key) => SegmentKind::Keyed(key),
        None if shared.limits.backpressure == Backpressure::DropOldest => SegmentKind::Message,
        None => SegmentKind::Stream,
    };
    let stays = kind == SegmentKind::Stream;
    if !stays {
        shared.cut_context(wire, slot);
    }
    let compressed = wire.flags.contains(Flags::DEFLATE)
        && shared.deflate.wants(message.len(), options.compress);
    let status = if compressed {
        encode_compressed(wire, shared, slot, message, !stays)
    } else {
        encode(wire, shared, message)
    };
    match replaced {
        Some(index) => replace(wire, shared, index),
        None => shared.enqueue_out(wire, kind),
    }
    status
}

/// Puts the turn's output, which is one message, in the place of a waiting one.
fn replace(wire: &mut Wire, shared: &mut Shared, index: usize) {
    let data = std::mem::take(&mut shared.out);
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
            let text = "the peer reads too slowly";
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

/// See [`Ctx::close`].
pub(crate) fn close(
    wire: &mut Wire,
    shared: &mut Shared,
    why: CloseReason,
    code: CloseCode,
    text: &str,
) -> Result<(), SendError> {
    shared.reserve_out(text.len() + 2);
    let Shared { masks, out, .. } = &mut *shared;
    wire.codec.close(code, text, masks, out)?;
    let cause = wire.blame(why);
    cause.code = Some(code);
    text.clone_into(&mut cause.text);
    wire.phase = Phase::Closing;
    wire.since = shared.now;
    wire.flags.remove(Flags::PAUSED | Flags::BACKLOGGED);
    Ok(())
}
