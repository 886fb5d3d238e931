//! What a handler hears of all workers: names and the order of their changes, what has subscribers.

#![expect(clippy::disallowed_types, reason = "tests share with threads")]

mod asked;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use ringwire::topics::{Interest, NameError, Presence, PresenceChange, Subscription};
use ringwire::{Answer, CloseCause, CloseCode, ConnId, Ctx, Handle, Handler, Message, Request};
use ringwire_peers::Client;

use crate::support::{Server, wait_until};
use crate::topics::{ask, quiet};

/// A call of the handler, of any worker.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Presence {
        name: String,
        conn: ConnId,
        change: PresenceChange,
        edge: bool,
        version: u64,
    },
    Interest {
        text: String,
        is_pattern: bool,
        has: bool,
        version: u64,
    },
    /// With the names and subscriptions that it still had.
    Close {
        conn: ConnId,
        names: Vec<String>,
        subscriptions: Vec<String>,
    },
}

/// What the handlers of all workers have heard, in order, and on which thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(ThreadId, Call)>>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, Call)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: Call) {
        self.lock().push((thread::current().id(), call));
    }

    /// Takes the handlers at their word: who has which name. Checks that all changes of a name came on one thread, in
    /// the order of their versions, each once, and that first and last are what they say.
    fn present(&self) -> BTreeMap<String, BTreeSet<ConnId>> {
        let mut present = BTreeMap::<_, BTreeSet<_>>::new();
        let mut before = HashMap::new();
        let mut closed = HashSet::new();
        for (thread, call) in &*self.lock() {
            let (name, conn, change, edge, version) = match call {
                Call::Presence { name, conn, change, edge, version } => {
                    (name, conn, change, edge, version)
                }
                Call::Close { conn, .. } => {
                    closed.insert(*conn);
                    continue;
                }
                Call::Interest { .. } => continue,
            };
            if let Some((teller, last)) = before.insert(name.clone(), (*thread, *version)) {
                assert_eq!(teller, *thread, "{name}");
                assert!(last < *version, "{name}: {version} after {last}");
            }
            let conns = present.entry(name.clone()).or_default();
            match change {
                PresenceChange::Joined => {
                    assert_eq!(*edge, conns.is_empty(), "{call:?}");
                    assert!(conns.insert(*conn), "{call:?}");
                }
                _ => {
                    assert!(conns.remove(conn), "{call:?}");
                    assert_eq!(*edge, conns.is_empty(), "{call:?}");
                    let gave_up = name.starts_with("loose.");
                    assert!(gave_up || closed.contains(conn), "{call:?} before on_close");
                }
            }
        }
        present.retain(|_, conns| !conns.is_empty());
        present
    }

    fn interests(&self) -> Vec<(String, bool, bool)> {
        let log = self.lock();
        let interests = log.iter().filter_map(|(_, call)| match call {
            Call::Interest { text, is_pattern, has, .. } => Some((text.clone(), *is_pattern, *has)),
            _ => None,
        });
        interests.collect()
    }
}

/// Obeys: `+name`, `-name`, `*topic or pattern`, `/topic or pattern`, `=` (its names), `#` (how many connections are
/// open), `?topic` (how many get what is published there), `!` (sticks). Tells on the topic "presence" who has come and
/// gone, and notes all.
struct Lobby {
    log: Log,
    handle: Arc<OnceLock<Handle>>,
    gates: Arc<[Barrier; 2]>,
    wants_interest: bool,
}

impl Handler for Lobby {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let Message::Text(text) = message else { panic!("commands are texts") };
        let (verb, rest) = text.split_at(1);
        let id = ctx.id();
        let answer = match verb {
            "+" => ctx.register(rest).map_or_else(|error| error.to_string(), |new| new.to_string()),
            "-" => ctx.unregister(rest).to_string(),
            "*" => ctx.subscribe_pattern(rest).expect("a pattern").to_string(),
            "/" => ctx.unsubscribe_pattern(rest).to_string(),
            "=" => ctx.names().collect::<Vec<_>>().join(" "),
            "#" => self.server().connection_ids().count().to_string(),
            "?" => {
                let handle = self.server().clone();
                return self.server().subscribers(rest).then(move |members| {
                    let count = members.expect("all workers answer").len().to_string();
                    handle.send(id, &*count).expect("there is room");
                });
            }
            "!" => {
                self.gates[0].wait();
                self.gates[1].wait();
                "went on".to_owned()
            }
            other => panic!("no command: {other}"),
        };
        let _ = ctx.send(&*answer);
    }

    fn on_presence(&mut self, presence: &Presence<'_>) {
        let Presence { name, conn, change, version, .. } = *presence;
        let edge = presence.is_first || presence.is_last;
        self.log.note(Call::Presence { name: name.to_owned(), conn, change, edge, version });
        if edge {
            let said = format!("{name} {}", presence.is_first);
            self.server().publish("presence", &*said).expect("nobody is behind");
        }
    }

    fn wants_interest(&self) -> bool {
        self.wants_interest
    }

    fn on_interest(&mut self, interest: &Interest<'_>) {
        let Interest { subscription, has_subscribers: has, version, .. } = *interest;
        let is_pattern = matches!(subscription, Subscription::Pattern(_));
        let text = subscription.to_string();
        self.log.note(Call::Interest { text, is_pattern, has, version });
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, ()>, _cause: &CloseCause) {
        assert_eq!(ctx.register("late"), Err(NameError::Closing));
        let names = ctx.names().map(str::to_owned).collect();
        let subscriptions = ctx.subscriptions().map(|own| own.to_string()).collect();
        self.log.note(Call::Close { conn: ctx.id(), names, subscriptions });
    }
}

impl Lobby {
    fn server(&self) -> &Handle {
        self.handle.get().expect("it is given before anybody comes")
    }
}

struct Hall {
    server: Server,
    log: Log,
    gates: Arc<[Barrier; 2]>,
}

impl Hall {
    fn open(workers: usize) -> Self {
        Self::with_interest(workers, true)
    }

    fn with_interest(workers: usize, wants_interest: bool) -> Self {
        let config = quiet().with_io_workers(workers);
        let log = Log::default();
        let handle = Arc::<OnceLock<_>>::default();
        let gates = Arc::new([Barrier::new(2), Barrier::new(2)]);
        let own = (log.clone(), Arc::clone(&handle), Arc::clone(&gates));
        let server = Server::with_handler(config, &["127.0.0.1:0"], move |_, _| {
            let (log, handle, gates) = own.clone();
            Lobby { log, handle, gates, wants_interest }
        });
        assert!(handle.set(server.handle()).is_ok());
        Self { server, log, gates }
    }

    /// What the server says of all names.
    fn listed(&self, prefix: &str) -> BTreeMap<String, BTreeSet<ConnId>> {
        let names = self.server.handle().names(prefix);
        let names: Vec<_> = names.map(|(name, conns)| (name, BTreeSet::from_iter(conns))).collect();
        let count = names.len();
        let listed = BTreeMap::from_iter(names);
        assert_eq!(listed.len(), count, "a name is listed twice");
        listed
    }
}

fn named(addr: SocketAddr, names: &[&str]) -> Client {
    let mut client = Client::connect(addr);
    for name in names {
        ask(&mut client, &format!("+{name}"), "true");
    }
    client
}

#[test]
fn connections_are_found_by_name_over_all_workers() {
    let hall = Hall::open(3);
    let (addr, handle) = (hall.server.addr(), hall.server.handle());
    let mut anns: Vec<_> = (0..9).map(|_| named(addr, &["user.ann"])).collect();
    let mut bob = named(addr, &["user.bob", "user.ann", "admin"]);
    ask(&mut bob, "+admin", "false");
    ask(&mut bob, "=", "user.bob user.ann admin");
    assert_eq!(handle.connections("user.ann").len(), 10);
    assert_eq!(handle.send_to("user.ann", "hello all anns"), Ok(10));
    for client in anns.iter_mut().chain([&mut bob]) {
        assert_eq!(client.text(), "hello all anns");
    }
    assert_eq!(handle.send_to("user.carl", "hello"), Ok(0));
    let counts = |prefix| -> Vec<_> {
        hall.listed(prefix).into_iter().map(|(name, conns)| (name, conns.len())).collect()
    };
    let user = |name: &str, count| (name.to_owned(), count);
    assert_eq!(counts("user."), [user("user.ann", 10), user("user.bob", 1)]);
    assert_eq!(counts(""), [user("admin", 1), user("user.ann", 10), user("user.bob", 1)]);
    assert_eq!(counts("user.b"), [user("user.bob", 1)]);
    assert_eq!(counts("users"), []);
    ask(&mut bob, "-user.ann", "true");
    assert_eq!(handle.connections("user.ann").len(), 9);
    bob.reset();
    anns.drain(..).for_each(Client::leave);
    wait_until("all names are gone", || hall.listed("").is_empty());
    assert_eq!(handle.connections("user.ann"), []);
}

/// More names than are looked at under one lock, and more than one part has.
#[test]
fn names_are_listed_page_by_page() {
    let hall = Hall::open(2);
    let mut expected = BTreeSet::new();
    let mut clients = Vec::new();
    for number in 0..320 {
        let mut client = hall.server.client();
        for index in 0..64 {
            let name = format!("{number}.{index}");
            client.send(Message::Text(&format!("+{name}")));
            expected.insert(name);
        }
        (0..64).for_each(|_| assert_eq!(client.text(), "true"));
        clients.push(client);
    }
    assert!(hall.listed("").into_keys().eq(expected.iter().cloned()));
    let some = expected.iter().filter(|name| name.starts_with("31")).cloned();
    assert!(hall.listed("31").into_keys().eq(some));
}

/// Clients on four workers come, get and lose names and go, in every way and at once. What the handlers were told is
/// what is there, and what was there in between came in its order.
#[test]
fn what_is_told_of_names_is_what_happened() {
    const THREADS: u32 = 6;
    const STEPS: u32 = 400;
    const LOOSE: [&str; 4] = ["loose.1", "loose.2", "loose.3", "loose.4"];
    let hall = Hall::open(4);
    let addr = hall.server.addr();
    let work = move |seed: u32| {
        let mut random = seed.wrapping_mul(0x9e37_79b9) | 1;
        let mut below = move |bound: usize| {
            // xorshift32 (Marsaglia 2003).
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random as usize % bound
        };
        let mut clients: Vec<(Client, BTreeSet<String>)> = Vec::new();
        for _ in 0..STEPS {
            if clients.len() < 2 || clients.len() < 12 && below(4) == 0 {
                let name = format!("user.{}", below(3));
                clients.push((named(addr, &[&name]), BTreeSet::from([name])));
                continue;
            }
            let index = below(clients.len());
            let (client, names) = &mut clients[index];
            let name = LOOSE[below(LOOSE.len())].to_owned();
            match below(7) {
                0 => clients.swap_remove(index).0.leave(),
                1 => clients.swap_remove(index).0.reset(),
                2 => clients.swap_remove(index).0.close(1000, ""),
                3 | 4 => {
                    let is_new = names.insert(name.clone());
                    ask(client, &format!("+{name}"), &is_new.to_string());
                }
                _ => {
                    let was = names.remove(&name);
                    ask(client, &format!("-{name}"), &was.to_string());
                }
            }
        }
        clients
    };
    let threads: Vec<_> = (1..=THREADS).map(|seed| thread::spawn(move || work(seed))).collect();
    let clients: Vec<_> =
        threads.into_iter().flat_map(|thread| thread.join().expect("it goes on")).collect();
    let mut model = BTreeMap::<String, usize>::new();
    for name in clients.iter().flat_map(|(_, names)| names) {
        *model.entry(name.clone()).or_default() += 1;
    }
    let counts = |lists: BTreeMap<String, BTreeSet<ConnId>>| -> BTreeMap<_, _> {
        lists.into_iter().map(|(name, conns)| (name, conns.len())).collect()
    };
    wait_until("all others are gone", || counts(hall.listed("")) == model);
    wait_until("all is told", || hall.log.present() == hall.listed(""));
    drop(clients);
    wait_until("nobody is left", || hall.log.present().is_empty());
    assert!(hall.listed("").is_empty());
}

/// Users whose page is loaded anew, the new connection beside the old, as seen by somebody who hears of it.
#[test]
fn nobody_is_shown_offline_who_is_there() {
    const USERS: usize = 24;
    const RELOADS: usize = 12;
    let hall = Hall::open(4);
    let addr = hall.server.addr();
    let mut observer = Client::connect(addr);
    ask(&mut observer, "*presence", "true");
    let told = Arc::new(AtomicUsize::new(0));
    let users: Vec<_> = (0..USERS)
        .map(|user| {
            thread::spawn(move || {
                let name = format!("user.{user}");
                let mut client = named(addr, &[&name]);
                for _ in 0..RELOADS {
                    let leaving = thread::spawn(move || client.leave());
                    client = named(addr, &[&name]);
                    leaving.join().expect("it leaves");
                }
                client
            })
        })
        .collect();
    let clients: Vec<_> =
        users.into_iter().map(|user| user.join().expect("it is served")).collect();
    wait_until("the old ones are gone", || {
        hall.listed("").into_values().all(|conns| conns.len() == 1)
    });
    wait_until("all is told", || hall.log.present() == hall.listed(""));
    // It comes behind all that was told before by the worker that tells of it, and every worker tells of some.
    let last: Vec<_> = (0..256).map(|number| format!("last.{number}")).collect();
    let mut end = Client::connect(addr);
    let mut awaited: HashSet<_> = last.iter().take(64).cloned().collect();
    for name in last.iter().take(64) {
        ask(&mut end, &format!("+{name}"), "true");
    }
    let mut online = HashMap::new();
    while !awaited.is_empty() {
        let text = observer.text();
        let (name, is_present) = text.split_once(' ').expect("two words");
        if !awaited.remove(name) {
            let is_present = is_present == "true";
            let before = online.insert(name.to_owned(), is_present).unwrap_or(false);
            assert_ne!(before, is_present, "{name}");
            told.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(online.len(), USERS);
    assert!(online.values().all(|is_present| *is_present), "{online:?}");
    assert!(told.load(Ordering::Relaxed) >= USERS);
    drop((clients, end));
}

#[test]
fn what_a_connection_had_is_there_in_on_close() {
    let hall = Hall::open(2);
    let addr = hall.server.addr();
    let enter = || {
        let mut client = named(addr, &["ann", "editor"]);
        ask(&mut client, "*room.1", "true");
        client
    };
    enter().leave();
    enter().reset();
    enter().close(1000, "");
    let kicked = enter();
    wait_until("one is left", || hall.listed("").get("ann").is_some_and(|all| all.len() == 1));
    let last = hall.server.handle().connections("ann")[0];
    hall.server.handle().close(last, CloseCode::NORMAL, "bye").expect("there is room");
    drop(kicked);
    // Each name that is gone was told of after on_close.
    let is_gone = |call: &Call| matches!(call, Call::Presence { change: PresenceChange::Left, .. });
    wait_until("all is told", || {
        hall.log.lock().iter().filter(|(_, call)| is_gone(call)).count() == 4 * 2
    });
    assert!(hall.log.present().is_empty());
    let mut count = 0;
    for (_, call) in &*hall.log.lock() {
        if let Call::Close { names, subscriptions, .. } = call {
            assert_eq!(names[..], ["ann", "editor"]);
            assert_eq!(subscriptions[..], ["room.1"]);
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

/// Workers end one after the other, and somebody tells of all that happens until the last.
#[test]
fn a_worker_that_ends_leaves_its_names_to_another() {
    let hall = Hall::open(4);
    let addr = hall.server.addr();
    let names: Vec<_> = (0..64).map(|number| format!("user.{number}")).collect();
    let mut clients: Vec<_> = names.iter().map(|name| named(addr, &[name])).collect();
    wait_until("all is told", || hall.log.present().len() == names.len());
    let teller = |name: &String| {
        let log = hall.log.lock();
        let told = log.iter().find_map(|(thread, call)| match call {
            Call::Presence { name: other, .. } if other == name => Some(*thread),
            _ => None,
        });
        told.expect("it was told")
    };
    let tellers: HashSet<_> = names.iter().map(teller).collect();
    assert_eq!(tellers.len(), 4, "each worker tells of some");
    // All connections but one are gone, so that three workers end at once.
    let stays = clients.pop().expect("there are some");
    hall.server.handle().drain(Duration::ZERO, CloseCode::GOING_AWAY);
    clients.into_iter().for_each(Client::reset);
    wait_until("one is left", || {
        let log = hall.log.lock();
        log.iter().filter(|(_, call)| matches!(call, Call::Close { .. })).count() == 63
    });
    stays.reset();
    let Hall { server, log, .. } = hall;
    // It joins the workers.
    drop(server);
    let mut left = HashSet::new();
    for (_, call) in &*log.lock() {
        if let Call::Presence { name, change: PresenceChange::Left, .. } = call {
            assert!(left.insert(name.clone()), "{name}");
        }
    }
    assert_eq!(left, names.into_iter().collect());
}

#[test]
fn the_first_and_the_last_subscriber_are_told_of_once() {
    let hall = Hall::open(4);
    let mut clients: Vec<_> = (0..24).map(|_| hall.server.client()).collect();
    for client in &mut clients {
        ask(client, "*room.1", "true");
    }
    let topic = |has| ("room.1".to_owned(), false, has);
    let pattern = |has| ("room.*".to_owned(), true, has);
    wait_until("it is told", || !hall.log.interests().is_empty());
    assert_eq!(hall.log.interests(), [topic(true)]);
    // A pattern is no subscriber of the topics that it takes in.
    ask(&mut clients[0], "*room.*", "true");
    wait_until("it is told", || hall.log.interests().len() == 2);
    assert_eq!(hall.log.interests(), [topic(true), pattern(true)]);
    for client in &mut clients {
        ask(client, "/room.1", "true");
    }
    wait_until("it is told", || hall.log.interests().len() == 3);
    assert_eq!(hall.log.interests()[2], topic(false));
    clients.drain(..).for_each(Client::reset);
    wait_until("it is told", || hall.log.interests().len() == 4);
    assert_eq!(hall.log.interests()[3], pattern(false));
}

/// Subscribers come and go on four workers at once: what is told of a topic alternates, in the order of versions, on
/// one worker, and ends with what is so.
#[test]
fn interest_is_told_in_its_order() {
    let hall = Hall::open(4);
    let addr = hall.server.addr();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                let topic = format!("room.{}", number % 2);
                for _ in 0..150 {
                    ask(&mut client, &format!("*{topic}"), "true");
                    ask(&mut client, &format!("/{topic}"), "true");
                }
                if number == 0 {
                    ask(&mut client, "*room.0", "true");
                }
                client
            })
        })
        .collect();
    let clients: Vec<_> =
        threads.into_iter().map(|thread| thread.join().expect("it is served")).collect();
    let heard = |topic: &str| {
        let mut heard = None;
        for (thread, call) in &*hall.log.lock() {
            let Call::Interest { text, has, version, .. } = call else { continue };
            if text == topic {
                let (teller, last, had) = heard.unwrap_or((*thread, 0, false));
                assert_eq!(teller, *thread);
                assert!(last < *version && had != *has, "{call:?}");
                heard = Some((*thread, *version, *has));
            }
        }
        heard.is_some_and(|(.., has)| has)
    };
    wait_until("all is told", || heard("room.0") && !heard("room.1"));
    drop(clients);
    wait_until("all is told", || !heard("room.0") && !heard("room.1"));
}

#[test]
fn interest_is_told_to_those_only_who_want_to_know() {
    let hall = Hall::with_interest(2, false);
    let mut client = hall.server.client();
    ask(&mut client, "*room.1", "true");
    ask(&mut client, "+ann", "true");
    client.leave();
    wait_until("it is told", || hall.log.lock().len() == 3);
    assert_eq!(hall.log.interests(), []);
}
