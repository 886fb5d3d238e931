//! Connections over transports in memory and over TCP, beside a model and beside tungstenite.

#![expect(clippy::disallowed_types, reason = "tests have tasks and threads that share")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endings;
mod flow;
mod handshakes;
mod hostile;
mod interop;
mod model;
mod pings;
#[cfg(feature = "axum")]
mod through_axum;
#[cfg(feature = "tls")]
mod through_tls;

use std::future::Future;
use std::time::Duration;

use ringwire_tokio::{Config, Message, Role, WebSocketStream};
use tokio::io::DuplexStream;
use tokio::runtime::Builder;

/// Far more than any test takes, so that one that hangs fails.
const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<DuplexStream>;

/// Runs on real time.
fn run<R>(work: impl Future<Output = R>) -> R {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("it hangs") })
}

/// Runs on a clock that jumps to the next timer when nothing else is to be done.
fn run_paused<R>(work: impl Future<Output = R>) -> R {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

/// A client and a server, joined by a pipe with room for so many bytes.
fn pair(config: &Config, room: usize) -> (Socket, Socket) {
    let (near, far) = tokio::io::duplex(room);
    (
        WebSocketStream::from_upgraded(near, Role::Client, config.clone(), Vec::new()),
        WebSocketStream::from_upgraded(far, Role::Server, config.clone(), Vec::new()),
    )
}

fn text(text: &str) -> Option<Message> {
    Some(Message::from(text))
}
