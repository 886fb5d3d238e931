//! One of several servers: what a publication passes through so that subscribers of other nodes get it.
//!
//! A server that is given a [`Bus`] ([`Server::with_bus`](crate::Server::with_bus)) is a *node*. What is published on
//! it goes to the bus as well ([`Outlet`]), once and encoded once, whoever subscribes; what the bus brings from other
//! nodes goes to the subscribers here ([`Inlet`]), and not out again. The bus is told which topics and patterns have
//! subscribers on any worker, and brings these alone. There is no network in here: the crate `ringwire-nats` has a bus.
//!
//! ```text
//!  Ctx::publish, Handle::publish ─► workers with subscribers
//!                                └► Outlet::next ─► Bus ═► other nodes
//!  workers with subscribers ◄─ Inlet::receive ◄─ Bus ◄═ other nodes
//!  first and last subscriber of a topic ─► Outlet::next ─► Bus
//! ```
//!
//! # What the subscribers of another node get
//!
//! - Of one node and one topic: each publication once, and in order, whatever the bus does. One that comes a second
//!   time, or after it was given up, is passed over; one that comes too early waits for those before it
//!   ([`reorder_window`](ClusterConfig::reorder_window)).
//! - What the bus loses is counted ([`missed`](crate::stats::ClusterStats::missed)) as soon as something later comes to
//!   the same topic. Nothing is asked for again.
//! - From the moment on at which the bus brings the topic, which is some time after the first
//!   [`subscribe`](crate::Ctx::subscribe) on that node.
//!
//! # Bounds
//!
//! What waits for the bus is bounded in bytes ([`max_outgoing_len`](ClusterConfig::max_outgoing_len)); past that
//! `publish` answers [`PublishError::Cluster`](crate::topics::PublishError::Cluster), and local subscribers get their
//! copy, except where the bus numbers a topic with a history: then nobody gets it. What the bus brings waits for a
//! worker as other publications do ([`max_in_transit_len`](crate::topics::TopicConfig::max_in_transit_len)).
//! Whatever is dropped is counted in [`ClusterStats`](crate::stats::ClusterStats), which `/metrics` and `/stats` show;
//! `/readyz` says whether the bus has its connection.
//!
//! # Example
//!
//! A bus between the servers of one process, each of which listens on all subjects:
//!
//! ```
//! use std::sync::{Arc, Mutex, mpsc};
//! use std::time::{Duration, Instant};
//! use ringwire::cluster::{Bus, BusError, Node, Outgoing};
//!
//! type Members = Arc<Mutex<Vec<mpsc::Sender<(String, Vec<u8>)>>>>;
//!
//! #[derive(Debug, Default, Clone)]
//! struct InProcess(Members);
//!
//! impl Bus for InProcess {
//!     fn start(self: Box<Self>, node: Node) -> Result<(), BusError> {
//!         let Node { mut outlet, mut inlet, .. } = node;
//!         let (sender, incoming) = mpsc::channel::<(String, Vec<u8>)>();
//!         let others = Arc::clone(&self.0);
//!         others.lock().unwrap().push(sender);
//!         outlet.set_connected(true);
//!         std::thread::spawn(move || {
//!             while let Some(next) = outlet.next_blocking() {
//!                 // Everybody hears everything, and the inlet takes what has subscribers.
//!                 if let Outgoing::Publish(letter) = next {
//!                     for member in &*others.lock().unwrap() {
//!                         let _ = member.send((letter.topic().to_owned(), letter.to_bytes()));
//!                     }
//!                 }
//!             }
//!         });
//!         std::thread::spawn(move || {
//!             let began = Instant::now();
//!             let mut wait = Duration::MAX;
//!             loop {
//!                 match incoming.recv_timeout(wait) {
//!                     Ok((topic, bytes)) => inlet.receive(&topic, &bytes, began.elapsed()),
//!                     Err(mpsc::RecvTimeoutError::Timeout) => {}
//!                     Err(_) => return,
//!                 }
//!                 let now = began.elapsed();
//!                 wait = inlet.expire(now).map_or(Duration::MAX, |at| at.saturating_sub(now));
//!             }
//!         });
//!         Ok(())
//!     }
//! }
//!
//! # use ringwire::{Config, Server, on_message};
//! let bus = InProcess::default();
//! let node = || {
//!     Server::new(Config::default().with_io_workers(1))
//!         .with_bus(bus.clone())
//!         .start(|_worker| on_message(|ctx, message| ctx.publish("news", message)))
//! };
//! let (one, other) = (node()?, node()?);
//! # for server in [one, other] {
//! #     server.handle().shutdown(Duration::ZERO);
//! #     server.join()?;
//! # }
//! # Ok::<(), ringwire::Error>(())
//! ```

#![expect(clippy::disallowed_types, reason = "both ends of a node share what has subscribers")]

mod config;
mod envelope;
mod inlet;
mod interests;
mod outlet;
mod recent;
mod streams;

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

pub use self::config::ClusterConfig;
pub use self::inlet::{Inlet, Kept, KeptHistory, Numbered};
use self::interests::Interests;
use self::outlet::Parts;
pub use self::outlet::{Letter, Outgoing, Outlet};
use self::streams::Streams;
use crate::metrics::ClusterCounters;
use crate::topic::Exchange;
use crate::topic::relay::Relay;

/// What carries publications between nodes. See the [module's documentation](self).
pub trait Bus: fmt::Debug + Send + 'static {
    /// Begins to carry what comes out of the node's outlet to the other nodes' inlets. Called once, before the first
    /// worker runs; what takes long, such as connecting, is for a thread of the bus.
    ///
    /// The bus ends when [`Outlet::next`] gives `None`, since the server has ended: it sends what it was given, and
    /// drops the outlet, for which [`Running::join`](crate::Running::join) waits up to 5 s.
    ///
    /// # Errors
    /// It can't begin, so that the server does not start. That the others are out of reach is no error.
    fn start(self: Box<Self>, node: Node) -> Result<(), BusError>;
}

impl Bus for Box<dyn Bus> {
    fn start(self: Box<Self>, node: Node) -> Result<(), BusError> {
        (*self).start(node)
    }
}

/// Why a [`Bus`] can't begin.
pub type BusError = Box<dyn Error + Send + Sync>;

/// A server as the [`Bus`] sees it: two ends, which may be on different threads.
#[derive(Debug)]
#[non_exhaustive]
pub struct Node {
    /// Which server it is, and which start of it.
    pub id: NodeId,
    /// What leaves.
    pub outlet: Outlet,
    /// What comes in.
    pub inlet: Inlet,
}

/// A node from its start to its end: a random number, so that a node that comes back is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// A new one.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)?;
        Ok(Self(u64::from_ne_bytes(bytes)))
    }

    #[cfg(test)]
    pub(crate) fn of(number: u64) -> Self {
        Self(number)
    }
}

/// In hexadecimal, 16 digits.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What both ends of a node know.
#[derive(Debug)]
struct State {
    interests: Interests,
    streams: Streams,
}

/// The same, for one of them.
#[derive(Clone, Debug)]
struct SharedState(Arc<Mutex<State>>);

impl SharedState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For whoever waits until a bus has ended.
#[derive(Debug)]
pub(crate) struct BusEnd(Receiver<Infallible>);

impl BusEnd {
    /// Waits; whether it has.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        self.0.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Makes a node of a server, before its workers run.
pub(crate) fn node(exchange: &Exchange, config: &ClusterConfig, id: NodeId) -> (Node, BusEnd) {
    let counters = Arc::<ClusterCounters>::default();
    let (relay, departures) =
        Relay::new(exchange.worker_count(), config.max_outgoing_len, Arc::clone(&counters));
    exchange.connect(relay);
    let state = State { interests: Interests::default(), streams: Streams::new(config) };
    let state = SharedState(Arc::new(Mutex::new(state)));
    let (_lives, end) = crossbeam_channel::bounded(0);
    let parts = Parts { id, exchange: exchange.clone(), departures, state: state.clone(), _lives };
    let outlet = Outlet::new(parts, config.max_streams);
    (Node { id, outlet, inlet: Inlet::new(id, exchange.clone(), state, counters) }, BusEnd(end))
}
