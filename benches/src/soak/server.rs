//! The server under the soak: its handlers, and the process that it is.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "publishes on a thread of its own, and asks the server over HTTP"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io, thread};

use anyhow::{Context as _, bail};
use ringwire::{
    Answer, CloseCode, Config, Ctx, Handle, Handler, Message, Request, Router, Sent, Server,
    WorkerContext, tuning::Pinning,
};
use ringwire_examples::{DriverFlag, note};
use serde::Deserialize;

use crate::flags::name_of;

/// What is said to subscribers.
const TOPIC: &str = "numbers";
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);
const PUBLICATION_LEN: usize = 64;
/// A message for those who read too slowly.
const FLOOD_LEN: usize = 16 << 10;
/// Peers that are silent are given up after a ping and this.
const PING_INTERVAL: Duration = Duration::from_secs(4);
const PONG_TIMEOUT: Duration = Duration::from_secs(3);
/// Of a connection with a number out of its order.
const OUT_OF_ORDER: CloseCode = CloseCode::new(4000);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The end of a silent peer comes this long after its last word, at the latest.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// Serves until the standard input ends.
pub(super) fn serve(driver: DriverFlag, io_workers: usize) -> anyhow::Result<()> {
    let config = Config::default()
        .with_driver(driver.into())
        .with_io_workers(io_workers)
        .with_pinning(Pinning::Off)
        .with_ping_interval(PING_INTERVAL)
        .with_pong_timeout(PONG_TIMEOUT);
    let server = Server::new(config).listen("127.0.0.1:0").start(site)?;
    let handle = server.handle();
    for address in server.local_addrs() {
        writeln!(io::stdout(), "{address}")?;
    }
    let publisher = handle.clone();
    thread::spawn(move || publish(&publisher));
    io::stdin().read_to_end(&mut Vec::new())?;
    handle.shutdown(ANSWER_TIMEOUT);
    server.join()?;
    Ok(())
}

fn site(worker: &WorkerContext) -> impl Handler + use<> {
    Router::new()
        .monitoring(worker.handle())
        .websocket("/echo", Numbered::default())
        .websocket("/topic", Numbers)
        .websocket("/flood", Flood)
}

/// Says one number after the other to all subscribers.
fn publish(handle: &Handle) {
    let mut message = [0; PUBLICATION_LEN];
    for number in 0_u64.. {
        message[..8].copy_from_slice(&number.to_le_bytes());
        if let Err(error) = handle.publish(TOPIC, Message::Binary(&message)) {
            // A subscriber that misses it will say so.
            note!("publication {number}: {error}");
        }
        thread::sleep(PUBLISH_INTERVAL);
    }
}

/// Answers each message with the same, but with a number of its own in front of it instead of the client's.
#[derive(Default)]
struct Numbered {
    answer: Vec<u8>,
}

/// The next number of either side.
#[derive(Default)]
struct Numbering {
    expected: u64,
    next: u64,
}

impl Handler for Numbered {
    type State = Numbering;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<Numbering> {
        Answer::accept(Numbering::default())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, Numbering>, message: Message<'_>) {
        let state = ctx.state_mut();
        let number = message.as_bytes().first_chunk().map(|number| u64::from_le_bytes(*number));
        if number != Some(state.expected) {
            let reason = format!("{number:?} came instead of {}", state.expected);
            // Fails only if a close has begun.
            let _ = ctx.close(OUT_OF_ORDER, &reason);
            return;
        }
        self.answer.clear();
        self.answer.extend_from_slice(&state.next.to_le_bytes());
        self.answer.extend_from_slice(&message.as_bytes()[8..]);
        (state.expected, state.next) = (state.expected + 1, state.next + 1);
        let _ = ctx.send(Message::Binary(&self.answer));
    }
}

struct Numbers;

impl Handler for Numbers {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>) {
        if let Err(error) = ctx.subscribe(TOPIC) {
            note!("cannot subscribe: {error}");
        }
    }

    fn on_message(&mut self, _ctx: &mut Ctx<'_, ()>, _message: Message<'_>) {}
}

/// Sends as much as is taken.
struct Flood;

impl Flood {
    fn flood(ctx: &mut Ctx<'_, ()>) {
        // The first that has to wait is the last, until all have gone.
        while let Ok(Sent::OnItsWay) = ctx.send(Message::Binary(&[7; FLOOD_LEN])) {}
    }
}

impl Handler for Flood {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>) {
        Self::flood(ctx);
    }

    fn on_message(&mut self, _ctx: &mut Ctx<'_, ()>, _message: Message<'_>) {}

    fn on_drain(&mut self, ctx: &mut Ctx<'_, ()>) {
        Self::flood(ctx);
    }
}

// The process

/// The server's process. Dropping it ends it.
pub(super) struct Process {
    child: Child,
    address: SocketAddr,
    driver: String,
}

/// What the server says of itself.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Account {
    pub(super) total: Totals,
    /// Memory in publications, in bytes.
    pub(super) retained_bytes: u64,
}

/// Counts of all workers.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Totals {
    pub(super) connections: u64,
    pub(super) open_connections: u64,
    pub(super) accepts: u64,
    pub(super) messages_received: u64,
    pub(super) deliveries: u64,
    pub(super) queued_bytes: u64,
}

impl Process {
    pub(super) fn start(driver: DriverFlag, io_workers: u16) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let driver = name_of(&driver);
        let mut child = Command::new(program)
            .args(["soak", "--serve", "--driver", &driver])
            .args(["--io-workers", &io_workers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let Ok(address) = line.trim().parse() else {
            let _ = child.kill();
            bail!("the server did not start: {}", child.wait()?);
        };
        Ok(Self { child, address, driver })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn driver(&self) -> &str {
        &self.driver
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its open descriptors.
    pub(super) fn descriptor_count(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Asks it for its account, on a connection that counts in it.
    pub(super) fn account(&self) -> anyhow::Result<Account> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(b"GET /stats HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the server gives no account")?;
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        match self.child.wait() {
            Ok(status) if status.success() => {}
            outcome => note!("the server ended with {outcome:?}"),
        }
    }
}
