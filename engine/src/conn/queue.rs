//! Output of a connection that waits behind the send in flight.

use std::collections::VecDeque;

use ringwire_codec::{Buffers as _, CloseCode};

use crate::base::buffers::BufferPool;
use crate::base::output::Output;
use crate::base::timer::Tick;
use crate::conn::options::Late;

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
    /// Memory of what is this connection's own.
    own_len: usize,
    next_place: u32,
    /// No deadline of a segment comes before this one.
    first_deadline: Option<Tick>,
}

#[derive(Debug)]
struct Segment {
    data: Output,
    kind: SegmentKind,
    /// Until when it may wait, and what happens then.
    deadline: Option<(Tick, Late)>,
}

/// What a deadline that has passed asks for.
#[derive(Debug)]
pub(crate) enum Overdue {
    /// A message was taken out, to be dropped.
    Message(Output),
    /// The connection is to be closed with this code.
    Close(CloseCode),
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

    /// The memory that it holds, without what other queues refer to as well. What a thread still compresses counts too.
    pub(crate) fn memory_len(&self) -> usize {
        self.own_len + self.awaited_len + self.segments.capacity() * size_of::<Segment>()
    }

    pub(crate) fn push(&mut self, data: Output, kind: SegmentKind) {
        self.len += data.len();
        self.own_len += data.own_len();
        self.segments.push_back(Segment { data, kind, deadline: None });
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
        self.push(Output::default(), kind);
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
                self.own_len += frame.capacity();
                let kind = if droppable { SegmentKind::Message } else { SegmentKind::Stream };
                *segment = Segment { data: Output::Own(frame), kind, ..*segment };
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
        self.own_len -= segment.data.own_len();
        if self.segments.is_empty() {
            self.first_deadline = None;
        }
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
        let Some(Segment { data: Output::Own(last), kind: SegmentKind::Stream, .. }) =
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
        self.own_len = self.own_len + data.own_len() - segment.data.own_len();
        segment.deadline = None;
        std::mem::replace(&mut segment.data, data)
    }

    /// Sets until when the segment at `index`, or the last one, may wait.
    pub(crate) fn set_deadline(&mut self, index: Option<usize>, due: Tick, late: Late) {
        let index = index.unwrap_or_else(|| self.segments.len().saturating_sub(1));
        let Some(segment) = self.segments.get_mut(index) else { return };
        segment.deadline = Some((due, late));
        self.first_deadline = Some(self.first_deadline.map_or(due, |first| first.min(due)));
    }

    /// When to [look](Self::take_overdue) at the deadlines of what waits, if any has one.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.first_deadline
    }

    /// What the first deadline that has passed asks for.
    pub(crate) fn take_overdue(&mut self, now: Tick) -> Option<Overdue> {
        let is_over = |segment: &Segment| segment.deadline.is_some_and(|(due, _)| due <= now);
        let Some(index) = self.segments.iter().position(is_over) else {
            let deadlines = self.segments.iter().filter_map(|segment| segment.deadline);
            self.first_deadline = deadlines.map(|(due, _)| due).min();
            return None;
        };
        match self.segments.get_mut(index)?.deadline.take()?.1 {
            Late::Drop => Some(Overdue::Message(self.remove(index)?.data)),
            Late::Close(code) => Some(Overdue::Close(code)),
        }
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
        let Segment { data, kind, .. } = self.remove_first(droppable)?;
        let SegmentKind::Published { count, .. } = kind else { return None };
        Some((data, count))
    }

    fn remove_first(&mut self, which: impl Fn(SegmentKind) -> bool) -> Option<Segment> {
        let first = self.segments.iter().position(|segment| which(segment.kind))?;
        self.remove(first)
    }

    fn remove(&mut self, index: usize) -> Option<Segment> {
        let segment = self.segments.remove(index)?;
        if let SegmentKind::Place { len, .. } = segment.kind {
            self.awaited_len -= len;
        }
        self.len -= segment.data.len();
        self.own_len -= segment.data.own_len();
        Some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::budget::Budget;
    use crate::base::output::SharedBytes;

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
    fn what_is_late_is_taken_out() {
        let mut queue = SendQueue::default();
        queue.push(own(b"first"), SegmentKind::Message);
        queue.set_deadline(None, 30, Late::Drop);
        queue.push(own(b"key 1"), SegmentKind::Keyed(1));
        queue.set_deadline(None, 10, Late::Drop);
        let place = queue.reserve(1000, true);
        queue.set_deadline(None, 20, Late::Drop);
        queue.push(own(b"last"), SegmentKind::Message);
        queue.set_deadline(None, 40, Late::Close(CloseCode::new(4000)));
        assert_eq!(queue.next_deadline(), Some(10));
        let keyed = queue.find(SegmentKind::Keyed(1)).unwrap();
        queue.replace(keyed, own(b"key 2"));
        assert!(queue.take_overdue(19).is_none(), "the newer one has no deadline");
        assert_eq!(queue.next_deadline(), Some(20));
        assert!(queue.fill(place, Vec::from(*b"frame")));
        for expected in [&b"first"[..], b"frame"] {
            let Some(Overdue::Message(dropped)) = queue.take_overdue(30) else { panic!() };
            assert_eq!(*dropped, *expected);
        }
        assert!(queue.take_overdue(30).is_none());
        assert_eq!((queue.len(), queue.awaited_len(), queue.next_deadline()), (9, 0, Some(40)));
        let Some(Overdue::Close(code)) = queue.take_overdue(40) else { panic!() };
        assert_eq!(code, CloseCode::new(4000));
        queue.set_deadline(None, 50, Late::Drop);
        queue.pop().unwrap();
        queue.pop().unwrap();
        assert_eq!(queue.next_deadline(), None, "nothing waits");
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

    #[test]
    fn memory_is_what_is_its_own() {
        let overhead = |queue: &SendQueue| queue.segments.capacity() * size_of::<Segment>();
        let budget = Budget::new(1 << 20);
        let mut queue = SendQueue::default();
        queue.push(Output::Own(Vec::with_capacity(4096)), SegmentKind::Stream);
        let published = SharedBytes::new(vec![1; 1000], &budget).retain_anyway();
        queue.push(Output::Retained(published), SegmentKind::Published { key: None, count: 1 });
        queue.push(Output::Own(Vec::with_capacity(100)), SegmentKind::Keyed(1));
        assert_eq!(queue.memory_len(), 4196 + overhead(&queue));
        let old = queue.find(SegmentKind::Keyed(1)).unwrap();
        queue.replace(old, Output::Own(Vec::with_capacity(60)));
        let place = queue.reserve(1000, false);
        assert_eq!(queue.memory_len(), 4156 + 1000 + overhead(&queue));
        queue.fill(place, Vec::with_capacity(300));
        assert_eq!(queue.memory_len(), 4456 + overhead(&queue));
        queue.drop_oldest().unwrap();
        queue.drop_oldest_published().unwrap();
        queue.pop().unwrap();
        queue.pop().unwrap();
        assert_eq!(queue.memory_len(), overhead(&queue));
    }

    fn own(bytes: &[u8]) -> Output {
        Output::Own(bytes.to_vec())
    }
}
