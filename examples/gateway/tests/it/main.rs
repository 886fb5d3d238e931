//! Tests of the gateway's WebSockets: in a simulated network, and on real sockets with both drivers.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test that fails panics, and is no worker's thread"
)]

mod common;
mod dispatch;
mod envelopes;
mod model;
mod rooms;
mod users;
