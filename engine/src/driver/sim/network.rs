//! The network: links between peers and the driver, and the events that move bytes along them.
//!
//! All of it happens at a point of the virtual clock, in the order of the events. Nothing here knows
//! tokens; see [`super::Sim`] for those.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringwire_seeds::Random;

use super::faults::Faults;
use super::stream::Stream;
use crate::net::Delivery;

/// What a peer may leave unread unless it says otherwise.
const DEFAULT_WINDOW: usize = 64 * 1024;

/// Index of a link; never used again.
pub(super) type LinkId = usize;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection comes in.
    Connect { listener: usize, link: LinkId },
    /// Bytes reach the driver's side.
    Arrive { link: LinkId, bytes: Vec<u8> },
    /// The peer's FIN reaches the driver's side.
    ArriveFin { link: LinkId },
    /// A failure reaches the driver's side.
    ArriveReset { link: LinkId, errno: i32 },
    /// Bytes reach the peer.
    ToPeer { link: LinkId, bytes: Vec<u8> },
    /// The driver's FIN reaches the peer.
    PeerFin { link: LinkId },
    /// A failure reaches the peer.
    PeerReset { link: LinkId },
    /// The first completion of a stream becomes due.
    Due(Stream),
    /// Look at the socket of this link again.
    Nudge { link: LinkId },
    /// A stop of receiving takes effect.
    Stop { link: LinkId },
    /// The test asked to be called.
    Alarm,
    /// Another thread calls a waker.
    Wake,
}

/// One TCP connection, both ends of it.
#[derive(Debug)]
pub(super) struct Link {
    /// Bytes on their way to the driver, or in its socket's buffer.
    pub(super) unread: usize,
    pub(super) arrived: VecDeque<u8>,
    pub(super) fin_arrived: bool,
    /// Why it failed, as the driver's side sees it.
    pub(super) failure: Option<i32>,
    /// What it has not delivered is lost once it is closed.
    pub(super) discards: bool,
    /// The driver's side is closed.
    pub(super) closed: bool,
    /// The driver's side sent FIN.
    pub(super) shut: bool,
    /// Bytes that reached the peer and that it has not read.
    pub(super) inbox: Vec<u8>,
    /// Bytes that it has read.
    pub(super) taken: u64,
    /// Bytes on their way to the peer.
    pub(super) in_flight: usize,
    pub(super) window: usize,
    /// What the peer's kernel acknowledges before its program reads it.
    pub(super) receive_len: usize,
    pub(super) peer_eof: bool,
    pub(super) peer_reset: bool,
    /// The peer writes no more.
    pub(super) peer_shut: bool,
    /// The peer reads no more either.
    pub(super) peer_gone: bool,
    /// What is on its way to the peer is lost.
    severed: bool,
    /// Stands in `dirty`.
    touched: bool,
    /// Bytes keep their order: nothing arrives before what was sent before it.
    last_arrival: Duration,
    last_delivery: Duration,
}

impl Link {
    /// How much the driver may send now.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.unacknowledged())
    }

    fn waiting(&self) -> usize {
        self.inbox.len() + self.in_flight
    }

    /// What the peer's kernel has and its program has not read.
    fn held(&self) -> usize {
        self.inbox.len().min(self.receive_len)
    }

    /// What the driver's socket has.
    fn unacknowledged(&self) -> usize {
        self.waiting() - self.held()
    }

    /// A peer's kernel has a window of half its buffer, as Linux begins with: it moves on while that fills, too.
    pub(super) fn delivery(&self) -> Delivery {
        let acked = self.taken + self.held() as u64;
        let room = (self.receive_len - self.held()).min(self.receive_len / 2);
        Delivery {
            acked: Some(acked),
            window_end: acked + room as u64,
            waiting: self.unacknowledged(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(super) clock: Duration,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) links: Vec<Link>,
    /// Connections waiting to be accepted, for each listener; none once it is closed.
    backlogs: Vec<Option<VecDeque<LinkId>>>,
    /// Links at which something happened that the driver has not looked at.
    dirty: VecDeque<LinkId>,
    /// Something happened that the test may want to react to.
    pub(super) noticed: bool,
    pub(super) buffers_out: usize,
    /// The most that one receive brought.
    pub(super) longest_receive: usize,
    /// When free memory was given back.
    pub(super) memory_returns: Vec<Duration>,
    pub(super) sockets_open: usize,
    events: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    /// Descriptors that stand for a link, each with the other end of its pair.
    adoptable: Vec<(RawFd, LinkId, UnixStream)>,
}

impl Network {
    pub(super) fn new(seed: u64, faults: Faults, listeners: usize) -> Self {
        Self {
            clock: Duration::ZERO,
            random: Random::new(seed),
            faults,
            links: Vec::new(),
            backlogs: vec![Some(VecDeque::new()); listeners],
            dirty: VecDeque::new(),
            noticed: false,
            buffers_out: 0,
            longest_receive: 0,
            memory_returns: Vec::new(),
            sockets_open: 0,
            events: BTreeMap::new(),
            sequence: 0,
            adoptable: Vec::new(),
        }
    }

    pub(super) fn add_link(&mut self) -> LinkId {
        self.links.push(Link {
            unread: 0,
            arrived: VecDeque::new(),
            fin_arrived: false,
            failure: None,
            closed: false,
            shut: false,
            inbox: Vec::new(),
            taken: 0,
            in_flight: 0,
            window: DEFAULT_WINDOW,
            receive_len: 0,
            peer_eof: false,
            discards: false,
            peer_reset: false,
            peer_shut: false,
            peer_gone: false,
            severed: false,
            touched: false,
            last_arrival: self.clock,
            last_delivery: self.clock,
        });
        self.links.len() - 1
    }

    /// A connection that comes in through a listener.
    pub(super) fn connect(&mut self, listener: usize) -> LinkId {
        let link = self.add_link();
        let at = self.clock + self.delay();
        self.links[link].last_arrival = at;
        self.schedule(at, Event::Connect { listener, link });
        link
    }

    pub(super) fn is_listening(&self, listener: usize) -> bool {
        self.backlogs[listener].is_some()
    }

    /// Whether a connection waits to be accepted.
    pub(super) fn has_waiting(&self, listener: usize) -> bool {
        self.backlogs[listener].as_ref().is_some_and(|backlog| !backlog.is_empty())
    }

    pub(super) fn take_waiting(&mut self, listener: usize) -> Option<LinkId> {
        self.backlogs[listener].as_mut()?.pop_front()
    }

    /// Whoever waits to be accepted is refused, and who comes later.
    pub(super) fn close_listener(&mut self, listener: usize) {
        for link in self.backlogs[listener].take().into_iter().flatten() {
            self.refuse(link);
        }
    }

    fn refuse(&mut self, link: LinkId) {
        self.links[link].closed = true;
        self.reset_peer(link, 0.0);
    }

    /// A descriptor that the driver can be made to adopt.
    pub(super) fn adoptable(&mut self) -> (LinkId, OwnedFd) {
        let link = self.add_link();
        (link, self.detached(link))
    }

    /// A descriptor that stands for a link until it is adopted.
    pub(super) fn detached(&mut self, link: LinkId) -> OwnedFd {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let fd = OwnedFd::from(theirs);
        self.adoptable.push((fd.as_raw_fd(), link, ours));
        fd
    }

    pub(super) fn adopted(&mut self, fd: RawFd) -> Option<LinkId> {
        let position = self.adoptable.iter().position(|(known, ..)| *known == fd)?;
        Some(self.adoptable.swap_remove(position).1)
    }

    /// Has the driver look at a link.
    pub(super) fn touch(&mut self, link: LinkId) {
        if !mem::replace(&mut self.links[link].touched, true) {
            self.dirty.push_back(link);
        }
    }

    /// A link that the driver has to look at.
    pub(super) fn next_touched(&mut self) -> Option<LinkId> {
        let link = self.dirty.pop_front()?;
        self.links[link].touched = false;
        Some(link)
    }

    pub(super) fn schedule(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    /// When the next event is.
    pub(super) fn next_event(&self) -> Option<Duration> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes an event that is due.
    pub(super) fn take_event(&mut self) -> Option<Event> {
        self.next_event().filter(|at| *at <= self.clock)?;
        self.events.pop_first().map(|(_, event)| event)
    }

    /// Carries out an event of the links; the driver's own are left to it.
    pub(super) fn happen(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Connect { listener, link } => match &mut self.backlogs[listener] {
                Some(backlog) => backlog.push_back(link),
                None => self.refuse(link),
            },
            Event::Arrive { link, bytes } => self.arrive(link, &bytes),
            Event::ArriveFin { link } => {
                self.links[link].fin_arrived = true;
                self.touch(link);
            }
            Event::ArriveReset { link, errno } => self.fail(link, errno),
            Event::ToPeer { link, bytes } => self.deliver(link, &bytes),
            Event::PeerFin { link } => {
                let end = &mut self.links[link];
                end.peer_eof = !end.severed;
                self.noticed = true;
            }
            Event::PeerReset { link } => {
                self.links[link].peer_reset = true;
                self.noticed = true;
            }
            Event::Nudge { link } => self.touch(link),
            Event::Alarm => self.noticed = true,
            other => return Some(other),
        }
        None
    }

    fn arrive(&mut self, link: LinkId, bytes: &[u8]) {
        let end = &mut self.links[link];
        if end.closed {
            end.unread -= bytes.len();
            self.abort(link);
        } else if end.failure.is_some() {
            end.unread -= bytes.len();
        } else {
            end.arrived.extend(bytes);
            self.touch(link);
        }
    }

    fn fail(&mut self, link: LinkId, errno: i32) {
        // A kernel may or may not hand out what came before the reset.
        let discard = self.random.chance(self.faults.reset);
        let end = &mut self.links[link];
        end.failure.get_or_insert(errno);
        if discard {
            end.unread -= end.arrived.len();
            end.arrived.clear();
        }
        self.touch(link);
    }

    fn deliver(&mut self, link: LinkId, bytes: &[u8]) {
        let end = &mut self.links[link];
        end.in_flight -= bytes.len();
        if end.peer_gone {
            self.reset_driver(link, libc::ECONNRESET);
        } else if !end.severed {
            end.inbox.extend(bytes);
            self.noticed = true;
        }
    }

    /// The peer sends. In pieces perhaps, and perhaps the connection breaks meanwhile.
    pub(super) fn write(&mut self, link: LinkId, bytes: &[u8]) {
        let mut rest = bytes;
        if self.random.chance(self.faults.fin) && !rest.is_empty() {
            rest = &rest[..self.random.below(rest.len())];
        }
        let cut = rest.len() < bytes.len();
        while !rest.is_empty() && !self.links[link].peer_shut {
            if self.random.chance(self.faults.reset) {
                let errno = [libc::ECONNRESET, libc::ETIMEDOUT, libc::EHOSTUNREACH];
                let errno = errno[self.random.below(errno.len())];
                self.break_link(link, errno);
                return;
            }
            let count = self.piece(rest.len());
            let (piece, others) = rest.split_at(count);
            rest = others;
            self.links[link].unread += count;
            let at = self.arrival(link);
            self.schedule(at, Event::Arrive { link, bytes: piece.to_vec() });
        }
        if cut {
            self.finish(link);
        }
    }

    /// The peer sends FIN.
    pub(super) fn finish(&mut self, link: LinkId) {
        if !mem::replace(&mut self.links[link].peer_shut, true) {
            let at = self.arrival(link);
            self.schedule(at, Event::ArriveFin { link });
        }
    }

    /// The peer closes: what the driver sends from now on is answered with a reset.
    pub(super) fn hang_up(&mut self, link: LinkId) {
        self.finish(link);
        let end = &mut self.links[link];
        end.peer_gone = true;
        end.inbox.clear();
    }

    /// A failure, seen by the driver after what is on its way to it.
    pub(super) fn reset_driver(&mut self, link: LinkId, errno: i32) {
        self.links[link].peer_shut = true;
        let at = self.arrival(link);
        self.schedule(at, Event::ArriveReset { link, errno });
    }

    /// A failure, seen by both.
    fn break_link(&mut self, link: LinkId, errno: i32) {
        self.reset_driver(link, errno);
        let loss = self.faults.reset;
        self.reset_peer(link, loss);
    }

    /// A failure, seen by the peer after what is on its way to it, which gets lost with this probability.
    fn reset_peer(&mut self, link: LinkId, loss: f64) {
        self.links[link].peer_shut = true;
        if self.random.chance(loss) {
            self.links[link].severed = true;
        }
        let at = self.delivery(link);
        self.schedule(at, Event::PeerReset { link });
    }

    /// The driver's socket was closed too early: it has unread input, or more comes. What was not delivered yet is lost
    /// with it (RFC 9293 §3.6.1), as on Linux. Of what the peer has not read, some may have been in a buffer of its
    /// own.
    fn abort(&mut self, link: LinkId) {
        let unread = self.links[link].inbox.len();
        let delivered = self.random.below(unread + 1);
        self.links[link].inbox.truncate(delivered);
        self.reset_peer(link, 1.0);
    }

    /// The driver sends.
    pub(super) fn send(&mut self, link: LinkId, bytes: &[u8]) {
        self.links[link].in_flight += bytes.len();
        let at = self.delivery(link);
        self.schedule(at, Event::ToPeer { link, bytes: bytes.to_vec() });
    }

    /// The driver sends FIN.
    pub(super) fn shut(&mut self, link: LinkId) {
        if !mem::replace(&mut self.links[link].shut, true) {
            let at = self.delivery(link);
            self.schedule(at, Event::PeerFin { link });
        }
    }

    /// The driver closes its side: with a reset when it leaves something unread, as Linux does, or drops what it has
    /// sent.
    pub(super) fn close(&mut self, link: LinkId) {
        let end = &mut self.links[link];
        assert!(!mem::replace(&mut end.closed, true), "a socket is closed once");
        let unread = end.arrived.len();
        end.arrived.clear();
        end.unread -= unread;
        if end.failure.is_some() {
            return;
        }
        let drops = end.discards && end.waiting() > 0;
        if unread > 0 || drops { self.abort(link) } else { self.shut(link) }
    }

    /// A part of `whole` when a receive comes short.
    pub(super) fn piece(&mut self, whole: usize) -> usize {
        if self.random.chance(self.faults.short_receive) {
            self.random.part_of(whole)
        } else {
            whole
        }
    }

    pub(super) fn delay(&mut self) -> Duration {
        if self.random.chance(self.faults.delay) {
            self.random.up_to(self.faults.max_delay)
        } else {
            Duration::ZERO
        }
    }

    fn arrival(&mut self, link: LinkId) -> Duration {
        let at = (self.clock + self.delay()).max(self.links[link].last_arrival);
        self.links[link].last_arrival = at;
        at
    }

    fn delivery(&mut self, link: LinkId) -> Duration {
        let at = (self.clock + self.delay()).max(self.links[link].last_delivery);
        self.links[link].last_delivery = at;
        at
    }
}
