//! Messages of administrators, and the end of a user's connections.

use std::sync::Arc;

use ringwire::json::{Json, Problem};
use ringwire::{OwnedRequest, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Admin, Answer};
use crate::app::App;
use crate::clock::sweep;
use crate::envelope::{Envelope, MessageType};
use crate::presence::order_sweep;
use crate::session::{EVERYBODY, REVOKED, topic_of};

/// The longest reason of a disconnect, in characters. The engine cuts it to what fits into a close frame (RFC 6455
/// §5.5.1).
const MAX_REASON_LEN: usize = 120;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    to_user_id: Uuid,
    message_type: MessageType,
    data: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Broadcast {
    message_type: MessageType,
    data: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    user_id: Uuid,
    #[serde(default)]
    reason: String,
}

/// The message, with its new id.
fn envelope(
    admin: &Admin,
    to_user_id: Option<Uuid>,
    message_type: MessageType,
    data: &Map<String, Value>,
) -> Result<(Uuid, String), Problem> {
    use MessageType::{Notification, SystemMessage, Text};
    if !matches!(message_type, Text | Notification | SystemMessage) {
        let text =
            "`message_type` is text, notification or system_message: others are the gateway's";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let (id, from_user_id) = (Uuid::new_v4(), admin.user());
    let text = id.to_string();
    let envelope = Envelope::new(&text, message_type, data);
    Ok((id, Envelope { from_user_id, to_user_id, ..envelope }.to_json()))
}

fn offline() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "the user is not online")
}

/// `POST /ws/send`
pub(super) async fn send(app: &Arc<App>, admin: &Admin, request: &OwnedRequest) -> Answer {
    let Send { to_user_id: to, message_type, data } = request.json()?;
    let (id, text) = envelope(admin, Some(to), message_type, &data)?;
    let count = app.presence.of(&to).map_or(0, |user| user.profile.envelopes);
    if count == 0 {
        return Err(offline());
    }
    app.handle().publish(&topic_of(to), &text).map_err(busy)?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "connections": count }))))
}

/// `POST /ws/broadcast`
pub(super) async fn broadcast(app: &Arc<App>, admin: &Admin, request: &OwnedRequest) -> Answer {
    let Broadcast { message_type, data } = request.json()?;
    let (id, text) = envelope(admin, None, message_type, &data)?;
    let count = app.presence.sum(|_, known| known.envelopes);
    app.handle().publish(EVERYBODY, &text).map_err(busy)?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "connections": count }))))
}

/// `POST /ws/disconnect`
pub(super) async fn disconnect(app: &Arc<App>, _: &Admin, request: &OwnedRequest) -> Answer {
    let Disconnect { user_id, reason } = request.json()?;
    if reason.chars().count() > MAX_REASON_LEN {
        let text = format!("`reason` has at most {MAX_REASON_LEN} characters");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let count = app.presence.of(&user_id).ok_or_else(offline)?.connection_count;
    let reason = if reason.is_empty() { "disconnected by an administrator" } else { &reason };
    app.presence.close(&user_id, REVOKED, reason).map_err(busy)?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "connections": count }))))
}

/// `POST /ws/cleanup`
pub(super) async fn clean_up(app: &Arc<App>, _: &Admin, _: &OwnedRequest) -> Answer {
    order_sweep(app);
    Ok((StatusCode::ACCEPTED, Json(json!({ "connections": sweep(app).await }))))
}

/// A worker does not take it.
fn busy(error: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
