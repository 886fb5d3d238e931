//! A client that comes back.

mod attempt;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringwire_codec::{CloseCode, Message};

use crate::attempts::Attempts;
use crate::blocking::{Client, Receiver, Sender, check_close};
use crate::builder::Builder;
use crate::error::{BoxError, Error, UrlProblem, Waiting};
use crate::message::{Event, OwnedMessage};
use crate::outbox::{Outbox, OutboxConfig};
use crate::policy::RetryPolicy;
use crate::url::Url;
use crate::wire::earlier;
pub use attempt::Attempt;
use world::{System, World};

/// A client that connects again when its connection is lost, for as long as its [`RetryPolicy`] says.
///
/// It has no thread: it connects, waits and receives in [`next_update`](Self::next_update), which is to be called in a
/// loop. Dropped, it comes back no more, and its senders say so. Other threads send through a [`ReconnectingSender`],
/// at any time: what cannot go out now waits in a bounded queue and is sent, in order, once there is a connection
/// again. So is a message that the socket had not taken whole when its connection was lost, and none arrives twice; one
/// that it had may not arrive at all. Who needs more has the server acknowledge messages:
/// [`Requests`](crate::Requests).
///
/// ```
/// use ringwire_client::http::{HeaderValue, header};
/// use ringwire_client::{Client, OwnedMessage, Reconnecting, Verdict, verdict_on};
///
/// # mod server { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/server.rs")); }
/// # let address = server::start(|request, _| request.contains("authorization: Bearer 2\r\n"));
/// # let builder = Client::builder().without_proxy();
/// # fn ask_for_token(number: u32) -> std::io::Result<String> { Ok(number.to_string()) }
/// let mut token = ask_for_token(1)?;
/// let mut client = Reconnecting::new(builder, format!("ws://{address}/"))
///     .prepare(move |attempt, why| {
///         if why.is_some_and(|error| verdict_on(error) == Verdict::Renew) {
///             token = ask_for_token(2)?;
///         }
///         let value = HeaderValue::try_from(format!("Bearer {token}"))?;
///         attempt.set_header(header::AUTHORIZATION, value);
///         Ok(())
///     })
///     .on_connect(|client| client.send_text("subscribe"));
/// // The first token is refused, the second is not.
/// assert_eq!(client.receive()?, Some(OwnedMessage::from("subscribe")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reconnecting {
    builder: Builder,
    url: Result<Url, UrlProblem>,
    policy: RetryPolicy,
    prepare: Option<Prepare>,
    on_connect: Option<OnConnect>,
    shared: Arc<Shared>,
    connection: Option<Receiver>,
    attempts: Attempts,
    /// Why there is no connection any more, or still none.
    last_error: Option<Arc<Error>>,
    has_ended: bool,
    reported_dropped_count: u64,
    world: Box<dyn World>,
}

type Prepare = Box<dyn FnMut(&mut Attempt, Option<&Error>) -> Result<(), BoxError> + Send>;
type OnConnect = Box<dyn FnMut(&mut Client) -> Result<(), Error> + Send>;

/// What happens to a [`Reconnecting`] client.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// A message.
    Message(OwnedMessage),
    /// There is a connection, and the queue has been sent.
    Connected {
        /// How many attempts it took.
        attempts: u32,
        /// How many messages the queue had to drop since the last time.
        dropped: u64,
    },
    /// There is none, or still none.
    Disconnected {
        /// Why. It is shared with the hook of [`Reconnecting::prepare`].
        error: Arc<Error>,
        /// How long until the next attempt.
        delay: Duration,
    },
}

/// What has become of a message so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The socket has it.
    Sent,
    /// It waits for a connection. Older messages may have been dropped for it:
    /// [`dropped_count`](ReconnectingSender::dropped_count).
    Queued,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told when the client is closed.
    closed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Set while there is a connection and the queue is empty.
    sender: Option<Sender>,
    outbox: Outbox,
    /// Code and reason, once the application has closed the client.
    closing: Option<(CloseCode, String)>,
    has_ended: bool,
}

impl Reconnecting {
    /// A client that connects to the URL at the first [`next_update`](Self::next_update). A text that is no URL is the
    /// error of that.
    #[must_use]
    pub fn new<U: TryInto<Url>>(builder: Builder, url: U) -> Self
    where
        UrlProblem: From<U::Error>,
    {
        Self::within(Box::new(System), builder, url.try_into().map_err(UrlProblem::from))
    }

    fn within(world: Box<dyn World>, builder: Builder, url: Result<Url, UrlProblem>) -> Self {
        let state = State {
            sender: None,
            outbox: Outbox::new(OutboxConfig::default()),
            closing: None,
            has_ended: false,
        };
        Self {
            builder,
            url,
            policy: RetryPolicy::default(),
            prepare: None,
            on_connect: None,
            shared: Arc::new(Shared { state: Mutex::new(state), closed: Condvar::new() }),
            connection: None,
            attempts: Attempts::default(),
            last_error: None,
            has_ended: false,
            reported_dropped_count: 0,
            world,
        }
    }

    /// Whether and when to come back.
    #[must_use]
    pub fn with_policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The queue for messages while there is no connection. To be set before anything is sent.
    #[must_use]
    pub fn with_outbox(self, config: OutboxConfig) -> Self {
        self.shared.state().outbox = Outbox::new(config);
        self
    }

    /// Called before each attempt, the first one too, right before it is made: here its headers and its URL get a fresh
    /// token. What the hook changes is of this attempt alone. It is told why there is no connection any more, or still
    /// none; at the first attempt there is no reason.
    ///
    /// If it fails, so has the attempt, with [`Error::Prepare`], and the policy says whether there is another: by
    /// default as after the client's own [`Error`], if it is one, and otherwise as after a network that failed.
    /// Credentials that the server refuses, be it by a status or by a close code, are renewed only with this hook, and
    /// [`RetryPolicy::max_renewals`] times in a row.
    #[must_use]
    pub fn prepare(
        mut self,
        hook: impl FnMut(&mut Attempt, Option<&Error>) -> Result<(), BoxError> + Send + 'static,
    ) -> Self {
        self.prepare = Some(Box::new(hook));
        self
    }

    /// Called with each new connection before the queue is sent: here the application subscribes again. If it fails,
    /// so has the attempt.
    #[must_use]
    pub fn on_connect(
        mut self,
        hook: impl FnMut(&mut Client) -> Result<(), Error> + Send + 'static,
    ) -> Self {
        self.on_connect = Some(Box::new(hook));
        self
    }

    /// A sender for this and other threads.
    #[must_use]
    pub fn sender(&self) -> ReconnectingSender {
        ReconnectingSender { shared: Arc::clone(&self.shared) }
    }

    /// What happens next. `None` once the application has closed the client, or after the error that ended it.
    ///
    /// # Errors
    /// The last error, once the policy gives up.
    pub fn next_update(&mut self) -> Result<Option<Update>, Error> {
        self.advance(None)
    }

    /// The same, waiting for at most `timeout`; an attempt to connect is not interrupted.
    ///
    /// # Errors
    /// [`Error::Timeout`] of [`Waiting::Receive`], after which all is as it was; as [`next_update`](Self::next_update).
    pub fn next_update_timeout(&mut self, timeout: Duration) -> Result<Option<Update>, Error> {
        self.advance(self.world.now().checked_add(timeout))
    }

    /// The next message, whatever else happens.
    ///
    /// # Errors
    /// As [`next_update`](Self::next_update).
    pub fn receive(&mut self) -> Result<Option<OwnedMessage>, Error> {
        loop {
            match self.next_update()? {
                Some(Update::Message(message)) => return Ok(Some(message)),
                Some(Update::Connected { .. } | Update::Disconnected { .. }) => {}
                None => return Ok(None),
            }
        }
    }

    /// Takes out what was never sent.
    pub fn take_unsent(&mut self) -> Vec<OwnedMessage> {
        self.shared.state().outbox.drain()
    }

    /// The connection, while there is one as far as is known.
    pub(super) fn connection(&self) -> Option<Sender> {
        self.connection.as_ref().map(Receiver::sender)
    }

    pub(super) fn advance(&mut self, deadline: Option<Instant>) -> Result<Option<Update>, Error> {
        loop {
            if self.has_ended {
                return Ok(None);
            }
            if let Some(receiver) = &self.connection {
                let error = match receiver.receive_until(deadline) {
                    Ok(Some(Event::Message(message))) => return Ok(Some(Update::Message(message))),
                    Ok(Some(Event::Ping(_) | Event::Pong(_))) => continue,
                    Err(error @ Error::Timeout(Waiting::Receive)) => return Err(error),
                    Err(error) => error,
                    Ok(None) => {
                        let (code, reason) =
                            receiver.close_frame().unwrap_or((CloseCode::NO_STATUS, String::new()));
                        Error::Closed { code, reason }
                    }
                };
                return self.on_lost(error);
            }
            if !self.await_attempt(deadline)? {
                self.end();
                continue;
            }
            return match self.connect() {
                Ok(update) => Ok(Some(update)),
                Err(error) => self.on_lost(error),
            };
        }
    }

    /// Waits until the next attempt is due. Gives whether it is: not if the application has closed the client.
    fn await_attempt(&self, deadline: Option<Instant>) -> Result<bool, Error> {
        let mut state = self.shared.state();
        loop {
            let now = self.world.now();
            if state.closing.is_some() {
                return Ok(false);
            }
            let Some(next_attempt) = self.attempts.due(now) else { return Ok(true) };
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(Error::Timeout(Waiting::Receive));
            }
            let until = earlier(deadline, Some(next_attempt)).unwrap_or(next_attempt);
            state = self.world.wait(&self.shared.closed, state, until);
        }
    }

    fn connect(&mut self) -> Result<Update, Error> {
        let number = self.attempts.count().saturating_add(1);
        let mut attempt = Attempt::new(&self.builder, &self.url, number)?;
        if let Some(hook) = &mut self.prepare {
            hook(&mut attempt, self.last_error.as_deref()).map_err(Error::Prepare)?;
        }
        let mut client = self.world.connect(&attempt.builder, &attempt.url)?;
        if let Some(hook) = &mut self.on_connect {
            hook(&mut client)?;
        }
        let (sender, receiver) = client.split();
        self.flush(&sender)?;
        self.connection = Some(receiver);
        let attempts = self.attempts.on_connected(self.world.now());
        let dropped_count = self.shared.state().outbox.dropped_count();
        let dropped = dropped_count - self.reported_dropped_count;
        self.reported_dropped_count = dropped_count;
        Ok(Update::Connected { attempts, dropped })
    }

    /// Sends what has waited; then whoever sends does so directly.
    fn flush(&self, sender: &Sender) -> Result<(), Error> {
        loop {
            let mut state = self.shared.state();
            let Some(message) = state.outbox.pop() else {
                state.sender = Some(sender.clone());
                return match state.closing.clone() {
                    None => Ok(()),
                    Some((code, reason)) => {
                        drop(state);
                        sender.close(code, &reason)
                    }
                };
            };
            drop(state);
            if let Err(error) = sender.send(message.as_message()) {
                if !matches!(error, Error::InvalidMessage(_)) {
                    self.shared.state().outbox.push_front(message);
                }
                return Err(error);
            }
        }
    }

    /// The connection is lost or the attempt has failed.
    fn on_lost(&mut self, error: Error) -> Result<Option<Update>, Error> {
        self.connection = None;
        let is_closing = {
            let mut state = self.shared.state();
            state.sender = None;
            state.closing.is_some()
        };
        if is_closing {
            self.end();
            return Ok(None);
        }
        let random = self.world.random()?;
        let may_renew = self.prepare.is_some();
        let now = self.world.now();
        let delay = self.attempts.on_lost(&self.policy, &error, now, random, may_renew);
        let Some(delay) = delay else {
            self.end();
            return Err(error);
        };
        let error = Arc::new(error);
        self.last_error = Some(Arc::clone(&error));
        Ok(Some(Update::Disconnected { error, delay }))
    }

    fn end(&mut self) {
        self.has_ended = true;
        let mut state = self.shared.state();
        state.has_ended = true;
        state.sender = None;
    }
}

impl Drop for Reconnecting {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a token.
        f.debug_struct("Reconnecting")
            .field("is_connected", &self.connection.is_some())
            .field("attempt", &self.attempts.count())
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}

/// Sends on whatever connection a [`Reconnecting`] client has.
#[derive(Clone, Debug)]
pub struct ReconnectingSender {
    shared: Arc<Shared>,
}

impl ReconnectingSender {
    /// Sends a message, or queues it while there is no connection.
    ///
    /// # Errors
    /// [`Error::OutboxFull`] if the queue did not take it, [`Error::InvalidMessage`] if no connection would;
    /// [`Error::Closed`] if the application has closed the client, [`Error::Lost`] if it has ended otherwise.
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Delivery, Error> {
        let message = message.into();
        let mut failed: Option<Sender> = None;
        loop {
            let sender = {
                let mut state = self.shared.state();
                state.check()?;
                // While this message failed on one connection, there may have been time for another.
                let current = state.sender.as_ref();
                match current.filter(|now| failed.as_ref().is_none_or(|old| !now.is_same(old))) {
                    Some(sender) => sender.clone(),
                    None => return state.queue(message),
                }
            };
            match sender.send(message) {
                Ok(()) => return Ok(Delivery::Sent),
                Err(error @ Error::InvalidMessage(_)) => return Err(error),
                Err(_) => failed = Some(sender),
            }
        }
    }

    /// Why nothing can be sent any more, if that is so.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.shared.state().check()
    }

    /// Whether there is a connection, as far as is known.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.state().sender.is_some()
    }

    /// How many messages the queue had to drop, ever.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.shared.state().outbox.dropped_count()
    }

    /// Ends the client: closes its connection, if there is one, and lets it make no other.
    ///
    /// # Errors
    /// As [`Sender::close`]. After [`Error::InvalidMessage`] all is as it was.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let sender = {
            let mut state = self.shared.state();
            if state.closing.is_none() {
                check_close(code, reason)?;
                state.closing = Some((code, reason.to_owned()));
            }
            state.sender.take()
        };
        self.shared.closed.notify_all();
        sender.map_or(Ok(()), |sender| sender.close(code, reason))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether anything will be sent any more.
    fn check(&self) -> Result<(), Error> {
        match &self.closing {
            Some((code, reason)) => Err(Error::Closed { code: *code, reason: reason.clone() }),
            None if self.has_ended => Err(Error::Lost(io::Error::new(
                io::ErrorKind::NotConnected,
                "the client has ended",
            ))),
            None => Ok(()),
        }
    }

    fn queue(&mut self, message: Message<'_>) -> Result<Delivery, Error> {
        // The connection is lost, whoever has noticed it first: what follows must not overtake this message.
        self.sender = None;
        if self.outbox.push(message.into()) { Ok(Delivery::Queued) } else { Err(Error::OutboxFull) }
    }
}
