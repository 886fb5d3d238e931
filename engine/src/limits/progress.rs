//! How peers with output ahead of them come on: asked of the driver when a timer fires, and kept only for those.
//!
//! What the kernel takes of a send says little: a socket holds more than a slow peer reads in a minute. So whoever is
//! to be ended for taking nothing, or for an answer that does not come, is asked about first: a few times within its
//! limit, and what moved in between counts.

use std::collections::HashMap;

use crate::base::timer::Tick;
use crate::net::Delivery;

/// How often a peer is looked at within a limit.
const LOOKS: Tick = 4;
/// What a peer may have in its own buffer before it reads the ping behind it: more than systems give a socket by
/// default (tcp(7): 6 MiB).
const MAX_UNREAD_LEN: u64 = 8 << 20;

/// The time from one look to the next.
pub(crate) fn step(limit: Tick) -> Tick {
    (limit / LOOKS).max(1)
}

/// Peers that are looked at, by slot.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    table: HashMap<u32, Watched>,
}

/// What is known of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    seen: Delivery,
    /// When it was first looked at, and last.
    first: Tick,
    looked: Tick,
    /// When it was last seen to have taken something since the look before.
    moved: Tick,
    /// When its window was last seen to have moved on, which its program does by reading and its kernel does not by
    /// acknowledging.
    opened: Tick,
    ping: Option<Ahead>,
    /// Since when all that was owed has been so, where nothing is added to it, and until when it has to be taken.
    owed: Option<(Tick, Tick)>,
}

/// What is ahead of a ping.
#[derive(Clone, Copy, Debug)]
enum Ahead {
    /// Output up to this number of acknowledged bytes, where they are counted. It is known to wait where it was seen
    /// to, and where the peer was slow before.
    Output { end: Option<u64>, waits: bool },
    /// What the peer has not read. Its window moves on up to here.
    Unread(u64),
}

/// What a look found out about a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingLook {
    /// Its time goes on.
    Same,
    /// Its time begins, or begins again: it has reached the peer just now, or the peer is on its way to it.
    Now,
}

impl Progress {
    pub(crate) fn get(&self, slot: u32) -> Option<&Watched> {
        if self.table.is_empty() { None } else { self.table.get(&slot) }
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Watched> {
        if self.table.is_empty() { None } else { self.table.get_mut(&slot) }
    }

    #[inline]
    pub(crate) fn forget(&mut self, slot: u32) {
        if !self.table.is_empty() {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        if self.table.remove(&slot).is_some() && self.table.is_empty() {
            // A burst of slow peers leaves nothing behind.
            self.table = HashMap::new();
        }
    }

    /// Takes a look. `sent` is when the kernel last took something.
    pub(crate) fn look(
        &mut self,
        slot: u32,
        now: Tick,
        sent: Tick,
        delivery: Delivery,
    ) -> &mut Watched {
        let watched = self.table.entry(slot).or_insert_with(|| Watched {
            seen: delivery,
            first: now,
            looked: now,
            moved: sent,
            opened: sent,
            ping: None,
            owed: None,
        });
        let is_first = watched.first == now && watched.looked == now;
        // A full socket that took more: somebody has made room.
        let made_room = delivery.acked.is_none() && sent > watched.looked;
        if !is_first && (made_room || delivery.has_moved_since(&watched.seen)) {
            watched.moved = now;
        }
        if !is_first && delivery.window_end > watched.seen.window_end {
            watched.opened = now;
        }
        watched.looked = now;
        watched.seen = delivery;
        watched
    }
}

impl Watched {
    /// Whether something was taken since the look before this one.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved == self.looked && self.looked > self.first
    }

    /// Whether its program read since the look before this one. What is sent meanwhile and acknowledged says nothing.
    fn has_read(&self) -> bool {
        self.opened == self.looked && self.looked > self.first
    }

    /// Whether it was ever seen to take something of what it had not taken at once.
    pub(crate) fn is_slow(&self) -> bool {
        self.moved > self.first
    }

    /// When it has taken nothing for too long. One that was not looked at early gets some time from then.
    pub(crate) fn stalls_at(&self, sent: Tick, limit: Tick) -> Tick {
        (self.moved.max(sent) + limit).max(self.first + limit / 2)
    }

    /// When to look again at the latest.
    pub(crate) fn next_look(&self, limit: Tick) -> Tick {
        self.looked + step(limit)
    }

    /// A ping goes out behind so many bytes of output that the kernel does not have yet.
    pub(crate) fn ping_behind(&mut self, queued_len: usize) {
        let ahead = (self.seen.waiting + queued_len) as u64;
        let end = self.seen.acked.map(|acked| acked + ahead);
        self.ping = Some(Ahead::Output { end, waits: self.is_slow() });
    }

    pub(crate) fn has_ping(&self) -> bool {
        self.ping.is_some()
    }

    /// Whether a ping is known not to have reached its peer.
    pub(crate) fn holds_ping_back(&self) -> bool {
        matches!(self.ping, Some(Ahead::Output { .. }))
    }

    pub(crate) fn forget_ping(&mut self) {
        self.ping = None;
    }

    /// What this look says about the ping. `is_flushed`: nothing waits outside the kernel.
    pub(crate) fn look_at_ping(&mut self, is_flushed: bool) -> PingLook {
        let Delivery { acked, window_end, waiting } = self.seen;
        match self.ping {
            Some(Ahead::Output { end, waits }) => {
                let is_out = is_flushed && waiting == 0
                    || acked.zip(end).is_some_and(|(acked, end)| acked >= end);
                if is_out && !waits {
                    // It may have been out as good as at once.
                    self.ping = None;
                    return PingLook::Same;
                }
                if is_out {
                    self.ping = Some(Ahead::Unread(window_end.saturating_add(MAX_UNREAD_LEN)));
                    return PingLook::Now;
                }
                self.ping = Some(Ahead::Output { end, waits: true });
                if self.has_moved() { PingLook::Now } else { PingLook::Same }
            }
            Some(Ahead::Unread(end)) if self.has_read() && window_end <= end => PingLook::Now,
            Some(Ahead::Unread(_)) | None => PingLook::Same,
        }
    }

    /// All that is owed has to be taken within `time` from now, unless that was said before of what is owed since then.
    pub(crate) fn owes(&mut self, since: Tick, time: Option<Tick>) {
        if self.owed.is_none_or(|(before, _)| before != since) {
            self.owed = time.map(|time| (since, self.looked.saturating_add(time)));
        }
    }

    /// Until when all that is owed has to be taken.
    pub(crate) fn until(&self) -> Option<Tick> {
        self.owed.map(|(_, until)| until)
    }
}
