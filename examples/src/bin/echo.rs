//! An echo server. Its flags are those of [`ServerFlags`].

use anyhow::Result;
use clap::Parser;
use ringwire_examples::{Echo, ServerFlags};

/// A WebSocket echo server. Opened in a browser, it shows a page that talks to it.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    #[command(flatten)]
    server: ServerFlags,
}

fn main() -> Result<()> {
    ringwire_examples::init_logging();
    let Flags { server } = Flags::parse();
    server.serve(server.config(), Echo)
}
