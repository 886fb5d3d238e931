//! A thread that does what a connection owes while nobody receives: it answers pings, sends its own, and finds out that
//! the peer is dead. For that it has to read, so messages come in ahead of whoever will receive them, up to a bound.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use super::{Connection, Input};
use crate::message::Event;
use crate::wire::{Interest, Wire};

/// With so many bytes of messages read ahead, nothing more is read.
const READ_AHEAD_LEN: usize = 256 << 10;

/// What an event counts for beside its payload.
const EVENT_LEN: usize = 64;

/// Events that were received before anybody asked for them.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    events: VecDeque<Event>,
    len: usize,
}

impl Ahead {
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.len -= len_of(&event);
        Some(event)
    }

    const fn is_full(&self) -> bool {
        self.len >= READ_AHEAD_LEN
    }

    /// Keeps messages, and pongs that answer a ping of the application. What else there is would fill it up with time.
    fn push(&mut self, event: Event) {
        match &event {
            Event::Ping(_) => return,
            Event::Pong(payload) if payload.is_empty() => return,
            Event::Message(_) | Event::Pong(_) => {}
        }
        self.len += len_of(&event);
        self.events.push_back(event);
    }
}

fn len_of(event: &Event) -> usize {
    let payload_len = match event {
        Event::Message(message) => message.as_bytes().len(),
        Event::Ping(payload) | Event::Pong(payload) => payload.len(),
    };
    EVENT_LEN + payload_len
}

/// When there is something to do again.
struct Next {
    /// What to wait for at the socket; `None`: for room ahead.
    interest: Option<Interest>,
    until: Option<Instant>,
}

/// Starts the thread, which ends with the connection.
pub(in crate::connection) fn start(connection: &Arc<Connection>) -> io::Result<()> {
    // Of its own, so that it keeps nothing alive while it waits.
    let wire = Wire::new(connection.wire.socket().try_clone()?)?;
    let weak = Arc::downgrade(connection);
    let thread =
        thread::Builder::new().name("heartbeat".into()).spawn(move || run(&weak, &wire))?;
    // There is only one.
    let _ = connection.heartbeat.set(thread.thread().clone());
    Ok(())
}

fn run(connection: &Weak<Connection>, wire: &Wire) {
    while let Some(next) = connection.upgrade().and_then(|connection| connection.beat()) {
        match (next.interest, next.until) {
            (Some(interest), until) => {
                // If it fails, so does reading.
                let _ = wire.wait(interest, until);
            }
            (None, Some(until)) => {
                thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
            (None, None) => thread::park(),
        }
    }
}

impl Connection {
    /// Does what is due. Waits while somebody receives, who does it instead. `None`: the connection has ended.
    fn beat(&self) -> Option<Next> {
        let mut guard = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let input = &mut *guard;
        loop {
            while !input.ahead.is_full()
                && let Some(event) = self.parse(input)
            {
                input.ahead.push(event);
            }
            let (interest, close_deadline) = self.settle().ok()?;
            let now = Instant::now();
            let is_full = input.ahead.is_full();
            if is_full {
                // A peer that is not read from cannot show that it lives.
                input.last_received = now;
            }
            let has_progressed = if is_full {
                self.on_clock(input, now)
            } else {
                self.progress(input, now, close_deadline)
            };
            if has_progressed {
                continue;
            }
            input.left_at = now;
            input.is_attended = !is_full;
            let until = self.deadline(input, close_deadline);
            return Some(Next { interest: (!is_full).then_some(interest), until });
        }
    }

    /// Somebody has received: there may be room ahead again.
    pub(super) fn wake_heartbeat(&self, input: &Input) {
        if !input.is_attended && !input.ahead.is_full() {
            self.unpark_heartbeat();
        }
    }

    pub(super) fn unpark_heartbeat(&self) {
        if let Some(thread) = self.heartbeat.get() {
            thread.unpark();
        }
    }
}
