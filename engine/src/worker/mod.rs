//! One core's event loop: it owns a driver, the connections, their timers and buffers, and one handler.
//!
//! This file is the loop: what each turn does, and what comes in from outside. How connections come is in
//! [`accepting`], which are refused in [`admission`], which end for want of memory in [`memory`]. What comes in on one
//! goes down these floors:
//!
//! ```text
//!   input                          by phase, and by what stands before the codec
//!   heads                          requests, and the answers of servers that were dialled
//!   outbound  upgrade  layered     what begins with such a head, and is unwrapped from then on
//!   http      receive              ordinary requests; frames, and the calls they lead to
//! ```
//!
//! What goes out is in [`transmit`], what has a deadline in [`deadlines`], how a connection ends in [`endings`]. What
//! is published is in [`topics`], who hears of names in [`changes`], which futures go on in [`wakes`], how it all ends
//! in [`shutdown`]. The worker's time is in [`clock`].

#![expect(clippy::disallowed_types, reason = "answers and wakes come from other threads")]

mod accepting;
mod admission;
mod changes;
pub(crate) mod clock;
mod compute;
mod deadlines;
mod endings;
mod heads;
mod http;
mod input;
mod layered;
mod memory;
#[cfg(test)]
mod memory_check;
mod outbound;
mod parcels;
mod proxied;
mod receive;
mod secure;
mod shutdown;
mod topics;
mod transmit;
mod upgrade;
mod wakes;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ringwire_codec::Message;

use self::accepting::{AcceptState, Accepting};
use self::clock::TurnClock;
use self::endings::HalfClosed;
use self::shutdown::ShutdownState;
use crate::app::handler::Handler;
use crate::app::states::States;
use crate::base::panics::quietly;
use crate::base::timer::{TICK, tick_at};
use crate::compute::{Compute, Outcome};
use crate::config::{Assignment, Config};
use crate::conn::cause::CloseReason;
use crate::conn::id::ConnId;
use crate::conn::options::SendOptions;
use crate::conn::queue::SegmentKind;
use crate::conn::table::ConnTable;
use crate::conn::{Conn, Flags, Phase};
use crate::driver::{Completion, Driver, Token};
use crate::entry::listener::Terms;
use crate::hub::mail::{Inbox, Mail};
use crate::hub::posted::Posted;
use crate::hub::wakes::{Alarm, Alarms};
use crate::limits::rate::{Bucket, Rate};
use crate::state::Shared;
use crate::state::send;
use crate::topic::Delivery;

/// Letters taken in a turn before the connections get theirs.
const LETTERS_PER_TURN: usize = 1024;

/// What a worker needs beside its driver and handler.
#[derive(Debug)]
pub(crate) struct WorkerSetup {
    pub(crate) shared: Shared,
    pub(crate) inbox: Inbox,
    /// Threads for what is costly, if there are any.
    pub(crate) compute: Option<Compute>,
    /// For each listener of the driver, what is spoken there.
    pub(crate) listeners: Vec<Terms>,
    /// Which worker gets a connection.
    pub(crate) assignment: Assignment,
    /// The most connections that this worker takes.
    pub(crate) max_connections: usize,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Worker<D: Driver, H: Handler> {
    driver: D,
    clock: TurnClock,
    handler: H,
    conns: ConnTable<H::State>,
    /// How states that come from outside become the handler's.
    states: States<H::State>,
    shared: Shared,
    inbox: Inbox,
    /// What is published, on its way to the subscribers.
    delivery: Delivery,
    accepting: Accepting,
    assignment: Assignment,
    /// What is spoken on each listener.
    terms: Vec<Terms>,
    shutdown: Option<Box<ShutdownState>>,
    expired: Vec<u32>,
    half_closed: HalfClosed,
    alarms: Arc<Alarms>,
    /// Wakers that were woken, and not looked at yet.
    rung: VecDeque<Arc<Alarm>>,
}

/// What a turn says about the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There will be another.
    Again,
    /// The shutdown is complete.
    Done,
}

impl<D: Driver, H: Handler> Worker<D, H> {
    /// A worker that accepts from all listeners of its driver.
    pub(crate) fn new(driver: D, clock: TurnClock, handler: H, setup: WorkerSetup) -> Self {
        let WorkerSetup { mut shared, inbox, compute, listeners, assignment, max_connections } =
            setup;
        shared.way_back = Some(Arc::new(inbox.way_back(compute.clone())));
        shared.compute = compute;
        if handler.wants_interest() {
            shared.topics.call_out();
        }
        let share = u32::try_from(shared.hub.links().len()).unwrap_or(1).max(1);
        let rate =
            shared.limits.max_accepts_per_second.map(|rate| Rate::new(rate.div_ceil(share), None));
        let alarms = shared.alarms();
        let listener_count = u32::try_from(listeners.len()).unwrap_or(u32::MAX);
        let mut worker = Self {
            driver,
            clock,
            handler,
            conns: ConnTable::new(),
            states: H::states(),
            shared,
            inbox,
            delivery: Delivery::default(),
            assignment,
            terms: listeners,
            accepting: Accepting {
                listeners: listener_count,
                leaving: 0,
                kept: 0,
                max_connections,
                state: AcceptState::Stopped,
                rate: rate.map(|rate| (rate, Bucket::default(), 0)),
            },
            shutdown: None,
            expired: Vec::new(),
            half_closed: HalfClosed::default(),
            alarms,
            rung: VecDeque::new(),
        };
        worker.start_accepting();
        worker
    }

    /// Turns until the shutdown is complete.
    ///
    /// # Errors
    /// The driver failed.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let outcome = loop {
            match self.turn() {
                Ok(Turn::Again) => {}
                other => break other,
            }
        };
        self.leave_changes();
        outcome?;
        self.shared.ends.sum_up();
        let Self { driver, mut handler, states, inbox, .. } = self;
        // Which may take a while, in which letters still come.
        drop(driver);
        outbound::give_back_dials(&mut handler, &states, &inbox);
        while let Some(result) = inbox.take_result() {
            quietly(result);
        }
        Ok(())
    }

    /// One pass: wait; completions; inbox; timers; what is listed.
    pub(crate) fn turn(&mut self) -> io::Result<Turn> {
        let timeout = self.timeout();
        self.clock.wait_begins();
        self.driver.wait(timeout)?;
        self.clock.wait_ended();
        self.shared.counters.note_turn(self.clock.busy());
        self.shared.now = tick_at(self.clock.now());
        self.shared.work.begin_turn();
        self.begin_wakes();
        self.watch_memory();
        while let Some(completion) = self.driver.next_completion() {
            self.on_completion(completion);
            self.bound_memory();
        }
        self.read_mail();
        self.expire_timers();
        self.shared.deflate.expire_if_due(self.shared.now, &self.shared.counters);
        self.work_off_list();
        self.work_off_queue();
        self.work_off_wakes();
        self.tell_changes();
        self.deliver_publications();
        self.end_half_closed();
        self.go_on_accepting();
        self.shared.ends.sum_up_if_due(self.shared.now);
        let done = self.go_on_shutting_down();
        self.shared.kernel.set_stuck(self.driver.stuck_count());
        self.publish_memory();
        self.make_room();
        self.end_wakes();
        Ok(if done { Turn::Done } else { Turn::Again })
    }

    /// How long to wait: until the first timer, not at all while something is left over.
    fn timeout(&self) -> Option<Duration> {
        let left_over = !self.shared.listed.is_empty()
            || self.shared.work.has_waiting()
            || !self.half_closed.is_empty()
            || !self.rung.is_empty()
            || self.has_publications()
            || self.has_changes();
        if left_over || !self.inbox.is_empty() {
            return Some(Duration::ZERO);
        }
        let resting = match self.accepting.state {
            AcceptState::Resting { until } => Some(until),
            _ => None,
        };
        let Shared { wheel, deflate, watch, ends, kernel, .. } = &self.shared;
        let ticks = [wheel.next_tick(), deflate.next_tick(), ends.next_tick(), kernel.next_tick()];
        let next = ticks
            .into_iter()
            .chain([resting, watch.rests_until, watch.patience_ends, watch.returns_at])
            .flatten()
            .min()
            .map(|tick| (TICK * tick).saturating_sub(self.clock.now()));
        [next, self.shutdown_rests()].into_iter().flatten().min()
    }

    fn on_completion(&mut self, completion: Completion<D::Buffer, D::Socket>) {
        match completion {
            Completion::Received { token, buffer } => self.on_received(token, buffer),
            Completion::Sent { token, buffer, result } => self.on_sent(token, buffer, result),
            Completion::ReceiveEnded { token, result } => self.on_receive_ended(token, result),
            Completion::Accepted { listener, socket, peer } => {
                crate::base::event::trace!(listener = listener.0, ?peer, "accepted");
                self.shared.counters.accepts.add(1);
                self.accept(listener, socket, peer);
            }
            Completion::AcceptEnded { listener, error } => self.on_accept_ended(listener, &error),
            Completion::ListenerLeft { listener } => self.on_listener_left(listener),
            Completion::Closed { token } => self.on_closed(token),
        }
    }

    // Mail

    /// Reads what has come; what comes meanwhile is for the next turn, so that no number of senders holds one up.
    fn read_mail(&mut self) {
        self.inbox.open();
        self.read_publications();
        self.read_offers();
        if self.shared.compute.is_some() {
            for _ in 0..self.inbox.result_count() {
                let Some(result) = self.inbox.take_result() else { break };
                self.on_outcome(result);
                self.bound_memory();
            }
        }
        for _ in 0..self.inbox.answer_count() {
            let Some(answered) = self.inbox.take_answer() else { break };
            self.on_answered(answered);
            self.bound_memory();
        }
        for _ in 0..self.inbox.letter_count().min(LETTERS_PER_TURN) {
            let Some(mail) = self.inbox.take() else { return };
            self.on_mail(mail);
            self.bound_memory();
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Shaken(shaken) => self.on_shaken(*shaken),
            Outcome::Deflated(deflated) => self.on_deflated(*deflated),
            Outcome::Finished(finished) => self.on_finished(*finished),
        }
    }

    fn on_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Send { conn, options, text, payload } => {
                self.mail_send(conn, options, text, &payload);
            }
            Mail::Authenticated { conn } => {
                self.with_open(conn, |conn, _| conn.wire.flags.remove(Flags::UNAUTHENTICATED));
            }
            Mail::Close { conn, code, reason } => {
                // What was given to a sender before this was posted goes out first.
                self.read_offers();
                self.with_open(conn, |conn, shared| {
                    let why = CloseReason::Local;
                    // The handle has checked code and reason; a close may have begun meanwhile.
                    let _ = send::close(&mut conn.wire, shared, why, code, &reason);
                });
            }
            Mail::Pause { conn, paused } => {
                self.with_open(conn, |conn, shared| {
                    if paused {
                        conn.wire.flags.insert(Flags::PAUSED);
                    } else {
                        conn.wire.release(Flags::PAUSED, shared.now);
                    }
                });
            }
            Mail::Adopt(adoption) => self.adopt(*adoption),
            Mail::Accepted { fd, listener, peer } => self.on_handed_over(fd, listener, peer),
            Mail::Dial(outbound) => self.dial(*outbound),
            Mail::Accept { conn, accept } => self.answer_deferred(conn, Ok(*accept)),
            Mail::Reject { conn, response } => self.answer_deferred(conn, Err(response)),
            Mail::Run { conn, then } => self.run_on(conn, then),
            Mail::Event(event) => self.on_posted(event),
            Mail::Topics(query) => self.answer_of_topics(query),
            Mail::Drain { drain, reply } => self.begin_shutdown(drain, reply),
            Mail::Undrain => self.undrain(),
        }
    }

    fn mail_send(&mut self, id: ConnId, options: SendOptions, text: bool, payload: &[u8]) {
        let mut came_late = true;
        self.with_open(id, |conn, shared| {
            let message = match std::str::from_utf8(payload) {
                Ok(payload) if text => Message::Text(payload),
                _ => Message::Binary(payload),
            };
            came_late = false;
            let _ = send::send_behind(&mut conn.wire, shared, id.slot, message, options);
        });
        if came_late {
            self.shared.counters.messages_dropped.add(1);
        }
        let token = Token { slot: id.slot, generation: id.generation };
        let closes = |conn: &&mut Conn<_>| {
            conn.wire.phase != Phase::Open && conn.wire.flags.contains(Flags::OPENED)
        };
        if let Some(conn) = self.conns.get_mut(token).filter(closes)
            && let Some(cause) = conn.wire.pending.as_mut().and_then(|it| it.cause.as_mut())
        {
            cause.lost_messages += 1;
        }
    }

    fn on_posted(&mut self, event: Posted) {
        match catch_unwind(AssertUnwindSafe(|| self.handler.on_event(event))) {
            Ok(Ok(())) => {}
            Ok(Err(event)) => {
                let event_type = event.type_name();
                crate::base::event::warn!(event_type, "no handler takes an event that was posted");
                quietly(event);
            }
            Err(_) => crate::base::event::error!("the handler panicked when told of an event"),
        }
    }

    /// Lets `work` produce output on an open connection, which goes out once all mail is read.
    fn with_open(&mut self, id: ConnId, work: impl FnOnce(&mut Conn<H::State>, &mut Shared)) {
        let token = Token { slot: id.slot, generation: id.generation };
        let Some(conn) = self.conns.get_mut(token).filter(|conn| conn.wire.phase == Phase::Open)
        else {
            return;
        };
        work(conn, &mut self.shared);
        self.shared.enqueue_out(&mut conn.wire, SegmentKind::Stream);
        self.shared.list(&mut conn.wire, token);
    }
}

/// A worker's share of a limit of the whole server.
pub(crate) fn share_of(config: &Config, descriptors: u64, workers: usize) -> usize {
    let connections = config.max_connections.fixed();
    let connections = connections.unwrap_or_else(|| crate::net::connections_within(descriptors));
    connections.div_ceil(workers.max(1)).max(1)
}
