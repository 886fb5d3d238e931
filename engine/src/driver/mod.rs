//! What turns operations into completions: the contract, and the back ends behind it.
//!
//! A driver owns file descriptors and talks to the kernel. It knows sockets by the [`Token`] that the
//! worker chose, and knows nothing of connections, frames or handlers. The contract has the shape of
//! completions, so that io_uring fits it as it is; epoll emulates them.
//!
//! This is the whole contract, for whoever writes another. Each line names the contract tests that hold every driver
//! to it; what concerns one back end only is in its own tests.
//!
//! # Operations and their completions
//!
//! - [`Op::Accept`]: [`Completion::Accepted`] for each connection, until [`Op::StopAccept`], or
//!   [`Completion::AcceptEnded`] (out of descriptors, say), after which the worker accepts again when it sees fit:
//!   `accept_names_the_listener`.
//! - [`Op::StopAccept`]: no completion. Connections wait where they are: `stop_accept_leaves_connections_waiting`.
//! - [`Op::CloseListener`]: no completion. Who waits, and who comes later, is refused: `a_closed_listener_refuses`.
//! - [`Op::LeaveListener`]: [`Completion::Accepted`] for what was accepted, then [`Completion::ListenerLeft`]:
//!   `a_listener_is_left_once_all_is_reported`, `a_listener_that_is_kept_is_accepted_from_again`. Asked to take the
//!   rest, it reports what waits as well, unless those who go on were told of it too:
//!   `who_waits_at_a_listener_that_is_left_is_not_lost`.
//! - [`Op::Open`]: no completion. The driver takes the socket, which it was given by [`Completion::Accepted`] or
//!   [`Driver::adopt`]: `adopt`. A socket that it never gets closes itself: `an_unopened_socket_is_closed`. One that
//!   still connects is opened as well; its operations complete when it is connected, or fail as it does.
//! - [`Op::Receive`]: [`Completion::Received`] each time that something comes, until [`Op::StopReceive`] or
//!   [`Completion::ReceiveEnded`]: `echo`, `nothing_is_received_unasked`, `more_than_one_buffer`.
//! - [`Driver::expect`]: no completion. The next receive may bring more at once than others; nothing else changes:
//!   `what_is_expected_may_come_at_once`.
//! - [`Op::StopReceive`]: no completion. What was read already may still be reported, or waits in the driver for the
//!   next `Receive`, the end too. Nothing is lost: `stop_receive_loses_nothing`.
//! - [`Op::Send`]: [`Completion::Sent`], once at least one byte went out or it failed; the buffer comes back either
//!   way, moved on by what was sent: `a_send_waits_for_the_peer`, `large_send`,
//!   `sending_to_a_broken_connection_fails`.
//! - [`SendNow::send_now`]: no completion. What the socket took is on its way, before what is sent later:
//!   `what_is_sent_at_once_comes_first`, `nothing_is_sent_at_once_to_a_full_socket`,
//!   `a_broken_connection_takes_nothing_at_once`.
//! - [`Op::Shutdown`]: no completion. FIN goes out after what was sent, and receiving goes on:
//!   `shutdown_leaves_receiving`. A failure is seen by the receive.
//! - [`Op::Close`]: [`Completion::Closed`], whatever is under way. What was sent still arrives:
//!   `close_is_seen_by_the_peer`.
//!
//! # Turns
//!
//! - After each [`Driver::wait`] the worker takes completions until there is none. Operations that it submits
//!   meanwhile may add to them. [`Driver::next_completion`] never blocks: `echo`, `many_sockets`.
//! - A wait lasts for its timeout, unless something happens: `wait_keeps_its_timeout`. It ends at once where an
//!   outcome is known already, or was known before it began: `a_wait_does_not_sleep_over_an_outcome`. It may end for
//!   no reason.
//! - A wake-up ends the wait that is under way, or else the next: `wake_ends_a_wait`, `several_wakes_are_one`.
//! - A socket that always has more to say does not hold up others: `a_flood_holds_up_nobody`.
//! - Completions about different sockets, and sends and receives of one, come in any order; what one socket receives
//!   comes in the order of its bytes.
//! - `EINTR`, `EAGAIN` and `ENOBUFS` never leave a driver: the tests look at every error.
//!
//! # Buffers
//!
//! - What is to be sent is the driver's from submit to completion. No byte of it is touched or freed meanwhile, even
//!   if the driver is dropped or panics.
//! - What was received is the worker's until [`Driver::release`]. A driver that runs out of buffers goes on when some
//!   come back, and others than those who hold them are served until then: `a_held_buffer_hurts_nobody`.
//! - What it holds for a socket that does not receive is counted by [`Driver::held_len`] and [`Driver::held_of`],
//!   until it is handed over or the socket closed: `what_is_held_is_counted`.
//! - A driver that is dropped closes its sockets and listeners and ends what is under way:
//!   `a_driver_that_goes_closes_all`. Received buffers, wakers and sockets that were not opened outlive it:
//!   `what_the_worker_has_outlives_the_driver`.
//!
//! # Ends
//!
//! - The peer's FIN ends receiving after all of its data, with `Ok`: `fin_ends_receiving_after_all_data`,
//!   `data_and_fin_together`. Sending goes on: `peer_finished_first`.
//! - A broken connection ends receiving with its error, and fails a send in flight: `reset_fails_receiving`,
//!   `reset_fails_a_stuck_send`.
//! - [`Completion::ReceiveEnded`] comes once, and nothing is received after it: `the_end_is_reported_once`. Where a
//!   socket can't be taken it comes unasked.
//! - A close gives a send in flight back (as failed) before [`Completion::Closed`]: `close_returns_the_send_first`.
//!   What was received may still be reported in between, and a failed [`Completion::ReceiveEnded`].
//! - After that nothing carries this token. The worker uses the slot again, with another generation, only then:
//!   `close_in_the_middle_of_data`, `a_slot_is_used_again`.
//! - [`Driver::delivery`] tells a peer that takes something from one that takes nothing, however full the socket is:
//!   `delivery_tells_who_takes_something`.
//! - [`Driver::stuck_count`] and [`Driver::unsent_memory`] tell what the kernel holds for peers that take nothing, and
//!   [`Driver::discard`] ends that: `what_the_kernel_holds_of_a_stuck_send_is_known_and_can_be_dropped`,
//!   `nothing_is_dropped_of_what_was_delivered`.
//!
//! # What a worker never does
//!
//! The simulated driver panics where it does. The others put up with it, as far as is said here:
//! - It names no token before [`Op::Open`] or after [`Op::Close`], nor one of an earlier generation. A send gives its
//!   buffer back as failed, everything else does nothing: `an_unknown_token_is_nobody`.
//! - It names no listener that is closed. Nothing happens: `an_unknown_listener_is_nobody`.
//! - It asks once for what lasts, and never after the end: `receiving_twice_is_receiving`,
//!   `the_end_is_reported_once`.
//! - It has one send of a token in flight at most, which is an assertion in all drivers: `one_send_at_a_time`.
//! - It shuts a socket down when no send is in flight. One that was stuck fails: `a_shutdown_fails_a_stuck_send`.
//! - It sends nothing after that. The buffer comes back as failed: `nothing_is_sent_after_a_shutdown`.

pub(crate) mod busy;
pub(crate) mod epoll;
pub(crate) mod heap;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the engine's own simulations use more than applications do")
)]
pub(crate) mod sim;
pub(crate) mod uring;

#[cfg(test)]
mod contract_tests;

use std::fmt::Debug;
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

/// How many times as much as `receive_buffer_len` one receive takes at most of a message that is known to be long
/// (docs/decisions/long-messages.md).
pub(crate) const LONG_FACTOR: usize = 4;

/// What a driver can do while a handler runs.
pub(crate) trait SendNow: Debug {
    /// Sends what the socket takes at once of these bytes, the first piece before the second, and keeps none of them:
    /// so many bytes. 0 where it takes nothing or is broken, which the next [`Op::Send`] finds out. No send of the
    /// token is in flight.
    fn send_now(&self, token: Token, pieces: [&[u8]; 2]) -> usize;
}

/// A kernel back end, owned by one worker and used from its thread only.
pub(crate) trait Driver: Sized + SendNow {
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

    /// So many bytes are known or likely to come: the next receive of this socket may take up to [`LONG_FACTOR`] times
    /// as much as another.
    fn expect(&mut self, token: Token, len: u64);

    /// What came in for sockets whose receive was stopped, and waits here, in bytes of memory. What waits in sockets is
    /// the kernel's, and does not count.
    fn held_len(&self) -> usize;

    /// The same for one socket.
    fn held_of(&self, slot: u32) -> usize;

    /// Much memory is free: gives it back to the system, without holding the worker up.
    fn return_free_memory(&mut self);

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

    /// Sends that did not go out, as of the last wait, once all of its completions were taken: their sockets are full.
    fn stuck_count(&self) -> usize;

    /// What the kernel holds of what was sent on an open socket, in bytes of memory. Costs a system call.
    fn unsent_memory(&self, token: Token) -> usize;

    /// The peer is given up: what the kernel still has of what was sent to it is dropped when the socket is closed, and
    /// the peer gets a reset. A socket of which the kernel has nothing is closed as always.
    fn discard(&mut self, token: Token);

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

/// An operation; see the [module's documentation](self).
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
        /// They listen already. What waits is reported too where the kernel may have told this driver alone of it,
        /// as it does with io_uring's requests. Each epoll set is told of everything.
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

/// The outcome of an operation; see the [module's documentation](self).
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
