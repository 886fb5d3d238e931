//! Heads in the bytes of a connection that does not speak frames yet, or between two requests: who answers them, and
//! what came behind.

use ringwire_codec::Buffers as _;
use ringwire_codec::handshake::{HandshakeError, HeadScanner, client, server};

use super::Worker;
use super::http::{may_go_on, on_ordinary, take_body};
use super::outbound::{self, on_answer};
use super::receive::keep_unread;
use super::upgrade::{answer_upgrade, deliver_rest, refuse_for};
use crate::app::handler::Handler;
use crate::conn::dialling::DialError;
use crate::conn::{Conn, Flags, Phase, Wire};
use crate::driver::{Driver, Token};
use crate::state::Shared;

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
        let is_cut = conn.wire.phase == Phase::Handshake
            && conn.wire.pending.as_ref().is_some_and(|pending| pending.cause.is_some());
        if is_cut {
            // The peer has ended its stream: the rest of this request will not come.
            self.end_stream(token);
        }
    }
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
            // Whoever closes it in `on_answer` is owed the peer's close frame as well.
            Phase::Open | Phase::Closing => {
                return deliver_rest(handler, conn, shared, token, bytes);
            }
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

/// A head is too long, or malformed.
fn on_bad_head<S>(conn: &mut Conn<S>, shared: &mut Shared, error: HandshakeError) {
    let dialling = conn.wire.pending.as_mut().and_then(|pending| pending.dialling.take());
    match dialling {
        Some(dialling) => outbound::fail(conn, shared, *dialling, DialError::Handshake(error)),
        None => refuse_for(&mut conn.wire, shared, error),
    }
}

/// A whole head, and what came behind it: answers it. Gives how many bytes that took.
fn on_head<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    (head, rest): (&[u8], &[u8]),
) -> usize {
    if conn.wire.flags.contains(Flags::CLIENT) {
        on_answer(handler, conn, shared, token, head);
        return head.len();
    }
    let used = answer(handler, conn, shared, token, (head, rest));
    if conn.wire.is_deferred_upgrade() {
        let copy = shared.pool.copy_of(head);
        conn.wire.pending_mut().head = copy;
    }
    used
}

/// Judges a request and asks the handler for the answer. Gives how many bytes the request took.
fn answer<H: Handler>(
    handler: &mut H,
    conn: &mut Conn<H::State>,
    shared: &mut Shared,
    token: Token,
    (head, rest): (&[u8], &[u8]),
) -> usize {
    match server::Request::parse(head, &shared.limits.head) {
        Ok(parsed) if parsed.is_upgrade() => {
            answer_upgrade(handler, conn, shared, token, &parsed);
            head.len()
        }
        Ok(parsed) => head.len() + on_ordinary(handler, conn, shared, token, &parsed, (head, rest)),
        Err(error) => {
            refuse_for(&mut conn.wire, shared, error);
            head.len()
        }
    }
}
