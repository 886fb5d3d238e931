//! Ordinary HTTP on a connection: its requests one after the other, their bodies, and the answers in that order.
//!
//! ```text
//!   Idle ─► Handshake (head, then body) ─► Handler::on_http ─┬─► answer ─► Idle, or Flushing
//!    ▲                                                       └─► Deferred ─► Responder::send
//!    └── pipelined requests wait unread while an answer is owed, or more output waits than the high-water mark
//! ```

use ringwire_codec::Buffers as _;
use ringwire_codec::handshake::{HandshakeError, HeadScanner, client, server};
use ringwire_codec::http::{BodyDecoder, BodyFraming, CONTINUE, Exchange, Response};

use super::Worker;
use super::memory::is_monitoring;
use super::receive::keep_unread;
use super::upgrade::{deliver_rest, internal_error, on_bad_head, on_head};
use crate::app::handler::Handler;
use crate::app::request::Request;
use crate::app::responder::answered_within;
use crate::conn::body::Incoming;
use crate::conn::{Conn, Flags, Phase, Wire};
use crate::driver::{Driver, Token};
use crate::hub::mail::{Answered, RequestId};
use crate::state::Shared;

/// What a head of an answer takes, about.
const ANSWER_HEAD_LEN: usize = 512;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Goes on with the requests that were pipelined, if that is possible now.
    pub(super) fn resume_requests(&mut self, token: Token) {
        let Self { conns, handler, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        if !conn.wire.has_unread() || !may_go_on(&conn.wire, shared) {
            return;
        }
        let Some(pending) = &mut conn.wire.pending else { return };
        let mut unread = std::mem::take(&mut pending.unread);
        take_requests(handler, conn, shared, token, &mut unread);
        shared.pool.give(unread);
    }

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
            let late = Response::new(http::StatusCode::SERVICE_UNAVAILABLE);
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
fn may_go_on(wire: &Wire, shared: &Shared) -> bool {
    wire.phase == Phase::Idle && wire.queued_len() + shared.out.len() < shared.limits.high_water
}

/// Bytes of requests, and perhaps what follows an upgrade.
pub(super) fn on_request_bytes<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    bytes: &mut [u8],
) {
    if !conn.wire.has_unread() {
        return take_requests(handler, conn, shared, token, bytes);
    }
    keep_unread(&mut conn.wire, shared, bytes);
    let Some(pending) = conn.wire.pending.as_deref_mut() else { return };
    if conn.wire.phase == Phase::Idle {
        return;
    }
    let mut scanner = std::mem::take(&mut pending.scanner);
    let unread = std::mem::take(&mut pending.unread);
    let found = scan(&mut scanner, &unread, &conn.wire, shared);
    let Some(pending) = conn.wire.pending.as_deref_mut() else { return };
    (pending.scanner, pending.unread) = (scanner, unread);
    match found {
        Ok(Some(_)) => {
            let mut whole = std::mem::take(&mut pending.unread);
            take_requests(handler, conn, shared, token, &mut whole);
            shared.pool.give(whole);
        }
        Ok(None) if refuses_unfinished(&conn.wire, shared) => {
            shared.counters.memory_refusals.add(1);
            shared.drop_waiting(&mut conn.wire);
            shared.refuse_unfinished(&mut conn.wire);
        }
        Ok(None) => {}
        Err(error) => on_bad_head(conn, shared, error),
    }
}

/// Whether what will be refused once it is whole is refused now, since it would be kept until then.
fn refuses_unfinished(wire: &Wire, shared: &Shared) -> bool {
    shared.is_short_of_memory() && !wire.flags.contains(Flags::CLIENT)
}

/// Takes requests, until all bytes are used up or the connection does something else. Nothing is unread.
fn take_requests<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    mut bytes: &mut [u8],
) {
    let mut budget = shared.limits.messages_per_turn;
    loop {
        if conn.wire.phase == Phase::Idle {
            bytes = without_empty_lines(bytes);
        }
        match conn.wire.phase {
            Phase::Idle if budget > 0 && !bytes.is_empty() && may_go_on(&conn.wire, shared) => {
                budget -= 1;
                conn.wire.phase = Phase::Handshake;
                conn.wire.began = shared.now;
                if let Some(limit) = shared.limits.handshake {
                    shared.wheel.set_earlier(token.slot, shared.now + limit);
                }
            }
            Phase::Handshake if !bytes.is_empty() => {
                let used = take_piece(handler, conn, shared, token, bytes);
                bytes = &mut bytes[used..];
            }
            Phase::Idle | Phase::Deferred => return keep_unread(&mut conn.wire, shared, bytes),
            Phase::Open => return deliver_rest(handler, conn, shared, token, bytes),
            // A refused request ends the connection: what followed it is dropped.
            _ => return,
        }
    }
}

/// Looks for the end of a head: a request's, or the answer's of a server that was dialled. That is known to be none by
/// its first bytes, so that who speaks something else is not waited for.
fn scan(
    scanner: &mut HeadScanner,
    bytes: &[u8],
    wire: &Wire,
    shared: &Shared,
) -> Result<Option<usize>, HandshakeError> {
    if wire.flags.contains(Flags::CLIENT) {
        client::Response::check_start(bytes)?;
    }
    scanner.scan(bytes, &shared.limits.head)
}

/// RFC 9112 §2.2: empty lines between two requests are no beginning of a request, and of its time limit.
fn without_empty_lines(mut bytes: &mut [u8]) -> &mut [u8] {
    while bytes.starts_with(b"\r\n") {
        bytes = &mut bytes[2..];
    }
    bytes
}

/// Takes a head with what belongs to it, or some of a body. Gives how many bytes that took.
fn take_piece<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    bytes: &[u8],
) -> usize {
    let incoming = conn.wire.pending.as_mut().and_then(|pending| pending.incoming.take());
    if let Some(incoming) = incoming {
        return take_body(handler, conn, shared, token, (incoming, bytes));
    }
    let mut scanner = HeadScanner::default();
    match scan(&mut scanner, bytes, &conn.wire, shared) {
        Ok(Some(len)) => return on_head(handler, conn, shared, token, bytes.split_at(len)),
        Ok(None) if refuses_unfinished(&conn.wire, shared) => {
            shared.counters.memory_refusals.add(1);
            shared.refuse_unfinished(&mut conn.wire);
        }
        Ok(None) => {
            keep_unread(&mut conn.wire, shared, bytes);
            conn.wire.pending_mut().scanner = scanner;
        }
        Err(error) => on_bad_head(conn, shared, error),
    }
    bytes.len()
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
            write_answer(&mut conn.wire, shared, Exchange::LAST, &refusal);
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
fn take_body<H: Handler>(
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
