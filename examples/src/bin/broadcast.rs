//! A broadcast server: what one connection says, all others hear. Its flags and settings are those of [`run_server`].

use std::process::ExitCode;

use ringwire_examples::{Broadcast, program, run_server};

fn main() -> ExitCode {
    let about = "A WebSocket server that sends every message on to all other connections. To one that reads too slowly, \
                 the oldest messages that wait for it are not sent.";
    program(|| run_server(about, |config| config.with_topics(Broadcast::topics()), Broadcast))
}
