//! What happens by the clock, on a thread of its own: samples for the dashboard, and the end of stale connections.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use ringwire::stats::ProcessStats;
use ringwire::{Ctx, Handle};
use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Refused;
use crate::{lock, session};

/// How often a letter asks each worker how long letters wait for its turn.
const PROBE_PERIOD: Duration = Duration::from_millis(250);
/// Samples are one second apart.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// Five minutes of samples are kept, about 50 KiB.
const MAX_SAMPLES: usize = 300;
/// Users whose connections are looked at in one go. No more letters are under way than fit into a mailbox.
const SWEEP_LEN: usize = 128;
/// How long one go of a sweep waits for a worker.
const SWEEP_PATIENCE: Duration = Duration::from_secs(10);

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
    fn now(app: &App, handle: &Handle) -> Self {
        let (stats, counts, process) = (handle.stats(), app.presence.counts(), ProcessStats::now());
        let total = stats.total();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            uptime: app.presence.started.elapsed().as_secs_f64(),
            connections: counts.connections,
            users: counts.users,
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

/// The way to the thread. It ends with the last of [`App`].
#[derive(Debug)]
pub struct Clock(mpsc::Sender<oneshot::Sender<usize>>);

impl Clock {
    /// Starts the thread, once for an application.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(app: &Arc<App>) -> io::Result<()> {
        let (orders, receiver) = mpsc::channel();
        if app.clock.set(Self(orders)).is_ok() {
            let (interval, app) = (app.settings.cleanup_interval, Arc::downgrade(app));
            thread::Builder::new()
                .name("clock".into())
                .spawn(move || run(&app, &receiver, interval))?;
        }
        Ok(())
    }

    /// Has stale connections closed now; how many they were.
    pub(crate) async fn clean_up(&self) -> usize {
        self.begin_cleanup().await.unwrap_or_default()
    }

    /// The same, whoever waits for it.
    pub(crate) fn begin_cleanup(&self) -> oneshot::Receiver<usize> {
        let (sender, receiver) = oneshot::channel();
        // Where the thread has ended, so has the server.
        let _ = self.0.send(sender);
        receiver
    }
}

fn run(app: &Weak<App>, orders: &Receiver<oneshot::Sender<usize>>, cleanup_interval: Duration) {
    let (mut sample_due, mut sweep_due) = (Instant::now(), Instant::now() + cleanup_interval);
    loop {
        let order = orders.recv_timeout(PROBE_PERIOD);
        let Some(app) = app.upgrade() else { return };
        let Some(handle) = app.handle.get() else { continue };
        match order {
            Ok(count) => drop(count.send(sweep(&app, handle))),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= sweep_due {
            sweep_due = Instant::now() + cleanup_interval;
            match sweep(&app, handle) {
                0 => {}
                count => tracing::info!(count, "stale connections were closed"),
            }
        }
        if Instant::now() >= sample_due {
            sample_due = Instant::now() + SAMPLE_PERIOD;
            app.board.add(Sample::now(&app, handle));
        }
        // A worker that is too busy for letters answers none; those before wait long enough.
        let _ = handle.post_event_to_all(&Probe(Instant::now()));
    }
}

/// Closes connections that should not be there any more; how many they were. Waits for workers, so it is not for one.
pub(crate) fn sweep(app: &Arc<App>, handle: &Handle) -> usize {
    let (mut closed, mut after) = (0, None);
    loop {
        let page = app.presence.online(after, SWEEP_LEN);
        let users: Vec<_> = page.users.iter().map(|user| user.user_id).collect();
        let (report, reports) = mpsc::channel();
        for conn in users.iter().flat_map(|user| app.presence.connections(*user)) {
            let (app, report) = (app.clone(), report.clone());
            // One that is not reached now is looked at the next time.
            let _ = handle.run(conn, move |ctx: &mut Ctx<'_, session::State>| {
                let _ = report.send(session::close_if_stale(&app, ctx));
            });
        }
        drop(report);
        while let Ok(was_stale) = reports.recv_timeout(SWEEP_PATIENCE) {
            closed += usize::from(was_stale);
        }
        after = users.last().copied();
        closed += close_inactive(app, handle, users);
        if !page.has_more {
            return closed;
        }
    }
}

/// Closes the connections of those of these users who are not active any more, where a database knows; how many they
/// were.
fn close_inactive(app: &App, handle: &Handle, ids: Vec<Uuid>) -> usize {
    let Some(users) = app.users().cloned() else { return 0 };
    let (report, reports) = mpsc::channel();
    app.spawn(async move {
        for id in ids {
            // A database that does not answer sends nobody away.
            if let Err(refused @ (Refused::Inactive | Refused::UnknownUser)) =
                users.active(id).await
            {
                let _ = report.send((id, refused));
            }
        }
    });
    let mut closed = 0;
    while let Ok((id, refused)) = reports.recv_timeout(SWEEP_PATIENCE) {
        for conn in app.presence.connections(id) {
            closed +=
                usize::from(handle.close(conn, refused.close_code(), refused.reason()).is_ok());
        }
    }
    closed
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
