//! The WebSocket routes of a [`Router`](super::Router), as a list of handlers that its type spells out.

use std::borrow::Cow;
use std::convert::Infallible;

use http::StatusCode;
use ringwire_codec::http::Response;
use ringwire_codec::{CloseCode, Message};

use crate::app::ctx::Ctx;
use crate::app::event::Event;
use crate::app::handler::{Answer, Handler};
use crate::app::presence::{Interest, Presence};
use crate::app::request::Request;
use crate::app::responder::Responder;
use crate::app::states::States;
use crate::conn::answer::{Accept, AnyState};
use crate::conn::dialling::DialError;
use crate::hub::posted::Posted;

/// Settings of one WebSocket route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// The subprotocols of this route, the preferred one first. The first that the client offers is agreed on, unless
    /// the handler chooses one itself; where none is offered, those of the [server](crate::Config::subprotocols) count.
    /// Default: none.
    pub subprotocols: Vec<String>,
    /// The longest whole message of this route, in bytes; one that is longer closes the connection with 1009. Checked
    /// once the message is whole, so the server's limits bound memory, and only a value below them has an effect.
    /// Default: none beside those of [`Config::protocol`](crate::Config::protocol).
    pub max_message_len: Option<usize>,
}

impl SocketOptions {
    /// Sets [`subprotocols`](Self::subprotocols).
    #[must_use]
    pub fn with_subprotocols<N: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`max_message_len`](Self::max_message_len).
    #[must_use]
    pub fn with_max_message_len(mut self, len: impl Into<Option<usize>>) -> Self {
        self.max_message_len = len.into();
        self
    }

    fn allows(&self, message: &Message<'_>) -> bool {
        self.max_message_len.is_none_or(|most| message.len() <= most)
    }
}

/// A list of WebSocket routes. Made by [`Router::websocket`](super::Router::websocket).
pub trait SocketRoutes: sealed::Sealed {
    /// The state of a connection of any of them.
    type State: 'static;

    #[doc(hidden)]
    const COUNT: usize;

    /// Which of them a connection belongs to, and what its handler calls it.
    #[doc(hidden)]
    fn route_of(&self, state: &Self::State) -> (usize, Option<Cow<'_, str>>);

    #[doc(hidden)]
    fn on_request(&mut self, index: usize, request: &Request<'_>) -> Answer<Self::State>;

    #[doc(hidden)]
    fn on_http(&mut self, index: usize, request: &Request<'_>, responder: Responder);

    #[doc(hidden)]
    fn is_monitoring(&mut self, index: usize, request: &Request<'_>) -> bool;

    #[doc(hidden)]
    fn state_from(
        &mut self,
        index: usize,
        given: AnyState,
        request: &Request<'_>,
    ) -> Result<Self::State, AnyState>;

    #[doc(hidden)]
    fn on_presence(&mut self, presence: &Presence<'_>);

    #[doc(hidden)]
    fn wants_interest(&self) -> bool;

    #[doc(hidden)]
    fn on_interest(&mut self, interest: &Interest<'_>);

    #[doc(hidden)]
    fn on_event(&mut self, event: Posted) -> Result<(), Posted>;

    #[doc(hidden)]
    fn on_dial_failed(&mut self, state: Self::State, error: &DialError);

    #[doc(hidden)]
    fn states() -> States<Self::State>;

    #[doc(hidden)]
    fn handle(&mut self, ctx: &mut Ctx<'_, Self::State>, event: Event<'_>);
}

/// No WebSocket routes.
#[derive(Clone, Copy, Debug)]
pub struct NoSockets;

/// Some WebSocket routes and one more.
#[derive(Debug)]
pub struct Sockets<R, H> {
    rest: R,
    handler: H,
    options: SocketOptions,
}

/// The state of a connection of one of several routes.
#[derive(Debug)]
pub enum RouteState<R, S> {
    /// Of a route that was added before.
    Before(R),
    /// Of the route that was added last.
    Last(S),
}

impl<R, H> Sockets<R, H> {
    pub(super) fn new(rest: R, handler: H, options: SocketOptions) -> Self {
        Self { rest, handler, options }
    }
}

impl<R: SocketRoutes, H: Handler> Sockets<R, H> {
    fn dispatch(&mut self, ctx: &mut Ctx<'_, H::State>, event: Event<'_>) {
        match event {
            Event::Message(message) if !self.options.allows(&message) => {
                // Only a close that has begun refuses another.
                let _ = ctx.close(CloseCode::MESSAGE_TOO_BIG, "the message is too long");
            }
            event => self.handler.handle(ctx, event),
        }
    }

    /// Agrees to a subprotocol of the route, where the handler has not.
    fn choose_subprotocol<S>(&self, request: &Request<'_>, accept: Accept<S>) -> Accept<S> {
        if accept.subprotocol.is_some() {
            return accept;
        }
        match request.preferred(&self.options.subprotocols) {
            Some(chosen) => accept.with_subprotocol(chosen),
            None => accept,
        }
    }
}

impl SocketRoutes for NoSockets {
    type State = Infallible;

    const COUNT: usize = 0;

    fn route_of(&self, state: &Infallible) -> (usize, Option<Cow<'_, str>>) {
        match *state {}
    }

    fn on_request(&mut self, _index: usize, _request: &Request<'_>) -> Answer<Infallible> {
        Answer::Reject(Response::new(StatusCode::NOT_FOUND))
    }

    fn on_http(&mut self, _index: usize, _request: &Request<'_>, responder: Responder) {
        responder.send(StatusCode::NOT_FOUND);
    }

    fn is_monitoring(&mut self, _index: usize, _request: &Request<'_>) -> bool {
        false
    }

    fn state_from(
        &mut self,
        _index: usize,
        given: AnyState,
        _request: &Request<'_>,
    ) -> Result<Infallible, AnyState> {
        Err(given)
    }

    fn on_presence(&mut self, _presence: &Presence<'_>) {}

    fn wants_interest(&self) -> bool {
        false
    }

    fn on_interest(&mut self, _interest: &Interest<'_>) {}

    fn on_event(&mut self, event: Posted) -> Result<(), Posted> {
        Err(event)
    }

    fn on_dial_failed(&mut self, state: Infallible, _error: &DialError) {
        match state {}
    }

    fn states() -> States<Infallible> {
        States::none()
    }

    fn handle(&mut self, ctx: &mut Ctx<'_, Infallible>, _event: Event<'_>) {
        match *ctx.state() {}
    }
}

impl<R: SocketRoutes, H: Handler> SocketRoutes for Sockets<R, H> {
    type State = RouteState<R::State, H::State>;

    const COUNT: usize = R::COUNT + 1;

    fn route_of(&self, state: &Self::State) -> (usize, Option<Cow<'_, str>>) {
        match state {
            RouteState::Before(state) => self.rest.route_of(state),
            RouteState::Last(state) => (R::COUNT, self.handler.route_of(state)),
        }
    }

    fn on_request(&mut self, index: usize, request: &Request<'_>) -> Answer<Self::State> {
        if index < R::COUNT {
            return self.rest.on_request(index, request).map(RouteState::Before);
        }
        match self.handler.on_request(request) {
            Answer::Accept(accept) => self.choose_subprotocol(request, accept).into(),
            other => other,
        }
        .map(RouteState::Last)
    }

    fn on_http(&mut self, index: usize, request: &Request<'_>, responder: Responder) {
        if index < R::COUNT {
            return self.rest.on_http(index, request, responder);
        }
        self.handler.on_http(request, responder);
    }

    fn is_monitoring(&mut self, index: usize, request: &Request<'_>) -> bool {
        if index < R::COUNT {
            return self.rest.is_monitoring(index, request);
        }
        self.handler.is_monitoring(request)
    }

    fn state_from(
        &mut self,
        index: usize,
        given: AnyState,
        request: &Request<'_>,
    ) -> Result<Self::State, AnyState> {
        if index < R::COUNT {
            return self.rest.state_from(index, given, request).map(RouteState::Before);
        }
        let state = self.handler.state_from(given, request)?;
        // Behind the handler, which may be a router with an answer of its own.
        request.agree(&self.options.subprotocols);
        Ok(RouteState::Last(state))
    }

    fn on_presence(&mut self, presence: &Presence<'_>) {
        self.rest.on_presence(presence);
        self.handler.on_presence(presence);
    }

    fn wants_interest(&self) -> bool {
        self.rest.wants_interest() || self.handler.wants_interest()
    }

    fn on_interest(&mut self, interest: &Interest<'_>) {
        self.rest.on_interest(interest);
        self.handler.on_interest(interest);
    }

    fn on_event(&mut self, event: Posted) -> Result<(), Posted> {
        self.rest.on_event(event).or_else(|event| self.handler.on_event(event))
    }

    fn on_dial_failed(&mut self, state: Self::State, error: &DialError) {
        match state {
            RouteState::Before(state) => self.rest.on_dial_failed(state, error),
            RouteState::Last(state) => self.handler.on_dial_failed(state, error),
        }
    }

    fn states() -> States<Self::State> {
        States::none().and(R::states(), RouteState::Before).and(H::states(), RouteState::Last)
    }

    fn handle(&mut self, ctx: &mut Ctx<'_, Self::State>, event: Event<'_>) {
        // What a handler around the router gave away is for all of the state.
        let event = match event {
            Event::Call(call) => match call.run(ctx) {
                Ok(()) => return,
                Err(call) => Event::Call(call),
            },
            other => other,
        };
        let last = ctx.try_project(|state| match state {
            RouteState::Last(state) => Some(state),
            RouteState::Before(_) => None,
        });
        if let Some(mut ctx) = last {
            return self.dispatch(&mut ctx, event);
        }
        let before = ctx.try_project(|state| match state {
            RouteState::Before(state) => Some(state),
            RouteState::Last(_) => None,
        });
        if let Some(mut ctx) = before {
            self.rest.handle(&mut ctx, event);
        }
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::NoSockets {}
    impl<R, H> Sealed for super::Sockets<R, H> {}
}
