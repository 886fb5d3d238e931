//! Connections that this side opens, until they are open. From then on they are like any other.
//!
//! A socket that still connects takes operations like one that is connected: they complete when it is, or fail
//! with the reason why it is not. So the drivers know nothing of this.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringwire_codec::handshake::{HandshakeError, client};
use ringwire_codec::{Connection, Role};

use super::Worker;
use super::receive::call;
use super::upgrade::{begin_frames, extend};
use crate::app::event::Event;
use crate::app::handler::Handler;
use crate::app::states::States;
use crate::base::mailbox::PostError;
use crate::conn::dialling::{DialError, Dialling};
use crate::conn::{Conn, Flags, Phase};
use crate::driver::{Driver, Token};
use crate::entry::dial::Outbound;
use crate::hub::mail::{Inbox, Mail};
use crate::state::Shared;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Takes a socket that connects, and says what is to be said once it has.
    pub(super) fn dial(&mut self, outbound: Outbound) {
        let Outbound { socket, peer, mut request, offer, tls, state } = outbound;
        // The handle has looked at its type.
        let Some(state) = self.states.make(state) else { return };
        let opened = match self.driver.adopt(socket) {
            Ok(_) if self.shutdown.is_some() => Err(DialError::Post(PostError::Stopped)),
            Ok(socket) => self.open(socket, Some(peer)).ok_or(DialError::Post(PostError::Stopped)),
            Err(error) => Err(DialError::Socket(error)),
        };
        let token = match opened {
            Ok(token) => token,
            Err(error) => return call_on_dial_failed(&mut self.handler, state, &error),
        };
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        shared.counters.dials.add(1);
        conn.state = Some(state);
        let wire = &mut conn.wire;
        wire.codec = Connection::new(Role::Client);
        wire.flags.insert(Flags::CLIENT);
        if let Some(offer) = offer.and_then(|offer| shared.deflate.offer(wire, offer)) {
            request = request.with_deflate(offer);
        }
        shared.reserve_out(512);
        request.encode(&mut shared.out);
        wire.pending_mut().dialling = Some(Box::new(Dialling { request, error: None }));
        if let Some((config, name)) = tls {
            wire.flags.insert(Flags::LAYERED);
            if let Err(error) = shared.sessions.insert_client(token.slot, &config, name) {
                return self.fail_secure(token, &error);
            }
        }
        self.after_work(token);
    }
}

/// Tells the handler of connections that were asked for and will not be opened any more.
pub(super) fn give_back_dials<H: Handler>(
    handler: &mut H,
    states: &States<H::State>,
    inbox: &Inbox,
) {
    while let Some(mail) = inbox.take() {
        let Mail::Dial(outbound) = mail else { continue };
        if let Some(state) = states.make(outbound.state) {
            call_on_dial_failed(handler, state, &DialError::Post(PostError::Stopped));
        }
    }
}

/// The server's answer, whole: the connection is open, or failed.
pub(super) fn on_answer<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    head: &[u8],
) {
    let Some(dialling) = conn.wire.pending.as_mut().and_then(|pending| pending.dialling.take())
    else {
        return;
    };
    let request = &dialling.request;
    let judge = || {
        let answer = client::Response::parse(head, &shared.limits.head)?;
        Ok((answer.check_upgrade(request)?, answer))
    };
    // An extension that panics has not confirmed anything.
    let judged = catch_unwind(AssertUnwindSafe(judge));
    match judged.unwrap_or(Err(HandshakeError::UnusableExtension)) {
        Ok((agreed, answer)) => {
            shared.deflate.begin_as_client(&mut conn.wire, agreed.deflate);
            if let Some(layer) = agreed.layer {
                extend(&mut conn.wire, shared, token, layer);
            }
            begin_frames(&mut conn.wire, shared, token);
            call(handler, conn, shared, token, Event::Answer(&answer));
        }
        Err(error) => fail(conn, shared, *dialling, DialError::of_answer(error)),
    }
}

/// Ends a connection of which the server's answer says that it will not open.
pub(super) fn fail<S>(
    conn: &mut Conn<S>,
    shared: &Shared,
    mut dialling: Dialling,
    error: DialError,
) {
    dialling.error = Some(error);
    let wire = &mut conn.wire;
    wire.pending_mut().dialling = Some(Box::new(dialling));
    // There is nothing to be said to this server, and nothing to be waited for.
    wire.flags.insert(Flags::ENDED);
    wire.phase = Phase::Flushing;
    wire.since = shared.now;
}

/// Tells the handler that a connection will not open, and why.
pub(super) fn end_dialling<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &Shared,
    error: &DialError,
) {
    shared.counters.dial_failures.add(1);
    let Some(state) = conn.state.take() else { return };
    call_on_dial_failed(handler, state, error);
}

/// A panic changes nothing: the connection is gone.
fn call_on_dial_failed<H: Handler>(handler: &mut H, state: H::State, error: &DialError) {
    if catch_unwind(AssertUnwindSafe(|| handler.on_dial_failed(state, error))).is_err() {
        crate::base::event::error!("the handler panicked");
    }
}
