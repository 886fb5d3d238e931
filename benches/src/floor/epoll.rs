//! The raw TCP echo loop on edge-triggered epoll: one recv and one send for a readable event.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

const LISTENER: Token = Token(usize::MAX);
const BACKLOG: i32 = 4096;
/// How often the loop looks at its stop flag when nothing happens.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// A single-threaded server that echoes bytes.
pub(crate) struct EpollFloor {
    poll: Poll,
    listener: TcpListener,
    /// A closed connection leaves `None`, and its place in `free`.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Box<[u8]>,
    /// Set when accept failed for want of descriptors, since the edge is used up.
    accept_again: bool,
}

struct Connection {
    stream: TcpStream,
    /// What the socket did not take, from `sent` on. Nothing is read while there is any.
    unsent: Vec<u8>,
    sent: usize,
}

enum Fate {
    Keep,
    Close,
}

impl EpollFloor {
    /// Listens with SO_REUSEPORT on `address`.
    pub(crate) fn bind(address: SocketAddr, buffer_len: usize) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; buffer_len.max(1)].into_boxed_slice(),
            accept_again: false,
        })
    }

    /// The address in use, with its port.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is set.
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !stop.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(STOP_INTERVAL)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept_again = true;
                } else {
                    self.serve(event);
                }
            }
            if self.accept_again {
                self.accept()?;
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.accept_again = false;
                    return Ok(());
                }
                // Out of descriptors, or the peer is gone already: tried again after the next wait.
                Err(_) => return Ok(()),
            };
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(slot), both)?;
            self.connections[slot] = Some(Connection { stream, unsent: Vec::new(), sent: 0 });
        }
    }

    fn serve(&mut self, event: &Event) {
        let slot = event.token().0;
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return };
        if let Ok(Fate::Keep) = connection.echo(&mut self.buffer, event.is_read_closed()) {
            return;
        }
        self.connections[slot] = None;
        self.free.push(slot);
    }
}

impl Connection {
    fn echo(&mut self, buffer: &mut [u8], ends: bool) -> io::Result<Fate> {
        loop {
            if !self.flush()? {
                return Ok(Fate::Keep);
            }
            let received = match self.stream.read(buffer) {
                Ok(0) => return Ok(Fate::Close),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Fate::Keep),
                Err(error) => return Err(error),
            };
            let sent = match self.stream.write(&buffer[..received]) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.unsent.extend_from_slice(&buffer[sent..received]);
            // A short read emptied the socket: what comes next is a new edge.
            if received < buffer.len() && !ends {
                return Ok(Fate::Keep);
            }
        }
    }

    /// Whether all is sent now.
    fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.unsent.len() {
            match self.stream.write(&self.unsent[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(true)
    }
}
