//! A broadcast server: what one connection says, all others hear. It has the flags and settings of every [`Program`].

use std::process::ExitCode;

use ringwire::Config;
use ringwire::program::Program;
use ringwire_examples::Broadcast;

fn main() -> ExitCode {
    let about = "A WebSocket server that sends every message on to all other connections. To one that reads too slowly, \
                 the oldest messages that wait for it are not sent.";
    Program::new("broadcast")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_about(about)
        .with_defaults(Config::default().with_topics(Broadcast::topics()))
        .run(|_worker| Broadcast)
}
