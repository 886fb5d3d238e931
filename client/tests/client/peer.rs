//! Clients that fit a test, and the peers that they meet.

use std::net::SocketAddr;

use ringwire_client::{Builder, Client, Error};
use ringwire_peers::{PATIENCE, ms};

/// A builder whose limits fit a test: whatever hangs, fails. The timeout of a close is that of the peer's answer too,
/// on a machine that may stall for a second or two.
pub(crate) fn builder() -> Builder {
    Client::builder().without_proxy().with_read_timeout(PATIENCE).with_close_timeout(ms(3000))
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("ws://{address}/")
}

pub(crate) fn connect(address: SocketAddr) -> Client {
    builder().connect(url(address)).unwrap()
}

/// The error that connecting ends with.
pub(crate) fn refusal_of(builder: &Builder, address: SocketAddr) -> Error {
    builder.connect(url(address)).expect_err("the handshake must fail")
}
