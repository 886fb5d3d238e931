//! A blocking WebSocket client, without an event loop and without an async runtime.
//!
//! ```no_run
//! use ringwire_client::{CloseCode, OwnedMessage, connect};
//!
//! let mut client = connect("wss://example.org/chat")?;
//! client.send_text("Hello")?;
//! while let Some(message) = client.receive()? {
//!     if message == OwnedMessage::from("bye") {
//!         client.close(CloseCode::NORMAL, "")?;
//!     }
//! }
//! # Ok::<(), ringwire_client::Error>(())
//! ```
//!
//! ```text
//!  Builder ─► dial (names, addresses, proxy) ─► TLS ─► handshake, redirects ─► Client
//!                                                       Client::split ─► Sender, Receiver
//! ```
//!
//! A connection is one socket and no thread. What the protocol owes (pongs, close frames) goes out, and what the
//! settings ask for (pings, the watchdog for dead peers) happens, while somebody receives, or on a thread where
//! [`Builder::with_heartbeat_thread`] asks for one.
//!
//! | to | use |
//! |---|---|
//! | connect with headers, subprotocols, TLS, a proxy, limits | [`Builder`] |
//! | escape what goes into a query | [`Url`] |
//! | send on one thread and receive on another | [`Client::split`] |
//! | come back when the connection is lost, with a fresh token | [`Reconnecting`], [`RetryPolicy`] |
//! | wait for the response to a request, over connections that come and go | [`Requests`] |
//! | share connections among threads | [`Pool`] |
//! | send many small things as few large ones | [`Batcher`] |
//! | let the environment and a file decide | `settings` |
//!
//! Beside a server it is `ringwire::client`. Connections that a server's workers open are
//! `ringwire::Handle::connect`'s.
//!
//! # Features
//!
//! - `tls` (default): `wss`, with ring. Without it, and without [`ringwire_tls`] elsewhere in the program,
//!   a URL with `wss` is [`Error::TlsSettings`].
//! - `json` (default): `JsonIds`, the ids of [`Requests`] in JSON.
//! - `config`: `settings`, a [`Builder`] from a TOML file and the environment.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a blocking client has a clock of its own, and is shared by its two halves"
)]

mod attempts;
mod backoff;
mod batch;
mod blocking;
mod builder;
mod channel;
mod compression;
mod connection;
mod dial;
mod error;
mod handshake;
mod head;
#[cfg(feature = "json")]
mod json_ids;
mod message;
mod offer;
mod outbox;
mod policy;
mod pool;
mod proxy;
mod queue;
mod random;
mod reconnect;
mod request;
#[cfg(feature = "json")]
mod rooms;
#[cfg(feature = "config")]
pub mod settings;
mod url;
mod wire;

pub use backoff::Backoff;
pub use batch::{BatchLimits, Batcher};
pub use blocking::{Client, Messages, Receiver, Sender};
pub use builder::Builder;
pub use compression::DeflateConfig;
pub use error::{
    BoxError, ConnectAttempt, Error, ErrorKind, ProxyProblem, RedirectProblem, Refusal, SocksReply,
    UrlProblem, Waiting,
};
pub use http;
#[cfg(feature = "json")]
pub use json_ids::JsonIds;
pub use message::{Event, OwnedMessage};
pub use outbox::OutboxConfig;
pub use policy::{RetryPolicy, Verdict, verdict_on};
pub use pool::{Pool, Pooled};
pub use proxy::Proxy;
pub use queue::{Overflow, Pushed, Queue};
pub use reconnect::{Attempt, Delivery, Reconnecting, ReconnectingSender, Update};
pub use request::{MessageIds, Pending, Pushes, Requests, Sorted};
pub use ringwire_codec::deflate::{Level as CompressionLevel, WindowBits};
pub use ringwire_codec::extension;
pub use ringwire_codec::handshake::{HandshakeError, HeadLimits};
pub use ringwire_codec::{
    CloseCode, Config as ProtocolConfig, Error as ProtocolError, Message, SendError,
};
pub use ringwire_tls as tls;
#[cfg(feature = "json")]
pub use rooms::{RoomUpdate, Rooms, Said};
pub use url::Url;

/// Connects to a URL with the default settings: see [`Builder::connect`].
///
/// # Errors
/// As there.
pub fn connect<U: TryInto<Url>>(url: U) -> Result<Client, Error>
where
    UrlProblem: From<U::Error>,
{
    Client::builder().connect(url)
}

/// The code of the README runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
