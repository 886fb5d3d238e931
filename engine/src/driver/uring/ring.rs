//! The pair of queues: how it is made, how requests go in, and the one system call that does the rest.

#![expect(
    unsafe_code,
    reason = "requests carry addresses, and the enter call has arguments that the crate's wrapper does not pass"
)]

use std::collections::VecDeque;
use std::os::fd::AsRawFd as _;
use std::time::Duration;
use std::{io, ptr};

use io_uring::types::Timespec;
use io_uring::{IoUring, cqueue, squeue};

/// Requests that one enter can take along. When a turn makes more, it enters more than once.
const SUBMISSION_ENTRIES: u32 = 1024;
/// Completions that one enter can bring. What does not fit waits in the kernel (IORING_FEAT_NODROP), and
/// costs the multishot requests concerned.
const COMPLETION_ENTRIES: u32 = 8192;

// Of linux/io_uring.h.
const IORING_ENTER_GETEVENTS: u32 = 1 << 0;
const IORING_ENTER_EXT_ARG: u32 = 1 << 3;
const IORING_ENTER_REGISTERED_RING: u32 = 1 << 4;
const IORING_REGISTER_RING_FDS: libc::c_uint = 20;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_len: u32,
    min_wait_usec: u32,
    timespec: u64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// A ring, which belongs to the thread that first enters it (IORING_SETUP_SINGLE_ISSUER).
pub(super) struct Ring {
    ring: IoUring,
    /// Requests that did not fit into the submission queue.
    backlog: VecDeque<squeue::Entry>,
    /// The thread's index for the ring, which spares the kernel the look-up of its descriptor.
    registered: Option<u32>,
    enabled: bool,
    /// Whether the kernel may have taken a request.
    entered: bool,
}

/// How long to wait, and for how much.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// Only submit.
    No,
    /// Take what is there.
    Poll,
    /// Until there is something, or until the time is up.
    Block(Option<Duration>),
}

impl Ring {
    /// A ring that is disabled until [`Ring::enable`], so that another thread than this can own it.
    pub(super) fn new() -> io::Result<Self> {
        let ring = build(true).or_else(|error| match error.raw_os_error() {
            // IORING_SETUP_NO_SQARRAY came with Linux 6.6.
            Some(libc::EINVAL) => build(false),
            _ => Err(error),
        })?;
        Ok(Self {
            ring,
            backlog: VecDeque::new(),
            registered: None,
            enabled: false,
            entered: false,
        })
    }

    pub(super) fn io_uring(&self) -> &IoUring {
        &self.ring
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether the kernel may have taken a request. It has not where a sandbox forbids to enter.
    pub(super) fn is_entered(&self) -> bool {
        self.entered
    }

    /// Makes the ring the calling thread's, once.
    #[inline]
    pub(super) fn enable(&mut self) -> io::Result<()> {
        if self.enabled { Ok(()) } else { self.enable_now() }
    }

    #[cold]
    fn enable_now(&mut self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()?;
        self.enabled = true;
        let mut update = RingFdUpdate {
            offset: u32::MAX,
            reserved: 0,
            data: u64::from(self.ring.as_raw_fd().unsigned_abs()),
        };
        // SAFETY: the kernel reads and writes the one struct that it is given, which is on this stack.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.ring.as_raw_fd(),
                IORING_REGISTER_RING_FDS,
                &raw mut update,
                1,
            )
        };
        // A thread has room for 16; without, each enter looks the descriptor up.
        self.registered = (registered == 1).then_some(update.offset);
        Ok(())
    }

    /// Queues a request; it goes to the kernel with the next enter.
    ///
    /// # Safety
    /// The memory that the request names stays valid and unused by others until its last completion.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the caller's promise.
        let pushed =
            self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !pushed {
            self.push_to_full(entry);
        }
    }

    #[cold]
    fn push_to_full(&mut self, entry: squeue::Entry) {
        self.backlog.push_back(entry);
        // What can't be submitted now is tried again by the next wait, which reports what is wrong.
        let _ = self.enable().and_then(|()| self.enter(Wait::No));
        self.refill();
    }

    fn refill(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: who pushed it has promised that its memory stays valid until its last completion.
            if unsafe { queue.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Submits everything and waits.
    ///
    /// # Errors
    /// Only what makes the ring useless.
    pub(super) fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        while !self.backlog.is_empty() {
            let before = self.backlog.len();
            self.enter(Wait::No)?;
            self.refill();
            if self.backlog.len() == before {
                // The kernel takes nothing until completions are taken from it.
                return self.enter(Wait::Poll);
            }
        }
        self.enter(wait)
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let to_submit = self.ring.submission().len();
        let (flags, min_complete, timeout) = match wait {
            Wait::No => (0, 0, None),
            Wait::Poll => (IORING_ENTER_GETEVENTS, 0, None),
            Wait::Block(timeout) => (IORING_ENTER_GETEVENTS, 1, timeout),
        };
        let timespec = timeout.map(Timespec::from);
        let argument = GetEventsArg {
            sigmask: 0,
            sigmask_len: 0,
            min_wait_usec: 0,
            timespec: timespec.as_ref().map_or(0, |timespec| ptr::from_ref(timespec).addr() as u64),
        };
        let (descriptor, registered) = match self.registered {
            Some(index) => (i64::from(index), IORING_ENTER_REGISTERED_RING),
            None => (i64::from(self.ring.as_raw_fd()), 0),
        };
        // SAFETY: the argument and the time in it are on this stack and outlive the call. What the
        // submitted requests name is valid by the promise of whoever pushed them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                descriptor,
                to_submit,
                min_complete,
                flags | registered | IORING_ENTER_EXT_ARG,
                &raw const argument,
                size_of::<GetEventsArg>(),
            )
        };
        if result >= 0 {
            self.entered = true;
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // What seccomp(2) answers in the kernel's place.
        self.entered |=
            !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
        match error.raw_os_error() {
            // The time is up, a signal came, or completions have to be taken before requests are.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        }
    }

    /// Takes all completions that the kernel has handed out.
    #[inline]
    pub(super) fn take_completions(&mut self, into: &mut VecDeque<cqueue::Entry>) {
        into.extend(self.ring.completion());
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("fd", &self.ring.as_raw_fd())
            .field("backlog", &self.backlog.len())
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

fn build(no_sqarray: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(COMPLETION_ENTRIES)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_r_disabled();
    if no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(SUBMISSION_ENTRIES)
}
