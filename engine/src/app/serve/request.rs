//! A request that outlives the call in which it came.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::app::request::Request;
use crate::conn::id::ConnId;

/// A request that owns what it holds, for async functions.
#[derive(Clone, Debug)]
pub struct OwnedRequest {
    id: ConnId,
    peer: SocketAddr,
    method: Method,
    target: String,
    headers: HeaderMap,
    params: Vec<(String, String)>,
    body: Vec<u8>,
}

impl OwnedRequest {
    /// Headers that `http` has no place for are left out: their names and values were checked when they came.
    pub(crate) fn new(request: &Request<'_>) -> Self {
        let headers = request.headers().filter_map(|(name, value)| {
            Some((
                HeaderName::from_bytes(name.as_bytes()).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            ))
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        Self {
            id: request.id(),
            peer: request.peer_addr(),
            method: request.method().parse().unwrap_or_default(),
            target: request.target().to_owned(),
            headers: map,
            params: request.params().map(|(name, value)| (name.into(), value.into())).collect(),
            body: request.body().to_owned(),
        }
    }

    /// The connection that it came on.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The other side's address; the unspecified one (`[::]:0`) on a Unix socket.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The method, `GET` for a WebSocket.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The target as it was sent, path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path, percent-encoded as it was sent.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// What follows the `?`, percent-encoded as it was sent.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// What a parameter of the [`Router`](crate::Router)'s path stands for, percent-decoded: see [`Request::param`].
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first header of this name, if it is text.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, whole. That of an upgrade is empty.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The subprotocols that the client offers, in its order of preference (RFC 6455 §11.3.4).
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        let lists = self.headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL).into_iter();
        lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',').map(str::trim))
    }
}
