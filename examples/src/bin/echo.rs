//! An echo server. Its flags and settings are those of [`run_server`].

use std::process::ExitCode;

use anyhow::Result;
use ringwire_examples::{Echo, run_server};

fn main() -> Result<ExitCode> {
    let about = "A WebSocket echo server. Opened in a browser, it shows a page that talks to it.";
    run_server(about, |config| config, Echo)
}
