//! Errors of the HTTP interface, as problem details (RFC 9457).

use ringwire::http::header;
use ringwire::{HeaderValue, IntoResponse, Response, StatusCode};
use serde::Serialize;

use crate::auth::Refused;

/// Why a request was not done: a status, and a sentence for whoever sent it.
///
/// The body is `application/problem+json` with the members `type`, `title`, `status` and `detail` (RFC 9457 §3.1). All
/// problems are of the type `about:blank`: the status says what kind they are (§4.2.1).
///
/// ```
/// use ringwire::{IntoResponse, StatusCode};
/// use ringwire_gateway::api::Problem;
///
/// let response = Problem::new(StatusCode::NOT_FOUND, "the user is not online").into_response();
/// assert_eq!(response.status(), 404);
/// let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
/// assert_eq!(body["title"], "Not Found");
/// assert_eq!(body["detail"], "the user is not online");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Of a request without credentials, or with wrong ones: how to prove who one is (RFC 9110 §11.6.1).
    challenge: Option<&'static str>,
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
        Self { status, detail: detail.into(), challenge: None }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let challenge = refused.challenge();
        Self { challenge, ..Self::new(refused.status(), refused.reason()) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail, challenge } = &self;
        let title = status.canonical_reason().unwrap_or("Problem");
        let details = Details { r#type: "about:blank", title, status: status.as_u16(), detail };
        let body = serde_json::to_vec(&details).expect("text and a number are JSON");
        let media_type = HeaderValue::from_static("application/problem+json");
        let response = Response::new(*status).with_body(media_type, body);
        match *challenge {
            Some(text) => {
                response.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(text))
            }
            None => response,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9457 §3: the members, and their media type. RFC 6750 §3.1: the error is named where there was a token.
    #[test]
    fn refused_tokens_are_challenged() {
        for (refused, challenge) in
            [(Refused::Missing, "Bearer"), (Refused::Expired, "Bearer error=\"invalid_token\"")]
        {
            let response = Problem::from(refused).into_response();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            let header = |name| response.headers().find(|(each, _)| *each == name).unwrap().1;
            assert_eq!(header(header::WWW_AUTHENTICATE), challenge);
            assert_eq!(header(header::CONTENT_TYPE), "application/problem+json");
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["type"], "about:blank");
            assert_eq!(body["status"], 401);
            assert_eq!(body["title"], "Unauthorized");
        }
    }
}
