//! Sending: one request in flight for each socket, and the buffers that the kernel reads meanwhile.

#![expect(unsafe_code, reason = "the kernel reads the buffers of sends in flight")]

use std::io::{self, ErrorKind};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd as _;

use io_uring::{opcode, types};

use super::names::Name;
use super::sockets::Flags;
use super::{Outcome, Uring};
use crate::driver::{Completion, SendBuffer, Token};

/// The place of a buffer in [`Sends`], from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendId(NonZeroU32);

/// Buffers of sends in flight. They are neither touched nor freed until their completion.
#[derive(Debug, Default)]
pub(super) struct Sends {
    buffers: Vec<SendBuffer>,
    free: Vec<SendId>,
}

impl Sends {
    #[inline]
    fn insert(&mut self, buffer: SendBuffer) -> SendId {
        if let Some(id) = self.free.pop() {
            self.buffers[index(id)] = buffer;
            return id;
        }
        self.buffers.push(buffer);
        let count = u32::try_from(self.buffers.len()).unwrap_or(u32::MAX);
        SendId(NonZeroU32::new(count).unwrap_or(NonZeroU32::MAX))
    }

    #[inline]
    fn get(&self, id: SendId) -> &SendBuffer {
        &self.buffers[index(id)]
    }

    #[inline]
    fn remove(&mut self, id: SendId) -> SendBuffer {
        self.free.push(id);
        std::mem::take(&mut self.buffers[index(id)])
    }
}

#[inline]
fn index(id: SendId) -> usize {
    id.0.get() as usize - 1
}

impl Uring {
    #[inline]
    pub(super) fn send(&mut self, token: Token, buffer: SendBuffer) {
        if self.socket(token).is_none_or(|socket| socket.flags.contains(Flags::CLOSING)) {
            let result = Err(ErrorKind::NotConnected.into());
            self.done.push_back(Completion::Sent { token, buffer, result });
            return;
        }
        let id = self.sends.insert(buffer);
        if let Some(socket) = self.socket(token) {
            debug_assert!(socket.send.is_none(), "a send of {token:?} is in flight");
            socket.send = Some(id);
        }
        self.submit_send(token, id);
    }

    #[inline]
    fn submit_send(&mut self, token: Token, id: SendId) {
        let bytes = self.sends.get(id).remaining();
        // No MSG_WAITALL: the worker wants to see that a slow peer takes something.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let start = bytes.as_ptr();
        let Some(fd) = self.socket(token).and_then(|socket| socket.fd.as_ref()) else { return };
        let entry = opcode::Send::new(types::Fd(fd.as_raw_fd()), start, len)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: the bytes are those of a buffer in `sends`, which gives it out on the request's completion only, and
        // until then owns them or refers to them.
        // When the driver goes before, it forgets them (see its `drop`).
        unsafe { self.request(entry, Name::Send(token)) };
    }

    #[inline]
    pub(super) fn on_send(&mut self, token: Token, result: i32) -> Option<Outcome> {
        let socket = self.socket(token)?;
        let closing = socket.flags.contains(Flags::CLOSING);
        let id = socket.send.take()?;
        if matches!(-result, libc::EAGAIN | libc::EINTR) && !closing {
            socket.send = Some(id);
            self.submit_send(token, id);
            return None;
        }
        let mut buffer = self.sends.remove(id);
        let result = match u32::try_from(result) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(sent) => {
                buffer.advance(sent as usize);
                Ok(sent as usize)
            }
            Err(_) => Err(match -result {
                libc::ECANCELED | libc::EAGAIN | libc::EINTR => ErrorKind::ConnectionAborted.into(),
                libc::ENOBUFS => ErrorKind::OutOfMemory.into(),
                errno => io::Error::from_raw_os_error(errno),
            }),
        };
        if closing {
            self.finish_closing(token);
        }
        Some(Completion::Sent { token, buffer, result })
    }
}
