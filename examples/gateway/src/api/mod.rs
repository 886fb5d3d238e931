//! HTTP for administrators: `openapi.json` describes it.
//!
//! `admin.rs` says who they are, `online.rs` who is online and what was counted. `send.rs` has messages and the end of
//! connections.

mod admin;
mod online;
mod send;

use std::sync::Arc;

use ringwire::http::header;
use ringwire::json::{Json, Problem};
use ringwire::router::{Asset, SocketRoutes};
use ringwire::{
    Handler, HeaderValue, IntoResponse, OwnedRequest, Request, Response, Router, StatusCode,
};
use serde_json::Value;

pub(crate) use self::admin::{Admin, is_api_key};
use crate::app::App;
use crate::auth::Refused;
use crate::live::{self, Live};
use crate::metrics;

/// Adds the endpoints below `/ws/`, the pages, and what monitoring asks for.
pub fn routes<S: SocketRoutes>(router: Router<S>, app: &Arc<App>) -> impl Handler + use<S> {
    let description = include_str!("openapi.json").as_bytes();
    let router = router
        .get_async("/ws/online", guarded(app, online::list))
        .get_async("/ws/stats", guarded(app, online::stats))
        .post_async("/ws/send", guarded(app, send::send))
        .post_async("/ws/broadcast", guarded(app, send::broadcast))
        .post_async("/ws/disconnect", guarded(app, send::disconnect))
        .post_async("/ws/cleanup", guarded(app, send::clean_up))
        .asset("/openapi.json", Asset::new("application/json", description))
        .errors(|_, status| match status {
            StatusCode::NOT_FOUND => Problem::new(status, "there is nothing at this path"),
            status => Problem::new(status, "the path has other methods: see Allow"),
        });
    let guarding = || {
        let app = app.clone();
        move |request: &Request<'_>| metrics::guard(&app, request)
    };
    let (counting, asking) = (app.clone(), app.clone());
    live::pages(router)
        .websocket("/ws/live", Live(app.clone()))
        .monitoring_with(app.handle(), move |text| metrics::write(&counting, text))
        .guard("/metrics", guarding())
        .guard("/stats", guarding())
        .guard("/readyz", move |_| match asking.users() {
            Some(users) if !users.answers() => Err(Problem::from(Refused::Unavailable)),
            _ => Ok(()),
        })
}

/// A status and an object, or why there is none.
type Answer = Result<(StatusCode, Json<Value>), Problem>;

/// What answers administrators, and nobody else. It is of this moment, and for whoever asked.
fn guarded(
    app: &Arc<App>,
    answer: impl AsyncFn(&Arc<App>, &Admin, &OwnedRequest) -> Answer + 'static,
) -> impl AsyncFn(OwnedRequest) -> Result<Response, Problem> + 'static {
    let app = app.clone();
    async move |request: OwnedRequest| {
        let admin = Admin::of_request(&app, &request).await?;
        let response = answer(&app, &admin, &request).await?.into_response();
        Ok(response.with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
    }
}
