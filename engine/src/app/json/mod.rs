//! JSON: bodies of requests and of answers, problems as answers (RFC 9457), and messages by their `type`.
//!
//! What is not here: schemas, and streams of JSON.

mod dispatch;
mod plain;
mod problem;

use http::StatusCode;
use ringwire_codec::http::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::dispatch::{Dispatch, DispatchError, id_of, object_of};
pub use self::plain::{empty_object, numeric_date, plain, plain_or_empty};
pub use self::problem::Problem;
use crate::app::request::Request;
use crate::app::responder::IntoResponse;
#[cfg(feature = "async")]
use crate::app::serve::OwnedRequest;

/// An answer in JSON: with 200, or with a status before it. What can't be written as JSON, a map whose keys are no
/// texts, say, is a 500 and a line in the log.
///
/// ```
/// use ringwire::json::{Json, Problem};
/// use ringwire::{Router, StatusCode};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct Order { item: String, count: u32 }
///
/// #[derive(Serialize)]
/// struct Receipt { number: u64 }
///
/// let router = Router::new()
///     .get("/prices", |_| Json([("tea", 3), ("cake", 4)]))
///     .post("/orders", |request| {
///         let Order { item, count } = request.json()?;
///         if count == 0 {
///             let detail = format!("how much {item} is it to be?");
///             return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
///         }
///         Ok((StatusCode::ACCEPTED, Json(Receipt { number: 7 })))
///     });
/// # let _ = router;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        (StatusCode::OK, self).into_response()
    }
}

impl<T: Serialize> IntoResponse for (StatusCode, Json<T>) {
    fn into_response(self) -> Response {
        let (status, Json(value)) = self;
        match serde_json::to_string(&value) {
            Ok(text) => Response::json(text).with_status(status),
            Err(error) => {
                crate::base::event::error!(%error, "an answer can't be written as JSON");
                Response::new(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl Request<'_> {
    /// The body, a JSON object, as this type. See [`Json`].
    ///
    /// # Errors
    /// 415 where the Content-Type is missing or other than `application/json`, or the body is compressed
    /// (`Content-Encoding`), 400 where it is no JSON, 422 where it is no object of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        read(|name| self.header_str(name), self.body())
    }
}

#[cfg(feature = "async")]
impl OwnedRequest {
    /// The body, a JSON object, as this type. See [`Json`].
    ///
    /// # Errors
    /// 415 where the Content-Type is missing or other than `application/json`, or the body is compressed
    /// (`Content-Encoding`), 400 where it is no JSON, 422 where it is no object of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        read(|name| self.header_str(name), self.body())
    }
}

fn read<'a, T: DeserializeOwned>(
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
) -> Result<T, Problem> {
    let unsupported = |text| Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    let content_type = header("content-type").unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return unsupported("the body is JSON, with `Content-Type: application/json`");
    }
    // RFC 9110 §8.4, §15.5.16
    if !header("content-encoding").unwrap_or("identity").eq_ignore_ascii_case("identity") {
        return unsupported("the body is sent as it is, without `Content-Encoding`");
    }
    let wrong = |error: serde_json::Error| {
        let status = match error.is_data() {
            true => StatusCode::UNPROCESSABLE_ENTITY,
            false => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, error.to_string())
    };
    if !body.trim_ascii_start().starts_with(b"{") {
        // A struct would be made of an array as well.
        serde_json::from_slice::<Value>(body).map_err(wrong)?;
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the body is an object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        // What is wrong in it counts only where it is JSON at all, and not too deep.
        serde_json::from_slice::<Value>(body).map_or_else(wrong, |_| wrong(error))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Order {
        item: String,
    }

    #[test]
    fn bodies_are_objects_of_their_type() {
        let json = Some("application/json");
        for (content_type, body, expected) in [
            (json, r#"{"item":"tea"}"#, Ok("tea")),
            (Some("Application/JSON; charset=utf-8"), r#" {"item":"tea","more":1}"#, Ok("tea")),
            (None, r#"{"item":"tea"}"#, Err(415)),
            (Some("text/plain"), r#"{"item":"tea"}"#, Err(415)),
            (Some("application/json+x"), r#"{"item":"tea"}"#, Err(415)),
            (json, "", Err(400)),
            (json, r#"{"item":"#, Err(400)),
            (json, r#"{"item":1,"#, Err(400)),
            (json, "tea", Err(400)),
            (json, "{} {}", Err(400)),
            (json, "[\"tea\"]", Err(422)),
            (json, "7", Err(422)),
            (json, "{}", Err(422)),
            (json, r#"{"item":1}"#, Err(422)),
            (json, &("{\"a\":".repeat(200) + "1" + &"}".repeat(200)), Err(400)),
            (json, &("{\"item\":".repeat(200) + "1" + &"}".repeat(200)), Err(400)),
        ] {
            let header = |name: &str| content_type.filter(|_| name == "content-type");
            let found = read(header, body.as_bytes());
            let found = found.map(|Order { item }| item).map_err(|it| it.status().as_u16());
            assert_eq!(found.as_deref().map_err(|status| *status), expected, "{body}");
        }
    }

    /// RFC 9110 §15.5.16
    #[test]
    fn compressed_bodies_are_not_understood() {
        for (encoding, expected) in [
            (None, None),
            (Some("Identity"), None),
            (Some("gzip"), Some(415)),
            (Some("br, gzip"), Some(415)),
        ] {
            let header = |name: &str| match name {
                "content-encoding" => encoding,
                _ => Some("application/json"),
            };
            let found = read::<Order>(header, br#"{"item":"tea"}"#);
            assert_eq!(found.err().map(|it| it.status().as_u16()), expected, "{encoding:?}");
        }
    }

    #[test]
    fn problems_refuse_websockets() {
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "who are you?");
        let crate::Answer::<()>::Reject(response) = problem.clone().into() else {
            panic!("it is no refusal")
        };
        assert_eq!(response.body(), problem.into_response().body());
    }

    #[test]
    fn answers_are_json_with_a_status() {
        let response = (StatusCode::ACCEPTED, Json([1, 2])).into_response();
        assert_eq!((response.status(), response.body()), (StatusCode::ACCEPTED, &b"[1,2]"[..]));
        let unwritable = Json(HashMap::from([((1, 2), 3)])).into_response();
        assert_eq!(unwritable.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    /// RFC 9457 §3: the members, and their media type.
    #[test]
    fn problems_have_members_and_headers() {
        let (name, value) =
            (http::header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "a \"token\", please");
        let response = problem.with_header(name.clone(), value.clone()).into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let header = |name| response.headers().find(|(each, _)| *each == name).unwrap().1;
        assert_eq!(header(&name), value);
        assert_eq!(header(&http::header::CONTENT_TYPE), "application/problem+json");
        assert_eq!(header(&http::header::CACHE_CONTROL), "no-store");
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank", "title": "Unauthorized", "status": 401,
            "detail": "a \"token\", please",
        });
        assert_eq!(body, expected);
    }
}
