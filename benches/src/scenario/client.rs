//! The handler of a generator's workers: what its connections do when something comes.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "workers and the pacing thread share gauges, and a load generator measures time"
)]

mod replies;
mod rounds;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memchr::memmem::Finder;
use ringwire::{
    Answer, CloseCause, CloseCode, CloseReason, ConnId, Ctx, Handle, Handler, Message, Request,
    Response, WorkerContext, transport::DialError,
};

use self::replies::Reply;
use super::message::Template;
use super::plan::{Plan, Pulse, Work, second_of};
use super::tally::Tally;
use crate::ask::Ask;
use crate::echo::Failure;

/// The timer of the replies to first messages.
const GREETING: u64 = 0;
/// Instead of the replies that a connection awaits.
const TOO_LATE: u32 = u32::MAX;
/// The same where the server did not agree to compression.
const DECLINED: u32 = u32::MAX - 1;
/// The connection is gone, in place of the time when its message was sent.
const GONE: u64 = u64::MAX;

/// What a worker tells the pacing thread.
pub(crate) enum Event {
    /// The connection with this number is open.
    Opened(u32, ConnId),
    /// It is not any more, or did not become so.
    Gone(u32),
    /// What was counted in a second of the run.
    Second(u32, Tally),
}

/// The time of a run: the same in all its processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunClock {
    started: Instant,
    /// Time of the run when `started` was.
    offset: Duration,
}

impl RunClock {
    /// A clock whose zero is so many nanoseconds after 1970.
    pub(crate) fn new(epoch: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = now.saturating_sub(Duration::from_nanos(epoch));
        Self { started: Instant::now(), offset }
    }

    /// Time since the run began.
    pub(crate) fn elapsed(self) -> Duration {
        self.offset + self.started.elapsed()
    }

    /// The same in nanoseconds.
    pub(crate) fn nanos(self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What the workers and the pacing thread of a generator share.
pub(crate) struct Common {
    pub(crate) plan: Plan,
    pub(crate) clock: RunClock,
    pub(crate) template: Template,
    ask: Arc<Ask>,
    /// What a message has to have in it, one of these, to be looked at at all; none: nothing.
    replies: Vec<Finder<'static>>,
    /// When the message in flight on each connection was sent, of several the oldest; 0: none is. Not for `Work::Rate`.
    sent_at: Box<[AtomicU64]>,
    /// Messages in flight beside the oldest ones, with `Work::Loop`.
    behind: AtomicU64,
    /// How far the replies on each connection have come.
    next: Box<[AtomicU32]>,
    /// The connections by number, once all are made.
    conns: OnceLock<Vec<Option<ConnId>>>,
    /// Connections that wait for their turn, for each worker, with `Work::Pool`.
    queues: Mutex<Vec<VecDeque<u32>>>,
    /// Messages that are still to be sent, with `Work::Pool`.
    left: AtomicU64,
    /// When work began, in nanoseconds of the run; 0 before.
    began: AtomicU64,
    working: AtomicBool,
    ending: AtomicBool,
    opened: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    sent: AtomicU64,
    answered: AtomicU64,
    /// Connections that have nothing more to do, or are gone.
    finished: AtomicU64,
    /// What each worker counted since it last told. Only the end of a run waits for one of these locks.
    tallies: Box<[Mutex<Tally>]>,
}

impl Common {
    /// Of a generator that has not begun.
    pub(crate) fn new(plan: Plan, ask: Arc<Ask>) -> Self {
        let count = |wanted: bool| if wanted { plan.connections } else { 0 };
        let is_rate = matches!(plan.work, Work::Rate { .. });
        Self {
            clock: RunClock::new(plan.epoch),
            template: match &plan.payload {
                Some(bytes) => Template::of(bytes.clone()),
                None => Template::noise(plan.size, plan.text),
            },
            ask,
            replies: plan
                .reply_contains
                .iter()
                .map(|text| Finder::new(text).into_owned())
                .collect(),
            sent_at: (0..count(!is_rate)).map(|_| AtomicU64::new(0)).collect(),
            behind: AtomicU64::new(0),
            next: (0..count(plan.work != Work::Idle)).map(|_| AtomicU32::new(0)).collect(),
            conns: OnceLock::new(),
            queues: Mutex::default(),
            left: AtomicU64::new(0),
            began: AtomicU64::new(0),
            working: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            tallies: (0..plan.threads).map(|_| Mutex::default()).collect(),
            plan,
        }
    }

    /// Begins work with these connections, by number; when.
    pub(crate) fn begin(&self, conns: &[Option<ConnId>]) -> u64 {
        // Once only: there is one work in a plan.
        let _ = self.conns.set(conns.to_vec());
        let now = self.clock.nanos();
        self.began.store(now, Ordering::Relaxed);
        self.working.store(true, Ordering::Release);
        now
    }

    /// What all workers counted since they last told.
    pub(crate) fn take_tallies(&self) -> Tally {
        let mut all = Tally::default();
        for tally in &self.tallies {
            all.merge(&std::mem::take(&mut *lock(tally)));
        }
        all
    }

    fn has_begun(&self) -> bool {
        self.began.load(Ordering::Relaxed) != 0
    }

    /// Has connections send no further messages.
    pub(crate) fn pause(&self) {
        self.working.store(false, Ordering::Release);
    }

    /// From now on what becomes of connections does not count.
    pub(crate) fn end(&self) {
        self.pause();
        self.ending.store(true, Ordering::Release);
    }

    /// With `Work::Pool`: the connections of each worker that wait, and the messages that they will send.
    pub(crate) fn set_pool(&self, queues: Vec<VecDeque<u32>>, left: u64) {
        self.left.store(left, Ordering::Relaxed);
        *lock(&self.queues) = queues;
    }

    /// Notes that a message is sent on a connection; whether it is still there.
    pub(crate) fn mark(&self, number: u32, now: u64) -> bool {
        let Some(mark) = self.sent_at.get(number as usize) else { return false };
        // The pacing thread may find it gone meanwhile: then the mark stays.
        mark.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes one of the messages that are still to be sent, with `Work::Pool`; whether there was one.
    fn take_one(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Takes the mark back: the message was not sent.
    pub(crate) fn unmark(&self, number: u32, now: u64) {
        if let Some(mark) = self.sent_at.get(number as usize) {
            // Stays if the connection is gone meanwhile.
            let _ = mark.compare_exchange(now.max(1), 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Messages that have no reply, of connections that are still there. Not for `Work::Rate`.
    pub(crate) fn in_flight(&self) -> u64 {
        let waits = |mark: &&AtomicU64| !matches!(mark.load(Ordering::Relaxed), 0 | GONE);
        let oldest = self.sent_at.iter().filter(waits).count() as u64;
        oldest + self.behind.load(Ordering::Relaxed)
    }

    /// So many messages are in flight beside the oldest ones of a connection, where there were others before.
    fn set_behind(&self, before: usize, now: usize) {
        if now != before {
            self.behind.fetch_add((now as u64).wrapping_sub(before as u64), Ordering::Relaxed);
        }
    }

    /// A connection that was closed may be opened again, with `Work::Churn`.
    pub(crate) fn renew(&self, number: u32) {
        if let Some(mark) = self.sent_at.get(number as usize) {
            mark.store(0, Ordering::Relaxed);
        }
        self.set_next_reply(number, 0);
    }

    fn set_next_reply(&self, number: u32, next: u32) {
        if let Some(place) = self.next.get(number as usize) {
            place.store(next, Ordering::Relaxed);
        }
    }

    /// The number that the next reply of a connection has if none is missing.
    pub(crate) fn next_reply(&self, number: u32) -> u32 {
        self.next.get(number as usize).map_or(0, |next| next.load(Ordering::Relaxed))
    }

    /// When a message is due, in nanoseconds after work began. The connections' messages are spread evenly.
    pub(crate) fn due(&self, connection: u32, message: u32) -> u64 {
        let Work::Rate { interval, .. } = self.plan.work else { return 0 };
        if let Some(pace) = &self.plan.pace {
            let offset = f64::from(connection) / f64::from(self.plan.connections.max(1));
            let due = pace.time_of(f64::from(message) + offset);
            return due.map_or(u64::MAX, |due| u64::try_from(due.as_nanos()).unwrap_or(u64::MAX));
        }
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let offset = u128::from(interval) * u128::from(connection)
            / u128::from(self.plan.connections.max(1));
        interval
            .saturating_mul(message.into())
            .saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// Totals so far.
    pub(crate) fn pulse(&self) -> Pulse {
        let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        Pulse {
            opened: read(&self.opened),
            closed: read(&self.closed),
            failed: read(&self.failed),
            sent: read(&self.sent),
            answered: read(&self.answered),
        }
    }

    /// Connections that have nothing more to do, or are gone.
    pub(crate) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Messages that were given to connections.
    pub(crate) fn count_sent(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether a message may be a reply.
    fn may_be_reply(&self, message: Message<'_>) -> bool {
        let bytes = message.as_bytes();
        self.replies.is_empty() || self.replies.iter().any(|text| text.find(bytes).is_some())
    }

    /// Failures that the pacing thread found.
    pub(crate) fn count_failed(&self, count: u64) {
        self.failed.fetch_add(count, Ordering::Relaxed);
    }
}

/// The state of a connection.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) number: u32,
    /// When it was dialled, in nanoseconds of the run.
    pub(crate) dialled: u64,
    /// Messages that have to come before it counts as open; [`TOO_LATE`] when they did not come in time, or
    /// [`DECLINED`].
    awaits: u32,
    /// Replies that it had, with `Work::Each`, `Work::Loop` and `Work::Churn`.
    answered: u64,
    /// When the messages in flight were sent, but for the oldest, with `Work::Loop`.
    behind: VecDeque<u64>,
}

impl Seat {
    /// Of a connection that is dialled now.
    pub(crate) fn new(number: u32, dialled: u64) -> Self {
        Self { number, dialled, awaits: 0, answered: 0, behind: VecDeque::new() }
    }
}

/// One worker's handler.
pub(crate) struct Client {
    common: Arc<Common>,
    /// The message, with the number of the one that is sent.
    template: Template,
    handle: Handle,
    worker: u16,
    events: Sender<Event>,
    /// That which is counted now.
    second: u32,
    queue: Option<VecDeque<u32>>,
}

impl Client {
    /// Of a worker.
    pub(crate) fn new(common: Arc<Common>, context: &WorkerContext, events: Sender<Event>) -> Self {
        let (handle, worker) = (context.handle().clone(), context.index());
        let template = common.template.clone();
        Self { common, template, handle, worker, events, second: 0, queue: None }
    }

    /// Reads the clock, and tells what was counted in a second that is over.
    fn now(&mut self) -> u64 {
        let now = self.common.clock.nanos();
        let second = second_of(now);
        if second != self.second {
            self.tell();
            self.second = second;
        }
        now
    }

    fn tell(&self) {
        let tally = std::mem::take(&mut *self.tally());
        if !tally.is_empty() {
            // Fails only if the pacing thread is gone, and all is over.
            let _ = self.events.send(Event::Second(self.second, tally));
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // A worker of each thread of the plan.
        lock(&self.common.tallies[usize::from(self.worker)])
    }

    fn count_sent(&self, count: u64) {
        self.tally().sent += count;
        self.common.count_sent(count);
    }

    fn fail(&self, failure: Failure) {
        self.tally().fail(failure, 1);
        self.common.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection is open, and has been greeted.
    fn opened(&mut self, ctx: &mut Ctx<'_, Seat>) {
        let now = self.now();
        let &mut Seat { number, dialled, .. } = ctx.state_mut();
        let mut tally = self.tally();
        tally.opened += 1;
        tally.last_opened = now;
        tally.connect.record(now.saturating_sub(dialled));
        drop(tally);
        // Told before it is counted: who sees the count finds the connection.
        let _ = self.events.send(Event::Opened(number, ctx.id()));
        self.common.opened.fetch_add(1, Ordering::Release);
        if let Work::Churn { messages, .. } = self.common.plan.work {
            self.churn(ctx, now, messages);
        }
    }

    fn on_work(&mut self, ctx: &mut Ctx<'_, Seat>, message: Message<'_>) {
        if !self.common.has_begun() || !self.common.may_be_reply(message) {
            // A greeting, or what others say.
            return;
        }
        match self.common.plan.work {
            Work::Idle => {}
            Work::Each { messages } => self.on_each(ctx, message, messages),
            Work::Loop { in_flight, .. } => self.on_loop(ctx, message, in_flight),
            Work::Churn { messages, .. } => self.on_churn(ctx, message, messages),
            Work::Pool { .. } => self.on_pool(ctx.state().number, message),
            Work::Rate { .. } => self.on_rate(ctx.state().number, message),
        }
    }

    fn on_each(&mut self, ctx: &mut Ctx<'_, Seat>, message: Message<'_>, messages: u64) {
        let number = ctx.state().number;
        let (now, reply) = self.count_reply(number, message);
        let Reply::Right { .. } = reply else { return };
        ctx.state_mut().answered += 1;
        if ctx.state().answered >= messages {
            self.common.finished.fetch_add(1, Ordering::Relaxed);
        } else if self.common.working.load(Ordering::Acquire) && self.common.mark(number, now) {
            let _ = ctx.send(self.next_message(number, 0));
            self.count_sent(1);
        }
    }

    fn on_pool(&mut self, number: u32, message: Message<'_>) {
        let (now, reply) = self.count_reply(number, message);
        if reply == Reply::Stale {
            return;
        }
        self.queue().push_back(number);
        self.send_next(now);
    }

    /// Sends the next message of the pool on the connection whose turn it is.
    fn send_next(&mut self, now: u64) {
        if !self.common.working.load(Ordering::Acquire) || !self.common.take_one() {
            return;
        }
        while let Some(next) = self.queue().pop_front() {
            let conn = self.common.conns.get().and_then(|all| *all.get(next as usize)?);
            let Some(conn) = conn else { continue };
            if !self.common.mark(next, now) {
                continue;
            }
            self.template.set_number(self.common.next_reply(next));
            match self.handle.send(conn, self.template.message()) {
                Ok(()) => self.count_sent(1),
                // The mailbox has room for all that are in flight, so the worker is ending.
                Err(_) => self.fail(Failure::ClosedHere("mailbox full")),
            }
            return;
        }
    }

    fn queue(&mut self) -> &mut VecDeque<u32> {
        let Self { common, worker, queue, .. } = self;
        queue.get_or_insert_with(|| {
            let mut queues = lock(&common.queues);
            queues.get_mut(usize::from(*worker)).map(std::mem::take).unwrap_or_default()
        })
    }
}

impl Handler for Client {
    type State = Seat;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<Seat> {
        // A generator listens nowhere.
        Response::new(http::StatusCode::NOT_FOUND).into()
    }

    fn on_dial_failed(&mut self, seat: Seat, error: &DialError) {
        if !self.common.ending.load(Ordering::Acquire) {
            self.now();
            self.fail(Failure::of_dial(error));
            let _ = self.events.send(Event::Gone(seat.number));
        }
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Seat>) {
        let number = ctx.state().number;
        let common = Arc::clone(&self.common);
        if common.plan.takeover.is_some() && !ctx.is_compressed() {
            ctx.state_mut().awaits = DECLINED;
            let _ = ctx.close(CloseCode::NORMAL, "");
            return;
        }
        for text in common.ask.first_messages(number) {
            // Refused only if the connection is ending.
            let _ = ctx.send(&*text);
        }
        let awaits = common.ask.first_replies();
        let timeout = common.plan.connect_timeout;
        if awaits == 0 || ctx.set_timer(GREETING, timeout).is_err() {
            return self.opened(ctx);
        }
        ctx.state_mut().awaits = awaits;
    }

    fn on_timer(&mut self, ctx: &mut Ctx<'_, Seat>, _key: u64) {
        ctx.state_mut().awaits = TOO_LATE;
        let _ = ctx.close(CloseCode::NORMAL, "");
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, Seat>, message: Message<'_>) {
        match ctx.state_mut().awaits {
            0 => self.on_work(ctx, message),
            TOO_LATE | DECLINED => {}
            1 => {
                ctx.clear_timer(GREETING);
                ctx.state_mut().awaits = 0;
                self.opened(ctx);
            }
            _ => ctx.state_mut().awaits -= 1,
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Seat>, cause: &CloseCause) {
        if self.common.ending.load(Ordering::Acquire) {
            return;
        }
        let now = self.now();
        let number = ctx.state().number;
        if ctx.state().awaits > 0 {
            // It has never counted as open.
            self.fail(match ctx.state().awaits {
                TOO_LATE => Failure::FirstUnanswered,
                DECLINED => Failure::CompressionDeclined,
                _ => Failure::of_close(cause),
            });
            let _ = self.events.send(Event::Gone(number));
            return;
        }
        let is_asked_for = matches!(self.common.plan.work, Work::Churn { .. })
            && cause.reason == CloseReason::Local
            && cause.is_clean();
        self.tally().closed += 1;
        self.common.closed.fetch_add(1, Ordering::Relaxed);
        if is_asked_for {
            self.tally().closed_cleanly += 1;
        } else {
            self.fail(Failure::of_close(cause));
        }
        let mark = self.common.sent_at.get(number as usize);
        let had = mark.map_or(0, |mark| mark.swap(GONE, Ordering::Relaxed));
        // Told when all else is done: the number may have another connection then.
        let _ = self.events.send(Event::Gone(number));
        match self.common.plan.work {
            Work::Each { messages }
                if self.common.has_begun() && ctx.state().answered < messages =>
            {
                self.common.finished.fetch_add(1, Ordering::Relaxed);
            }
            Work::Loop { .. } if self.common.has_begun() => {
                self.common.set_behind(ctx.state().behind.len(), 0);
                self.common.finished.fetch_add(1, Ordering::Relaxed);
            }
            // Its message goes with it, and another may be in flight instead.
            Work::Pool { .. } if had != 0 => self.send_next(now),
            _ => {}
        }
    }
}

/// What is under a lock stays usable if a thread that held it panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
