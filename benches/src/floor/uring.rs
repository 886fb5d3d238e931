//! The raw TCP echo loop on io_uring: multishot receives into provided buffers, which are sent from where they
//! lie. A peer that does not read keeps its buffers, in the end all of them; a floor is for peers that read.

#![expect(unsafe_code, reason = "the kernel reads and writes the buffers")]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4096;
/// How often the loop looks at its stop flag when nothing happens.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
const SUBMISSION_ENTRIES: u32 = 1024;
const COMPLETION_ENTRIES: u32 = 8192;
/// Pieces of memory to receive into, which the kernel fills bit by bit.
const PIECES: u16 = 8;
const PIECE_LEN: u32 = 256 << 10;
const GROUP: u16 = 0;
/// IOU_PBUF_RING_INC of linux/io_uring.h.
const FILL_BIT_BY_BIT: u16 = 2;

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

/// A single-threaded server that echoes bytes.
pub(crate) struct UringFloor {
    // Closed before the memory that it uses is freed.
    ring: IoUring,
    memory: Memory,
    listener: Socket,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    /// Connections whose receive found no buffer.
    starved: VecDeque<usize>,
}

struct Connection {
    fd: OwnedFd,
    /// What was received and is not sent yet. The first is in flight.
    queue: VecDeque<Slice>,
    /// The receive is in the kernel.
    receiving: bool,
    /// The peer sends no more.
    ended: bool,
}

#[derive(Clone, Copy)]
struct Slice {
    piece: u16,
    start: u32,
    len: u32,
}

impl UringFloor {
    /// Listens with SO_REUSEPORT on `address`.
    pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener =
            Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        listener.set_reuse_address(true)?;
        listener.set_reuse_port(true)?;
        listener.set_tcp_nodelay(true)?;
        listener.bind(&address.into())?;
        listener.listen(BACKLOG)?;
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_no_sqarray()
            .build(SUBMISSION_ENTRIES)
            .context("io_uring_setup")?;
        let mut memory = Memory::new();
        // SAFETY: the entries are on the heap and are freed after the ring is closed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                memory.entries.as_mut_ptr().addr() as u64,
                PIECES,
                GROUP,
                FILL_BIT_BY_BIT,
            )
        }
        .context("this kernel does not fill provided buffers bit by bit (Linux 6.12)")?;
        Ok(Self { ring, memory, listener, connections: Vec::new(), starved: VecDeque::new() })
    }

    /// The address in use, with its port.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.listener.local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Serves until `stop` is set.
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let interval = Timespec::from(STOP_INTERVAL);
        let wait = SubmitArgs::new().timespec(&interval);
        let mut completions = Vec::with_capacity(COMPLETION_ENTRIES as usize);
        self.accept()?;
        while !stop.load(Ordering::Relaxed) {
            self.memory.publish();
            for _ in 0..self.starved.len().min(usize::from(PIECES)) {
                if let Some(index) = self.starved.pop_front() {
                    self.receive(index)?;
                }
            }
            match self.ring.submitter().submit_with_args(1, &wait) {
                Err(error) if !is_momentary(&error) => return Err(error),
                _ => {}
            }
            completions.extend(self.ring.completion());
            for completion in completions.drain(..) {
                self.on_completion(&completion)?;
            }
        }
        Ok(())
    }

    fn on_completion(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let index = usize::try_from(completion.user_data() >> 2).unwrap_or(usize::MAX);
        let result = completion.result();
        let more = cqueue::more(completion.flags());
        match completion.user_data() & 3 {
            ACCEPT => {
                if result >= 0 {
                    // SAFETY: the kernel has just opened it for this request.
                    self.open(unsafe { OwnedFd::from_raw_fd(result) })?;
                }
                if more { Ok(()) } else { self.accept() }
            }
            RECEIVE => {
                if let Some(Some(connection)) = self.connections.get_mut(index) {
                    connection.receiving = more;
                }
                self.on_receive(index, result, completion.flags())
            }
            _ => self.on_send(index, result),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build();
        self.push(&entry.user_data(ACCEPT))
    }

    fn open(&mut self, fd: OwnedFd) -> io::Result<()> {
        let index = usize::try_from(fd.as_raw_fd()).unwrap_or_default();
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        let queue = VecDeque::new();
        self.connections[index] = Some(Connection { fd, queue, receiving: false, ended: false });
        self.receive(index)
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return Ok(()) };
        connection.receiving = true;
        let entry = opcode::RecvMulti::new(Fd(connection.fd.as_raw_fd()), GROUP).build();
        self.push(&entry.user_data((index as u64) << 2 | RECEIVE))
    }

    fn on_receive(&mut self, index: usize, result: i32, flags: u32) -> io::Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return Ok(()) };
        match (u32::try_from(result), cqueue::buffer_select(flags)) {
            (Ok(len @ 1..), Some(piece)) => {
                let slice = self.memory.take(piece, len, cqueue::buffer_more(flags));
                connection.queue.push_back(slice);
                let idle = connection.queue.len() == 1;
                if !connection.receiving {
                    self.receive(index)?;
                }
                if idle { self.send(index) } else { Ok(()) }
            }
            _ if -result == libc::ENOBUFS => {
                self.starved.push_back(index);
                Ok(())
            }
            _ => {
                connection.ended = true;
                self.close_if_done(index);
                Ok(())
            }
        }
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let Some(Some(connection)) = self.connections.get(index) else { return Ok(()) };
        let Some(slice) = connection.queue.front() else { return Ok(()) };
        let bytes = self.memory.bytes(*slice);
        let entry = opcode::Send::new(Fd(connection.fd.as_raw_fd()), bytes, slice.len).build();
        self.push(&entry.user_data((index as u64) << 2 | SEND))
    }

    fn on_send(&mut self, index: usize, result: i32) -> io::Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return Ok(()) };
        let Some(first) = connection.queue.front_mut() else { return Ok(()) };
        let sent = u32::try_from(result).unwrap_or(0);
        first.start += sent;
        first.len -= sent;
        if sent == 0 {
            // The connection is broken: its receive ends as well.
            connection.queue.drain(..).for_each(|slice| self.memory.release(slice));
            self.close_if_done(index);
            return Ok(());
        }
        if first.len == 0
            && let Some(slice) = connection.queue.pop_front()
        {
            self.memory.release(slice);
        }
        self.close_if_done(index);
        self.send(index)
    }

    fn close_if_done(&mut self, index: usize) {
        if let Some(entry) = self.connections.get_mut(index)
            && entry
                .as_ref()
                .is_some_and(|connection| connection.ended && connection.queue.is_empty())
        {
            *entry = None;
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: receives name no memory; what sends name stays in `memory` as it is until they complete.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            match self.ring.submit() {
                Err(error) if !is_momentary(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Provided buffers.
struct Memory {
    entries: Box<PageOfEntries>,
    data: Box<[u8]>,
    pieces: Vec<Piece>,
    tail: u16,
}

#[derive(Clone, Copy, Default)]
struct Piece {
    filled: u32,
    /// Slices that are not sent yet.
    out: u32,
    done: bool,
}

/// `struct io_uring_buf`; the tail of the ring lies in the first one.
#[repr(C)]
struct Entry {
    addr: u64,
    len: u32,
    piece: u16,
    tail: AtomicU16,
}

#[repr(C, align(4096))]
struct PageOfEntries([Entry; PIECES as usize]);

impl PageOfEntries {
    fn as_mut_ptr(&mut self) -> *mut Entry {
        self.0.as_mut_ptr()
    }
}

impl Memory {
    fn new() -> Self {
        let empty = || Entry { addr: 0, len: 0, piece: 0, tail: AtomicU16::new(0) };
        let mut memory = Self {
            entries: Box::new(PageOfEntries(std::array::from_fn(|_| empty()))),
            data: vec![0; usize::from(PIECES) * PIECE_LEN as usize].into_boxed_slice(),
            pieces: vec![Piece::default(); PIECES.into()],
            tail: 0,
        };
        (0..PIECES).for_each(|piece| memory.provide(piece));
        memory.publish();
        memory
    }

    fn take(&mut self, piece: u16, len: u32, more: bool) -> Slice {
        let info = &mut self.pieces[usize::from(piece)];
        let start = info.filled;
        info.filled += len;
        info.out += 1;
        info.done = !more;
        Slice { piece, start, len }
    }

    fn bytes(&self, slice: Slice) -> *const u8 {
        let start = usize::from(slice.piece) * PIECE_LEN as usize + slice.start as usize;
        self.data[start..].as_ptr()
    }

    fn release(&mut self, slice: Slice) {
        let info = &mut self.pieces[usize::from(slice.piece)];
        info.out -= 1;
        if info.out == 0 && info.done {
            *info = Piece::default();
            self.provide(slice.piece);
        }
    }

    fn provide(&mut self, piece: u16) {
        let start = usize::from(piece) * PIECE_LEN as usize;
        let addr = self.data[start..].as_mut_ptr().addr() as u64;
        let entry = &mut self.entries.0[usize::from(self.tail % PIECES)];
        (entry.addr, entry.len, entry.piece) = (addr, PIECE_LEN, piece);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        self.entries.0[0].tail.store(self.tail, Ordering::Release);
    }
}

/// The time is up, a signal came, or completions have to be taken first.
fn is_momentary(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
}
