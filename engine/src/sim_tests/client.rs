//! A client: it follows a plan, and compares all that comes with what must.

#![expect(clippy::disallowed_types, reason = "a connection is adopted as a stream")]

use std::net::TcpStream;
use std::time::Duration;

use ringwire_codec::deflate::{Agreement, Compressor, Decompressor, Inflate, Level, Offer};
use ringwire_codec::handshake::client::{Request, Response};
use ringwire_codec::handshake::{HeadLimits, HeadScanner};
use ringwire_codec::{CloseCode, CloseState, Connection, Event, Heap, Input, Masks, Message, Role};

use super::app::{Entry, Log, Said};
use super::plan::{Ending, Entrance, Plan, Speech};
use super::secure::Secured;
use crate::driver::sim::{Peer, Random, World};
use crate::{Accept, Handle};

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Has not connected yet.
    Absent,
    /// Waits for the answer to its request.
    Asking,
    Open,
    /// Has done what ends it, and waits for the other side.
    Ending,
    /// Was refused.
    Refused,
    /// The connection has ended.
    Gone,
}

pub(super) struct Client {
    pub number: usize,
    pub plan: Plan,
    pub stage: Stage,
    /// The answer to its request was a refusal.
    pub refused: bool,
    /// What it sent, whole.
    pub said: Vec<Said>,
    /// How many of the application's messages it has heard.
    pub heard: usize,
    /// The close frame that came.
    pub farewell: Option<(Option<CloseCode>, String)>,
    /// Messages that were posted for it from outside, and those of them that came.
    pub pushed: usize,
    pub pushes: usize,
    pub pings: usize,
    pub ponged: usize,
    /// When it acts next.
    pub at: Duration,
    pub reads_at: Duration,
    /// Reads no more than so many bytes in a tenth of a second, if it says so. 0: nothing.
    pub reads: Option<usize>,
    keys: Option<usize>,
    /// How often it goes on after its close frame.
    late: usize,
    random: Random,
    masks: Masks,
    peer: Option<Peer>,
    codec: Connection,
    request: Request,
    head: Vec<u8>,
    scanner: HeadScanner,
    pub deflate: Option<Deflated>,
    tls: Option<Secured>,
    /// It sent what is no TLS record.
    pub broke_tls: bool,
    /// The stream ended without close_notify.
    pub truncated: bool,
    /// How probable it is that it compresses a message, if that was agreed on.
    pub compresses: f64,
}

impl Client {
    pub(super) fn new(number: usize, plan: Plan, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        let mut mask_seed = [0; 32];
        random.fill(&mut mask_seed);
        let target = format!("/{number}?{}", plan.query);
        let at = random.up_to(plan.pace);
        Self {
            number,
            stage: Stage::Absent,
            refused: false,
            said: Vec::new(),
            heard: 0,
            farewell: None,
            pushed: 0,
            pushes: 0,
            pings: 0,
            ponged: 0,
            at,
            reads_at: Duration::ZERO,
            reads: None,
            keys: None,
            late: 0,
            random,
            masks: Masks::new(mask_seed),
            peer: None,
            codec: Connection::new(Role::Client),
            request: request(&target, nonce, plan.offer),
            deflate: None,
            head: Vec::new(),
            scanner: HeadScanner::default(),
            tls: None,
            broke_tls: false,
            truncated: false,
            compresses: 0.7,
            plan,
        }
    }

    /// Whether it waits for nothing but the server's shutdown.
    pub(super) fn is_settled(&self) -> bool {
        match self.stage {
            // The server may not have noticed yet.
            Stage::Gone => self.peer().is_closed(),
            Stage::Refused => true,
            Stage::Open => self.plan.ending == Ending::Stay && self.plan.speeches.is_empty(),
            Stage::Absent | Stage::Asking | Stage::Ending => false,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        self.peer.as_ref().expect("it has connected")
    }

    // What it does

    /// Does what its plan says for now.
    pub(super) fn act(&mut self, world: &World, handle: &Handle, log: &mut Log) {
        if world.clock() < self.at {
            return;
        }
        let entry = &log.clients[self.number];
        let works = match self.stage {
            Stage::Absent => true,
            Stage::Asking => entry.deferred,
            Stage::Open => entry.paused || !self.is_settled(),
            Stage::Ending => entry.paused || self.late > 0,
            Stage::Gone => entry.paused,
            Stage::Refused => false,
        };
        if !works {
            return;
        }
        self.resume(handle, &mut log.clients[self.number]);
        match self.stage {
            Stage::Absent => self.enter(world, handle),
            Stage::Asking => self.answer_own_request(handle, log),
            Stage::Open if !self.is_settled() => self.speak_or_end(handle, log),
            Stage::Ending if self.late > 0 => self.go_on_after_closing(),
            Stage::Open | Stage::Ending | Stage::Refused | Stage::Gone => {}
        }
        self.at = world.clock() + self.random.up_to(self.plan.pace);
        world.alarm(self.at);
    }

    fn enter(&mut self, world: &World, handle: &Handle) {
        let mut hello = Vec::new();
        if self.plan.entrance == Entrance::Upgraded {
            self.stage = Stage::Open;
        } else {
            self.request.encode(&mut hello);
            self.stage = Stage::Asking;
        }
        if self.plan.ending == Ending::HalfAsk {
            hello.truncate(self.random.below(hello.len()));
            self.stage = Stage::Ending;
        }
        let listener = match self.plan.entrance {
            Entrance::Connect => Some(0),
            Entrance::Secure => Some(1),
            Entrance::Adopted | Entrance::Upgraded => None,
        };
        if let Some(listener) = listener {
            self.peer = Some(world.connect(listener));
            self.peer().set_window(self.plan.window);
            self.peer().set_receive_len(self.plan.receive_len);
            if self.plan.entrance == Entrance::Secure {
                self.begin_tls();
            }
            return self.write(&hello);
        }
        let (peer, fd) = world.adoptable();
        peer.set_window(self.plan.window);
        peer.set_receive_len(self.plan.receive_len);
        self.peer = Some(peer);
        let rest = hello.split_off(self.random.below(hello.len() + 1));
        let stream = TcpStream::from(fd);
        let adopted = if self.plan.entrance == Entrance::Upgraded {
            handle.adopt_upgraded(stream, hello, super::app::State::new(self.number))
        } else {
            handle.adopt(stream, hello)
        };
        if adopted.is_err() {
            self.stage = Stage::Gone;
        }
        self.write(&rest);
    }

    fn begin_tls(&mut self) {
        let (tls, mut hello) = Secured::begin();
        if self.plan.ending == Ending::HalfAsk && self.random.chance(0.3) {
            hello.truncate(self.random.below(hello.len()));
        }
        self.peer().write(&hello);
        self.tls = Some(tls);
    }

    fn write(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => {
                let sealed = tls.say(bytes);
                self.peer().write(&sealed);
            }
            None => self.peer().write(bytes),
        }
    }

    fn read(&mut self) -> Vec<u8> {
        let most = self.reads.filter(|_| self.stage != Stage::Asking);
        let bytes = self.peer().read_some(most.unwrap_or(usize::MAX));
        // An alert answers what is no TLS.
        let Some(tls) = self.tls.as_mut().filter(|_| !self.broke_tls) else { return bytes };
        let (plaintext, out) = tls.hear(bytes);
        self.peer().write(&out);
        plaintext
    }

    /// The application deferred the request: this is who makes up its mind.
    fn answer_own_request(&self, handle: &Handle, log: &mut Log) {
        let entry = &mut log.clients[self.number];
        if let Some(id) = entry.id.filter(|_| entry.deferred) {
            entry.deferred = false;
            let _ = if self.plan.query.contains("forbid") {
                handle.reject(id, crate::Response::new(http::StatusCode::FORBIDDEN))
            } else {
                handle.accept(id, Accept::new(super::app::State::new(self.number)))
            };
        }
    }

    /// The application paused: this is who has it go on.
    fn resume(&self, handle: &Handle, entry: &mut Entry) {
        if let Some(id) = entry.id.filter(|_| std::mem::take(&mut entry.paused)) {
            let _ = handle.resume(id);
        }
    }

    fn speak_or_end(&mut self, handle: &Handle, log: &mut Log) {
        let Some(speech) = self.plan.speeches.pop_front() else {
            return self.end();
        };
        match speech {
            Speech::Say(said) => self.say(said),
            Speech::Ping => {
                self.pings += 1;
                let payload = self.pings.to_string();
                self.send(|codec, masks, out| codec.send_ping(payload.as_bytes(), masks, out));
            }
            Speech::Push(len) => {
                let entry = &mut log.clients[self.number];
                if let Some(id) = entry.id {
                    entry.pushed = true;
                    let push = format!("push:{}:{}", self.pushed, "p".repeat(len));
                    self.pushed += usize::from(handle.send(id, push.as_str()).is_ok());
                }
            }
        }
    }

    fn say(&mut self, said: Said) {
        let cut = self.random.chance(0.3);
        let mut deflate = self.deflate.take();
        let compresses = |_: &&mut Deflated| self.random.chance(self.compresses);
        let compressor = deflate.as_mut().filter(compresses).map(|own| &mut own.compressor);
        self.say_in_parts(&said, cut, compressor);
        self.deflate = deflate;
        self.said.push(said);
    }

    fn say_in_parts(&mut self, said: &Said, cut: bool, mut compressor: Option<&mut Compressor>) {
        let mut rest = said.as_message();
        while cut && rest.len() > 1 && self.random.chance(0.8) {
            let (first, last) = self.split(rest);
            self.say_part(first, false, compressor.as_deref_mut());
            rest = last;
            if self.random.chance(0.2) {
                self.pings += 1;
                let payload = self.pings.to_string();
                self.send(|codec, masks, out| codec.send_ping(payload.as_bytes(), masks, out));
            }
        }
        self.say_part(rest, true, compressor);
    }

    fn say_part(&mut self, part: Message<'_>, fin: bool, compressor: Option<&mut Compressor>) {
        self.send(|codec, masks, out| match compressor {
            Some(compressor) => codec.send_compressed_fragment(part, fin, compressor, masks, out),
            None => codec.send_fragment(part, fin, masks, out),
        });
    }

    fn split<'m>(&mut self, message: Message<'m>) -> (Message<'m>, Message<'m>) {
        let at = self.random.below(message.len() + 1);
        match message {
            Message::Text(text) => {
                let (first, last) = text.split_at(text.floor_char_boundary(at));
                (Message::Text(first), Message::Text(last))
            }
            Message::Binary(bytes) => {
                let (first, last) = bytes.split_at(at);
                (Message::Binary(first), Message::Binary(last))
            }
        }
    }

    fn end(&mut self) {
        self.stage = Stage::Ending;
        match self.plan.ending {
            Ending::Stay => self.stage = Stage::Open,
            Ending::CloseFrame => self.close(),
            Ending::CloseAndMore => {
                self.close();
                self.late = self.random.within(1..=4);
                if self.random.chance(0.5) {
                    self.go_on_after_closing();
                }
            }
            Ending::CloseAndFinish => {
                self.close();
                self.end_stream();
            }
            Ending::AskServer => self.say(Said { text: true, bytes: b"!close".to_vec() }),
            Ending::Garbage if self.tls.is_some() && self.random.chance(0.5) => {
                self.broke_tls = true;
                self.peer().write(&[0xff; 40]);
            }
            Ending::Garbage => {
                let garbage = super::plan::GARBAGE;
                let garbage = garbage[self.random.below(garbage.len())];
                self.write(garbage);
                // It does not stop there: what answers it must not get lost in a reset.
                let mut more = vec![0; self.random.below(3000)];
                self.random.fill(&mut more);
                self.write(&more);
            }
            Ending::HangUp => {
                self.peer().close();
                self.stage = Stage::Gone;
            }
            Ending::Finish => self.end_stream(),
            Ending::Reset => {
                self.peer().reset();
                self.stage = Stage::Gone;
            }
            Ending::Mute | Ending::HalfAsk => {}
        }
    }

    fn close(&mut self) {
        // Not of its own codec, which would drop the messages that still come.
        let mut codec = Connection::new(Role::Client);
        let code = CloseCode::new(3000);
        let mut out = Vec::new();
        codec.close(code, "enough", &mut self.masks, &mut out).expect("a correct close");
        if self.codec.close_state() == CloseState::Open {
            self.write(&out);
        }
    }

    fn go_on_after_closing(&mut self) {
        self.late -= 1;
        let late = super::plan::LATE;
        let late = late[self.random.below(late.len())];
        self.write(late);
    }

    /// By FIN, and over TLS perhaps by close_notify before that, or by close_notify alone.
    fn end_stream(&mut self) {
        let mut fin = true;
        if let Some(tls) = self.tls.as_mut().filter(|_| self.random.chance(0.7)) {
            let notice = tls.close();
            fin = self.random.chance(0.5);
            self.peer().write(&notice);
        }
        if fin {
            self.peer().finish();
        }
    }

    fn send<T>(
        &mut self,
        encode: impl FnOnce(
            &mut Connection,
            &mut Masks,
            &mut Vec<u8>,
        ) -> Result<T, ringwire_codec::SendError>,
    ) {
        let mut out = Vec::new();
        // Refused once the server has begun to close.
        let _ = encode(&mut self.codec, &mut self.masks, &mut out);
        self.write(&out);
    }

    // What it hears

    /// Takes what has arrived, if it reads now.
    pub(super) fn observe(&mut self, world: &World, log: &Log) {
        if matches!(self.stage, Stage::Absent | Stage::Gone) || world.clock() < self.reads_at {
            return;
        }
        let deaf =
            self.stage == Stage::Ending && self.plan.ending == Ending::Mute && self.plan.slow;
        if deaf {
            if self.peer().is_closed() {
                self.stage = Stage::Gone;
            }
            return;
        }
        let bytes = self.read();
        if self.reads.is_some() {
            self.reads_at = world.clock() + Duration::from_millis(100);
            world.alarm(self.reads_at);
        } else if self.plan.slow && !bytes.is_empty() {
            self.reads_at = world.clock() + self.random.up_to(Duration::from_millis(20));
            world.alarm(self.reads_at);
        }
        if !self.broke_tls {
            self.hear(bytes, log);
        }
        let peer = self.peer();
        if peer.is_eof() || peer.is_reset() {
            peer.close();
            self.truncated = self.tls.as_ref().is_some_and(|tls| !tls.heard_the_end());
            self.stage = Stage::Gone;
        }
    }

    fn hear(&mut self, mut bytes: Vec<u8>, log: &Log) {
        if self.stage == Stage::Asking {
            self.head.append(&mut bytes);
            let limits = HeadLimits::default();
            let whole = self.scanner.scan(&self.head, &limits).expect("a correct head");
            let Some(len) = whole else { return };
            bytes = self.head.split_off(len);
            let response = Response::parse(&self.head, &limits).expect("a correct answer");
            if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                (self.stage, self.refused) = (Stage::Refused, true);
                assert!(self.plan.query.contains("forbid"), "{:?}", response.status());
                return;
            }
            let agreed = response.check_upgrade(&self.request).expect("an answer to the request");
            if let Some(agreement) = agreed.deflate {
                self.deflate = Some(Deflated::new(&agreement, Role::Client));
                self.codec = Connection::new(Role::Client).with_deflate();
            }
            self.stage = Stage::Open;
        }
        if matches!(self.stage, Stage::Refused) || self.plan.ending == Ending::HalfAsk {
            return;
        }
        self.hear_frames(&mut bytes, log);
        let mute =
            self.stage == Stage::Ending && (self.plan.ending == Ending::Mute || self.plan.closes());
        if self.codec.wants_transmit() && !mute {
            self.send(|codec, masks, out| Ok(codec.poll_transmit(masks, out)));
        }
    }

    fn hear_frames(&mut self, bytes: &mut [u8], log: &Log) {
        let config = ringwire_codec::Config::default().with_max_control_count(u16::MAX);
        let mut codec = std::mem::replace(&mut self.codec, Connection::new(Role::Client));
        let mut input = Input::new(bytes);
        let number = self.number;
        let mut deflate = self.deflate.take();
        while let Some(event) = codec
            .receive_with(&config, &mut Heap, Deflated::inflate(&mut deflate), &mut input)
            .unwrap_or_else(|error| panic!("client {number} heard nonsense: {error:?}"))
        {
            match event {
                Event::Message(message) => {
                    self.hear_message(&Said::from(message.as_message()), log)
                }
                Event::Pong(payload) => {
                    let ponged =
                        std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
                    let ponged = ponged.expect("the payload of a ping");
                    assert!(
                        ponged > self.ponged && ponged <= self.pings,
                        "client {number}: pong {ponged}"
                    );
                    self.ponged = ponged;
                }
                Event::Ping(payload) => assert!(payload.is_empty()),
                Event::Close(frame) => {
                    self.farewell = Some((frame.code, frame.reason.clone().into_owned()));
                    if !self.plan.lossy {
                        let said = log.clients[number].accepted.len();
                        assert_eq!(self.heard, said, "client {number}: the end came too early");
                    }
                }
                Event::Part(_) | Event::InflatedPart(_) => {
                    unreachable!("the client does not stream")
                }
            }
        }
        self.codec = codec;
        self.deflate = deflate;
    }

    fn hear_message(&mut self, message: &Said, log: &Log) {
        let number = self.number;
        if let Some(rest) = message.bytes.strip_prefix(b"push:") {
            let push = leading_number(rest);
            let next = if self.plan.lossy { push.max(self.pushes) } else { self.pushes };
            assert_eq!(push, next, "client {number}: a push is lost, or comes twice");
            self.pushes = push + 1;
            return;
        }
        if let Some(rest) = message.bytes.strip_prefix(b"key:") {
            let key = leading_number(rest);
            assert!(self.keys.is_none_or(|before| before < key), "client {number}: key {key}");
            self.keys = Some(key);
            return;
        }
        let accepted = &log.clients[number].accepted;
        if self.plan.lossy {
            // The oldest may have been dropped.
            let rest = accepted.get(self.heard..).unwrap_or_default();
            self.heard += rest.iter().position(|said| said == message).unwrap_or(rest.len());
        }
        let said = accepted.get(self.heard);
        assert!(
            said == Some(message),
            "client {number} heard as number {} {message:?}, not {said:?}",
            self.heard
        );
        self.heard += 1;
    }
}

fn request(target: &str, nonce: [u8; 16], offer: Option<Offer>) -> Request {
    let request = Request::new("sim", target, nonce).expect("a correct request");
    match offer {
        Some(offer) => request.with_deflate(offer),
        None => request,
    }
}

/// How a peer of the worker compresses.
pub(super) struct Deflated {
    pub compressor: Compressor,
    decompressor: Option<Box<Decompressor>>,
    /// The worker may refer back to earlier messages.
    pub takeover: bool,
}

impl Deflated {
    pub(super) fn new(agreement: &Agreement, role: Role) -> Self {
        let worker = if role == Role::Client { Role::Server } else { Role::Client };
        let compressor = Compressor::new(Level::default(), agreement.compressor_window(role));
        let takeover = agreement.takeover(role);
        Self {
            compressor: if takeover { compressor.with_takeover() } else { compressor },
            decompressor: None,
            takeover: agreement.takeover(worker),
        }
    }

    /// One that forgets, where the worker must not refer back.
    pub(super) fn inflate(deflate: &mut Option<Self>) -> Inflate<'_> {
        let Some(Self { decompressor, takeover, .. }) = deflate else { return Inflate::Off };
        if *takeover {
            Inflate::Dedicated(decompressor)
        } else {
            Inflate::Shared(decompressor.get_or_insert_default())
        }
    }
}

fn leading_number(bytes: &[u8]) -> usize {
    let digits: String = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .map(|byte| char::from(*byte))
        .collect();
    digits.parse().expect("a number")
}
