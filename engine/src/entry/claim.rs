//! Claiming a place to listen on, a port or the path of a Unix socket, so that no two servers have it.

#![expect(clippy::disallowed_methods, reason = "whoever starts a server waits, and is no worker")]

use std::fs::{self, File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::config::Config;
use crate::error::Error;
use crate::net;

/// How long the next attempt is waited for, at least and at most: at random, so that two that are in each other's way
/// are not so again.
const PAUSE_MS: std::ops::Range<u64> = 2..12;
/// How long the copies of a socket may take to be closed.
const LAST_LOOK: Duration = Duration::from_millis(100);
/// How long a directory's lock is waited for. Who locks it as below has done in far less.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

// Ports

/// The first socket at each address of a server that starts. See [`net::listen_first`] for what the kernel guarantees.
#[derive(Debug)]
pub(crate) struct Claims {
    /// Where this server listens, or its predecessor.
    ours: Vec<SocketAddr>,
    /// What was asked for, and the socket there.
    firsts: Vec<(SocketAddr, OwnedFd)>,
}

impl Claims {
    /// None yet, beside what a predecessor has at `ours`.
    pub(crate) fn new(ours: Vec<SocketAddr>) -> Self {
        Self { ours, firsts: Vec::new() }
    }

    /// Claims addresses where nothing of this server listens yet.
    ///
    /// One server may listen at addresses that overlap, such as `[::]:80` and `127.0.0.1:80`. The widest come first:
    /// what they have, no other process has, and the others share it with them.
    pub(crate) fn take(
        &mut self,
        addresses: impl Iterator<Item = SocketAddr>,
        config: &Config,
    ) -> Result<(), Error> {
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort_by_key(|address| width(address.ip()));
        for address in addresses {
            let error = |source| Error::Listen { address: address.to_string(), source };
            let socket = self.claim(address, config).map_err(error)?;
            self.ours.push(net::local_addr(&socket).map_err(error)?);
            self.firsts.push((address, socket));
        }
        Ok(())
    }

    fn claim(&self, address: SocketAddr, config: &Config) -> io::Result<OwnedFd> {
        if !config.exclusive || self.ours.iter().any(|ours| overlap(*ours, address)) {
            return net::listen(address, config.into());
        }
        patiently(&address, config.listen_timeout, || net::listen_first(address, config.into())).map_err(
            |error| match error.kind() {
                io::ErrorKind::AddrInUse => io::Error::new(
                    error.kind(),
                    "another process uses that port: end it, take over from it (docs/restart.md), or have both share the \
                     port (exclusive = false)",
                ),
                _ => error,
            },
        )
    }

    /// The socket that was claimed for an address.
    pub(crate) fn first(&mut self, wanted: SocketAddr, config: &Config) -> io::Result<OwnedFd> {
        match self.firsts.iter().position(|(address, _)| *address == wanted) {
            Some(index) => Ok(self.firsts.remove(index).1),
            None => self.claim(wanted, config),
        }
    }
}

/// The wider, the lower.
fn width(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => 0,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => 1,
        _ => 2,
    }
}

/// Whether a connection may be for both. Sockets of IPv6 take IPv4 as well (ipv6(7), IPV6_V6ONLY), as mapped addresses.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let has = |wide: IpAddr, ip: IpAddr| match width(wide) {
        0 => true,
        1 => ip.to_canonical().is_ipv4(),
        _ => wide.to_canonical() == ip.to_canonical(),
    };
    one.port() == other.port() && (has(one.ip(), other.ip()) || has(other.ip(), one.ip()))
}

/// Tries again for a while where another is there already: it may be about to go.
pub(crate) fn patiently<T>(
    place: &dyn std::fmt::Display,
    patience: Duration,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let began = Instant::now();
    let mut is_first = true;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if began.elapsed() >= patience {
                    return Err(error);
                }
            }
            outcome => return outcome,
        }
        if std::mem::take(&mut is_first) {
            crate::base::event::info!(%place, ?patience, "another process is there: trying again for a while");
        }
        pause();
    }
}

fn pause() {
    let mut random = [0];
    // Without chance they may need another round.
    let _ = getrandom::fill(&mut random);
    let ms = PAUSE_MS.start + u64::from(random[0]) % (PAUSE_MS.end - PAUSE_MS.start);
    thread::sleep(Duration::from_millis(ms));
}

// Paths

/// Keeps other servers from looking at, removing and making sockets in the directory of `path` for as long as this
/// lives (flock(2) on the directory itself, so that no file stays behind). None where that cannot be had.
///
/// # Errors
/// There is no such directory.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let began = Instant::now();
    let problem = match File::open(directory) {
        Ok(file) => loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_PATIENCE => pause(),
                Err(TryLockError::WouldBlock) => break io::ErrorKind::WouldBlock.into(),
                Err(TryLockError::Error(error)) => break error,
            }
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
        Err(error) => return Err(error),
    };
    crate::base::event::warn!(
        directory = %directory.display(),
        error = %problem,
        "cannot lock the directory: do not start two servers on this path at the same moment, both may believe that \
         they listen"
    );
    Ok(None)
}

/// The file of a Unix socket, which goes with this, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// It is a successor's.
    stays: bool,
    /// It was a predecessor's, which may go on.
    is_inherited: bool,
}

impl SocketFile {
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        let (device, inode) = (file.dev(), file.ino());
        Ok(Self { path: path.to_owned(), device, inode, stays: false, is_inherited: false })
    }

    /// That of a socket which a predecessor has made, and goes on with where this server comes to nothing.
    pub(crate) fn inherited(path: &Path) -> io::Result<Self> {
        let mut file = Self::at(path)?;
        file.is_inherited = true;
        Ok(file)
    }

    /// Whether a predecessor still listens there. The sockets of this server are closed.
    fn is_in_use(&self) -> bool {
        let began = Instant::now();
        // A process that was forked meanwhile may have a copy of the socket until it has started its program.
        // Nor is a file removed of which that is not known: whoever needs the path replaces one that nobody uses.
        while self.is_inherited && net::is_listened_on(&self.path).unwrap_or(true) {
            if began.elapsed() > LAST_LOOK {
                return true;
            }
            // Each look is a connection that the predecessor accepts.
            thread::sleep(LAST_LOOK / 2);
        }
        false
    }

    /// Leaves the file to a successor.
    pub(crate) fn leave(mut self) {
        self.stays = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // Without it, another could put its socket there between these two steps.
        let _lock = lock(&self.path);
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode));
        if is_ours
            && !self.is_in_use()
            && let Err(error) = fs::remove_file(&self.path)
        {
            crate::base::event::warn!(path = %self.path.display(), %error, "a socket's file could not be removed");
        }
    }
}

/// Listens at a path, in place of a socket that nobody listens on any more.
pub(crate) fn listen_unix(
    path: &Path,
    mode: Option<u32>,
    config: &Config,
) -> io::Result<(OwnedFd, SocketFile)> {
    patiently(&path.display(), config.listen_timeout, || {
        let _lock = lock(path)?;
        make_way(path)?;
        let socket = net::bind_unix(path, mode)?;
        let file = SocketFile::at(path)?;
        net::start_listening(&socket, config.into())?;
        Ok((socket, file))
    })
}

/// Removes a socket that nobody listens on. The directory is to be [locked](lock).
fn make_way(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is another file"))
        }
        Ok(_) if net::is_listened_on(path)? => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"))
        }
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_as_the_kernel_sees_it() {
        let overlaps = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(one, other), overlap(other, one));
            overlap(one, other)
        };
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::]:80", "0.0.0.0:80"),
            ("0.0.0.0:80", "[::ffff:127.0.0.1]:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
        ] {
            assert!(overlaps(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("0.0.0.0:80", "[::1]:80"),
            ("[::]:80", "127.0.0.1:81"),
        ] {
            assert!(!overlaps(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_directory_that_stays_locked_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.sock");
        let lock_of_another = lock(&path).unwrap();
        assert!(lock_of_another.is_some());
        assert!(lock(&path).unwrap().is_none());
        drop(lock_of_another);
        assert!(lock(&path).unwrap().is_some());
    }
}
