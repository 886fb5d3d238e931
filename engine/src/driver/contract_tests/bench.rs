//! A worker in miniature: it takes completions, notes them, and checks what must hold for each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use super::harness::{FarEnd as _, Harness, LISTENERS};
use crate::base::output::Output;
use crate::driver::{Completion, Driver, ListenerId, Op, SendBuffer, Token};
use crate::net::Delivery;

/// No case takes longer, in real time or in virtual time.
const LONGEST: Duration = Duration::from_secs(60);
/// A turn's wait.
const TURN: Duration = Duration::from_millis(5);

pub(super) type Socket<H> = <<H as Harness>::Driver as Driver>::Socket;
type Buffer<H> = <<H as Harness>::Driver as Driver>::Buffer;

/// What became known about a token.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub received: Vec<u8>,
    pub receive_completions: usize,
    pub ended: Option<Result<(), io::ErrorKind>>,
    pub sending: bool,
    pub sent: usize,
    pub send_completions: usize,
    pub send_error: Option<io::ErrorKind>,
    /// The buffer of the last send.
    pub returned: Option<SendBuffer>,
    pub closed: bool,
    /// Send what comes in, at once.
    pub echo: bool,
    outbox: Vec<u8>,
    /// Send the rest when a send comes back in part.
    pub persistent: bool,
}

pub(super) struct Bench<H: Harness> {
    pub harness: H,
    pub peers: Vec<H::Peer>,
    pub accepted: VecDeque<(ListenerId, Socket<H>)>,
    pub left: Vec<ListenerId>,
    sockets: BTreeMap<Token, Seen>,
    accepting: [bool; LISTENERS],
    /// When accepting ended; it is started again a little later.
    accept_ended: [Option<Duration>; LISTENERS],
    /// Tokens whose buffers are kept instead of released.
    pub keep: Option<Token>,
    pub kept: Vec<Buffer<H>>,
    /// Tokens that no socket has. A send of theirs may come back as failed, and nothing else.
    pub unknown: BTreeSet<Token>,
    pub refused: Vec<SendBuffer>,
    next_slot: u32,
}

impl<H: Harness> Bench<H> {
    pub(super) fn new(harness: H) -> Self {
        Self {
            harness,
            peers: Vec::new(),
            accepted: VecDeque::new(),
            left: Vec::new(),
            sockets: BTreeMap::new(),
            accepting: [false; LISTENERS],
            accept_ended: [None; LISTENERS],
            keep: None,
            kept: Vec::new(),
            unknown: BTreeSet::new(),
            refused: Vec::new(),
            next_slot: 0,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.harness.now()
    }

    pub(super) fn delivery(&mut self, token: Token) -> Option<Delivery> {
        self.harness.driver().delivery(token)
    }

    pub(super) fn submit(&mut self, op: Op<Socket<H>>) {
        self.harness.driver().submit(op);
    }

    pub(super) fn accept(&mut self, listener: usize) {
        self.accepting[listener] = true;
        self.submit(Op::Accept { listener: listener_id(listener) });
    }

    pub(super) fn stop_accept(&mut self, listener: usize) {
        self.accepting[listener] = false;
        self.submit(Op::StopAccept { listener: listener_id(listener) });
    }

    pub(super) fn leave_listener(&mut self, listener: usize, takes_rest: bool, keeps: bool) {
        self.accepting[listener] = false;
        let listener = listener_id(listener);
        self.submit(Op::LeaveListener { listener, takes_rest, keeps });
    }

    pub(super) fn close_listener(&mut self, listener: usize) {
        self.accepting[listener] = false;
        self.submit(Op::CloseListener { listener: listener_id(listener) });
    }

    /// A fresh connection under a fresh token, and the index of its peer.
    pub(super) fn open(&mut self) -> (Token, usize) {
        let token = Token { slot: self.next_slot, generation: 0 };
        self.next_slot += 1;
        let peer = self.open_as(token);
        (token, peer)
    }

    pub(super) fn open_as(&mut self, token: Token) -> usize {
        if !self.accepting[0] {
            self.accept(0);
        }
        let peer = self.connect(0);
        self.until("the connection is accepted", |bench| !bench.accepted.is_empty());
        let (_, socket) = self.accepted.pop_front().unwrap();
        self.take(token, socket);
        peer
    }

    pub(super) fn connect(&mut self, listener: usize) -> usize {
        let peer = self.harness.connect(listener);
        self.peers.push(peer);
        self.peers.len() - 1
    }

    pub(super) fn take(&mut self, token: Token, socket: Socket<H>) {
        self.sockets.insert(token, Seen::default());
        self.submit(Op::Open { token, socket });
    }

    pub(super) fn receive(&mut self, token: Token) {
        self.submit(Op::Receive { token });
    }

    pub(super) fn expect(&mut self, token: Token, len: usize) {
        self.harness.driver().expect(token, len as u64);
    }

    pub(super) fn send(&mut self, token: Token, bytes: &[u8]) {
        self.send_buffer(token, SendBuffer::new(Output::Own(bytes.to_vec())));
    }

    pub(super) fn send_buffer(&mut self, token: Token, buffer: SendBuffer) {
        self.see(token).sending = true;
        self.submit(Op::Send { token, buffer });
    }

    pub(super) fn close(&mut self, token: Token) {
        self.submit(Op::Close { token });
        self.until("the token is forgotten", |bench| bench.seen(token).closed);
    }

    pub(super) fn seen(&self, token: Token) -> &Seen {
        &self.sockets[&token]
    }

    pub(super) fn see(&mut self, token: Token) -> &mut Seen {
        self.sockets.get_mut(&token).expect("the token was opened")
    }

    /// Turns until it holds.
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let start = self.now();
        while !holds(self) {
            assert!(self.now() - start < LONGEST, "it never came to be that {what}");
            self.turn(TURN);
        }
    }

    /// Turns for a while, long enough for whatever is on its way.
    pub(super) fn turn_for(&mut self, duration: Duration) {
        let end = self.now() + duration;
        while self.now() < end {
            self.turn(TURN);
        }
    }

    pub(super) fn turn(&mut self, timeout: Duration) {
        if self.harness.has_ended() {
            self.harness.go_on();
        } else {
            self.restart_accept();
            self.harness.driver().wait(Some(timeout)).unwrap();
            while let Some(completion) = self.harness.driver().next_completion() {
                self.note(completion);
            }
        }
        for peer in &mut self.peers {
            peer.poll();
        }
    }

    fn restart_accept(&mut self) {
        let now = self.now();
        for listener in 0..LISTENERS {
            let ended = &mut self.accept_ended[listener];
            if self.accepting[listener] && ended.is_some_and(|ended| ended < now) {
                *ended = None;
                self.submit(Op::Accept { listener: listener_id(listener) });
            }
        }
    }

    fn note(&mut self, completion: Completion<Buffer<H>, Socket<H>>) {
        match completion {
            Completion::Accepted { listener, socket, .. } => {
                self.accepted.push_back((listener, socket));
            }
            Completion::AcceptEnded { listener, .. } => {
                let now = self.now();
                self.accept_ended[usize::try_from(listener.0).unwrap()] = Some(now);
            }
            Completion::ListenerLeft { listener } => self.left.push(listener),
            Completion::Received { token, buffer } => self.note_received(token, buffer),
            Completion::ReceiveEnded { token, result } => {
                let seen = self.live(token);
                assert_eq!(seen.ended, None, "{token:?} ended twice");
                seen.ended = Some(result.map_err(|error| checked(&error)));
            }
            Completion::Sent { token, buffer, result } => self.note_sent(token, buffer, result),
            Completion::Closed { token } => {
                let seen = self.live(token);
                assert!(!seen.sending, "{token:?} was closed before its send came back");
                seen.closed = true;
            }
        }
    }

    fn note_received(&mut self, token: Token, buffer: Buffer<H>) {
        let seen = self.live(token);
        assert!(!buffer.is_empty(), "{token:?} received nothing");
        assert_eq!(seen.ended, None, "{token:?} received something after the end");
        seen.received.extend(&*buffer);
        seen.receive_completions += 1;
        if seen.echo {
            seen.outbox.extend(&*buffer);
        }
        if self.keep == Some(token) {
            self.kept.push(buffer);
        } else {
            self.harness.driver().release(buffer);
        }
        self.send_outbox(token);
    }

    fn note_sent(&mut self, token: Token, buffer: SendBuffer, result: io::Result<usize>) {
        if self.unknown.contains(&token) {
            checked(&result.expect_err("nobody can have sent it"));
            return self.refused.push(buffer);
        }
        let seen = self.live(token);
        assert!(seen.sending, "{token:?} sent nothing");
        seen.sending = false;
        seen.send_completions += 1;
        match result {
            Ok(count) => {
                assert_ne!(count, 0, "a send went out with nothing");
                seen.sent += count;
            }
            Err(error) => seen.send_error = Some(checked(&error)),
        }
        if !buffer.is_empty() && seen.send_error.is_none() && (seen.echo || seen.persistent) {
            self.send_buffer(token, buffer);
        } else {
            seen.returned = Some(buffer);
            self.send_outbox(token);
        }
    }

    fn send_outbox(&mut self, token: Token) {
        let seen = self.see(token);
        if !seen.sending && !seen.outbox.is_empty() && seen.send_error.is_none() {
            let bytes = std::mem::take(&mut seen.outbox);
            self.send(token, &bytes);
        }
    }

    fn live(&mut self, token: Token) -> &mut Seen {
        let seen = self.sockets.get_mut(&token).expect("a completion names an open token");
        assert!(!seen.closed, "a completion came after {token:?} was closed");
        seen
    }

    /// Closes everything unless the driver is gone, and checks that nothing is left.
    pub(super) fn finish(mut self) {
        if self.harness.has_ended() {
            return;
        }
        self.keep = None;
        let kept = std::mem::take(&mut self.kept);
        for buffer in kept {
            self.harness.driver().release(buffer);
        }
        for listener in 0..LISTENERS {
            if std::mem::take(&mut self.accepting[listener]) {
                self.submit(Op::StopAccept { listener: listener_id(listener) });
            }
        }
        let open = self.sockets.iter().filter(|(_, seen)| !seen.closed);
        for token in open.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.see(token).echo = false;
            self.see(token).persistent = false;
            self.close(token);
        }
        self.turn_for(Duration::from_millis(20));
        self.accepted.clear();
        self.harness.check_nothing_leaked();
    }
}

fn listener_id(index: usize) -> ListenerId {
    ListenerId(u32::try_from(index).unwrap())
}

/// The kind of an error that a driver may report.
fn checked(error: &io::Error) -> io::ErrorKind {
    assert!(
        !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            && error.raw_os_error() != Some(libc::ENOBUFS),
        "{error} left the driver"
    );
    error.kind()
}

/// Bytes that differ along their length, so that loss and reordering show.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from((index * 31 + (index >> 8) * 7) % 251).unwrap()).collect()
}
