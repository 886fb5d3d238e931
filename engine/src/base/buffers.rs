//! The worker's pool of byte buffers.
//!
//! Buffers hold partial messages, unread input and output. They are taken when a connection needs one
//! and given back when it does not, so that memory grows with what is under way, not with connections.
//!
//! Small ones have a few capacities, so that one fits what another was for. Long ones are kept as they are: a mebibyte
//! that is allocated for each message costs more time to fault in than to fill.

use std::collections::VecDeque;

use ringwire_codec::Buffers;

use crate::base::output::Output;

/// Capacities that are pooled: powers of four from 256 B to 256 KiB.
const CLASSES: [usize; 6] = [256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10];
/// From here on a buffer of another capacity is a long one.
const LONG_LEN: usize = 16 << 10;
/// Long buffers that are looked at for one that fits.
const LOOKS: usize = 16;
/// A new long buffer has a few bytes more than asked for, as many as make whole pages: what held a message then fits
/// the answer with its header.
const PAGE: usize = 4 << 10;
const HEADER_LEN: usize = 16;

/// Free lists of buffers by class.
#[derive(Debug)]
pub(crate) struct BufferPool {
    free: [Vec<Vec<u8>>; CLASSES.len()],
    /// Long ones, the one that came last at the end.
    long: VecDeque<Vec<u8>>,
    /// Bytes on the free lists.
    free_len: usize,
    /// The most that the free lists may hold.
    max_free_len: usize,
}

impl BufferPool {
    /// A pool that keeps at most `max_free_len` bytes for reuse.
    pub(crate) fn new(max_free_len: usize) -> Self {
        Self { free: Default::default(), long: VecDeque::new(), free_len: 0, max_free_len }
    }

    /// Bytes on the free lists.
    pub(crate) fn free_len(&self) -> usize {
        self.free_len
    }

    /// Frees all of them.
    pub(crate) fn clear(&mut self) {
        self.free = Default::default();
        self.long = VecDeque::new();
        self.free_len = 0;
    }

    /// A buffer whose capacity fits `data`, which is copied into it.
    pub(crate) fn copy_of(&mut self, data: &[u8]) -> Vec<u8> {
        let mut buffer = self.take(data.len());
        buffer.extend_from_slice(data);
        buffer
    }

    /// A buffer for output that grows message by message. It is none of the long ones, which may have twice the room:
    /// that would grow with it.
    pub(crate) fn take_growing(&mut self, min_capacity: usize) -> Vec<u8> {
        if CLASSES.iter().any(|class| *class >= min_capacity) {
            self.take(min_capacity)
        } else {
            Vec::with_capacity(min_capacity)
        }
    }

    /// Takes the memory of output back, if it was this connection's own.
    #[inline]
    pub(crate) fn reclaim(&mut self, output: Output) {
        if let Output::Own(buffer) = output {
            self.give(buffer);
        }
    }

    /// One of the long buffers that came last, of at least so many bytes and at most twice as many.
    fn take_long(&mut self, min_capacity: usize) -> Option<Vec<u8>> {
        let fitting = min_capacity..=min_capacity.saturating_mul(2);
        let fits = |buffer: &Vec<u8>| fitting.contains(&buffer.capacity());
        let from_end = self.long.iter().rev().take(LOOKS).position(fits)?;
        let buffer = self.long.remove(self.long.len() - 1 - from_end)?;
        self.free_len -= buffer.capacity();
        Some(buffer)
    }

    /// Keeps a long buffer. Where there is no room, those that came first have to go: nobody has asked for their like
    /// since.
    fn give_long(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > self.max_free_len {
            return;
        }
        while self.free_len + buffer.capacity() > self.max_free_len {
            let Some(oldest) = self.long.pop_front() else { return };
            self.free_len -= oldest.capacity();
        }
        buffer.clear();
        self.free_len += buffer.capacity();
        self.long.push_back(buffer);
    }
}

/// The capacity of a new long buffer.
fn long_capacity(min_capacity: usize) -> usize {
    min_capacity.saturating_add(HEADER_LEN).checked_next_multiple_of(PAGE).unwrap_or(min_capacity)
}

impl Buffers for BufferPool {
    #[inline]
    fn take(&mut self, min_capacity: usize) -> Vec<u8> {
        let Some(class) = CLASSES.iter().position(|class| *class >= min_capacity) else {
            let buffer = self.take_long(min_capacity);
            return buffer.unwrap_or_else(|| Vec::with_capacity(long_capacity(min_capacity)));
        };
        match self.free[class].pop() {
            Some(buffer) => {
                self.free_len -= CLASSES[class];
                buffer
            }
            None => Vec::with_capacity(CLASSES[class]),
        }
    }

    #[inline]
    fn give(&mut self, mut buffer: Vec<u8>) {
        // A buffer that grew counts for the class that it covers whole.
        let Some(class) = CLASSES.iter().rposition(|class| *class <= buffer.capacity()) else {
            return;
        };
        if buffer.capacity() > LONG_LEN && buffer.capacity() != CLASSES[class] {
            return self.give_long(buffer);
        }
        if self.free_len + CLASSES[class] > self.max_free_len {
            return;
        }
        buffer.clear();
        self.free_len += CLASSES[class];
        self.free[class].push(buffer);
    }

    fn try_take(&mut self, capacity: usize) -> Option<Vec<u8>> {
        if let Some(buffer) = self.take_long(capacity) {
            return Some(buffer);
        }
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(long_capacity(capacity)).ok()?;
        Some(buffer)
    }
}

/// Memory for the kernel to copy into, which begins at a page.
///
/// Where it does not, `recv` of 64 KiB took 2.5 times as long on the machine of docs/benchmarks.md: its copy
/// (`rep movsb`) wants an aligned destination. An allocator gives addresses that are 16 bytes off.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    memory: Box<[u8]>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    const ALIGNMENT: usize = 4096;

    /// A zeroed buffer.
    pub(crate) fn new(len: usize) -> Self {
        let memory = vec![0; len + Self::ALIGNMENT].into_boxed_slice();
        let start = memory.as_ptr().align_offset(Self::ALIGNMENT).min(Self::ALIGNMENT);
        Self { memory, start, len }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_it_was_given() {
        let mut pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take(1000);
        assert_eq!(buffer.capacity(), 1024);
        buffer.extend_from_slice(b"left over");
        let address = buffer.as_ptr();
        pool.give(buffer);
        let again = pool.take(800);
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), address);
        assert_eq!(pool.free_len, 0);
    }

    #[test]
    fn an_aligned_buffer_begins_at_a_page() {
        for len in [1, 512, 65_536, 100_000] {
            let mut buffer = AlignedBuffer::new(len);
            assert_eq!(buffer.bytes().as_ptr().addr() % 4096, 0);
            buffer.bytes_mut().fill(7);
            assert_eq!(buffer.bytes(), vec![7; len]);
        }
    }

    #[test]
    fn keeps_no_more_than_its_limit() {
        let mut pool = BufferPool::new(100 << 10);
        for buffer in (0..10).map(|_| Vec::with_capacity(64 << 10)).collect::<Vec<_>>() {
            pool.give(buffer);
        }
        assert_eq!(pool.free_len, 64 << 10);
        pool.give(Vec::with_capacity(1 << 20));
        pool.give(Vec::new());
        assert_eq!(pool.free_len, 64 << 10);
    }

    #[test]
    fn large_buffers_have_the_capacity_asked_for() {
        let mut pool = BufferPool::new(1 << 20);
        assert!(pool.take(1 << 20).capacity() >= 1 << 20);
        assert_eq!(pool.take(0).capacity(), 256);
    }

    #[test]
    fn a_long_message_leaves_its_memory_to_its_answer_and_to_the_next() {
        let mut pool = BufferPool::new(4 << 20);
        let message = pool.try_take(1 << 20).unwrap();
        let address = message.as_ptr();
        pool.give(message);
        assert!(pool.free_len >= 1 << 20);
        let answer = pool.take((1 << 20) + 14);
        assert_eq!((answer.as_ptr(), pool.free_len), (address, 0));
        pool.give(answer);
        let next = pool.try_take(1 << 20).unwrap();
        assert_eq!((next.as_ptr(), next.len()), (address, 0));
    }

    #[test]
    fn a_long_buffer_is_taken_for_what_fills_half_of_it() {
        let mut pool = BufferPool::new(4 << 20);
        pool.give(Vec::with_capacity(1 << 20));
        for (asked, fits) in [(500_000, false), (1_100_000, false), (600_000, true)] {
            let buffer = pool.try_take(asked).unwrap();
            assert!(buffer.capacity() >= asked && buffer.capacity() <= 2 * asked);
            assert_eq!(buffer.capacity() == 1 << 20, fits, "{asked}");
        }
        assert_eq!(pool.free_len, 0);
    }

    #[test]
    fn output_that_grows_has_no_more_than_it_asks_for() {
        let mut pool = BufferPool::new(4 << 20);
        pool.give(Vec::with_capacity(1 << 20));
        assert_eq!(pool.take_growing(600_000).capacity(), 600_000);
        assert_eq!(pool.take_growing(60_000).capacity(), 64 << 10);
        assert_eq!(pool.free_len, 1 << 20);
    }

    #[test]
    fn long_buffers_that_nobody_asks_for_give_way() {
        let mut pool = BufferPool::new(1 << 20);
        pool.give(Vec::with_capacity(600_000));
        pool.give(Vec::with_capacity(64 << 10));
        pool.give(Vec::with_capacity(900_000));
        assert_eq!(pool.free_len, 900_000 + (64 << 10));
        pool.give(Vec::with_capacity(2 << 20));
        assert_eq!(pool.free_len, 900_000 + (64 << 10), "longer than all of the pool");
        pool.clear();
        assert_eq!((pool.free_len, pool.long.len()), (0, 0));
    }
}
