//! What there is on a path, and who guards it.

use http::{HeaderValue, Method, StatusCode, header};
use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::http::Response;

use crate::app::request::Request;
use crate::app::responder::{IntoResponse, Responder};

pub(super) type HttpHandler = Box<dyn FnMut(&Request<'_>, Responder)>;

/// What the router's own refusals are like.
pub(super) type ErrorAnswer = Box<dyn FnMut(&Request<'_>, StatusCode) -> Response>;

/// A handler that answers at once.
pub(super) fn answering<A: IntoResponse>(
    mut f: impl FnMut(&Request<'_>) -> A + 'static,
) -> HttpHandler {
    Box::new(move |request, responder| responder.send(f(request)))
}

/// What there is on a path.
pub(super) struct Route {
    /// As it was written. Of a nested handler the prefix.
    pub(super) path: String,
    methods: Vec<(Method, HttpHandler)>,
    /// The index of its WebSocket, or of the handler that is nested here.
    pub(super) socket: Option<usize>,
    /// A handler has all that is below.
    pub(super) is_nested: bool,
    /// Ordinary requests are answered whatever memory there is.
    pub(super) is_monitoring: bool,
}

impl Route {
    pub(super) fn new(path: &str) -> Self {
        let path = path.to_owned();
        Self { path, methods: Vec::new(), socket: None, is_nested: false, is_monitoring: false }
    }

    pub(super) fn nested(prefix: &str, socket: usize) -> Self {
        Self { socket: Some(socket), is_nested: true, ..Self::new(prefix) }
    }

    pub(super) fn add(&mut self, method: Method, handler: HttpHandler) {
        let Self { path, methods, .. } = self;
        assert!(!self.is_nested, "{path} is a nested handler's");
        assert!(methods.iter().all(|(each, _)| *each != method), "{path} has {method} already");
        methods.push((method, handler));
    }

    pub(super) fn on_http(
        &mut self,
        request: &Request<'_>,
        responder: Responder,
        errors: &mut ErrorAnswer,
    ) {
        let method = request.method();
        let find = |name: &str| self.methods.iter().position(|(each, _)| each.as_str() == name);
        let found = find(method).or_else(|| find("GET").filter(|_| method == "HEAD"));
        if let Some((_, handler)) = found.and_then(|index| self.methods.get_mut(index)) {
            return handler(request, responder);
        }
        let response = if method == "OPTIONS" {
            Response::new(StatusCode::NO_CONTENT)
        } else if self.methods.is_empty() {
            return responder.send(Response::from(HandshakeError::Upgrade));
        } else {
            errors(request, StatusCode::METHOD_NOT_ALLOWED)
        };
        responder.send(response.with_header(header::ALLOW, self.allow()));
    }

    pub(super) fn allow(&self) -> HeaderValue {
        let is_get = |method: &Method| *method == Method::GET;
        let with_head = self.methods.iter().flat_map(|(method, _)| {
            [Some(method.as_str()), is_get(method).then_some("HEAD")].into_iter().flatten()
        });
        let upgrade = self.socket.filter(|_| !self.methods.iter().any(|(each, _)| is_get(each)));
        let mut allowed: Vec<&str> = with_head.chain(upgrade.map(|_| "GET")).collect();
        allowed.push("OPTIONS");
        allowed.dedup();
        HeaderValue::from_str(&allowed.join(", ")).expect("methods are tokens (RFC 9110 §9.1)")
    }
}

type Check = Box<dyn FnMut(&Request<'_>) -> Result<(), Response>>;

/// Who is asked before anything below a path is answered.
pub(super) struct Guard {
    /// Without the slash at its end.
    prefix: String,
    check: Check,
}

impl Guard {
    /// # Panics
    /// As [`Router::guard`](super::Router::guard).
    pub(super) fn new<E: IntoResponse>(
        prefix: &str,
        mut check: impl FnMut(&Request<'_>) -> Result<(), E> + 'static,
    ) -> Self {
        assert!(prefix.starts_with('/') && !prefix.contains(['{', '}']), "{prefix} is no prefix");
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
            check: Box::new(move |request| check(request).map_err(IntoResponse::into_response)),
        }
    }

    /// Its answer to a request for this decoded path, if it refuses that.
    pub(super) fn refusal(&mut self, path: &str, request: &Request<'_>) -> Option<Response> {
        let below = path.strip_prefix(&*self.prefix)?;
        let is_guarded = below.is_empty() || below.starts_with('/');
        if is_guarded { (self.check)(request).err() } else { None }
    }
}
