//! How connections come to a worker, and when it takes no more.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::Worker;
use crate::app::handler::Handler;
use crate::base::mailbox::Refused;
use crate::base::timer::Tick;
use crate::config::Assignment;
use crate::conn::{Flags, Phase};
use crate::driver::{Driver, ListenerId, Op, Token};
use crate::entry::adoption::Adoption;
use crate::entry::listener::Terms;
use crate::hub::mail::Mail;
use crate::limits::rate::{Bucket, Rate};

/// How long accepting rests after it failed for want of descriptors or memory, in ticks.
const ACCEPT_REST: Tick = 2;

/// Whether, and of how many, connections are accepted.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) listeners: u32,
    /// Listeners that are left to others, of which something may still come.
    pub(super) leaving: u32,
    /// Listeners that were left to a successor, and that the driver keeps until the drain ends.
    pub(super) kept: u32,
    pub(super) max_connections: usize,
    pub(super) state: AcceptState,
    /// How many may come in a second, what came of late, and up to when that was looked at.
    pub(super) rate: Option<(Rate, Bucket, Tick)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptState {
    /// Armed on all listeners.
    On,
    /// Off until a connection has gone: there are as many as may be.
    Full,
    /// Off until then: the last accept failed.
    Resting { until: Tick },
    /// Off for good.
    Stopped,
}

impl<D: Driver, H: Handler> Worker<D, H> {
    /// A connection came in: it goes to the worker that should have it.
    pub(super) fn accept(
        &mut self,
        listener: ListenerId,
        socket: D::Socket,
        peer: Option<SocketAddr>,
    ) {
        self.count_accept();
        if !self.names_proxies(listener) && !self.shared.hub.addresses().admit(peer) {
            crate::base::event::debug!(
                ?peer,
                "refused: its address has as many connections as may be"
            );
            return self.shared.counters.address_refusals.add(1);
        }
        let Some(socket) = self.assign(listener, socket, peer) else { return };
        self.take_connection(listener, socket, peer);
    }

    /// Hands a connection over to another worker, if that has fewer of them and takes it.
    fn assign(
        &mut self,
        listener: ListenerId,
        socket: D::Socket,
        peer: Option<SocketAddr>,
    ) -> Option<D::Socket> {
        let hub = &self.shared.hub;
        if self.assignment != Assignment::LeastLoaded {
            return Some(socket);
        }
        let Some(worker) = hub.assign(self.shared.worker) else { return Some(socket) };
        let fd = self.driver.detach(socket);
        let link = hub.links().get(usize::from(worker))?;
        match link.postbox.post(Mail::Accepted { fd, listener, peer }) {
            Ok(()) => {
                self.shared.counters.handed_over.add(1);
                None
            }
            Err(Refused { letter: Mail::Accepted { fd, .. }, .. }) => {
                hub.note_arrival(worker);
                let socket = self.driver.adopt(fd);
                if socket.is_err() {
                    self.count_out(listener, peer);
                }
                socket.ok()
            }
            Err(_) => unreachable!("a mailbox gives back the letter that it was given"),
        }
    }

    pub(super) fn on_handed_over(
        &mut self,
        fd: OwnedFd,
        listener: ListenerId,
        peer: Option<SocketAddr>,
    ) {
        self.shared.hub.note_arrival(self.shared.worker);
        match self.driver.adopt(fd) {
            Ok(socket) => self.take_connection(listener, socket, peer),
            Err(error) => {
                self.count_out(listener, peer);
                crate::base::event::warn!(%error, "a connection could not be taken over");
            }
        }
    }

    /// Whether the peers of a listener are proxies, and the address that counts is in the PROXY header.
    fn names_proxies(&self, listener: ListenerId) -> bool {
        self.terms.get(listener.0 as usize).is_some_and(Terms::wants_proxy_header)
    }

    /// A connection that was counted for its address came to nothing.
    fn count_out(&self, listener: ListenerId, peer: Option<SocketAddr>) {
        if !self.names_proxies(listener) {
            self.shared.hub.addresses().release(peer);
        }
    }

    fn take_connection(
        &mut self,
        listener: ListenerId,
        socket: D::Socket,
        peer: Option<SocketAddr>,
    ) {
        let terms = self.terms.get(listener.0 as usize);
        if terms.is_some_and(|terms| !terms.allow(peer)) {
            crate::base::event::debug!(?peer, "it is no trusted proxy");
            self.shared.counters.proxy_failures.add(1);
            return;
        }
        let tls = terms.and_then(|terms| terms.tls.clone());
        let Some(token) = self.open(socket, peer) else { return self.count_out(listener, peer) };
        if self.names_proxies(listener)
            && let Some(conn) = self.conns.get_mut(token)
        {
            conn.wire.phase = Phase::Proxied;
        }
        if let Some(config) = &tls {
            self.secure(token, config);
        }
    }

    /// Takes over a connection that someone else accepted.
    pub(super) fn adopt(&mut self, adoption: Adoption) {
        let Adoption { stream, session, mut received, state } = adoption;
        let fd = OwnedFd::from(stream);
        let peer = crate::net::peer_addr(&fd);
        let socket = match self.driver.adopt(fd) {
            Ok(socket) => socket,
            Err(error) => {
                return crate::base::event::warn!(%error, "a connection could not be adopted");
            }
        };
        // The handle has looked at its type.
        let state = state.and_then(|state| self.states.make(state));
        if state.is_some() && self.shutdown.is_some() {
            return;
        }
        let Some(token) = self.open(socket, peer) else { return };
        self.shared.hub.addresses().note(peer);
        self.shared.counters.adopted.add(1);
        let is_secure = session.is_some();
        if let Some(session) = session {
            self.secure_adopted(token, session);
        }
        if let Some(state) = state {
            self.open_upgraded(token, state);
        }
        if is_secure {
            if !received.is_empty() {
                self.look_at(token, &mut received);
            }
            // The session may have more, and something to say.
            self.take_in_secure(token, &mut []);
        } else {
            self.take_in(token, &mut received);
        }
        self.after_work(token);
    }

    /// Takes a socket in and waits for its request.
    pub(super) fn open(&mut self, socket: D::Socket, peer: Option<SocketAddr>) -> Option<Token> {
        if !self.takes_connections() {
            return None;
        }
        let now = self.shared.now;
        let (token, conn) = self.conns.insert()?;
        let wire = &mut conn.wire;
        wire.peer = peer.map(Into::into).unwrap_or_default();
        (wire.began, wire.received, wire.sent) = (now, now, now);
        wire.flags.insert(Flags::RECEIVING);
        self.shared.counters.connections.add(1);
        if let Some(limit) = self.shared.limits.handshake {
            self.shared.wheel.set(token.slot, now + limit);
        }
        self.driver.submit(Op::Open { token, socket });
        self.driver.submit(Op::Receive { token });
        if self.conns.len() >= self.accepting.max_connections {
            self.stop_accepting(AcceptState::Full);
        }
        Some(token)
    }

    /// The driver has forgotten the connection: its slot is free.
    pub(super) fn on_closed(&mut self, token: Token) {
        if self.conns.get_mut(token).is_some() {
            self.conns.remove(token);
            self.shared.counters.connections.sub(1);
        }
    }

    // Accepting

    pub(super) fn start_accepting(&mut self) {
        self.accepting.state = AcceptState::On;
        for listener in (0..self.accepting.listeners).map(ListenerId) {
            self.driver.submit(Op::Accept { listener });
        }
    }

    pub(super) fn stop_accepting(&mut self, state: AcceptState) {
        self.accepting.state = state;
        for listener in (0..self.accepting.listeners).map(ListenerId) {
            self.driver.submit(Op::StopAccept { listener });
        }
    }

    /// Rests where as many connections came in a second as may be; what is more waits in the backlog.
    fn count_accept(&mut self) {
        self.rest_of_rate();
        if let Some((_, bucket, _)) = &mut self.accepting.rate {
            bucket.take(1);
        }
        if self.accepting.state == AcceptState::On
            && let Some(until) = self.rest_of_rate()
        {
            self.shared.counters.accept_rests.add(1);
            self.stop_accepting(AcceptState::Resting { until });
        }
    }

    /// Until when nobody else may come in, since as many have come as may; `None`: somebody may.
    fn rest_of_rate(&mut self) -> Option<Tick> {
        let now = self.shared.now;
        let (rate, bucket, filled) = self.accepting.rate.as_mut()?;
        bucket.fill(*rate, now.saturating_sub(*filled));
        *filled = now;
        (bucket.left(*rate) == 0).then(|| now + bucket.wait(*rate))
    }

    /// Descriptors or memory ran out: rest a little, so as not to spin, and leave those alone who are connected.
    pub(super) fn on_accept_ended(&mut self, listener: ListenerId, error: &io::Error) {
        if self.accepting.state != AcceptState::On {
            return;
        }
        crate::base::event::warn!(
            listener = listener.0,
            %error,
            "cannot accept a connection: this listener pauses for a moment"
        );
        self.shared.counters.accept_failures.add(1);
        self.stop_accepting(AcceptState::Resting { until: self.shared.now + ACCEPT_REST });
    }

    pub(super) fn on_listener_left(&mut self, listener: ListenerId) {
        crate::base::event::debug!(listener = listener.0, "left to others");
        self.accepting.leaving -= 1;
        self.look_at_kept_listeners();
    }

    /// Accepts again on the listeners that were kept, or closes them, once all of them were left and it is known what
    /// becomes of the successor.
    pub(super) fn look_at_kept_listeners(&mut self) {
        if self.accepting.kept == 0 || self.accepting.leaving > 0 {
            return;
        }
        if self.shutdown.is_none() {
            self.accepting.listeners = std::mem::take(&mut self.accepting.kept);
            // Where the successor used io_uring, its ring may stand in line for connections a moment longer than it
            // lived. What waits is taken when accepting begins.
            self.accepting.state = AcceptState::Resting { until: self.shared.now + ACCEPT_REST };
        } else if self.shared.hub.handover().is_over() {
            for listener in (0..std::mem::take(&mut self.accepting.kept)).map(ListenerId) {
                self.driver.submit(Op::CloseListener { listener });
            }
        }
    }

    pub(super) fn go_on_accepting(&mut self) {
        match self.accepting.state {
            AcceptState::On | AcceptState::Stopped => return,
            AcceptState::Resting { until } if self.shared.now < until => return,
            AcceptState::Full | AcceptState::Resting { .. } => {}
        }
        if self.conns.len() >= self.accepting.max_connections {
            self.accepting.state = AcceptState::Full;
            return;
        }
        // Those who came in one by one, as others left, count for the rate as well.
        match self.rest_of_rate() {
            Some(until) => {
                self.shared.counters.accept_rests.add(1);
                self.accepting.state = AcceptState::Resting { until };
            }
            None => self.start_accepting(),
        }
    }
}
