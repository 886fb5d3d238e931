//! Connections that begin with what a proxy says about them.

use ringwire_codec::Buffers as _;
use ringwire_codec::proxy_protocol;

use super::Worker;
use super::receive::keep_unread;
use crate::conn::{Flags, Phase};
use crate::driver::{Driver, Token};
use crate::error::CloseReason;
use crate::handler::Handler;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Bytes of a connection whose PROXY header has not come yet, and perhaps what follows it.
    #[cold]
    pub(super) fn take_in_proxied(&mut self, token: Token, bytes: &mut [u8]) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        if !wire.has_unread() {
            return self.on_proxy_header(token, bytes);
        }
        keep_unread(wire, shared, bytes);
        let pending = wire.pending_mut();
        let mut whole = std::mem::take(&mut pending.unread);
        self.on_proxy_header(token, &mut whole);
        self.shared.pool.give(whole);
    }

    /// All that has come so far.
    fn on_proxy_header(&mut self, token: Token, bytes: &mut [u8]) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        let header = match proxy_protocol::parse(bytes) {
            Ok(Some(header)) => header,
            Ok(None) => return keep_unread(wire, shared, bytes),
            Err(error) => {
                crate::event::debug!(conn = %shared.id(token), %error, "it is no proxy");
                shared.counters.proxy_failures.add(1);
                return self.finish(token, CloseReason::Local);
            }
        };
        let addresses = shared.topics.hub.addresses();
        match header.source {
            Some(source) if !addresses.admit(Some(source)) => {
                crate::event::debug!(%source, "refused: its address has as many connections as may be");
                shared.counters.address_refusals.add(1);
                return self.finish(token, CloseReason::Local);
            }
            Some(source) => wire.peer = source.into(),
            // The proxy speaks for itself.
            None => addresses.note(Some(wire.peer.into())),
        }
        // From now on the connection is counted for its address.
        wire.phase = Phase::Handshake;
        let Some(rest) = bytes.get_mut(header.len..).filter(|rest| !rest.is_empty()) else {
            return;
        };
        if wire.flags.contains(Flags::LAYERED) {
            self.take_in_layered(token, rest);
        } else {
            self.look_at(token, rest);
        }
    }
}
