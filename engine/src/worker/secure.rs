//! Connections over TLS: their bytes on the way in and out, and how their sessions end.

use ringwire_codec::Buffers as _;
use ringwire_tls::{Error, ServerConfig, Session};

use super::Worker;
use super::receive::{deliver_before_failure, keep_unread};
use crate::app::handler::Handler;
use crate::compute::handshake::Shaken;
use crate::conn::cause::CloseReason;
use crate::conn::{Flags, Phase};
use crate::driver::{Driver, Token};
use crate::layers::tls::Decrypted;
use crate::state::Shared;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// The connection begins with a TLS handshake.
    pub(super) fn secure(&mut self, token: Token, config: &ServerConfig) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        match Session::server(config) {
            Ok(session) => {
                self.shared.sessions.insert(token.slot, session);
                conn.wire.flags.insert(Flags::LAYERED);
            }
            Err(error) => {
                crate::base::event::error!(%error, "cannot start a TLS session, and the connection is closed");
                self.finish(token, CloseReason::Tls);
            }
        }
    }

    /// The connection's TLS handshake was another program's.
    pub(super) fn secure_adopted(&mut self, token: Token, session: Session) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        self.shared.sessions.insert_established(token.slot, session);
        conn.wire.flags.insert(Flags::LAYERED);
    }

    /// Looks at encrypted bytes that came in. What they lead to is in the turn's output afterwards, and in the
    /// session's.
    pub(super) fn take_in_secure(&mut self, token: Token, bytes: &mut [u8]) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        // What comes behind close_notify is ignored (RFC 8446 §6.1).
        if matches!(wire.phase, Phase::Flushing | Phase::Closed) || wire.is_half_closed() {
            return;
        }
        wire.note_received(shared.now);
        if wire.is_away() {
            return keep_unread(wire, shared, bytes);
        }
        let id = shared.id(token);
        let Shared { sessions, counters, compute, .. } = shared;
        if let Some(compute) = compute
            && sessions.is_costly(token.slot)
            && sessions.send_away(id, bytes, compute)
        {
            wire.pending_mut().is_away = true;
            return;
        }
        if let Some(decrypted) = sessions.decrypt(token.slot, bytes, counters) {
            self.on_decrypted(token, decrypted);
        }
    }

    /// A session is back from a compute thread, with what came of the bytes that it was given.
    pub(super) fn on_shaken(&mut self, shaken: Shaken) {
        let Self { conns, shared, .. } = self;
        let token = Token { slot: shaken.conn.slot, generation: shaken.conn.generation };
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        if wire.phase == Phase::Closed {
            return;
        }
        let early = wire.pending.as_mut().map(|pending| {
            pending.is_away = false;
            std::mem::take(&mut pending.unread)
        });
        shared.tidy(wire);
        let Shared { sessions, counters, .. } = shared;
        if let Some(decrypted) = sessions.take_back(shaken, counters) {
            self.on_decrypted(token, decrypted);
        }
        if let Some(mut early) = early.filter(|early| !early.is_empty()) {
            self.take_in_secure(token, &mut early);
            self.shared.pool.give(early);
        }
        self.after_work(token);
    }

    fn on_decrypted(&mut self, token: Token, mut decrypted: Decrypted) {
        if !decrypted.plaintext.is_empty() {
            self.look_behind_layer(token, &mut decrypted.plaintext);
        }
        self.shared.sessions.give_back(decrypted.plaintext);
        if let Some(error) = decrypted.failure {
            self.fail_secure(token, &error);
        } else if decrypted.ended {
            self.on_stream_end(token);
        }
    }

    /// The session failed: its alert, or what stands in its place, is the last that is sent.
    pub(super) fn fail_secure(&mut self, token: Token, error: &Error) {
        let Self { conns, handler, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        deliver_before_failure(handler, conn, shared, token);
        let wire = &mut conn.wire;
        if matches!(wire.phase, Phase::Closed | Phase::Vacant) {
            return;
        }
        crate::base::event::debug!(conn = %shared.id(token), %error, "TLS failed");
        if wire.phase == Phase::Handshake && !wire.flags.contains(Flags::CLIENT) {
            shared.counters.handshake_failures.add(1);
        }
        let cause = wire.blame(CloseReason::Tls);
        if cause.reason == CloseReason::Tls {
            cause.text = error.to_string();
        }
        wire.phase = Phase::Flushing;
        wire.since = shared.now;
        // What waits can't be encrypted any more.
        shared.drop_output(wire);
    }
}
