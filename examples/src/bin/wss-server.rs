//! A WebSocket echo server over TLS: `wss-server PORT CERT KEY`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use ringwire::program::{announce, handle_signals, with_log};
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ServerSettings};
use ringwire::{Config, Server};
use ringwire_examples::Echo;

/// A WebSocket echo server over TLS, on all addresses. SIGHUP has it read the certificate again, SIGTERM ends it.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// The port to listen on; 0 takes a free one.
    port: u16,
    /// The certificate chain, a PEM file, leaf first.
    cert: PathBuf,
    /// Its private key, a PEM file.
    key: PathBuf,
}

fn main() -> ExitCode {
    with_log(run)
}

fn run() -> Result<()> {
    let Flags { port, cert, key } = Flags::parse();
    let source = CertificateSource::files(cert, key);
    let tls = ServerSettings::new(source).build(UnixTime::now())?;
    let server = Server::new(Config::default())
        .listen_tls(format_args!("[::]:{port}"), tls)
        .start(|_worker| Echo)?;
    handle_signals(server.handle(), Duration::from_secs(5)).context("cannot handle signals")?;
    announce(server.urls().map(|url| format!("listening on {url}")));
    Ok(server.join()?)
}
