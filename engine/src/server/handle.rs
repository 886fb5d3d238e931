//! The way to a running server from any thread.

#![expect(
    clippy::disallowed_types,
    reason = "a handle is shared between threads; it is not on a message's path"
)]

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, io, iter};

use ringwire_codec::http::Response;
use ringwire_codec::{CloseCode, Message, cut_reason};
use ringwire_tls::pki_types::UnixTime;
use ringwire_tls::{ConfigError, ServerConfig};

use crate::app::handler::Handler;
use crate::base::inquiry::{Inquiry, Part, inquiry};
use crate::base::mailbox::{PostError, Postbox, Refused};
use crate::base::roll::Place;
use crate::compute::Meter;
use crate::conn::answer::{Accept, AnyState};
use crate::conn::dialling::DialError;
use crate::conn::id::ConnId;
use crate::conn::options::SendOptions;
use crate::driver::Token;
use crate::entry::adoption::Adoption;
use crate::entry::dial::{Dial, Outbound};
use crate::hub::handover::Handover;
use crate::hub::mail::Mail;
use crate::hub::{Hub, Link};
use crate::layers::tls::warn_of;
use crate::limits::memory::Level;
use crate::limits::{Drain, Draining, Readiness};
use crate::metrics::{Stats, TlsStats, TopicStats};
use crate::net::{self, TcpOptions};
use crate::topic::exchange::PublishError;
use crate::topic::relay::Relay;
use crate::topic::{PublishOptions, TopicQuery};

/// How long a shutdown waits for room in a mailbox that is full.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

/// The way to a running server: `Clone`, for any thread, also for handlers. [`Running::handle`](crate::Running::handle)
/// gives it, and [`WorkerContext::handle`](crate::WorkerContext::handle) where a handler is made.
///
/// Everything is posted to the worker that owns the connection, and done in its next turn. Nothing blocks:
/// a full mailbox is [`PostError::Busy`]. What is posted for a connection that has ended is dropped; for one of another
/// server in the same process, the error is [`PostError::OtherServer`]. Letters from one thread to one worker are read
/// in their order.
#[derive(Clone)]
pub struct Handle {
    /// The workers, and what all of them know of topics.
    pub(super) hub: Hub,
    tcp: TcpOptions,
    tls: Arc<Tls>,
    compute: Option<Arc<Meter>>,
    /// What a connection may have for a state.
    states: Arc<[TypeId]>,
}

/// TLS of the listeners, and what became of its reloads.
#[derive(Debug, Default)]
struct Tls {
    configs: Vec<ServerConfig>,
    reloads: AtomicU64,
    reload_failures: AtomicU64,
}

impl Handle {
    pub(crate) fn new(
        hub: Hub,
        tcp: TcpOptions,
        tls: impl IntoIterator<Item = ServerConfig>,
    ) -> Self {
        let tls = Tls { configs: tls.into_iter().collect(), ..Tls::default() };
        Self { hub, tcp, tls: Arc::new(tls), compute: None, states: Arc::default() }
    }

    /// With what is counted of the compute threads.
    pub(crate) fn with_compute(mut self, compute: Option<Arc<Meter>>) -> Self {
        self.compute = compute;
        self
    }

    /// For a server with handlers of this type.
    pub(crate) fn with_states_of<H: Handler>(mut self) -> Self {
        self.states = H::states().ids().collect();
        self
    }

    /// What the workers have counted. Reads atomics, so it may be called anywhere and often.
    pub fn stats(&self) -> Stats {
        let Tls { configs, reloads, reload_failures } = &*self.tls;
        Stats {
            workers: self.links().iter().map(|link| link.counters.read()).collect(),
            topics: TopicStats {
                retained_len: self.hub.exchange().retained_len(),
                history_len: self.hub.exchange().history_len(),
            },
            memory: self.hub.memory(),
            cluster: self.hub.exchange().relay().map(Relay::stats),
            compute: self.compute.as_ref().map(|meter| meter.read()).unwrap_or_default(),
            tls: TlsStats {
                reloads: reloads.load(Ordering::Relaxed),
                reload_failures: reload_failures.load(Ordering::Relaxed),
                not_after: configs.iter().map(|config| config.certificates().not_after()).min(),
            },
        }
    }

    /// Sends a message, which is copied. The connection's backpressure policy holds; what it does is counted in
    /// [`stats`](Self::stats).
    ///
    /// # Errors
    /// The worker is busy, or has ended.
    pub fn send<'m>(&self, conn: ConnId, message: impl Into<Message<'m>>) -> Result<(), PostError> {
        self.send_with(conn, message, SendOptions::default())
    }

    /// Sends a message that replaces one with the same key which still waits for the peer, as
    /// [`Ctx::send_keyed`](crate::Ctx::send_keyed).
    ///
    /// # Errors
    /// The worker is busy, or has ended.
    pub fn send_keyed<'m>(
        &self,
        conn: ConnId,
        key: u64,
        message: impl Into<Message<'m>>,
    ) -> Result<(), PostError> {
        self.send_with(conn, message, SendOptions::default().with_key(key))
    }

    /// Sends a message, with options. It is compressed by the worker.
    ///
    /// # Errors
    /// The worker is busy, or has ended.
    pub fn send_with<'m>(
        &self,
        conn: ConnId,
        message: impl Into<Message<'m>>,
        options: SendOptions,
    ) -> Result<(), PostError> {
        let message = message.into();
        let payload = message.as_bytes().to_vec();
        self.post(conn, Mail::Send { conn, options, text: message.is_text(), payload })
    }

    /// Sends a message to all who subscribe to `topic`, as [`Ctx::publish`](crate::Ctx::publish).
    ///
    /// # Errors
    /// The topic is invalid, some workers are too far behind to get it, or too much waits for the other nodes.
    pub fn publish<'m>(
        &self,
        topic: &str,
        message: impl Into<Message<'m>>,
    ) -> Result<(), PublishError> {
        self.publish_with(topic, message, PublishOptions::default())
    }

    /// Publishes, with options.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub fn publish_with<'m>(
        &self,
        topic: &str,
        message: impl Into<Message<'m>>,
        options: PublishOptions<'_>,
    ) -> Result<(), PublishError> {
        self.hub.exchange().publish(topic, message.into(), options, None).1
    }

    /// All topics and patterns that are subscribed to, and how many connections are subscribed to each, by name.
    pub fn topics(&self) -> Inquiry<BTreeMap<String, usize>> {
        self.ask_topics(TopicQuery::All)
    }

    /// How many connections would get what is published to `topic`.
    pub fn subscriber_count(&self, topic: &str) -> Inquiry<usize> {
        self.ask_topics(|part| TopicQuery::Count(topic.to_owned(), part))
    }

    /// The connections that would get what is published to `topic`, on all workers, in no particular order.
    pub fn subscribers(&self, topic: &str) -> Inquiry<Vec<ConnId>> {
        self.ask_topics(|part| TopicQuery::Subscribers(topic.to_owned(), part))
    }

    /// The open connections of all workers, in no particular order. Those that are open from the first call of
    /// [`next`](Iterator::next) to the last come once each. Asks no worker, and takes no lock: it is for any thread,
    /// handlers too.
    ///
    /// ```no_run
    /// # use ringwire::{CloseCode, Handle, PostError};
    /// # fn close_all(handle: &Handle) -> Result<(), PostError> {
    /// for connection in handle.connection_ids() {
    ///     handle.close(connection, CloseCode::SERVICE_RESTART, "maintenance")?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn connection_ids(&self) -> impl Iterator<Item = ConnId> + use<> {
        let (hub, mut worker, mut from) = (self.hub.clone(), 0, 0);
        iter::from_fn(move || {
            loop {
                if let Some(token) = hub.directory(worker)?.next(from) {
                    from = token.slot + 1;
                    let Token { slot, generation } = token;
                    let server = hub.server();
                    return Some(ConnId { server, worker, slot, generation });
                }
                (worker, from) = (worker + 1, 0);
            }
        })
    }

    /// The connections with a name that [`Ctx::register`](crate::Ctx::register) gave them, on all workers. Takes a lock
    /// for a moment.
    pub fn connections(&self, name: &str) -> Vec<ConnId> {
        self.hub.registry().find(name)
    }

    /// All names that begin with `prefix`, and the connections that have each, in no particular order. Whoever has a
    /// name from the first call of [`next`](Iterator::next) to the last is listed once. A prefix is any text: `user.1`
    /// finds `user.10` too.
    ///
    /// It is for any thread, handlers too: a lock is taken for a few hundred names at a time, and not held between.
    ///
    /// ```no_run
    /// # fn list(handle: &ringwire::Handle) {
    /// for (name, connections) in handle.names("user.") {
    ///     println!("{name} has {} connections", connections.len());
    /// }
    /// # }
    /// ```
    pub fn names(&self, prefix: &str) -> impl Iterator<Item = (String, Vec<ConnId>)> + use<> {
        let (hub, prefix, mut place) = (self.hub.clone(), prefix.to_owned(), Place::default());
        let pages = iter::from_fn(move || hub.registry().page(&prefix, &mut place));
        pages.flatten().map(|(name, conns)| (name.into(), conns))
    }

    /// Sends a message to all connections with a name. Gives to how many it was posted.
    ///
    /// # Errors
    /// A worker is busy or has ended; the connections before the first of its own have been posted to.
    pub fn send_to<'m>(
        &self,
        name: &str,
        message: impl Into<Message<'m>>,
    ) -> Result<usize, PostError> {
        let message = message.into();
        let conns = self.connections(name);
        conns.iter().try_for_each(|conn| self.send(*conn, message))?;
        Ok(conns.len())
    }

    /// Marks the peer as authenticated, as [`Ctx::set_authenticated`](crate::Ctx::set_authenticated).
    ///
    /// # Errors
    /// The worker is busy, or has ended.
    pub fn set_authenticated(&self, conn: ConnId) -> Result<(), PostError> {
        self.post(conn, Mail::Authenticated { conn })
    }

    /// Starts the close handshake. A code that may not be sent becomes 1000, and a reason is cut to
    /// 123 bytes (RFC 6455 §5.5.1).
    ///
    /// # Errors
    /// The worker is busy, or has ended.
    pub fn close(&self, conn: ConnId, code: CloseCode, reason: &str) -> Result<(), PostError> {
        let code = if code.is_sendable() { code } else { CloseCode::NORMAL };
        let reason = cut_reason(reason).to_owned();
        self.post(conn, Mail::Close { conn, code, reason })
    }

    /// Stops reading from a connection, as [`Ctx::pause`](crate::Ctx::pause).
    ///
    /// # Errors
    /// The worker is busy, or has ended.
    pub fn pause(&self, conn: ConnId) -> Result<(), PostError> {
        self.post(conn, Mail::Pause { conn, paused: true })
    }

    /// Goes on reading, as [`Ctx::resume`](crate::Ctx::resume).
    ///
    /// # Errors
    /// The worker is busy, or has ended.
    pub fn resume(&self, conn: ConnId) -> Result<(), PostError> {
        self.post(conn, Mail::Pause { conn, paused: false })
    }

    /// Accepts a request that was [deferred](crate::Answer::Defer), with the state of its connection: that of the
    /// handler, or of the handler of the route that it came for. One of another route's type is answered 500, with an
    /// error in the log.
    ///
    /// # Errors
    /// No handler has a state of this type, or the worker is busy, or has ended.
    pub fn accept<S: Send + 'static>(
        &self,
        conn: ConnId,
        accept: Accept<S>,
    ) -> Result<(), PostError> {
        self.check_state(TypeId::of::<S>())?;
        let accept = Box::new(accept.map(|state| Box::new(state) as AnyState));
        self.post(conn, Mail::Accept { conn, accept })
    }

    /// Refuses a request that was [deferred](crate::Answer::Defer).
    ///
    /// # Errors
    /// The worker is busy, or has ended.
    pub fn reject(&self, conn: ConnId, response: Response) -> Result<(), PostError> {
        self.post(conn, Mail::Reject { conn, response })
    }

    /// Serves a plain TCP connection that someone else accepted; `received` is what was read of it already, from the
    /// first byte of the request on. See [`adopt_with`](Self::adopt_with).
    ///
    /// # Errors
    /// The worker is busy or has ended; the connection comes back.
    pub fn adopt(&self, stream: TcpStream, received: Vec<u8>) -> Result<(), Refused<TcpStream>> {
        let adoption = Adoption::new(stream).with_received(received);
        self.adopt_with(adoption).map_err(|refused| refused.map(Adoption::into_stream))
    }

    /// Serves a plain TCP connection whose handshake someone else has answered with 101; `received` is what was read
    /// behind the request. See [`Adoption::with_state`].
    ///
    /// # Errors
    /// No handler has a state of this type, or the worker is busy or has ended; the connection comes back.
    pub fn adopt_upgraded<S: Send + 'static>(
        &self,
        stream: TcpStream,
        received: Vec<u8>,
        state: S,
    ) -> Result<(), Refused<TcpStream>> {
        let adoption = Adoption::new(stream).with_received(received).with_state(state);
        self.adopt_with(adoption).map_err(|refused| refused.map(Adoption::into_stream))
    }

    /// Serves a TCP connection that someone else accepted, plain or over TLS, before its first request or upgraded. It
    /// goes to the worker with the fewest connections. It counts for `max_connections` and
    /// `max_connections_per_address`, and may exceed both. A worker that [shuts down](Self::shutdown) closes it.
    ///
    /// # Errors
    /// No handler has a state of the adoption's type, or the worker is busy or has ended; the connection comes back as
    /// it was, so that it can be tried again.
    pub fn adopt_with(&self, adoption: Adoption) -> Result<(), Refused<Adoption>> {
        let type_id = adoption.state.as_deref().map(Any::type_id);
        if let Some(Err(error)) = type_id.map(|id| self.check_state(id)) {
            return Err(Refused { error, letter: adoption });
        }
        // Fails on a connection that has ended meanwhile, which the worker will find out.
        let _ = self.tcp.apply_anew(&adoption.stream);
        let Some(postbox) = self.least_loaded() else {
            return Err(Refused { error: PostError::NoSuchWorker, letter: adoption });
        };
        match postbox.post(Mail::Adopt(Box::new(adoption))) {
            Ok(()) => Ok(()),
            Err(Refused { error, letter: Mail::Adopt(adoption) }) => {
                Err(Refused { error, letter: *adoption })
            }
            Err(_) => unreachable!("a mailbox gives back the letter that it was given"),
        }
    }

    /// Reads the certificates of all TLS addresses anew from their files, checks them (text, key, dates, names), and
    /// puts them in place of the old for the handshakes that begin from now on. Connections that are open go on.
    /// Where the certificate of an address is wrong, its old one stays, and those of the other addresses are replaced.
    ///
    /// Reads files, so it blocks: not for a handler.
    ///
    /// # Errors
    /// The first certificate that is wrong. Each failure is logged, and counted in [`stats`](Self::stats).
    pub fn reload_tls(&self) -> Result<(), ConfigError> {
        let mut outcome = Ok(());
        for config in &self.tls.configs {
            match config.reload(UnixTime::now()) {
                Ok(certificates) => {
                    self.tls.reloads.fetch_add(1, Ordering::Relaxed);
                    crate::base::event::info!(
                        not_after = certificates.not_after(),
                        "certificates reloaded"
                    );
                    warn_of(&certificates);
                }
                Err(error) => {
                    self.tls.reload_failures.fetch_add(1, Ordering::Relaxed);
                    crate::base::event::error!(%error, "cannot reload the certificates: the previous ones stay in use");
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome
    }

    /// Opens a connection from here to a server, owned by the worker with the fewest connections, and served by the
    /// same [`Handler`](crate::Handler) as those that come in: [`on_open`](crate::Handler::on_open) follows, or
    /// [`on_dial_failed`](crate::Handler::on_dial_failed), after `handshake_timeout` at the latest. `state` is the
    /// handler's [`State`](crate::Handler::State), or that of a route of its [`Router`](crate::Router), to which the
    /// connection belongs then. Does not block.
    ///
    /// # Errors
    /// No handler has a state of this type, the socket can't be made or can't begin to connect, or the worker is busy
    /// or has ended.
    pub fn connect<S: Send + 'static>(&self, dial: &Dial, state: S) -> Result<(), DialError> {
        self.check_state(TypeId::of::<S>())?;
        let socket = net::dial(dial.peer, dial.source, self.tcp).map_err(DialError::Socket)?;
        self.connect_on(socket, dial, state)
    }

    /// As [`connect`](Self::connect), on a socket that connects already.
    pub(crate) fn connect_on<S: Send + 'static>(
        &self,
        socket: OwnedFd,
        dial: &Dial,
        state: S,
    ) -> Result<(), DialError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| DialError::Socket(io::Error::other(error)))?;
        let outbound = Outbound {
            socket,
            peer: dial.peer,
            request: dial.request.clone().with_nonce(nonce),
            offer: dial.offer,
            tls: dial.tls.clone(),
            state: Box::new(state),
        };
        let postbox = self.least_loaded().ok_or(PostError::NoSuchWorker)?;
        Ok(postbox.post(Mail::Dial(Box::new(outbound))).map_err(|refused| refused.error)?)
    }

    /// Empties the server over `window`: nobody new is let in, and each connection is closed with `code` at a moment of
    /// its own, spread evenly and with jitter, so that the clients come back one after the other. Each worker ends once
    /// its connections are gone; what is left 5 s after the window is cut off. [`Draining::wait`] says what came of it.
    ///
    /// Requests for a WebSocket that still come during the window, on connections that were accepted before or
    /// [adopted](Self::adopt), get 503 with a Retry-After header. Ordinary HTTP requests go to the handler as ever, so
    /// that it can answer a balancer with its [`readiness`](Self::readiness).
    ///
    /// A request that is under way when the window ends may be finished within `handshake_timeout` and those 5 s. Where
    /// [a successor has the listening sockets](Self::listeners), or a service manager, such requests are served instead
    /// of refused, and their connections are closed as all others.
    ///
    /// A drain or [shutdown](Self::shutdown) that is under way goes on as the last one says.
    pub fn drain(&self, window: Duration, code: CloseCode) -> Draining {
        self.drain_with(&Drain::new(window, code))
    }

    /// Drains, with options.
    pub fn drain_with(&self, drain: &Drain) -> Draining {
        self.begin_drain(drain, false)
    }

    fn begin_drain(&self, drain: &Drain, in_any_case: bool) -> Draining {
        self.hub.set_draining(in_any_case);
        let (reply, reports) = crossbeam_channel::unbounded();
        for Link { postbox, .. } in self.links() {
            let mail = Mail::Drain { drain: *drain, reply: reply.clone() };
            // A worker that has ended needs none; one that reads no mail for that long is stuck in a handler.
            if postbox.post_within(mail, SHUTDOWN_PATIENCE) == Err(PostError::Busy) {
                crate::base::event::error!(
                    "a worker is stuck in a handler and does not drain: end the process if it stays so"
                );
            }
        }
        Draining { reports, workers: self.links().len() }
    }

    /// Goes on after a [drain](Self::drain) that counted on a successor which has died since. Gives whether that was
    /// possible. The server accepts again on its sockets, which it has kept for this until its last worker ends; who
    /// waited on them is served. Only connections that were told to close do so. The drain's report comes at once.
    ///
    /// [`Takeover`](crate::takeover::Takeover) does it by itself. After [`spawn_successor`](Self::spawn_successor) it
    /// is for whoever watches the child. It is not possible if no successor has the [sockets](Self::listeners), the
    /// workers have ended, or a [shutdown](Self::shutdown) has begun.
    pub fn undrain(&self) -> bool {
        if !self.hub.undrain() {
            return false;
        }
        for Link { postbox, .. } in self.links() {
            if postbox.post_within(Mail::Undrain, SHUTDOWN_PATIENCE) == Err(PostError::Busy) {
                crate::base::event::error!(
                    "a worker is stuck in a handler and keeps draining: restart the server if it stays so"
                );
            }
        }
        self.handover().take_back();
        true
    }

    /// The successor goes on, or ends in good order: a drain that counts on it has no way back.
    pub(crate) fn give_up_sockets(&self) {
        self.hub.give_up_sockets();
    }

    /// Whether a [drain](Self::drain) or [shutdown](Self::shutdown) has begun.
    pub fn is_draining(&self) -> bool {
        self.hub.is_draining()
    }

    /// Whether new connections should come here. Reads a few atomics for each worker, so it may be called anywhere and
    /// often.
    pub fn readiness(&self) -> Readiness {
        if self.is_draining() {
            Readiness::Draining
        } else if self.hub.memory_level(self.hub.memory().used_len) != Level::Low {
            Readiness::ShortOfMemory
        } else if self.hub.is_apart() {
            Readiness::Apart
        } else {
            Readiness::Ready
        }
    }

    /// Stops accepting, closes every connection with 1001, and ends each worker once its connections are gone, or
    /// after `limit`, when what is left is cut off. [`Running::join`](crate::Running::join) waits for that. It is a
    /// [drain](Self::drain) without a window.
    pub fn shutdown(&self, limit: Duration) {
        let drain = Drain::new(Duration::ZERO, CloseCode::GOING_AWAY).with_grace(limit);
        self.begin_drain(&drain, true);
    }

    /// Duplicates of all listening sockets, those of each worker, for a process that goes on with them:
    /// [`Server::inherit`](crate::Server::inherit) there. [`spawn_successor`](Self::spawn_successor) and
    /// [`Takeover`](crate::takeover::Takeover) do it all.
    ///
    /// From this call on a [drain](Self::drain) counts on a successor: it leaves the sockets as they are, serves who
    /// was accepted already, a request under way included, and closes them as all others. Connections that wait on a
    /// socket are lost when its last descriptor is closed, so the successor has to accept on each of them. The workers
    /// end together, and until then [`undrain`](Self::undrain) ends the drain.
    ///
    /// # Errors
    /// A drain or shutdown has begun, which gives the sockets up; or no more descriptors can be opened.
    pub fn listeners(&self) -> io::Result<Vec<OwnedFd>> {
        self.handover().pass_on()
    }

    pub(crate) fn handover(&self) -> &Handover {
        self.hub.handover()
    }

    pub(super) fn links(&self) -> &[Link] {
        self.hub.links()
    }

    /// The worker of a connection.
    pub(super) fn link_of(&self, conn: ConnId) -> Result<&Link, PostError> {
        if conn.server != self.hub.server() {
            return Err(PostError::OtherServer);
        }
        self.links().get(usize::from(conn.worker)).ok_or(PostError::NoSuchWorker)
    }

    pub(super) fn post(&self, conn: ConnId, mail: Mail) -> Result<(), PostError> {
        Ok(self.link_of(conn)?.postbox.post(mail)?)
    }

    /// Whether a connection may have a state of this type.
    pub(super) fn check_state(&self, id: TypeId) -> Result<(), PostError> {
        if self.states.contains(&id) { Ok(()) } else { Err(PostError::WrongState) }
    }

    fn ask_topics<T: Default>(&self, query: impl Fn(Part<T>) -> TopicQuery) -> Inquiry<T> {
        let (inquiry, parts) = inquiry(self.links().len());
        for (link, part) in self.links().iter().zip(parts) {
            let posted = link.postbox.post(Mail::Topics(query(part)));
            if let Err(Refused { error, letter: Mail::Topics(query) }) = posted {
                query.refuse(error);
            }
        }
        inquiry
    }

    fn least_loaded(&self) -> Option<&Postbox<Mail>> {
        let least = self.links().iter().min_by_key(|link| link.counters.connections.get());
        least.map(|link| &link.postbox)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("workers", &self.links().len()).finish_non_exhaustive()
    }
}
