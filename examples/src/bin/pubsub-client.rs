//! A client of a publish/subscribe server that speaks JSON:
//!
//! ```text
//!  client  {"id":1,"type":"subscribe","topic":"news"}                  server  {"ack":1}
//!  client  {"id":2,"type":"publish","topic":"news","message":"hi"}     server  {"ack":2}
//!  server  {"id":9,"type":"message","topic":"news","message":"hi"}     client  {"ack":9}
//! ```
//!
//! `examples/gateway` is such a server, where the subprotocol is `rooms.json`:
//!
//! ```text
//! RINGWIRE_CLIENT_SUBPROTOCOLS=rooms.json pubsub-client "ws://127.0.0.1:8000/ws?token=$TOKEN" news
//! ```
//!
//! It subscribes to the topics of its command line, prints what is published there, and publishes each line of
//! standard input, `topic text`. With `--reconnect` it subscribes again on each connection, and publishes once more
//! what was not acknowledged when one was lost, so that it may be there twice.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use ringwire::CloseCode;
use ringwire::client::settings::Sources;
use ringwire::client::{JsonIds, Pushes, Reconnecting, Requests};
use ringwire_examples::units::parse_duration;
use serde_json::{Value, json};

/// The most requests that wait for their acknowledgements.
const MAX_PENDING: usize = 256;

/// Subscribes to topics and publishes lines.
#[derive(Debug, Parser)]
#[command(name = "pubsub-client", version)]
struct Flags {
    /// Where to connect to.
    url: String,
    /// Topics to subscribe to.
    topics: Vec<String>,
    /// How long the server may take to acknowledge.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// Stay after the end of the input until the server closes.
    #[arg(short = 'n', long)]
    no_close: bool,
    /// Connect again when the connection is lost.
    #[arg(short, long)]
    reconnect: bool,
}

impl Flags {
    fn connect(&self) -> Result<(Requests<JsonIds>, Pushes<JsonIds>)> {
        let builder = Sources::default().with_environment().load()?;
        let ids = JsonIds::default();
        if !self.reconnect {
            return Ok(Requests::split(builder.connect(&self.url)?, ids, MAX_PENDING));
        }
        let topics = self.topics.clone();
        let client = Reconnecting::new(builder, &self.url).on_connect(move |client| {
            // Without an id: nobody waits for what has been acknowledged once.
            topics.iter().try_for_each(|topic| client.send_text(&subscription(topic).to_string()))
        });
        Ok(Requests::split_reconnecting(client, ids, MAX_PENDING))
    }
}

fn subscription(topic: &str) -> Value {
    json!({ "type": "subscribe", "topic": topic })
}

/// Sends a request and looks at the acknowledgement.
fn ask(requests: &Requests<JsonIds>, request: &Value, timeout: Duration) -> Result<()> {
    let answer = requests.begin_idempotent(request.to_string().as_str())?.wait(timeout)?;
    let answer: Value = serde_json::from_slice(answer.as_bytes())?;
    match answer.get("error") {
        Some(error) => bail!("the server refused: {error}"),
        None => Ok(()),
    }
}

fn publish_lines(requests: &Requests<JsonIds>, flags: &Flags) -> Result<()> {
    // Otherwise each connection begins with it.
    for topic in flags.topics.iter().filter(|_| !flags.reconnect) {
        ask(requests, &subscription(topic), flags.timeout)
            .with_context(|| format!("subscribing to {topic}"))?;
    }
    for line in io::stdin().lines() {
        let line = line.context("cannot read the input")?;
        let (topic, data) = line.split_once(' ').context("a line is `topic text`")?;
        let request = json!({ "type": "publish", "topic": topic, "message": data });
        ask(requests, &request, flags.timeout).with_context(|| format!("publishing to {topic}"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    ringwire::program::with_log(run)
}

fn run() -> Result<()> {
    let flags = Flags::parse();
    let (requests, mut pushes) = flags.connect()?;
    let no_close = flags.no_close;
    let publishing = thread::spawn(move || {
        let result = publish_lines(&requests, &flags);
        if result.is_err() || !no_close {
            requests.close(CloseCode::NORMAL, "")?;
        }
        result
    });
    while let Some(push) = pushes.receive()? {
        let message: Value = serde_json::from_slice(push.as_bytes()).context("no JSON")?;
        let (topic, data) = (text_of(&message, "topic"), text_of(&message, "message"));
        writeln!(io::stdout(), "{topic} {data}")?;
    }
    if no_close && !publishing.is_finished() {
        // The server has closed, and the input has no end.
        return Ok(());
    }
    publishing.join().unwrap_or_else(|_| bail!("publishing failed"))
}

/// A member as people read it.
fn text_of(message: &Value, name: &str) -> String {
    match message.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
