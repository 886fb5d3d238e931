//! Presence and rooms against a naive model, over many seeds: users who come, go, break, stop reading, join, leave and
//! speak, in every protocol and over several workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringwire::OwnedMessage;
use ringwire::testing::{Faults, Peer, Random, Sim};
use ringwire_gateway::settings::{RoomLimits, Settings};
use serde_json::{Value, json};

use crate::common::{
    TOO_SLOW, await_that, config, enter, get, hear, id_of, question, sim, sim_with, simulated,
};

const USERS: [&str; 4] = ["ann", "ben", "cem", "dora"];
const ROOMS: [&str; 4] = ["a", "b", "c.d", "*"];
const MAX_ROOMS: usize = 2;
const MAX_MEMBERS: usize = 3;
const MAX_CONNECTIONS: usize = 4;

const ENVELOPE: &str = "envelope.json";
const TEXT: &str = "rooms.text";
const JSON: &str = "rooms.json";
const CHAT: &str = "chat.json";

/// A connection, as the model has it.
struct Conn {
    user: &'static str,
    protocol: &'static str,
    peer: Peer,
    reads: bool,
    rooms: BTreeSet<&'static str>,
    /// What it should hear next.
    due: Vec<String>,
}

impl Conn {
    /// Hears what is due. What came from several workers while it did not read has no order among itself.
    fn hear(&mut self) {
        let mut heard: Vec<_> = self.due.iter().map(|_| brief(&self.peer.text())).collect();
        heard.sort_unstable();
        self.due.sort_unstable();
        assert_eq!(heard, self.due, "{} of {}", self.protocol, self.user);
        self.due.clear();
    }

    fn speaks_of_rooms(&self) -> bool {
        [TEXT, JSON].contains(&self.protocol)
    }
}

fn settings() -> Settings {
    let mut rooms = RoomLimits::default();
    (rooms.max_rooms_per_user, rooms.max_members) = (MAX_ROOMS, MAX_MEMBERS);
    let mut settings = Settings::default();
    (settings.rooms, settings.max_connections_per_user) = (rooms, MAX_CONNECTIONS);
    settings
}

#[test]
fn presence_and_rooms_are_those_of_the_model() {
    sim(3, &settings()).seeds(0..1000, |sim| {
        let mut random = sim.random();
        // A request is long, with its token: in smaller pieces and with longer delays it takes more time than a peer
        // waits.
        let mut faults = Faults::mixed(&mut random);
        (faults.reset, faults.fin) = (0.0, 0.0);
        faults.max_delay = faults.max_delay.min(Duration::from_millis(3));
        sim.faults(&faults);
        let mut world = World { sim, random, conns: Vec::new(), said: 0 };
        for _ in 0..world.random.within(10..=40) {
            world.step();
            world.check();
        }
        while !world.conns.is_empty() {
            world.end();
            world.check();
        }
    });
}

/// A slow reader has so many bytes waiting at most, beside what the network holds.
const MAX_QUEUED_LEN: usize = 64 << 10;

#[test]
fn a_slow_reader_is_closed_and_nobody_else_loses_anything() {
    let config = config(2).with_max_queued_len(MAX_QUEUED_LEN).with_high_water(16 << 10);
    sim_with(config, &Settings::default()).seeds(0..40, |sim| {
        let mut faults = Faults::mixed(&mut sim.random());
        (faults.reset, faults.fin) = (0.0, 0.0);
        faults.max_delay = faults.max_delay.min(Duration::from_millis(3));
        sim.faults(&faults);
        let mut slow = enter(sim, "slow", ENVELOPE);
        let (mut ann, mut ben) = (enter(sim, "ann", ENVELOPE), enter(sim, "ben", CHAT));
        slow.stop_reading();
        let content = "x".repeat(4000);
        let (mut sent, mut was_told) = (0, false);
        while !was_told {
            assert!(sent < 400, "the slow reader is still there");
            let data = json!({ "number": sent, "content": content });
            ann.send(json!({ "message_type": "text", "data": data }).to_string());
            // All of it, in order, whatever becomes of the other.
            loop {
                let heard = hear(&mut ben);
                match heard.get("Leave") {
                    Some(user) => was_told = user == "slow",
                    None => break assert_eq!(heard["Chat"]["message"], json!(content)),
                }
            }
            sent += 1;
            // More than the network and the queue hold; its close has so long to get through.
            if sent > 100 {
                sim.advance(Duration::from_millis(200));
            }
        }
        assert_eq!(simulated().presence.connections(&id_of("slow")), []);
        slow.go_on_reading();
        let mut next = 0;
        while let Some(OwnedMessage::Text(text)) = slow.try_message().or_else(|| {
            sim.advance(Duration::from_secs(1));
            slow.try_message()
        }) {
            let heard: Value = serde_json::from_str(&text).unwrap();
            if heard["message_type"] == "text" {
                assert_eq!(heard["data"]["number"], next);
                next += 1;
            }
        }
        let end = slow.closed();
        assert!(next < sent, "{next} of {sent}");
        assert!([TOO_SLOW.get(), 1006].contains(&end.code), "{end:?}");
    });
}

struct World<'s> {
    sim: &'s mut Sim,
    random: Random,
    conns: Vec<Conn>,
    said: usize,
}

impl World<'_> {
    fn step(&mut self) {
        match self.random.below(10) {
            _ if self.conns.is_empty() => self.open(),
            0..3 => self.open(),
            3 => self.end(),
            4 => self.turn_to_reading_or_from_it(),
            5..7 => self.join_or_leave(),
            _ => self.speak(),
        }
    }

    fn count(&self, user: &str) -> usize {
        self.conns.iter().filter(|conn| conn.user == user).count()
    }

    /// Everybody for whom it holds is to hear this, in the words of the protocol.
    fn due(&mut self, who: impl Fn(&Conn) -> bool, words: impl Fn(&str) -> Option<String>) {
        for conn in self.conns.iter_mut().filter(|conn| who(conn)) {
            conn.due.extend(words(conn.protocol));
        }
    }

    fn open(&mut self) {
        let user = USERS[self.random.below(USERS.len())];
        if self.count(user) == MAX_CONNECTIONS {
            let mut peer = self.sim.connect(get(user, TEXT)).expect_open();
            assert_eq!(peer.closed().code, 4010);
            return;
        }
        if self.count(user) == 0 {
            self.tell_of(user, "user_joined", "Join");
        }
        let protocol = [ENVELOPE, TEXT, JSON, CHAT][self.random.below(4)];
        let peer = enter(self.sim, user, protocol);
        let (rooms, due) = (BTreeSet::new(), Vec::new());
        self.conns.push(Conn { user, protocol, peer, reads: true, rooms, due });
    }

    fn tell_of(&mut self, user: &str, envelope: &str, chat: &str) {
        self.due(
            |conn| conn.user != user,
            |protocol| match protocol {
                ENVELOPE => Some(format!("{envelope} {user}")),
                CHAT => Some(format!("{chat} {user}")),
                _ => None,
            },
        );
    }

    fn end(&mut self) {
        let index = self.random.below(self.conns.len());
        let mut conn = self.conns.swap_remove(index);
        match self.random.below(3) {
            // The server waits with its own end until the peer has read all.
            0 if conn.reads => conn.peer.close(1000, ""),
            1 if conn.reads => conn.peer.half_close(),
            _ => conn.peer.reset(),
        }
        if self.count(conn.user) == 0 {
            self.tell_of(conn.user, "user_left", "Leave");
        }
    }

    fn turn_to_reading_or_from_it(&mut self) {
        let index = self.random.below(self.conns.len());
        let conn = &mut self.conns[index];
        conn.reads = !conn.reads;
        if !conn.reads {
            return conn.peer.stop_reading();
        }
        conn.peer.go_on_reading();
        conn.hear();
    }

    /// One that reads and speaks so.
    fn pick(&mut self, who: impl Fn(&Conn) -> bool) -> Option<usize> {
        let fit = |index: &usize| self.conns[*index].reads && who(&self.conns[*index]);
        let fit: Vec<_> = (0..self.conns.len()).filter(fit).collect();
        if fit.is_empty() { None } else { Some(fit[self.random.below(fit.len())]) }
    }

    fn join_or_leave(&mut self) {
        let Some(index) = self.pick(Conn::speaks_of_rooms) else { return };
        let room = ROOMS[self.random.below(ROOMS.len())];
        let (user, protocol) = (self.conns[index].user, self.conns[index].protocol);
        let is_member = self.conns[index].rooms.contains(room);
        let joins = self.random.chance(0.6);
        let problem = match (joins, is_member) {
            (true, true) | (false, true) => None,
            (false, false) => Some("not in this room".to_owned()),
            (true, false) => {
                let own = self.conns.iter().filter(|conn| conn.user == user);
                let own: BTreeSet<_> = own.flat_map(|conn| &conn.rooms).copied().collect();
                let members = self.conns.iter().filter(|conn| conn.rooms.contains(room)).count();
                if !own.contains(room) && own.len() == MAX_ROOMS {
                    Some(format!("you are in {MAX_ROOMS} rooms already"))
                } else {
                    (members == MAX_MEMBERS).then(|| "the room is full".to_owned())
                }
            }
        };
        let conn = &mut self.conns[index];
        if problem.is_none() {
            if joins {
                conn.rooms.insert(room)
            } else {
                conn.rooms.remove(room)
            };
        }
        if protocol == TEXT {
            let verb = if joins { "JOIN" } else { "LEAVE" };
            conn.peer.send(format!("{verb} {room}"));
            let done = format!("{} room: {room}", if joins { "Joined" } else { "Left" });
            conn.due.push(problem.map_or(done, |problem| format!("ERROR {problem}")));
        } else {
            let verb = if joins { "subscribe" } else { "unsubscribe" };
            conn.peer.send(json!({ "type": verb, "topic": room, "id": 5 }).to_string());
            conn.due.push(
                problem.map_or_else(|| "ack 5".to_owned(), |problem| format!("error {problem}")),
            );
        }
    }

    fn speak(&mut self) {
        let Some(index) = self.pick(|_| true) else { return };
        self.said += 1;
        let text = format!("{} {}", self.said, "x".repeat(self.random.below(600)));
        match self.conns[index].protocol {
            ENVELOPE if self.random.chance(0.4) => self.whisper(index, &text),
            ENVELOPE => {
                let message = json!({ "message_type": "text", "data": { "content": text } });
                self.converse(index, &message, &text);
            }
            CHAT => self.converse(index, &json!({ "Chat": { "message": text } }), &text),
            _ if self.random.chance(0.2) => self.broadcast(index, &text),
            _ => self.say_in_room(index, &text),
        }
        // Once this is answered, what was said has been published.
        let conn = &mut self.conns[index];
        let question = question(conn.protocol);
        conn.peer.send(question);
        conn.due.push("answered".to_owned());
    }

    /// To everybody else.
    fn converse(&mut self, index: usize, message: &Value, text: &str) {
        let (user, own) = (self.conns[index].user, self.conns[index].due.len());
        self.conns[index].peer.send(message.to_string());
        self.due(
            |_| true,
            |protocol| match protocol {
                ENVELOPE => Some(format!("text {user} {text}")),
                CHAT => Some(format!("Chat {user} {text}")),
                _ => None,
            },
        );
        self.conns[index].due.truncate(own);
    }

    /// To one user, and the sender's other connections.
    fn whisper(&mut self, index: usize, text: &str) {
        let (from, own) = (self.conns[index].user, self.conns[index].due.len());
        let to = USERS[self.random.below(USERS.len())];
        let message = json!({ "id": "w", "message_type": "text", "data": { "content": text },
                              "to_user_id": id_of(to) });
        self.conns[index].peer.send(message.to_string());
        if self.conns.iter().any(|conn| conn.user == to && conn.protocol == ENVELOPE) {
            let words = |protocol: &str| {
                (protocol == ENVELOPE).then(|| format!("text {from} {text} for {}", id_of(to)))
            };
            self.due(|conn| [from, to].contains(&conn.user), words);
            self.conns[index].due.truncate(own);
        } else {
            self.conns[index].due.push("error offline w".to_owned());
        }
    }

    fn say_in_room(&mut self, index: usize, text: &str) {
        let room = ROOMS[self.random.below(ROOMS.len())];
        let conn = &mut self.conns[index];
        let (user, is_member) = (conn.user, conn.rooms.contains(room));
        if conn.protocol == TEXT {
            conn.peer.send(format!("SEND {room} {text}"));
            if !is_member {
                return conn.due.push("ERROR not in this room".to_owned());
            }
        } else {
            let message = json!({ "type": "publish", "topic": room, "message": text });
            conn.peer.send(message.to_string());
        }
        self.due(
            |conn| conn.rooms.contains(room),
            |protocol| match protocol {
                TEXT => Some(format!("[{room}] {user}: {text}").trim_end().to_owned()),
                _ => Some(format!("in {room} {user}: {text}")),
            },
        );
    }

    fn broadcast(&mut self, index: usize, text: &str) {
        let conn = &mut self.conns[index];
        let user = conn.user;
        if conn.protocol == JSON {
            // Nobody has a command for that in JSON.
            return;
        }
        conn.peer.send(format!("BROADCAST {text}"));
        self.due(Conn::speaks_of_rooms, |protocol| match protocol {
            TEXT => Some(format!("{user}: {text}").trim_end().to_owned()),
            _ => Some(format!("in null {user}: {}", text.trim_end())),
        });
    }

    /// The gateway is as the model says, and everybody has heard what was due, and nothing else.
    fn check(&mut self) {
        self.conns.iter_mut().filter(|conn| conn.reads).for_each(Conn::hear);
        let (mut users, mut rooms) = (BTreeMap::new(), BTreeMap::new());
        for conn in &self.conns {
            *users.entry(id_of(conn.user)).or_insert(0) += 1;
            for room in &conn.rooms {
                let (count, names) = rooms.entry(*room).or_insert((0, BTreeSet::new()));
                *count += 1;
                names.insert(conn.user);
            }
        }
        let app = simulated();
        await_that(self.sim, "the connections of the model", || {
            app.presence.counts().connections == self.conns.len()
        });
        let online = app.presence.page(None, 100).users;
        let online: BTreeMap<_, _> =
            online.into_iter().map(|(id, user)| (id, user.connection_count)).collect();
        assert_eq!(online, users);
        assert_eq!(app.presence.counts().users, users.len());
        let list = app.rooms.tally(None);
        let listed: BTreeMap<_, _> = list
            .iter()
            .map(|(room, count)| {
                let names = app.rooms.tally(Some(room));
                (&**room, (*count, names.into_keys().collect()))
            })
            .collect();
        let rooms: BTreeMap<_, (usize, BTreeSet<String>)> = rooms
            .into_iter()
            .map(|(room, (count, names))| {
                (room, (count, names.into_iter().map(str::to_owned).collect()))
            })
            .collect();
        assert_eq!(listed, rooms);
        // What was published may still be on its way to a worker where nobody is to hear it: whoever joins there before
        // it comes would.
        self.sim.advance(Duration::from_millis(100));
        for conn in self.conns.iter_mut().filter(|conn| conn.reads) {
            let more = conn.peer.try_message();
            assert!(more.is_none(), "{} of {} hears too much: {more:?}", conn.protocol, conn.user);
        }
    }
}

/// What is heard, without ids and times.
fn brief(text: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return text.replace("ERROR unknown command", "answered");
    };
    let of = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(kind) = value["message_type"].as_str() {
        let data = &value["data"];
        return match kind {
            "text" => {
                let from = USERS.iter().find(|user| json!(id_of(user)) == value["from_user_id"]);
                let to = value.get("to_user_id").map(|to| format!(" for {}", of(to)));
                let to = to.unwrap_or_default();
                format!("text {} {}{to}", from.unwrap(), of(&data["content"]))
            }
            "error" => format!("error {} {}", of(&data["error"]), of(&value["id"])),
            "pong" => "answered".to_owned(),
            _ => format!("{kind} {}", of(&data["username"])),
        };
    }
    if let Some(chat) = value.get("Chat") {
        return format!("Chat {} {}", of(&chat["user"]), of(&chat["message"]));
    }
    if value.get("Error").is_some() || value["ack"] == "?" {
        return "answered".to_owned();
    }
    for kind in ["Join", "Leave"] {
        if let Some(user) = value.get(kind) {
            return format!("{kind} {}", of(user));
        }
    }
    match value["type"].as_str() {
        Some("message") => {
            format!("in {} {}: {}", of(&value["topic"]), of(&value["from"]), of(&value["message"]))
        }
        Some("error") => format!("error {}", of(&value["error"])),
        _ => format!("ack {}", value["ack"]),
    }
}
