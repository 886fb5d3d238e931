//! The server's side of the handshake (RFC 6455 §4.2).
//!
//! A [`Request`] is judged by [`check_upgrade`](Request::check_upgrade); what it gives is answered with
//! [`Accept`], and anything else, also an ordinary HTTP request, with a [`Response`].
//!
//! ```
//! use ringwire_codec::handshake::{HeadLimits, HeadScanner, server::{Accept, Request, Response}};
//!
//! let bytes = b"GET /chat HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\n\
//!     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
//!     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
//! let limits = HeadLimits::default();
//! let Some(head_len) = HeadScanner::default().scan(bytes, &limits)? else { panic!("all of it") };
//!
//! let mut out = Vec::new();
//! let request = Request::parse(&bytes[..head_len], &limits)?;
//! match request.check_upgrade() {
//!     Ok(upgrade) => Accept::new().encode(&upgrade, &mut out)?,
//!     Err(error) => Response::from(error).encode(&mut out),
//! }
//! assert!(out.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
//! # Ok::<(), ringwire_codec::handshake::HandshakeError>(())
//! ```

mod accept;
mod exchange;
mod foreign;
mod request;
mod target;

pub use accept::Accept;
pub use foreign::{accept_upgrade, answer_upgrade};
pub use request::{Request, Upgrade};

pub use crate::http::Response;
