//! An in-memory network with a virtual clock, for tests.
//!
//! A seed decides what goes wrong and when ([`Faults`]), so that a run can be had again. It behaves like
//! the laziest driver that the contract permits: completions come late and out of order across sockets,
//! several received buffers of a socket are out at once, a send is in flight for a while, what was
//! received before a stop is reported after it.
//!
//! Time passes in [`Sim::wait`](Driver::wait) only, and nothing ever sleeps. A wait also ends early when
//! something reaches a peer, so that a test can react at the right moment.

#![expect(clippy::disallowed_types, reason = "a waker is shared with other threads")]

mod faults;
mod kernel;
mod network;
mod peer;
mod stream;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io, mem};

pub use faults::Faults;
use kernel::{Kernel, Outcome};
use network::{Event, LinkId, Network};
pub(crate) use peer::{Peer, World};
pub(crate) use ringwire_seeds::Random;
use stream::Stream;

use super::{Completion, Driver, ListenerId, Op, SendNow, Token, Wake};
use crate::net::Traffic;

/// A driver of the simulated network.
#[derive(Debug)]
pub(crate) struct Sim {
    network: Rc<RefCell<Network>>,
    kernel: Kernel,
    woken: SimWaker,
}

impl Sim {
    /// A network with that many listeners, and the driver at its one end.
    pub(crate) fn new(seed: u64, faults: Faults, listeners: usize) -> (Self, World) {
        let kernel = Kernel::new(listeners, faults.receive_buffers);
        let network = Rc::new(RefCell::new(Network::new(seed, faults, listeners)));
        let world = World(Rc::clone(&network));
        (Self { network, kernel, woken: SimWaker::default() }, world)
    }

    /// Lets everything happen that is due.
    fn settle(&mut self) {
        let network = &mut *self.network.borrow_mut();
        loop {
            while let Some(event) = network.take_event() {
                match network.happen(event) {
                    Some(Event::Wake) => self.woken.wake(),
                    Some(event) => self.kernel.happen(event),
                    None => {}
                }
            }
            self.kernel.look(network);
            if network.next_event().is_none_or(|at| at > network.clock) {
                return;
            }
        }
    }
}

impl Driver for Sim {
    type Buffer = SimBuffer;
    type Socket = SimSocket;
    type Waker = SimWaker;

    fn submit(&mut self, op: Op<SimSocket>) {
        let op = match op {
            Op::Open { token, mut socket } => {
                self.kernel.open(token, socket.link.take().expect("it is opened once"));
                return;
            }
            op => op,
        };
        let network = &mut *self.network.borrow_mut();
        match op {
            Op::Accept { listener } => self.kernel.accept(network, index(listener)),
            Op::StopAccept { listener } => self.kernel.stop_accept(network, index(listener)),
            Op::CloseListener { listener } => {
                self.kernel.stop_accept(network, index(listener));
                network.close_listener(index(listener));
            }
            Op::LeaveListener { listener, takes_rest, keeps } => {
                self.kernel.leave(network, index(listener), takes_rest);
                if !keeps {
                    // Who goes on with it is no part of this network.
                    network.close_listener(index(listener));
                }
            }
            Op::Open { .. } => {}
            Op::Receive { token } => self.kernel.receive(network, token),
            Op::StopReceive { token } => self.kernel.stop_receive(network, token),
            Op::Send { token, buffer } => self.kernel.send(network, token, buffer),
            Op::Shutdown { token } => self.kernel.shutdown(network, token),
            Op::Close { token } => self.kernel.close(network, token),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let deadline = timeout.map(|timeout| self.network.borrow().clock + timeout);
        loop {
            self.settle();
            let woken = self.woken.0.swap(false, Ordering::AcqRel);
            let network = &mut *self.network.borrow_mut();
            let noticed = mem::take(&mut network.noticed);
            let spurious = network.random.chance(network.faults.spurious_wake);
            if woken || noticed || spurious || self.kernel.has_due() {
                return Ok(());
            }
            match (network.next_event(), deadline) {
                (Some(event), Some(deadline)) if event > deadline => {
                    network.clock = deadline;
                    return Ok(());
                }
                (Some(event), _) => network.clock = event,
                (None, Some(deadline)) => {
                    network.clock = deadline;
                    return Ok(());
                }
                (None, None) => panic!("a wait without end: nothing will ever happen"),
            }
        }
    }

    fn next_completion(&mut self) -> Option<Completion<SimBuffer, SimSocket>> {
        let (stream, outcome) = {
            let network = &mut *self.network.borrow_mut();
            if !self.kernel.has_due() && !network.random.chance(network.faults.deferred_submit) {
                self.kernel.look(network);
            }
            self.kernel.take(network)?
        };
        Some(match (stream, outcome) {
            (Stream::Accept(listener), Outcome::Accepted(link)) => Completion::Accepted {
                listener: listener_id(listener),
                socket: SimSocket { network: Rc::clone(&self.network), link: Some(link) },
                peer: Some(address(link)),
            },
            (Stream::Accept(listener), Outcome::AcceptEnded(errno)) => Completion::AcceptEnded {
                listener: listener_id(listener),
                error: io::Error::from_raw_os_error(errno),
            },
            (Stream::Accept(listener), Outcome::Left) => {
                Completion::ListenerLeft { listener: listener_id(listener) }
            }
            (Stream::Receive(token) | Stream::Send(token), Outcome::Received(data)) => {
                Completion::Received { token, buffer: SimBuffer(data) }
            }
            (Stream::Receive(token) | Stream::Send(token), Outcome::ReceiveEnded(failure)) => {
                Completion::ReceiveEnded {
                    token,
                    result: kernel::result(failure.map_or(Ok(()), Err)),
                }
            }
            (Stream::Send(token), Outcome::Sent(buffer, result)) => {
                Completion::Sent { token, buffer, result: kernel::result(result) }
            }
            (Stream::Send(token), Outcome::Closed) => Completion::Closed { token },
            (stream, outcome) => unreachable!("{outcome:?} in {stream:?}"),
        })
    }

    fn release(&mut self, buffer: SimBuffer) {
        drop(buffer);
        let network = &mut *self.network.borrow_mut();
        network.buffers_out = network.buffers_out.checked_sub(1).expect("a buffer came twice");
        self.kernel.release(network);
    }

    fn expect(&mut self, token: Token, len: u64) {
        self.kernel.expect(token, len);
    }

    fn held_len(&self) -> usize {
        self.kernel.held_len()
    }

    fn held_of(&self, slot: u32) -> usize {
        self.kernel.held_of(slot)
    }

    fn return_free_memory(&mut self) {
        let network = &mut *self.network.borrow_mut();
        network.memory_returns.push(network.clock);
    }

    fn waker(&self) -> SimWaker {
        self.woken.clone()
    }

    fn adopt(&mut self, fd: OwnedFd) -> io::Result<SimSocket> {
        let network = &mut *self.network.borrow_mut();
        let link = network
            .adopted(fd.as_raw_fd())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTSOCK))?;
        network.sockets_open += 1;
        Ok(SimSocket { network: Rc::clone(&self.network), link: Some(link) })
    }

    /// Nobody counts that here.
    fn traffic(&self, _token: Token) -> Option<Traffic> {
        None
    }

    /// The other side has taken what its program has read.
    fn delivery(&self, token: Token) -> Option<crate::net::Delivery> {
        let link = self.kernel.link_of(token)?;
        Some(self.network.borrow().links[link].delivery())
    }

    fn stuck_count(&self) -> usize {
        self.kernel.stuck_count()
    }

    fn unsent_memory(&self, token: Token) -> usize {
        self.delivery(token).map_or(0, |delivery| delivery.waiting)
    }

    fn discard(&mut self, token: Token) {
        if let Some(link) = self.kernel.link_of(token) {
            self.network.borrow_mut().links[link].discards = true;
        }
    }

    fn detach(&mut self, mut socket: SimSocket) -> OwnedFd {
        let network = &mut *self.network.borrow_mut();
        network.sockets_open -= 1;
        network.detached(socket.link.take().expect("it was not opened"))
    }
}

impl SendNow for Sim {
    fn send_now(&self, token: Token, pieces: [&[u8]; 2]) -> usize {
        self.kernel.send_now(&mut self.network.borrow_mut(), token, pieces)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.kernel.end(&mut self.network.borrow_mut());
    }
}

/// What was received.
#[derive(Debug)]
pub(crate) struct SimBuffer(Vec<u8>);

impl Deref for SimBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for SimBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// An accepted connection that has no token yet.
pub(crate) struct SimSocket {
    network: Rc<RefCell<Network>>,
    link: Option<LinkId>,
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({:?})", self.link)
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        if let Some(link) = self.link {
            let network = &mut *self.network.borrow_mut();
            network.close(link);
            network.sockets_open -= 1;
        }
    }
}

/// Ends a wait, at once when it is called before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimWaker(Arc<AtomicBool>);

impl Wake for SimWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

fn index(listener: ListenerId) -> usize {
    usize::try_from(listener.0).expect("an index")
}

fn listener_id(index: usize) -> ListenerId {
    ListenerId(u32::try_from(index).expect("an index"))
}

fn address(link: LinkId) -> SocketAddr {
    let port = u16::try_from(1024 + link % 60_000).expect("a port");
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
