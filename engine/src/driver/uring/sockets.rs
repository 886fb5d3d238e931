//! Connected sockets: what is under way for each, how it receives, and how it is closed.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use bitflags::bitflags;
use io_uring::{cqueue, opcode, squeue, types};

use super::buffers::{GROUP, REQUEST_LEN};
use super::names::Name;
use super::sends::SendId;
use super::{Outcome, Uring, UringBuffer, shut_down};
use crate::driver::{Completion, Token};

/// One entry of the table. 12 bytes, for every connection.
#[derive(Debug, Default)]
pub(super) struct Socket {
    pub(super) fd: Option<OwnedFd>,
    generation: u32,
    pub(super) send: Option<SendId>,
    pub(super) flags: Flags,
}

const _: () = assert!(size_of::<Socket>() == 12);

impl Socket {
    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.flags.contains(Flags::CLOSING)
    }
}

bitflags! {
    /// What is known about a socket.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Flags: u8 {
        /// The worker wants what comes in.
        const WANTED = 1;
        /// The multishot receive is in the kernel.
        const ARMED = 1 << 1;
        /// It is being cancelled.
        const CANCELLING = 1 << 2;
        /// It ended for want of buffers, and stands in the list.
        const STARVED = 1 << 3;
        /// The end of the stream, or a failure, was seen.
        const ENDED = 1 << 4;
        /// Something came in while the worker did not want it.
        const HELD = 1 << 5;
        /// It is closed as soon as nothing is in the kernel.
        const CLOSING = 1 << 6;
        /// It received something since its receive was armed.
        const FED = 1 << 7;
    }
}

/// What came in while the worker did not want it, by slot.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    table: HashMap<u32, Held>,
    /// Memory of all of it, in bytes.
    len: usize,
}

#[derive(Debug, Default)]
struct Held {
    data: Vec<u8>,
    ended: Option<io::Result<()>>,
}

impl Holdings {
    /// The memory that is held, in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The same for one socket.
    pub(super) fn len_of(&self, slot: u32) -> usize {
        self.table.get(&slot).map_or(0, |held| held.data.capacity())
    }

    /// Holds some more; how much that makes.
    fn add(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let held = self.table.entry(slot).or_default();
        let before = held.data.capacity();
        held.data.extend_from_slice(bytes);
        self.len += held.data.capacity() - before;
        held.data.len()
    }

    fn end(&mut self, slot: u32, ended: io::Result<()>) {
        self.table.entry(slot).or_default().ended = Some(ended);
    }

    fn take(&mut self, slot: u32) -> Option<Held> {
        let held = self.table.remove(&slot)?;
        self.len -= held.data.capacity();
        Some(held)
    }
}

impl Uring {
    #[inline]
    pub(super) fn socket(&mut self, token: Token) -> Option<&mut Socket> {
        self.sockets
            .get_mut(token.slot)
            .filter(|socket| socket.generation == token.generation && socket.fd.is_some())
    }

    pub(super) fn descriptor(&self, token: Token) -> Option<&OwnedFd> {
        let socket = self.sockets.get(token.slot)?;
        socket.fd.as_ref().filter(|_| socket.generation == token.generation)
    }

    pub(super) fn open(&mut self, token: Token, fd: OwnedFd) {
        self.slots = self.slots.max(token.slot + 1);
        let entry = self.sockets.entry(token.slot);
        debug_assert!(entry.fd.is_none(), "slot {} is in use", token.slot);
        *entry = Socket { fd: Some(fd), generation: token.generation, ..Socket::default() };
    }

    // Receiving

    pub(super) fn receive(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        let flags = &mut socket.flags;
        if flags.contains(Flags::HELD) {
            return self.hand_over_held(token);
        }
        if flags.contains(Flags::ENDED) {
            return;
        }
        flags.insert(Flags::WANTED);
        self.arm_if_wanted(token);
    }

    fn hand_over_held(&mut self, token: Token) {
        let Some(Held { data, ended }) = self.held.take(token.slot) else { return };
        let Some(socket) = self.socket(token) else { return };
        socket.flags.remove(Flags::HELD);
        if !data.is_empty() {
            let buffer = UringBuffer::Copied(data);
            self.done.push_back(Completion::Received { token, buffer });
        }
        match ended {
            Some(result) => self.done.push_back(Completion::ReceiveEnded { token, result }),
            None => self.receive(token),
        }
    }

    pub(super) fn stop_receive(&mut self, token: Token) {
        if let Some(socket) = self.socket(token) {
            socket.flags.remove(Flags::WANTED);
        }
    }

    pub(super) fn expect_of(&mut self, token: Token, len: u64) {
        let turn_len = self.buffers.layout().turn_len;
        // Without turns a request takes what there is.
        if turn_len > 0 && len > turn_len.into() && self.socket(token).is_some() {
            self.expecting.insert(token.slot);
        }
    }

    #[expect(unsafe_code, reason = "a request that receives")]
    fn arm_receive(&mut self, token: Token) {
        let long = !self.expecting.is_empty() && self.expecting.remove(&token.slot);
        let lens = self.buffers.layout().request_lens(long);
        let Some(socket) = self.socket(token) else { return };
        let Some(fd) = &socket.fd else { return };
        let fd = types::Fd(fd.as_raw_fd());
        let entry = match lens {
            // Before Linux 6.17 a request has neither turns nor an end.
            None => opcode::RecvMulti::new(fd, GROUP).build(),
            Some((turn_len, len)) => {
                ending_after(opcode::RecvMulti::new(fd, GROUP).len(turn_len).build(), len)
            }
        };
        socket.flags.insert(Flags::ARMED);
        socket.flags.remove(Flags::FED);
        // SAFETY: the kernel writes to provided buffers only, which outlive the requests.
        unsafe { self.request(entry, Name::Receive(token)) };
    }

    #[inline]
    pub(super) fn on_receive(&mut self, token: Token, result: i32, flags: u32) -> Option<Outcome> {
        let buffer = self.take_buffer(result, flags);
        let more = cqueue::more(flags);
        let Some(socket) = self.socket(token) else {
            debug_assert!(false, "a socket is forgotten after its last completion only");
            self.release_all(buffer);
            return None;
        };
        if !more {
            socket.flags.remove(Flags::ARMED | Flags::CANCELLING);
        }
        if !socket.flags.contains(Flags::CLOSING)
            && let Some(buffer) = buffer
        {
            socket.flags.insert(Flags::FED);
            if !more {
                // It was cancelled, or the completion queue was full.
                self.arm_if_wanted(token);
            }
            return self.deliver(token, buffer);
        }
        self.release_all(buffer);
        self.on_receive_stopped(token, result, more)
    }

    /// The buffer of a completion, if it has one with something in it.
    #[expect(unsafe_code, reason = "what the kernel says of its buffers")]
    #[inline]
    fn take_buffer(&mut self, result: i32, flags: u32) -> Option<UringBuffer> {
        let piece = cqueue::buffer_select(flags)?;
        match u32::try_from(result) {
            Ok(len) if len > 0 => {
                // SAFETY: this ring's queue said so, and `on_completion` sees each entry of it once.
                let slice = unsafe { self.buffers.take(piece, len, cqueue::buffer_more(flags)) };
                Some(UringBuffer::Provided(slice))
            }
            _ => {
                // SAFETY: as above.
                unsafe { self.buffers.take_nothing(piece) };
                None
            }
        }
    }

    fn release_all(&mut self, buffer: Option<UringBuffer>) {
        if let Some(UringBuffer::Provided(slice)) = buffer {
            self.buffers.release(slice);
        }
    }

    /// To the worker, or to what is held for it.
    #[inline]
    fn deliver(&mut self, token: Token, buffer: UringBuffer) -> Option<Outcome> {
        let socket = self.socket(token)?;
        if socket.flags.contains(Flags::WANTED) {
            return Some(Completion::Received { token, buffer });
        }
        self.hold(token, buffer);
        None
    }

    /// Copies, so that a connection that rests pins no provided buffer.
    #[cold]
    fn hold(&mut self, token: Token, buffer: UringBuffer) {
        let Some(socket) = self.sockets.get_mut(token.slot) else { return };
        socket.flags.insert(Flags::HELD);
        // The worker often stops for the rest of a turn only.
        let cancel = self.held.add(token.slot, &buffer) >= REQUEST_LEN as usize
            && socket.flags.contains(Flags::ARMED)
            && !socket.flags.contains(Flags::CANCELLING);
        if cancel {
            socket.flags.insert(Flags::CANCELLING);
            self.cancel(Name::Receive(token));
        }
        self.release_all(Some(buffer));
    }

    fn arm_if_wanted(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        let unwanted = Flags::ARMED | Flags::STARVED | Flags::ENDED | Flags::CLOSING;
        if !socket.flags.contains(Flags::WANTED) || socket.flags.intersects(unwanted) {
            return;
        }
        if self.starved.is_empty() {
            self.arm_receive(token);
        } else {
            // Not before those that wait for buffers.
            self.starve(token, true);
        }
    }

    fn starve(&mut self, token: Token, fed: bool) {
        let Some(socket) = self.socket(token) else { return };
        if !socket.flags.contains(Flags::STARVED) {
            socket.flags.insert(Flags::STARVED);
            self.starved.push(token, fed);
        }
    }

    /// A completion without bytes: the end, a failure, no buffers, or a cancellation.
    #[cold]
    fn on_receive_stopped(&mut self, token: Token, result: i32, more: bool) -> Option<Outcome> {
        let socket = self.socket(token)?;
        if socket.flags.contains(Flags::CLOSING) {
            if !more {
                self.finish_closing(token);
            } else if !socket.flags.contains(Flags::CANCELLING) {
                // The peer still sends, which could go on for long.
                socket.flags.insert(Flags::CANCELLING);
                self.cancel(Name::Receive(token));
            }
            return None;
        }
        let ended = match -result {
            0 => Ok(()),
            libc::ENOBUFS => {
                let fed = socket.flags.contains(Flags::FED);
                self.starve(token, fed);
                return None;
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                self.arm_if_wanted(token);
                return None;
            }
            errno => Err(io::Error::from_raw_os_error(errno)),
        };
        socket.flags.insert(Flags::ENDED);
        if socket.flags.contains(Flags::WANTED) {
            socket.flags.remove(Flags::WANTED);
            return Some(Completion::ReceiveEnded { token, result: ended });
        }
        socket.flags.insert(Flags::HELD);
        self.held.end(token.slot, ended);
        None
    }

    /// Buffers may have come back: those who went without go on in their order, as many as there is memory for. Whether
    /// there is memory left for more.
    pub(super) fn feed_starved(&mut self) -> bool {
        let mut room = self.buffers.request_room();
        while room > 0
            && let Some(token) = self.starved.pop()
        {
            let Some(socket) = self.socket(token) else { continue };
            socket.flags.remove(Flags::STARVED);
            if socket.flags.contains(Flags::WANTED) && !socket.flags.contains(Flags::CLOSING) {
                self.arm_receive(token);
                room -= 1;
            }
        }
        !self.starved.is_empty() && self.buffers.home() > 0
    }

    // Closing

    pub(super) fn shutdown(&mut self, token: Token) {
        if let Some(fd) = self.socket(token).and_then(|socket| socket.fd.as_ref()) {
            // Not connected any more: the end will be seen by the receive.
            let _ = shut_down(fd, libc::SHUT_WR);
        }
    }

    /// A request holds a reference to its socket, so that close(2) would end neither. shutdown(2) ends all
    /// requests of a socket, and unlike a cancellation does not search them in a table of limited size.
    pub(super) fn close(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        socket.flags.remove(Flags::WANTED);
        socket.flags.insert(Flags::CLOSING);
        let held = socket.flags.contains(Flags::HELD);
        let (armed, sending) = (socket.flags.contains(Flags::ARMED), socket.send.is_some());
        if armed || sending {
            let ends = socket.fd.as_ref().is_some_and(|fd| shut_down(fd, libc::SHUT_RDWR).is_ok());
            if !ends {
                if armed {
                    self.cancel(Name::Receive(token));
                }
                if sending {
                    self.cancel(Name::Send(token));
                }
            }
        }
        if sending {
            self.ending_sends += 1;
            self.entered_sends = self.entered_sends.saturating_sub(1);
        }
        if held {
            self.held.take(token.slot);
        }
        self.expecting.remove(&token.slot);
        self.finish_closing(token);
    }

    pub(super) fn finish_closing(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        let busy = socket.flags.contains(Flags::ARMED) || socket.send.is_some();
        if socket.flags.contains(Flags::CLOSING) && !busy {
            socket.fd = None;
            self.done.push_back(Completion::Closed { token });
        }
    }

    /// Begins to end all that is under way, when the driver goes.
    pub(super) fn shut_down_sockets(&mut self) {
        for slot in 0..self.slots {
            if let Some(Socket { fd: Some(fd), flags, .. }) = self.sockets.get_mut(slot) {
                *flags = flags.difference(Flags::WANTED).union(Flags::CLOSING);
                let _ = shut_down(fd, libc::SHUT_RDWR);
            }
        }
    }
}

/// A multishot receive that ends by itself after so many bytes: its `optlen`, for which the crate has no name.
#[expect(unsafe_code, reason = "a field that is private")]
fn ending_after(mut entry: squeue::Entry, len: u32) -> squeue::Entry {
    /// Where `struct io_uring_sqe` of linux/io_uring.h has it.
    const OFFSET: usize = 44;
    const { assert!(size_of::<squeue::Entry>() == 64 && align_of::<squeue::Entry>() == 8) };
    // SAFETY: an entry is that struct (`repr(C)`), of which these are four aligned bytes.
    unsafe { (&raw mut entry).byte_add(OFFSET).cast::<u32>().write(len) };
    entry
}

/// Sockets whose receive ended for want of buffers. Those that got nothing go on first, since one that has
/// much to receive can take all that there is.
#[derive(Debug, Default)]
pub(super) struct Starved {
    hungry: VecDeque<Token>,
    fed: VecDeque<Token>,
}

impl Starved {
    pub(super) fn is_empty(&self) -> bool {
        self.hungry.is_empty() && self.fed.is_empty()
    }

    fn push(&mut self, token: Token, fed: bool) {
        let list = if fed { &mut self.fed } else { &mut self.hungry };
        list.push_back(token);
    }

    fn pop(&mut self) -> Option<Token> {
        self.hungry.pop_front().or_else(|| self.fed.pop_front())
    }
}
