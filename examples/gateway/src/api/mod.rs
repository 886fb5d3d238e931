//! HTTP for administrators: `openapi.json` describes it.
//!
//! `admin.rs` says who they are, `online.rs` who is online and what was counted. `send.rs` has messages and the end of
//! connections, `problem.rs` the form of errors.

mod admin;
mod online;
mod problem;
mod send;

use std::sync::Arc;

use ringwire::http::header;
use ringwire::router::{Asset, SocketRoutes};
use ringwire::{Handler, HeaderValue, IntoResponse, OwnedRequest, Response, Router, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use self::admin::{Admin, is_api_key};
pub(crate) use self::online::online;
pub use self::problem::Problem;
use crate::app::App;
use crate::live::{self, Live};
use crate::metrics::Monitoring;

/// Adds the endpoints below `/ws/`, the pages, and what monitoring asks for.
pub fn routes<S: SocketRoutes>(router: Router<S>, app: &Arc<App>) -> impl Handler + use<S> {
    let description = include_str!("openapi.json").as_bytes();
    let router = router
        .get_async("/ws/online", guarded(app, online::list))
        .get_async("/ws/stats", guarded(app, online::stats))
        .post_async("/ws/send", guarded(app, send::send))
        .post_async("/ws/broadcast", guarded(app, send::broadcast))
        .post_async("/ws/disconnect", guarded(app, send::disconnect))
        .post_async("/ws/cleanup", guarded(app, async |app, _, _| send::clean_up(app).await))
        .asset("/openapi.json", Asset::new("application/json", description))
        .fallback(|_| Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path"));
    live::pages(router)
        .websocket("/ws/live", Live(app.clone()))
        .nest("/metrics", Monitoring(app.clone()))
        .nest("/healthz", Monitoring(app.clone()))
        .nest("/readyz", Monitoring(app.clone()))
}

type Answer = Result<Response, Problem>;

/// What answers administrators, and nobody else.
fn guarded(
    app: &Arc<App>,
    answer: impl AsyncFn(&App, &Admin, &OwnedRequest) -> Answer + 'static,
) -> impl AsyncFn(OwnedRequest) -> Response + 'static {
    let app = app.clone();
    async move |request: OwnedRequest| {
        let response = match Admin::of_request(&app, &request).await {
            Ok(admin) => answer(&app, &admin, &request).await.into_response(),
            Err(problem) => problem.into_response(),
        };
        fresh(response)
    }
}

/// Of this moment, and for whoever asked.
pub(crate) fn fresh(response: Response) -> Response {
    response.with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

/// The body, as JSON of this type.
fn body<T: DeserializeOwned>(request: &OwnedRequest) -> Result<T, Problem> {
    let content_type = request.header_str("content-type").unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let text = "the body is JSON, with `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let malformed =
        |error: serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, error.to_string());
    let invalid = |text| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    let value: Value = serde_json::from_slice(request.body()).map_err(malformed)?;
    if !value.is_object() {
        // A struct would be made of an array as well.
        return Err(invalid("the body is an object".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| invalid(error.to_string()))
}

fn json(value: &impl Serialize) -> Response {
    Response::json(serde_json::to_string(value).expect("names, numbers and times are JSON"))
}

/// 202: what was asked for is under way.
fn accepted(value: &impl Serialize) -> Response {
    json(value).with_status(StatusCode::ACCEPTED)
}
