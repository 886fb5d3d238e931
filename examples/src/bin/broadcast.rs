//! A broadcast server: what one connection says, all others hear. Its flags and settings are those of [`run_server`].

use std::process::ExitCode;

use anyhow::Result;
use ringwire_examples::{Broadcast, run_server};

fn main() -> Result<ExitCode> {
    let about = "A WebSocket server that sends every message on to all other connections. To one that reads too slowly, \
                 the oldest messages that wait for it are not sent.";
    run_server(about, |config| config.with_topics(Broadcast::topics()), Broadcast)
}
