//! Whole sessions: connect, TLS if any, upgrade, some messages with one in flight, end.
//!
//! One thread keeps a fixed number of sessions going; the end of one begins the next. A session ends by
//! resetting its connection, so that no port is left in TIME_WAIT.

use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::Context as _;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use super::connection::{Connection, Tools};
use super::dial::Dialler;
use super::errors::{Failure, Failures};
use super::latency::{Clock, Latencies, Summary, Ticks};
use super::link::Buffers;
use super::tls_totals::TlsTotals;
use super::wire::Shape;
use crate::disturbance::MachineTicks;
use crate::endpoint::Endpoint;
use crate::procstat::{self, CpuTime, CpuTimes};
use crate::{machine, tls};

const EVENTS_PER_PASS: usize = 1024;
/// How often the time is looked at when nothing happens.
const PASS_INTERVAL: Duration = Duration::from_millis(5);
/// How often late sessions are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);
/// So many failures before any success: the server is not there.
const HOPELESS: u64 = 100;

/// Sessions to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionsPlan {
    /// Sessions at a time.
    pub(crate) concurrency: usize,
    /// Messages of each; 0: it ends as soon as it is open.
    pub(crate) messages: u32,
    /// Payload of a message, in bytes.
    pub(crate) payload_len: usize,
    pub(crate) end: End,
    /// The longest that a session may take.
    pub(crate) timeout: Duration,
}

/// When a run is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// After so many sessions, all of which count.
    Count(u64),
    /// After this time, of which the warm-up does not count.
    Time { warmup: Duration, measured: Duration },
}

/// What came of the sessions within the measured time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) opened: u64,
    /// Sessions with all of their messages echoed.
    pub(crate) completed: u64,
    pub(crate) messages: u64,
    pub(crate) window: Duration,
    /// From the first connect until the last session was open.
    pub(crate) open_time: Duration,
    /// From connect to open.
    pub(crate) opening: Option<Summary>,
    pub(crate) tls: TlsTotals,
    /// CPU time of this load.
    pub(crate) generator_cpu: CpuTime,
    /// CPU time of each thread of the server, if it is known.
    pub(crate) server_cpu: Option<Vec<CpuTime>>,
    /// The whole machine's, at both ends of the measured time.
    pub(crate) machine: (MachineTicks, MachineTicks),
    pub(crate) failures: Failures,
}

/// Runs sessions on the calling thread.
///
/// # Errors
/// When the run cannot be made at all. What goes wrong with sessions is in the result.
pub(crate) fn run(endpoint: &Endpoint, plan: SessionsPlan) -> anyhow::Result<Sessions> {
    let concurrency = u32::try_from(plan.concurrency).unwrap_or(u32::MAX);
    machine::allow_descriptors(concurrency, 1)?;
    let mut load = SessionLoad::new(endpoint, plan)?;
    let mut events = Events::with_capacity(EVENTS_PER_PASS);
    let mut expired_at = Duration::ZERO;
    while !load.is_over()? {
        load.begin_more();
        match load.poll.poll(&mut events, Some(PASS_INTERVAL)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            load.on_event(event);
        }
        let now = load.tools.clock.elapsed();
        if now.saturating_sub(expired_at) >= EXPIRY_INTERVAL {
            expired_at = now;
            load.expire();
        }
    }
    load.finish()
}

struct SessionLoad<'a> {
    endpoint: &'a Endpoint,
    plan: SessionsPlan,
    poll: Poll,
    dialler: Dialler,
    tools: Tools,
    buffers: Buffers,
    slots: Vec<Option<Session>>,
    /// Slots without a session.
    free: Vec<usize>,
    thread_id: u32,
    opening: Latencies,
    failures: Failures,
    totals: Totals,
    last_opened: Duration,
    /// When the measured time began.
    first: Option<Moment>,
}

struct Session {
    connection: Connection,
    begun_at: Ticks,
    messages: u32,
}

/// What is counted from the start of the run on.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    begun: u64,
    opened: u64,
    completed: u64,
    failed: u64,
    messages: u64,
}

struct Moment {
    at: Duration,
    totals: Totals,
    tls: TlsTotals,
    generator_cpu: CpuTime,
    server_cpu: Option<CpuTimes>,
    machine: MachineTicks,
}

impl<'a> SessionLoad<'a> {
    fn new(endpoint: &'a Endpoint, plan: SessionsPlan) -> anyhow::Result<Self> {
        let shape = Shape::of_noise(plan.payload_len);
        let clock = Clock::start();
        let mut tools = Tools::new(shape, 1, plan.concurrency, &endpoint.target, clock)?;
        tools.message_limit = Some(plan.messages);
        let slots: Vec<Option<Session>> =
            std::iter::repeat_with(|| None).take(plan.concurrency).collect();
        Ok(Self {
            endpoint,
            plan,
            poll: Poll::new()?,
            dialler: Dialler::to(&endpoint.target, &[]),
            tools,
            buffers: Buffers::new(),
            free: (0..slots.len()).rev().collect(),
            slots,
            thread_id: procstat::own_thread_id()?,
            opening: Latencies::new(),
            failures: Failures::default(),
            totals: Totals::default(),
            last_opened: Duration::ZERO,
            first: None,
        })
    }

    /// Looks whether the run is over, and whether the measured time begins.
    fn is_over(&mut self) -> anyhow::Result<bool> {
        let now = self.tools.clock.elapsed();
        let (warmup, over) = match (self.plan.end, &self.first) {
            (End::Count(count), _) => {
                let ended = self.totals.completed + self.totals.failed;
                (Duration::ZERO, ended >= count)
            }
            (End::Time { warmup, measured }, Some(first)) => (warmup, now >= first.at + measured),
            (End::Time { warmup, .. }, None) => (warmup, false),
        };
        if self.first.is_none() && now >= warmup {
            self.first = Some(self.moment()?);
        }
        Ok(over || (self.totals.opened == 0 && self.totals.failed >= HOPELESS))
    }

    fn begin_more(&mut self) {
        // Each slot once: a connect that fails at once must not keep this pass busy.
        for _ in 0..self.free.len() {
            if let End::Count(count) = self.plan.end
                && self.totals.begun >= count
            {
                return;
            }
            let Some(index) = self.free.pop() else { return };
            self.begin(index);
        }
    }

    fn begin(&mut self, index: usize) {
        #[expect(clippy::cast_possible_truncation, reason = "identities may come again")]
        let identity = self.totals.begun as u32;
        self.totals.begun += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        let begun_at = self.tools.clock.now();
        let dialled = self.dialler.dial(0).and_then(|stream| {
            let session = self.endpoint.tls.as_ref().map(tls::Client::session).transpose();
            let session = session.map_err(io::Error::other)?;
            let mut connection = Connection::new(stream, session, identity, index);
            self.poll.registry().register(connection.stream_mut(), Token(index), both)?;
            Ok(connection)
        });
        match dialled {
            Ok(connection) => {
                self.slots[index] = Some(Session { connection, begun_at, messages: 0 });
            }
            Err(error) => self.fail(index, Failure::of_connect(&error)),
        }
    }

    fn on_event(&mut self, event: &Event) {
        let Token(index) = event.token();
        let Some(Some(session)) = self.slots.get_mut(index) else { return };
        let progress = session.connection.on_event(event, &mut self.tools, &mut self.buffers);
        let progress = progress.and_then(|progress| {
            if progress.opened {
                session.connection.start(&mut self.tools, &mut self.buffers)?;
            }
            Ok(progress)
        });
        match progress {
            Err(failure) => self.fail(index, failure),
            Ok(progress) => {
                session.messages += progress.messages;
                self.totals.messages += u64::from(progress.messages);
                let is_complete =
                    session.connection.is_open() && session.messages >= self.plan.messages;
                if progress.opened {
                    self.totals.opened += 1;
                    self.last_opened = self.tools.clock.elapsed();
                    if self.first.is_some() {
                        self.opening.record(self.tools.clock.now().since(session.begun_at));
                    }
                }
                if is_complete {
                    self.totals.completed += 1;
                    self.end(index);
                }
            }
        }
    }

    /// Ends what takes too long.
    fn expire(&mut self) {
        let now = self.tools.clock.now();
        for index in 0..self.slots.len() {
            let Some(Some(session)) = self.slots.get(index) else { continue };
            if now.since(session.begun_at) >= Ticks::in_duration(self.plan.timeout) {
                let is_open = session.connection.is_open();
                self.fail(
                    index,
                    if is_open { Failure::Unanswered } else { Failure::ConnectTimeout },
                );
            }
        }
    }

    fn fail(&mut self, index: usize, failure: Failure) {
        self.totals.failed += 1;
        self.failures.add(failure);
        self.end(index);
    }

    fn end(&mut self, index: usize) {
        self.slots[index] = None;
        self.free.push(index);
    }

    fn moment(&self) -> anyhow::Result<Moment> {
        let server_cpu = self.endpoint.account.as_ref().map(procstat::Account::cpu).transpose();
        Ok(Moment {
            at: self.tools.clock.elapsed(),
            totals: self.totals,
            tls: self.tools.opener.tls,
            generator_cpu: procstat::thread_cpu(self.thread_id)?,
            server_cpu: server_cpu.context("the server's process is gone")?,
            machine: MachineTicks::read()?,
        })
    }

    fn finish(mut self) -> anyhow::Result<Sessions> {
        let last = self.moment()?;
        let Some(first) = self.first else { return Ok(Sessions::default()) };
        let since = |total: fn(&Totals) -> u64| total(&last.totals) - total(&first.totals);
        Ok(Sessions {
            opened: since(|totals| totals.opened),
            completed: since(|totals| totals.completed),
            messages: since(|totals| totals.messages),
            window: last.at.saturating_sub(first.at),
            open_time: self.last_opened.saturating_sub(first.at),
            opening: self.opening.summary(),
            tls: last.tls.since(&first.tls),
            generator_cpu: last.generator_cpu.since(first.generator_cpu),
            server_cpu: last
                .server_cpu
                .zip(first.server_cpu)
                .map(|(last, first)| last.since(&first)),
            machine: (first.machine, last.machine),
            failures: self.failures,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Demand;
    use crate::own_server::OwnServer;
    use crate::target::Target;
    use crate::tls::TlsArgs;

    fn endpoint(secure: bool, resume: bool) -> Endpoint {
        let own = OwnServer::start(
            "127.0.0.1:0",
            &[0],
            Demand::default(),
            secure.then(|| OwnServer::make_certificate().unwrap()),
        )
        .unwrap();
        let target = own.target();
        let flags = TlsArgs::resuming(resume);
        let tls = own.certificate().and_then(|pem| flags.client_of(&target, pem).unwrap());
        Endpoint { target, tls, account: Some(own.account()), own: Some(own) }
    }

    fn plan(end: End) -> SessionsPlan {
        let timeout = Duration::from_secs(20);
        SessionsPlan { concurrency: 4, messages: 0, payload_len: 40, end, timeout }
    }

    fn check(sessions: &Sessions) {
        assert_eq!(sessions.failures, Failures::default());
        assert!(sessions.server_cpu.as_ref().unwrap().iter().any(|cpu| !cpu.run.is_zero()));
        assert!(sessions.opening.unwrap().p50 > 0.0);
        assert!(sessions.open_time <= sessions.window && !sessions.open_time.is_zero());
    }

    #[test]
    fn each_session_sends_all_its_messages_and_no_more() {
        for secure in [true, false] {
            let plan = SessionsPlan { messages: 3, ..plan(End::Count(10)) };
            let sessions = run(&endpoint(secure, true), plan).unwrap();
            check(&sessions);
            let Sessions { opened, completed, messages, .. } = sessions;
            assert_eq!((opened, completed, messages), (10, 10, 30));
            let handshakes = sessions.tls.full + sessions.tls.resumed;
            assert_eq!(handshakes, if secure { 10 } else { 0 });
        }
    }

    #[test]
    fn sessions_are_resumed_when_asked_for() {
        let end =
            End::Time { warmup: Duration::from_millis(300), measured: Duration::from_millis(500) };
        let full = run(&endpoint(true, false), plan(end)).unwrap();
        check(&full);
        assert!(full.tls.full > 0 && full.tls.resumed == 0, "{full:?}");
        assert!(full.window >= Duration::from_millis(500));

        let resumed = run(&endpoint(true, true), plan(end)).unwrap();
        check(&resumed);
        assert!(resumed.tls.resumed > resumed.tls.full, "{resumed:?}");
    }

    #[test]
    fn server_that_is_not_there_ends_the_run() {
        let address = endpoint(false, false).target.address();
        let target = Target::from_url(&format!("ws://{address}/")).unwrap();
        let gone = Endpoint { target, tls: None, account: None, own: None };
        let end = End::Time { warmup: Duration::ZERO, measured: Duration::from_secs(600) };
        let sessions = run(&gone, plan(end)).unwrap();
        assert_eq!(sessions.opened, 0);
        let texts = sessions.failures.by_text();
        assert_eq!(texts.keys().collect::<Vec<_>>(), ["connect refused"]);
    }
}
