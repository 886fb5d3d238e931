//! A handler made of routes: which closure answers an HTTP request, and which handler has a WebSocket.
//!
//! `router/route.rs` has what there is on a path and the guards before it, `router/sockets.rs` the WebSocket routes,
//! `router/shared.rs` what routes have in common, `router/asset.rs` content that does not change. What is not here:
//! middleware, cookies, forms, files read while the server runs. An HTTP server in front is the place for these.

mod asset;
mod route;
mod shared;
mod sockets;

use std::borrow::Cow;
use std::fmt;

pub use asset::Asset;
use http::{Method, StatusCode};
use ringwire_codec::http::Response;
use route::{ErrorAnswer, Guard, HttpHandler, Route};
pub use shared::Shared;
pub use sockets::{NoSockets, RouteState, SocketOptions, SocketRoutes, Sockets};

use crate::app::ctx::Ctx;
use crate::app::event::Event;
use crate::app::handler::{Answer, Handler};
use crate::app::presence::{Interest, Presence};
use crate::app::query;
use crate::app::request::Request;
use crate::app::responder::{IntoResponse, Responder};
use crate::app::states::States;
use crate::conn::answer::AnyState;
use crate::conn::dialling::DialError;
use crate::hub::posted::Posted;

/// What of a path a nested handler has, as a parameter.
const BELOW: &str = "below";

/// A handler made of routes.
///
/// A path is text with parameters: `/rooms/{room}` matches one segment, `/files/{*path}` the rest; of two that match,
/// the one with more text before its first parameter counts. [`Request::param`] has what a parameter stands for.
///
/// | request | answer |
/// |---|---|
/// | one that a [guard](Self::guard) refuses | the guard's |
/// | a path that no route has | the [fallback](Self::fallback), [404](Self::errors) if there is none |
/// | a method that the path does not have | 405 with Allow |
/// | HEAD | what GET would be, without the body (RFC 9110 §9.3.2) |
/// | OPTIONS | 204 with Allow |
/// | one without an upgrade, where there is a WebSocket only | 426 |
/// | an upgrade where there is no WebSocket | 404 |
///
/// A closure answers with anything that [`IntoResponse`] is for: a [`Response`], or a [`Result`] whose error is the
/// answer as well. Where it has the answer only later, [`route_with`](Self::route_with) gives it the [`Responder`].
///
/// ```
/// use ringwire::{Handler, Response, Router, StatusCode, on_message, router::Asset};
///
/// fn site() -> impl Handler {
///     let mut visits = 0;
///     Router::new()
///         .asset("/", Asset::html("<!doctype html><p>Hello"))
///         .get("/visits", move |_| {
///             visits += 1;
///             Response::json(format!("{{\"visits\":{visits}}}"))
///         })
///         .post("/greet/{name}", |request| {
///             let greeting = str::from_utf8(request.body()).map_err(|_| StatusCode::BAD_REQUEST)?;
///             let name = request.param("name").unwrap_or_default();
///             Ok::<_, StatusCode>(Response::text(format!("{greeting}, {name}!\n")))
///         })
///         .websocket("/echo", on_message(|ctx, message| ctx.send(message)))
///         .guard("/admin", |request| match request.header_str("authorization") {
///             Some("Bearer sesame") => Ok(()),
///             _ => Err(StatusCode::UNAUTHORIZED),
///         })
///         .nest("/admin", admin())
/// }
///
/// fn admin() -> impl Handler {
///     Router::new().get("/users", |_| Response::json("[]"))
/// }
/// # site();
/// ```
///
/// WebSocket routes are dispatched statically: each adds its handler to the type, which is written `impl Handler`,
/// also where it goes into another router. A function that takes a borrow, a [`WorkerContext`](crate::WorkerContext)
/// say, and keeps a clone of what it needs says `impl Handler + use<>`: without that the borrow counts as part of
/// the handler, and [`Server::start`](crate::Server::start) does not take the function. What routes have in common
/// is [`Shared`]. Names and topics are the server's, so that every one of them hears of
/// [presence](Handler::on_presence) and [interest](Handler::on_interest). A connection that this side opens
/// ([`Handle::connect`](crate::Handle::connect)) belongs to the first route with a state of its type.
pub struct Router<S = NoSockets> {
    /// Indices into `routes`.
    paths: matchit::Router<usize>,
    routes: Vec<Route>,
    /// In the order in which they were added.
    guards: Vec<Guard>,
    sockets: S,
    fallback: Option<HttpHandler>,
    errors: ErrorAnswer,
}

impl Router {
    /// A router without routes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            paths: matchit::Router::new(),
            routes: Vec::new(),
            guards: Vec::new(),
            sockets: NoSockets,
            fallback: None,
            errors: Box::new(|_, status| Response::new(status)),
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
    pub fn get<A: IntoResponse>(
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
    pub fn post<A: IntoResponse>(
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
    pub fn put<A: IntoResponse>(
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
    pub fn delete<A: IntoResponse>(
        self,
        path: &str,
        f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        self.route(Method::DELETE, path, f)
    }

    /// Answers a method.
    ///
    /// # Panics
    /// The path is malformed or in conflict with another one, or has this method already.
    #[must_use]
    pub fn route<A: IntoResponse>(
        self,
        method: Method,
        path: &str,
        f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        self.route_with(method, path, route::answering(f))
    }

    /// Answers a method, now or later: the closure is given the [`Responder`] of each request.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn route_with(
        mut self,
        method: Method,
        path: &str,
        f: impl FnMut(&Request<'_>, Responder) + 'static,
    ) -> Self {
        self.route_mut(path).add(method, Box::new(f));
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

    /// Serves WebSockets at this path. The path may have methods as well.
    ///
    /// # Panics
    /// The path is malformed or in conflict with another one, or has a WebSocket already.
    #[must_use]
    pub fn websocket<H: Handler>(self, path: &str, handler: H) -> Router<Sockets<S, H>> {
        self.websocket_with(path, handler, SocketOptions::default())
    }

    /// Serves WebSockets at this path, with settings of its own.
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
        let route = self.route_mut(path);
        assert!(route.socket.is_none(), "{path} has a WebSocket already");
        route.socket = Some(S::COUNT);
        self.with_socket(handler, options)
    }

    /// Leaves everything at and below `prefix` to another handler, most often a router: under the prefix `/v1`, its
    /// `/users` is `/v1/users` here. What it has no route for it answers itself. A prefix may have parameters, which
    /// [`Request::param`] knows below it, too.
    ///
    /// # Panics
    /// The prefix does not begin with a slash, ends with one, or is in conflict with another path.
    #[must_use]
    pub fn nest<H: Handler>(mut self, prefix: &str, handler: H) -> Router<Sockets<S, H>> {
        assert!(prefix.starts_with('/') && !prefix.ends_with('/'), "{prefix} is no prefix");
        for path in [prefix, &format!("{prefix}/"), &format!("{prefix}/{{*{BELOW}}}")] {
            self.insert(path);
        }
        self.routes.push(Route::nested(prefix, S::COUNT));
        self.with_socket(handler, SocketOptions::default())
    }

    /// Asks `check` before anything below `prefix`, or at it, is answered: HTTP requests of all methods, and upgrades,
    /// whether a route has the path or not. Its error is the answer. Where several guards have a path, they are asked
    /// in the order in which they were added, until one refuses; `/` is a guard of everything. In a router that is
    /// [nested](Self::nest) the prefix is a path of that router.
    ///
    /// Prefixes go by whole segments and by the decoded path: `/admin` guards `/admin/users` and `/%61dmin/users`, not
    /// `/administrators`. Paths are not normalised, neither here nor by routes: `//admin` is another one.
    ///
    /// # Panics
    /// The prefix does not begin with a slash, or has parameters.
    #[must_use]
    pub fn guard<E: IntoResponse>(
        mut self,
        prefix: &str,
        check: impl FnMut(&Request<'_>) -> Result<(), E> + 'static,
    ) -> Self {
        self.guards.push(Guard::new(prefix, check));
        self
    }

    /// Makes the router's own refusals: 404 where no route has the path, or no WebSocket is there for an upgrade, and
    /// 405, to which the router adds Allow. 426 is not among them. Default: the status alone.
    ///
    /// ```
    /// use ringwire::Router;
    /// use ringwire::json::Problem;
    ///
    /// let router = Router::new().errors(|_request, status| Problem::new(status, "see the documentation"));
    /// # let _ = router;
    /// ```
    #[must_use]
    pub fn errors<A: IntoResponse>(
        mut self,
        mut f: impl FnMut(&Request<'_>, StatusCode) -> A + 'static,
    ) -> Self {
        self.errors = Box::new(move |request, status| f(request, status).into_response());
        self
    }

    /// Answers ordinary requests for a path that no route has. An upgrade there is answered 404.
    #[must_use]
    pub fn fallback<A: IntoResponse>(mut self, f: impl FnMut(&Request<'_>) -> A + 'static) -> Self {
        self.fallback = Some(route::answering(f));
        self
    }

    /// Has the methods of these paths answered also while others are refused for want of memory.
    pub(crate) fn answered_always(mut self, paths: &[&str]) -> Self {
        for path in paths {
            self.route_mut(path).is_monitoring = true;
        }
        self
    }

    fn with_socket<H: Handler>(self, handler: H, options: SocketOptions) -> Router<Sockets<S, H>> {
        let Self { paths, routes, guards, sockets, fallback, errors } = self;
        let sockets = Sockets::new(sockets, handler, options);
        Router { paths, routes, guards, sockets, fallback, errors }
    }

    /// Makes a path that of the next route.
    fn insert(&mut self, path: &str) {
        if let Err(error) = self.paths.insert(path, self.routes.len()) {
            panic!("{path}: {error}");
        }
    }

    /// The route of a path, made where there is none.
    fn route_mut(&mut self, path: &str) -> &mut Route {
        let index = self.routes.iter().position(|route| route.path == path).unwrap_or_else(|| {
            self.insert(path);
            self.routes.push(Route::new(path));
            self.routes.len() - 1
        });
        &mut self.routes[index]
    }

    /// The answer of the first guard that refuses the request.
    fn refusal(&mut self, request: &Request<'_>) -> Option<Response> {
        if self.guards.is_empty() {
            return None;
        }
        let path = query::decode(request.path_below(), false);
        self.guards.iter_mut().find_map(|guard| guard.refusal(&path, request))
    }

    /// What `with` makes of the request at its route. `None`: there is no route.
    fn at_route<T>(
        &mut self,
        request: &Request<'_>,
        with: impl FnOnce(&mut S, &mut Route, &Request<'_>, &mut ErrorAnswer) -> T,
    ) -> Option<T> {
        let found = self.paths.at(request.path_below()).ok()?;
        let route = self.routes.get_mut(*found.value)?;
        let place = request.place(found.params, route.is_nested.then_some(BELOW));
        Some(with(&mut self.sockets, route, &request.at(&place), &mut self.errors))
    }
}

impl<S: SocketRoutes> Handler for Router<S> {
    type State = S::State;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<S::State> {
        if let Some(refusal) = self.refusal(request) {
            return refusal.into();
        }
        let answer = self.at_route(request, |sockets, route, request, _| {
            Some(sockets.on_request(route.socket?, request))
        });
        let answer = answer.flatten();
        answer.unwrap_or_else(|| (self.errors)(request, StatusCode::NOT_FOUND).into())
    }

    fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
        if let Some(refusal) = self.refusal(request) {
            return responder.send(refusal);
        }
        let mut responder = Some(responder);
        self.at_route(request, |sockets, route, request, errors| {
            let Some(responder) = responder.take() else { return };
            match route.socket.filter(|_| route.is_nested) {
                Some(socket) => sockets.on_http(socket, request, responder),
                None => route.on_http(request, responder, errors),
            }
        });
        match (responder, &mut self.fallback) {
            (Some(responder), Some(fallback)) => fallback(request, responder),
            (Some(responder), None) => {
                responder.send((self.errors)(request, StatusCode::NOT_FOUND));
            }
            (None, _) => {}
        }
    }

    fn is_monitoring(&mut self, request: &Request<'_>) -> bool {
        let asked = self.at_route(request, |sockets, route, request, _| {
            match route.socket.filter(|_| route.is_nested) {
                Some(socket) => sockets.is_monitoring(socket, request),
                None => route.is_monitoring,
            }
        });
        asked.unwrap_or(false)
    }

    fn state_from(&mut self, given: AnyState, request: &Request<'_>) -> Result<S::State, AnyState> {
        let mut given = Some(given);
        let state = self.at_route(request, |sockets, route, request, _| {
            Some(sockets.state_from(route.socket?, given.take()?, request))
        });
        state.flatten().unwrap_or_else(|| Err(given.unwrap_or_else(|| Box::new(()))))
    }

    fn handle(&mut self, ctx: &mut Ctx<'_, S::State>, event: Event<'_>) {
        self.sockets.handle(ctx, event);
    }

    fn on_presence(&mut self, presence: &Presence<'_>) {
        self.sockets.on_presence(presence);
    }

    fn wants_interest(&self) -> bool {
        self.sockets.wants_interest()
    }

    fn on_interest(&mut self, interest: &Interest<'_>) {
        self.sockets.on_interest(interest);
    }

    fn on_event(&mut self, event: Posted) -> Result<(), Posted> {
        self.sockets.on_event(event)
    }

    fn on_dial_failed(&mut self, state: S::State, error: &DialError) {
        self.sockets.on_dial_failed(state, error);
    }

    fn states() -> States<S::State> {
        States::own().and(S::states(), |state| state)
    }

    fn route_of(&self, state: &S::State) -> Option<Cow<'_, str>> {
        let (index, inner) = self.sockets.route_of(state);
        let route = self.routes.iter().find(|route| route.socket == Some(index))?;
        Some(match inner.filter(|_| route.is_nested) {
            Some(inner) => Cow::Owned(format!("{}{inner}", route.path)),
            None => Cow::Borrowed(&route.path),
        })
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

    #[test]
    #[should_panic(expected = "/v1")]
    fn a_path_where_a_router_is_nested() {
        let _ = Router::new().nest("/v1", Router::new()).get("/v1", ok);
    }

    #[test]
    #[should_panic(expected = "/v1/ is no prefix")]
    fn a_prefix_that_ends_with_a_slash() {
        let _ = Router::new().nest("/v1/", Router::new());
    }

    #[test]
    #[should_panic(expected = "admin is no prefix")]
    fn a_guard_of_no_path() {
        let _ = Router::new().guard("admin", |_| Ok::<_, StatusCode>(()));
    }
}
