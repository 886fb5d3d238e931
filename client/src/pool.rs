//! Several connections to one URL.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringwire_codec::CloseCode;

use crate::blocking::{Client, Sender, check_close};
use crate::builder::Builder;
use crate::error::{Error, UrlProblem, Waiting};
use crate::message::Event;
use crate::url::Url;
use crate::wire::after;

/// Up to a number of clients to one URL, for use one at a time. A clone is the same pool.
///
/// Clients are connected when they are needed. One that waited is checked before it is given out: it must have
/// received nothing, and after a while of waiting it must answer a ping.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    builder: Builder,
    url: Result<Url, UrlProblem>,
    max_count: usize,
    check_after: Duration,
    check_timeout: Duration,
    state: Mutex<State>,
    /// Told when a client is returned, a place is free, or the pool is closed.
    changed: Condvar,
}

struct State {
    /// Those that wait, the last returned at the end.
    idle: Vec<Idle>,
    /// Of all clients, in use or not.
    senders: HashMap<u64, Sender>,
    /// Clients and attempts to connect one. Invariant: at most `max_count`.
    count: usize,
    next_key: u64,
    closed: Option<(CloseCode, String)>,
}

struct Idle {
    client: Client,
    key: u64,
    since: Instant,
}

impl Pool {
    /// A pool of at most `max_count` clients, at least one. A text that is no URL is the error of [`get`](Self::get).
    #[must_use]
    pub fn new<U: TryInto<Url>>(builder: Builder, url: U, max_count: usize) -> Self
    where
        UrlProblem: From<U::Error>,
    {
        let state = State {
            idle: Vec::new(),
            senders: HashMap::new(),
            count: 0,
            next_key: 0,
            closed: None,
        };
        let shared = Shared {
            builder,
            url: url.try_into().map_err(UrlProblem::from),
            max_count: max_count.max(1),
            check_after: Duration::from_secs(5),
            check_timeout: Duration::from_secs(2),
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// After how long a client has to answer a ping before it is given out, and how fast. Default: 5 s and 2 s. To be
    /// set before the pool is cloned; later it changes nothing.
    #[must_use]
    pub fn with_check(mut self, after: Duration, timeout: Duration) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.check_after = after;
            shared.check_timeout = timeout;
        }
        self
    }

    /// A client that nobody else uses until it is dropped. Waits for one for at most `timeout`; connecting and
    /// checking have their own times.
    ///
    /// # Errors
    /// [`Error::Timeout`] of [`Waiting::Pool`]; [`Error::Closed`] once the pool is closed; as [`Builder::connect`].
    pub fn get(&self, timeout: Duration) -> Result<Pooled, Error> {
        let deadline = after(Some(timeout));
        let mut state = self.shared.state();
        loop {
            if let Some((code, reason)) = &state.closed {
                return Err(Error::Closed { code: *code, reason: reason.clone() });
            }
            if let Some(mut idle) = state.idle.pop() {
                drop(state);
                if self.shared.is_healthy(&mut idle) {
                    return Ok(self.lend(idle.client, idle.key));
                }
                self.shared.forget(Some(idle.key));
                state = self.shared.state();
                continue;
            }
            if state.count < self.shared.max_count {
                state.count += 1;
                drop(state);
                return self.connect();
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if left.is_zero() {
                return Err(Error::Timeout(Waiting::Pool));
            }
            let changed = self.shared.changed.wait_timeout(state, left);
            state = changed.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The number of clients, in use or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.state().count
    }

    /// The number of clients that wait.
    #[must_use]
    pub fn idle_count(&self) -> usize {
        self.shared.state().idle.len()
    }

    /// Closes all clients together, those in use as well, and waits for that. No client is given out after it.
    ///
    /// # Errors
    /// [`Error::InvalidMessage`] for a code that must not be sent or a reason of more than 123 bytes; then all is as it
    /// was. Else the first error of a client's [`close`](Sender::close); the others are closed all the same.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        let (idle, senders) = {
            let mut state = self.shared.state();
            if state.closed.is_none() {
                check_close(code, reason)?;
                state.closed = Some((code, reason.to_owned()));
            }
            let idle = std::mem::take(&mut state.idle);
            state.count -= idle.len();
            (idle, std::mem::take(&mut state.senders))
        };
        self.shared.changed.notify_all();
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = senders
                .values()
                .map(|sender| scope.spawn(move || sender.close(code, reason)))
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        drop(idle);
        results.into_iter().collect()
    }

    fn connect(&self) -> Result<Pooled, Error> {
        let url = self.shared.url.clone().map_err(Error::from);
        let connected = url.and_then(|url| self.shared.builder.connect(url));
        let client = match connected {
            Ok(client) => client,
            Err(error) => {
                self.shared.forget(None);
                return Err(error);
            }
        };
        let mut state = self.shared.state();
        let key = state.next_key;
        state.next_key += 1;
        if let Some((code, reason)) = state.closed.clone() {
            state.count -= 1;
            return Err(Error::Closed { code, reason });
        }
        state.senders.insert(key, client.sender());
        drop(state);
        Ok(self.lend(client, key))
    }

    fn lend(&self, client: Client, key: u64) -> Pooled {
        Pooled { client: Some(client), key, pool: Arc::clone(&self.shared) }
    }
}

impl Shared {
    /// Whether the client is as it was when it was returned, and its peer is there.
    fn is_healthy(&self, idle: &mut Idle) -> bool {
        let client = &mut idle.client;
        loop {
            match client.receive_event(Duration::ZERO) {
                Ok(Some(Event::Ping(_) | Event::Pong(_))) => {}
                Err(Error::Timeout(Waiting::Receive)) => break,
                Ok(_) | Err(_) => return false,
            }
        }
        if idle.since.elapsed() < self.check_after {
            return true;
        }
        let payload = idle.key.to_be_bytes();
        let deadline = after(Some(self.check_timeout));
        if client.ping(&payload).is_err() {
            return false;
        }
        loop {
            let left = deadline.map_or(self.check_timeout, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            match client.receive_event(left) {
                Ok(Some(Event::Pong(answer))) if answer == payload => return true,
                Ok(Some(Event::Ping(_) | Event::Pong(_))) => {}
                Ok(_) | Err(_) => return false,
            }
        }
    }

    /// A client, or an attempt to connect one, is no more.
    fn forget(&self, key: Option<u64>) {
        let mut state = self.state();
        state.count = state.count.saturating_sub(1);
        if let Some(key) = key {
            state.senders.remove(&key);
        }
        drop(state);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        f.debug_struct("Pool")
            .field("count", &state.count)
            .field("idle_count", &state.idle.len())
            .field("max_count", &self.shared.max_count)
            .finish_non_exhaustive()
    }
}

/// A client of a [`Pool`], which goes back there when it is dropped, if it is still open.
#[derive(Debug)]
pub struct Pooled {
    /// `None` only while it is dropped.
    client: Option<Client>,
    key: u64,
    pool: Arc<Shared>,
}

impl Pooled {
    /// Does not return the client, because it is in the middle of something: it is dropped.
    pub fn discard(mut self) {
        self.client = None;
    }
}

impl Deref for Pooled {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().unwrap_or_else(|| unreachable!("only a drop takes the client"))
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().unwrap_or_else(|| unreachable!("only a drop takes the client"))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        match self.client.take() {
            Some(client) if client.is_open() => {
                let mut state = self.pool.state();
                if state.closed.is_some() {
                    state.count = state.count.saturating_sub(1);
                    return;
                }
                state.idle.push(Idle { client, key: self.key, since: Instant::now() });
                drop(state);
                self.pool.changed.notify_one();
            }
            Some(_) | None => self.pool.forget(Some(self.key)),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("max_count", &self.max_count).finish_non_exhaustive()
    }
}
