//! A socket that does not block, and waiting for it with a deadline.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// A connected stream socket, non-blocking.
#[derive(Debug)]
pub(super) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Takes a socket and makes it non-blocking.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket })
    }

    /// The descriptor.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Reads what is there; `None` if nothing is, 0 at the end of the stream.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        would_block(|| recv(&self.socket, &mut *buffer, RecvFlags::empty()).map(|(len, _)| len))
    }

    /// Writes what the socket takes; `None` if that is nothing.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        would_block(|| send(&self.socket, bytes, SendFlags::NOSIGNAL))
    }

    /// Waits for the socket to be readable or writable, as is asked for, or to have failed; which of these is found out
    /// by trying. Gives `false` at the deadline.
    pub(super) fn wait(&self, interest: Interest, deadline: Option<Instant>) -> io::Result<bool> {
        let flags = match interest {
            Interest::Read => PollFlags::IN,
            Interest::Both => PollFlags::IN | PollFlags::OUT,
            Interest::Write => PollFlags::OUT,
        };
        Ok(wait_for(&mut [PollFd::new(&self.socket, flags)], deadline)?.is_some())
    }

    /// Reads at least one byte before the deadline, which is `TimedOut` if it passes; 0 at the end of the stream.
    pub(super) fn read(&self, buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<usize> {
        loop {
            if let Some(len) = self.try_read(buffer)? {
                return Ok(len);
            }
            if !self.wait(Interest::Read, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// Fills the buffer before the deadline.
    pub(super) fn read_exact(
        &self,
        mut buffer: &mut [u8],
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        while !buffer.is_empty() {
            let len = self.read(buffer, deadline)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer = buffer.split_at_mut(len).1;
        }
        Ok(())
    }

    /// Writes all before the deadline.
    pub(super) fn write_all(&self, mut bytes: &[u8], deadline: Option<Instant>) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes)? {
                Some(len) => bytes = bytes.split_at(len).1,
                None if self.wait(Interest::Write, deadline)? => {}
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }

    /// No more writing: the peer sees the end of the stream.
    pub(super) fn shutdown_write(&self) {
        // A socket that is gone already needs none.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }

    /// No more reading and writing, which also ends the waits of other threads.
    pub(super) fn shutdown(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    Write,
    Both,
}

/// Waits for one of them, and gives the number of those that have something; `None` at the deadline.
pub(super) fn wait_for(
    descriptors: &mut [PollFd<'_>],
    deadline: Option<Instant>,
) -> io::Result<Option<usize>> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(descriptors, left.and_then(timespec).as_ref()) {
            Ok(0) if left.is_none_or(|left| timespec(left).is_none()) => {}
            Ok(0) => return Ok(None),
            Ok(count) => return Ok(Some(count)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `None` for what is too long for the kernel, which is as good as for ever.
fn timespec(time: Duration) -> Option<Timespec> {
    Timespec::try_from(time).ok()
}

fn would_block(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        return match call() {
            Ok(len) => Ok(Some(len)),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
}

/// The moment that lies this far ahead; `None` where there is no limit.
pub(super) fn after(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}

/// The earlier of two moments, where `None` is never.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
