//! CPU time that load and server had between two moments of a run, and what that comes to.

use std::time::Duration;

use anyhow::Context as _;

use crate::bottleneck::Bottleneck;
use crate::disturbance::{Disturbance, MachineTicks};
use crate::echo::{Generator, MeasuredServer, Server};
use crate::procstat::{Account, CpuTime, CpuTimes};

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

/// What it comes to for each message, or whatever a load counts.
pub(crate) struct Judged {
    pub(crate) seconds: f64,
    pub(crate) generator: Generator,
    pub(crate) server: Option<Server>,
    /// `None` where the time was too short to tell.
    pub(crate) disturbance: Option<Disturbance>,
    pub(crate) bottleneck: Bottleneck,
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
