//! CPU time that load and server had between two moments of a run, and what that comes to.

use std::time::Duration;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Serialize;

use crate::bottleneck::{Bottleneck, DISTURBED};
use crate::disturbance::{Disturbance, MachineTicks};
use crate::procstat::{Account, CpuTime, CpuTimes, Footprint};
use crate::units::ratio;
use crate::withheld::Withheld;

/// A load thread this busy has nothing left to give.
const GENERATOR_BUSY: f64 = 0.95;
/// A server this busy is what limits the run.
const SERVER_BUSY: f64 = 0.90;

/// CPU time that all had so far.
pub(crate) struct Moment {
    /// By the clock of the run.
    pub(crate) at: Duration,
    /// Of each part of the load.
    pub(crate) generators: Vec<CpuTimes>,
    /// Of each process of the server; none where these are not known.
    pub(crate) servers: Vec<CpuTimes>,
    pub(crate) machine: MachineTicks,
}

/// From one moment to another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) time: Duration,
    /// Of each load thread.
    pub(crate) generators: Vec<CpuTime>,
    /// `None` where its process is not known.
    pub(crate) server: Option<MeasuredServer>,
    pub(crate) machine: (MachineTicks, MachineTicks),
}

/// What was measured of a server whose process is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeasuredServer {
    /// CPU time of each of its threads within the window.
    pub(crate) cpu: Vec<CpuTime>,
    /// CPUs it could keep busy.
    pub(crate) capacity: usize,
    /// `None` where it cannot be told from the load generator's.
    pub(crate) memory: Option<Footprints>,
}

/// Memory at three moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Footprints {
    pub(crate) before: Footprint,
    pub(crate) connected: Footprint,
    pub(crate) loaded: Footprint,
}

/// What it comes to for each message, or whatever a load counts.
pub(crate) struct Judged {
    pub(crate) seconds: f64,
    pub(crate) generator: Generator,
    pub(crate) server: Option<Server>,
    /// `None` where the time was too short to tell.
    pub(crate) disturbance: Option<Disturbance>,
    pub(crate) bottleneck: Bottleneck,
}

/// The server's part of a report.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Server {
    /// `None` without any message.
    pub(crate) cpu_us_per_message: Option<f64>,
    /// CPUs in use, on average.
    pub(crate) cpus: f64,
    /// Of its busiest thread, or of all CPUs it could use if that is more.
    pub(crate) utilisation: f64,
    /// Share of the time that its busiest thread waited for a CPU.
    pub(crate) waiting: f64,
    pub(crate) memory: Option<Memory>,
}

/// Resident memory of the server's process, and the kernel's.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Memory {
    pub(crate) bytes_before: u64,
    pub(crate) bytes_connected: u64,
    pub(crate) bytes_loaded: u64,
    /// What a connection added before it had any message, or with compression after it had one; `None` without
    /// connections, and where memory became less meanwhile.
    pub(crate) bytes_per_idle_connection: Option<f64>,
    /// The same of the kernel's objects: sockets, files, pending requests. Of both ends, where the load
    /// generator is on the same machine, and of whatever else went on there.
    pub(crate) kernel_bytes_per_idle_connection: Option<f64>,
}

/// The load generator's part of a report.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Generator {
    pub(crate) cpu_us_per_message: Option<f64>,
    /// Of the busiest load thread.
    pub(crate) utilisation: f64,
    /// Share of the time that a load thread waited for a CPU, for the one that did most.
    pub(crate) waiting: f64,
}

impl Moment {
    /// The present one, of a load that is some threads of this process.
    ///
    /// # Errors
    /// When the server's process is gone.
    pub(crate) fn now(
        at: Duration,
        threads: Vec<u32>,
        server: Option<&Account>,
    ) -> anyhow::Result<Self> {
        let servers = server.into_iter().map(Account::cpu).collect::<Result<_, _>>();
        Ok(Self {
            at,
            generators: vec![Account::Threads(threads).cpu().context("a load thread is gone")?],
            servers: servers.context("the server's process is gone")?,
            machine: MachineTicks::read().context("cannot read the machine's CPU time")?,
        })
    }

    /// What was spent until a later one.
    ///
    /// # Errors
    /// When the server's process is gone.
    pub(crate) fn until(&self, last: &Self, server: Option<&Account>) -> anyhow::Result<Spent> {
        let capacity = server.map(Account::capacity).transpose();
        Ok(self.until_with(last, capacity.context("the server's process is gone")?))
    }

    /// The same with a server that could keep so many CPUs busy; `None`: it is not known.
    pub(crate) fn until_with(&self, last: &Self, capacity: Option<usize>) -> Spent {
        let since = |now: &[CpuTimes], earlier: &[CpuTimes]| {
            now.iter().zip(earlier).flat_map(|(now, earlier)| now.since(earlier)).collect()
        };
        let cpu = since(&last.servers, &self.servers);
        Spent {
            time: last.at.saturating_sub(self.at),
            generators: since(&last.generators, &self.generators),
            server: capacity.map(|capacity| MeasuredServer { cpu, capacity, memory: None }),
            machine: (self.machine, last.machine),
        }
    }
}

impl Spent {
    /// For so many of what was counted.
    pub(crate) fn judge(&self, count: u64) -> Judged {
        let seconds = self.time.as_secs_f64();
        let generator = Generator::of(&self.generators, seconds, count);
        let server = self.server.as_ref().map(|server| Server::of(server, seconds, count));
        let disturbance = self.disturbance(true, true);
        let bottleneck = Bottleneck::of(generator, server).disturbed_by(disturbance);
        Judged { seconds, generator, server, disturbance, bottleneck }
    }

    /// What else went on beside a load that `is_here`, and a server whose CPU time `is_known`.
    pub(crate) fn disturbance(&self, is_here: bool, is_known: bool) -> Option<Disturbance> {
        let server = self.server.as_ref().filter(|_| is_known);
        let own = server.map(|server| {
            let here = self.generators.iter().filter(|_| is_here);
            here.chain(&server.cpu).map(|cpu| cpu.run).sum()
        });
        Disturbance::between(self.machine.0, self.machine.1, own, self.time.as_secs_f64())
    }
}

impl Generator {
    /// Of threads that had so much CPU time in these seconds, for so many messages.
    pub(crate) fn of(threads: &[CpuTime], seconds: f64, messages: u64) -> Self {
        let most = |time: fn(&CpuTime) -> Duration| {
            let most = threads.iter().map(time).max().unwrap_or_default();
            ratio(most.as_secs_f64(), seconds)
        };
        Self {
            cpu_us_per_message: per_message(threads.iter().map(|cpu| cpu.run).sum(), messages),
            utilisation: most(|cpu| cpu.run),
            waiting: most(|cpu| cpu.wait),
        }
    }
}

impl Server {
    /// Of what was measured in these seconds, with so many messages; without memory.
    pub(crate) fn of(measured: &MeasuredServer, seconds: f64, messages: u64) -> Self {
        let run: Duration = measured.cpu.iter().map(|thread| thread.run).sum();
        let busiest = measured.cpu.iter().max_by_key(|thread| thread.run).copied();
        let busiest = busiest.unwrap_or_default();
        let cpus = ratio(run.as_secs_f64(), seconds);
        let alone = ratio(busiest.run.as_secs_f64(), seconds);
        Self {
            cpu_us_per_message: per_message(run, messages),
            cpus,
            utilisation: ratio(cpus, measured.capacity as f64).max(alone),
            waiting: ratio(busiest.wait.as_secs_f64(), seconds),
            memory: None,
        }
    }
}

impl Memory {
    pub(crate) fn of(moments: Footprints, connections: u64, withheld: &mut Withheld) -> Self {
        let Footprints { before, connected, loaded } = moments;
        let mut each = |name, before, now| withheld.each(name, before, now, connections);
        Self {
            bytes_before: before.resident,
            bytes_connected: connected.resident,
            bytes_loaded: loaded.resident,
            bytes_per_idle_connection: each("server RSS", before.resident, connected.resident),
            kernel_bytes_per_idle_connection: each("kernel slab", before.slab, connected.slab),
        }
    }
}

impl Bottleneck {
    /// Judges by how busy both were.
    pub(crate) fn of(generator: Generator, server: Option<Server>) -> Self {
        let server_waiting = server.map_or(0.0, |server| server.waiting);
        if generator.waiting.max(server_waiting) >= DISTURBED {
            return Self::Disturbed;
        }
        let Some(server) = server else { return Self::Unknown };
        match (generator.utilisation >= GENERATOR_BUSY, server.utilisation >= SERVER_BUSY) {
            (true, true) => Self::Both,
            (true, false) => Self::Generator,
            (false, true) => Self::Server,
            (false, false) => Self::Neither,
        }
    }
}

/// Microseconds; `None` without any message.
fn per_message(cpu: Duration, messages: u64) -> Option<f64> {
    (messages > 0).then(|| cpu.as_secs_f64() * 1e6 / messages as f64)
}

#[cfg(test)]
impl Spent {
    /// In so many seconds, with so many milliseconds of each load thread, and of each thread of the server.
    pub(crate) fn for_tests(seconds: u64, generators: &[u64], server: &[u64]) -> Self {
        let ran =
            |&millis: &u64| CpuTime { run: Duration::from_millis(millis), wait: Duration::ZERO };
        let cpu = server.iter().map(ran).collect();
        Self {
            time: Duration::from_secs(seconds),
            generators: generators.iter().map(ran).collect(),
            server: Some(MeasuredServer { cpu, capacity: 1, memory: None }),
            ..Self::default()
        }
    }
}
