//! Accepting: one multishot request for each listener.

#![expect(unsafe_code, reason = "the kernel hands descriptors over as numbers")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use io_uring::{opcode, types};

use super::names::Name;
use super::{Outcome, Uring, shut_down};
use crate::driver::{Completion, ListenerId, concerns_one_connection};
use crate::net;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    /// None once it is closed.
    socket: Option<OwnedFd>,
    /// Others listen on the same socket.
    shared: bool,
    /// The worker wants connections.
    wanted: bool,
    /// The multishot request is in the kernel.
    armed: bool,
    /// It is being cancelled.
    cancelling: bool,
    /// The socket is to be closed when the request has ended.
    closing: bool,
    /// Connections that came in before the cancellation took effect.
    waiting: VecDeque<OwnedFd>,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
            shared: false,
            wanted: false,
            armed: false,
            cancelling: false,
            closing: false,
            waiting: VecDeque::new(),
        }
    }

    /// Whether there is a connection to report.
    pub(super) fn is_ready(&self) -> bool {
        self.wanted && !self.waiting.is_empty()
    }
}

impl Uring {
    /// Says which listening sockets are not this driver's alone.
    pub(crate) fn with_shared_listeners(mut self, shared: &[bool]) -> Self {
        for (listener, shared) in self.listeners.iter_mut().zip(shared) {
            listener.shared = *shared;
        }
        self
    }

    pub(super) fn start_accept(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(id.0 as usize) else { return };
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
        (listener.wanted, listener.closing) = (false, true);
        listener.waiting.clear();
        match &listener.socket {
            // From now on the kernel refuses connections, and the request ends. Where others listen as well, they must
            // be left alone: only the request ends.
            Some(socket) if listener.armed => {
                if listener.shared || shut_down(socket, libc::SHUT_RDWR).is_err() {
                    self.cancel(Name::Accept(id));
                }
            }
            _ => listener.socket = None,
        }
    }

    /// A connection that waited for the worker to accept again.
    #[cold]
    pub(super) fn next_waiting(&mut self) -> Option<Outcome> {
        let index = self.listeners.iter().position(Listener::is_ready)?;
        let socket = self.listeners[index].waiting.pop_front()?;
        let peer = net::peer_addr(&socket);
        let listener = ListenerId(u32::try_from(index).unwrap_or(u32::MAX));
        Some(Completion::Accepted { listener, socket, peer })
    }

    pub(super) fn on_accept(&mut self, id: ListenerId, result: i32, more: bool) -> Option<Outcome> {
        // SAFETY: the kernel has just opened this descriptor for the request and told nobody else.
        let accepted = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let listener = self.listeners.get_mut(id.0 as usize)?;
        if !more {
            (listener.armed, listener.cancelling) = (false, false);
            if listener.closing {
                listener.socket = None;
            }
        }
        let outcome = match accepted {
            Some(socket) if listener.wanted && listener.waiting.is_empty() => {
                let peer = net::peer_addr(&socket);
                Some(Completion::Accepted { listener: id, socket, peer })
            }
            Some(socket) => {
                if !listener.closing {
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
