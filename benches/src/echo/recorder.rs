//! Samples of a run while it goes on, for its timeline.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::latency::Latencies;
use crate::report::{Sample, Timeline};

/// Between two samples, at least.
const INTERVAL: Duration = Duration::from_millis(250);
/// Samples that wait for the latencies of load threads, which notice the end of an interval at their next pass.
const WAITING: usize = 2;

/// The latencies that a load thread saw within the interval of a number.
pub(crate) type OfInterval = (u32, Latencies);

/// Takes samples and the latencies between them.
pub(crate) struct Recorder {
    timeline: Timeline,
    /// Newest last.
    waiting: VecDeque<Waiting>,
    /// The number of the interval that goes on now.
    interval: u32,
    due: Duration,
    sender: Sender<OfInterval>,
    receiver: Receiver<OfInterval>,
}

/// A sample and what load threads saw in the interval that it ended.
struct Waiting {
    interval: u32,
    sample: Sample,
    latencies: Latencies,
}

impl Recorder {
    /// One whose first sample is due at once.
    pub(crate) fn new() -> Self {
        let (sender, receiver) = channel();
        let (timeline, waiting) = (Timeline::default(), VecDeque::new());
        Self { timeline, waiting, interval: 0, due: Duration::ZERO, sender, receiver }
    }

    /// Where a load thread sends its latencies.
    pub(crate) fn sender(&self) -> Sender<OfInterval> {
        self.sender.clone()
    }

    /// Whether the next sample is to be taken.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now >= self.due
    }

    /// Adds a sample that ends an interval. The number of the interval that begins now.
    pub(crate) fn add(&mut self, now: Duration, sample: Sample) -> u32 {
        let latencies = Latencies::default();
        self.waiting.push_back(Waiting { interval: self.interval, sample, latencies });
        self.receive();
        while self.waiting.len() > WAITING {
            self.settle_first();
        }
        self.due = now + INTERVAL;
        self.interval += 1;
        self.interval
    }

    /// All samples, when the load threads have ended.
    pub(crate) fn finish(mut self) -> Timeline {
        self.receive();
        while !self.waiting.is_empty() {
            self.settle_first();
        }
        self.timeline
    }

    /// Latencies that come too late for their interval count for the oldest that waits, and those after the last
    /// sample for that.
    fn receive(&mut self) {
        for (interval, latencies) in self.receiver.try_iter() {
            let place = self.waiting.partition_point(|waiting| waiting.interval < interval);
            let place = place.min(self.waiting.len().saturating_sub(1));
            if let Some(waiting) = self.waiting.get_mut(place) {
                waiting.latencies.merge(&latencies);
            }
        }
    }

    fn settle_first(&mut self) {
        if let Some(Waiting { mut sample, latencies, .. }) = self.waiting.pop_front() {
            sample.latency_us = latencies.summary().map(Into::into);
            self.timeline.push(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(ticks: u32) -> Latencies {
        let mut latencies = Latencies::default();
        latencies.record(ticks);
        latencies
    }

    #[test]
    fn latencies_find_their_interval() {
        let mut recorder = Recorder::new();
        assert!(recorder.is_due(Duration::ZERO));
        let sender = recorder.sender();
        for interval in 0..5 {
            let sample = Sample { seconds: f64::from(interval), ..Sample::default() };
            // The latencies of an interval come after its end.
            if interval > 0 {
                sender.send((interval - 1, one(interval * 10))).unwrap();
            }
            assert_eq!(recorder.add(Duration::ZERO, sample), interval + 1);
        }
        // One that slept, and one after the last sample.
        sender.send((0, one(2000))).unwrap();
        sender.send((5, one(90))).unwrap();
        assert!(!recorder.is_due(INTERVAL / 2) && recorder.is_due(INTERVAL));
        let timeline = serde_json::to_value(recorder.finish()).unwrap();
        let worst: Vec<_> = (0..5).map(|at| timeline[at]["latency_us"]["max"].as_f64()).collect();
        assert_eq!(worst, [Some(1.0), Some(2.0), Some(3.0), Some(200.0), Some(9.0)]);
    }
}
