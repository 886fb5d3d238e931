//! An echo server whose connections are served by an async function, with the flags and settings of every
//! [`Program`].

use std::process::ExitCode;

use ringwire::program::Program;
use ringwire::serve::Serve;
use ringwire::{Socket, SocketError};

fn main() -> ExitCode {
    Program::new("async-echo")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_about("A WebSocket echo server whose handler is an async function.")
        .run(|_worker| Serve::new(echo))
}

async fn echo(mut socket: Socket) -> Result<(), SocketError> {
    // It is not needed any more, and there may be a million of them.
    drop(socket.take_request());
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}
