//! What a kernel and a driver do for a token: the state of sockets, and completions on their way.
//!
//! It also holds the driver's user to the contract: whoever breaks it panics here.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use super::network::{Event, LinkId, Network};
use super::stream::Stream;
use crate::driver::{LONG_FACTOR, MAX_SLOT, SendBuffer, Token};

/// More endings than this at one point of time are a loop that would spin.
const MAX_ACCEPT_ENDINGS: u32 = 8;

#[derive(Debug)]
pub(super) enum Outcome {
    Accepted(LinkId),
    AcceptEnded(i32),
    Left,
    Received(Vec<u8>),
    ReceiveEnded(Option<i32>),
    Sent(SendBuffer, Result<usize, i32>),
    Closed,
}

#[derive(Debug, Default)]
struct Listener {
    /// The user asked for connections, and was not told of an end.
    wanted: bool,
    armed: bool,
    exhausted_until: Duration,
    last_ending: Duration,
    endings: u32,
}

#[derive(Debug)]
struct Socket {
    token: Token,
    link: LinkId,
    /// The user asked for bytes, and neither stopped nor was told of an end.
    wanted: bool,
    armed: bool,
    /// So much of a message is to come.
    expected: u64,
    /// The end of receiving is on its way to the user.
    ending: bool,
    /// The user knows that receiving ended.
    ended: bool,
    send: Option<SendBuffer>,
    /// From the user's send until it has the completion.
    sending: bool,
    shut: bool,
    closing: bool,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Kernel {
    listeners: Vec<Listener>,
    /// By slot.
    sockets: BTreeMap<u32, Socket>,
    slots: BTreeMap<LinkId, u32>,
    /// The generation that last used a slot.
    retired: BTreeMap<u32, u32>,
    streams: BTreeMap<Stream, VecDeque<(Duration, Outcome)>>,
    /// Streams whose first completion can be taken. Each stream stands here once, or an event does.
    due: VecDeque<Stream>,
    buffers_free: usize,
    /// Links with bytes for which there was no buffer.
    starved: VecDeque<LinkId>,
}

impl Kernel {
    pub(super) fn new(listeners: usize, buffers: usize) -> Self {
        Self {
            listeners: (0..listeners).map(|_| Listener::default()).collect(),
            sockets: BTreeMap::new(),
            slots: BTreeMap::new(),
            retired: BTreeMap::new(),
            streams: BTreeMap::new(),
            due: VecDeque::new(),
            buffers_free: buffers,
            starved: VecDeque::new(),
        }
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub(super) fn accept(&mut self, network: &mut Network, listener: usize) {
        let entry = &mut self.listeners[listener];
        assert!(network.is_listening(listener), "listener {listener} was closed");
        assert!(!entry.wanted, "listener {listener} accepts already");
        (entry.wanted, entry.armed) = (true, true);
        if !network.random.chance(network.faults.deferred_submit) {
            self.look_at_listener(network, listener);
        }
    }

    pub(super) fn stop_accept(&mut self, network: &Network, listener: usize) {
        assert!(network.is_listening(listener), "listener {listener} was closed");
        let entry = &mut self.listeners[listener];
        (entry.wanted, entry.armed) = (false, false);
    }

    /// Stops accepting for good; what was accepted is reported first, with what waits if `takes_rest`.
    pub(super) fn leave(&mut self, network: &mut Network, listener: usize, takes_rest: bool) {
        self.stop_accept(network, listener);
        while takes_rest && let Some(link) = network.take_waiting(listener) {
            network.sockets_open += 1;
            self.push(network, Stream::Accept(listener), Outcome::Accepted(link));
        }
        self.push(network, Stream::Accept(listener), Outcome::Left);
    }

    pub(super) fn open(&mut self, token: Token, link: LinkId) {
        assert!(token.slot <= MAX_SLOT, "{token:?} is out of range");
        assert!(!self.sockets.contains_key(&token.slot), "{token:?} was not closed yet");
        assert_ne!(self.retired.get(&token.slot), Some(&token.generation), "{token:?} was used");
        self.slots.insert(link, token.slot);
        let socket = Socket {
            token,
            link,
            wanted: false,
            armed: false,
            expected: 0,
            ending: false,
            ended: false,
            send: None,
            sending: false,
            shut: false,
            closing: false,
            closed: false,
        };
        self.sockets.insert(token.slot, socket);
    }

    pub(super) fn receive(&mut self, network: &mut Network, token: Token) {
        let socket = self.socket(token);
        assert!(!socket.wanted, "{token:?} receives already");
        assert!(!socket.ended, "{token:?} was told that nothing more will be received");
        (socket.wanted, socket.armed) = (true, true);
        self.submitted(network, token);
    }

    pub(super) fn expect(&mut self, token: Token, len: u64) {
        self.socket(token).expected = len;
    }

    pub(super) fn stop_receive(&mut self, network: &mut Network, token: Token) {
        let socket = self.socket(token);
        socket.wanted = false;
        if network.random.chance(network.faults.late_stop) {
            let at = network.clock + network.random.up_to(network.faults.max_delay);
            network.schedule(at, Event::Stop { link: socket.link });
        } else {
            socket.armed = false;
        }
    }

    pub(super) fn send(&mut self, network: &mut Network, token: Token, buffer: SendBuffer) {
        let socket = self.socket(token);
        assert!(!socket.sending, "{token:?} has a send in flight");
        assert!(!socket.shut, "{token:?} was shut down");
        assert!(!buffer.is_empty(), "{token:?} sends nothing");
        socket.sending = true;
        socket.send = Some(buffer);
        self.submitted(network, token);
    }

    /// Sends as much as there is room for, if that. A broken connection takes nothing.
    pub(super) fn send_now(
        &self,
        network: &mut Network,
        token: Token,
        pieces: [&[u8]; 2],
    ) -> usize {
        let socket = match self.sockets.get(&token.slot) {
            Some(socket) if socket.token == token && !socket.closing => socket,
            _ => panic!("{token:?} is not open"),
        };
        assert!(!socket.sending, "{token:?} has a send in flight");
        assert!(!socket.shut, "{token:?} was shut down");
        let link = &network.links[socket.link];
        let bytes = pieces.concat();
        let room = if link.failure.is_some() { 0 } else { link.room().min(bytes.len()) };
        if room == 0 || network.random.chance(network.faults.stall_send) {
            return 0;
        }
        let count = if network.random.chance(network.faults.short_send) {
            network.random.part_of(room)
        } else {
            room
        };
        network.send(socket.link, &bytes[..count]);
        count
    }

    pub(super) fn shutdown(&mut self, network: &mut Network, token: Token) {
        let socket = self.socket(token);
        assert!(!socket.sending, "{token:?} has a send in flight");
        assert!(!socket.shut, "{token:?} was shut down before");
        socket.shut = true;
        self.submitted(network, token);
    }

    pub(super) fn close(&mut self, network: &mut Network, token: Token) {
        self.socket(token).closing = true;
        self.submitted(network, token);
    }

    /// Sends of which something is left.
    pub(super) fn stuck_count(&self) -> usize {
        self.sockets.values().filter(|socket| socket.send.is_some()).count()
    }

    /// Bytes that came in for sockets whose receive was stopped, and were not reported yet.
    pub(super) fn held_len(&self) -> usize {
        self.sockets.keys().map(|slot| self.held_of(*slot)).sum()
    }

    /// Those of one socket.
    pub(super) fn held_of(&self, slot: u32) -> usize {
        let Some(socket) = self.sockets.get(&slot).filter(|socket| !socket.wanted) else {
            return 0;
        };
        let stream = self.streams.get(&Stream::Receive(socket.token));
        let outcomes = stream.into_iter().flatten();
        outcomes.map(|(_, it)| if let Outcome::Received(data) = it { data.len() } else { 0 }).sum()
    }

    /// The link of a token, while it is open.
    pub(super) fn link_of(&self, token: Token) -> Option<LinkId> {
        let socket = self.sockets.get(&token.slot)?;
        (socket.token == token && !socket.closed).then_some(socket.link)
    }

    /// The socket of a token that the user may name.
    fn socket(&mut self, token: Token) -> &mut Socket {
        match self.sockets.get_mut(&token.slot) {
            Some(socket) if socket.token == token && !socket.closing => socket,
            Some(socket) if socket.token == token => panic!("{token:?} is being closed"),
            _ => panic!("{token:?} is not open"),
        }
    }

    fn submitted(&mut self, network: &mut Network, token: Token) {
        let link = self.sockets[&token.slot].link;
        if network.random.chance(network.faults.deferred_submit) {
            network.touch(link);
        } else {
            self.look_at(network, link);
        }
    }

    /// Gives a receive buffer back.
    pub(super) fn release(&mut self, network: &mut Network) {
        self.buffers_free += 1;
        for link in self.starved.drain(..) {
            network.touch(link);
        }
    }

    /// Carries out an event of a driver's own.
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Due(stream) if self.streams.contains_key(&stream) => self.due.push_back(stream),
            Event::Stop { link } => {
                if let Some(socket) =
                    self.slots.get(&link).and_then(|slot| self.sockets.get_mut(slot))
                {
                    socket.armed = socket.wanted;
                }
            }
            _ => {}
        }
    }

    /// Does what can be done for every socket at which something happened.
    pub(super) fn look(&mut self, network: &mut Network) {
        while let Some(link) = network.next_touched() {
            self.look_at(network, link);
        }
        for listener in 0..self.listeners.len() {
            self.look_at_listener(network, listener);
        }
    }

    fn look_at_listener(&mut self, network: &mut Network, listener: usize) {
        while self.listeners[listener].armed && network.has_waiting(listener) {
            let stream = Stream::Accept(listener);
            if self.out_of_descriptors(network, listener) {
                self.push(network, stream, Outcome::AcceptEnded(libc::EMFILE));
            } else if let Some(link) = network.take_waiting(listener) {
                network.sockets_open += 1;
                self.push(network, stream, Outcome::Accepted(link));
            }
        }
    }

    fn out_of_descriptors(&mut self, network: &mut Network, listener: usize) -> bool {
        let entry = &mut self.listeners[listener];
        if network.clock >= entry.exhausted_until
            && network.random.chance(network.faults.accept_error)
        {
            let longest = network.faults.max_delay * 10;
            entry.exhausted_until =
                network.clock + Duration::from_micros(1) + network.random.up_to(longest);
        }
        if network.clock >= entry.exhausted_until {
            return false;
        }
        entry.armed = false;
        entry.endings = if entry.last_ending == network.clock { entry.endings + 1 } else { 1 };
        entry.last_ending = network.clock;
        assert!(entry.endings <= MAX_ACCEPT_ENDINGS, "listener {listener} is armed in a loop");
        true
    }

    fn look_at(&mut self, network: &mut Network, link: LinkId) {
        let Some(slot) = self.slots.get(&link) else { return };
        let slot = *slot;
        if self.sockets[&slot].closed {
            return;
        }
        if self.sockets[&slot].closing {
            self.finish_close(network, slot);
            return;
        }
        self.try_send(network, slot);
        if self.sockets[&slot].shut {
            network.shut(link);
        }
        self.try_receive(network, slot);
    }

    fn try_send(&mut self, network: &mut Network, slot: u32) {
        let Some(socket) = self.sockets.get_mut(&slot) else { return };
        let (token, link) = (socket.token, socket.link);
        let Some(mut buffer) = socket.send.take() else { return };
        if let Some(errno) = network.links[link].failure {
            self.push(network, Stream::Send(token), Outcome::Sent(buffer, Err(errno)));
            return;
        }
        let room = network.links[link].room().min(buffer.remaining().len());
        if room == 0 {
            socket.send = Some(buffer);
            return;
        }
        if network.random.chance(network.faults.stall_send) {
            socket.send = Some(buffer);
            let at = network.clock + network.random.up_to(network.faults.max_delay);
            network.schedule(at, Event::Nudge { link });
            return;
        }
        let count = if network.random.chance(network.faults.short_send) {
            network.random.part_of(room)
        } else {
            room
        };
        network.send(link, &buffer.remaining()[..count]);
        buffer.advance(count);
        self.push(network, Stream::Send(token), Outcome::Sent(buffer, Ok(count)));
    }

    fn try_receive(&mut self, network: &mut Network, slot: u32) {
        let Some(socket) = self.sockets.get_mut(&slot) else { return };
        let (token, link) = (socket.token, socket.link);
        if !socket.armed || socket.ending {
            return;
        }
        let usual = network.faults.receive_buffer_len;
        let mut longest = if socket.expected > usual as u64 { usual * LONG_FACTOR } else { usual };
        let stream = Stream::Receive(token);
        while !network.links[link].arrived.is_empty() {
            if self.buffers_free == 0 {
                if !self.starved.contains(&link) {
                    self.starved.push_back(link);
                }
                return;
            }
            if network.random.chance(network.faults.no_buffer) {
                let at = network.clock + network.random.up_to(network.faults.max_delay);
                network.schedule(at, Event::Nudge { link });
                return;
            }
            self.buffers_free -= 1;
            let most = network.links[link].arrived.len().min(longest);
            longest = usual;
            let count = network.piece(most);
            network.longest_receive = network.longest_receive.max(count);
            let end = &mut network.links[link];
            end.unread -= count;
            let bytes = end.arrived.drain(..count).collect();
            self.push(network, stream, Outcome::Received(bytes));
            self.sockets.entry(slot).and_modify(|socket| socket.expected = 0);
        }
        let end = &network.links[link];
        if end.failure.is_some() || end.fin_arrived {
            let failure = end.failure;
            self.push(network, stream, Outcome::ReceiveEnded(failure));
            self.sockets.entry(slot).and_modify(|socket| socket.ending = true);
        }
    }

    fn finish_close(&mut self, network: &mut Network, slot: u32) {
        let Some(socket) = self.sockets.get_mut(&slot) else { return };
        socket.closed = true;
        let (token, link) = (socket.token, socket.link);
        let (send, receiving) = (socket.send.take(), socket.armed && !socket.ending);
        network.close(link);
        network.sockets_open -= 1;
        self.starved.retain(|starved| *starved != link);

        // All that is left of the token comes before `Closed`, so it joins the same stream.
        let last = Stream::Send(token);
        self.due.retain(|stream| *stream != Stream::Receive(token));
        for (at, outcome) in self.streams.remove(&Stream::Receive(token)).into_iter().flatten() {
            self.push_at(network, last, at, outcome);
        }
        if receiving && network.random.chance(network.faults.report_cancelled) {
            self.push(network, last, Outcome::ReceiveEnded(Some(libc::ECANCELED)));
        }
        if let Some(buffer) = send {
            self.push(network, last, Outcome::Sent(buffer, Err(libc::ECANCELED)));
        }
        self.push(network, last, Outcome::Closed);
    }

    fn push(&mut self, network: &mut Network, stream: Stream, outcome: Outcome) {
        let late = network.random.chance(network.faults.late_completion);
        let delay =
            if late { network.random.up_to(network.faults.max_delay) } else { Duration::ZERO };
        self.push_at(network, stream, network.clock + delay, outcome);
    }

    fn push_at(&mut self, network: &mut Network, stream: Stream, at: Duration, outcome: Outcome) {
        let queue = self.streams.entry(stream).or_default();
        let at = queue.back().map_or(at, |(before, _)| at.max(*before));
        queue.push_back((at, outcome));
        if queue.len() == 1 {
            self.announce(network, stream, at);
        }
    }

    fn announce(&mut self, network: &mut Network, stream: Stream, at: Duration) {
        if at <= network.clock {
            self.due.push_back(stream);
        } else {
            network.schedule(at, Event::Due(stream));
        }
    }

    /// Takes a completion that is due.
    pub(super) fn take(&mut self, network: &mut Network) -> Option<(Stream, Outcome)> {
        if self.due.is_empty() {
            return None;
        }
        let position = if network.random.chance(network.faults.reorder) {
            network.random.below(self.due.len())
        } else {
            0
        };
        let stream = self.due.remove(position)?;
        let queue = self.streams.get_mut(&stream)?;
        let (_, outcome) = queue.pop_front()?;
        match queue.front() {
            Some((at, _)) => {
                let at = *at;
                self.announce(network, stream, at);
            }
            None => drop(self.streams.remove(&stream)),
        }
        self.taken(network, stream, &outcome);
        Some((stream, outcome))
    }

    /// Notes what the user knows now.
    fn taken(&mut self, network: &mut Network, stream: Stream, outcome: &Outcome) {
        let token = match stream {
            Stream::Accept(listener) => {
                if matches!(outcome, Outcome::AcceptEnded(_)) {
                    self.listeners[listener].wanted = self.listeners[listener].armed;
                }
                return;
            }
            Stream::Receive(token) | Stream::Send(token) => token,
        };
        let socket = self.sockets.get_mut(&token.slot).expect("it is not closed");
        match outcome {
            Outcome::Received(_) => network.buffers_out += 1,
            Outcome::ReceiveEnded(_) => (socket.wanted, socket.ended) = (false, true),
            Outcome::Sent(..) => socket.sending = false,
            Outcome::Closed => {
                let link = socket.link;
                self.sockets.remove(&token.slot);
                self.slots.remove(&link);
                self.retired.insert(token.slot, token.generation);
            }
            Outcome::Accepted(_) | Outcome::AcceptEnded(_) | Outcome::Left => {}
        }
    }

    /// Closes what is left when the driver goes away.
    pub(super) fn end(&self, network: &mut Network) {
        let accepted = self.streams.values().flatten().filter_map(|(_, outcome)| match outcome {
            Outcome::Accepted(link) => Some(*link),
            _ => None,
        });
        let open = self.sockets.values().filter(|socket| !socket.closed).map(|socket| socket.link);
        for link in accepted.chain(open) {
            network.close(link);
            network.sockets_open -= 1;
        }
        for listener in 0..self.listeners.len() {
            network.close_listener(listener);
        }
    }
}

pub(super) fn result<T>(result: Result<T, i32>) -> io::Result<T> {
    result.map_err(io::Error::from_raw_os_error)
}
