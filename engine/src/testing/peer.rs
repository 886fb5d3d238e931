//! The test's side of one connection.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use ringwire_codec::OwnedMessage;

use super::line::LiveLine;
use super::stage::Core;
use super::talk::{Closed, Received, Reply, Talk};

/// How long what must come may take, in the time of the stage.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing must come for it to be nothing.
const SILENCE: Duration = Duration::from_secs(1);

/// A request for a WebSocket whose answer was not looked at.
#[derive(Debug)]
#[must_use = "say what the answer must be"]
pub struct Attempt(pub(super) Peer);

impl Attempt {
    /// The open connection.
    ///
    /// # Panics
    /// The server refuses, or does not answer within ten seconds.
    #[track_caller]
    pub fn expect_open(self) -> Peer {
        let Self(mut peer) = self;
        peer.await_that("an answer", |talk| talk.reply.is_some());
        let answer = peer.look(|talk| talk.reply.as_ref().map(|it| (it.status, it.text())));
        let (status, text) = answer.unwrap_or_default();
        let is_open = status == StatusCode::SWITCHING_PROTOCOLS;
        assert!(is_open, "the server answers {status}, where it should have opened: {text}");
        peer
    }

    /// The refusal.
    ///
    /// # Panics
    /// The answer has another status, or does not come within ten seconds.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Reply {
        let reply = self.reply();
        assert_eq!(reply.status.as_u16(), status, "{reply:?}");
        reply
    }

    /// The answer, whatever it is.
    ///
    /// # Panics
    /// It does not come within ten seconds.
    #[track_caller]
    pub fn reply(self) -> Reply {
        let Self(mut peer) = self;
        peer.await_that("an answer", Talk::has_reply);
        peer.look(|talk| talk.reply.clone()).unwrap_or_else(|| unreachable!("it is there"))
    }
}

/// The test's side of a connection: a client that does what the test says, and answers pings.
///
/// What waits for something lets time pass until it is there, up to ten seconds, in the time of the stage.
pub struct Peer(pub(super) Line);

/// How its bytes go.
pub(super) enum Line {
    Sim(Rc<RefCell<Core>>, usize),
    Live(Box<LiveLine>),
}

impl Peer {
    /// Sends a message.
    ///
    /// # Panics
    /// The peer has begun to close.
    #[track_caller]
    pub fn send(&mut self, message: impl Into<OwnedMessage>) {
        let message = message.into();
        self.say(|talk| talk.send(&message));
    }

    /// Sends a ping with at most 125 bytes.
    ///
    /// # Panics
    /// The peer has begun to close, or the payload is too long.
    #[track_caller]
    pub fn ping(&mut self, payload: &[u8]) {
        self.say(|talk| talk.ping(payload));
    }

    /// Begins to close. [`closed`](Self::closed) waits for the server's answer.
    ///
    /// # Panics
    /// It has begun to close already, the code may not be sent, or the reason is too long.
    #[track_caller]
    pub fn close(&mut self, code: u16, reason: &str) {
        self.say(|talk| talk.close(code, reason));
    }

    /// Sends these bytes as they are, whatever they mean.
    pub fn write(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Line::Sim(core, index) => core.borrow().write(*index, bytes),
            Line::Live(line) => line.write(bytes),
        }
    }

    /// The next message that is text.
    ///
    /// # Panics
    /// The next message is not text, the connection ends, or nothing comes within ten seconds.
    #[must_use]
    #[track_caller]
    pub fn text(&mut self) -> String {
        match self.message() {
            OwnedMessage::Text(text) => text,
            OwnedMessage::Binary(bytes) => panic!("{} bytes came, where text was due", bytes.len()),
        }
    }

    /// The next message that is binary.
    ///
    /// # Panics
    /// The next message is text, the connection ends, or nothing comes within ten seconds.
    #[must_use]
    #[track_caller]
    pub fn binary(&mut self) -> Vec<u8> {
        match self.message() {
            OwnedMessage::Binary(bytes) => bytes,
            OwnedMessage::Text(text) => panic!("{text:?} came, where bytes were due"),
        }
    }

    /// The next message. Pings and pongs before it are passed over.
    ///
    /// # Panics
    /// The connection ends, or nothing comes within ten seconds.
    #[must_use]
    #[track_caller]
    pub fn message(&mut self) -> OwnedMessage {
        loop {
            if let Received::Message(message) = self.receive() {
                return message;
            }
        }
    }

    /// What comes next, pings and pongs included.
    ///
    /// # Panics
    /// The connection ends, or nothing comes within ten seconds.
    #[must_use]
    #[track_caller]
    pub fn receive(&mut self) -> Received {
        self.await_that("a message", |talk| !talk.received.is_empty() || talk.closed.is_some());
        let received = self.change(|talk| talk.received.pop_front());
        received.unwrap_or_else(|| {
            panic!("a message was due, and the connection ended: {:?}", self.look_closed())
        })
    }

    /// The next message, if one has come already. No time passes.
    #[must_use]
    pub fn try_message(&mut self) -> Option<OwnedMessage> {
        self.change(|talk| {
            while let Some(received) = talk.received.pop_front() {
                if let Received::Message(message) = received {
                    return Some(message);
                }
            }
            None
        })
    }

    /// Lets a second pass, in which no message comes.
    ///
    /// # Panics
    /// One comes.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.pass(SILENCE);
        let message = self.try_message();
        assert!(message.is_none(), "nothing was due, and this came: {message:?}");
    }

    /// How the connection ended, once it has: what the server's close frame said. Messages that came before are passed
    /// over.
    ///
    /// # Panics
    /// It does not end within ten seconds.
    #[must_use]
    #[track_caller]
    pub fn closed(&mut self) -> Closed {
        self.await_that("the end", |talk| talk.closed.is_some());
        self.look_closed().unwrap_or_else(|| unreachable!("it has ended"))
    }

    /// Whether the connection has not ended, as far as this peer has heard. No time passes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.look(|talk| talk.closed.is_none())
    }

    /// The server's answer to the request: its headers, say.
    #[must_use]
    pub fn reply(&self) -> Option<Reply> {
        self.look(|talk| talk.reply.clone())
    }

    /// Reads no more: what the server sends waits there once the network is full.
    pub fn stop_reading(&mut self) {
        match &mut self.0 {
            Line::Sim(core, index) => core.borrow_mut().set_reading(*index, false),
            Line::Live(line) => line.reads = false,
        }
    }

    /// Reads again.
    pub fn go_on_reading(&mut self) {
        match &mut self.0 {
            Line::Sim(core, index) => core.borrow_mut().set_reading(*index, true),
            Line::Live(line) => line.reads = true,
        }
    }

    /// Ends the peer's side of the stream (FIN), and still reads.
    pub fn half_close(&mut self) {
        match &mut self.0 {
            Line::Sim(core, index) => core.borrow().finish(*index),
            Line::Live(line) => line.finish(),
        }
    }

    /// Breaks the connection (RST).
    pub fn reset(&mut self) {
        match &mut self.0 {
            Line::Sim(core, index) => core.borrow_mut().reset(*index),
            Line::Live(line) => line.reset(),
        }
    }

    fn say(&mut self, work: impl FnOnce(&mut Talk)) {
        self.change(work);
        let bytes = self.change(Talk::take_out);
        self.write(&bytes);
    }

    /// Lets time pass until it holds.
    #[track_caller]
    pub(super) fn await_that(&mut self, what: &str, mut holds: impl FnMut(&Talk) -> bool) {
        let mut left = PATIENCE;
        while !self.look(&mut holds) {
            if let Some(fault) = self.look(|talk| talk.fault.clone()) {
                panic!("{what} was due, and the server broke the protocol: {fault}");
            }
            let passed = match &mut self.0 {
                Line::Sim(core, _) => core.borrow_mut().step(left),
                Line::Live(line) => line.step(left),
            };
            left = left.saturating_sub(passed);
            let closed = self.look_closed();
            assert!(!left.is_zero(), "{what} was due, and nothing came (closed: {closed:?})");
            if closed.is_some() && !self.look(&mut holds) {
                panic!("{what} was due, and the connection ended: {closed:?}");
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        match &mut self.0 {
            Line::Sim(core, _) => core.borrow_mut().advance(time),
            Line::Live(line) => line.pass(time),
        }
    }

    fn look_closed(&self) -> Option<Closed> {
        self.look(|talk| talk.closed.clone())
    }

    fn look<T>(&self, work: impl FnOnce(&Talk) -> T) -> T {
        match &self.0 {
            Line::Sim(core, index) => work(core.borrow().talk(*index)),
            Line::Live(line) => work(&line.talk),
        }
    }

    fn change<T>(&mut self, work: impl FnOnce(&mut Talk) -> T) -> T {
        match &mut self.0 {
            Line::Sim(core, index) => work(core.borrow_mut().talk_mut(*index)),
            Line::Live(line) => work(&mut line.talk),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("closed", &self.look_closed()).finish_non_exhaustive()
    }
}

impl Drop for Peer {
    /// Closes the socket, as the end of a client's process would.
    fn drop(&mut self) {
        if let Line::Sim(core, index) = &self.0
            && let Ok(mut core) = core.try_borrow_mut()
        {
            core.hang_up(*index);
        }
    }
}
