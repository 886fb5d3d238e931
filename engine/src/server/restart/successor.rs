//! Starting the process that goes on with this one's listening sockets.

#![expect(unsafe_code, reason = "descriptors are put in their places between fork and exec")]
#![expect(clippy::disallowed_methods, reason = "whoever waits for a process is no worker")]

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{
    AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd,
};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketType};

use crate::server::handle::Handle;
use crate::server::notify::SOCKET_VARIABLE;
use crate::server::restart::activation::{
    COUNT_VARIABLE, FIRST, NAMES_VARIABLE, PARENT_VARIABLE, PID_VARIABLE,
};

/// How often a successor that says nothing is looked at.
const LOOK: Duration = Duration::from_millis(20);

impl Handle {
    /// Starts a process that goes on with the [listening sockets](Self::listeners) of this server, and waits until it
    /// is ready, for `patience` at most. From then on both accept; a [drain](Self::drain) ends this one, and no
    /// connection is refused.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// use std::time::Duration;
    /// use ringwire::{CloseCode, Config, Notifier, Server, activation, on_message};
    ///
    /// // What the successor does, and what the first one does, which inherits nothing.
    /// let sockets = activation::sockets()?;
    /// let server = Server::new(Config::default())
    ///     .listen("0.0.0.0:9001")
    ///     .inherit(sockets.into_iter().map(|socket| socket.into_fd()))
    ///     .start(|_worker| on_message(|ctx, message| ctx.send(message)))?;
    /// if let Some(notifier) = Notifier::from_environment()? {
    ///     notifier.ready()?;
    /// }
    /// // Later, in a thread that waits for SIGUSR2, say:
    /// let mut command = Command::new(std::env::current_exe()?);
    /// command.args(std::env::args_os().skip(1));
    /// server.handle().spawn_successor(command, Duration::from_secs(30))?;
    /// server.handle().drain(Duration::from_secs(10), CloseCode::new(1012));
    /// server.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The sockets are its descriptors from 3 on, as with socket activation (sd_listen_fds(3)), and LISTEN_FDS says how
    /// many. LISTEN_PPID says that they are for a child of this process, instead of LISTEN_PID, since a child has no
    /// number before it is there. [`activation::sockets`](crate::activation::sockets) knows both. It is ready when it
    /// says so to NOTIFY_SOCKET ([`Notifier::ready`](crate::Notifier::ready)).
    ///
    /// A service manager that has started this process does not know the successor. Under systemd, have the manager
    /// hold the sockets instead ([`activation`](crate::activation)).
    ///
    /// Blocks: not for a handler.
    ///
    /// # Errors
    /// The process can't be started, has ended, or is not ready in time, in which case it is killed. This server goes
    /// on as before. Also as [`listeners`](Self::listeners).
    pub fn spawn_successor(&self, mut command: Command, patience: Duration) -> io::Result<Child> {
        let readiness = Readiness::listen()?;
        let sockets = self.listeners()?;
        command.env(SOCKET_VARIABLE, &readiness.address);
        let started = start_with(&mut command, sockets);
        // The descriptors of its own go with the command.
        drop(command);
        let outcome = started.and_then(|child| readiness.of(child, patience));
        if outcome.is_err() {
            self.handover().take_back();
        }
        outcome
    }
}

/// Starts a command that gets sockets as socket activation would give them.
fn start_with(command: &mut Command, sockets: Vec<OwnedFd>) -> io::Result<Child> {
    let count = RawFd::try_from(sockets.len()).map_err(io::Error::other)?;
    command
        .env(COUNT_VARIABLE, count.to_string())
        .env(PARENT_VARIABLE, std::process::id().to_string())
        .env_remove(PID_VARIABLE)
        .env_remove(NAMES_VARIABLE);
    // Out of the way of the places that they are to take.
    let sockets = sockets
        .iter()
        .map(|socket| Ok(rustix::io::fcntl_dupfd_cloexec(socket, FIRST + count)?))
        .collect::<io::Result<Vec<_>>>()?;
    let places: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let before = Arc::clone(&places);
    let put_in_place = move || {
        // The channel of the standard library is in one of the places, if another thread closed what was there just
        // before the channel was opened.
        for (number, before) in (FIRST..).zip(&*before) {
            let now = occupant(number);
            if now != 0 && now != before.load(Ordering::Relaxed) {
                return Err(MOVED.into());
            }
        }
        for (number, socket) in (FIRST..).zip(&sockets) {
            // SAFETY: the descriptor is this process's to replace: it runs between fork and exec, and whatever had the
            // number is closed by the exec. It is not closed by this owner, which gives the number up again.
            let mut place = unsafe { OwnedFd::from_raw_fd(number) };
            let result = rustix::io::dup2(socket.as_fd(), &mut place);
            let _ = place.into_raw_fd();
            result?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls (getsockopt, fstat, dup2), which are
    // async-signal-safe, and nothing else; it allocates nothing and waits for no lock.
    unsafe { command.pre_exec(put_in_place) };
    for _ in 0..ATTEMPTS {
        let fillers = fill(count)?;
        for (number, place) in (FIRST..).zip(&*places) {
            place.store(occupant(number), Ordering::Relaxed);
        }
        let started = command.spawn();
        drop(fillers);
        match started {
            Err(error) if error.raw_os_error() == Some(MOVED.raw_os_error()) => {}
            started => return started,
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "other threads open and close descriptors all the time: try again when the server has less to do",
    ))
}

/// Takes what is free of the places of `count` sockets. The standard library learns of a failed exec through a channel
/// that it opens when it starts a command: as long as these are taken, the channel gets another number.
fn fill(count: RawFd) -> io::Result<Vec<OwnedFd>> {
    let null = std::fs::File::open("/dev/null")?;
    let mut fillers = Vec::new();
    loop {
        let filler = rustix::io::fcntl_dupfd_cloexec(&null, FIRST)?;
        if filler.as_raw_fd() >= FIRST + count {
            return Ok(fillers);
        }
        fillers.push(filler);
    }
}

/// How often a successor is started anew whose places another thread has touched.
const ATTEMPTS: usize = 100;

/// Says that the channel may be in one of the places.
const MOVED: rustix::io::Errno = rustix::io::Errno::BUSY;

/// The inode of a descriptor that may be the channel, or 0: the kernel numbers sockets from 1. The standard library's
/// channel is one of two connected Unix sockets of type SOCK_SEQPACKET, which hardly anything else is.
fn occupant(number: RawFd) -> u64 {
    // SAFETY: the borrow ends with this function, which only asks what the descriptor is, and is told if it is none.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if rustix::net::sockopt::socket_type(borrowed) != Ok(SocketType::SEQPACKET) {
        return 0;
    }
    rustix::fs::fstat(borrowed).map_or(0, |stat| stat.st_ino)
}

/// Where a successor says that it is ready, in the words of sd_notify(3).
struct Readiness {
    socket: UnixDatagram,
    address: OsString,
}

impl Readiness {
    fn listen() -> io::Result<Self> {
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(io::Error::other)?;
        let number = u64::from_ne_bytes(number);
        let name = format!("ringwire-{}-{number:016x}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_read_timeout(Some(LOOK))?;
        // The abstract namespace has no permissions, so that each word has to say whose it is (unix(7)).
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self { socket, address: format!("@{name}").into() })
    }

    /// Waits for a process to be ready.
    fn of(self, mut child: Child, patience: Duration) -> io::Result<Child> {
        let began = Instant::now();
        let problem = loop {
            match self.next() {
                Ok(true) => return Ok(child),
                Ok(false) => {}
                Err(error) => break error,
            }
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    let problem = format!("the successor ended before it was ready: {status}");
                    return Err(io::Error::other(problem));
                }
                Err(error) => break error,
            }
            if began.elapsed() >= patience {
                break io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the successor was not ready in time",
                );
            }
        };
        // It may have ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
        Err(problem)
    }

    /// Whether the next word, if one comes soon, is that it is ready.
    fn next(&self) -> io::Result<bool> {
        let mut word = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [io::IoSliceMut::new(&mut word)];
        let received =
            rustix::net::recvmsg(&self.socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC);
        let len = match received.map_err(io::Error::from) {
            Ok(message) => message.bytes,
            Err(error) if is_quiet(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let own = rustix::process::geteuid();
        let is_ours = control.drain().any(|message| match message {
            RecvAncillaryMessage::ScmCredentials(sender) => {
                sender.uid == own || sender.uid.is_root()
            }
            _ => false,
        });
        Ok(is_ours && word[..len].split(|byte| *byte == b'\n').any(|line| line == b"READY=1"))
    }
}

fn is_quiet(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "tests own sockets")]
mod tests {
    use super::*;

    fn sockets(count: usize) -> Vec<OwnedFd> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        (0..count).map(|_| listener.try_clone().unwrap().into()).collect()
    }

    /// Also where the places of the sockets reach as far as the standard library's pipe (pre_exec of `Command`).
    #[test]
    fn a_program_that_is_not_there_is_told() {
        for count in [1, 8, 64, 300] {
            let error = start_with(&mut Command::new("/nonexistent"), sockets(count)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{count} sockets: {error}");
        }
    }

    /// Other threads close what is in the places while the channel of `Command` is opened, which takes a place then.
    #[test]
    fn descriptors_that_come_and_go_do_not_hide_that_a_program_is_not_there() {
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let busy: Vec<_> = (0..4)
            .map(|_| {
                let done = Arc::clone(&done);
                std::thread::spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        drop(UnixDatagram::pair().unwrap());
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            let error = start_with(&mut Command::new("/nonexistent"), sockets(8)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        }
        done.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_program_finds_the_sockets_in_their_places() {
        let mut command = Command::new("/bin/sh");
        // Each of them is a socket, and nothing is behind them but what the shell opens for itself.
        command.args(["-c", "for n in $(seq 3 302); do readlink /proc/self/fd/$n; done"]);
        command.stdout(std::process::Stdio::piped());
        let child = start_with(&mut command, sockets(300)).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("socket:")).count(), 300);
    }
}
