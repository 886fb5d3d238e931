//! How a connection ends: what came before the end of the peer's stream is answered, what was said goes out, and the
//! socket closes once the peer has closed its side, or has had its time.
//!
//! - A peer's FIN, or its close_notify, ends what it says and not what it hears. The connection goes on until its input
//!   is used up, its output is out and its jobs are done, and until what was published meanwhile is delivered.
//! - Whoever ends its own side first lingers: closing a socket with unread input, or one to which more comes, makes the
//!   kernel reset the connection, and what the peer has not read is lost (RFC 9293 §3.6.1, RFC 6455 §7.1.1).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ringwire_codec::CloseState;

use super::{Worker, outbound, receive};
use crate::app::handler::Handler;
use crate::base::panics::quietly;
use crate::base::timer::Tick;
use crate::conn::cause::{CloseCause, CloseReason};
use crate::conn::dialling::DialError;
use crate::conn::{Conn, Flags, Phase, Wire};
use crate::driver::{Driver, Op, Token};
use crate::state::Shared;
use crate::state::close_log::{End, Ends};
use crate::state::parcels::lose_parcels;

/// What a lingering connection drops before it is reset, in bytes: more than the socket buffers of both sides hold by
/// default (the last figures of tcp_rmem and tcp_wmem, tcp(7)), which is what a peer may have sent before it heard the
/// end.
const MAX_DROPPED: u32 = 16 << 20;

/// Turns that half-closed connections wait for the mailbox and the publications to be empty. A busy server's never are,
/// and what was there when the connection said all has been delivered long before.
const PATIENT_TURNS: u32 = 64;

/// Connections whose peer has ended its stream and that have said all. They end with the turn, unless it brings more.
#[derive(Debug, Default)]
pub(super) struct HalfClosed {
    tokens: Vec<Token>,
    waited: u32,
}

impl HalfClosed {
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(super) fn push(&mut self, token: Token) {
        self.tokens.push(token);
    }
}

impl<D: Driver, H: Handler> Worker<D, H> {
    /// The peer's FIN, or the end of the connection.
    pub(super) fn on_receive_ended(&mut self, token: Token, result: io::Result<()>) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.wire.flags.remove(Flags::RECEIVING);
        conn.wire.flags.insert(Flags::ENDED);
        match result {
            Ok(()) => {
                self.on_stream_end(token);
                self.after_work(token);
            }
            Err(error) => self.give_up(token, CloseReason::Transport(error.kind())),
        }
    }

    /// The peer will say no more, and may still listen. Work on the connection follows.
    pub(super) fn on_stream_end(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        match wire.phase {
            Phase::Open | Phase::Idle | Phase::Deferred => {
                wire.blame_end();
                // Its pong will not come.
                wire.flags.remove(Flags::PINGED);
                // However long it was silent before: what is under way has its time from here on.
                wire.received = self.shared.now;
                self.shared.set_deadline(wire, token);
            }
            // Its close frame will not come, unless it waits unread.
            Phase::Closing if !wire.has_unread() && wire.awaits_close_frame() => {
                blame_end_of_closing(wire, self.shared.now);
            }
            Phase::Proxied | Phase::Handshake => self.end_stream(token),
            Phase::Lingering if wire.flags.contains(Flags::ENDED) => {
                self.finish(token, CloseReason::EndOfStream);
            }
            _ => {}
        }
    }

    /// Ends half-closed connections that have said all, once nothing that could reach them is under way.
    pub(super) fn end_half_closed(&mut self) {
        if self.half_closed.is_empty() {
            return;
        }
        let more_to_come = self.has_publications() || !self.inbox.is_empty();
        if more_to_come && self.half_closed.waited < PATIENT_TURNS {
            self.half_closed.waited += 1;
            return;
        }
        self.half_closed.waited = 0;
        let mut tokens = std::mem::take(&mut self.half_closed.tokens);
        for token in tokens.drain(..) {
            let Some(conn) = self.conns.get_mut(token) else { continue };
            if conn.wire.phase == Phase::Open && conn.wire.has_said_all() {
                self.end_stream(token);
            }
        }
        tokens.append(&mut self.half_closed.tokens);
        self.half_closed.tokens = tokens;
    }

    /// Answers the end of the peer's stream with the end of this side's: close_notify, where there is a session
    /// (RFC 8446 §6.1), and FIN.
    pub(super) fn end_stream(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let has_said_all = wire.is_flushed() && shared.out.is_empty();
        // Before the proxy's header nobody has been counted in, and no session has begun.
        let has_session = shared.sessions.has(token.slot) && wire.phase != Phase::Proxied;
        if has_said_all && !has_session {
            return self.finish(token, CloseReason::EndOfStream);
        }
        if wire.is_unanswered() && !wire.flags.contains(Flags::CLIENT) {
            shared.counters.handshake_failures.add(1);
        }
        wire.blame(CloseReason::EndOfStream);
        wire.phase = Phase::Flushing;
        wire.since = shared.now;
        self.after_work(token);
    }

    /// Ends a connection under which the transport has gone, or whose time is up. If the peer has not closed
    /// cleanly before, `reason` is why, unless the close began for a fault.
    pub(super) fn give_up(&mut self, token: Token, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let unanswered = wire.codec.close_state() == CloseState::CloseSent;
        if unanswered
            && let Some(cause) = wire.pending.as_mut().and_then(|pending| pending.cause.as_mut())
            && !cause.is_fault()
        {
            cause.reason = reason;
        }
        self.finish(token, reason);
    }

    /// The next step of closing, where there is one.
    pub(super) fn go_on_closing(&mut self, token: Token) {
        let Self { conns, shared, driver, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        if wire.phase == Phase::Lingering {
            return;
        }
        shared.set_close_deadline(wire, token);
        if wire.has_unread() && wire.may_deliver() {
            // The peer's close frame may be in it.
            shared.list_unread(wire, token);
            return;
        }
        let ended = wire.flags.contains(Flags::ENDED) || shared.sessions.has_ended(token.slot);
        if ended && wire.awaits_close_frame() {
            // This side began to close after the peer had ended its stream.
            blame_end_of_closing(wire, shared.now);
        }
        if !wire.is_flushed() {
            return;
        }
        let is_client = wire.flags.contains(Flags::CLIENT);
        let ending = match wire.phase {
            Phase::Closing => wire.codec.close_state() == CloseState::Closed,
            phase => phase == Phase::Flushing,
        };
        if ending && wire.flags.contains(Flags::LAYERED) && shared.sessions.close(token.slot) {
            return Self::send_layered(driver, wire, shared, token);
        }
        match wire.phase {
            // RFC 6455 §7.1.1: the server closes first.
            Phase::Closing if ending && !is_client => self.linger(token, CloseReason::Peer),
            Phase::Closing if ended => self.give_up(token, CloseReason::EndOfStream),
            Phase::Flushing => self.linger(token, CloseReason::EndOfStream),
            _ => {}
        }
    }

    /// All is said: FIN, and the end of the connection as far as the application is concerned. The socket stays until
    /// the peer's FIN, if that has not come.
    fn linger(&mut self, token: Token, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.wire.flags.contains(Flags::ENDED) {
            return self.finish(token, reason);
        }
        self.driver.submit(Op::Shutdown { token });
        self.conclude(token, reason);
        let Self { conns, shared, driver, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        wire.phase = Phase::Lingering;
        // However long the last words took, the peer has this long to close from here on.
        wire.since = shared.now;
        shared.set_deadline(wire, token);
        if wire.wants_receive() != wire.flags.contains(Flags::RECEIVING) {
            Self::sync_receive(driver, wire, shared, token);
        }
    }

    /// Drops what comes to a connection that lingers.
    pub(super) fn drop_late(&mut self, token: Token, len: usize) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let dropped = &mut conn.wire.in_flight;
        *dropped = dropped.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if *dropped > MAX_DROPPED {
            self.finish(token, CloseReason::EndOfStream);
        }
    }

    /// Ends a connection now: the handler is told, everything of it is given back, the socket closes. `reason`
    /// stands if nothing was to blame before.
    pub(super) fn finish(&mut self, token: Token, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let phase = conn.wire.phase;
        if phase == Phase::Closed {
            return;
        }
        let peer = conn.wire.peer;
        let came_in = !conn.wire.flags.contains(Flags::CLIENT);
        if came_in && phase != Phase::Proxied {
            self.shared.hub.addresses().release(Some(peer.into()));
        }
        if phase != Phase::Lingering {
            self.conclude(token, reason);
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.wire.phase = Phase::Closed;
        conn.wire.in_flight = 0;
        self.shared.wheel.clear(token.slot);
        if reason.gives_peer_up() {
            self.driver.discard(token);
        }
        self.driver.submit(Op::Close { token });
    }

    /// Tells the handler that a connection has ended, and gives back everything of it but the slot and the socket.
    fn conclude(&mut self, token: Token, reason: CloseReason) {
        let Self { conns, handler, shared, driver, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let came_in = !wire.flags.contains(Flags::CLIENT);
        let unfinished = wire.is_unanswered() && came_in;
        shared.counters.handshake_failures.add(usize::from(unfinished));
        let owes = wire.is_half_closed() && !wire.has_said_all();
        wire.phase = Phase::Closed;
        let mut pending = wire.pending.take().map(|pending| *pending).unwrap_or_default();
        let queued_len = pending.queue.len() + std::mem::take(&mut wire.in_flight) as usize;
        let mut cause = pending.cause.take().unwrap_or_else(|| CloseCause::new(reason));
        if owes && cause.reason == CloseReason::EndOfStream {
            // Not all was said yet, and this is why.
            cause.reason = reason;
        }
        let unsent_len = queued_len + pending.queue.awaited_len();
        cause.conclude(wire.codec.close_state() == CloseState::Closed, unsent_len);
        let mut lanes = pending.lanes.take();
        let lost = lose_parcels(lanes.as_deref_mut());
        cause.lost_messages += lost;
        shared.counters.messages_dropped.add(lost);
        let dialling = pending.dialling.take();
        let was_answering = !pending.unread.is_empty();
        quietly(pending.jobs.take());
        shared.counters.queued_bytes.sub(queued_len);
        shared.recycle(pending);
        shared.drop_unfinished(wire);
        if wire.flags.contains(Flags::OPENED) {
            wire.flags.remove(Flags::OPENED);
            if let Some(directory) = shared.hub.directory(shared.worker) {
                directory.remove(token.slot);
            }
            shared.counters.open_connections.sub(1);
            shared.counters.closes[cause.reason.index()].add(1);
            if !cause.is_clean() && Ends::are_read() && shared.ends.admit(cause.reason, shared.now)
            {
                log_end(driver, handler, conn, shared, token, &cause);
            }
            receive::call_on_close(handler, conn, shared, token, &cause);
        }
        if let Some(lanes) = lanes {
            lanes.close(&cause);
        }
        if conn.wire.flags.contains(Flags::CLIENT) && conn.state.is_some() {
            let known = dialling.and_then(|dialling| dialling.error);
            let error = known.unwrap_or_else(|| DialError::of_end(&cause, was_answering));
            outbound::end_dialling(handler, conn, shared, &error);
        }
        conn.state = None;
        let agreed = std::mem::take(&mut conn.wire.deflate);
        shared.forget(token, conn.wire.flags, agreed);
        conn.wire.flags = conn
            .wire
            .flags
            .intersection(Flags::RECEIVING | Flags::ENDED | Flags::CLIENT | Flags::LISTED);
        shared.out.clear();
    }
}

impl Wire {
    /// Whether its close frame is out, or on its way, and the peer's has not come.
    fn awaits_close_frame(&self) -> bool {
        self.phase == Phase::Closing && self.codec.close_state() == CloseState::CloseSent
    }
}

/// The peer has left without answering the close frame. What waits in front of that still goes out.
fn blame_end_of_closing(wire: &mut Wire, now: Tick) {
    let cause = wire.blame(CloseReason::EndOfStream);
    if !cause.is_fault() {
        cause.reason = CloseReason::EndOfStream;
    }
    wire.phase = Phase::Flushing;
    wire.since = now;
}

/// The line about a connection that has not ended well.
#[cold]
fn log_end<D: Driver, H: Handler>(
    driver: &D,
    handler: &H,
    conn: &Conn<H::State>,
    shared: &Shared,
    token: Token,
    cause: &CloseCause,
) {
    let route = conn.state.as_ref().and_then(|state| {
        catch_unwind(AssertUnwindSafe(|| handler.route_of(state))).unwrap_or_default()
    });
    let end = End {
        conn: shared.id(token),
        peer: conn.wire.peer.into(),
        route: route.as_deref(),
        lasted: shared.now - conn.wire.began,
        traffic: driver.traffic(token),
    };
    end.log(cause);
}
