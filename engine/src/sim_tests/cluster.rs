//! Three nodes in simulated networks, and a broker between them that delays, doubles and reorders what it carries, and
//! cuts nodes off. Nobody hears anything twice or out of order; with sound links nobody misses anything; what is lost
//! by a cut or for want of room is counted, each of it; and afterwards everything is heard again.

#![expect(clippy::disallowed_types, reason = "handles share counters, and a stream is adopted")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringwire_codec::{Connection, Event, Heap, Input, Masks, Message, Role};

use super::assembly::Assembly;
use super::plan::draw_faults;
use super::seeds;
use crate::app::ctx::Ctx;
use crate::app::handler::{Answer, Handler};
use crate::app::request::Request;
use crate::base::budget::Budget;
use crate::cluster::{self, ClusterConfig, Inlet, Node, NodeId, Outgoing, Outlet};
use crate::config::Config;
use crate::driver::sim::{Faults, Peer, Random, Sim, World};
use crate::entry::adoption::Adoption;
use crate::hub::Hub;
use crate::hub::mail::Mail;
use crate::limits::Readiness;
use crate::metrics::ClusterStats;
use crate::server::handle::Handle;
use crate::topic::PublishError;
use crate::worker::Worker;

const SEEDS: u64 = 60;
const SITES: usize = 3;
/// On each site; the first of them has all topics all the time.
const CLIENTS: usize = 3;
const ROUNDS: usize = 60;
const TOPICS: [&str; 4] = ["room.a", "room.b", "room.a.sub", "news"];
const PATTERNS: [&str; 6] = ["room.*", "room.>", "*", ">", "*.a", "room.a"];
/// How long a round takes.
const PACE: Duration = Duration::from_millis(10);
/// What arrives at all arrives within this; copies may come ten times as late.
const LATEST: Duration = Duration::from_millis(100);
/// How long what is under way between a client and its node may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// In which all that the broker has arrives, and what is missing is given up.
const SETTLES: Duration = Duration::from_millis(1500);

/// What a client has published: how many to each topic, and which of them other nodes were to miss.
#[derive(Debug, Default)]
struct Said {
    counts: BTreeMap<&'static str, usize>,
    refused: BTreeSet<(&'static str, usize)>,
}

type Notes = Rc<RefCell<Vec<Said>>>;

struct App(Notes);

/// `+pattern`, `-pattern`, or a topic to publish to.
impl Handler for App {
    type State = usize;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<usize> {
        unreachable!("connections are adopted after their handshake")
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, usize>, message: Message<'_>) {
        let Message::Text(text) = message else { unreachable!("commands are texts") };
        let number = *ctx.state();
        let (command, rest) = text.split_at(1);
        match command {
            "+" => drop(ctx.subscribe_pattern(rest).expect("the pattern is one")),
            "-" => drop(ctx.unsubscribe_pattern(rest)),
            _ => {
                let topic = TOPICS.into_iter().find(|topic| *topic == text).expect("a topic");
                let said = &mut self.0.borrow_mut()[number];
                let index = said.counts.entry(topic).or_default();
                let text = format!("{number} {index} {topic} {}", "x".repeat(*index % 5 * 50));
                match ctx.publish(topic, text.as_str()) {
                    Ok(()) => {}
                    Err(PublishError::Cluster) => drop(said.refused.insert((topic, *index))),
                    Err(error) => panic!("{error}"),
                }
                *index += 1;
            }
        }
    }
}

struct Client {
    number: usize,
    peer: Peer,
    codec: Connection,
    masks: Masks,
    /// What came: who published it, to what topic, and the how manyeth of it.
    came: Vec<(usize, String, usize)>,
}

impl Client {
    fn say(&mut self, text: &str) {
        let mut frame = Vec::new();
        self.codec.send(Message::Text(text), &mut self.masks, &mut frame).expect("it is open");
        self.peer.write(&frame);
    }

    fn hear(&mut self) {
        let mut fed = self.peer.read();
        let mut input = Input::new(&mut fed);
        let config = ringwire_codec::Config::default();
        while let Some(event) =
            self.codec.receive(&config, &mut Heap, &mut input).expect("the server is correct")
        {
            let Event::Message(message) = event else { continue };
            let Message::Text(text) = message.as_message() else { panic!("not a text") };
            let mut words = text.split(' ');
            let mut number = || words.next()?.parse::<usize>().ok();
            let (publisher, index) = (number().expect("who"), number().expect("which"));
            self.came.push((publisher, words.next().expect("where").to_owned(), index));
        }
    }
}

/// Whether the broker was woken since it looked.
struct Rung(AtomicBool);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One node, and what the broker knows of it.
struct Site {
    worlds: Vec<World>,
    workers: Vec<Worker<Sim, App>>,
    handle: Handle,
    clients: Vec<Client>,
    outlet: Outlet,
    inlet: Inlet,
    rung: Arc<Rung>,
    /// When the inlet wants to be called.
    expires: Option<Duration>,
    /// What it has asked for, from when on, and whether it is to begin.
    orders: VecDeque<(Duration, bool, String)>,
    subscriptions: BTreeSet<String>,
    /// It is cut off. What it has to say waits, or is lost.
    cut: Option<Cut>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Waits,
    Loses,
}

impl Site {
    fn new(
        random: &mut Random,
        config: &Config,
        faults: &Faults,
        id: NodeId,
        notes: &Notes,
    ) -> Self {
        let count = random.within(1..=2);
        let seeds: Vec<_> = (0..count).map(|_| random.seed()).collect();
        let Assembly { worlds, workers, hub, handle, .. } =
            Assembly::new(seeds, config, faults, &Budget::new(0), |_| App(Rc::clone(notes)));
        let (Node { outlet, inlet, .. }, _) = cluster::node(hub.exchange(), &config.cluster, id);
        let mut site = Self {
            worlds,
            workers,
            handle,
            clients: Vec::new(),
            outlet,
            inlet,
            rung: Arc::new(Rung(AtomicBool::new(true))),
            expires: None,
            orders: VecDeque::new(),
            subscriptions: BTreeSet::new(),
            cut: None,
        };
        for _ in 0..CLIENTS {
            let number = notes.borrow().len();
            notes.borrow_mut().push(Said::default());
            site.enter(number, &hub);
        }
        site
    }

    fn enter(&mut self, number: usize, hub: &Hub) {
        let worker = number % self.workers.len();
        let (peer, fd) = self.worlds[worker].adoptable();
        let adopt = Adoption::new(TcpStream::from(fd)).with_state(number);
        let adopt = Mail::Adopt(Box::new(adopt));
        hub.links()[worker].postbox.post(adopt).expect("there is room");
        let (codec, masks) = (Connection::new(Role::Client), Masks::new([5; 32]));
        self.clients.push(Client { number, peer, codec, masks, came: Vec::new() });
    }

    fn pass(&mut self, time: Duration) {
        for (world, worker) in self.worlds.iter().zip(&mut self.workers) {
            let until = world.clock() + time;
            world.alarm(until);
            while world.clock() < until {
                worker.turn().expect("the driver works");
                self.clients.iter_mut().for_each(Client::hear);
            }
        }
    }

    fn stats(&self) -> ClusterStats {
        self.handle.stats().cluster.expect("it is a node")
    }

    /// How many of a publisher's came to the client that hears all.
    fn heard(&self, publisher: usize, topic: &str) -> usize {
        let mine = |it: &&(usize, String, usize)| it.0 == publisher && it.1 == topic;
        self.clients[0].came.iter().filter(mine).count()
    }
}

/// The broker, and all that it connects.
struct Play {
    sites: Vec<Site>,
    /// On their way: when they arrive, where, the topic, the letter.
    flying: Vec<(Duration, usize, String, Vec<u8>)>,
    now: Duration,
    notes: Notes,
    random: Random,
    /// Chance that the broker is busy with other things for a round.
    idles: f64,
    /// Letters that a cut lost, by where they come from or would have come to.
    lost: usize,
}

impl Play {
    fn new(seed: u64, is_tight: bool) -> Self {
        let mut random = Random::new(seed);
        let mut faults = draw_faults(&mut random);
        (faults.reset, faults.fin) = (0.0, 0.0);
        let cluster = ClusterConfig::default()
            .with_max_outgoing_len(if is_tight { 600 } else { 1 << 20 })
            .with_reorder_window(5 * LATEST / 2);
        let config = Config::default()
            .with_max_queued_len(1 << 20)
            .with_high_water(1 << 20)
            .with_idle_timeout(None)
            .with_ping_interval(None)
            .with_write_stall_timeout(None)
            .with_cluster(cluster);
        let notes = Notes::default();
        let sites = (1..=SITES as u64)
            .map(|id| Site::new(&mut random, &config, &faults, NodeId::of(id), &notes))
            .collect();
        let idles = [0.0, 0.3, 0.8][random.below(3)];
        Self { sites, flying: Vec::new(), now: Duration::ZERO, notes, random, idles, lost: 0 }
    }

    /// All go on for a while, and the broker works now and then.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += PACE;
            self.sites.iter_mut().for_each(|site| site.pass(PACE));
            for index in 0..SITES {
                self.sites[index].outlet.set_connected(self.sites[index].cut.is_none());
                if self.sites[index].cut != Some(Cut::Waits) && !self.random.chance(self.idles) {
                    self.collect(index);
                }
            }
            self.deliver();
        }
    }

    /// Takes what a site has to say. It looks only when it was woken.
    fn collect(&mut self, index: usize) {
        let site = &mut self.sites[index];
        if !site.rung.0.swap(false, Ordering::Relaxed) {
            return;
        }
        let waker = Waker::from(Arc::clone(&site.rung));
        let mut cx = Context::from_waker(&waker);
        loop {
            match self.sites[index].outlet.poll_next(&mut cx) {
                Poll::Ready(Some(Outgoing::Publish(letter))) => {
                    self.publish(index, letter.topic(), &letter.to_bytes());
                }
                Poll::Ready(Some(Outgoing::Subscribe(text))) => self.order(index, true, text),
                Poll::Ready(Some(Outgoing::Unsubscribe(text))) => self.order(index, false, text),
                Poll::Ready(None) => unreachable!("the workers run"),
                Poll::Ready(Some(other)) => unreachable!("each numbers by itself: {other:?}"),
                Poll::Pending => return,
            }
        }
    }

    /// Subscriptions take a while, and keep their order.
    fn order(&mut self, index: usize, begins: bool, text: String) {
        let site = &mut self.sites[index];
        let earliest = site.orders.back().map_or(Duration::ZERO, |(at, ..)| *at);
        let at = earliest.max(self.now + self.random.up_to(LATEST));
        site.orders.push_back((at, begins, text));
    }

    fn publish(&mut self, from: usize, topic: &str, bytes: &[u8]) {
        for to in 0..SITES {
            let site = &self.sites[to];
            let matching = |own: &&String| crate::topic::matches(own, topic);
            let copies = site.subscriptions.iter().filter(matching).count();
            if to == from || copies == 0 {
                continue;
            }
            if self.sites[from].cut.is_some() || self.sites[to].cut.is_some() {
                self.lost += 1;
                continue;
            }
            for copy in 0..copies + usize::from(self.random.chance(0.2)) {
                let latest = if copy == 0 { LATEST } else { 10 * LATEST };
                let at = self.now + self.random.up_to(latest);
                self.flying.push((at, to, topic.to_owned(), bytes.to_vec()));
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let due = |letter: &mut (Duration, usize, String, Vec<u8>)| letter.0 <= now;
        let mut due: Vec<_> = self.flying.extract_if(.., due).collect();
        due.sort_by_key(|letter| letter.0);
        for (at, to, topic, bytes) in due {
            let site = &mut self.sites[to];
            site.inlet.receive(&topic, &bytes, at);
            site.expires = site.inlet.expire(at);
        }
        for site in &mut self.sites {
            while let Some((_, begins, text)) =
                site.orders.pop_front_if(|order| site.cut.is_none() && order.0 <= now)
            {
                let changed = match begins {
                    true => site.subscriptions.insert(text),
                    false => site.subscriptions.remove(&text),
                };
                assert!(changed, "asked for twice, or ended before it began");
            }
            if site.expires.is_some_and(|at| at <= now) {
                site.expires = site.inlet.expire(now);
                assert!(site.expires.is_none_or(|at| at > now));
            }
        }
    }

    /// All that was said is heard.
    fn settle(&mut self) {
        self.sites.iter_mut().for_each(|site| site.pass(PATIENCE));
        self.pass(SETTLES);
        self.sites.iter_mut().for_each(|site| site.pass(PATIENCE));
    }

    /// Each site publishes one to each topic, whereupon all that was lost before is known.
    fn call_the_roll(&mut self) {
        for topic in TOPICS {
            self.sites.iter_mut().for_each(|site| site.clients[0].say(topic));
            self.settle();
        }
    }

    /// A client publishes, or comes to a topic or leaves it.
    fn act(&mut self, index: usize, client: usize) {
        let topic = TOPICS[self.random.below(TOPICS.len())];
        let pattern = PATTERNS[self.random.below(PATTERNS.len())];
        let sign = ["+", "-"][self.random.below(2)];
        let client_of = &mut self.sites[index].clients[client];
        if self.random.chance(0.5) {
            client_of.say(topic);
        } else if client > 0 && self.random.chance(0.3) {
            client_of.say(&format!("{sign}{pattern}"));
        }
    }

    /// Cuts a site off, or ends that.
    fn cut_or_heal(&mut self) {
        let index = self.random.below(SITES);
        self.sites[index].cut = match self.sites[index].cut {
            None => Some([Cut::Waits, Cut::Loses][self.random.below(2)]),
            Some(_) => None,
        };
    }

    fn check_readiness(&self) {
        for site in &self.sites {
            let expected = if site.cut.is_some() { Readiness::Apart } else { Readiness::Ready };
            assert_eq!(site.handle.readiness(), expected);
        }
    }
}

#[test]
fn nodes_hear_each_other_once_and_in_order_whatever_the_broker_does() {
    let Some(runs) = seeds::run_all(0..SEEDS, run) else { return };
    let sum = |of: fn(&ClusterStats) -> u64| runs.iter().map(of).sum::<u64>();
    assert!(sum(|stats| stats.received) > 0 && sum(|stats| stats.passed_over) > 0);
    assert!(sum(|stats| stats.missed) > 0, "no cut lost anything");
    assert!(sum(|stats| stats.outgoing_dropped) > 0, "there was room for everything");
}

/// Returns what all sites have counted.
fn run(seed: u64) -> ClusterStats {
    let mut random = Random::new(seed);
    let (is_tight, is_sound) = (random.chance(0.3), random.chance(0.5));
    let mut play = Play::new(random.seed(), is_tight);
    for site in &mut play.sites {
        TOPICS.iter().for_each(|topic| site.clients[0].say(&format!("+{topic}")));
    }
    play.settle();
    play.call_the_roll();
    for _ in 0..ROUNDS {
        if !is_sound && random.chance(0.1) {
            play.cut_or_heal();
        }
        for index in 0..SITES {
            (0..CLIENTS).for_each(|client| play.act(index, client));
        }
        play.pass(PACE);
        play.check_readiness();
    }
    play.sites.iter_mut().for_each(|site| site.cut = None);
    play.settle();
    play.call_the_roll();
    check(&play, is_tight, is_sound)
}

fn check(play: &Play, is_tight: bool, is_sound: bool) -> ClusterStats {
    let mut total = ClusterStats::default();
    let notes = play.notes.borrow();
    for (index, site) in play.sites.iter().enumerate() {
        for client in &site.clients {
            let mut last = BTreeMap::new();
            for (publisher, topic, number) in &client.came {
                let before = last.insert((publisher, topic), number);
                let context = format!("client {} of {publisher}, {topic}", client.number);
                assert!(before.is_none_or(|before| before < number), "{context}: {number}");
            }
        }
        let mut missed = 0;
        for (publisher, said) in notes.iter().enumerate() {
            let is_here = publisher / CLIENTS == index;
            for (topic, count) in &said.counts {
                let refused = said.refused.iter().filter(|(of, _)| of == topic).count();
                let due = if is_here { *count } else { count - refused };
                let heard = site.heard(publisher, topic);
                let context = format!("site {index} of {publisher}, {topic}: {heard} of {due}");
                assert!(heard <= due, "{context}");
                assert!(heard == due || !is_here && !is_sound, "{context}");
                missed += due - heard;
            }
        }
        let stats = site.stats();
        assert_eq!(stats.missed, missed as u64, "site {index}");
        assert_eq!((stats.held_len, stats.outgoing_len, stats.malformed), (0, 0, 0));
        assert_eq!(stats.incoming_dropped, 0);
        assert_eq!(stats.subscriptions, site.subscriptions.len() as u64);
        assert!(is_tight || stats.outgoing_dropped == 0);
        total.missed += stats.missed;
        total.received += stats.received;
        total.passed_over += stats.passed_over;
        total.outgoing_dropped += stats.outgoing_dropped;
    }
    let refused: usize = notes.iter().map(|said| said.refused.len()).sum();
    assert_eq!(total.outgoing_dropped, refused as u64, "publishers were told");
    assert_eq!(total.missed, play.lost as u64, "what the broker lost");
    total
}
