//! Requests for tests of one function.

use std::net::{Ipv4Addr, SocketAddr};

use ringwire_codec::handshake::{HeadLimits, server};

use super::get::Get;
use crate::app::request::Request;
use crate::conn::id::ConnId;

/// Builds a request, from [`Request::builder`].
#[derive(Clone, Debug)]
pub struct RequestBuilder {
    get: Get,
    peer: SocketAddr,
}

/// A request that a test has made.
#[derive(Clone, Debug)]
pub struct BuiltRequest {
    head: Vec<u8>,
    body: Vec<u8>,
    peer: SocketAddr,
}

impl Request<'_> {
    /// A request for a test of a function that looks at one. A `GET` without a body asks for a WebSocket.
    ///
    /// ```
    /// use ringwire::Request;
    ///
    /// fn user_of(request: &Request<'_>) -> Option<String> {
    ///     request.query_param("token").map(|token| token.into_owned())
    /// }
    ///
    /// let request = Request::builder("/ws?token=ann").header("origin", "https://example.com").build();
    /// assert_eq!(request.with(user_of).as_deref(), Some("ann"));
    /// ```
    ///
    /// # Panics
    /// As [`Get::new`].
    #[must_use]
    pub fn builder(target: &str) -> RequestBuilder {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1024));
        RequestBuilder { get: Get::new(target), peer }
    }
}

impl RequestBuilder {
    /// Adds a header.
    ///
    /// # Panics
    /// As [`Get::with_header`].
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        Self { get: self.get.with_header(name, value), ..self }
    }

    /// Another method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        Self { get: self.get.with_method(method), ..self }
    }

    /// A body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.get.body = body.into();
        self
    }

    /// Where it comes from. Default: `127.0.0.1:1024`.
    #[must_use]
    pub fn peer_addr(mut self, peer: SocketAddr) -> Self {
        self.peer = peer;
        self
    }

    /// The request.
    #[must_use]
    pub fn build(self) -> BuiltRequest {
        let Self { get, peer } = self;
        let is_upgrade = get.method == "GET" && get.body.is_empty();
        let mut head = get.encode(is_upgrade.then_some("dGhlIHNhbXBsZSBub25jZQ=="));
        head.truncate(head.len() - get.body.len());
        BuiltRequest { head, body: get.body, peer }
    }
}

impl BuiltRequest {
    /// Calls `work` with it.
    ///
    /// # Panics
    /// A server would not take it: two Host headers, say, or a method that is no token.
    pub fn with<T>(&self, work: impl FnOnce(&Request<'_>) -> T) -> T {
        let head = match server::Request::parse(&self.head, &HeadLimits::default()) {
            Ok(head) => head,
            Err(error) => panic!("no server takes this request: {error}"),
        };
        let id = ConnId { server: 0, worker: 0, slot: 0, generation: 0 };
        work(&Request::new(&head, id, self.peer, None).with_body(&self.body))
    }
}
