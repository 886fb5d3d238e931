//! A connection of a user, with what it is due to hear.

use std::collections::HashMap;

use ringwire_codec::handshake::client::Request;
use ringwire_peers::{Client, Got, Line};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{id_of, question, token};

pub(crate) const ENVELOPE: &str = "envelope.json";
pub(crate) const CHAT: &str = "chat.json";
pub(crate) const TEXT: &str = "rooms.text";
pub(crate) const JSON: &str = "rooms.json";

/// Who says something.
pub(crate) const SPEAKER: &str = "speaker";
pub(crate) const CRIER: &str = "crier";
pub(crate) const HOST: &str = "host";

/// How much has been said. Everything that is said is the number of what has been said before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// By the speaker to everybody, in envelopes and chat.
    pub(crate) texts: usize,
    /// By the crier to all who speak of rooms.
    pub(crate) cries: usize,
    /// By the host, in each room.
    pub(crate) rooms: usize,
}

pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) user: Uuid,
    pub(crate) protocol: &'static str,
    pub(crate) client: Client,
    pub(crate) room: Option<String>,
    /// How much had been said when it came, and when it came into its room: of that it may hear the end.
    since: Said,
    heard: Said,
    /// What it was told last of each user: whether that one is there.
    pub(crate) told: HashMap<Uuid, bool>,
    /// What somebody who came first was told of others is checked, over all of the time.
    pub(crate) watches: bool,
}

/// What else than numbers and news was heard.
enum Heard {
    News,
    Answer(String),
}

impl Member {
    /// Connects, and is there when this returns.
    pub(crate) fn enter(
        line: impl Into<Line>,
        name: &str,
        protocol: &'static str,
        seconds: i64,
        said: Said,
    ) -> Self {
        let target = format!("/ws?token={}", token(name, seconds));
        let request = Request::new("localhost", &target, [7; 16]);
        let request = request.and_then(|request| request.with_subprotocol(protocol)).unwrap();
        let client = Client::upgrade(line, &request);
        let (name, user, room) = (name.to_owned(), id_of(name), None);
        let (since, heard, told, watches) = (said, said, HashMap::new(), false);
        let mut member = Self { name, user, protocol, client, room, since, heard, told, watches };
        member.settle();
        member
    }

    pub(crate) fn takes_texts(&self) -> bool {
        [ENVELOPE, CHAT].contains(&self.protocol)
    }

    /// Asks something, and waits for the answer: who reads stays.
    pub(crate) fn settle(&mut self) {
        self.client.send(question(self.protocol));
        assert_eq!(self.answer(), "answered", "{}", self.protocol);
    }

    /// The answer to what was asked, past all that was said before.
    pub(crate) fn answer(&mut self) -> String {
        loop {
            if let Heard::Answer(answer) = self.hear() {
                return answer;
            }
        }
    }

    /// Hears all that was said until then, in order and once.
    pub(crate) fn hear_until(&mut self, said: Said) {
        loop {
            let Said { texts, cries, rooms } = self.heard;
            let is_done = if self.takes_texts() {
                texts >= said.texts
            } else {
                cries >= said.cries && (self.room.is_none() || rooms >= said.rooms)
            };
            if is_done {
                return;
            }
            if let Heard::Answer(answer) = self.hear() {
                panic!("nothing was asked: {answer}");
            }
        }
    }

    /// Joins a room, or leaves the one that it is in.
    pub(crate) fn join_or_leave(&mut self, room: usize, said: Said) {
        let (verb, kind, name, done) = match &self.room {
            Some(name) => ("LEAVE", "unsubscribe", name.clone(), "Left"),
            None => ("JOIN", "subscribe", room.to_string(), "Joined"),
        };
        if self.protocol == TEXT {
            self.client.send(&*format!("{verb} {name}"));
            assert_eq!(self.answer(), format!("{done} room: {name}"));
        } else {
            let order = json!({ "type": kind, "topic": name, "id": "?" });
            self.client.send(&*order.to_string());
            assert_eq!(self.answer(), "answered");
        }
        self.room = if self.room.is_some() { None } else { Some(name) };
        (self.since.rooms, self.heard.rooms) = (said.rooms, said.rooms);
    }

    /// Hears one message.
    fn hear(&mut self) -> Heard {
        let text = match self.client.next() {
            Got::Text(text) => text,
            Got::Ping(_) | Got::Pong(_) => return Heard::News,
            end => panic!("{} of {}: {end:?} of a healthy connection", self.protocol, self.user),
        };
        if self.protocol == TEXT {
            return self.take_line(&text);
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        match (&value["message_type"], &value["type"], &value["ack"], value.get("Error")) {
            (Value::String(kind), ..) => self.take_envelope(kind, &value),
            (_, Value::String(kind), ..) if kind == "message" => {
                let number = value["message"].as_str().unwrap().parse().unwrap();
                match value["topic"].as_str() {
                    Some(room) => self.take_from_room(room, &value["from"], number),
                    None => self.take_cry(&value["from"], number),
                }
            }
            (_, _, Value::String(_), _) | (.., Some(_)) => Heard::Answer("answered".to_owned()),
            _ => self.take_chat(&value),
        }
    }

    fn take_envelope(&mut self, kind: &str, value: &Value) -> Heard {
        let user = || value["data"]["user_id"].as_str().unwrap().parse().unwrap();
        match kind {
            "text" => {
                assert_eq!(value["from_user_id"], json!(id_of(SPEAKER)));
                self.take_text(&value["data"]["content"])
            }
            "user_joined" => self.take_news(user(), true),
            "user_left" => self.take_news(user(), false),
            "pong" => Heard::Answer("answered".to_owned()),
            other => panic!("{other}: {value}"),
        }
    }

    fn take_chat(&mut self, value: &Value) -> Heard {
        match (&value["Chat"], &value["Join"], &value["Leave"]) {
            (Value::Object(chat), ..) => {
                assert_eq!(chat["user"], SPEAKER);
                self.take_text(&chat["message"])
            }
            (_, Value::String(name), _) => self.take_news(id_of(name), true),
            (_, _, Value::String(name)) => self.take_news(id_of(name), false),
            _ => panic!("{value}"),
        }
    }

    fn take_line(&mut self, text: &str) -> Heard {
        if text == "ERROR unknown command" {
            return Heard::Answer("answered".to_owned());
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (room, rest) = rest.split_once("] ").unwrap();
            let (from, number) = rest.split_once(": ").unwrap();
            return self.take_from_room(room, &json!(from), number.parse().unwrap());
        }
        match text.strip_prefix("crier: ") {
            Some(number) => self.take_cry(&json!(CRIER), number.parse().unwrap()),
            None => Heard::Answer(text.to_owned()),
        }
    }

    fn take_text(&mut self, content: &Value) -> Heard {
        let content = content.as_str().unwrap();
        // Ballast may follow.
        let number = content.split(' ').next().unwrap().parse().unwrap();
        take("text", number, self.since.texts, &mut self.heard.texts)
    }

    fn take_cry(&mut self, from: &Value, number: usize) -> Heard {
        assert_eq!(from, CRIER);
        take("cry", number, self.since.cries, &mut self.heard.cries)
    }

    fn take_from_room(&mut self, room: &str, from: &Value, number: usize) -> Heard {
        assert_eq!((from, Some(room)), (&json!(HOST), self.room.as_deref()));
        take("what the host says", number, self.since.rooms, &mut self.heard.rooms)
    }

    /// Somebody has come or gone: in turn.
    fn take_news(&mut self, user: Uuid, is_there: bool) -> Heard {
        assert_ne!(user, self.user, "nobody hears of oneself");
        if self.watches {
            let before = self.told.insert(user, is_there);
            assert_ne!(before, Some(is_there), "told twice: {user} {is_there}");
        }
        Heard::News
    }
}

/// The number that comes next was heard, or one from before it came.
fn take(what: &str, number: usize, since: usize, heard: &mut usize) -> Heard {
    if number < since && *heard == since {
        return Heard::News;
    }
    assert_eq!(number, *heard, "{what} was lost, or came twice");
    *heard += 1;
    Heard::News
}
