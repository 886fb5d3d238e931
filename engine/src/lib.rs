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
//!     .start(|_worker| on_message(|ctx, message| { ctx.send(message); }))?;
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
//! Events go to `tracing`, on the worker's thread. A subscriber that panics loses the line; one that waits for a full pipe holds the worker
//! up. [`logging::LogWriter`] does neither.
//!
//! # What is not here
//!
//! The protocol itself, without IO, is [`ringwire_codec`]. HTTP on the same port is for JSON APIs, health
//! checks, metrics and a page or two: HTTP/1.1 with whole bodies in memory, and a [`Router`]. HTTP/2, streamed bodies,
//! files and whole sites are left to HTTP servers; [`Handle::adopt`] takes their connections over.

pub mod activation;
mod adoption;
mod budget;
mod buf;
mod chunked;
mod claim;
pub mod client;
mod compression;
mod compute;
mod config;
mod conn;
mod conn_table;
mod ctx;
mod deflate;
mod dial;
mod driver;
mod ends;
mod error;
mod event;
mod handle;
mod handler;
mod handover;
mod hub;
mod layers;
mod limits;
mod listen;
pub mod logging;
mod mailbox;
mod memory;
mod metrics;
mod monitor;
mod net;
mod notify;
mod offload;
mod origin;
mod output;
mod proxied;
mod registry;
mod request;
mod router;
mod secure;
mod send_queue;
mod server;
mod sharded;
mod shared;
#[cfg(test)]
mod sim_tests;
mod successor;
pub mod takeover;
mod timer;
mod topic;
mod worker;

pub use adoption::Adoption;
pub use compression::{Compression, CompressionMode};
pub use compute::{ComputeStats, Times};
#[cfg(feature = "config")]
pub use config::settings;
pub use config::{Assignment, Backpressure, Config, DriverKind, Pinning};
pub use conn::ConnId;
pub use dial::{Dial, DialError};
pub use error::{CloseCause, CloseReason, Error, Initiator, PostError};
pub use handle::Handle;
pub use handler::{
    Accept, Acceptance, Answer, Compress, Ctx, Handler, HttpAnswer, OnMessage, Request, Response,
    SendOptions, SendStatus, on_message,
};
pub use hub::PublishError;
pub use limits::{CutOff, Deadline, Drain, DrainReport, Draining, Excess, RateLimit, Readiness};
pub use listen::Listener;
pub use metrics::{MemoryStats, Stats, TlsStats, TopicStats, WorkerStats};
pub use notify::Notifier;
pub use offload::{JobError, JobRefusal, RefusedJob};
pub use origin::{OriginError, OriginPattern, OriginPolicy};
pub use proxied::{Network, NetworkError, ProxyProtocol};
pub use registry::NameError;
pub use ringwire_codec::deflate::{Level as CompressionLevel, WindowBits};
pub use ringwire_codec::extension;
pub use ringwire_codec::handshake::HeadLimits;
pub use ringwire_codec::handshake::server::answer_upgrade;
pub use ringwire_codec::{CloseCode, Config as ProtocolConfig, Message, MessagePart, SendError};
pub use ringwire_tls as tls;
pub use router::{Asset, NoSockets, RouteState, Router, SocketOptions, SocketRoutes, Sockets};
pub use server::{Running, Server, WorkerContext};
pub use topic::{PublishOptions, SubscribeOptions, TopicError, TopicSettings};
