//! A client for the terminal and for scripts: each line of standard input is a message, and each message is a line of
//! standard output. What else happens is told on standard error. What no flag says, `RINGWIRE_CLIENT_*` may
//! (docs/configuration.md).
//!
//! The exit code is 0 after a normal end, 1 after an error.

#![expect(clippy::disallowed_methods, reason = "the thread that reads the input may wait")]

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use http::{HeaderName, HeaderValue};
use ringwire::client::settings::Sources;
use ringwire::client::{
    Builder, DeflateConfig, Error, Event, OwnedMessage, Proxy, Reconnecting, Update, Url,
};
use ringwire::{CloseCode, Message};
use ringwire_examples::note;
use ringwire_examples::units::{parse_bytes, parse_duration};
use ringwire_tls::pki_types::UnixTime;
use ringwire_tls::{ClientSettings, Roots};

/// Sends the lines of standard input to a WebSocket server and prints what comes back.
#[derive(Debug, Parser)]
#[command(name = "client", version)]
struct Flags {
    /// ws://host/path, wss://host/path, or ws+unix:/path/of/socket:/path.
    url: String,
    /// Send lines as binary messages.
    #[arg(short, long)]
    binary: bool,
    /// A parameter of the URL's query, `name=value`, in place of those of this name, percent-encoded. May be given
    /// several times.
    #[arg(short, long = "query", value_parser = parse_parameter)]
    query: Vec<(String, String)>,
    /// A header of the request, `Name: value`. May be given several times.
    #[arg(short = 'H', long = "header", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The Origin header.
    #[arg(long)]
    origin: Option<HeaderValue>,
    /// A subprotocol to offer. May be given several times, the preferred one first.
    #[arg(short = 's', long = "protocol")]
    protocols: Vec<String>,
    /// Take any certificate of anybody, which is safe with nobody.
    #[arg(short = 'k', long)]
    insecure: bool,
    /// Trust the authorities in this PEM file instead of those of the system.
    #[arg(long, conflicts_with = "insecure")]
    ca: Option<std::path::PathBuf>,
    /// Follow so many redirects.
    #[arg(long)]
    max_redirects: Option<u32>,
    /// Connect through `http://`, `socks5://` or `socks5h://[user:password@]host:port`; `none`: directly. Default: what
    /// the environment says (https_proxy, http_proxy, all_proxy, no_proxy).
    #[arg(short = 'x', long)]
    proxy: Option<String>,
    /// For connecting, and again for the handshake. Default: 10s.
    #[arg(long, value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Send a ping after so much silence; 0: none. Default: 30s.
    #[arg(long, value_parser = parse_duration)]
    ping_interval: Option<Duration>,
    /// Ping, and answer pings, on a thread of its own.
    #[arg(long)]
    heartbeat_thread: bool,
    /// Send a ping with this payload at once, and print pings and pongs.
    #[arg(long)]
    ping: Option<String>,
    /// The longest message that is received. Default: 1MiB.
    #[arg(long, value_parser = parse_bytes)]
    max_message: Option<u64>,
    /// Offer compression (permessage-deflate).
    #[arg(short = 'z', long)]
    deflate: bool,
    /// The code to close with at the end of the input.
    #[arg(long, default_value_t = 1000)]
    close_code: u16,
    /// The reason to close with.
    #[arg(long, default_value = "")]
    close_reason: String,
    /// How long to wait for messages after the end of the input.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    linger: Duration,
    /// Stay after the end of the input until the server closes.
    #[arg(short = 'n', long)]
    no_close: bool,
    /// Connect again when the connection is lost, and keep lines until then.
    #[arg(short, long)]
    reconnect: bool,
}

impl Flags {
    fn builder(&self) -> Result<Builder> {
        let mut builder = Sources::default().with_environment().load()?;
        if let Some(timeout) = self.timeout {
            builder = builder.with_connect_timeout(timeout).with_handshake_timeout(timeout);
        }
        if let Some(interval) = self.ping_interval {
            let interval = (!interval.is_zero()).then_some(interval);
            let timeout = interval.map(|interval| interval * 2);
            builder = builder.with_ping_interval(interval).with_peer_timeout(timeout);
        }
        if let Some(count) = self.max_redirects {
            builder = builder.with_max_redirects(count);
        }
        if let Some(len) = self.max_message {
            builder = builder.with_max_message_len(usize::try_from(len).unwrap_or(usize::MAX));
        }
        if self.heartbeat_thread {
            builder = builder.with_heartbeat_thread(true);
        }
        for (name, value) in &self.headers {
            builder = builder.append_header(name.clone(), value.clone());
        }
        for protocol in &self.protocols {
            builder = builder.with_subprotocol(protocol);
        }
        if let Some(origin) = &self.origin {
            builder = builder.with_origin(origin.clone());
        }
        if self.deflate {
            builder = builder.with_compression(DeflateConfig::default());
        }
        match self.proxy.as_deref() {
            None => {}
            Some("none") => builder = builder.without_proxy(),
            Some(text) => builder = builder.with_proxy(text.parse::<Proxy>()?),
        }
        let tls = match &self.ca {
            _ if self.insecure => ClientSettings::dangerous_without_certificate_verification(),
            Some(path) => ClientSettings::new(Roots::file(path)),
            None => return Ok(builder),
        };
        Ok(builder.with_tls(tls.build(UnixTime::now())?))
    }

    fn url(&self) -> Result<Url> {
        let url: Url = self.url.parse()?;
        Ok(self.query.iter().fold(url, |url, (name, value)| url.with_query(name, value)))
    }

    /// Gives each line of the input to `send`, and waits as long as is asked for.
    fn read_input(&self, mut send: impl FnMut(Message<'_>) -> Result<()>) -> Result<()> {
        for line in io::stdin().lock().split(b'\n') {
            let mut line = line.context("cannot read the input")?;
            if line.ends_with(b"\r") {
                line.pop();
            }
            if self.binary {
                send(Message::Binary(&line))?;
            } else {
                send(Message::Text(str::from_utf8(&line).context("a line is not UTF-8")?))?;
            }
        }
        if self.no_close {
            loop {
                thread::park();
            }
        }
        thread::sleep(self.linger);
        Ok(())
    }

    fn once(&'static self, builder: &Builder) -> Result<()> {
        let mut client = builder.connect(self.url()?).inspect_err(print_refusal)?;
        if let Some(protocol) = client.subprotocol() {
            note!("subprotocol: {protocol}");
        }
        if client.has_compression() {
            note!("compression: agreed on");
        }
        if let Some(payload) = &self.ping {
            client.ping(payload.as_bytes())?;
        }
        let (sender, mut receiver) = client.split();
        thread::spawn(move || {
            let read = self.read_input(|message| Ok(sender.send(message)?));
            if let Err(error) = read {
                note!("{error:#}");
            }
            // The receiver learns how that ends.
            let _ = sender.close(CloseCode::new(self.close_code), &self.close_reason);
        });
        loop {
            match receiver.receive_event(Duration::MAX)? {
                Some(Event::Message(message)) => print(&message)?,
                Some(event) if self.ping.is_some() => note!("{event:?}"),
                Some(_) => {}
                None => break,
            }
        }
        if let Some((code, reason)) = receiver.close_frame() {
            note!("closed: {code} {}", reason.escape_debug());
        }
        Ok(())
    }

    fn for_ever(&'static self, builder: Builder) -> Result<()> {
        let mut client = Reconnecting::new(builder, self.url()?);
        let sender = client.sender();
        thread::spawn(move || {
            let read = self.read_input(|message| {
                sender.send(message)?;
                Ok(())
            });
            if let Err(error) = read {
                note!("{error:#}");
            }
            let _ = sender.close(CloseCode::new(self.close_code), &self.close_reason);
        });
        while let Some(update) = client.next_update()? {
            match update {
                Update::Message(message) => print(&message)?,
                Update::Connected { attempts, dropped } => {
                    note!("connected at attempt {attempts}, {dropped} lines dropped");
                }
                Update::Disconnected { error, delay } => {
                    note!("{error}; next attempt in {delay:.1?}");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn print(message: &OwnedMessage) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(message.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// What the server says to a request that it refuses.
fn print_refusal(error: &Error) {
    if let Error::Refused(refusal) = error {
        note!("{}", refusal.body_text().trim_end());
    }
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("a header is `Name: value`")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

fn parse_parameter(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("a parameter is `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    ringwire::program::with_log(run)
}

fn run() -> Result<()> {
    // The thread that reads the input lives as long as the program.
    let flags: &'static Flags = Box::leak(Box::new(Flags::parse()));
    let builder = flags.builder()?;
    if flags.reconnect { flags.for_ever(builder) } else { flags.once(&builder) }
}
