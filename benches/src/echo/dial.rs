//! Non-blocking connects, from further loopback addresses when the ports of one are used up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use socket2::{Domain, Protocol, SockAddr, Type};

use super::errors::Failure;
use super::socket::Socket;
use crate::target::Target;
use crate::tls;

/// Makes the connections of one load thread.
pub(crate) struct Dialler {
    remote: SocketAddr,
    /// In place of that.
    unix: Option<PathBuf>,
    /// Addresses to connect from; `None` leaves it to the kernel.
    sources: Vec<Option<IpAddr>>,
    /// The first of `sources`, from each turn's on, that may have free ports.
    current: usize,
    /// For a target that speaks TLS.
    tls: Option<tls::Client>,
}

impl Dialler {
    /// Connects to `target` from `sources`. Without any: from wherever the kernel likes and then, to a
    /// loopback address, from 127.0.0.2 and on. To a Unix socket there is but one way.
    pub(crate) fn to(target: &Target, sources: &[IpAddr], tls: Option<tls::Client>) -> Self {
        let unix = target.unix().map(PathBuf::from);
        Self { unix, tls, ..Self::new(target.address(), sources) }
    }

    fn new(remote: SocketAddr, sources: &[IpAddr]) -> Self {
        let mut list: Vec<_> = sources.iter().copied().map(Some).collect();
        if list.is_empty() {
            list.push(None);
            if remote.is_ipv4() && remote.ip().is_loopback() {
                let last_byte = 2..=254;
                list.extend(last_byte.map(|byte| Some(Ipv4Addr::new(127, 0, 0, byte).into())));
            }
        }
        Self { remote, unix: None, sources: list, current: 0, tls: None }
    }

    /// Begins the connection with a number, and has its events told with a token. Whose `turn` it is, see
    /// [`dial`](Self::dial).
    pub(crate) fn open(
        &mut self,
        turn: usize,
        number: u32,
        token: usize,
        poll: &Poll,
    ) -> Result<Socket, Failure> {
        let opened = self.dial(turn).and_then(|stream| {
            let session = self.tls.as_ref().map(tls::Client::session).transpose();
            let mut socket = Socket::new(stream, session.map_err(io::Error::other)?, number);
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(socket.stream_mut(), Token(token), both)?;
            Ok(socket)
        });
        opened.map_err(|error| Failure::of_connect(&error))
    }

    /// Begins one connection, which is made when the socket is writable, from the address whose `turn` it is, or from
    /// one behind it.
    ///
    /// # Errors
    /// Those of socket and connect; EADDRNOTAVAIL when no source address has a free port.
    fn dial(&mut self, turn: usize) -> io::Result<TcpStream> {
        if let Some(path) = &self.unix {
            let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
            // Where the server's queue is full this waits: there is no readiness to wait for (connect(2), EAGAIN).
            socket.connect(&SockAddr::unix(path)?)?;
            socket.set_nonblocking(true)?;
            // What is done with it from here on is the same for any stream.
            return Ok(TcpStream::from_std(socket.into()));
        }
        while self.current < self.sources.len() {
            let source = self.sources[(turn + self.current) % self.sources.len()];
            match self.dial_from(source) {
                Err(error) if out_of_ports(&error) => self.current += 1,
                other => return other,
            }
        }
        Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
    }

    fn dial_from(&self, source: Option<IpAddr>) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket =
            socket2::Socket::new(Domain::for_address(self.remote), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        // Closing resets the connection: tens of thousands in TIME_WAIT would hold the ports that the
        // next run needs.
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.remote.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
        Ok(TcpStream::from_std(socket.into()))
    }
}

fn out_of_ports(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_from_the_next_source() {
        let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(8).unwrap();
        let remote = listener.local_addr().unwrap().as_socket().unwrap();
        // 192.0.2.1 is reserved for documentation and no address of this machine.
        let foreign = IpAddr::from([192, 0, 2, 1]);
        let local = IpAddr::from([127, 0, 0, 9]);
        let mut dialler = Dialler::new(remote, &[foreign, local]);
        let stream = dialler.dial(0).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), local);

        let error = Dialler::new(remote, &[foreign]).dial(0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    }

    #[test]
    fn spare_sources_are_for_loopback_only() {
        let loopback = Dialler::new(([127, 0, 0, 1], 80).into(), &[]);
        assert_eq!(loopback.sources.len(), 254);
        assert_eq!(Dialler::new(([10, 0, 0, 1], 80).into(), &[]).sources, [None]);
    }
}
