//! An echo server. Its flags and settings are those of [`run_server`].

use std::process::ExitCode;

use ringwire_examples::{Echo, program, run_server};

fn main() -> ExitCode {
    let about = "A WebSocket echo server. Opened in a browser, it shows a page that talks to it.";
    program(|| run_server(about, |config| config, Echo))
}
