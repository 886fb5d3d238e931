//! One generator: a thread with some of the run's connections, which is an edge-triggered epoll loop over them.
//!
//! It dials, kicks closed loops off and gives open loops their messages when these are due; replies release further
//! messages ([`connection`](super::connection)). Nothing waits without an end: connects have their limit, and work ends
//! when no reply came for the response timeout.

mod connect;
pub(super) mod sessions;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use mio::event::Event;
use mio::{Events, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::clock::nanos;
use super::connection::{Connection, Stage};
use super::desk::Desk;
use super::message::NUMBER_LEN;
use super::plan::{News, Order, Plan, Work};
use crate::echo::{Buffers, Dialler, Failure};
use crate::target::Target;
use crate::{machine, procstat, tls};

const EVENTS_PER_PASS: usize = 1024;
/// How often the totals are told.
const PULSE_INTERVAL: Duration = Duration::from_millis(100);
/// The longest sleep while connects or messages are paced, and the end of work is looked for.
const PACE_INTERVAL: Duration = Duration::from_millis(1);
/// How often orders are looked for.
const REST_INTERVAL: Duration = Duration::from_millis(2);
/// Messages that are sent in one pass: replies are read between two of them.
const SENDS_PER_PASS: u32 = 64;
/// Work whose time is up has this many response timeouts for its last replies, as long as some come.
const LAST_REPLIES: u32 = 10;

/// Does what `orders` say until the last one, and tells the news.
///
/// # Errors
/// When it cannot begin at all.
pub(crate) fn run(plan: Plan, orders: &Receiver<Order>, tell: &dyn Fn(News)) -> anyhow::Result<()> {
    let mut generator = Generator::start(plan, tell)?;
    loop {
        let order = match orders.try_recv() {
            Ok(order) => order,
            Err(TryRecvError::Empty) => {
                generator.turn(REST_INTERVAL)?;
                continue;
            }
            // Who gives orders is gone.
            Err(TryRecvError::Disconnected) => break,
        };
        match order {
            // They come with the work.
            Order::Connect if matches!(generator.load.desk.plan.work, Work::Churn { .. }) => {}
            Order::Connect => generator.connect()?,
            Order::Work => generator.work()?,
            Order::End => break,
        }
        generator.tell_all();
        tell(News::Done(order));
    }
    generator.tell_all();
    // The connections end with their sockets, which are reset: a close frame on each of a million connections takes
    // longer than all the work before.
    drop(generator);
    tell(News::Done(Order::End));
    Ok(())
}

struct Generator<'a> {
    poll: Poll,
    events: Events,
    load: Load,
    tell: &'a dyn Fn(News),
    dialler: Dialler,
    /// Connections that were dialled and when, oldest first, until they are found open or late.
    dialled: VecDeque<(u32, u64)>,
    told: Duration,
}

/// The connections.
struct Load {
    /// By number.
    connections: Vec<Option<Connection>>,
    /// How many of them are open.
    open: usize,
    desk: Desk,
    buffers: Buffers,
    /// Numbers of those that have gone, or did not come.
    free: VecDeque<u32>,
    /// With `Work::Pool`: connections that wait for their turn, and messages that are still to be sent.
    queue: VecDeque<u32>,
    left: u64,
}

impl<'a> Generator<'a> {
    fn start(plan: Plan, tell: &'a dyn Fn(News)) -> anyhow::Result<Self> {
        let numbers = plan.first..plan.first.saturating_add(plan.connections);
        let target = Target::from_url(&plan.url)?.with_ask(&plan.ask, numbers)?;
        if target.resource().is_none() {
            bail!("{target}: scenarios need a WebSocket server, ws:// or wss://");
        }
        let has_number = plan.payload.is_none() && !plan.any_reply;
        if matches!(plan.work, Work::Rate { .. }) && plan.size < NUMBER_LEN && has_number {
            bail!(
                "messages of {} bytes have no room for their number: {NUMBER_LEN} or more, or --any-reply",
                plan.size
            );
        }
        let tls = plan.tls.client(&target, plan.own_certificate.as_deref())?;
        machine::raise_descriptor_limit().context("cannot read the limit of open files")?;
        if !plan.cpus.is_empty() {
            machine::pin_thread(&plan.cpus).context("cannot pin to --cpu")?;
        }
        Self::on(plan, &target, tls, tell)
    }

    /// One whose connections go to `target`.
    fn on(
        plan: Plan,
        target: &Target,
        tls: Option<tls::Client>,
        tell: &'a dyn Fn(News),
    ) -> anyhow::Result<Self> {
        let dialler = Dialler::to(target, &plan.sources, tls);
        let connections = (0..plan.connections).map(|_| None).collect();
        let desk = Desk::new(plan, target)?;
        tell(News::Ready { threads: vec![procstat::own_thread_id()], at: desk.clock.nanos() });
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_PASS),
            load: Load {
                connections,
                open: 0,
                desk,
                buffers: Buffers::new(),
                free: VecDeque::new(),
                queue: VecDeque::new(),
                left: 0,
            },
            tell,
            dialler,
            dialled: VecDeque::new(),
            told: Duration::ZERO,
        })
    }

    // Work

    fn work(&mut self) -> anyhow::Result<()> {
        let before = self.load.buffers.traffic();
        match self.load.desk.plan.work {
            // Those have no orders.
            Work::Idle | Work::Sessions { .. } => {}
            Work::Each { messages } => self.each(messages)?,
            Work::Loop { duration, .. } => self.go_round(duration)?,
            Work::Pool { messages, in_flight } => self.pool(messages, in_flight)?,
            Work::Rate { interval, duration } => self.rate(interval, duration)?,
            Work::Churn { interval, duration, .. } => self.churn(interval, duration)?,
        }
        self.load.desk.working = false;
        self.turn(Duration::ZERO)?;
        let (sent, received) = self.load.buffers.traffic();
        self.load.desk.tally.bytes_sent += sent - before.0;
        self.load.desk.tally.bytes_received += received - before.1;
        Ok(())
    }

    fn each(&mut self, messages: u64) -> anyhow::Result<()> {
        self.load.desk.begin();
        if messages == 0 {
            return Ok(());
        }
        let participants = self.kick_all()?;
        self.wait_while_answered(|load| load.desk.finished >= participants)?;
        self.load.fail_unanswered();
        Ok(())
    }

    fn go_round(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = Duration::from_nanos(self.load.desk.begin()) + duration;
        let participants = self.kick_all()?;
        loop {
            let left = end.saturating_sub(self.load.desk.clock.elapsed());
            // With all connections gone there is nothing to wait for.
            if left.is_zero() || self.load.desk.finished >= participants {
                break;
            }
            self.turn(left.min(PACE_INTERVAL))?;
        }
        self.load.desk.working = false;
        self.wait_while_answered(|load| load.in_flight() == 0)?;
        self.load.fail_unanswered();
        Ok(())
    }

    /// Sends the first message of each connection; how many there are. Not all at once, so that a large number of them
    /// does not fill the kernel's memory before the first reply is read.
    fn kick_all(&mut self) -> anyhow::Result<u64> {
        let mut count = 0;
        for number in self.load.open_ones() {
            count += 1;
            self.load.kick(number);
            if count % u64::from(SENDS_PER_PASS) == 0 {
                self.turn(Duration::ZERO)?;
            }
        }
        Ok(count)
    }

    fn pool(&mut self, messages: u64, in_flight: u32) -> anyhow::Result<()> {
        self.load.queue = self.load.open_ones().into();
        if self.load.queue.is_empty() {
            return Ok(());
        }
        self.load.desk.begin();
        self.load.left = messages;
        self.load.desk.released = u64::from(in_flight).min(self.load.queue.len() as u64);
        self.load.send_released();
        self.wait_while_answered(|load| load.desk.totals.answered >= messages)?;
        self.load.fail_unanswered();
        Ok(())
    }

    fn rate(&mut self, interval: Duration, duration: Duration) -> anyhow::Result<()> {
        let began = self.load.desk.begin();
        self.load.desk.tally.due += self.load.desk.plan.due();
        let connections = self.load.desk.plan.connections;
        let patience = nanos(self.load.desk.plan.response_timeout);
        let window = nanos(duration);
        let (mut connection, mut number, mut passed) = (0, 0, 0);
        while !interval.is_zero() && connections > 0 {
            let due = self.load.desk.due(connection, number);
            if due >= window {
                break;
            }
            let now = self.load.desk.read_clock().saturating_sub(began);
            if now < due {
                self.turn(Duration::from_nanos(due - now).min(PACE_INTERVAL))?;
                continue;
            }
            // A generator that has fallen behind so far is not waited for: what it did not send is told.
            if now >= window.saturating_add(patience) {
                break;
            }
            self.load.with(connection, |connection, desk| {
                if connection.is_open() {
                    connection.say_due(number, desk);
                    desk.tally.lag.record_nanos(now - due);
                }
            });
            self.load.desk.tally.reached += 1;
            connection += 1;
            if connection == connections {
                (connection, number) = (0, number + 1);
            }
            passed += 1;
            if passed % SENDS_PER_PASS == 0 {
                self.turn(Duration::ZERO)?;
            }
        }
        let sent = self.load.desk.totals.sent;
        self.wait_while_answered(|load| load.desk.totals.answered >= sent)?;
        self.load.fail_unanswered();
        Ok(())
    }

    /// Waits until all is done, or nothing was answered for the response timeout.
    fn wait_while_answered(&mut self, is_done: impl Fn(&Load) -> bool) -> anyhow::Result<()> {
        let desk = &self.load.desk;
        let timeout = desk.plan.response_timeout;
        let mut answered = desk.totals.answered;
        let mut since = desk.clock.elapsed();
        let end = since
            + match desk.plan.work.duration() {
                Some(_) => timeout * LAST_REPLIES,
                None => desk.plan.limit,
            };
        loop {
            let now = self.load.desk.clock.elapsed();
            let current = self.load.desk.totals.answered;
            if current != answered {
                (answered, since) = (current, now);
            }
            if is_done(&self.load) || now - since > timeout || now >= end {
                return Ok(());
            }
            // Little is spent on a reply that may never come.
            let is_idle = now - since > Duration::from_millis(100);
            self.turn(if is_idle { 20 * PACE_INTERVAL } else { PACE_INTERVAL })?;
        }
    }

    // Events

    /// Waits for what comes, for that long, and handles it.
    fn turn(&mut self, time: Duration) -> anyhow::Result<()> {
        // Of whole milliseconds epoll knows itself.
        let is_fine = !time.as_nanos().is_multiple_of(1_000_000);
        self.look(if is_fine { Duration::ZERO } else { time })?;
        if is_fine && self.events.is_empty() {
            self.wait(time)?;
            self.look(Duration::ZERO)?;
        }
        for event in &self.events {
            self.load.on_event(event);
        }
        self.expire();
        let now = self.load.desk.clock.elapsed();
        if now - self.told >= PULSE_INTERVAL {
            self.told = now;
            (self.tell)(News::Pulse(self.load.desk.totals));
        }
        for (second, tally) in self.load.desk.untold.drain(..) {
            (self.tell)(News::Second(second, tally));
        }
        Ok(())
    }

    fn look(&mut self, time: Duration) -> std::io::Result<()> {
        match self.poll.poll(&mut self.events, Some(time)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// Waits until there are events, for that long: to the microsecond, and not to the millisecond of epoll, since
    /// messages are due when they are due.
    fn wait(&self, time: Duration) -> anyhow::Result<()> {
        let epoll = self.poll.registry().as_fd();
        let time = Timespec::try_from(time).unwrap_or_default();
        match rustix::event::poll(&mut [PollFd::new(&epoll, PollFlags::IN)], Some(&time)) {
            Err(rustix::io::Errno::INTR) => Ok(()),
            other => Ok(other.map(|_| ())?),
        }
    }

    fn tell_all(&mut self) {
        self.load.desk.read_clock();
        self.load.desk.put_away();
        for (second, tally) in self.load.desk.untold.drain(..) {
            (self.tell)(News::Second(second, tally));
        }
        (self.tell)(News::Pulse(self.load.desk.totals));
    }
}

impl Load {
    fn on_event(&mut self, event: &Event) {
        let Token(number) = event.token();
        let Some(Some(connection)) = self.connections.get_mut(number) else { return };
        let (was_open, released) = (connection.counts(), self.desk.released);
        let result = connection.on_event(event, &mut self.desk, &mut self.buffers);
        self.open += usize::from(!was_open && connection.counts());
        if self.desk.released > released {
            self.queue.push_back(connection.number());
        }
        let is_over = connection.is_over(&self.desk);
        match result {
            Err(failure) => self.gone(number, failure),
            Ok(()) if is_over => self.gone(number, Failure::Reset),
            Ok(()) => {}
        }
        self.send_released();
    }

    /// Has a connection do something, and sends what it says.
    fn with(&mut self, number: u32, f: impl FnOnce(&mut Connection, &mut Desk)) {
        let Some(Some(connection)) = self.connections.get_mut(number as usize) else { return };
        f(connection, &mut self.desk);
        if let Err(failure) = connection.flush(&mut self.desk, &mut self.buffers) {
            self.gone(number as usize, failure);
        }
    }

    /// Sends the first message of a connection.
    fn kick(&mut self, number: u32) {
        self.desk.read_clock();
        self.with(number, |connection, desk| connection.say(desk));
    }

    /// With `Work::Pool`: sends the messages whose turn has come, on the connections that have waited for the longest.
    fn send_released(&mut self) {
        while self.desk.released > 0 {
            self.desk.released -= 1;
            if !self.desk.working || self.left == 0 {
                continue;
            }
            let is_open = |number: &u32| {
                let connection = self.connections.get(*number as usize);
                connection.is_some_and(|place| place.as_ref().is_some_and(Connection::is_open))
            };
            let Some(at) = self.queue.iter().position(is_open) else { continue };
            let number = self.queue.drain(..=at).next_back().unwrap_or_default();
            self.left -= 1;
            self.with(number, |connection, desk| connection.say(desk));
        }
    }

    /// How far a connection is that was dialled then; `None` where it is gone.
    fn stage_of(&self, number: u32, dialled: u64) -> Option<Stage> {
        let connection = self.connections.get(number as usize)?.as_ref();
        Some(connection.filter(|connection| connection.dialled == dialled)?.stage())
    }

    /// The numbers of the connections that are open.
    fn open_ones(&self) -> Vec<u32> {
        let open = self.connections.iter().flatten().filter(|connection| connection.is_open());
        open.map(Connection::number).collect()
    }

    /// Messages that have no reply, of connections that are still there.
    fn in_flight(&self) -> u64 {
        self.connections.iter().flatten().map(Connection::in_flight).sum()
    }

    fn fail_unanswered(&mut self) {
        self.desk.read_clock();
        let count = self.in_flight() + std::mem::take(&mut self.desk.unanswered);
        self.desk.fail(Failure::Unanswered, count);
    }

    /// A connection has ended, or was not made.
    fn gone(&mut self, number: usize, failure: Failure) {
        let Some(mut connection) = self.connections.get_mut(number).and_then(Option::take) else {
            return;
        };
        let Self { desk, buffers, .. } = self;
        desk.read_clock();
        // The answer to a close frame; nobody waits for it.
        let _ = connection.flush(desk, buffers);
        desk.out.clear();
        self.free.push_back(connection.number());
        if !connection.counts() {
            // It has never counted as open.
            return desk.fail(failure, 1);
        }
        self.open -= 1;
        desk.tally.closed += 1;
        desk.totals.closed += 1;
        match connection.stage() {
            Stage::Closed => desk.tally.closed_cleanly += 1,
            _ => desk.fail(failure, 1),
        }
        if desk.began == 0 {
            return;
        }
        match desk.plan.work {
            Work::Each { messages } if connection.answered < messages => desk.finished += 1,
            Work::Loop { .. } => desk.finished += 1,
            // Its message goes with it, and another may be in flight instead.
            Work::Pool { .. } => desk.released += connection.in_flight(),
            Work::Rate { .. } => desk.unanswered += connection.in_flight(),
            _ => {}
        }
    }
}
