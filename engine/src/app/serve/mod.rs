//! Handlers that are async functions: one future for each connection, in the connection's box, polled by its worker.
//!
//! A message, room for output, the end of the connection and a wake from anywhere have the future polled. A wake from
//! the worker's own thread takes neither a lock nor a system call.

mod core;
mod request;
mod socket;
mod waiters;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Method;
use ringwire_codec::http::Response;
use ringwire_codec::{CloseCode, Message};

use self::core::{Core, Deed};
pub use self::request::OwnedRequest;
pub use self::socket::{Socket, SocketError, SocketReceiver, SocketSender, TrySocketError};
use crate::app::ctx::Ctx;
use crate::app::event::Event;
use crate::app::handler::{Answer, Handler};
use crate::app::request::Request;
use crate::app::responder::{IntoResponse, Responder};
use crate::app::router::{Router, SocketRoutes, Sockets};
use crate::base::panics::quietly;
use crate::conn::answer::{Accept, AnyState, Verdict};
use crate::conn::cause::CloseCause;
use crate::conn::jobs::{Continuation, OwnWork};
use crate::hub::wakes;

type Serving = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// How often a future is polled in a row for what it asks of the engine and gets at once. Then others have their turn.
const ROUNDS: usize = 16;

/// What an async function may return: nothing, or a result. An error is logged, and closes the connection with 1011. If
/// a close has begun before, the error is most likely the one that says so ([`SocketError`]), and is logged at debug
/// level.
pub trait Served {
    /// What to log, if anything went wrong.
    fn problem(self) -> Result<(), String>;
}

impl Served for () {
    fn problem(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Display + 'static> Served for Result<(), E> {
    fn problem(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// The state of a connection that an async function serves.
pub struct SocketState {
    start: Option<Box<Start>>,
    running: Option<Box<Running>>,
}

/// What a connection keeps until it opens.
struct Start {
    request: OwnedRequest,
    serve: Box<dyn FnOnce(Socket) -> Serving>,
}

/// A future and what it has in common with its handler.
struct Running {
    core: Rc<Core>,
    /// None while it is polled, and once it is done.
    serving: Option<Serving>,
}

/// A handler that serves each connection by an async function.
pub struct Serve<F> {
    serve: Rc<F>,
}

impl<F> Serve<F> {
    /// Serves by this function. [`Server::serve`](crate::Server::serve) is shorter where there is nothing else; this is
    /// for a route of a [`Router`](crate::Router), and where each worker has something of its own.
    pub fn new(serve: F) -> Self {
        Self { serve: Rc::new(serve) }
    }
}

impl<F, R> Serve<F>
where
    F: AsyncFn(Socket) -> R + 'static,
    R: Served,
{
    fn state(&self, request: &Request<'_>) -> SocketState {
        let serve = Rc::clone(&self.serve);
        SocketState::new(request, move |socket| {
            Box::pin(async move { serve(socket).await.problem() })
        })
    }
}

impl SocketState {
    fn new(request: &Request<'_>, serve: impl FnOnce(Socket) -> Serving + 'static) -> Self {
        let start = Start { request: OwnedRequest::new(request), serve: Box::new(serve) };
        Self { start: Some(Box::new(start)), running: None }
    }
}

/// As [`Serve`], behind an async function that decides about requests.
pub struct ServeAuthenticated<A, F, U> {
    authenticate: Rc<A>,
    serve: Rc<F>,
    user: PhantomData<fn() -> U>,
}

impl<A, F, U> ServeAuthenticated<A, F, U> {
    /// `authenticate` makes a user of each request, or a refusal; `serve` gets the user with the connection. The
    /// handshake's timeout goes on meanwhile.
    pub fn new(authenticate: A, serve: F) -> Self {
        let (authenticate, serve) = (Rc::new(authenticate), Rc::new(serve));
        Self { authenticate, serve, user: PhantomData }
    }
}

/// The calls of a connection that an async function serves.
mod calls {
    use super::*;

    pub(super) fn handle(ctx: &mut Ctx<'_, SocketState>, event: Event<'_>) {
        match event {
            Event::Open => on_open(ctx),
            Event::Message(message) => on_message(ctx, message),
            Event::Drain | Event::Wake => poll(ctx),
            // What is for another state was not for this handler.
            Event::Call(call) => drop(call.run(ctx)),
            Event::Close(cause) => on_close(ctx, cause),
            Event::Answer(_)
            | Event::Part(_)
            | Event::Missed(_)
            | Event::Timer(_)
            | Event::Ping(_)
            | Event::Pong(_) => {}
        }
    }

    fn on_open(ctx: &mut Ctx<'_, SocketState>) {
        let Some(start) = ctx.state_mut().start.take() else { return };
        let (id, peer) = (ctx.id(), ctx.peer_addr());
        let root = ctx.waker();
        let core = Rc::new(Core::new(id, peer, &ctx.engine().2.limits, root));
        let socket = Socket::new(Rc::clone(&core), Some(Box::new(start.request)));
        let serving = (start.serve)(socket);
        ctx.state_mut().running = Some(Box::new(Running { core, serving: Some(serving) }));
        poll(ctx);
    }

    fn on_message(ctx: &mut Ctx<'_, SocketState>, message: Message<'_>) {
        let Some(running) = &ctx.state().running else { return };
        if running.core.put(message) {
            poll(ctx);
        }
    }

    fn on_close(ctx: &mut Ctx<'_, SocketState>, cause: &CloseCause) {
        let Some(running) = &ctx.state().running else { return };
        running.core.end(cause);
        poll(ctx);
    }

    /// Polls the future, and does what it wants to happen, until it waits for something that has not happened, or has
    /// had its share of the turn.
    fn poll(ctx: &mut Ctx<'_, SocketState>) {
        let Some(running) = &ctx.state().running else { return };
        let core = Rc::clone(&running.core);
        let _entered = core.runtime.enter();
        for _ in 0..ROUNDS {
            let (queue_cost, is_open) = (ctx.queue_cost(), ctx.is_open());
            let Some(running) = &mut ctx.state_mut().running else { return };
            let Some(mut serving) = running.serving.take() else { return };
            core.begin(queue_cost, is_open);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let polled = serving.as_mut().poll(&mut Context::from_waker(&core.root));
                (polled, carry_out(ctx, &core))
            }));
            core.done();
            let (polled, has_called) = match outcome {
                Ok(outcome) => outcome,
                Err(panic) => {
                    core.finish();
                    ctx.set_own_work(OwnWork::default());
                    // Its destructors may panic as well, which may not meet the first panic on its way.
                    quietly(serving);
                    resume_unwind(panic);
                }
            };
            match polled {
                Poll::Ready(result) => return finish(ctx, &core, result),
                Poll::Pending => {
                    let Some(running) = &mut ctx.state_mut().running else { return };
                    running.serving = Some(serving);
                }
            }
            let has_room = core.wants_room() && ctx.queue_cost() < core.high_water();
            if !has_called && !has_room {
                return settle(ctx, &core);
            }
        }
        core.root.wake_by_ref();
        settle(ctx, &core);
    }

    /// Does what the application wants to happen. Whether any of it gives the application an answer.
    fn carry_out(ctx: &mut Ctx<'_, SocketState>, core: &Core) -> bool {
        let mut has_called = false;
        while let Some(deed) = core.next_deed() {
            match deed {
                // There was room, so only a close that has begun refuses it.
                Deed::Send(message) => {
                    let _ = ctx.send(message.as_message());
                }
                Deed::Ping(payload) => {
                    let _ = ctx.ping(&payload);
                }
                Deed::Close(code, reason) => {
                    let _ = ctx.close(code, &reason);
                }
                Deed::Call(call) => {
                    call(ctx);
                    has_called = true;
                }
            }
        }
        has_called
    }

    /// The function has returned.
    fn finish(ctx: &mut Ctx<'_, SocketState>, core: &Core, result: Result<(), String>) {
        core.finish();
        ctx.set_own_work(OwnWork::default());
        let code = match result {
            Ok(()) => CloseCode::NORMAL,
            Err(error) if !ctx.is_open() => {
                let conn = ctx.id();
                crate::base::event::debug!(%conn, error, "an async handler ended behind a close");
                return;
            }
            Err(error) => {
                crate::base::event::error!(conn = %ctx.id(), error, "an async handler failed");
                CloseCode::INTERNAL_ERROR
            }
        };
        // Only a close that has begun refuses another.
        let _ = ctx.close(code, "");
    }

    /// The future waits: reading follows from what waits for it, and the end of the connection from what it waits for.
    fn settle(ctx: &mut Ctx<'_, SocketState>, core: &Core) {
        if core.wants_room() && ctx.queue_cost() >= core.high_water() {
            ctx.want_drain();
        }
        ctx.set_own_work(core.own_work());
    }
}

impl<F, R> Handler for Serve<F>
where
    F: AsyncFn(Socket) -> R + 'static,
    R: Served,
{
    type State = SocketState;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<SocketState> {
        Answer::accept(self.state(request))
    }

    fn handle(&mut self, ctx: &mut Ctx<'_, SocketState>, event: Event<'_>) {
        calls::handle(ctx, event);
    }
}

impl<A, F, U, R> Handler for ServeAuthenticated<A, F, U>
where
    A: AsyncFn(OwnedRequest) -> Result<U, Response> + 'static,
    F: AsyncFn(U, Socket) -> R + 'static,
    U: Send + 'static,
    R: Served,
{
    type State = SocketState;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<SocketState> {
        let (authenticate, owned) = (Rc::clone(&self.authenticate), OwnedRequest::new(request));
        let deciding = async move {
            let user = authenticate(owned).await;
            let verdict: Verdict = user.map(|user| Accept::new(Box::new(user) as AnyState));
            Box::new(verdict) as Continuation
        };
        wakes::spawn(request.id(), Box::pin(deciding));
        Answer::Defer
    }

    fn state_from(
        &mut self,
        given: AnyState,
        request: &Request<'_>,
    ) -> Result<SocketState, AnyState> {
        let user = given.downcast::<U>()?;
        let serve = Rc::clone(&self.serve);
        Ok(SocketState::new(request, move |socket| {
            Box::pin(async move { serve(*user, socket).await.problem() })
        }))
    }

    fn handle(&mut self, ctx: &mut Ctx<'_, SocketState>, event: Event<'_>) {
        calls::handle(ctx, event);
    }
}

impl<S: SocketRoutes> Router<S> {
    /// Has a WebSocket at this path that async functions serve: `authenticate` makes a user of each request, or a
    /// refusal, and `serve` gets the user with the connection. See [`Socket`].
    ///
    /// ```
    /// use ringwire::{OwnedRequest, Response, Router, Socket, SocketError};
    ///
    /// let router = Router::new().websocket_async(
    ///     "/ws",
    ///     async |request: OwnedRequest| match request.query() {
    ///         Some(user) => Ok(user.to_owned()),
    ///         None => Err(Response::new(http::StatusCode::UNAUTHORIZED)),
    ///     },
    ///     async |user: String, mut socket: Socket| {
    ///         socket.send(format!("Hello, {user}!")).await?;
    ///         Ok::<(), SocketError>(())
    ///     },
    /// );
    /// # fn is_handler(_: impl ringwire::Handler) {}
    /// # is_handler(router);
    /// ```
    ///
    /// # Panics
    /// As [`websocket`](Self::websocket).
    #[must_use]
    pub fn websocket_async<A, F, U, R>(
        self,
        path: &str,
        authenticate: A,
        serve: F,
    ) -> Router<Sockets<S, ServeAuthenticated<A, F, U>>>
    where
        A: AsyncFn(OwnedRequest) -> Result<U, Response> + 'static,
        F: AsyncFn(U, Socket) -> R + 'static,
        U: Send + 'static,
        R: Served,
    {
        self.websocket(path, ServeAuthenticated::new(authenticate, serve))
    }

    /// Answers GET, and HEAD, with what an async function gives. Where the client goes away, or
    /// [`handshake_timeout`](crate::Config::handshake_timeout) has passed, its future is dropped.
    ///
    /// ```
    /// use ringwire::{OwnedRequest, Response, Router};
    ///
    /// let router = Router::new().get_async("/users/{name}", async |request: OwnedRequest| {
    ///     // waits for a database
    ///     Response::text(format!("{}\n", request.param("name").unwrap_or_default()))
    /// });
    /// # fn is_handler(_: impl ringwire::Handler) {}
    /// # is_handler(router);
    /// ```
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn get_async<F, A>(self, path: &str, answer: F) -> Self
    where
        F: AsyncFn(OwnedRequest) -> A + 'static,
        A: IntoResponse,
    {
        self.route_async(Method::GET, path, answer)
    }

    /// Answers POST as [`get_async`](Self::get_async) answers GET.
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn post_async<F, A>(self, path: &str, answer: F) -> Self
    where
        F: AsyncFn(OwnedRequest) -> A + 'static,
        A: IntoResponse,
    {
        self.route_async(Method::POST, path, answer)
    }

    /// Answers a method with what an async function gives, as [`get_async`](Self::get_async).
    ///
    /// # Panics
    /// As [`route`](Self::route).
    #[must_use]
    pub fn route_async<F, A>(self, method: Method, path: &str, answer: F) -> Self
    where
        F: AsyncFn(OwnedRequest) -> A + 'static,
        A: IntoResponse,
    {
        let answer = Rc::new(answer);
        self.route_with(method, path, move |request, responder| {
            let (answer, owned) = (Rc::clone(&answer), OwnedRequest::new(request));
            let mut owed = Owed(Some(responder));
            let answering = async move {
                let response = answer(owned).await;
                if let Some(responder) = owed.0.take() {
                    responder.send(response);
                }
                Box::new(()) as Continuation
            };
            wakes::spawn(request.id(), Box::pin(answering));
        })
    }
}

/// An answer that is owed as long as anybody waits for it.
struct Owed(Option<Responder>);

impl Drop for Owed {
    fn drop(&mut self) {
        // A future that panics owes it still. One that is dropped has nobody left to answer.
        if let Some(responder) = self.0.take()
            && !std::thread::panicking()
        {
            responder.forget();
        }
    }
}

impl<A, F, U> fmt::Debug for ServeAuthenticated<A, F, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeAuthenticated").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for Serve<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").finish_non_exhaustive()
    }
}

impl fmt::Debug for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketState")
            .field("is_open", &self.running.is_some())
            .finish_non_exhaustive()
    }
}
