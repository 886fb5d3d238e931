//! An echo server, with the flags and settings of every [`Program`].

use std::process::ExitCode;

use ringwire::program::Program;
use ringwire_examples::Echo;

fn main() -> ExitCode {
    Program::new("echo")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_about(
            "A WebSocket echo server. Opened in a browser, it shows a page that talks to it.",
        )
        .run(|_worker| Echo)
}
