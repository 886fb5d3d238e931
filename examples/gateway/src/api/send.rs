//! Messages of administrators, and the end of a user's connections.

use std::time::SystemTime;

use ringwire::json::{Json, Problem};
use ringwire::{OwnedRequest, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Admin, Answer};
use crate::app::App;
use crate::cluster::Order;
use crate::envelope::{Envelope, MessageType, timestamp};
use crate::session::{EVERYBODY, REVOKED, topic_of};

/// The longest reason of a disconnect, in characters. The engine cuts it to what fits into a close frame (RFC 6455
/// §5.5.1).
const MAX_REASON_LEN: usize = 120;

/// What administrators may say. Other types are what the gateway itself says.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Spoken {
    Text,
    Notification,
    SystemMessage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    to_user_id: Uuid,
    message_type: Spoken,
    data: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Broadcast {
    message_type: Spoken,
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
    to: Option<Uuid>,
    spoken: Spoken,
    data: Map<String, Value>,
) -> (Uuid, String) {
    let id = Uuid::new_v4();
    let message_type = match spoken {
        Spoken::Text => MessageType::Text,
        Spoken::Notification => MessageType::Notification,
        Spoken::SystemMessage => MessageType::SystemMessage,
    };
    let envelope = Envelope {
        id: &id.to_string(),
        message_type,
        data: &data,
        timestamp: &timestamp(SystemTime::now()),
        from_user_id: admin.user(),
        to_user_id: to,
    };
    (id, envelope.to_json())
}

fn offline() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "the user is not online")
}

/// `POST /ws/send`
pub(super) async fn send(app: &App, admin: &Admin, request: &OwnedRequest) -> Answer {
    let Send { to_user_id: to, message_type, data } = request.json()?;
    let (count, _) = app.connection_counts(to);
    if count == 0 {
        return Err(offline());
    }
    let (id, text) = envelope(admin, Some(to), message_type, data);
    app.handle().publish(&topic_of(to), &text).map_err(busy)?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "connections": count }))))
}

/// `POST /ws/broadcast`
pub(super) async fn broadcast(app: &App, admin: &Admin, request: &OwnedRequest) -> Answer {
    let Broadcast { message_type, data } = request.json()?;
    let (id, text) = envelope(admin, None, message_type, data);
    let (sender, count) = oneshot::channel();
    app.handle().subscriber_count(EVERYBODY).then(move |count| {
        let _ = sender.send(count);
    });
    let count = count.await.map_err(busy)?.map_err(busy)?;
    app.handle().publish(EVERYBODY, &text).map_err(busy)?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "connections": count }))))
}

/// `POST /ws/disconnect`
pub(super) async fn disconnect(app: &App, _: &Admin, request: &OwnedRequest) -> Answer {
    let Disconnect { user_id, reason } = request.json()?;
    if reason.chars().count() > MAX_REASON_LEN {
        let text = format!("`reason` has at most {MAX_REASON_LEN} characters");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let (_, count) = app.connection_counts(user_id);
    if count == 0 {
        return Err(offline());
    }
    let reason = if reason.is_empty() { "disconnected by an administrator" } else { &reason };
    app.order(&Order::Disconnect { user: user_id, reason: reason.to_owned() });
    for conn in app.presence.connections(user_id) {
        app.handle().close(conn, REVOKED, reason).map_err(busy)?;
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "connections": count }))))
}

/// `POST /ws/cleanup`
pub(super) async fn clean_up(app: &App) -> Answer {
    app.order(&Order::CleanUp);
    let count = match app.clock.get() {
        Some(clock) => clock.clean_up().await,
        None => 0,
    };
    Ok((StatusCode::ACCEPTED, Json(json!({ "connections": count }))))
}

/// A worker does not take it.
fn busy(error: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
