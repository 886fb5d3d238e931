//! What is written down while it lasts, and what is made of it.

#![expect(clippy::disallowed_methods, reason = "looks at the clock, and waits between two looks")]

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::healthy::{Load, new_histogram};
use super::server::{Account, Process};
use crate::growth::{self, has_grown, median};
use crate::units::{show_bytes, show_count};
use crate::{output, procstat};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Between two lines.
const REPORT_INTERVAL: u32 = 10;
/// Memory that comes and goes.
const MEMORY_SLACK: u64 = 4 << 20;
/// A p99 of the last quarter that is so many times that of the second and longer than this is no noise.
const LATENCY_GROWTH: u64 = 10;
const LATENCY_SLACK_US: u64 = 50_000;
/// How long connections may take to be given back at the end: a write stall, and some.
const END_LIMIT: Duration = Duration::from_secs(40);

/// A server's life as it was seen from outside.
#[derive(Debug)]
pub(super) struct Record {
    driver: String,
    began: Instant,
    /// Open before anybody came.
    descriptors: usize,
    samples: Vec<Sample>,
    counts: String,
    failures: Vec<String>,
}

/// A second of it.
#[derive(Debug)]
struct Sample {
    resident_len: u64,
    latency: Histogram<u64>,
}

impl Record {
    pub(super) fn begin(server: &Process) -> anyhow::Result<Self> {
        server.account()?;
        Ok(Self {
            driver: server.driver().to_owned(),
            began: Instant::now(),
            descriptors: server.descriptor_count()?,
            samples: Vec::new(),
            counts: String::new(),
            failures: Vec::new(),
        })
    }

    /// Takes samples until the time is up or a client fails.
    pub(super) fn watch(
        &mut self,
        server: &Process,
        load: &Load,
        duration: Duration,
    ) -> anyhow::Result<()> {
        self.began = Instant::now();
        for number in 1_u32.. {
            let due = SAMPLE_INTERVAL * number;
            thread::sleep(due.saturating_sub(self.began.elapsed()));
            let resident_len = procstat::Resident::of(server.pid())?.all;
            self.samples.push(Sample { resident_len, latency: load.take_latency() });
            let is_over = due >= duration || !load.failures().is_empty();
            if is_over || number.is_multiple_of(REPORT_INTERVAL) {
                output::say(self.line(&server.account()?, load))?;
            }
            if is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    /// All clients have gone: waits until the server knows.
    pub(super) fn end(&mut self, server: &Process, load: &Load) -> anyhow::Result<()> {
        self.failures = load.failures();
        let began = Instant::now();
        loop {
            let account = server.account()?;
            let descriptors = server.descriptor_count()?;
            // The one is that of the account.
            let is_empty = account.total.connections <= 1
                && account.total.queued_bytes == 0
                && account.retained_bytes == 0;
            if is_empty && descriptors <= self.descriptors {
                self.counts = self.line(&account, load);
                return Ok(());
            }
            if began.elapsed() > END_LIMIT {
                self.failures.push(format!(
                    "it keeps what is gone: {account:?}, and {descriptors} descriptors where it began with {}",
                    self.descriptors
                ));
                return Ok(());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What is wrong.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.failures.clone();
        let (before, after) = (self.resident_len(1), self.resident_len(3));
        if let (Some(before), Some(after)) = (before, after)
            && has_grown(before, after, MEMORY_SLACK)
        {
            let (before, after) = (show_bytes(before as f64), show_bytes(after as f64));
            problems.push(format!("memory grew from {before} to {after} between quarters 2 and 4"));
        }
        let (before, after) = (self.latency(1), self.latency(3));
        let (before, after) = (before.value_at_quantile(0.99), after.value_at_quantile(0.99));
        if is_far_off(before, after) {
            problems.push(format!("p99 went from {before} µs to {after} µs in the last quarter"));
        }
        problems
    }

    /// Its quarters, and the end.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("{}, by quarters:", self.driver);
        for quarter in 0..4 {
            let (latency, resident) = (self.latency(quarter), self.resident_len(quarter));
            let _ = write!(
                text,
                "\n  {}: RSS {} (median), p50 {} µs, p99 {} µs, {} echoes",
                quarter + 1,
                show_bytes(resident.unwrap_or_default() as f64),
                latency.value_at_quantile(0.5),
                latency.value_at_quantile(0.99),
                show_count(latency.len() as f64),
            );
        }
        let _ = write!(text, "\nall closed: {}", self.counts);
        text
    }

    fn line(&self, account: &Account, load: &Load) -> String {
        let last = self.samples.len().saturating_sub(REPORT_INTERVAL as usize);
        let latency = merged(&self.samples[last..]);
        let resident = self.samples.last().map_or(0, |sample| sample.resident_len);
        let count =
            |count: &std::sync::atomic::AtomicU64| show_count(count.load(Ordering::Relaxed) as f64);
        let (total, counts) = (account.total, load.counts());
        format!(
            "{:>4} s: RSS {}, queued {}, retained {}; {} connections ({} open) of {}; p50 {} µs, p99 {} µs; {} echoes, \
             {} publications heard of {} delivered, {} messages; {} came and went, {} silent given up, {} read slowly",
            self.began.elapsed().as_secs(),
            show_bytes(resident as f64),
            show_bytes(total.queued_bytes as f64),
            show_bytes(account.retained_bytes as f64),
            total.connections,
            total.open_connections,
            show_count(total.accepts as f64),
            latency.value_at_quantile(0.5),
            latency.value_at_quantile(0.99),
            count(&counts.echoes),
            count(&counts.publications),
            show_count(total.deliveries as f64),
            show_count(total.messages_received as f64),
            count(&counts.churned),
            count(&counts.given_up),
            show_bytes(counts.slow_bytes.load(Ordering::Relaxed) as f64),
        )
    }

    fn resident_len(&self, quarter: usize) -> Option<u64> {
        median(
            growth::quarter(&self.samples, quarter)
                .iter()
                .map(|sample| sample.resident_len)
                .collect(),
        )
    }

    fn latency(&self, quarter: usize) -> Histogram<u64> {
        merged(growth::quarter(&self.samples, quarter))
    }
}

fn merged(samples: &[Sample]) -> Histogram<u64> {
    let mut all = new_histogram();
    for sample in samples {
        // It grows as far as it needs to.
        let _ = all.add(&sample.latency);
    }
    all
}

fn is_far_off(before_us: u64, after_us: u64) -> bool {
    after_us > LATENCY_SLACK_US && after_us > before_us.saturating_mul(LATENCY_GROWTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With so much memory, in MiB, and such latencies, in µs, in each quarter.
    fn record(memory: [u64; 4], latency: [u64; 4]) -> Record {
        let mut samples = Vec::new();
        for (memory, latency) in memory.into_iter().zip(latency) {
            for _ in 0..10 {
                let mut histogram = new_histogram();
                histogram.record(latency).expect("it grows");
                samples.push(Sample { resident_len: memory << 20, latency: histogram });
            }
        }
        Record {
            driver: "test".to_owned(),
            began: Instant::now(),
            descriptors: 10,
            samples,
            counts: String::new(),
            failures: Vec::new(),
        }
    }

    #[test]
    fn what_stays_as_it_is_is_well() {
        let problems = |memory, latency| record(memory, latency).problems();
        // The first quarter is for warming up, and single peaks are the machine's.
        assert_eq!(problems([10, 50, 50, 50], [900, 100, 100, 100]), [""; 0]);
        assert_eq!(problems([50, 50, 80, 55], [100, 100, 90_000, 40_000]), [""; 0]);
    }

    #[test]
    fn growth_is_none() {
        let problems = record([50, 50, 55, 60], [100; 4]).problems();
        assert_eq!(problems, ["memory grew from 50 MiB to 60 MiB between quarters 2 and 4"]);
        let problems = record([50; 4], [100, 100, 100, 60_000]).problems();
        assert!(problems[0].starts_with("p99 went from 100 µs to 6"), "{problems:?}");
        let mut lossy = record([50; 4], [100; 4]);
        lossy.failures.push("healthy 1: message 7 has come back differently".to_owned());
        assert_eq!(lossy.problems().len(), 1);
    }
}
