//! What a generator is to do, and what it says of it. Both are plain data, since a generator may be a process.

use std::net::IpAddr;
use std::time::Duration;

use ringwire_examples::CompressionFlag;
use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::tally::Tally;
use crate::ask::AskArgs;
use crate::procstat::CpuTimes;
use crate::tls::TlsArgs;

/// The part of a run that one generator has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The server's URL.
    pub(crate) url: String,
    pub(crate) tls: TlsArgs,
    pub(crate) ask: AskArgs,
    /// The number of the first connection among those of all generators.
    pub(crate) first: u32,
    /// The certificate of a server that made its own.
    pub(crate) own_certificate: Option<String>,
    /// When the run began, in nanoseconds since 1970: the zero of all its times.
    pub(crate) epoch: u64,
    /// Connections to open.
    pub(crate) connections: u32,
    /// Addresses to connect from, in turn. None: what the kernel chooses.
    pub(crate) sources: Vec<IpAddr>,
    /// Connects outstanding at a time.
    pub(crate) max_concurrent: u32,
    /// Time over which the connects are spread evenly; zero: as fast as they go.
    pub(crate) ramp_up: Duration,
    /// Time for one connection to become open.
    pub(crate) connect_timeout: Duration,
    /// Time for all connects, and for work that has no duration.
    pub(crate) limit: Duration,
    /// A reply that takes longer is late; without any for so long, work is over.
    pub(crate) response_timeout: Duration,
    /// Bytes of a message.
    pub(crate) size: usize,
    pub(crate) text: bool,
    /// What is sent, with {number} in it where that has a place; `None`: random bytes.
    pub(crate) payload: Option<Vec<u8>>,
    /// Takes any message for the reply to the oldest one without, whatever it says.
    pub(crate) any_reply: bool,
    /// Those of them that have one of these in them; none: all.
    pub(crate) reply_contains: Vec<String>,
    /// Compression that the server has to agree to, and whether messages refer to earlier ones; `None`: off.
    pub(crate) takeover: Option<bool>,
    /// Load threads of a process.
    pub(crate) threads: usize,
    /// CPUs for these; none: all that there are.
    pub(crate) cpus: Vec<usize>,
    pub(crate) work: Work,
    /// Of `Work::Rate`, where its rate changes; its interval is none then.
    pub(crate) pace: Option<Pace>,
    /// Whether the generator has a process of its own.
    pub(crate) is_process: bool,
    /// Whether that is on another machine.
    pub(crate) is_elsewhere: bool,
}

/// What is done with the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Nothing.
    #[default]
    Idle,
    /// Each connection has one message in flight until it has had so many replies.
    Each { messages: u64 },
    /// Each connection has so many messages in flight until the time is up.
    Loop { in_flight: u32, duration: Duration },
    /// So many messages over all connections, one after the other, with so many in flight.
    Pool { messages: u64, in_flight: u32 },
    /// Each connection has a message due at each interval, whatever became of those before.
    Rate { interval: Duration, duration: Duration },
    /// Connections are opened, exchange so many messages one after the other, are closed, and are opened again: one at
    /// each interval over all connections, or as fast as they go without one.
    Churn { messages: u64, interval: Duration, duration: Duration },
    /// The same without a close, and as told from outside: those of `handshakes`.
    Sessions { messages: u64 },
}

impl Plan {
    /// How many generators share it in its process, each a thread.
    pub(crate) fn parts(&self) -> usize {
        self.threads.min(self.connections as usize).max(1)
    }

    /// Messages that are due with `Work::Rate`, over all connections, which take turns within an interval.
    pub(crate) fn due(&self) -> u64 {
        let Work::Rate { interval, duration } = self.work else { return 0 };
        if let Some(pace) = &self.pace {
            return pace.messages(self.connections);
        }
        if interval.is_zero() {
            return 0;
        }
        let all = duration.as_nanos() * u128::from(self.connections);
        u64::try_from(all.div_ceil(interval.as_nanos())).unwrap_or(u64::MAX)
    }
}

impl Work {
    /// How long it goes on, where it is told by time.
    pub(crate) fn duration(self) -> Option<Duration> {
        match self {
            Self::Idle | Self::Sessions { .. } | Self::Each { .. } | Self::Pool { .. } => None,
            Self::Loop { duration, .. }
            | Self::Rate { duration, .. }
            | Self::Churn { duration, .. } => Some(duration),
        }
    }

    /// Whether a connection may have several messages in flight.
    pub(crate) fn has_window(self) -> bool {
        matches!(self, Self::Loop { in_flight: 2.., .. } | Self::Rate { .. })
    }
}

/// The compression of a plan's `takeover`.
pub(crate) fn compression_of(takeover: Option<bool>) -> CompressionFlag {
    match takeover {
        None => CompressionFlag::Off,
        Some(false) => CompressionFlag::Shared,
        Some(true) => CompressionFlag::Dedicated,
    }
}

/// What a generator is told, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Open the connections.
    Connect,
    /// Do the work.
    Work,
    /// Close the connections and end.
    End,
}

/// What a generator says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum News {
    /// It waits for orders, these are its threads, and this is its time, in nanoseconds of the run.
    Ready { threads: Vec<u32>, at: u64 },
    /// CPU time that it has had: where it is on another machine.
    Cpu(CpuTimes),
    /// Its totals so far, for a line on the terminal.
    Pulse(Pulse),
    /// What it counted in a second of the run.
    Second(u32, Tally),
    /// An order is done.
    Done(Order),
    /// It cannot go on.
    Failed(String),
}

/// Running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pulse {
    pub(crate) opened: u64,
    /// Of those, the ones that are not open any more.
    pub(crate) closed: u64,
    pub(crate) failed: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

/// The second of the run that a time in nanoseconds is in.
pub(crate) fn second_of(nanos: u64) -> u32 {
    u32::try_from(nanos / 1_000_000_000).unwrap_or(u32::MAX)
}
