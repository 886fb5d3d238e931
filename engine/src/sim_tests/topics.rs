//! Two workers in simulated networks, and what is published on both: everyone who reads gets all of it once and in
//! order, whoever else is slow, resets or stops reading; and whoever misses something is told how much. What is told of
//! names and of subscribers is what happened, in its order.

#![expect(clippy::disallowed_types, reason = "handles share counters, and a stream is adopted")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringwire_codec::{Connection, Event, Heap, Input, Masks, Message, Role};

use super::assembly::Assembly;
use super::plan::draw_faults;
use super::seeds;
use crate::app::ctx::Ctx;
use crate::app::handler::{Answer, Handler};
use crate::app::presence::{Interest, Presence, PresenceChange};
use crate::app::request::Request;
use crate::base::budget::Budget;
use crate::config::Config;
use crate::conn::cause::CloseCause;
use crate::conn::id::ConnId;
use crate::conn::options::Backpressure;
use crate::driver::sim::{Faults, Peer, Random, Sim, World};
use crate::entry::adoption::Adoption;
use crate::hub::Hub;
use crate::hub::mail::Mail;
use crate::metrics::Counters;
use crate::server::handle::Handle;
use crate::topic::{PublishOptions, TopicConfig};
use crate::worker::Worker;

const SEEDS: u64 = 100;
const WORKERS: usize = 2;
const CLIENTS: usize = 10;
const ROUNDS: usize = 120;
const TOPICS: [&str; 4] = ["room.a", "room.b", "room.a.sub", "news"];
const PATTERNS: [&str; 7] = ["room.a", "room.b", "room.*", "room.>", "news", "*", ">"];
const NAMES: [&str; 3] = ["ann", "bob", "carl"];
/// How long a round takes.
const PACE: Duration = Duration::from_millis(20);
/// How long what is under way may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Subscribes once, and reads whatever comes.
    Steady,
    /// The same, but does not read until the end.
    Slow,
    /// Comes and goes from topics.
    Fickle,
    /// Breaks its connection at some time.
    Leaves,
}

/// What the application noted of a connection.
#[derive(Debug, Default)]
struct Noted {
    id: Option<ConnId>,
    missed: usize,
    closed: Option<CloseCause>,
    /// The topics that it has published to, in order.
    published: Vec<String>,
}

type Notes = Rc<RefCell<Vec<Noted>>>;

/// What the handlers of both workers were told of a name or a subscription: on which worker, who it was about, if that
/// was said, whether it has come, whether it was the first or last, and the version.
type Told = Rc<RefCell<Vec<(String, u16, Option<ConnId>, bool, bool, u64)>>>;

struct Room {
    worker: u16,
    notes: Notes,
    told: Told,
}

/// `+pattern`, `-pattern`, `@name` for a name to get or lose, or a topic to publish to; the sender leaves itself out.
impl Handler for Room {
    type State = usize;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<usize> {
        unreachable!("connections are adopted after their handshake")
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, usize>) {
        let number = *ctx.state();
        self.notes.borrow_mut()[number].id = Some(ctx.id());
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, usize>, message: Message<'_>) {
        let Message::Text(text) = message else { unreachable!("commands are texts") };
        let number = *ctx.state();
        let (command, rest) = text.split_at(1);
        match command {
            "+" => drop(ctx.subscribe_pattern(rest).expect("the pattern is one")),
            "-" => drop(ctx.unsubscribe_pattern(rest)),
            "@" if ctx.unregister(rest) => {}
            "@" => drop(ctx.register(rest).expect("it is short")),
            _ => {
                let published = &mut self.notes.borrow_mut()[number].published;
                let index = published.len();
                published.push(text.to_owned());
                let said = format!("{number} {index} {text} {}", "x".repeat(index % 7 * 50));
                let options = PublishOptions::default().with_except(ctx.id());
                ctx.publish_with(text, said.as_str(), options).expect("nobody is far behind");
            }
        }
    }

    fn on_missed(&mut self, ctx: &mut Ctx<'_, usize>, count: u32) {
        self.notes.borrow_mut()[*ctx.state()].missed += count as usize;
    }

    fn on_presence(&mut self, presence: &Presence<'_>) {
        let Presence { name, conn, change, is_first, is_last, version } = *presence;
        let has_joined = change == PresenceChange::Joined;
        let call =
            (name.to_owned(), self.worker, Some(conn), has_joined, is_first || is_last, version);
        self.told.borrow_mut().push(call);
    }

    fn wants_interest(&self) -> bool {
        true
    }

    fn on_interest(&mut self, interest: &Interest<'_>) {
        let Interest { subscription, has_subscribers, version } = *interest;
        let call = (subscription.to_string(), self.worker, None, has_subscribers, true, version);
        self.told.borrow_mut().push(call);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, usize>, cause: &CloseCause) {
        let before = self.notes.borrow_mut()[*ctx.state()].closed.replace(cause.clone());
        assert!(before.is_none(), "it ends twice");
    }
}

struct Client {
    manner: Manner,
    peer: Peer,
    codec: Connection,
    patterns: Vec<&'static str>,
    reads: bool,
    /// What came: who published it, the how manyeth of its publications it is, and to what topic.
    came: Vec<(usize, usize, String)>,
    masks: Masks,
    fed: Vec<u8>,
}

impl Client {
    fn say(&mut self, text: &str) {
        let mut frame = Vec::new();
        self.codec.send(Message::Text(text), &mut self.masks, &mut frame).expect("it is open");
        self.peer.write(&frame);
    }

    fn hear(&mut self) {
        if !self.reads {
            return;
        }
        self.fed.extend(self.peer.read());
        let mut input = Input::new(&mut self.fed);
        let config = ringwire_codec::Config::default();
        while let Some(event) =
            self.codec.receive(&config, &mut Heap, &mut input).expect("the server is correct")
        {
            if let Event::Message(message) = event {
                let Message::Text(text) = message.as_message() else { panic!("not a text") };
                let mut words = text.split(' ');
                let mut number = || words.next()?.parse::<usize>().ok();
                let (publisher, index) = (number().expect("who"), number().expect("which"));
                let topic = words.next().expect("where").to_owned();
                self.came.push((publisher, index, topic));
            }
        }
        self.fed.clear();
    }
}

struct Hall {
    worlds: Vec<World>,
    workers: Vec<Worker<Sim, Room>>,
    handle: Handle,
    hub: Hub,
    counters: Vec<Arc<Counters>>,
    notes: Notes,
    told: Told,
    clients: Vec<Client>,
    random: Random,
}

impl Hall {
    fn new(seed: u64, config: &Config, faults: &Faults, manners: &[Manner]) -> Self {
        let mut random = Random::new(seed);
        let (notes, told) = (Notes::default(), Told::default());
        notes.borrow_mut().resize_with(manners.len(), Noted::default);
        let seeds: Vec<_> = (0..WORKERS).map(|_| random.seed()).collect();
        let room = |worker| Room { worker, notes: Rc::clone(&notes), told: Rc::clone(&told) };
        let Assembly { worlds, workers, counters, hub, handle } =
            Assembly::new(seeds, config, faults, &Budget::new(0), room);
        let mut hall = Self {
            worlds,
            workers,
            handle,
            hub,
            counters,
            notes,
            told,
            clients: Vec::new(),
            random,
        };
        manners.iter().for_each(|manner| hall.enter(*manner));
        hall
    }

    fn enter(&mut self, manner: Manner) {
        let number = self.clients.len();
        let worker = number % WORKERS;
        let (peer, fd) = self.worlds[worker].adoptable();
        let stream = TcpStream::from(fd);
        let adopt = Mail::Adopt(Box::new(Adoption::new(stream).with_state(number)));
        self.hub.links()[worker].postbox.post(adopt).expect("there is room");
        let reads = manner != Manner::Slow;
        if !reads {
            peer.set_window(300);
        }
        self.clients.push(Client {
            manner,
            peer,
            codec: Connection::new(Role::Client),
            patterns: Vec::new(),
            reads,
            came: Vec::new(),
            masks: Masks::new([5; 32]),
            fed: Vec::new(),
        });
    }

    /// Lets all networks go on for a while.
    fn pass(&mut self, time: Duration) {
        for index in 0..WORKERS {
            let until = self.worlds[index].clock() + time;
            self.worlds[index].alarm(until);
            while self.worlds[index].clock() < until {
                self.workers[index].turn().expect("the driver works");
                self.workers[index].check_memory();
                self.clients.iter_mut().for_each(Client::hear);
            }
        }
    }

    /// How many publications a client that has subscribed once should get.
    fn due(&self, client: &Client, number: usize) -> usize {
        let notes = self.notes.borrow();
        let others = notes.iter().enumerate().filter(|(other, _)| *other != number);
        let topics = others.flat_map(|(_, note)| &note.published);
        let mine = |topic: &&String| {
            client.patterns.iter().any(|pattern| crate::topic::matches(pattern, topic))
        };
        topics.filter(mine).count()
    }

    /// A client says something now and then.
    fn act(&mut self, number: usize) {
        let topic = TOPICS[self.random.below(TOPICS.len())];
        let pattern = PATTERNS[self.random.below(PATTERNS.len())];
        let client = &mut self.clients[number];
        match client.manner {
            Manner::Leaves if self.random.chance(0.02) => {
                client.peer.reset();
                client.reads = false;
            }
            Manner::Fickle if self.random.chance(0.3) => {
                if !client.patterns.contains(&pattern) {
                    client.patterns.push(pattern);
                }
                let sign = ["+", "-"][self.random.below(2)];
                client.say(&format!("{sign}{pattern}"));
            }
            _ if self.random.chance(0.2) => {
                client.say(&format!("@{}", NAMES[self.random.below(NAMES.len())]));
            }
            _ if self.random.chance(0.6) => client.say(topic),
            _ => {}
        }
    }
}

#[test]
fn everyone_who_reads_gets_all_of_it_once_and_in_order() {
    if let Some(missed) = seeds::run_all(0..SEEDS, run) {
        assert!(missed.into_iter().sum::<usize>() > 0, "nobody ever was too slow");
    }
}

/// Returns how many publications were missed.
fn run(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut faults = draw_faults(&mut random);
    (faults.reset, faults.fin) = (0.0, 0.0);
    let policy = [Backpressure::DropOldest, Backpressure::DropNewest][random.below(2)];
    let is_tight = random.chance(0.5);
    let (budget, queue) = if is_tight { (2 << 10, 32 << 10) } else { (1 << 20, 1 << 20) };
    let config = Config::default()
        .with_max_queued_len(queue)
        .with_high_water(queue)
        .with_idle_timeout(None)
        .with_ping_interval(None)
        .with_write_stall_timeout(None)
        .with_topics(TopicConfig::default().with_max_retained_len(budget).with_policy(">", policy));
    let manners: Vec<_> = (0..CLIENTS)
        .map(|number| match number % 5 {
            0 | 1 => Manner::Steady,
            2 => Manner::Slow,
            3 => Manner::Fickle,
            _ => Manner::Leaves,
        })
        .collect();
    let mut hall = Hall::new(random.seed(), &config, &faults, &manners);
    hall.pass(PACE);
    for client in &mut hall.clients {
        if client.manner != Manner::Fickle {
            for pattern in [PATTERNS[random.below(3)], PATTERNS[3 + random.below(4)]] {
                client.patterns.push(pattern);
                client.say(&format!("+{pattern}"));
            }
            client.patterns.dedup();
        }
    }
    hall.pass(PATIENCE);
    for _ in 0..ROUNDS {
        for number in 0..CLIENTS {
            hall.act(number);
        }
        hall.pass(PACE);
    }
    for client in hall.clients.iter_mut().filter(|client| client.manner == Manner::Slow) {
        client.reads = true;
        client.peer.set_window(1 << 20);
    }
    // Twice: the second time a worker that was last may answer what the first did meanwhile.
    hall.pass(PATIENCE);
    hall.pass(PATIENCE);
    check(&hall, is_tight);
    check_told(&mut hall);
    let missed = hall.notes.borrow().iter().map(|note| note.missed).sum();
    leave(hall);
    missed
}

/// `is_tight`: little may wait, which is not enough for a network that stalls.
fn check(hall: &Hall, is_tight: bool) {
    let notes = hall.notes.borrow();
    for (number, client) in hall.clients.iter().enumerate() {
        let note = &notes[number];
        let context = format!("client {number}, {:?}, missed {}", client.manner, note.missed);
        let mut last = HashMap::new();
        for (publisher, index, topic) in &client.came {
            assert_ne!(*publisher, number, "{context}: it gets what it published");
            let before = last.insert(publisher, index);
            assert!(
                before.is_none_or(|before| before < index),
                "{context}: out of order, or twice"
            );
            let mine = client.patterns.iter().any(|pattern| crate::topic::matches(pattern, topic));
            assert!(mine, "{context}: {topic}");
        }
        match client.manner {
            Manner::Steady | Manner::Slow => {
                assert!(is_tight || note.missed == 0, "{context}");
                let all = client.came.len() + note.missed;
                assert_eq!(all, hall.due(client, number), "{context}");
            }
            Manner::Fickle | Manner::Leaves => {}
        }
    }
}

/// Taken at their word, the handlers know who has which name, and what has subscribers.
fn check_told(hall: &mut Hall) {
    // In these turns each hears of what the other did last.
    let inquiry = hall.handle.topics();
    for worker in &mut hall.workers {
        worker.turn().expect("the driver works");
    }
    let mut present = BTreeMap::<_, BTreeSet<_>>::new();
    let mut before = HashMap::new();
    for call in &*hall.told.borrow() {
        let (name, worker, conn, has_come, is_edge, version) = call;
        let last = before.insert((name, conn.is_some()), (*worker, *version));
        assert!(last.is_none_or(|last| last.0 == *worker && last.1 < *version), "{call:?}");
        let all = present.entry((name.clone(), conn.is_some())).or_default();
        let was_empty = all.is_empty();
        let changed = if *has_come { all.insert(*conn) } else { all.remove(conn) };
        assert!(changed, "{call:?}");
        assert_eq!(*is_edge, was_empty || all.is_empty(), "{call:?}");
    }
    present.retain(|_, all| !all.is_empty());
    let names = hall.handle.names("").map(|(name, conns)| {
        let conns = conns.into_iter().map(Some).collect();
        ((name, true), conns)
    });
    let topics = inquiry.wait(Duration::ZERO).expect("both have answered");
    let topics = topics.into_keys().map(|text| ((text, false), BTreeSet::from([None])));
    assert_eq!(present, names.chain(topics).collect());
}

/// All connections end, whereupon nothing is left of them.
fn leave(mut hall: Hall) {
    hall.clients.iter().for_each(|client| client.peer.reset());
    hall.pass(PATIENCE);
    for counters in &hall.counters {
        let stats = counters.read();
        assert_eq!((stats.connections, stats.subscriptions, stats.queued_bytes), (0, 0, 0));
    }
    assert_eq!(hall.handle.stats().topics.retained_len, 0);
    check_told(&mut hall);
    assert_eq!(hall.handle.names("").count(), 0);
    assert_eq!(hall.handle.connection_ids().count(), 0);
    let nobody = hall.hub.exchange().has_no_interest();
    assert!(nobody, "somebody is still interested");
}
