//! `ringwire-bench echo`: connections that send messages and expect them back.
//!
//! The load is a closed loop: each connection has a fixed number of messages in flight, and an echo
//! releases the next one. A run connects all, warms up, measures a window of time, and stops by
//! resetting the connections.
#![expect(clippy::disallowed_methods, reason = "the coordinator sleeps while load threads work")]

mod connection;
mod control;
mod deflate_totals;
mod deflated;
mod dial;
mod errors;
mod greeting;
mod latency;
mod link;
mod load;
mod messages;
mod payload;
mod progress;
mod recorder;
mod report;
mod socket;
mod stage;
#[cfg(test)]
mod tests;
mod tls_totals;
mod upgrade;
mod wire;

use std::cell::RefCell;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use ringwire_examples::CompressionFlag;
use ringwire_examples::units::{parse_bytes, parse_duration};

use self::load::Outcome;
use self::recorder::Recorder;
use self::report::Measured;
use self::stage::{Gauge, Stage, StageCell, sum};
use crate::demand::Demand;
use crate::endpoint::{Endpoint, ServerArgs};
use crate::machine;
use crate::output::{self, JsonArgs};
use crate::procstat::{self, Account, CpuTimes, Footprint};
use crate::report::Sample;
use crate::spent::{Footprints, Moment};
use crate::target::{Resource, Target};
use crate::tls;
use crate::units::CpuList;

pub(crate) use self::control::Control;
pub(crate) use self::deflate_totals::{Agreed, DeflateTotals};
pub(crate) use self::dial::Dialler;
pub(crate) use self::errors::{Failure, Failures, add, count};
pub(crate) use self::latency::{Clock, Latencies, Summary, Ticks};
pub(crate) use self::link::Buffers;
pub(crate) use self::payload::Payload;
pub(crate) use self::progress::Progress;
pub(crate) use self::report::Report;
#[cfg(test)]
pub(crate) use self::report::test_report;
pub(crate) use self::socket::{Opener, Received, Socket};
pub(crate) use self::tls_totals::TlsTotals;
pub(crate) use self::wire::{CONTROL, Shape, header, masked_frame, text_frame};
pub(crate) use crate::bottleneck::Bottleneck;

/// How often the coordinator looks at the totals while connections are made.
const CONNECT_INTERVAL: Duration = Duration::from_millis(5);
/// How often it does so while messages flow.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Time for the server to come to rest before its memory is read.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Flags of `ringwire-bench echo`.
#[derive(Debug, clap::Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// After the report, goes on serving until SIGTERM or SIGINT.
    #[arg(long, conflicts_with = "url")]
    stay: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Writes a page with plots over time, which needs nothing but a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<String>,
}

/// The load itself.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Connections, over all load threads.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Messages in flight on each connection.
    #[arg(long, default_value = "1", value_parser = at_least_one)]
    pub(crate) in_flight: usize,
    /// Payload of a message, such as 64 or 16KiB.
    #[arg(long, default_value = "64", value_parser = parse_bytes)]
    pub(crate) size: u64,
    /// Sends text messages instead of binary ones.
    #[arg(long)]
    pub(crate) text: bool,
    /// What messages say.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) payload: Payload,
    /// Sends what is in a file, as text if it is UTF-8, in place of --payload and --size.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["payload", "size"])]
    pub(crate) payload_file: Option<PathBuf>,
    /// Compression (permessage-deflate) that the server has to agree to: without context takeover, or with takeover
    /// both ways. Every message is compressed, at level 1, and every reply inflated and compared.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) compression: CompressionFlag,
    /// Measured time.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Time under load before the measured time.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub(crate) warmup: Duration,
    /// Load threads.
    #[arg(long, default_value = "1", value_parser = at_least_one)]
    pub(crate) threads: usize,
    /// CPUs for the load threads, such as 1 or 1,3-5.
    #[arg(long)]
    pub(crate) cpu: Option<CpuList>,
    /// Local addresses to connect from; the next is used when one has no free port. By default
    /// 127.0.0.1 and then 127.0.0.2 and on, for a server on a loopback address.
    #[arg(long, value_delimiter = ',')]
    pub(crate) source_addresses: Vec<IpAddr>,
    /// Connects outstanding at a time, for each load thread.
    #[arg(long, default_value = "256", value_parser = at_least_one)]
    pub(crate) connect_concurrency: usize,
    /// Time for one connection to become open.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub(crate) connect_timeout: Duration,
}

impl Default for LoadArgs {
    /// What the command line has for flags that are not given.
    fn default() -> Self {
        crate::flags::parse("").expect("no flag has to be given")
    }
}

/// One run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) load: LoadArgs,
    /// For a target that speaks TLS.
    pub(crate) tls: Option<tls::Client>,
    /// Whose CPU time and memory are the server's.
    pub(crate) server: Option<Account>,
    /// Shows a line with what goes on, on a terminal.
    pub(crate) show_progress: bool,
}

impl Plan {
    fn shape(&self) -> Shape {
        Shape {
            payload_len: usize::try_from(self.load.size).unwrap_or(usize::MAX),
            text: self.load.text || self.load.payload.is_text(),
            payload: self.load.payload,
            compression: self.load.compression,
            raw: matches!(self.target, Target::Raw(_)),
        }
    }

    /// The numbers of the connections of each load thread.
    fn shares(&self) -> Vec<Range<u32>> {
        let total = u64::from(self.load.connections);
        let threads = (self.load.threads as u64).min(total);
        let cut = |thread: u64| u32::try_from(total * thread / threads).unwrap_or(u32::MAX);
        (0..threads).map(|thread| cut(thread)..cut(thread + 1)).collect()
    }
}

/// Runs the subcommand. Whether there were no errors.
pub(crate) fn command(mut args: EchoArgs) -> anyhow::Result<bool> {
    if let Some(file) = &args.load.payload_file {
        args.load.payload = Payload::read(file)?;
        args.load.size = args.load.payload.len().unwrap_or_default() as u64;
    }
    let demand = Demand {
        connections: args.load.connections,
        payload_len: usize::try_from(args.load.size).unwrap_or(usize::MAX),
        compression: args.load.compression,
        ..Demand::default()
    };
    let endpoint = args.server.open(demand, &mut args.load.cpu)?;
    let Endpoint { target, tls, account, own } = endpoint;
    let plan = Plan { target, load: args.load, tls, server: account, show_progress: true };
    machine::pin_load(plan.load.cpu.as_ref())?;
    let report = run(&plan)?;
    args.json.tell(report.table(), &report)?;
    if let Some(file) = &args.html {
        report.page().write(file)?;
    }
    let is_clean = report.is_clean();
    if let Some(own) = own.filter(|_| args.stay) {
        output::say(format_args!(
            "still serving; open {} in a browser, end with Ctrl-C",
            own.page()
        ))?;
        own.stay()?;
    }
    Ok(is_clean)
}

/// Does one run.
///
/// # Errors
/// When the run cannot be made at all. What goes wrong with connections is in the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Report> {
    let has_first = |resource: &Resource| resource.ask.has_first();
    if plan.target.resource().is_some_and(has_first)
        && plan.load.compression == CompressionFlag::Dedicated
    {
        bail!(
            "--first-message: replies that are not inflated leave no window to --compression dedicated"
        );
    }
    if plan.shape().raw && plan.load.compression != CompressionFlag::Off {
        bail!("{}: raw bytes are not compressed", plan.target);
    }
    machine::allow_descriptors(plan.load.connections, 1)?;
    let shares = plan.shares();
    let gauges: Vec<Gauge> = shares.iter().map(|_| Gauge::default()).collect();
    let stage = StageCell::new();
    let clock = Clock::start();
    let recorder = RefCell::new(Recorder::new());
    let run = Run { plan, gauges: &gauges, stage: &stage, clock, recorder };
    thread::scope(|scope| {
        // Read before a load thread opens the first connection.
        let before = run.footprint()?;
        let threads: Vec<_> = shares
            .into_iter()
            .zip(&gauges)
            .map(|(share, gauge)| {
                let (stage, recent) = (&stage, run.recorder.borrow().sender());
                scope.spawn(move || load::run(plan, share, clock, stage, gauge, recent))
            })
            .collect();
        let measured = run.conduct(before);
        stage.set(Stage::Stop);
        let mut latencies = Latencies::default();
        let mut failures = Failures::default();
        let (mut tls, mut deflate) = (TlsTotals::default(), DeflateTotals::default());
        for thread in threads {
            let outcome: Outcome =
                thread.join().map_err(|_| anyhow!("a load thread panicked"))??;
            latencies.merge(&outcome.latencies);
            add(&mut failures, &outcome.failures);
            tls.merge(&outcome.tls);
            deflate.merge(&outcome.deflate);
        }
        let mut measured = measured?;
        measured.latency = latencies.summary();
        measured.errors = failures;
        measured.tls = tls;
        measured.deflate = deflate;
        measured.timeline = run.recorder.into_inner().finish();
        Ok(Report::new(measured))
    })
}

/// The coordinator's view of a run.
struct Run<'a> {
    plan: &'a Plan,
    gauges: &'a [Gauge],
    stage: &'a StageCell,
    clock: Clock,
    recorder: RefCell<Recorder>,
}

/// Totals at one moment.
struct Snapshot {
    moment: Moment,
    messages: u64,
}

impl Run<'_> {
    /// Takes the load threads through the stages and measures meanwhile.
    fn conduct(&self, before: Option<Footprint>) -> anyhow::Result<Measured> {
        let load = &self.plan.load;
        let progress = Progress::new(self.plan.show_progress);
        self.connect(&progress);
        if load.compression != CompressionFlag::Off {
            self.exchange_first();
        }
        thread::sleep(SETTLE_TIME);
        let connected = self.footprint()?;
        self.stage.set(Stage::WarmUp);
        self.wait("warm-up", load.warmup, &progress);
        self.stage.set(Stage::Measure);
        let first = self.snapshot()?;
        self.wait("measuring", load.duration, &progress);
        let last = self.snapshot()?;
        self.record();
        let account = self.plan.server.as_ref();
        let mut spent = first.moment.until(&last.moment, account)?;
        if let Some(server) = &mut spent.server {
            let moments = before.zip(connected).zip(self.footprint()?);
            server.memory = moments.map(|((before, connected), loaded)| Footprints {
                before,
                connected,
                loaded,
            });
        }
        let last_opened = self.gauges.iter().map(|g| g.last_opened.load(Ordering::Relaxed)).max();
        Ok(Measured {
            target: self.plan.target.to_string(),
            connections: load.connections.into(),
            opened: sum(self.gauges, |gauge| &gauge.opened),
            connect_time: Duration::from_micros(last_opened.unwrap_or_default()),
            in_flight: load.in_flight,
            payload_len: self.plan.shape().payload_len,
            text: self.plan.shape().text,
            payload: load.payload,
            spent,
            messages: last.messages.saturating_sub(first.messages),
            ..Measured::default()
        })
    }

    fn connect(&self, progress: &Progress) {
        let asked = u64::from(self.plan.load.connections);
        loop {
            let opened = sum(self.gauges, |gauge| &gauge.opened);
            let failed = sum(self.gauges, |gauge| &gauge.failed);
            progress.connecting(opened, failed, asked);
            self.record_when_due();
            // Those that were open before they failed are in both.
            let lost = sum(self.gauges, |gauge| &gauge.lost);
            if opened + failed.saturating_sub(lost) >= asked || self.is_broken() {
                return;
            }
            thread::sleep(CONNECT_INTERVAL);
        }
    }

    /// Has every connection send a message and get it back: a server may make what compresses only then.
    fn exchange_first(&self) {
        self.stage.set(Stage::First);
        let end = self.clock.elapsed() + self.plan.load.connect_timeout;
        loop {
            let echoed = sum(self.gauges, |gauge| &gauge.messages);
            let failed = sum(self.gauges, |gauge| &gauge.failed);
            // Those that failed behind their echo are in both.
            let served = sum(self.gauges, |gauge| &gauge.served);
            let all = u64::from(self.plan.load.connections);
            self.record_when_due();
            if echoed + failed.saturating_sub(served) >= all || self.clock.elapsed() >= end {
                return;
            }
            thread::sleep(CONNECT_INTERVAL);
        }
    }

    fn wait(&self, what: &str, time: Duration, progress: &Progress) {
        let end = self.clock.elapsed() + time;
        let mut messages = sum(self.gauges, |gauge| &gauge.messages);
        let mut at = self.clock.elapsed();
        loop {
            let left = end.saturating_sub(self.clock.elapsed());
            if left.is_zero() || self.is_broken() {
                return;
            }
            thread::sleep(left.min(PROGRESS_INTERVAL));
            let (before, since) = (messages, at);
            messages = sum(self.gauges, |gauge| &gauge.messages);
            at = self.clock.elapsed();
            let rate = (messages - before) as f64 / (at - since).as_secs_f64();
            progress.running(what, left, rate, sum(self.gauges, |gauge| &gauge.failed));
            self.record_when_due();
        }
    }

    fn record_when_due(&self) {
        if self.recorder.borrow().is_due(self.clock.elapsed()) {
            self.record();
        }
    }

    /// Adds a sample to the timeline. What cannot be read just now is left out of it.
    fn record(&self) {
        let now = self.clock.elapsed();
        let seconds = |cpu: CpuTimes| cpu.total().run.as_secs_f64();
        let server = self.plan.server.as_ref();
        let footprint = self.footprint().ok().flatten();
        let generator = self.gauges.iter().map(|gauge| {
            let thread = procstat::thread_cpu(gauge.thread_id.load(Ordering::Relaxed)).ok()?;
            Some(thread.run.as_secs_f64())
        });
        let total = |total: fn(&Gauge) -> &AtomicU64| sum(self.gauges, total);
        let lost = total(|gauge| &gauge.lost);
        let sample = Sample {
            seconds: now.as_secs_f64(),
            connections: total(|gauge| &gauge.opened).saturating_sub(lost),
            messages: total(|gauge| &gauge.messages),
            latency_us: None,
            server_cpu: server.and_then(|account| account.cpu().ok()).map(seconds),
            generator_cpu: generator.sum(),
            server_resident: footprint.map(|footprint| footprint.resident),
            kernel_slab: footprint.map(|footprint| footprint.slab),
        };
        self.stage.set_interval(self.recorder.borrow_mut().add(now, sample));
    }

    /// Whether there is nothing left to wait for.
    fn is_broken(&self) -> bool {
        sum(self.gauges, |gauge| &gauge.failed) >= u64::from(self.plan.load.connections)
    }

    fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let thread_id = |gauge: &Gauge| gauge.thread_id.load(Ordering::Relaxed);
        let threads = self.gauges.iter().map(thread_id).collect();
        let moment = Moment::now(self.clock.elapsed(), threads, self.plan.server.as_ref())?;
        Ok(Snapshot { moment, messages: sum(self.gauges, |gauge| &gauge.messages) })
    }

    fn footprint(&self) -> anyhow::Result<Option<Footprint>> {
        let Some(account) = &self.plan.server else { return Ok(None) };
        account.footprint().context("cannot read the server's memory")
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}
