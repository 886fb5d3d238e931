//! Connections whose bytes are not those of the codec: a TLS session, extensions, or both stand between.

use ringwire_codec::{Buffers as _, cut_reason};

use super::Worker;
use super::receive::{condemn, deliver_before_failure, deliver_or_keep, keep_unread};
use crate::app::handler::Handler;
use crate::conn::queue::SegmentKind;
use crate::conn::{Conn, Flags, Phase, Wire};
use crate::driver::{Driver, Token};
use crate::layers::extensions::{Failure, Unwrapped};
use crate::state::Shared;
use crate::state::send;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Looks at bytes that came in. What they lead to is in the turn's output afterwards.
    pub(super) fn take_in_layered(&mut self, token: Token, bytes: &mut [u8]) {
        if self.shared.sessions.has(token.slot) {
            return self.take_in_secure(token, bytes);
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.wire.note_received(self.shared.now);
        self.look_behind_layer(token, bytes);
    }

    /// Looks at what the peer said, in plain text.
    pub(super) fn look_behind_layer(&mut self, token: Token, bytes: &mut [u8]) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let Some(Unwrapped { mut frames, failure }) = unwrap(&conn.wire, shared, token, bytes)
        else {
            return self.look_at(token, bytes);
        };
        if !frames.is_empty() {
            self.look_at(token, &mut frames);
        }
        self.shared.layers.give_back(frames);
        if let Some(failure) = failure
            && let Some(conn) = self.conns.get_mut(token)
        {
            fail_behind(&mut self.handler, conn, &mut self.shared, token, &failure);
        }
    }

    /// Sends what comes next, if anything does. Nothing is in flight.
    pub(super) fn send_layered(driver: &mut D, wire: &mut Wire, shared: &mut Shared, token: Token) {
        match shared.next_sealed(wire, token.slot) {
            Ok(sealed) if sealed.is_empty() => {}
            Ok(sealed) => Self::submit_send(driver, wire, shared, token, sealed),
            Err(failure) => {
                crate::base::event::error!(conn = %shared.id(token), "an extension panicked");
                let (why, code, _) = failure.verdict();
                // Only a close that has begun refuses another.
                let _ = send::close(wire, shared, why, code, "");
                shared.enqueue_out(wire, SegmentKind::Stream);
                shared.list(wire, token);
            }
        }
    }
}

/// Delivers what came with the end of the handshake, if the connection has extensions; whether it has.
pub(super) fn deliver_layered<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    rest: &[u8],
) -> bool {
    let Some(Unwrapped { mut frames, failure }) = unwrap(&conn.wire, shared, token, rest) else {
        return false;
    };
    deliver_or_keep(handler, conn, shared, token, &mut frames, None);
    shared.layers.give_back(frames);
    if let Some(failure) = failure {
        fail_behind(handler, conn, shared, token, &failure);
    }
    true
}

/// What waited unread while an upgrade was deferred has not been through the extensions that were then agreed on. Gives
/// what they fail for behind that.
pub(super) fn unwrap_unread(wire: &mut Wire, shared: &mut Shared, token: Token) -> Option<Failure> {
    let pending = wire.pending.as_mut().filter(|pending| !pending.unread.is_empty())?;
    let unread = std::mem::take(&mut pending.unread);
    let start = std::mem::take(&mut pending.unread_start);
    let Some(Unwrapped { frames, failure }) = unwrap(wire, shared, token, &unread[start..]) else {
        let pending = wire.pending_mut();
        (pending.unread, pending.unread_start) = (unread, start);
        return None;
    };
    shared.pool.give(unread);
    keep_unread(wire, shared, &frames);
    shared.layers.give_back(frames);
    failure
}

/// The frames in received bytes, as the codec takes them. `None`: they are so already.
fn unwrap(wire: &Wire, shared: &mut Shared, token: Token, bytes: &[u8]) -> Option<Unwrapped> {
    let speaks = matches!(wire.phase, Phase::Open | Phase::Closing);
    if !speaks || !wire.flags.contains(Flags::LAYERED) {
        return None;
    }
    let max_message_len = shared.limits.protocol_of(wire).max_message_len;
    shared.layers.receive(token.slot, bytes, max_message_len)
}

/// The extensions cannot go on behind what is unread, which is handed over first.
pub(super) fn fail_behind<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    failure: &Failure,
) {
    deliver_before_failure(handler, conn, shared, token);
    fail(&mut conn.wire, shared, failure);
}

/// The extensions cannot go on: the close frame that says so is the last that is sent.
fn fail(wire: &mut Wire, shared: &mut Shared, failure: &Failure) {
    if !matches!(wire.phase, Phase::Open | Phase::Closing) {
        return;
    }
    let (reason, code, text) = failure.verdict();
    let text = cut_reason(text);
    let Shared { masks, out, .. } = shared;
    // Where a close frame is out already, nothing is left to say.
    let _ = wire.codec.close(code, text, masks, out);
    condemn(wire, shared, reason, code, text);
}
