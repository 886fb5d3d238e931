//! The test's side of the network.

use std::cell::RefCell;
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::network::{Event, LinkId, Network};

/// A handle on the network, for the test.
#[derive(Clone, Debug)]
pub(crate) struct World(pub(super) Rc<RefCell<Network>>);

impl World {
    /// Connects to a listener; the connection waits there to be accepted.
    pub(crate) fn connect(&self, listener: usize) -> Peer {
        let link = self.0.borrow_mut().connect(listener);
        Peer { network: Rc::clone(&self.0), link }
    }

    /// A connection that somebody else accepted: its peer, and the descriptor to be adopted.
    pub(crate) fn adoptable(&self) -> (Peer, OwnedFd) {
        let (link, fd) = self.0.borrow_mut().adoptable();
        (Peer { network: Rc::clone(&self.0), link }, fd)
    }

    /// Virtual time since the network was made.
    pub(crate) fn clock(&self) -> Duration {
        self.0.borrow().clock
    }

    /// Lets the next thing happen without a driver: what is on its way to a peer goes on without it. `false`:
    /// nothing is left to happen.
    pub(crate) fn advance(&self) -> bool {
        let network = &mut *self.0.borrow_mut();
        let Some(next) = network.next_event() else { return false };
        network.clock = network.clock.max(next);
        if let Some(event) = network.take_event() {
            network.happen(event);
        }
        true
    }

    /// What goes wrong from now on. How many receive buffers there are stays as it is.
    #[cfg(feature = "testing")]
    pub(crate) fn set_faults(&self, faults: super::Faults) {
        self.0.borrow_mut().faults = faults;
    }

    /// Makes a wait end at that time at the latest.
    pub(crate) fn alarm(&self, at: Duration) {
        self.0.borrow_mut().schedule(at, Event::Alarm);
    }

    /// Calls the waker at that time, as another thread would.
    pub(crate) fn wake(&self, at: Duration) {
        self.0.borrow_mut().schedule(at, Event::Wake);
    }

    /// Received buffers that the worker has not released.
    pub(crate) fn outstanding_buffers(&self) -> usize {
        self.0.borrow().buffers_out
    }

    /// The most that one receive brought.
    pub(crate) fn longest_receive(&self) -> usize {
        self.0.borrow().longest_receive
    }

    /// When the worker had free memory given back.
    pub(crate) fn memory_returns(&self) -> Vec<Duration> {
        self.0.borrow().memory_returns.clone()
    }

    /// Sockets that were accepted or adopted and are not closed.
    pub(crate) fn open_sockets(&self) -> usize {
        self.0.borrow().sockets_open
    }
}

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    network: Rc<RefCell<Network>>,
    link: LinkId,
}

impl Peer {
    /// Sends; nothing after a FIN or a reset.
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.network.borrow_mut().write(self.link, bytes);
    }

    /// What has arrived.
    pub(crate) fn read(&self) -> Vec<u8> {
        self.read_some(usize::MAX)
    }

    /// So many bytes of it at most.
    pub(crate) fn read_some(&self, most: usize) -> Vec<u8> {
        let mut network = self.network.borrow_mut();
        let link = &mut network.links[self.link];
        let later = link.inbox.split_off(most.min(link.inbox.len()));
        let bytes = mem::replace(&mut link.inbox, later);
        link.taken += bytes.len() as u64;
        if !bytes.is_empty() {
            network.touch(self.link);
        }
        bytes
    }

    /// Sends FIN; still reads.
    pub(crate) fn finish(&self) {
        self.network.borrow_mut().finish(self.link);
    }

    /// Closes both ways, like `close(2)`.
    pub(crate) fn close(&self) {
        self.network.borrow_mut().hang_up(self.link);
    }

    /// Breaks the connection.
    pub(crate) fn reset(&self) {
        let mut network = self.network.borrow_mut();
        network.reset_driver(self.link, libc::ECONNRESET);
        network.links[self.link].peer_gone = true;
    }

    /// How much may be on its way here or unread.
    pub(crate) fn set_window(&self, bytes: usize) {
        let mut network = self.network.borrow_mut();
        network.links[self.link].window = bytes;
        network.touch(self.link);
    }

    /// How much its kernel acknowledges before [`read`](Self::read) takes it.
    pub(crate) fn set_receive_len(&self, bytes: usize) {
        let mut network = self.network.borrow_mut();
        network.links[self.link].receive_len = bytes;
        network.touch(self.link);
    }

    /// The driver's FIN came, after everything that it had sent, and all of that was read.
    pub(crate) fn is_eof(&self) -> bool {
        let link = &self.network.borrow().links[self.link];
        link.peer_eof && link.inbox.is_empty()
    }

    /// The connection broke.
    pub(crate) fn is_reset(&self) -> bool {
        self.network.borrow().links[self.link].peer_reset
    }

    /// The driver's side is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.network.borrow().links[self.link].closed
    }

    /// What was written and not yet received by the driver.
    pub(crate) fn unread(&self) -> usize {
        self.network.borrow().links[self.link].unread
    }
}
