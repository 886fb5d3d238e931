//! The settings that connections need.

use crate::base::runtime::Runtime;
use crate::base::timer::{TICKS_PER_SECOND, Tick, ticks_of};
use crate::config::Config;
use crate::config::origin::OriginPolicy;
use crate::conn::options::Backpressure;
use crate::conn::{Flags, Wire};
use crate::limits::rate::Rates;

/// The same once the server is shut down, which waits for them.
const LAST_LINGER: Tick = TICKS_PER_SECOND;
/// The longest that a connection lingers: 5 s.
const LINGER: Tick = 5 * TICKS_PER_SECOND;
/// The settings that connections need, deadlines in ticks.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) protocol: ringwire_codec::Config,
    /// The same for peers that are not authenticated yet ([`Ctx::set_authenticated`](crate::Ctx::set_authenticated)),
    /// if these have limits of their own.
    pub(crate) unauthenticated: Option<ringwire_codec::Config>,
    pub(crate) head: ringwire_codec::handshake::HeadLimits,
    pub(crate) handshake: Option<Tick>,
    pub(crate) max_body_len: usize,
    pub(crate) http_keep_alive: Option<Tick>,
    pub(crate) max_http_requests: u16,
    pub(crate) idle: Option<Tick>,
    pub(crate) ping: Option<Tick>,
    pub(crate) pong: Option<Tick>,
    pub(crate) reports_pongs: bool,
    pub(crate) close: Option<Tick>,
    /// How long a connection lingers. Never without an end, also where closing may take as long as it likes.
    pub(crate) linger: Tick,
    /// How long its peer may take nothing of what is still on its way meanwhile.
    pub(crate) linger_stall: Tick,
    /// Both as they were before a drain.
    unhurried: Option<(Tick, Tick)>,
    pub(crate) write_stall: Option<Tick>,
    /// Bytes a second of what is owed to a peer to whom nothing more will be said. 0: any.
    pub(crate) min_drain_rate: usize,
    pub(crate) lifetime: Option<Tick>,
    /// How long memory that is not needed any more is kept.
    pub(crate) memory_return: Option<Tick>,
    /// What one receive brings: longer messages go out without a copy where the socket takes them.
    pub(crate) receive_buffer_len: usize,
    pub(crate) high_water: usize,
    pub(crate) max_queued_len: usize,
    pub(crate) backpressure: Backpressure,
    pub(crate) messages_per_turn: usize,
    /// Jobs of one connection.
    pub(crate) max_jobs: usize,
    /// Connections of the whole server that are accepted in a second.
    pub(crate) max_accepts_per_second: Option<u32>,
    pub(crate) origin_policy: OriginPolicy,
    pub(crate) requires_origin: bool,
    /// Of the whole server, the preferred one first.
    pub(crate) subprotocols: Vec<String>,
    /// How much a peer may say.
    pub(crate) rates: Option<Rates>,
    /// What futures may use.
    pub(crate) runtime: Runtime,
}

impl Limits {
    /// The server is shut down, and its end waits for connections that linger.
    pub(crate) fn shorten_linger(&mut self) {
        self.unhurried.get_or_insert((self.linger, self.linger_stall));
        self.linger = self.linger.min(LAST_LINGER);
        self.linger_stall = self.linger;
    }

    /// The server goes on after all.
    pub(crate) fn restore_linger(&mut self) {
        if let Some(unhurried) = self.unhurried.take() {
            (self.linger, self.linger_stall) = unhurried;
        }
    }

    /// Those of the protocol that hold for a connection.
    pub(crate) fn protocol_of(&self, wire: &Wire) -> &ringwire_codec::Config {
        match &self.unauthenticated {
            Some(config) if wire.flags.contains(Flags::UNAUTHENTICATED) => config,
            _ => &self.protocol,
        }
    }
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        let linger = config.close_timeout.map(ticks_of).map_or(LINGER, |close| close.min(LINGER));
        let write_stall = config.write_stall_timeout.map(ticks_of);
        Self {
            protocol: config.protocol,
            unauthenticated: unauthenticated(config),
            head: config.head,
            handshake: config.handshake_timeout.map(ticks_of),
            max_body_len: config.max_body_len,
            http_keep_alive: config.http_keep_alive_timeout.map(ticks_of),
            max_http_requests: config.max_http_requests,
            idle: config.idle_timeout.map(ticks_of),
            ping: config.ping_interval.map(ticks_of),
            pong: config.pong_timeout.map(ticks_of),
            reports_pongs: config.reports_pongs,
            close: config.close_timeout.map(ticks_of),
            linger,
            linger_stall: linger.max(write_stall.unwrap_or(0)),
            unhurried: None,
            write_stall,
            min_drain_rate: config.min_drain_rate.unwrap_or(0),
            lifetime: config.max_lifetime.map(ticks_of),
            memory_return: config.memory_return_delay.map(ticks_of),
            receive_buffer_len: config.receive_buffer_len,
            high_water: config.high_water,
            max_queued_len: config.max_queued_len,
            backpressure: config.backpressure,
            messages_per_turn: config.messages_per_turn,
            max_jobs: config.max_jobs_per_connection,
            runtime: config.runtime.clone(),
            max_accepts_per_second: config.max_accepts_per_second.at(),
            origin_policy: config.origin_policy.clone(),
            requires_origin: config.requires_origin,
            subprotocols: config.subprotocols.clone(),
            rates: Rates::new(&config.rate_limit),
        }
    }
}

/// The limits before the application says that a peer is authenticated, if there are any.
fn unauthenticated(config: &Config) -> Option<ringwire_codec::Config> {
    let len = config.max_unauthenticated_len?;
    let (whole, streamed) = (config.protocol.max_message_len, config.protocol.max_streamed_len);
    let limits = config.protocol.with_max_message_len(whole.min(len));
    Some(limits.with_max_streamed_len(streamed.min(len as u64)))
}
