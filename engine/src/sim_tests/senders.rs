//! Senders in a simulated network: producers that are faster than their peers, peers that read slowly, close, break off
//! or are shut down, and others who send to the same connections.
//!
//! Room is never lost and never exceeded; what a sender took comes, in its order, or is counted as lost.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringwire_codec::{CloseCode, CloseState, Connection, Event, Heap, Input, Message, Role};

use super::assembly::Assembly;
use super::plan::draw_faults;
use super::seeds;
use crate::app::ctx::Ctx;
use crate::app::handler::{Answer, Handler};
use crate::app::request::Request;
use crate::base::budget::Budget;
use crate::config::Config;
use crate::conn::cause::{CloseCause, CloseReason};
use crate::conn::id::ConnId;
use crate::conn::options::Backpressure;
use crate::driver::sim::{Peer, Random, World};
use crate::server::handle::Handle;
use crate::server::sender::{Sender, TrySendError};
use crate::worker::Turn;

const SEEDS: u64 = 500;
/// No run takes longer, in virtual time.
const LONGEST: Duration = Duration::from_secs(300);
/// Whose messages those are that are posted without a sender.
const OTHERS: u8 = u8::MAX;

/// What the application saw of a connection.
#[derive(Debug, Default)]
struct Entry {
    id: Option<ConnId>,
    drains: usize,
    closed: Option<CloseCause>,
}

struct App(Rc<RefCell<Vec<Entry>>>);

impl Handler for App {
    type State = usize;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<usize> {
        unreachable!("connections come open")
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, usize>) {
        self.0.borrow_mut()[*ctx.state()].id = Some(ctx.id());
    }

    fn on_message(&mut self, _ctx: &mut Ctx<'_, usize>, _message: Message<'_>) {}

    fn on_drain(&mut self, ctx: &mut Ctx<'_, usize>) {
        self.0.borrow_mut()[*ctx.state()].drains += 1;
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, usize>, cause: &CloseCause) {
        let before = self.0.borrow_mut()[*ctx.state()].closed.replace(cause.clone());
        assert!(before.is_none(), "it ends twice");
    }
}

/// A message that says whose it is and which; some are long.
fn message(whose: u8, number: usize) -> Vec<u8> {
    let mut bytes = vec![b'.'; number * number * 31 % 1500];
    if number % 17 == 16 {
        bytes.resize(6000, b'.');
    }
    bytes.splice(0..0, [whose, u8::try_from(number).expect("few messages")]);
    bytes
}

/// Somebody who sends by a sender.
struct Producer {
    /// `None`: it has gone, or there is no connection yet.
    sender: Option<Sender>,
    count: usize,
    taken: usize,
    /// Goes when it has sent everything.
    leaves: bool,
    ended: Option<CloseCause>,
}

impl Producer {
    fn work(&mut self, whose: u8, random: &mut Random) {
        let Some(sender) = &self.sender else { return };
        for _ in 0..random.within(0..=6) {
            if self.taken == self.count {
                break;
            }
            match sender.try_send(message(whose, self.taken).as_slice()) {
                Ok(()) => self.taken += 1,
                Err(TrySendError::Full) => break,
                Err(TrySendError::Closed(cause)) => {
                    self.ended = Some(cause);
                    break;
                }
            }
        }
        let longest = 6002 + 64;
        let used = sender.used_len();
        assert!(used <= sender.capacity().max(longest), "{used} of {}", sender.capacity());
        if self.leaves && self.taken == self.count {
            self.sender = None;
        }
    }
}

/// What a client does at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Closes when it has everything.
    Patient,
    /// Closes at some time.
    Hasty,
    /// Ends its stream at some time, and reads on.
    Finish,
    Reset,
    /// The server closes it at some time.
    AskServer,
}

struct Client {
    number: usize,
    peer: Peer,
    codec: Connection,
    ending: Ending,
    /// When it reads again, and when its end comes.
    at: Duration,
    ends_at: Duration,
    producers: Vec<Producer>,
    /// Messages of others that are still to be posted, and that were.
    others: (usize, usize),
    /// How many it has heard of each producer.
    heard: Vec<usize>,
    done: bool,
}

impl Client {
    fn new(number: usize, handle: &Handle, world: &World, random: &mut Random) -> Self {
        let (peer, fd) = world.adoptable();
        handle.adopt_upgraded(fd.into(), Vec::new(), number).expect("the worker listens");
        peer.set_window(random.within(100..=5000));
        let endings = [
            Ending::Patient,
            Ending::Patient,
            Ending::Hasty,
            Ending::Finish,
            Ending::Reset,
            Ending::AskServer,
        ];
        let producers: Vec<_> = (0..random.within(1..=3))
            .map(|_| Producer {
                sender: None,
                count: random.within(0..=60),
                taken: 0,
                leaves: random.chance(0.5),
                ended: None,
            })
            .collect();
        Self {
            number,
            peer,
            codec: Connection::new(Role::Client),
            ending: endings[random.below(6)],
            at: random.up_to(Duration::from_millis(20)),
            ends_at: random.up_to(Duration::from_millis(500)),
            heard: vec![0; producers.len()],
            producers,
            others: (if random.chance(0.4) { random.within(1..=40) } else { 0 }, 0),
            done: false,
        }
    }

    fn act(&mut self, app: &App, handle: &Handle, world: &World, random: &mut Random) {
        let Some(id) = app.0.borrow()[self.number].id else { return };
        for (whose, producer) in (0_u8..).zip(&mut self.producers) {
            if producer.sender.is_none() && producer.taken < producer.count {
                let capacity = random.within(1..=4000);
                producer.sender = handle.sender_with_capacity(id, capacity).ok();
            }
            producer.work(whose, random);
        }
        if self.others.0 > 0 && random.chance(0.3) {
            let text = message(OTHERS, self.others.0);
            if handle.send(id, text.as_slice()).is_ok() {
                self.others = (self.others.0 - 1, self.others.1 + 1);
            }
        }
        if world.clock() < self.at {
            return;
        }
        self.hear(random.within(1..=3000));
        self.at = world.clock() + random.up_to(Duration::from_millis(20));
        if !self.is_over() {
            world.alarm(self.at);
        }
        let has_all = self.others.0 == 0
            && self.producers.iter().zip(&self.heard).all(|(it, heard)| it.count == *heard);
        let is_due = match self.ending {
            Ending::Patient => has_all,
            _ => world.clock() >= self.ends_at,
        };
        if !self.done && is_due {
            self.done = true;
            self.end(handle, id);
        }
    }

    fn end(&mut self, handle: &Handle, id: ConnId) {
        match self.ending {
            Ending::Patient | Ending::Hasty => {
                let mut out = Vec::new();
                // Unless the server has closed first.
                let _ = self.codec.close(CloseCode::NORMAL, "", &mut || [1, 2, 3, 4], &mut out);
                self.peer.write(&out);
            }
            Ending::Finish => self.peer.finish(),
            Ending::Reset => self.peer.reset(),
            Ending::AskServer => {
                handle.close(id, CloseCode::NORMAL, "").expect("there is room");
            }
        }
    }

    fn hear(&mut self, most: usize) {
        let mut bytes = self.peer.read_some(most);
        let mut input = Input::new(&mut bytes);
        let config = ringwire_codec::Config::default();
        while let Some(event) = self.codec.receive(&config, &mut Heap, &mut input).expect("correct")
        {
            if let Event::Message(heard) = event {
                let heard = heard.as_message().as_bytes();
                let (whose, number) = (heard[0], usize::from(heard[1]));
                assert_eq!(heard, message(whose, number));
                if whose != OTHERS {
                    let next = &mut self.heard[usize::from(whose)];
                    assert_eq!(number, *next, "those of a sender come in its order");
                    *next += 1;
                }
            }
        }
        let mut out = Vec::new();
        if self.codec.poll_transmit(&mut || [1, 2, 3, 4], &mut out) {
            self.peer.write(&out);
        }
        if self.peer.is_eof() && self.codec.close_state() != CloseState::Open {
            self.peer.close();
        }
    }

    /// Whether there is more to be sent to it.
    fn is_busy(&self) -> bool {
        let goes_on = |it: &Producer| it.taken < it.count && it.ended.is_none();
        !self.is_over() && (self.others.0 > 0 || self.producers.iter().any(goes_on))
    }

    fn is_over(&self) -> bool {
        self.peer.is_closed() || self.peer.is_eof() || self.peer.is_reset()
    }

    fn check(&self, entry: &Entry, sound: bool) {
        let cause = entry.closed.as_ref().expect("it has ended");
        let context = format!("{:?}: {cause:?}", self.ending);
        if self.others.1 == 0 {
            assert_ne!(cause.reason, CloseReason::Backpressure, "{context}");
            assert_eq!(entry.drains, 0, "{context}");
        }
        let mut lost = 0;
        for (producer, heard) in self.producers.iter().zip(&self.heard) {
            assert!(*heard <= producer.taken, "{context}");
            lost += producer.taken - heard;
            if let Some(sender) = &producer.sender {
                assert_eq!(sender.used_len(), 0, "{context}");
                let closed = sender.closed().expect("it is told of the end");
                let was_open =
                    closed.reason != CloseReason::Transport(std::io::ErrorKind::NotConnected);
                assert!(!was_open || closed == *cause, "{closed:?} {context}");
            }
        }
        let kept = matches!(cause.reason, CloseReason::Local | CloseReason::Shutdown);
        if sound && kept && self.others.1 == 0 && self.ending == Ending::AskServer {
            assert_eq!((lost, cause.lost_messages), (0, 0), "{context}");
        }
        if sound && self.ending == Ending::Patient && cause.reason == CloseReason::Peer {
            assert_eq!(lost, 0, "{context}");
        }
    }
}

#[test]
fn what_a_sender_takes_comes_in_order_or_is_counted() {
    seeds::run_all(0..SEEDS, run);
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let faults = draw_faults(&mut random);
    let sound = faults.reset == 0.0 && faults.fin == 0.0;
    let high_water = random.within(1..=4000);
    let policies = [
        Backpressure::Close(CloseCode::TRY_AGAIN_LATER),
        Backpressure::DropNewest,
        Backpressure::DropOldest,
    ];
    let policy = policies[random.below(3)];
    let config = Config::default()
        .with_high_water(high_water)
        .with_max_queued_len(high_water + random.within(0..=4000))
        .with_backpressure(policy)
        .with_write_stall_timeout(None)
        .with_close_timeout(Duration::from_secs(20));
    let app = App(Rc::default());
    let (mut worker, world, handle) =
        Assembly::one(random.seed(), &config, &faults, &Budget::new(0), App(app.0.clone()));
    let mut clients: Vec<_> = (0..random.within(1..=3))
        .map(|number| Client::new(number, &handle, &world, &mut random))
        .collect();
    *app.0.borrow_mut() = clients.iter().map(|_| Entry::default()).collect();
    let shut_at = random.chance(0.3).then(|| random.up_to(Duration::from_millis(500)));
    shut_at.inspect(|at| world.alarm(*at));
    let (mut told, mut goes_on_at) = (false, Duration::ZERO);
    let mut spins = (Duration::ZERO, 0);
    loop {
        let turn = worker.turn().expect("the driver works");
        spins = if spins.0 == world.clock() { (spins.0, spins.1 + 1) } else { (world.clock(), 0) };
        assert!(spins.1 < 5000, "it spins: {:?}", app.0.borrow());
        worker.check_memory();
        if turn == Turn::Done {
            break;
        }
        for client in &mut clients {
            client.act(&app, &handle, &world, &mut random);
        }
        let stages = || clients.iter().map(|client| (client.ending, &client.heard));
        assert!(
            world.clock() < LONGEST,
            "it does not end: {:?} {:?}",
            stages().collect::<Vec<_>>(),
            app.0.borrow()
        );
        let due =
            shut_at.is_some_and(|at| world.clock() >= at) || clients.iter().all(Client::is_over);
        if !told && due {
            told = true;
            handle.shutdown(Duration::from_secs(2000));
        }
        if clients.iter().any(Client::is_busy) && world.clock() >= goes_on_at {
            // Producers go on, though nothing else may happen.
            goes_on_at = world.clock() + Duration::from_millis(7);
            world.alarm(goes_on_at);
        }
    }
    drop(worker);
    while world.advance() {
        clients.iter_mut().for_each(|client| client.hear(usize::MAX));
    }
    for (client, entry) in clients.iter().zip(&*app.0.borrow()) {
        client.check(entry, sound);
    }
    let stats = handle.stats().total();
    let given: usize = clients
        .iter()
        .map(|client| client.others.1 + client.producers.iter().map(|it| it.taken).sum::<usize>())
        .sum();
    if policy != Backpressure::DropOldest {
        // Each was sent or was counted, whatever happened.
        assert_eq!(stats.messages_sent + stats.messages_dropped, given as u64);
    }
    assert_eq!((stats.connections, stats.queued_bytes), (0, 0));
    assert_eq!((world.outstanding_buffers(), world.open_sockets()), (0, 0));
}
