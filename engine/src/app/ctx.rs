//! What a handler can do with a connection.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringwire_codec::{CloseCode, Message, SendError, cut_reason};
use ringwire_tls::Facts;

use crate::base::timer::ticks_of;
use crate::conn::cause::CloseReason;
use crate::conn::id::ConnId;
use crate::conn::options::{SendOptions, Sent};
use crate::conn::{Flags, Phase, Wire};
use crate::driver::{SendNow, Token};
use crate::hub::names::NameError;
use crate::limits::Deadline;
use crate::state::timers::TimerError;
use crate::state::{Shared, send};
use crate::topic::exchange::PublishError;
use crate::topic::{
    Position, PublishOptions, Recovery, SubscribeOptions, Subscription, TopicError,
};

/// A connection, during a call of the handler.
///
/// ```
/// # use ringwire::{Answer, Ctx, Handler, Message, Request};
/// struct Greeter;
///
/// impl Handler for Greeter {
///     type State = String;
///
///     fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
///         Answer::accept(request.path().to_owned())
///     }
///
///     fn on_message(&mut self, ctx: &mut Ctx<'_, String>, _message: Message<'_>) {
///         ctx.state_mut().push('!');
///         let (state, mut out) = ctx.split();
///         if let Err(error) = out.send(&*state) {
///             eprintln!("{} gets no greeting: {error}", out.id());
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Ctx<'a, S> {
    id: ConnId,
    wire: &'a mut Wire,
    state: &'a mut S,
    shared: &'a mut Shared,
    /// Where long messages go out at once, if they may.
    direct: Option<&'a dyn SendNow>,
}

/// A connection without its state, from [`Ctx::split`].
pub type Out<'a> = Ctx<'a, NoState>;

/// What stands for the state in an [`Out`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoState;

impl<'a, S> Ctx<'a, S> {
    pub(crate) fn new(
        id: ConnId,
        wire: &'a mut Wire,
        state: &'a mut S,
        shared: &'a mut Shared,
        direct: Option<&'a dyn SendNow>,
    ) -> Self {
        Self { id, wire, state, shared, direct }
    }

    /// The same connection with a part of its state: for the handler inside of another.
    pub fn project<T>(&mut self, pick: impl FnOnce(&mut S) -> &mut T) -> Ctx<'_, T> {
        let Self { id, wire, state, shared, direct } = self;
        Ctx { id: *id, wire, state: pick(state), shared, direct: *direct }
    }

    /// The same connection with a part of its state, if it has that.
    pub(crate) fn try_project<'s, T>(
        &'s mut self,
        pick: impl FnOnce(&'s mut S) -> Option<&'s mut T>,
    ) -> Option<Ctx<'s, T>> {
        let Self { id, wire, state, shared, direct } = self;
        Some(Ctx { id: *id, wire, state: pick(state)?, shared, direct: *direct })
    }

    /// What the engine keeps of the connection and of the worker.
    pub(crate) fn engine(&mut self) -> (ConnId, &mut Wire, &mut Shared) {
        (self.id, self.wire, self.shared)
    }

    /// The application's state of this connection.
    pub fn state(&self) -> &S {
        self.state
    }

    /// The application's state of this connection, to be changed.
    pub fn state_mut(&mut self) -> &mut S {
        self.state
    }

    /// The state, and the connection without it: to send what stands in the state.
    pub fn split(&mut self) -> (&mut S, Out<'_>) {
        let Self { id, wire, state, shared, direct } = self;
        // Has no size, so that nothing is allocated.
        let none = Box::leak(Box::new(NoState));
        (state, Ctx { id: *id, wire, state: none, shared, direct: *direct })
    }

    /// The connection's identity, for [`Handle`](crate::Handle).
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The other side's address; the unspecified one (`[::]:0`) on a Unix socket.
    pub fn peer_addr(&self) -> SocketAddr {
        self.wire.peer.into()
    }

    /// What the TLS handshake agreed on: version, cipher suite, SNI, ALPN, the client's certificate. `None` on a
    /// plain connection.
    pub fn tls(&self) -> Option<Facts<'_>> {
        self.shared.sessions.facts(self.id.slot)
    }

    /// Whether messages can be sent: no close has begun.
    pub fn is_open(&self) -> bool {
        self.wire.phase == Phase::Open
    }

    /// Whether compression was agreed on with this peer (permessage-deflate, RFC 7692).
    pub fn is_compressed(&self) -> bool {
        self.wire.flags.contains(Flags::DEFLATE)
    }

    /// Bytes of output that wait, this turn's included.
    pub fn queued_len(&self) -> usize {
        self.wire.queued_len() + self.shared.out.len()
    }

    // What the application wants to happen

    /// Pauses reading: no more calls with messages until [`resume`](Self::resume). The peer is held up
    /// by TCP's flow control. Pings are not answered meanwhile, and the idle timeout does not run.
    pub fn pause(&mut self) {
        self.wire.flags.insert(Flags::PAUSED);
    }

    /// Goes on reading. What came in before the pause is handed over first.
    pub fn resume(&mut self) {
        self.wire.release(Flags::PAUSED, self.shared.now);
    }

    /// Marks the peer as authenticated: [`max_unauthenticated_len`](crate::Config::max_unauthenticated_len) no longer
    /// limits its messages, from the next frame on, also inside a message that has begun. If the request already proved
    /// who the peer is, call this in [`on_open`](crate::Handler::on_open).
    pub fn set_authenticated(&mut self) {
        self.wire.flags.remove(Flags::UNAUTHENTICATED);
    }

    // The time that the connection has

    /// Closes the connection with `code` at that time, unless another call moves the deadline or it is
    /// [cleared](Self::clear_deadline): for an authorisation that expires. Fires up to two ticks of 100 ms late, never
    /// early, whether the connection is paused or not; [`CloseReason::Deadline`](crate::CloseReason::Deadline) follows.
    /// Takes about eight bytes for each connection of the worker, once one of them has a deadline.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use ringwire::{CloseCode, Ctx, SendError};
    /// # fn on_token(ctx: &mut Ctx<'_, ()>, expires: SystemTime) -> Result<(), SendError> {
    /// ctx.set_deadline(Duration::from_secs(30), CloseCode::new(4401))?;
    /// // A token came.
    /// ctx.set_deadline(expires, CloseCode::new(4401))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The code may not be sent, or a close has begun already.
    pub fn set_deadline(
        &mut self,
        at: impl Into<Deadline>,
        code: CloseCode,
    ) -> Result<(), SendError> {
        self.set_deadline_with(at, code, "the time is up")
    }

    /// As [`set_deadline`](Self::set_deadline), with what the close frame says beside the code, at most 123 bytes (RFC
    /// 6455 §5.5.1): why the time was limited, and what the client can do. Each text is kept once for a worker, for as
    /// long as it runs.
    ///
    /// # Errors
    /// As [`set_deadline`](Self::set_deadline).
    pub fn set_deadline_with(
        &mut self,
        at: impl Into<Deadline>,
        code: CloseCode,
        reason: &'static str,
    ) -> Result<(), SendError> {
        if !code.is_sendable() {
            return Err(SendError::BadCloseCode);
        }
        if !self.is_open() {
            return Err(SendError::Closing);
        }
        let tick = at.into().tick(self.shared.now);
        self.shared.deadlines.set(self.id.slot, tick, code, cut_reason(reason));
        self.shared.wheel.set_earlier(self.id.slot, tick);
        Ok(())
    }

    /// Takes away the deadline of [`set_deadline`](Self::set_deadline). Gives whether there was one.
    pub fn clear_deadline(&mut self) -> bool {
        self.shared.deadlines.clear(self.id.slot)
    }

    /// Calls [`on_timer`](crate::Handler::on_timer) with `key` once `after` has passed. A timer with the same key is
    /// replaced. Fires once, up to two ticks of 100 ms late and never early, whether the connection is paused or not,
    /// and no more once the connection closes. At most 64 timers a connection. Each takes 16 bytes; once one connection
    /// of the worker has a timer, each of its connections takes 24 bytes more.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ringwire::{Ctx, TimerError};
    /// const TYPING: u64 = 1;
    ///
    /// # fn on_key(ctx: &mut Ctx<'_, ()>) -> Result<(), TimerError> {
    /// ctx.set_timer(TYPING, Duration::from_secs(3))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The connection has as many timers as it may, or is closing.
    pub fn set_timer(&mut self, key: u64, after: Duration) -> Result<(), TimerError> {
        if !self.is_open() {
            return Err(TimerError::Closing);
        }
        let due = self.shared.now + ticks_of(after).max(1);
        self.shared.timers.set(self.id.slot, key, due)?;
        self.shared.wheel.set_earlier(self.id.slot, due);
        Ok(())
    }

    /// Takes a timer away. Gives whether there was one with this key.
    pub fn clear_timer(&mut self, key: u64) -> bool {
        self.shared.timers.clear(self.id.slot, key)
    }

    // What goes out

    /// Sends a message. It is encoded at once and goes out at the end of this connection's turn.
    ///
    /// # Errors
    /// [`SendError::Closing`]: a close has begun. [`SendError::Full`]: as much waits for the peer as may, and the
    /// connection's [policy](crate::Backpressure) is not to make room.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<Sent, SendError> {
        self.send_with(message, SendOptions::default())
    }

    /// Sends a message that replaces one with the same key which still waits: for values of which only the
    /// newest counts. Where nothing waits it is sent as any other.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_keyed<'m>(
        &mut self,
        key: u64,
        message: impl Into<Message<'m>>,
    ) -> Result<Sent, SendError> {
        self.send_with(message, SendOptions::default().with_key(key))
    }

    /// Sends a message, with options.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    #[inline]
    pub fn send_with<'m>(
        &mut self,
        message: impl Into<Message<'m>>,
        options: SendOptions,
    ) -> Result<Sent, SendError> {
        let Self { id, wire, shared, direct, .. } = self;
        let message = message.into();
        if let Some(direct) = direct
            && message.len() > shared.limits.receive_buffer_len
            && send::may_go_at_once(wire, shared, options)
        {
            let token = Token { slot: id.slot, generation: id.generation };
            return send::send_at_once(wire, shared, token, message, *direct);
        }
        send::send(wire, shared, id.slot, message, options)
    }

    // Topics

    /// Subscribes to a topic, such as `trades.EURUSD`. Gives `false` if the connection was subscribed to it already.
    /// The subscription ends with the connection.
    ///
    /// It is for this one topic: a wildcard is an error, so a text that a peer chose names one topic at most. A dot in
    /// such a text still makes another topic of it; [`topic_token`](crate::topics::topic_token) encodes it.
    ///
    /// What is published from now on comes; what was published in this very turn may come.
    ///
    /// ```
    /// # use ringwire::{Ctx, topics::{TopicError, topic_token}};
    /// /// The name of the room comes from the peer.
    /// fn join(ctx: &mut Ctx<'_, ()>, room: &str) -> Result<bool, TopicError> {
    ///     ctx.subscribe(&format!("room.{}", topic_token(room)))
    /// }
    /// ```
    ///
    /// # Errors
    /// The topic is invalid, or the connection has too many subscriptions or is closing.
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, TopicError> {
        self.subscribe_with(topic, SubscribeOptions::default())
    }

    /// Subscribes, with options. An existing subscription gets the new options.
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe).
    pub fn subscribe_with(
        &mut self,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<bool, TopicError> {
        self.check_open()?;
        let is_new = self.shared.topics.subscribe(self.id.slot, topic, options)?;
        self.shared.counters.subscriptions.add(usize::from(is_new));
        Ok(is_new)
    }

    /// Subscribes to all topics that a pattern matches: `*` stands for one token, `>` at the end for one or more. Gives
    /// `false` if the connection was subscribed to it already. A pattern without wildcards is a topic, as for
    /// [`subscribe`](Self::subscribe).
    ///
    /// Not for a text that a peer chose: `>` matches every topic.
    ///
    /// # Errors
    /// The pattern is invalid, or the connection has too many subscriptions or is closing.
    pub fn subscribe_pattern(&mut self, pattern: &str) -> Result<bool, TopicError> {
        self.subscribe_pattern_with(pattern, SubscribeOptions::default())
    }

    /// Subscribes to a pattern, with options. An existing subscription gets the new options.
    ///
    /// # Errors
    /// As for [`subscribe_pattern`](Self::subscribe_pattern).
    pub fn subscribe_pattern_with(
        &mut self,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<bool, TopicError> {
        self.check_open()?;
        let is_new = self.shared.topics.subscribe_pattern(self.id.slot, pattern, options)?;
        self.shared.counters.subscriptions.add(usize::from(is_new));
        Ok(is_new)
    }

    /// Subscribes to a topic with a [history](crate::topics::HistoryConfig), and gives what the connection has missed
    /// since `since`. What is published from then on comes once, in order, behind what this call's handler sends: so
    /// that is where to send what was missed. On a topic that the connection is subscribed to already it is the same.
    ///
    /// `None` as the position: the connection has yet to hear the topic, and nothing is missed.
    ///
    /// ```
    /// # use ringwire::{Ctx, topics::{Position, TopicError}};
    /// fn join(ctx: &mut Ctx<'_, ()>, room: &str, heard: Option<Position>) -> Result<(), TopicError> {
    ///     let recovery = ctx.subscribe_since(room, heard)?;
    ///     let Some(missed) = recovery.missed else {
    ///         let _ = ctx.send("too late: load the room anew");
    ///         return Ok(());
    ///     };
    ///     for recorded in missed {
    ///         let _ = ctx.send(recorded.message());
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`subscribe`](Self::subscribe), or nothing is kept of this topic.
    pub fn subscribe_since(
        &mut self,
        topic: &str,
        since: Option<Position>,
    ) -> Result<Recovery, TopicError> {
        self.check_open()?;
        let (recovery, is_new) = self.shared.topics.subscribe_since(self.id.slot, topic, since)?;
        self.shared.counters.subscriptions.add(usize::from(is_new));
        Ok(recovery)
    }

    /// As [`subscribe_since`](Self::subscribe_since), but asks the [bus](crate::cluster) too where that numbers the
    /// topic for all nodes and may know more of what was missed than this node. `then` is called with the answer, at
    /// once if there is nothing to wait for. Until then the connection gets nothing of the topic. It is a job of the
    /// connection ([`spawn`](Self::spawn)), so answers come in the order of the calls. If the bus does not answer,
    /// `then` gets what this node knows.
    ///
    /// # Errors
    /// As for [`subscribe_since`](Self::subscribe_since). `then` gets [`TopicError::Left`] if the subscription has
    /// ended meanwhile. If the connection has as many jobs as it may, `then` gets what this node knows, at once.
    pub fn recover(
        &mut self,
        topic: &str,
        since: Option<Position>,
        then: impl FnOnce(&mut Ctx<'_, S>, Result<Recovery, TopicError>) + 'static,
    ) -> Result<(), TopicError>
    where
        S: 'static,
    {
        self.check_open()?;
        let loading = self.shared.topics.load_since(self.id.slot, topic, since)?;
        let Some((loading, is_new)) = loading else {
            let recovery = self.subscribe_since(topic, since)?;
            then(self, Ok(recovery));
            return Ok(());
        };
        self.shared.counters.subscriptions.add(usize::from(is_new));
        let own = topic.to_owned();
        // Whichever comes first takes it.
        let then = Rc::new(Cell::new(Some(then)));
        let last = Rc::clone(&then);
        let waiting = self.spawn_or_pause(loading, move |ctx, ()| {
            let is_there = ctx.is_subscribed(&own);
            let recovery =
                if is_there { ctx.subscribe_since(&own, since) } else { Err(TopicError::Left) };
            if let Some(then) = then.take() {
                then(ctx, recovery);
            }
        });
        if waiting.is_err()
            && let Some(then) = last.take()
        {
            let recovery = self.subscribe_since(topic, since)?;
            then(self, Ok(recovery));
        }
        Ok(())
    }

    fn check_open(&self) -> Result<(), TopicError> {
        if self.is_open() { Ok(()) } else { Err(TopicError::Closing) }
    }

    /// Ends the subscription to a topic. Gives whether there was one. Patterns stay, also those that match the topic.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        self.end_subscription(Subscription::Topic(topic))
    }

    /// Ends the subscription to a pattern, written as it was there. Gives whether there was one.
    pub fn unsubscribe_pattern(&mut self, pattern: &str) -> bool {
        self.end_subscription(Subscription::of(pattern))
    }

    fn end_subscription(&mut self, subscription: Subscription<'_>) -> bool {
        let was = self.shared.topics.unsubscribe(self.id.slot, subscription);
        self.shared.counters.subscriptions.sub(usize::from(was));
        was
    }

    /// Whether the connection is subscribed to this very topic. Patterns that match it do not count; for those look at
    /// its [`subscriptions`](Self::subscriptions).
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.shared.topics.is_subscribed(self.id.slot, Subscription::Topic(topic))
    }

    /// What the connection is subscribed to, topics and patterns, in no particular order. As with
    /// [`names`](Self::names), `on_close` still has them.
    pub fn subscriptions(&self) -> impl Iterator<Item = Subscription<'_>> {
        self.shared.topics.subscriptions_of(self.id.slot)
    }

    /// Sends a message to all who subscribe to `topic`, on all workers, this connection included. It goes out at the
    /// end of the turn, behind what is sent in it. Each subscriber gets the publications of one connection, and those
    /// of one thread through [`Handle`](crate::Handle), in their order.
    ///
    /// Where the server is a node of a [cluster](crate::cluster), subscribers of the other nodes get it too.
    ///
    /// # Errors
    /// The topic is invalid, some workers are too far behind to get it, or too much waits for the other nodes.
    pub fn publish<'m>(
        &mut self,
        topic: &str,
        message: impl Into<Message<'m>>,
    ) -> Result<(), PublishError> {
        self.publish_with(topic, message, PublishOptions::default())
    }

    /// Publishes, with options: [`with_except(ctx.id())`](PublishOptions::with_except) leaves this connection
    /// out, [`with_except_name`](PublishOptions::with_except_name) all of a user.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub fn publish_with<'m>(
        &mut self,
        topic: &str,
        message: impl Into<Message<'m>>,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        let outcome = self.shared.topics.publish(topic, message.into(), options);
        let is_one = !matches!(outcome, Err(PublishError::Topic(_)));
        self.shared.counters.publications.add(usize::from(is_one));
        outcome
    }

    // Names

    /// Gives this connection a name under which [`Handle::send_to`](crate::Handle::send_to) and
    /// [`Handle::connections`](crate::Handle::connections) find it from anywhere: the user's, say. Several connections
    /// may have the same, and a connection several; the engine takes them away when it ends. Gives `false` if the
    /// connection had it already.
    ///
    /// Takes a lock that a 64th of all names share, and may wake another worker, which calls
    /// [`Handler::on_presence`](crate::Handler::on_presence).
    ///
    /// # Errors
    /// The name is longer than 255 bytes, the connection has 64 of them, or is closing.
    pub fn register(&mut self, name: &str) -> Result<bool, NameError> {
        if !self.is_open() {
            return Err(NameError::Closing);
        }
        self.shared.names.add(self.id, name)
    }

    /// Takes a name away. Gives whether the connection had it.
    pub fn unregister(&mut self, name: &str) -> bool {
        self.shared.names.remove(self.id, name)
    }

    /// The names of this connection. [`on_close`](crate::Handler::on_close) still has them; they are taken away after
    /// it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shared.names.of(self.id.slot)
    }

    // Control frames

    /// Sends a ping with at most 125 bytes (RFC 6455 §5.5.2). The engine sends pings of its own after silence.
    ///
    /// # Errors
    /// The payload is too long, or a close has begun.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.shared.reserve_out(payload.len());
        let Shared { masks, out, .. } = &mut *self.shared;
        self.wire.codec.send_ping(payload, masks, out)
    }

    /// Sends a pong that answers no ping, with at most 125 bytes: a sign of life that asks for nothing (RFC 6455
    /// §5.5.3). The engine itself answers the peer's pings.
    ///
    /// # Errors
    /// The payload is too long, or a close has begun.
    pub fn pong(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.shared.reserve_out(payload.len());
        let Shared { masks, out, .. } = &mut *self.shared;
        self.wire.codec.send_pong(payload, masks, out)
    }

    /// Starts the close handshake (RFC 6455 §7.1.2). What was sent before goes out first.
    ///
    /// # Errors
    /// The code may not be sent, the reason is longer than 123 bytes, or a close has begun already.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), SendError> {
        send::close(self.wire, self.shared, CloseReason::Local, code, reason)
    }
}
