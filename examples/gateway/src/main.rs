//! `JWT_SECRET=… gateway --listen 127.0.0.1:8000`: see the library.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is no worker's thread"
)]

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use ringwire::program::{SetupError, announce, note, with_log};
use ringwire::settings;
use ringwire::shutdown::Drain;
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ServerSettings};
use ringwire::transport::Listener;
use ringwire::{CloseCode, Handle, Notifier, Server};
use ringwire_gateway::app::{App, router};
use ringwire_gateway::auth::Verifier;
use ringwire_gateway::cli::{self, Order};
use ringwire_gateway::clock::Clock;
use ringwire_gateway::cluster::Cluster;
use ringwire_gateway::settings::Settings;
use ringwire_gateway::users::Users;
use ringwire_nats::NatsBus;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::runtime::{Builder, Runtime};

/// What clients are told when the server ends: come back.
const DRAINING: CloseCode = CloseCode::new(4112);
/// A secret should be as long as what HS256 makes of it (RFC 7518 §3.2).
const MIN_SECRET_LEN: usize = 32;

fn main() -> ExitCode {
    with_log(|| match cli::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(order) => carry_out(order),
        Err(error) => Ok(wrong(&error)),
    })
}

fn carry_out(order: Order) -> Result<ExitCode, SetupError> {
    // Its threads talk to the database and check passwords. The workers poll, and serve the clients.
    let runtime = || Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match order {
        Order::Read(text) => {
            text.print()?;
            return Ok(ExitCode::from(if text.use_stderr() { 2 } else { 0 }));
        }
        Order::Check(set, settings) => {
            let checked = Verifier::load(&settings.tokens).map_err(SetupError::from);
            if let Err(error) = checked.and_then(|_| listeners(&settings)) {
                return Ok(wrong(&error));
            }
            print!("{}", set.report());
        }
        Order::Token(settings, order) => {
            cli::print_tokens(&settings, &order, SystemTime::now(), io::stdout().lock())?;
        }
        Order::User(settings, order) => cli::add_user(&settings, &order, &runtime()?)?,
        Order::Serve(set, settings) => serve(&set, *settings, &runtime()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A setting makes no sense.
fn wrong(error: &SetupError) -> ExitCode {
    note(format_args!("error: {error}"));
    ExitCode::from(2)
}

fn serve(
    set: &settings::Settings,
    settings: Settings,
    runtime: &Runtime,
) -> Result<(), SetupError> {
    let verifier = Verifier::load(&settings.tokens)?;
    if settings.tokens.secret.as_ref().is_some_and(|it| it.reveal().len() < MIN_SECRET_LEN) {
        tracing::warn!(
            "JWT_SECRET is short: with fewer than {MIN_SECRET_LEN} bytes it can be guessed"
        );
    }
    let users = settings.database_url.as_ref();
    let users = users.map(|url| runtime.block_on(Users::open(url, settings.database_connections)));
    let users = users.transpose().map_err(|error| format!("the database: {error}"))?;
    let app = App::new(settings, verifier, users.map(|users| (users, runtime.handle().clone())));
    let mut server = Server::new(app.settings.rooms.keep(set.config().clone()))
        .with_runtime(runtime.handle().clone());
    server = listeners(&app.settings)?.into_iter().fold(server, Server::listen_with);
    if let Some(nats) = &app.settings.nats {
        let name = app.settings.node_name().unwrap_or_default();
        server = server.with_bus(NatsBus::new(nats)?.with_name(name));
    }
    let for_workers = app.clone();
    let server = server.start(move |worker| router(&for_workers, worker))?;
    Clock::start(&app)?;
    Cluster::start(&app)?;
    handle_signals(app, server.handle())?;
    announce(server.urls().map(|url| format!("listening on {url}")));
    if let Some(notifier) = Notifier::from_environment()? {
        notifier.ready()?;
        notifier.watch(server.handle())?;
    }
    Ok(server.join()?)
}

/// On SIGTERM and SIGINT has the clients go elsewhere and ends; a second one ends at once. On SIGHUP reads keys and
/// certificates again.
fn handle_signals(app: Arc<App>, handle: Handle) -> Result<(), SetupError> {
    let notifier = Notifier::from_environment()?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                reload(&app, &handle);
            } else if handle.is_draining() {
                std::process::exit(128 + signal);
            } else {
                if let Some(Err(error)) = notifier.as_ref().map(Notifier::stopping) {
                    tracing::warn!(%error, "the service manager does not listen");
                }
                let drain = Drain::new(app.settings.drain, DRAINING);
                handle.drain_with(&drain.with_grace(app.settings.shutdown_grace));
            }
        }
    })?;
    Ok(())
}

fn reload(app: &Arc<App>, handle: &Handle) {
    // What is wrong is in the log, and the old certificates stay.
    let _ = handle.reload_tls();
    match app.reload_keys() {
        Ok(()) => tracing::info!("the keys of tokens were read again"),
        Err(error) => tracing::error!(%error, "the keys of tokens stay as they were"),
    }
}

fn listeners(settings: &Settings) -> Result<Vec<Listener>, SetupError> {
    let at = |address: &String| match address.strip_prefix("unix:") {
        Some(path) => Listener::unix(path),
        None => Listener::address(address),
    };
    let mut all: Vec<_> = settings.listen.iter().map(at).collect();
    if !settings.tls_listen.is_empty() {
        let files = settings.cert.as_ref().zip(settings.key.as_ref());
        let (cert, key) = files.ok_or("TLS needs a certificate and its key: --cert and --key")?;
        let source = CertificateSource::files(cert, key);
        let tls = ServerSettings::new(source).build(UnixTime::now())?;
        all.extend(settings.tls_listen.iter().map(|address| at(address).with_tls(tls.clone())));
    }
    Ok(all)
}
