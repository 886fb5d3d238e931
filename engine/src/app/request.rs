//! A request, as the handler sees it.

use std::net::{IpAddr, SocketAddr};

use ringwire_codec::handshake::{Extension, HandshakeError, Headers, server};
use ringwire_tls::Facts;

use crate::app::forwarded;
use crate::conn::id::ConnId;

/// A request that came to the server, borrowed from the bytes that were received.
#[derive(Debug)]
pub struct Request<'a> {
    head: &'a server::Request<'a>,
    id: ConnId,
    peer: SocketAddr,
    tls: Option<Facts<'a>>,
    body: &'a [u8],
    params: Option<&'a matchit::Params<'a, 'a>>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        head: &'a server::Request<'a>,
        id: ConnId,
        peer: SocketAddr,
        tls: Option<Facts<'a>>,
    ) -> Self {
        Self { head, id, peer, tls, body: &[], params: None }
    }

    pub(crate) fn with_body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// The same request on a route.
    pub(crate) fn with_params<'s>(&'s self, params: &'s matchit::Params<'s, 's>) -> Request<'s> {
        Request { params: Some(params), ..*self }
    }

    /// The connection that it came on, to answer it later with.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The other side's address; the unspecified one (`[::]:0`) on a Unix socket.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Who is behind so many trusted proxies, by `X-Forwarded-For`: each proxy adds at its end whom it was connected to
    /// by, so this is the entry with that number from the end; what stands before it anybody may have written. `None`
    /// if there are fewer, if it is no address, and for 0 hops (then [`peer_addr`](Self::peer_addr) knows).
    ///
    /// Only for servers that can't be reached but through these proxies.
    pub fn forwarded_for(&self, trusted_hops: usize) -> Option<IpAddr> {
        forwarded::x_forwarded_for(self.headers(), trusted_hops)
    }

    /// The same by `Forwarded` (RFC 7239), for proxies that set that one. They are two methods, since a proxy that sets
    /// one of the headers passes on whatever a client writes into the other.
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

    /// The target as it was sent, path and query.
    pub fn target(&self) -> &'a str {
        self.head.target()
    }

    /// What a parameter of the [`Router`](crate::Router)'s path stands for, percent-encoded as it was sent.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params?.get(name)
    }

    /// All parameters of the path, with what they stand for.
    #[cfg(feature = "async")]
    pub(crate) fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.into_iter().flat_map(matchit::Params::iter)
    }

    /// The path, percent-encoded as it was sent.
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// What follows the `?`, percent-encoded as it was sent.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
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

    /// The Host header.
    pub fn host(&self) -> Option<&'a str> {
        self.head.host()
    }

    /// The Origin header: where the page is from whose script connects (RFC 6455 §10.2). Browsers always send it; a
    /// server that serves its own pages only should refuse other origins here.
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
