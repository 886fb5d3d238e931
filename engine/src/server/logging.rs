//! A log that may lose lines, and neither fails nor waits: [`LogWriter`], for applications.
//!
//! What writes to the log is often a worker in the middle of a turn. A subscriber that writes to standard error itself
//! holds the worker in write(2) where a pipe is full that nobody reads, and with it all connections of that worker. So
//! programs give their subscriber a [`LogWriter`], and report panics through it, since the standard library's hook
//! writes to standard error as well.
//!
//! The engine survives a subscriber that panics. It cannot survive one that waits.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the log has a thread of its own, and a lock that is never held while it writes"
)]

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{mem, thread};

use rustix::event::{PollFd, PollFlags, poll};

/// How much waits for the log's thread at most, unless [`LogWriter::with_capacity`] says otherwise.
const CAPACITY: usize = 256 << 10;

/// Takes lines at once, whatever becomes of them, and has a thread write them.
///
/// Lines past the capacity, and those that the file or pipe refuses, are lost. How many is counted
/// ([`lost_count`](Self::lost_count)), and said in the log once it takes lines again. Clones write to the same log. The
/// thread ends when the last clone is dropped and all lines are out.
///
/// With `tracing-subscriber`, colours only for people:
///
/// ```
/// use std::io::{self, IsTerminal as _};
/// use std::time::Duration;
/// use ringwire::logging::LogWriter;
///
/// let log = LogWriter::new(io::stderr())?;
/// log.report_panics();
/// let writer = log.clone();
/// tracing_subscriber::fmt()
///     .with_ansi(io::stderr().is_terminal())
///     .with_writer(move || writer.clone())
///     .init();
/// // The server runs.
/// log.flush_within(Duration::from_secs(1));
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LogWriter {
    user: Arc<User>,
}

/// What the clones share. The thread ends after the last.
#[derive(Debug)]
struct User(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    capacity: usize,
    state: Mutex<State>,
    /// There is something to be written, or nobody writes any more.
    work: Condvar,
    /// All is written.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that were lost and not yet told of.
    untold: u64,
    /// Lines that were lost.
    lost: u64,
    /// The thread writes what it has taken.
    is_busy: bool,
    has_ended: bool,
}

impl LogWriter {
    /// A log to `out`, such as standard error, with at most 256 KiB waiting, and as much again being written.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn new(out: impl Write + AsFd + Send + 'static) -> io::Result<Self> {
        Self::with_capacity(out, CAPACITY)
    }

    /// The same with at most `capacity` bytes waiting.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn with_capacity(
        out: impl Write + AsFd + Send + 'static,
        capacity: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            capacity,
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let writing = Arc::clone(&shared);
        crate::limits::memory::fit_address_space();
        thread::Builder::new().name("log".into()).spawn(move || writing.write_out(out))?;
        Ok(Self { user: Arc::new(User(shared)) })
    }

    /// Takes one or more whole lines, or counts them as lost.
    pub fn log(&self, lines: &[u8]) {
        let shared = &self.user.0;
        let mut state = shared.lock();
        if state.waiting.len() + lines.len() > shared.capacity {
            return state.lose(line_count(lines));
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        shared.work.notify_one();
    }

    /// How many lines were lost.
    pub fn lost_count(&self) -> u64 {
        self.user.0.lock().lost
    }

    /// Waits until all lines are out, but no longer than `limit`; for the end of a program. Whether they are out.
    pub fn flush_within(&self, limit: Duration) -> bool {
        // `Duration::MAX` has no `Instant` behind it.
        let until = Instant::now() + limit.min(Duration::from_secs(u32::MAX.into()));
        let shared = &self.user.0;
        let mut state = shared.lock();
        while state.is_busy || state.has_work() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = shared.idle.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Reports panics here, in place of the hook that was there (`std::panic::set_hook`). The standard library's writes
    /// to standard error and so may wait for ever.
    pub fn report_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |info| log.log(panic_report(info).as_bytes())));
    }
}

/// Never fails, and takes everything: what is written is taken as whole lines.
impl Write for LogWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.log(lines);
        Ok(lines.len())
    }

    /// Does nothing: to wait is what [`flush_within`](Self::flush_within) is for.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.work.notify_one();
    }
}

impl Shared {
    /// No panic happens in the middle of a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn write_out(&self, out: impl Write + AsFd) {
        let mut sink = Sink { out, is_torn: false };
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            state.is_busy = false;
            while !state.has_work() {
                self.idle.notify_all();
                if state.has_ended {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_busy = true;
            mem::swap(&mut lines, &mut state.waiting);
            let untold = mem::take(&mut state.untold);
            drop(state);
            let failed = sink.write_lines(&lines);
            self.lock().lose(failed);
            lines.clear();
            // What is said of losses is lost with the next lines, if need be.
            if failed == 0 && untold > 0 && sink.write_lines(notice(untold).as_bytes()) == 0 {
                continue;
            }
            self.lock().untold += untold;
        }
    }
}

impl State {
    /// Losses alone are told of with the next line, since the last attempt may have been a moment ago.
    fn has_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn lose(&mut self, count: u64) {
        self.lost += count;
        self.untold += count;
    }
}

struct Sink<W> {
    out: W,
    /// It took the beginning of a line, and then failed.
    is_torn: bool,
}

impl<W: Write + AsFd> Sink<W> {
    /// Writes lines, and gives how many of them were lost.
    fn write_lines(&mut self, lines: &[u8]) -> u64 {
        if self.is_torn && self.write(b"\n") == 1 {
            self.is_torn = false;
        }
        let written = self.write(lines);
        let (done, left) = lines.split_at(written);
        if written > 0 {
            self.is_torn = !done.ends_with(b"\n");
        }
        line_count(left)
    }

    /// How much was taken before an error, if there was one.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.out.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody else has made the pipe non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.wait() => {}
                Err(_) => break,
            }
        }
        written
    }

    /// Whether it takes something again.
    fn wait(&self) -> bool {
        let mut descriptor = [PollFd::new(&self.out, PollFlags::OUT)];
        match poll(&mut descriptor, None) {
            Ok(_) => descriptor[0].revents() == PollFlags::OUT,
            Err(error) => error == rustix::io::Errno::INTR,
        }
    }
}

fn notice(lost: u64) -> String {
    format!(
        "WARN ringwire::logging: {lost} lines of the log were lost, since they could not be written or nobody read them\n"
    )
}

/// A line that is not ended counts as well.
fn line_count(text: &[u8]) -> u64 {
    let ends = text.iter().filter(|byte| **byte == b'\n').count();
    let open = usize::from(text.last().is_some_and(|byte| *byte != b'\n'));
    u64::try_from(ends + open).unwrap_or(u64::MAX)
}

/// What the standard library says of a panic.
fn panic_report(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let mut report = format!("thread '{}' {info}\n", thread.name().unwrap_or("<unnamed>"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        // A string takes everything.
        let _ = writeln!(report, "{backtrace}");
    }
    report
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead as _, BufReader, Read as _, pipe};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn lines_come_in_order_and_whole() {
        let (mut reader, writer) = pipe().unwrap();
        let mut log = LogWriter::new(writer).unwrap();
        let mut expected = String::new();
        for number in 0..1000 {
            writeln!(expected, "line {number}").unwrap();
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert!(log.flush_within(Duration::MAX));
        assert_eq!(log.lost_count(), 0);
        // The thread ends with the last clone, and the pipe with it.
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, expected);
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_it_lost_is_said() {
        let (reader, writer) = pipe().unwrap();
        let log = LogWriter::with_capacity(writer, 1000).unwrap();
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let mut count = 0;
        // Until the pipe is full, and then until the capacity is used up.
        while log.flush_within(Duration::from_secs(2)) {
            log.log(&line);
            count += 1;
        }
        while log.lost_count() < 100 {
            log.log(&line);
            count += 1;
        }
        let lost = log.lost_count();
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        for _ in 0..count - lost {
            assert_eq!(lines.next().unwrap().len(), 99);
        }
        log.log(b"again\n");
        // The notice may come before it, if the thread has just taken the losses.
        let rest = [lines.next().unwrap(), lines.next().unwrap()];
        assert!(rest.contains(&"again".to_owned()), "{rest:?}");
        assert!(rest.iter().any(|line| line.contains(&format!("{lost} lines"))), "{rest:?}");
    }

    #[test]
    fn a_full_disk_and_a_reader_that_is_gone_lose_lines_only() {
        let (reader, gone) = pipe().unwrap();
        drop(reader);
        // full(4): writes fail with ENOSPC.
        let full = File::options().write(true).open("/dev/full").unwrap();
        for log in [LogWriter::new(full).unwrap(), LogWriter::new(gone).unwrap()] {
            log.log(b"one\ntwo\n");
            assert!(log.flush_within(SOON));
            log.log(b"three");
            assert!(log.flush_within(SOON));
            assert_eq!(log.lost_count(), 3);
        }
    }

    #[test]
    fn a_pipe_that_is_nonblocking_loses_nothing() {
        let (reader, writer) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let log = LogWriter::new(writer).unwrap();
        // Twice what the pipe holds.
        let line = [&[b'x'; 127][..], b"\n"].concat();
        for _ in 0..1024 {
            log.log(&line);
        }
        assert_eq!(BufReader::new(reader).lines().take(1024).count(), 1024);
        assert!(log.flush_within(SOON));
        assert_eq!(log.lost_count(), 0);
    }
}
