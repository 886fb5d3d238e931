//! One connection: what is kept of it while it is idle, and what is added while something is under way.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bitflags::bitflags;
use ringwire_codec::Buffers as _;
use ringwire_codec::deflate::WindowBits;
use ringwire_codec::handshake::HeadScanner;
use ringwire_codec::http::Exchange;
use ringwire_codec::{Connection, Role};

use crate::buf::BufferPool;
use crate::dial::Dialling;
use crate::error::CloseCause;
use crate::offload::Jobs;
use crate::output::Output;
use crate::timer::{TICKS_PER_SECOND, Tick};
use crate::worker::http::Incoming;

/// The identity of a connection, which stays unique after it has ended.
///
/// It is how anything outside the worker names a connection. What is posted for one that has ended is
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) worker: u16,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// The index of the worker that owns the connection.
    pub fn worker(self) -> u16 {
        self.worker
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.worker, self.slot, self.generation)
    }
}

/// A slot of the connection table. An idle connection is this and nothing else.
#[derive(Debug)]
pub(crate) struct Conn<S> {
    pub(crate) wire: Wire,
    /// The handler's, while the connection is open.
    pub(crate) state: Option<S>,
}

impl<S> Default for Conn<S> {
    fn default() -> Self {
        Self { wire: Wire::default(), state: None }
    }
}

/// The part of a connection that is the engine's own.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) codec: Connection,
    /// What only some connections have at a time.
    pub(crate) pending: Option<Box<Pending>>,
    pub(crate) generation: u32,
    /// When it was accepted, or its latest request began.
    pub(crate) began: Tick,
    /// When anything was last received.
    pub(crate) received: Tick,
    /// When the last send was submitted or made progress.
    pub(crate) sent: Tick,
    /// When the ping was sent that waits for its pong, or the latest answer, or when closing began.
    pub(crate) since: Tick,
    /// Bytes of the send in flight that the kernel has not taken.
    pub(crate) in_flight: u32,
    pub(crate) peer: PeerAddr,
    pub(crate) phase: Phase,
    /// Ordinary requests that were answered.
    pub(crate) requests: u16,
    /// The window of the compressor for what goes out, if compression was agreed on.
    pub(crate) window: Option<WindowBits>,
    pub(crate) flags: Flags,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            codec: Connection::new(Role::Server),
            pending: None,
            generation: 0,
            began: 0,
            received: 0,
            sent: 0,
            since: 0,
            in_flight: 0,
            peer: PeerAddr::default(),
            phase: Phase::Vacant,
            requests: 0,
            window: None,
            flags: Flags::default(),
        }
    }
}

impl Wire {
    /// The part that only some connections have, made where there is none.
    pub(crate) fn pending_mut(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    /// Notes that the peer lives, or that silence counts from now on. Starts a window of the limit on control
    /// frames each second.
    #[inline]
    pub(crate) fn note_received(&mut self, now: Tick) {
        self.flags.remove(Flags::PINGED);
        if self.received == now {
            return;
        }
        if self.received / TICKS_PER_SECOND != now / TICKS_PER_SECOND {
            self.codec.reset_control_window();
        }
        self.received = now;
    }

    /// Whether output waits behind the send in flight.
    #[inline]
    pub(crate) fn has_queue(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.queue.is_empty())
    }

    /// Bytes of output that the kernel has not taken: the send in flight and what waits behind it, made or not.
    #[inline]
    pub(crate) fn queued_len(&self) -> usize {
        let queued = self.pending.as_ref().map_or(0, |pending| pending.queue.len());
        self.in_flight as usize + queued + self.awaited_len()
    }

    /// Bytes of messages whose frames are still being made.
    #[inline]
    pub(crate) fn awaited_len(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.queue.awaited_len())
    }

    /// What of that is made already takes in memory, about.
    pub(crate) fn queue_cost(&self) -> usize {
        let queued = self.pending.as_ref().map_or(0, |pending| pending.queue.cost());
        self.in_flight as usize + queued
    }

    /// Whether input waits that was not looked at yet.
    #[inline]
    pub(crate) fn has_unread(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.unread.is_empty())
    }

    /// Whether input that can't be looked at now is for later, not for nothing.
    pub(crate) fn keeps_input(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Closing)
    }

    /// Whether messages may be handed over now.
    #[inline]
    pub(crate) fn may_deliver(&self) -> bool {
        match self.phase {
            Phase::Open => !self.flags.intersects(Flags::HELD_UP),
            Phase::Closing => true,
            _ => false,
        }
    }

    /// Whether the driver should report what the peer sends.
    #[inline]
    pub(crate) fn wants_receive(&self) -> bool {
        if self.flags.intersects(Flags::ENDED | Flags::AWAY) {
            return false;
        }
        match self.phase {
            Phase::Proxied | Phase::Handshake | Phase::Lingering => true,
            Phase::Open | Phase::Closing => self.may_deliver() && !self.has_unread(),
            Phase::Idle => !self.has_unread(),
            Phase::Vacant | Phase::Deferred | Phase::Flushing | Phase::Closed => false,
        }
    }

    /// Whether it waits for the application's answer to an upgrade, not to an ordinary request.
    pub(crate) fn is_deferred_upgrade(&self) -> bool {
        self.phase == Phase::Deferred
            && self.pending.as_ref().is_none_or(|pending| pending.exchange.is_none())
    }

    /// Whether its first request is not answered, or another is not whole yet.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self.phase, Phase::Proxied | Phase::Handshake) || self.is_deferred_upgrade()
    }

    /// Whether all output was handed to the kernel.
    #[inline]
    pub(crate) fn is_flushed(&self) -> bool {
        !self.flags.contains(Flags::SENDING) && !self.has_queue()
    }

    /// Gives up the part that only some connections have, once it is empty.
    pub(crate) fn tidy(&mut self) {
        if self.pending.as_ref().is_some_and(|pending| pending.is_empty()) {
            self.pending = None;
        }
    }
}

/// Where a connection stands. One from a proxy begins as `Proxied`, before `Handshake`.
///
/// ```text
/// Vacant ─► Handshake ─► Open ─► Closing ─┐
///            │  ▲  ▲       │              ├─► Closed ─► Vacant
///            │  │  ▼       ▼              │
///            │  │ Idle ─► Flushing ─► Lingering
///            ▼  │  ▲       ▲
///           Deferred ──────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection.
    Vacant,
    /// Waits for what the proxy in front of it says.
    Proxied,
    /// Waits for the rest of a request.
    Handshake,
    /// Waits for the application's answer to the request.
    Deferred,
    /// Has answered an ordinary request, and waits for the next. Unread input waits until that may be answered.
    Idle,
    /// Messages flow.
    Open,
    /// Sent a close frame and waits for the peer's, or has both and waits until all output is out.
    Closing,
    /// Sends its last words (a refusal, or a close frame that says what the peer did wrong).
    Flushing,
    /// Has sent them and FIN, and drops what still comes until the peer's FIN: closing with unread
    /// input would make the kernel reset the connection and lose the last words (RFC 9293 §3.6.1).
    Lingering,
    /// Waits for the driver to forget it.
    Closed,
}

bitflags! {
    /// Yes-or-no facts about a connection.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Flags: u16 {
        /// A receive is armed.
        const RECEIVING = 1 << 0;
        /// A send is in flight.
        const SENDING = 1 << 1;
        /// The application paused reading.
        const PAUSED = 1 << 2;
        /// `Queued` was answered: reading waits, and `on_drain` is owed.
        const BACKLOGGED = 1 << 3;
        /// A ping waits for its pong.
        const PINGED = 1 << 4;
        /// The peer's FIN came; there may be input or output left.
        const ENDED = 1 << 5;
        /// `on_open` was called, `on_close` is owed.
        const OPENED = 1 << 6;
        /// Stands in the list of connections to be flushed or resumed.
        const LISTED = 1 << 7;
        /// Bytes go through a TLS session.
        const SECURE = 1 << 8;
        /// Messages may be compressed.
        const DEFLATE = 1 << 11;
        /// What is compressed for it may refer back, so that it needs a compressor of its own.
        const OWN_COMPRESSOR = 1 << 12;
        /// The same of what its peer compresses: a decompressor was set aside for it.
        const OWN_DECOMPRESSOR = 1 << 13;
        /// The smaller limit on messages holds.
        const UNAUTHENTICATED = 1 << 14;
        /// What comes in needs more than the settings that all connections share.
        const SPECIAL_INPUT = Self::DEFLATE.bits() | Self::UNAUTHENTICATED.bits();
        /// Its TLS session is with a compute thread; what comes in meanwhile waits unread.
        const AWAY = 1 << 9;
        /// This side opened the connection, and is the client.
        const CLIENT = 1 << 10;
        /// The peer has said as much as it may: reading waits until its bucket has filled.
        const THROTTLED = 1 << 15;
        /// Messages may not be handed over.
        const HELD_UP = Self::PAUSED.bits() | Self::BACKLOGGED.bits() | Self::THROTTLED.bits();
    }
}

/// What a connection owns while it is not idle.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Output that waits behind the send in flight.
    pub(crate) queue: SendQueue,
    /// The head of an upgrade whose answer was deferred, or of a request whose body is under way.
    pub(crate) head: Vec<u8>,
    /// A request head that is not whole yet, or input that was not looked at yet.
    pub(crate) unread: Vec<u8>,
    /// How much of `unread` was used.
    pub(crate) unread_start: usize,
    pub(crate) scanner: HeadScanner,
    /// The body that is under way.
    pub(crate) incoming: Option<Box<Incoming>>,
    /// What is known of an ordinary request whose answer was deferred.
    pub(crate) exchange: Option<Exchange>,
    /// Publications that were dropped, of which the application was not told yet.
    pub(crate) missed: u32,
    /// What a connection that this side opens keeps until it is open.
    pub(crate) dialling: Option<Box<Dialling>>,
    /// What the compute threads have to do for it.
    pub(crate) jobs: Option<Box<Jobs>>,
    /// How the connection will have ended, once that has begun.
    pub(crate) cause: Option<CloseCause>,
}

impl Pending {
    /// Whether nothing would be lost without it.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.unread.capacity() == 0
            && self.head.capacity() == 0
            && self.incoming.is_none()
            && self.exchange.is_none()
            && self.missed == 0
            && self.dialling.is_none()
            && self.jobs.is_none()
            && self.cause.is_none()
    }
}

/// What a segment takes beside its bytes.
const SEGMENT_OVERHEAD: usize = 64;

/// Short segments that wait are sent together, up to this many bytes.
const BATCH_LEN: usize = 16 << 10;

/// Segments of output, in order. Each consists of whole frames.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    segments: VecDeque<Segment>,
    /// Bytes in all segments.
    len: usize,
    /// Bytes of the messages that places are kept for.
    awaited_len: usize,
    next_place: u32,
}

#[derive(Debug)]
struct Segment {
    data: Output,
    kind: SegmentKind,
}

/// What may happen to a segment while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// Goes out as it is, perhaps with more behind it.
    Stream,
    /// One message, which may be dropped.
    Message,
    /// One message, which another with the same key may replace.
    Keyed(u64),
    /// So many publications, which may be dropped; one with a key may be replaced.
    Published { key: Option<u64>, count: u32 },
    /// Kept for a message of this many bytes whose frame is still being made. What is behind it waits.
    Place { id: u32, len: usize, droppable: bool },
}

impl SendQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes in all segments.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What the segments take in memory, about.
    pub(crate) fn cost(&self) -> usize {
        self.len + self.segments.len() * SEGMENT_OVERHEAD
    }

    pub(crate) fn push(&mut self, data: Output, kind: SegmentKind) {
        self.len += data.len();
        self.segments.push_back(Segment { data, kind });
    }

    /// Bytes of the messages that places are kept for.
    pub(crate) fn awaited_len(&self) -> usize {
        self.awaited_len
    }

    /// Keeps a place at the end for the frame of a message with `len` bytes.
    pub(crate) fn reserve(&mut self, len: usize, droppable: bool) -> u32 {
        let id = self.next_place;
        self.next_place = id.wrapping_add(1);
        self.awaited_len += len;
        let kind = SegmentKind::Place { id, len, droppable };
        self.segments.push_back(Segment { data: Output::Own(Vec::new()), kind });
        id
    }

    /// Puts a frame in its place, unless that was dropped; whether it is there.
    pub(crate) fn fill(&mut self, place: u32, frame: Vec<u8>) -> bool {
        for segment in &mut self.segments {
            if let SegmentKind::Place { id, len, droppable } = segment.kind
                && id == place
            {
                self.awaited_len -= len;
                self.len += frame.len();
                let kind = if droppable { SegmentKind::Message } else { SegmentKind::Stream };
                *segment = Segment { data: Output::Own(frame), kind };
                return true;
            }
        }
        false
    }

    /// Drops all places.
    pub(crate) fn drop_places(&mut self) {
        if self.awaited_len > 0 {
            self.segments.retain(|segment| !matches!(segment.kind, SegmentKind::Place { .. }));
            self.awaited_len = 0;
        }
    }

    /// The first segment, unless it is still being made.
    pub(crate) fn pop(&mut self) -> Option<Output> {
        if matches!(self.segments.front()?.kind, SegmentKind::Place { .. }) {
            return None;
        }
        let segment = self.segments.pop_front()?;
        self.len -= segment.data.len();
        Some(segment.data)
    }

    /// Takes what is sent next: the first segment, and with it those behind it as long as all are short.
    pub(crate) fn pop_batch(&mut self, pool: &mut BufferPool) -> Option<Output> {
        let len = self.batch_len();
        if len == 0 {
            return self.pop();
        }
        let mut batch = pool.take(len);
        while batch.len() < len
            && let Some(data) = self.pop()
        {
            batch.extend_from_slice(&data);
            pool.reclaim(data);
        }
        Some(Output::Own(batch))
    }

    /// The length of the segments at the front that are sent together; 0 if the first goes alone.
    fn batch_len(&self) -> usize {
        let mut count = 0;
        let mut len = 0;
        for segment in &self.segments {
            let is_place = matches!(segment.kind, SegmentKind::Place { .. });
            if is_place || len + segment.data.len() > BATCH_LEN {
                break;
            }
            len += segment.data.len();
            count += 1;
        }
        if count > 1 { len } else { 0 }
    }

    /// Appends to the last segment, if it is a stream and has room as it is.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        let Some(Segment { data: Output::Own(last), kind: SegmentKind::Stream }) =
            self.segments.back_mut()
        else {
            return false;
        };
        if last.capacity() - last.len() < bytes.len() {
            return false;
        }
        last.extend_from_slice(bytes);
        self.len += bytes.len();
        true
    }

    /// The message or publication of this kind, with this key, to be replaced.
    pub(crate) fn find(&self, kind: SegmentKind) -> Option<usize> {
        self.segments.iter().position(|segment| segment.kind == kind)
    }

    /// Puts `data` in the place of the segment that [`find`](Self::find) found, which it returns.
    pub(crate) fn replace(&mut self, index: usize, data: Output) -> Output {
        let Some(segment) = self.segments.get_mut(index) else { return data };
        self.len = self.len + data.len() - segment.data.len();
        std::mem::replace(&mut segment.data, data)
    }

    /// Takes out the oldest message that may be dropped.
    pub(crate) fn drop_oldest(&mut self) -> Option<Output> {
        let droppable = |kind| match kind {
            SegmentKind::Message | SegmentKind::Keyed(_) => true,
            SegmentKind::Place { droppable, .. } => droppable,
            SegmentKind::Stream | SegmentKind::Published { .. } => false,
        };
        self.remove_first(droppable).map(|segment| segment.data)
    }

    /// Takes out the oldest publications that wait, and says how many they are.
    pub(crate) fn drop_oldest_published(&mut self) -> Option<(Output, u32)> {
        let droppable = |kind| matches!(kind, SegmentKind::Published { .. });
        let Segment { data, kind } = self.remove_first(droppable)?;
        let SegmentKind::Published { count, .. } = kind else { return None };
        Some((data, count))
    }

    fn remove_first(&mut self, which: impl Fn(SegmentKind) -> bool) -> Option<Segment> {
        let first = self.segments.iter().position(|segment| which(segment.kind))?;
        let segment = self.segments.remove(first)?;
        if let SegmentKind::Place { len, .. } = segment.kind {
            self.awaited_len -= len;
        }
        self.len -= segment.data.len();
        Some(segment)
    }
}

/// A socket address in 18 bytes: IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), without scope and flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerAddr {
    ip: [u8; 16],
    port: [u8; 2],
}

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: address.port().to_be_bytes() }
    }
}

impl From<PeerAddr> for SocketAddr {
    fn from(peer: PeerAddr) -> Self {
        let ip = Ipv6Addr::from(peer.ip);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        Self::new(ip, u16::from_be_bytes(peer.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With 12 bytes each in the driver's table and in the timer wheel, an idle connection is 128 bytes at most.
    #[test]
    fn an_idle_connection_is_small() {
        let len = size_of::<Conn<()>>();
        assert!(len <= 104, "{len} bytes");
    }

    #[test]
    fn addresses_survive_packing() {
        for address in ["127.0.0.1:9001", "[::1]:80", "[2001:db8::7]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(SocketAddr::from(PeerAddr::from(address)), address);
        }
    }

    #[test]
    fn the_queue_counts_its_bytes() {
        let mut queue = SendQueue::default();
        queue.push(own(b"one"), SegmentKind::Stream);
        let mut roomy = Vec::with_capacity(16);
        roomy.extend_from_slice(b"two");
        queue.push(Output::Own(roomy), SegmentKind::Stream);
        assert!(queue.append(b"three"));
        assert!(!queue.append(&[0; 100]));
        assert_eq!(queue.len(), 11);
        assert_eq!(*queue.pop().unwrap(), *b"one");
        assert_eq!(*queue.pop().unwrap(), *b"twothree");
        assert!(queue.is_empty());
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_is_being_made_keeps_its_place() {
        let mut queue = SendQueue::default();
        queue.push(own(b"before"), SegmentKind::Stream);
        let first = queue.reserve(1000, false);
        let second = queue.reserve(500, true);
        queue.push(own(b"behind"), SegmentKind::Stream);
        assert_eq!((queue.len(), queue.awaited_len()), (12, 1500));
        assert_eq!(*queue.pop().unwrap(), *b"before");
        assert!(queue.pop().is_none());
        assert!(queue.fill(second, Vec::from(*b"second")));
        assert!(queue.pop_batch(&mut BufferPool::new(1 << 20)).is_none());
        assert!(queue.fill(first, Vec::from(*b"first")));
        assert!(!queue.fill(first, Vec::from(*b"again")));
        assert_eq!((queue.len(), queue.awaited_len()), (17, 0));
        for expected in [&b"first"[..], b"second", b"behind"] {
            assert_eq!(*queue.pop().unwrap(), *expected);
        }
        let (kept, dropped) = (queue.reserve(10, false), queue.reserve(20, true));
        assert!(queue.drop_oldest().unwrap().is_empty());
        assert!(queue.drop_oldest().is_none());
        assert!(!queue.fill(dropped, Vec::from(*b"late")));
        assert_eq!((queue.len(), queue.awaited_len()), (0, 10));
        queue.drop_places();
        assert!(queue.is_empty() && !queue.fill(kept, Vec::new()));
    }

    #[test]
    fn only_messages_are_dropped_or_replaced() {
        let mut queue = SendQueue::default();
        queue.push(own(b"stream"), SegmentKind::Stream);
        queue.push(own(b"price 1"), SegmentKind::Keyed(7));
        queue.push(own(b"news"), SegmentKind::Message);
        let old = queue.find(SegmentKind::Keyed(7)).unwrap();
        assert_eq!(*queue.replace(old, own(b"price 22")), *b"price 1");
        assert_eq!(queue.find(SegmentKind::Keyed(8)), None);
        assert_eq!(queue.cost(), queue.len() + 3 * SEGMENT_OVERHEAD);
        assert_eq!(queue.len(), 6 + 8 + 4);
        assert_eq!(*queue.drop_oldest().unwrap(), *b"price 22");
        assert_eq!(*queue.drop_oldest().unwrap(), *b"news");
        assert!(queue.drop_oldest().is_none());
        assert_eq!(queue.len(), 6);
    }

    #[test]
    fn short_segments_go_out_together() {
        let mut pool = BufferPool::new(1 << 20);
        let mut queue = SendQueue::default();
        let long = vec![7; BATCH_LEN - 3];
        queue.push(own(b"one"), SegmentKind::Message);
        queue.push(Output::Own(long), SegmentKind::Stream);
        queue.push(own(b"two"), SegmentKind::Stream);
        assert_eq!(queue.pop_batch(&mut pool).unwrap().len(), BATCH_LEN);
        assert_eq!(queue.len(), 3);
        queue.push(Output::Own(vec![8; BATCH_LEN]), SegmentKind::Stream);
        assert_eq!(*queue.pop_batch(&mut pool).unwrap(), *b"two");
        assert_eq!(queue.pop_batch(&mut pool).unwrap().len(), BATCH_LEN);
        assert!(queue.pop_batch(&mut pool).is_none());
    }

    #[test]
    fn publications_are_dropped_by_themselves() {
        let mut queue = SendQueue::default();
        queue.push(own(b"mine"), SegmentKind::Message);
        queue.push(own(b"theirs"), SegmentKind::Published { key: None, count: 3 });
        assert_eq!(queue.drop_oldest_published().unwrap().1, 3);
        assert!(queue.drop_oldest_published().is_none());
        assert_eq!(queue.len(), 4);
    }

    fn own(bytes: &[u8]) -> Output {
        Output::Own(bytes.to_vec())
    }
}
