//! Replacing a server by another process that asks for its listening sockets at a Unix socket.
//!
//! A new process asks at a path that both know. If a predecessor answers, it sends its sockets (SCM_RIGHTS, unix(7)) and
//! goes on accepting; it drains once the new process says that it is ready. If the new process fails before that, nothing
//! has happened. Then the new process has the path.
//!
//! ```no_run
//! use std::time::Duration;
//! use ringwire::takeover::Takeover;
//! use ringwire::{CloseCode, Config, Drain, Server, on_message};
//!
//! let mut takeover = Takeover::at("/run/echo/takeover.sock")?;
//! let server = Server::new(Config::default())
//!     .listen("0.0.0.0:9001")
//!     .inherit(takeover.sockets())
//!     .start(|_worker| on_message(|ctx, message| { ctx.send(message); }))?;
//! takeover.ready()?;
//! takeover.watch(server.handle(), Drain::new(Duration::from_secs(10), CloseCode::new(1012)))?;
//! server.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where a process may start its own successor, [`Handle::spawn_successor`] does without a path.

#![expect(clippy::disallowed_methods, reason = "a thread of its own waits for successors")]

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::handle::Handle;
use crate::limits::Drain;
use crate::net;

/// What a predecessor begins with: a name, the version of what follows, and two bytes for the number of sockets, most
/// significant first. The first of them is the one that successors ask at.
const MAGIC: &[u8; 6] = b"rwto\0\x01";
const HEAD_LEN: usize = MAGIC.len() + 2;
/// Descriptors in a message; the kernel takes 253 (SCM_MAX_FD).
const BATCH: usize = 128;
/// What goes with each batch but the first, since descriptors need a byte to go with.
const MORE: &[u8; 1] = b"+";
/// What a successor says in the end.
const READY: &[u8; 6] = b"ready\n";
/// How long the other side may take for a message, and a successor to be ready.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
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
    sockets: Vec<OwnedFd>,
}

impl Takeover {
    /// Asks at `path` for the sockets of a predecessor. If nobody listens there, this process is the first: it makes the
    /// socket, with access for its own user only, since whoever may connect may have the sockets. The file stays when the
    /// process ends, and the next one replaces it.
    ///
    /// # Errors
    /// There is another file, the socket can't be made or connected to, or the predecessor says something else.
    pub fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        match UnixStream::connect(path) {
            Ok(predecessor) => Self::ask(predecessor),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::begin(path),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if !fs::symlink_metadata(path)?.file_type().is_socket() {
                    return Err(error);
                }
                fs::remove_file(path)?;
                Self::begin(path)
            }
            Err(error) => Err(error),
        }
    }

    /// What the predecessor listens on, for [`Server::inherit`](crate::Server::inherit); none if there is no predecessor.
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
    /// The predecessor is gone, or did not wait for so long: it may go on as before.
    pub fn ready(&mut self) -> io::Result<()> {
        let Some(mut predecessor) = self.predecessor.take() else { return Ok(()) };
        predecessor.write_all(READY)?;
        // It says the same, so that both know.
        expect_ready(&mut predecessor)
    }

    /// Waits on a thread of its own for a successor, hands it the sockets of the server, and once it is ready has the
    /// server drain. A successor that fails before is logged and changes nothing.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn watch(self, handle: Handle, drain: Drain) -> io::Result<()> {
        let work = move || self.wait(&handle, &drain);
        thread::Builder::new().name("takeover".into()).spawn(work).map(drop)
    }

    fn wait(&self, handle: &Handle, drain: &Drain) {
        loop {
            let outcome =
                self.asked_at.accept().and_then(|(successor, _)| self.answer(successor, handle));
            match outcome {
                Ok(mut successor) => {
                    crate::event::info!("a successor is ready: this server drains");
                    handle.drain_with(drain);
                    // Without this word it may believe that the sockets are still shared, which is no harm.
                    let _ = successor.write_all(READY);
                    return;
                }
                Err(_) if handle.is_draining() => return,
                Err(error) => {
                    handle.handover().take_back();
                    crate::event::warn!(%error, "a successor failed, and this server goes on");
                    thread::sleep(REST);
                }
            }
        }
    }

    /// Sends the sockets, and waits until the successor is ready.
    fn answer(&self, mut successor: UnixStream, handle: &Handle) -> io::Result<UnixStream> {
        let sockets = handle.listeners()?;
        let sockets: Vec<_> = std::iter::once(self.asked_at.as_fd())
            .chain(sockets.iter().map(|it| it.as_fd()))
            .collect();
        successor.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        send(&successor, &sockets)?;
        successor.set_read_timeout(Some(READY_TIMEOUT))?;
        expect_ready(&mut successor)?;
        Ok(successor)
    }

    fn begin(path: &Path) -> io::Result<Self> {
        let socket = net::bind_unix(path, Some(0o600))?;
        let asked_at = UnixListener::from(socket);
        rustix::net::listen(&asked_at, 16)?;
        asked_at.set_nonblocking(false)?;
        Ok(Self { asked_at, predecessor: None, sockets: Vec::new() })
    }

    fn ask(predecessor: UnixStream) -> io::Result<Self> {
        predecessor.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut sockets = receive(&predecessor)?;
        if sockets.is_empty() {
            return Err(nonsense());
        }
        let asked_at = UnixListener::from(sockets.remove(0));
        Ok(Self { asked_at, predecessor: Some(predecessor), sockets })
    }
}

fn expect_ready(other: &mut UnixStream) -> io::Result<()> {
    let mut word = [0; READY.len()];
    other.read_exact(&mut word)?;
    if word == *READY { Ok(()) } else { Err(nonsense()) }
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
    if receive_batch(stream, &mut head, &mut sockets)? != HEAD_LEN || !head.starts_with(MAGIC) {
        return Err(nonsense());
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
        for word in ["", "HTTP/1.1", "rwto\0\u{2}\0\u{1}"] {
            let (mut near, far) = UnixStream::pair().unwrap();
            near.write_all(word.as_bytes()).unwrap();
            drop(near);
            let error = Takeover::ask(far).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{word}");
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
