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
//! # Where to look
//!
//! | to | look at |
//! |---|---|
//! | serve WebSockets | [`Handler`], [`Ctx`], [`on_message`] |
//! | answer HTTP, with routes, guards and shared state | [`Router`], [`Request`], [`Responder`], [`router`] |
//! | reach connections from elsewhere, tell many | [`Handle`], [`Ctx::subscribe`], [`topics`] |
//! | be one of several servers | [`cluster`], [`Server::with_bus`] |
//! | do what takes long | [`Ctx::offload`], [`Responder::offload`], [`jobs`] |
//! | put one handler around another | [`Event`], [`Handler::handle`] |
//! | listen, dial, adopt, behind proxies, over TLS | [`Server`], [`transport`], [`admission`], [`tls`] |
//! | bound what peers may do | [`Config`], [`admission`], [`Ctx::set_deadline`], [`Backpressure`] |
//! | compress, or extend the protocol | [`compression`], [`extension`] |
//! | drain, restart without closing a port | [`Handle::shutdown`], [`shutdown`], [`activation`], [`takeover`] |
//! | see what goes on | [`stats`], [`logging`], [`Router::monitoring`] |
//! | make a server a program: flags, files, signals, systemd | `run`, `program` (feature `program`) |
//! | be a client | [`Handle::connect`], `client` (feature `client`) |
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
pub mod cluster;
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
#[cfg(feature = "testing")]
pub mod testing;
mod topic;
mod worker;

pub use app::ctx::{Ctx, NoState, Out};
pub use app::event::{Call, Event};
pub use app::handler::{Answer, Handler, OnMessage, Outcome, on_message};
#[cfg(feature = "json")]
pub use app::json;
pub use app::request::Request;
pub use app::responder::{IntoResponse, Responder};
pub use app::router::Router;
#[cfg(feature = "async")]
pub use app::serve::{OwnedRequest, Socket, SocketError};
pub use base::amount::{Limit, Sizing};
pub use base::mailbox::{PostError, Refused};
#[cfg(feature = "config")]
pub use config::settings;
pub use config::{Config, DriverKind};
pub use conn::answer::Accept;
pub use conn::cause::{CloseCause, CloseReason, Initiator};
pub use conn::id::ConnId;
pub use conn::options::{Backpressure, Late, SendOptions, Sent};
pub use error::Error;
pub use http::{self, HeaderName, HeaderValue, Method, StatusCode};
pub use hub::posted::Posted;
pub use limits::Deadline;
#[cfg(feature = "program")]
pub use program::run;
#[cfg(feature = "client")]
pub use ringwire_client as client;
pub use ringwire_codec::extension;
pub use ringwire_codec::http::Response;
pub use ringwire_codec::{CloseCode, Message, MessagePart, OwnedMessage, SendError};
pub use ringwire_tls as tls;
pub use server::handle::Handle;
pub use server::logging;
pub use server::notify::Notifier;
pub use server::restart::{activation, takeover};
pub use server::sender::Sender;
pub use server::{Running, Server, WorkerContext};
pub use state::timers::TimerError;

/// Around a [`Router`]: what its routes share, content that does not change, and its types.
pub mod router {
    pub use crate::app::router::{
        Asset, NoSockets, RouteState, Shared, SocketOptions, SocketRoutes, Sockets,
    };
    pub use crate::app::states::States;
}

/// Around a [`Sender`]: what it answers, and what its future is.
pub mod senders {
    pub use crate::server::sender::{SendClosed, Sending, TrySendError};
}

/// Jobs on the compute threads: [`Ctx::offload`](crate::Ctx::offload),
/// [`Responder::offload`](crate::Responder::offload).
pub mod jobs {
    pub use crate::app::offload::{JobError, JobRefusal, RefusedJob};
}

/// Topics and names: options, settings, what is heard of them and asked about them, and what may be wrong.
pub mod topics {
    pub use crate::app::presence::{Interest, Presence, PresenceChange};
    pub use crate::base::inquiry::Inquiry;
    pub use crate::hub::names::NameError;
    pub use crate::topic::{
        HistoryConfig, Position, PublishError, PublishOptions, Reach, Recorded, Recovery, Stamp,
        SubscribeOptions, Subscription, TopicConfig, TopicError, topic_token,
    };
}

/// Compression of messages (permessage-deflate, RFC 7692).
pub mod compression {
    pub use ringwire_codec::deflate::{Level as CompressionLevel, WindowBits};

    pub use crate::conn::options::Compress;
    pub use crate::layers::compression::{CompressionConfig, CompressionMode};
}

/// Who is let in, and how much a peer may say.
pub mod admission {
    pub use crate::config::origin::{OriginError, OriginPattern, OriginPolicy};
    pub use crate::entry::proxy::{Network, NetworkError, ProxyProtocol};
    pub use crate::limits::{Excess, RateLimit};
}

/// How a server empties and ends.
pub mod shutdown {
    pub use crate::limits::{CutOff, Drain, DrainReport, Draining, Readiness};
}

/// Where connections come from beside the usual address: listeners with settings of their own, servers that are
/// dialled, connections that somebody else has accepted.
pub mod transport {
    pub use crate::conn::dialling::DialError;
    pub use crate::entry::adoption::Adoption;
    pub use crate::entry::dial::Dial;
    pub use crate::entry::listener::Listener;
}

/// The opening handshake (RFC 6455 §4): the types of a request's parts, and answers to upgrades that come to other
/// servers.
pub mod handshake {
    pub use crate::app::bearer::BEARER;
    pub use ringwire_codec::handshake::client::Response as UpgradeResponse;
    pub use ringwire_codec::handshake::server::answer_upgrade;
    pub use ringwire_codec::handshake::{Extension, HandshakeError, HeadLimits, Headers};
}

/// What is counted: [`Handle::stats`](crate::Handle::stats).
pub mod stats {
    pub use crate::base::tally::Tally;
    pub use crate::compute::{ComputeStats, Times};
    pub use crate::conn::cause::Closes;
    pub use crate::metrics::{ClusterStats, MemoryStats, Stats, TlsStats, TopicStats, WorkerStats};
    pub use crate::server::exposition::{MetricsText, ProcessStats};
}

/// How the workers are set up, and how the protocol's own limits are.
pub mod tuning {
    pub use ringwire_codec::Config as ProtocolConfig;

    pub use crate::config::{Assignment, Pinning};
}

/// Handlers that are async functions: what stands around a [`Socket`].
#[cfg(feature = "async")]
pub mod serve {
    pub use crate::app::serve::{
        Serve, ServeAuthenticated, Served, SocketReceiver, SocketSender, SocketState,
        TrySocketError,
    };
}

/// The code of the book runs as tests.
#[cfg(all(doctest, feature = "async", feature = "program", feature = "testing"))]
mod book {
    macro_rules! pages {
        ($($name:ident: $path:literal)+) => { $(#[doc = include_str!($path)] mod $name {})+ };
    }

    pages! {
        await_in_a_handler: "../../docs/guide/await-in-a-handler.md"
        behind_other_servers: "../../docs/guide/behind-other-servers.md"
        clients: "../../docs/guide/clients.md"
        configuration: "../../docs/configuration.md"
        handlers: "../../docs/guide/handlers.md"
        hostile_peers: "../../docs/guide/hostile-peers.md"
        jobs: "../../docs/guide/jobs.md"
        monitoring: "../../docs/guide/monitoring.md"
        moving: "../../docs/guide/moving.md"
        readme: "../../README.md"
        readme_of_the_crate: "../README.md"
        requests_and_http: "../../docs/guide/requests-and-http.md"
        slow_readers: "../../docs/guide/slow-readers.md"
        start: "../../docs/README.md"
        testing_a_handler: "../../docs/guide/testing-a-handler.md"
        tls: "../../docs/guide/tls.md"
        topics_and_names: "../../docs/guide/topics-and-names.md"
    }
}
