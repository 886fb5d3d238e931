//! What is published on its way to the connections of this worker.
//!
//! Each of them refers to the same bytes. An idle one sends them at once; where output is under way or waits already,
//! they wait as well, and go out with all else that the connection gets in one send.

use super::Worker;
use crate::app::handler::Handler;
use crate::base::output::{Output, SharedBytes};
use crate::conn::cause::CloseReason;
use crate::conn::options::{Backpressure, SendOptions};
use crate::conn::queue::SegmentKind;
use crate::conn::{Flags, Phase, Wire};
use crate::driver::{Driver, Token};
use crate::state::Shared;
use crate::state::send;
use crate::topic::{Delivery, TopicQuery};

/// Connections that are given publications in a turn, before the others get theirs. The rest follows in the next ones.
const DELIVERIES_PER_TURN: usize = 4096;
/// Publications taken from the mailbox in a turn.
const PUBLICATIONS_PER_TURN: usize = 1024;
/// Output of a connection for which publications may always wait, also where the budget for them is used up: a peer
/// that reads has this much under way at times.
const ALWAYS_QUEUED_LEN: usize = 4 << 10;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// Takes in what other workers and handles have published.
    pub(super) fn read_publications(&mut self) {
        for _ in 0..PUBLICATIONS_PER_TURN {
            let Some(publication) = self.inbox.take_publication() else { return };
            self.shared.topics.take_in(publication);
        }
    }

    /// Whether publications wait for the next turn.
    #[inline]
    pub(super) fn has_publications(&self) -> bool {
        self.shared.topics.has_waiting() || self.delivery.is_under_way()
    }

    /// Gives what was published to its subscribers, as many of them as a turn has time for.
    #[inline]
    pub(super) fn deliver_publications(&mut self) {
        if self.has_publications() {
            self.deliver_waiting();
        }
    }

    /// Says who subscribes to what.
    pub(super) fn answer_of_topics(&mut self, query: TopicQuery) {
        match query {
            TopicQuery::All(part) => part.answer(|all| {
                for (text, count) in self.shared.topics.all() {
                    *all.entry(text.to_owned()).or_default() += count;
                }
            }),
            TopicQuery::Count(topic, part) => {
                let found = self.subscribers(&topic);
                part.answer(|count| *count += found.len());
            }
            TopicQuery::Subscribers(topic, part) => {
                let found = self.subscribers(&topic);
                part.answer(|all| all.extend(found.iter().map(|token| self.shared.id(*token))));
            }
        }
    }

    fn subscribers(&mut self, topic: &str) -> Vec<Token> {
        let Self { conns, shared, .. } = self;
        let mut found = Vec::new();
        shared.topics.for_each_subscriber(topic, |slot| found.extend(conns.token(slot)));
        found
    }

    fn deliver_waiting(&mut self) {
        let mut delivery = std::mem::take(&mut self.delivery);
        for _ in 0..DELIVERIES_PER_TURN {
            if !delivery.is_under_way() {
                let conns = &self.conns;
                if !self.shared.topics.begin(&mut delivery, |slot| conns.token(slot)) {
                    break;
                }
            }
            if let Some(token) = delivery.next_target() {
                self.deliver_to(token, &mut delivery);
            }
        }
        self.delivery = delivery;
    }

    fn deliver_to(&mut self, token: Token, delivery: &mut Delivery) {
        let Self { conns, shared, driver, .. } = self;
        let Some(conn) = conns.get_mut(token).filter(|conn| conn.wire.phase == Phase::Open) else {
            return;
        };
        let wire = &mut conn.wire;
        let is_named = |name: &str| shared.names.of(token.slot).any(|own| own == name);
        if delivery.except() == Some(shared.id(token))
            || delivery.except_name().is_some_and(is_named)
            || shared.topics.has_had(token.slot, delivery)
        {
            return;
        }
        if wire.flags.contains(Flags::CLIENT) {
            return self.deliver_masked(token, delivery);
        }
        let window = wire.flags.contains(Flags::DEFLATE).then(|| wire.deflate.window());
        let count = delivery.publications().len();
        let bytes = delivery.bytes(window, &mut shared.deflate, &shared.topics.exchange);
        let bytes = bytes.clone();
        if window.is_some() && delivery.is_compressed(&shared.deflate) {
            // Compressed by itself, it is not in the window of the connection's own compressor.
            shared.cut_context(wire, token.slot);
        }
        shared.counters.deliveries.add(count);
        let is_idle = !wire.flags.contains(Flags::SENDING)
            && !wire.has_queue()
            && !wire.codec.wants_transmit();
        // What comes next may be for the same connections, and is to go out with this.
        let is_all = !shared.topics.has_waiting();
        if is_idle && is_all && !wire.flags.contains(Flags::LAYERED) {
            shared.counters.messages_sent.add(count);
            shared.counters.queued_bytes.add(bytes.len());
            return Self::submit_send(driver, wire, shared, token, Output::Shared(bytes));
        }
        queue_published(wire, shared, &bytes, delivery);
        shared.recharge(wire);
        shared.list(wire, token);
    }

    /// A server of which this side is the client is sent frames of its own, since each has its own mask
    /// (RFC 6455 §5.3), as by [`Ctx::send`](crate::Ctx::send).
    fn deliver_masked(&mut self, token: Token, delivery: &Delivery) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        for publication in delivery.publications() {
            let options = SendOptions {
                key: publication.key,
                compress: publication.compress,
                ..SendOptions::default()
            };
            let (wire, shared) = (&mut conn.wire, &mut self.shared);
            let _ = send::send(wire, shared, token.slot, publication.message(), options);
        }
        self.shared.counters.deliveries.add(delivery.publications().len());
        self.after_work(token);
    }
}

/// Puts publications behind the output that waits. Where that is as much as may be, the topic's policy is carried out.
fn queue_published(wire: &mut Wire, shared: &mut Shared, bytes: &SharedBytes, delivery: &Delivery) {
    let count = u32::try_from(delivery.publications().len()).unwrap_or(u32::MAX);
    let kind = SegmentKind::Published { key: delivery.key(), count };
    if delivery.key().is_some()
        && let Some(index) = wire.pending_mut().queue.find(kind)
    {
        shared.counters.queued_bytes.add(bytes.len());
        shared.counters.messages_sent.add(1);
        let newer = Output::Retained(bytes.retain_anyway());
        let older = wire.pending_mut().queue.replace(index, newer);
        shared.counters.publications_replaced.add(1);
        shared.counters.queued_bytes.sub(older.len());
        return;
    }
    loop {
        if wire.queue_cost() < shared.limits.max_queued_len {
            let retained = bytes
                .retain()
                .or_else(|| (wire.queue_cost() < ALWAYS_QUEUED_LEN).then(|| bytes.retain_anyway()));
            if let Some(retained) = retained {
                shared.counters.queued_bytes.add(bytes.len());
                shared.counters.messages_sent.add(count as usize);
                return wire.pending_mut().queue.push(Output::Retained(retained), kind);
            }
        }
        match delivery.policy().unwrap_or(shared.limits.backpressure) {
            Backpressure::DropNewest => return miss(wire, shared, count),
            Backpressure::DropOldest => {
                let Some((oldest, count)) = wire.pending_mut().queue.drop_oldest_published() else {
                    return miss(wire, shared, count);
                };
                shared.counters.queued_bytes.sub(oldest.len());
                miss(wire, shared, count);
            }
            Backpressure::Close(code) => {
                miss(wire, shared, count);
                let why = "too many publications wait";
                // Only a close that has begun refuses another.
                let _ = send::close(wire, shared, CloseReason::Backpressure, code, why);
                return shared.enqueue_out(wire, SegmentKind::Stream);
            }
        }
    }
}

/// Publications are dropped for a connection, of which the application will be told.
fn miss(wire: &mut Wire, shared: &Shared, count: u32) {
    let missed = &mut wire.pending_mut().missed;
    *missed = missed.saturating_add(count);
    shared.counters.publications_dropped.add(count as usize);
}
