//! What comes to a node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::envelope::Envelope;
use super::{NodeId, SharedState};
use crate::metrics::ClusterCounters;
use crate::topic::{Entry, Exchange, Loaded, Position, PublishError, PublishOptions};

/// The end of a node at which the [`Bus`](super::Bus) gives what other nodes have published.
///
/// Times are the bus's own: since whatever beginning, and never going back.
#[derive(Debug)]
pub struct Inlet {
    id: NodeId,
    exchange: Exchange,
    state: SharedState,
    counters: Arc<ClusterCounters>,
}

/// A publication with the number that the bus gave it, for all nodes.
#[derive(Clone, Copy, Debug)]
pub struct Numbered<'a> {
    /// Which life of the bus's numbers, below 2^53.
    pub epoch: u64,
    /// Its number, from 1 on, and below 2^53: higher than all before it of its topic.
    pub offset: u64,
    /// The number before it, of the same topic. `None`: the bus does not know it.
    pub previous: Option<u64>,
    /// What [`Letter::to_bytes`](super::Letter::to_bytes) gave. Nothing: the number is taken, by no message.
    pub bytes: &'a [u8],
}

/// What a bus has kept of a topic, up to what it numbered last.
#[derive(Clone, Debug, Default)]
pub struct KeptHistory {
    /// As in [`Numbered`].
    pub epoch: u64,
    /// All that was numbered behind this offset is there.
    pub floor: u64,
    /// What is before it is gone.
    pub is_whole: bool,
    /// In order.
    pub entries: Vec<Kept>,
}

/// One publication of a [`KeptHistory`].
#[derive(Clone, Debug)]
pub struct Kept {
    /// As in [`Numbered`].
    pub offset: u64,
    /// How long ago it was numbered.
    pub age: Duration,
    /// As in [`Numbered`].
    pub bytes: Vec<u8>,
}

impl Inlet {
    pub(super) fn new(
        id: NodeId,
        exchange: Exchange,
        state: SharedState,
        counters: Arc<ClusterCounters>,
    ) -> Self {
        Self { id, exchange, state, counters }
    }

    /// Takes what a node has published to `topic`, as its [`Letter::to_bytes`](super::Letter::to_bytes) were, and
    /// passes it on to those who subscribe here. What this node has published itself is passed over. Does not block.
    /// What comes is not trusted to be whole; who may publish is for the bus to say.
    pub fn receive(&mut self, topic: &str, bytes: &[u8], now: Duration) {
        let Some(envelope) = Envelope::parse(bytes) else {
            return add(&self.counters.malformed, 1);
        };
        if envelope.stamp.origin == self.id {
            return add(&self.counters.passed_over, 1);
        }
        let mut state = self.state.lock();
        // The bus has yet to end the subscription.
        if !state.interests.includes(topic) {
            return;
        }
        let taken = state.streams.take(envelope.stamp, topic, bytes, now);
        self.note_held(state.streams.held_len());
        drop(state);
        add(&self.counters.missed, taken.missed);
        add(&self.counters.passed_over, u64::from(taken.is_stale));
        self.pass_on_all(topic, &taken.before);
        if taken.is_next {
            self.pass_on(topic, &envelope);
        }
        self.pass_on_all(topic, &taken.after);
    }

    /// Takes what the bus has numbered, and passes it on to those who subscribe here, whichever node has published it.
    /// One whose number is not higher than those before it is passed over. Where others are missing before it, that is
    /// told by its stamp, and nothing is left of what was kept here: a bus looks at [`heard`](Self::heard) first, and
    /// [loads](Self::load) what is missing.
    pub fn receive_numbered(&mut self, topic: &str, numbered: Numbered<'_>) {
        let Numbered { epoch, offset, previous, bytes } = numbered;
        let envelope = match bytes {
            [] => None,
            bytes => match Envelope::parse(bytes) {
                None => return add(&self.counters.malformed, 1),
                envelope => envelope,
            },
        };
        // Not dropped before the end: the topic may end meanwhile.
        let mut state = self.state.lock();
        if !state.interests.includes(topic) {
            return;
        }
        let message = envelope.map(|it| (it.message, it.compress));
        let passed = self.exchange.follow(topic, (Position { epoch, offset }, previous), message);
        drop(state);
        match passed {
            Ok(false) => add(&self.counters.passed_over, 1),
            Err(PublishError::Topic(_)) => add(&self.counters.malformed, 1),
            outcome => {
                add(&self.counters.incoming_dropped, u64::from(outcome.is_err()));
                envelope.iter().for_each(|envelope| self.hear(topic, envelope));
            }
        }
    }

    /// Where this node is with a topic that the bus numbers and brings: it has heard all up to there.
    pub fn heard(&self, topic: &str) -> Option<Position> {
        self.exchange.heard(topic).map(|(heard, _)| heard)
    }

    /// Whether what the bus has kept of such a topic was [loaded](Self::load) as a whole: what it has beside that came
    /// later.
    pub fn has_all(&self, topic: &str) -> bool {
        self.exchange.heard(topic).is_some_and(|(_, is_whole)| is_whole)
    }

    /// The same of all topics that the bus numbers and brings.
    pub fn all_heard(&self) -> Vec<(String, Position)> {
        self.exchange.all_heard()
    }

    /// Takes in what the bus has kept of a topic that it brings. What is later than what was
    /// [`heard`](Self::heard) goes to those who subscribe here.
    pub fn load(&mut self, topic: &str, history: &KeptHistory) {
        let KeptHistory { epoch, floor, is_whole, ref entries } = *history;
        let envelopes: Vec<_> = entries.iter().map(|kept| Envelope::parse(&kept.bytes)).collect();
        let entries = entries.iter().zip(&envelopes).map(|(kept, envelope)| Entry {
            offset: kept.offset,
            age: kept.age,
            message: envelope.map(|it| (it.message, it.compress)),
        });
        let entries = entries.collect();
        let mut state = self.state.lock();
        if !state.interests.includes(topic) {
            return;
        }
        let loaded = Loaded { epoch, floor, is_whole, entries };
        let (passed_on, outcome) = self.exchange.load(topic, &loaded);
        drop(state);
        add(&self.counters.incoming_dropped, u64::from(outcome.is_err()));
        for (entry, envelope) in loaded.entries.iter().zip(&envelopes) {
            if passed_on.binary_search(&entry.offset).is_ok() {
                envelope.iter().for_each(|envelope| self.hear(topic, envelope));
            }
        }
    }

    /// Has code hear what the bus has numbered, if another node has published it.
    fn hear(&self, topic: &str, envelope: &Envelope<'_>) {
        if envelope.stamp.origin != self.id {
            add(&self.counters.received, 1);
            let relay = self.exchange.relay();
            relay.into_iter().for_each(|relay| relay.ears.call(topic, envelope.message));
        }
    }

    /// Ends what [`Outgoing::Load`](super::Outgoing::Load) has begun, whether anything was
    /// [loaded](Self::load) or not.
    pub fn end_load(&self, topic: &str) {
        self.exchange.relay().into_iter().for_each(|relay| relay.loads.end(topic));
    }

    /// Passes on what has waited long enough for others. Returns when to call this again, if nothing comes before;
    /// `None`: nothing waits. [`receive`](Self::receive) may change that.
    pub fn expire(&mut self, now: Duration) -> Option<Duration> {
        let mut state = self.state.lock();
        let (expired, next) = state.streams.expire(now);
        self.note_held(state.streams.held_len());
        drop(state);
        add(&self.counters.missed, expired.missed);
        for (topic, bytes) in &expired.letters {
            self.pass_on_all(topic, std::slice::from_ref(bytes));
        }
        next
    }

    fn note_held(&self, len: usize) {
        self.counters.held_len.store(len as u64, Ordering::Relaxed);
    }

    fn pass_on_all(&self, topic: &str, letters: &[Vec<u8>]) {
        for envelope in letters.iter().filter_map(|bytes| Envelope::parse(bytes)) {
            self.pass_on(topic, &envelope);
        }
    }

    fn pass_on(&self, topic: &str, envelope: &Envelope<'_>) {
        let Envelope { key, except_name, compress, message, .. } = *envelope;
        let options = PublishOptions { key, except_name, compress, ..PublishOptions::default() };
        if let Some(relay) = self.exchange.relay() {
            relay.ears.call(topic, message);
        }
        match self.exchange.receive(topic, message, options) {
            Err(PublishError::Topic(_)) => return add(&self.counters.malformed, 1),
            Err(_) => add(&self.counters.incoming_dropped, 1),
            Ok(()) => {}
        }
        add(&self.counters.received, 1);
    }
}

fn add(counter: &std::sync::atomic::AtomicU64, count: u64) {
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
