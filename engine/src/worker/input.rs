//! Bytes that came in, and who looks at them: that is decided by what stands between the socket and the codec, and by
//! the phase that the connection is in.

use super::Worker;
use super::heads::on_request_bytes;
use super::receive::{call, deliver_or_keep, deliver_unread, keep_unread};
use super::upgrade::begin_frames;
use crate::app::event::Event;
use crate::app::handler::Handler;
use crate::conn::{Flags, Phase};
use crate::driver::{Driver, Token};
use crate::state::{MAX_HEADER_LEN, Shared};

impl<D: Driver, H: Handler> Worker<D, H> {
    #[inline]
    pub(super) fn on_received(&mut self, token: Token, mut buffer: D::Buffer) {
        let len = buffer.len();
        self.shared.heard_len = 0;
        self.take_in(token, &mut buffer);
        self.driver.release(buffer);
        self.expect_more(token, len);
        self.after_work(token);
        self.hold_up_if_short(token);
    }

    /// Tells the driver how much is to come after a receive of `len` bytes: what a message lacks that has begun, and as
    /// much again from a peer whose messages are so long that a receive has no two of them.
    #[inline]
    fn expect_more(&mut self, token: Token, len: usize) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let missing =
            if conn.wire.codec.is_receiving_message() { conn.wire.codec.missing_len() } else { 0 };
        let Shared { heard_len: heard, ref limits, .. } = self.shared;
        let is_long = heard > limits.receive_buffer_len / 2;
        let again = if is_long { len.max(heard) + MAX_HEADER_LEN } else { 0 };
        let expected = missing.max(again as u64);
        if expected > 0 && conn.wire.phase == Phase::Open {
            self.driver.expect(token, expected);
        }
    }

    /// Takes bytes that came in. What they lead to is in the turn's output afterwards.
    #[inline]
    pub(super) fn take_in(&mut self, token: Token, bytes: &mut [u8]) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        shared.counters.bytes_received.add(bytes.len());
        if conn.wire.flags.contains(Flags::LAYERED) && conn.wire.phase != Phase::Proxied {
            return self.take_in_layered(token, bytes);
        }
        conn.wire.note_received(shared.now);
        self.look_at(token, bytes);
    }

    /// Looks at what the peer said.
    #[inline]
    pub(super) fn look_at(&mut self, token: Token, bytes: &mut [u8]) {
        let Self { conns, handler, shared, driver, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        shared.expected_len = bytes.len() + conn.wire.codec.buffered_len();
        match conn.wire.phase {
            Phase::Open | Phase::Closing => {
                deliver_or_keep(handler, conn, shared, token, bytes, Some(driver));
            }
            Phase::Proxied => self.take_in_proxied(token, bytes),
            Phase::Handshake | Phase::Idle => {
                on_request_bytes(handler, conn, shared, token, bytes);
            }
            Phase::Deferred => keep_unread(&mut conn.wire, shared, bytes),
            Phase::Lingering => self.drop_late(token, bytes.len()),
            Phase::Vacant | Phase::Flushing | Phase::Closed => {}
        }
    }

    /// Hands over what was left unread, as far as that is possible now.
    pub(super) fn resume(&mut self, token: Token) {
        let Self { conns, handler, shared, driver, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        conn.wire.flags.remove(Flags::LISTED);
        if conn.wire.phase == Phase::Idle {
            return self.resume_requests(token);
        }
        deliver_unread(handler, conn, shared, token, Some(driver));
    }

    /// Begins to speak frames on a connection whose handshake was answered elsewhere.
    pub(super) fn open_upgraded(&mut self, token: Token, state: H::State) {
        let Self { conns, handler, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        conn.state = Some(state);
        begin_frames(&mut conn.wire, shared, token);
        call(handler, conn, shared, token, Event::Open);
    }
}
