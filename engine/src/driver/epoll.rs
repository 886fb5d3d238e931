//! The epoll driver: edge-triggered readiness through mio, turned into completions.
//!
//! On a message's path there are two system calls, one `recv` and one `send`, and no `epoll_ctl`: a
//! socket is registered for reading once, and gets writable interest only while a send is stuck.
//!
//! Reading is lazy. An edge puts the socket on the list of ready sockets, and `next_completion` reads the
//! first of them once. A short read means that the socket is drained and the next edge will tell (epoll(7),
//! question 9), unless the peer has closed its side: then the end of the stream is read as well.

#![expect(
    clippy::disallowed_types,
    reason = "a driver owns sockets and shares its waker with other threads"
)]

mod buffers;
mod waker;

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bitflags::bitflags;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, recv, send};

use self::buffers::{EpollBuffer, Home};
use self::waker::EpollWaker;
use super::busy::BusyPoll;
use super::{
    Completion, Driver, ListenerId, MAX_SLOT, Op, SendBuffer, SendNow, Token, Traffic,
    concerns_one_connection, heap,
};
use crate::base::chunked::Chunked;
use crate::net;
use crate::net::Delivery;

/// Events taken by one `epoll_wait`.
const MAX_EVENTS: usize = 1024;
/// Connections accepted from a listener in one turn, before sockets get theirs again.
const ACCEPTS_PER_TURN: usize = 64;
const WAKER: mio::Token = mio::Token(usize::MAX);
const FIRST_LISTENER: u32 = MAX_SLOT + 1;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Epoll {
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
    listeners: Vec<Listener>,
    sockets: Chunked<Socket>,
    /// Sockets and listeners that may have something to read, in the order of their edges.
    ready: VecDeque<Ready>,
    /// How many of `ready` may still have their turn before the next wait, so that a socket that always
    /// has more does not hold up the others.
    quota: usize,
    /// The listener that has its turn, and how many more it may report.
    accepting: Option<(ListenerId, usize)>,
    /// Outcomes that are known already.
    done: VecDeque<Completion<EpollBuffer, TcpStream>>,
    /// Sends that the socket did not take at once, by slot.
    stuck: HashMap<u32, SendBuffer>,
    buffers: Home,
    busy: BusyPoll,
}

#[derive(Debug)]
struct Listener {
    /// None once it is closed.
    socket: Option<OwnedFd>,
    armed: bool,
    queued: bool,
}

/// One entry of the table. 12 bytes, for every connection.
#[derive(Debug, Default)]
struct Socket {
    stream: Option<TcpStream>,
    generation: u32,
    flags: Flags,
}

const _: () = assert!(size_of::<Socket>() == 12);

bitflags! {
    /// What is known about a socket.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Flags: u8 {
        /// `Receive` is armed.
        const RECEIVING = 1;
        /// An edge came and the socket was not seen drained since.
        const READABLE = 1 << 1;
        /// The peer's FIN (or a failure) was announced: read on to the end.
        const READ_CLOSED = 1 << 2;
        /// Stands in `ready`.
        const QUEUED = 1 << 3;
        /// The end of the stream, or a failure, was reported.
        const ENDED = 1 << 4;
        /// Much of a message is to come.
        const LONG = 1 << 5;
    }
}

#[derive(Clone, Copy, Debug)]
enum Ready {
    Socket(Token),
    Listener(ListenerId),
}

impl Epoll {
    /// A driver with these listening sockets, which are named by their index. `receive_buffer_len` is the
    /// most that one receive delivers.
    pub(crate) fn new(listeners: Vec<OwnedFd>, receive_buffer_len: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER)?);
        let listeners = listeners
            .into_iter()
            .zip(FIRST_LISTENER..)
            .map(|(socket, slot)| {
                let fd = socket.as_raw_fd();
                let name = event_token(Token { slot, generation: 0 });
                poll.registry().register(&mut SourceFd(&fd), name, Interest::READABLE)?;
                Ok(Listener { socket: Some(socket), armed: false, queued: false })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(MAX_EVENTS),
            waker,
            listeners,
            sockets: Chunked::new(),
            ready: VecDeque::with_capacity(MAX_EVENTS),
            quota: 0,
            accepting: None,
            done: VecDeque::with_capacity(16),
            stuck: HashMap::new(),
            buffers: Home::new(receive_buffer_len),
            busy: BusyPoll::default(),
        })
    }

    /// Waits in this way.
    pub(crate) fn with_busy_poll(mut self, busy: BusyPoll) -> io::Result<Self> {
        busy.poll_for_epoll(self.poll.as_raw_fd())?;
        self.busy = busy;
        Ok(self)
    }

    fn socket(&mut self, token: Token) -> Option<&mut Socket> {
        find(&mut self.sockets, token)
    }

    // Listeners

    fn arm_accept(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        listener.armed = true;
        // What came while it was not armed has used up its edge.
        if !listener.queued {
            listener.queued = true;
            self.ready.push_back(Ready::Listener(id));
        }
    }

    fn stop_accept(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(id.0 as usize) {
            listener.armed = false;
        }
    }

    fn close_listener(&mut self, id: ListenerId) {
        self.stop_accept(id);
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        if let Some(socket) = listener.socket.take() {
            // Closing does not take the socket out of the epoll set where others listen on it too (epoll(7)). A failure
            // cannot be mended, and leads to no more than events that nobody looks at.
            let _ = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
    }

    /// Each epoll set is told of each connection: none that waits is known to this one only, so there is no rest to
    /// take.
    fn leave_listener(&mut self, id: ListenerId, keeps: bool) {
        if keeps {
            self.stop_accept(id);
        } else {
            self.close_listener(id);
        }
        self.done.push_back(Completion::ListenerLeft { listener: id });
    }

    /// The next connection of the listener that has its turn: one at a time, so that the worker can stop in time.
    fn accept(&mut self) -> Option<Completion<EpollBuffer, TcpStream>> {
        let (id, left) = self.accepting.take()?;
        let listener = self.listeners.get_mut(id.0 as usize)?;
        listener.queued = false;
        while listener.armed {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match acceptfrom_with(listener.socket.as_ref()?, flags).map_err(io::Error::from) {
                Ok((socket, peer)) => {
                    listener.queued = true;
                    if left > 1 {
                        self.accepting = Some((id, left - 1));
                    } else {
                        self.ready.push_back(Ready::Listener(id));
                    }
                    let peer = peer.and_then(|peer| peer.try_into().ok());
                    return Some(Completion::Accepted {
                        listener: id,
                        socket: socket.into(),
                        peer,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.raw_os_error().is_some_and(concerns_one_connection) => {}
                Err(error) => {
                    listener.armed = false;
                    return Some(Completion::AcceptEnded { listener: id, error });
                }
            }
        }
        None
    }

    // Receiving

    fn open(&mut self, token: Token, stream: TcpStream) {
        let fd = stream.as_raw_fd();
        let entry = self.sockets.entry(token.slot);
        debug_assert!(entry.stream.is_none(), "slot {} is in use", token.slot);
        *entry = Socket { stream: Some(stream), generation: token.generation, ..Socket::default() };
        let registered = self.poll.registry().register(
            &mut SourceFd(&fd),
            event_token(token),
            Interest::READABLE,
        );
        if let Err(error) = registered {
            entry.flags.insert(Flags::ENDED);
            self.done.push_back(Completion::ReceiveEnded { token, result: Err(error) });
        }
    }

    fn arm_receive(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        if socket.flags.contains(Flags::ENDED) {
            return;
        }
        socket.flags.insert(Flags::RECEIVING);
        self.queue_if_readable(token);
    }

    fn stop_receive(&mut self, token: Token) {
        if let Some(socket) = self.socket(token) {
            socket.flags.remove(Flags::RECEIVING);
        }
    }

    fn queue_if_readable(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        let flags = &mut socket.flags;
        let is_due = flags.contains(Flags::RECEIVING | Flags::READABLE);
        if is_due && !flags.contains(Flags::QUEUED) {
            flags.insert(Flags::QUEUED);
            self.ready.push_back(Ready::Socket(token));
        }
    }

    fn expect(&mut self, token: Token, len: u64) {
        let is_long = self.buffers.is_long(len);
        if let Some(socket) = self.socket(token) {
            socket.flags.set(Flags::LONG, is_long);
        }
    }

    /// One `recv`. A completion, unless there turned out to be nothing.
    fn receive(&mut self, token: Token) -> Option<Completion<EpollBuffer, TcpStream>> {
        let Self { sockets, buffers, .. } = self;
        let socket = find(sockets, token)?;
        socket.flags.remove(Flags::QUEUED);
        if !socket.flags.contains(Flags::RECEIVING) {
            return None;
        }
        let mut buffer = buffers.take(socket.flags.contains(Flags::LONG));
        match try_receive(socket, buffer.room()) {
            Some(Ok(len)) if len > 0 => {
                buffer.fill(len);
                self.queue_if_readable(token);
                Some(Completion::Received { token, buffer })
            }
            outcome => {
                buffers.give(buffer);
                Some(Completion::ReceiveEnded { token, result: outcome?.map(|_| ()) })
            }
        }
    }

    // Sending

    fn send(&mut self, token: Token, mut buffer: SendBuffer) {
        debug_assert!(!self.has_stuck(token), "a send of {token:?} is in flight");
        let Some(socket) = self.socket(token) else {
            let result = Err(ErrorKind::NotConnected.into());
            self.done.push_back(Completion::Sent { token, buffer, result });
            return;
        };
        match try_send(socket, &mut buffer) {
            Some(result) => self.done.push_back(Completion::Sent { token, buffer, result }),
            None => self.stick(token, buffer),
        }
    }

    fn has_stuck(&self, token: Token) -> bool {
        let is_its = |socket: &Socket| socket.generation == token.generation;
        self.stuck.contains_key(&token.slot) && self.sockets.get(token.slot).is_some_and(is_its)
    }

    /// The socket is full: keep the buffer until it is writable.
    fn stick(&mut self, token: Token, buffer: SendBuffer) {
        self.stuck.insert(token.slot, buffer);
        self.set_interest(token, Interest::READABLE | Interest::WRITABLE);
    }

    fn send_stuck(&mut self, token: Token) {
        let Some(socket) = self.sockets.get(token.slot) else { return };
        if socket.generation != token.generation {
            return;
        }
        let Some(buffer) = self.stuck.get_mut(&token.slot) else { return };
        let Some(result) = try_send(socket, buffer) else { return };
        let Some(buffer) = self.stuck.remove(&token.slot) else { return };
        self.set_interest(token, Interest::READABLE);
        self.done.push_back(Completion::Sent { token, buffer, result });
    }

    fn set_interest(&self, token: Token, interest: Interest) {
        let Some(socket) = self.sockets.get(token.slot) else { return };
        let Some(stream) = &socket.stream else { return };
        let fd = stream.as_raw_fd();
        // Fails only without kernel memory; then the write-stall deadline ends the connection.
        let _ = self
            .poll
            .registry()
            .reregister(&mut SourceFd(&fd), event_token(token), interest)
            .inspect_err(|error| crate::base::event::warn!(%error, "epoll_ctl failed"));
    }

    // Closing

    fn stream(&self, token: Token) -> Option<&TcpStream> {
        let socket = self.sockets.get(token.slot)?;
        socket.stream.as_ref().filter(|_| socket.generation == token.generation)
    }

    fn shutdown(&mut self, token: Token) {
        if let Some(stream) = self.socket(token).and_then(|socket| socket.stream.as_ref()) {
            // Not connected any more: the end will be seen by the receive.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        // Closing the last descriptor takes it out of epoll as well (epoll(7), question 6).
        let stream = socket.stream.take();
        drop(stream);
        if let Some(buffer) = self.stuck.remove(&token.slot) {
            let result = Err(ErrorKind::ConnectionAborted.into());
            self.done.push_back(Completion::Sent { token, buffer, result });
        }
        self.done.push_back(Completion::Closed { token });
    }

    /// Turns the events of the last wait into ready sockets and finished sends.
    fn note_events(&mut self) {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if event.token() == WAKER {
                continue;
            }
            let token = token_of(event.token());
            if let Some(id) = token.slot.checked_sub(FIRST_LISTENER) {
                self.note_listener(ListenerId(id));
                continue;
            }
            let Some(socket) = self.socket(token) else { continue };
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                socket.flags.insert(Flags::READABLE);
                if event.is_read_closed() || event.is_error() {
                    socket.flags.insert(Flags::READ_CLOSED);
                }
                self.queue_if_readable(token);
            }
            if event.is_writable() || event.is_error() {
                self.send_stuck(token);
            }
        }
        self.events = events;
    }

    fn note_listener(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        if listener.armed && !listener.queued {
            listener.queued = true;
            self.ready.push_back(Ready::Listener(id));
        }
    }
}

impl Driver for Epoll {
    type Buffer = EpollBuffer;
    type Socket = TcpStream;
    type Waker = EpollWaker;

    #[inline]
    fn submit(&mut self, op: Op<TcpStream>) {
        match op {
            Op::Send { token, buffer } => self.send(token, buffer),
            Op::Accept { listener } => self.arm_accept(listener),
            Op::StopAccept { listener } => self.stop_accept(listener),
            Op::CloseListener { listener } => self.close_listener(listener),
            Op::LeaveListener { listener, takes_rest: _, keeps } => {
                self.leave_listener(listener, keeps)
            }
            Op::Open { token, socket } => self.open(token, socket),
            Op::Receive { token } => self.arm_receive(token),
            Op::StopReceive { token } => self.stop_receive(token),
            Op::Shutdown { token } => self.shutdown(token),
            Op::Close { token } => self.close(token),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let pending = !self.done.is_empty() || !self.ready.is_empty();
        let timeout = if pending { Some(Duration::ZERO) } else { timeout };
        let Self { busy, poll, events, .. } = self;
        busy.wait(timeout, |timeout| match poll.poll(events, timeout) {
            Ok(()) => Ok(!events.is_empty()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                events.clear();
                Ok(false)
            }
            Err(error) => Err(error),
        })?;
        self.note_events();
        self.quota = self.ready.len();
        Ok(())
    }

    #[inline]
    fn next_completion(&mut self) -> Option<Completion<EpollBuffer, TcpStream>> {
        loop {
            if let Some(completion) = self.done.pop_front() {
                return Some(completion);
            }
            if let Some(completion) = self.accept() {
                return Some(completion);
            }
            self.quota = self.quota.checked_sub(1)?;
            match self.ready.pop_front()? {
                Ready::Socket(token) => {
                    if let Some(completion) = self.receive(token) {
                        return Some(completion);
                    }
                }
                Ready::Listener(id) => self.accepting = Some((id, ACCEPTS_PER_TURN)),
            }
        }
    }

    #[inline]
    fn release(&mut self, buffer: EpollBuffer) {
        self.buffers.give(buffer);
    }

    fn expect(&mut self, token: Token, len: u64) {
        self.expect(token, len);
    }

    /// What the worker does not want stays in the socket.
    fn held_len(&self) -> usize {
        0
    }

    fn held_of(&self, _slot: u32) -> usize {
        0
    }

    fn return_free_memory(&mut self) {
        self.buffers.forget_long();
        heap::return_free_pages();
    }

    fn waker(&self) -> EpollWaker {
        EpollWaker(Arc::clone(&self.waker))
    }

    fn adopt(&mut self, fd: OwnedFd) -> io::Result<TcpStream> {
        let stream = TcpStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    fn traffic(&self, token: Token) -> Option<Traffic> {
        net::traffic(self.stream(token)?)
    }

    fn delivery(&self, token: Token) -> Option<Delivery> {
        net::delivery(self.stream(token)?)
    }

    fn stuck_count(&self) -> usize {
        self.stuck.len()
    }

    fn unsent_memory(&self, token: Token) -> usize {
        self.stream(token).map_or(0, net::unsent_memory)
    }

    fn discard(&mut self, token: Token) {
        if let Some(stream) = self.stream(token) {
            net::discard_unsent(stream);
        }
    }

    fn detach(&mut self, socket: TcpStream) -> OwnedFd {
        socket.into()
    }
}

impl SendNow for Epoll {
    fn send_now(&self, token: Token, pieces: [&[u8]; 2]) -> usize {
        debug_assert!(!self.has_stuck(token), "a send of {token:?} is in flight");
        self.stream(token).map_or(0, |stream| net::send_now(stream, pieces))
    }
}

/// The socket with this token.
#[inline]
fn find(sockets: &mut Chunked<Socket>, token: Token) -> Option<&mut Socket> {
    sockets
        .get_mut(token.slot)
        .filter(|socket| socket.generation == token.generation && socket.stream.is_some())
}

/// Reads once, and notes whether there may be more. `None`: nothing to report.
#[inline]
fn try_receive(socket: &mut Socket, data: &mut [u8]) -> Option<io::Result<usize>> {
    let stream = socket.stream.as_ref()?;
    // rustix makes the system call itself. The C library's recv and send are points of cancellation (pthreads(7)),
    // which costs time with each call once the process has threads.
    let result = retry_on_intr(|| recv(stream, &mut *data, RecvFlags::empty()));
    let result = result.map(|(_, len)| len).map_err(io::Error::from);
    match &result {
        Ok(0) | Err(_) => {
            socket.flags.remove(Flags::READABLE);
            if matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock) {
                return None;
            }
            socket.flags.remove(Flags::RECEIVING);
            socket.flags.insert(Flags::ENDED);
        }
        Ok(len) => {
            let more = *len == data.len() || socket.flags.contains(Flags::READ_CLOSED);
            socket.flags.set(Flags::READABLE, more);
            socket.flags.remove(Flags::LONG);
        }
    }
    Some(result)
}

/// Sends what the socket takes. `None`: it takes nothing now.
#[inline]
fn try_send(socket: &Socket, buffer: &mut SendBuffer) -> Option<io::Result<usize>> {
    let stream = socket.stream.as_ref()?;
    match retry_on_intr(|| send(stream, buffer.remaining(), SendFlags::NOSIGNAL)) {
        Ok(sent) => {
            buffer.advance(sent);
            Some(Ok(sent))
        }
        Err(Errno::WOULDBLOCK) => None,
        Err(error) => Some(Err(error.into())),
    }
}

fn event_token(token: Token) -> mio::Token {
    mio::Token(((token.generation as usize) << 32) | token.slot as usize)
}

fn token_of(token: mio::Token) -> Token {
    #[expect(clippy::cast_possible_truncation, reason = "takes event_token apart")]
    Token { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}
