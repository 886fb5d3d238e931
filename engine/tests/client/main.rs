//! The blocking client, against the engine's own server and against peers that misbehave.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share with threads, and read the clock"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod closes;
mod compression;
mod extras;
mod handshakes;
mod messages;
mod peer;
mod proxies;
mod reconnects;
mod timeouts;
mod tls;
