//! What became of the messages of a run.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Row, Span, show_micros};
use crate::echo::Summary;
use crate::scenario::conductor::{Found, seconds_of_work};
use crate::scenario::plan::{Plan, Work};
use crate::scenario::tally::Tally;
use crate::units::{ratio, show_count};

/// Messages that the generator gave out this much after they were due, in microseconds, show that it was too slow.
const LATE_SEND: f64 = 20_000.0;
/// Bytes of a TCP segment on an Ethernet.
const SEGMENT_LEN: u64 = 1460;
/// So does a share of messages that it came to at all below this.
const SENT_SHARE: f64 = 0.99;

/// What became of the messages.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct WorkDone {
    /// Messages that were to be sent; `None` where nobody says.
    pub(crate) asked: Option<u64>,
    /// Those of an open loop whose turn came, sent or not.
    #[serde(skip)]
    pub(crate) reached: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Over all connections.
    pub(crate) in_flight: Option<u32>,
    pub(crate) seconds: f64,
    pub(crate) messages_per_second: f64,
    pub(crate) megabytes_per_second: f64,
    pub(crate) traffic: Traffic,
    /// Replies in each second; `None` where work is not told by time, or less than a second.
    pub(crate) each_second: Option<EachSecond>,
    pub(crate) latency_us: Option<Summary>,
    /// In an open loop: how late the generator gave messages to their connections. Part of the latency.
    pub(crate) send_lag_us: Option<Summary>,
    /// Messages a second for each percent of a CPU of the server.
    pub(crate) efficiency: Option<f64>,
}

/// Bytes on TCP during work, with the frames' headers, what TLS adds, and handshakes where connections come and go; and
/// what that is in a second.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Traffic {
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) up_mbps: f64,
    pub(crate) down_mbps: f64,
    /// Of a connection, both ways together.
    pub(crate) connection_mbps: f64,
    /// The same in thousands of bytes a second.
    pub(crate) connection_kilobytes_per_second: f64,
    /// TCP segments a second that these messages take at least, where each is sent by itself.
    pub(crate) up_packets_per_second: f64,
    pub(crate) down_packets_per_second: f64,
    /// Segments of a message.
    pub(crate) up_segments: u64,
    pub(crate) down_segments: u64,
}

/// What there was in each whole second.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct EachSecond {
    #[serde(flatten)]
    pub(crate) span: Span,
    pub(crate) counts: Vec<u64>,
}

impl WorkDone {
    pub(super) fn new(plan: &Plan, found: &Found, cpu: Option<Span>) -> Self {
        let total = &found.total;
        let seconds = time(plan, found).as_secs_f64();
        let (mut asked, mut in_flight) = (None, None);
        match plan.work {
            Work::Idle | Work::Churn { .. } | Work::Sessions { .. } => {}
            Work::Each { messages } => asked = messages.checked_mul(plan.connections.into()),
            Work::Pool { messages, in_flight: most } => {
                (asked, in_flight) = (Some(messages), Some(most.min(plan.connections)));
            }
            Work::Loop { in_flight: each, .. } => {
                in_flight = Some(each.saturating_mul(plan.connections));
            }
            // Each generator's own: its connections take turns among themselves.
            Work::Rate { .. } => asked = Some(total.due),
        }
        let messages_per_second = ratio(total.answered as f64, seconds);
        let bytes = (total.bytes_sent, total.bytes_received);
        Self {
            asked,
            reached: total.reached,
            sent: total.sent,
            answered: total.answered,
            in_flight,
            seconds,
            messages_per_second,
            megabytes_per_second: messages_per_second * plan.size as f64 / 1e6,
            traffic: Traffic::new(bytes, seconds, total.opened)
                .with_packets((total.sent, total.answered), seconds),
            each_second: EachSecond::new(plan, found, |tally| tally.answered),
            latency_us: total.latency.summary(),
            send_lag_us: total.lag.summary(),
            efficiency: cpu.filter(|cpu| cpu.mean > 0.0).map(|cpu| messages_per_second / cpu.mean),
        }
    }

    /// Whether the generator sent too late, or did not come to all that it should have: then latencies are its own.
    /// Messages whose connection was gone when they were due are not its fault.
    pub(crate) fn fell_behind(&self) -> bool {
        let asked = self.asked.unwrap_or_default() as f64;
        let is_short = (self.reached as f64) < asked * SENT_SHARE;
        self.send_lag_us.is_some_and(|lag| lag.p99 > LATE_SEND || is_short)
    }

    /// Whether as much was sent as was asked for.
    pub(crate) fn was_offered(&self) -> bool {
        self.sent as f64 >= self.asked.unwrap_or_default() as f64 * SENT_SHARE
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let asked =
            self.asked.map_or(String::new(), |asked| format!(" of {}", show_count(asked as f64)));
        let mut rows = vec![
            (
                "messages",
                format!(
                    "{} sent{asked}, {} answered in {:.2} s",
                    show_count(self.sent as f64),
                    show_count(self.answered as f64),
                    self.seconds
                ),
            ),
            ("rate", format!("{} messages/s", show_count(self.messages_per_second))),
            ("payload", format!("{:.1} MB/s each way", self.megabytes_per_second)),
        ];
        if let Some(latency) = self.latency_us {
            rows.extend(Summary::NAMES.into_iter().zip(latency.values().map(show_micros)));
        }
        if let Some(lag) = self.send_lag_us {
            rows.push((
                "sent late by",
                format!("p50 {}, p99 {}", show_micros(lag.p50), show_micros(lag.p99)),
            ));
        }
        rows
    }
}

/// From the begin of work to its last reply, or to the end of its time where that is later.
pub(super) fn time(plan: &Plan, found: &Found) -> Duration {
    let nanos = found.total.last_answered.saturating_sub(found.work_began);
    Duration::from_nanos(nanos).max(plan.work.duration().unwrap_or_default())
}

/// How many things are due in a time, the first one at once; `None` without an interval.
pub(super) fn due_count(interval: Duration, time: Duration) -> Option<u64> {
    let interval = Some(interval.as_nanos()).filter(|&nanos| nanos > 0)?;
    Some(u64::try_from(time.as_nanos().div_ceil(interval)).unwrap_or(u64::MAX))
}

impl Traffic {
    /// Of so many bytes up and down in these seconds.
    pub(crate) fn new((up, down): (u64, u64), seconds: f64, connections: u64) -> Self {
        let mbps = |bytes: u64| ratio(bytes as f64 * 8.0 / 1e6, seconds);
        let connection_mbps = ratio(mbps(up + down), connections as f64);
        Self {
            bytes_sent: up,
            bytes_received: down,
            up_mbps: mbps(up),
            down_mbps: mbps(down),
            connection_mbps,
            connection_kilobytes_per_second: connection_mbps * 1e3 / 8.0,
            ..Self::default()
        }
    }

    /// The same with the packets of so many messages up and down, as tcpkali estimates them.
    pub(crate) fn with_packets(self, (up, down): (u64, u64), seconds: f64) -> Self {
        let segments = |bytes: u64, count: u64| match count {
            0 => 0,
            count => (bytes / count).div_ceil(SEGMENT_LEN),
        };
        let (up_segments, down_segments) =
            (segments(self.bytes_sent, up), segments(self.bytes_received, down));
        Self {
            up_segments,
            down_segments,
            up_packets_per_second: ratio((up_segments * up) as f64, seconds),
            down_packets_per_second: ratio((down_segments * down) as f64, seconds),
            ..self
        }
    }
}

impl EachSecond {
    /// Of work that is told by time; `None` if it is no second long.
    pub(super) fn new(plan: &Plan, found: &Found, count: fn(&Tally) -> u64) -> Option<Self> {
        let seconds = seconds_of_work(plan, found.work_began);
        let counts: Vec<u64> =
            seconds.map(|second| found.seconds.get(&second).map_or(0, count)).collect();
        let values: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
        Some(Self { span: Span::of(&values)?, counts })
    }

    /// Least, mean and most, as people read them.
    pub(crate) fn shown(&self) -> String {
        let [min, mean, max] = [self.span.min, self.span.mean, self.span.max].map(show_count);
        format!("min {min}, mean {mean}, max {max}")
    }
}
