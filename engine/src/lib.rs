//! A thread-per-core WebSocket engine for Linux.
//!
//! One event loop is pinned to each core. Each owns its connections, buffers and timers, and shares nothing
//! on a message's path: a message is parsed and unmasked where the kernel put it, handed to the
//! [`Handler`] as a borrow, and its answer leaves with one system call.
//!
//! ```text
//!  kernel ─► driver ─► codec (parse, unmask in place) ─► Handler::on_message(&mut Ctx, Message<'_>)
//!  kernel ◄─ driver ◄─ one send a turn ◄─ codec (frame) ◄─ Ctx::send
//! ```
//!
//! # Example
//!
//! An echo server:
//!
//! ```
//! use std::time::Duration;
//! use ringwire::{Config, Server, on_message};
//!
//! let server = Server::new(Config::default().with_io_workers(1))
//!     .listen("127.0.0.1:0")
//!     .start(|_worker| on_message(|ctx, message| ctx.send(message)))?;
//! println!("listening on {}", server.urls().next().unwrap_or_default());
//! # server.handle().shutdown(Duration::ZERO);
//! server.join()?;
//! # Ok::<(), ringwire::Error>(())
//! ```
//!
//! # Threads
//!
//! A [`Handler`] lives on its worker's thread and is never shared. From elsewhere, a [`Handle`] posts to the worker
//! that owns a connection, which is named by its [`ConnId`].
//!
//! # Logging
//!
//! Events go to `tracing`, on the worker's thread. A subscriber that panics loses the line; one that waits for a full
//! pipe holds the worker up. [`logging::LogWriter`] does neither.
//!
//! # What is not here
//!
//! The protocol itself, without IO, is [`ringwire_codec`]. HTTP on the same port is for JSON APIs, health
//! checks, metrics and a page or two: HTTP/1.1 with whole bodies in memory, and a [`Router`]. HTTP/2, streamed bodies,
//! files and whole sites are left to HTTP servers; [`Handle::adopt`] takes their connections over.

mod app;
mod base;
mod compute;
mod config;
mod conn;
mod driver;
mod entry;
mod error;
mod hub;
mod layers;
mod limits;
mod metrics;
mod net;
#[cfg(feature = "program")]
pub mod program;
mod server;
#[cfg(test)]
mod sim_tests;
mod state;
mod topic;
mod worker;

pub use app::ctx::{Ctx, NoState, Out};
pub use app::handler::{Answer, Handler, HttpAnswer, OnMessage, Outcome, on_message};
pub use app::offload::{JobError, JobRefusal, RefusedJob};
pub use app::request::Request;
pub use app::router::{Asset, NoSockets, RouteState, Router, SocketOptions, SocketRoutes, Sockets};
pub use base::amount::{Limit, Sizing};
pub use base::mailbox::PostError;
pub use compute::{ComputeStats, Times};
pub use config::origin::{OriginError, OriginPattern, OriginPolicy};
#[cfg(feature = "config")]
pub use config::settings;
pub use config::{Assignment, Config, DriverKind, Pinning};
pub use conn::answer::Accept;
pub use conn::cause::{CloseCause, CloseReason, Closes, Initiator};
pub use conn::dialling::DialError;
pub use conn::id::ConnId;
pub use conn::options::{Backpressure, Compress, SendOptions, Sent};
pub use entry::adoption::Adoption;
pub use entry::dial::Dial;
pub use entry::listener::Listener;
pub use entry::proxy::{Network, NetworkError, ProxyProtocol};
pub use error::Error;
pub use hub::names::NameError;
pub use layers::compression::{CompressionConfig, CompressionMode};
pub use limits::{CutOff, Deadline, Drain, DrainReport, Draining, Excess, RateLimit, Readiness};
pub use metrics::{MemoryStats, Stats, TlsStats, TopicStats, WorkerStats};
#[cfg(feature = "program")]
pub use program::run;
#[cfg(feature = "client")]
pub use ringwire_client as client;
pub use ringwire_codec::deflate::{Level as CompressionLevel, WindowBits};
pub use ringwire_codec::extension;
pub use ringwire_codec::handshake::HeadLimits;
pub use ringwire_codec::handshake::server::answer_upgrade;
pub use ringwire_codec::http::Response;
pub use ringwire_codec::{CloseCode, Config as ProtocolConfig, Message, MessagePart, SendError};
pub use ringwire_tls as tls;
pub use server::handle::Handle;
pub use server::logging;
pub use server::notify::Notifier;
pub use server::restart::{activation, takeover};
pub use server::{Running, Server, WorkerContext};
pub use topic::{PublishError, PublishOptions, SubscribeOptions, TopicConfig, TopicError};
