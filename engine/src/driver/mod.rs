//! What turns operations into completions: the contract, and the back ends behind it.
//!
//! A driver owns file descriptors and talks to the kernel. It knows sockets by the [`Token`] that the
//! worker chose, and knows nothing of connections, frames or handlers. The contract has the shape of
//! completions, so that io_uring fits it as it is; epoll emulates them.
//!
//! | operation | completions | when |
//! |---|---|---|
//! | [`Op::Accept`] | [`Completion::Accepted`]…, [`Completion::AcceptEnded`] | until it ends or [`Op::StopAccept`] |
//! | [`Op::CloseListener`] | | the listening socket is closed |
//! | [`Op::LeaveListener`] | [`Completion::Accepted`]…, [`Completion::ListenerLeft`] | what was accepted is reported |
//! | [`Op::Open`] | | the driver takes the socket |
//! | [`Op::Receive`] | [`Completion::Received`]…, [`Completion::ReceiveEnded`] | until it ends or [`Op::StopReceive`] |
//! | [`Op::Send`] | [`Completion::Sent`] | at least one byte went out, or it failed |
//! | [`Op::Shutdown`] | | FIN after what was sent |
//! | [`Op::Close`] | [`Completion::Closed`] | nothing of the token is left in the driver |
//!
//! Rules that every driver keeps, and that the contract tests check:
//! - After [`Driver::wait`] the worker takes completions until there is none. Operations submitted
//!   meanwhile may add to them. `next_completion` never blocks.
//! - A buffer belongs to the driver from submit to completion, and to the worker after it.
//! - At most one send of a token is in flight.
//! - [`Op::Close`] gives a send in flight back (as failed) before [`Completion::Closed`], and after that
//!   nothing carries this token any more. The worker reuses the slot, with another generation, only then.
//! - [`Driver::delivery`] tells a peer that takes something from one that takes nothing, however full the socket is.
//! - `EINTR`, `EAGAIN` and `ENOBUFS` never leave a driver.

pub(crate) mod epoll;
pub(crate) mod heap;
#[cfg(test)]
pub(crate) mod sim;
pub(crate) mod uring;

#[cfg(test)]
mod contract_tests;

use std::io;
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::base::output::Output;
use crate::base::wake::Wake;
use crate::net::{Delivery, Traffic};

/// The slots that a driver keeps for listeners and its own descriptors lie above this.
pub(crate) const MAX_SLOT: u32 = (1 << 28) - 1;

/// A kernel back end, owned by one worker and used from its thread only.
pub(crate) trait Driver: Sized {
    /// What was received, until it is given back by [`Driver::release`].
    type Buffer: DerefMut<Target = [u8]>;
    /// An accepted or adopted socket on its way to [`Op::Open`]. Dropping it closes it.
    type Socket;
    /// Ends a [`Driver::wait`] from another thread.
    type Waker: Wake;

    /// Takes an operation. It is carried out at once or at the next `wait`; its outcome is a completion.
    fn submit(&mut self, op: Op<Self::Socket>);

    /// Blocks until there is a completion, a wake-up, or `timeout` has passed (`None`: no limit).
    ///
    /// # Errors
    /// Only what makes the driver useless, such as a closed epoll descriptor.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The next outcome, or `None` when there is nothing left to do without waiting.
    fn next_completion(&mut self) -> Option<Completion<Self::Buffer, Self::Socket>>;

    /// Gives a received buffer back.
    fn release(&mut self, buffer: Self::Buffer);

    /// Memory of what came in for sockets whose receive was stopped, and waits here, in bytes.
    fn held_len(&self) -> usize {
        0
    }

    /// The same for one socket.
    fn held_of(&self, _slot: u32) -> usize {
        0
    }

    /// Much memory is free: gives it back to the system, without holding the worker up.
    fn return_free_memory(&mut self) {
        heap::return_free_pages();
    }

    /// Time since the driver was made, as of the last `wait`.
    fn now(&self) -> Duration;

    /// How long the worker was at work between the last two waits.
    fn busy(&self) -> Duration;

    /// A waker for other threads.
    fn waker(&self) -> Self::Waker;

    /// Makes a socket of a descriptor that somebody else accepted.
    ///
    /// # Errors
    /// The descriptor can't be used by this driver.
    fn adopt(&mut self, fd: OwnedFd) -> io::Result<Self::Socket>;

    /// How much went over an open socket, where somebody counts that. Costs a system call.
    fn traffic(&self, token: Token) -> Option<Traffic>;

    /// How far the peer of an open socket has come with what was sent to it. Costs system calls: for when a timer
    /// fires, not for a message's path.
    fn delivery(&self, token: Token) -> Option<Delivery>;

    /// Gives a socket away that was accepted and not opened.
    fn detach(&mut self, socket: Self::Socket) -> OwnedFd;
}

/// How the worker names a socket to its driver.
///
/// A completion for a token whose generation is not the slot's present one is about a connection that is
/// gone, and only gives its buffer back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token {
    /// Index of the connection in the worker's table, below 2^28.
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

/// How the worker names a listening socket: its index in the order given to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListenerId(pub u32);

/// An operation; see the table in the [module's documentation](self).
#[derive(Debug)]
pub(crate) enum Op<S> {
    /// Accept connections of a listener until told to stop.
    Accept {
        /// The listener.
        listener: ListenerId,
    },
    /// Stop accepting. Connections that were accepted already may still be reported.
    StopAccept {
        /// The listener.
        listener: ListenerId,
    },
    /// Stop accepting for good: the listening socket is closed, and the kernel refuses new connections, or gives
    /// them to another listener of the same port. No later operation names it.
    CloseListener {
        /// The listener.
        listener: ListenerId,
    },
    /// Stop accepting on a socket that others listen on as well: what waits in its backlog is theirs, and what was
    /// accepted meanwhile is reported before [`Completion::ListenerLeft`]. Unless the driver keeps it, no later
    /// operation names it.
    LeaveListener {
        /// The listener.
        listener: ListenerId,
        /// They listen already, and may not be woken for a connection for which this driver was: such are reported too.
        takes_rest: bool,
        /// The driver keeps the socket, for an [`Op::Accept`] or [`Op::CloseListener`] after the listener was left.
        keeps: bool,
    },
    /// Take a socket under a token.
    Open {
        /// Its name from now on.
        token: Token,
        /// The socket.
        socket: S,
    },
    /// Report what the peer sends, until told to stop.
    Receive {
        /// The socket.
        token: Token,
    },
    /// Stop reporting. What the driver had read already may still be reported, nothing is lost.
    StopReceive {
        /// The socket.
        token: Token,
    },
    /// Send bytes.
    Send {
        /// The socket.
        token: Token,
        /// What to send; its `remaining` is not empty.
        buffer: SendBuffer,
    },
    /// Send no more: FIN after what was sent. No send is in flight.
    Shutdown {
        /// The socket.
        token: Token,
    },
    /// Close the socket and forget the token.
    Close {
        /// The socket.
        token: Token,
    },
}

/// The outcome of an operation; see the table in the [module's documentation](self).
#[derive(Debug)]
pub(crate) enum Completion<B, S> {
    /// A connection came in.
    Accepted {
        /// The listener that it came through.
        listener: ListenerId,
        /// Its socket, to be given to [`Op::Open`].
        socket: S,
        /// The other side, where the kernel said who.
        peer: Option<SocketAddr>,
    },
    /// Accepting ended, with `EMFILE` say. [`Op::Accept`] starts it again.
    AcceptEnded {
        /// The listener.
        listener: ListenerId,
        /// Why.
        error: io::Error,
    },
    /// Nothing more comes through a listener that was left.
    ListenerLeft {
        /// The listener.
        listener: ListenerId,
    },
    /// The peer sent something.
    Received {
        /// The socket.
        token: Token,
        /// At least one byte, to be released.
        buffer: B,
    },
    /// Nothing more will be received: the peer sent FIN (`Ok`), or the connection failed.
    ReceiveEnded {
        /// The socket.
        token: Token,
        /// End of stream or failure.
        result: io::Result<()>,
    },
    /// A send went out, perhaps in part: the buffer has moved on by what was sent.
    Sent {
        /// The socket.
        token: Token,
        /// The buffer of the operation.
        buffer: SendBuffer,
        /// Bytes sent (at least one), or the failure.
        result: io::Result<usize>,
    },
    /// The token is forgotten.
    Closed {
        /// The socket.
        token: Token,
    },
}

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(crate) struct SendBuffer {
    data: Output,
    sent: usize,
}

impl SendBuffer {
    /// A buffer of which nothing was sent yet.
    pub(crate) fn new(data: Output) -> Self {
        Self { data, sent: 0 }
    }

    /// What is still to be sent.
    pub(crate) fn remaining(&self) -> &[u8] {
        self.data.get(self.sent..).unwrap_or_default()
    }

    /// Whether all of it was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.sent >= self.data.len()
    }

    /// Marks `count` more bytes as sent. For drivers.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent = self.data.len().min(self.sent + count);
    }

    /// The bytes, sent ones included, for the pool that they came from.
    pub(crate) fn into_output(self) -> Output {
        self.data
    }
}

/// accept(2): errors of the connection that was to be accepted, or of the network behind it. The listener goes on.
fn concerns_one_connection(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNABORTED
            | libc::EINTR
            | libc::EPERM
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
    )
}
