//! The envelope of messages.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// A message, as the server sends it.
#[derive(Clone, Debug, Serialize)]
pub struct Envelope<'a> {
    /// The message's own id: that of the client's message, or one of the server's.
    pub id: &'a str,
    /// What it is.
    pub message_type: MessageType,
    /// What it says.
    pub data: &'a Value,
    /// When the server sent it (RFC 3339).
    pub timestamp: &'a str,
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
    /// A new token, before the old one ends.
    Refresh,
}

/// A time as envelopes have it: RFC 3339, in UTC.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}
