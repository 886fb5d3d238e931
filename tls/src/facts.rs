//! What a session and a certificate tell of themselves.

use std::fmt;

use crate::pki_types::CertificateDer;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2, RFC 5246.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        })
    }
}

/// How a session came to its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handshake {
    /// With certificate and signature.
    Full,
    /// As full, after the server asked for another key share (HelloRetryRequest, RFC 8446 §4.1.4).
    FullWithRetry,
    /// From a ticket of an earlier session.
    Resumed,
}

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Facts<'s> {
    /// The version of the protocol.
    pub version: Version,
    /// The cipher suite, as rustls spells it: `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: &'static str,
    /// The name that the client asked for (SNI, RFC 6066 §3), in lower case. On the client's side: `None`.
    pub server_name: Option<&'s str>,
    /// The application protocol (RFC 7301), if both sides named one.
    pub alpn: Option<&'s [u8]>,
    /// The peer's certificates, leaf first. Empty for a client that has shown none.
    pub peer_certificates: &'s [CertificateDer<'static>],
    /// How the session came to its keys.
    pub handshake: Handshake,
}

/// What a server tells about one of its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The path of its file, or `memory`.
    pub origin: String,
    /// The DNS names and IP addresses it is for (subjectAltName), in lower case. If there are none, browsers and most
    /// other clients take the certificate for no server at all (RFC 9525 §2).
    pub names: Vec<String>,
    /// The common name of its subject. It counts only where there are no names, for choosing a certificate and for
    /// clients that were told to trust this very one.
    pub common_name: Option<String>,
    /// The first second of its life, in seconds since 1970.
    pub not_before: i64,
    /// The last second of its life, in seconds since 1970.
    pub not_after: i64,
}
