//! The upgrade from HTTP/1.1 to WebSocket (RFC 6455 §4), for both roles and without IO.
//!
//! ```text
//!  server: bytes ─► HeadScanner ─► server::Request::parse ─► check_upgrade ─► Accept::encode   ─► bytes
//!                                                                └ refused ─► Response::encode ─► bytes
//!  client: client::Request::encode ─► bytes … bytes ─► HeadScanner ─► client::Response::parse ─► check_upgrade
//! ```
//!
//! [`HeadScanner`] finds the end of a head as its bytes trickle in and enforces [`HeadLimits`]. Only a
//! whole head is parsed, once. Compression is agreed on here as well: see [`deflate`](crate::deflate). What is not
//! here: bodies and ordinary answers ([`http`](crate::http)), the policy on origins, and deadlines.

mod accept_key;
pub mod client;
pub mod server;

pub use crate::head::{
    Extension, Extensions, HandshakeError, HeadLimits, HeadScanner, Headers, MAX_HEADER_COUNT,
    Params, Tokens,
};
pub use accept_key::accept_key;
