//! Who is online, and what was counted.

use std::sync::Arc;

use ringwire::json::{Json, Problem};
use ringwire::stats::ProcessStats;
use ringwire::{OwnedRequest, StatusCode};
use serde_json::json;

use super::{Admin, Answer};
use crate::app::App;
use crate::presence::listed;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// `GET /ws/online?after=UUID&limit=N`
pub(super) async fn list(app: &Arc<App>, _: &Admin, request: &OwnedRequest) -> Answer {
    let bad = |text| Problem::new(StatusCode::BAD_REQUEST, text);
    let limit = match request.query_param("limit") {
        Some(text) => (text.parse().ok())
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| bad(format!("`limit` is a whole number from 1 to {MAX_LIMIT}")))?,
        None => DEFAULT_LIMIT,
    };
    let after = match request.query_param("after") {
        Some(text) => Some(text.parse().map_err(|_| bad("`after` is a UUID".to_owned()))?),
        None => None,
    };
    let mut page = listed(&app.presence.page(after.as_ref(), limit));
    page["count"] = app.presence.counts().users.into();
    Ok((StatusCode::OK, Json(page)))
}

/// `GET /ws/stats`
pub(super) async fn stats(app: &Arc<App>, _: &Admin, _: &OwnedRequest) -> Answer {
    let (counts, process) = (app.presence.counts(), ProcessStats::now());
    let total = app.handle().stats().total();
    let stats = json!({
        "total_connections": app.presence.sum(|connections, _| connections),
        "unique_users": counts.users,
        "server_uptime": app.started.elapsed().as_secs(),
        "connections_opened": total.handshakes,
        "messages_received": total.messages_received,
        "messages_sent": total.messages_sent + total.deliveries,
        "messages_by_type": app.counters.messages(),
        "refused_tokens": app.counters.refusals(),
        "memory_bytes": process.resident_len,
        "cpu_seconds": process.cpu.as_secs_f64(),
        "is_draining": app.handle().is_draining(),
        "nodes": app.presence.nodes(),
    });
    Ok((StatusCode::OK, Json(stats)))
}
