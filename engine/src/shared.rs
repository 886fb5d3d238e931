//! What all connections of a worker use in turn: buffers, limits, masks, counters, the time.

#![expect(clippy::disallowed_types, reason = "the counters are read by other threads")]

use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_core::Rng;
use ringwire_codec::{Buffers, MaskSource};

use crate::budget::Budget;
use crate::buf::BufferPool;
use crate::compute::Compute;
use crate::config::{Backpressure, Config};
use crate::conn::{ConnId, Flags, Pending, Wire};
use crate::deflate::Deflate;
use crate::driver::Token;
use crate::ends::Ends;
use crate::error::{CloseCause, CloseReason};
use crate::hub::Hub;
use crate::layers::Layers;
use crate::limits::deadline::Deadlines;
use crate::limits::progress::Progress;
use crate::limits::rate::{Meters, Rates};
use crate::memory::{Charge, Ledger, Watch};
use crate::metrics::Counters;
use crate::origin::OriginPolicy;
use crate::output::Output;
use crate::registry::Names;
use crate::secure::Sessions;
use crate::send_queue::SegmentKind;
use crate::timer::{TICKS_PER_SECOND, Tick, Wheel, ticks_of};
use crate::topic::Topics;
use crate::worker::http::Clock;

/// The longest that a connection lingers: 5 s.
const LINGER: Tick = 5 * TICKS_PER_SECOND;
/// The same once the server is shut down, which waits for them.
const LAST_LINGER: Tick = TICKS_PER_SECOND;

/// The longest frame header, and so what a frame takes beside its payload (RFC 6455 §5.2).
pub(crate) const MAX_HEADER_LEN: usize = 14;

/// The least capacity of a segment that more output may be appended to.
const MIN_SEGMENT_LEN: usize = 4 << 10;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) worker: u16,
    pub(crate) pool: BufferPool,
    /// What the connection at work has sent in this turn.
    pub(crate) out: Vec<u8>,
    /// TLS, for the connections that have it.
    pub(crate) sessions: Sessions,
    /// Extensions, for the connections that have them.
    pub(crate) layers: Layers,
    /// Compressors and decompressors.
    pub(crate) deflate: Deflate,
    pub(crate) topics: Topics,
    pub(crate) names: Names,
    /// Threads that take over what is costly, if there are any.
    pub(crate) compute: Option<Compute>,
    /// How much output to expect: as much as was received, as for an echo.
    pub(crate) expected_len: usize,
    pub(crate) masks: Masks,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: Limits,
    pub(crate) wheel: Wheel,
    /// What peers have said of late, where that is limited.
    pub(crate) meters: Meters,
    /// Deadlines that the application has set.
    pub(crate) deadlines: Deadlines,
    /// Peers with output ahead of them that were asked about.
    pub(crate) progress: Progress,
    /// The turn's time.
    pub(crate) now: Tick,
    /// The time of day, for answers to HTTP requests.
    pub(crate) clock: Clock,
    /// When the window of a drain ends that is under way.
    pub(crate) draining: Option<Tick>,
    /// Connections that have opened since the drain began.
    pub(crate) latecomers: Vec<Token>,
    /// Connections to be flushed or resumed after the mailbox, or in the next turn.
    pub(crate) listed: Vec<Token>,
    /// What is held for connections, and when too much of it was last looked for.
    pub(crate) ledger: Ledger,
    pub(crate) watch: Watch,
    /// What is logged of connections that end.
    pub(crate) ends: Ends,
}

/// The settings that connections need, deadlines in ticks.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) protocol: ringwire_codec::Config,
    /// The same for peers of whom the application has not said that they are authenticated, if it differs.
    pub(crate) unauthenticated: Option<ringwire_codec::Config>,
    pub(crate) head: ringwire_codec::handshake::HeadLimits,
    pub(crate) handshake: Option<Tick>,
    pub(crate) max_body_len: usize,
    pub(crate) http_keep_alive: Option<Tick>,
    pub(crate) max_http_requests: u16,
    pub(crate) idle: Option<Tick>,
    pub(crate) ping: Option<Tick>,
    pub(crate) pong: Option<Tick>,
    pub(crate) close: Option<Tick>,
    /// How long a connection lingers. Never without an end, also where closing may take as long as it likes.
    pub(crate) linger: Tick,
    /// How long its peer may take nothing of what is still on its way meanwhile.
    pub(crate) linger_stall: Tick,
    pub(crate) write_stall: Option<Tick>,
    /// Bytes a second of what is owed to a peer to whom nothing more will be said. 0: any.
    pub(crate) min_drain_rate: usize,
    pub(crate) lifetime: Option<Tick>,
    pub(crate) high_water: usize,
    pub(crate) max_queued_len: usize,
    pub(crate) backpressure: Backpressure,
    pub(crate) messages_per_turn: usize,
    /// Jobs of one connection.
    pub(crate) max_jobs: usize,
    /// Connections of the whole server that are accepted in a second.
    pub(crate) max_accepts_per_second: u32,
    pub(crate) origin_policy: OriginPolicy,
    pub(crate) requires_origin: bool,
    /// How much a peer may say.
    pub(crate) rates: Option<Rates>,
}

impl Limits {
    /// The server is shut down, and its end waits for connections that linger.
    pub(crate) fn shorten_linger(&mut self) {
        self.linger = self.linger.min(LAST_LINGER);
        self.linger_stall = self.linger;
    }

    /// Those of the protocol that hold for a connection.
    pub(crate) fn protocol_of(&self, wire: &Wire) -> &ringwire_codec::Config {
        match &self.unauthenticated {
            Some(config) if wire.flags.contains(Flags::UNAUTHENTICATED) => config,
            _ => &self.protocol,
        }
    }
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        let linger = ticks_of(config.close_timeout).map_or(LINGER, |close| close.min(LINGER));
        let write_stall = ticks_of(config.write_stall_timeout);
        Self {
            protocol: config.protocol,
            unauthenticated: unauthenticated(config),
            head: config.head,
            handshake: ticks_of(config.handshake_timeout),
            max_body_len: config.max_body_len,
            http_keep_alive: ticks_of(config.http_keep_alive_timeout),
            max_http_requests: config.max_http_requests,
            idle: ticks_of(config.idle_timeout),
            ping: ticks_of(config.ping_interval),
            pong: ticks_of(config.pong_timeout),
            close: ticks_of(config.close_timeout),
            linger,
            linger_stall: linger.max(write_stall.unwrap_or(0)),
            write_stall,
            min_drain_rate: config.min_drain_rate,
            lifetime: ticks_of(config.max_lifetime),
            high_water: config.high_water,
            max_queued_len: config.max_queued_len,
            backpressure: config.backpressure,
            messages_per_turn: config.messages_per_turn,
            max_jobs: config.max_jobs_per_connection,
            max_accepts_per_second: config.max_accepts_per_second,
            origin_policy: config.origin_policy.clone(),
            requires_origin: config.requires_origin,
            rates: Rates::new(&config.rate_limit),
        }
    }
}

/// The limits before the application says that a peer is authenticated, if there are any.
fn unauthenticated(config: &Config) -> Option<ringwire_codec::Config> {
    let len = config.max_unauthenticated_len;
    let (whole, streamed) = (config.protocol.max_message_len, config.protocol.max_streamed_len);
    (len > 0).then(|| {
        let limits = config.protocol.with_max_message_len(whole.min(len));
        limits.with_max_streamed_len(streamed.min(len as u64))
    })
}

impl Shared {
    pub(crate) fn new(
        worker: u16,
        config: &Config,
        counters: Arc<Counters>,
        masks: Masks,
        budget: Budget,
        hub: Hub,
    ) -> Self {
        Self {
            worker,
            pool: BufferPool::new(config.pool_len),
            out: Vec::new(),
            sessions: Sessions::new(),
            layers: Layers::default(),
            deflate: Deflate::new(config.compression, budget),
            names: Names::new(hub.clone()),
            topics: Topics::new(worker, hub),
            compute: None,
            expected_len: 0,
            masks,
            counters,
            limits: Limits::from(config),
            wheel: Wheel::new(),
            meters: Meters::default(),
            deadlines: Deadlines::default(),
            progress: Progress::default(),
            now: 0,
            clock: Clock::default(),
            draining: None,
            latecomers: Vec::new(),
            listed: Vec::new(),
            ledger: Ledger::default(),
            watch: Watch::default(),
            ends: Ends::default(),
        }
    }

    pub(crate) fn id(&self, token: Token) -> ConnId {
        ConnId { worker: self.worker, slot: token.slot, generation: token.generation }
    }

    /// Makes room in the turn's output for a frame with a payload of this length.
    #[inline]
    pub(crate) fn reserve_out(&mut self, payload_len: usize) {
        let len = self.out.len() + payload_len + MAX_HEADER_LEN;
        if self.out.capacity() < len {
            self.grow_out(len);
        }
    }

    #[cold]
    fn grow_out(&mut self, len: usize) {
        // A turn may produce far more than the pool's largest buffer, and is not to copy all of it for each message.
        let roomy = self.out.capacity() / 2 * 3;
        let mut larger = self.pool.take(len.max(self.expected_len).max(roomy));
        larger.extend_from_slice(&self.out);
        self.pool.give(std::mem::replace(&mut self.out, larger));
    }

    /// Moves the turn's output behind what waits already.
    pub(crate) fn enqueue_out(&mut self, wire: &mut Wire, kind: SegmentKind) {
        if self.out.is_empty() {
            return;
        }
        self.counters.queued_bytes.add(self.out.len());
        let queue = &mut wire.pending_mut().queue;
        if kind == SegmentKind::Stream && queue.append(&self.out) {
            self.out.clear();
            return;
        }
        if kind == SegmentKind::Stream && self.out.len() < MIN_SEGMENT_LEN {
            // Small frames get a segment with room for those that follow.
            self.grow_out(MIN_SEGMENT_LEN);
        }
        let segment = match kind {
            SegmentKind::Stream => std::mem::take(&mut self.out),
            // One of many small messages takes no more than it needs.
            _ => {
                let segment = self.out.as_slice().to_vec();
                self.out.clear();
                segment
            }
        };
        queue.push(Output::Own(segment), kind);
    }

    /// A queued message is dropped.
    pub(crate) fn drop_message(&mut self, segment: Output) {
        self.counters.queued_bytes.sub(segment.len());
        self.counters.messages_dropped.add(1);
        self.pool.reclaim(segment);
    }

    /// Counts what a connection holds now. Whatever may have changed that ends with this, once.
    #[inline]
    pub(crate) fn recharge(&mut self, wire: &mut Wire) {
        if let Some(pending) = &mut wire.pending {
            let now = pending.charge();
            self.ledger.replace(pending.charged, now);
            pending.charged = now;
        }
    }

    /// Gives up the part of a connection that only some have, once it is empty.
    pub(crate) fn tidy(&mut self, wire: &mut Wire) {
        if let Some(pending) = wire.pending.take_if(|pending| pending.is_empty()) {
            self.ledger.replace(pending.charged, Charge::default());
        }
    }

    /// Takes back what the driver had.
    #[inline]
    pub(crate) fn take_back(&mut self, sent: Output) {
        self.ledger.in_flight -= sent.own_len();
        self.pool.reclaim(sent);
    }

    /// Gives the buffers of a connection that has ended back to the pool.
    pub(crate) fn recycle(&mut self, mut pending: Pending) {
        self.ledger.replace(pending.charged, Charge::default());
        pending.queue.drop_places();
        while let Some(segment) = pending.queue.pop() {
            self.pool.reclaim(segment);
        }
        self.pool.give(pending.unread);
        self.pool.give(pending.head);
        if let Some(incoming) = pending.incoming {
            self.pool.give(incoming.content);
        }
    }

    /// Puts the connection on the list of those that have something left to do.
    pub(crate) fn list(&mut self, wire: &mut Wire, token: Token) {
        if !wire.flags.contains(Flags::LISTED) {
            wire.flags.insert(Flags::LISTED);
            self.listed.push(token);
        }
    }
}

impl Wire {
    /// Notes why the connection ends, unless that is known already. The end of the peer's stream is no reason yet: what
    /// came before it may still end the connection in another way.
    pub(crate) fn blame(&mut self, reason: CloseReason) -> &mut CloseCause {
        let is_half_closed = self.is_half_closed();
        let cause = self.pending_mut().cause.get_or_insert_with(|| CloseCause::new(reason));
        if is_half_closed && cause.reason == CloseReason::EndOfStream {
            cause.reason = reason;
        }
        cause
    }

    /// Notes that the peer has ended its stream, unless it is known already why the connection ends.
    pub(crate) fn blame_end(&mut self) {
        self.pending_mut().cause.get_or_insert_with(|| CloseCause::new(CloseReason::EndOfStream));
    }
}

/// Masking keys of the client role from a CSPRNG (RFC 6455 §5.3, §10.3), one for each worker.
#[derive(Debug)]
pub(crate) struct Masks(ChaCha12Rng);

impl Masks {
    /// Seeded by the caller.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(rand_core::SeedableRng::from_seed(seed))
    }
}

impl MaskSource for Masks {
    fn next_mask(&mut self) -> [u8; 4] {
        self.0.next_u32().to_ne_bytes()
    }
}

/// The masks of frames that a server sends: none (RFC 6455 §5.1).
#[derive(Debug)]
pub(crate) struct Unmasked;

impl MaskSource for Unmasked {
    fn next_mask(&mut self) -> [u8; 4] {
        [0; 4]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A million masks: repeats as the birthday problem has them, and bytes that are evenly spread.
    #[test]
    fn mask_randomness() {
        const COUNT: usize = 1_000_000;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let mut masks = Masks::new(seed);
        let mut seen = HashSet::with_capacity(COUNT);
        let mut counts = [[0_u32; 256]; 4];
        let mut repeats = 0;
        for _ in 0..COUNT {
            let mask = masks.next_mask();
            repeats += usize::from(!seen.insert(mask));
            for (counts, byte) in counts.iter_mut().zip(mask) {
                counts[usize::from(byte)] += 1;
            }
        }
        // COUNT² / 2³³ = 116 are expected, with a standard deviation of 11.
        assert!((30..250).contains(&repeats), "{repeats} repeats");
        for counts in counts {
            let expected = COUNT as f64 / 256.0;
            let chi_squared: f64 =
                counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
            // 255 degrees of freedom: mean 255, standard deviation 22.6.
            assert!((120.0..400.0).contains(&chi_squared), "chi² = {chi_squared}");
        }
    }

    #[test]
    fn two_workers_have_different_masks() {
        let mut first = Masks::new([1; 32]);
        let mut second = Masks::new([2; 32]);
        assert!((0..8).any(|_| first.next_mask() != second.next_mask()));
    }
}
