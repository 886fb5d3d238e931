//! `JWT_SECRET=… gateway --listen 127.0.0.1:8000`: see the library.

use std::process::ExitCode;
use std::time::Duration;

use ringwire::cluster::Bus;
use ringwire::program::Program;
use ringwire::shutdown::Drain;
use ringwire::{Backpressure, CloseCode, Config, WorkerContext};
use ringwire_gateway::app::{router, start};
use ringwire_gateway::auth::Verifier;
use ringwire_gateway::cli;
use ringwire_gateway::settings::Settings;
use ringwire_nats::{NatsBus, NatsError};

/// What clients are told when the server ends: come back.
const DRAINING: CloseCode = CloseCode::new(4112);
/// Of a connection that does not read what is sent to it: come back.
const TOO_SLOW: CloseCode = CloseCode::new(4108);

fn main() -> ExitCode {
    let drain = Drain::new(Duration::from_secs(5), DRAINING).with_grace(Duration::from_secs(3));
    Program::new("gateway")
        .with_about("A gateway for messages between users: WebSockets behind JSON Web Tokens")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_address("127.0.0.1:8000")
        .with_defaults(Config::default().with_backpressure(Backpressure::Close(TOO_SLOW)))
        .with_drain(drain)
        .with_own_settings::<Settings>()
        .with_check(|set| Ok(Verifier::load(&Settings::of(set)?.tokens).map(drop)?))
        .with_command(cli::token(), cli::print_tokens)
        .with_command(cli::user(), cli::add_user)
        .with_bus(|set| Ok(bus(&Settings::of(set)?)?.map(|bus| Box::new(bus) as Box<dyn Bus>)))
        .run_with(|setup| {
            let app = start(setup)?;
            Ok(move |worker: &WorkerContext| router(&app, worker))
        })
}

/// The way to the other nodes, if there are any.
fn bus(settings: &Settings) -> Result<Option<NatsBus>, NatsError> {
    let Some(servers) = settings.nats.as_deref() else { return Ok(None) };
    let bus = NatsBus::new(servers)?.with_name(settings.node_name().unwrap_or_default());
    Ok(Some(match settings.history() {
        Some(history) => bus.with_history(history),
        None => bus,
    }))
}
