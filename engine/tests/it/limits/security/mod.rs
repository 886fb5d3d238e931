//! What hostile peers have done to other servers, one test for each row that concerns sockets. What needs none is
//! tested with the codec; running out of descriptors has a process of its own in `fd_exhaustion.rs`.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, wait, and look at the clock"
)]

mod frames;
mod handshakes;
mod last_words;
mod load;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringwire::Config;
use ringwire_peers::{Client, plain_request};

use crate::support::config;

/// No deadlines but those that a test sets.
fn quiet() -> Config {
    config().with_idle_timeout(None).with_write_stall_timeout(None)
}

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// A client whose socket takes as little as the kernel allows.
fn narrow(addr: SocketAddr) -> Client {
    Client::upgrade(ringwire_peers::narrow(addr, 1024), &plain_request())
}

/// What a message costs everyone else: an echo, timed.
fn round_trip(client: &mut Client) -> Duration {
    let began = Instant::now();
    client.send("ping");
    assert_eq!(client.text(), "ping");
    began.elapsed()
}
