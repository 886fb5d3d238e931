//! The load thread: an edge-triggered epoll loop over the publisher and its subscribers.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Token};
use ringwire_examples::CompressionFlag;

use super::Plan;
use super::client::{Client, Deliveries};
use super::publications::Publications;
use crate::echo::{
    self, Buffers, Clock, Dialler, Failure, Failures, Latencies, Opener, Summary, Ticks, TlsTotals,
};
use crate::machine;
use crate::procstat;
use crate::spent::{Moment, Spent};

const EVENTS_PER_PASS: usize = 1024;
/// How often the time is looked at when nothing happens.
const PASS_INTERVAL: Duration = Duration::from_millis(5);
/// Connects outstanding at a time.
const CONNECT_CONCURRENCY: usize = 256;
/// Time for one connection to become open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the server to come to rest, and to have noted all subscriptions, before anything is published.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// The place of the publisher among the connections.
const PUBLISHER: usize = 0;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Subscribers that became open.
    pub(crate) opened: u64,
    /// Within the measured time.
    pub(crate) spent: Spent,
    /// Publications that were with everyone within it.
    pub(crate) publications: u64,
    /// Deliveries within it.
    pub(crate) deliveries: u64,
    /// From the sending of a publication to its last delivery.
    pub(crate) latency: Option<Summary>,
    pub(crate) tls: TlsTotals,
    pub(crate) failures: Failures,
}

/// Runs a load on the calling thread.
///
/// # Errors
/// When the run cannot be made at all. What goes wrong with connections and deliveries is in the result.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    machine::allow_descriptors(plan.subscribers.saturating_add(1), 1)?;
    let mut load = Load::new(plan)?;
    load.connect()?;
    load.pass_time(SETTLE_TIME)?;
    load.is_publishing = true;
    load.publish();
    load.pass_time(plan.warmup)?;
    load.is_measuring = true;
    let first = load.totals()?;
    load.pass_time(plan.duration)?;
    let last = load.totals()?;
    load.is_publishing = false;
    load.is_measuring = false;
    load.finish(&first, &last)
}

struct Load<'a> {
    plan: &'a Plan,
    poll: Poll,
    events: Events,
    dialler: Dialler,
    clock: Clock,
    opener: Opener,
    buffers: Buffers,
    thread_id: u32,
    /// The publisher and the subscribers as far as they have been dialled; a failed one leaves `None`.
    clients: Vec<Option<Client>>,
    /// Connections that were dialled, oldest first, until they are found open or late.
    dialled: VecDeque<(usize, Ticks)>,
    /// Connections that were dialled and are not open yet.
    connecting: usize,
    /// Subscribers that became open.
    opened: u64,
    /// Subscribers that are open.
    listening: usize,
    publications: Publications,
    /// Publications that were with everyone.
    complete: u64,
    deliveries: Deliveries,
    /// Messages on their way out, and how much of them is sent.
    out: Vec<u8>,
    sent: usize,
    is_publishing: bool,
    is_measuring: bool,
    latencies: Latencies,
    failures: Failures,
}

/// The moment, and publications and deliveries so far.
type Totals = (Moment, u64, u64);

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> anyhow::Result<Self> {
        let mut key = [0; 4];
        getrandom::fill(&mut key)?;
        let publications = match &plan.text {
            Some(text) => Publications::told(text, key)?,
            None => Publications::new(plan.payload_len, key),
        };
        let target = &plan.target;
        let clock = Clock::start();
        Ok(Self {
            plan,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_PASS),
            dialler: Dialler::to(target, &[], plan.tls.clone()),
            clock,
            opener: Opener::new(target, CompressionFlag::Off, clock),
            buffers: Buffers::new(),
            thread_id: procstat::own_thread_id(),
            clients: Vec::new(),
            dialled: VecDeque::new(),
            connecting: 0,
            opened: 0,
            listening: 0,
            publications,
            complete: 0,
            deliveries: Deliveries::default(),
            out: Vec::new(),
            sent: 0,
            is_publishing: false,
            is_measuring: false,
            latencies: Latencies::default(),
            failures: Failures::default(),
        })
    }

    // Connecting

    /// Opens the publisher and all subscribers.
    fn connect(&mut self) -> io::Result<()> {
        let count = self.plan.subscribers as usize + 1;
        while self.clients.len() < count || self.connecting > 0 {
            let now = self.clock.now();
            self.expire(now);
            while self.connecting < CONNECT_CONCURRENCY && self.clients.len() < count {
                self.dial(now);
            }
            self.pass(PASS_INTERVAL)?;
        }
        Ok(())
    }

    /// Gives up connections that take too long to become open.
    fn expire(&mut self, now: Ticks) {
        while let Some(&(index, dialled_at)) = self.dialled.front() {
            if self.clients[index].as_ref().is_some_and(|client| !client.is_open()) {
                if now.since(dialled_at) < Ticks::in_duration(CONNECT_TIMEOUT) {
                    return;
                }
                self.fail(index, Failure::ConnectTimeout);
            }
            self.dialled.pop_front();
        }
    }

    fn dial(&mut self, now: Ticks) {
        let index = self.clients.len();
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        match self.dialler.open(0, number, index, &self.poll) {
            Ok(socket) => {
                self.clients.push(Some(Client::new(socket, index != PUBLISHER)));
                self.connecting += 1;
                self.dialled.push_back((index, now));
            }
            Err(failure) => {
                self.clients.push(None);
                echo::count(&mut self.failures, failure, 1);
            }
        }
    }

    // Running

    /// Handles what comes for so long, or until there is nothing to wait for.
    fn pass_time(&mut self, time: Duration) -> io::Result<()> {
        let end = self.clock.elapsed() + time;
        loop {
            let left = end.saturating_sub(self.clock.elapsed());
            if left.is_zero() || self.is_broken() {
                return Ok(());
            }
            self.pass(left.min(PASS_INTERVAL))?;
            self.give_up_late();
        }
    }

    /// Whether nobody is left to speak, or to listen.
    fn is_broken(&self) -> bool {
        self.listening == 0 || self.clients.get(PUBLISHER).is_none_or(|client| client.is_none())
    }

    fn pass(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.on_event(event);
        }
        self.events = events;
        Ok(())
    }

    fn on_event(&mut self, event: &Event) {
        let Token(index) = event.token();
        let Some(Some(client)) = self.clients.get_mut(index) else { return };
        let Self { opener, buffers, publications, deliveries, .. } = self;
        match client.on_event(event, opener, buffers, publications, deliveries) {
            Ok(is_new) => {
                if is_new {
                    self.connecting -= 1;
                    if index != PUBLISHER {
                        self.opened += 1;
                        self.listening += 1;
                    }
                }
            }
            Err(failure) => return self.fail(index, failure),
        }
        if index == PUBLISHER {
            self.send();
        }
        self.complete();
    }

    /// Counts the publications that are with everyone, and sends as many others.
    fn complete(&mut self) {
        let before = self.publications.outstanding();
        while let Some(sent) = self.publications.take_complete() {
            self.complete += 1;
            if let Some(at) = self.deliveries.at.filter(|_| self.is_measuring) {
                self.latencies.record(at.since(sent));
            }
        }
        if self.publications.outstanding() < before {
            self.publish();
        }
    }

    /// Sends messages until as many are on their way as may be.
    fn publish(&mut self) {
        if !self.is_publishing || self.is_broken() {
            return;
        }
        let now = self.clock.now();
        while self.publications.outstanding() < self.plan.window {
            self.publications.publish(now, self.listening, &mut self.out);
        }
        self.send();
    }

    fn send(&mut self) {
        let Self { clients, out, sent, buffers, .. } = self;
        let Some(Some(publisher)) = clients.get_mut(PUBLISHER) else { return };
        if !publisher.is_open() {
            return;
        }
        match publisher.send(out, sent, buffers) {
            Ok(true) => {
                out.clear();
                *sent = 0;
            }
            Ok(false) => {}
            Err(failure) => self.fail(PUBLISHER, failure),
        }
    }

    /// Goes on without the publications that did not get to everyone in time.
    fn give_up_late(&mut self) {
        let now = self.clock.now();
        let patience = Ticks::in_duration(self.plan.patience);
        let before = self.publications.outstanding();
        while self.publications.oldest().is_some_and(|sent| now.since(sent) >= patience) {
            self.publications.give_up();
            echo::count(&mut self.failures, Failure::Overdue, 1);
        }
        if self.publications.outstanding() < before {
            self.publish();
        }
    }

    fn fail(&mut self, index: usize, failure: Failure) {
        echo::count(&mut self.failures, failure, 1);
        let Some(client) = self.clients[index].take() else { return };
        if !client.is_open() {
            self.connecting -= 1;
        } else if index != PUBLISHER {
            self.listening -= 1;
            // Nobody waits for what it would have got.
            self.publications.pass(client.next()..self.publications.count());
            self.complete();
        }
    }

    // Results

    fn totals(&self) -> anyhow::Result<Totals> {
        let (at, threads) = (self.clock.elapsed(), vec![self.thread_id]);
        let moment = Moment::now(at, threads, self.plan.server.as_ref())?;
        Ok((moment, self.complete, self.deliveries.count))
    }

    /// Waits for what is on its way, and counts what does not come as lost.
    fn finish(mut self, first: &Totals, last: &Totals) -> anyhow::Result<Outcome> {
        while self.publications.outstanding() > 0 && !self.is_broken() {
            self.pass(PASS_INTERVAL)?;
            self.give_up_late();
        }
        let mut disorder = self.deliveries.disorder;
        for subscriber in self.clients.iter().skip(PUBLISHER + 1).flatten() {
            disorder.lost += self.publications.count() - subscriber.next();
        }
        disorder.report(&mut self.failures);
        Ok(Outcome {
            opened: self.opened,
            spent: first.0.until(&last.0, self.plan.server.as_ref())?,
            publications: last.1 - first.1,
            deliveries: last.2 - first.2,
            latency: self.latencies.summary(),
            tls: self.opener.tls,
            failures: self.failures,
        })
    }
}
