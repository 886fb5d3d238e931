//! A client that stays connected: it subscribes again after each reconnection, sends a line a second, and tells what
//! was lost meanwhile. Kill the server and start it again to see it work. With `--token-file` each attempt has the
//! token that is in the file then, so that whatever renews it there renews it here.

#![expect(clippy::disallowed_methods, reason = "the thread that sends may wait")]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use http::{HeaderValue, header};
use ringwire::client::settings::Sources;
use ringwire::client::{Attempt, Backoff, BoxError, Reconnecting, RetryPolicy, Update};
use ringwire_examples::note;
use ringwire_examples::units::parse_duration;

/// Sends a numbered line every interval to a server, whatever happens to the connection.
#[derive(Debug, Parser)]
#[command(name = "reconnect", version)]
struct Flags {
    /// Where to connect to.
    #[arg(default_value = "ws://127.0.0.1:9001/")]
    url: String,
    /// Between two lines.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
    /// The longest first delay; each attempt doubles it.
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    first_delay: Duration,
    /// The longest delay of all.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    max_delay: Duration,
    /// The most attempts in a row. Default: without end.
    #[arg(long)]
    max_attempts: Option<u32>,
    /// A file with a token, for an Authorization header.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The token goes into this parameter of the URL's query instead.
    #[arg(long, requires = "token_file")]
    token_parameter: Option<String>,
}

impl Flags {
    /// Gives an attempt the token that is valid now.
    fn authorize(&self, attempt: &mut Attempt) -> Result<(), BoxError> {
        let Some(file) = &self.token_file else { return Ok(()) };
        let token = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let token = token.trim();
        match &self.token_parameter {
            Some(name) => attempt.set_query(name, token),
            None => {
                let value = HeaderValue::try_from(format!("Bearer {token}"))?;
                attempt.set_header(header::AUTHORIZATION, value);
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    ringwire::program::with_log(run)
}

fn run() -> Result<()> {
    let flags = Flags::parse();
    let backoff =
        Backoff::default().with_first_delay(flags.first_delay).with_max_delay(flags.max_delay);
    let policy = RetryPolicy::default().with_backoff(backoff).with_max_attempts(flags.max_attempts);
    let interval = flags.interval;
    let builder = Sources::default().with_environment().load()?;
    let mut client = Reconnecting::new(builder, &flags.url)
        .with_policy(policy)
        .prepare(move |attempt, _| flags.authorize(attempt))
        .on_connect(|client| client.send_text("subscribe"));

    let sender = client.sender();
    thread::spawn(move || {
        for number in 0_u64.. {
            match sender.send(format!("line {number}").as_str()) {
                Ok(delivery) => note!("line {number}: {delivery:?}"),
                Err(error) => note!("line {number}: {error}"),
            }
            thread::sleep(interval);
        }
    });
    while let Some(update) = client.next_update()? {
        match update {
            Update::Message(message) => {
                let text = String::from_utf8_lossy(message.as_bytes());
                writeln!(io::stdout(), "{text}")?;
            }
            Update::Connected { attempts, dropped } => {
                note!("connected at attempt {attempts}; {dropped} lines were dropped");
            }
            Update::Disconnected { error, delay } => {
                note!("{error}; next attempt in {delay:.1?}");
            }
            _ => {}
        }
    }
    Ok(())
}
