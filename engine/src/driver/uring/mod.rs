//! The io_uring driver: requests go to the kernel and completions come back with one system call a turn.
//!
//! Receiving is one multishot request for each socket, which takes its memory from the ring of provided buffers
//! ([`buffers`]) when there is something to receive; an idle connection pins none. Running out of
//! them is a normal state: the socket waits in a list until some came back. Sends of a turn go out together with
//! the next wait, at most one for each socket. Wake-ups are the read of an eventfd that is kept in the ring, the
//! wait's timeout is its own.
//!
//! The ring is made by the thread that starts the server and belongs to the worker's (it is enabled by the first
//! enter). Completions happen inside this thread's enters only (IORING_SETUP_DEFER_TASKRUN).
//!
//! | file | |
//! |---|---|
//! | `ring` | the queues and the enter call |
//! | `names` | what `user_data` says |
//! | `buffers` | provided buffers |
//! | `listeners`, `sockets`, `sends`, `waker` | the requests, and what their completions lead to |
//! | `probe` | whether this machine has all that |

#![expect(clippy::disallowed_methods, reason = "a driver is tried out, and goes, within a time")]

mod buffers;
mod listeners;
mod names;
mod probe;
mod ring;
mod sends;
mod sockets;
#[cfg(test)]
mod tests;
mod waker;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::types::CancelBuilder;
use io_uring::{cqueue, opcode, squeue, types};

pub(crate) use self::buffers::Layout;
use self::buffers::{Buffers, Slice};
use self::listeners::Listener;
use self::names::Name;
pub(crate) use self::probe::{explain, probe};
use self::ring::{Ring, Wait};
use self::sends::Sends;
use self::sockets::{Holdings, Socket, Starved};
pub(crate) use self::waker::UringWaker;
use super::busy::BusyPoll;
use super::{Completion, Driver, Op, SendNow, Token, Traffic, heap};
use crate::base::chunked::Chunked;
use crate::net;
use crate::net::Delivery;

/// How long a driver that goes waits for the kernel to end what is under way.
const LAST_WAIT: Duration = Duration::from_secs(2);

type Outcome = Completion<UringBuffer, OwnedFd>;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Uring {
    // Closed before the memory that its requests use is given up.
    ring: Ring,
    buffers: Buffers,
    waker: UringWaker,
    /// The read of the eventfd is in the kernel.
    listening_for_wakes: bool,
    listeners: Vec<Listener>,
    sockets: Chunked<Socket>,
    /// Slots of `sockets` that were ever used.
    slots: u32,
    sends: Sends,
    /// Sends that the kernel knew of at the last wait and that have not completed since, but for those that are to end.
    entered_sends: usize,
    /// Sends of sockets that are being closed.
    ending_sends: usize,
    held: Holdings,
    starved: Starved,
    /// Slots of sockets whose next request may bring more than another, since much of a message is to come.
    expecting: HashSet<u32>,
    /// Completions of the last wait that were not looked at yet.
    fresh: VecDeque<cqueue::Entry>,
    /// Outcomes that are known already. They come before those of `fresh`.
    done: VecDeque<Outcome>,
    /// Requests whose last completion was not seen yet.
    in_flight: usize,
    busy: BusyPoll,
}

impl Uring {
    /// A driver with these listening sockets, which are named by their index.
    pub(crate) fn new(listeners: Vec<OwnedFd>, layout: Layout) -> io::Result<Self> {
        let ring = Ring::new()?;
        let mut buffers = Buffers::new(layout)?;
        buffers.register(ring.io_uring())?;
        Ok(Self {
            ring,
            buffers,
            waker: UringWaker::new()?,
            listening_for_wakes: false,
            listeners: listeners.into_iter().map(Listener::new).collect(),
            sockets: Chunked::new(),
            slots: 0,
            sends: Sends::default(),
            entered_sends: 0,
            ending_sends: 0,
            held: Holdings::default(),
            starved: Starved::default(),
            expecting: HashSet::new(),
            fresh: VecDeque::new(),
            done: VecDeque::new(),
            in_flight: 0,
            busy: BusyPoll::default(),
        })
    }

    /// Waits in this way.
    pub(crate) fn with_busy_poll(mut self, busy: BusyPoll) -> io::Result<Self> {
        busy.poll_for_ring(self.ring.io_uring())?;
        self.busy = busy;
        Ok(self)
    }

    /// Queues a request that ends with a completion of this name.
    ///
    /// # Safety
    /// The memory that the request names stays valid and unused by others until then.
    #[expect(unsafe_code, reason = "passes the promise on")]
    #[inline]
    unsafe fn request(&mut self, entry: squeue::Entry, name: Name) {
        self.in_flight += 1;
        // SAFETY: the caller's promise.
        unsafe { self.ring.push(entry.user_data(name.encode())) };
    }

    /// Has a request end soon. Its last completion comes as always.
    #[expect(unsafe_code, reason = "a request")]
    fn cancel(&mut self, name: Name) {
        let entry = opcode::AsyncCancel::new(name.encode())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Name::Cancel.encode());
        // SAFETY: the request names no memory.
        unsafe { self.ring.push(entry) };
    }

    #[expect(unsafe_code, reason = "a request that reads")]
    fn listen_for_wakes(&mut self) {
        self.listening_for_wakes = true;
        let waker = types::Fd(self.waker.as_raw_fd());
        let entry = opcode::Read::new(waker, self.buffers.scratch(), 8).build();
        // SAFETY: the scratch bytes are there as long as the provided buffers.
        unsafe { self.request(entry, Name::Wake) };
    }

    #[inline]
    fn on_completion(&mut self, entry: &cqueue::Entry) -> Option<Outcome> {
        let name = Name::decode(entry.user_data());
        let more = cqueue::more(entry.flags());
        if !more && name != Name::Cancel {
            self.in_flight -= 1;
        }
        match name {
            Name::Receive(token) => self.on_receive(token, entry.result(), entry.flags()),
            Name::Send(token) => self.on_send(token, entry.result()),
            Name::Accept(listener) => self.on_accept(listener, entry.result(), more),
            Name::Wake => {
                self.listening_for_wakes = false;
                None
            }
            Name::Cancel => None,
        }
    }

    /// Ends all requests and waits for their completions; whether that succeeded.
    #[expect(unsafe_code, reason = "a request")]
    fn finish(&mut self) -> bool {
        if !self.ring.is_enabled() || !self.ring.is_entered() {
            // The kernel has seen none of them.
            return true;
        }
        self.listeners.iter_mut().for_each(Listener::forget);
        self.shut_down_sockets();
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
        // SAFETY: the request names no memory.
        unsafe { self.ring.push(entry.user_data(Name::Cancel.encode())) };
        let deadline = Instant::now() + LAST_WAIT;
        loop {
            while let Some(entry) = self.fresh.pop_front() {
                let outcome = self.on_completion(&entry);
                drop(outcome);
            }
            if self.in_flight == 0 {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.ring.submit_and_wait(Wait::Block(Some(left))).is_err() {
                return false;
            }
            self.ring.take_completions(&mut self.fresh);
        }
    }
}

impl Driver for Uring {
    type Buffer = UringBuffer;
    type Socket = OwnedFd;
    type Waker = UringWaker;

    #[inline]
    fn submit(&mut self, op: Op<OwnedFd>) {
        match op {
            Op::Send { token, buffer } => self.send(token, buffer),
            Op::Accept { listener } => self.start_accept(listener),
            Op::StopAccept { listener } => self.stop_accept(listener),
            Op::CloseListener { listener } => self.close_listener(listener),
            Op::LeaveListener { listener, takes_rest, keeps } => {
                self.leave_listener(listener, takes_rest, keeps);
            }
            Op::Open { token, socket } => self.open(token, socket),
            Op::Receive { token } => self.receive(token),
            Op::StopReceive { token } => self.stop_receive(token),
            Op::Shutdown { token } => self.shutdown(token),
            Op::Close { token } => self.close(token),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.ring.enable()?;
        if !self.listening_for_wakes {
            self.listen_for_wakes();
        }
        self.buffers.refill();
        let more_to_feed = !self.starved.is_empty() && self.feed_starved();
        let pending = more_to_feed
            || !self.done.is_empty()
            || !self.fresh.is_empty()
            || self.listeners.iter().any(Listener::is_ready);
        let timeout = if pending { Some(Duration::ZERO) } else { timeout };
        self.entered_sends = self.sends.in_flight().saturating_sub(self.ending_sends);
        let Self { busy, ring, fresh, .. } = self;
        busy.wait(timeout, |timeout| {
            let wait = match timeout {
                Some(Duration::ZERO) => Wait::Poll,
                timeout => Wait::Block(timeout),
            };
            ring.submit_and_wait(wait)?;
            ring.take_completions(fresh);
            Ok(!fresh.is_empty())
        })
    }

    #[inline]
    fn next_completion(&mut self) -> Option<Outcome> {
        loop {
            if let Some(outcome) = self.done.pop_front() {
                return Some(outcome);
            }
            let Some(entry) = self.fresh.pop_front() else { return self.next_waiting() };
            if let Some(outcome) = self.on_completion(&entry) {
                return Some(outcome);
            }
        }
    }

    #[inline]
    fn release(&mut self, buffer: UringBuffer) {
        match buffer {
            UringBuffer::Provided(slice) => self.buffers.release(slice),
            UringBuffer::Copied(data) => drop(data),
        }
    }

    fn expect(&mut self, token: Token, len: u64) {
        self.expect_of(token, len);
    }

    fn held_len(&self) -> usize {
        self.held.len()
    }

    fn held_of(&self, slot: u32) -> usize {
        self.held.len_of(slot)
    }

    fn return_free_memory(&mut self) {
        self.buffers.return_spare();
        heap::return_free_pages();
    }

    fn waker(&self) -> UringWaker {
        self.waker.clone()
    }

    fn adopt(&mut self, fd: OwnedFd) -> io::Result<OwnedFd> {
        Ok(fd)
    }

    fn traffic(&self, token: Token) -> Option<Traffic> {
        net::traffic(self.descriptor(token)?)
    }

    fn delivery(&self, token: Token) -> Option<Delivery> {
        net::delivery(self.descriptor(token)?)
    }

    fn stuck_count(&self) -> usize {
        self.entered_sends
    }

    fn unsent_memory(&self, token: Token) -> usize {
        self.descriptor(token).map_or(0, net::unsent_memory)
    }

    fn discard(&mut self, token: Token) {
        if let Some(fd) = self.descriptor(token) {
            net::discard_unsent(fd);
        }
    }

    fn detach(&mut self, socket: OwnedFd) -> OwnedFd {
        socket
    }
}

/// By a system call of its own: a request would read the bytes after the handler has taken them back.
impl SendNow for Uring {
    fn send_now(&self, token: Token, pieces: [&[u8]; 2]) -> usize {
        self.descriptor(token).map_or(0, |fd| net::send_now(fd, pieces))
    }
}

impl Drop for Uring {
    #[expect(unsafe_code, reason = "the kernel is done with the buffers")]
    fn drop(&mut self) {
        // Where this panics or does not succeed, `buffers` stay mapped and `sends` are not freed: the kernel may use
        // them until the end of the process.
        if self.finish() {
            // SAFETY: every request has completed, and the ring, which makes none by itself, is closed before the
            // buffers go.
            unsafe { self.buffers.retire() };
        } else {
            crate::base::event::warn!(requests = self.in_flight, "io_uring requests did not end");
        }
    }
}

/// Received bytes.
#[derive(Debug)]
pub(crate) enum UringBuffer {
    /// Where the kernel put them.
    #[expect(private_interfaces, reason = "only this driver looks into its buffers")]
    Provided(Slice),
    /// What was held for a worker that did not want it yet.
    Copied(Vec<u8>),
}

impl Deref for UringBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Provided(slice) => slice,
            Self::Copied(data) => data,
        }
    }
}

impl DerefMut for UringBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Provided(slice) => slice,
            Self::Copied(data) => data,
        }
    }
}

/// shutdown(2).
fn shut_down(socket: &OwnedFd, how: i32) -> io::Result<()> {
    let how = match how {
        libc::SHUT_WR => std::net::Shutdown::Write,
        _ => std::net::Shutdown::Both,
    };
    socket2::SockRef::from(socket).shutdown(how)
}
