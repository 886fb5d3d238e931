//! One connection: what is kept of it while it is idle, and what is added while something is under way.

pub(crate) mod agreed;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod cause;
pub(crate) mod charge;
pub(crate) mod credit;
pub(crate) mod dialling;
pub(crate) mod id;
pub(crate) mod jobs;
pub(crate) mod options;
pub(crate) mod peer_addr;
pub(crate) mod queue;
pub(crate) mod table;

use bitflags::bitflags;
use ringwire_codec::handshake::HeadScanner;
use ringwire_codec::http::Exchange;
use ringwire_codec::{Connection, Role};

use crate::base::timer::{TICKS_PER_SECOND, Tick};
use crate::conn::agreed::AgreedDeflate;
use crate::conn::body::Incoming;
use crate::conn::cause::CloseCause;
use crate::conn::charge::Charge;
use crate::conn::credit::Lanes;
use crate::conn::dialling::Dialling;
use crate::conn::jobs::Jobs;
use crate::conn::peer_addr::PeerAddr;
use crate::conn::queue::SendQueue;

/// Bytes that wait behind a send in flight from which on pings get one pong for all.
const PONGS_LEN: usize = 4 << 10;

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
    /// Bytes of the send in flight that the kernel has not taken. While it lingers: bytes that were dropped.
    pub(crate) in_flight: u32,
    pub(crate) peer: PeerAddr,
    pub(crate) phase: Phase,
    /// Ordinary requests that were answered.
    pub(crate) requests: u16,
    pub(crate) deflate: AgreedDeflate,
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
            deflate: AgreedDeflate::default(),
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

    /// Takes away a reason why messages wait. After the last one silence counts from here on: it was this side that did
    /// not read, and a timer may be due before it does.
    pub(crate) fn release(&mut self, why: Flags, now: Tick) {
        let was_held_up = !self.may_deliver();
        self.flags.remove(why);
        if was_held_up && self.may_deliver() {
            self.note_received(now);
        }
    }

    /// Whether output waits behind the send in flight.
    #[inline]
    pub(crate) fn has_queue(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.queue.is_empty())
    }

    /// Whether pongs join the output. Where more waits than this, a peer that sends pings and reads nothing could have
    /// it grow without end, so only the newest pong waits, in the codec (RFC 6455 §5.5.3).
    #[inline]
    pub(crate) fn takes_pongs(&self) -> bool {
        self.pending.as_ref().is_none_or(|pending| pending.queue.len() < PONGS_LEN)
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

    /// How much of it waits.
    pub(crate) fn unread_len(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.unread.len() - pending.unread_start)
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
        if self.flags.contains(Flags::ENDED) {
            return false;
        }
        match self.phase {
            Phase::Lingering => true,
            Phase::Proxied | Phase::Handshake => {
                !self.flags.contains(Flags::THROTTLED) && !self.is_away()
            }
            Phase::Open | Phase::Closing => self.may_deliver() && !self.has_unread(),
            Phase::Idle => !self.has_unread(),
            Phase::Vacant | Phase::Deferred | Phase::Flushing | Phase::Closed => false,
        }
    }

    /// Whether its TLS session is with a compute thread.
    pub(crate) fn is_away(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.is_away)
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

    /// Whether the peer has ended its stream, by FIN or by close_notify, while this side could still speak.
    pub(crate) fn is_half_closed(&self) -> bool {
        let speaks = matches!(self.phase, Phase::Open | Phase::Idle | Phase::Deferred);
        speaks && self.pending.as_ref().is_some_and(|pending| pending.cause.is_some())
    }

    /// Whether everything that came before the end of the peer's stream was answered, as far as this connection knows.
    pub(crate) fn has_said_all(&self) -> bool {
        self.is_half_closed()
            && !self.has_unread()
            && self.is_flushed()
            && !self.has_jobs()
            && !self.has_parcels()
    }

    /// Whether messages of a [`Sender`](crate::Sender) wait for room in its queue.
    #[inline]
    pub(crate) fn has_parcels(&self) -> bool {
        let lanes = self.pending.as_ref().and_then(|pending| pending.lanes.as_ref());
        lanes.is_some_and(|lanes| lanes.has_waiting())
    }

    /// Whether all output was handed to the kernel.
    #[inline]
    pub(crate) fn is_flushed(&self) -> bool {
        !self.flags.contains(Flags::SENDING) && !self.has_queue()
    }

    /// What it holds that ending it would free, in bytes. A send in flight counts if it is a backlog, stuck, or longer
    /// than a socket takes at once: another is soon over, and perhaps of bytes that others send too. `is_full`: the
    /// kernel has something ahead of it.
    pub(crate) fn held_len(&self, now: Tick, is_full: bool) -> usize {
        /// The most that a socket's send buffer grows to by default, in bytes: the last figure of tcp_wmem, tcp(7).
        const SOCKET_LEN: u32 = 4 << 20;
        if self.phase == Phase::Lingering {
            return 0;
        }
        let pending = self.pending.as_ref().map_or(0, |pending| pending.charged.sum());
        let waits = self.flags.contains(Flags::BACKLOGGED)
            || is_full
            || now > self.sent + 1
            || self.in_flight > SOCKET_LEN;
        let in_flight = if waits { self.in_flight as usize } else { 0 };
        self.codec.unfinished_len() + pending + in_flight
    }
}

/// Where a connection stands. One from a proxy begins as `Proxied`, before `Handshake`.
///
/// ```text
/// Vacant ─► Handshake ─► Open ─► Closing ──┐
///            │  ▲  ▲       │               ├─► Lingering ─► Closed ─► Vacant
///            │  │  ▼       ▼               │
///            │  │ Idle ─► Flushing ────────┘
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
    /// Has sent everything and FIN, and drops what still comes until the peer's FIN: closing with unread
    /// input would make the kernel reset the connection and lose the last words (RFC 9293 §3.6.1). The
    /// application knows already that it has ended, and nothing is left of it but the slot and the socket.
    Lingering,
    /// Waits for the driver to forget it.
    Closed,
}

bitflags! {
    /// Yes-or-no facts about a connection. Those that hold only while something is under way stand in [`Pending`], and
    /// what was agreed on for compression, in [`AgreedDeflate`], so that there is room here.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Flags: u16 {
        // What it is.
        /// This side opened the connection, and is the client.
        const CLIENT = 1 << 0;
        /// Bytes go through a TLS session, extensions of the application's own, or both.
        const LAYERED = 1 << 1;
        /// Messages may be compressed.
        const DEFLATE = 1 << 2;
        /// The smaller limit on messages holds.
        const UNAUTHENTICATED = 1 << 3;

        // How far it has come.
        /// `on_open` was called, `on_close` is owed.
        const OPENED = 1 << 4;
        /// The peer's FIN came, so nothing more can be received; there may be input or output left.
        const ENDED = 1 << 5;

        // What is under way.
        /// A receive is armed.
        const RECEIVING = 1 << 6;
        /// A send is in flight.
        const SENDING = 1 << 7;
        /// A ping waits for its pong.
        const PINGED = 1 << 8;
        /// Stands in the list of connections to be flushed or resumed.
        const LISTED = 1 << 9;

        // Why messages wait.
        /// The application paused reading.
        const PAUSED = 1 << 10;
        /// `Sent::Waits` was answered, or a future waits for room: reading waits, and `on_drain` is owed.
        const BACKLOGGED = 1 << 11;
        /// The peer has said as much as it may: reading waits until its bucket has filled, or until there is memory.
        const THROTTLED = 1 << 12;
        /// The application was given as much as may wait for it, in jobs or in messages.
        const FULL = 1 << 13;

        /// What comes in needs more than the settings that all connections share.
        const SPECIAL_INPUT = Self::DEFLATE.bits() | Self::UNAUTHENTICATED.bits();
        /// Messages may not be handed over.
        const HELD_UP = Self::PAUSED.bits()
            | Self::BACKLOGGED.bits()
            | Self::THROTTLED.bits()
            | Self::FULL.bits();
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
    /// Its TLS session is with a compute thread; what comes in meanwhile waits unread.
    pub(crate) is_away: bool,
    /// The body that is under way.
    pub(crate) incoming: Option<Box<Incoming>>,
    /// What is known of an ordinary request whose answer was deferred.
    pub(crate) exchange: Option<Exchange>,
    /// Publications that were dropped, of which the application was not told yet.
    pub(crate) missed: u32,
    /// What a connection that this side opens keeps until it is open.
    pub(crate) dialling: Option<Box<Dialling>>,
    /// Its jobs on the compute threads, and its futures on the worker.
    pub(crate) jobs: Option<Box<Jobs>>,
    /// What threads of the application have given for it with a [`Sender`](crate::Sender).
    pub(crate) lanes: Option<Box<Lanes>>,
    /// How the connection will have ended, once that has begun.
    pub(crate) cause: Option<CloseCause>,
    /// What of all this the worker's sums have.
    pub(crate) charged: Charge,
}

impl Pending {
    /// The memory that it takes.
    pub(crate) fn charge(&self) -> Charge {
        let body = self.incoming.as_ref().map_or(0, |incoming| incoming.memory_len());
        let held = self.jobs.as_ref().map_or(0, |jobs| jobs.held_len());
        let input = self.unread.capacity() + self.head.capacity() + body + held;
        Charge { input: size_of::<Self>() + input, queued: self.queue.memory_len() }
    }

    /// Whether nothing would be lost without it.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.unread.capacity() == 0
            && self.head.capacity() == 0
            && !self.is_away
            && self.incoming.is_none()
            && self.exchange.is_none()
            && self.missed == 0
            && self.dialling.is_none()
            && self.jobs.is_none()
            && self.lanes.is_none()
            && self.cause.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// With 12 bytes each in the driver's table and in the timer wheel, an idle connection is 120 bytes at most.
    #[test]
    fn an_idle_connection_is_small() {
        let len = size_of::<Conn<()>>();
        assert!(len <= 96, "{len} bytes");
    }

    #[test]
    fn addresses_survive_packing() {
        for address in ["127.0.0.1:9001", "[::1]:80", "[2001:db8::7]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(SocketAddr::from(PeerAddr::from(address)), address);
        }
    }
}
