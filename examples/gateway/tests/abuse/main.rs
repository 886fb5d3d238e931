//! A day of abuse in seconds: users who come and go in every way, break, stop reading, and whose tokens expire, while
//! others talk. By hand with more of them:
//!
//! ```text
//! ABUSE_USERS=10000 ABUSE_ROUNDS=200 cargo test --release -p ringwire-gateway --test abuse -- --nocapture
//! ```
//!
//! Each user has two descriptors in the process; `ulimit -n` may have to be raised.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test that fails panics, and is no worker's thread"
)]

#[path = "../it/common.rs"]
#[expect(dead_code, reason = "it is for other tests as well")]
mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ringwire::DriverKind;
use ringwire::testing::{Live, Peer, Stage as _};
use ringwire_gateway::settings::Settings;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{app, enter, get, get_for, id_of, live_with, settle};

const ENVELOPE: &str = "envelope.json";
const BROADCASTS: usize = 3;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_day_of_abuse() {
    let (users, rounds) = (setting("ABUSE_USERS", 150), setting("ABUSE_ROUNDS", 16));
    for driver in [DriverKind::Epoll, DriverKind::Uring] {
        abuse(driver, users, rounds);
    }
}

/// A user who is there all the time, and hears everything.
struct Healthy {
    peer: Peer,
    /// Whom it has been told of.
    others: BTreeSet<Uuid>,
    heard: usize,
}

impl Healthy {
    /// Hears all that was said until then, in order and once; and who comes and goes, in turn.
    fn hear_until(&mut self, count: usize) {
        while self.heard < count {
            let news: Value = serde_json::from_str(&self.peer.text()).unwrap();
            let user = || news["data"]["user_id"].as_str().unwrap().parse().unwrap();
            match news["message_type"].as_str().unwrap() {
                "text" => {
                    assert_eq!(news["data"]["number"], self.heard);
                    self.heard += 1;
                }
                "user_joined" => assert!(self.others.insert(user()), "twice: {news}"),
                "user_left" => assert!(self.others.remove(&user()), "never came: {news}"),
                other => panic!("{other}"),
            }
        }
    }
}

/// Users who come and go.
struct Crowd {
    live: Live,
    random: u64,
    users: usize,
    /// Those who are there, and what they are called.
    present: Vec<(usize, &'static str, Peer)>,
    /// Whose tokens expire, or who read nothing: the server may have closed them.
    doubtful: Vec<Peer>,
}

impl Crowd {
    /// Below `bound`, by xorshift: the same each time.
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % bound as u64).unwrap()
    }

    fn come(&mut self) {
        let user = self.below(self.users);
        let name = format!("u{user}");
        let protocol = [ENVELOPE, "rooms.text", "rooms.json", "chat.json"][self.below(4)];
        match self.below(10) {
            0 => {
                // It expires in a longer day, and not on its way to the server: its time is in whole seconds.
                let get = get_for(&format!("e{user}"), protocol, 3);
                self.doubtful.push(self.live.connect(get).expect_open());
            }
            1 => {
                let get = get(&format!("s{user}"), protocol);
                let mut peer = self.live.connect(get).expect_open();
                peer.stop_reading();
                self.doubtful.push(peer);
            }
            2 => drop(self.live.connect(get("nobody", protocol).with_header("upgrade", "no"))),
            _ if self.present.iter().filter(|(other, ..)| *other == user).count() < 16 => {
                let mut peer = self.live.connect(get(&name, protocol)).expect_open();
                match protocol {
                    "rooms.text" => peer.send(format!("JOIN {}", user % 7)),
                    "rooms.json" => {
                        let topic = (user % 7).to_string();
                        peer.send(json!({ "type": "subscribe", "topic": topic }).to_string());
                    }
                    _ => {}
                }
                self.present.push((user, protocol, peer));
            }
            _ => {}
        }
    }

    fn go(&mut self) {
        if self.present.is_empty() {
            return;
        }
        let index = self.below(self.present.len());
        let (_, _, mut peer) = self.present.swap_remove(index);
        match self.below(4) {
            0 => peer.close(1000, ""),
            1 => peer.half_close(),
            2 => peer.reset(),
            _ => {
                peer.write(&[0xff; 64]);
            }
        }
    }
}

fn abuse(driver: DriverKind, users: usize, rounds: usize) {
    let app = app(&Settings::default());
    let live = live_with(driver, 2, &app);
    let handle = live.handle();
    let (present, doubtful) = (Vec::new(), Vec::new());
    let mut crowd = Crowd { live, random: 88_172_645_463_325_252, users, present, doubtful };
    let mut speaker = enter(&mut crowd.live, "speaker", ENVELOPE);
    let mut healthy: Vec<_> = (0..users.div_ceil(10))
        .map(|number| Healthy {
            peer: enter(&mut crowd.live, &format!("h{number}"), ENVELOPE),
            others: BTreeSet::new(),
            heard: 0,
        })
        .collect();
    let (mut said, begin) = (0, Instant::now());
    let mut resident = Vec::new();
    for _ in 0..rounds {
        for _ in 0..users / 8 {
            crowd.come();
        }
        while crowd.present.len() > users / 2 {
            crowd.go();
        }
        for _ in 0..BROADCASTS {
            let message = json!({ "message_type": "text", "data": { "number": said } });
            speaker.send(message.to_string());
            said += 1;
        }
        healthy.iter_mut().for_each(|each| each.hear_until(said));
        // Who reads stays.
        settle(&mut speaker, ENVELOPE);
        crowd.present.iter_mut().for_each(|(_, protocol, peer)| settle(peer, protocol));
        resident.push(resident_len());
    }
    // What may have been closed or not is gone now.
    crowd.doubtful.drain(..).for_each(|mut peer| peer.reset());
    let crowd_ids: BTreeSet<_> =
        crowd.present.iter().map(|(user, ..)| id_of(&format!("u{user}"))).collect();
    let mut expected = crowd_ids.clone();
    expected.insert(id_of("speaker"));
    expected.extend((0..healthy.len()).map(|number| id_of(&format!("h{number}"))));
    let online = || -> BTreeSet<_> {
        app.presence.online(None, usize::MAX - 1).users.iter().map(|user| user.user_id).collect()
    };
    wait_until("presence is that of the model", || online() == expected);
    let connections = crowd.present.len() + healthy.len() + 1;
    wait_until("connections are those of the model", || {
        app.presence.counts().connections == connections
    });
    wait_until("everybody has been told so", || {
        speaker.send(json!({ "message_type": "text", "data": { "number": said } }).to_string());
        said += 1;
        healthy.iter_mut().all(|each| {
            each.hear_until(said);
            each.others.is_superset(&crowd_ids) && each.others.is_subset(&expected)
        })
    });
    let seconds = begin.elapsed().as_secs_f64();
    let (half, full) = (resident[rounds / 2], resident[rounds - 1]);
    eprintln!(
        "{driver:?}: {rounds} rounds of {users} users in {seconds:.1} s, {half} → {full} bytes"
    );
    assert!(full < half + half / 4 + (16 << 20), "memory grows: {resident:?}");

    crowd.present.iter_mut().for_each(|(.., peer)| peer.reset());
    speaker.reset();
    healthy.iter_mut().for_each(|each| each.peer.reset());
    wait_until("nobody is there", || app.presence.counts().connections == 0);
    wait_until("nothing is left", || {
        app.presence.online(None, 1).users.is_empty()
            && app.rooms.list().is_empty()
            && handle.names("").next().is_none()
            && handle.topics().wait(Duration::from_secs(10)).unwrap().is_empty()
            && handle.stats().topics.retained_len == 0
    });
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "this was due: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Resident memory of this process, in bytes (proc_pid_statm(5)).
fn resident_len() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
