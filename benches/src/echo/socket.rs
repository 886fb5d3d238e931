//! A socket on its way to a WebSocket: connect, TLS if any, upgrade; then its bytes.

use std::io::{self, ErrorKind};

use mio::net::TcpStream;
use ringwire_codec::deflate::Agreement;
use ringwire_examples::CompressionFlag;
use ringwire_tls::Session;

use super::control::Control;
use super::errors::Failure;
use super::greeting::Greeting;
use super::latency::{Clock, Ticks};
use super::link::{Buffers, Link};
use super::tls_totals::TlsTotals;
use super::upgrade::{Upgrade, Upgraded, Upgrader};
use crate::ask::Ask;
use crate::target::Target;

/// How the sockets of a load thread become open, and what is counted of it.
pub(crate) struct Opener {
    /// How a connection becomes a WebSocket; `None` for raw bytes.
    upgrader: Option<Upgrader>,
    pub(crate) clock: Clock,
    /// TLS handshakes that were made.
    pub(crate) tls: TlsTotals,
}

/// A socket and how far it is.
pub(crate) struct Socket {
    link: Link,
    phase: Phase,
}

enum Phase {
    /// The connection has that number, by which it asks for what is its own.
    Dialling(u32),
    Securing(u32),
    Upgrading(Box<Upgrade>),
    Greeting(Box<Greeting>),
    Open,
}

/// What one read brought.
pub(crate) struct Received<'b> {
    /// What follows the upgrade; empty until it is made.
    pub(crate) bytes: &'b mut [u8],
    /// When it was read.
    pub(crate) at: Ticks,
    /// The socket became open, with this agreement on compression.
    pub(crate) opened: Option<Option<Agreement>>,
    /// Nothing more was there.
    pub(crate) is_last: bool,
}

impl Opener {
    /// For a target, with the compression that is to be agreed on.
    pub(crate) fn new(target: &Target, compression: CompressionFlag, clock: Clock) -> Self {
        let resource = target.resource().cloned();
        let upgrader = resource.map(|resource| Upgrader::new(resource, compression));
        Self { upgrader, clock, tls: TlsTotals::default() }
    }

    /// Leaves what connections say and hear first to those that use them.
    pub(crate) fn without_greeting(mut self) -> Self {
        if let Some(upgrader) = &mut self.upgrader {
            upgrader.greets = false;
        }
        self
    }

    /// What connections ask for, and say first.
    pub(crate) fn ask(&self) -> Option<&Ask> {
        Some(&self.upgrader.as_ref()?.resource.ask)
    }
}

impl Socket {
    /// One that is being dialled, and has TLS with a session; of the connection with a number.
    pub(super) fn new(stream: TcpStream, session: Option<Session>, number: u32) -> Self {
        Self { link: Link::new(stream, session), phase: Phase::Dialling(number) }
    }

    /// The socket, to be registered.
    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        self.link.stream_mut()
    }

    /// Whether messages may be sent.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Goes on where the socket was being dialled and an event says that it is connected, or not. Whether it became
    /// open by that.
    pub(crate) fn connect(
        &mut self,
        opener: &Opener,
        buffers: &mut Buffers,
    ) -> Result<bool, Failure> {
        let Phase::Dialling(number) = self.phase else { return Ok(false) };
        if let Some(error) = self.stream_mut().take_error().unwrap_or_else(Some) {
            return Err(Failure::of_connect(&error));
        }
        if self.link.is_handshaking() {
            self.phase = Phase::Securing(number);
            self.link.begin(buffers).map_err(|error| self.failure(&error))?;
            return Ok(false);
        }
        self.upgrade(number, opener, buffers)?;
        Ok(self.is_open())
    }

    /// Reads once; `None` where there is nothing to be read. `ends`: the peer has ended its side, so that a short read
    /// is not the last one.
    pub(crate) fn receive<'b>(
        &mut self,
        ends: bool,
        opener: &mut Opener,
        buffers: &'b mut Buffers,
    ) -> Result<Option<Received<'b>>, Failure> {
        if let Phase::Greeting(greeting) = &mut self.phase {
            let early = std::mem::take(&mut greeting.early);
            let used = greeting.take(&early)?;
            let deflate = greeting.deflate;
            self.greet(buffers)?;
            if let Some(used) = used {
                self.phase = Phase::Open;
                let (bytes, at) = (buffers.give(&early[used..]), opener.clock.now());
                return Ok(Some(Received { bytes, at, opened: Some(deflate), is_last: false }));
            }
        }
        let received = match self.link.read(buffers) {
            Ok(0) => return Err(self.ended()),
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(self.failure(&error)),
        };
        let at = opener.clock.now();
        // A short read emptied the socket: what comes next is a new edge.
        let is_last = received < buffers.receive_len() && !ends;
        if let Phase::Securing(number) = self.phase {
            let opened = self.link.open(received, buffers);
            if !opened.map_err(|error| self.failure(&error))?.is_empty() {
                // Nobody has asked it anything yet.
                return Err(Failure::HandshakeInvalid);
            }
            if !self.link.is_handshaking() {
                opener.tls.add(self.link.facts());
                self.upgrade(number, opener, buffers)?;
            }
            return Ok(Some(Received { bytes: &mut [], at, opened: None, is_last }));
        }
        let opened = self.link.open(received, buffers);
        let mut bytes = opened.map_err(|error| self.failure(&error))?;
        let mut opened = None;
        if let Phase::Upgrading(upgrade) = &mut self.phase {
            let upgraded = upgrade.receive(bytes)?;
            let head_end = upgraded.as_ref().map_or(bytes.len(), |upgraded| upgraded.head_end);
            bytes = bytes.split_at_mut(head_end).1;
            match upgraded {
                Some(Upgraded { deflate, first: Some(first), .. }) => {
                    self.phase = Phase::Greeting(Box::new(Greeting::new(first, deflate, bytes)));
                    // The next call says what is to be said.
                    return Ok(Some(Received { bytes: &mut [], at, opened, is_last: false }));
                }
                Some(Upgraded { deflate, first: None, .. }) => {
                    self.phase = Phase::Open;
                    opened = Some(deflate);
                }
                None => {}
            }
        } else if let Phase::Greeting(greeting) = &mut self.phase {
            let used = greeting.take(bytes)?;
            bytes = bytes.split_at_mut(used.unwrap_or(bytes.len())).1;
            if used.is_some() {
                opened = Some(greeting.deflate);
                self.phase = Phase::Open;
            }
        }
        Ok(Some(Received { bytes, at, opened, is_last }))
    }

    /// Takes bytes to be sent; `None` where the socket takes none.
    #[inline]
    pub(crate) fn send(
        &mut self,
        bytes: &[u8],
        buffers: &mut Buffers,
    ) -> Result<Option<usize>, Failure> {
        match self.link.write(bytes, buffers) {
            Ok(sent) => Ok(Some(sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Failure::of_open(&error)),
        }
    }

    /// Sends the pong that is owed, if any. Whether all of it went out.
    pub(crate) fn send_control(
        &mut self,
        control: &mut Option<Box<Control>>,
        buffers: &mut Buffers,
    ) -> Result<bool, Failure> {
        let Some(control) = control else { return Ok(true) };
        let sent = control.send(&mut self.link.writer(buffers));
        sent.map_err(|error| Failure::of_open(&error))
    }

    /// Whether the socket still has to take what was given to it.
    pub(crate) fn has_unsent(&self) -> bool {
        self.link.has_unsent()
    }

    /// Goes on sending what was given to it.
    pub(crate) fn flush(&mut self, buffers: &mut Buffers) -> Result<(), Failure> {
        self.link.flush(buffers).map_err(|error| self.failure(&error))
    }

    /// Says what is to be said before the load, and answers pings.
    fn greet(&mut self, buffers: &mut Buffers) -> Result<(), Failure> {
        let Phase::Greeting(greeting) = &mut self.phase else { return Ok(()) };
        let said = std::mem::take(&mut greeting.unsaid);
        if !said.is_empty() {
            // As with the request.
            let sent = self.link.write(&said, buffers).map_err(|error| Failure::of_open(&error))?;
            if sent < said.len() {
                return Err(Failure::Connect(libc::EAGAIN));
            }
        }
        if let Some(control) = &mut greeting.control {
            let sent = control.send(&mut self.link.writer(buffers));
            sent.map_err(|error| Failure::of_open(&error))?;
        }
        Ok(())
    }

    fn upgrade(
        &mut self,
        number: u32,
        opener: &Opener,
        buffers: &mut Buffers,
    ) -> Result<(), Failure> {
        let Some(upgrader) = &opener.upgrader else {
            self.phase = Phase::Open;
            return Ok(());
        };
        let (upgrade, request) = upgrader.begin(number)?;
        // The send buffer of a new socket holds more than a request.
        let sent =
            self.link.write(&request, buffers).map_err(|error| Failure::of_connect(&error))?;
        if sent < request.len() {
            return Err(Failure::Connect(libc::EAGAIN));
        }
        self.phase = Phase::Upgrading(Box::new(upgrade));
        Ok(())
    }

    fn failure(&self, error: &io::Error) -> Failure {
        if self.is_open() { Failure::of_open(error) } else { Failure::of_connect(error) }
    }

    fn ended(&self) -> Failure {
        if self.is_open() { Failure::UnexpectedEnd } else { Failure::ConnectReset }
    }
}
