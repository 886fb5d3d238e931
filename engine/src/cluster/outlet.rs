//! What leaves a node: what it has subscribers for, and publications.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crossbeam_channel::Sender;

use super::envelope::{Envelope, Stamp};
use super::interests::Wish;
use super::recent::Recent;
use super::{NodeId, SharedState};
use crate::topic::relay::{Departure, Departures, Numbering, Relay};
use crate::topic::{Exchange, has_wildcard};

/// Changes of interest that are looked at together.
const CHANGES_AT_A_TIME: u32 = 1024;

/// What a [`Bus`](super::Bus) has to do next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outgoing {
    /// Bring what other nodes publish to this topic, or to all that this pattern takes in: `*` stands for one token,
    /// `>` at the end for one or more, as in NATS.
    ///
    /// It was not asked for before, or no more. Until it is brought, nobody here hears the others.
    Subscribe(String),
    /// Bring it no more. If another subscription has taken its place, that was asked for before.
    Unsubscribe(String),
    /// Give it to the other nodes that have subscribers for its topic.
    Publish(Letter),
    /// Give it a number, keep it, and bring it to all nodes that have subscribers for its topic, this one included, in
    /// the order of the numbers ([`Inlet::receive_numbered`](super::Inlet::receive_numbered)). Only where the bus
    /// [numbers](Outlet::number_by_bus).
    Record(Letter),
    /// Bring what you have kept of this topic ([`Inlet::load`](super::Inlet::load)), or say that you can't, soon
    /// ([`Inlet::end_load`](super::Inlet::end_load)): connections wait. Only where the bus numbers. It was asked for
    /// the topic, or a pattern that takes it in, before.
    Load(String),
}

/// A publication on its way to other nodes. It was encoded when it was published; the bytes of the message are copied
/// by [`to_bytes`](Self::to_bytes) for the first time since.
#[derive(Debug)]
pub struct Letter {
    departure: Departure,
    stamp: Stamp,
}

impl Letter {
    /// The topic: tokens with dots between them, without white space, control characters, `*` and `>`; at most 255
    /// bytes of UTF-8.
    pub fn topic(&self) -> &str {
        &self.departure.publication.topic
    }

    /// A name that no other letter of any node has.
    pub fn id(&self) -> String {
        let Stamp { origin, epoch, number } = self.stamp;
        format!("{origin}.{epoch:x}.{number:x}")
    }

    /// For the [`receive`](super::Inlet::receive) of other nodes: at most 35 bytes more than the message, and a name
    /// that is left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Departure { publication, key, .. } = &self.departure;
        Envelope {
            stamp: self.stamp,
            key: *key,
            except_name: publication.except_name.as_deref(),
            compress: publication.compress,
            message: publication.message(),
        }
        .write()
    }
}

/// The end of a node at which the [`Bus`](super::Bus) is told what to do.
#[derive(Debug)]
pub struct Outlet {
    parts: Parts,
    wishes: VecDeque<Wish>,
    /// What has lost its last subscriber: told once all that has one by then is.
    ending: HashSet<Box<str>>,
    /// What is to be loaded once what has subscribers is told.
    load: Option<String>,
    /// Taken from the departures before their time.
    waiting: VecDeque<Departure>,
    /// Of each topic that is published to, the epoch and the last number in it.
    numbers: Recent<(u64, u64)>,
    last_epoch: u64,
}

/// What a node gives its outlet.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) id: NodeId,
    pub(super) exchange: Exchange,
    pub(super) departures: Departures,
    pub(super) state: SharedState,
    /// Closes when the outlet is dropped.
    pub(super) _lives: Sender<Infallible>,
}

impl Outlet {
    pub(super) fn new(parts: Parts, max_streams: usize) -> Self {
        let (wishes, ending) = (VecDeque::new(), HashSet::new());
        let (waiting, numbers) = (VecDeque::new(), Recent::new(max_streams));
        Self { parts, wishes, ending, load: None, waiting, numbers, last_epoch: 0 }
    }

    /// What to do next. `None`: the server has ended, and nothing is left.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Outgoing> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for futures that are written out.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if let Some(next) = self.take() {
            return Poll::Ready(Some(next));
        }
        self.parts.departures.watch(cx.waker());
        // What came since then wakes.
        let is_over = self.relay().is_none_or(Relay::is_over);
        match self.take() {
            None if !is_over => Poll::Pending,
            next => Poll::Ready(next),
        }
    }

    /// The same for a thread, which waits.
    pub fn next_blocking(&mut self) -> Option<Outgoing> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            match self.poll_next(&mut cx) {
                Poll::Ready(next) => return next,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// Waits until the server has ended, whatever is left to be taken: for a bus that takes nothing while it has no
    /// connection.
    pub async fn ended(&mut self) {
        poll_fn(|cx| {
            self.parts.departures.watch(cx.waker());
            match self.relay().is_none_or(Relay::is_over) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Says whether there is a connection to the other nodes: not, to begin with. What is to be sent waits meanwhile,
    /// if the bus does not take it.
    pub fn set_connected(&self, is_connected: bool) {
        if let Some(relay) = self.relay() {
            relay.counters().is_connected.store(is_connected, Ordering::Relaxed);
        }
    }

    /// Says that publications which were taken could not be sent, for
    /// [`undeliverable`](crate::stats::ClusterStats::undeliverable).
    pub fn note_undeliverable(&self, count: u64) {
        if let Some(relay) = self.relay() {
            relay.counters().undeliverable.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The bus numbers what is published to topics with a [history](crate::topics::HistoryConfig) from now on, for all
    /// nodes: such publications come as [`Outgoing::Record`]. To begin with, each node numbers by itself.
    pub fn number_by_bus(&self) {
        self.parts.exchange.share_numbers();
    }

    /// The bus can't number: this node does, what is published on it, and the others miss that. What the bus was to
    /// number and could not (`returned`, in its order), and what waits to be, is numbered first.
    pub fn number_here(&mut self, returned: Vec<Letter>) {
        let Self { parts: Parts { exchange, departures, .. }, waiting, .. } = self;
        let Some(relay) = exchange.relay() else { return };
        let returned = returned.into_iter().map(|letter| letter.departure.publication).collect();
        let next = || {
            let next = departures.take_unpaid()?;
            next.to_number.then(|| relay.settle(&next));
            Some(next)
        };
        exchange.number_apart(returned, next, |departure| waiting.push_back(departure));
        relay.loads.end_all();
    }

    fn relay(&self) -> Option<&Relay> {
        self.parts.exchange.relay()
    }

    fn take(&mut self) -> Option<Outgoing> {
        if self.load.is_none() {
            self.load = self.relay()?.loads.take().map(|topic| topic.as_ref().to_owned());
        }
        // What was asked for before it is told before it; many changes ask for nothing.
        self.look_at_interest();
        while self.wishes.is_empty() && self.relay()?.has_interest() {
            self.look_at_interest();
        }
        let subscriptions = &self.relay()?.counters().subscriptions;
        match self.wishes.front() {
            Some(Wish::Subscribe(_)) => subscriptions.fetch_add(1, Ordering::Relaxed),
            Some(Wish::Unsubscribe(_)) => subscriptions.fetch_sub(1, Ordering::Relaxed),
            None => return self.load.take().map(Outgoing::Load).or_else(|| self.take_departure()),
        };
        self.wishes.pop_front().map(|wish| match wish {
            Wish::Subscribe(text) => Outgoing::Subscribe(text.into()),
            Wish::Unsubscribe(text) => Outgoing::Unsubscribe(text.into()),
        })
    }

    fn take_departure(&mut self) -> Option<Outgoing> {
        let relay = self.parts.exchange.relay()?;
        let departure = match self.waiting.pop_front() {
            Some(waiting) => {
                relay.settle(&waiting);
                waiting
            }
            None => self.parts.departures.take(relay)?,
        };
        let stamp = self.stamp(&departure.publication.topic);
        self.relay()?.counters().sent.fetch_add(1, Ordering::Relaxed);
        let to_number = departure.to_number;
        let letter = Letter { departure, stamp };
        Some(if to_number { Outgoing::Record(letter) } else { Outgoing::Publish(letter) })
    }

    fn look_at_interest(&mut self) {
        let Self { parts: Parts { exchange, state, .. }, wishes, ending, .. } = self;
        let Some(relay) = exchange.relay().filter(|relay| relay.has_interest()) else { return };
        let changes = relay.take_interest(CHANGES_AT_A_TIME);
        let mut state = state.lock();
        let state = &mut *state;
        for (text, change) in changes {
            if !change.has_joined {
                ending.insert(text);
            } else if !ending.remove(&text) {
                state.interests.begin(&text, wishes);
            }
        }
        // They come by topic, not in their order.
        let mut over = Vec::new();
        if !relay.has_interest() {
            over.extend(ending.drain());
            over.sort_unstable_by_key(|text| has_wildcard(text));
        }
        for text in over {
            state.interests.end(&text, wishes);
            if has_wildcard(&text) {
                let interests = &mut state.interests;
                state.streams.forget(|topic| !interests.includes(topic));
                exchange.unfollow_all(|topic| !interests.includes(topic));
            } else if !state.interests.includes(&text) {
                state.streams.forget_topic(&text);
                exchange.unfollow(&text);
            }
        }
        relay.counters().held_len.store(state.streams.held_len() as u64, Ordering::Relaxed);
    }

    fn stamp(&mut self, topic: &str) -> Stamp {
        let origin = self.parts.id;
        if let Some((epoch, number)) = self.numbers.get_mut(origin.0, topic, |_| false) {
            *number += 1;
            return Stamp { origin, epoch: *epoch, number: *number };
        }
        self.last_epoch += 1;
        self.numbers.insert(origin.0, topic, (self.last_epoch, 1), |_| false);
        Stamp { origin, epoch: self.last_epoch, number: 1 }
    }
}

/// The bus has ended.
impl Drop for Outlet {
    fn drop(&mut self) {
        self.set_connected(false);
        if self.relay().is_some_and(|relay| relay.numbering() == Numbering::Shared) {
            self.number_here(Vec::new());
        }
        let left = (self.parts.departures.len() + self.waiting.len()) as u64;
        self.parts.exchange.relay().into_iter().for_each(|relay| relay.loads.end_all());
        if let Some(relay) = self.relay() {
            relay.counters().outgoing_dropped.fetch_add(left, Ordering::Relaxed);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
