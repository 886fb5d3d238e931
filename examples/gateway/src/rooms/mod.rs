//! Rooms: who is in which, over all workers, and what is said there.
//!
//! A room is there as long as somebody is in it. A member is a connection; it leaves when it ends. What is said goes by
//! topics of the engine, one for each protocol, so that each member gets it once, and in its own words.

pub mod json;
pub mod text;

use ringwire::topics::{HistoryConfig, Position, PublishError, Recovery, TopicError, topic_token};
use ringwire::{Config, Ctx, Message};
pub use ringwire_nats::rooms::Tally;
use ringwire_nats::rooms::{JoinError, Limits};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::app::App;
use crate::envelope::MessageType;
use crate::session::{Protocol, State};
use crate::settings::RoomLimits;

/// What all connections hear that speak of rooms in text.
pub(crate) const TEXT: &str = "rooms.text";
/// What all connections hear that speak of rooms in JSON.
pub(crate) const JSON: &str = "rooms.json";

/// Why a command was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// It is none.
    #[error("{0}")]
    Usage(&'static str),
    /// The room takes nobody, or not this one.
    #[error(transparent)]
    Join(#[from] JoinError),
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
        app.rooms.leave(room, &claims.sub, id);
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
            app.rooms.leave(room, &user, id);
        }
    })?;
    Ok(())
}

/// Who is in which room.
pub type Rooms = ringwire_nats::rooms::Rooms<Uuid>;

impl RoomLimits {
    /// What rooms take.
    pub(crate) fn limits(&self) -> Limits {
        let Self { max_name_len, max_rooms_per_user, max_members, .. } = *self;
        Limits { max_name_len, max_rooms_per_user, max_members }
    }

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

/// Adds the position to a message, which is a JSON object with members; and the offset before it, unless that is one
/// less.
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
    if !app.rooms.leave(room, &claims.sub, id) {
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
    room.map(|room| app.rooms.check_name(room)).transpose()?;
    let from = &*claims.username;
    let topic_in =
        |protocol, base: &str| room.map_or_else(|| base.to_owned(), |it| topic_in(protocol, it));
    let json = Said { kind: "message", topic: room, message, from };
    let json = serde_json::to_string(&json).unwrap_or_default();
    let told = out.publish(&topic_in(Protocol::RoomsJson, JSON), &json);
    let plain: Option<String> = serde_json::from_str(message.get()).ok();
    let plain = plain.as_deref().unwrap_or_else(|| message.get());
    let text = match room {
        Some(room) => format!("[{room}] {from}: {plain}"),
        None => format!("{from}: {plain}"),
    };
    // Those who can be told are, whatever keeps others from it.
    let also = out.publish(&topic_in(Protocol::RoomsText, TEXT), &text::one_line(&text));
    told.and(also)?;
    app.counters.message(MessageType::Text);
    Ok(())
}
