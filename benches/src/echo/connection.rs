//! One connection of the load: once it is open, a closed loop of messages in flight.

use std::io;

use mio::event::Event;
use ringwire_codec::deflate::Agreement;

use super::control::Control;
use super::deflated::Inflating;
use super::errors::Failure;
use super::latency::{Clock, Latencies, Stamps, Ticks};
use super::link::Buffers;
use super::messages::Messages;
use super::socket::{Opener, Received, Socket};
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
    pub(crate) opener: Opener,
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
            latencies: Latencies::default(),
            clock,
            measuring: false,
            opener: Opener::new(target, shape.compression, clock),
            message_limit: None,
        })
    }
}

/// A socket and where its messages stand.
pub(crate) struct Connection {
    socket: Socket,
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
    has_echo: bool,
    control: Option<Box<Control>>,
    /// Where messages are compressed.
    inflating: Option<Box<Inflating>>,
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
    pub(crate) fn new(socket: Socket, identity: u32, index: usize) -> Self {
        Self {
            socket,
            identity,
            index,
            cursor: Cursor::default(),
            next: 0,
            next_offset: 0,
            owed: 0,
            ring_at: 0,
            has_echo: false,
            control: None,
            inflating: None,
        }
    }

    /// Whether messages may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_open()
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

    /// Whether an echo of its was complete.
    pub(crate) fn has_echo(&self) -> bool {
        self.has_echo
    }

    /// Handles readiness, and adds to `progress` what that brings.
    pub(crate) fn on_event(
        &mut self,
        event: &Event,
        tools: &mut Tools,
        buffers: &mut Buffers,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        progress.opened = self.socket.connect(&tools.opener, buffers)?;
        if event.is_readable() || event.is_read_closed() {
            self.receive(event.is_read_closed(), tools, buffers, progress)?;
        }
        if self.owed > 0 || self.control.is_some() || self.socket.has_unsent() {
            self.send(tools, buffers)?;
        }
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
            let received = self.socket.receive(ends, &mut tools.opener, buffers)?;
            let Some(Received { bytes, at, opened, is_last }) = received else { return Ok(()) };
            if let Some(deflate) = opened {
                self.open(deflate, tools);
                progress.opened = true;
            }
            progress.messages += self.take_replies(bytes, at, tools)?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn open(&mut self, deflate: Option<Agreement>, tools: &mut Tools) {
        if let (Messages::Deflated(deflated), Some(agreement)) = (&mut tools.messages, deflate) {
            deflated.agreed(agreement);
            self.inflating = Some(Box::new(Inflating::new(agreement)));
        }
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
        self.has_echo |= echoed > 0;
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
        self.socket.flush(buffers)?;
        // A pong goes between two messages.
        if self.next_offset == 0 && !self.socket.send_control(&mut self.control, buffers)? {
            return Ok(());
        }
        while self.owed > 0 {
            let run = tools.messages.requests(self.identity, self.next, self.owed);
            let (run_len, left) = (run.len(), &run[self.next_offset..]);
            let Some(sent) = self.socket.send(left, buffers)? else { return Ok(()) };
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
}
