//! Runs the cases of an Autobahn fuzzing server: echoes what it sends, one connection a case. Its report says what went
//! wrong; the exit code only whether all cases ran.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser;
use ringwire::client::{self, Builder, Client};
use ringwire::{
    Answer, CloseCause, Config, Ctx, Handle, Handler, Message, Request, Server,
    compression::{CompressionConfig, WindowBits},
    transport::{Dial, DialError},
    tuning::Pinning,
};
use ringwire_examples::DriverFlag;

/// The longest message of the cases is of 16 MiB.
const MAX_MESSAGE_LEN: usize = 64 << 20;

/// Said in the offer of compression, since the cases ask for windows of different sizes.
const MAX_WINDOW: WindowBits = WindowBits::MAX;

/// The slowest case takes a minute on a slow machine.
const CASE_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs the cases of an Autobahn fuzzing server.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// The fuzzing server's address and port.
    server: SocketAddr,
    /// The name of this client in the report.
    #[arg(long, default_value = "ringwire")]
    agent: String,
    /// Open connections from a worker of the engine; without it, with the blocking client.
    #[arg(long)]
    worker: bool,
    /// The worker's driver.
    #[arg(long, value_enum, default_value_t)]
    driver: DriverFlag,
    /// Offer compression, and compress every message.
    #[arg(long)]
    deflate: bool,
}

impl Flags {
    fn builder(&self) -> Builder {
        let builder = Client::builder()
            .without_proxy()
            .with_max_message_len(MAX_MESSAGE_LEN)
            .with_read_timeout(CASE_TIMEOUT)
            .with_write_timeout(CASE_TIMEOUT);
        if self.deflate {
            let compression = client::DeflateConfig::default().with_max_window(MAX_WINDOW);
            builder.with_compression(compression.with_threshold(0))
        } else {
            builder
        }
    }

    fn config(&self) -> Config {
        let compression = if self.deflate {
            CompressionConfig::dedicated().with_threshold(0)
        } else {
            CompressionConfig::default()
        };
        Config::default()
            .with_compression(compression)
            .with_driver(self.driver.into())
            .with_io_workers(1)
            .with_pinning(Pinning::Off)
            .with_max_message_len(MAX_MESSAGE_LEN)
    }
}

/// What the server says on this path, and then closes.
fn ask(server: SocketAddr, path: &str) -> Result<Option<String>> {
    let mut client = Client::builder().without_proxy().connect(format!("ws://{server}{path}"))?;
    let mut last = None;
    for message in client.messages() {
        last = message?.as_text().map(str::to_owned);
    }
    Ok(last)
}

/// Echoes until the connection ends, in whatever way: most cases end it with an error.
fn run_blocking(builder: &Builder, server: SocketAddr, target: &str) -> Result<()> {
    let mut client = builder.connect(format!("ws://{server}{target}"))?;
    while let Ok(Some(message)) = client.receive() {
        if client.send(message.as_message()).is_err() {
            // Why it ended comes with what is left to receive.
            while let Ok(Some(_)) = client.receive() {}
        }
    }
    Ok(())
}

/// Echoes, and tells when a connection has ended or was not opened.
struct Echo {
    ended: SyncSender<Option<String>>,
}

impl Echo {
    fn report(&self, failure: Option<String>) {
        // Nobody waits for a case that took too long.
        let _ = self.ended.try_send(failure);
    }
}

impl Handler for Echo {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let _ = ctx.send(message);
    }

    fn on_close(&mut self, _ctx: &mut Ctx<'_, ()>, _cause: &CloseCause) {
        self.report(None);
    }

    fn on_dial_failed(&mut self, _state: (), error: &DialError) {
        self.report(Some(error.to_string()));
    }
}

fn run_on_worker(
    handle: &Handle,
    ended: &Receiver<Option<String>>,
    server: SocketAddr,
    target: &str,
) -> Result<()> {
    let dial = Dial::new(server, &server.to_string(), target)?.with_max_window(MAX_WINDOW);
    handle.connect(&dial, ())?;
    match ended.recv_timeout(CASE_TIMEOUT).context("the case did not end in time")? {
        None => Ok(()),
        Some(failure) => Err(anyhow!(failure)),
    }
}

fn main() -> ExitCode {
    ringwire::program::with_log(run)
}

fn run() -> Result<()> {
    let flags = Flags::parse();
    let Flags { server, agent, .. } = &flags;
    let count = ask(*server, "/getCaseCount")?.context("the server did not count its cases")?;
    let count: u32 = count.parse().context("the server's count is no number")?;
    ensure!(count > 0, "the server has no cases");
    let targets = (1..=count).map(|case| format!("/runCase?case={case}&agent={agent}"));
    if flags.worker {
        let (sender, ended) = sync_channel(1);
        let running = Server::new(flags.config()).start(move |_| Echo { ended: sender.clone() })?;
        for target in targets {
            run_on_worker(&running.handle(), &ended, *server, &target)
                .with_context(|| target.clone())?;
        }
        running.handle().shutdown(Duration::ZERO);
        running.join()?;
    } else {
        let builder = flags.builder();
        for target in targets {
            run_blocking(&builder, *server, &target).with_context(|| target.clone())?;
        }
    }
    ask(*server, &format!("/updateReports?agent={agent}"))?;
    writeln!(io::stdout(), "{count} cases")?;
    Ok(())
}
