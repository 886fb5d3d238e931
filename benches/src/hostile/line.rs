//! A connection of a peer: what it says, what it hears, and how it ended.
//!
//! Nothing here waits beyond a moment that is given.

#![expect(clippy::disallowed_methods, reason = "peers have a time limit, and take the time")]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use ringwire_codec::deflate::Agreement;
use ringwire_examples::CompressionFlag;

use super::heard::Heard;
use crate::echo::{Buffers, Clock, Dialler, Failure, Opener, Payload, Socket};
use crate::target::Target;
use crate::tls;

/// Reads in a row, so that a server that sends without an end does not keep a peer from what it is to do.
const READS_PER_TURN: usize = 16;

/// Where lines go.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) target: Target,
    /// For a target that speaks TLS.
    pub(super) tls: Option<tls::Client>,
    /// What a bystander says, unless anything does.
    pub(super) payload: Option<Payload>,
}

/// How a line begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    /// TCP, and TLS if any.
    Connect,
    /// A handshake as it should be, after that.
    Upgrade(CompressionFlag),
}

/// A connection.
pub(super) struct Line {
    socket: Socket,
    opener: Opener,
    buffers: Buffers,
    poll: Poll,
    events: Events,
    is_readable: bool,
    /// An event said that the server has ended the connection.
    is_cut: bool,
    /// Whether what comes is read.
    listens: bool,
    agreement: Option<Agreement>,
    pub(super) heard: Heard,
    /// Bytes that were said, after TCP, TLS and an upgrade as it should be.
    pub(super) sent: u64,
    ended: Option<Failure>,
}

impl Line {
    /// Connects and begins.
    ///
    /// # Errors
    /// What went wrong, in the words of the other loads.
    pub(super) fn open(goal: &Goal, begin: Begin, until: Instant) -> Result<Self, Failure> {
        let address = goal.target.address();
        // A target of raw bytes is open once it is connected.
        let (target, compression) = match begin {
            Begin::Connect => (&Target::Raw(address), CompressionFlag::Off),
            Begin::Upgrade(compression) => (&goal.target, compression),
        };
        let number = goal.target.resource().map(|resource| resource.ask.next_number());
        let poll = Poll::new().map_err(|error| Failure::of_connect(&error))?;
        let mut dialler = Dialler::to(&goal.target, &[], goal.tls.clone());
        let socket = dialler.open(0, number.unwrap_or_default(), 0, &poll)?;
        let mut line = Self {
            socket,
            opener: Opener::new(target, compression, Clock::start()),
            buffers: Buffers::new(),
            poll,
            events: Events::with_capacity(4),
            is_readable: false,
            is_cut: false,
            listens: true,
            agreement: None,
            heard: Heard::default(),
            sent: 0,
            ended: None,
        };
        while !line.socket.is_open() {
            if !line.wait(until) {
                return Err(Failure::ConnectTimeout);
            }
            line.turn();
            if let Some(failure) = line.ended {
                return Err(failure);
            }
        }
        Ok(line)
    }

    /// What was agreed on as to compression.
    pub(super) fn agreement(&self) -> Option<Agreement> {
        self.agreement
    }

    /// Reads nothing from now on.
    pub(super) fn turn_deaf(&mut self) {
        self.listens = false;
    }

    /// How the connection ended, if it did.
    pub(super) fn ended(&self) -> Option<Failure> {
        self.ended
    }

    /// Sends all of it and reads meanwhile. Whether the line goes on, and time is not up.
    pub(super) fn say(&mut self, mut bytes: &[u8], until: Instant) -> bool {
        while !bytes.is_empty() {
            if self.is_over() {
                return false;
            }
            match self.socket.send(bytes, &mut self.buffers) {
                Ok(Some(sent)) => {
                    self.sent += sent as u64;
                    bytes = &bytes[sent..];
                }
                Ok(None) => {
                    if !self.wait(until) {
                        return false;
                    }
                    self.turn();
                }
                Err(failure) => self.end(failure),
            }
        }
        // Readiness that has come meanwhile.
        self.wait(Instant::now());
        self.turn();
        !self.is_over() && Instant::now() < until
    }

    /// Waits for the end, a close frame, or something that is enough.
    pub(super) fn listen(&mut self, until: Instant, is_enough: impl Fn(&Heard) -> bool) {
        while !self.is_over() && !is_enough(&self.heard) && self.wait(until) {
            self.turn();
        }
    }

    /// Says nothing for a time, and waits for the end or a close frame.
    pub(super) fn rest(&mut self, time: Duration, until: Instant) {
        self.listen(until.min(Instant::now() + time), |_| false);
    }

    /// Whether nothing more is to be expected from the server.
    fn is_over(&self) -> bool {
        self.ended.is_some() || self.heard.close.is_some() || self.heard.is_malformed
    }

    /// Waits for an event; `false` where time was up before. Once it is, takes what events there are.
    fn wait(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        // What is left to be read has no event of its own.
        let is_waiting = !(self.listens && self.is_readable);
        let timeout = if is_waiting { left } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.end(Failure::of_open(&error)),
        }
        for event in &self.events {
            self.is_readable |= event.is_readable() || event.is_read_closed();
            self.is_cut |= event.is_read_closed() || event.is_error();
        }
        !left.is_zero()
    }

    /// Goes on with what events allow.
    fn turn(&mut self) {
        let done = self.go_on();
        if let Err(failure) = done {
            self.end(failure);
        } else if !self.listens && self.is_cut {
            self.end(Failure::UnexpectedEnd);
        }
    }

    fn go_on(&mut self) -> Result<(), Failure> {
        let was_open = self.socket.is_open();
        self.socket.connect(&self.opener, &mut self.buffers)?;
        if self.socket.has_unsent() {
            self.socket.flush(&mut self.buffers)?;
        }
        if self.listens || !was_open { self.hear() } else { Ok(()) }
    }

    fn hear(&mut self) -> Result<(), Failure> {
        let Self { socket, opener, buffers, heard, .. } = self;
        for _ in 0..READS_PER_TURN {
            if !self.is_readable {
                return Ok(());
            }
            match socket.receive(true, opener, buffers)? {
                None => self.is_readable = false,
                Some(received) => {
                    if let Some(agreement) = received.opened {
                        self.agreement = agreement;
                        heard.upgrade();
                    }
                    heard.take(received.bytes);
                }
            }
        }
        Ok(())
    }

    /// The connection has ended. What came before that is still there to be read.
    fn end(&mut self, failure: Failure) {
        let mut ended = None;
        self.is_readable = true;
        while self.is_readable && ended.is_none() && self.socket.is_open() {
            ended = self.hear().err();
        }
        self.ended.get_or_insert_with(|| ended.unwrap_or(failure));
    }
}
