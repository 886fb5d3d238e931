//! Counters of each worker, and reading them from any thread.
//!
//! A worker is the only writer of its counters, so that adding is a plain load and store. Readers
//! see each counter as it was a moment ago, not all of them at one moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::compute::ComputeStats;
use crate::conn::cause::{CloseReason, Closes};

/// Defines the counters once: as atomics for the worker, as numbers for the reader.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a worker counts.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
            pub(crate) closes: [Counter; CloseReason::NAMES.len()],
            longest_turn_ns: Counter,
        }

        /// What one worker has counted since it started; gauges say so.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct WorkerStats {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Connections that ended, by what ended them.
            pub closes: Closes,
            /// The longest that one turn took, waiting not counted.
            pub longest_turn: Duration,
        }

        impl WorkerStats {
            /// All counters and gauges, one by one: name, what it says here about it, value.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc, "\n"),+), self.$name),)+].into_iter()
            }
        }

        impl Counters {
            /// The present values.
            pub(crate) fn read(&self) -> WorkerStats {
                WorkerStats {
                    $($name: self.$name.get(),)+
                    closes: Closes::from_fn(|index| self.closes[index].get()),
                    longest_turn: Duration::from_nanos(self.longest_turn_ns.get()),
                }
            }
        }

        impl std::ops::AddAssign<&WorkerStats> for WorkerStats {
            fn add_assign(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                self.closes += other.closes;
                self.longest_turn = self.longest_turn.max(other.longest_turn);
            }
        }
    };
}

counters! {
    /// Gauge: sockets that the worker owns, in whatever state.
    connections,
    /// Gauge: connections whose handshake is done and that are not closed yet.
    open_connections,
    /// Connections accepted from a listener.
    accepts,
    /// Those of them that went to another worker, which had fewer connections
    /// ([`Assignment::LeastLoaded`](crate::tuning::Assignment::LeastLoaded)).
    handed_over,
    /// Connections that were closed at once, since their address had as many as may be
    /// ([`max_connections_per_address`](crate::Config::max_connections_per_address)).
    address_refusals,
    /// Times that accepting rested, since there had been as many in a second as may be
    /// ([`max_accepts_per_second`](crate::Config::max_accepts_per_second)).
    accept_rests,
    /// Times that accepting ended for want of descriptors or memory and was begun again.
    accept_failures,
    /// Connections that were closed since they came from no trusted proxy, or did not begin with a correct PROXY header
    /// ([`ProxyProtocol::Required`](crate::admission::ProxyProtocol::Required)).
    proxy_failures,
    /// Connections adopted from elsewhere.
    adopted,
    /// Connections that this side began to open.
    dials,
    /// Those of them that never were open.
    dial_failures,
    /// Handshakes that ended in 101.
    handshakes,
    /// Requests that were refused, and connections that ended before a whole request.
    handshake_failures,
    /// Requests that were refused with 503 since the server was draining.
    drain_refusals,
    /// Requests that were refused with 403 for the page that they came from
    /// ([`origin_policy`](crate::Config::origin_policy)).
    origin_refusals,
    /// Connections that were cut off at the end of a drain or shutdown.
    drain_cut_offs,
    /// TLS handshakes that came to their end, resumed ones included.
    tls_handshakes,
    /// TLS handshakes that resumed an earlier session.
    tls_resumptions,
    /// TLS handshakes that failed.
    tls_failures,
    /// Ordinary HTTP requests answered.
    http_requests,
    /// Messages received whole, and parts of streamed ones.
    messages_received,
    /// Times that reading paused since a peer had said as much as it may
    /// ([`rate_limit`](crate::Config::rate_limit)).
    throttles,
    /// Messages sent or queued.
    messages_sent,
    /// Messages that were dropped since the queue was at its limit.
    messages_dropped,
    /// Gauge: subscriptions of all connections.
    subscriptions,
    /// Messages published by connections of this worker.
    publications,
    /// Publications given to subscribers: sent, queued, or dropped.
    deliveries,
    /// Those of them that were dropped, since the subscriber's queue or the budget for all was full.
    publications_dropped,
    /// Those that replaced one with the same key that still waited.
    publications_replaced,
    /// Compressed messages received, whole ones and streamed ones (RFC 7692).
    inflated_messages,
    /// Bytes of theirs as they came, framing not included.
    inflate_in_bytes,
    /// Bytes that came out of those.
    inflate_out_bytes,
    /// Messages given to a compressor.
    deflated_messages,
    /// Bytes of theirs as the application sent them.
    deflate_in_bytes,
    /// Bytes that came of those, framing included; a message that got no shorter goes out as it was.
    deflate_out_bytes,
    /// Gauge: bytes of memory in compressors and decompressors that belong to one connection each
    /// ([`CompressionMode::Dedicated`](crate::compression::CompressionMode::Dedicated)).
    deflate_memory,
    /// Bytes received, framing included.
    bytes_received,
    /// Bytes handed to the kernel, framing included.
    bytes_sent,
    /// Gauge: bytes of output that wait for a socket to take them.
    queued_bytes,
    /// Gauge: bytes of memory in the table of connections, which grows with the most there were at a time.
    memory_tables,
    /// Gauge: bytes of memory in input that is not whole, or waits: messages, requests, bodies.
    memory_input,
    /// Gauge: bytes of memory in output that waits or is in flight; publications are counted apart, once.
    memory_output,
    /// Gauge: bytes of memory that the kernel holds of output to peers that do not take it. A socket that is full
    /// counts for its mark (`tcp_notsent_lowat`) until it is asked: when a timer fires, and while memory is short.
    memory_kernel,
    /// Gauge: bytes of memory in TLS sessions, about.
    memory_tls,
    /// Gauge: bytes of memory in free buffers ([`pool_len`](crate::Config::pool_len)), which are no part of the budget.
    memory_pool,
    /// Requests that were refused with 503 since memory was short ([`max_memory`](crate::Config::max_memory)).
    memory_refusals,
    /// Connections that were ended since memory was used up, those that held most first.
    memory_sheds,
    /// Turns of the worker's loop.
    turns,
}

impl Counters {
    /// What the worker holds for connections, in bytes.
    pub(crate) fn memory_len(&self) -> usize {
        let Self { memory_tables, memory_input, memory_output, memory_kernel, .. } = self;
        let Self { memory_tls, deflate_memory, .. } = self;
        let output = [memory_output, memory_kernel];
        let kinds = [memory_tables, memory_input, memory_tls, deflate_memory];
        let len: u64 = kinds.into_iter().chain(output).map(Counter::get).sum();
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    pub(crate) fn note_turn(&self, busy: Duration) {
        self.turns.add(1);
        let busy = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        if busy > self.longest_turn_ns.get() {
            self.longest_turn_ns.set(busy);
        }
    }
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: usize) {
        self.set(self.get().wrapping_add(count as u64));
    }

    #[inline]
    pub(crate) fn sub(&self, count: usize) {
        self.set(self.get().wrapping_sub(count as u64));
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The counters of all workers, from [`Handle::stats`](crate::Handle::stats).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// One entry for each worker, by its index.
    pub workers: Vec<WorkerStats>,
    /// The compute threads; all zero without any.
    pub compute: ComputeStats,
    /// The certificates of the TLS addresses.
    pub tls: TlsStats,
    /// What was published and waits.
    pub topics: TopicStats,
    /// What is held for connections.
    pub memory: MemoryStats,
    /// The cluster; `None` where the server is on no [bus](crate::cluster::Bus).
    pub cluster: Option<ClusterStats>,
}

/// What [`Handle::stats`](crate::Handle::stats) says of memory; by kind it is counted by the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Gauge: bytes that all workers hold for connections, for publications that wait, and for those that are kept.
    pub used_len: usize,
    /// How many it may be ([`max_memory`](crate::Config::max_memory)). `None`: nobody knows what the machine has.
    pub budget_len: Option<usize>,
}

/// What [`Handle::stats`](crate::Handle::stats) says of topics; the rest is counted by the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicStats {
    /// Gauge: bytes of memory in publications that are under way or wait for subscribers, of
    /// [`max_retained_len`](crate::topics::TopicConfig::max_retained_len).
    pub retained_len: usize,
    /// Gauge: bytes of memory in what topics keep for connections that come back, of
    /// [`max_history_len`](crate::topics::TopicConfig::max_history_len).
    pub history_len: usize,
}

/// What [`Handle::stats`](crate::Handle::stats) says of the [cluster](crate::cluster), as this node sees it. All but
/// the gauges count publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStats {
    /// Gauge: whether the bus has its connection to the others.
    pub is_connected: bool,
    /// Gauge: topics and patterns that the bus was last asked to bring.
    pub subscriptions: u64,
    /// Gauge: bytes of publications that wait for the bus to take them, of
    /// [`max_outgoing_len`](crate::cluster::ClusterConfig::max_outgoing_len).
    pub outgoing_len: usize,
    /// Gauge: bytes of publications from other nodes that wait for one before them, of
    /// [`max_held_len`](crate::cluster::ClusterConfig::max_held_len).
    pub held_len: u64,
    /// Given to the bus.
    pub sent: u64,
    /// Not given to the bus, since too much waited for it, or the server ended.
    pub outgoing_dropped: u64,
    /// Given to the bus, which could not send them.
    pub undeliverable: u64,
    /// From other nodes, passed on to subscribers.
    pub received: u64,
    /// From other nodes, and missed by subscribers of at least one worker, which was too far behind.
    pub incoming_dropped: u64,
    /// Lost on the way from other nodes: later ones came to the same topic.
    pub missed: u64,
    /// From other nodes, passed over: they had come before, or came after they were given up.
    pub passed_over: u64,
    /// Not what a node of this version sends.
    pub malformed: u64,
}

/// The same, as it is counted.
#[derive(Debug, Default)]
pub(crate) struct ClusterCounters {
    pub(crate) is_connected: AtomicBool,
    pub(crate) subscriptions: AtomicU64,
    pub(crate) held_len: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) outgoing_dropped: AtomicU64,
    pub(crate) undeliverable: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) incoming_dropped: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) passed_over: AtomicU64,
    pub(crate) malformed: AtomicU64,
}

impl ClusterCounters {
    /// The present values.
    pub(crate) fn read(&self, outgoing_len: usize) -> ClusterStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClusterStats {
            is_connected: self.is_connected.load(Ordering::Relaxed),
            subscriptions: of(&self.subscriptions),
            outgoing_len,
            held_len: of(&self.held_len),
            sent: of(&self.sent),
            outgoing_dropped: of(&self.outgoing_dropped),
            undeliverable: of(&self.undeliverable),
            received: of(&self.received),
            incoming_dropped: of(&self.incoming_dropped),
            missed: of(&self.missed),
            passed_over: of(&self.passed_over),
            malformed: of(&self.malformed),
        }
    }
}

/// What [`Handle::stats`](crate::Handle::stats) says of certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsStats {
    /// Times that the certificates of an address were replaced.
    pub reloads: u64,
    /// Times that they were not, since something was wrong with the new ones.
    pub reload_failures: u64,
    /// When the first certificate in use expires, in seconds since 1970. `None` without TLS.
    pub not_after: Option<i64>,
}

impl Stats {
    /// The sum over all workers; the longest turn is the longest of all.
    pub fn total(&self) -> WorkerStats {
        let mut total = WorkerStats::default();
        for worker in &self.workers {
            total += worker;
        }
        total
    }

    /// Connections of the fullest worker over the mean: 1.0 is perfect balance.
    pub fn imbalance(&self) -> f64 {
        let counts = self.workers.iter().map(|worker| worker.connections);
        let (most, sum) = counts.fold((0, 0), |(most, sum), count| (count.max(most), sum + count));
        if sum == 0 { 1.0 } else { most as f64 * self.workers.len() as f64 / sum as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_and_imbalance() {
        let counters = Counters::default();
        counters.connections.add(30);
        counters.closes[CloseReason::Shutdown.index()].add(3);
        counters.note_turn(Duration::from_micros(5));
        counters.note_turn(Duration::from_micros(2));
        let first = counters.read();
        let second = WorkerStats { connections: 10, ..WorkerStats::default() };
        let stats = Stats { workers: vec![first, second], ..Stats::default() };
        assert_eq!(stats.total().connections, 40);
        assert_eq!(stats.total().closes[CloseReason::Shutdown], 3);
        assert_eq!(stats.total().turns, 2);
        assert_eq!(stats.total().longest_turn, Duration::from_micros(5));
        assert!((stats.imbalance() - 1.5).abs() < 1e-9);
        assert!((Stats::default().imbalance() - 1.0).abs() < 1e-9);
    }
}
