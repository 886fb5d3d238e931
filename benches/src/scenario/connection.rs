//! One connection of a scenario: its socket, its WebSocket, and which of its messages have no reply.

use std::collections::VecDeque;

use mio::event::Event as Readiness;
use ringwire_codec::deflate::{Agreement, Compressor, Decompressor, Inflate, Level};
use ringwire_codec::{
    CloseCode, CloseState, Connection as Codec, Event, Heap, Input, Message, Role,
};

use super::desk::Desk;
use super::plan::Work;
use crate::echo::{Buffers, Failure, Received, Socket};

/// A connection.
pub(super) struct Connection {
    socket: Socket,
    codec: Codec,
    /// Its place among those of its load thread.
    number: u32,
    stage: Stage,
    /// When it was dialled, in nanoseconds of the run.
    pub(super) dialled: u64,
    /// What the socket did not take.
    unsent: Vec<u8>,
    /// Replies that it had.
    pub(super) answered: u64,
    /// The number that the next reply has if none is missing.
    next: u32,
    /// When the messages without a reply were sent, oldest first. Not for `Work::Rate`.
    waiting: VecDeque<u64>,
    /// Messages that were sent, with `Work::Rate`.
    sent: u32,
    /// Where messages refer to earlier ones.
    takeover: Option<Box<Takeover>>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Until the upgrade is made.
    Opening,
    /// So many messages have to come before it counts as open.
    Greeting(u32),
    Open,
    /// This side has closed it.
    Closing,
    /// And the server has answered, or need not.
    Closed,
}

struct Takeover {
    compressor: Compressor,
    decompressor: Option<Box<Decompressor>>,
}

/// What a message is where replies release messages.
enum Reply {
    /// The reply to a message in flight, or something else in its place.
    Counted,
    /// One that nobody waits for: it came before, or others came first. It takes the place of none.
    Stale,
}

impl Connection {
    /// One that is being dialled.
    pub(super) fn new(socket: Socket, number: u32, now: u64) -> Self {
        Self {
            socket,
            codec: Codec::new(Role::Client),
            number,
            stage: Stage::Opening,
            dialled: now,
            unsent: Vec::new(),
            answered: 0,
            next: 0,
            waiting: VecDeque::new(),
            sent: 0,
            takeover: None,
        }
    }

    /// Its place among those of its load thread.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether it is open.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether it is, or was before it was closed.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.stage, Stage::Opening | Stage::Greeting(_))
    }

    /// Whether it is to be ended by a reset.
    pub(super) fn is_over(&self, desk: &Desk) -> bool {
        self.stage == Stage::Closed && matches!(desk.plan.work, Work::Sessions { .. })
    }

    /// How far it is.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Messages that have no reply.
    pub(super) fn in_flight(&self) -> u64 {
        match self.sent {
            0 => self.waiting.len() as u64,
            sent => sent.saturating_sub(self.next).into(),
        }
    }

    /// Handles readiness.
    pub(super) fn on_event(
        &mut self,
        event: &Readiness,
        desk: &mut Desk,
        buffers: &mut Buffers,
    ) -> Result<(), Failure> {
        if self.socket.connect(&desk.opener, buffers)? {
            // Without a handshake.
            desk.read_clock();
            self.greet(None, desk);
        }
        let ends = event.is_read_closed();
        let mut reads = event.is_readable() || ends;
        while reads {
            let received = self.socket.receive(ends, &mut desk.opener, buffers)?;
            let Some(Received { bytes, opened, is_last, .. }) = received else { break };
            desk.read_clock();
            if let Some(agreement) = opened {
                self.greet(agreement, desk);
            }
            self.take(bytes, desk)?;
            reads = !is_last;
        }
        self.flush(desk, buffers)
    }

    /// The upgrade is made: says what is to be said first.
    fn greet(&mut self, agreement: Option<Agreement>, desk: &mut Desk) {
        if let Some(agreement) = agreement {
            self.codec = Codec::new(Role::Client).with_deflate();
            self.takeover = agreement.takeover(Role::Client).then(|| {
                let window = agreement.compressor_window(Role::Client);
                let compressor = Compressor::new(Level::default(), window).with_takeover();
                Box::new(Takeover { compressor, decompressor: None })
            });
        }
        let Some(ask) = desk.opener.ask() else { return self.open(desk) };
        for text in ask.first_messages(self.number) {
            // A connection that is new takes it.
            let _ = self.codec.send((&*text).into(), &mut desk.masks, &mut desk.out);
        }
        match ask.first_replies() {
            0 => self.open(desk),
            count => self.stage = Stage::Greeting(count),
        }
    }

    fn open(&mut self, desk: &mut Desk) {
        self.stage = Stage::Open;
        desk.opened(self.dialled);
        if let Work::Churn { messages, .. } | Work::Sessions { messages } = desk.plan.work {
            self.go_on_or_close(desk, messages);
        }
    }

    fn take(&mut self, bytes: &mut [u8], desk: &mut Desk) -> Result<(), Failure> {
        self.codec.reset_control_window();
        let mut input = Input::new(bytes);
        loop {
            let inflate = match &mut self.takeover {
                Some(takeover) => Inflate::Dedicated(&mut takeover.decompressor),
                None if self.codec.deflate() => Inflate::Shared(&mut desk.decompressor),
                None => Inflate::Off,
            };
            let received = self.codec.receive_with(&desk.codec, &mut Heap, inflate, &mut input);
            match received.map_err(|_| Failure::ReplyMalformed)? {
                None => return Ok(()),
                Some(Event::Message(message)) => match self.stage {
                    Stage::Greeting(1) => self.open(desk),
                    Stage::Greeting(left) => self.stage = Stage::Greeting(left - 1),
                    Stage::Open => self.on_message(message.as_message(), desk),
                    Stage::Opening | Stage::Closing | Stage::Closed => {}
                },
                Some(Event::Close(_)) if self.stage == Stage::Closing => {
                    self.stage = Stage::Closed;
                }
                Some(Event::Close(close)) => {
                    return Err(Failure::CloseFrame(close.code_or_no_status().get()));
                }
                Some(_) => {}
            }
        }
    }

    /// Sends what it and the desk have for it, as far as the socket takes that.
    pub(super) fn flush(&mut self, desk: &mut Desk, buffers: &mut Buffers) -> Result<(), Failure> {
        self.codec.poll_transmit(&mut desk.masks, &mut desk.out);
        if self.socket.has_unsent() {
            self.socket.flush(buffers)?;
        }
        if self.unsent.is_empty() {
            let sent = match &desk.out[..] {
                [] => return Ok(()),
                bytes => self.socket.send(bytes, buffers)?.unwrap_or_default(),
            };
            self.unsent.extend_from_slice(&desk.out[sent..]);
        } else {
            self.unsent.extend_from_slice(&desk.out);
            let sent = self.socket.send(&self.unsent, buffers)?.unwrap_or_default();
            self.unsent.drain(..sent);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        desk.out.clear();
        match self.unsent.len() > desk.max_queued_len {
            true => Err(Failure::ClosedHere("backpressure")),
            false => Ok(()),
        }
    }

    // What a connection does

    /// Has its next message be sent now.
    pub(super) fn say(&mut self, desk: &mut Desk) {
        let ahead = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.encode(self.next.wrapping_add(ahead), desk);
        self.waiting.push_back(desk.now);
    }

    /// The same with a message that was due by its number.
    pub(super) fn say_due(&mut self, number: u32, desk: &mut Desk) {
        self.encode(number, desk);
        self.sent = number + 1;
    }

    fn encode(&mut self, number: u32, desk: &mut Desk) {
        let takeover = self.takeover.as_mut().map(|takeover| &mut takeover.compressor);
        desk.encode(&mut self.codec, takeover, self.number, number);
    }

    fn on_message(&mut self, message: Message<'_>, desk: &mut Desk) {
        if desk.began == 0 || !desk.may_be_reply(message) {
            // A greeting, or what others say.
            return;
        }
        match desk.plan.work {
            Work::Idle => return,
            Work::Rate { .. } => return self.take_due(message, desk),
            _ => {}
        }
        if matches!(self.take_reply(message, desk), Reply::Stale) {
            return;
        }
        self.answered += 1;
        match desk.plan.work {
            Work::Each { messages } if self.answered >= messages => desk.finished += 1,
            Work::Each { .. } if desk.working => self.say(desk),
            Work::Loop { in_flight, .. } if desk.working => {
                // The first reply opens the connection's window, each other one releases a message.
                while self.waiting.len() < in_flight as usize {
                    self.say(desk);
                }
            }
            Work::Churn { messages, .. } | Work::Sessions { messages } => {
                self.go_on_or_close(desk, messages)
            }
            Work::Pool { .. } => desk.released += 1,
            _ => {}
        }
    }

    /// Goes on with a connection that has had its last reply, or that is new.
    fn go_on_or_close(&mut self, desk: &mut Desk, messages: u64) {
        if self.answered < messages && desk.working {
            return self.say(desk);
        }
        if matches!(desk.plan.work, Work::Sessions { .. }) {
            self.stage = Stage::Closed;
        } else if self.codec.close_state() == CloseState::Open {
            self.stage = Stage::Closing;
            let _ = self.codec.close(CloseCode::NORMAL, "", &mut desk.masks, &mut desk.out);
            desk.closing.push_back((self.number, self.dialled, desk.now));
        }
    }

    // Replies: servers lose, double and reorder them

    /// Counts a message as the reply to one in flight if it is that.
    fn take_reply(&mut self, message: Message<'_>, desk: &mut Desk) -> Reply {
        if self.waiting.is_empty() {
            // Nothing was asked.
            if !desk.plan.any_reply {
                desk.fail(Failure::Doubled, 1);
            }
            return Reply::Stale;
        }
        let expected = self.next;
        let found = desk.number_of(self.number, message, expected);
        if found.is_some_and(|found| found < expected) {
            let has_window = desk.plan.work.has_window();
            desk.fail(if has_window { Failure::Reordered } else { Failure::Doubled }, 1);
            return Reply::Stale;
        }
        let missing = found.map_or(0, |found| found - expected);
        if found.is_none() || missing as usize >= self.waiting.len() {
            desk.fail(Failure::PayloadMismatch, 1);
            self.waiting.pop_front();
            self.next = expected.wrapping_add(1);
            return Reply::Counted;
        }
        // Those that were skipped are given up.
        self.waiting.drain(..missing as usize);
        self.next = (expected + missing).wrapping_add(1);
        let sent_at = self.waiting.pop_front().unwrap_or(desk.now);
        desk.answered(sent_at, missing);
        Reply::Counted
    }

    /// A reply with `Work::Rate`.
    fn take_due(&mut self, message: Message<'_>, desk: &mut Desk) {
        let expected = self.next;
        let Some(found) = desk.number_of(self.number, message, expected) else {
            return desk.fail(Failure::PayloadMismatch, 1);
        };
        if found < expected {
            return desk.fail(Failure::Reordered, 1);
        }
        if found >= self.sent {
            // Nothing was asked that it could answer.
            let has_all = expected >= self.sent;
            if !desk.plan.any_reply {
                desk.fail(if has_all { Failure::Doubled } else { Failure::PayloadMismatch }, 1);
            }
            return;
        }
        self.next = found.saturating_add(1);
        let due = desk.began.saturating_add(desk.due(self.number, found));
        desk.answered(due, found - expected);
    }
}
