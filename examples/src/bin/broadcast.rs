//! A broadcast server: what one connection says, all others hear. Its flags are those of [`ServerFlags`].

use anyhow::Result;
use clap::Parser;
use ringwire_examples::{Broadcast, ServerFlags};

/// A WebSocket server that sends every message on to all other connections. To one that reads too slowly, the oldest
/// messages that wait for it are not sent.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    #[command(flatten)]
    server: ServerFlags,
}

fn main() -> Result<()> {
    ringwire_examples::init_logging();
    let Flags { server } = Flags::parse();
    let config = server.config().with_topics(Broadcast::topics());
    server.serve(config, Broadcast)
}
