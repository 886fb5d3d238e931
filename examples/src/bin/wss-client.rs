//! Sends messages to an echo server over TLS and checks what comes back: `wss-client HOST PORT PATH COUNT`.

#![expect(clippy::disallowed_methods, reason = "a client that says how long it took")]

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use ringwire::CloseCode;
use ringwire::client::{Client, OwnedMessage};
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{ClientSettings, Roots};

/// Sends COUNT text messages over TLS, one after the other, and waits for the echo of each.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// The server's name or address.
    host: String,
    /// Its port.
    port: u16,
    /// Path and query, such as /chat.
    path: String,
    /// How many messages to send.
    count: u64,
    /// A PEM file of authorities to trust, instead of those of the system. A self-signed certificate is its own
    /// authority.
    #[arg(long)]
    ca: Option<std::path::PathBuf>,
    /// Takes any certificate of anybody. For servers of one's own.
    #[arg(short = 'k', long, conflicts_with = "ca")]
    insecure: bool,
}

impl Flags {
    fn tls(&self) -> ClientSettings {
        match &self.ca {
            _ if self.insecure => ClientSettings::dangerous_without_certificate_verification(),
            Some(file) => ClientSettings::new(Roots::file(file)),
            None => ClientSettings::new(Roots::system()),
        }
    }
}

fn main() -> ExitCode {
    ringwire::program::with_log(run)
}

fn run() -> Result<()> {
    let flags = Flags::parse();
    let host =
        if flags.host.contains(':') { format!("[{}]", flags.host) } else { flags.host.clone() };
    let path = flags.path.strip_prefix('/').unwrap_or(&flags.path);
    let url = format!("wss://{host}:{}/{path}", flags.port);
    let tls = flags.tls().build(UnixTime::now())?;
    let began = Instant::now();
    let mut client = Client::builder()
        .with_tls(tls)
        .connect(&url)
        .with_context(|| format!("cannot connect to {url}"))?;
    writeln!(io::stdout(), "connected to {url} in {:.1} ms", began.elapsed().as_secs_f64() * 1e3)?;
    let began = Instant::now();
    for number in 0..flags.count {
        let message = format!("message {number}");
        client.send_text(&message)?;
        let reply = client.receive()?.context("the server closed the connection")?;
        ensure!(reply == OwnedMessage::from(message.as_str()), "{reply:?} came for {message:?}");
    }
    let seconds = began.elapsed().as_secs_f64();
    writeln!(
        io::stdout(),
        "{} messages in {:.1} ms, {:.0}/s",
        flags.count,
        seconds * 1e3,
        flags.count as f64 / seconds
    )?;
    client.close(CloseCode::NORMAL, "")?;
    Ok(())
}
