//! A chat gateway as an application writes it: on the public API of `ringwire` and `ringwire-client` alone.

mod admin;
mod chat;
pub mod client;
mod token;

use ringwire::router::Shared;
use ringwire::{Handle, Handler, IntoResponse, Request, Response, Router, StatusCode};

/// The prefix of the names under which the connections of users are found.
pub const USER: &str = "user.";

/// What the routes of a worker share.
struct Gateway {
    handle: Handle,
    key: token::Key,
}

/// The handler of a worker: a WebSocket at `/chat`, and HTTP below `/admin`, for tokens that are signed with `secret`.
pub fn gateway(handle: &Handle, secret: &[u8]) -> impl Handler + use<> {
    let gateway = Shared::new(Gateway { handle: handle.clone(), key: token::Key::new(secret) });
    Router::new()
        .websocket("/chat", chat::Chat(gateway.clone()))
        .guard("/admin", gateway.with(Gateway::check_admin))
        .get("/admin/online", gateway.with(Gateway::list_online))
        .post("/admin/send", gateway.with(Gateway::send_to_user))
        .post("/admin/disconnect", gateway.with(Gateway::disconnect))
}

impl Gateway {
    /// What the request's token says: that of `?token=`, or else of `Authorization: Bearer`.
    fn claims(&self, request: &Request<'_>) -> Result<token::Claims, Problem> {
        let header = request.header_str("authorization").and_then(|it| it.strip_prefix("Bearer "));
        let token = request.query_param("token").or_else(|| header.map(Into::into));
        self.key.verify(&token.unwrap_or_default())
    }
}

/// Why something was not done: in HTTP a status and a text, in the chat the text. What the engine refuses is 503.
struct Problem(StatusCode, String);

fn refuse<T>(status: StatusCode, text: impl Into<String>) -> Result<T, Problem> {
    Err(Problem(status, text.into()))
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        Response::json(serde_json::json!({ "error": self.1 }).to_string()).with_status(self.0)
    }
}
