//! Ordinary HTTP on a connection: its requests one after the other, their bodies, and the answers in that order.
//!
//! ```text
//!   Idle ─► Handshake (head, then body) ─► Handler::on_http ─┬─► answer ─► Idle, or Flushing
//!    ▲                                                       └─► Deferred ─► Responder::send
//!    └── pipelined requests wait unread while an answer is owed, or more output waits than the high-water mark
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};

use ::http::StatusCode;
use ringwire_codec::Buffers as _;
use ringwire_codec::handshake::server;
use ringwire_codec::http::{BodyDecoder, BodyFraming, CONTINUE, Exchange, Response};

use super::Worker;
use crate::app::handler::Handler;
use crate::app::request::Request;
use crate::app::responder::answered_within;
use crate::conn::body::Incoming;
use crate::conn::{Conn, Phase, Wire};
use crate::driver::{Driver, Token};
use crate::hub::mail::{Answered, RequestId};
use crate::state::Shared;

/// What a head of an answer takes, about.
const ANSWER_HEAD_LEN: usize = 512;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// What follows every piece of work on a connection that is between two requests.
    pub(super) fn after_idle_work(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        if wire.has_unread() {
            if may_go_on(wire, shared) {
                shared.list(wire, token);
            }
        } else if wire.has_said_all() {
            return self.end_stream(token);
        }
        if !wire.is_flushed() {
            shared.set_stall_deadline(wire, token);
        } else if let Some(limit) = shared.limits.http_keep_alive {
            shared.wheel.set_earlier(token.slot, wire.since.max(wire.sent) + limit);
        }
        shared.tidy(wire);
    }

    /// Ends a connection that is between two requests; what was answered goes out first.
    pub(super) fn end_idle(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.wire.phase = Phase::Flushing;
        conn.wire.since = self.shared.now;
        self.after_work(token);
    }

    /// The application has answered a request that it had kept. Where the request was answered for it, another may be
    /// under way, whose answer this is not.
    pub(super) fn on_answered(&mut self, answered: Answered) {
        let Answered { request: RequestId { conn: id, number }, response } = answered;
        let token = Token { slot: id.slot, generation: id.generation };
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        if wire.phase != Phase::Deferred || wire.requests != number {
            return;
        }
        if let Some(exchange) = wire.take_exchange() {
            write_answer(wire, shared, exchange, &response);
            shared.list(wire, token);
            self.after_work(token);
        }
    }

    /// The application has not answered a deferred request in time.
    pub(super) fn answer_for_it(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        crate::base::event::warn!(conn = %shared.id(token), "a deferred HTTP request was not answered in time");
        if let Some(exchange) = conn.wire.take_exchange() {
            let late = Response::new(StatusCode::SERVICE_UNAVAILABLE);
            write_answer(&mut conn.wire, shared, exchange.closing(), &late);
        }
        self.after_work(token);
    }
}

impl Wire {
    /// The request whose answer was deferred, now that it is answered.
    pub(super) fn take_exchange(&mut self) -> Option<Exchange> {
        self.pending.as_mut()?.exchange.take()
    }
}

/// Whether another request may be taken: its answer would not wait behind more than the high-water mark.
pub(super) fn may_go_on(wire: &Wire, shared: &Shared) -> bool {
    wire.phase == Phase::Idle && wire.queued_len() + shared.out.len() < shared.limits.high_water
}

/// An ordinary request: its head, and what came behind that. Gives how much of this is its body.
pub(super) fn on_ordinary<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    parsed: &server::Request<'_>,
    (head, rest): (&[u8], &[u8]),
) -> usize {
    if shared.is_short_of_memory() {
        let tls = shared.sessions.facts(token.slot);
        let request = Request::new(parsed, shared.id(token), conn.wire.peer.into(), tls);
        if !is_monitoring(handler, &request) {
            let refusal = shared.refuse_for_memory();
            write_answer(&mut conn.wire, shared, Exchange::of(parsed).closing(), &refusal);
            return rest.len();
        }
    }
    let framing = parsed.body_framing();
    let mut decoder = match BodyDecoder::new(framing, shared.limits.max_body_len) {
        Ok(decoder) => decoder,
        Err(error) => {
            refuse(&mut conn.wire, shared, error.into());
            return rest.len();
        }
    };
    // A body that is whole where it was received is handed over as a borrow.
    if let BodyFraming::Length(len) = framing
        && let Some(body) = usize::try_from(len).ok().and_then(|len| rest.get(..len))
    {
        respond(handler, conn, shared, token, parsed, body);
        return body.len();
    }
    let mut content = Vec::new();
    if rest.is_empty() {
        if parsed.expects_continue() {
            shared.reserve_out(CONTINUE.len());
            shared.out.extend_from_slice(CONTINUE);
        }
    } else {
        content = shared.pool.take(rest.len());
    }
    match decoder.receive(rest, &mut content) {
        Ok(used) if decoder.is_complete() => {
            respond(handler, conn, shared, token, parsed, &content);
            shared.pool.give(content);
            used
        }
        Ok(used) => {
            let head = shared.pool.copy_of(head);
            let pending = conn.wire.pending_mut();
            pending.head = head;
            pending.incoming = Some(Box::new(Incoming { decoder, content }));
            used
        }
        Err(error) => {
            shared.pool.give(content);
            refuse(&mut conn.wire, shared, error.into());
            rest.len()
        }
    }
}

/// More of a body. Gives how many bytes belong to it.
pub(super) fn take_body<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    (mut incoming, bytes): (Box<Incoming>, &[u8]),
) -> usize {
    let Incoming { decoder, content } = &mut *incoming;
    if content.capacity() == 0 {
        *content = shared.pool.take(bytes.len());
    }
    let used = match decoder.receive(bytes, content) {
        Ok(used) if !decoder.is_complete() => {
            conn.wire.pending_mut().incoming = Some(incoming);
            return used;
        }
        result => result,
    };
    let head = std::mem::take(&mut conn.wire.pending_mut().head);
    // The head was a correct request when its body began, and is still the same.
    match (used, server::Request::parse(&head, &shared.limits.head)) {
        (Ok(_), Ok(parsed)) => respond(handler, conn, shared, token, &parsed, content),
        (Ok(_), Err(error)) => refuse(&mut conn.wire, shared, error.into()),
        (Err(error), _) => refuse(&mut conn.wire, shared, error.into()),
    }
    shared.pool.give(head);
    shared.pool.give(incoming.content);
    used.unwrap_or(bytes.len())
}

/// A whole request: asks the handler for the answer.
fn respond<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    parsed: &server::Request<'_>,
    body: &[u8],
) {
    let wire = &mut conn.wire;
    shared.counters.http_requests.add(1);
    wire.requests = wire.requests.saturating_add(1);
    let exchange = match wire.requests >= shared.limits.max_http_requests {
        true => Exchange::of(parsed).closing(),
        false => Exchange::of(parsed),
    };
    let tls = shared.sessions.facts(token.slot);
    let request = Request::new(parsed, shared.id(token), wire.peer.into(), tls).with_body(body);
    let id = RequestId { conn: shared.id(token), number: wire.requests };
    let way = shared.way_back.as_ref();
    match answered_within(way, id, |responder| handler.on_http(&request, responder)) {
        Ok(Some(response)) => write_answer(wire, shared, exchange, &response),
        Ok(None) => {
            wire.pending_mut().exchange = Some(exchange);
            wire.phase = Phase::Deferred;
            // The application has as long as the client had.
            wire.began = shared.now;
        }
        Err(_) => write_answer(wire, shared, exchange.closing(), &internal_error()),
    }
}

/// Refuses a request whose end is not known.
fn refuse(wire: &mut Wire, shared: &mut Shared, response: Response) {
    crate::base::event::debug!(status = %response.status(), "HTTP request refused");
    shared.counters.handshake_failures.add(1);
    write_answer(wire, shared, Exchange::LAST, &response);
}

/// Writes an answer, after which the connection waits for the next request, or closes.
pub(super) fn write_answer(
    wire: &mut Wire,
    shared: &mut Shared,
    exchange: Exchange,
    response: &Response,
) {
    shared.reserve_out(ANSWER_HEAD_LEN + response.body_len());
    let date = shared.clock.date(shared.now);
    // Who asks again should ask a server that stays.
    let exchange = if shared.draining.is_some() { exchange.closing() } else { exchange };
    let keeps_alive = response.encode_for(exchange, Some(&date), &mut shared.out);
    wire.phase = if keeps_alive { Phase::Idle } else { Phase::Flushing };
    wire.since = shared.now;
}

/// Whether a request is answered whatever memory there is. A handler that panics over it does not say so.
fn is_monitoring<H: Handler>(handler: &mut H, request: &Request<'_>) -> bool {
    catch_unwind(AssertUnwindSafe(|| handler.is_monitoring(request))).unwrap_or(false)
}

pub(super) fn internal_error() -> Response {
    Response::new(StatusCode::INTERNAL_SERVER_ERROR)
}
