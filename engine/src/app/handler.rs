//! What an application implements, and its answers to requests.

use std::any::Any;

use http::{HeaderName, HeaderValue};
use ringwire_codec::extension::SharedExtension;
use ringwire_codec::handshake::{HandshakeError, client};
use ringwire_codec::{Message, MessagePart};

pub use crate::app::ctx::{Compress, Ctx, SendOptions, SendStatus};
use crate::app::offload::Then;
pub use crate::app::request::Request;
use crate::entry::dial::DialError;
use crate::error::CloseCause;
pub use ringwire_codec::http::Response;

/// The application: one value for each worker, called from its thread only.
///
/// A call gets `&mut self` and the connection's [`Ctx`]; nothing is shared, so nothing is locked. A call
/// that takes long holds up every other connection of the worker. A call that panics closes its connection
/// with 1011; the handler goes on serving the others, so it should leave itself in order.
pub trait Handler {
    /// What the application keeps for each open connection.
    type State: 'static;

    /// A client asks for a WebSocket; the request is already known to be a correct one (RFC 6455 §4.2.1).
    fn on_request(&mut self, request: &Request<'_>) -> Answer<Self::State>;

    /// An ordinary HTTP request came to the same port, [with its body](Request::body). The default answers 426,
    /// "WebSocket only".
    fn on_http(&mut self, request: &Request<'_>) -> HttpAnswer {
        let _ = request;
        Response::from(HandshakeError::Upgrade).into()
    }

    /// Whether an ordinary HTTP request is for [`on_http`](Self::on_http) also while others are refused with 503 for want of
    /// memory ([`max_memory`](crate::Config::max_memory)). Asked only then, before its body is taken. Default: no.
    fn is_monitoring(&mut self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// The server has accepted a connection that [`Handle::connect`](crate::Handle::connect) asked for; `answer` is its
    /// 101. [`on_open`](Self::on_open) follows.
    fn on_answer(&mut self, ctx: &mut Ctx<'_, Self::State>, answer: &client::Response<'_>) {
        let _ = (ctx, answer);
    }

    /// A connection that [`Handle::connect`](crate::Handle::connect) asked for will not open. Its state comes back.
    fn on_dial_failed(&mut self, state: Self::State, error: &DialError) {
        let _ = (state, error);
    }

    /// The handshake is done.
    fn on_open(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        let _ = ctx;
    }

    /// A whole message came. It is a borrow: copy what has to outlive the call.
    fn on_message(&mut self, ctx: &mut Ctx<'_, Self::State>, message: Message<'_>);

    /// A part of a message came, on a connection that was accepted
    /// [with streaming](Accept::with_streaming). The default drops it.
    fn on_message_part(&mut self, ctx: &mut Ctx<'_, Self::State>, part: MessagePart<'_>) {
        let _ = (ctx, part);
    }

    /// The output that made [`Ctx::send`] answer [`SendStatus::Queued`] is gone.
    fn on_drain(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        let _ = ctx;
    }

    /// The connection has missed so many publications, since it read too slowly: its topic's policy was to drop them.
    /// Called once its output is gone, so that the application can send it what makes up for them.
    fn on_missed(&mut self, ctx: &mut Ctx<'_, Self::State>, count: u32) {
        let _ = (ctx, count);
    }

    /// The first connection with a name ([`Ctx::register`]) has come, or the last is gone, over all workers. Called on the
    /// worker where that happened, at the end of the turn. Two workers may come to be told in another order than it
    /// happened in; [`Handle::connections`](crate::Handle::connections) knows what holds.
    fn on_presence(&mut self, name: &str, is_present: bool) {
        let _ = (name, is_present);
    }

    /// The peer sent a ping. The engine answers it; there is nothing to do.
    fn on_ping(&mut self, ctx: &mut Ctx<'_, Self::State>, payload: &[u8]) {
        let _ = (ctx, payload);
    }

    /// The peer sent a pong.
    fn on_pong(&mut self, ctx: &mut Ctx<'_, Self::State>, payload: &[u8]) {
        let _ = (ctx, payload);
    }

    /// The result of a job of [`Ctx::offload`] is there. For handlers that have handlers inside.
    #[doc(hidden)]
    fn finish_job(&mut self, ctx: &mut Ctx<'_, Self::State>, then: Box<dyn Any + Send>) {
        if let Ok(then) = then.downcast::<Then<Self::State>>() {
            then(ctx);
        }
    }

    /// What the log calls the connections of this kind: a [`Router`](crate::Router) says the path of the route, as it was written
    /// there. Not what the client asked for, which may hold a token. Default: nothing.
    fn route_of(&self, state: &Self::State) -> Option<&str> {
        let _ = state;
        None
    }

    /// The connection has ended. Called once for each [`on_open`](Self::on_open), whatever ended it. Sending
    /// has no effect any more.
    fn on_close(&mut self, ctx: &mut Ctx<'_, Self::State>, cause: &CloseCause) {
        let _ = (ctx, cause);
    }
}

/// The answer to a request for a WebSocket.
#[derive(Debug)]
pub enum Answer<S> {
    /// 101, with the connection's state.
    Accept(Accept<S>),
    /// An ordinary answer, after which the connection is closed.
    Reject(Response),
    /// Later, through [`Handle::accept`](crate::Handle::accept) or
    /// [`Handle::reject`](crate::Handle::reject) with the request's id. The handshake timeout goes on.
    Defer(S),
}

impl<S> Answer<S> {
    /// Accepts, with nothing but the state.
    pub fn accept(state: S) -> Self {
        Accept::new(state).into()
    }
}

impl<S> Answer<S> {
    /// The same answer with another state.
    pub(crate) fn map<T>(self, f: impl FnOnce(S) -> T) -> Answer<T> {
        match self {
            Self::Accept(Accept { state, acceptance }) => {
                Answer::Accept(Accept { state: f(state), acceptance })
            }
            Self::Reject(response) => Answer::Reject(response),
            Self::Defer(state) => Answer::Defer(f(state)),
        }
    }
}

impl<S> From<Accept<S>> for Answer<S> {
    fn from(accept: Accept<S>) -> Self {
        Self::Accept(accept)
    }
}

impl<S> From<Response> for Answer<S> {
    fn from(response: Response) -> Self {
        Self::Reject(response)
    }
}

/// The answer to an ordinary HTTP request.
#[derive(Debug)]
pub enum HttpAnswer {
    /// Now.
    Respond(Response),
    /// Later, through [`Handle::respond`](crate::Handle::respond) with the request's id. The connection's further
    /// requests wait for it; after [`handshake_timeout`](crate::Config::handshake_timeout) the answer is 503.
    Defer,
}

impl From<Response> for HttpAnswer {
    fn from(response: Response) -> Self {
        Self::Respond(response)
    }
}

/// How a request is accepted, and the state of its connection.
#[derive(Debug)]
pub struct Accept<S> {
    pub(crate) state: S,
    pub(crate) acceptance: Acceptance,
}

impl<S> Accept<S> {
    /// Accepts without subprotocol, extra headers or streaming.
    pub fn new(state: S) -> Self {
        Self { state, acceptance: Acceptance::default() }
    }

    /// Agrees to one of the [offered](Request::subprotocols) subprotocols. One that was not offered
    /// ends the handshake with 500, since the client would have to fail it (RFC 6455 §4.1).
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<String>) -> Self {
        self.acceptance = self.acceptance.with_subprotocol(name);
        self
    }

    /// Adds a header to the 101.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.acceptance = self.acceptance.with_header(name, value);
        self
    }

    /// Hands messages over in parts, as they come, to [`Handler::on_message_part`].
    #[must_use]
    pub fn with_streaming(mut self) -> Self {
        self.acceptance = self.acceptance.with_streaming();
        self
    }

    /// Declines compression on this connection, whatever the settings say and the client offers.
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.acceptance = self.acceptance.without_compression();
        self
    }

    /// Agrees to an extension of the application's own, if the client offers it, it accepts the offer, and no other one that
    /// the client likes better has the same reserved bits. It comes behind compression. Default: none.
    ///
    /// A frame of such a connection is taken whole before it is looked at: with up to 9/8 of
    /// [`max_message_len`](crate::ProtocolConfig::max_message_len) and 4 KiB, also where messages are handed over in parts.
    #[must_use]
    pub fn with_extension(mut self, extension: SharedExtension) -> Self {
        self.acceptance = self.acceptance.with_extension(extension);
        self
    }
}

/// How a request is accepted.
#[derive(Clone, Debug, Default)]
pub struct Acceptance {
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) streaming: bool,
    pub(crate) declines_compression: bool,
    pub(crate) extensions: Vec<SharedExtension>,
}

impl Acceptance {
    /// As [`Accept::with_subprotocol`].
    #[must_use]
    pub fn with_subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// As [`Accept::with_header`].
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// As [`Accept::with_streaming`].
    #[must_use]
    pub fn with_streaming(mut self) -> Self {
        self.streaming = true;
        self
    }

    /// As [`Accept::without_compression`].
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.declines_compression = true;
        self
    }

    /// As [`Accept::with_extension`].
    #[must_use]
    pub fn with_extension(mut self, extension: SharedExtension) -> Self {
        self.extensions.push(extension);
        self
    }
}

/// A handler that accepts every request and calls `f` with every message.
///
/// ```
/// use ringwire::{Ctx, Message};
/// let echo = ringwire::on_message(|ctx: &mut Ctx<'_, ()>, message: Message<'_>| {
///     ctx.send(message);
/// });
/// # let _: &dyn ringwire::Handler<State = ()> = &echo;
/// ```
pub fn on_message<F>(f: F) -> OnMessage<F>
where
    F: FnMut(&mut Ctx<'_, ()>, Message<'_>),
{
    OnMessage(f)
}

/// See [`on_message`].
#[derive(Debug)]
pub struct OnMessage<F>(F);

impl<F> Handler for OnMessage<F>
where
    F: FnMut(&mut Ctx<'_, ()>, Message<'_>),
{
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        (self.0)(ctx, message);
    }
}
