//! Listening sockets that this process was started with: by a service manager (systemd's socket activation,
//! sd_listen_fds(3)), or by a server that it is to replace
//! ([`Handle::spawn_successor`](crate::Handle::spawn_successor)).
//!
//! A manager holds the sockets open all the time, so that a restart refuses no connection: who comes meanwhile waits in
//! the backlog.
//!
//! ```no_run
//! use ringwire::{Config, Server, activation, on_message};
//!
//! let mut server = Server::new(Config::default());
//! for socket in activation::sockets()? {
//!     server = server.listen_on(socket.into_fd());
//! }
//! let server = server.start(|_worker| on_message(|ctx, message| ctx.send(message)))?;
//! # server.handle().shutdown(std::time::Duration::ZERO);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![expect(unsafe_code, reason = "descriptors are handed over as numbers")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

/// The first descriptor that is handed over (SD_LISTEN_FDS_START).
pub(crate) const FIRST: RawFd = 3;

/// How many descriptors there are.
pub(crate) const COUNT_VARIABLE: &str = "LISTEN_FDS";
/// What they are called, between colons.
pub(crate) const NAMES_VARIABLE: &str = "LISTEN_FDNAMES";
/// The process that they are for.
pub(crate) const PID_VARIABLE: &str = "LISTEN_PID";
/// Instead of that, from a server to its successor: the process whose children they are for.
pub(crate) const PARENT_VARIABLE: &str = "LISTEN_PPID";

/// The descriptors have an owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A socket that this process was started with.
#[derive(Debug)]
pub struct InheritedSocket {
    fd: OwnedFd,
    name: Option<String>,
}

impl InheritedSocket {
    /// What the manager calls it (`FileDescriptorName=`, systemd.socket(5)), if it says.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The socket, for [`Listener::socket`](crate::transport::Listener::socket).
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// The sockets that the variables LISTEN_PID (or, from a predecessor, LISTEN_PPID), LISTEN_FDS and LISTEN_FDNAMES tell
/// of; none if they are not set, or are about another process. Only the first call gets them: from then on they belong
/// to the caller, and are closed when this process starts another.
///
/// The variables are believed as far as can be checked: each descriptor is a socket that listens, and has come through
/// execve(2), which leaves it without FD_CLOEXEC. What Rust's standard library opens has that flag, so it is never
/// taken for such a socket. What is left to the caller: nothing else in the process owns a listening socket with one of
/// these numbers and without that flag, as a C library might that was asked for it before. Call this early in `main`.
///
/// # Errors
/// A variable makes no sense, or a descriptor that it tells of is no such socket. Then none is taken.
pub fn sockets() -> io::Result<Vec<InheritedSocket>> {
    let process = (std::process::id(), std::os::unix::process::parent_id());
    let names = announced(process, |name| std::env::var(name).ok())?;
    if names.is_empty() || TAKEN.load(Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let count = RawFd::try_from(names.len()).map_err(io::Error::other)?;
    (FIRST..FIRST + count).try_for_each(check)?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    (FIRST..)
        .zip(names)
        .map(|(number, name)| Ok(InheritedSocket { fd: take(number)?, name }))
        .collect()
}

/// Whether a descriptor is a socket that listens and that this process was started with.
fn check(number: RawFd) -> io::Result<()> {
    let wrong = |problem: &dyn std::fmt::Display| {
        let problem = format!("{COUNT_VARIABLE} tells of descriptor {number}: {problem}");
        io::Error::new(io::ErrorKind::InvalidInput, problem)
    };
    // SAFETY: the borrow ends with this function, which only asks what the descriptor is, and is told if it is none.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed).map_err(|error| wrong(&error))?;
    if !rustix::net::sockopt::socket_acceptconn(borrowed).unwrap_or(false) {
        return Err(wrong(&"it is no socket that listens"));
    }
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(wrong(&"this process has opened it itself, or somebody has taken it already"));
    }
    Ok(())
}

fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it is open (see `check`), and whoever started this process made it for whoever asks first, which this is.
    // That nobody else owns it is as sure as the documentation of `sockets` says.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// The name of each descriptor that is for process `own`, a child of `parent`.
fn announced(
    (own, parent): (u32, u32),
    variable: impl Fn(&str) -> Option<String>,
) -> io::Result<Vec<Option<String>>> {
    let number = |name: &str| {
        let Some(text) = variable(name) else { return Ok(None) };
        text.parse::<u32>().map(Some).map_err(|_| {
            let problem = format!("{name}={text} is no number");
            io::Error::new(io::ErrorKind::InvalidInput, problem)
        })
    };
    let Some(count) = number(COUNT_VARIABLE)? else { return Ok(Vec::new()) };
    let is_for_this = match number(PID_VARIABLE)? {
        Some(pid) => pid == own,
        None => number(PARENT_VARIABLE)? == Some(parent),
    };
    if !is_for_this {
        return Ok(Vec::new());
    }
    let names = variable(NAMES_VARIABLE).unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned);
    // So many that no limit on descriptors allows them are a mistake, which the first of them that is not open shows.
    Ok((0..count.min(1 << 20)).map(|_| names.next()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(variables: &[(&str, &str)]) -> Result<Vec<Option<String>>, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        announced((7, 5), variable).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_for_this_process_counts() {
        assert_eq!(names(&[]), Ok(Vec::new()));
        assert_eq!(names(&[("LISTEN_FDS", "2")]), Ok(Vec::new()));
        assert_eq!(names(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "8")]), Ok(Vec::new()));
        assert_eq!(names(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "7")]), Ok(vec![None, None]));
        let named = [("LISTEN_FDS", "3"), ("LISTEN_PID", "7"), ("LISTEN_FDNAMES", "plain:tls")];
        assert_eq!(names(&named), Ok(vec![Some("plain".into()), Some("tls".into()), None]));
    }

    #[test]
    fn a_parent_knows_its_child_by_its_own_number() {
        assert_eq!(names(&[("LISTEN_FDS", "1"), ("LISTEN_PPID", "5")]), Ok(vec![None]));
        assert_eq!(names(&[("LISTEN_FDS", "1"), ("LISTEN_PPID", "7")]), Ok(Vec::new()));
        let both = [("LISTEN_FDS", "1"), ("LISTEN_PPID", "5"), ("LISTEN_PID", "8")];
        assert_eq!(names(&both), Ok(Vec::new()), "the standard's word counts");
    }

    /// Only what listens, and has come through execve(2), is taken.
    #[test]
    #[expect(clippy::disallowed_types, reason = "tests own sockets")]
    fn descriptors_of_the_process_itself_are_not_taken() {
        use std::os::fd::AsRawFd as _;
        let problem = |number| check(number).unwrap_err().to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(problem(listener.as_raw_fd()).contains("opened it itself"));
        rustix::io::fcntl_setfd(&listener, FdFlags::empty()).unwrap();
        check(listener.as_raw_fd()).unwrap();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let unix = tempfile::tempfile().unwrap();
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        for number in [datagrams.as_raw_fd(), unix.as_raw_fd(), pair.as_raw_fd()] {
            assert!(problem(number).contains("no socket that listens"), "{number}");
        }
        let error = check(1 << 20).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("LISTEN_FDS tells of descriptor 1048576"), "{error}");
    }

    #[test]
    fn nonsense_is_an_error() {
        let error = names(&[("LISTEN_FDS", "many"), ("LISTEN_PID", "7")]).unwrap_err();
        assert!(error.contains("LISTEN_FDS=many"), "{error}");
        assert!(names(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "-7")]).is_err());
    }
}
