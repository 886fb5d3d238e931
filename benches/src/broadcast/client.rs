//! One connection of the load: the publisher, or a subscriber.

use mio::event::Event;

use super::order::{Disorder, Order};
use super::publications::Publications;
use crate::echo::{Buffers, CONTROL, Control, Failure, Opener, Received, Socket, Ticks};

/// A socket and what it has got so far.
pub(crate) struct Client {
    socket: Socket,
    subscribes: bool,
    order: Order,
    /// The start of a delivery whose end has not arrived.
    partial: Vec<u8>,
    control: Option<Box<Control>>,
}

/// What the deliveries of a load come to.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    pub(crate) count: u64,
    pub(crate) disorder: Disorder,
    /// When the last of them was read.
    pub(crate) at: Option<Ticks>,
}

impl Client {
    /// One that is being dialled.
    pub(crate) fn new(socket: Socket, subscribes: bool) -> Self {
        Self { socket, subscribes, order: Order::default(), partial: Vec::new(), control: None }
    }

    /// Whether it is connected and upgraded.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_open()
    }

    /// The number of the publication that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.order.next()
    }

    /// Handles readiness. Whether the connection became open.
    pub(crate) fn on_event(
        &mut self,
        event: &Event,
        opener: &mut Opener,
        buffers: &mut Buffers,
        publications: &mut Publications,
        deliveries: &mut Deliveries,
    ) -> Result<bool, Failure> {
        let mut is_new = self.socket.connect(opener, buffers)?;
        let ends = event.is_read_closed();
        let mut reads = event.is_readable() || ends;
        while reads {
            let received = self.socket.receive(ends, opener, buffers)?;
            let Some(Received { bytes, at, opened, is_last }) = received else { break };
            is_new |= opened.is_some();
            deliveries.at = Some(at);
            self.take(bytes, publications, deliveries)?;
            reads = !is_last;
        }
        if self.subscribes && self.control.as_ref().is_some_and(|control| control.has_pong()) {
            self.socket.send_control(&mut self.control, buffers)?;
        }
        if self.socket.has_unsent() {
            self.socket.flush(buffers)?;
        }
        Ok(is_new)
    }

    /// Sends messages from `out`, from `sent` on, as far as the socket takes them, and the pong that is owed. Whether
    /// all went out.
    pub(crate) fn send(
        &mut self,
        out: &[u8],
        sent: &mut usize,
        buffers: &mut Buffers,
    ) -> Result<bool, Failure> {
        // A pong goes between two messages.
        if *sent == 0 && !self.socket.send_control(&mut self.control, buffers)? {
            return Ok(false);
        }
        while let Some(left @ [_, ..]) = out.get(*sent..) {
            let Some(taken) = self.socket.send(left, buffers)? else { return Ok(false) };
            *sent += taken;
        }
        Ok(true)
    }

    /// Takes in what has arrived, of which every frame has to be a delivery.
    fn take(
        &mut self,
        mut bytes: &[u8],
        publications: &mut Publications,
        deliveries: &mut Deliveries,
    ) -> Result<(), Failure> {
        while let Some(first) = bytes.first() {
            let in_control = self.control.as_ref().is_some_and(|control| control.is_receiving());
            if in_control || (self.partial.is_empty() && CONTROL.contains(first)) {
                self.control.get_or_insert_default().receive(&mut bytes)?;
                continue;
            }
            if !self.subscribes && !publications.may_be_others() {
                return Err(Failure::ToPublisher);
            }
            if self.partial.is_empty()
                && let Some(len) = publications.frame_len(bytes)
                && let Some(frame) = bytes.split_off(..len)
            {
                self.deliver(publications.check(frame)?, publications, deliveries)?;
                continue;
            }
            // A header comes byte by byte.
            let missing = publications.frame_len(&self.partial);
            let missing = missing.map_or(1, |len| len - self.partial.len());
            let len = bytes.len().min(missing);
            self.partial.extend_from_slice(bytes.split_off(..len).unwrap_or_default());
            if !publications.begins(&self.partial) {
                return Err(Failure::HeaderMismatch);
            }
            if publications.frame_len(&self.partial) == Some(self.partial.len()) {
                let number = publications.check(&self.partial)?;
                self.partial.clear();
                self.deliver(number, publications, deliveries)?;
            }
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        number: Option<u64>,
        publications: &mut Publications,
        deliveries: &mut Deliveries,
    ) -> Result<(), Failure> {
        let Some(number) = number else { return Ok(()) };
        if !self.subscribes {
            return Err(Failure::ToPublisher);
        }
        let next = self.order.next();
        self.order.deliver(number, &mut deliveries.disorder);
        deliveries.count += 1;
        publications.pass(next..self.order.next());
        Ok(())
    }
}
