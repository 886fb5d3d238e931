//! Rooms of a server that keeps what is said in them, for clients that come back: the subprotocol `rooms.json`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_codec::Message;
use serde_json::{Value, json};

use crate::error::{Error, Waiting};
use crate::message::OwnedMessage;
use crate::reconnect::{Reconnecting, ReconnectingSender, Update};

/// A client of rooms that misses nothing when its connection is lost, as far as the server has kept it.
///
/// It remembers up to where it has heard each room. With each new connection, and where the server had to leave out
/// something for it, it asks for what it missed, and gives that as if nothing had happened: each message once, in
/// order. What the server has no more it tells as [`RoomUpdate::Gone`].
///
/// ```text
///  client  {"type":"subscribe","topic":"news","recover":{"epoch":9112,"offset":7},"id":["room","news"]}
///  server  {"type":"recovery","topic":"news","epoch":9112,"offset":9,"complete":true,"ack":["room","news"]}
///  server  {"type":"message","topic":"news","message":"hi","from":"ann","epoch":9112,"offset":8}
/// ```
///
/// A message follows the offset before its own, unless it names another one as `previous`; with `null` nobody knows.
///
/// ```no_run
/// use ringwire_client::{Client, Reconnecting, RoomUpdate, Rooms};
///
/// let builder = Client::builder().with_subprotocol("rooms.json");
/// let mut rooms = Rooms::new(Reconnecting::new(builder, "wss://example.com/ws?token=…"));
/// rooms.join("news");
/// while let Some(update) = rooms.next_update()? {
///     match update {
///         RoomUpdate::Said(said) => println!("{} in {}: {}", said.from, said.room, said.message),
///         RoomUpdate::Gone { room } => println!("some of {room} is lost: load it anew"),
///         _ => {}
///     }
/// }
/// # Ok::<(), ringwire_client::Error>(())
/// ```
pub struct Rooms {
    client: Reconnecting,
    rooms: BTreeMap<String, Room>,
    waiting: VecDeque<RoomUpdate>,
}

/// What happens to a client of rooms.
#[derive(Debug)]
#[non_exhaustive]
pub enum RoomUpdate {
    /// Somebody has said something in a room.
    Said(Said),
    /// The client is in a room for the first time.
    Joined {
        /// Which.
        room: String,
    },
    /// The client is in a room again, and the server has no more of what it missed there, all or some: it hears what is
    /// said from now on.
    Gone {
        /// Which.
        room: String,
    },
    /// The server does not let the client into a room, which it tries no more.
    Refused {
        /// Which.
        room: String,
        /// Why, in the server's words.
        reason: String,
    },
    /// There is a connection.
    Connected,
    /// There is none, or still none. The client comes back by itself.
    Disconnected {
        /// Why.
        error: Arc<Error>,
        /// How long until the next attempt.
        delay: Duration,
    },
    /// Something else that the server says.
    Other(OwnedMessage),
}

/// What was said in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Where.
    pub room: String,
    /// By whom.
    pub from: String,
    /// What: any JSON.
    pub message: Value,
}

/// Where a room was heard to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    epoch: u64,
    offset: u64,
}

#[derive(Debug, Default)]
struct Room {
    heard: Option<Heard>,
    /// The server was asked, on this connection, and has yet to answer.
    is_asked: bool,
}

impl Rooms {
    /// Rooms on a client whose URL and subprotocol are those of `rooms.json`.
    #[must_use]
    pub fn new(client: Reconnecting) -> Self {
        Self { client, rooms: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Is in a room from now on, with this connection and those that follow it.
    pub fn join(&mut self, room: &str) {
        if !self.rooms.contains_key(room) {
            self.rooms.insert(room.to_owned(), Room::default());
            self.ask(room);
        }
    }

    /// Is in a room no more; whether it was.
    pub fn leave(&mut self, room: &str) -> bool {
        let was = self.rooms.remove(room).is_some();
        if was {
            self.tell(&json!({ "type": "unsubscribe", "topic": room }));
        }
        was
    }

    /// For what is said in rooms, and whatever else: `{"type":"publish","topic":…,"message":…}`.
    #[must_use]
    pub fn sender(&self) -> ReconnectingSender {
        self.client.sender()
    }

    /// What happens next. `None` once the application has closed the client.
    ///
    /// # Errors
    /// As [`Reconnecting::next_update`].
    pub fn next_update(&mut self) -> Result<Option<RoomUpdate>, Error> {
        self.advance(None)
    }

    /// The same, waiting for at most `timeout`.
    ///
    /// # Errors
    /// As [`Reconnecting::next_update_timeout`].
    pub fn next_update_timeout(&mut self, timeout: Duration) -> Result<Option<RoomUpdate>, Error> {
        self.advance(Instant::now().checked_add(timeout))
    }

    fn advance(&mut self, deadline: Option<Instant>) -> Result<Option<RoomUpdate>, Error> {
        loop {
            if let Some(update) = self.waiting.pop_front() {
                return Ok(Some(update));
            }
            // What is no update, such as an answer, takes none of the time anew.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(Error::Timeout(Waiting::Receive));
            }
            match self.client.advance(deadline)? {
                None => return Ok(None),
                Some(Update::Connected { .. }) => {
                    self.waiting.push_back(RoomUpdate::Connected);
                    let rooms: Vec<_> = self.rooms.keys().cloned().collect();
                    rooms.iter().for_each(|room| self.ask(room));
                }
                Some(Update::Disconnected { error, delay }) => {
                    return Ok(Some(RoomUpdate::Disconnected { error, delay }));
                }
                Some(Update::Message(message)) => self.take(message),
            }
        }
    }

    /// Asks for a room, and for what was missed of it.
    fn ask(&mut self, name: &str) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.is_asked = true;
        let recover = match room.heard {
            Some(Heard { epoch, offset }) => json!({ "epoch": epoch, "offset": offset }),
            None => json!({}),
        };
        self.tell(&json!({
            "type": "subscribe", "topic": name, "recover": recover, "id": ["room", name],
        }));
    }

    /// What can't be said will be by the next connection, with which all rooms are asked for.
    fn tell(&self, message: &Value) {
        if let Some(sender) = self.client.connection() {
            let _ = sender.send(Message::Text(&message.to_string()));
        }
    }

    fn take(&mut self, message: OwnedMessage) {
        let parsed: Option<Value> =
            message.as_text().and_then(|text| serde_json::from_str(text).ok());
        let taken = parsed.as_ref().and_then(|parsed| match parsed.get("type")?.as_str()? {
            "message" => self.take_said(parsed),
            "recovery" => self.take_recovery(parsed),
            "error" => self.take_refusal(parsed),
            _ => None,
        });
        if taken.is_none() {
            self.waiting.push_back(RoomUpdate::Other(message));
        }
    }

    /// `None`: it is none of a room that this client is in.
    fn take_said(&mut self, parsed: &Value) -> Option<()> {
        let name = parsed.get("topic")?.as_str()?;
        let at = heard_of(parsed)?;
        // `null`: the server does not know which it follows.
        let previous = match parsed.get("previous") {
            None => at.offset.checked_sub(1),
            Some(previous) => previous.as_u64(),
        };
        let room = self.rooms.get_mut(name)?;
        let is_next = |heard: Heard| heard.epoch == at.epoch && previous == Some(heard.offset);
        let is_old = |heard: Heard| heard.epoch == at.epoch && heard.offset >= at.offset;
        match room.heard {
            Some(heard) if is_next(heard) => {
                room.heard = Some(at);
                let from = parsed.get("from").and_then(Value::as_str).unwrap_or_default();
                self.waiting.push_back(RoomUpdate::Said(Said {
                    room: name.to_owned(),
                    from: from.to_owned(),
                    message: parsed.get("message").cloned().unwrap_or_default(),
                }));
            }
            Some(heard) if is_old(heard) => {}
            // Something is missing, which comes with the answer.
            _ if room.is_asked => {}
            _ => self.ask(name),
        }
        Some(())
    }

    fn take_recovery(&mut self, parsed: &Value) -> Option<()> {
        let name = parsed.get("topic")?.as_str()?;
        let at = heard_of(parsed)?;
        let is_complete = parsed.get("complete")?.as_bool()?;
        let room = self.rooms.get_mut(name)?;
        room.is_asked = false;
        let name = name.to_owned();
        match room.heard {
            Some(_) if is_complete => {}
            Some(_) => {
                room.heard = Some(at);
                self.waiting.push_back(RoomUpdate::Gone { room: name });
            }
            None => {
                room.heard = Some(at);
                self.waiting.push_back(RoomUpdate::Joined { room: name });
            }
        }
        Some(())
    }

    fn take_refusal(&mut self, parsed: &Value) -> Option<()> {
        let [kind, name] = parsed.get("ack")?.as_array()?.as_slice() else { return None };
        let name = name.as_str().filter(|_| kind == "room")?;
        self.rooms.remove(name)?;
        let reason = parsed.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.waiting.push_back(RoomUpdate::Refused { room: name.to_owned(), reason });
        Some(())
    }
}

fn heard_of(parsed: &Value) -> Option<Heard> {
    let number = |name| parsed.get(name)?.as_u64();
    Some(Heard { epoch: number("epoch")?, offset: number("offset")? })
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("client", &self.client).field("rooms", &self.rooms).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;

    fn rooms(names: &[&str]) -> Rooms {
        let mut rooms = Rooms::new(Reconnecting::new(Builder::default(), "ws://localhost/"));
        names.iter().for_each(|name| rooms.join(name));
        rooms
    }

    /// What comes of a message.
    fn hear(rooms: &mut Rooms, message: &Value) -> Vec<String> {
        rooms.take(OwnedMessage::Text(message.to_string()));
        let told = |update| match update {
            RoomUpdate::Said(Said { room, from, message }) => format!("{room} {from} {message}"),
            RoomUpdate::Joined { room } => format!("joined {room}"),
            RoomUpdate::Gone { room } => format!("gone {room}"),
            RoomUpdate::Refused { room, reason } => format!("refused {room}: {reason}"),
            other => format!("{other:?}"),
        };
        rooms.waiting.drain(..).map(told).collect()
    }

    fn said(epoch: u64, offset: u64) -> Value {
        json!({
            "type": "message", "topic": "a", "message": offset, "from": "ann",
            "epoch": epoch, "offset": offset,
        })
    }

    fn recovery(epoch: u64, offset: u64, complete: bool) -> Value {
        json!({
            "type": "recovery", "topic": "a", "epoch": epoch, "offset": offset, "complete": complete,
        })
    }

    #[test]
    fn each_is_given_once_and_in_order() {
        let mut rooms = rooms(&["a"]);
        assert_eq!(hear(&mut rooms, &recovery(1, 5, true)), ["joined a"]);
        assert_eq!(hear(&mut rooms, &said(1, 6)), ["a ann 6"]);
        assert!(hear(&mut rooms, &said(1, 6)).is_empty(), "it came before");
        assert!(hear(&mut rooms, &said(1, 8)).is_empty(), "7 is missing");
        assert!(rooms.rooms["a"].is_asked);
        assert!(hear(&mut rooms, &said(1, 9)).is_empty());
        assert!(hear(&mut rooms, &recovery(1, 9, true)).is_empty());
        for offset in 7..=10 {
            assert_eq!(hear(&mut rooms, &said(1, offset)), [format!("a ann {offset}")]);
        }
    }

    #[test]
    fn numbers_that_skip_some_say_which_they_follow() {
        let behind = |offset: u64, previous: Option<u64>| {
            let mut said = said(1, offset);
            said["previous"] = json!(previous);
            said
        };
        let mut rooms = rooms(&["a"]);
        assert_eq!(hear(&mut rooms, &recovery(1, 5, true)), ["joined a"]);
        assert_eq!(hear(&mut rooms, &behind(9, Some(5))), ["a ann 9"]);
        assert!(hear(&mut rooms, &behind(9, Some(5))).is_empty(), "it came before");
        assert!(hear(&mut rooms, &behind(20, Some(12))).is_empty(), "12 is missing");
        assert!(rooms.rooms["a"].is_asked);
        assert!(hear(&mut rooms, &recovery(1, 20, true)).is_empty());
        assert_eq!(hear(&mut rooms, &behind(12, Some(9))), ["a ann 12"]);
        assert_eq!(hear(&mut rooms, &behind(20, Some(12))), ["a ann 20"]);
        assert!(hear(&mut rooms, &behind(21, None)).is_empty(), "nobody knows what was before");
        assert!(rooms.rooms["a"].is_asked);
    }

    #[test]
    fn a_position_at_the_end_of_its_numbers_is_one_like_any_other() {
        let mut rooms = rooms(&["a"]);
        assert_eq!(hear(&mut rooms, &recovery(1, u64::MAX, true)), ["joined a"]);
        assert!(hear(&mut rooms, &said(1, 0)).is_empty(), "it came before");
        assert!(hear(&mut rooms, &said(1, u64::MAX)).is_empty(), "it came before");
    }

    #[test]
    fn what_is_gone_is_told() {
        let mut rooms = rooms(&["a"]);
        hear(&mut rooms, &recovery(1, 5, true));
        assert!(hear(&mut rooms, &said(2, 1)).is_empty(), "another epoch");
        assert!(rooms.rooms["a"].is_asked);
        assert_eq!(hear(&mut rooms, &recovery(2, 3, false)), ["gone a"]);
        assert!(hear(&mut rooms, &said(2, 3)).is_empty());
        assert_eq!(hear(&mut rooms, &said(2, 4)), ["a ann 4"]);
    }

    #[test]
    fn rooms_are_refused_and_left() {
        let mut rooms = rooms(&["a", "b"]);
        let refusal = json!({ "type": "error", "error": "full", "ack": ["room", "a"] });
        assert_eq!(hear(&mut rooms, &refusal), ["refused a: full"]);
        assert_eq!(hear(&mut rooms, &refusal).len(), 1, "an error of somebody else's");
        assert!(rooms.leave("b") && !rooms.leave("a"));
        assert!(rooms.rooms.is_empty());
    }
}
