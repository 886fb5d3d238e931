//! Takes the generators of a run through it, and watches the server and the machine meanwhile.
#![expect(clippy::disallowed_methods, reason = "a run has a date")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use ringwire_examples::DriverFlag;

use super::clock::{RunClock, nanos};
use super::fleet::{Fleet, share_out};
use super::live::Live;
use super::plan::{News, Order, Plan, Pulse, Work, second_of};
use super::servers::Servers;
use super::tally::Tally;
use crate::disturbance::MachineTicks;
use crate::echo::Progress;
use crate::procstat::{self, CpuTimes, KernelMemory, Resident};
use crate::spent::{Moment, Spent};
use crate::units::{show_count, show_success};

/// Time for the server to come to rest before its memory is read.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// How often the line on the terminal is written anew.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Time for all workers to tell what they counted in a second.
const TELL_TIME: Duration = Duration::from_millis(300);
/// How far the clocks of machines may be apart, the way of the news included: by so much seconds are mixed.
const MAX_SKEW: Duration = Duration::from_millis(500);
/// What generators have beside their own limits before they count as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// A run that is to be made.
pub(crate) struct Setup<'a> {
    pub(crate) scenario: &'static str,
    /// Of all generators together.
    pub(crate) plan: Plan,
    pub(crate) driver: DriverFlag,
    pub(crate) generators: u32,
    pub(crate) sources: Vec<IpAddr>,
    /// Rest between the last connect and work.
    pub(crate) hold: Duration,
    pub(crate) watch: Watch,
    /// How often totals are told.
    pub(crate) progress: Option<Duration>,
    /// Where they are shown each second.
    pub(crate) live: Option<&'a Live>,
    /// Commands that run this program on the machines of the load; none: it is on this one.
    pub(crate) machines: &'a [String],
}

/// What is looked at beside the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watch {
    #[default]
    Nothing,
    /// What each second of work had of replies, told as soon as it is over.
    Seconds,
    /// Memory at an interval, for so long after work, while the connections are open.
    Memory { duration: Duration, interval: Duration },
}

/// What a run found, before any arithmetic.
#[derive(Debug)]
pub(crate) struct Found {
    /// When the run began, in nanoseconds since 1970.
    pub(crate) epoch: u64,
    pub(crate) total: Tally,
    pub(crate) seconds: BTreeMap<u32, Tally>,
    pub(crate) samples: Vec<Sample>,
    /// When connecting began, in nanoseconds of the run.
    pub(crate) connect_began: u64,
    /// When work began.
    pub(crate) work_began: u64,
    /// CPU time during work, or during connects where there is none.
    pub(crate) spent: Spent,
    /// Whether the generators were on other machines.
    pub(crate) is_elsewhere: bool,
    pub(crate) before: Memory,
    pub(crate) connected: Memory,
    pub(crate) after: Memory,
    /// Memory as [`Watch::Memory`] saw it after work, and when in nanoseconds of the run.
    pub(crate) held: Vec<(u64, Memory)>,
}

/// Memory at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Of the server's processes, if they are known.
    pub(crate) server: Option<Resident>,
    pub(crate) kernel: KernelMemory,
}

/// What was seen of the processes at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// When, in nanoseconds of the run.
    pub(crate) at: u64,
    /// Whether work was going on since the sample before.
    pub(crate) working: bool,
    /// CPU time of the generators since they began.
    pub(crate) generator_cpu: Duration,
    pub(crate) server_cpu: Option<Duration>,
    pub(crate) server_resident: Option<u64>,
    /// The kernel's objects on the whole machine, in bytes.
    pub(crate) slab: u64,
}

/// Makes a run. The generators' processes still have their connections; they end when they are dropped.
///
/// # Errors
/// When it cannot be made at all. What goes wrong with connections is in what is found.
pub(crate) fn run(mut setup: Setup<'_>, servers: &Servers) -> anyhow::Result<(Found, Fleet)> {
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    setup.plan.epoch = u64::try_from(epoch.as_nanos()).unwrap_or(u64::MAX);
    let before = memory(servers)?;
    let is_loopback =
        servers.target.address().is_ipv4() && servers.target.address().ip().is_loopback();
    let plans = share_out(&setup.plan, setup.generators, &setup.sources, is_loopback);
    let fleet = Fleet::start(plans, setup.driver, setup.machines)?;
    let mut conductor = Conductor {
        clock: RunClock::new(setup.plan.epoch),
        pulses: vec![Pulse::default(); fleet.len()],
        fleet,
        servers,
        setup: &setup,
        progress: Progress::new(true),
        total: Tally::default(),
        seconds: BTreeMap::new(),
        samples: Vec::new(),
        next_sample: 0,
        working: false,
        untold: 0..0,
        told: 0,
        ready: 0,
        totals: (Duration::ZERO, Pulse::default()),
    };
    let found = conductor.conduct(before)?;
    Ok((found, conductor.fleet))
}

struct Conductor<'a> {
    setup: &'a Setup<'a>,
    servers: &'a Servers,
    clock: RunClock,
    fleet: Fleet,
    progress: Progress,
    /// What each generator said last.
    pulses: Vec<Pulse>,
    total: Tally,
    seconds: BTreeMap<u32, Tally>,
    samples: Vec<Sample>,
    /// The second of the run in which the next sample is due.
    next_sample: u64,
    working: bool,
    /// Seconds of work that are to be told, and how many were.
    untold: Range<u32>,
    told: u32,
    ready: usize,
    /// When totals were last told, and what they were.
    totals: (Duration, Pulse),
}

impl Conductor<'_> {
    fn conduct(&mut self, before: Memory) -> anyhow::Result<Found> {
        let plan = &self.setup.plan;
        let generators = self.fleet.len();
        self.wait("starting", PATIENCE, |this, _| this.ready == generators)?;
        let mut start = self.moment()?;
        let connect_began = nanos(start.at);
        self.fleet.order(Order::Connect)?;
        let limit = plan.limit + plan.connect_timeout + PATIENCE;
        self.wait_done("connecting", Order::Connect, limit)?;
        thread::sleep(SETTLE_TIME);
        let connected = memory(self.servers)?;
        if !self.setup.hold.is_zero() {
            let end = self.clock.elapsed() + self.setup.hold;
            self.wait("holding", self.setup.hold + PATIENCE, |this, _| {
                this.clock.elapsed() >= end
            })?;
        }
        if plan.work.duration().is_some() {
            // Seconds of the run are seconds of work then.
            thread::sleep(until_next_second(self.clock.elapsed()));
        }
        self.sample()?;
        if plan.work != Work::Idle {
            self.working = true;
            start = self.moment()?;
        }
        let work_began = self.clock.nanos();
        if self.setup.watch == Watch::Seconds {
            self.untold = seconds_of_work(plan, work_began);
        }
        self.fleet.order(Order::Work)?;
        let limit = plan.work.duration().unwrap_or(plan.limit) + plan.response_timeout * 12;
        let limit = limit + plan.connect_timeout + PATIENCE;
        self.wait_done("working", Order::Work, limit)?;
        let end = self.moment()?;
        self.sample()?;
        self.working = false;
        let after = memory(self.servers)?;
        let held = self.hold_on()?;
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let is_known = self.servers.is_known();
        let server_capacity = is_known.then(|| self.servers.capacity(cpus)).transpose()?;
        self.fleet.order(Order::End)?;
        // A million sockets take a while.
        self.wait_done("closing", Order::End, plan.limit + PATIENCE)?;
        self.tell_seconds(Duration::MAX);
        Ok(Found {
            epoch: plan.epoch,
            total: std::mem::take(&mut self.total),
            seconds: std::mem::take(&mut self.seconds),
            samples: std::mem::take(&mut self.samples),
            connect_began,
            work_began,
            spent: start.until_with(&end, server_capacity),
            is_elsewhere: plan.is_elsewhere,
            before,
            connected,
            after,
            held,
        })
    }

    /// Looks at memory as the setup says.
    fn hold_on(&mut self) -> anyhow::Result<Vec<(u64, Memory)>> {
        let mut held = Vec::new();
        let Watch::Memory { duration, interval } = self.setup.watch else { return Ok(held) };
        let mut due = self.clock.elapsed();
        let end = due + duration;
        loop {
            held.push((self.clock.nanos(), memory(self.servers)?));
            if due >= end {
                return Ok(held);
            }
            due = end.min(due + interval);
            self.wait("holding", interval + PATIENCE, |this, _| this.clock.elapsed() >= due)?;
        }
    }

    /// Waits until all generators have done what they were told.
    fn wait_done(&mut self, what: &str, order: Order, limit: Duration) -> anyhow::Result<()> {
        let all = self.fleet.len();
        let mut done = 0;
        self.wait(what, limit, move |_, news| {
            done += usize::from(matches!(news, Some(News::Done(found)) if *found == order));
            done == all
        })
    }

    /// Takes in what the generators say until `is_over`, which is asked after each piece of news and from time to time.
    fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        mut is_over: impl FnMut(&Self, Option<&News>) -> bool,
    ) -> anyhow::Result<()> {
        let end = self.clock.elapsed() + limit;
        let mut looked = (self.clock.elapsed(), self.sum());
        loop {
            let news = self.fleet.next(LOOK_INTERVAL)?;
            let over = is_over(self, news.as_ref().map(|(_, news)| news));
            if let Some((member, news)) = news {
                self.take_in(member, news)?;
            }
            let over = over || is_over(self, None);
            let now = self.clock.elapsed();
            if now.as_secs() >= self.next_sample {
                self.sample()?;
            }
            if now - looked.0 >= LOOK_INTERVAL {
                let sum = self.sum();
                self.show(what, sum, sum.answered - looked.1.answered, now - looked.0);
                looked = (now, sum);
                self.tell_seconds(now);
                self.tell_totals(now, sum);
            }
            if over {
                return Ok(());
            }
            if now >= end {
                bail!(
                    "{what}: not done after {} s, though every part has a limit",
                    limit.as_secs()
                );
            }
        }
    }

    fn take_in(&mut self, member: usize, news: News) -> anyhow::Result<()> {
        match news {
            News::Ready { threads, at } => {
                let apart = Duration::from_nanos(self.clock.nanos().abs_diff(at));
                if !self.setup.machines.is_empty() && apart > MAX_SKEW {
                    bail!(
                        "the clock of a machine of the load and this one's are {:.1} s apart: have NTP set them",
                        apart.as_secs_f64()
                    );
                }
                self.fleet.set_threads(member, threads);
                self.ready += 1;
            }
            News::Pulse(pulse) => {
                if let Some(place) = self.pulses.get_mut(member) {
                    *place = pulse;
                }
            }
            News::Cpu(times) => self.fleet.set_cpu(member, times),
            News::Second(second, tally) => {
                self.total.merge(&tally);
                self.seconds.entry(second).or_default().merge(&tally);
            }
            News::Done(_) => {}
            News::Failed(text) => bail!("a generator cannot go on: {text}"),
        }
        Ok(())
    }

    fn sum(&self) -> Pulse {
        let mut sum = Pulse::default();
        for pulse in &self.pulses {
            sum.opened += pulse.opened;
            sum.closed += pulse.closed;
            sum.failed += pulse.failed;
            sum.sent += pulse.sent;
            sum.answered += pulse.answered;
        }
        sum
    }

    fn show(&self, what: &str, sum: Pulse, answered: u64, time: Duration) {
        let asked = self.setup.plan.connections;
        let text = if self.working {
            let rate = answered as f64 / time.as_secs_f64();
            format!("{what}: {} replies, {}/s", sum.answered, show_count(rate))
        } else {
            format!("{what}: {} of {asked} connections", sum.opened)
        };
        self.progress.show(&text, sum.failed);
    }

    /// Says how far the run is, as often as it is asked for.
    fn tell_totals(&mut self, now: Duration, sum: Pulse) {
        let (before, told) = self.totals;
        if self.setup.progress.is_some_and(|interval| now - before >= interval) {
            self.progress.say(&totals(now, sum, now - before, sum.answered - told.answered));
            self.totals = (now, sum);
        }
    }

    /// Says what seconds had that are over, and of which all parts have told.
    fn tell_seconds(&mut self, now: Duration) {
        let over = now.saturating_sub(TELL_TIME).as_secs();
        while u64::from(self.untold.start) < over
            && let Some(second) = self.untold.next()
        {
            let answered = self.seconds.get(&second).map_or(0, |tally| tally.answered);
            self.told += 1;
            let answered = show_count(answered as f64);
            self.progress.say(&format!("{:>5} s: {answered}/s", self.told));
        }
    }

    fn sample(&mut self) -> anyhow::Result<()> {
        let at = self.clock.nanos();
        self.next_sample = at / 1_000_000_000 + 1;
        if let Some(live) = self.setup.live {
            live.show(self.setup.scenario, self.sum(), &self.total);
        }
        let run = |times: &[CpuTimes]| times.iter().map(CpuTimes::run).sum::<Duration>();
        let server_cpu = self.servers.is_known().then(|| self.servers.cpu()).transpose()?;
        self.samples.push(Sample {
            at,
            working: self.working,
            generator_cpu: run(&self.generator_cpu()?),
            server_cpu: server_cpu.map(|times| run(&times)),
            server_resident: self.servers.resident()?.map(|resident| resident.all),
            slab: procstat::slab_bytes().context("cannot read the kernel's memory")?,
        });
        Ok(())
    }

    fn moment(&self) -> anyhow::Result<Moment> {
        let (servers, generators) = (self.servers.cpu()?, self.generator_cpu()?);
        let machine = MachineTicks::read().context("cannot read the machine's CPU time")?;
        Ok(Moment { at: self.clock.elapsed(), servers, generators, machine })
    }

    fn generator_cpu(&self) -> anyhow::Result<Vec<CpuTimes>> {
        self.fleet.cpu().context("a process of the load is gone")
    }
}

/// The totals of a run, in words; so many messages were answered in the last `span`.
fn totals(elapsed: Duration, sum: Pulse, span: Duration, answered: u64) -> String {
    let Pulse { opened, closed, failed, sent, answered: succeeded } = sum;
    let share = show_success(succeeded, failed);
    let rate = answered as f64 / span.as_secs_f64();
    let counts = [opened, opened.saturating_sub(closed), sent, succeeded, failed];
    let [opened, active, sent, succeeded, failed] = counts.map(|count| show_count(count as f64));
    format!(
        "{} s: {opened} connections, {active} active; {sent} messages, {succeeded} succeeded, {failed} failed, \
         {}/s, success {share}",
        elapsed.as_secs(),
        show_count(rate)
    )
}

/// The whole seconds of work that is told by time, which begins with one of them.
pub(crate) fn seconds_of_work(plan: &Plan, began: u64) -> Range<u32> {
    let length = plan.work.duration().unwrap_or_default().as_secs();
    let first = second_of(began);
    first..first.saturating_add(u32::try_from(length).unwrap_or(u32::MAX))
}

/// From a time of the run to its next second.
fn until_next_second(now: Duration) -> Duration {
    Duration::from_secs(now.as_secs() + 1) - now
}

fn memory(servers: &Servers) -> anyhow::Result<Memory> {
    Ok(Memory {
        server: servers.resident()?,
        kernel: KernelMemory::read().context("cannot read the kernel's memory")?,
    })
}
