//! An open connection: what the sender and the receiver share.
//!
//! The socket never blocks. Who waits, waits in poll(2) without a lock, so that a receiver goes on reading, and
//! answering pings, while a sender waits for room in the socket.

mod core;
mod heartbeat;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use ringwire_codec::deflate::Inflate;
use ringwire_codec::{
    self as codec, AbnormalClosure, CloseCode, CloseState, Heap, Message, SendError, cut_reason,
};
use ringwire_tls::Session;

pub(super) use self::core::Agreed;
use self::core::Core;
use self::heartbeat::Ahead;
use crate::compression::Deflate;
use crate::error::{End, Error, Waiting};
use crate::message::{Event, OwnedMessage};
use crate::random::random;
use crate::wire::{Interest, Wire, after, earlier};

/// Bytes read at once.
const READ_LEN: usize = 16 << 10;

/// With more output waiting than this, the protocol adds none of its own.
const MAX_OWED_LEN: usize = 64 << 10;

/// How long the peer has to end the stream once there is nothing more to say (RFC 6455 §7.1.1 wants the server to be
/// the first).
const LINGER: Duration = Duration::from_secs(1);

/// The window of the limit on control frames.
const CONTROL_WINDOW: Duration = Duration::from_secs(1);

/// The times and limits of an open connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) protocol: codec::Config,
    pub(super) read_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) close_timeout: Duration,
    pub(super) ping_interval: Option<Duration>,
    pub(super) peer_timeout: Option<Duration>,
    pub(super) heartbeat_thread: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    settings: Settings,
    core: Mutex<Core>,
    input: Mutex<Input>,
    /// Told when the connection has ended.
    ended: Condvar,
    /// The thread that does what is owed while nobody receives, if there is one.
    heartbeat: OnceLock<Thread>,
}

/// What was received. Locked by who receives, for as long as that takes.
#[derive(Debug)]
struct Input {
    scratch: Vec<u8>,
    /// Plaintext, on its way through the extensions.
    plain: Vec<u8>,
    /// Frames; the first `used_len` bytes are parsed.
    bytes: Vec<u8>,
    used_len: usize,
    /// What the heartbeat has received before anybody asked for it.
    ahead: Ahead,
    /// Whether the heartbeat reads while nobody receives.
    is_attended: bool,
    /// Only time counts in which somebody reads: the peer cannot show otherwise that it lives.
    last_received: Instant,
    next_ping: Option<Instant>,
    left_at: Instant,
    window_began: Instant,
}

impl Connection {
    /// A connection whose handshake is done, and what came behind it.
    pub(super) fn new(
        wire: Wire,
        tls: Option<Session>,
        agreed: Agreed,
        rest: &[u8],
        settings: Settings,
    ) -> Result<Arc<Self>, Error> {
        let seed = random()?;
        let now = Instant::now();
        let core = Core::new(seed, tls, agreed);
        let input = Input {
            scratch: Vec::new(),
            plain: Vec::new(),
            bytes: Vec::new(),
            used_len: 0,
            ahead: Ahead::default(),
            is_attended: false,
            last_received: now,
            next_ping: settings.ping_interval.and_then(|interval| now.checked_add(interval)),
            left_at: now,
            window_began: now,
        };
        let connection = Self {
            wire,
            settings,
            core: Mutex::new(core),
            input: Mutex::new(input),
            ended: Condvar::new(),
            heartbeat: OnceLock::new(),
        };
        connection.take_rest(rest);
        let connection = Arc::new(connection);
        if settings.heartbeat_thread {
            heartbeat::start(&connection).map_err(|error| Error::Setting {
                setting: "heartbeat_thread",
                problem: format!("no thread could be started: {error}"),
            })?;
        }
        Ok(connection)
    }

    /// Takes the plaintext that came with the end of the handshake.
    fn take_rest(&self, rest: &[u8]) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_plain(&mut self.core(), rest, &mut input.bytes);
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether messages can be sent, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        let core = self.core();
        core.end.is_none()
            && core.failure.is_none()
            && core.broken.is_none()
            && core.codec.close_state() == CloseState::Open
    }

    /// Why nothing can be sent any more, if that is so.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.core().check()
    }

    /// The peer's close frame, once it is here.
    pub(super) fn close_frame(&self) -> Option<(CloseCode, String)> {
        self.core().close.clone()
    }

    // Receiving

    /// The next event; `None` once the connection has ended as it should.
    pub(super) fn receive(&self, deadline: Option<Instant>) -> Result<Option<Event>, Error> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        self.receive_into(&mut input, deadline)
    }

    fn receive_into(
        &self,
        input: &mut Input,
        deadline: Option<Instant>,
    ) -> Result<Option<Event>, Error> {
        input.enter();
        let result = self.next(input, deadline);
        input.left_at = Instant::now();
        self.wake_heartbeat(input);
        result
    }

    fn next(&self, input: &mut Input, deadline: Option<Instant>) -> Result<Option<Event>, Error> {
        let mut has_tried = false;
        loop {
            if let Some(event) = input.ahead.pop().or_else(|| self.parse(input)) {
                return Ok(Some(event));
            }
            let (interest, close_deadline) = match self.settle() {
                Ok(next) => next,
                Err(end) if end.is_normal() => return Ok(None),
                Err(end) => return Err(end.into()),
            };
            let now = Instant::now();
            if has_tried && deadline.is_some_and(|deadline| now >= deadline) {
                return Err(Error::Timeout(Waiting::Receive));
            }
            has_tried = true;
            if self.progress(input, now, close_deadline) {
                continue;
            }
            let until = earlier(deadline, self.deadline(input, close_deadline));
            if let Err(error) = self.wire.wait(interest, until) {
                self.finish(End::Lost(error.kind(), "poll failed"));
            }
        }
    }

    /// Sends what is owed. Gives what to wait for, and until when the peer may take for its part of the end; or how the
    /// connection has ended.
    fn settle(&self) -> Result<(Interest, Option<Instant>), End> {
        let mut core = self.core();
        if core.end.is_none() {
            self.owe(&mut core);
        }
        if let Some(end) = &core.end {
            return Err(end.clone());
        }
        // What is owed still had no room before the last flush.
        let has_output = core.pending_len() > 0 || core.codec.wants_transmit();
        let interest = if has_output { Interest::Both } else { Interest::Read };
        Ok((interest, core.close_deadline))
    }

    /// When there is something to do even if nothing comes.
    fn deadline(&self, input: &Input, close_deadline: Option<Instant>) -> Option<Instant> {
        let peer_timeout = self.settings.peer_timeout;
        let peer_deadline =
            peer_timeout.and_then(|timeout| input.last_received.checked_add(timeout));
        earlier(input.next_ping, earlier(close_deadline, peer_deadline))
    }

    /// Reads what is there, or does what the clock calls for. Gives whether there was either. A peer that sends without
    /// end does not put off the end of a close: nothing is read behind its deadline.
    fn progress(&self, input: &mut Input, now: Instant, close_deadline: Option<Instant>) -> bool {
        let is_late = close_deadline.is_some_and(|deadline| now >= deadline);
        (!is_late && self.fill(input, now)) || self.on_clock(input, now)
    }

    /// Reads what is there. Gives whether anything was, be it the end.
    fn fill(&self, input: &mut Input, now: Instant) -> bool {
        // What follows close_notify is ignored, so it is the end of the stream.
        if self.core().tls.as_ref().is_some_and(Session::peer_has_closed) {
            self.on_eof();
            return true;
        }
        input.scratch.resize(READ_LEN, 0);
        match self.wire.try_read(&mut input.scratch) {
            Ok(None) => return false,
            Ok(Some(0)) => self.on_eof(),
            Ok(Some(len)) => {
                input.last_received = now;
                input.next_ping =
                    self.settings.ping_interval.and_then(|interval| now.checked_add(interval));
                self.take_in(input, len);
            }
            Err(error) => self.on_lost(error.kind(), "reading failed"),
        }
        true
    }

    /// Takes the first `len` bytes of `scratch` through TLS and the extensions, if there are any.
    fn take_in(&self, input: &mut Input, len: usize) {
        if input.used_len == input.bytes.len() {
            input.bytes.clear();
            input.used_len = 0;
        }
        let Input { scratch, plain, bytes, .. } = input;
        let Some(received) = scratch.get_mut(..len) else { return };
        let mut guard = self.core();
        let core = &mut *guard;
        let Some(tls) = &mut core.tls else {
            return self.take_plain(core, received, bytes);
        };
        let target = if core.layer.is_some() { &mut *plain } else { &mut *bytes };
        let result = tls.receive(received, target, &mut core.out);
        self.take_plain(core, plain, bytes);
        plain.clear();
        if let Err(error) = result {
            self.fail(core, End::Tls(error));
        }
    }

    /// Takes plaintext through the extensions. Where they fail, what came before is still handed over.
    fn take_plain(&self, core: &mut Core, plain: &[u8], frames: &mut Vec<u8>) {
        // Where one has failed, nothing that follows can be understood.
        if matches!(core.failure, Some(End::Extension(_))) {
            return;
        }
        let max_message_len = self.settings.protocol.max_message_len;
        let Err(error) = core.unwrap(plain, max_message_len, frames) else { return };
        let reason = cut_reason(error.reason());
        // Where a close frame is out already, nothing is left to say.
        let _ = core.encode(|codec, masks, out| codec.close(error.code(), reason, masks, out));
        core.seal();
        self.fail(core, End::Extension(error));
    }

    /// Looks at the clock. Gives whether something happened.
    fn on_clock(&self, input: &mut Input, now: Instant) -> bool {
        let mut guard = self.core();
        let core = &mut *guard;
        if core.close_deadline.is_some_and(|deadline| now >= deadline) {
            let end = match (&core.failure, core.codec.close_state()) {
                (Some(failure), _) => failure.clone(),
                (None, CloseState::Closed) => core.closed(),
                (None, _) => End::Timeout(Waiting::Close),
            };
            drop(guard);
            self.finish(end);
            return true;
        }
        let silence = now.saturating_duration_since(input.last_received);
        if self.settings.peer_timeout.is_some_and(|timeout| silence >= timeout) {
            drop(guard);
            self.finish(End::Timeout(Waiting::Peer));
            return true;
        }
        if input.next_ping.is_none_or(|moment| now < moment) {
            return false;
        }
        input.next_ping =
            self.settings.ping_interval.and_then(|interval| now.checked_add(interval));
        if core.pending_len() <= MAX_OWED_LEN
            && core.encode(|codec, masks, out| codec.send_ping(&[], masks, out)).is_ok()
        {
            core.seal();
            core.flush(&self.wire);
        }
        true
    }

    /// The next event in what was received.
    fn parse(&self, input: &mut Input) -> Option<Event> {
        while let Some(unused) = input.bytes.get_mut(input.used_len..)
            && !unused.is_empty()
        {
            let len = unused.len();
            let mut guard = self.core();
            let core = &mut *guard;
            let now = Instant::now();
            if now.saturating_duration_since(input.window_began) >= CONTROL_WINDOW {
                input.window_began = now;
                core.codec.reset_control_window();
            }
            let mut rest = codec::Input::new(unused);
            let was_closing = core.closed_by_us;
            let inflate = core.deflate.as_mut().map_or(Inflate::Off, Deflate::inflate);
            let config = &self.settings.protocol;
            let event = core.codec.receive_with(config, &mut Heap, inflate, &mut rest);
            let used_len = len - rest.len();
            let event = match event {
                Ok(None) => None,
                Ok(Some(codec::Event::Message(message))) => {
                    Some(Event::Message(OwnedMessage::from(message)))
                }
                Ok(Some(codec::Event::Ping(payload))) => Some(Event::Ping(payload.to_vec())),
                Ok(Some(codec::Event::Pong(payload))) => Some(Event::Pong(payload.to_vec())),
                // Parts are never asked for.
                Ok(Some(codec::Event::Part(_) | codec::Event::InflatedPart(_))) => None,
                Ok(Some(codec::Event::Close(frame))) => {
                    core.close = Some((frame.code_or_no_status(), frame.reason.into_owned()));
                    core.closed_by_us = was_closing;
                    core.close_deadline =
                        earlier(core.close_deadline, after(Some(self.settings.close_timeout)));
                    None
                }
                Err(error) => {
                    input.used_len += used_len;
                    self.fail(core, End::Protocol(error));
                    return None;
                }
            };
            input.used_len += used_len;
            self.owe(core);
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// Sends what the protocol owes.
    fn owe(&self, core: &mut Core) {
        // It may be what waits in front that leaves no room.
        core.flush(&self.wire);
        if core.codec.wants_transmit() && core.pending_len() <= MAX_OWED_LEN {
            core.encode(|codec, masks, out| codec.poll_transmit(masks, out));
            core.seal();
        }
        if core.codec.close_state() == CloseState::Closed && core.failure.is_none() {
            core.say_goodbye();
        }
        core.flush(&self.wire);
    }

    /// The peer did something wrong: it is told, and has a moment to read it, since closing with unread input
    /// would take the words away from it.
    fn fail(&self, core: &mut Core, end: End) {
        core.failure.get_or_insert(end);
        core.close_deadline = earlier(core.close_deadline, after(Some(LINGER)));
        self.owe(core);
        if core.pending_len() == 0 && !core.codec.wants_transmit() {
            self.wire.shutdown_write();
        }
    }

    fn on_eof(&self) {
        let mut core = self.core();
        if core.failure.is_none() && core.codec.close_state() == CloseState::CloseReceived {
            self.owe(&mut core);
        }
        let end = match (core.failure.clone(), core.codec.receive_eof()) {
            (Some(failure), _) => failure,
            (None, Ok(())) => core.closed(),
            (None, Err(abnormal)) => End::Lost(io::ErrorKind::UnexpectedEof, text_of(abnormal)),
        };
        drop(core);
        self.finish(end);
    }

    fn on_lost(&self, kind: io::ErrorKind, text: &'static str) {
        let core = self.core();
        let end = match (&core.failure, core.codec.close_state()) {
            (Some(failure), _) => failure.clone(),
            (None, CloseState::Closed | CloseState::CloseReceived) => core.closed(),
            (None, _) => End::Lost(kind, text),
        };
        drop(core);
        self.finish(end);
    }

    // Sending

    /// Sends a message, and returns when the socket has taken it.
    pub(super) fn send(&self, message: Message<'_>) -> Result<(), Error> {
        self.submit(|core| core.encode_message(message))
    }

    /// Sends a ping, and returns when the socket has taken it.
    pub(super) fn ping(&self, payload: &[u8]) -> Result<(), Error> {
        self.submit(|core| core.encode(|codec, masks, out| codec.send_ping(payload, masks, out)))
    }

    /// Encodes something and waits until the socket has taken all of it.
    fn submit(&self, encode: impl FnOnce(&mut Core) -> Result<(), SendError>) -> Result<(), Error> {
        let deadline = after(self.settings.write_timeout);
        let mut core = self.core();
        core.check()?;
        encode(&mut core).map_err(|error| match error {
            SendError::Closing => core.closing(),
            other => Error::InvalidMessage(other),
        })?;
        core.seal();
        // Where TLS took nothing of it, nothing waits.
        core.check_output()?;
        let target = core.sent_total + core.pending_len() as u64;
        loop {
            core.flush(&self.wire);
            if core.sent_total >= target {
                return Ok(());
            }
            core.check_output()?;
            drop(core);
            if !self.wire.wait(Interest::Write, deadline).map_err(Error::Lost)? {
                self.finish(End::Timeout(Waiting::Send));
                return Err(Error::Timeout(Waiting::Send));
            }
            core = self.core();
        }
    }

    /// The close handshake: sends the close frame, unless one went out already, and waits for the end.
    pub(super) fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let deadline = after(Some(self.settings.close_timeout));
        {
            let mut core = self.core();
            if core.end.is_none() && core.codec.close_state() == CloseState::Open {
                core.encode(|codec, masks, out| codec.close(code, reason, masks, out))
                    .map_err(Error::InvalidMessage)?;
                core.seal();
                core.closed_by_us = true;
                core.close_deadline = earlier(core.close_deadline, deadline);
                core.flush(&self.wire);
            }
        }
        self.await_end(deadline)
    }

    /// Receives until the end, or waits until whoever receives has come there.
    fn await_end(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let nap = Duration::from_millis(20);
        loop {
            match self.input.try_lock() {
                Ok(mut input) => {
                    while self.receive_into(&mut input, None)?.is_some() {}
                    return Ok(());
                }
                Err(TryLockError::Poisoned(_)) => return Err(Error::Timeout(Waiting::Close)),
                Err(TryLockError::WouldBlock) => {}
            }
            let core = self.core();
            let (core, _) = self
                .ended
                .wait_timeout_while(core, nap, |core| core.end.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            match &core.end {
                Some(end) if end.is_normal() => return Ok(()),
                Some(end) => return Err(end.clone().into()),
                None if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
                None => {
                    drop(core);
                    self.finish(End::Timeout(Waiting::Close));
                }
            }
        }
    }

    /// The connection is over. The first end stays.
    fn finish(&self, end: End) {
        let mut core = self.core();
        if core.end.is_none() {
            core.end = Some(end);
            core.out = Vec::new();
            core.sent_len = 0;
            core.codec.clear(&mut Heap);
            self.wire.shutdown();
        }
        drop(core);
        self.ended.notify_all();
        self.unpark_heartbeat();
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    /// Says goodbye as far as that takes no waiting.
    fn drop(&mut self) {
        let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
        if core.end.is_none() && core.codec.close_state() == CloseState::Open {
            // Whether it comes through is not waited for.
            let _ = core.encode(|codec, masks, out| codec.close(CloseCode::NORMAL, "", masks, out));
            core.seal();
            core.say_goodbye();
            core.flush(&self.wire);
        }
        if self.heartbeat.get().is_some() {
            // Its socket is another, which would keep the connection.
            self.wire.shutdown();
            self.unpark_heartbeat();
        }
    }
}

impl Input {
    /// Somebody begins to wait: the time since the last one did does not count.
    fn enter(&mut self) {
        if self.is_attended {
            return;
        }
        let away = self.left_at.elapsed();
        self.last_received = self.last_received.checked_add(away).unwrap_or(self.last_received);
        self.next_ping = self.next_ping.and_then(|moment| moment.checked_add(away));
    }
}

const fn text_of(abnormal: AbnormalClosure) -> &'static str {
    match abnormal {
        AbnormalClosure::InsideMessage => "the stream ended inside a message",
        AbnormalClosure::CloseUnanswered => {
            "the stream ended before the peer answered the close frame"
        }
        _ => "the stream ended without a close frame",
    }
}
