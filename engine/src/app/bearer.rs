//! Where a request has the token of whoever sends it.

use std::borrow::Cow;

use crate::app::request::Request;
#[cfg(feature = "async")]
use crate::app::serve::OwnedRequest;

/// The subprotocol after which a browser's script can name a token, since it can set no headers:
/// `new WebSocket(url, ["bearer", token])`. A server agrees to `bearer`, or to another one that is on offer.
pub const BEARER: &str = "bearer";

impl Request<'_> {
    /// The token that the client sends with the request: of `Authorization: Bearer` (RFC 6750 §2.1), else, since a
    /// script in a browser can set no headers, what follows [`BEARER`] among the subprotocols. It is as it was
    /// sent, and not checked.
    ///
    /// ```
    /// use ringwire::Request;
    ///
    /// let browser = Request::builder("/").header("sec-websocket-protocol", "bearer, a.b.c").build();
    /// browser.with(|request| assert_eq!(request.bearer_token(), Some("a.b.c")));
    /// ```
    pub fn bearer_token(&self) -> Option<&str> {
        in_header(self.header_str("authorization")).or_else(|| offered(self.subprotocols()))
    }

    /// The token in the query parameter of this name, else the [`bearer_token`](Self::bearer_token). A query ends up in
    /// logs of proxies and histories of browsers, so it is for tokens that hold for a short while.
    pub fn token(&self, parameter: &str) -> Option<Cow<'_, str>> {
        self.query_param(parameter).or_else(|| self.bearer_token().map(Cow::Borrowed))
    }
}

#[cfg(feature = "async")]
impl OwnedRequest {
    /// The token that the client sends with the request. See [`Request::bearer_token`].
    pub fn bearer_token(&self) -> Option<&str> {
        in_header(self.header_str("authorization")).or_else(|| offered(self.subprotocols()))
    }

    /// The token in the query parameter of this name, else the [`bearer_token`](Self::bearer_token). See
    /// [`Request::token`].
    pub fn token(&self, parameter: &str) -> Option<Cow<'_, str>> {
        self.query_param(parameter).or_else(|| self.bearer_token().map(Cow::Borrowed))
    }
}

fn in_header(authorization: Option<&str>) -> Option<&str> {
    let (scheme, token) = authorization?.split_once(' ')?;
    // In any case (RFC 9110 §11.1).
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim())
}

fn offered<'a>(mut subprotocols: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    subprotocols.find(|name| *name == BEARER)?;
    subprotocols.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_the_query_the_header_or_among_the_subprotocols() {
        let found = |target: &str, headers: &[(&str, &str)]| {
            let request =
                headers.iter().fold(Request::builder(target), |request, (name, value)| {
                    request.header(name, value)
                });
            request.build().with(|request| request.token("token").map(Cow::into_owned))
        };
        let query = |query: &str| found(&format!("/ws?{query}"), &[]);
        let header = |text| found("/ws", &[("authorization", text)]);
        let offer = |names| found("/ws", &[("sec-websocket-protocol", names)]);
        let others = [("authorization", "Bearer h"), ("sec-websocket-protocol", "bearer, s")];
        for (token, expected) in [
            (found("/ws", &[]), None),
            (query("token=a.b-c_d"), Some("a.b-c_d")),
            (query("x=1&token=a%2Eb&token=c"), Some("a.b")),
            (query("tokens=a&xtoken=b"), None),
            (query("token="), Some("")),
            (header("Bearer a.b.c"), Some("a.b.c")),
            (header("bearer  a.b.c"), Some("a.b.c")),
            (header("Basic YTpi"), None),
            (header("Bearer"), None),
            (offer("bearer, a.b.c"), Some("a.b.c")),
            (offer("rooms.v1, bearer, a.b.c"), Some("a.b.c")),
            (offer("a.b.c, bearer"), None),
            (offer("rooms.v1"), None),
            (found("/ws?token=q", &others), Some("q")),
            (found("/ws", &others), Some("h")),
        ] {
            assert_eq!(token.as_deref(), expected);
        }
    }
}
