//! From a name to a connected socket.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::error::{ConnectAttempt, Error, Waiting};
use crate::wire::{earlier, wait_for};

/// How long one address has before the next one is tried beside it (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The most addresses of a name that are tried.
const MAX_ADDRESS_COUNT: usize = 16;

/// Connects to one of the host's addresses before the deadline. The socket is non-blocking.
pub(super) fn connect_host(
    host: &str,
    port: u16,
    nodelay: bool,
    deadline: Option<Instant>,
) -> Result<OwnedFd, Error> {
    let addresses = resolve(host, port, deadline)?;
    let socket = race(host, &addresses, deadline)?;
    if nodelay {
        // A connection that is gone already says so at the first write.
        let _ = socket.set_tcp_nodelay(true);
    }
    Ok(socket.into())
}

/// Connects to a Unix socket before the deadline.
pub(super) fn connect_unix(path: &Path, deadline: Option<Instant>) -> Result<OwnedFd, Error> {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
        // A full backlog answers a non-blocking connect with EAGAIN and no way to wait for it (unix(7)), so
        // this one blocks until the server accepts, as long as the socket's send timeout allows.
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        socket.set_write_timeout(left.map(|left| left.max(Duration::from_millis(1))))?;
        socket.connect(&SockAddr::unix(path)?)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    connect().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Timeout(Waiting::Connect),
        _ => Error::Connect {
            host: path.display().to_string(),
            attempts: vec![ConnectAttempt { address: None, error }],
        },
    })
}

/// The addresses of a name, IPv6 and IPv4 in turn (RFC 8305 §4).
///
/// The system's resolver has no deadline of its own, so it works on a thread that is left behind when it is late.
pub(super) fn resolve(
    host: &str,
    port: u16,
    deadline: Option<Instant>,
) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |source| Error::Resolve { host: host.to_owned(), source };
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = host.to_owned();
    thread::Builder::new()
        .name("resolver".into())
        .spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            // Nobody may wait for it any more.
            let _ = sender.send(found);
        })
        .map_err(failed)?;
    let found = match deadline {
        None => receiver.recv().map_err(|_| io::Error::other("the resolver failed")),
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok(found) => Ok(found),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(Error::Timeout(Waiting::Resolve));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    Err(io::Error::other("the resolver failed"))
                }
            }
        }
    };
    let addresses = interleave(found.and_then(|found| found).map_err(failed)?);
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

/// Both families in turn, each in the resolver's order, the resolver's first family first.
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut addresses: Vec<SocketAddr> = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] || addresses.len() >= MAX_ADDRESS_COUNT {
            addresses.truncate(MAX_ADDRESS_COUNT);
            return addresses;
        }
        for address in pair.into_iter().flatten() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
}

/// Tries one address after the other, each with a head start, until one accepts (RFC 8305 §5).
fn race(host: &str, addresses: &[SocketAddr], deadline: Option<Instant>) -> Result<Socket, Error> {
    let mut waiting = addresses.iter();
    let mut running: Vec<(SocketAddr, Socket)> = Vec::new();
    let mut attempts = Vec::new();
    let mut next_start = Instant::now();
    loop {
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Error::Timeout(Waiting::Connect));
        }
        if running.is_empty() || now >= next_start {
            match waiting.next() {
                Some(&address) => {
                    next_start = now + ATTEMPT_DELAY;
                    match begin(address) {
                        Ok(socket) => running.push((address, socket)),
                        Err(error) => {
                            attempts.push(ConnectAttempt { address: Some(address), error })
                        }
                    }
                    continue;
                }
                None if running.is_empty() => {
                    return Err(Error::Connect { host: host.to_owned(), attempts });
                }
                None => {}
            }
        }
        let start = (waiting.len() > 0).then_some(next_start);
        wait_writable(&running, earlier(start, deadline)).map_err(|error| Error::Connect {
            host: host.to_owned(),
            attempts: vec![ConnectAttempt { address: None, error }],
        })?;
        let mut index = 0;
        while let Some((address, socket)) = running.get(index) {
            match outcome(socket) {
                Ok(false) => index += 1,
                Ok(true) => return Ok(running.swap_remove(index).1),
                Err(error) => {
                    attempts.push(ConnectAttempt { address: Some(*address), error });
                    running.remove(index);
                }
            }
        }
    }
}

fn begin(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            Err(error)
        }
        Ok(()) | Err(_) => Ok(socket),
    }
}

fn wait_writable(running: &[(SocketAddr, Socket)], until: Option<Instant>) -> io::Result<()> {
    let mut descriptors: Vec<_> =
        running.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::OUT)).collect();
    wait_for(&mut descriptors, until).map(drop)
}

/// Whether it is connected by now.
fn outcome(socket: &Socket) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 80))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80))
    }

    #[test]
    fn families_take_turns() {
        assert_eq!(
            interleave(vec![v6(1), v6(2), v6(3), v4(1), v6(1)]),
            [v6(1), v4(1), v6(2), v6(3)]
        );
        assert_eq!(interleave(vec![v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
        assert_eq!(interleave(Vec::new()), []);
        assert_eq!(interleave((0..100).map(v4).collect()).len(), MAX_ADDRESS_COUNT);
    }
}
