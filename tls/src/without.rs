//! What stands for TLS in a build without cryptography: types that have no value.
#![expect(clippy::disallowed_types, reason = "as with TLS")]

use std::convert::Infallible;
use std::sync::Arc;

use crate::pki_types::{ServerName, UnixTime};
use crate::{CertificateInfo, ConfigError, Error, Facts};

/// What all sessions of a server share, of which there are none.
#[derive(Clone, Debug)]
pub struct ServerConfig(Infallible);

impl ServerConfig {
    /// The certificates of now.
    #[must_use]
    pub fn certificates(&self) -> Arc<Certificates> {
        match self.0 {}
    }

    /// Reads the certificates anew.
    ///
    /// # Errors
    ///
    /// None: it is never called.
    pub fn reload(&self, _now: UnixTime) -> Result<Arc<Certificates>, ConfigError> {
        match self.0 {}
    }
}

/// What sessions of a client share, of which there are none.
#[derive(Clone, Debug)]
pub struct ClientConfig(Infallible);

impl ClientConfig {
    /// What clients without settings of their own use.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoTls`].
    pub fn shared() -> Result<Self, ConfigError> {
        Err(ConfigError::NoTls)
    }
}

/// The certificates of a server that has none.
#[derive(Debug)]
pub struct Certificates(Infallible);

impl Certificates {
    /// What they tell of themselves.
    #[must_use]
    pub fn infos(&self) -> &[CertificateInfo] {
        match self.0 {}
    }

    /// The last second of the first that expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        match self.0 {}
    }
}

/// A session, of which there are none.
#[derive(Debug)]
pub struct Session(Infallible);

impl Session {
    /// The server's side.
    ///
    /// # Errors
    ///
    /// None: it is never called.
    pub fn server(config: &ServerConfig) -> Result<Self, Error> {
        match config.0 {}
    }

    /// The client's side.
    ///
    /// # Errors
    ///
    /// None: it is never called.
    pub fn client(config: &ClientConfig, _name: ServerName<'static>) -> Result<Self, Error> {
        match config.0 {}
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    /// Whether more input can change anything.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        match self.0 {}
    }

    /// Whether there is something to send.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        match self.0 {}
    }

    /// Whether the peer's close_notify has come.
    #[must_use]
    pub fn peer_has_closed(&self) -> bool {
        match self.0 {}
    }

    /// What the handshake agreed on.
    #[must_use]
    pub fn facts(&self) -> Option<Facts<'_>> {
        match self.0 {}
    }

    /// Bytes of heap that it holds.
    #[must_use]
    pub fn memory_len(&self) -> usize {
        match self.0 {}
    }

    /// How many bytes of that are for input that is not whole.
    #[must_use]
    pub fn retained_len(&self) -> usize {
        match self.0 {}
    }

    /// Takes all of `input`.
    ///
    /// # Errors
    ///
    /// None: it is never called.
    pub fn receive(
        &mut self,
        _input: &mut [u8],
        _plaintext: &mut Vec<u8>,
        _output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match self.0 {}
    }

    /// Learns that the peer's stream has ended.
    ///
    /// # Errors
    ///
    /// None: it is never called.
    pub fn receive_eof(&mut self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Encrypts `plaintext`.
    ///
    /// # Errors
    ///
    /// None: it is never called.
    pub fn send(&mut self, _plaintext: &[u8], _output: &mut Vec<u8>) -> Result<(), Error> {
        match self.0 {}
    }

    /// Says close_notify.
    pub fn close(&mut self, _output: &mut Vec<u8>) {
        match self.0 {}
    }

    /// Appends what waits to be sent.
    ///
    /// # Errors
    ///
    /// None: it is never called.
    pub fn poll_transmit(&mut self, _output: &mut Vec<u8>) -> Result<(), Error> {
        match self.0 {}
    }
}
