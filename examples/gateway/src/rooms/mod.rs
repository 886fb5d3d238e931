//! Rooms: who is in which, over all workers, and what is said there.
//!
//! A room is there as long as somebody is in it. A member is a connection; it leaves when it ends. What is said goes by
//! topics of the engine, one for each protocol, so that each member gets it once, and in its own words.

pub mod json;
pub mod text;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use ringwire::topics::{HistoryConfig, Position, PublishError, Recovery, TopicError, topic_token};
use ringwire::{Config, ConnId, Ctx, Handle, Message};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::app::App;
use crate::envelope::MessageType;
use crate::lock;
use crate::session::{Protocol, State};
use crate::settings::RoomLimits;

/// What all connections hear that speak of rooms in text.
pub(crate) const TEXT: &str = "rooms.text";
/// What all connections hear that speak of rooms in JSON.
pub(crate) const JSON: &str = "rooms.json";

/// The most rooms or members in one answer.
const MAX_LISTED: usize = 1000;

/// Why a command was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// It is none.
    #[error("{0}")]
    Usage(&'static str),
    /// The room can't have this name.
    #[error("a room's name has 1 to {0} bytes, without spaces and control characters")]
    Name(usize),
    /// The user is in as many rooms as may be.
    #[error("you are in {0} rooms already")]
    TooManyRooms(usize),
    /// The room has as many members as may be.
    #[error("the room is full")]
    Full,
    /// The connection is not in the room.
    #[error("not in this room")]
    NotMember,
    /// The engine has no room for it.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Not everybody got it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Names, and how often each counts.
pub type Tally = BTreeMap<String, usize>;

/// Who is in which room.
#[derive(Debug)]
pub struct Rooms {
    limits: RoomLimits,
    tables: Mutex<Tables>,
}

/// The same from both sides: a connection that is in a room stands in both.
#[derive(Debug, Default)]
struct Tables {
    /// The members of each room, with the names of their users.
    rooms: BTreeMap<Arc<str>, HashMap<ConnId, Arc<str>>>,
    /// The rooms of each user, and the connections by which the user is there.
    users: HashMap<Uuid, HashMap<Arc<str>, Vec<ConnId>>>,
}

impl Rooms {
    pub(crate) fn new(limits: RoomLimits) -> Self {
        Self { limits, tables: Mutex::default() }
    }

    /// The first rooms of this node by name, and how many members each has; of one room, the first users in it, and how
    /// many connections each has there.
    #[must_use]
    pub fn tally(&self, room: Option<&str>) -> Tally {
        let tables = lock(&self.tables);
        let Some(room) = room else {
            let rooms = tables.rooms.iter().take(MAX_LISTED);
            return rooms.map(|(room, members)| (room.to_string(), members.len())).collect();
        };
        let mut tally = Tally::new();
        for name in tables.rooms.get(room).into_iter().flat_map(HashMap::values) {
            *tally.entry(name.to_string()).or_default() += 1;
        }
        tally.into_iter().take(MAX_LISTED).collect()
    }

    /// Puts a connection into a room; nothing happens if it is there already.
    fn join(&self, room: &str, user: Uuid, username: &str, conn: ConnId) -> Result<(), RoomError> {
        let RoomLimits { max_name_len, max_rooms_per_user, max_members, .. } = self.limits;
        let is_wrong = |c: char| c.is_whitespace() || c.is_control();
        if room.is_empty() || room.len() > max_name_len || room.contains(is_wrong) {
            return Err(RoomError::Name(max_name_len));
        }
        let mut tables = lock(&self.tables);
        let Tables { rooms, users } = &mut *tables;
        let is_full = |own: &HashMap<Arc<str>, _>| own.len() >= max_rooms_per_user;
        if users.get(&user).is_some_and(|own| is_full(own) && !own.contains_key(room)) {
            return Err(RoomError::TooManyRooms(max_rooms_per_user));
        }
        let found = rooms.get_key_value(room);
        if found.is_some_and(|(_, members)| members.contains_key(&conn)) {
            return Ok(());
        }
        if found.map_or(0, |(_, members)| members.len()) >= max_members {
            return Err(RoomError::Full);
        }
        let name = found.map_or_else(|| room.into(), |(name, _)| name.clone());
        rooms.entry(Arc::clone(&name)).or_default().insert(conn, username.into());
        users.entry(user).or_default().entry(name).or_default().push(conn);
        Ok(())
    }

    /// Takes a connection out of a room; whether it was there.
    fn leave(&self, room: &str, user: Uuid, conn: ConnId) -> bool {
        lock(&self.tables).take_out(room, user, conn)
    }

    /// Takes a connection out of all rooms.
    pub(crate) fn leave_all(&self, user: Uuid, conn: ConnId) {
        let mut tables = lock(&self.tables);
        let own = tables.users.get(&user).into_iter().flat_map(HashMap::keys);
        for room in own.cloned().collect::<Vec<_>>() {
            tables.take_out(&room, user, conn);
        }
    }
}

impl Tables {
    fn take_out(&mut self, room: &str, user: Uuid, conn: ConnId) -> bool {
        let Some(own) = self.users.get_mut(&user) else { return false };
        let Some(conns) = own.get_mut(room) else { return false };
        let Some(index) = conns.iter().position(|it| *it == conn) else { return false };
        conns.swap_remove(index);
        if conns.is_empty() {
            own.remove(room);
        }
        if own.is_empty() {
            self.users.remove(&user);
        }
        let members = self.rooms.get_mut(room).map_or(0, |members| {
            members.remove(&conn);
            members.len()
        });
        if members == 0 {
            self.rooms.remove(room);
        }
        true
    }
}

/// Has the other nodes know who is in which room of this one, when they ask.
pub(crate) fn start(app: &Arc<App>, handle: &Handle) {
    let answering = Arc::downgrade(app);
    app.survey.start(handle, move |room| {
        let room: Option<String> = serde_json::from_str(room).unwrap_or_default();
        let tally = answering.upgrade().map(|app| app.rooms.tally(room.as_deref()));
        serde_json::to_string(&tally.unwrap_or_default()).unwrap_or_default()
    });
}

/// Has `done` called with the [tally](Rooms::tally) of all nodes that answer in time, and how many do not; at once, where
/// there is no other node.
fn tally_all(
    app: &Arc<App>,
    room: Option<&str>,
    done: impl FnOnce(&App, &Tally, usize) + Send + 'static,
) {
    let nodes = app.presence.nodes().map_or(0, |nodes| nodes.len());
    let question = serde_json::to_string(&room).unwrap_or_default();
    let (app, room) = (app.clone(), room.map(str::to_owned));
    app.clone().survey.ask(nodes, &question, move |outcome| {
        let mut all = app.rooms.tally(room.as_deref());
        for answer in outcome.answers {
            for (name, count) in serde_json::from_str::<Tally>(&answer).unwrap_or_default() {
                *all.entry(name).or_default() += count;
            }
        }
        let first = all.into_iter().take(MAX_LISTED).collect();
        done(&app, &first, outcome.silent);
    });
}

/// Where a connection hears what is said in a room.
fn topic_in(protocol: Protocol, room: &str) -> String {
    let base = if protocol == Protocol::RoomsText { TEXT } else { JSON };
    format!("{base}.{}", topic_token(room))
}

/// Puts a connection into a room.
fn join(app: &App, ctx: &mut Ctx<'_, State>, room: &str) -> Result<(), RoomError> {
    let id = ctx.id();
    let (state, mut out) = ctx.split();
    let Some(claims) = state.claims() else { return Ok(()) };
    app.rooms.join(room, claims.sub, &claims.username, id)?;
    out.subscribe(&topic_in(state.protocol(), room)).inspect_err(|_| {
        app.rooms.leave(room, claims.sub, id);
    })?;
    Ok(())
}

/// Puts a connection into a room that keeps what was said, and calls `then` with what it missed.
fn come_back(
    app: &App,
    ctx: &mut Ctx<'_, State>,
    room: &str,
    since: Option<Position>,
    then: impl FnOnce(&mut Ctx<'_, State>, Result<Recovery, TopicError>) + 'static,
) -> Result<(), RoomError> {
    let id = ctx.id();
    let Some(claims) = ctx.state().claims() else { return Ok(()) };
    let (user, topic) = (claims.sub, topic_in(ctx.state().protocol(), room));
    app.rooms.join(room, user, &claims.username, id)?;
    let was_there = ctx.is_subscribed(&topic);
    ctx.recover(&topic, since, then).inspect_err(|_| {
        if !was_there {
            app.rooms.leave(room, user, id);
        }
    })?;
    Ok(())
}

impl RoomLimits {
    /// The settings of an engine whose rooms keep what is said in them.
    #[must_use]
    pub fn keep(&self, config: Config) -> Config {
        if self.history == 0 {
            return config;
        }
        let history = HistoryConfig::default()
            .with_max_count(self.history)
            .with_max_age(self.history_age)
            .with_stamp(stamp);
        let topics = config.topics.clone().with_history(format!("{JSON}.*"), history);
        config.with_topics(topics)
    }
}

/// Adds the position to a message, which is a JSON object with members; and the offset before it, unless that is one less.
fn stamp(message: Message<'_>, position: Position, previous: Option<u64>) -> Vec<u8> {
    let Position { epoch, offset } = position;
    let bytes = message.as_bytes();
    let members = bytes.strip_suffix(b"}").unwrap_or(bytes);
    let previous = match previous {
        Some(previous) if previous + 1 == offset => String::new(),
        Some(previous) => format!(r#","previous":{previous}"#),
        None => r#","previous":null"#.to_owned(),
    };
    let position = format!(r#","epoch":{epoch},"offset":{offset}{previous}}}"#);
    [members, position.as_bytes()].concat()
}

/// Takes a connection out of a room.
fn leave(app: &App, ctx: &mut Ctx<'_, State>, room: &str) -> Result<(), RoomError> {
    let id = ctx.id();
    let (state, mut out) = ctx.split();
    let Some(claims) = state.claims() else { return Ok(()) };
    if !app.rooms.leave(room, claims.sub, id) {
        return Err(RoomError::NotMember);
    }
    out.unsubscribe(&topic_in(state.protocol(), room));
    Ok(())
}

fn check_member(ctx: &Ctx<'_, State>, room: &str) -> Result<(), RoomError> {
    match ctx.is_subscribed(&topic_in(ctx.state().protocol(), room)) {
        true => Ok(()),
        false => Err(RoomError::NotMember),
    }
}

/// Says something in a room; in all rooms, where none is named. The message is JSON.
fn say(
    app: &App,
    ctx: &mut Ctx<'_, State>,
    room: Option<&str>,
    message: &RawValue,
) -> Result<(), RoomError> {
    #[derive(Serialize)]
    struct Said<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        topic: Option<&'a str>,
        message: &'a RawValue,
        from: &'a str,
    }

    let (state, mut out) = ctx.split();
    let Some(claims) = state.claims() else { return Ok(()) };
    let from = &*claims.username;
    let topic_in =
        |protocol, base: &str| room.map_or_else(|| base.to_owned(), |it| topic_in(protocol, it));
    let json = Said { kind: "message", topic: room, message, from };
    let json = serde_json::to_string(&json).unwrap_or_default();
    out.publish(&topic_in(Protocol::RoomsJson, JSON), &json)?;
    let plain: Option<String> = serde_json::from_str(message.get()).ok();
    let plain = plain.as_deref().unwrap_or_else(|| message.get());
    let text = match room {
        Some(room) => format!("[{room}] {from}: {plain}"),
        None => format!("{from}: {plain}"),
    };
    out.publish(&topic_in(Protocol::RoomsText, TEXT), &text)?;
    app.counters.message(MessageType::Text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire::Request;

    fn conn() -> ConnId {
        Request::builder("/").build().with(|request| request.id())
    }

    fn rooms(max_rooms_per_user: usize, max_members: usize) -> Rooms {
        Rooms::new(RoomLimits {
            max_name_len: 8,
            max_rooms_per_user,
            max_members,
            ..RoomLimits::default()
        })
    }

    #[test]
    fn names_have_no_spaces_and_are_not_too_long() {
        let rooms = rooms(100, 100);
        for name in ["", "a b", "a\tb", "a\u{a0}b", "a\u{0}", "123456789", "ääääö"] {
            let joined = rooms.join(name, Uuid::nil(), "ann", conn());
            assert_eq!(joined, Err(RoomError::Name(8)), "{name:?}");
        }
        for name in ["a", "12345678", "a.b", ">", "*", "%", "ääää"] {
            assert_eq!(rooms.join(name, Uuid::nil(), "ann", conn()), Ok(()), "{name:?}");
        }
        assert_eq!(rooms.tally(None).len(), 7);
    }

    #[test]
    fn a_user_has_so_many_rooms_and_leaves_nothing() {
        let (rooms, ann) = (rooms(2, 100), Uuid::nil());
        assert_eq!(rooms.join("a", ann, "ann", conn()), Ok(()));
        assert_eq!(rooms.join("a", ann, "ann", conn()), Ok(()), "it is there already");
        assert_eq!(rooms.join("b", ann, "ann", conn()), Ok(()));
        assert_eq!(rooms.join("c", ann, "ann", conn()), Err(RoomError::TooManyRooms(2)));
        assert_eq!(rooms.tally(None), Tally::from([("a".into(), 1), ("b".into(), 1)]));
        assert_eq!(rooms.tally(Some("a")), Tally::from([("ann".into(), 1)]));
        assert!(rooms.leave("a", ann, conn()));
        assert!(!rooms.leave("a", ann, conn()));
        assert_eq!(rooms.join("c", ann, "ann", conn()), Ok(()));
        rooms.leave_all(ann, conn());
        let tables = lock(&rooms.tables);
        assert!(tables.rooms.is_empty() && tables.users.is_empty());
    }

    #[test]
    fn a_room_has_so_many_members() {
        let rooms = rooms(2, 0);
        assert_eq!(rooms.join("a", Uuid::nil(), "ann", conn()), Err(RoomError::Full));
        assert!(lock(&rooms.tables).rooms.is_empty());
    }
}
