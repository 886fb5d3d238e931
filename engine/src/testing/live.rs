//! The same test against real sockets.

#![expect(clippy::disallowed_methods, reason = "a live test waits")]

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Stage;
use super::get::Get;
use super::line::LiveLine;
use super::peer::{Attempt, Line, Peer};
use super::talk::{Reply, Talk};
use crate::app::handler::Handler;
use crate::config::{Config, DriverKind, Pinning};
use crate::server::handle::Handle;
use crate::server::{Running, Server, WorkerContext};

/// A server on a free port of this machine, for a test that runs in a [`Sim`](super::Sim) as well.
///
/// ```
/// use ringwire::testing::{Live, Stage};
/// use ringwire::{DriverKind, on_message};
///
/// fn greets(stage: &mut impl Stage) {
///     let mut peer = stage.connect("/").expect_open();
///     peer.send("Hello");
///     assert_eq!(peer.text(), "Hello");
/// }
///
/// let make = |_: &ringwire::WorkerContext| ringwire::on_message(|ctx, message| ctx.send(message));
/// greets(&mut Live::start(DriverKind::Epoll, make));
/// ```
pub struct Live {
    running: Option<Running>,
    address: SocketAddr,
}

impl Live {
    /// Starts one worker on this driver, with the default settings.
    ///
    /// # Panics
    /// The server does not start: the machine does not have the driver, say.
    pub fn start<H: Handler>(
        driver: DriverKind,
        make: impl Fn(&WorkerContext) -> H + Send + Sync + 'static,
    ) -> Self {
        let config = Config::default().with_io_workers(1).with_pinning(Pinning::Off);
        Self::start_with(config.with_driver(driver), make)
    }

    /// Starts a server with these settings.
    ///
    /// # Panics
    /// The server does not start.
    pub fn start_with<H: Handler>(
        config: Config,
        make: impl Fn(&WorkerContext) -> H + Send + Sync + 'static,
    ) -> Self {
        Self::run(Server::new(config), make)
    }

    /// The same, with futures that are polled within a runtime of tokio.
    ///
    /// # Panics
    /// The server does not start.
    #[cfg(feature = "tokio")]
    pub fn start_within<H: Handler>(
        config: Config,
        runtime: tokio::runtime::Handle,
        make: impl Fn(&WorkerContext) -> H + Send + Sync + 'static,
    ) -> Self {
        Self::run(Server::new(config).with_runtime(runtime), make)
    }

    /// Starts this server, which listens at a free port beside what it was given: one with a bus, say.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_on<H: Handler>(
        server: Server,
        make: impl Fn(&WorkerContext) -> H + Send + Sync + 'static,
    ) -> Self {
        Self::run(server, make)
    }

    fn run<H: Handler>(
        server: Server,
        make: impl Fn(&WorkerContext) -> H + Send + Sync + 'static,
    ) -> Self {
        let running = match server.listen("127.0.0.1:0").start(make) {
            Ok(running) => running,
            Err(error) => panic!("{error}"),
        };
        let address = running.local_addrs()[0];
        Self { running: Some(running), address }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn begin(&self, get: &Get, upgrades: bool) -> Peer {
        Peer(Line::Live(Box::new(LiveLine::connect(self.address, Talk::new(get, upgrades)))))
    }
}

impl Stage for Live {
    fn connect(&mut self, get: impl Into<Get>) -> Attempt {
        Attempt(self.begin(&get.into(), true))
    }

    fn request(&mut self, get: impl Into<Get>) -> Reply {
        Attempt(self.begin(&get.into(), false)).reply()
    }

    fn advance(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn handle(&self) -> Handle {
        match &self.running {
            Some(running) => running.handle(),
            None => unreachable!("it runs until it is dropped"),
        }
    }
}

impl Drop for Live {
    /// Shuts the server down, and waits for its end.
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.handle().shutdown(Duration::ZERO);
        let result = running.join();
        if !std::thread::panicking() {
            result.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("address", &self.address).finish_non_exhaustive()
    }
}
