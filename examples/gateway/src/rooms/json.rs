//! The subprotocol `rooms.json`: rooms as topics, in JSON.
//!
//! ```text
//!  client  {"type":"subscribe","topic":"news","id":1}                  server  {"ack":1}
//!  client  {"type":"publish","topic":"news","message":"hi","id":2}     server  {"ack":2}
//!  client  {"type":"unsubscribe","topic":"news"}
//!  client  {"type":"subscribe","topic":"news","recover":{"epoch":9112,"offset":7},"id":3}
//!  server  {"type":"recovery","topic":"news","epoch":9112,"offset":9,"complete":true,"ack":3}
//!  client  {"type":"refresh","token":"eyJ…"}
//!  server  {"type":"message","topic":"news","message":"hi","from":"ann","epoch":9112,"offset":8}
//!  server  {"type":"error","error":"…","ack":3}
//! ```
//!
//! `recover` asks for what was said since the position of the last message that was heard; `{}` for the position alone.
//! What was said follows `recovery`, and then what is said by itself; unless `complete` is `false`, since the room
//! keeps no more of that. Rooms keep so many messages, for so long (`rooms.history`, `rooms.history_age`), whoever is
//! in them: who joins with an older position hears what was said before. A message that has `previous` follows that
//! offset of its room, one without it the offset before its own: if a client has not heard that one, it asks again.
//!
//! An `id` asks for an acknowledgement. Who publishes need not be a member. A message without a topic was for all
//! rooms.

use std::sync::Arc;

use ringwire::Ctx;
use ringwire::topics::{Position, Recovery};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::RoomError;
use crate::app::App;
use crate::auth::Refused;
use crate::envelope::MessageType;
use crate::session::{self, State};
use ringwire::json::{Dispatch, id_of, plain};

/// What comes of a command; nothing yet, where the answer follows.
type Outcome = Option<Result<(), RoomError>>;

/// The commands of a connection.
pub(crate) type Commands = Dispatch<State, Outcome>;

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

#[derive(Deserialize)]
struct Subscribe {
    topic: String,
    recover: Option<Recover>,
    id: Option<Box<RawValue>>,
}

/// A position, or the wish for one.
#[derive(Clone, Copy, Deserialize)]
struct Recover {
    epoch: Option<u64>,
    offset: Option<u64>,
}

#[derive(Serialize)]
struct Recovered<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    epoch: u64,
    offset: u64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Publish {
    topic: String,
    #[serde(deserialize_with = "plain")]
    message: Box<RawValue>,
}

#[derive(Deserialize)]
struct Refresh {
    token: String,
    id: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Reply<'a> {
    #[serde(skip_serializing_if = "Option::is_none", rename = "type")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<&'a RawValue>,
}

/// The commands, for a worker.
pub(crate) fn commands(app: &Arc<App>) -> Commands {
    let apps = || app.clone();
    let (joins, leaves, says, renews) = (apps(), apps(), apps(), apps());
    Dispatch::new()
        .on("subscribe", move |ctx, message| subscribe(&joins, ctx, &message))
        .on("unsubscribe", move |ctx, Topic { topic }| Some(super::leave(&leaves, ctx, &topic)))
        .on("publish", move |ctx, Publish { topic, message }| {
            Some(super::say(&says, ctx, Some(&topic), &message))
        })
        .on("refresh", move |ctx, Refresh { token, id }| {
            session::refresh(&renews, ctx, &token, move |ctx, outcome| {
                reply(ctx, outcome.err().map(Refused::reason), id.as_deref());
            });
            None
        })
}

fn subscribe(app: &App, ctx: &mut Ctx<'_, State>, message: &Subscribe) -> Outcome {
    let Subscribe { topic, recover: Some(recover), id } = message else {
        return Some(super::join(app, ctx, &message.topic));
    };
    let since = match (recover.epoch, recover.offset) {
        (Some(epoch), Some(offset)) => Some(Position { epoch, offset }),
        (None, None) => None,
        _ => {
            return Some(Err(RoomError::Usage("`recover` has an epoch and an offset, or neither")));
        }
    };
    let (room, ack) = (topic.clone(), id.clone());
    let recovered = super::come_back(app, ctx, topic, since, move |ctx, recovery| match recovery {
        Ok(recovery) => tell_missed(ctx, &room, recovery, ack.as_deref()),
        Err(error) => reply(ctx, Some(&error.to_string()), ack.as_deref()),
    });
    recovered.err().map(Err)
}

/// Tells where a room is, and what was missed of it.
fn tell_missed(ctx: &mut Ctx<'_, State>, topic: &str, recovery: Recovery, ack: Option<&RawValue>) {
    let Position { epoch, offset } = recovery.position;
    let (kind, complete) = ("recovery", recovery.missed.is_some());
    let answer = Recovered { kind, topic, epoch, offset, complete, ack };
    let _ = ctx.send(&serde_json::to_string(&answer).unwrap_or_default());
    for recorded in recovery.missed.unwrap_or_default() {
        // Where there is no room, the connection is closed, and comes back for the rest.
        let _ = ctx.send(recorded.message());
    }
}

/// Follows a message.
pub(crate) fn receive(app: &App, commands: &Commands, ctx: &mut Ctx<'_, State>, text: &str) {
    let error = match commands.run(ctx, text) {
        Ok(None) => return,
        Ok(Some(Ok(()))) => None,
        Ok(Some(Err(error))) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if error.is_some() {
        app.counters.message(MessageType::Error);
    }
    reply(ctx, error.as_deref(), id_of(text));
}

/// Acknowledges a message that asks for it, and says what was wrong.
fn reply(ctx: &mut Ctx<'_, State>, error: Option<&str>, ack: Option<&RawValue>) {
    if error.is_none() && ack.is_none() {
        return;
    }
    let reply = Reply { kind: error.map(|_| "error"), error, ack };
    let _ = ctx.send(&serde_json::to_string(&reply).unwrap_or_default());
}
