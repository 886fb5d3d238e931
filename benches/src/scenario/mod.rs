//! Load scenarios: `storm`, `throughput`, `sustained`, `all`, `rate`, `million`, `traffic`, `tps`, `idle`, `churn` and
//! `search`.
//!
//! A run has a conductor, one or more generators, and a server. A generator ([`generator`]) is a thread with some of
//! the connections ([`connection`]); it does what its [`plan`] says and tells what it counted, second by second
//! ([`tally`]). It lives in this process, or in a process of its own ([`child`]) where the connections are more than
//! one process may have; what it tells is the same data either way, histograms included, so that the [`conductor`] adds
//! up and never averages. The sockets are those of `echo`, whose closed loop has its frames made before it starts.

mod arena;
mod child;
mod churn;
mod clock;
mod closed_loop;
mod conductor;
mod connection;
mod desk;
mod fail_if;
mod fleet;
mod generator;
mod hdr_log;
mod idle;
mod live;
mod message;
mod million;
mod pace;
mod plan;
mod published;
mod rate;
mod report;
mod search;
mod servers;
mod stress;
mod tally;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use ringwire_examples::units::parse_duration;
use ringwire_examples::{CompressionFlag, DriverFlag};
use serde::Serialize;

pub(crate) use self::arena::{ArenaArgs, command as arena};
pub(crate) use self::child::{ChildArgs, server_worker};
pub(crate) use self::churn::{ChurnArgs, command as churn};
pub(crate) use self::closed_loop::{TpsArgs, TrafficArgs, tps, traffic};
use self::conductor::{Setup, Watch};
pub(crate) use self::fail_if::Condition;
use self::fleet::Fleet;
pub(crate) use self::fleet::load_worker;
pub(crate) use self::generator::sessions::{End, Sessions, SessionsPlan, run as run_sessions};
pub(crate) use self::idle::{IdleArgs, command as idle};
use self::live::Live;
pub(crate) use self::message::{NUMBER_LEN, Template};
pub(crate) use self::million::{MillionArgs, command as million};
use self::pace::Pace;
use self::plan::{Plan, Work};
pub(crate) use self::published::{StressArgs, command as stress_command, with_two_dashes};
pub(crate) use self::rate::{RateArgs, command as rate};
pub(crate) use self::report::Report;
use self::report::{Asked, Row, show_rows};
pub(crate) use self::search::{SearchArgs, command as search};
pub(crate) use self::servers::Servers;
pub(crate) use self::stress::{AllArgs, SteadyArgs, StormArgs, ThroughputArgs, command as stress};
use crate::demand::Demand;
use crate::endpoint::ServerArgs;
use crate::machine;
use crate::output::{self, JsonArgs};
use crate::report::Page;
use crate::units::CpuList;

/// How often totals are told where there is no terminal.
const PROGRESS: Duration = Duration::from_secs(10);
/// Descriptors of a process that are no connections.
const SPARE_DESCRIPTORS: u64 = 128;
/// Percentage of its room that a server process is planned for: the kernel spreads connections by a hash.
const SERVER_FILL: u64 = 96;

/// Flags of all scenarios.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    server: ServerArgs,
    /// The kernel back end of a server that is started. The load has epoll.
    #[arg(long, value_enum, default_value_t, env = "RINGWIRE_DRIVER")]
    driver: DriverFlag,
    /// Threads of each process of the load.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// CPUs of the load. By default those that a server in this process does not have.
    #[arg(long)]
    cpu: Option<CpuList>,
    /// Processes of the load; 0: as many as the limit of open files asks for.
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u32).range(..=4096))]
    processes: u32,
    /// A command that runs ringwire-bench on a machine of the load, such as 'ssh load1 ringwire-bench'; several times
    /// for several machines, each of which has an equal share. Files that flags name are read there.
    #[arg(long, value_name = "COMMAND", requires = "url")]
    load_machine: Vec<String>,
    /// Processes of the server that is started, all on one port; 0: as many as the limit of open files asks for.
    #[arg(long, default_value = "0", conflicts_with = "url", value_parser = clap::value_parser!(u32).range(..=4096))]
    server_processes: u32,
    /// Local addresses to connect from, in turn. By default those of 127.0.0.0/8 for many connections to a loopback
    /// address, else what the kernel chooses.
    #[arg(long, value_delimiter = ',')]
    source_addresses: Vec<IpAddr>,
    /// Sends text messages instead of binary ones.
    #[arg(long)]
    text: bool,
    /// Sends what is in a file, as text if it is UTF-8, in place of random bytes. Filled anew for each message:
    /// {number} with its number, {connection} with that of its connection, {digits:8} and {hex:8} with so many random
    /// ones, {uuid}, and {timestamp} with the milliseconds since 1970.
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
    #[arg(skip)]
    payload: Option<Vec<u8>>,
    #[arg(skip)]
    pace: Option<Pace>,
    /// Compression (permessage-deflate) that the server has to agree to: without context takeover, or with takeover
    /// both ways. Every message is compressed, at level 1, and every reply inflated.
    #[arg(long, value_enum, default_value_t)]
    compression: CompressionFlag,
    /// Takes any message for the reply to the oldest one on its connection that has none, for servers that do not echo.
    #[arg(long)]
    any_reply: bool,
    /// The same, but for messages that have this in them, or one of several; all others are left out of account.
    #[arg(long, value_name = "TEXT")]
    reply_contains: Vec<String>,
    /// How often a line with the totals is written to the standard error: connections, messages, rate, success. 0 is
    /// never. [default: 10s where that is no terminal]
    #[arg(long, value_name = "INTERVAL", value_parser = parse_duration)]
    progress: Option<Duration>,
    /// Time for all connects, and for work without a duration.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    limit: Duration,
    /// Conditions under which the exit code is 1, such as 'p99>5ms,errors>0': min, mean, p50, p75, p90, p95, p99, p99.9
    /// and max of latency (of connect time, without messages and in churn), errors, opened, rate (messages a second),
    /// connects (a second), growth (bytes of the server's memory while held).
    /// Without this, errors are the condition.
    #[arg(long, value_delimiter = ',', value_name = "CONDITIONS")]
    fail_if: Vec<Condition>,
    #[command(flatten)]
    json: JsonArgs,
    /// Writes the latencies of each second to a file as an HdrHistogram log, in nanoseconds.
    #[arg(long, value_name = "FILE")]
    hdr_log: Option<String>,
    /// Serves what was counted so far at this address and port, path /metrics, for Prometheus.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    #[arg(skip)]
    live: Option<Live>,
    /// Runs that were made.
    #[arg(skip)]
    runs: u32,
    /// Writes a page with plots over time to a file, or to the standard output for `-`.
    #[arg(long, value_name = "FILE")]
    html: Option<String>,
}

/// What a scenario asks for.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    connections: u32,
    max_concurrent: u32,
    ramp_up: Duration,
    connect_timeout: Duration,
    response_timeout: Duration,
    size: u64,
    work: Work,
    hold: Duration,
    watch: Watch,
    /// Whether a server that is started has processes of its own.
    server_apart: bool,
}

impl Scenario {
    /// One that connects at once, and watches nothing.
    fn new(name: &'static str, connections: u32, work: Work) -> Self {
        let ten_seconds = Duration::from_secs(10);
        Self {
            name,
            connections,
            max_concurrent: rate::MAX_CONCURRENT,
            ramp_up: Duration::ZERO,
            connect_timeout: ten_seconds,
            response_timeout: ten_seconds,
            size: 100,
            work,
            hold: Duration::ZERO,
            watch: Watch::Nothing,
            server_apart: false,
        }
    }
}

/// Processes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    generators: u32,
    /// Whether these are processes of their own.
    apart: bool,
    /// Processes of the server; 0: it is in this process, or somebody else's.
    servers: u32,
}

impl Common {
    /// Makes a run, and waits until what it started has ended.
    ///
    /// # Errors
    /// When it cannot be made at all.
    fn run(&mut self, scenario: &Scenario) -> anyhow::Result<Report> {
        Ok(self.begin(scenario)?.0)
    }

    /// Makes a run. A million connections take a while to be gone, which a report need not wait for.
    ///
    /// # Errors
    /// When it cannot be made at all.
    fn begin(&mut self, scenario: &Scenario) -> anyhow::Result<(Report, Remains)> {
        let limit =
            machine::raise_descriptor_limit().context("cannot read the limit of open files")?;
        let layout = self.layout(scenario, limit)?;
        let payload = self.payload()?;
        let payload_len = payload.as_ref().map(|bytes| Template::of(bytes).len());
        let payload_len =
            payload_len.unwrap_or_else(|| usize::try_from(scenario.size).unwrap_or(usize::MAX));
        let servers = if layout.servers > 0 {
            let timeout = scenario.connect_timeout;
            let (takeover, driver) = (self.takeover(), self.driver);
            Servers::start(&self.server, layout.servers, payload_len, timeout, takeover, driver)?
        } else {
            let demand = Demand {
                connections: if self.server.url.is_none() { scenario.connections } else { 0 },
                payload_len,
                compression: self.compression,
                driver: self.driver,
                handshake_timeout: Some(scenario.connect_timeout),
                ..Demand::default()
            };
            Servers::open(&self.server, demand, &mut self.cpu)?
        };
        let mut plan = self.plan(scenario, layout, &servers, payload_len);
        plan.text |= payload.as_ref().is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
        plan.payload = payload;
        if let (Some(address), None) = (self.metrics, &self.live) {
            self.live = Some(Live::start(address)?);
        }
        let setup = Setup {
            scenario: scenario.name,
            plan: plan.clone(),
            driver: self.driver,
            generators: layout.generators,
            sources: self.source_addresses.clone(),
            hold: scenario.hold,
            watch: scenario.watch,
            progress: self.progress(),
            live: self.live.as_ref(),
            machines: &self.load_machine,
        };
        let (found, fleet) = conductor::run(setup, &servers)?;
        if let Some(file) = &self.hdr_log {
            hdr_log::write(file, self.runs == 0, scenario.name, &found)?;
        }
        self.runs += 1;
        let driver = self.driver.to_possible_value();
        let asked = Asked {
            scenario: scenario.name,
            plan: &plan,
            target: servers.target.to_string(),
            driver: driver.as_ref().map_or("auto", |driver| match driver.get_name() {
                "epoll" => "epoll",
                "uring" => "uring",
                _ => "auto",
            }),
            generators: layout.generators,
            server_processes: if layout.servers > 0 { servers.processes() } else { 0 },
            hold: scenario.hold,
            notes: self.notes(layout, limit),
        };
        Ok((Report::new(asked, found), Remains { fleet, servers }))
    }

    /// Makes a run, prints and writes its report; whether no condition failed.
    ///
    /// # Errors
    /// When it cannot be made at all, or a file cannot be written.
    fn run_one(
        &mut self,
        scenario: &Scenario,
        rows: fn(&Report) -> Vec<Row>,
    ) -> anyhow::Result<bool> {
        let report = self.run(scenario)?;
        self.conclude(&[report], rows)
    }

    fn plan(&self, scenario: &Scenario, layout: Layout, servers: &Servers, size: usize) -> Plan {
        Plan {
            url: servers.target.to_string(),
            tls: self.server.tls.clone(),
            ask: self.server.ask.clone(),
            first: 0,
            own_certificate: servers.certificate.clone(),
            epoch: 0,
            connections: scenario.connections,
            sources: Vec::new(),
            max_concurrent: scenario.max_concurrent,
            ramp_up: scenario.ramp_up,
            connect_timeout: scenario.connect_timeout,
            limit: self.limit,
            response_timeout: scenario.response_timeout,
            size,
            text: self.text,
            payload: None,
            pace: self.pace.clone(),
            any_reply: self.any_reply || !self.reply_contains.is_empty(),
            reply_contains: self.reply_contains.clone(),
            takeover: self.takeover(),
            threads: self.threads.into(),
            cpus: self.cpu.as_ref().map(|cpus| cpus.0.clone()).unwrap_or_default(),
            work: scenario.work,
            is_process: layout.apart,
            is_elsewhere: !self.load_machine.is_empty(),
        }
    }

    /// What is to be sent, where that is no noise.
    fn payload(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let read = |file: &PathBuf| {
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let file = self.payload_file.as_ref().map(read).transpose()?;
        Ok(file.or_else(|| self.payload.clone()))
    }

    fn notes(&self, layout: Layout, limit: u64) -> Vec<String> {
        let terms = match self.compression {
            CompressionFlag::Off => None,
            CompressionFlag::Shared => Some("without context takeover"),
            CompressionFlag::Dedicated => Some("with context takeover"),
        };
        let terms = terms.map(|terms| format!("every message was compressed, {terms}"));
        layout.notes(limit, self.load_machine.len()).into_iter().chain(terms).collect()
    }

    fn takeover(&self) -> Option<bool> {
        match self.compression {
            CompressionFlag::Off => None,
            CompressionFlag::Shared => Some(false),
            CompressionFlag::Dedicated => Some(true),
        }
    }

    fn progress(&self) -> Option<Duration> {
        let default = || (!std::io::stderr().is_terminal()).then_some(PROGRESS);
        let interval = self.progress.or_else(default);
        interval.filter(|interval| !interval.is_zero())
    }

    /// How many processes the connections ask for, where one may have `limit` open files.
    fn layout(&self, scenario: &Scenario, limit: u64) -> anyhow::Result<Layout> {
        let connections = u64::from(scenario.connections);
        if !self.load_machine.is_empty() {
            // What these may open, they know themselves.
            let generators = self.processes.max(u32::try_from(self.load_machine.len())?);
            return Ok(Layout { generators, apart: true, servers: 0 });
        }
        let room = limit.saturating_sub(SPARE_DESCRIPTORS).max(1);
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let needed = small(connections.div_ceil(room));
        let generators = if self.processes > 0 { self.processes } else { needed };
        if u64::from(generators) > connections {
            bail!("{generators} processes have nothing to do with {connections} connections");
        }
        if generators < needed {
            bail!(
                "{connections} connections need {needed} processes of at most {room} (ulimit -Hn is {limit}): raise \
                 --processes, or the limit"
            );
        }
        let starts_server = self.server.url.is_none();
        // Both ends in one process.
        let fits = connections * 2 + SPARE_DESCRIPTORS <= limit;
        let apart = starts_server
            && (scenario.server_apart || !fits || generators > 1 || self.server_processes > 0);
        let spread = (room * SERVER_FILL / 100).max(1);
        let servers = match self.server_processes {
            _ if !apart => 0,
            0 if connections <= room => 1,
            0 => small(connections.div_ceil(spread)),
            given => given,
        };
        Ok(Layout { generators, apart: generators > 1 || self.processes > 0, servers })
    }

    /// Prints and writes reports; whether no condition failed.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn conclude(&self, reports: &[Report], rows: fn(&Report) -> Vec<Row>) -> anyhow::Result<bool> {
        let page = || report::page(reports.iter(), rows);
        match reports {
            [report] => self.write(report, page)?,
            several => self.write(&several, page)?,
        }
        if !self.json.is_to_stdout() {
            for report in reports {
                output::say(format_args!("{}\n{}\n", report.machine, show_rows(&rows(report))))?;
            }
        }
        Ok(self.judge(reports))
    }

    /// Writes a result and its page to the files that are asked for.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn write(&self, result: &impl Serialize, page: impl FnOnce() -> Page) -> anyhow::Result<()> {
        self.json.write(result)?;
        if let Some(file) = &self.html {
            page().write(file)?;
        }
        Ok(())
    }

    /// Whether no condition failed.
    fn judge<'r>(&self, reports: impl IntoIterator<Item = &'r Report>) -> bool {
        let mut reports = reports.into_iter();
        if self.fail_if.is_empty() {
            return reports.all(Report::is_clean);
        }
        let mut is_fine = true;
        for report in reports {
            let holds = |condition: &&Condition| condition.holds(|name| report.metric(name));
            for condition in self.fail_if.iter().filter(holds) {
                output::note(format_args!("{}: failed, since {condition}", report.scenario));
                is_fine = false;
            }
        }
        is_fine
    }
}

/// What is left of a run. Dropping it ends all of it at once.
struct Remains {
    fleet: Fleet,
    servers: Servers,
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.fleet.kill();
        self.servers.kill();
    }
}

impl Layout {
    /// What a reader of the report has to know of it.
    fn notes(self, limit: u64, machines: usize) -> Vec<String> {
        let mut notes = Vec::new();
        if machines > 0 {
            notes.push(format!(
                "the load ran in {} processes, by --load-machine {machines} times; what else went on there is not known",
                self.generators
            ));
        } else if self.apart {
            notes.push(format!(
                "the load ran in {} processes (ulimit -Hn is {limit})",
                self.generators
            ));
        }
        if self.servers > 1 {
            notes.push(format!(
                "the server ran in {} processes on one port (SO_REUSEPORT), since ulimit -Hn is {limit}",
                self.servers
            ));
        }
        notes
    }
}
