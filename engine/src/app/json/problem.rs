//! Errors of HTTP interfaces, as problem details (RFC 9457).

use http::{HeaderName, HeaderValue, StatusCode, header};
use ringwire_codec::http::Response;
use serde::Serialize;

use crate::app::handler::Answer;
use crate::app::responder::IntoResponse;

/// Why a request was not done: a status, and a sentence for whoever sent it.
///
/// The body is `application/problem+json` with the members `type`, `title`, `status` and `detail` (RFC 9457 §3.1). All
/// problems are of the type `about:blank`: the status says what kind they are (§4.2.1). They are of this moment:
/// `Cache-Control: no-store`.
///
/// ```
/// use ringwire::json::{Json, Problem};
/// use ringwire::{IntoResponse, Router, StatusCode};
///
/// let router = Router::new().get("/users/{id}", |request| {
///     let id: u64 = request.param("id").unwrap_or_default().parse().map_err(|_| {
///         Problem::new(StatusCode::BAD_REQUEST, "an id is a number")
///     })?;
///     Ok::<_, Problem>(Json(serde_json::json!({ "id": id })))
/// });
/// # let _ = router;
///
/// let response = Problem::new(StatusCode::NOT_FOUND, "the user is not online").into_response();
/// assert_eq!(response.status(), 404);
/// let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
/// assert_eq!(body["title"], "Not Found");
/// assert_eq!(body["detail"], "the user is not online");
/// ```
///
/// It refuses a WebSocket as well: by `into` it is an [`Answer`], and by `?` the refusal of
/// `Router::websocket_async`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The members of the body.
#[derive(Serialize)]
struct Details<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// A problem. The text must tell nothing that its reader should not know.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), headers: Vec::new() }
    }

    /// Adds a header: `WWW-Authenticate` to an answer with 401, say (RFC 9110 §15.5.2).
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail, headers } = &self;
        let title = status.canonical_reason().unwrap_or("Problem");
        let details = Details { r#type: "about:blank", title, status: status.as_u16(), detail };
        let body = serde_json::to_vec(&details).expect("text and a number are JSON");
        let media_type = HeaderValue::from_static("application/problem+json");
        let response = Response::new(*status)
            .with_body(media_type, body)
            .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers
            .iter()
            .cloned()
            .fold(response, |response, (name, value)| response.with_header(name, value))
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        problem.into_response()
    }
}

impl<S> From<Problem> for Answer<S> {
    fn from(problem: Problem) -> Self {
        Self::Reject(problem.into())
    }
}
