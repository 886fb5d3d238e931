//! What goes out: one send for all that a connection produced, the queue behind it, and the steps of closing.

use std::io;

use super::Worker;
use super::receive::call;
use crate::app::event::Event;
use crate::app::handler::Handler;
use crate::base::output::Output;
use crate::conn::cause::CloseReason;
use crate::conn::queue::SegmentKind;
use crate::conn::{Flags, Phase, Wire};
use crate::driver::{Driver, Op, SendBuffer, Token};
use crate::state::Shared;

impl<D: Driver, H: Handler> Worker<D, H> {
    /// What follows every piece of work on a connection: its output goes out, and its receiving and
    /// closing follow its state.
    #[inline]
    pub(super) fn after_work(&mut self, token: Token) {
        let Self { conns, shared, driver, .. } = self;
        shared.expected_len = 0;
        let Some(conn) = conns.get_mut(token).filter(|conn| conn.wire.phase != Phase::Closed)
        else {
            shared.out.clear();
            return;
        };
        let wire = &mut conn.wire;
        if wire.codec.wants_transmit() && !wire.has_queue() {
            // Where output waits, the pong waits for the end of a send, and only the newest is kept.
            wire.codec.poll_transmit(&mut shared.masks, &mut shared.out);
        }
        if wire.flags.contains(Flags::SENDING) || wire.has_queue() {
            shared.enqueue_out(wire, SegmentKind::Stream);
            if !wire.flags.contains(Flags::SENDING) {
                Self::send_next(driver, wire, shared, token);
            }
        } else if wire.flags.contains(Flags::LAYERED) {
            Self::send_layered(driver, wire, shared, token);
        } else if !shared.out.is_empty() {
            let data = std::mem::take(&mut shared.out);
            shared.counters.queued_bytes.add(data.len());
            Self::submit_send(driver, wire, shared, token, Output::Own(data));
        }
        if wire.wants_receive() != wire.flags.contains(Flags::RECEIVING) {
            Self::sync_receive(driver, wire, shared, token);
        }
        if wire.phase != Phase::Open || wire.pending.is_some() {
            self.after_unusual_work(token);
        }
    }

    /// A send is done, or went out in part.
    #[inline]
    pub(super) fn on_sent(&mut self, token: Token, buffer: SendBuffer, result: io::Result<usize>) {
        let Self { conns, shared, driver, .. } = self;
        let sent = *result.as_ref().unwrap_or(&0);
        shared.counters.bytes_sent.add(sent);
        let Some(conn) = conns.get_mut(token).filter(|conn| conn.wire.phase != Phase::Closed)
        else {
            return shared.take_back_late(buffer.into_output());
        };
        let wire = &mut conn.wire;
        wire.in_flight = in_flight(&buffer);
        shared.counters.queued_bytes.sub(sent);
        if let Err(error) = result {
            wire.flags.remove(Flags::SENDING);
            shared.take_back(buffer.into_output());
            return self.give_up(token, CloseReason::Transport(error.kind()));
        }
        wire.sent = shared.now;
        if !buffer.is_empty() {
            shared.set_stall_deadline(wire, token);
            return driver.submit(Op::Send { token, buffer });
        }
        wire.flags.remove(Flags::SENDING);
        shared.take_back(buffer.into_output());
        if wire.pending.is_some()
            || wire.flags.contains(Flags::BACKLOGGED)
            || wire.flags.contains(Flags::LAYERED)
            || wire.codec.wants_transmit()
            || wire.phase != Phase::Open
        {
            self.on_flushed_part(token);
        }
    }

    /// Resumes what was listed, once each, and flushes it.
    pub(super) fn work_off_list(&mut self) {
        let mut listed = std::mem::take(&mut self.shared.listed);
        for token in listed.drain(..) {
            self.tell_drained(token);
            self.resume(token);
            self.take_parcels(token);
            self.after_work(token);
            self.bound_memory();
        }
        // What was listed meanwhile is for the next turn; the memory is used again.
        listed.append(&mut self.shared.listed);
        self.shared.listed = listed;
    }

    /// Hands over what waits since it is work, for what is left of the turn.
    pub(super) fn work_off_queue(&mut self) {
        while let Some(token) = self.shared.work.next() {
            if self.conns.get_mut(token).is_none() {
                continue;
            }
            self.shared.work.begin_service(token.slot);
            self.resume(token);
            self.shared.work.end_service();
            self.after_work(token);
        }
    }

    /// One buffer of a queue is out: the next one, or `on_drain`, or the next step of closing.
    pub(super) fn on_flushed_part(&mut self, token: Token) {
        let Self { conns, shared, handler, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        if wire.phase == Phase::Open && wire.has_queue() && wire.codec.wants_transmit() {
            // The queue may never run empty. One pong for each send, so a peer that takes nothing adds nothing.
            wire.codec.poll_transmit(&mut shared.masks, &mut shared.out);
            shared.enqueue_out(wire, SegmentKind::Stream);
        }
        shared.list_for_parcels(wire, token);
        if conn.wire.is_flushed()
            && conn.wire.phase == Phase::Open
            && let Some(pending) = &mut conn.wire.pending
            && let missed @ 1.. = std::mem::take(&mut pending.missed)
        {
            call(handler, conn, shared, token, Event::Missed(missed));
        }
        if conn.wire.is_drained() {
            shared.list(&mut conn.wire, token);
        }
        self.after_work(token);
    }

    /// Tells the handler that nothing waits any more. It comes by the list, once in a turn: a handler that sends more
    /// at once, to a peer that takes it at once, would otherwise keep the turn from its end.
    fn tell_drained(&mut self, token: Token) {
        let Self { conns, shared, handler, .. } = self;
        let Some(conn) = conns.get_mut(token).filter(|conn| conn.wire.is_drained()) else { return };
        conn.wire.release(Flags::BACKLOGGED, shared.now);
        if conn.wire.phase == Phase::Open {
            call(handler, conn, shared, token, Event::Drain);
        }
    }

    /// Takes the next segment of the queue.
    fn send_next(driver: &mut D, wire: &mut Wire, shared: &mut Shared, token: Token) {
        if wire.flags.contains(Flags::LAYERED) {
            return Self::send_layered(driver, wire, shared, token);
        }
        let queue = wire.pending.as_mut().map(|pending| &mut pending.queue);
        let Some(data) = queue.and_then(|queue| queue.pop_batch(&mut shared.pool)) else { return };
        Self::submit_send(driver, wire, shared, token, data);
    }

    #[inline]
    pub(super) fn submit_send(
        driver: &mut D,
        wire: &mut Wire,
        shared: &mut Shared,
        token: Token,
        data: Output,
    ) {
        shared.ledger.in_flight += data.own_len();
        let buffer = SendBuffer::new(data);
        wire.flags.insert(Flags::SENDING);
        wire.sent = shared.now;
        wire.in_flight = in_flight(&buffer);
        driver.submit(Op::Send { token, buffer });
    }

    /// Starts or stops receiving.
    pub(super) fn sync_receive(driver: &mut D, wire: &mut Wire, shared: &mut Shared, token: Token) {
        wire.flags.toggle(Flags::RECEIVING);
        if !wire.flags.contains(Flags::RECEIVING) {
            return driver.submit(Op::StopReceive { token });
        }
        if wire.phase == Phase::Open {
            // Silence counts from here on: it was this side that did not read.
            wire.note_received(shared.now);
            shared.set_deadline(wire, token);
        }
        driver.submit(Op::Receive { token });
    }

    /// The rest of [`after_work`](Self::after_work) for connections that are not simply open and idle.
    fn after_unusual_work(&mut self, token: Token) {
        self.go_on(token);
        if let Some(conn) = self.conns.get_mut(token) {
            self.shared.recharge(&mut conn.wire);
        }
    }

    /// The next step of a connection, whatever its phase.
    fn go_on(&mut self, token: Token) {
        let Self { conns, shared, .. } = self;
        let Some(conn) = conns.get_mut(token) else { return };
        let wire = &mut conn.wire;
        match wire.phase {
            Phase::Open => {
                if wire.has_unread() {
                    if wire.may_deliver() {
                        shared.list_unread(wire, token);
                    }
                } else if wire.has_said_all() {
                    self.half_closed.push(token);
                }
                if !wire.is_flushed() {
                    shared.set_stall_deadline(wire, token);
                }
                shared.tidy(wire);
            }
            Phase::Closing | Phase::Flushing | Phase::Lingering => self.go_on_closing(token),
            Phase::Idle => self.after_idle_work(token),
            Phase::Vacant | Phase::Proxied | Phase::Handshake | Phase::Deferred | Phase::Closed => {
            }
        }
    }
}

impl Wire {
    /// Whether the handler is to be told that nothing waits any more.
    fn is_drained(&self) -> bool {
        self.flags.contains(Flags::BACKLOGGED) && self.is_flushed()
    }
}

fn in_flight(buffer: &SendBuffer) -> u32 {
    u32::try_from(buffer.remaining().len()).unwrap_or(u32::MAX)
}
