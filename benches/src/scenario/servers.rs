//! The server of a run: someone else's, one in this process, or several of this program's processes on one port.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use ringwire_examples::DriverFlag;

use super::child::{self, Process, ServerPlan};
use crate::cgroup::Cgroup;
use crate::demand::Demand;
use crate::endpoint::{Endpoint, ServerArgs};
use crate::own_server::OwnServer;
use crate::procstat::{Account, CpuTimes, Resident};
use crate::target::Target;
use crate::units::CpuList;

/// Where processes are started.
#[derive(Default)]
struct Surroundings {
    cgroup: Option<Cgroup>,
    /// The standard error of the first.
    log: Option<Stdio>,
}

/// The server. Dropping it ends what was started.
pub(crate) struct Servers {
    pub(crate) target: Target,
    /// The certificate of one that made its own.
    pub(crate) certificate: Option<String>,
    /// Whose CPU time is the server's; empty if that is not known.
    accounts: Vec<Account>,
    /// Held for what they do when they are dropped.
    _own: Option<OwnServer>,
    processes: Vec<Process>,
    /// Goes behind its processes.
    _cgroup: Option<Cgroup>,
}

impl Servers {
    /// Finds the server that the flags name, or starts one in this process.
    ///
    /// # Errors
    /// When the URL is wrong, or the server does not start.
    pub(crate) fn open(
        args: &ServerArgs,
        demand: Demand,
        load_cpu: &mut Option<CpuList>,
    ) -> anyhow::Result<Self> {
        let Endpoint { target, account, own, .. } = args.open(demand, load_cpu)?;
        let certificate = own.as_ref().and_then(|own| own.certificate().map(str::to_owned));
        Ok(Self {
            target,
            certificate,
            accounts: account.into_iter().collect(),
            _own: own,
            processes: Vec::new(),
            _cgroup: None,
        })
    }

    /// Starts `count` processes that listen on one port.
    ///
    /// # Errors
    /// When one does not start.
    pub(crate) fn start(
        args: &ServerArgs,
        count: u32,
        payload_len: usize,
        handshake_timeout: Duration,
        takeover: Option<bool>,
        driver: DriverFlag,
    ) -> anyhow::Result<Self> {
        let plan = ServerPlan { payload_len, handshake_timeout, takeover, ..ServerPlan::default() };
        Self::start_with(args, count, plan, driver, Surroundings::default())
    }

    /// Starts a process that gives up peers which say nothing within `limit`, and agrees to compression.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start_guarded(
        args: &ServerArgs,
        limit: Duration,
        driver: DriverFlag,
        max_memory: Option<usize>,
        cgroup: Option<u64>,
        log: Option<Stdio>,
    ) -> anyhow::Result<Self> {
        let plan = ServerPlan {
            handshake_timeout: limit / 2,
            silence_limit: Some(limit / 2),
            takeover: Some(false),
            max_memory,
            logs: log.is_some(),
            ..ServerPlan::default()
        };
        let cgroup = cgroup.map(Cgroup::with_memory).transpose()?;
        Self::start_with(args, 1, plan, driver, Surroundings { cgroup, log })
    }

    fn start_with(
        args: &ServerArgs,
        count: u32,
        plan: ServerPlan,
        driver: DriverFlag,
        surroundings: Surroundings,
    ) -> anyhow::Result<Self> {
        let Surroundings { cgroup, mut log } = surroundings;
        let certificate = args.own_tls.then(OwnServer::make_certificate).transpose()?;
        let (listen, own) = (args.listen.clone(), certificate.clone());
        let mut plan = ServerPlan { listen, certificate: own, shares_port: count > 1, ..plan };
        let (mut target, mut processes) = (None, Vec::new());
        for _ in 0..count.max(1) {
            let (mut process, mut output) =
                Process::start("server-worker", driver, None, log.take())?;
            if let Some(cgroup) = &cgroup {
                // Before it looks at what it may have.
                cgroup.take(process.pid())?;
            }
            process.write(&plan)?;
            let told: Result<String, String> =
                child::read(&mut output).context("a process of the server died")?;
            let url = told.map_err(|text| anyhow!("a process of the server: {text}"))?;
            let found = target.get_or_insert(Target::from_url(&url)?);
            plan.listen = found.address().to_string();
            processes.push(process);
        }
        Ok(Self {
            target: target
                .context("no process of the server was started")?
                .with_ask(&args.ask, 0..u32::MAX)?,
            certificate: certificate.map(|own| own.certificate),
            accounts: processes.iter().map(|process| Account::Process(process.pid())).collect(),
            _own: None,
            processes,
            _cgroup: cgroup,
        })
    }

    /// Whether its CPU time can be told.
    pub(crate) fn is_known(&self) -> bool {
        !self.accounts.is_empty()
    }

    /// Its processes, as far as they are known.
    pub(crate) fn processes(&self) -> usize {
        self.accounts.len()
    }

    /// Tells those that were started to end. Whether all did within the time, as they should.
    pub(crate) fn end_within(&mut self, limit: Duration) -> bool {
        self.processes.iter_mut().all(|process| process.end_within(limit))
    }

    /// Ends those that were started, without waiting until they have ended.
    pub(crate) fn kill(&mut self) {
        self.processes.iter_mut().for_each(Process::kill);
    }

    /// CPU time used so far, of each process.
    ///
    /// # Errors
    /// When a process is gone.
    pub(crate) fn cpu(&self) -> anyhow::Result<Vec<CpuTimes>> {
        let times = self.accounts.iter().map(Account::cpu).collect::<Result<_, _>>();
        times.context("a process of the server is gone")
    }

    /// CPUs that it could keep busy, on a machine that has so many.
    pub(crate) fn capacity(&self, cpus: usize) -> anyhow::Result<usize> {
        let capacities = self.accounts.iter().map(Account::capacity).sum::<Result<usize, _>>();
        Ok(capacities.context("a process of the server is gone")?.min(cpus))
    }

    /// Memory of all its processes; `None` where it cannot be told from the generator's.
    ///
    /// # Errors
    /// When a process is gone.
    pub(crate) fn resident(&self) -> anyhow::Result<Option<Resident>> {
        let mut sum = Resident::default();
        for account in &self.accounts {
            let Account::Process(pid) = account else { return Ok(None) };
            let one = Resident::of(*pid).context("a process of the server is gone")?;
            sum.all += one.all;
            sum.anonymous += one.anonymous;
        }
        Ok(self.is_known().then_some(sum))
    }
}
