//! Whether this machine has what the driver needs. A kernel's version does not say, since sandboxes and settings
//! refuse what it has and distributions add what it has not; so everything is done once.

use std::io::{self, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Layout, Uring};
use crate::base::output::Output;
use crate::driver::{Completion, Driver as _, Op, SendBuffer, Token};

/// How long a probe may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Memory that a worker receives into, at most.
const MEMORY_LEN: usize = 2 << 20;
/// What of it stands in the ring where sockets take turns: so little that it stays in the cache of a core. What does
/// not fit into it waits for the next enter (docs/decisions/receive-memory.md).
const RING_LEN: usize = 512 << 10;
/// The same where the kernel uses up a whole piece for each completion.
const WHOLE_MEMORY_LEN: usize = 8 << 20;
/// Long pieces, since the end of one cuts what is received: with 64 KiB, echoing 16 KiB messages took 1.6 times the
/// CPU time (docs/decisions/receive-memory.md).
const PIECE_LEN: u32 = 256 << 10;
const WHOLE_PIECE_LEN: u32 = 16 << 10;

/// How the memory of a worker is divided on this machine, with at most that much for one completion.
///
/// # Errors
/// The driver can't be had, with the likely cause in the text.
pub(crate) fn probe(receive_buffer_len: usize) -> io::Result<Layout> {
    let most = u32::try_from(receive_buffer_len).unwrap_or(u32::MAX);
    // Turns came with Linux 6.17, IOU_PBUF_RING_INC with 6.12.
    let piece_len = PIECE_LEN.max(most);
    let layouts = [
        layout(piece_len, MEMORY_LEN, true).with_turns(most, RING_LEN),
        layout(most.min(PIECE_LEN), MEMORY_LEN, true),
        layout(most.min(WHOLE_PIECE_LEN), WHOLE_MEMORY_LEN, false),
    ];
    let mut refusal = io::Error::from_raw_os_error(libc::EINVAL);
    for layout in layouts {
        match try_out(layout) {
            Ok(()) => return Ok(layout),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = error,
            Err(error) => return Err(explain(error)),
        }
    }
    Err(explain(refusal))
}

/// As many pieces as fit, a power of two.
fn layout(piece_len: u32, memory_len: usize, incremental: bool) -> Layout {
    let fit = (memory_len / piece_len.max(1) as usize).clamp(2, 1 << 15);
    let piece_count = u16::try_from(1_usize << fit.ilog2()).unwrap_or(1 << 15);
    Layout { piece_len, piece_count, ring_count: piece_count, incremental, turn_len: 0 }
}

impl Layout {
    /// The same where sockets take turns, with so much memory in the ring.
    fn with_turns(self, turn_len: u32, ring_len: usize) -> Self {
        // Two at least, so that the end of one is not the end of what can be received.
        let fit = (ring_len / self.piece_len.max(1) as usize).max(2);
        let ring_count = u16::try_from(fit).unwrap_or(u16::MAX).min(self.piece_count);
        Self { turn_len, ring_count, ..self }
    }
}

/// Receives on a socket until told to stop, sends, and closes.
fn try_out(layout: Layout) -> io::Result<()> {
    let mut driver = Uring::new(Vec::new(), layout)?;
    let (near, mut far) = UnixStream::pair()?;
    let token = Token { slot: 0, generation: 0 };
    driver.submit(Op::Open { token, socket: near.into() });
    driver.submit(Op::Receive { token });
    let (mut received, mut sent, mut closed) = (0, false, false);
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        // Twice, to see that the request goes on by itself.
        if received < 2 {
            far.write_all(b"r")?;
        }
        driver.wait(Some(PATIENCE))?;
        while let Some(completion) = driver.next_completion() {
            match completion {
                Completion::Received { buffer, .. } => {
                    received += buffer.len();
                    driver.release(buffer);
                    if received == 2 {
                        let buffer = SendBuffer::new(Output::Own(vec![b's']));
                        driver.submit(Op::Send { token, buffer });
                    }
                }
                Completion::ReceiveEnded { result, .. } if !sent => {
                    return Err(result.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into()));
                }
                Completion::Sent { result, .. } => {
                    result?;
                    sent = true;
                    driver.submit(Op::Close { token });
                }
                Completion::Closed { .. } => closed = true,
                _ => {}
            }
        }
        if closed {
            return Ok(());
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, "io_uring took requests and did not complete them"))
}

/// Adds the likely cause to what the kernel said.
pub(crate) fn explain(error: io::Error) -> io::Error {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let setting = setting.as_deref().map_or("", str::trim);
    match cause(error.raw_os_error(), setting) {
        Some(cause) => io::Error::new(error.kind(), format!("{error}: {cause}")),
        None => error,
    }
}

fn cause(errno: Option<i32>, io_uring_disabled: &str) -> Option<String> {
    let cause = match errno? {
        libc::EPERM if io_uring_disabled == "1" => {
            "io_uring is disabled by kernel.io_uring_disabled=1 but for the members of \
             kernel.io_uring_group and for CAP_SYS_ADMIN"
        }
        libc::EPERM if io_uring_disabled == "2" => {
            "io_uring is disabled by kernel.io_uring_disabled=2"
        }
        libc::EPERM | libc::EACCES => {
            "a sandbox forbids io_uring, as the default seccomp profiles of container engines do"
        }
        libc::ENOSYS => "this kernel, or a sandbox, has no io_uring",
        libc::EINVAL => "this kernel's io_uring is too old: Linux 6.1 or newer is needed",
        libc::ENOMEM => {
            "memory for the rings is short, or more than RLIMIT_MEMLOCK would be locked: raise it with \
             ulimit -l or LimitMEMLOCK="
        }
        libc::EMFILE => {
            "the process has RLIMIT_NOFILE descriptors open: raise it with ulimit -n or LimitNOFILE="
        }
        libc::ENFILE => "the machine has fs.file-max files open",
        _ => return None,
    };
    Some(cause.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_it() {
        let layout = probe(128 << 10).unwrap();
        assert!(layout.piece_count >= 8);
    }

    #[test]
    fn what_older_kernels_get_works_too() {
        try_out(layout(64 << 10, MEMORY_LEN, true)).unwrap();
        try_out(layout(WHOLE_PIECE_LEN, WHOLE_MEMORY_LEN, false)).unwrap();
    }

    #[test]
    fn the_memory_is_divided_into_a_power_of_two() {
        for (piece_len, count) in
            [(65536, 32), (4096, 512), (60_000, 32), (512, 4096), (1 << 30, 2)]
        {
            let layout = layout(piece_len, MEMORY_LEN, true);
            assert_eq!((layout.piece_len, layout.piece_count), (piece_len, count));
            assert_eq!(layout.ring_count, layout.piece_count);
        }
    }

    #[test]
    fn the_ring_has_few_pieces_where_sockets_take_turns() {
        for (piece_len, count) in [(256 << 10, 2), (1 << 20, 2), (1 << 30, 2), (64 << 10, 8)] {
            let layout = layout(piece_len, MEMORY_LEN, true).with_turns(64 << 10, RING_LEN);
            assert_eq!(layout.ring_count, count, "{piece_len}");
        }
    }

    #[test]
    fn refusals_name_their_cause() {
        let causes = [
            (libc::EPERM, "2", "kernel.io_uring_disabled=2"),
            (libc::EPERM, "1", "kernel.io_uring_disabled=1"),
            (libc::EPERM, "0", "seccomp"),
            (libc::ENOSYS, "", "no io_uring"),
            (libc::EINVAL, "0", "6.1"),
            (libc::ENOMEM, "0", "RLIMIT_MEMLOCK"),
            (libc::EMFILE, "0", "RLIMIT_NOFILE"),
        ];
        for (errno, setting, expected) in causes {
            let text = cause(Some(errno), setting).unwrap();
            assert!(text.contains(expected), "{text}");
        }
        let explained = explain(io::Error::from_raw_os_error(libc::EMFILE)).to_string();
        assert!(
            explained.contains("os error 24") && explained.contains("ulimit -n"),
            "{explained}"
        );
    }
}
