//! Peers that do as they should, and count.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "threads share what they have seen, wait, and look at the clock"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use ringwire::CloseCode;
use ringwire::client::{Client, OwnedMessage};

/// Connections that one thread serves in turn.
const EACH: usize = 16;
/// Between two messages of a connection.
const PACE: Duration = Duration::from_millis(20);
/// How long an answer may take. Far more than it should; what is late shows in the latency.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest message, in bytes.
const MAX_LEN: usize = 2048;
/// Failures that are kept; one that repeats itself says no more.
const MAX_FAILURES: usize = 20;

/// What all clients share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Load(Arc<Common>);

struct Common {
    server: SocketAddr,
    stops: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// Of the echoes since it was taken last, in microseconds.
    latency: Mutex<Histogram<u64>>,
    counts: Counts,
}

/// What the clients have done.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) echoes: AtomicU64,
    pub(super) publications: AtomicU64,
    pub(super) churned: AtomicU64,
    /// Silent peers that the server has given up.
    pub(super) given_up: AtomicU64,
    /// Bytes that slow readers have read.
    pub(super) slow_bytes: AtomicU64,
}

impl Load {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self(Arc::new(Common {
            server,
            stops: AtomicBool::new(false),
            failures: Mutex::default(),
            latency: Mutex::new(new_histogram()),
            counts: Counts::default(),
        }))
    }

    pub(super) fn server(&self) -> SocketAddr {
        self.0.server
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.0.server)
    }

    pub(super) fn stop(&self) {
        self.0.stops.store(true, Ordering::Relaxed);
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.0.stops.load(Ordering::Relaxed)
    }

    pub(super) fn fail(&self, problem: String) {
        let mut failures = lock(&self.0.failures);
        if failures.len() < MAX_FAILURES {
            failures.push(problem);
        }
    }

    pub(super) fn failures(&self) -> Vec<String> {
        lock(&self.0.failures).clone()
    }

    pub(super) fn take_latency(&self) -> Histogram<u64> {
        std::mem::replace(&mut *lock(&self.0.latency), new_histogram())
    }

    /// Runs `work` on a thread, whose failure is the soak's.
    pub(super) fn spawn(
        &self,
        name: String,
        work: impl FnOnce(&Self) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<JoinHandle<()>> {
        let load = self.clone();
        let run = move || {
            if let Err(error) = work(&load) {
                let name = thread::current().name().unwrap_or_default().to_owned();
                load.fail(format!("{name}: {error:#}"));
            }
        };
        thread::Builder::new().name(name).spawn(run).context("cannot start a thread")
    }
}

pub(super) fn new_histogram() -> Histogram<u64> {
    // Not out of range: three digits are among those that it takes.
    Histogram::new(3).unwrap_or_else(|error| unreachable!("{error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the healthy connections: so many that echo, and some that listen to publications.
pub(super) fn start(load: &Load, connections: usize) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut threads = vec![load.spawn("subscribers".to_owned(), listen)?];
    let mut left = connections;
    while left > 0 {
        let count = left.min(EACH);
        left -= count;
        let name = format!("healthy {}", threads.len());
        threads.push(load.spawn(name, move |load| echo(load, count))?);
    }
    Ok(threads)
}

pub(super) fn connect(url: &str) -> anyhow::Result<Client> {
    let builder = Client::builder().without_proxy().with_read_timeout(PATIENCE);
    builder.connect(url).with_context(|| format!("cannot connect to {url}"))
}

/// A connection that echoes, and how many it has sent.
struct Echoing {
    client: Client,
    count: u64,
}

/// Sends and receives on one connection after the other.
fn echo(load: &Load, count: usize) -> anyhow::Result<()> {
    let url = load.url("/echo");
    let open = |_| Ok(Echoing { client: connect(&url)?, count: 0 });
    let mut connections = (0..count).map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let mut message = vec![0; MAX_LEN];
    while load.goes_on() {
        let began = Instant::now();
        for connection in &mut connections {
            connection.echo(load, &mut message)?;
        }
        thread::sleep(PACE.saturating_sub(began.elapsed()));
    }
    connections.iter_mut().try_for_each(|it| Ok(it.client.close(CloseCode::NORMAL, "")?))
}

impl Echoing {
    fn echo(&mut self, load: &Load, message: &mut [u8]) -> anyhow::Result<()> {
        let number = self.count.to_le_bytes();
        // Lengths and contents that differ from one to the next.
        let len = 8 + usize::try_from(self.count * 7919 % (MAX_LEN as u64 - 8)).unwrap_or(0);
        message[..8].copy_from_slice(&number);
        message[8..len].fill(number[0] ^ number[1]);
        let began = Instant::now();
        self.client.send_binary(&message[..len])?;
        let Some(OwnedMessage::Binary(answer)) = self.client.receive()? else {
            bail!("message {} was answered with something else", self.count);
        };
        let latency = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        // The client's number and the server's are the same, as both count from 0.
        ensure!(answer == message[..len], "message {} has come back differently", self.count);
        self.count += 1;
        load.counts().echoes.fetch_add(1, Ordering::Relaxed);
        // It grows as far as it needs to.
        let _ = lock(&load.0.latency).record(latency);
        Ok(())
    }
}

/// Hears all numbers, in their order, on several connections.
fn listen(load: &Load) -> anyhow::Result<()> {
    let url = load.url("/topic");
    let mut subscribers = (0..EACH).map(|_| connect(&url)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut expected = vec![None; EACH];
    while load.goes_on() {
        for (client, expected) in subscribers.iter_mut().zip(&mut expected) {
            let Some(OwnedMessage::Binary(message)) = client.receive()? else {
                bail!("something else than a publication has come");
            };
            let number = message.first_chunk().map(|number| u64::from_le_bytes(*number));
            let number = number.context("a publication without a number")?;
            let due = expected.unwrap_or(number);
            ensure!(number == due, "publication {number} has come where {due} was due");
            *expected = Some(number + 1);
            load.counts().publications.fetch_add(1, Ordering::Relaxed);
        }
    }
    subscribers.iter_mut().try_for_each(|client| Ok(client.close(CloseCode::NORMAL, "")?))
}
