//! Tests of the gateway.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;
mod gateway;
mod sockets;
