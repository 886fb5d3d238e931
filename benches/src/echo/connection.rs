//! One connection of the load: connect, TLS if any, upgrade, then a closed loop of messages in flight.

use std::io::{self, ErrorKind};

use mio::event::Event;
use mio::net::TcpStream;
use ringwire_codec::deflate::Agreement;
use ringwire_tls::Session;

use super::control::Control;
use super::deflated::Inflating;
use super::errors::Failure;
use super::latency::{Clock, Latencies, Stamps, Ticks};
use super::link::{Buffers, Link};
use super::messages::Messages;
use super::tls_totals::TlsTotals;
use super::upgrade::{Upgrade, Upgrader};
use super::wire::{Cursor, Fault, Shape};
use crate::target::Target;

/// What all connections of a load thread share.
pub(crate) struct Tools {
    pub(crate) messages: Messages,
    pub(crate) stamps: Stamps,
    pub(crate) latencies: Latencies,
    pub(crate) clock: Clock,
    /// Whether latencies count now.
    pub(crate) measuring: bool,
    /// How a connection becomes a WebSocket; `None` for raw bytes.
    pub(crate) upgrader: Option<Upgrader>,
    /// TLS handshakes that were made.
    pub(crate) tls: TlsTotals,
    /// Messages that a connection sends in all; `None` for as many as there is time for.
    pub(crate) message_limit: Option<u32>,
}

impl Tools {
    /// For so many `places` of connections at a time.
    pub(crate) fn new(
        shape: Shape,
        in_flight: usize,
        places: usize,
        target: &Target,
        clock: Clock,
    ) -> io::Result<Self> {
        let mut key = [0; 4];
        getrandom::fill(&mut key)?;
        // A key of zeros would leave the payload as it is.
        key[0] |= 1;
        Ok(Self {
            messages: Messages::new(shape, in_flight, key),
            stamps: Stamps::new(places, in_flight),
            latencies: Latencies::new(),
            clock,
            measuring: false,
            upgrader: target
                .resource()
                .map(|resource| Upgrader::new(resource.clone(), shape.compression)),
            tls: TlsTotals::default(),
            message_limit: None,
        })
    }
}

/// A socket and where it stands.
pub(crate) struct Connection {
    link: Link,
    phase: Phase,
    /// What identifies its messages: unique among all load threads.
    identity: u32,
    /// Its place among those of its load thread.
    index: usize,
    /// Replies.
    cursor: Cursor,
    /// Number of the first message that is not wholly sent, and how much of it is.
    next: u32,
    next_offset: usize,
    /// Messages to be sent from `next` on.
    owed: usize,
    /// Where in its ring of stamps the next echo's is.
    ring_at: usize,
    control: Option<Box<Control>>,
    /// Where messages are compressed.
    inflating: Option<Box<Inflating>>,
}

enum Phase {
    Dialling,
    Securing,
    Upgrading(Box<Upgrade>),
    Open,
}

/// What one event brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// The connection became open.
    pub(crate) opened: bool,
    /// Messages whose echo is complete.
    pub(crate) messages: u32,
}

impl Connection {
    /// A connection that is being dialled, and has TLS with a session.
    pub(crate) fn new(
        stream: TcpStream,
        session: Option<Session>,
        identity: u32,
        index: usize,
    ) -> Self {
        Self {
            link: Link::new(stream, session),
            phase: Phase::Dialling,
            identity,
            index,
            cursor: Cursor::default(),
            next: 0,
            next_offset: 0,
            owed: 0,
            ring_at: 0,
            control: None,
            inflating: None,
        }
    }

    /// The socket, to be registered.
    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        self.link.stream_mut()
    }

    /// Whether messages may be sent.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Sends the first messages, as many as may be in flight; again, where it had to stop at a limit.
    pub(crate) fn start(
        &mut self,
        tools: &mut Tools,
        buffers: &mut Buffers,
    ) -> Result<(), Failure> {
        let ring = tools.stamps.ring(self.index);
        ring.fill(tools.clock.now());
        let in_flight = self.next.wrapping_sub(self.cursor.messages) as usize;
        self.owe(ring.len().saturating_sub(in_flight), tools.message_limit);
        self.send(tools, buffers)
    }

    /// When the oldest message in flight was sent.
    pub(crate) fn oldest_in_flight(&self, stamps: &mut Stamps) -> Ticks {
        stamps.ring(self.index)[self.ring_at]
    }

    /// Handles readiness.
    pub(crate) fn on_event(
        &mut self,
        event: &Event,
        tools: &mut Tools,
        buffers: &mut Buffers,
    ) -> Result<Progress, Failure> {
        let mut progress = Progress::default();
        if matches!(self.phase, Phase::Dialling) {
            self.connected(tools, buffers)?;
            progress.opened = self.is_open();
        }
        if event.is_readable() || event.is_read_closed() {
            self.receive(event.is_read_closed(), tools, buffers, &mut progress)?;
        }
        if self.owed > 0 || self.control.is_some() || self.link.has_unsent() {
            self.send(tools, buffers)?;
        }
        Ok(progress)
    }

    fn connected(&mut self, tools: &Tools, buffers: &mut Buffers) -> Result<(), Failure> {
        if let Some(error) = self.stream_mut().take_error().unwrap_or_else(Some) {
            return Err(Failure::of_connect(&error));
        }
        if self.link.is_handshaking() {
            self.phase = Phase::Securing;
            return self.link.begin(buffers).map_err(|error| self.failure(&error));
        }
        self.upgrade(tools, buffers)
    }

    fn upgrade(&mut self, tools: &Tools, buffers: &mut Buffers) -> Result<(), Failure> {
        let Some(upgrader) = &tools.upgrader else {
            self.phase = Phase::Open;
            return Ok(());
        };
        let (upgrade, request) = upgrader.begin()?;
        // The send buffer of a new socket holds more than a request.
        let sent =
            self.link.write(&request, buffers).map_err(|error| Failure::of_connect(&error))?;
        if sent < request.len() {
            return Err(Failure::Connect(libc::EAGAIN));
        }
        self.phase = Phase::Upgrading(Box::new(upgrade));
        Ok(())
    }

    /// Reads until the socket is empty.
    fn receive(
        &mut self,
        ends: bool,
        tools: &mut Tools,
        buffers: &mut Buffers,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        loop {
            let received = match self.link.read(buffers) {
                Ok(0) => return Err(self.ended()),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(self.failure(&error)),
            };
            let now = tools.clock.now();
            let opened = self.link.open(received, buffers);
            let mut bytes = opened.map_err(|error| self.failure(&error))?;
            if let Phase::Upgrading(upgrade) = &mut self.phase {
                let upgraded = upgrade.receive(bytes)?;
                let head_end = upgraded.as_ref().map_or(bytes.len(), |upgraded| upgraded.head_end);
                bytes = bytes.split_at_mut(head_end).1;
                if let Some(upgraded) = upgraded {
                    self.open(upgraded.deflate, tools);
                    progress.opened = true;
                }
            }
            progress.messages += self.take_replies(bytes, now, tools)?;
            if matches!(self.phase, Phase::Securing) && !self.link.is_handshaking() {
                tools.tls.add(self.link.facts());
                self.upgrade(tools, buffers)?;
            }
            // A short read emptied the socket: what comes next is a new edge.
            if received < buffers.receive_len() && !ends {
                return Ok(());
            }
        }
    }

    fn open(&mut self, deflate: Option<Agreement>, tools: &mut Tools) {
        self.phase = Phase::Open;
        if let (Messages::Deflated(deflated), Some(agreement)) = (&mut tools.messages, deflate) {
            deflated.agreed(agreement);
            self.inflating = Some(Box::new(Inflating::new(agreement)));
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        if self.is_open() { Failure::of_open(error) } else { Failure::of_connect(error) }
    }

    fn ended(&self) -> Failure {
        if self.is_open() { Failure::UnexpectedEnd } else { Failure::ConnectReset }
    }

    /// Checks the replies that arrived `now`; each complete one releases a message.
    fn take_replies(
        &mut self,
        bytes: &mut [u8],
        now: Ticks,
        tools: &mut Tools,
    ) -> Result<u32, Failure> {
        let before = self.cursor.messages;
        self.check(bytes, &mut tools.messages)?;
        let echoed = self.cursor.messages.wrapping_sub(before);
        if echoed > self.next.wrapping_sub(before) {
            return Err(Failure::PayloadMismatch);
        }
        let ring = tools.stamps.ring(self.index);
        for _ in 0..echoed {
            let sent = std::mem::replace(&mut ring[self.ring_at], now);
            self.ring_at = if self.ring_at + 1 == ring.len() { 0 } else { self.ring_at + 1 };
            if tools.measuring {
                tools.latencies.record(now.since(sent));
            }
        }
        self.owe(self.owed + echoed as usize, tools.message_limit);
        Ok(echoed)
    }

    fn check(&mut self, bytes: &mut [u8], messages: &mut Messages) -> Result<(), Failure> {
        let Self { identity, cursor, control, inflating, .. } = self;
        let wire = match (messages, inflating) {
            (Messages::Plain(wire), _) => wire,
            (Messages::Deflated(deflated), Some(inflating)) => {
                return deflated.check(inflating, *identity, cursor, bytes, control);
            }
            // Not open yet.
            (Messages::Deflated(_), None) => return Ok(()),
        };
        let mut bytes = &*bytes;
        while !bytes.is_empty() {
            if let Some(control) = control.as_mut().filter(|control| control.is_receiving()) {
                control.receive(&mut bytes)?;
                continue;
            }
            match wire.check(*identity, cursor, &mut bytes) {
                Ok(()) => {}
                Err(Fault::Control) => control.get_or_insert_default().receive(&mut bytes)?,
                Err(Fault::Header) => return Err(Failure::HeaderMismatch),
                Err(Fault::Payload) => return Err(Failure::PayloadMismatch),
            }
        }
        Ok(())
    }

    /// Has so many messages to be sent, but no more than the limit leaves.
    fn owe(&mut self, count: usize, limit: Option<u32>) {
        self.owed = match limit {
            Some(limit) => count.min(limit.saturating_sub(self.next) as usize),
            None => count,
        };
    }

    /// Sends what is owed as far as the socket takes it.
    fn send(&mut self, tools: &mut Tools, buffers: &mut Buffers) -> Result<(), Failure> {
        self.link.flush().map_err(|error| self.failure(&error))?;
        // A pong goes between two messages.
        if self.next_offset == 0 && !self.send_control(buffers)? {
            return Ok(());
        }
        while self.owed > 0 {
            let run = tools.messages.requests(self.identity, self.next, self.owed);
            let (run_len, left) = (run.len(), &run[self.next_offset..]);
            let sent = match self.link.write(left, buffers) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Failure::of_open(&error)),
            };
            let covered = self.next_offset + sent;
            let (messages, offset) = tools.messages.covered(self.identity, self.next, covered);
            self.next_offset = offset;
            self.owed -= messages;
            #[expect(clippy::cast_possible_truncation, reason = "no more than are in flight")]
            let messages = messages as u32;
            self.next = self.next.wrapping_add(messages);
            if covered < run_len {
                return Ok(());
            }
        }
        Ok(())
    }

    fn send_control(&mut self, buffers: &mut Buffers) -> Result<bool, Failure> {
        let Some(control) = &mut self.control else { return Ok(true) };
        let sent = control.send(&mut self.link.writer(buffers));
        sent.map_err(|error| Failure::of_open(&error))
    }
}
