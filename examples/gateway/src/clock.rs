//! What happens by the clock, beside the workers: samples for the dashboard, and the end of stale connections.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringwire::Ctx;
use ringwire::stats::ProcessStats;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::app::App;
use crate::auth::Refused;
use crate::{lock, session};

/// How often a letter asks each worker how long letters wait for its turn.
const PROBE_PERIOD: Duration = Duration::from_millis(250);
/// How often the database is asked whether it answers.
const QUESTION_PERIOD: Duration = Duration::from_secs(1);
/// Samples are one second apart.
const PROBES_PER_SAMPLE: u64 = 4;
/// Five minutes of samples are kept, about 50 KiB.
const MAX_SAMPLES: usize = 300;
/// Users whose connections are looked at in one go. No more letters are under way than fit into a mailbox.
const SWEEP_LEN: usize = 128;
/// What the gateway is like at a moment. Counts are of all that there has been: two samples make a rate.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sample {
    /// When it was taken, in milliseconds since 1970.
    pub at: u64,
    /// Since when the gateway has been running, in seconds.
    pub uptime: f64,
    /// Connections of users.
    pub connections: usize,
    /// Users who are online.
    pub users: usize,
    /// Messages received, dashboards' included.
    pub received: u64,
    /// Messages sent: replies, and publications for each subscriber.
    pub sent: u64,
    /// CPU time of all threads, in seconds.
    pub cpu: f64,
    /// Resident memory of the process, in bytes.
    pub resident: u64,
    /// What the engine holds for peers, in bytes.
    pub held: usize,
    /// How long letters to the workers have waited for their turn since the sample before, in microseconds: the mean.
    pub latency_mean_us: f64,
    /// The longest of them.
    pub latency_max_us: f64,
}

impl Sample {
    fn now(app: &App) -> Self {
        let (stats, counts, process) =
            (app.handle().stats(), app.presence.counts(), ProcessStats::now());
        let total = stats.total();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            uptime: app.started.elapsed().as_secs_f64(),
            connections: counts.connections,
            users: counts.users_here,
            received: total.messages_received,
            sent: total.messages_sent + total.deliveries,
            cpu: process.cpu.as_secs_f64(),
            resident: process.resident_len,
            held: stats.memory.used_len,
            ..Self::default()
        }
    }
}

/// The samples of the last five minutes.
#[derive(Debug, Default)]
pub struct Board {
    samples: Mutex<VecDeque<Sample>>,
    waits: Mutex<Vec<Duration>>,
}

/// What asks a worker how long letters wait for its turn. [`Live`](crate::live::Live) takes it.
#[derive(Clone, Debug)]
pub(crate) struct Probe(Instant);

impl Board {
    /// The samples that were taken after `at`, the oldest first.
    #[must_use]
    pub fn since(&self, at: u64) -> Vec<Sample> {
        lock(&self.samples).iter().filter(|sample| sample.at > at).copied().collect()
    }

    /// A worker has come to a probe.
    pub(crate) fn note(&self, Probe(sent): Probe) {
        lock(&self.waits).push(sent.elapsed());
    }

    fn add(&self, mut sample: Sample) {
        let waits = std::mem::take(&mut *lock(&self.waits));
        let micros = |wait: Duration| wait.as_secs_f64() * 1e6;
        let count = u32::try_from(waits.len().max(1)).unwrap_or(u32::MAX);
        sample.latency_mean_us = micros(waits.iter().sum::<Duration>() / count);
        sample.latency_max_us = micros(waits.iter().copied().max().unwrap_or_default());
        let mut samples = lock(&self.samples);
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// Takes samples and closes stale connections from now on, once for an application, until the runtime ends.
pub fn start(app: &Arc<App>, runtime: &Handle) {
    let (sampling, sweeping) = (app.clone(), app.clone());
    if let Some(users) = app.users().cloned() {
        runtime.spawn(async move {
            loop {
                users.ask().await;
                tokio::time::sleep(QUESTION_PERIOD).await;
            }
        });
    }
    runtime.spawn(async move {
        for number in 0_u64.. {
            tokio::time::sleep(PROBE_PERIOD).await;
            let Some(handle) = sampling.handle.get() else { continue };
            if number.is_multiple_of(PROBES_PER_SAMPLE) {
                sampling.board.add(Sample::now(&sampling));
            }
            // A worker that is too busy for letters answers none; those before wait long enough.
            let _ = handle.post_event_to_all(&Probe(Instant::now()));
        }
    });
    runtime.spawn(async move {
        loop {
            // Whichever comes first.
            let ordered = sweeping.sweep_now.notified();
            let _ = tokio::time::timeout(sweeping.settings.cleanup_interval, ordered).await;
            match sweep(&sweeping).await {
                0 => {}
                count => tracing::info!(count, "stale connections were closed"),
            }
        }
    });
}

/// Closes connections that should not be there any more, and those of users who are not active any more, where a
/// database knows; how many they were. A database that does not answer sends nobody away, and is not asked again: each
/// user would take as long as a query may wait.
pub(crate) async fn sweep(app: &Arc<App>) -> usize {
    let (mut closed, mut after, mut answers) = (0, None, true);
    loop {
        let page = app.presence.page_here(after.as_ref(), SWEEP_LEN);
        let (report, mut reports) = mpsc::unbounded_channel();
        for (user, _) in page.users {
            let refused = match app.users().filter(|_| answers) {
                Some(users) => users.active(user).await.err(),
                None => None,
            };
            answers &= refused != Some(Refused::Unavailable);
            let refused = refused.filter(|_| answers);
            for conn in app.presence.connections(&user) {
                let (app, report) = (app.clone(), report.clone());
                // One that is not reached now is looked at the next time.
                let _ = app.clone().handle().run(conn, move |ctx: &mut Ctx<'_, session::State>| {
                    let _ = report.send(session::close_if_stale(&app, ctx, refused));
                });
            }
        }
        drop(report);
        while let Some(was_stale) = reports.recv().await {
            closed += usize::from(was_stale);
        }
        after = page.next;
        if after.is_none() {
            return closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_what_probes_have_waited() {
        let board = Board::default();
        *lock(&board.waits) = [100, 200, 600].map(Duration::from_micros).to_vec();
        board.add(Sample { at: 1, ..Sample::default() });
        board.add(Sample { at: 2, ..Sample::default() });
        let samples = board.since(0);
        assert!((samples[0].latency_mean_us - 300.0).abs() < 1e-6, "{samples:?}");
        assert!((samples[0].latency_max_us - 600.0).abs() < 1e-6, "{samples:?}");
        assert!(samples[1].latency_max_us < 1e-6, "{samples:?}");
        assert_eq!(board.since(1).len(), 1);
        assert!(board.since(2).is_empty());
    }

    #[test]
    fn five_minutes_are_kept() {
        let board = Board::default();
        for at in 1..=1000 {
            board.add(Sample { at, ..Sample::default() });
        }
        let samples = board.since(0);
        assert_eq!((samples.len(), samples[0].at), (300, 701));
    }
}
