//! What the integration tests share: a server on a free port, and an application that reports every call. Who it meets
//! is in `ringwire-peers`.
//!
//! Nothing here waits without a limit: what does not come within [`PATIENCE`] fails the test.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share with threads, and wait"
)]

pub(crate) mod app;
pub(crate) mod process;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::{
    CloseCause, Config, ConnId, DriverKind, Handle, Handler, Running, WorkerContext,
    stats::WorkerStats, tuning::Pinning,
};
use ringwire_peers::Client;
pub(crate) use ringwire_peers::{PATIENCE, ms, wait_until};

use app::{App, Seen};

/// The kernel back end that is tested: `RINGWIRE_DRIVER`, epoll if it is not set.
pub(crate) fn driver() -> DriverKind {
    match std::env::var("RINGWIRE_DRIVER").as_deref() {
        Err(_) | Ok("epoll") => DriverKind::Epoll,
        Ok("uring") => DriverKind::Uring,
        Ok("auto") => DriverKind::Auto,
        Ok(other) => panic!("RINGWIRE_DRIVER={other}: the engine has no such driver"),
    }
}

/// One worker that is not pinned, so that tests can run side by side.
pub(crate) fn config() -> Config {
    Config::default()
        .with_driver(driver())
        .with_io_workers(1)
        .with_pinning(Pinning::Off)
        // Where a busy machine makes a test slow, it would see pings.
        .with_ping_interval(None)
}

/// A running server, which is shut down and joined at the end of the test.
pub(crate) struct Server {
    running: Option<Running>,
    handle: Handle,
    seen: mpsc::Receiver<(ConnId, Seen)>,
}

impl Server {
    /// An echo server.
    pub(crate) fn echo(config: Config) -> Self {
        Self::start(config, |app| app)
    }

    /// A server whose application is what `build` makes of one that accepts all and echoes.
    pub(crate) fn start(
        config: Config,
        build: impl Fn(App) -> App + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(config, &["127.0.0.1:0"], build)
    }

    pub(crate) fn start_at(
        config: Config,
        addresses: &[&str],
        build: impl Fn(App) -> App + Send + Sync + 'static,
    ) -> Self {
        Self::with_handler(config, addresses, move |seen, _| build(App::new(seen)))
    }

    pub(crate) fn with_handler<H: Handler>(
        config: Config,
        addresses: &[&str],
        factory: impl Fn(mpsc::Sender<(ConnId, Seen)>, &WorkerContext) -> H + Send + Sync + 'static,
    ) -> Self {
        let server = addresses
            .iter()
            .fold(ringwire::Server::new(config), |server, address| server.listen(address));
        Self::listening(server, factory)
    }

    /// A server whose first address is a plain one and whose second speaks TLS.
    pub(crate) fn secure(
        config: Config,
        tls: ringwire::tls::ServerConfig,
        build: impl Fn(App) -> App + Send + Sync + 'static,
    ) -> Self {
        let server =
            ringwire::Server::new(config).listen("127.0.0.1:0").listen_tls("127.0.0.1:0", tls);
        Self::listening(server, move |seen, _| build(App::new(seen)))
    }

    /// A server at a Unix socket.
    pub(crate) fn at_path(
        config: Config,
        path: &std::path::Path,
        build: impl Fn(App) -> App + Send + Sync + 'static,
    ) -> Self {
        let server = ringwire::Server::new(config).listen_unix(path);
        Self::listening(server, move |seen, _| build(App::new(seen)))
    }

    pub(crate) fn listening<H: Handler>(
        server: ringwire::Server,
        factory: impl Fn(mpsc::Sender<(ConnId, Seen)>, &WorkerContext) -> H + Send + Sync + 'static,
    ) -> Self {
        let (sender, seen) = mpsc::channel();
        let running = server
            .start(move |context| factory(sender.clone(), context))
            .expect("the server starts");
        let handle = running.handle();
        Self { running: Some(running), handle, seen }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addrs()[0]
    }

    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        self.running.as_ref().map_or(&[], Running::local_addrs)
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// A client whose handshake is done.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// The sum over all workers.
    pub(crate) fn stats(&self) -> WorkerStats {
        self.handle.stats().total()
    }

    /// Waits until each worker has looked at what is in its sockets and in its mailbox by now.
    pub(crate) fn looks(&self) {
        // The first answer may come from a turn whose look at the sockets was over.
        for _ in 0..2 {
            self.handle.topics().wait(PATIENCE).expect("the workers answer");
        }
    }

    // What the application reported

    /// The next report.
    pub(crate) fn next(&self) -> (ConnId, Seen) {
        self.seen.recv_timeout(PATIENCE).expect("the application reports a call")
    }

    /// The next report, if there is one within `time`.
    pub(crate) fn next_within(&self, time: Duration) -> Option<Seen> {
        self.seen.recv_timeout(time).ok().map(|(_, seen)| seen)
    }

    /// Passes over reports until `pick` takes one.
    pub(crate) fn find<T>(&self, what: &str, mut pick: impl FnMut(ConnId, Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (id, seen) = self
                .seen
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("the application reports {what}"));
            if let Some(found) = pick(id, seen) {
                return found;
            }
        }
    }

    /// Waits for the next `on_open`.
    pub(crate) fn opened(&self) -> ConnId {
        self.find("on_open", |id, seen| matches!(seen, Seen::Open).then_some(id))
    }

    /// Waits for the next `on_close`.
    pub(crate) fn closed(&self) -> CloseCause {
        self.find("on_close", |_, seen| match seen {
            Seen::Close(cause) => Some(cause),
            _ => None,
        })
    }

    /// Waits until all connections are gone, and gives every report that was not looked at.
    pub(crate) fn drained(&self) -> Vec<Seen> {
        self.drained_by_id().into_iter().map(|(_, seen)| seen).collect()
    }

    /// The same, with the connections that the reports are about.
    pub(crate) fn drained_by_id(&self) -> Vec<(ConnId, Seen)> {
        wait_until("all connections are gone", || self.stats().connections == 0);
        self.seen.try_iter().collect()
    }

    // The end

    /// Waits until every worker has ended.
    pub(crate) fn join(mut self) -> Result<(), ringwire::Error> {
        self.running.take().map_or(Ok(()), join_in_time)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.handle.shutdown(ms(0));
        let result = join_in_time(running);
        if !thread::panicking() {
            result.expect("every worker ends well");
        }
    }
}

/// Joins on a thread, so that a worker that does not end fails the test.
pub(crate) fn join_in_time(running: Running) -> Result<(), ringwire::Error> {
    in_time("every worker ends", move || running.join())
}

/// Runs `work` on a thread of its own, and gives its result.
pub(crate) fn in_time<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Nobody waits any more: the test has failed already.
        let _ = sender.send(work());
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Something that happens once, for threads to wait for.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(std::sync::Mutex<bool>, std::sync::Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("nobody panics with it") = true;
        self.0.1.notify_all();
    }

    /// Blocks until it is open.
    pub(crate) fn pass(&self) {
        let guard = self.0.0.lock().expect("nobody panics with it");
        let (guard, _) = self
            .0
            .1
            .wait_timeout_while(guard, PATIENCE, |open| !*open)
            .expect("nobody panics with it");
        assert!(*guard, "not in time: a gate is opened");
    }
}
