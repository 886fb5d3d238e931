//! Starting a server: listeners, drivers, one thread for each worker.

#![expect(
    clippy::disallowed_types,
    reason = "starting shares a factory and counters between threads"
)]

pub(crate) mod exposition;
pub(crate) mod handle;
pub mod logging;
pub(crate) mod monitor;
pub(crate) mod notify;
mod others;
mod placement;
pub(crate) mod restart;
pub(crate) mod sender;
mod ways_in;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_affinity::CoreId;
use ringwire_codec::Masks;
use ringwire_tls::ServerConfig;

use crate::app::handler::Handler;
use crate::base::amount::Sizing;
use crate::base::budget::Budget;
use crate::base::event::Within;
#[cfg(feature = "tokio")]
use crate::base::runtime::Runtime;
use crate::cluster::{self, Bus, BusEnd, NodeId};
use crate::compute::{Compute, Pool};
use crate::config::{Assignment, Config, DriverKind};
use crate::driver::Driver;
use crate::driver::epoll::Epoll;
use crate::driver::uring::{self, Layout, Uring};
use crate::entry::claim::SocketFile;
use crate::entry::listener::{Listener, Listening, Name, Terms, listen_all};
use crate::error::Error;
use crate::hub::handover::Handover;
use crate::hub::mail::{Inbox, inbox};
use crate::hub::{Hub, Link};
use crate::layers::tls::warn_of;
use crate::limits::memory;
use crate::metrics::Counters;
use crate::net;
use crate::server::handle::Handle;
use crate::server::placement::{Placement, own_cores, place};
use crate::state::Shared;
use crate::worker::clock::TurnClock;
use crate::worker::{Worker, WorkerSetup, share_of};

/// How long [`Running::join`] waits for a bus.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// A server that has not started yet.
///
/// ```no_run
/// use ringwire::{Config, Server, on_message};
///
/// let server = Server::new(Config::default())
///     .listen("127.0.0.1:9001")
///     .start(|_worker| on_message(|ctx, message| ctx.send(message)))?;
/// println!("listening on {}", server.urls().next().unwrap_or_default());
/// server.join()?;
/// # Ok::<(), ringwire::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    config: Config,
    listeners: Vec<Listener>,
    inherited: Vec<OwnedFd>,
    bus: Option<Box<dyn Bus>>,
}

/// What a handler is made with: which worker it is for, and the way to all of them.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    index: u16,
    handle: Handle,
}

impl WorkerContext {
    pub(crate) fn new(index: u16, handle: Handle) -> Self {
        Self { index, handle }
    }

    /// The worker's index, from 0.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// A handle to the whole server.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// A server that runs. Dropping this leaves it running.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    driver: DriverKind,
    local_addrs: Vec<SocketAddr>,
    urls: Vec<String>,
    workers: Vec<JoinHandle<Result<(), Error>>>,
    bus: Option<BusEnd>,
}

impl Server {
    /// A server with these settings, which listens nowhere yet.
    pub fn new(config: Config) -> Self {
        Self { config, listeners: Vec::new(), inherited: Vec::new(), bus: None }
    }

    /// Listens on `address`, such as `127.0.0.1:9001`, `[::]:80` or `localhost:0` (a free port), also several
    /// times. Every worker gets a listening socket of its own there, and the kernel spreads the connections
    /// (SO_REUSEPORT, socket(7)). Without any address the server only serves what it [adopts](Handle::adopt) and
    /// [dials](Handle::connect).
    #[must_use]
    pub fn listen(self, address: impl fmt::Display) -> Self {
        self.listen_with(Listener::address(address))
    }

    /// Listens on `address` for TLS (`wss://`), otherwise as [`listen`](Self::listen). Plain and TLS addresses serve
    /// the same handler.
    ///
    /// ```no_run
    /// use ringwire::tls::{CertificateSource, ServerSettings, pki_types::UnixTime};
    /// use ringwire::{Config, Server, on_message};
    ///
    /// let source = CertificateSource::files("cert.pem", "key.pem");
    /// let tls = ServerSettings::new(source).build(UnixTime::now())?;
    /// let server = Server::new(Config::default())
    ///     .listen("127.0.0.1:9001")
    ///     .listen_tls("127.0.0.1:9443", tls)
    ///     .start(|_worker| on_message(|ctx, message| ctx.send(message)))?;
    /// # server.handle().shutdown(std::time::Duration::ZERO);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn listen_tls(self, address: impl fmt::Display, tls: ServerConfig) -> Self {
        self.listen_with(Listener::address(address).with_tls(tls))
    }

    /// Listens on a Unix socket; see [`Listener::unix`].
    #[must_use]
    pub fn listen_unix(self, path: impl Into<PathBuf>) -> Self {
        self.listen_with(Listener::unix(path))
    }

    /// Listens on a socket that listens already; see [`Listener::socket`].
    #[must_use]
    pub fn listen_on(self, socket: impl Into<OwnedFd>) -> Self {
        self.listen_with(Listener::socket(socket))
    }

    /// Listens as `listener` says, beside all others.
    #[must_use]
    pub fn listen_with(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Goes on with the listening sockets of a predecessor ([`Handle::listeners`]) at those addresses and paths of its
    /// own at which they listen, rather than making new ones. So what waits on them to be accepted is not lost. An
    /// address with port 0 takes those of the first port that the predecessor was given there.
    ///
    /// The number of workers may be another: each socket is accepted from, and a worker too many gets a new one.
    /// Sockets at places where this server does not listen are closed, with a warning in the log.
    #[must_use]
    pub fn inherit(mut self, sockets: impl IntoIterator<Item = OwnedFd>) -> Self {
        self.inherited.extend(sockets);
        self
    }

    /// Makes the server a node of a [cluster](crate::cluster): what is published here is heard on the other nodes of
    /// the bus, and the other way round.
    #[must_use]
    pub fn with_bus(mut self, bus: impl Bus) -> Self {
        self.bus = Some(Box::new(bus));
        self
    }

    /// Starts the workers. `factory` makes the handler of each, on its thread.
    ///
    /// The process's soft limit of open descriptors is raised to the hard one.
    ///
    /// # Errors
    /// A setting is wrong, an address can't be listened on, the kernel refuses a driver or a thread, or the bus can't
    /// begin.
    pub fn start<H, F>(self, factory: F) -> Result<Running, Error>
    where
        H: Handler,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        self.config.check()?;
        match choose_driver(&self.config)? {
            Chosen::Epoll => self.start_on(DriverKind::Epoll, factory, |sockets, config| {
                Epoll::new(sockets, config.receive_buffer_len)?.with_busy_poll(config.into())
            }),
            Chosen::Uring(layout) => {
                self.start_on(DriverKind::Uring, factory, move |sockets, config| {
                    let driver = Uring::new(sockets, layout).map_err(uring::explain)?;
                    driver.with_busy_poll(config.into())
                })
            }
        }
    }

    /// Starts the workers. Each connection is served by `serve`, an async function that runs on its worker; its future
    /// need not be `Send`. See [`Socket`](crate::Socket).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(feature = "async")]
    pub fn serve<F, R>(self, serve: F) -> Result<Running, Error>
    where
        F: AsyncFn(crate::Socket) -> R + Clone + Send + Sync + 'static,
        R: crate::serve::Served,
    {
        self.start(move |_worker| crate::serve::Serve::new(serve.clone()))
    }

    /// Has futures polled within this runtime of tokio, so that what needs one works in them as it is: timers, sockets,
    /// databases. The runtime's own threads do the IO; the workers poll.
    #[cfg(feature = "tokio")]
    #[must_use]
    pub fn with_runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.config.runtime = Runtime::tokio(runtime);
        self
    }

    fn start_on<D, H, F>(
        self,
        kind: DriverKind,
        factory: F,
        new_driver: impl Fn(Vec<OwnedFd>, &Config) -> std::io::Result<D>,
    ) -> Result<Running, Error>
    where
        D: Driver + Send + 'static,
        H: Handler,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        let Self { mut config, listeners, inherited, bus } = self;
        memory::fit_address_space();
        let max_memory = memory::budget_of(config.max_memory);
        config.max_memory = max_memory.map_or(Sizing::Auto, Sizing::Fixed);
        let driver_name = kind.name();
        let descriptors = net::raise_descriptor_limit()
            .map_err(|source| Error::Driver { driver: driver_name, source })?;
        let Placement { io: cores, compute, available } = place(&config)?;
        let pool = match compute.len() {
            0 => None,
            _ => Some(Pool::start(&compute, config.compute_queue_len)?),
        };
        let share = share_of(&config, descriptors, cores.len());
        let configs: Vec<_> = listeners.iter().filter_map(Listener::tls).cloned().collect();
        configs.iter().for_each(|config| warn_of(&config.certificates()));
        let mut listening = listen_all(listeners, inherited, cores.len(), &config)?;
        if config.assignment == Assignment::Cpu {
            listening.choose_by_cpu(&own_cores(&cores)?)?;
        }
        let sockets = std::mem::take(&mut listening.sockets);

        let mut parts = Vec::with_capacity(cores.len());
        let mut links = Vec::with_capacity(cores.len());
        for sockets in sockets {
            let driver = new_driver(sockets, &config)
                .map_err(|source| Error::Driver { driver: driver_name, source })?;
            let transit = config.topics.max_in_transit_len;
            let (ways, inbox) = inbox(config.mailbox_len, transit, driver.waker());
            let counters = Arc::new(Counters::default());
            let compute = pool.as_ref().map(|pool| pool.for_worker(ways.results.clone()));
            links.push(Link::new(ways, Arc::clone(&counters)));
            parts.push(Part { driver, inbox, counters, compute });
        }
        let tcp = net::TcpOptions::from(&config);
        listening.settle(tcp)?;
        let Listening { terms, names, files, all, borrowed, .. } = listening;
        let files = Arc::new(files);
        let budget = Budget::new(memory::within(config.compression.max_dedicated_len, max_memory));
        let hub = Hub::new(links, &config, Handover::new(all, borrowed));
        let handle = Handle::new(hub.clone(), tcp, configs)
            .with_compute(pool.as_ref().map(Pool::meter))
            .with_states_of::<H>();
        let bus = bus.map(|bus| start_bus(bus, &hub, &config)).transpose()?;
        let factory = Arc::new(factory);
        let mut workers = Vec::with_capacity(parts.len());
        for (index, (part, core)) in (0_u16..).zip(parts.into_iter().zip(cores)) {
            let context = WorkerContext::new(index, handle.clone());
            let start = Start {
                config: config.clone(),
                context,
                core,
                listeners: terms.clone(),
                files: Arc::clone(&files),
                share,
                budget: budget.clone(),
                hub: hub.clone(),
            };
            workers.push(spawn(start, part, Arc::clone(&factory)).inspect_err(|_| {
                // The workers that have started already have nobody to serve.
                handle.shutdown(Duration::ZERO);
            })?);
        }
        let urls: Vec<_> = names.iter().map(|(name, secure)| name.url(*secure)).collect();
        crate::base::event::info!(
            driver = driver_name,
            io_workers = workers.len(),
            compute_workers = compute.len(),
            cores = available,
            max_memory,
            ?urls,
            "listening"
        );
        let address = |(name, _): &(Name, bool)| match name {
            Name::Address(address) => Some(*address),
            Name::Path(_) => None,
        };
        let local_addrs = names.iter().filter_map(address).collect();
        Ok(Running { handle, driver: kind, local_addrs, urls, workers, bus })
    }
}

impl Running {
    /// A handle to the server, for any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The driver in use: [`DriverKind::Epoll`] or [`DriverKind::Uring`].
    pub fn driver(&self) -> DriverKind {
        self.driver
    }

    /// The addresses that are listened on, in the order of [`Server::listen`]; of a name with several addresses,
    /// all. Unix sockets have none.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// All that is listened on as URLs: `ws://` or `wss://` and the address, or `ws+unix:` and the path.
    pub fn urls(&self) -> impl Iterator<Item = String> + '_ {
        self.urls.iter().cloned()
    }

    /// Waits until all workers have ended, after [`Handle::shutdown`], and up to 5 s longer for a
    /// [bus](crate::cluster::Bus) to send what it was given.
    ///
    /// # Errors
    /// Why a worker failed. The others were shut down then.
    pub fn join(self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for (worker, thread) in (0_u16..).zip(self.workers) {
            let result = thread
                .join()
                .unwrap_or_else(|_| Err(Error::Thread { worker, problem: "panicked".into() }));
            outcome = outcome.and(result);
        }
        if self.bus.is_some_and(|bus| !bus.wait(BUS_PATIENCE)) {
            crate::base::event::warn!("the bus of the cluster does not end, and is not waited for");
        }
        outcome
    }
}

/// Has the bus take what leaves the server, before any worker runs.
fn start_bus(bus: Box<dyn Bus>, hub: &Hub, config: &Config) -> Result<BusEnd, Error> {
    let id = NodeId::random().map_err(|error| Error::Bus(error.into()))?;
    let (node, end) = cluster::node(hub.exchange(), &config.cluster, id);
    crate::base::event::info!(node = %id, ?bus, "a node of a cluster");
    bus.start(node).map_err(Error::Bus)?;
    Ok(end)
}

/// The driver of all workers.
enum Chosen {
    Epoll,
    Uring(Layout),
}

/// Finds out what this machine has, where the settings leave it open.
fn choose_driver(config: &Config) -> Result<Chosen, Error> {
    let probe = || uring::probe(config.receive_buffer_len);
    match config.driver {
        DriverKind::Epoll => Ok(Chosen::Epoll),
        DriverKind::Uring => probe()
            .map(Chosen::Uring)
            .map_err(|source| Error::Driver { driver: DriverKind::Uring.name(), source }),
        DriverKind::Auto => Ok(choose_for(probe())),
    }
}

/// The faster driver of those that can be had.
fn choose_for(probed: std::io::Result<Layout>) -> Chosen {
    match probed {
        Ok(layout) if layout.has_turns() => Chosen::Uring(layout),
        Ok(_) => {
            crate::base::event::info!("using epoll: io_uring is preferred from Linux 6.17 on");
            Chosen::Epoll
        }
        Err(error) => {
            crate::base::event::info!(reason = %error, "using epoll: io_uring is unavailable");
            Chosen::Epoll
        }
    }
}

/// What is made for a worker before its thread.
struct Part<D> {
    driver: D,
    inbox: Inbox,
    counters: Arc<Counters>,
    compute: Option<Compute>,
}

/// What its thread is told.
struct Start {
    config: Config,
    context: WorkerContext,
    core: Option<CoreId>,
    listeners: Vec<Terms>,
    /// Kept until the last worker has ended.
    files: Arc<Vec<SocketFile>>,
    share: usize,
    budget: Budget,
    hub: Hub,
}

fn spawn<D, H, F>(
    start: Start,
    part: Part<D>,
    factory: Arc<F>,
) -> Result<JoinHandle<Result<(), Error>>, Error>
where
    D: Driver + Send + 'static,
    H: Handler,
    F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
{
    let worker = start.context.index;
    thread::Builder::new()
        .name(format!("ringwire-{worker}"))
        .spawn(move || {
            // At the level of errors, so that no filter takes it from the lines that it stands before.
            let _span = Within::enter(|| tracing::error_span!("worker", index = worker));
            let mut all_together =
                AllTogether { handle: start.context.handle.clone(), done: false };
            if let Some(core) = start.core
                && !core_affinity::set_for_current(core)
            {
                crate::base::event::warn!(worker, core = core.id, "the thread could not be pinned");
            }
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| {
                let what = format!("no random bytes by getrandom(2) or /dev/urandom: {error}");
                Error::Worker { worker, source: std::io::Error::other(what) }
            })?;
            let shared = Shared::new(
                worker,
                &start.config,
                part.counters,
                Masks::new(seed),
                start.budget,
                start.hub,
            );
            let handler = factory(&start.context);
            let setup = WorkerSetup {
                shared,
                inbox: part.inbox,
                compute: part.compute,
                listeners: start.listeners,
                assignment: start.config.assignment,
                max_connections: start.share,
            };
            let outcome = Worker::new(part.driver, TurnClock::start(), handler, setup).run();
            all_together.done = outcome.is_ok();
            // The last one removes them.
            if let Some(files) = Arc::into_inner(start.files)
                && start.context.handle.handover().is_passed_on()
            {
                files.into_iter().for_each(SocketFile::leave);
            }
            outcome.map_err(|source| Error::Worker { worker, source })
        })
        .map_err(|error| Error::Thread {
            worker,
            problem: format!("could not be started: {error}"),
        })
}

/// Shuts the other workers down if this one fails or panics: a server without one of its workers would leave the
/// connections that the kernel gives to that one's listener without an answer.
struct AllTogether {
    handle: Handle,
    done: bool,
}

impl Drop for AllTogether {
    fn drop(&mut self) {
        if let Some(relay) = self.handle.hub.exchange().relay() {
            relay.leave();
        }
        if !self.done {
            self.handle.handover().hang_up();
            self.handle.shutdown(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn io_uring_is_taken_as_it_was_measured_only() {
        let layout = Layout {
            piece_len: 4096,
            piece_count: 8,
            ring_count: 2,
            incremental: true,
            turn_len: 4096,
        };
        assert!(matches!(choose_for(Ok(layout)), Chosen::Uring(_)));
        assert!(matches!(choose_for(Ok(Layout { turn_len: 0, ..layout })), Chosen::Epoll));
        let refused = Error::from(ErrorKind::PermissionDenied);
        assert!(matches!(choose_for(Err(refused)), Chosen::Epoll));
    }
}
