//! [`NatsBus`] joins [Ringwire](ringwire) servers to a cluster over [NATS](https://nats.io).
//!
//! ```no_run
//! use ringwire::{Config, Server, on_message};
//! use ringwire_nats::NatsBus;
//!
//! let bus = NatsBus::new("nats://127.0.0.1:4222")?.with_name("node-1");
//! let server = Server::new(Config::default())
//!     .listen("127.0.0.1:9001")
//!     .with_bus(bus)
//!     .start(|_worker| on_message(|ctx, message| ctx.publish("news", message)))?;
//! server.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does
//!
//! The bus is one thread beside the workers, `ringwire-nats`, with one connection. A topic is a subject with a prefix
//! ([`with_prefix`](NatsBus::with_prefix)) in front, so that several clusters can share a NATS; what is not printable
//! ASCII is percent-encoded. A node subscribes for what has subscribers on it only, and does not hear its own.
//!
//! A subscription that is not wanted any more lives on for one round trip to NATS, so that nothing is lost where a
//! pattern takes the place of a topic, or the other way round.
//!
//! Core NATS delivers at most once. The engine numbers what is published ([`ringwire::cluster`]), so that nothing comes
//! twice or out of order, and what is lost is counted on each node that misses it.
//!
//! # Who is online
//!
//! [`online`] lists the users of all nodes and says who comes and goes, over this bus or any other. [`survey`] asks
//! all nodes a question, such as who is in a room.
//!
//! # Histories
//!
//! By itself each node keeps what its own clients could have heard. [`with_history`](NatsBus::with_history) has a
//! stream of JetStream number and keep what is published to topics with a [history](ringwire::topics::HistoryConfig),
//! so that a client may come back to any node ([`Ctx::recover`](ringwire::Ctx::recover)). It needs NATS 2.9 or newer,
//! started with `-js`.
//!
//! # Without NATS
//!
//! A server starts and serves whether NATS is there or not, and tries to connect for as long as it runs, four times a
//! second at most. Meanwhile nothing is given to NATS: publications wait in the engine, up to
//! [`max_outgoing_len`](ringwire::cluster::ClusterConfig::max_outgoing_len). Once connected, it subscribes to all that
//! has subscribers, then sends what has waited. A NATS that does not answer is given up after three unanswered pings
//! ([`with_ping_interval`](NatsBus::with_ping_interval)).
//!
//! # Bounds
//!
//! - Commands for the connection: 128. Past that the bus takes nothing more from the engine.
//! - What has come of one subscription: so many messages
//!   ([`with_subscription_capacity`](NatsBus::with_subscription_capacity)). Past that it is dropped, which counts as
//!   missed when the next comes.
//! - Publications that JetStream has yet to store: 1024. Past that the bus takes nothing more from the engine. They
//!   wait for [`patience`](NatsHistory::patience), 3 s; then the node numbers them by itself, and the others miss
//!   them, which counts as [`outgoing_dropped`](ringwire::stats::ClusterStats::outgoing_dropped).
//! - A message: what NATS takes (`max_payload`, 1 MiB), less up to 35 bytes and the length of a name that is left out.
//!   A longer one is not sent, which counts as [`undeliverable`](ringwire::stats::ClusterStats::undeliverable).

mod bus;
mod history;
mod link;
pub mod online;
mod receiving;
pub mod rooms;
mod subject;
pub mod survey;

pub use async_nats;
pub use bus::{NatsBus, NatsError};
pub use history::NatsHistory;

/// The code of the README runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
