//! What comes to a node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::envelope::Envelope;
use super::{NodeId, SharedState};
use crate::metrics::ClusterCounters;
use crate::topic::{Exchange, PublishError, PublishOptions};

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
