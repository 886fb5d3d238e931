//! One connection's TLS, without its socket.

use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{CommonState, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConnection};

use crate::buffered;
use crate::certs;
use crate::config::{ClientConfig, ServerConfig};
use crate::drive::{self, Driven};
use crate::error::Error;
use crate::facts::{Facts, Handshake, Version};
use crate::sniff::{self, Verdict};

/// The most bytes that a session keeps of what is not whole: a handshake message of 64 KiB, the limit of
/// rustls, and one record of the longest kind (RFC 5246 §6.2.3).
pub const MAX_RETAINED_LEN: usize = 0xffff + RECORD_HEADER_LEN + 16_384 + 2_048;

const RECORD_HEADER_LEN: usize = 5;

/// One connection's TLS, without its socket: what arrives is turned into plaintext, and plaintext into what is
/// to be sent. It is one pointer wide.
///
/// A session keeps no output: whatever it has to say is appended to the `output` of the call that caused it,
/// and the order of these bytes is the order in which they must be sent. It keeps no input either, but for
/// the beginning of a record that is not whole (and of a handshake message that is not): see
/// [`Session::memory_len`]. No call blocks, and none needs another one to go on, so that a connection waits for
/// its socket alone: to be readable while [`Session::wants_read`], to be writable while the caller's
/// queue of output is not empty.
///
/// ```text
///  socket ─► receive ─► plaintext
///               └─────► output ─► socket      handshake, tickets, alerts
///            send ────► output ─► socket      records
/// ```
pub struct Session {
    inner: Box<Inner>,
}

impl Session {
    /// The server's side. It waits for the client to begin.
    ///
    /// # Errors
    ///
    /// None that [`ServerSettings::build`](crate::ServerSettings::build) did not report.
    pub fn server(config: &ServerConfig) -> Result<Self, Error> {
        let tls = UnbufferedServerConnection::new(config.tls.clone())?;
        Ok(Self::new(Tls::Server(tls), false))
    }

    /// The client's side, connecting to a server of this name or address. Its first flight waits for
    /// [`Session::poll_transmit`].
    ///
    /// # Errors
    ///
    /// If the random source of the system fails.
    pub fn client(config: &ClientConfig, name: ServerName<'static>) -> Result<Self, Error> {
        let tls = UnbufferedClientConnection::new(config.tls.clone(), name)?;
        Ok(Self::new(Tls::Client(tls), true))
    }

    /// The server's side, going on where a connection of rustls itself stands: that of another server, such as one
    /// which has answered the request for an upgrade (`into_inner` of tokio-rustls gives it).
    ///
    /// Nothing of it is lost: what it has received and not given away comes with the first [`Session::receive`], which
    /// may be one of nothing, and what it has not written yet goes before everything else. rustls's own buffers stay
    /// with it, so that an idle session takes 8.5 KiB instead of 3.2, and what is received is copied twice more. Early
    /// data that was not read is lost.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the handshake is not over.
    pub fn established(mut connection: ServerConnection) -> Result<Self, Error> {
        if connection.is_handshaking() {
            return Err(Error::NotReady);
        }
        buffered::take_over(&mut connection);
        let server_name = connection.server_name().map(Into::into);
        let mut session = Self::new(Tls::Buffered(Box::new(connection)), true);
        session.inner.server_name = server_name;
        Ok(session)
    }

    /// Whether the handshake is still under way, so that [`Session::send`] is refused. A handshake that failed
    /// or was closed stays under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.inner.tls.common().is_handshaking()
    }

    /// Whether more input can change anything: until the peer's close_notify, or a failure.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        self.inner.phase != Phase::Failed && !self.inner.peer_has_closed
    }

    /// Whether [`Session::poll_transmit`] has something to append: a new client's first flight, or what an
    /// [established](Session::established) connection had not written, and nothing else ever, since every other call
    /// hands over what it produces.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.inner.phase != Phase::Failed && self.inner.tls.common().wants_write()
    }

    /// Whether the peer's close_notify has come. What arrives after it is ignored; data may still be sent.
    #[must_use]
    pub fn peer_has_closed(&self) -> bool {
        self.inner.peer_has_closed
    }

    /// What the handshake agreed on, once it is over.
    #[must_use]
    pub fn facts(&self) -> Option<Facts<'_>> {
        let common = self.inner.tls.common();
        if common.is_handshaking() {
            return None;
        }
        Some(Facts {
            version: match common.protocol_version()? {
                ProtocolVersion::TLSv1_3 => Version::Tls13,
                _ => Version::Tls12,
            },
            cipher_suite: common.negotiated_cipher_suite()?.suite().as_str()?,
            server_name: self.inner.server_name.as_deref(),
            alpn: common.alpn_protocol(),
            peer_certificates: common.peer_certificates().unwrap_or_default(),
            handshake: match common.handshake_kind()? {
                HandshakeKind::Full => Handshake::Full,
                HandshakeKind::FullWithHelloRetryRequest => Handshake::FullWithRetry,
                HandshakeKind::Resumed => Handshake::Resumed,
            },
        })
    }

    /// Bytes of heap that the session holds: its own, and the input that is not whole, at most
    /// [`MAX_RETAINED_LEN`] rounded up to what the vector grew to. What rustls holds besides (keys, transcript,
    /// the peer's certificates) is not counted.
    #[must_use]
    pub fn memory_len(&self) -> usize {
        let name_len = self.inner.server_name.as_deref().map_or(0, str::len);
        size_of::<Inner>() + self.inner.retained.capacity() + name_len
    }

    /// How many bytes of that are for input that is not whole.
    #[must_use]
    pub fn retained_len(&self) -> usize {
        self.inner.retained.capacity()
    }

    /// Takes all of `input`: appends what was said in whole records to `plaintext`, and what TLS itself has to
    /// say (handshake, tickets, alerts) to `output`.
    ///
    /// Records are decrypted where they lie, so `input` is garbage afterwards. The beginning of a record that
    /// is cut by the end of `input` is copied once, and kept until the rest of it comes. After the peer's
    /// close_notify, input is ignored (RFC 8446 §6.1).
    ///
    /// # Errors
    ///
    /// Any of [`Error`] but [`Error::NotReady`] and [`Error::Truncated`]. What came before the fault is in
    /// `plaintext`, the alert is in `output`: send it and close the connection.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let inner = &mut *self.inner;
        match inner.phase {
            Phase::Failed => Err(Error::Closed),
            _ if inner.peer_has_closed => Ok(()),
            _ => {
                let result = inner.receive(input, plaintext, output);
                inner.note(result)
            }
        }
    }

    /// Learns that the peer's stream has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] unless close_notify came before it.
    pub fn receive_eof(&mut self) -> Result<(), Error> {
        if self.inner.peer_has_closed {
            return Ok(());
        }
        self.inner.note(Err(Error::Truncated))
    }

    /// Encrypts `plaintext` into as few records as possible (16 KiB each, with 22 bytes around it in TLS 1.3) and
    /// appends them to `output`. Nothing is sent for an empty `plaintext`.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] during the handshake; [`Error::Closed`] after [`Session::close`] or a failure;
    /// [`Error::KeysExhausted`].
    pub fn send(&mut self, plaintext: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        let inner = &mut *self.inner;
        match inner.phase {
            Phase::Failed | Phase::Closed => Err(Error::Closed),
            Phase::Open if inner.tls.common().is_handshaking() => Err(Error::NotReady),
            Phase::Open if plaintext.is_empty() => Ok(()),
            Phase::Open => {
                let result = inner.seal(Some(plaintext), output);
                inner.note(result)
            }
        }
    }

    /// Says close_notify, once: nothing can be sent after it, while data of the peer may still come. During the
    /// handshake there is nothing to end, and rustls has no way to say so: the output stays empty.
    pub fn close(&mut self, output: &mut Vec<u8>) {
        let inner = &mut *self.inner;
        if inner.phase == Phase::Open {
            inner.phase = Phase::Closed;
            if !inner.tls.common().is_handshaking() {
                let result = inner.seal(None, output);
                let _ = inner.note(result);
            }
        }
    }

    /// Appends what waits to be sent. A client's handshake begins with it; see [`Session::wants_write`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a failure.
    pub fn poll_transmit(&mut self, output: &mut Vec<u8>) -> Result<(), Error> {
        let inner = &mut *self.inner;
        match inner.phase {
            Phase::Failed => Err(Error::Closed),
            _ if !inner.tls.common().wants_write() => Ok(()),
            _ => {
                let result = inner.process_retained(&mut Vec::new(), output);
                inner.note(result)
            }
        }
    }

    fn new(tls: Tls, judged: bool) -> Self {
        let inner = Inner {
            tls,
            retained: Vec::new(),
            record_at: 0,
            server_name: None,
            phase: Phase::Open,
            peer_has_closed: false,
            judged,
        };
        Self { inner: Box::new(inner) }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("is_handshaking", &self.is_handshaking())
            .field("phase", &self.inner.phase)
            .field("peer_has_closed", &self.inner.peer_has_closed)
            .field("retained_len", &self.inner.retained.len())
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// We have said close_notify, or will not say anything.
    Closed,
    Failed,
}

enum Tls {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
    /// Boxed, since it is rare and by far the largest.
    Buffered(Box<ServerConnection>),
}

impl Tls {
    fn common(&self) -> &CommonState {
        match self {
            Self::Server(tls) => tls,
            Self::Client(tls) => tls,
            Self::Buffered(tls) => tls,
        }
    }

    fn drive(
        &mut self,
        input: &mut [u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<Driven, Error> {
        guard(|| match self {
            Self::Server(tls) => drive::drive(&mut **tls, input, plaintext, output),
            Self::Client(tls) => drive::drive(&mut **tls, input, plaintext, output),
            Self::Buffered(tls) => buffered::drive(tls, input, plaintext, output),
        })
    }

    fn seal(
        &mut self,
        retained: &mut [u8],
        plaintext: Option<&[u8]>,
        output: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        guard(|| match self {
            Self::Server(tls) => drive::seal(&mut **tls, retained, plaintext, output),
            Self::Client(tls) => drive::seal(&mut **tls, retained, plaintext, output),
            Self::Buffered(tls) => buffered::seal(tls, plaintext, output).map(|()| 0),
        })
    }
}

/// A panic in rustls must not take a worker with all its connections along. One is known: built with debug
/// assertions, rustls panics where a fault follows our own close_notify, having two alerts to send.
fn guard<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // The session is marked as failed by every error, and its rustls state not used again.
    panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Error::Internal))
}

struct Inner {
    tls: Tls,
    /// Input that rustls has not given up: pieces of a handshake message that is not whole, which rustls has
    /// offsets into, and behind them the beginning of a record. rustls must see all of it on each call.
    retained: Vec<u8>,
    /// Where in `retained` the record begins that is not whole. At most its length.
    record_at: usize,
    server_name: Option<Box<str>>,
    phase: Phase,
    peer_has_closed: bool,
    /// Whether it is clear that the peer does not speak plain HTTP.
    judged: bool,
}

impl Inner {
    fn receive(
        &mut self,
        mut input: &mut [u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if matches!(self.tls, Tls::Buffered(_)) {
            // It keeps what is cut itself, and may have something to say about what it has.
            return self.process(input, plaintext, output).map(drop);
        }
        if !self.judged {
            match self.sniff(input) {
                Verdict::Http => return Err(Error::PlainHttp),
                Verdict::Open => return self.retain(input),
                Verdict::NotHttp => self.judged = true,
            }
        }
        // No further than the end of the record: what follows can be decrypted where it lies.
        while !self.retained.is_empty() && !input.is_empty() && !self.peer_has_closed {
            let len = self.missing_len().min(input.len());
            let (missing, rest) = mem::take(&mut input).split_at_mut(len);
            self.retain(missing)?;
            self.process_retained(plaintext, output)?;
            input = rest;
        }
        if input.is_empty() || self.peer_has_closed {
            return Ok(());
        }
        // Before rustls moves pieces of handshake messages over the headers.
        let whole = whole_records_len(input);
        let used = self.process(input, plaintext, output)?;
        if !self.peer_has_closed && used < input.len() {
            self.retain(input.get(used..).unwrap_or_default())?;
            self.record_at = whole.saturating_sub(used);
        }
        Ok(())
    }

    fn process_retained(
        &mut self,
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut retained = mem::take(&mut self.retained);
        let used = self.process(&mut retained, plaintext, output)?;
        let record = retained.get(self.record_at..).unwrap_or_default();
        if record_len(record).is_some_and(|len| len <= record.len()) {
            self.record_at = retained.len();
        }
        self.retained = retained;
        self.discard(used);
        Ok(())
    }

    /// Lets rustls have `input`, which is all that is retained, or all that is new when nothing is.
    fn process(
        &mut self,
        input: &mut [u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let was_handshaking = self.tls.common().is_handshaking();
        let driven = self.tls.drive(input, plaintext, output);
        if was_handshaking && let Some(name) = certs::take_asked_name() {
            self.server_name = Some(name);
        }
        let Driven { used, peer_has_closed } = match driven {
            // No record of TLS begins like that (RFC 8446 §5.1).
            Err(Error::Protocol(rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType,
            ))) if was_handshaking => return Err(Error::NotTls),
            result => result?,
        };
        self.peer_has_closed |= peer_has_closed;
        Ok(used)
    }

    /// Encrypts, or says close_notify for `None`.
    fn seal(&mut self, plaintext: Option<&[u8]>, output: &mut Vec<u8>) -> Result<(), Error> {
        let used = self.tls.seal(&mut self.retained, plaintext, output)?;
        self.discard(used);
        Ok(())
    }

    fn retain(&mut self, input: &[u8]) -> Result<(), Error> {
        if self.retained.len() + input.len() > MAX_RETAINED_LEN {
            return Err(Error::TooMuchRetained);
        }
        self.retained.extend_from_slice(input);
        Ok(())
    }

    fn discard(&mut self, used: usize) {
        if used >= self.retained.len() || self.peer_has_closed {
            self.retained = Vec::new();
            self.record_at = 0;
        } else {
            self.retained.drain(..used);
            self.record_at = self.record_at.saturating_sub(used);
        }
    }

    /// How many bytes the header, or else the record, that is begun in `retained` lacks. At least 1.
    fn missing_len(&self) -> usize {
        let record = self.retained.get(self.record_at..).unwrap_or_default();
        let len = record_len(record).unwrap_or(RECORD_HEADER_LEN);
        len.saturating_sub(record.len()).max(1)
    }

    fn sniff(&self, input: &[u8]) -> Verdict {
        let mut start = [0; sniff::ENOUGH];
        let bytes = self.retained.iter().chain(input);
        let len = start.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
        sniff::judge(start.get(..len).unwrap_or_default())
    }

    fn note(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_err() {
            self.phase = Phase::Failed;
            self.retained = Vec::new();
            self.record_at = 0;
        }
        result
    }
}

/// The length of the record that begins here, with its header; `None` before the header is whole.
fn record_len(record: &[u8]) -> Option<usize> {
    match record {
        [_, _, _, high, low, ..] => {
            Some(RECORD_HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    }
}

/// How much of the input is whole records.
fn whole_records_len(input: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = input.get(at..)
        && let Some(len) = record_len(rest)
        && len <= rest.len()
    {
        at += len;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_the_error_of_one_session() {
        assert_eq!(guard::<()>(|| panic!("rustls")), Err(Error::Internal));
    }

    #[test]
    fn sessions_can_be_moved_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<Session>();
    }

    #[test]
    fn records_are_measured_by_their_headers() {
        assert_eq!(record_len(&[]), None);
        assert_eq!(record_len(&[23, 3, 3, 1]), None);
        assert_eq!(record_len(&[23, 3, 3, 1, 2]), Some(5 + 258));
        let two = [23, 3, 3, 0, 1, 9, 23, 3, 3, 0, 0];
        assert_eq!(whole_records_len(&two), 11);
        assert_eq!(whole_records_len(&two[..10]), 6);
        assert_eq!(whole_records_len(&two[..5]), 0);
        assert_eq!(whole_records_len(&[0xff; 64]), 0);
    }
}
