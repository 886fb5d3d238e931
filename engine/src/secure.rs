//! The TLS sessions of a worker's connections.
//!
//! A connection over TLS is one like any other, with a session beside it: what it receives is decrypted before
//! it is looked at, and what it sends is encrypted at the last moment, when nothing of it is in flight. Until then it
//! waits in plain text, so that a queued message can still be dropped or replaced; an encrypted one could not, since
//! records are numbered. What TLS itself has to say goes before everything that is encrypted after it.

use ringwire_codec::Buffers;
use ringwire_tls::{Error, Facts, Handshake, Session};

use crate::chunked::Chunked;
use crate::conn::Wire;
use crate::handler::Response;
use crate::metrics::Counters;
use crate::shared::Shared;

/// What encryption adds to a record of at most [`RECORD_LEN`] bytes, at most (RFC 5246 §6.2.3).
const RECORD_OVERHEAD: usize = 64;
/// The longest plaintext of a record (RFC 8446 §5.1).
const RECORD_LEN: usize = 16 << 10;

/// The sessions, by slot: a pointer for each slot up to the highest that has one.
#[derive(Debug)]
pub(crate) struct Sessions {
    table: Chunked<Option<Box<Secure>>>,
    /// What was decrypted last, kept for its memory.
    plaintext: Vec<u8>,
}

/// A connection's session, and what that has to say.
#[derive(Debug)]
struct Secure {
    session: Session,
    output: Vec<u8>,
    /// The handshake was counted.
    counted: bool,
}

/// What came of received bytes.
#[derive(Debug)]
pub(crate) struct Decrypted {
    /// To be given back by [`Sessions::give_back`].
    pub(crate) plaintext: Vec<u8>,
    /// The peer will send no more (close_notify).
    pub(crate) ended: bool,
    /// The session failed; what there was to say about it is in its output.
    pub(crate) failure: Option<Error>,
}

impl Sessions {
    pub(crate) const fn new() -> Self {
        Self { table: Chunked::new(), plaintext: Vec::new() }
    }

    pub(crate) fn insert(&mut self, slot: u32, session: Session) {
        let secure = Secure { session, output: Vec::new(), counted: false };
        *self.table.entry(slot) = Some(Box::new(secure));
    }

    /// What the handshake agreed on, once it is over.
    pub(crate) fn facts(&self, slot: u32) -> Option<Facts<'_>> {
        self.table.get(slot)?.as_ref()?.session.facts()
    }

    /// Takes received bytes, which are garbage afterwards.
    pub(crate) fn decrypt(
        &mut self,
        slot: u32,
        received: &mut [u8],
        counters: &Counters,
    ) -> Option<Decrypted> {
        let mut plaintext = std::mem::take(&mut self.plaintext);
        let secure = self.get_mut(slot)?;
        let result = secure.session.receive(received, &mut plaintext, &mut secure.output);
        if matches!(result, Err(Error::PlainHttp)) {
            plain_http().encode(&mut secure.output);
        }
        if !secure.counted && (result.is_err() || !secure.session.is_handshaking()) {
            secure.counted = true;
            counters.count_handshake(secure.session.facts());
        }
        let ended = secure.session.peer_has_closed();
        Some(Decrypted { plaintext, ended, failure: result.err() })
    }

    pub(crate) fn give_back(&mut self, mut plaintext: Vec<u8>) {
        plaintext.clear();
        self.plaintext = plaintext;
    }

    /// Says close_notify, once; whether there is something to send now.
    pub(crate) fn close(&mut self, slot: u32) -> bool {
        let Some(secure) = self.get_mut(slot) else { return false };
        secure.session.close(&mut secure.output);
        !secure.output.is_empty()
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Secure> {
        self.table.get_mut(slot)?.as_deref_mut()
    }
}

impl Counters {
    /// A TLS handshake is over, or failed.
    fn count_handshake(&self, facts: Option<Facts<'_>>) {
        match facts {
            None => self.tls_failures.add(1),
            Some(facts) => {
                self.tls_handshakes.add(1);
                self.tls_resumptions.add(usize::from(facts.handshake == Handshake::Resumed));
            }
        }
    }
}

impl Shared {
    /// What a connection over TLS sends next, encrypted: what TLS has to say, and behind it the first of what waits,
    /// or else the turn's output. Empty: nothing. No send of it is in flight.
    pub(crate) fn seal(&mut self, wire: &mut Wire, slot: u32) -> Vec<u8> {
        let (plaintext, queued) = self.next_plaintext(wire);
        let Self { sessions, pool, counters, .. } = self;
        let Some(secure) = sessions.get_mut(slot) else { return plaintext };
        let mut sealed = std::mem::take(&mut secure.output);
        if !plaintext.is_empty() {
            let records = plaintext.len().div_ceil(RECORD_LEN);
            let len = plaintext.len() + records * RECORD_OVERHEAD;
            if sealed.is_empty() {
                let used = std::mem::replace(&mut sealed, pool.take(len));
                pool.give(used);
            }
            // After a failure there is nobody who could read it: the connection is ending.
            let _ = secure.session.send(&plaintext, &mut sealed);
        }
        counters.queued_bytes.add(sealed.len());
        counters.queued_bytes.sub(queued);
        pool.give(plaintext);
        sealed
    }

    /// Drops what waits to be encrypted: the session has failed, so that it never can be.
    pub(crate) fn drop_plaintext(&mut self, wire: &mut Wire) {
        self.out.clear();
        while let Some(segment) = wire.pending.as_mut().and_then(|pending| pending.queue.pop()) {
            self.counters.queued_bytes.sub(segment.len());
            self.pool.give(segment);
        }
    }

    /// Forgets the session of a connection that has ended.
    pub(crate) fn forget_session(&mut self, slot: u32) {
        let Some(secure) = self.sessions.table.get_mut(slot).and_then(Option::take) else { return };
        self.counters.tls_failures.add(usize::from(!secure.counted));
        self.pool.give(secure.output);
    }

    /// The first segment that waits, and what it counted for; or the turn's output, which was not counted yet.
    fn next_plaintext(&mut self, wire: &mut Wire) -> (Vec<u8>, usize) {
        let queue = wire.pending.as_mut().map(|pending| &mut pending.queue);
        match queue.and_then(|queue| queue.pop()) {
            Some(segment) => {
                let len = segment.len();
                (segment, len)
            }
            None => (std::mem::take(&mut self.out), 0),
        }
    }
}

/// The answer to a client that speaks HTTP without TLS.
fn plain_http() -> Response {
    Response::new(http::StatusCode::BAD_REQUEST).with_body(
        http::HeaderValue::from_static("text/plain"),
        b"This port speaks TLS: use https:// or wss://\n".as_slice(),
    )
}
