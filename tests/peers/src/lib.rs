//! The other end of a connection, for tests: what the codec makes, or whatever bytes a test wants on the wire.
//!
//! - [`Line`]: bytes over TCP, a Unix socket or TLS, whose stream ends as a test wants it to.
//! - [`Client`]: WebSocket over a line, with the extensions that were agreed on. [`Http`]: requests over a line.
//! - [`server`]: servers that are scripts. [`Identity`]: a certificate, and who trusts it.
//! - [`Process`]: a program that listens, and ends with the test.
//! - [`frame`] and [`masked`]: a client's frames, right and wrong ones. [`server::frame`]: a server's.
//!
//! Nothing here waits without a limit: what does not come within [`PATIENCE`] fails the test. Nothing here knows the
//! engine or the client, so that both are tested with it.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share with threads, and wait"
)]

mod client;
mod frames;
mod http;
mod identity;
mod line;
mod process;
pub mod server;

use std::thread;
use std::time::{Duration, Instant};

pub use client::{Client, Got, client_request, plain_request, request};
pub use frames::{frame, mask, masked};
pub use http::{Answer, Http, get, http, post, read_answer, read_head};
pub use identity::{Identity, trusting};
pub use line::{ENDS, End, Line, Way, connect, narrow, unheard};
pub use process::{Process, free_addr, own_loopback, program_in};

/// How long anything that must happen may take, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// So many milliseconds.
#[must_use]
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Waits for a condition.
///
/// # Panics
///
/// If it does not hold within [`PATIENCE`].
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, holds);
}

/// Waits this long for a condition that may take its time.
///
/// # Panics
///
/// If it does not hold within that.
pub fn wait_within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(ms(2));
    }
}

/// Checks for this long that something stays as it is. What would change it shows in no state that can be waited for.
///
/// # Panics
///
/// As soon as it does not hold.
pub fn stays_so_for(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(holds(), "it changed: {what}");
        thread::sleep(ms(2));
    }
}
