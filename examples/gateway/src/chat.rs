//! The subprotocol `chat.json`: the conversation of everybody, in messages as `serde` writes an `enum`.
//!
//! ```text
//!  client  {"Chat":{"user":"","message":"hi","timestamp":0}}                    to everybody else
//!  server  {"Chat":{"user":"ann","message":"hi","timestamp":1767225600}}
//!  server  {"Join":"ann"}    {"Leave":"ann"}    {"Error":"…"}
//! ```
//!
//! It is the same conversation as that of [envelopes](crate::envelope) without `to_user_id`: who speaks the one hears
//! who speaks the other.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use ringwire::Ctx;
use ringwire::topics::PublishOptions;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::app::App;
use crate::envelope::{MessageType, notice};
use crate::session::{EVERYBODY, State};

/// What connections hear that speak this protocol.
pub const TOPIC: &str = "chat";

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChatMessage {
    /// Somebody says something.
    Chat(Chat),
    /// This user is there.
    Join(String),
    /// This user is gone.
    Leave(String),
    /// A message was not followed.
    Error(String),
}

/// What somebody says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chat {
    /// Who says it, as the server knows; whatever the client claims.
    #[serde(default)]
    pub user: String,
    /// What is said.
    pub message: String,
    /// When, in seconds since 1970, by the server's clock.
    #[serde(default)]
    pub timestamp: u64,
}

impl ChatMessage {
    /// Its JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What everybody hears of what a user says now.
pub(crate) fn said(user: &str, message: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (user, message) = (user.to_owned(), message.to_owned());
    ChatMessage::Chat(Chat { user, message, timestamp: now.as_secs() }).to_json()
}

/// The text of an envelope's data, if it has one.
pub(crate) fn text_of(data: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        content: Cow<'a, str>,
    }

    serde_json::from_str(data.get()).ok().map(|Content { content }| content)
}

/// Follows a message.
pub(crate) fn receive(app: &App, ctx: &mut Ctx<'_, State>, text: &str) {
    let (state, mut out) = ctx.split();
    let Some(claims) = state.claims() else { return };
    let problem = match serde_json::from_str(text) {
        Ok(ChatMessage::Chat(Chat { message, .. })) => {
            app.counters.message(MessageType::Text);
            let data = json!({ "content": message });
            let envelope = notice(MessageType::Text, Some(claims.sub), &data);
            let options = PublishOptions::default().with_except(out.id());
            let told = out.publish_with(TOPIC, &said(&claims.username, &message), options);
            let bridged = out.publish(EVERYBODY, &envelope);
            match told.and(bridged) {
                Ok(()) => return,
                Err(error) => error.to_string(),
            }
        }
        Ok(_) => "the server says who is there".to_owned(),
        Err(_) => "a message is {\"Chat\":{\"message\":…}}".to_owned(),
    };
    app.counters.message(MessageType::Error);
    let _ = out.send(&ChatMessage::Error(problem).to_json());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_serde_writes_them() {
        let chat = Chat { user: "ann".to_owned(), message: "hi".to_owned(), timestamp: 7 };
        for (message, json) in [
            (ChatMessage::Chat(chat), r#"{"Chat":{"user":"ann","message":"hi","timestamp":7}}"#),
            (ChatMessage::Join("ann".to_owned()), r#"{"Join":"ann"}"#),
            (ChatMessage::Leave("ann".to_owned()), r#"{"Leave":"ann"}"#),
            (ChatMessage::Error("no".to_owned()), r#"{"Error":"no"}"#),
        ] {
            assert_eq!(message.to_json(), json);
            assert_eq!(serde_json::from_str::<ChatMessage>(json).expect("it is one"), message);
        }
    }
}
