//! What is counted, in a second of a generator or over a whole run: sums and histograms, so that those of seconds,
//! threads and processes add up.

use serde::{Deserialize, Serialize};

use crate::echo::{self, Failure, Failures, Latencies};

/// Counts and histograms.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Connections that became open.
    pub(crate) opened: u64,
    /// Connections that were open and are not any more.
    pub(crate) closed: u64,
    /// Those of them that this side closed and the server answered (RFC 6455 §7.1.4).
    pub(crate) closed_cleanly: u64,
    /// In an open loop: messages that are due in all of its time, told at its begin.
    pub(crate) due: u64,
    /// Those of them whose turn came, also where their connection was gone by then.
    pub(crate) reached: u64,
    /// Messages given to a connection.
    pub(crate) sent: u64,
    /// Messages whose reply was right.
    pub(crate) answered: u64,
    /// Bytes that left the generator during work, framing included; told at its end.
    pub(crate) bytes_sent: u64,
    /// Bytes that came to it.
    pub(crate) bytes_received: u64,
    /// From the begin of a connect to the end of its handshake.
    pub(crate) connect: Latencies,
    /// From the moment when a message was sent, or was due in an open loop, to its reply.
    pub(crate) latency: Latencies,
    /// From the moment when a message was due to the moment when the generator gave it to its connection.
    pub(crate) lag: Latencies,
    /// What went wrong, by kind.
    pub(crate) failures: Failures,
    /// When the last connection became open, in nanoseconds of the run.
    pub(crate) last_opened: u64,
    /// When the last right reply came, in nanoseconds of the run.
    pub(crate) last_answered: u64,
}

impl Tally {
    /// Adds what another one counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.closed_cleanly += other.closed_cleanly;
        self.due += other.due;
        self.reached += other.reached;
        self.sent += other.sent;
        self.answered += other.answered;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.connect.merge(&other.connect);
        self.latency.merge(&other.latency);
        self.lag.merge(&other.lag);
        echo::add(&mut self.failures, &other.failures);
        self.last_opened = self.last_opened.max(other.last_opened);
        self.last_answered = self.last_answered.max(other.last_answered);
    }

    /// Counts failures of a kind.
    pub(crate) fn fail(&mut self, failure: Failure, count: u64) {
        echo::count(&mut self.failures, failure, count);
    }

    /// All failures.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Whether nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        let bytes = self.bytes_sent + self.bytes_received;
        let messages = self.due + self.reached + self.sent + self.answered;
        self.opened + self.closed + messages + bytes + self.failed() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_parts_that_crossed_a_pipe_are_the_whole() {
        let (mut whole, mut merged) = (Tally::default(), Tally::default());
        for part in 0..3_u64 {
            let mut tally = Tally::default();
            for value in (1..=9000_u64).filter(|value| value % 3 == part) {
                let nanos = value * value * 100;
                tally.latency.record_nanos(nanos);
                whole.latency.record_nanos(nanos);
                tally.answered += 1;
            }
            tally.fail(Failure::Reset, part);
            tally.last_answered = 100 - part;
            let line = serde_json::to_string(&tally).unwrap();
            merged.merge(&serde_json::from_str(&line).unwrap());
        }
        assert_eq!(merged.latency.summary(), whole.latency.summary());
        let counts = |tally: &Tally| serde_json::to_value(&tally.latency).unwrap();
        assert_eq!(counts(&merged), counts(&whole));
        assert_eq!((merged.answered, merged.last_answered), (9000, 100));
        assert_eq!(merged.failures, [("reset".to_owned(), 3)].into());
        assert_eq!(merged.connect.summary(), None);
        let (curve, all) = (merged.latency.curve(), merged.latency.micros());
        assert_eq!((curve[0].0, curve.len()), (0.0, all.len()));
        let highest = curve.last().unwrap();
        assert!(highest.0 > 0.99 && highest.0 < 1.0 && highest.1 >= 8_000_000.0, "{highest:?}");
        assert!(merged.connect.curve().is_empty());
    }
}
