//! Where a request has its token and its API key.

use std::borrow::Cow;

use ringwire::{OwnedRequest, Request};

/// The subprotocol after which a browser's script can name a token, since it can set no headers:
/// `new WebSocket(url, ["bearer", token])`. The server agrees to `bearer`, or to another one that is on offer.
pub const BEARER: &str = "bearer";

/// The parts of a request that credentials may be in.
pub trait Head {
    /// The first parameter of this name in the query, decoded.
    fn query_param(&self, name: &str) -> Option<Cow<'_, str>>;
    /// A header's value.
    fn header(&self, name: &str) -> Option<&str>;
    /// The subprotocols on offer.
    fn subprotocols(&self) -> impl Iterator<Item = &str>;
}

macro_rules! heads {
    ($($request:ty),+) => {$(
        impl Head for $request {
            fn query_param(&self, name: &str) -> Option<Cow<'_, str>> {
                self.query_param(name)
            }

            fn header(&self, name: &str) -> Option<&str> {
                self.header_str(name)
            }

            fn subprotocols(&self) -> impl Iterator<Item = &str> {
                self.subprotocols()
            }
        }
    )+};
}

heads!(Request<'_>, OwnedRequest);

/// A request's token: of `?token=`, else of `Authorization: Bearer`, else what follows [`BEARER`] among the
/// subprotocols.
pub fn token_of(request: &impl Head) -> Option<Cow<'_, str>> {
    let in_header = || {
        let (scheme, token) = request.header("authorization")?.split_once(' ')?;
        // In any case (RFC 9110 §11.1).
        scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim())
    };
    let offered = || request.subprotocols().skip_while(|name| *name != BEARER).nth(1);
    request.query_param("token").or_else(|| in_header().or_else(offered).map(Cow::Borrowed))
}

/// A request's API key, of `X-Api-Key`.
pub fn api_key_of(request: &impl Head) -> Option<&str> {
    request.header("x-api-key")
}
