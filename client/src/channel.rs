//! A byte stream with deadlines, plain or TLS, for as long as the handshake lasts.

use std::io;
use std::time::Instant;

use ringwire_codec::handshake::HandshakeError;
use ringwire_tls::{ClientConfig, Session, pki_types::ServerName};

use crate::error::{Error, UrlProblem, Waiting};
use crate::wire::Wire;

/// Bytes read at once.
const READ_LEN: usize = 8 << 10;

/// A byte stream during the handshake. All of it has one deadline.
#[derive(Debug)]
pub(super) struct Channel {
    wire: Wire,
    tls: Option<Session>,
    deadline: Option<Instant>,
}

impl Channel {
    pub(super) fn plain(wire: Wire, deadline: Option<Instant>) -> Self {
        Self { wire, tls: None, deadline }
    }

    /// Shakes hands with a server of this name.
    pub(super) fn tls(
        wire: Wire,
        config: &ClientConfig,
        name: &str,
        deadline: Option<Instant>,
    ) -> Result<Self, Error> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| UrlProblem::Malformed)?;
        let mut session = Session::client(config, name)?;
        let mut output = Vec::new();
        session.poll_transmit(&mut output)?;
        let mut channel = Self { wire, tls: Some(session), deadline };
        channel.wire.write_all(&output, deadline).map_err(lost)?;
        let mut early = Vec::new();
        while channel.tls.as_ref().is_some_and(Session::is_handshaking) {
            if channel.read(&mut early)? == 0 {
                return Err(Error::Tls(ringwire_tls::Error::Truncated));
            }
        }
        // A server waits for the request.
        if early.is_empty() { Ok(channel) } else { Err(HandshakeError::StartLine.into()) }
    }

    /// Appends what arrives; gives the number of bytes read from the socket, 0 at the end of the stream. With TLS,
    /// that may be more than is appended.
    pub(super) fn read(&mut self, bytes: &mut Vec<u8>) -> Result<usize, Error> {
        // Its FIN may be long in coming.
        if self.tls.as_ref().is_some_and(Session::peer_has_closed) {
            return Ok(0);
        }
        // Of a peer that goes on sending the socket would never see it.
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::Timeout(Waiting::Handshake));
        }
        let mut received = [0; READ_LEN];
        let len = self.wire.read(&mut received, self.deadline).map_err(lost)?;
        let received = received.split_at_mut(len).0;
        let Some(tls) = &mut self.tls else {
            bytes.extend_from_slice(received);
            return Ok(len);
        };
        let mut output = Vec::new();
        let result = tls.receive(received, bytes, &mut output);
        let written = self.wire.write_all(&output, self.deadline);
        result?;
        written.map_err(lost)?;
        Ok(len)
    }

    /// Whether an end of the stream is one that the peer meant: with TLS anybody can bring about another
    /// (RFC 9112 §9.8).
    pub(super) fn is_end_certain(&self) -> bool {
        self.tls.as_ref().is_none_or(Session::peer_has_closed)
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(tls) = &mut self.tls else {
            return self.wire.write_all(bytes, self.deadline).map_err(lost);
        };
        let mut output = Vec::new();
        tls.send(bytes, &mut output)?;
        self.wire.write_all(&output, self.deadline).map_err(lost)
    }

    pub(super) fn into_parts(self) -> (Wire, Option<Session>) {
        (self.wire, self.tls)
    }
}

fn lost(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::Timeout(Waiting::Handshake),
        _ => Error::Lost(error),
    }
}
