//! The client against peers that misbehave. Against the engine's server: the engine's `tests/it/client`.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share with threads, and read the clock"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod closes;
mod compression;
mod extras;
mod handshakes;
mod messages;
mod peer;
mod reconnects;
mod requests;
#[cfg(feature = "config")]
mod settings;
mod timeouts;
mod tls;
