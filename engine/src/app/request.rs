//! A request, as the handler sees it.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use ringwire_codec::handshake::{Extension, HandshakeError, Headers, server};
use ringwire_tls::Facts;

use crate::app::{forwarded, query};
use crate::conn::id::ConnId;

/// A request that came to the server, borrowed from the bytes that were received.
///
/// ```
/// use ringwire::{Request, Response, Router, StatusCode};
///
/// /// `GET /rooms/lobby/log?from=10&q=good+morning`
/// fn log(request: &Request<'_>) -> Result<Response, Response> {
///     let bad = |what: &str| {
///         Response::text(format!("{what}?\n")).with_status(StatusCode::BAD_REQUEST)
///     };
///     let room = request.param("room").unwrap_or_default();
///     let from: u64 = match request.query_param("from") {
///         Some(number) => number.parse().map_err(|_| bad("from"))?,
///         None => 0,
///     };
///     let text = request.query_param("q").ok_or_else(|| bad("q"))?;
///     let language = request.header_str("accept-language").unwrap_or("en");
///     Ok(Response::text(format!("{room} from {from} with {text:?} in {language}\n")))
/// }
///
/// let router = Router::new().get("/rooms/{room}/log", log);
/// # fn is_handler(_: impl ringwire::Handler) {}
/// # is_handler(router);
/// ```
#[derive(Debug)]
pub struct Request<'a> {
    head: &'a server::Request<'a>,
    id: ConnId,
    peer: SocketAddr,
    tls: Option<Facts<'a>>,
    body: &'a [u8],
    place: Option<&'a Place<'a>>,
    /// For the subprotocol of the route, where the request was deferred and is accepted now.
    agreed: Option<&'a OnceLock<String>>,
}

/// Where in a router a request has come to.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    params: matchit::Params<'a, 'a>,
    /// The place of the router itself, if that is nested.
    outer: Option<&'a Self>,
    /// How much of the path was matched for a handler that is nested there.
    base_len: usize,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        head: &'a server::Request<'a>,
        id: ConnId,
        peer: SocketAddr,
        tls: Option<Facts<'a>>,
    ) -> Self {
        Self { head, id, peer, tls, body: &[], place: None, agreed: None }
    }

    pub(crate) fn with_body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// The same, for routes to say there which subprotocol they agree to.
    pub(crate) fn with_agreed(mut self, agreed: &'a OnceLock<String>) -> Self {
        self.agreed = Some(agreed);
        self
    }

    /// Agrees to the first of these subprotocols that the client offers, unless a route further inside has agreed to
    /// another.
    pub(crate) fn agree(&self, own: &[String]) {
        if let Some((agreed, name)) = self.agreed.zip(self.preferred(own)) {
            agreed.get_or_init(|| name.to_owned());
        }
    }

    /// The first of these subprotocols that the client offers.
    pub(crate) fn preferred<'o>(&self, own: &'o [String]) -> Option<&'o str> {
        let is_offered = |name: &&str| self.subprotocols().any(|offered| offered == *name);
        own.iter().map(String::as_str).find(is_offered)
    }

    /// The place of a route that has these parameters, of which the one with the name `below` is what a nested handler
    /// gets to see of the path.
    pub(crate) fn place<'s>(
        &'s self,
        params: matchit::Params<'s, 's>,
        below: Option<&str>,
    ) -> Place<'s> {
        let path = self.path();
        let outer_len = self.place.map_or(0, |place| place.base_len);
        let base_len = below.map_or(outer_len, |name| {
            let rest = params.get(name).map(|rest| rest.len() + 1);
            path.len() - rest.unwrap_or_else(|| usize::from(path.ends_with('/')))
        });
        Place { params, outer: self.place, base_len }
    }

    /// The same request there.
    pub(crate) fn at<'s>(&'s self, place: &'s Place<'s>) -> Request<'s> {
        Request { place: Some(place), ..*self }
    }

    /// The connection that it came on, to answer it later with.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The other side's address; the unspecified one (`[::]:0`) on a Unix socket.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address behind so many trusted proxies, by `X-Forwarded-For`. Each proxy appends the address that
    /// connected to it, so this is the entry with that number from the end; anybody may have written those before it.
    /// `None` if there are fewer entries, if this one is no address, and for 0 hops (use
    /// [`peer_addr`](Self::peer_addr)).
    ///
    /// Only for servers that can be reached through these proxies alone.
    pub fn forwarded_for(&self, trusted_hops: usize) -> Option<IpAddr> {
        forwarded::x_forwarded_for(self.headers(), trusted_hops)
    }

    /// The same by `Forwarded` (RFC 7239), for proxies that set that header. There are two methods, since a proxy that
    /// sets one of the headers passes on whatever a client writes into the other.
    pub fn forwarded(&self, trusted_hops: usize) -> Option<IpAddr> {
        forwarded::forwarded(self.headers(), trusted_hops)
    }

    /// What the TLS handshake agreed on: version, cipher suite, SNI, ALPN, the client's certificate. `None` on a
    /// plain connection.
    pub fn tls(&self) -> Option<Facts<'a>> {
        self.tls
    }

    /// The method, `GET` for a WebSocket.
    pub fn method(&self) -> &'a str {
        self.head.method()
    }

    /// The target as it was sent: path and query, or a whole URL (RFC 9112 §3.2.2).
    pub fn target(&self) -> &'a str {
        self.head.target()
    }

    /// What a parameter of the [`Router`](crate::Router)'s path stands for, percent-decoded (RFC 3986 §2.1): `a%20b` is
    /// "a b", and a `+` is a plus. What is no UTF-8 becomes U+FFFD. Where the router is [nested](crate::Router::nest),
    /// those of the prefix are there too.
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        let places = std::iter::successors(self.place, |place| place.outer);
        let value = places.into_iter().find_map(|place| place.params.get(name))?;
        Some(query::decode(value, false))
    }

    /// All parameters of the path, with what they stand for, decoded as by [`param`](Self::param).
    #[cfg(feature = "async")]
    pub(crate) fn params(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let places = std::iter::successors(self.place, |place| place.outer);
        let params = places.flat_map(|place| place.params.iter());
        params.map(|(name, value)| (name, query::decode(value, false)))
    }

    /// The path, percent-encoded as it was sent.
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// The part of the path below the prefix at which the handler is [nested](crate::Router::nest), with its leading
    /// slash; the whole path if it is not nested.
    pub fn path_below(&self) -> &'a str {
        let base_len = self.place.map_or(0, |place| place.base_len);
        match self.path().get(base_len..) {
            None | Some("") => "/",
            Some(below) => below,
        }
    }

    /// What follows the `?`, percent-encoded as it was sent.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The first parameter of this name in the query (`?page=2&q=a+b`), decoded by the rules of
    /// application/x-www-form-urlencoded: `+` is a space, `%2B` a plus, what is no UTF-8 becomes U+FFFD. One without
    /// `=` is empty.
    pub fn query_param(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query_params().find_map(|(each, value)| (each == name).then_some(value))
    }

    /// All parameters of the query in their order, names and values decoded as by [`query_param`](Self::query_param).
    pub fn query_params(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        query::parse(self.query().unwrap_or_default())
    }

    /// All headers, in their order.
    pub fn headers(&self) -> Headers<'a> {
        self.head.headers()
    }

    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.header(name)
    }

    /// The first header of this name, if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&'a str> {
        self.head.header_str(name)
    }

    /// The body, whole. That of an upgrade is empty.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The host, with its port if one was sent: the target's if that is a whole URL, else the Host header's.
    pub fn host(&self) -> Option<&'a str> {
        self.head.host()
    }

    /// The Origin header: where the page is from whose script connects (RFC 6455 §10.2). Browsers always send it. A
    /// server for its own pages only refuses other origins, here or by
    /// [`origin_policy`](crate::Config::origin_policy).
    pub fn origin(&self) -> Option<&'a str> {
        self.head.origin()
    }

    /// The subprotocols that the client offers, in its order of preference (RFC 6455 §11.3.4).
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> {
        self.head.subprotocols()
    }

    /// The extensions that the client offers (RFC 6455 §9.1).
    pub fn extensions(&self) -> impl Iterator<Item = Result<Extension<'a>, HandshakeError>> {
        self.head.extensions()
    }
}
