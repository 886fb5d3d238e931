//! Servers whose log goes nowhere: to a pipe that nobody reads, or to a full disk.

use std::fs::File;
use std::io::{self, PipeReader, pipe};
use std::process::Stdio;

use rustix::pipe::fcntl_setpipe_size;

/// What a pipe takes at least (F_SETPIPE_SZ of fcntl(2)).
const PIPE_LEN: usize = 4 << 10;
/// A pipe takes no line that is longer than what is left of it.
const LINE_LEN: u64 = 512;

/// Where a log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// A pipe of 4 KiB that nobody reads.
    Pipe,
    /// A full disk: every write fails with ENOSPC (full(4)).
    FullDisk,
}

/// The other end of a log, which is kept and not read.
pub(super) struct Unread(Option<PipeReader>);

impl Log {
    /// What becomes a server's standard error.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn open(self) -> io::Result<(Stdio, Unread)> {
        match self {
            Self::Pipe => {
                let (reader, writer) = pipe()?;
                fcntl_setpipe_size(&writer, PIPE_LEN)?;
                Ok((writer.into(), Unread(Some(reader))))
            }
            Self::FullDisk => {
                let full = File::options().write(true).open("/dev/full")?;
                Ok((full.into(), Unread(None)))
            }
        }
    }
}

impl Unread {
    /// Whether it takes nothing more.
    pub(super) fn is_full(&self) -> bool {
        let waiting = |reader: &PipeReader| rustix::io::ioctl_fionread(reader).unwrap_or(0);
        self.0.as_ref().is_none_or(|reader| waiting(reader) + LINE_LEN > PIPE_LEN as u64)
    }
}
