//! One connection of the load: connect, upgrade, then a closed loop of messages in flight.

use std::io::{ErrorKind, Read as _, Write as _};

use mio::event::Event;
use mio::net::TcpStream;

use super::control::Control;
use super::errors::Failure;
use super::latency::{Clock, Latencies, Stamps, Ticks};
use super::upgrade::{Upgrade, Upgrader};
use super::wire::{Cursor, Fault, Wire};

/// What all connections of a load thread share.
pub(crate) struct Tools {
    pub(crate) wire: Wire,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) stamps: Stamps,
    pub(crate) latencies: Latencies,
    pub(crate) clock: Clock,
    /// Whether latencies count now.
    pub(crate) measuring: bool,
    /// How a connection becomes a WebSocket; `None` for raw bytes.
    pub(crate) upgrader: Option<Upgrader>,
}

/// A socket and where it stands.
pub(crate) struct Connection {
    stream: TcpStream,
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
}

enum Phase {
    Dialling,
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
    /// A connection that is being dialled.
    pub(crate) fn new(stream: TcpStream, identity: u32, index: usize) -> Self {
        Self {
            stream,
            phase: Phase::Dialling,
            identity,
            index,
            cursor: Cursor::default(),
            next: 0,
            next_offset: 0,
            owed: 0,
            ring_at: 0,
            control: None,
        }
    }

    /// The socket, to be registered.
    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether messages may be sent.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Sends the first messages, as many as may be in flight.
    pub(crate) fn start(&mut self, tools: &mut Tools) -> Result<(), Failure> {
        let ring = tools.stamps.ring(self.index);
        ring.fill(tools.clock.now());
        self.owed = ring.len();
        self.send(tools)
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
    ) -> Result<Progress, Failure> {
        let mut progress = Progress::default();
        if matches!(self.phase, Phase::Dialling) {
            self.connected(tools)?;
            progress.opened = self.is_open();
        }
        if event.is_readable() || event.is_read_closed() {
            self.receive(event.is_read_closed(), tools, &mut progress)?;
        }
        if self.owed > 0 || self.control.is_some() {
            self.send(tools)?;
        }
        Ok(progress)
    }

    fn connected(&mut self, tools: &Tools) -> Result<(), Failure> {
        if let Some(error) = self.stream.take_error().unwrap_or_else(Some) {
            return Err(Failure::of_connect(&error));
        }
        let Some(upgrader) = &tools.upgrader else {
            self.phase = Phase::Open;
            return Ok(());
        };
        let (upgrade, request) = upgrader.begin()?;
        // The send buffer of a new socket holds more than a request.
        let sent = self.stream.write(&request).map_err(|error| Failure::of_connect(&error))?;
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
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        loop {
            let received = match self.stream.read(&mut tools.buffer) {
                Ok(0) => return Err(self.ended()),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if self.is_open() => return Err(Failure::of_open(&error)),
                Err(error) => return Err(Failure::of_connect(&error)),
            };
            let mut from = 0;
            if let Phase::Upgrading(upgrade) = &mut self.phase {
                let head_end = upgrade.receive(&tools.buffer[..received])?;
                from = head_end.unwrap_or(received);
                if head_end.is_some() {
                    self.phase = Phase::Open;
                    progress.opened = true;
                }
            }
            progress.messages += self.take_replies(from, received, tools)?;
            // A short read emptied the socket: what comes next is a new edge.
            if received < tools.buffer.len() && !ends {
                return Ok(());
            }
        }
    }

    fn ended(&self) -> Failure {
        if self.is_open() { Failure::UnexpectedEnd } else { Failure::ConnectReset }
    }

    /// Checks the replies in the buffer; each complete one releases a message.
    fn take_replies(&mut self, from: usize, to: usize, tools: &mut Tools) -> Result<u32, Failure> {
        let now = tools.clock.now();
        let before = self.cursor.messages;
        let mut bytes = &tools.buffer[from..to];
        while !bytes.is_empty() {
            if let Some(control) = self.control.as_mut().filter(|control| control.is_receiving()) {
                control.receive(&mut bytes)?;
                continue;
            }
            match tools.wire.check(self.identity, &mut self.cursor, &mut bytes) {
                Ok(()) => {}
                Err(Fault::Control) => self.control.get_or_insert_default().receive(&mut bytes)?,
                Err(Fault::Header) => return Err(Failure::HeaderMismatch),
                Err(Fault::Payload) => return Err(Failure::PayloadMismatch),
            }
        }
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
        self.owed += echoed as usize;
        Ok(echoed)
    }

    /// Sends what is owed as far as the socket takes it.
    fn send(&mut self, tools: &mut Tools) -> Result<(), Failure> {
        // A pong goes between two messages.
        if self.next_offset == 0 && !self.send_control()? {
            return Ok(());
        }
        while self.owed > 0 {
            let run = tools.wire.requests(self.identity, self.next, self.owed);
            let (run_len, left) = (run.len(), &run[self.next_offset..]);
            let sent = match self.stream.write(left) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Failure::of_open(&error)),
            };
            let covered = self.next_offset + sent;
            let messages = covered / tools.wire.request_len();
            self.next_offset = covered % tools.wire.request_len();
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

    fn send_control(&mut self) -> Result<bool, Failure> {
        match &mut self.control {
            Some(control) => {
                control.send(&mut self.stream).map_err(|error| Failure::of_open(&error))
            }
            None => Ok(true),
        }
    }
}
