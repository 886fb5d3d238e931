//! Replacing a server by another process that asks for its listening sockets at a Unix socket.
//!
//! A new process asks at a path that both know. If a predecessor answers, it sends its sockets (SCM_RIGHTS, unix(7))
//! and goes on accepting; it drains once the new process says that it is ready. If the new process fails before that,
//! nothing has happened. Then the new process has the path.
//!
//! - *Should the new process die* while the old one still drains, the old one accepts again ([`Handle::undrain`]).
//!   Ending in good order is no death.
//! - *Should it hang*, so that it never says that it is ready, the next one that asks is served in its place, and it is
//!   refused should it say so after all. At the latest after [`with_ready_timeout`](Takeover::with_ready_timeout) it
//!   counts as failed.
//! - *Of processes that start at once* one is the first, also where an earlier one has left the socket's file behind;
//!   the others ask it.
//!
//! ```no_run
//! use std::time::Duration;
//! use ringwire::takeover::Takeover;
//! use ringwire::{CloseCode, Config, Server, on_message, shutdown::Drain};
//!
//! let mut takeover = Takeover::at("/run/echo/takeover.sock")?;
//! let server = Server::new(Config::default())
//!     .listen("0.0.0.0:9001")
//!     .inherit(takeover.sockets())
//!     .start(|_worker| on_message(|ctx, message| ctx.send(message)))?;
//! // An error of the kind ConnectionRefused: another process takes over, and this one is to end.
//! takeover.ready()?;
//! takeover.watch(server.handle(), Drain::new(Duration::from_secs(10), CloseCode::new(1012)))?;
//! server.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where a process may start its own successor, [`Handle::spawn_successor`] does without a path.

#![expect(clippy::disallowed_methods, reason = "a thread of its own waits for successors")]

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::entry::claim;
use crate::hub::handover::Line;
use crate::limits::Drain;
use crate::net;
use crate::server::handle::Handle;

/// What a predecessor begins with: a name, the version of what follows, and two bytes for the number of sockets, most
/// significant first. The first of them is the one that successors ask at.
const MAGIC: &[u8; 6] = b"rwto\0\x02";
const HEAD_LEN: usize = MAGIC.len() + 2;
/// Descriptors in a message; the kernel takes 253 (SCM_MAX_FD).
const BATCH: usize = 128;
/// What goes with each batch but the first, since descriptors need a byte to go with.
const MORE: &[u8; 1] = b"+";

/// What one side says to the other.
type Word = [u8; 6];
/// Of a successor: it accepts connections. Of the predecessor: it has understood.
const READY: &Word = b"ready\n";
/// Of a predecessor: another process is the successor.
const OTHER: &Word = b"other\n";
/// Of a successor that was ready: it ends in good order, or has a successor itself. If the connection ends without, it
/// has died.
const LEAVES: &Word = b"leave\n";

/// How long the other side may take for a message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than any program runs: an `Instant` cannot be later than all others.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
/// How long a successor may take to be ready, by default.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long after a failure nobody is listened to.
const REST: Duration = Duration::from_millis(200);

/// Where successors ask for the listening sockets of this process, which may have asked a predecessor itself. See the
/// [module's documentation](self).
#[derive(Debug)]
pub struct Takeover {
    /// Where successors ask: one's own, or the predecessor's.
    asked_at: UnixListener,
    /// The way to the predecessor, which waits to be told.
    predecessor: Option<UnixStream>,
    /// The way to the predecessor that has been told.
    line: Option<Line>,
    sockets: Vec<OwnedFd>,
    ready_timeout: Duration,
}

impl Takeover {
    /// Asks at `path` for the sockets of a predecessor. If nobody listens there, this process is the first: it makes
    /// the socket, with access for its own user only, since whoever may connect may have the sockets. The file stays
    /// when the process ends, and the next one replaces it.
    ///
    /// # Errors
    /// There is another file, the socket can't be made or connected to, or the predecessor says something else, or
    /// nothing for 10 s.
    pub fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        claim::patiently(&path.display(), ANSWER_TIMEOUT, || match Self::find(path)? {
            Found::Place(asked_at) => Ok(Self::new(asked_at, None, Vec::new())),
            Found::Predecessor(predecessor) => Self::ask(predecessor),
        })
    }

    /// How long a successor may take from asking to [being ready](Self::ready), before it counts as failed. Default: 60
    /// s. Another one that asks meanwhile does not wait for that.
    #[must_use]
    pub fn with_ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// What the predecessor listens on, for [`Server::inherit`](crate::Server::inherit); none if there is no
    /// predecessor.
    pub fn sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }

    /// Whether there is a predecessor that waits to be told that this process is [ready](Self::ready).
    pub fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Tells the predecessor, if there is one, that this process accepts connections: it drains now. To be called once
    /// the server runs.
    ///
    /// # Errors
    /// Of the kind [`ConnectionRefused`](io::ErrorKind::ConnectionRefused): another process takes over, or this one
    /// took too long, and it is to end. Else the predecessor is gone, and this process may go on.
    pub fn ready(&mut self) -> io::Result<()> {
        let Some(mut predecessor) = self.predecessor.take() else { return Ok(()) };
        // One that has refused this process may be gone; its word is there yet.
        let told = predecessor.write_all(READY);
        match read_word(&mut predecessor) {
            Ok(word) if word == *READY => {
                self.line = Some(Line::new(predecessor, LEAVES));
                Ok(())
            }
            Ok(word) if word == *OTHER => {
                let problem =
                    "another process takes over, or this one was not ready in time: it is to end";
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, problem))
            }
            Ok(_) => Err(nonsense()),
            Err(error) => Err(told.err().unwrap_or(error)),
        }
    }

    /// Waits on a thread of its own for a successor, hands it the sockets of the server, and once it is ready has the
    /// server drain. A successor that fails before is logged and changes nothing; one that dies afterwards has the
    /// server [go on](Handle::undrain), and the next is waited for.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn watch(mut self, handle: Handle, drain: Drain) -> io::Result<()> {
        if let Some(line) = self.line.take() {
            handle.handover().set_line(line);
        }
        let work = move || while self.hand_over(&handle, &drain) {};
        thread::Builder::new().name("takeover".into()).spawn(work).map(drop)
    }

    /// From one successor to its end; whether there may be another.
    fn hand_over(&self, handle: &Handle, drain: &Drain) -> bool {
        let Some(mut successor) = self.next_successor(handle) else { return false };
        crate::base::event::info!("a successor is ready: this server drains");
        handle.drain_with(drain);
        // Without this word it may believe that the sockets are still shared, which is no harm.
        let _ = successor.write_all(READY);
        let word = successor.set_read_timeout(None).and_then(|()| read_word(&mut successor));
        if word.is_ok_and(|word| word == *LEAVES) {
            handle.give_up_sockets();
            return false;
        }
        let goes_on = handle.undrain();
        if goes_on {
            crate::base::event::warn!(
                "the successor has died: this server accepts connections again"
            );
        }
        goes_on
    }

    /// Waits for a process that asks for the sockets and is ready. None: the server drains for another reason.
    fn next_successor(&self, handle: &Handle) -> Option<UnixStream> {
        let mut candidate: Option<Candidate> = None;
        loop {
            let event = match self.next_event(candidate.as_ref()) {
                Ok(event) => event,
                Err(error) => {
                    crate::base::event::warn!(%error, "cannot wait for a successor");
                    thread::sleep(REST);
                    continue;
                }
            };
            let failure = match (event, candidate.take()) {
                (Event::Spoke, Some(mut asked)) => match read_word(&mut asked.stream) {
                    Ok(word) if word == *READY => return Some(asked.stream),
                    Ok(_) => Some(nonsense()),
                    Err(error) => Some(error),
                },
                (Event::Late, Some(asked)) => {
                    asked.refuse();
                    Some(io::Error::new(io::ErrorKind::TimedOut, "it was not ready in time"))
                }
                (Event::Asked(stream), before) => {
                    if let Some(before) = before {
                        before.refuse();
                        handle.handover().take_back();
                    }
                    match self.answer(stream, handle) {
                        Ok(next) => {
                            candidate = Some(next);
                            None
                        }
                        Err(_) if handle.is_draining() => return None,
                        Err(error) => Some(error),
                    }
                }
                (Event::Spoke | Event::Late, None) => None,
            };
            if let Some(error) = failure {
                handle.handover().take_back();
                crate::base::event::warn!(%error, "a successor failed, and this server goes on");
            }
        }
    }

    /// Waits until somebody asks, or the one who asked last says something or is late.
    fn next_event(&self, candidate: Option<&Candidate>) -> io::Result<Event> {
        let timeout = match candidate {
            Some(candidate) => {
                let left = candidate.deadline.saturating_duration_since(Instant::now());
                Some(Timespec::try_from(left).map_err(io::Error::other)?)
            }
            None => None,
        };
        let asked_at = PollFd::new(&self.asked_at, PollFlags::IN);
        let stream = candidate.map(|it| PollFd::new(&it.stream, PollFlags::IN));
        let mut all: Vec<_> = std::iter::once(asked_at).chain(stream).collect();
        match poll(&mut all, timeout.as_ref()) {
            Ok(0) => return Ok(Event::Late),
            Err(error) if error != Errno::INTR => return Err(error.into()),
            _ => {}
        }
        // Who is ready goes first: the others ask the new process then.
        if all.get(1).is_some_and(|stream| !stream.revents().is_empty()) {
            return Ok(Event::Spoke);
        }
        Ok(Event::Asked(self.asked_at.accept()?.0))
    }

    /// Sends the sockets.
    fn answer(&self, stream: UnixStream, handle: &Handle) -> io::Result<Candidate> {
        let sockets = handle.listeners()?;
        let sockets: Vec<_> = std::iter::once(self.asked_at.as_fd())
            .chain(sockets.iter().map(|it| it.as_fd()))
            .collect();
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        send(&stream, &sockets)?;
        Ok(Candidate { stream, deadline: Instant::now() + self.ready_timeout.min(FOR_EVER) })
    }

    fn new(asked_at: UnixListener, predecessor: Option<UnixStream>, sockets: Vec<OwnedFd>) -> Self {
        Self { asked_at, predecessor, line: None, sockets, ready_timeout: READY_TIMEOUT }
    }

    /// A predecessor, or the place to be one. Nobody else looks meanwhile, so that of many that start at once one has
    /// it.
    fn find(path: &Path) -> io::Result<Found> {
        let _lock = claim::lock(path)?;
        match net::connect_unix(path) {
            Ok(predecessor) => return Ok(Found::Predecessor(predecessor.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if !fs::symlink_metadata(path)?.file_type().is_socket() {
                    return Err(error);
                }
                fs::remove_file(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(busy("too many processes ask there"));
            }
            Err(error) => return Err(error),
        }
        let asked_at = UnixListener::from(net::bind_unix(path, Some(0o600))?);
        rustix::net::listen(&asked_at, 16)?;
        Ok(Found::Place(asked_at))
    }

    fn ask(predecessor: UnixStream) -> io::Result<Self> {
        predecessor.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut sockets = receive(&predecessor).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the process that listens there did not answer within {ANSWER_TIMEOUT:?}"),
            ),
            // It has ended since, so this process may be the first.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                busy("the process that listens there ended before it answered")
            }
            _ => error,
        })?;
        if sockets.is_empty() {
            return Err(nonsense());
        }
        let asked_at = UnixListener::from(sockets.remove(0));
        Ok(Self::new(asked_at, Some(predecessor), sockets))
    }
}

/// What is at a path.
enum Found {
    Place(UnixListener),
    Predecessor(UnixStream),
}

/// Something that a server which waits for successors learns.
enum Event {
    Asked(UnixStream),
    /// Who has asked says something, or is gone.
    Spoke,
    /// Who has asked was not ready in time.
    Late,
}

/// A process that has the sockets, and is not ready yet.
struct Candidate {
    stream: UnixStream,
    deadline: Instant,
}

impl Candidate {
    /// Says that it is no successor, whenever it should ask.
    fn refuse(mut self) {
        let pid = rustix::net::sockopt::socket_peercred(&self.stream)
            .map_or(0, |it| it.pid.as_raw_nonzero().get());
        crate::base::event::warn!(
            pid,
            "a process has the sockets and did not say that it is ready: it should be ended"
        );
        let _ = self.stream.write_all(OTHER);
    }
}

/// An error after which trying again helps.
fn busy(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, problem)
}

fn read_word(other: &mut UnixStream) -> io::Result<Word> {
    let mut word = [0; size_of::<Word>()];
    other.read_exact(&mut word)?;
    Ok(word)
}

fn send(stream: &UnixStream, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let count = u16::try_from(sockets.len()).map_err(io::Error::other)?;
    let head = [&MAGIC[..], &count.to_be_bytes()].concat();
    let words = std::iter::once(&head[..]).chain(std::iter::repeat(&MORE[..]));
    for (word, batch) in words.zip(sockets.chunks(BATCH)) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(batch)) {
            return Err(io::Error::other("there is no room for the descriptors"));
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = rustix::net::sendmsg(stream, &[IoSlice::new(word)], &mut control, flags)?;
        if sent != word.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    let mut head = [0; HEAD_LEN];
    match receive_batch(stream, &mut head, &mut sockets)? {
        HEAD_LEN if head.starts_with(MAGIC) => {}
        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
        _ => return Err(nonsense()),
    }
    let count = usize::from(u16::from_be_bytes([head[HEAD_LEN - 2], head[HEAD_LEN - 1]]));
    while sockets.len() < count {
        let mut word = [0; MORE.len()];
        let before = sockets.len();
        if receive_batch(stream, &mut word, &mut sockets)? == 0 || sockets.len() == before {
            return Err(nonsense());
        }
    }
    Ok(sockets)
}

/// One message: the bytes, and the descriptors that came with them.
fn receive_batch(
    stream: &UnixStream,
    word: &mut [u8],
    sockets: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(word)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(stream, &mut buffers, &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            sockets.extend(passed);
        }
    }
    Ok(received.bytes)
}

fn nonsense() -> io::Error {
    let problem = "what listens there is no predecessor of this server";
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_sockets_go_over_in_batches() {
        let (near, far) = UnixStream::pair().unwrap();
        for count in [1, 2, BATCH, BATCH + 1, 3 * BATCH] {
            let sockets: Vec<_> = (0..count).map(|_| near.as_fd()).collect();
            send(&near, &sockets).unwrap();
            assert_eq!(receive(&far).unwrap().len(), count);
        }
    }

    #[test]
    fn what_says_something_else_is_no_predecessor() {
        for word in ["H", "HTTP/1.1", "rwto\0\u{3}\0\u{1}"] {
            let (mut near, far) = UnixStream::pair().unwrap();
            near.write_all(word.as_bytes()).unwrap();
            drop(near);
            let error = Takeover::ask(far).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{word}");
        }
    }

    /// Also where one was left behind: between finding that out and taking its place nobody else may do the same.
    #[test]
    fn of_those_that_start_at_once_one_is_the_first() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let path = dir.path().join(format!("takeover{round}"));
            drop(UnixListener::bind(&path).unwrap());
            let found = thread::scope(|scope| {
                let start = || scope.spawn(|| Takeover::find(&path).unwrap());
                let all: Vec<_> = (0..8).map(|_| start()).collect();
                all.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
            });
            let firsts = found.iter().filter(|it| matches!(it, Found::Place(_)));
            assert_eq!(firsts.count(), 1);
        }
    }

    #[test]
    fn the_first_makes_the_socket_for_its_user_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("takeover");
        let first = Takeover::at(&path).unwrap();
        assert!(!first.has_predecessor());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        assert!(!Takeover::at(&path).unwrap().has_predecessor(), "what was left is replaced");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "letters").unwrap();
        assert!(Takeover::at(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"letters");
    }
}
