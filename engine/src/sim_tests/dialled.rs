//! A worker that opens connections, in a simulated network: each of them opens or fails once, whatever the servers and
//! the network do, and what is said on those that open arrives in order and as it was.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringwire_codec::deflate::{Policy, WindowBits};
use ringwire_codec::handshake::{HeadLimits, HeadScanner, client, server};
use ringwire_codec::{CloseCode, Connection, Event, Heap, Input, Message, Role};

use super::assembly::Assembly;
use super::client::Deflated;
use super::plan::{draw_compression, draw_faults};
use super::seeds;
use crate::app::ctx::Ctx;
use crate::app::handler::{Answer, Handler};
use crate::app::request::Request;
use crate::base::budget::Budget;
use crate::config::Config;
use crate::conn::cause::{CloseCause, CloseReason};
use crate::conn::dialling::DialError;
use crate::driver::sim::{Faults, Peer, Random};
use crate::entry::dial::Dial;
use crate::worker::Turn;

const SEEDS: u64 = 500;
const MESSAGES: usize = 5;
/// No run takes longer, in virtual time.
const LONGEST: Duration = Duration::from_secs(1000);

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Accepts, and echoes until the close handshake.
    Echo,
    /// Accepts, echoes the first message and ends its stream, and hears what comes until the other end.
    Leave,
    Refuse,
    Babble,
    /// Agrees to what was not offered.
    Overreach,
    HangUp,
    Silence,
}

/// What became of a connection.
#[derive(Debug, Default)]
struct Fate {
    opened: usize,
    closed: Option<CloseCause>,
    failed: Vec<String>,
    heard: usize,
}

#[derive(Default)]
struct Caller {
    fates: Rc<RefCell<Vec<Fate>>>,
}

impl Caller {
    fn fate(&self, number: usize, note: impl FnOnce(&mut Fate)) {
        note(&mut self.fates.borrow_mut()[number]);
    }
}

impl Handler for Caller {
    type State = usize;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<usize> {
        unreachable!("it listens nowhere")
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, usize>) {
        let number = *ctx.state();
        self.fate(number, |fate| fate.opened += 1);
        let _ = ctx.send(said(number, 0).as_slice());
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, usize>, message: Message<'_>) {
        let number = *ctx.state();
        let heard = self.fates.borrow()[number].heard;
        assert_eq!(message.as_bytes(), said(number, heard), "number {heard} of {number}");
        self.fate(number, |fate| fate.heard += 1);
        if heard + 1 < MESSAGES {
            let _ = ctx.send(said(number, heard + 1).as_slice());
        } else {
            ctx.close(CloseCode::NORMAL, "").expect("it is open");
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, usize>, cause: &CloseCause) {
        let number = *ctx.state();
        self.fate(number, |fate| {
            assert!(fate.closed.replace(cause.clone()).is_none(), "{number} ends twice");
        });
    }

    fn on_dial_failed(&mut self, number: usize, error: &DialError) {
        self.fate(number, |fate| fate.failed.push(error.to_string()));
    }
}

fn said(number: usize, index: usize) -> Vec<u8> {
    vec![
        u8::try_from(number + index).expect("small");
        10_usize.pow(u32::try_from(index).expect("small"))
    ]
}

/// The server of one connection.
struct Station {
    manner: Manner,
    peer: Peer,
    head: Vec<u8>,
    scanner: HeadScanner,
    codec: Option<Connection>,
    /// What it would agree to, if anything.
    policy: Option<Policy>,
    deflate: Option<Deflated>,
    random: Random,
    /// Messages that came.
    heard: usize,
    done: bool,
}

impl Station {
    fn new(manner: Manner, peer: Peer, random: &mut Random) -> Self {
        Self {
            manner,
            peer,
            head: Vec::new(),
            scanner: HeadScanner::default(),
            codec: None,
            policy: random.chance(0.8).then(|| draw_policy(random)),
            deflate: None,
            random: Random::new(random.seed()),
            heard: 0,
            done: false,
        }
    }

    fn act(&mut self) {
        let bytes = self.peer.read();
        if self.done || bytes.is_empty() && !self.peer.is_eof() && !self.peer.is_reset() {
            return;
        }
        match (&mut self.codec, self.manner) {
            (_, Manner::HangUp) => self.leave(),
            (None, _) => self.hear_head(bytes),
            (Some(_), _) => self.hear_frames(bytes),
        }
        if self.peer.is_eof() || self.peer.is_reset() {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.done = true;
        self.peer.close();
    }

    fn hear_head(&mut self, bytes: Vec<u8>) {
        let limits = HeadLimits::default();
        self.head.extend(bytes);
        let Some(len) = self.scanner.scan(&self.head, &limits).expect("a correct head") else {
            return;
        };
        let rest = self.head.split_off(len);
        let request = server::Request::parse(&self.head, &limits).expect("a correct request");
        let upgrade = request.check_upgrade().expect("a correct upgrade");
        let mut out = Vec::new();
        match self.manner {
            Manner::Echo | Manner::Leave => {
                let agreement = self.policy.and_then(|policy| upgrade.deflate(&policy));
                let accept = server::Accept::new().with_deflate(agreement);
                accept.encode(&upgrade, &mut out).expect("a correct answer");
                let codec = Connection::new(Role::Server);
                self.deflate = agreement.map(|agreement| Deflated::new(&agreement, Role::Server));
                self.codec = Some(if agreement.is_some() { codec.with_deflate() } else { codec });
            }
            Manner::Overreach => {
                server::Accept::new().encode(&upgrade, &mut out).expect("a correct answer");
                out.truncate(out.len() - 2);
                out.extend(b"Sec-WebSocket-Extensions: permessage-deflate; water\r\n\r\n");
            }
            Manner::Refuse => server::Response::new(http::StatusCode::FORBIDDEN).encode(&mut out),
            Manner::Babble => out.extend(b"HTTP/1.1 101 Welcome\r\n\r\nsurprise"),
            Manner::HangUp | Manner::Silence => {}
        }
        self.peer.write(&out);
        if self.codec.is_some() {
            self.hear_frames(rest);
        }
    }

    fn hear_frames(&mut self, mut bytes: Vec<u8>) {
        let Self { codec: Some(codec), deflate, random, heard, .. } = self else { return };
        let config = ringwire_codec::Config::default();
        let mut unmasked = || [0; 4];
        let mut out = Vec::new();
        let mut input = Input::new(&mut bytes);
        let mut leaves = false;
        while let Some(event) = codec
            .receive_with(&config, &mut Heap, Deflated::inflate(deflate), &mut input)
            .expect("the worker speaks correctly")
        {
            if let Event::Message(message) = event {
                leaves |= self.manner == Manner::Leave;
                *heard += 1;
                let message = message.as_message();
                match deflate.as_mut().filter(|_| random.chance(0.7)) {
                    Some(Deflated { compressor, .. }) => {
                        codec.send_compressed(message, compressor, &mut unmasked, &mut out)
                    }
                    None => codec.send(message, &mut unmasked, &mut out),
                }
                .expect("it is open");
            }
            codec.poll_transmit(&mut unmasked, &mut out);
        }
        codec.poll_transmit(&mut unmasked, &mut out);
        self.peer.write(&out);
        if leaves || codec.close_state() == ringwire_codec::CloseState::Closed {
            self.peer.finish();
        }
    }
}

fn draw_policy(random: &mut Random) -> Policy {
    let windows = [WindowBits::MIN, WindowBits::new(12).expect("a window"), WindowBits::MAX];
    Policy::default()
        .with_client_context_takeover(random.chance(0.7))
        .with_server_context_takeover(random.chance(0.7))
        .with_server_max_window_bits(windows[random.below(3)])
        .with_client_max_window_bits(windows[random.below(3)])
}

#[test]
fn every_connection_opens_or_fails_once() {
    seeds::run_all(0..SEEDS, run);
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let faults = draw_faults(&mut random);
    let sound = faults.reset == 0.0 && faults.fin == 0.0;
    let config = Config::default()
        .with_handshake_timeout(Duration::from_secs(100))
        .with_close_timeout(Duration::from_secs(100))
        .with_compression(draw_compression(&mut random));
    let budget = Budget::new(config.compression.max_dedicated_len);
    let caller = Caller::default();
    let fates = Rc::clone(&caller.fates);
    let (mut worker, world, handle) =
        Assembly::one(random.seed(), &config, &faults, &budget, caller);
    let dial = draw_dial(&mut random);
    let mut stations = Vec::new();
    for number in 0..random.within(1..=6) {
        let (peer, fd) = world.adoptable();
        fates.borrow_mut().push(Fate::default());
        handle.connect_on(fd, &dial, number).expect("the worker listens");
        let manner = [
            Manner::Echo,
            Manner::Echo,
            Manner::Leave,
            Manner::Refuse,
            Manner::Babble,
            Manner::Overreach,
            Manner::HangUp,
            Manner::Silence,
        ][random.below(8)];
        stations.push(Station::new(manner, peer, &mut random));
    }
    let settled =
        |fates: &[Fate]| fates.iter().all(|fate| fate.closed.is_some() || !fate.failed.is_empty());
    let mut told = false;
    loop {
        let turn = worker.turn().expect("the driver works");
        worker.check_memory();
        if turn == Turn::Done {
            break;
        }
        stations.iter_mut().for_each(Station::act);
        assert!(world.clock() < LONGEST, "it does not end: {:?}", fates.borrow());
        if !told && settled(&fates.borrow()) {
            told = true;
            handle.shutdown(Duration::ZERO);
        }
    }
    // What is still on its way to them arrives without the worker.
    loop {
        stations.iter_mut().for_each(Station::act);
        if !world.advance() {
            break;
        }
    }
    for (station, fate) in stations.iter().zip(&*fates.borrow()) {
        check(station, fate, sound);
    }
    let stats = handle.stats().total();
    assert_eq!((stats.connections, stats.queued_bytes, stats.deflate_memory), (0, 0, 0));
    assert_eq!(budget.left(), config.compression.max_dedicated_len);
    drop(worker);
    assert_eq!((world.outstanding_buffers(), world.open_sockets()), (0, 0));
}

fn draw_dial(random: &mut Random) -> Dial {
    let dial = Dial::new(([127, 0, 0, 1], 1).into(), "sim", "/").expect("a request");
    match random.below(4) {
        0 => dial.without_compression(),
        1 => dial.with_max_window(WindowBits::MAX),
        _ => dial,
    }
}

fn check(station: &Station, fate: &Fate, sound: bool) {
    let manner = station.manner;
    assert_eq!(fate.opened + fate.failed.len(), 1, "{manner:?}: {fate:?}");
    assert_eq!(fate.opened, usize::from(fate.closed.is_some()), "{manner:?}: {fate:?}");
    if !sound {
        return;
    }
    let failed = |why: &str| fate.failed.iter().any(|failed| failed.contains(why));
    let as_it_must = match manner {
        Manner::Echo => {
            fate.heard == MESSAGES && fate.closed.as_ref().is_some_and(CloseCause::is_clean)
        }
        Manner::Leave => {
            // What came before the end of its stream is answered.
            let whole = (CloseReason::EndOfStream, 0);
            let closed = fate.closed.as_ref().map(|cause| (cause.reason, cause.unsent_len));
            fate.heard == 1 && station.heard == 2 && closed == Some(whole)
        }
        Manner::Refuse => failed("403"),
        Manner::Babble | Manner::Overreach => failed("the handshake failed"),
        Manner::HangUp => failed("the handshake failed") || failed("connection failed"),
        Manner::Silence => failed("timed out"),
    };
    assert!(as_it_must, "{manner:?}, which heard {}: {fate:?}", station.heard);
}

/// Closes as soon as it is answered.
#[derive(Default)]
struct Hasty(Rc<RefCell<Vec<CloseCause>>>);

impl Handler for Hasty {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        unreachable!("it listens nowhere")
    }

    fn on_answer(&mut self, ctx: &mut Ctx<'_, ()>, _answer: &client::Response<'_>) {
        ctx.close(CloseCode::NORMAL, "").expect("it is open");
    }

    fn on_open(&mut self, _ctx: &mut Ctx<'_, ()>) {
        unreachable!("it is closed before")
    }

    fn on_close(&mut self, _ctx: &mut Ctx<'_, ()>, cause: &CloseCause) {
        self.0.borrow_mut().push(cause.clone());
    }
}

#[test]
fn a_close_that_crosses_one_behind_the_answer_is_clean() {
    let (config, faults) = (Config::default(), Faults::none());
    let budget = Budget::new(config.compression.max_dedicated_len);
    let hasty = Hasty::default();
    let causes = Rc::clone(&hasty.0);
    let (mut worker, world, handle) = Assembly::one(1, &config, &faults, &budget, hasty);
    let (peer, fd) = world.adoptable();
    let dial = Dial::new(([127, 0, 0, 1], 1).into(), "sim", "/").expect("a request");
    handle.connect_on(fd, &dial, ()).expect("the worker listens");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        worker.turn().expect("the driver works");
        head.extend(peer.read());
    }
    let limits = HeadLimits::default();
    let request = server::Request::parse(&head, &limits).expect("a correct request");
    let upgrade = request.check_upgrade().expect("a correct upgrade");
    let mut answer = Vec::new();
    server::Accept::new().encode(&upgrade, &mut answer).expect("a correct answer");
    answer.extend(b"\x88\x02\x03\xe8");
    peer.write(&answer);
    let mut heard = Vec::new();
    while heard.is_empty() {
        worker.turn().expect("the driver works");
        heard.extend(peer.read());
    }
    // Its close frame has come, and both have said all.
    assert_eq!(heard[..2], [0x88, 0x82]);
    peer.finish();
    while causes.borrow().is_empty() {
        worker.turn().expect("the driver works");
    }
    let cause = causes.borrow()[0].clone();
    assert!(cause.reason == CloseReason::Local && cause.is_clean(), "{cause:?}");
}
