//! A client that stays connected: it subscribes again after each reconnection, sends a line a second, and tells what
//! was lost meanwhile. Kill the server and start it again to see it work.

#![expect(clippy::disallowed_methods, reason = "the thread that sends may wait")]

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use ringwire::client::{Backoff, Client, Reconnecting, RetryPolicy, Update};
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
    /// The most attempts in a row; 0: without end.
    #[arg(long, default_value_t = 0)]
    max_attempts: u32,
}

fn main() -> ExitCode {
    ringwire::program::with_log(run)
}

fn run() -> Result<()> {
    let flags = Flags::parse();
    let backoff =
        Backoff::default().with_first_delay(flags.first_delay).with_max_delay(flags.max_delay);
    let policy = RetryPolicy::default().with_backoff(backoff).with_max_attempts(flags.max_attempts);
    let mut client = Reconnecting::new(Client::builder(), &flags.url)
        .with_policy(policy)
        .on_connect(|client| client.send_text("subscribe"));

    let sender = client.sender();
    thread::spawn(move || {
        for number in 0_u64.. {
            let sent = sender.send(format!("line {number}").as_str());
            note!("line {number}: {sent:?}");
            thread::sleep(flags.interval);
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
