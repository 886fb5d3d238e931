#![doc = include_str!("../README.md")]
//!
//! # How it fits together
//!
//! ```text
//!  TcpStream, TLS, … ─► accept, Incoming ───────┐
//!  URL ─► connect ─► TcpStream, TLS ─► client ──┼─► WebSocketStream ─► receive, send, close
//!  axum ─► axum::WebSocketUpgrade ──────────────┘      └► split ─► Sender, Receiver
//! ```
//!
//! The protocol is `ringwire-codec`'s: this crate moves bytes between it and a transport of tokio's, keeps time, and
//! holds what waits. There is no engine in it: a program whose connections are its main work has a thread for each core
//! and far less for each message with `ringwire`.
//!
//! The runtime needs time enabled, since a connection that ends does so within a deadline.
//!
//! # Features
//!
//! - `connect` (default): [`connect()`] to a `ws` URL over TCP.
//! - `tls`: `wss`, with rustls, ring, and the authorities of the system and of Mozilla.
//! - `axum`: the extractor `axum::WebSocketUpgrade`.

#![expect(
    clippy::disallowed_types,
    reason = "connections share their settings, and halves of one are for two tasks"
)]

#[cfg(feature = "axum")]
pub mod axum;
mod buffers;
mod config;
#[cfg(feature = "connect")]
mod connect;
mod deflate;
mod error;
mod input;
mod keep_alive;
mod message;
mod opening;
mod output;
mod split;
mod stream;
mod waiting;

pub use config::{CompressionConfig, Config, KeepAliveConfig};
#[cfg(feature = "connect")]
pub use connect::{ClientTransport, connect, connect_with};
pub use error::{Error, Timeout, UrlProblem};
pub use message::{Message, Text};
pub use opening::client::{client, request};
pub use opening::server::{Incoming, accept, accept_with};
pub use split::{Receiver, Sender};
pub use stream::WebSocketStream;

pub use http;
pub use ringwire_codec::{self as codec, CloseCode, Role, handshake};
#[cfg(feature = "tls")]
pub use ringwire_tls as tls;

/// Runs the examples of the guide.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../docs/guide/staying-on-tokio.md")]
mod guide {}
