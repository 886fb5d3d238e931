//! What sockets are read into: one buffer of the length that is set, and a longer one as soon as there are long
//! messages.

use std::ops::{Deref, DerefMut};

use crate::base::buffers::AlignedBuffer;
use crate::driver::LONG_FACTOR;

/// Receive buffers that nobody has: one of each length, unless the worker kept more than one at a time.
#[derive(Debug)]
pub(super) struct Home {
    short: Vec<AlignedBuffer>,
    short_len: usize,
    long: Vec<AlignedBuffer>,
}

/// The received part of a receive buffer.
#[derive(Debug)]
pub(crate) struct EpollBuffer {
    data: AlignedBuffer,
    len: usize,
}

impl Home {
    pub(super) fn new(receive_buffer_len: usize) -> Self {
        Self { short: Vec::with_capacity(1), short_len: receive_buffer_len, long: Vec::new() }
    }

    /// Whether so many bytes are more than the usual buffer takes.
    pub(super) fn is_long(&self, len: u64) -> bool {
        usize::try_from(len).map_or(true, |len| len > self.short_len)
    }

    #[inline]
    pub(super) fn take(&mut self, long: bool) -> EpollBuffer {
        let home = if long { &mut self.long } else { &mut self.short };
        let data = home.pop().unwrap_or_else(|| {
            AlignedBuffer::new(if long { self.short_len * LONG_FACTOR } else { self.short_len })
        });
        EpollBuffer { data, len: 0 }
    }

    #[inline]
    pub(super) fn give(&mut self, buffer: EpollBuffer) {
        let is_long = buffer.data.bytes().len() > self.short_len;
        let home = if is_long { &mut self.long } else { &mut self.short };
        home.push(buffer.data);
    }

    /// Frees what is for long messages only.
    pub(super) fn forget_long(&mut self) {
        self.long = Vec::new();
    }
}

impl EpollBuffer {
    /// All of it, to be read into.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.data.bytes_mut()
    }

    /// So much was read into it.
    #[inline]
    pub(super) fn fill(&mut self, len: usize) {
        self.len = len;
    }
}

impl Deref for EpollBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.data.bytes()[..self.len]
    }
}

impl DerefMut for EpollBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.data.bytes_mut()[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::driver::epoll::Epoll;
    use crate::driver::{Completion, Driver as _, Op, Token};

    const SHORT_LEN: usize = 4096;

    /// The lengths of what is received, until it is `len` in all; before each, `expected` bytes are said to come.
    fn received_lens(expected: Option<u64>, len: usize) -> Vec<usize> {
        let mut driver = Epoll::new(Vec::new(), SHORT_LEN).unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&far).set_send_buffer_size(4 * len).unwrap();
        far.write_all(&vec![7; len]).unwrap();
        let token = Token { slot: 0, generation: 0 };
        let socket = driver.adopt(near.into()).unwrap();
        driver.submit(Op::Open { token, socket });
        driver.submit(Op::Receive { token });
        let mut lens = Vec::new();
        while lens.iter().sum::<usize>() < len {
            if let Some(expected) = expected {
                driver.expect(token, expected);
            }
            driver.wait(Some(Duration::from_secs(5))).unwrap();
            while let Some(completion) = driver.next_completion() {
                let Completion::Received { buffer, .. } = completion else {
                    panic!("{completion:?}")
                };
                assert!(buffer.iter().all(|byte| *byte == 7));
                lens.push(buffer.len());
                driver.release(buffer);
            }
        }
        driver.return_free_memory();
        assert!(driver.buffers.long.is_empty());
        lens
    }

    #[test]
    fn a_long_message_is_read_in_long_pieces() {
        const LONG_LEN: usize = SHORT_LEN * LONG_FACTOR;
        assert_eq!(received_lens(None, 2 * LONG_LEN), [SHORT_LEN; 2 * LONG_FACTOR]);
        let short = Some(SHORT_LEN as u64);
        assert_eq!(received_lens(short, 2 * LONG_LEN), [SHORT_LEN; 2 * LONG_FACTOR]);
        assert_eq!(received_lens(Some(u64::MAX), 2 * LONG_LEN), [LONG_LEN; 2]);
    }
}
