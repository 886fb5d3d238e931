//! What an application implements, and its answers to requests.

use std::any::Any;
use std::borrow::Cow;

use ringwire_codec::handshake::{HandshakeError, client};
use ringwire_codec::http::Response;
use ringwire_codec::{Message, MessagePart};

use crate::app::ctx::Ctx;
use crate::app::event::Event;
use crate::app::presence::{Interest, Presence};
use crate::app::request::Request;
use crate::app::responder::Responder;
use crate::app::states::States;
use crate::conn::answer::Accept;
use crate::conn::cause::CloseCause;
use crate::conn::dialling::DialError;
use crate::hub::posted::Posted;

/// The application: one value for each worker, called from its thread only.
///
/// A call gets `&mut self` and the connection's [`Ctx`]; nothing is shared, so nothing is locked. A call
/// that takes long holds up every other connection of the worker. A call that panics closes its connection
/// with 1011, or answers its request 500. The handler goes on serving the others, so a panic must not leave it half
/// changed.
///
/// ```
/// use std::time::Duration;
/// use ringwire::{Answer, CloseCause, Config, Ctx, Handler, Message, Request, Response, Server, StatusCode};
///
/// /// Everyone in a room hears what is said in it.
/// struct Rooms;
///
/// struct Guest {
///     name: String,
///     topic: String,
/// }
///
/// impl Handler for Rooms {
///     type State = Guest;
///
///     fn on_request(&mut self, request: &Request<'_>) -> Answer<Guest> {
///         let Some(name) = request.query_param("name") else {
///             return Response::text("who are you?").with_status(StatusCode::UNAUTHORIZED).into();
///         };
///         Answer::accept(Guest { name: name.into_owned(), topic: "room.lobby".to_owned() })
///     }
///
///     fn on_open(&mut self, ctx: &mut Ctx<'_, Guest>) {
///         let (guest, mut out) = ctx.split();
///         out.subscribe(&guest.topic).expect("the topic is a good one");
///     }
///
///     fn on_message(&mut self, ctx: &mut Ctx<'_, Guest>, message: Message<'_>) {
///         let (guest, mut out) = ctx.split();
///         let text = format!("{}: {}", guest.name, message.as_text().unwrap_or("?"));
///         if let Err(error) = out.publish(&guest.topic, &text) {
///             eprintln!("not everyone hears {}: {error}", guest.name);
///         }
///     }
///
///     fn on_close(&mut self, ctx: &mut Ctx<'_, Guest>, cause: &CloseCause) {
///         println!("{} is gone: {}", ctx.state().name, cause.reason);
///     }
/// }
///
/// let server = Server::new(Config::default().with_io_workers(1))
///     .listen("127.0.0.1:0")
///     .start(|_worker| Rooms)?;
/// # server.handle().shutdown(Duration::ZERO);
/// # server.join()?;
/// # Ok::<(), ringwire::Error>(())
/// ```
pub trait Handler {
    /// What the application keeps for each open connection.
    type State: 'static;

    /// A client asks for a WebSocket; the request is already known to be a correct one (RFC 6455 §4.2.1).
    fn on_request(&mut self, request: &Request<'_>) -> Answer<Self::State>;

    /// An ordinary HTTP request came to the same port, [with its body](Request::body), to be answered by
    /// [`responder`](Responder), now or later. The default answers 426, "WebSocket only".
    fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
        let _ = request;
        responder.send(Response::from(HandshakeError::Upgrade));
    }

    /// Whether an ordinary HTTP request still goes to [`on_http`](Self::on_http) while memory is short and others are
    /// refused with 503 ([`max_memory`](crate::Config::max_memory)). Asked only then, before the body is read. Default:
    /// no.
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

    /// A whole message came. It is a borrow: copy what has to outlive the call. The default drops it.
    fn on_message(&mut self, ctx: &mut Ctx<'_, Self::State>, message: Message<'_>) {
        let _ = (ctx, message);
    }

    /// A part of a message came, on a connection that was accepted
    /// [with streaming](Accept::with_streaming). The default drops it.
    fn on_message_part(&mut self, ctx: &mut Ctx<'_, Self::State>, part: MessagePart<'_>) {
        let _ = (ctx, part);
    }

    /// The output that made [`Ctx::send`] answer [`Sent::Waits`](crate::Sent::Waits) is gone.
    fn on_drain(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        let _ = ctx;
    }

    /// The connection read too slowly, and `count` publications were dropped for it, as its topic's policy says. Called
    /// once its output is gone, so that the application can send what makes up for them.
    fn on_missed(&mut self, ctx: &mut Ctx<'_, Self::State>, count: u32) {
        let _ = (ctx, count);
    }

    /// A connection, on any worker, has got a name ([`Ctx::register`]), or has it no more: it has ended, or
    /// [gave it up](Ctx::unregister).
    ///
    /// For each name this is called on one worker only, at the end of a turn, once for each change and in their order,
    /// wherever the connections are; after [`on_close`](Self::on_close), where that took the name away. So what is
    /// published from here comes to each subscriber in this order. A connection that gets a name and loses it before
    /// this worker looks may be passed over. Where a worker ends before the others, another goes on with its names.
    ///
    /// ```
    /// use ringwire::{Handle, topics::Presence};
    /// /// Of `Handler::on_presence`: tells who comes online, and who goes. A page that is loaded anew says neither.
    /// fn announce(handle: &Handle, presence: &Presence<'_>) {
    ///     let what = match presence {
    ///         Presence { is_first: true, .. } => "online",
    ///         Presence { is_last: true, .. } => "offline",
    ///         _ => return,
    ///     };
    ///     let text = format!("{} is {what}", presence.name);
    ///     // Who is too far behind asks for the list when it has caught up.
    ///     let _ = handle.publish("presence", &*text);
    /// }
    /// ```
    fn on_presence(&mut self, presence: &Presence<'_>) {
        let _ = presence;
    }

    /// Whether [`on_interest`](Self::on_interest) is called. Asked once on each worker, as it starts; all handlers of a
    /// server must say the same. Default: no. It costs a lock when a worker's first subscriber of a topic or pattern
    /// comes and when its last goes, and memory for each topic or pattern: its text and about 150 bytes.
    fn wants_interest(&self) -> bool {
        false
    }

    /// The first connection has subscribed to a topic or pattern, or the last has gone, over all workers: for servers
    /// that get from elsewhere what they publish. Called only where [`wants_interest`](Self::wants_interest) says so.
    ///
    /// As with [`on_presence`](Self::on_presence), for each subscription this is called on one worker only, at the end
    /// of a turn, once for each change and in their order. A subscription that comes and goes before this worker looks
    /// may be passed over.
    ///
    /// A pattern is a subscription of its own: topics that it matches do not count as subscribed to because of it.
    ///
    /// ```
    /// use std::sync::mpsc::Sender;
    /// use ringwire::topics::{Interest, Subscription};
    /// /// Of `Handler::on_interest`: what is to be had from the other servers of a cluster.
    /// fn follow(cluster: &Sender<String>, interest: &Interest<'_>) {
    ///     let verb = if interest.has_subscribers { "SUB" } else { "UNSUB" };
    ///     let command = match interest.subscription {
    ///         Subscription::Pattern(pattern) => format!("P{verb} {pattern}"),
    ///         topic => format!("{verb} {topic}"),
    ///     };
    ///     // The cluster's thread ends with the server.
    ///     let _ = cluster.send(command);
    /// }
    /// ```
    fn on_interest(&mut self, interest: &Interest<'_>) {
        let _ = interest;
    }

    /// The peer sent a ping. The engine answers it, and there is nothing to do, unless
    /// [`answers_pings`](crate::tuning::ProtocolConfig::answers_pings) is off.
    fn on_ping(&mut self, ctx: &mut Ctx<'_, Self::State>, payload: &[u8]) {
        let _ = (ctx, payload);
    }

    /// The peer sent a pong: to a ping of the engine or the application, or unasked. Not called where
    /// [`reports_pongs`](crate::Config::reports_pongs) is off.
    fn on_pong(&mut self, ctx: &mut Ctx<'_, Self::State>, payload: &[u8]) {
        let _ = (ctx, payload);
    }

    /// A timer that [`Ctx::set_timer`] has set has run down.
    fn on_timer(&mut self, ctx: &mut Ctx<'_, Self::State>, key: u64) {
        let _ = (ctx, key);
    }

    /// Something came from [`Handle::post_event`](crate::Handle::post_event), for this worker and no connection.
    ///
    /// ```
    /// # use ringwire::{Answer, Ctx, Handler, Message, Posted, Request};
    /// # struct Prices { factor: f64 }
    /// struct NewFactor(f64);
    ///
    /// # impl Handler for Prices {
    /// #     type State = ();
    /// #     fn on_request(&mut self, _: &Request<'_>) -> Answer<()> { Answer::accept(()) }
    /// #     fn on_message(&mut self, _: &mut Ctx<'_, ()>, _: Message<'_>) {}
    /// fn on_event(&mut self, event: Posted) -> Result<(), Posted> {
    ///     let NewFactor(factor) = event.downcast()?;
    ///     self.factor = factor;
    ///     Ok(())
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// The event is not for this handler, and comes back: a [`Router`](crate::Router) offers it to its routes in turn.
    /// The default takes none. What no handler takes is dropped, with a warning in the log.
    fn on_event(&mut self, event: Posted) -> Result<(), Posted> {
        Err(event)
    }

    /// The types of state that a connection may begin with if [`Handle::connect`](crate::Handle::connect) opened it, or
    /// if it was [upgraded](crate::transport::Adoption::with_state) elsewhere. Default: [`State`](Self::State) alone. A
    /// handler around others [adds theirs](States::and).
    fn states() -> States<Self::State>
    where
        Self: Sized,
    {
        States::own()
    }

    /// A waker of this connection was woken ([`Ctx::waker`]), once or several times since the last call.
    fn on_wake(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        let _ = ctx;
    }

    /// Something happens to a connection. The default calls the event's method, so a handler implements those that it
    /// needs. A handler around another implements this, and passes on each event that it does not take itself:
    ///
    /// ```
    /// use ringwire::{Answer, Ctx, Event, Handler, Request, Responder};
    ///
    /// /// Counts what came to the handler inside.
    /// struct Counting<H> {
    ///     inner: H,
    ///     message_count: u64,
    /// }
    ///
    /// impl<H: Handler> Handler for Counting<H> {
    ///     type State = H::State;
    ///
    ///     fn on_request(&mut self, request: &Request<'_>) -> Answer<H::State> {
    ///         self.inner.on_request(request)
    ///     }
    ///
    ///     fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
    ///         self.inner.on_http(request, responder);
    ///     }
    ///
    ///     fn handle(&mut self, ctx: &mut Ctx<'_, H::State>, event: Event<'_>) {
    ///         self.message_count += u64::from(matches!(event, Event::Message(_)));
    ///         self.inner.handle(ctx, event);
    ///     }
    /// }
    /// ```
    ///
    /// If it keeps a state of its own beside that of the handler inside, it gives that one its part with
    /// [`Ctx::project`].
    ///
    /// It also passes on, if the handler inside has a use for them, the calls that are about the worker rather than a
    /// connection ([`on_presence`](Self::on_presence), [`on_interest`](Self::on_interest) with
    /// [`wants_interest`](Self::wants_interest), [`on_event`](Self::on_event),
    /// [`on_dial_failed`](Self::on_dial_failed)), and [`state_from`](Self::state_from) for requests that were
    /// [deferred](Answer::Defer).
    #[inline]
    fn handle(&mut self, ctx: &mut Ctx<'_, Self::State>, event: Event<'_>) {
        match event {
            Event::Answer(answer) => self.on_answer(ctx, answer),
            Event::Open => self.on_open(ctx),
            Event::Message(message) => self.on_message(ctx, message),
            Event::Part(part) => self.on_message_part(ctx, part),
            Event::Drain => self.on_drain(ctx),
            Event::Missed(count) => self.on_missed(ctx, count),
            Event::Ping(payload) => self.on_ping(ctx, payload),
            Event::Pong(payload) => self.on_pong(ctx, payload),
            // What is for another state was not for this handler.
            Event::Call(call) => drop(call.run(ctx)),
            Event::Wake => self.on_wake(ctx),
            Event::Timer(key) => self.on_timer(ctx, key),
            Event::Close(cause) => self.on_close(ctx, cause),
        }
    }

    /// Makes the state of a connection from what [`Handle::accept`](crate::Handle::accept) gave for a deferred
    /// `request`. Default: it must be of the type [`State`](Self::State). For handlers around others. A
    /// [`Router`](crate::Router) looks here for the [subprotocols](crate::router::SocketOptions::subprotocols) of its
    /// route as well.
    ///
    /// # Errors
    /// It is of another type, and comes back.
    fn state_from(
        &mut self,
        given: Box<dyn Any + Send>,
        request: &Request<'_>,
    ) -> Result<Self::State, Box<dyn Any + Send>> {
        let _ = request;
        given.downcast().map(|state| *state)
    }

    /// The route of a connection, for the log. A [`Router`](crate::Router) gives the route's path as it was written
    /// there, not the path that the client asked for, which may hold a token. Default: none.
    fn route_of(&self, state: &Self::State) -> Option<Cow<'_, str>> {
        let _ = state;
        None
    }

    /// The connection has ended. Called once for each [`on_open`](Self::on_open), whatever ended it. Sends fail from
    /// here on: [`SendError::Closing`](crate::SendError::Closing).
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
    /// Later, through [`Handle::accept`](crate::Handle::accept), which brings the connection's state, or
    /// [`Handle::reject`](crate::Handle::reject), with the [request's id](Request::id). The handshake timeout goes on.
    Defer,
}

impl<S> Answer<S> {
    /// Accepts, with nothing but the state.
    pub fn accept(state: S) -> Self {
        Accept::new(state).into()
    }

    /// The same answer with what `f` makes of the state: for a handler around another.
    pub fn map<T>(self, f: impl FnOnce(S) -> T) -> Answer<T> {
        match self {
            Self::Accept(accept) => Answer::Accept(accept.map(f)),
            Self::Reject(response) => Answer::Reject(response),
            Self::Defer => Answer::Defer,
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

/// A handler that accepts every request and calls `f` with every message. What `f` gives back is an [`Outcome`].
///
/// ```
/// let echo = ringwire::on_message(|ctx, message| ctx.send(message));
/// # let _: &dyn ringwire::Handler<State = ()> = &echo;
/// ```
pub fn on_message<F, O>(f: F) -> OnMessage<F>
where
    F: FnMut(&mut Ctx<'_, ()>, Message<'_>) -> O,
    O: Outcome,
{
    OnMessage(f)
}

/// What a closure of [`on_message`] may give back: nothing, or the result of sending something. An error is passed
/// over: to act on it, do so in the closure.
pub trait Outcome: sealed::Sealed {}

impl Outcome for () {}
impl<T, E: std::error::Error> Outcome for Result<T, E> {}

mod sealed {
    pub trait Sealed {}

    impl Sealed for () {}
    impl<T, E: std::error::Error> Sealed for Result<T, E> {}
}

/// See [`on_message`].
#[derive(Debug)]
pub struct OnMessage<F>(F);

impl<F, O> Handler for OnMessage<F>
where
    F: FnMut(&mut Ctx<'_, ()>, Message<'_>) -> O,
    O: Outcome,
{
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let _ = (self.0)(ctx, message);
    }
}
