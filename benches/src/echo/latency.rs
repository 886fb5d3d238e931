//! When each message in flight was sent, and the histogram of how long its echo took.
//!
//! The clock is read once for each socket event, right after its recv: that time stands for the arrival
//! of all echoes in it and for the departure of the messages they release. So a latency includes the
//! time an echo waits in the socket while the generator is at others, and the resolution is 100 ns.
#![expect(clippy::disallowed_methods, reason = "a load generator measures time")]

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::report::Percentiles;

const TICK_NANOS: u32 = 100;
/// Longer latencies count as this long (one minute).
const MAX_TICKS: u64 = 600_000_000;

/// Time in units of 100 ns since the run began; wraps after seven minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks(u32);

impl Ticks {
    /// Ticks between `earlier` and this.
    pub(crate) fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Its bytes in a message.
    pub(crate) fn to_le_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// How many ticks a duration takes, at most a minute's.
    pub(crate) fn in_duration(duration: Duration) -> u32 {
        let ticks = duration.as_nanos() / u128::from(TICK_NANOS);
        u32::try_from(ticks.min(MAX_TICKS.into())).unwrap_or(u32::MAX)
    }
}

/// The source of ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Reads the clock.
    #[inline]
    pub(crate) fn now(self) -> Ticks {
        let elapsed = self.0.elapsed();
        let whole = elapsed.as_secs().wrapping_mul(u64::from(1_000_000_000 / TICK_NANOS));
        let ticks = whole.wrapping_add(u64::from(elapsed.subsec_nanos() / TICK_NANOS));
        #[expect(clippy::cast_possible_truncation, reason = "ticks wrap")]
        Ticks(ticks as u32)
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// When the messages in flight of all connections were sent: a ring for each connection.
pub(crate) struct Stamps {
    ticks: Vec<Ticks>,
    in_flight: usize,
}

impl Stamps {
    /// Rings of `in_flight` places for `connections`.
    pub(crate) fn new(connections: usize, in_flight: usize) -> Self {
        Self { ticks: vec![Ticks(0); connections * in_flight], in_flight }
    }

    /// The ring of one connection. The echo of a message and the message that it releases have the
    /// same place.
    pub(crate) fn ring(&mut self, connection: usize) -> &mut [Ticks] {
        let start = connection * self.in_flight;
        &mut self.ticks[start..start + self.in_flight]
    }
}

/// Latencies, or other times, in a histogram of three significant digits up to a minute. It takes no memory before the
/// first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    histogram: Option<Box<Histogram<u64>>>,
    /// Echoes of one event were often sent by one event too: equal values are recorded together.
    ticks: u32,
    count: u64,
    /// The same since [`Latencies::take_recent`], if that is wanted.
    recent: Option<Box<Self>>,
}

impl Latencies {
    /// What was added since the last call; nothing at the first one, from which on it is kept.
    pub(crate) fn take_recent(&mut self) -> Option<Self> {
        self.settle();
        self.recent.replace(Box::default()).map(|recent| *recent)
    }

    /// Adds one latency.
    #[inline]
    pub(crate) fn record(&mut self, ticks: u32) {
        if ticks != self.ticks {
            self.settle();
            self.ticks = ticks;
        }
        self.count += 1;
    }

    /// Adds one in nanoseconds.
    pub(crate) fn record_nanos(&mut self, nanos: u64) {
        self.record(u32::try_from(nanos / u64::from(TICK_NANOS)).unwrap_or(u32::MAX));
    }

    /// Adds those of another thread.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.settle();
        if let Some(others) = other.settled() {
            self.histogram().add(*others).expect("bounds are equal");
        }
    }

    /// The usual percentiles, or `None` without any latency.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let histogram = self.settled()?;
        let micros = |ticks: u64| ticks as f64 * f64::from(TICK_NANOS) / 1000.0;
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        Some(Summary {
            min: micros(histogram.min()),
            mean: histogram.mean() * f64::from(TICK_NANOS) / 1000.0,
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(histogram.max()),
        })
    }

    /// Microseconds, and how often each was there.
    pub(crate) fn micros(&self) -> Vec<(f64, u64)> {
        let micros = |(ticks, count)| (ticks as f64 * f64::from(TICK_NANOS) / 1e3, count);
        self.counts().into_iter().map(micros).collect()
    }

    /// A histogram of nanoseconds with three significant digits; `None` without any value.
    pub(crate) fn nanos(&self) -> Option<Histogram<u64>> {
        self.settled()?;
        let mut nanos = Histogram::new(3).ok()?;
        for (ticks, count) in self.counts() {
            nanos.record_n(ticks * u64::from(TICK_NANOS), count).ok()?;
        }
        Some(nanos)
    }

    /// The share of values that are no higher, and the value in microseconds, for each that there was.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let counts = self.micros();
        let all: u64 = counts.iter().map(|(_, count)| count).sum();
        let mut passed = 0;
        let point = |(micros, count): &(f64, u64)| {
            // The share below it: the last one would stand at all of them, infinitely far.
            let share = passed as f64 / all as f64;
            passed += count;
            (share, *micros)
        };
        counts.iter().map(point).collect()
    }

    /// Values in ticks, and how often each was recorded: what another process makes the same histogram of.
    fn counts(&self) -> Vec<(u64, u64)> {
        let Some(histogram) = self.settled() else { return Vec::new() };
        let recorded = histogram.iter_recorded();
        recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// The histogram with all values in it, if there are any.
    fn settled(&self) -> Option<Box<Histogram<u64>>> {
        let mut all = Self { recent: None, ..self.clone() };
        all.settle();
        all.histogram
    }

    fn settle(&mut self) {
        let (ticks, count) = (u64::from(self.ticks.max(1)), std::mem::take(&mut self.count));
        if count > 0 {
            self.histogram().saturating_record_n(ticks, count);
            if let Some(recent) = &mut self.recent {
                recent.histogram().saturating_record_n(ticks, count);
            }
        }
    }

    fn histogram(&mut self) -> &mut Histogram<u64> {
        let new = || Histogram::new_with_bounds(1, MAX_TICKS, 3).expect("bounds are constant");
        self.histogram.get_or_insert_with(|| Box::new(new()))
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.counts().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latencies = Self::default();
        for (ticks, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latencies.histogram().saturating_record_n(ticks, count);
        }
        Ok(latencies)
    }
}

/// Percentiles of latency in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p75: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl From<Summary> for Percentiles {
    fn from(Summary { p50, p90, p99, p999, max, .. }: Summary) -> Self {
        Self { p50, p90, p99, p999, max }
    }
}

impl Summary {
    /// The names of its values on command lines and in tables.
    pub(crate) const NAMES: [&str; 9] =
        ["min", "mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "max"];

    /// Its values, in the order of their names.
    pub(crate) fn values(&self) -> [f64; 9] {
        let Self { min, mean, p50, p75, p90, p95, p99, p999, max } = *self;
        [min, mean, p50, p75, p90, p95, p99, p999, max]
    }

    /// A value by its name; `None` for any other name.
    pub(crate) fn named(&self, name: &str) -> Option<f64> {
        let place = Self::NAMES.iter().position(|known| *known == name)?;
        Some(self.values()[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_merged_histograms() {
        let mut all = Latencies::default();
        assert_eq!(all.summary(), None);
        for thread in 0..4 {
            let mut part = Latencies::default();
            for value in (1..=10_000).filter(|value| value % 4 == thread) {
                part.record(value * 10);
            }
            all.merge(&part);
        }
        let summary = all.summary().unwrap();
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert!(near(summary.p50, 5000.0), "{summary:?}");
        assert!(near(summary.p90, 9000.0), "{summary:?}");
        assert!(near(summary.p99, 9900.0), "{summary:?}");
        assert!(near(summary.p999, 9990.0), "{summary:?}");
        assert!(near(summary.max, 10_000.0), "{summary:?}");
    }

    #[test]
    fn counts_make_the_same_histogram() {
        let mut latencies = Latencies::default();
        for value in [1, 7, 7, 2048, 123_456, 99_999_999] {
            latencies.record(value);
        }
        let json = serde_json::to_string(&latencies).unwrap();
        let copy: Latencies = serde_json::from_str(&json).unwrap();
        assert_eq!(copy.counts(), latencies.counts());
        assert_eq!(copy.summary(), latencies.summary());
        assert_eq!(latencies.counts().iter().map(|(_, count)| count).sum::<u64>(), 6);
    }

    #[test]
    fn equal_values_count_each() {
        let mut latencies = Latencies::default();
        for _ in 0..99 {
            latencies.record(50);
        }
        latencies.record(u32::MAX);
        let summary = latencies.summary().unwrap();
        assert!((summary.p99 - 5.0).abs() < 0.01, "{summary:?}");
        assert!(summary.max >= 59_000_000.0, "{summary:?}");
    }

    #[test]
    fn recent_ones_are_apart() {
        let mut latencies = Latencies::default();
        latencies.record(10);
        assert!(latencies.take_recent().is_none());
        for ticks in [50, 50, 70] {
            latencies.record(ticks);
        }
        let recent = latencies.take_recent().and_then(|recent| recent.summary()).unwrap();
        assert!((recent.p50 - 5.0).abs() < 0.01 && (recent.max - 7.0).abs() < 0.01, "{recent:?}");
        assert_eq!(latencies.take_recent().and_then(|recent| recent.summary()), None);
        assert!((latencies.summary().unwrap().max - 7.0).abs() < 0.01);
    }

    #[test]
    fn ticks_wrap() {
        assert_eq!(Ticks(5).since(Ticks(u32::MAX - 4)), 10);
        let clock = Clock::start();
        let earlier = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now().since(earlier) >= 20_000);
    }

    #[test]
    fn rings_are_apart() {
        let mut stamps = Stamps::new(3, 2);
        stamps.ring(1).fill(Ticks(7));
        assert_eq!(stamps.ring(0), [Ticks(0); 2]);
        assert_eq!(stamps.ring(2), [Ticks(0); 2]);
        assert_eq!(stamps.ring(1), [Ticks(7); 2]);
    }
}
