//! TLS as a byte filter: rustls without sockets, clock, threads or log.
//!
//! A [`Session`] takes the bytes that a socket received and gives plaintext, and takes plaintext and gives
//! bytes to send, for a server as for a client, in TLS 1.2 (RFC 5246) and TLS 1.3 (RFC 8446). Who reads and
//! writes the socket, and when, is not its business.
//!
//! - [`ServerSettings`] → [`ServerConfig`]: certificates by name, client certificates, tickets, reload.
//! - [`ClientSettings`] → [`ClientConfig`]: authorities, a certificate of its own, resumption.
//! - [`Session`]: one connection, from its first byte on or from where another program has brought it
//!   ([`Session::established`]). [`Facts`]: what its handshake agreed on.
//!
//! # Example
//!
//! ```no_run
//! use ringwire_tls::pki_types::UnixTime;
//! use ringwire_tls::{CertificateSource, ServerSettings, Session};
//!
//! let source = CertificateSource::files("cert.pem", "key.pem");
//! let config = ServerSettings::new(source).build(UnixTime::now())?;
//!
//! let mut session = Session::server(&config)?;
//! let (mut plaintext, mut output) = (Vec::new(), Vec::new());
//! # let (mut received, socket) = (vec![0; 4096], |_: &[u8]| ());
//! session.receive(&mut received, &mut plaintext, &mut output)?;
//! if !session.is_handshaking() {
//!     session.send(&plaintext, &mut output)?;
//! }
//! socket(&output);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Memory and cost
//!
//! An idle server session takes 3.2 KiB of heap after a handshake, all of it included, in either version
//! (3 154 bytes in TLS 1.2 and 3 258 in TLS 1.3 with ring; `tests/memory.rs` measures it). The
//! beginning of a record that is cut comes on top until its rest has arrived, at most [`MAX_RETAINED_LEN`].
//! A [`Session`] is a pointer to it.
//!
//! A message costs one allocation for each record of 16 KiB, in rustls. Input is decrypted where it lies and output
//! is written where the caller wants it; rustls copies the plaintext and the record once each.
//!
//! # Faults
//!
//! No input makes a session panic: rustls is always shown what it has offsets into, and should it panic
//! all the same, that is [`Error::Internal`] of this one session (where panics unwind).
//!
//! # Cryptography
//!
//! The feature `ring` is the default: it builds in seconds, and its AES-GCM is the faster one on machines with
//! AVX2 but without AVX-512. `aws-lc-rs` signs a little faster, adds a post-quantum key exchange, and is a
//! long build of C; where it is asked for, it is used. The process's default provider is never touched.
//!
//! Without either of them there is no TLS: sessions, their configurations and certificates are types without a value,
//! so that who may or may not speak TLS writes its code once, and carries neither rustls nor a dead branch.
//!
//! # What is not here
//!
//! Early data (it can be replayed), revocation lists, OCSP, kernel TLS, and the watching of files: whoever
//! knows that a certificate was renewed calls [`ServerConfig::reload`].

#[cfg(feature = "rustls")]
mod buffered;
#[cfg(feature = "rustls")]
mod certs;
#[cfg(feature = "rustls")]
mod config;
#[cfg(feature = "rustls")]
mod dangerous;
#[cfg(feature = "rustls")]
mod drive;
mod error;
mod facts;
#[cfg(feature = "rustls")]
mod named;
#[cfg(not(feature = "rustls"))]
mod no_rustls;
#[cfg(feature = "rustls")]
mod roots;
#[cfg(feature = "rustls")]
mod session;
#[cfg(feature = "rustls")]
mod sniff;
#[cfg(not(feature = "rustls"))]
mod without;

#[cfg(not(feature = "rustls"))]
pub use no_rustls::pki_types;
#[cfg(feature = "rustls")]
pub use rustls::{self, pki_types};

#[cfg(feature = "rustls")]
pub use certs::{CertificateSource, Certificates};
#[cfg(feature = "rustls")]
pub use config::{ClientAuth, ClientConfig, ClientSettings, ServerConfig, ServerSettings};
pub use error::{AlertDescription, CertificateError, CertificateProblem, ConfigError, Error};
pub use facts::{CertificateInfo, Facts, Handshake, Version};
#[cfg(feature = "rustls")]
pub use roots::Roots;
#[cfg(feature = "rustls")]
pub use session::{MAX_RETAINED_LEN, Session};
#[cfg(not(feature = "rustls"))]
pub use without::{Certificates, ClientConfig, ServerConfig, Session};
