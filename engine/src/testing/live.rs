//! The same test against real sockets.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a live test has sockets of its own, and waits"
)]

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Stage;
use super::get::Get;
use super::peer::{Attempt, Line, Peer, Reply};
use super::talk::Talk;
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
        let running = match Server::new(config).listen("127.0.0.1:0").start(make) {
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

/// A socket, and what is said there.
pub(super) struct LiveLine {
    stream: TcpStream,
    pub(super) talk: Talk,
    pub(super) reads: bool,
    out: Vec<u8>,
}

impl LiveLine {
    fn connect(address: SocketAddr, mut talk: Talk) -> Self {
        let stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            Err(error) => panic!("{address} cannot be reached: {error}"),
        };
        if let Err(error) = stream.set_nonblocking(true) {
            panic!("the socket blocks: {error}");
        }
        let out = talk.take_out();
        let mut line = Self { stream, talk, reads: true, out };
        line.flush();
        line
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.flush();
    }

    /// Sends what the socket takes.
    fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.out.clear();
                    return self.talk.end();
                }
            }
        }
    }

    pub(super) fn finish(&self) {
        // It fails where the server has reset the connection, which reading tells.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub(super) fn reset(&mut self) {
        // socket(7), SO_LINGER: with no time to linger, closing resets.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        match unconnected {
            Ok(socket) => self.stream = socket.into(),
            Err(error) => panic!("no socket can be had: {error}"),
        }
        self.reads = false;
        self.talk.end();
    }

    /// Looks for what came, and waits a moment where nothing has. Gives how much time passed.
    pub(super) fn step(&mut self, most: Duration) -> Duration {
        let begin = Instant::now();
        self.flush();
        if !self.hear() {
            std::thread::sleep(Duration::from_millis(1).min(most));
        }
        begin.elapsed()
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let left @ Duration { .. } = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            self.step(left);
        }
    }

    /// Takes in what has come; whether anything has.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        if !self.reads {
            return false;
        }
        match self.stream.read(&mut buffer) {
            Ok(count @ 1..) => {
                self.talk.hear(&buffer[..count]);
                let out = self.talk.take_out();
                self.write(&out);
                true
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                false
            }
            Ok(_) | Err(_) => {
                self.talk.end();
                self.reads = false;
                self.finish();
                true
            }
        }
    }
}
