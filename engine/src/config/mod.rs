//! Settings of a server, with defaults fit for the open internet.

pub(crate) mod check;
pub(crate) mod origin;
#[cfg(feature = "config")]
pub mod settings;

use std::time::Duration;

use ringwire_codec::CloseCode;
use ringwire_codec::handshake::HeadLimits;

use crate::base::amount::{Limit, Sizing};
use crate::base::runtime::Runtime;
use crate::base::setters::setters;
use crate::cluster::ClusterConfig;
use crate::config::origin::OriginPolicy;
use crate::conn::options::Backpressure;
use crate::driver::busy::BusyPoll;
use crate::layers::compression::CompressionConfig;
use crate::limits::RateLimit;
use crate::net::{Keepalive, ListenOptions, TcpOptions};
use crate::topic::TopicConfig;

/// Settings of a server. All are checked once, when it starts.
///
/// A deadline of `None` is off, and nothing else means that: a 0 where it would make no sense is an error that names
/// what was meant. Deadlines are kept in ticks of 100 ms and fire up to two ticks late, never early.
///
/// ```
/// use std::time::Duration;
/// use ringwire::{Config, Sizing};
///
/// let config = Config::default()
///     .with_io_workers(2)
///     .with_idle_timeout(Duration::from_secs(90))
///     .with_max_lifetime(None);
/// assert_eq!(config.max_connections, Sizing::Auto);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The kernel back end. Default: [`DriverKind::Auto`].
    pub driver: DriverKind,
    /// Threads that do IO, each with an event loop and a share of the connections of its own. Default: automatic, one
    /// for each core that the process may use, less those that [`compute_workers`](Self::compute_workers) take, and at
    /// least half of the cores, rounded up. The start-up line of the log says how many they are. At most 65 535.
    pub io_workers: Sizing,
    /// Threads beside the workers for work that would block one: [jobs of handlers](crate::Ctx::offload), compression
    /// of [long messages](CompressionConfig::offload_threshold), and the signature of a TLS handshake (about 0.2 ms
    /// with an ECDSA key, 1 ms with RSA-2048). Default: 0, none.
    ///
    /// Each takes a core from the automatic [`io_workers`](Self::io_workers), which keep half of the cores: of 8 cores,
    /// 2 compute workers leave 6 for IO, and 6 or more leave 4 and share cores. At most 65 535.
    pub compute_workers: usize,
    /// Jobs of handlers that may wait for a compute worker. Further ones are refused. Default: 1024. The engine's own
    /// jobs have a second queue of this length, which goes first; when it is full, the worker does the work itself.
    pub compute_queue_len: usize,
    /// Unfinished jobs of one connection: those that wait or run, those whose results wait for earlier ones, and
    /// messages being compressed. Further ones are refused. Default: 64, so that no peer can fill the queue alone.
    /// At least 1. A message being compressed never takes the last room, so with 1 the worker compresses all of them.
    /// Worst case in memory: what the application puts into that many jobs and results.
    pub max_jobs_per_connection: usize,
    /// On which cores the IO workers run. Where these are pinned and enough cores are left, each compute worker has one
    /// of those; otherwise the scheduler places compute workers. Default: [`Pinning::Auto`].
    pub pinning: Pinning,
    /// How long a worker polls for completions before it sleeps. Default: off, it sleeps at once.
    ///
    /// Polling saves the 5 to 50 µs that sleeping and waking take. A busy server never sleeps, so it gains nothing. A
    /// polling worker uses its core fully: give each worker a core, and leave some to other programs
    /// (docs/busy-polling.md). About 50 µs suffice where messages follow each other; use seconds where each must be
    /// answered at once.
    pub busy_poll: Option<Duration>,
    /// How long the kernel polls the queues of the network card before a worker sleeps (NAPI busy polling), which saves
    /// the interrupt as well. Default: off. Needs Linux 6.9, and a driver of the card that can be polled; loopback and
    /// veth have nothing to be polled. It begins when [`busy_poll`](Self::busy_poll) ends.
    pub napi_busy_poll: Option<Duration>,
    /// Keep the interrupts of a card off while it is polled
    /// ([`napi_busy_poll`](Self::napi_busy_poll)), for as long as its `napi_defer_hard_irqs` and
    /// `gro_flush_timeout` say. Default: no.
    pub napi_prefer_busy_poll: bool,

    /// Limits of frames and messages. Default: messages of 1 MiB; see [`ringwire_codec::Config`].
    pub protocol: ringwire_codec::Config,
    /// The longest message, in bytes, whole or streamed, from a peer that is not
    /// [authenticated](crate::Ctx::set_authenticated) yet. Default: `None`, as for any other peer. Values above the
    /// limits of [`protocol`](Self::protocol) have no effect.
    ///
    /// This is for applications that authenticate by a message. It bounds what a stranger can make the server hold,
    /// compressed or not. Rates and queues need no such limit. [`Ctx::set_deadline`](crate::Ctx::set_deadline) bounds
    /// how long a peer may stay unauthenticated.
    pub max_unauthenticated_len: Option<usize>,
    /// Compression of messages (permessage-deflate, RFC 7692). Default: off.
    pub compression: CompressionConfig,
    /// Limits of request heads. Default: 16 KiB, lines of 8 KiB, 100 headers.
    pub head: HeadLimits,

    /// The longest body of an HTTP request, in bytes; one that is longer is refused with 413. Default: 1 MiB. Worst
    /// case in memory: this much for each connection that sends one.
    pub max_body_len: usize,
    /// Ordinary HTTP requests that one connection may make, after which it is closed. At least 1. Default: 1000.
    pub max_http_requests: u16,
    /// How long a connection may be silent between two HTTP requests. Default: 75 s, longer than the 60 s of the usual
    /// balancer, which would give a client 502 for a connection that the server has just closed. Choose it longer than
    /// the balancer's own. Worst case in memory: an idle connection, for so long.
    pub http_keep_alive_timeout: Option<Duration>,

    /// From whose pages scripts may connect; others get 403. Default: any, since only the application knows its pages:
    /// one that tells its users by cookies should set it, or any page can act for them.
    pub origin_policy: OriginPolicy,
    /// Whether a request without an Origin header is refused by a policy other than [`OriginPolicy::Any`]. Default: no.
    /// Browsers always send one, and clients that are no browsers can send what they like.
    pub requires_origin: bool,
    /// The server's subprotocols, in order of preference. The server chooses the first that the client offers, unless
    /// the handler or the [route](crate::router::SocketOptions::subprotocols) chooses another. Without a match the
    /// connection has none. Default: none.
    pub subprotocols: Vec<String>,

    /// From accept to the end of the handshake, however slowly the bytes come. The same limit holds for each further
    /// HTTP request, from its first byte to the end of its body, and again for a [deferred](crate::Responder) answer.
    /// Default: 10 s.
    pub handshake_timeout: Option<Duration>,
    /// How long a connection may receive nothing at all, not even a pong, before it is closed with 1001. Default: 120
    /// s. With pings on, a dead peer is found sooner.
    pub idle_timeout: Option<Duration>,
    /// How long nothing may be received before the server sends a ping. Default: 30 s. `None`: it sends none.
    pub ping_interval: Option<Duration>,
    /// How long a ping may stay unanswered before the connection is cut off. Anything received counts as an answer.
    /// Default: 10 s.
    ///
    /// The time begins when the ping can have reached the peer: once the output before it is acknowledged. That wait is
    /// unlimited as long as the peer takes some output within this time or
    /// [`write_stall_timeout`](Self::write_stall_timeout), whichever is longer.
    pub pong_timeout: Option<Duration>,
    /// Whether handlers are told of pongs ([`Handler::on_pong`](crate::Handler::on_pong)). Default: yes. They count as
    /// a sign of life in any case.
    pub reports_pongs: bool,
    /// How long the peer may take to finish the close handshake. Default: 5 s.
    ///
    /// The time begins when the close frame can have reached the peer. Output before it may take longer, as long as the
    /// peer takes some of it within this time (after its first progress: within
    /// [`write_stall_timeout`](Self::write_stall_timeout)), and all of it at [`min_drain_rate`](Self::min_drain_rate).
    pub close_timeout: Option<Duration>,
    /// How long a peer may take none of the output that waits for it: nothing is acknowledged, and its window does not
    /// move. On Unix sockets it is what the peer has read, in buffers of up to 64 KiB or so. Default: 20 s; found after
    /// at most twice that.
    pub write_stall_timeout: Option<Duration>,
    /// The least average rate, in bytes a second, at which a peer must take its last output: answers to HTTP requests,
    /// and what is queued before a close frame. Default: 1 KiB. `None`: any progress is enough. A closing connection
    /// therefore lasts at most two [`close_timeout`](Self::close_timeout)s and the queued length divided by this rate.
    pub min_drain_rate: Option<usize>,
    /// How long a connection may be open before it is closed with 1001. Default: off.
    pub max_lifetime: Option<Duration>,

    /// Queued output of one connection, in bytes, from which [`Ctx::send`](crate::Ctx::send) answers
    /// [`Sent::Waits`](crate::Sent::Waits). Reading from the peer pauses until the queue is empty. Default: 128 KiB,
    /// twice what one receive takes, so that echoing all of it is no backlog. At least 1.
    pub high_water: usize,
    /// Queued output of one connection, in bytes, from which further messages are subject to
    /// [`backpressure`](Self::backpressure). A single message may exceed it. At least [`high_water`](Self::high_water).
    /// Default: 256 KiB. Worst case in memory: this and one message for each connection whose peer does not read.
    pub max_queued_len: usize,
    /// What happens to a message that finds the queue at its limit. Default: close with 1013.
    pub backpressure: Backpressure,

    /// How many messages and bytes a peer may send in a second, and what happens past that. Default: off, since what is
    /// much depends on what the application does with a message; the turn's budgets keep one peer from holding up the
    /// others.
    pub rate_limit: RateLimit,

    /// Topics: limits of subscriptions and of publications that wait.
    pub topics: TopicConfig,

    /// Bounds of a server that is a node of a [cluster](crate::cluster).
    pub cluster: ClusterConfig,

    /// Memory that the engine may hold for all connections together, in bytes: the table of connections, input that is
    /// incomplete or waits, output that waits, TLS sessions (an estimate), dedicated compression, publications. At
    /// least 1 MiB. Default: automatic, half of what the process may have beyond 32 MiB, going by its cgroup,
    /// RLIMIT_AS, RLIMIT_DATA and the machine. The application and the kernel's sockets need the other half, so a
    /// higher figure is as good as no limit.
    ///
    /// From 7/8 of it, until use falls to 3/4, the server lets nobody in. Requests get 503 with Retry-After, except for
    /// [monitoring](crate::Router::monitoring), and [`Handle::readiness`](crate::Handle::readiness) says so. Incomplete
    /// requests are refused, the largest first, until others can be let in. If unfinished messages prevent that for 5
    /// s, the longest of those end.
    ///
    /// Past it, each worker that uses more than its share of 11/16 ends connections, those that hold most first, with
    /// the code of [`backpressure`](Self::backpressure) or 1013 ([`CloseReason::Memory`](crate::CloseReason::Memory)).
    /// Use may exceed the limit by a sixteenth and by one receive of each worker. With the program itself, free buffers
    /// and fragmentation, the process takes at most a quarter and 8 MiB more.
    pub max_memory: Sizing,
    /// How long freed memory stays with the allocator, ready for the next burst. Default: 5 s. `None`: the allocator
    /// decides. Worst case in memory: twice what is used, and 4 MiB.
    ///
    /// Memory is returned once half of what was used has been free for this long: the workers' free buffers
    /// ([`pool_len`](Self::pool_len)), and with glibc's allocator all free pages of the process (malloc_trim(3)), on a
    /// thread of its own. A worker that allocates meanwhile waits up to 5 ms for each 10 MiB that are free. Where
    /// bursts reach gigabytes, turn this off, or use an allocator that returns memory by itself.
    pub memory_return_delay: Option<Duration>,

    /// Which worker gets a connection that comes in. Default: [`Assignment::ReusePort`].
    pub assignment: Assignment,
    /// The most connections of the whole server. Default: automatic, what RLIMIT_NOFILE leaves after 64
    /// descriptors. Each worker has an equal share, rounded up; one that is full stops accepting until a connection
    /// has gone, and the kernel's backlog waits. Adopted connections count, but none is refused.
    pub max_connections: Sizing,
    /// The most connections of one remote address over all workers: an IPv4 address, or the /64 of an IPv6 address. One
    /// more is closed as soon as it is accepted. Default: unlimited, since whole companies and mobile networks
    /// share an address, and behind a proxy all clients do. Adopted connections count, but none is refused. Worst case
    /// in memory: 24 bytes or so for each address that is connected.
    pub max_connections_per_address: Limit<u32>,
    /// The most connections accepted in a second, and the most at once after a pause. Each worker has an equal share,
    /// rounded up. Others wait in the kernel's backlog. Default: unlimited. Use it where handshakes are costly and all
    /// clients may reconnect at once.
    pub max_accepts_per_second: Limit<u32>,
    /// Length of the queue of connections that wait to be accepted; `net.core.somaxconn` caps it. Default: 4096.
    pub listen_backlog: u32,
    /// Whether the start fails if another process listens on one of the addresses, or on one that overlaps (`0.0.0.0`
    /// covers all of IPv4, `[::]` covers everything). Default: yes, since two unrelated servers would each get a random
    /// part of the connections. If off, processes of one user share a port, provided that all of them turn it off
    /// (SO_REUSEPORT, socket(7)). [Inherited](crate::Server::inherit) sockets need no sharing.
    pub exclusive: bool,
    /// How long the start retries while another process still listens. After a process was killed, the kernel takes
    /// milliseconds to close its sockets, and longer if it used io_uring. Default: 2 s. [`Duration::ZERO`]: no retry.
    pub listen_timeout: Duration,
    /// Send small messages at once (TCP_NODELAY). Default: on.
    pub tcp_nodelay: bool,
    /// How long sent data may stay unacknowledged before the kernel ends the connection
    /// (TCP_USER_TIMEOUT, tcp(7)), from 1 ms to 2 147 483 647 ms (24 days). Default: 30 s. `None`: as long as
    /// `net.ipv4.tcp_retries2` says.
    pub tcp_user_timeout: Option<Duration>,
    /// Silence after which the kernel sends keep-alive probes (SO_KEEPALIVE and TCP_KEEPIDLE, tcp(7)), in whole seconds
    /// from 1 to 32767. Default: off, since [pings](Self::ping_interval) ask the peer itself, also through proxies. For
    /// servers that turn pings off, and for the time of long handshakes.
    pub tcp_keepalive_time: Option<Duration>,
    /// The time between two keep-alive probes (TCP_KEEPINTVL), in whole seconds from 1 to 32767. Default: 10 s.
    pub tcp_keepalive_interval: Duration,
    /// How many keep-alive probes may stay unanswered before the kernel ends the connection (TCP_KEEPCNT), 1 to 127.
    /// Default: 3. With a [`tcp_user_timeout`](Self::tcp_user_timeout), that decides instead: the connection ends at
    /// the first probe due after so long a silence.
    pub tcp_keepalive_probes: u32,
    /// The unsent output of one connection that the kernel accepts (TCP_NOTSENT_LOWAT, tcp(7)), in bytes. The rest
    /// waits in the engine, where back-pressure, dropping and conflation apply, and where it counts as memory. Without
    /// a limit, a socket accepts up to `net.ipv4.tcp_wmem` (4 MiB) first. Sent, unacknowledged data does not count, so
    /// the limit costs no throughput. Default: 128 KiB. Automatic: `net.ipv4.tcp_notsent_lowat`, which is unlimited by
    /// default.
    pub tcp_notsent_lowat: Sizing<u32>,
    /// The most that the kernel keeps of one connection's output until it is acknowledged (SO_SNDBUF, socket(7)), in
    /// bytes, of which it takes twice as much for its own overhead. Default: automatic, the kernel adapts it to the
    /// connection (`net.ipv4.tcp_wmem`). A number bounds the memory of the kernel, and with it the throughput: to that
    /// many bytes a round trip. `net.core.wmem_max` caps it. Holds for TCP.
    pub tcp_send_buffer_len: Sizing,
    /// The most that the kernel keeps of one connection's input until it is read (SO_RCVBUF), in bytes, of which it
    /// takes twice as much as well. Default: automatic, the kernel adapts it (`net.ipv4.tcp_rmem`). `net.core.rmem_max`
    /// caps it. Holds for TCP.
    pub tcp_receive_buffer_len: Sizing,

    /// The most bytes that one receive takes; four times that for the rest of a long message. At least 512. Default: 64
    /// KiB.
    ///
    /// Memory of each worker on epoll: one such buffer, and a second of four times the length once there are long
    /// messages. On io_uring: 512 KiB to 2 MiB (before Linux 6.17: 2 MiB; before 6.12: 8 MiB, and one receive takes at
    /// most 16 KiB).
    pub receive_buffer_len: usize,
    /// Messages of one connection that are handled in a turn before the others get theirs. At least 1. Default: 1024.
    pub messages_per_turn: usize,
    /// Free buffers that a worker keeps for reuse, in bytes. Default: 4 MiB. Where messages are longer than this, each
    /// allocates its memory anew.
    pub pool_len: usize,
    /// Letters that a worker's mailbox holds before a [`Handle`](crate::Handle) gets
    /// [`PostError::Busy`](crate::PostError::Busy). At least 1. Default: 4096.
    pub mailbox_len: usize,
    /// What futures of the application may use.
    pub(crate) runtime: Runtime,
}

/// A kernel back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverKind {
    /// io_uring from Linux 6.17 on, where it takes less CPU time for a message (docs/benchmarks.md), if this machine
    /// allows it; else epoll, and a line in the log says why.
    #[default]
    Auto,
    /// epoll(7).
    Epoll,
    /// io_uring(7). Needs Linux 6.1 and is best from 6.17 on; sandboxes often forbid it, and then the server does
    /// not start.
    Uring,
}

impl DriverKind {
    /// Its name in logs and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Epoll => "epoll",
            Self::Uring => "io_uring",
        }
    }
}

/// Which worker gets a connection that comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Assignment {
    /// The one whose listening socket the kernel chose, by a hash of the addresses (SO_REUSEPORT, socket(7)). Costs
    /// nothing, and spreads connections at random: with very many the difference is small, with few it is not.
    #[default]
    ReusePort,
    /// The one with the fewest connections: the worker that accepted it hands it over, where another has fewer. Costs
    /// a letter for each connection that goes elsewhere, nothing for a message. For few connections that carry much,
    /// and for those that stay while others come and go.
    LeastLoaded,
    /// The one that is pinned to the CPU on which the kernel received the connection (SO_ATTACH_REUSEPORT_CBPF,
    /// socket(7)); one that came in on a CPU without a worker goes as with [`ReusePort`](Self::ReusePort). Costs
    /// nothing, and keeps a connection's data in one CPU's cache from the interrupt to the handler, if the card spreads
    /// flows over the CPUs of the workers and keeps to that (docs/busy-polling.md). Needs
    /// [`exclusive`](Config::exclusive) ports and a core for each worker. Listeners that workers share, such as Unix
    /// sockets, are left as they are.
    Cpu,
}

/// On which cores the workers run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pinning {
    /// One worker on each core that the process may run on; where workers are more than cores, none is pinned.
    #[default]
    Auto,
    /// Wherever the scheduler puts them.
    Off,
    /// Worker `n` on the core with the number `cores[n % cores.len()]`. Not empty, and each a core that the process may
    /// run on, or the server does not start.
    Cores(Vec<usize>),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            driver: DriverKind::default(),
            runtime: Runtime::default(),
            io_workers: Sizing::Auto,
            compute_workers: 0,
            compute_queue_len: 1024,
            max_jobs_per_connection: 64,
            pinning: Pinning::default(),
            busy_poll: None,
            napi_busy_poll: None,
            napi_prefer_busy_poll: false,
            protocol: ringwire_codec::Config::default(),
            max_unauthenticated_len: None,
            compression: CompressionConfig::default(),
            head: HeadLimits::default(),
            max_body_len: 1 << 20,
            max_http_requests: 1000,
            http_keep_alive_timeout: Some(Duration::from_secs(75)),
            origin_policy: OriginPolicy::Any,
            requires_origin: false,
            subprotocols: Vec::new(),
            handshake_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(120)),
            ping_interval: Some(Duration::from_secs(30)),
            pong_timeout: Some(Duration::from_secs(10)),
            reports_pongs: true,
            close_timeout: Some(Duration::from_secs(5)),
            write_stall_timeout: Some(Duration::from_secs(20)),
            min_drain_rate: Some(1 << 10),
            max_lifetime: None,
            high_water: 128 << 10,
            max_queued_len: 256 << 10,
            backpressure: Backpressure::Close(CloseCode::TRY_AGAIN_LATER),
            rate_limit: RateLimit::default(),
            topics: TopicConfig::default(),
            cluster: ClusterConfig::default(),
            max_memory: Sizing::Auto,
            memory_return_delay: Some(Duration::from_secs(5)),
            assignment: Assignment::ReusePort,
            max_connections: Sizing::Auto,
            max_connections_per_address: Limit::Unlimited,
            max_accepts_per_second: Limit::Unlimited,
            listen_backlog: 4096,
            exclusive: true,
            listen_timeout: Duration::from_secs(2),
            tcp_nodelay: true,
            tcp_user_timeout: Some(Duration::from_secs(30)),
            tcp_keepalive_time: None,
            tcp_keepalive_interval: Duration::from_secs(10),
            tcp_keepalive_probes: 3,
            tcp_notsent_lowat: Sizing::Fixed(128 << 10),
            tcp_send_buffer_len: Sizing::Auto,
            tcp_receive_buffer_len: Sizing::Auto,
            receive_buffer_len: 64 << 10,
            messages_per_turn: 1024,
            pool_len: 4 << 20,
            mailbox_len: 4096,
        }
    }
}

setters! { Config;
    with_driver, driver: DriverKind;
    with_io_workers, io_workers: impl Into<Sizing>;
    with_compute_workers, compute_workers: usize;
    with_compute_queue_len, compute_queue_len: usize;
    with_max_jobs_per_connection, max_jobs_per_connection: usize;
    with_pinning, pinning: Pinning;
    with_busy_poll, busy_poll: impl Into<Option<Duration>>;
    with_napi_busy_poll, napi_busy_poll: impl Into<Option<Duration>>;
    with_napi_prefer_busy_poll, napi_prefer_busy_poll: bool;
    with_protocol, protocol: ringwire_codec::Config;
    with_max_unauthenticated_len, max_unauthenticated_len: impl Into<Option<usize>>;
    with_compression, compression: CompressionConfig;
    with_head, head: HeadLimits;
    with_max_body_len, max_body_len: usize;
    with_max_http_requests, max_http_requests: u16;
    with_http_keep_alive_timeout, http_keep_alive_timeout: impl Into<Option<Duration>>;
    with_origin_policy, origin_policy: OriginPolicy;
    with_requires_origin, requires_origin: bool;
    with_handshake_timeout, handshake_timeout: impl Into<Option<Duration>>;
    with_idle_timeout, idle_timeout: impl Into<Option<Duration>>;
    with_ping_interval, ping_interval: impl Into<Option<Duration>>;
    with_pong_timeout, pong_timeout: impl Into<Option<Duration>>;
    with_reports_pongs, reports_pongs: bool;
    with_close_timeout, close_timeout: impl Into<Option<Duration>>;
    with_write_stall_timeout, write_stall_timeout: impl Into<Option<Duration>>;
    with_min_drain_rate, min_drain_rate: impl Into<Option<usize>>;
    with_max_lifetime, max_lifetime: impl Into<Option<Duration>>;
    with_high_water, high_water: usize;
    with_max_queued_len, max_queued_len: usize;
    with_backpressure, backpressure: Backpressure;
    with_rate_limit, rate_limit: RateLimit;
    with_topics, topics: TopicConfig;
    with_cluster, cluster: ClusterConfig;
    with_max_memory, max_memory: impl Into<Sizing>;
    with_memory_return_delay, memory_return_delay: impl Into<Option<Duration>>;
    with_assignment, assignment: Assignment;
    with_max_connections, max_connections: impl Into<Sizing>;
    with_max_connections_per_address, max_connections_per_address: impl Into<Limit<u32>>;
    with_max_accepts_per_second, max_accepts_per_second: impl Into<Limit<u32>>;
    with_listen_backlog, listen_backlog: u32;
    with_exclusive, exclusive: bool;
    with_listen_timeout, listen_timeout: Duration;
    with_tcp_nodelay, tcp_nodelay: bool;
    with_tcp_user_timeout, tcp_user_timeout: impl Into<Option<Duration>>;
    with_tcp_keepalive_time, tcp_keepalive_time: impl Into<Option<Duration>>;
    with_tcp_keepalive_interval, tcp_keepalive_interval: Duration;
    with_tcp_keepalive_probes, tcp_keepalive_probes: u32;
    with_tcp_notsent_lowat, tcp_notsent_lowat: impl Into<Sizing<u32>>;
    with_tcp_send_buffer_len, tcp_send_buffer_len: impl Into<Sizing>;
    with_tcp_receive_buffer_len, tcp_receive_buffer_len: impl Into<Sizing>;
    with_receive_buffer_len, receive_buffer_len: usize;
    with_messages_per_turn, messages_per_turn: usize;
    with_pool_len, pool_len: usize;
    with_mailbox_len, mailbox_len: usize;
}

impl Config {
    /// Sets [`subprotocols`](Self::subprotocols).
    #[must_use]
    pub fn with_subprotocols<N: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether the engine answers pings (in [`protocol`](Self::protocol)). Default: yes. No is for handlers that
    /// answer them ([`Handler::on_ping`](crate::Handler::on_ping)).
    #[must_use]
    pub fn with_answers_pings(mut self, answers: bool) -> Self {
        self.protocol = self.protocol.with_answers_pings(answers);
        self
    }

    /// Sets the longest message that is taken whole, in bytes (in [`protocol`](Self::protocol)).
    #[must_use]
    pub fn with_max_message_len(mut self, len: usize) -> Self {
        self.protocol = self.protocol.with_max_message_len(len);
        self
    }
}

impl From<&Config> for BusyPoll {
    fn from(config: &Config) -> Self {
        Self {
            worker: config.busy_poll,
            napi: config.napi_busy_poll,
            prefers_napi: config.napi_prefer_busy_poll,
        }
    }
}

impl From<&Config> for TcpOptions {
    fn from(config: &Config) -> Self {
        let keepalive = config.tcp_keepalive_time.map(|time| Keepalive {
            time,
            interval: config.tcp_keepalive_interval,
            probes: config.tcp_keepalive_probes,
        });
        Self {
            nodelay: config.tcp_nodelay,
            user_timeout: config.tcp_user_timeout,
            keepalive,
            notsent_lowat: config.tcp_notsent_lowat.fixed(),
            send_buffer_len: config.tcp_send_buffer_len.fixed(),
            receive_buffer_len: config.tcp_receive_buffer_len.fixed(),
        }
    }
}

impl From<&Config> for ListenOptions {
    fn from(config: &Config) -> Self {
        Self { tcp: config.into(), backlog: config.listen_backlog }
    }
}
