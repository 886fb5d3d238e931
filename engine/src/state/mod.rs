//! What all connections of a worker use in turn: buffers, limits, masks, counters, the time.

#![expect(clippy::disallowed_types, reason = "the counters are read by other threads")]

pub(crate) mod clock;
pub(crate) mod close_log;
pub(crate) mod compress;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod parcels;
pub(crate) mod seal;
pub(crate) mod send;
pub(crate) mod timers;

use std::sync::Arc;

use ringwire_codec::{Buffers, Masks};

use crate::base::budget::Budget;
use crate::base::buffers::BufferPool;
use crate::base::output::Output;
use crate::base::timer::{Tick, Wheel};
use crate::compute::Compute;
use crate::config::Config;
use crate::conn::agreed::AgreedDeflate;
use crate::conn::cause::{CloseCause, CloseReason};
use crate::conn::charge::Charge;
use crate::conn::id::ConnId;
use crate::conn::jobs::JobFuture;
use crate::conn::queue::SegmentKind;
use crate::conn::{Flags, Pending, Wire};
use crate::driver::Token;
use crate::hub::Hub;
use crate::hub::mail::WayBack;
use crate::hub::wakes::{Alarms, Sleeper};
use crate::layers::deflate::Deflate;
use crate::layers::extensions::Layers;
use crate::layers::tls::Sessions;
use crate::limits::deadline::Deadlines;
use crate::limits::kernel::KernelMemory;
use crate::limits::memory::{Ledger, Watch};
use crate::limits::progress::Progress;
use crate::limits::rate::Meters;
use crate::limits::work::Work;
use crate::metrics::Counters;
use crate::state::clock::Clock;
use crate::state::close_log::Ends;
use crate::state::limits::Limits;
use crate::state::names::Names;
use crate::state::timers::Timers;
use crate::topic::Topics;

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
    /// What all workers share.
    pub(crate) hub: Hub,
    pub(crate) topics: Topics,
    pub(crate) names: Names,
    /// Threads that take over what is costly, if there are any.
    pub(crate) compute: Option<Compute>,
    /// How answers to HTTP requests come that are given later.
    pub(crate) way_back: Option<Arc<WayBack>>,
    /// How much output to expect: as much as was received, as for an echo.
    pub(crate) expected_len: usize,
    /// The longest message that this receive has brought the end of.
    pub(crate) heard_len: usize,
    pub(crate) masks: Masks,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: Limits,
    pub(crate) wheel: Wheel,
    /// What peers have said of late, where that is limited.
    pub(crate) meters: Meters,
    /// What a turn may do for messages that are compressed, and who waits for that.
    pub(crate) work: Work,
    /// Deadlines that the application has set.
    pub(crate) deadlines: Deadlines,
    /// Timers that it has set.
    pub(crate) timers: Timers,
    /// Peers with output ahead of them that were asked about.
    pub(crate) progress: Progress,
    /// What the kernel holds of what they do not take.
    pub(crate) kernel: KernelMemory,
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
            pool: BufferPool::new(config.pool_len.min(hub.free_share())),
            out: Vec::new(),
            sessions: Sessions::new(),
            layers: Layers::default(),
            deflate: Deflate::new(config.compression, budget),
            names: Names::new(hub.clone()),
            topics: Topics::new(worker, hub.exchange().clone()),
            watch: Watch::new(hub.memory_step()),
            hub,
            compute: None,
            way_back: None,
            expected_len: 0,
            heard_len: 0,
            masks,
            counters,
            limits: Limits::from(config),
            wheel: Wheel::new(),
            meters: Meters::default(),
            work: Work::new(config.compression.work_per_turn),
            deadlines: Deadlines::default(),
            timers: Timers::default(),
            progress: Progress::default(),
            kernel: KernelMemory::new([
                config.tcp_notsent_lowat.fixed().and_then(|len| len.try_into().ok()),
                config.tcp_send_buffer_len.fixed(),
            ]),
            now: 0,
            clock: Clock::default(),
            draining: None,
            latecomers: Vec::new(),
            listed: Vec::new(),
            ledger: Ledger::default(),
            ends: Ends::default(),
        }
    }

    /// Where wakers of this worker go.
    pub(crate) fn alarms(&self) -> Arc<Alarms> {
        Arc::clone(&self.hub.links()[usize::from(self.worker)].alarms)
    }

    pub(crate) fn id(&self, token: Token) -> ConnId {
        ConnId {
            server: self.hub.server(),
            worker: self.worker,
            slot: token.slot,
            generation: token.generation,
        }
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
        let capacity = len.max(self.expected_len).max(roomy);
        let mut larger = if self.out.is_empty() {
            self.pool.take(capacity)
        } else {
            self.pool.take_growing(capacity)
        };
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

    /// What is held for connections, whatever for. A worker looks at the total when this has changed much.
    #[inline]
    pub(crate) fn held_len(&self) -> usize {
        let Self { ledger, sessions, layers, counters, kernel, .. } = self;
        let deflate = usize::try_from(counters.deflate_memory.get()).unwrap_or(usize::MAX);
        ledger.held() + sessions.memory_len() + layers.memory_len() + deflate + kernel.len()
    }

    /// Takes back what the driver had of a connection that has ended.
    pub(crate) fn take_back_late(&mut self, sent: Output) {
        self.watch.leaving = self.watch.leaving.saturating_sub(sent.own_len());
        self.take_back(sent);
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

    /// Forgets a connection that has ended, in all that has a place for each slot.
    pub(crate) fn forget(&mut self, token: Token, flags: Flags, agreed: AgreedDeflate) {
        let (slot, conn) = (token.slot, self.id(token));
        // Whole, so that whoever adds a table decides here what becomes of its entry.
        let Self {
            worker: _,
            pool,
            out: _,
            sessions,
            layers,
            deflate,
            hub: _,
            topics,
            names,
            compute: _,
            way_back: _,
            expected_len: _,
            heard_len: _,
            masks: _,
            counters,
            limits: _,
            wheel,
            meters,
            deadlines,
            timers,
            progress,
            kernel,
            now: _,
            clock: _,
            draining: _,
            // Who stands in one of these lists by a token of the past is passed over.
            latecomers: _,
            listed: _,
            ledger: _,
            watch: _,
            work,
            ends: _,
        } = self;
        wheel.clear(slot);
        meters.forget(slot);
        deadlines.clear(slot);
        timers.forget(slot);
        progress.forget(slot);
        kernel.forget(slot);
        counters.subscriptions.sub(topics.forget(slot));
        names.forget(conn);
        if flags.contains(Flags::LAYERED) {
            sessions.forget(slot, counters, pool);
            layers.forget(slot);
        }
        // A decompressor may have been set aside for an offer that nobody answered.
        if flags.contains(Flags::DEFLATE) || agreed.has_own_decompressor() {
            deflate.forget(agreed, slot, counters);
            work.forget(slot);
        }
    }

    /// Begins a future of a connection, which is polled at the end of the turn.
    pub(crate) fn spawn(&self, wire: &mut Wire, token: Token, work: JobFuture, ordered: bool) {
        let conn = self.id(token);
        let jobs = wire.jobs_mut();
        let waker = self.alarms().waker(conn, Sleeper::Future(jobs.next_future()));
        jobs.spawn(work, waker.clone(), ordered);
        waker.wake();
    }

    /// Has the connection's unread input looked at in this turn or the next: in turn with the others, where it is work.
    pub(crate) fn list_unread(&mut self, wire: &mut Wire, token: Token) {
        if wire.flags.contains(Flags::DEFLATE) && self.work.is_scarce() {
            self.work.wait(token);
        } else {
            self.list(wire, token);
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
