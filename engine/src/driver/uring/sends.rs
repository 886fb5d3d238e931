//! Sending: one request in flight for each socket, and the buffers that the kernel reads meanwhile.

#![expect(unsafe_code, reason = "the kernel reads the buffers of sends in flight")]

use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::num::NonZeroU8;
use std::os::fd::AsRawFd as _;

use io_uring::{opcode, types};
use slab::Slab;

use super::names::Name;
use super::{Outcome, Uring};
use crate::driver::{Completion, SendBuffer, Token};

/// The place of a buffer in [`Sends`]. Three bytes also where there may be none, since each socket has room for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendId {
    /// One more than the place's high bits.
    high: NonZeroU8,
    low: [u8; 2],
}

const _: () = assert!(size_of::<Option<SendId>>() == 3);

impl SendId {
    /// `None` from 255 × 65 536 on.
    #[inline]
    fn new(place: usize) -> Option<Self> {
        let high = u8::try_from((place >> 16) + 1).ok().and_then(NonZeroU8::new)?;
        let [low @ .., _, _] = u32::try_from(place).ok()?.to_le_bytes();
        Some(Self { high, low })
    }

    #[inline]
    fn place(self) -> usize {
        usize::from(self.high.get() - 1) << 16 | usize::from(u16::from_le_bytes(self.low))
    }
}

/// Buffers of sends in flight. They are neither touched nor freed until their completion: whatever ends the driver, be
/// it a panic, a table that still has some is never freed.
#[derive(Debug, Default)]
pub(super) struct Sends {
    buffers: ManuallyDrop<Slab<SendBuffer>>,
}

impl Sends {
    /// Takes a buffer in. Gives it back if there are too many: 16 711 680.
    #[inline]
    fn insert(&mut self, buffer: SendBuffer) -> Result<SendId, SendBuffer> {
        let entry = self.buffers.vacant_entry();
        let Some(id) = SendId::new(entry.key()) else { return Err(buffer) };
        entry.insert(buffer);
        Ok(id)
    }

    #[inline]
    fn get(&self, id: SendId) -> &SendBuffer {
        &self.buffers[id.place()]
    }

    #[inline]
    fn remove(&mut self, id: SendId) -> SendBuffer {
        self.buffers.remove(id.place())
    }

    /// Buffers whose completion has not come.
    pub(super) fn in_flight(&self) -> usize {
        self.buffers.len()
    }
}

impl Drop for Sends {
    fn drop(&mut self) {
        if self.in_flight() == 0 {
            // SAFETY: nothing uses the table after this, and the kernel reads none of its buffers: each was taken out
            // of it on its completion.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}

impl Uring {
    #[inline]
    pub(super) fn send(&mut self, token: Token, buffer: SendBuffer) {
        if self.socket(token).is_none_or(|socket| socket.is_closing()) {
            return self.refuse_send(token, buffer, ErrorKind::NotConnected);
        }
        let id = match self.sends.insert(buffer) {
            Ok(id) => id,
            Err(buffer) => return self.refuse_send(token, buffer, ErrorKind::OutOfMemory),
        };
        if let Some(socket) = self.socket(token) {
            debug_assert!(socket.send.is_none(), "a send of {token:?} is in flight");
            socket.send = Some(id);
        }
        self.submit_send(token, id);
    }

    #[cold]
    fn refuse_send(&mut self, token: Token, buffer: SendBuffer, error: ErrorKind) {
        let result = Err(error.into());
        self.done.push_back(Completion::Sent { token, buffer, result });
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
        // until then owns them or refers to them. Dropped before that, `sends` frees nothing.
        unsafe { self.request(entry, Name::Send(token)) };
    }

    #[inline]
    pub(super) fn on_send(&mut self, token: Token, result: i32) -> Option<Outcome> {
        let socket = self.socket(token)?;
        let closing = socket.is_closing();
        let id = socket.send.take()?;
        if matches!(-result, libc::EAGAIN | libc::EINTR) && !closing {
            socket.send = Some(id);
            self.submit_send(token, id);
            return None;
        }
        let mut buffer = self.sends.remove(id);
        let count = if closing { &mut self.ending_sends } else { &mut self.entered_sends };
        *count = count.saturating_sub(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever drops the table, a panic of the driver included.
    #[test]
    fn a_buffer_that_the_kernel_may_read_is_never_freed() {
        use crate::base::budget::Budget;
        use crate::base::output::{Output, SharedBytes};

        // What was freed is back in the budget.
        let budget = Budget::new(1000);
        let buffer = || SendBuffer::new(Output::Shared(SharedBytes::new(vec![7; 100], &budget)));
        let mut sends = Sends::default();
        let done = sends.insert(buffer()).unwrap();
        sends.insert(buffer()).unwrap();
        drop(sends.remove(done));
        assert_eq!((sends.in_flight(), budget.left()), (1, 900));
        drop(sends);
        assert_eq!(budget.left(), 900, "one is in flight");

        let mut sends = Sends::default();
        let done = sends.insert(buffer()).unwrap();
        drop(sends.remove(done));
        drop(sends);
        assert_eq!(budget.left(), 900, "none was in flight");
    }

    #[test]
    fn places_fit_into_three_bytes() {
        for place in [0, 1, 0xffff, 0x1_0000, 0x12_3456, 255 * 0x1_0000 - 1] {
            assert_eq!(SendId::new(place).map(SendId::place), Some(place));
        }
        assert_eq!(SendId::new(255 * 0x1_0000), None);
    }
}
