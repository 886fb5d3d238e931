//! A handler made of routes: which closure answers an HTTP request, and which handler has a WebSocket.
//!
//! `router/sockets.rs` has the WebSocket routes, `router/asset.rs` content that does not change. What is not here:
//! middleware, cookies, forms, files read while the server runs. An HTTP server in front is the place for these.

mod asset;
mod sockets;

use std::any::Any;
use std::fmt;

pub use asset::Asset;
use http::{HeaderValue, Method, StatusCode, header};
use ringwire_codec::handshake::{HandshakeError, client};
use ringwire_codec::http::Response;
use ringwire_codec::{Message, MessagePart};
use sockets::Call;
pub use sockets::{NoSockets, RouteState, SocketOptions, SocketRoutes, Sockets};

use crate::app::ctx::Ctx;
use crate::app::handler::{Answer, Handler, HttpAnswer};
use crate::app::request::Request;
use crate::conn::answer::AnyState;
use crate::conn::cause::CloseCause;

/// A handler made of routes.
///
/// A path is text with parameters: `/rooms/{room}` matches one segment, `/files/{*path}` the rest; of two that match,
/// the one with more text before its first parameter counts. [`Request::param`] has what a parameter stands for.
///
/// | request | answer |
/// |---|---|
/// | a path that no route has | the [fallback](Self::fallback), 404 if there is none |
/// | a method that the path does not have | 405 with Allow |
/// | HEAD | what GET would be, without the body (RFC 9110 §9.3.2) |
/// | OPTIONS | 204 with Allow |
/// | one without an upgrade, where there is a WebSocket only | 426 |
/// | an upgrade where there is no WebSocket | 404 |
///
/// ```
/// use ringwire::{Asset, Response, Router, on_message};
///
/// let mut visits = 0;
/// let router = Router::new()
///     .asset("/", Asset::html("<!doctype html><p>Hello"))
///     .get("/visits", move |_| {
///         visits += 1;
///         Response::json(format!("{{\"visits\":{visits}}}"))
///     })
///     .post("/greet/{name}", |request| {
///         let greeting = String::from_utf8_lossy(request.body());
///         Response::text(format!("{greeting}, {}!\n", request.param("name").unwrap_or_default()))
///     })
///     .websocket("/echo", on_message(|ctx, message| ctx.send(message)));
/// # fn is_handler(_: impl ringwire::Handler) {}
/// # is_handler(router);
/// ```
///
/// WebSocket routes are dispatched statically: each adds its handler to the type. Names and topics are the server's, so
/// that every one of them hears of [presence](Handler::on_presence). Connections that this side opens
/// ([`Handle::connect`](crate::Handle::connect)) belong to no route; who wants both writes a [`Handler`] around this.
pub struct Router<S = NoSockets> {
    /// Indices into `routes`.
    paths: matchit::Router<usize>,
    routes: Vec<Route>,
    sockets: S,
    fallback: HttpHandler,
}

type HttpHandler = Box<dyn FnMut(&Request<'_>) -> HttpAnswer>;

/// What there is on a path.
struct Route {
    path: String,
    methods: Vec<(Method, HttpHandler)>,
    /// The index of its WebSocket.
    socket: Option<usize>,
    /// Ordinary requests are answered whatever memory there is.
    is_monitoring: bool,
}

impl Router {
    /// A router without routes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            paths: matchit::Router::new(),
            routes: Vec::new(),
            sockets: NoSockets,
            fallback: Box::new(|_| Response::new(StatusCode::NOT_FOUND).into()),
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: SocketRoutes> Router<S> {
    /// Answers GET, and HEAD.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn get<A: Into<HttpAnswer>>(
        self,
        path: &str,
        f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        self.route(Method::GET, path, f)
    }

    /// Answers POST.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn post<A: Into<HttpAnswer>>(
        self,
        path: &str,
        f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        self.route(Method::POST, path, f)
    }

    /// Answers PUT.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn put<A: Into<HttpAnswer>>(
        self,
        path: &str,
        f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        self.route(Method::PUT, path, f)
    }

    /// Answers DELETE.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn delete<A: Into<HttpAnswer>>(
        self,
        path: &str,
        f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        self.route(Method::DELETE, path, f)
    }

    /// Answers a method, also with [`HttpAnswer::Defer`].
    ///
    /// # Panics
    /// The path is malformed or in conflict with another one, or has this method already.
    #[must_use]
    pub fn route<A: Into<HttpAnswer>>(
        mut self,
        method: Method,
        path: &str,
        mut f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        let methods = &mut self.route_mut(path).methods;
        assert!(methods.iter().all(|(each, _)| *each != method), "{path} has {method} already");
        methods.push((method, Box::new(move |request| f(request).into())));
        self
    }

    /// Answers GET and HEAD with content that does not change.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn asset(self, path: &str, asset: Asset) -> Self {
        self.get(path, move |request| asset.respond(request))
    }

    /// Has a WebSocket at this path, which may have methods as well.
    ///
    /// # Panics
    /// The path is malformed or in conflict with another one, or has a WebSocket already.
    #[must_use]
    pub fn websocket<H: Handler>(self, path: &str, handler: H) -> Router<Sockets<S, H>> {
        self.websocket_with(path, handler, SocketOptions::default())
    }

    /// Has a WebSocket at this path, with settings of its own.
    ///
    /// # Panics
    /// The path is malformed or in conflict with another one, or has a WebSocket already.
    #[must_use]
    pub fn websocket_with<H: Handler>(
        mut self,
        path: &str,
        handler: H,
        options: SocketOptions,
    ) -> Router<Sockets<S, H>> {
        let socket = &mut self.route_mut(path).socket;
        assert!(socket.is_none(), "{path} has a WebSocket already");
        *socket = Some(S::COUNT);
        let Self { paths, routes, sockets, fallback } = self;
        Router { paths, routes, sockets: Sockets::new(sockets, handler, options), fallback }
    }

    /// Answers requests for a path that no route has.
    #[must_use]
    pub fn fallback<A: Into<HttpAnswer>>(
        mut self,
        mut f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        self.fallback = Box::new(move |request| f(request).into());
        self
    }

    /// Has the methods of these paths answered also while others are refused for want of memory.
    pub(crate) fn answered_always(mut self, paths: &[&str]) -> Self {
        for path in paths {
            self.route_mut(path).is_monitoring = true;
        }
        self
    }

    /// The route of a path, made where there is none.
    fn route_mut(&mut self, path: &str) -> &mut Route {
        let index = self.routes.iter().position(|route| route.path == path).unwrap_or_else(|| {
            if let Err(error) = self.paths.insert(path, self.routes.len()) {
                panic!("{path}: {error}");
            }
            self.routes.push(Route {
                path: path.to_owned(),
                methods: Vec::new(),
                socket: None,
                is_monitoring: false,
            });
            self.routes.len() - 1
        });
        &mut self.routes[index]
    }
}

impl Route {
    fn on_http(&mut self, request: &Request<'_>) -> HttpAnswer {
        let method = request.method();
        let find = |name: &str| self.methods.iter().position(|(each, _)| each.as_str() == name);
        let found = find(method).or_else(|| find("GET").filter(|_| method == "HEAD"));
        if let Some((_, handler)) = found.and_then(|index| self.methods.get_mut(index)) {
            return handler(request);
        }
        let response = if method == "OPTIONS" {
            Response::new(StatusCode::NO_CONTENT)
        } else if self.methods.is_empty() {
            return Response::from(HandshakeError::Upgrade).into();
        } else {
            Response::new(StatusCode::METHOD_NOT_ALLOWED)
        };
        response.with_header(header::ALLOW, self.allow()).into()
    }

    fn allow(&self) -> HeaderValue {
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

impl<S: SocketRoutes> Handler for Router<S> {
    type State = S::State;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<S::State> {
        let not_here = || Response::new(StatusCode::NOT_FOUND).into();
        let Ok(found) = self.paths.at(request.path()) else { return not_here() };
        let Some(socket) = self.routes[*found.value].socket else { return not_here() };
        self.sockets.on_request(socket, &request.with_params(&found.params))
    }

    fn state_from(&mut self, given: AnyState, request: &Request<'_>) -> Result<S::State, AnyState> {
        let Ok(found) = self.paths.at(request.path()) else { return Err(given) };
        let Some(socket) = self.routes[*found.value].socket else { return Err(given) };
        self.sockets.state_from(socket, given, &request.with_params(&found.params))
    }

    fn on_http(&mut self, request: &Request<'_>) -> HttpAnswer {
        match self.paths.at(request.path()) {
            Ok(found) => self.routes[*found.value].on_http(&request.with_params(&found.params)),
            Err(_) => (self.fallback)(request),
        }
    }

    fn is_monitoring(&mut self, request: &Request<'_>) -> bool {
        let found = self.paths.at(request.path());
        found.is_ok_and(|found| self.routes[*found.value].is_monitoring)
    }

    fn on_answer(&mut self, ctx: &mut Ctx<'_, S::State>, answer: &client::Response<'_>) {
        self.sockets.call(ctx, Call::Answer(answer));
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, S::State>) {
        self.sockets.call(ctx, Call::Open);
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, S::State>, message: Message<'_>) {
        self.sockets.call(ctx, Call::Message(message));
    }

    fn on_message_part(&mut self, ctx: &mut Ctx<'_, S::State>, part: MessagePart<'_>) {
        self.sockets.call(ctx, Call::Part(part));
    }

    fn on_drain(&mut self, ctx: &mut Ctx<'_, S::State>) {
        self.sockets.call(ctx, Call::Drain);
    }

    fn on_missed(&mut self, ctx: &mut Ctx<'_, S::State>, count: u32) {
        self.sockets.call(ctx, Call::Missed(count));
    }

    fn on_presence(&mut self, name: &str, is_present: bool) {
        self.sockets.on_presence(name, is_present);
    }

    fn finish_job(&mut self, ctx: &mut Ctx<'_, S::State>, then: Box<dyn Any + Send>) {
        self.sockets.call(ctx, Call::FinishJob(then));
    }

    fn on_ping(&mut self, ctx: &mut Ctx<'_, S::State>, payload: &[u8]) {
        self.sockets.call(ctx, Call::Ping(payload));
    }

    fn on_pong(&mut self, ctx: &mut Ctx<'_, S::State>, payload: &[u8]) {
        self.sockets.call(ctx, Call::Pong(payload));
    }

    fn route_of(&self, state: &S::State) -> Option<&str> {
        let index = S::index_of(state);
        let route = self.routes.iter().find(|route| route.socket == Some(index))?;
        Some(&route.path)
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, S::State>, cause: &CloseCause) {
        self.sockets.call(ctx, Call::Close(cause));
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<&str> = self.routes.iter().map(|route| route.path.as_str()).collect();
        f.debug_struct("Router").field("paths", &paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::handler::on_message;

    fn ok(_: &Request<'_>) -> Response {
        Response::new(StatusCode::OK)
    }

    #[test]
    fn allow_names_what_there_is() {
        let echo = || on_message(|_, _| {});
        let router = Router::new()
            .get("/a", ok)
            .post("/a", ok)
            .put("/b", ok)
            .websocket("/b", echo())
            .websocket("/c", echo());
        let allow = |path: &str| {
            let found = router.paths.at(path).unwrap();
            router.routes[*found.value].allow()
        };
        assert_eq!(allow("/a"), "GET, HEAD, POST, OPTIONS");
        assert_eq!(allow("/b"), "PUT, GET, OPTIONS");
        assert_eq!(allow("/c"), "GET, OPTIONS");
    }

    #[test]
    #[should_panic(expected = "/a has GET already")]
    fn a_method_twice() {
        let _ = Router::new().get("/a", ok).get("/a", ok);
    }

    #[test]
    #[should_panic(expected = "/{b}")]
    fn paths_in_conflict() {
        let _ = Router::new().get("/{a}", ok).get("/{b}", ok);
    }
}
