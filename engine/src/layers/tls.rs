//! The TLS sessions of a worker's connections.
//!
//! A connection over TLS is one like any other, with a session beside it: what it receives is decrypted before
//! it is looked at, and what it sends is encrypted at the last moment, when nothing of it is in flight. Until then it
//! waits in plain text, so that a queued message can still be dropped or replaced; an encrypted one could not, since
//! records are numbered. What TLS itself has to say goes before everything that is encrypted after it.

use ringwire_codec::Buffers;
use ringwire_codec::http::Response;
use ringwire_tls::pki_types::ServerName;
use ringwire_tls::{Certificates, ClientConfig, Error, Facts, Handshake, Session};

use crate::base::buffers::BufferPool;
use crate::base::chunked::Chunked;
use crate::base::output::Output;
use crate::compute::handshake::{Shake, Shaken};
use crate::compute::{Compute, Job, Lane};
use crate::conn::id::ConnId;
use crate::limits::memory::SESSION_LEN;
use crate::metrics::Counters;

/// What encryption adds to a record of at most [`RECORD_LEN`] bytes, at most (RFC 5246 §6.2.3).
const RECORD_OVERHEAD: usize = 64;
/// The longest plaintext of a record (RFC 8446 §5.1).
const RECORD_LEN: usize = 16 << 10;

/// Says what is wrong with certificates that can be used all the same.
pub(crate) fn warn_of(certificates: &Certificates) {
    for info in certificates.infos().iter().filter(|info| info.names.is_empty()) {
        crate::base::event::warn!(
            certificate = %info.origin,
            common_name = info.common_name,
            "the certificate has no subjectAltName, so browsers refuse it: make one with \
             `openssl req -x509 … -addext subjectAltName=DNS:NAME`"
        );
    }
}

/// The sessions, by slot: a pointer for each slot up to the highest that has one.
#[derive(Debug)]
pub(crate) struct Sessions {
    table: Chunked<Option<Box<Secure>>>,
    /// What was decrypted last, kept for its memory.
    plaintext: Vec<u8>,
    /// Memory of all sessions, about.
    memory_len: usize,
}

/// A connection's session, and what that has to say.
#[derive(Debug)]
struct Secure {
    /// `None` while a compute thread has it.
    session: Option<Session>,
    output: Vec<u8>,
    /// The server has spoken, so that the costly part of the handshake is over.
    begun: bool,
    /// The handshake was counted.
    counted: bool,
    /// What the sum has of this session, in bytes.
    charged: usize,
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
        Self { table: Chunked::new(), plaintext: Vec::new(), memory_len: 0 }
    }

    /// Memory of all sessions, in bytes: an estimate of what rustls takes, and what they keep of records that are not
    /// whole.
    pub(crate) fn memory_len(&self) -> usize {
        self.memory_len
    }

    /// What one session counts for, in bytes.
    pub(crate) fn charge_of(&self, slot: u32) -> usize {
        self.table.get(slot).and_then(Option::as_ref).map_or(0, |secure| secure.charged)
    }

    /// How much of that is for input that is not whole.
    pub(crate) fn retained_of(&self, slot: u32) -> usize {
        let secure = self.table.get(slot).and_then(Option::as_ref);
        let session = secure.and_then(|secure| secure.session.as_ref());
        session.map_or(0, Session::retained_len)
    }

    /// The same of one session, looked at anew.
    #[cfg(test)]
    pub(crate) fn memory_of(&self, slot: u32) -> usize {
        let Some(Some(secure)) = self.table.get(slot) else { return 0 };
        secure.session.as_ref().map_or(secure.charged, |it| SESSION_LEN + it.memory_len())
    }

    pub(crate) fn insert(&mut self, slot: u32, session: Session) {
        self.keep(slot, Secure::new(session));
    }

    fn keep(&mut self, slot: u32, secure: Secure) {
        *self.table.entry(slot) = Some(Box::new(secure));
        self.recharge(slot);
    }

    /// Counts what a session takes now. One that is away takes what it took.
    fn recharge(&mut self, slot: u32) {
        let Some(secure) = self.table.get_mut(slot).and_then(Option::as_mut) else { return };
        if let Some(session) = &secure.session {
            self.memory_len -= secure.charged;
            secure.charged = SESSION_LEN + session.memory_len();
            self.memory_len += secure.charged;
        }
    }

    /// A session whose handshake is over, and was not counted here.
    pub(crate) fn insert_established(&mut self, slot: u32, session: Session) {
        self.keep(slot, Secure { begun: true, counted: true, ..Secure::new(session) });
    }

    /// A session that begins from here, with its first words in its output.
    pub(crate) fn insert_client(
        &mut self,
        slot: u32,
        config: &ClientConfig,
        name: ServerName<'static>,
    ) -> Result<(), Error> {
        let mut session = Session::client(config, name)?;
        let mut output = Vec::new();
        session.poll_transmit(&mut output)?;
        self.keep(slot, Secure { output, begun: true, ..Secure::new(session) });
        Ok(())
    }

    /// What the handshake agreed on, once it is over.
    pub(crate) fn facts(&self, slot: u32) -> Option<Facts<'_>> {
        self.table.get(slot)?.as_ref()?.session.as_ref()?.facts()
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
        let session = secure.session.as_mut()?;
        let result = session.receive(received, &mut plaintext, &mut secure.output);
        let decrypted = secure.decrypted(plaintext, result, counters);
        self.recharge(slot);
        Some(decrypted)
    }

    /// Whether the next bytes may be those for which the server has to sign.
    pub(crate) fn is_costly(&self, slot: u32) -> bool {
        self.table.get(slot).and_then(Option::as_ref).is_some_and(|secure| !secure.begun)
    }

    /// Sends a session away with what was received for it.
    pub(crate) fn send_away(&mut self, conn: ConnId, received: &[u8], compute: &Compute) -> bool {
        let Some(secure) = self.get_mut(conn.slot) else { return false };
        let Some(room) = compute.room(Lane::Engine) else { return false };
        let Some(session) = secure.session.take() else { return false };
        room.submit(Job::Shake(Box::new(Shake { conn, session, received: received.to_vec() })));
        true
    }

    /// Takes a session back, which its connection has waited for.
    pub(crate) fn take_back(&mut self, shaken: Shaken, counters: &Counters) -> Option<Decrypted> {
        let secure = self.get_mut(shaken.conn.slot)?;
        secure.session = Some(shaken.session);
        secure.output.extend_from_slice(&shaken.output);
        let decrypted = secure.decrypted(shaken.plaintext, shaken.result, counters);
        self.recharge(shaken.conn.slot);
        Some(decrypted)
    }

    /// Whether the connection is over TLS.
    pub(crate) fn has(&self, slot: u32) -> bool {
        self.table.get(slot).is_some_and(Option::is_some)
    }

    /// Whether the peer said close_notify.
    pub(crate) fn has_ended(&self, slot: u32) -> bool {
        let secure = self.table.get(slot).and_then(Option::as_ref);
        let session = secure.and_then(|secure| secure.session.as_ref());
        session.is_some_and(Session::peer_has_closed)
    }

    /// Whether nothing can be encrypted yet.
    pub(crate) fn is_handshaking(&self, slot: u32) -> bool {
        let secure = self.table.get(slot).and_then(Option::as_ref);
        let session = secure.and_then(|secure| secure.session.as_ref());
        session.is_some_and(Session::is_handshaking)
    }

    pub(crate) fn give_back(&mut self, mut plaintext: Vec<u8>) {
        plaintext.clear();
        self.plaintext = plaintext;
    }

    /// Says close_notify, once; whether there is something to send now.
    pub(crate) fn close(&mut self, slot: u32) -> bool {
        let Some(secure) = self.get_mut(slot) else { return false };
        if let Some(session) = &mut secure.session {
            session.close(&mut secure.output);
        }
        !secure.output.is_empty()
    }

    /// What a connection sends: what TLS has to say, and behind it `plaintext`, encrypted if the connection is over
    /// TLS.
    pub(crate) fn seal(&mut self, slot: u32, plaintext: Output, pool: &mut BufferPool) -> Output {
        match self.get_mut(slot) {
            Some(secure) => Output::Own(secure.seal(plaintext, pool)),
            None => plaintext,
        }
    }

    /// Forgets the session of a connection that has ended.
    pub(crate) fn forget(&mut self, slot: u32, counters: &Counters, pool: &mut BufferPool) {
        let Some(secure) = self.table.get_mut(slot).and_then(Option::take) else { return };
        self.memory_len -= secure.charged;
        counters.tls_failures.add(usize::from(!secure.counted));
        pool.give(secure.output);
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Secure> {
        self.table.get_mut(slot)?.as_deref_mut()
    }
}

impl Secure {
    fn new(session: Session) -> Self {
        let session = Some(session);
        Self { session, output: Vec::new(), begun: false, counted: false, charged: 0 }
    }

    /// What came of bytes that the session has taken.
    fn decrypted(
        &mut self,
        plaintext: Vec<u8>,
        result: Result<(), Error>,
        counters: &Counters,
    ) -> Decrypted {
        if matches!(result, Err(Error::PlainHttp)) {
            plain_http().encode(&mut self.output);
        }
        self.begun |= !self.output.is_empty();
        let session = self.session.as_ref();
        let is_over = session.is_none_or(|session| !session.is_handshaking());
        if !self.counted && (result.is_err() || is_over) {
            self.counted = true;
            counters.count_handshake(session.and_then(Session::facts));
        }
        let ended = session.is_some_and(Session::peer_has_closed);
        Decrypted { plaintext, ended, failure: result.err() }
    }

    /// What TLS has to say, and behind it the plaintext, encrypted.
    fn seal(&mut self, plaintext: Output, pool: &mut BufferPool) -> Vec<u8> {
        let mut sealed = std::mem::take(&mut self.output);
        if !plaintext.is_empty() {
            let records = plaintext.len().div_ceil(RECORD_LEN);
            let len = plaintext.len() + records * RECORD_OVERHEAD;
            if sealed.is_empty() {
                let used = std::mem::replace(&mut sealed, pool.take(len));
                pool.give(used);
            }
            // After a failure there is nobody who could read it: the connection is ending.
            if let Some(session) = &mut self.session {
                let _ = session.send(&plaintext, &mut sealed);
            }
        }
        pool.reclaim(plaintext);
        sealed
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

/// The answer to a client that speaks HTTP without TLS.
fn plain_http() -> Response {
    Response::new(http::StatusCode::BAD_REQUEST).with_body(
        http::HeaderValue::from_static("text/plain"),
        b"This port speaks TLS: use https:// or wss://\n".as_slice(),
    )
}
