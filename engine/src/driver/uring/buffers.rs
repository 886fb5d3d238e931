//! Provided buffers: memory that the kernel receives into, and the slices of it that the worker reads.
//!
//! A few large pieces of memory stand in a ring that the kernel takes from. It fills a piece bit by bit
//! (IOU_PBUF_RING_INC), so that several completions, also of different sockets, share one. A piece is spare
//! when the kernel is done with it and all slices of it were released, and the one used last goes back into the ring
//! first: the kernel writes to memory that is in the cache. Where the kernel can't share pieces, each completion uses
//! up a whole one, and there are more and smaller ones.

#![expect(unsafe_code, reason = "the kernel writes into this memory")]

use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;

use crate::driver;

/// The one group of buffers of a ring.
pub(super) const GROUP: u16 = 0;
/// Of linux/io_uring.h.
const IOU_PBUF_RING_INC: u16 = 2;
const PAGE: usize = 4096;
/// Bytes after which a request to receive ends by itself, at least. That is what is held of a peer that is told to stop
/// and sends on, since it is faster than a cancellation.
pub(super) const REQUEST_LEN: u32 = 64 << 10;
#[expect(clippy::cast_possible_truncation, reason = "it is a small number")]
const LONG_FACTOR: u32 = driver::LONG_FACTOR as u32;

/// How the memory is divided, and what a socket may take of it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Length of a piece.
    pub piece_len: u32,
    /// Number of pieces, a power of two.
    pub piece_count: u16,
    /// Pieces that stand in the ring, at most. The others replace those of which slices are kept; else they are never
    /// touched.
    pub ring_count: u16,
    /// Whether the kernel fills a piece bit by bit.
    pub incremental: bool,
    /// Bytes of one completion at most, after which the others may have their turn; 0 leaves it to the kernel, which
    /// takes all memory for one socket if there is as much to receive. Where it is known, requests end too.
    pub turn_len: u32,
}

impl Layout {
    /// Whether the kernel has sockets take turns at the memory (Linux 6.17). io_uring was measured against epoll
    /// with that, so [`DriverKind::Auto`](crate::DriverKind::Auto) does not take it without.
    pub(crate) fn has_turns(self) -> bool {
        self.turn_len > 0
    }

    /// What a request to receive brings at most, where the kernel has sockets take turns: in one completion, and until
    /// it ends by itself.
    #[inline]
    pub(super) fn request_lens(self, long: bool) -> Option<(u32, u32)> {
        let factor = if long { LONG_FACTOR } else { 1 };
        let turn_len = self.turn_len.saturating_mul(factor).min(self.piece_len);
        self.has_turns().then(|| (turn_len, turn_len.max(REQUEST_LEN)))
    }
}

/// `struct io_uring_buf`. The tail of the ring lies in the reserved field of the first one.
#[repr(C)]
struct Entry {
    addr: u64,
    len: u32,
    piece: u16,
    tail: AtomicU16,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// What is known about a piece.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    /// Up to here the kernel has filled it.
    filled: u32,
    /// Slices of it that were not released yet.
    out: u32,
    /// The kernel is done with it.
    done: bool,
}

/// The memory and its ring.
///
/// Invariant: no byte is in a slice and open to the kernel at once. The kernel writes behind `filled`
/// only, and gets a piece again only when no slice of it is out.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The ring's entries, a page for [`Buffers::scratch`], and the pieces.
    memory: NonNull<u8>,
    layout: Layout,
    pieces: Vec<Piece>,
    /// Where the next piece goes in; published to the kernel by [`Buffers::refill`].
    tail: u16,
    /// Pieces in the ring.
    home: u16,
    /// Pieces that nobody has, the one used last at the end.
    spare: Vec<u16>,
    /// Slices that were not released yet.
    out: usize,
    /// The kernel knows of this memory and may write to it, so it must stay.
    in_use: bool,
}

// SAFETY: it owns its mapping, as a vector would. Slices of it in other threads are of bytes that it does
// not touch as long as they are out.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Memory of that layout. The kernel knows nothing of it yet.
    pub(super) fn new(layout: Layout) -> io::Result<Self> {
        let Layout { piece_count, .. } = layout;
        if !piece_count.is_power_of_two() || layout.piece_len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapping_len(layout),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let pieces = vec![Piece::default(); piece_count.into()];
        let spare = (0..piece_count).rev().collect();
        let mut buffers =
            Self { memory, layout, pieces, tail: 0, home: 0, spare, out: 0, in_use: false };
        buffers.refill();
        Ok(buffers)
    }

    /// Gives the ring of pieces to the kernel. From now on this memory stays mapped, unless [`Buffers::retire`] ends
    /// that.
    pub(super) fn register(&mut self, ring: &IoUring) -> io::Result<()> {
        if self.in_use {
            // Two rings would fill the same bytes.
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.in_use = true;
        let flags = if self.layout.incremental { IOU_PBUF_RING_INC } else { 0 };
        let Layout { piece_count, .. } = self.layout;
        let addr = self.memory.addr().get() as u64;
        // SAFETY: the mapping begins with that many entries, no other ring has it, and it stays mapped from here on
        // until the caller of `retire` promises that no request writes to it any more.
        unsafe { ring.submitter().register_buf_ring_with_flags(addr, piece_count, GROUP, flags) }
    }

    /// The memory is unmapped when this is dropped, if no slice of it is out.
    ///
    /// # Safety
    /// No request writes to this memory from now on: those of the ring that it was [registered](Self::register) with
    /// have completed, those that write to [`scratch`](Self::scratch) included, and no more are made.
    pub(super) unsafe fn retire(&mut self) {
        self.in_use = false;
    }

    /// Eight bytes for the kernel to write to, which nobody reads.
    pub(super) fn scratch(&self) -> *mut u8 {
        self.memory.as_ptr().wrapping_add(entries_len(self.layout))
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Pieces that the kernel can take from.
    pub(super) fn home(&self) -> usize {
        self.home.into()
    }

    /// Requests for all of which there is memory in the ring, however much there is to receive.
    pub(super) fn request_room(&self) -> usize {
        let Layout { piece_len, .. } = self.layout;
        let of_a_piece = self.layout.request_lens(false).map_or(1, |(_, len)| piece_len / len);
        self.home() * of_a_piece.max(1) as usize
    }

    /// The slice that a completion is about: `len` bytes in `piece`, of which the kernel fills more or not.
    ///
    /// # Safety
    /// A completion of the ring that this was [registered](Self::register) with says so, and this is the first call
    /// about it.
    #[inline]
    pub(super) unsafe fn take(&mut self, piece: u16, len: u32, more: bool) -> Slice {
        let incremental = self.layout.incremental;
        let info = &mut self.pieces[usize::from(piece)];
        let start = info.filled;
        assert!(
            !info.done && len <= self.layout.piece_len - start,
            "the kernel received behind a buffer's end"
        );
        info.filled += len;
        info.out += 1;
        self.out += 1;
        if !(incremental && more) {
            info.done = true;
            self.home -= 1;
        }
        let start = self.piece_offset(piece) + start as usize;
        // SAFETY: start and length lie within the mapping, by the assertion.
        let start = unsafe { self.memory.add(start) };
        Slice { start, len, piece }
    }

    /// A completion names a piece and no bytes.
    ///
    /// # Safety
    /// As for [`take`](Self::take).
    pub(super) unsafe fn take_nothing(&mut self, piece: u16) {
        // An incrementally filled piece stays the ring's first, whatever the flag says: before Linux 7.0 it
        // is wrong at the end of a stream.
        if !self.layout.incremental {
            // SAFETY: the caller's promise.
            let slice = unsafe { self.take(piece, 0, false) };
            self.release(slice);
        }
    }

    /// Takes a slice back.
    #[inline]
    pub(super) fn release(&mut self, slice: Slice) {
        let data = self.data();
        assert!(data.contains(&slice.start.addr().get()), "a buffer of another driver");
        let info = &mut self.pieces[usize::from(slice.piece)];
        info.out -= 1;
        self.out -= 1;
        if info.out == 0 && info.done {
            *info = Piece::default();
            self.spare.push(slice.piece);
        }
    }

    /// Puts a piece into the ring; the kernel sees it once it is published.
    #[inline]
    fn provide(&mut self, piece: u16) {
        let index = usize::from(self.tail & (self.layout.piece_count - 1));
        let addr = self.memory.addr().get() + self.piece_offset(piece);
        // SAFETY: the index is below the number of entries. Entries from the published tail on are not the
        // kernel's, and there are never more pieces than entries.
        unsafe {
            let entry = self.memory.cast::<Entry>().add(index).as_ptr();
            (&raw mut (*entry).addr).write(addr as u64);
            (&raw mut (*entry).len).write(self.layout.piece_len);
            (&raw mut (*entry).piece).write(piece);
        }
        self.tail = self.tail.wrapping_add(1);
        self.home += 1;
    }

    /// Puts spare pieces into the ring, as many as it is short of, and shows them to the kernel.
    #[inline]
    pub(super) fn refill(&mut self) {
        while self.home < self.layout.ring_count
            && let Some(piece) = self.spare.pop()
        {
            self.provide(piece);
        }
        // SAFETY: the mapping begins with an entry; its tail is written by this thread only.
        let tail = unsafe { &(*self.memory.cast::<Entry>().as_ptr()).tail };
        tail.store(self.tail, Ordering::Release);
    }

    /// Gives the pages of spare pieces back to the system, which has new ones when they are used again.
    pub(super) fn return_spare(&self) {
        for &piece in &self.spare {
            let start = self.piece_offset(piece);
            let end = (start + self.layout.piece_len as usize) / PAGE * PAGE;
            let start = start.next_multiple_of(PAGE);
            let Some(len @ 1..) = end.checked_sub(start) else { continue };
            let address = self.memory.as_ptr().wrapping_add(start).cast();
            // SAFETY: these are whole pages of a spare piece, which lies within the mapping: neither the kernel nor a
            // slice has any of them, and what they hold is of no use.
            let result = unsafe { libc::madvise(address, len, libc::MADV_DONTNEED) };
            debug_assert_eq!(result, 0, "{}", io::Error::last_os_error());
        }
    }

    fn piece_offset(&self, piece: u16) -> usize {
        entries_len(self.layout) + PAGE + usize::from(piece) * self.layout.piece_len as usize
    }

    /// The addresses of all pieces.
    fn data(&self) -> Range<usize> {
        let base = self.memory.addr().get();
        base + self.piece_offset(0)..base + mapping_len(self.layout)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.in_use || self.out > 0 {
            // Somebody may use it still: the address space is the price.
            return;
        }
        // SAFETY: the mapping is this one's own, no slice of it is out, and no request will write to it.
        let result = unsafe { libc::munmap(self.memory.as_ptr().cast(), mapping_len(self.layout)) };
        debug_assert_eq!(result, 0);
    }
}

fn entries_len(layout: Layout) -> usize {
    (usize::from(layout.piece_count) * size_of::<Entry>()).next_multiple_of(PAGE)
}

fn mapping_len(layout: Layout) -> usize {
    entries_len(layout) + PAGE + usize::from(layout.piece_count) * layout.piece_len as usize
}

/// Received bytes in a piece. They stay where they are until this is released: [`Buffers`] keeps its memory
/// for as long as one was not, even for ever.
#[derive(Debug)]
pub(super) struct Slice {
    start: NonNull<u8>,
    len: u32,
    piece: u16,
}

// SAFETY: nobody else touches its bytes, from whatever thread, and they stay mapped until it is released, which
// takes the driver.
unsafe impl Send for Slice {}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel has filled these bytes and is done with them, no other slice has any of them,
        // and they stay mapped until this slice is released.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Slice {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this borrow is the only one of the slice.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }
}
