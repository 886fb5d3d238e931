//! The protocol of envelopes: what a connection speaks that asks for no other subprotocol.
//!
//! ```text
//!  client  {"id":"1","message_type":"text","data":{"content":"hi"}}                          to everybody else
//!  client  {"id":"2","message_type":"text","data":{"content":"hi"},"to_user_id":"6f1…"}      to one user
//!  client  {"id":"3","message_type":"ping","data":{}}                                        gets a pong with its id
//!  client  {"id":"4","message_type":"refresh","data":{"token":"eyJ…"}}                       before the old one
//!  expires
//!  server  {"id":"2","message_type":"text","data":{…},"timestamp":"2026-01-01T00:00:00Z","from_user_id":"90c…",…}
//! ```

use std::borrow::Cow;
use std::num::NonZero;
use std::sync::Arc;
use std::time::SystemTime;

use ringwire::Ctx;
use ringwire::topics::PublishOptions;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};
use uuid::Uuid;

use crate::app::App;
use crate::chat;
use crate::session::{self, EVERYBODY, State, topic_of};
use ringwire::json::{empty_object, id_of, object_of, plain_or_empty};

/// A message, as the server sends it.
#[derive(Clone, Debug, Serialize)]
pub struct Envelope<'a, D: ?Sized, I: ?Sized = str> {
    /// The message's own id: that of the client's message, or one of the server's.
    pub id: &'a I,
    /// What it is.
    pub message_type: MessageType,
    /// What it says.
    pub data: &'a D,
    /// When the server sent it (RFC 3339).
    pub timestamp: String,
    /// Who it comes from; nobody, where the server speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user_id: Option<Uuid>,
    /// Whom it is for; everybody, where it is nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_user_id: Option<Uuid>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageType {
    /// What a user says.
    Text,
    /// Something that the application tells a user.
    Notification,
    /// Something that administrators tell everybody.
    SystemMessage,
    /// Asks for a [`Pong`](Self::Pong).
    Ping,
    /// Answers a [`Ping`](Self::Ping).
    Pong,
    /// A user's first connection is there.
    UserJoined,
    /// A user's last connection is gone.
    UserLeft,
    /// A message could not be followed.
    Error,
    /// A new token, before the old one expires.
    Refresh,
}

/// In milliseconds.
const FORMAT: EncodedConfig = Config::DEFAULT
    .set_time_precision(TimePrecision::Second { decimal_digits: NonZero::new(3) })
    .encode();

/// A time as envelopes have it: RFC 3339, in UTC, with milliseconds.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Iso8601::<FORMAT>).unwrap_or_default()
}

impl<'a, D: Serialize + ?Sized, I: Serialize + ?Sized> Envelope<'a, D, I> {
    /// One that the server sends now, and to everybody.
    #[must_use]
    pub fn new(id: &'a I, message_type: MessageType, data: &'a D) -> Self {
        let timestamp = timestamp(SystemTime::now());
        Self { id, message_type, data, timestamp, from_user_id: None, to_user_id: None }
    }

    /// Its JSON.
    ///
    /// # Panics
    /// `data` can't be written as JSON: a map with keys that are no texts, say.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("data is JSON")
    }
}

/// What the server itself tells.
pub(crate) fn notice(message_type: MessageType, from: Option<Uuid>, data: &Value) -> String {
    let id = Uuid::new_v4().to_string();
    Envelope { from_user_id: from, ..Envelope::new(&id, message_type, data) }.to_json()
}

/// What a client sends. Who sends it, and when, it may claim, and is not asked.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message_type: Cow<'a, str>,
    #[serde(borrow, default = "empty_object", deserialize_with = "plain_or_empty")]
    data: &'a RawValue,
    to_user_id: Option<Uuid>,
}

/// Why a message was not followed: a word for programs, and a sentence.
type Fault = (&'static str, &'static str);

const MALFORMED: Fault = ("malformed", "a message is JSON with a message_type, as documented");
const UNKNOWN: Fault = ("unknown_type", "there is no such message_type");
const NOT_YOURS: Fault = ("not_allowed", "only the server sends messages of this type");
const OFFLINE: Fault = ("offline", "the user is not online");
const BUSY: Fault = ("busy", "not everybody got it: the server is too busy");

/// Follows a message.
pub(crate) fn receive(app: &Arc<App>, ctx: &mut Ctx<'_, State>, text: &str) {
    let followed = match object_of(text) {
        Some(incoming) => follow(app, ctx, &incoming),
        None => Err(MALFORMED),
    };
    if let Err(fault) = followed {
        app.counters.message(MessageType::Error);
        let id: Option<Value> = id_of(text).and_then(|id| serde_json::from_str(id.get()).ok());
        let id = id.filter(|id| !id.is_null());
        complain(ctx, &id.unwrap_or_else(|| Uuid::new_v4().to_string().into()), fault);
    }
}

fn follow(app: &Arc<App>, ctx: &mut Ctx<'_, State>, incoming: &Incoming<'_>) -> Result<(), Fault> {
    let kind = StrDeserializer::<serde::de::value::Error>::new(&incoming.message_type);
    let kind = MessageType::deserialize(kind).map_err(|_| UNKNOWN)?;
    match kind {
        MessageType::Text => say(app, ctx, incoming)?,
        MessageType::Ping => {
            let id = id_or_new(incoming.id.as_deref());
            reply(ctx, &*id, MessageType::Pong, incoming.data);
        }
        MessageType::Pong => {}
        MessageType::Refresh => refresh(app, ctx, incoming)?,
        _ => return Err(NOT_YOURS),
    }
    app.counters.message(kind);
    Ok(())
}

/// A message's own id, or a new one.
fn id_or_new(id: Option<&str>) -> Cow<'_, str> {
    id.map_or_else(|| Uuid::new_v4().to_string().into(), Cow::Borrowed)
}

/// To everybody else; or to all connections of one user, and the sender's others.
fn say(app: &App, ctx: &mut Ctx<'_, State>, incoming: &Incoming<'_>) -> Result<(), Fault> {
    let Some(claims) = ctx.state().claims() else { return Ok(()) };
    let (from_user_id, to_user_id) = (Some(claims.sub), incoming.to_user_id);
    let (id, data) = (id_or_new(incoming.id.as_deref()), incoming.data);
    let envelope = Envelope::new(&*id, MessageType::Text, data);
    let text = Envelope { from_user_id, to_user_id, ..envelope }.to_json();
    let options = PublishOptions::default().with_except(ctx.id());
    let Some(to) = to_user_id else {
        let chat = chat::text_of(data).map(|content| chat::said(&claims.username, &content));
        let told = chat.map(|chat| ctx.publish(chat::TOPIC, &chat)).transpose();
        return ctx.publish_with(EVERYBODY, &text, options).and(told).map(drop).map_err(|_| BUSY);
    };
    if app.presence.of(&to).is_none_or(|user| user.profile.envelopes == 0) {
        return Err(OFFLINE);
    }
    let told = ctx.publish_with(&topic_of(to), &text, options);
    let others = from_user_id.filter(|from| *from != to);
    let copied = others.map(|from| ctx.publish_with(&topic_of(from), &text, options)).transpose();
    told.and(copied).map(drop).map_err(|_| BUSY)
}

fn refresh(app: &Arc<App>, ctx: &mut Ctx<'_, State>, incoming: &Incoming<'_>) -> Result<(), Fault> {
    #[derive(Deserialize)]
    struct Renewal<'a> {
        #[serde(borrow)]
        token: Cow<'a, str>,
    }

    let renewal: Renewal<'_> = object_of(incoming.data.get()).ok_or(MALFORMED)?;
    let id = id_or_new(incoming.id.as_deref()).into_owned();
    session::refresh(app, ctx, &renewal.token, move |ctx, outcome| match outcome {
        Ok(until) => reply(ctx, &*id, MessageType::Refresh, &json!({ "until": timestamp(until) })),
        Err(refused) => {
            let fault = (refused.reason(), "the token was refused, and the old one stays");
            complain(ctx, &*id, fault);
        }
    });
    Ok(())
}

fn complain<I: Serialize + ?Sized>(ctx: &mut Ctx<'_, State>, id: &I, (error, content): Fault) {
    let data = json!({ "error": error, "content": content });
    reply(ctx, id, MessageType::Error, &data);
}

fn reply<D: Serialize + ?Sized, I: Serialize + ?Sized>(
    ctx: &mut Ctx<'_, State>,
    id: &I,
    message_type: MessageType,
    data: &D,
) {
    // What is refused goes to a connection that closes.
    let _ = ctx.send(&Envelope::new(id, message_type, data).to_json());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_of_one_length() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_767_225_600_120, "2026-01-01T00:00:00.120Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(timestamp(time), text);
        }
    }
}
