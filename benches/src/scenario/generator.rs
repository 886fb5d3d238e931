//! One generator: the loop client with some of the run's connections, and the thread that paces it.
//!
//! The pacing thread dials, kicks closed loops off and gives open loops their messages when these are due. The workers
//! do the rest by themselves. Nothing waits without an end: connects have their limit, and work ends when no reply
//! came for the response timeout.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the pacing thread shares gauges with the workers, and sleeps until a message is due"
)]

mod connect;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire::{
    Backpressure, CloseCode, Config, ConnId, Handle, Running, Server,
    compression::CompressionConfig, tuning::Pinning,
};
use ringwire_examples::DriverFlag;

use super::client::{Client, Common, Event};
use super::message::NUMBER_LEN;
use super::plan::{News, Order, Plan, Work, compression_of, second_of};
use super::tally::Tally;
use crate::echo::Failure;
use crate::target::Target;
use crate::tls;
use crate::{machine, procstat};

/// How often the totals are told, and the end of work is looked for.
const PULSE_INTERVAL: Duration = Duration::from_millis(100);
/// The longest sleep while connects or messages are paced.
const PACE_INTERVAL: Duration = Duration::from_millis(1);
/// How often orders are looked for.
const REST_INTERVAL: Duration = Duration::from_millis(2);
/// Time for a mailbox that is full to have room again.
const BUSY_INTERVAL: Duration = Duration::from_micros(200);
/// Output that may wait on a connection before it counts as failed: a stalled server is to be seen by its latencies.
const MAX_QUEUED_LEN: usize = 16 << 20;
/// Room in a worker's mailbox beside the messages in flight.
const SPARE_LETTERS: usize = 4096;
/// A reply that is this much longer than a message is still read.
const SPARE_LEN: usize = 1 << 20;
/// Work whose time is up has this many response timeouts for its last replies, as long as some come.
const LAST_REPLIES: u32 = 10;

/// Does what `orders` say until the last one, and tells the news.
///
/// # Errors
/// When it cannot begin at all.
pub(crate) fn run(
    plan: Plan,
    driver: DriverFlag,
    orders: &Receiver<Order>,
    tell: &dyn Fn(News),
) -> anyhow::Result<()> {
    let mut generator = Generator::start(plan, driver, tell)?;
    loop {
        let order = match orders.try_recv() {
            Ok(order) => order,
            Err(TryRecvError::Empty) => {
                generator.listen(REST_INTERVAL);
                continue;
            }
            // Who gives orders is gone.
            Err(TryRecvError::Disconnected) => break,
        };
        match order {
            // They come with the work.
            Order::Connect if matches!(generator.common.plan.work, Work::Churn { .. }) => {}
            Order::Connect => generator.connect(),
            Order::Work => generator.work(),
            Order::End => break,
        }
        generator.flush();
        tell(News::Pulse(generator.common.pulse()));
        tell(News::Done(order));
    }
    generator.finish()?;
    tell(News::Done(Order::End));
    Ok(())
}

struct Generator<'a> {
    common: Arc<Common>,
    running: Running,
    handle: Handle,
    events: Receiver<Event>,
    tell: &'a dyn Fn(News),
    target: Target,
    tls: Option<tls::Client>,
    /// By number.
    conns: Vec<Option<ConnId>>,
    /// How many of them are open.
    open: usize,
    /// Numbers of those that have gone, or did not come.
    free: VecDeque<u32>,
    /// The first of the sources that may have free ports.
    source: usize,
    tally: Tally,
    second: u32,
    told: Duration,
}

impl<'a> Generator<'a> {
    fn start(plan: Plan, driver: DriverFlag, tell: &'a dyn Fn(News)) -> anyhow::Result<Self> {
        let numbers = plan.first..plan.first.saturating_add(plan.connections);
        let target = Target::from_url(&plan.url)?.with_ask(&plan.ask, numbers)?;
        let Some(resource) = target.resource() else {
            bail!("{target}: scenarios need a WebSocket server, ws:// or wss://");
        };
        let has_number = plan.payload.is_none() && !plan.any_reply;
        if matches!(plan.work, Work::Rate { .. }) && plan.size < NUMBER_LEN && has_number {
            bail!(
                "messages of {} bytes have no room for their number: {NUMBER_LEN} or more, or --any-reply",
                plan.size
            );
        }
        let tls = match &plan.own_certificate {
            Some(pem) => plan.tls.client_of(&target, pem)?,
            None => plan.tls.client(&target)?,
        };
        if !plan.cpus.is_empty() {
            // The workers, which this thread starts, inherit it.
            machine::pin_thread(&plan.cpus).context("cannot pin to --cpu")?;
        }
        let config = config(&plan, driver);
        let common = Arc::new(Common::new(plan, Arc::clone(&resource.ask)));
        let (sender, events) = mpsc::channel();
        let shared = Arc::clone(&common);
        let before = procstat::thread_ids(std::process::id())?;
        let running = Server::new(config)
            .start(move |context| Client::new(Arc::clone(&shared), context, sender.clone()))
            .context("cannot start the load's workers")?;
        let mut threads = procstat::thread_ids(std::process::id())?;
        threads.retain(|id| !before.contains(id));
        threads.push(procstat::own_thread_id()?);
        tell(News::Ready { threads, at: common.clock.nanos() });
        Ok(Self {
            conns: vec![None; common.plan.connections as usize],
            open: 0,
            free: VecDeque::new(),
            handle: running.handle(),
            common,
            running,
            events,
            tell,
            target,
            tls,
            source: 0,
            tally: Tally::default(),
            second: 0,
            told: Duration::ZERO,
        })
    }

    // Work

    fn work(&mut self) {
        self.listen(Duration::ZERO);
        let before = self.handle.stats().total();
        match self.common.plan.work {
            Work::Idle => {}
            Work::Each { messages } => self.each(messages),
            Work::Loop { duration, .. } => self.go_round(duration),
            Work::Pool { messages, in_flight } => self.pool(messages, in_flight),
            Work::Rate { interval, duration } => self.rate(interval, duration),
            Work::Churn { interval, duration, .. } => self.churn(interval, duration),
        }
        self.common.pause();
        self.listen(Duration::ZERO);
        let after = self.handle.stats().total();
        self.tally.bytes_sent += after.bytes_sent - before.bytes_sent;
        self.tally.bytes_received += after.bytes_received - before.bytes_received;
        self.tell_rest();
    }

    fn each(&mut self, messages: u64) {
        self.common.begin(&self.conns);
        if messages == 0 {
            return;
        }
        let participants = self.kick_all();
        self.wait_while_answered(|common| common.finished() >= participants);
        self.fail(Failure::Unanswered, self.common.in_flight());
    }

    fn go_round(&mut self, duration: Duration) {
        let end = Duration::from_nanos(self.common.begin(&self.conns)) + duration;
        let participants = self.kick_all();
        loop {
            let left = end.saturating_sub(self.common.clock.elapsed());
            // With all connections gone there is nothing to wait for.
            if left.is_zero() || self.common.finished() >= participants {
                break;
            }
            self.listen(left.min(PACE_INTERVAL));
        }
        self.common.pause();
        self.wait_while_answered(|common| common.in_flight() == 0);
        self.fail(Failure::Unanswered, self.common.in_flight());
    }

    /// Sends the first message of each connection; how many there are.
    fn kick_all(&mut self) -> u64 {
        let all = self.conns.clone();
        for (number, conn) in (0_u32..).zip(&all) {
            if let Some(conn) = conn {
                self.kick(number, *conn);
            }
        }
        all.iter().flatten().count() as u64
    }

    fn pool(&mut self, messages: u64, in_flight: u32) {
        let mut queues: Vec<VecDeque<u32>> = Vec::new();
        for (number, conn) in (0_u32..).zip(&self.conns) {
            let Some(conn) = conn else { continue };
            let worker = usize::from(conn.worker());
            queues.resize_with(queues.len().max(worker + 1), VecDeque::new);
            queues[worker].push_back(number);
        }
        let participants: usize = queues.iter().map(VecDeque::len).sum();
        if participants == 0 {
            return;
        }
        // Each worker has its share of those in flight, and one at least.
        let most = u64::from(in_flight).min(messages);
        let mut first = Vec::new();
        for queue in &mut queues {
            let share = most * queue.len() as u64 / participants as u64;
            let share = usize::try_from(share).unwrap_or(usize::MAX);
            first.extend(queue.drain(..share.max(1).min(queue.len())));
        }
        first.truncate(usize::try_from(messages).unwrap_or(usize::MAX));
        self.common.set_pool(queues, messages - first.len() as u64);
        self.common.begin(&self.conns);
        for number in first {
            if let Some(Some(conn)) = self.conns.get(number as usize).copied() {
                self.kick(number, conn);
            }
        }
        self.wait_while_answered(|common| common.pulse().answered >= messages);
        self.fail(Failure::Unanswered, self.common.in_flight());
    }

    /// Sends the first message of a connection.
    fn kick(&mut self, number: u32, conn: ConnId) {
        let common = Arc::clone(&self.common);
        loop {
            // Anew each time: a mailbox that is full is not the server's doing.
            let now = common.clock.nanos();
            if !common.mark(number, now) {
                return;
            }
            if self.handle.send(conn, common.template.message()).is_ok() {
                self.count_sent(now);
                return;
            }
            common.unmark(number, now);
            thread::sleep(BUSY_INTERVAL);
        }
    }

    fn rate(&mut self, interval: Duration, duration: Duration) {
        let common = Arc::clone(&self.common);
        let began = common.begin(&self.conns);
        let connections = common.plan.connections;
        let mut sent = vec![0_u32; self.conns.len()];
        let mut buffer = Vec::new();
        let window = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (mut connection, mut number) = (0, 0);
        while !interval.is_zero() && connections > 0 {
            let due = common.due(connection, number);
            if due >= window {
                break;
            }
            let now = common.clock.nanos().saturating_sub(began);
            if now < due {
                thread::sleep(Duration::from_nanos(due - now).min(PACE_INTERVAL));
                self.listen(Duration::ZERO);
                continue;
            }
            // A generator that has fallen behind so far is not waited for: what it did not send is told.
            if now >= window.saturating_add(nanos(common.plan.response_timeout)) {
                break;
            }
            if let Some(Some(conn)) = self.conns.get(connection as usize).copied() {
                let message = common.template.numbered(number, &mut buffer);
                if self.handle.send(conn, message).is_err() {
                    thread::sleep(BUSY_INTERVAL);
                    self.listen(Duration::ZERO);
                    continue;
                }
                self.count_sent(began + now);
                self.tally.lag.record(now - due);
                sent[connection as usize] = number + 1;
            }
            connection += 1;
            if connection == connections {
                (connection, number) = (0, number + 1);
            }
        }
        let all: u64 = sent.iter().copied().map(u64::from).sum();
        self.wait_while_answered(|common| common.pulse().answered >= all);
        let unanswered = |(connection, &sent): (u32, &u32)| {
            u64::from(sent.saturating_sub(common.next_reply(connection)))
        };
        let unanswered = (0_u32..).zip(&sent).map(unanswered).sum();
        self.fail(Failure::Unanswered, unanswered);
    }

    /// Waits until all is done, or nothing was answered for the response timeout.
    fn wait_while_answered(&mut self, is_done: impl Fn(&Common) -> bool) {
        let timeout = self.common.plan.response_timeout;
        let mut answered = self.common.pulse().answered;
        let mut since = self.common.clock.elapsed();
        let end = since
            + match self.common.plan.work.duration() {
                Some(_) => timeout * LAST_REPLIES,
                None => self.common.plan.limit,
            };
        loop {
            let now = self.common.clock.elapsed();
            let current = self.common.pulse().answered;
            if current != answered {
                (answered, since) = (current, now);
            }
            if is_done(&self.common) || now - since > timeout || now >= end {
                return;
            }
            self.listen(PACE_INTERVAL);
        }
    }

    // What is told

    /// Waits for what the workers say, for that long, and passes it on.
    fn listen(&mut self, time: Duration) {
        let first = self.events.recv_timeout(time).ok();
        // As many as there are now: workers that go on telling must not hold up the pace.
        let more: Vec<_> =
            first.into_iter().chain(self.events.try_iter().take(SPARE_LETTERS)).collect();
        for event in more {
            self.on_event(event);
        }
        let now = self.common.clock.elapsed();
        if now - self.told >= PULSE_INTERVAL {
            self.told = now;
            (self.tell)(News::Pulse(self.common.pulse()));
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened(number, conn) => self.set(number, Some(conn)),
            Event::Gone(number) => {
                self.set(number, None);
                self.free.push_back(number);
            }
            Event::Second(second, tally) => (self.tell)(News::Second(second, tally)),
        }
    }

    fn set(&mut self, number: u32, conn: Option<ConnId>) {
        if let Some(place) = self.conns.get_mut(number as usize) {
            self.open += usize::from(conn.is_some());
            self.open -= usize::from(place.is_some());
            *place = conn;
        }
    }

    fn count_sent(&mut self, now: u64) {
        self.enter_second(now);
        self.tally.sent += 1;
        self.common.count_sent(1);
    }

    fn enter_second(&mut self, now: u64) {
        let second = second_of(now);
        if second != self.second {
            self.flush();
            self.second = second;
        }
    }

    /// What happened to this thread, not to a worker.
    fn fail(&mut self, failure: Failure, count: u64) {
        self.enter_second(self.common.clock.nanos());
        self.tally.fail(failure, count);
        self.common.count_failed(count);
    }

    fn flush(&mut self) {
        if !self.tally.is_empty() {
            (self.tell)(News::Second(self.second, std::mem::take(&mut self.tally)));
        }
    }

    /// What the workers have counted since they last told, which they do when the next second has something.
    fn tell_rest(&self) {
        let rest = self.common.take_tallies();
        if !rest.is_empty() {
            let second = second_of(rest.last_answered.max(rest.last_opened)).max(self.second);
            (self.tell)(News::Second(second, rest));
        }
    }

    /// Tells what is not told yet. In a process of its own the connections end with that: a close frame on each of a
    /// million connections takes longer than all the work before.
    fn finish(mut self) -> anyhow::Result<()> {
        self.common.end();
        self.listen(Duration::ZERO);
        for event in self.events.try_iter() {
            if let Event::Second(second, tally) = event {
                (self.tell)(News::Second(second, tally));
            }
        }
        self.tell_rest();
        self.flush();
        if !self.common.plan.is_process {
            self.handle.shutdown(Duration::ZERO);
            self.running.join().context("a worker of the load failed")?;
        }
        Ok(())
    }
}

fn config(plan: &Plan, driver: DriverFlag) -> Config {
    let letters = match plan.work {
        Work::Pool { in_flight, .. } => in_flight as usize,
        _ => 0,
    };
    let window_len = match plan.work {
        Work::Loop { in_flight, .. } => plan.size.saturating_mul(in_flight as usize),
        _ => 0,
    };
    let queued_len = window_len.saturating_add(MAX_QUEUED_LEN);
    Config::default()
        .with_driver(driver.into())
        .with_io_workers(plan.threads)
        .with_pinning(Pinning::Off)
        .with_handshake_timeout(plan.connect_timeout)
        .with_max_message_len(plan.size + SPARE_LEN)
        // The answer to a close is a reply as well.
        .with_close_timeout(plan.response_timeout)
        .with_idle_timeout(None)
        .with_ping_interval(None)
        // A stalled server is to be seen by its latencies.
        .with_write_stall_timeout(None)
        .with_tcp_user_timeout(None)
        .with_max_queued_len(queued_len)
        // A load that paused reading for what it has to say could stand still together with an echo server.
        .with_high_water(queued_len)
        .with_backpressure(Backpressure::Close(CloseCode::TRY_AGAIN_LATER))
        .with_mailbox_len(letters + SPARE_LETTERS)
        .with_compression(
            CompressionConfig::default()
                .with_mode(compression_of(plan.takeover).into())
                .with_threshold(0),
        )
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
