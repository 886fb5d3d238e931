//! The opening handshake as a server: requests for an upgrade, and the answers to them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use ringwire_codec::Buffers;
use ringwire_codec::extension::{ExtensionAnswers, FrameLayer, SharedExtension};
use ringwire_codec::handshake::{HandshakeError, server};
use ringwire_codec::http::{Exchange, Response};

use super::Worker;
use super::http::{internal_error, write_answer};
use super::layered::{deliver_layered, fail_behind, unwrap_unread};
use super::receive::{call, deliver_or_keep};
use crate::app::event::Event;
use crate::app::handler::{Answer, Handler};
use crate::app::request::Request;
use crate::conn::answer::{Accept, AnyState, Verdict};
use crate::conn::id::ConnId;
use crate::conn::{Conn, Flags, Phase, Wire};
use crate::driver::{Driver, Token};
use crate::layers::deflate::Deflate;
use crate::state::Shared;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// The application has made up its mind about a deferred request for an upgrade.
    pub(super) fn answer_deferred(&mut self, id: ConnId, answer: Verdict) {
        let token = Token { slot: id.slot, generation: id.generation };
        let Self { conns, handler, shared, .. } = self;
        let Some(conn) = conns.get_mut(token).filter(|conn| conn.wire.is_deferred_upgrade()) else {
            return;
        };
        let head = std::mem::take(&mut conn.wire.pending_mut().head);
        match answer {
            Ok(_) if shared.hub.refuses_requests() => {
                let refusal = shared.refuse_while_draining();
                refuse(&mut conn.wire, shared, &refusal);
            }
            Ok(accept) => accept_deferred(handler, conn, shared, token, &head, accept),
            Err(response) => refuse(&mut conn.wire, shared, &response),
        }
        shared.pool.give(head);
        shared.list(&mut conn.wire, token);
        self.after_work(token);
    }
}

/// The connection speaks frames from here on: `rest` is what came of them already. It may be closed by now.
pub(super) fn deliver_rest<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    rest: &mut [u8],
) {
    if conn.wire.phase == Phase::Open {
        call(handler, conn, shared, token, Event::Open);
    }
    if !deliver_layered(handler, conn, shared, token, rest) {
        deliver_or_keep(handler, conn, shared, token, rest, None);
    }
}

pub(super) fn answer_upgrade<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    parsed: &server::Request<'_>,
) {
    let wire = &mut conn.wire;
    let tls = shared.sessions.facts(token.slot);
    let request = Request::new(parsed, shared.id(token), wire.peer.into(), tls);
    let upgrade = match parsed.check_upgrade() {
        Ok(upgrade) => upgrade,
        Err(error) => return refuse_for(wire, shared, error),
    };
    if let Some(refusal) = shared.refusal(&request) {
        return refuse(wire, shared, &refusal);
    }
    match catch_unwind(AssertUnwindSafe(|| handler.on_request(&request))) {
        Ok(Answer::Accept(accept)) => open(conn, shared, token, &upgrade, accept),
        Ok(Answer::Reject(response)) => refuse(wire, shared, &response),
        Ok(Answer::Defer) => wire.phase = Phase::Deferred,
        Err(_) => refuse(wire, shared, &internal_error()),
    }
}

/// Writes the 101; from here on the connection speaks frames.
fn open<S>(
    conn: &mut Conn<S>,
    shared: &mut Shared,
    token: Token,
    upgrade: &server::Upgrade<'_>,
    accept: Accept<S>,
) {
    let (chosen, state) = accept.replace_state(());
    let wire = &mut conn.wire;
    let agreement = if chosen.declines_compression { None } else { shared.deflate.agree(upgrade) };
    let Ok((answers, layer)) = agree(&chosen.extensions, upgrade) else {
        shared.deflate.take_back(agreement);
        return refuse(wire, shared, &internal_error());
    };
    let mut accept = server::Accept::new().with_deflate(agreement).with_extensions(answers);
    let own = &shared.limits.subprotocols;
    let preferred =
        || own.iter().find(|own| upgrade.request().subprotocols().any(|it| it == **own));
    if let Some(name) = chosen.subprotocol.or_else(|| preferred().cloned()) {
        accept = accept.with_subprotocol(name);
    }
    for (name, value) in chosen.headers {
        accept = accept.with_header(name, value);
    }
    shared.reserve_out(512);
    if let Err(error) = accept.encode(upgrade, &mut shared.out) {
        crate::base::event::error!(%error, "a request is refused with 500: the handler's Accept is invalid");
        shared.deflate.take_back(agreement);
        return refuse(wire, shared, &internal_error());
    }
    if let Some(agreement) = &agreement {
        Deflate::begin(wire, agreement);
    }
    if let Some(layer) = layer {
        extend(wire, shared, token, layer);
    }
    wire.codec.set_streaming(chosen.streaming);
    conn.state = Some(state);
    shared.counters.handshakes.add(1);
    begin_frames(wire, shared, token);
}

/// What is answered to the offers of extensions. `Err`: one panicked.
fn agree(
    extensions: &[SharedExtension],
    upgrade: &server::Upgrade<'_>,
) -> std::thread::Result<(ExtensionAnswers, Option<FrameLayer>)> {
    let offers = || upgrade.request().extensions().flatten();
    catch_unwind(AssertUnwindSafe(|| FrameLayer::accept(extensions, offers())))
}

/// From here on frames go through extensions. What waits to be sent is the handshake.
pub(super) fn extend(wire: &mut Wire, shared: &mut Shared, token: Token, mut layer: FrameLayer) {
    let queued_len = wire.pending.as_ref().map_or(0, |pending| pending.queue.len());
    layer.begin_after(queued_len + shared.out.len());
    shared.layers.insert(token.slot, layer);
    wire.flags.insert(Flags::LAYERED);
}

/// The handshake is done.
pub(super) fn begin_frames(wire: &mut Wire, shared: &mut Shared, token: Token) {
    wire.phase = Phase::Open;
    wire.flags.insert(Flags::OPENED);
    if let Some(directory) = shared.hub.directory(shared.worker) {
        directory.add(token);
    }
    // Whom this side has dialled is no stranger.
    let stranger = !wire.flags.contains(Flags::CLIENT);
    wire.flags.set(Flags::UNAUTHENTICATED, stranger && shared.limits.unauthenticated.is_some());
    shared.counters.open_connections.add(1);
    // Silence counts from here on: the application may have taken its time for the answer.
    wire.note_received(shared.now);
    shared.set_deadline(wire, token);
    if shared.draining.is_some() {
        shared.latecomers.push(token);
    }
}

fn accept_deferred<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    head: &[u8],
    accept: Accept<AnyState>,
) {
    // The head was a correct request when it was deferred, and is still the same.
    let Ok(request) = server::Request::parse(head, &shared.limits.head) else { return };
    let Ok(upgrade) = request.check_upgrade() else { return };
    let (mut accept, given) = accept.replace_state(());
    let agreed = OnceLock::new();
    let tls = shared.sessions.facts(token.slot);
    let asked =
        Request::new(&request, shared.id(token), conn.wire.peer.into(), tls).with_agreed(&agreed);
    let Ok(Ok(state)) = catch_unwind(AssertUnwindSafe(|| handler.state_from(given, &asked))) else {
        crate::base::event::error!(
            conn = %shared.id(token),
            "a request was accepted with a state of another type than its handler's"
        );
        return refuse(&mut conn.wire, shared, &internal_error());
    };
    accept.subprotocol = accept.subprotocol.or_else(|| agreed.into_inner());
    open(conn, shared, token, &upgrade, accept.replace_state(state).0);
    if conn.wire.phase == Phase::Open {
        let failure = unwrap_unread(&mut conn.wire, shared, token);
        call(handler, conn, shared, token, Event::Open);
        if let Some(failure) = failure {
            fail_behind(handler, conn, shared, token, &failure);
        }
    }
}

pub(super) fn refuse_for(wire: &mut Wire, shared: &mut Shared, error: HandshakeError) {
    crate::base::event::debug!(%error, "request refused");
    refuse(wire, shared, &Response::from(error));
}

fn refuse(wire: &mut Wire, shared: &mut Shared, response: &Response) {
    shared.counters.handshake_failures.add(1);
    write_answer(wire, shared, Exchange::LAST, response);
}
