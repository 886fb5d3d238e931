//! The blocking client against the engine's own server. Against peers that misbehave: its own `client/tests/client`.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share with threads, and read the clock"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod closes;
mod extras;
mod handshakes;
mod messages;
#[path = "../../../../client/tests/client/peer.rs"]
mod peer;
mod proxies;
mod reconnects;
mod timeouts;
