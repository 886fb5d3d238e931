//! A day of abuse in seconds: users who come and go in every way, break, stop reading, and whose tokens expire, while
//! others talk. The gateway is a process of its own. By hand with more of them, some minutes for each driver:
//!
//! ```text
//! ABUSE_USERS=10000 ABUSE_ROUNDS=20 cargo test --release -p ringwire-gateway --test abuse -- --nocapture
//! ```
//!
//! `RINGWIRE_DRIVER` has it run on one driver alone, and `GATEWAY_PROGRAM` names a gateway that is there already.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test that fails panics, and is no worker's thread"
)]

#[path = "../it/common.rs"]
#[expect(dead_code, reason = "it is for other tests as well")]
mod common;
mod gateway;
mod member;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ringwire_peers::{Client, End, Got, Line, narrow};
use serde_json::json;
use uuid::Uuid;

use crate::common::{id_of, token};
use crate::gateway::{Gateway, expect_descriptors};
use crate::member::{CHAT, CRIER, ENVELOPE, HOST, JSON, Member, SPEAKER, Said, TEXT};

/// A token for the whole day.
const DAY: i64 = 24 * 3600;
/// A token that expires in a longer day, and not on its way to the server: its time is in whole seconds.
const SHORT: i64 = 5;
/// Rooms of the crowd.
const ROOMS: usize = 7;
/// Users who come between two messages.
const BATCH_LEN: usize = 100;
/// Those who look at all news: each keeps them.
const MAX_WATCHERS: usize = 50;
/// After each of so many parts of the day, nobody is left who is trouble.
const QUARTERS: usize = 4;
/// A peer that reads nothing takes so many bytes.
const NARROW_LEN: usize = 4 << 10;

/// How many are there all the time.
fn stayer_count(users: usize) -> usize {
    users.div_ceil(20).min(200)
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_day_of_abuse() {
    let (users, rounds) = (setting("ABUSE_USERS", 150), setting("ABUSE_ROUNDS", 16));
    // Some more are doubtful, or half gone, and the programs have files of their own.
    expect_descriptors(users + users / 4 + 100);
    let drivers = std::env::var("RINGWIRE_DRIVER")
        .map_or_else(|_| vec!["epoll".to_owned(), "uring".to_owned()], |it| vec![it]);
    for driver in drivers {
        abuse(&driver, users, rounds);
    }
}

/// The users, and what they should be told.
struct Town {
    gateway: Gateway,
    random: u64,
    /// Users of the crowd, at most.
    max_crowd: usize,
    said: Said,
    speaker: Member,
    crier: Member,
    host: Member,
    /// Those who are there all the time.
    stayers: Vec<Member>,
    /// Those who come and go.
    crowd: Vec<Member>,
    absent: Vec<usize>,
    /// Those who will be closed when their token expires.
    expiring: Vec<(Instant, Client)>,
    /// Those who have begun to go.
    leaving: Vec<Client>,
    /// Those who read nothing.
    slow: Vec<(Uuid, Client)>,
    /// Who was there when the stayers came.
    before: BTreeSet<Uuid>,
    /// Everybody who has ever been there.
    all: BTreeSet<Uuid>,
}

impl Town {
    fn new(driver: &str, users: usize) -> Self {
        let gateway = Gateway::start(driver);
        let said = Said::default();
        let enter = |name, protocol| {
            Member::enter(Line::connect(gateway.address), name, protocol, DAY, said)
        };
        let (speaker, crier, host) =
            (enter(SPEAKER, ENVELOPE), enter(CRIER, TEXT), enter(HOST, JSON));
        let stayers = stayer_count(users);
        Self {
            random: 88_172_645_463_325_252,
            max_crowd: users - stayers - 3,
            said,
            speaker,
            crier,
            host,
            stayers: Vec::new(),
            crowd: Vec::new(),
            absent: (0..users).collect(),
            expiring: Vec::new(),
            leaving: Vec::new(),
            slow: Vec::new(),
            before: BTreeSet::new(),
            all: BTreeSet::new(),
            gateway,
        }
    }

    /// Below `bound`, by xorshift: the same each time.
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % bound as u64).unwrap()
    }

    fn protocol(&mut self) -> &'static str {
        // News of everybody go to each of the first two: with many users these are fewer, or nothing else is done.
        let shares = (self.max_crowd / 250).max(4);
        match self.below(shares) {
            0 => [ENVELOPE, CHAT][self.below(2)],
            _ => [TEXT, JSON][self.below(2)],
        }
    }

    fn enter(&mut self, name: &str, protocol: &'static str, seconds: i64) -> Member {
        self.all.insert(id_of(name));
        Member::enter(Line::connect(self.gateway.address), name, protocol, seconds, self.said)
    }

    /// Somebody comes with a token for the day: a user who is not there, or another connection of one who is.
    fn come(&mut self) {
        let again = self.below(8) == 0 && !self.crowd.is_empty();
        let protocol = self.protocol();
        let mut member = if again {
            let at = self.below(self.crowd.len());
            let user = self.crowd[at].name.clone();
            let count = self.crowd.iter().filter(|it| it.name == user).count();
            if count == 16 {
                return;
            }
            self.enter(&user, protocol, DAY)
        } else {
            let at = self.below(self.absent.len());
            let user = self.absent.swap_remove(at);
            self.enter(&format!("u{user}"), protocol, DAY)
        };
        if !member.takes_texts() {
            member.join_or_leave(self.below(ROOMS), self.said);
        }
        self.crowd.push(member);
    }

    /// Somebody comes who is trouble.
    fn come_with_trouble(&mut self) {
        let number = self.below(self.max_crowd + 1);
        match self.below(3) {
            0 => {
                let deadline = Instant::now() + Duration::from_secs(SHORT as u64);
                let name = format!("e{number}");
                let mut member = self.enter(&name, TEXT, SHORT);
                if self.below(2) == 0 {
                    return self.expiring.push((deadline, member.client));
                }
                // It goes on, and is one of the crowd.
                member.client.send(&*format!("REFRESH {}", token(&name, DAY)));
                assert_eq!(member.answer(), "Refreshed");
                self.crowd.push(member);
            }
            1 => {
                let protocol = [ENVELOPE, CHAT][self.below(2)];
                let (name, said) = (format!("s{number}"), self.said);
                self.all.insert(id_of(&name));
                let stream = narrow(self.gateway.address, NARROW_LEN);
                let member = Member::enter(stream, &name, protocol, DAY, said);
                self.slow.push((member.user, member.client));
            }
            _ => {
                let mut line = Line::connect(self.gateway.address);
                line.raw(
                    b"GET /ws?token=eyJhbGciOiJub25lIn0.e30. HTTP/1.1\r\nHost: localhost\r\n\r\n",
                );
            }
        }
    }

    fn go(&mut self) {
        let at = self.below(self.crowd.len());
        let member = self.crowd.swap_remove(at);
        if self.crowd.iter().all(|it| it.name != member.name)
            && let Some(number) = member.name.strip_prefix('u')
        {
            self.absent.push(number.parse().unwrap());
        }
        let mut client = member.client;
        match self.below(4) {
            0 => client.close(1000, ""),
            1 => client.end_with(End::Fin),
            2 => return client.reset(),
            _ => client.raw(&[0xff; 64]),
        }
        self.leaving.push(client);
    }

    /// Says something to everybody, and everybody hears it.
    fn say(&mut self) {
        self.say_with("");
    }

    fn say_with(&mut self, ballast: &str) {
        let content = format!("{} {ballast}", self.said.texts);
        let data = json!({ "content": content.trim_end() });
        self.speaker.client.send(&*json!({ "message_type": "text", "data": data }).to_string());
        self.said.texts += 1;
        let listeners = self.stayers.iter_mut().chain(&mut self.crowd);
        listeners.filter(|it| it.takes_texts()).for_each(|it| it.hear_until(self.said));
        self.speaker.settle();
    }

    /// The same in all rooms, and to all who speak of them.
    fn say_in_rooms(&mut self) {
        let Said { cries, rooms, .. } = self.said;
        self.crier.client.send(&*format!("BROADCAST {cries}"));
        for room in 0..ROOMS {
            let order = json!({ "type": "publish", "topic": room.to_string(), "message": rooms.to_string() });
            self.host.client.send(&*order.to_string());
        }
        self.said.cries += 1;
        self.said.rooms += 1;
        let listeners = [&mut self.crier, &mut self.host].into_iter().chain(&mut self.crowd);
        listeners.filter(|it| !it.takes_texts()).for_each(|it| it.hear_until(self.said));
    }

    /// Some change their room, or have none for a while.
    fn move_about(&mut self) {
        for _ in 0..self.crowd.len() / 32 {
            let (at, room) = (self.below(self.crowd.len()), self.below(ROOMS));
            if !self.crowd[at].takes_texts() {
                self.crowd[at].join_or_leave(room, self.said);
            }
        }
    }

    /// Those whose tokens have expired have been closed for that.
    fn see_expired_off(&mut self, all: bool) {
        let now = Instant::now();
        for (deadline, mut client) in std::mem::take(&mut self.expiring) {
            if all || deadline < now {
                let end = client.close_frame();
                assert_eq!(end, (4102, "expired: refresh first".to_owned()));
            } else {
                self.expiring.push((deadline, client));
            }
        }
    }

    /// Those who read nothing are closed, once more has been said than the network and the queue of one hold.
    fn see_slow_off(&mut self) {
        let ballast = "x".repeat(32 << 10);
        wait_until("slow readers are closed", || {
            self.say_with(&ballast);
            let online = self.gateway.online();
            self.slow.iter().all(|(user, _)| !online.contains(user))
        });
        self.slow.clear();
    }

    fn round(&mut self, changes: usize) {
        for change in 0..changes {
            if change % 4 == 0 {
                self.come_with_trouble();
            }
            if self.crowd.len() >= self.max_crowd {
                self.go();
                self.go();
            }
            self.come();
            if change % BATCH_LEN == 0 {
                self.say();
            }
        }
        self.move_about();
        for _ in 0..3 {
            self.say();
        }
        self.say_in_rooms();
        self.crowd.iter_mut().for_each(Member::settle);
        self.see_expired_off(false);
        self.leaving.clear();
    }

    /// Who is there.
    fn present(&self) -> BTreeSet<Uuid> {
        let healthy = [&self.speaker, &self.crier, &self.host].into_iter();
        healthy.chain(&self.stayers).chain(&self.crowd).map(|member| member.user).collect()
    }

    /// Whether everybody was told right of everybody else.
    fn is_told(&self, present: &BTreeSet<Uuid>) -> bool {
        self.stayers.iter().filter(|stayer| stayer.watches).all(|stayer| {
            let others = self.all.iter().filter(|user| **user != stayer.user);
            others.clone().all(|user| {
                let told = stayer.told.get(user).copied();
                told.unwrap_or_else(|| self.before.contains(user)) == present.contains(user)
            })
        })
    }
}

fn abuse(driver: &str, users: usize, rounds: usize) {
    let mut town = Town::new(driver, users);
    let (begin, idle) = (Instant::now(), town.gateway.descriptor_count());
    while town.crowd.len() < town.max_crowd {
        for _ in 0..BATCH_LEN.min(town.max_crowd - town.crowd.len()) {
            town.come();
        }
        town.say();
    }
    town.before = town.present();
    for number in 0..stayer_count(users) {
        let mut stayer = town.enter(&format!("h{number}"), [ENVELOPE, CHAT][number % 2], DAY);
        stayer.watches = number < MAX_WATCHERS;
        town.stayers.push(stayer);
        town.before.insert(id_of(&format!("h{number}")));
    }
    let mut resident = Vec::new();
    for _ in 0..QUARTERS {
        for _ in 0..rounds.div_ceil(QUARTERS) {
            town.round(users / 16 + 4);
        }
        town.see_expired_off(true);
        town.see_slow_off();
        resident.push(town.gateway.resident_len());
    }
    let (present, connections) = (town.present(), town.crowd.len() + town.stayers.len() + 3);
    wait_until("presence is that of the model", || town.gateway.online() == present);
    wait_until("counts are those of the model", || {
        town.gateway.counts() == (connections as u64, present.len() as u64)
    });
    wait_until("everybody has been told so", || {
        town.say();
        town.is_told(&present)
    });
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("{driver}: {rounds} rounds of {users} users in {seconds:.1} s, {resident:?} bytes");
    expect_flat(&resident);
    expect_nothing_left(town, idle);
}

/// Once it has seen everything, the gateway needs no more for more of that.
fn expect_flat(resident: &[usize]) {
    let [_, early, .., late] = resident else { panic!("too few: {resident:?}") };
    assert!(*late < early + early / 20 + (1 << 20), "memory grows: {resident:?}");
}

fn expect_nothing_left(town: Town, idle: usize) {
    let Town { gateway, speaker, crier, host, stayers, crowd, leaving, said, .. } = town;
    for member in crowd.into_iter().chain(stayers).chain([speaker, crier, host]) {
        member.client.reset();
    }
    drop(leaving);
    wait_until("nobody is there", || gateway.counts() == (0, 0));
    let mut last = Member::enter(Line::connect(gateway.address), "last", TEXT, DAY, said);
    last.client.send("ROOMS");
    assert_eq!(last.answer(), "Rooms:");
    last.client.close(1000, "");
    while !matches!(last.client.next(), Got::Eof) {}
    wait_until("no descriptor is left", || gateway.descriptor_count() <= idle);
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "this was due: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
