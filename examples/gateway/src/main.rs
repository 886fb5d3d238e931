//! `JWT_SECRET=… gateway --listen 127.0.0.1:8000`: see the library.

use std::process::ExitCode;

use ringwire::program::Program;
use ringwire_gateway::app::{App, router};
use ringwire_gateway::auth::Verifier;
use ringwire_gateway::settings::Settings;

fn main() -> ExitCode {
    Program::new("gateway")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_about("A gateway for messages between users.")
        .with_address("127.0.0.1:8000")
        .run_with(|_settings| {
            let secret = std::env::var("JWT_SECRET")
                .map_err(|_| "set JWT_SECRET to the secret that tokens are signed with")?;
            let app = App::new(Settings::default(), Verifier::hs256(secret.as_bytes()), None);
            Ok(move |worker: &_| router(&app, worker))
        })
}
