//! A client that comes back.

#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringwire_codec::{CloseCode, Message};

use crate::attempts::Attempts;
use crate::blocking::{Client, Receiver, Sender};
use crate::builder::Builder;
use crate::error::{Error, Waiting};
use crate::message::{Event, OwnedMessage};
use crate::outbox::{Outbox, OutboxLimits};
use crate::policy::RetryPolicy;
use crate::wire::earlier;
use world::{System, World};

/// A client that connects again when its connection is lost, for as long as its [`RetryPolicy`] says.
///
/// It has no thread: it connects, waits and receives in [`next_update`](Self::next_update), which is to be called in a
/// loop. Other threads send through a [`ReconnectingSender`], at any time: what cannot go out now waits in a bounded
/// queue and is sent, in order, once there is a connection again. A message is queued when sending it failed, so that
/// a server may get one twice; one that the kernel took just before the connection was lost may not arrive. Who needs
/// more has the server acknowledge messages: [`Requests`](crate::Requests).
pub struct Reconnecting {
    builder: Builder,
    url: String,
    policy: RetryPolicy,
    prepare: Option<Prepare>,
    on_connect: Option<OnConnect>,
    shared: Arc<Shared>,
    connection: Option<Receiver>,
    attempts: Attempts,
    has_ended: bool,
    reported_dropped_count: u64,
    world: Box<dyn World>,
}

type Prepare = Box<dyn FnMut(Builder, &Error) -> Builder + Send>;
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
        /// Why.
        error: Error,
        /// How long until the next attempt.
        delay: Duration,
    },
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// The socket has it.
    Now,
    /// It waits for a connection. Older messages may have been dropped for it.
    Queued,
    /// The queue did not take it, or the client has ended.
    Dropped,
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
    /// A client that connects to the URL at the first [`next_update`](Self::next_update).
    #[must_use]
    pub fn new(builder: Builder, url: &str) -> Self {
        Self::within(Box::new(System), builder, url)
    }

    fn within(world: Box<dyn World>, builder: Builder, url: &str) -> Self {
        let state = State {
            sender: None,
            outbox: Outbox::new(OutboxLimits::default()),
            closing: None,
            has_ended: false,
        };
        Self {
            builder,
            url: url.to_owned(),
            policy: RetryPolicy::default(),
            prepare: None,
            on_connect: None,
            shared: Arc::new(Shared { state: Mutex::new(state), closed: Condvar::new() }),
            connection: None,
            attempts: Attempts::default(),
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

    /// The bounds of the queue. To be set before anything is sent.
    #[must_use]
    pub fn with_outbox(self, limits: OutboxLimits) -> Self {
        self.shared.state().outbox = Outbox::new(limits);
        self
    }

    /// Called with each error that another attempt follows, and gives the settings for it: here a token is renewed.
    #[must_use]
    pub fn prepare(
        mut self,
        hook: impl FnMut(Builder, &Error) -> Builder + Send + 'static,
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

    fn advance(&mut self, deadline: Option<Instant>) -> Result<Option<Update>, Error> {
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
        let mut client = self.world.connect(&self.builder, &self.url)?;
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
        if let Some(hook) = &mut self.prepare {
            self.builder = hook(self.builder.clone(), &error);
        }
        Ok(Some(Update::Disconnected { error, delay }))
    }

    fn end(&mut self) {
        self.has_ended = true;
        let mut state = self.shared.state();
        state.has_ended = true;
        state.sender = None;
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
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Sent {
        let message = message.into();
        let mut failed: Option<Sender> = None;
        loop {
            let sender = {
                let mut state = self.shared.state();
                if state.has_ended || state.closing.is_some() {
                    return Sent::Dropped;
                }
                // While this message failed on one connection, there may have been time for another.
                let current = state.sender.as_ref();
                match current.filter(|now| failed.as_ref().is_none_or(|old| !now.is_same(old))) {
                    Some(sender) => sender.clone(),
                    None => return state.queue(message),
                }
            };
            match sender.send(message) {
                Ok(()) => return Sent::Now,
                Err(Error::InvalidMessage(_)) => return Sent::Dropped,
                Err(_) => failed = Some(sender),
            }
        }
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
    /// As [`Sender::close`].
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let sender = {
            let mut state = self.shared.state();
            state.closing.get_or_insert_with(|| (code, reason.to_owned()));
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
    fn queue(&mut self, message: Message<'_>) -> Sent {
        // The connection is lost, whoever has noticed it first: what follows must not overtake this message.
        self.sender = None;
        if self.outbox.push(message.into()) { Sent::Queued } else { Sent::Dropped }
    }
}
