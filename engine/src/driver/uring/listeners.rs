//! Accepting: one multishot request for each listener.

#![expect(unsafe_code, reason = "the kernel hands descriptors over as numbers")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use io_uring::{opcode, types};
use rustix::net::{SocketFlags, accept_with};

use super::names::Name;
use super::{Outcome, Uring, shut_down};
use crate::driver::{Completion, ListenerId, concerns_one_connection};
use crate::net;

/// Connections that are accepted at most when a listener is left, so that it ends however many come.
const MAX_REST: usize = 16 << 10;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    /// None once it is closed.
    socket: Option<OwnedFd>,
    /// The worker wants connections.
    wanted: bool,
    /// The multishot request is in the kernel.
    armed: bool,
    /// It is being cancelled.
    cancelling: bool,
    /// The socket is to be closed when the request has ended.
    closing: bool,
    /// Others go on with it: what was accepted is reported, and then the end.
    leaving: Option<Leaving>,
    /// The socket is kept when it was left, since the worker may come back to it.
    kept: bool,
    /// Connections that came in before the cancellation took effect.
    waiting: VecDeque<OwnedFd>,
}

/// How a listener is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// The request is to end. With what waits in the backlog then, if others listen already.
    Ending { takes_rest: bool },
    /// It has ended, which the worker is to be told behind what waits.
    Ended,
    /// The worker knows.
    Told,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
            wanted: false,
            armed: false,
            cancelling: false,
            closing: false,
            leaving: None,
            kept: false,
            waiting: VecDeque::new(),
        }
    }

    /// Whether there is something to report.
    pub(super) fn is_ready(&self) -> bool {
        let has_waiting = !self.waiting.is_empty() && (self.wanted || self.leaving.is_some());
        has_waiting || self.leaving == Some(Leaving::Ended)
    }

    /// The driver goes: nothing is reported any more. The socket may be another's as well, and is left as it is.
    pub(super) fn forget(&mut self) {
        (self.wanted, self.closing, self.leaving, self.kept) = (false, true, None, false);
        self.waiting.clear();
    }

    /// The request has ended for good.
    fn end(&mut self) {
        if let Some(Leaving::Ending { takes_rest }) = self.leaving {
            self.leaving = Some(Leaving::Ended);
            if takes_rest {
                self.accept_rest();
            }
        }
        if !self.kept {
            self.socket = None;
        }
    }

    /// The worker comes back to a socket that it has left.
    fn come_back(&mut self) {
        if self.kept && self.leaving == Some(Leaving::Told) {
            (self.closing, self.leaving, self.kept) = (false, None, false);
        }
    }

    /// Accepts what waits. The kernel wakes one waiter for each connection, and a request that was woken and then
    /// cancelled has taken no connection: whoever else listens would learn of it with the next one only.
    fn accept_rest(&mut self) {
        let Some(socket) = &self.socket else { return };
        for _ in 0..MAX_REST {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(socket, flags).map_err(io::Error::from) {
                Ok(accepted) => self.waiting.push_back(accepted),
                Err(error) if error.raw_os_error().is_some_and(concerns_one_connection) => {}
                Err(_) => return,
            }
        }
    }
}

impl Uring {
    pub(super) fn start_accept(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        listener.come_back();
        listener.wanted = !listener.closing;
        if listener.wanted && !listener.armed {
            self.arm_accept(id);
        }
    }

    fn arm_accept(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        let Some(socket) = &listener.socket else { return };
        listener.armed = true;
        let entry = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
            .build();
        // SAFETY: the request names no memory.
        unsafe { self.request(entry, Name::Accept(id)) };
    }

    pub(super) fn stop_accept(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        listener.wanted = false;
        if listener.armed && !listener.cancelling {
            listener.cancelling = true;
            self.cancel(Name::Accept(id));
        }
    }

    pub(super) fn close_listener(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        (listener.wanted, listener.closing, listener.kept) = (false, true, false);
        listener.waiting.clear();
        match &listener.socket {
            // From now on the kernel refuses connections, and the request ends.
            Some(socket) if listener.armed => {
                if shut_down(socket, libc::SHUT_RDWR).is_err() {
                    self.cancel(Name::Accept(id));
                }
            }
            _ => listener.socket = None,
        }
    }

    /// Others must be left alone: only the request ends.
    pub(super) fn leave_listener(&mut self, id: ListenerId, takes_rest: bool, keeps: bool) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
        listener.kept = keeps;
        (listener.wanted, listener.closing) = (false, true);
        listener.leaving = Some(Leaving::Ending { takes_rest });
        if !listener.armed {
            listener.end();
        } else if !listener.cancelling {
            listener.cancelling = true;
            self.cancel(Name::Accept(id));
        }
    }

    /// A connection that waited for the worker to accept again, or the end of a listener that was left.
    #[cold]
    pub(super) fn next_waiting(&mut self) -> Option<Outcome> {
        let index = self.listeners.iter().position(Listener::is_ready)?;
        let id = ListenerId(u32::try_from(index).unwrap_or(u32::MAX));
        let listener = &mut self.listeners[index];
        let Some(socket) = listener.waiting.pop_front() else {
            listener.leaving = Some(Leaving::Told);
            return Some(Completion::ListenerLeft { listener: id });
        };
        let peer = net::peer_addr(&socket);
        Some(Completion::Accepted { listener: id, socket, peer })
    }

    pub(super) fn on_accept(&mut self, id: ListenerId, result: i32, more: bool) -> Option<Outcome> {
        // SAFETY: the kernel has just opened this descriptor for the request and told nobody else.
        let accepted = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let listener = self.listeners.get_mut(id.0 as usize)?;
        if !more {
            (listener.armed, listener.cancelling) = (false, false);
            if listener.closing {
                listener.end();
            }
        }
        let outcome = match accepted {
            Some(socket) if listener.wanted && listener.waiting.is_empty() => {
                let peer = net::peer_addr(&socket);
                Some(Completion::Accepted { listener: id, socket, peer })
            }
            Some(socket) => {
                if !listener.closing || listener.leaving.is_some() {
                    listener.waiting.push_back(socket);
                }
                None
            }
            None if listener.wanted && !is_tried_again(-result) => {
                listener.wanted = false;
                let error = io::Error::from_raw_os_error(-result);
                Some(Completion::AcceptEnded { listener: id, error })
            }
            None => None,
        };
        if listener.wanted && !listener.armed {
            self.arm_accept(id);
        }
        outcome
    }
}

/// Errors after which the request is made again: those of accept(2) that concern the connection that was to be
/// accepted or the network behind it, a cancellation that was overtaken, and a full completion queue.
fn is_tried_again(errno: i32) -> bool {
    matches!(errno, libc::ECANCELED | libc::EAGAIN) || concerns_one_connection(errno)
}
