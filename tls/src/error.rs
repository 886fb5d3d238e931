//! What can go wrong with a connection, and with certificates and settings.

use std::io;

#[cfg(not(feature = "rustls"))]
use crate::no_rustls::errors as rustls;
pub use rustls::{AlertDescription, CertificateError};

/// Why a connection's TLS failed, or why a call was refused.
///
/// [`Error::NotReady`] and [`Error::Closed`] change nothing; after any other error of
/// [`Session::receive`](crate::Session::receive) the session takes no more input and sends nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke the protocol, or there is nothing that both sides speak. The alert that says so to the
    /// peer, where TLS has one, is in the output.
    #[error("TLS failed: {0}")]
    Protocol(#[source] rustls::Error),
    /// The peer's certificate was refused. The alert is in the output.
    #[error("the peer's certificate was refused: {0}")]
    PeerCertificate(CertificateError),
    /// The peer gave up with a fatal alert (RFC 8446 §6.2).
    #[error("the peer sent the TLS alert {0:?}")]
    PeerAlert(AlertDescription),
    /// The stream ended without close_notify, so that what arrived may not be all that was sent
    /// (RFC 8446 §6.1).
    #[error("the connection ended without close_notify")]
    Truncated,
    /// The client speaks HTTP without TLS. There is no output: an answer in plain text is for the caller.
    #[error("plain HTTP came to a TLS port: the URL must begin with https:// or wss://")]
    PlainHttp,
    /// The peer speaks something else than TLS.
    #[error(
        "the peer does not speak TLS: is this the right port, and `ws` where plain text is spoken?"
    )]
    NotTls,
    /// A handshake message in more or longer pieces than anybody needs: more than
    /// [`MAX_RETAINED_LEN`](crate::MAX_RETAINED_LEN) bytes would have to be kept.
    #[error("a handshake message in too many pieces")]
    TooMuchRetained,
    /// Nothing can be sent before the handshake is over.
    #[error("the TLS handshake is not over")]
    NotReady,
    /// Nothing can be sent after [`Session::close`](crate::Session::close), nor anything done after a failure.
    #[error("the TLS session is closed")]
    Closed,
    /// The keys have been used as often as is safe and TLS 1.2 has no way to renew them. close_notify is in
    /// the output.
    #[error("the keys of the connection are used up")]
    KeysExhausted,
    /// rustls panicked or broke its own contract. The session is lost, nothing else is.
    #[error("the TLS library failed")]
    Internal,
}

#[cfg(feature = "rustls")]
impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::PeerAlert(alert),
            rustls::Error::InvalidCertificate(why) => Self::PeerCertificate(why),
            other => Self::Protocol(other),
        }
    }
}

/// Why settings were not accepted, or certificates not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Something is wrong with a certificate, its key or a file of authorities.
    #[error("{origin}: {problem}")]
    Certificate {
        /// Where it came from: the path of the file, or `memory`.
        origin: String,
        /// What is wrong.
        problem: CertificateProblem,
    },
    /// A server needs at least one certificate.
    #[error("no certificate was given")]
    NoCertificate,
    /// There is no authority to trust, so that no certificate could ever be accepted.
    #[error("no trusted authority was found{0}")]
    NoRoots(String),
    /// An ALPN protocol's name is 1 to 255 bytes long (RFC 7301 §3.1).
    #[error("an ALPN protocol name must have 1 to 255 bytes")]
    InvalidAlpn,
    /// The oldest version is newer than the newest.
    #[error(
        "the oldest TLS version is newer than the newest: set the newest to the oldest or above"
    )]
    NoVersion,
    /// The crate was built without cryptography.
    #[error("there is no TLS in this program: build it with the feature `tls`")]
    NoTls,
    /// rustls refused the settings.
    #[error("TLS settings: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What is wrong with a certificate, its key or a file of authorities.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// The text is not PEM (RFC 7468).
    #[error("is not PEM: {0}")]
    InvalidPem(String),
    /// It is DER or PKCS#12 rather than PEM.
    #[error(
        "is binary (DER or PKCS#12) and not PEM: convert it with `openssl x509 -inform der`, `openssl pkey -inform der` or \
         `openssl pkcs12 -nodes`"
    )]
    Binary,
    /// It begins with a byte order mark, as some editors write it.
    #[error(
        "begins with a byte order mark (BOM) and is not PEM: save it as ASCII, or as UTF-8 without BOM"
    )]
    ByteOrderMark,
    /// There is no certificate in it.
    #[error("holds no certificate")]
    NoCertificate,
    /// There is no private key in it.
    #[error("holds no private key")]
    NoKey,
    /// The certificate is not X.509 version 3 in DER (RFC 5280).
    #[error("the certificate cannot be parsed: {0}")]
    InvalidCertificate(String),
    /// The private key is encrypted.
    #[error(
        "the private key is encrypted: decrypt it with `openssl pkey -in ENCRYPTED -out PLAIN`"
    )]
    EncryptedKey,
    /// The private key is of a kind that the cryptography in use does not have.
    #[error(
        "the private key is {0}, which is not supported: use P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits"
    )]
    UnsupportedKey(&'static str),
    /// The private key belongs to a certificate of the chain that does not come first.
    #[error("the chain is in the wrong order: it must be leaf first, then who signed it")]
    LeafNotFirst,
    /// The private key is damaged, or not what its certificate says.
    #[error("the private key cannot be used: {0}")]
    UnusableKey(#[source] rustls::Error),
    /// The private key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate: give the key that the certificate was issued for"
    )]
    KeyMismatch,
    /// The certificate has expired.
    #[error("the certificate expired at {not_after} (unix seconds): renew it")]
    Expired {
        /// The last second of its life, in seconds since 1970.
        not_after: i64,
    },
    /// The certificate is not valid yet.
    #[error("the certificate is not valid before {not_before} (unix seconds)")]
    NotYetValid {
        /// The first second of its life, in seconds since 1970.
        not_before: i64,
    },
    /// The certificate does not cover a name that it was loaded for.
    #[error("the certificate does not cover {0}")]
    NameMissing(String),
}
