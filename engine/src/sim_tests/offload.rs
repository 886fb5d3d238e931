//! Offloaded jobs in a simulated network, with threads that are simulated as well: jobs begin and end when the seed
//! says so, in any order, while connections close and break.

#![expect(clippy::disallowed_types, reason = "a handle shares the worker's counters")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringwire_codec::{CloseCode, CloseState, Connection, Event, Heap, Input, Masks, Message, Role};

use super::plan::draw_faults;
use super::seeds;
use crate::app::ctx::Ctx;
use crate::app::handler::{Answer, Handler};
use crate::app::request::Request;
use crate::base::budget::Budget;
use crate::compute::{ComputeStats, Hand, Pool, Queued};
use crate::config::{Assignment, Config};
use crate::conn::cause::CloseCause;
use crate::driver::Driver as _;
use crate::driver::sim::{Faults, Peer, Random, Sim, World};
use crate::hub::handover::Handover;
use crate::hub::mail::inbox;
use crate::hub::{Hub, Link};
use crate::metrics::Counters;
use crate::net::TcpOptions;
use crate::server::handle::Handle;
use crate::state::Shared;
use crate::worker::clock::TurnClock;
use crate::worker::{Turn, Worker, WorkerSetup};

const SEEDS: u64 = 500;
/// No run takes longer, in virtual time.
const LONGEST: Duration = Duration::from_secs(1000);

/// What the application did for one client.
#[derive(Debug, Default)]
struct Entry {
    /// Numbers of the jobs that were taken, and of those whose results were handed over.
    taken: Vec<usize>,
    handed_over: Vec<usize>,
    closed: Option<CloseCause>,
}

type Log = Rc<RefCell<Vec<Entry>>>;

thread_local! {
    /// A continuation is `Send`, and so can't hold it.
    static LOG: Log = Log::default();
}

fn note(client: usize, note: impl FnOnce(&mut Entry)) {
    LOG.with(|log| note(&mut log.borrow_mut()[client]));
}

struct State {
    client: usize,
    ordered: bool,
    /// Jobs under way.
    jobs: usize,
    /// A message whose job found no room.
    held: Option<Vec<u8>>,
}

struct App;

impl App {
    /// Gives the message to a job, which gives it back. Where there is no room, the connection waits for another of its
    /// jobs; if it has none, the worker does it.
    fn take(ctx: &mut Ctx<'_, State>, message: Vec<u8>) {
        let number = number_of(&message);
        let (client, ordered) = (ctx.state().client, ctx.state().ordered);
        let job = move || message;
        let then = move |ctx: &mut Ctx<'_, State>, result: Result<Vec<u8>, _>| {
            ctx.state_mut().jobs -= 1;
            Self::answer(ctx, number, &result.expect("it does not panic"));
            if let Some(held) = ctx.state_mut().held.take() {
                ctx.resume();
                Self::take(ctx, held);
            }
        };
        let offloaded =
            if ordered { ctx.offload(job, then) } else { ctx.offload_unordered(job, then) };
        match offloaded {
            Ok(()) => {
                ctx.state_mut().jobs += 1;
                note(client, |entry| entry.taken.push(number));
            }
            Err(refused) if ctx.state().jobs > 0 => {
                ctx.state_mut().held = Some((refused.job)());
                ctx.pause();
            }
            Err(refused) => {
                Self::answer(ctx, number, &(refused.job)());
            }
        }
    }

    fn answer(ctx: &mut Ctx<'_, State>, number: usize, message: &[u8]) {
        let _ = ctx.send(message);
        note(ctx.state().client, |entry| {
            assert!(entry.closed.is_none(), "a result after the end");
            entry.handed_over.push(number);
        });
    }
}

impl Handler for App {
    type State = State;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<State> {
        unreachable!("connections come open")
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, State>, message: Message<'_>) {
        Self::take(ctx, message.as_bytes().to_vec());
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, State>, cause: &CloseCause) {
        note(ctx.state().client, |entry| {
            assert!(entry.closed.replace(cause.clone()).is_none(), "it ends twice");
        });
    }
}

/// A message that says its number, and is longer for some.
fn message(number: usize) -> Vec<u8> {
    let mut bytes = vec![b'.'; number * number % 1500];
    bytes.insert(0, u8::try_from(number).expect("few messages"));
    bytes
}

fn number_of(message: &[u8]) -> usize {
    usize::from(message[0])
}

/// What a client does at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Closes when it has all answers.
    Patient,
    /// Closes when it has said everything.
    Hasty,
    Reset,
    /// Waits for the shutdown.
    Stay,
}

struct Client {
    peer: Peer,
    codec: Connection,
    ordered: bool,
    ending: Ending,
    /// When it says the next thing.
    at: Duration,
    said: usize,
    count: usize,
    heard: Vec<usize>,
    done: bool,
}

impl Client {
    fn act(&mut self, world: &World, random: &mut Random) {
        self.hear();
        let waits = self.said == self.count
            && self.ending == Ending::Patient
            && self.heard.len() < self.count;
        if self.done || waits || world.clock() < self.at {
            return;
        }
        self.at = world.clock() + random.up_to(Duration::from_millis(20));
        world.alarm(self.at);
        if self.said < self.count {
            let batch = random.within(1..=4).min(self.count - self.said);
            for _ in 0..batch {
                self.write(|codec, out| {
                    let message = message(out.1);
                    let mut mask = || [1, 2, 3, 4];
                    codec.send(Message::Binary(&message), &mut mask, out.0).expect("it is open");
                });
                self.said += 1;
            }
            return;
        }
        match self.ending {
            Ending::Patient | Ending::Hasty => {
                self.done = true;
                self.write(|codec, out| {
                    let mut mask = || [1, 2, 3, 4];
                    // Unless the server has closed first.
                    let _ = codec.close(CloseCode::NORMAL, "", &mut mask, out.0);
                });
            }
            Ending::Reset => {
                self.done = true;
                self.peer.reset();
            }
            Ending::Stay => self.done = true,
        }
    }

    fn write(&mut self, encode: impl FnOnce(&mut Connection, (&mut Vec<u8>, usize))) {
        if self.codec.close_state() != CloseState::Open {
            return;
        }
        let mut out = Vec::new();
        encode(&mut self.codec, (&mut out, self.said));
        self.peer.write(&out);
    }

    fn hear(&mut self) {
        let mut bytes = self.peer.read();
        let mut input = Input::new(&mut bytes);
        let config = ringwire_codec::Config::default();
        while let Some(event) = self.codec.receive(&config, &mut Heap, &mut input).expect("correct")
        {
            if let Event::Message(heard) = event {
                let heard = heard.as_message().as_bytes();
                assert_eq!(heard, message(number_of(heard)));
                self.heard.push(number_of(heard));
            }
        }
        let mut out = Vec::new();
        if self.codec.poll_transmit(&mut || [1, 2, 3, 4], &mut out) {
            self.peer.write(&out);
        }
        if self.peer.is_eof() && self.codec.close_state() == CloseState::Closed {
            self.peer.close();
        }
    }

    fn check(&self, entry: &Entry, undisturbed: bool) {
        let mut heard = self.heard.clone();
        if !self.ordered {
            heard.sort_unstable();
            assert!(heard.is_sorted_by(|one, next| one < next), "an answer came twice");
        } else {
            assert!(heard.iter().copied().eq(0..heard.len()), "out of order: {heard:?}");
            assert!(entry.handed_over.iter().copied().eq(0..entry.handed_over.len()), "{entry:?}");
        }
        if undisturbed && self.ending == Ending::Patient {
            assert_eq!(heard.len(), self.count, "{entry:?}");
        }
    }
}

#[test]
fn results_come_once_and_in_order_or_not_at_all() {
    if let Some(all) = seeds::run_all(0..SEEDS, run) {
        let cancelled: u64 = all.iter().map(|stats| stats.cancelled).sum();
        let refused: u64 = all.iter().map(|stats| stats.refused).sum();
        assert!(cancelled > 100 && refused > 1000, "{cancelled}, {refused}: too tame");
    }
}

/// However long the peer was silent, the limit counts from its FIN.
#[test]
fn a_job_has_its_time_after_a_half_close() {
    let secs = Duration::from_secs;
    let config = Config::default().with_write_stall_timeout(secs(20));
    let (mut worker, handle, world, mut hand) = worker(1, &config, Faults::none());
    let mut client = client(0, &handle, &world, &mut Random::new(1));
    LOG.with(|log| *log.borrow_mut() = vec![Entry::default()]);
    let mut run_until = |at| {
        world.alarm(at);
        while world.clock() < at {
            worker.turn().expect("the driver works");
        }
    };
    client.write(|codec, out| {
        let mut mask = || [1, 2, 3, 4];
        codec.send(Message::Binary(&message(0)), &mut mask, out.0).expect("it is open");
    });
    run_until(secs(1));
    let job = hand.next_waiting().expect("the message's");
    run_until(secs(25));
    client.peer.finish();
    run_until(secs(40));
    assert!(!client.peer.is_eof());
    hand.carry_out(job);
    run_until(secs(41));
    client.hear();
    assert_eq!(client.heard, [0]);
    assert!(client.peer.is_eof());
    handle.shutdown(Duration::ZERO);
    while worker.turn().expect("the driver works") == Turn::Again {}
}

fn run(seed: u64) -> ComputeStats {
    let mut random = Random::new(seed);
    let faults = draw_faults(&mut random);
    let sound = faults.reset == 0.0 && faults.fin == 0.0;
    let config = Config::default()
        .with_compute_queue_len(random.within(1..=8))
        .with_max_jobs_per_connection(random.within(1..=6))
        .with_close_timeout(Duration::from_secs(100));
    let (mut worker, handle, world, hand) = worker(random.seed(), &config, faults);
    let mut clients: Vec<_> = (0..random.within(1..=4))
        .map(|number| client(number, &handle, &world, &mut random))
        .collect();
    LOG.with(|log| *log.borrow_mut() = clients.iter().map(|_| Entry::default()).collect());
    let mut threads = Threads { count: random.within(1..=3), hand, running: Vec::new() };
    let shut_at = random.chance(0.3).then(|| random.up_to(Duration::from_millis(300)));
    shut_at.inspect(|at| world.alarm(*at));
    let mut told = false;
    loop {
        let turn = worker.turn().expect("the driver works");
        worker.check_memory();
        if turn == Turn::Done {
            break;
        }
        threads.work(&world, &mut random);
        clients.iter_mut().for_each(|client| client.act(&world, &mut random));
        assert!(world.clock() < LONGEST, "it does not end: {:?}", LOG.with(Rc::clone));
        let over = |client: &Client| {
            client.done || client.peer.is_closed() || client.peer.is_eof() || client.peer.is_reset()
        };
        let due = shut_at.is_some_and(|at| world.clock() >= at) || clients.iter().all(over);
        if !told && due {
            told = true;
            handle.shutdown(Duration::from_secs(200));
        }
    }
    drop(worker);
    while world.advance() {
        clients.iter_mut().for_each(Client::hear);
    }
    threads.end();
    let entries = LOG.with(Rc::clone);
    for (client, entry) in clients.iter().zip(&*entries.borrow()) {
        assert!(entry.closed.is_some());
        client.check(entry, sound && shut_at.is_none());
    }
    let stats = handle.stats();
    let taken: usize = entries.borrow().iter().map(|entry| entry.taken.len()).sum();
    assert_eq!(stats.compute.done + stats.compute.cancelled, taken as u64, "none is lost");
    assert_eq!((stats.compute.waiting, stats.compute.running), (0, 0));
    assert_eq!((stats.total().connections, stats.total().queued_bytes), (0, 0));
    assert_eq!((world.outstanding_buffers(), world.open_sockets()), (0, 0));
    stats.compute
}

/// Threads that work when they are told to.
struct Threads {
    count: usize,
    hand: Hand,
    running: Vec<Queued>,
}

impl Threads {
    fn work(&mut self, world: &World, random: &mut Random) {
        while self.running.len() < self.count
            && random.chance(0.7)
            && let Some(queued) = self.hand.next_waiting()
        {
            self.running.push(queued);
        }
        while !self.running.is_empty() && random.chance(0.4) {
            let done = self.running.swap_remove(random.below(self.running.len()));
            self.hand.carry_out(done);
        }
        if !self.running.is_empty() || self.hand.is_wanted() {
            // There is more to do, though nothing else may happen.
            let soon = Duration::from_micros(1) + random.up_to(Duration::from_millis(5));
            world.alarm(world.clock() + soon);
        }
    }

    fn end(&mut self) {
        let left = std::mem::take(&mut self.running);
        left.into_iter().for_each(|queued| self.hand.carry_out(queued));
        while let Some(queued) = self.hand.next_waiting() {
            self.hand.carry_out(queued);
        }
    }
}

fn client(number: usize, handle: &Handle, world: &World, random: &mut Random) -> Client {
    let (peer, fd) = world.adoptable();
    let ordered = random.chance(0.7);
    let state = State { client: number, ordered, jobs: 0, held: None };
    handle.adopt_upgraded(fd.into(), Vec::new(), state).expect("the worker listens");
    let ending = [Ending::Patient, Ending::Patient, Ending::Hasty, Ending::Reset, Ending::Stay];
    Client {
        peer,
        codec: Connection::new(Role::Client),
        ordered,
        ending: ending[random.below(5)],
        at: random.up_to(Duration::from_millis(20)),
        said: 0,
        count: random.within(0..=30),
        heard: Vec::new(),
        done: false,
    }
}

fn worker(seed: u64, config: &Config, faults: Faults) -> (Worker<Sim, App>, Handle, World, Hand) {
    let (driver, world) = Sim::new(seed, faults, 0);
    let (ways, inbox) = inbox(config.mailbox_len, 0, driver.waker());
    let counters = Arc::new(Counters::default());
    let (pool, hand) = Pool::without_threads(1, config.compute_queue_len);
    let compute = pool.for_worker(ways.results.clone());
    let link = Link::new(ways, Arc::clone(&counters));
    let hub = Hub::new(vec![link], config, Handover::default());
    let handle = Handle::new(hub.clone(), TcpOptions::from(config), None)
        .with_compute(Some(pool.meter()))
        .with_states_of::<App>();
    let setup = WorkerSetup {
        shared: Shared::new(0, config, counters, Masks::new([9; 32]), Budget::new(0), hub),
        inbox,
        compute: Some(compute),
        listeners: Vec::new(),
        assignment: Assignment::ReusePort,
        max_connections: usize::MAX,
    };
    let clock = TurnClock::simulated(&world);
    (Worker::new(driver, clock, App, setup), handle, world, hand)
}
