//! A request that outlives the call in which it came.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::app::request::Request;
use crate::app::{forwarded, query};
use crate::conn::id::ConnId;

/// A request that owns what it holds, for async functions.
///
/// It is kept as text, since a connection may keep it for long: about as many bytes as the request had.
#[derive(Clone, Debug)]
pub struct OwnedRequest {
    id: ConnId,
    peer: SocketAddr,
    method: Method,
    target: Box<str>,
    absolute: Option<Box<Absolute>>,
    /// Each header is a line, `name:value`: names have no colon, and values no line feed (RFC 9110 §5.5).
    lines: Box<[u8]>,
    /// The same, once somebody has asked for it.
    headers: OnceCell<Box<HeaderMap>>,
    params: Box<[(Box<str>, Box<str>)]>,
    body: Box<[u8]>,
}

/// A target in absolute form, taken apart (RFC 9112 §3.2.2). Its host counts instead of the Host header.
#[derive(Clone, Debug)]
struct Absolute {
    host: Option<Box<str>>,
    path: Box<str>,
    query: Option<Box<str>>,
}

impl Absolute {
    fn of(request: &Request<'_>) -> Option<Box<Self>> {
        let is_absolute = !request.target().starts_with(request.path());
        is_absolute.then(|| {
            let (host, query) = (request.host().map(Into::into), request.query().map(Into::into));
            Box::new(Self { host, path: request.path().into(), query })
        })
    }
}

impl OwnedRequest {
    pub(crate) fn new(request: &Request<'_>) -> Self {
        let mut lines = Vec::new();
        for (name, value) in request.headers() {
            for part in [name.as_bytes(), b":", value, b"\n"] {
                lines.extend_from_slice(part);
            }
        }
        Self {
            id: request.id(),
            peer: request.peer_addr(),
            method: request.method().parse().unwrap_or_default(),
            target: request.target().into(),
            absolute: Absolute::of(request),
            lines: lines.into(),
            headers: OnceCell::new(),
            params: request.params().map(|(name, value)| (name.into(), value.into())).collect(),
            body: request.body().into(),
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

    /// As [`Request::forwarded_for`].
    pub fn forwarded_for(&self, trusted_hops: usize) -> Option<IpAddr> {
        forwarded::x_forwarded_for(self.lines(), trusted_hops)
    }

    /// As [`Request::forwarded`].
    pub fn forwarded(&self, trusted_hops: usize) -> Option<IpAddr> {
        forwarded::forwarded(self.lines(), trusted_hops)
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
        match &self.absolute {
            Some(absolute) => &absolute.path,
            None => self.target.split_once('?').map_or(&self.target, |(path, _)| path),
        }
    }

    /// What follows the `?`, percent-encoded as it was sent.
    pub fn query(&self) -> Option<&str> {
        match &self.absolute {
            Some(absolute) => absolute.query.as_deref(),
            None => self.target.split_once('?').map(|(_, query)| query),
        }
    }

    /// The first parameter of this name in the query, decoded as by [`Request::query_param`].
    pub fn query_param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_params().find_map(|(each, value)| (each == name).then_some(value))
    }

    /// All parameters of the query in their order, names and values decoded.
    pub fn query_params(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        query::parse(self.query().unwrap_or_default())
    }

    /// What a parameter of the [`Router`](crate::Router)'s path stands for, percent-decoded: see [`Request::param`].
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(each, _)| **each == *name).map(|(_, value)| &**value)
    }

    fn lines(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.split(|byte| *byte == b'\n').filter_map(|line| {
            let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
            Some((str::from_utf8(name).ok()?, value.split_first()?.1))
        })
    }

    /// All headers. The map is made at the first call, and takes a few times as much memory as they do; a
    /// [single one](Self::header) is found without it.
    pub fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| {
            // Names and values were checked when they came.
            let checked = self.lines().filter_map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                Some((name, HeaderValue::from_bytes(value).ok()?))
            });
            let mut map = HeaderMap::new();
            for (name, value) in checked {
                map.append(name, value);
            }
            Box::new(map)
        })
    }

    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.lines().find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The first header of this name, if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.header(name)?).ok()
    }

    /// The Host header.
    pub fn host(&self) -> Option<&str> {
        match &self.absolute {
            Some(absolute) => absolute.host.as_deref(),
            None => self.header_str("host"),
        }
    }

    /// The Origin header: see [`Request::origin`].
    pub fn origin(&self) -> Option<&str> {
        self.header_str("origin")
    }

    /// The body, whole. That of an upgrade is empty.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The subprotocols that the client offers, in its order of preference (RFC 6455 §11.3.4).
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        let is_offer = |name: &str| name.eq_ignore_ascii_case("sec-websocket-protocol");
        let lists = self.lines().filter(move |(name, _)| is_offer(name));
        lists
            .filter_map(|(_, list)| str::from_utf8(list).ok())
            .flat_map(|list| list.split(',').map(str::trim))
            // RFC 9110 §5.6.1.2: a recipient passes over empty elements.
            .filter(|name| !name.is_empty())
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use ringwire_codec::handshake::{HeadLimits, server};

    use super::*;

    #[test]
    fn an_owned_request_says_what_the_borrowed_one_does() {
        let built = Request::builder("/a?b=c%20d&e")
            .header("X-Colon", "a:b: c")
            .header("x-empty", "")
            .header("accept", "one")
            .header("Accept", "two")
            .header("origin", "https://example.com")
            .header("x-forwarded-for", "192.0.2.7, 198.51.100.1")
            .header("sec-websocket-protocol", "chat, superchat")
            .header("sec-websocket-protocol", ",last ,")
            .build();
        built.with(|request| {
            let owned = OwnedRequest::new(request);
            assert_eq!((owned.method().as_str(), owned.target()), ("GET", request.target()));
            assert_eq!((owned.path(), owned.query()), (request.path(), request.query()));
            assert!(owned.query_params().eq(request.query_params()));
            assert_eq!(owned.query_param("b").as_deref(), Some("c d"));
            assert!(owned.lines().eq(request.headers()));
            for name in ["x-colon", "X-EMPTY", "Accept", "host", "none"] {
                assert_eq!(owned.header(name), request.header(name), "{name}");
                assert_eq!(owned.header_str(name), request.header_str(name), "{name}");
                let all = owned.headers().get_all(name).iter().map(HeaderValue::as_bytes);
                let due = request.headers().filter(|(each, _)| each.eq_ignore_ascii_case(name));
                assert!(all.eq(due.map(|(_, value)| value)), "{name}");
            }
            assert_eq!((owned.host(), owned.origin()), (request.host(), request.origin()));
            assert!(owned.subprotocols().eq(request.subprotocols()));
            assert_eq!(owned.forwarded_for(1), request.forwarded_for(1));
            assert!(owned.forwarded_for(1).is_some());
        });
    }

    /// RFC 9112 §3.2.2: a server accepts the absolute form, and takes the host from it.
    #[test]
    fn an_absolute_target_is_taken_apart() {
        for (target, path, query) in [
            ("http://other.example:81/a/b?c=d", "/a/b", Some("c=d")),
            ("http://other.example:81/", "/", None),
            ("http://other.example:81", "/", None),
            ("http://other.example:81?c=d", "/", Some("c=d")),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n");
            let head = server::Request::parse(head.as_bytes(), &HeadLimits::default()).unwrap();
            let id = ConnId { server: 0, worker: 0, slot: 0, generation: 0 };
            let request = Request::new(&head, id, ([127, 0, 0, 1], 1024).into(), None);
            let owned = OwnedRequest::new(&request);
            assert_eq!((request.path(), request.query()), (path, query), "{target}");
            assert_eq!((owned.path(), owned.query()), (path, query), "{target}");
            assert_eq!((owned.target(), owned.host()), (target, Some("other.example:81")));
            assert_eq!(request.host(), owned.host());
            assert_eq!(owned.query_param("c").is_some(), query.is_some(), "{target}");
        }
    }
}
