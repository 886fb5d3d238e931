//! One load thread: an edge-triggered epoll loop over its share of the connections.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Token};

use super::connection::{Connection, Progress, Tools};
use super::deflate_totals::DeflateTotals;
use super::dial::Dialler;
use super::errors::{Failure, Failures, count};
use super::latency::{Clock, Latencies, Ticks};
use super::link::Buffers;
use super::messages::Messages;
use super::recorder::OfInterval;
use super::stage::{Gauge, Stage, StageCell};
use super::tls_totals::TlsTotals;
use super::{LoadArgs, Plan};
use crate::{machine, procstat};

const EVENTS_PER_PASS: usize = 1024;
/// Connections that send their first messages in one pass.
const STARTS_PER_PASS: usize = 256;
/// How often the stage is looked at when nothing happens.
const STAGE_INTERVAL: Duration = Duration::from_millis(5);
/// A message counts as unanswered only after this long, however short the measured time.
const MIN_UNANSWERED: Duration = Duration::from_secs(2);

/// What a load thread found.
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    pub(crate) failures: Failures,
    pub(crate) tls: TlsTotals,
    pub(crate) deflate: DeflateTotals,
}

/// Makes the connections with the numbers `share` and runs them through all stages.
pub(crate) fn run(
    plan: &Plan,
    share: Range<u32>,
    clock: Clock,
    stage: &StageCell,
    gauge: &Gauge,
    recent: Sender<OfInterval>,
) -> anyhow::Result<Outcome> {
    machine::pin_load(plan.load.cpu.as_ref())?;
    gauge.thread_id.store(procstat::own_thread_id(), Ordering::Relaxed);
    let mut load = Load::new(plan, share, clock, gauge, recent)?;
    let mut events = Events::with_capacity(EVENTS_PER_PASS);
    loop {
        load.enter_interval(stage.interval());
        match stage.get() {
            Stage::Connect => load.dial_more(),
            Stage::First => {
                load.tools.message_limit = Some(1);
                load.start_more();
            }
            Stage::WarmUp => {
                load.lift_limit();
                load.start_more();
            }
            Stage::Measure => {
                load.lift_limit();
                load.start_more();
                load.measure();
            }
            Stage::Stop => break,
        }
        let timeout = if load.is_starting { Duration::ZERO } else { STAGE_INTERVAL };
        match load.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            load.on_event(event);
        }
    }
    Ok(load.finish())
}

struct Load<'a> {
    args: &'a LoadArgs,
    gauge: &'a Gauge,
    poll: Poll,
    dialler: Dialler,
    tools: Tools,
    buffers: Buffers,
    /// Numbers of the connections, of which those up to `connections.len()` have been dialled.
    share: Range<u32>,
    /// A failed connection leaves `None`.
    connections: Vec<Option<Connection>>,
    /// Connections that were dialled, oldest first, until they are found open or late.
    dialled: VecDeque<(usize, Ticks)>,
    /// Connections that were dialled and are not open yet.
    outstanding: usize,
    /// Connections before this one have sent their first messages.
    started: usize,
    is_starting: bool,
    /// When the measured time began.
    measured_from: Option<Ticks>,
    failures: Failures,
    /// The interval that latencies are told of now, and where they go at its end.
    interval: u32,
    recent: Sender<OfInterval>,
}

impl<'a> Load<'a> {
    fn new(
        plan: &'a Plan,
        share: Range<u32>,
        clock: Clock,
        gauge: &'a Gauge,
        recent: Sender<OfInterval>,
    ) -> io::Result<Self> {
        let args = &plan.load;
        let tools = Tools::new(plan.shape(), args.in_flight, share.len(), &plan.target, clock)?;
        Ok(Self {
            args,
            gauge,
            poll: Poll::new()?,
            dialler: Dialler::to(&plan.target, &args.source_addresses, plan.tls.clone()),
            tools,
            buffers: Buffers::new(),
            connections: Vec::with_capacity(share.len()),
            share,
            dialled: VecDeque::new(),
            outstanding: 0,
            started: 0,
            is_starting: false,
            measured_from: None,
            failures: Failures::new(),
            interval: 0,
            recent,
        })
    }

    /// Keeps as many connects outstanding as the settings allow, and gives up late ones.
    fn dial_more(&mut self) {
        let now = self.tools.clock.now();
        while let Some(&(index, dialled_at)) = self.dialled.front() {
            let waits = self.connections[index].as_ref().is_some_and(|c| !c.is_open());
            if waits {
                if now.since(dialled_at) < Ticks::in_duration(self.args.connect_timeout) {
                    break;
                }
                self.fail(index, Failure::ConnectTimeout);
            }
            self.dialled.pop_front();
        }
        while self.outstanding < self.args.connect_concurrency
            && self.connections.len() < self.share.len()
        {
            self.dial(now);
        }
    }

    fn dial(&mut self, now: Ticks) {
        let index = self.connections.len();
        let identity = self.share.clone().nth(index).unwrap_or_default();
        match self.dialler.open(0, identity, index, &self.poll) {
            Ok(socket) => {
                self.connections.push(Some(Connection::new(socket, identity, index)));
                self.outstanding += 1;
                self.dialled.push_back((index, now));
            }
            Err(failure) => {
                self.connections.push(None);
                self.count_failure(failure);
            }
        }
    }

    /// Has the next connections send their first messages: not all at once, so that a large number of
    /// them does not fill the kernel's memory before the first reply is read.
    fn start_more(&mut self) {
        let end = self.connections.len().min(self.started + STARTS_PER_PASS);
        for index in self.started..end {
            if let Some(connection) = &mut self.connections[index]
                && connection.is_open()
                && let Err(failure) = connection.start(&mut self.tools, &mut self.buffers)
            {
                self.fail(index, failure);
            }
        }
        self.started = end;
        self.is_starting = end < self.connections.len();
    }

    /// Has connections that have sent their first message send as many as they like.
    fn lift_limit(&mut self) {
        if self.tools.message_limit.take().is_some() {
            self.started = 0;
        }
    }

    fn measure(&mut self) {
        if self.measured_from.is_none() {
            self.tools.measuring = true;
            self.measured_from = Some(self.tools.clock.now());
        }
    }

    /// Tells the latencies of an interval when another has begun.
    fn enter_interval(&mut self, interval: u32) {
        if interval != self.interval {
            if let Some(recent) = self.tools.latencies.take_recent() {
                // Nobody listens any more when the coordinator has failed.
                let _ = self.recent.send((self.interval, recent));
            }
            self.interval = interval;
        }
    }

    fn on_event(&mut self, event: &Event) {
        let Token(index) = event.token();
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        // What it brought before it failed counts: a connection may open and end in one event.
        let mut progress = Progress::default();
        let result = connection.on_event(event, &mut self.tools, &mut self.buffers, &mut progress);
        Gauge::add(&self.gauge.messages, progress.messages.into());
        if progress.opened {
            self.outstanding -= 1;
            Gauge::add(&self.gauge.opened, 1);
            let elapsed = self.tools.clock.elapsed().as_micros();
            let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
            self.gauge.last_opened.store(elapsed, Ordering::Relaxed);
        }
        if let Err(failure) = result {
            self.fail(index, failure);
        }
    }

    fn fail(&mut self, index: usize, failure: Failure) {
        match self.connections[index].take() {
            Some(connection) if connection.is_open() => {
                Gauge::add(&self.gauge.served, connection.has_echo().into());
                Gauge::add(&self.gauge.lost, 1);
            }
            Some(_) => self.outstanding -= 1,
            None => {}
        }
        self.count_failure(failure);
    }

    fn count_failure(&mut self, failure: Failure) {
        count(&mut self.failures, failure, 1);
        Gauge::add(&self.gauge.failed, 1);
    }

    fn finish(mut self) -> Outcome {
        self.enter_interval(self.interval.wrapping_add(1));
        if let Some(from) = self.measured_from {
            let now = self.tools.clock.now();
            let limit = now.since(from).max(Ticks::in_duration(MIN_UNANSWERED));
            let started = self.connections.iter().take(self.started).flatten();
            for connection in started.filter(|connection| connection.is_open()) {
                let oldest = connection.oldest_in_flight(&mut self.tools.stamps);
                if now.since(oldest) >= limit {
                    count(&mut self.failures, Failure::Unanswered, 1);
                }
            }
        }
        let Tools { latencies, opener, messages, .. } = self.tools;
        let deflate = match messages {
            Messages::Deflated(deflated) => deflated.totals(),
            Messages::Plain(_) => DeflateTotals::default(),
        };
        Outcome { latencies, failures: self.failures, tls: opener.tls, deflate }
    }
}
