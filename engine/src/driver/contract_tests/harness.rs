//! What a case needs of a driver's surroundings: peers, and somebody to call a waker.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::base::wake::Wake as _;
use crate::driver::Driver;
use crate::driver::sim::{self, Faults, Sim, World};

pub(super) const LISTENERS: usize = 2;

/// A driver with [`LISTENERS`] listening sockets, and the world around it.
pub(super) trait Harness {
    type Driver: Driver;
    type Peer: FarEnd;

    /// Whether the driver panics where a worker breaks the contract.
    const JUDGES: bool;
    /// More bytes than the sockets of a connection hold.
    const TOO_MUCH: usize;

    fn driver(&mut self) -> &mut Self::Driver;

    /// Drops the driver. From then on the world goes on by [`Harness::go_on`].
    fn end(&mut self);

    /// Whether it was dropped.
    fn has_ended(&self) -> bool;

    /// Lets something happen without a driver.
    fn go_on(&mut self);

    /// Time since it was made.
    fn now(&self) -> Duration;

    /// Connects to a listener.
    fn connect(&mut self, listener: usize) -> Self::Peer;

    /// A connection whose near end somebody else has accepted.
    fn adoptable(&mut self) -> (Self::Peer, OwnedFd);

    /// Has the waker called by somebody else in a while.
    fn wake_soon(&mut self);

    /// Whether that has happened.
    fn woke(&self) -> bool;

    /// After the driver closed everything.
    fn check_nothing_leaked(&mut self);
}

/// The other end of a connection. It reads all that comes unless told not to.
pub(super) trait FarEnd {
    fn write(&mut self, bytes: &[u8]);

    /// FIN, after what was written.
    fn finish(&mut self);

    /// Breaks the connection.
    fn reset(&mut self);

    fn set_reading(&mut self, reading: bool);

    /// Moves bytes, in both directions.
    fn poll(&mut self);

    fn received(&self) -> &[u8];

    fn saw_eof(&self) -> bool;

    fn saw_reset(&self) -> bool;
}

/// Real sockets on the loopback device.
pub(super) struct OnSockets<D> {
    driver: Option<D>,
    started: Instant,
    addresses: Vec<std::net::SocketAddr>,
    woke: Arc<AtomicBool>,
}

impl<D: Driver> OnSockets<D> {
    pub(super) fn new(driver: impl FnOnce(Vec<OwnedFd>) -> io::Result<D>) -> Self {
        let listeners: Vec<_> = (0..LISTENERS)
            .map(|_| {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                listener.set_nonblocking(true).unwrap();
                listener
            })
            .collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let listeners = listeners.into_iter().map(OwnedFd::from).collect();
        let driver = Some(driver(listeners).unwrap());
        Self { driver, started: Instant::now(), addresses, woke: Arc::default() }
    }
}

impl<D: Driver> Harness for OnSockets<D> {
    type Driver = D;
    type Peer = TcpPeer;

    const JUDGES: bool = false;
    const TOO_MUCH: usize = 16 << 20;

    fn driver(&mut self) -> &mut D {
        self.driver.as_mut().expect("it is there")
    }

    fn end(&mut self) {
        self.driver = None;
    }

    fn has_ended(&self) -> bool {
        self.driver.is_none()
    }

    fn go_on(&mut self) {
        std::thread::yield_now();
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn connect(&mut self, listener: usize) -> TcpPeer {
        match TcpStream::connect(self.addresses[listener]) {
            Ok(stream) => TcpPeer::new(stream),
            Err(_) => TcpPeer { stream: None, reset: true, ..TcpPeer::default() },
        }
    }

    fn adoptable(&mut self) -> (TcpPeer, OwnedFd) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        (TcpPeer::new(peer), near.into())
    }

    fn wake_soon(&mut self) {
        self.woke.store(false, Ordering::Release);
        let (waker, woke) = (self.driver().waker(), Arc::clone(&self.woke));
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            woke.store(true, Ordering::Release);
            waker.wake();
        });
    }

    fn woke(&self) -> bool {
        self.woke.load(Ordering::Acquire)
    }

    fn check_nothing_leaked(&mut self) {}
}

#[derive(Default)]
pub(super) struct TcpPeer {
    stream: Option<TcpStream>,
    outbox: Vec<u8>,
    finishing: bool,
    reading: bool,
    inbox: Vec<u8>,
    eof: bool,
    reset: bool,
}

impl TcpPeer {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Some(stream), reading: true, ..Self::default() }
    }

    fn poll_write(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        while !self.outbox.is_empty() {
            match stream.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.reset = true;
                    return;
                }
            }
        }
        if std::mem::take(&mut self.finishing) {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }

    fn poll_read(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let mut bytes = [0; 16 * 1024];
        while self.reading && !self.eof && !self.reset {
            match stream.read(&mut bytes) {
                Ok(0) => self.eof = true,
                Ok(count) => self.inbox.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.reset = true,
            }
        }
    }
}

impl FarEnd for TcpPeer {
    fn write(&mut self, bytes: &[u8]) {
        self.outbox.extend(bytes);
        self.poll_write();
    }

    fn finish(&mut self) {
        self.finishing = true;
        self.poll_write();
    }

    fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
    }

    fn poll(&mut self) {
        self.poll_write();
        self.poll_read();
    }

    fn received(&self) -> &[u8] {
        &self.inbox
    }

    fn saw_eof(&self) -> bool {
        self.eof
    }

    fn saw_reset(&self) -> bool {
        self.reset
    }
}

/// The simulated network.
pub(super) struct OnSim {
    driver: Option<Sim>,
    world: World,
    wake_at: Duration,
}

impl OnSim {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let (driver, world) = Sim::new(seed, faults, LISTENERS);
        Self { driver: Some(driver), world, wake_at: Duration::ZERO }
    }
}

impl Harness for OnSim {
    type Driver = Sim;
    type Peer = SimPeer;

    const JUDGES: bool = true;
    const TOO_MUCH: usize = 200_000;

    fn driver(&mut self) -> &mut Sim {
        self.driver.as_mut().expect("it is there")
    }

    fn end(&mut self) {
        self.driver = None;
    }

    fn has_ended(&self) -> bool {
        self.driver.is_none()
    }

    fn go_on(&mut self) {
        self.world.advance();
    }

    fn now(&self) -> Duration {
        self.world.clock()
    }

    fn connect(&mut self, listener: usize) -> SimPeer {
        SimPeer { peer: self.world.connect(listener), reading: true, inbox: Vec::new() }
    }

    fn adoptable(&mut self) -> (SimPeer, OwnedFd) {
        let (peer, fd) = self.world.adoptable();
        (SimPeer { peer, reading: true, inbox: Vec::new() }, fd)
    }

    fn wake_soon(&mut self) {
        self.wake_at = self.world.clock() + Duration::from_millis(30);
        self.world.wake(self.wake_at);
    }

    fn woke(&self) -> bool {
        self.world.clock() >= self.wake_at
    }

    fn check_nothing_leaked(&mut self) {
        assert_eq!(self.world.outstanding_buffers(), 0, "buffers were not released");
        assert_eq!(self.world.open_sockets(), 0, "sockets were not closed");
    }
}

pub(super) struct SimPeer {
    peer: sim::Peer,
    reading: bool,
    inbox: Vec<u8>,
}

impl FarEnd for SimPeer {
    fn write(&mut self, bytes: &[u8]) {
        self.peer.write(bytes);
    }

    fn finish(&mut self) {
        self.peer.finish();
    }

    fn reset(&mut self) {
        self.peer.reset();
    }

    fn set_reading(&mut self, reading: bool) {
        self.reading = reading;
    }

    fn poll(&mut self) {
        if self.reading {
            self.inbox.extend(self.peer.read());
        }
    }

    fn received(&self) -> &[u8] {
        &self.inbox
    }

    fn saw_eof(&self) -> bool {
        self.peer.is_eof()
    }

    fn saw_reset(&self) -> bool {
        self.peer.is_reset()
    }
}
