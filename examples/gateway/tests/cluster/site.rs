//! NATS and the gateways, each a process. The last gateway is far: behind a link that loses packets, on its way to NATS
//! and to its clients.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use ringwire_peers::{Http, Process, free_addr, program_in, wait_within};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::token::SECRET;

const KEY: &str = "the key of the tests";
pub(crate) const NODES: [&str; 3] = ["a", "b", "c"];
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// How long anything that must happen may take, with all clients there are.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, holds);
}

/// What the script has set.
fn set(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run tests/cluster/run"))
}

/// An address on this end of the link that loses packets, or on the other one.
fn addr_on(variable: &str) -> SocketAddr {
    SocketAddr::new(set(variable).parse().expect("an address"), free_addr().port())
}

/// One of the two network namespaces.
#[derive(Clone, Copy)]
enum End {
    Near,
    Far,
}

impl End {
    fn of(node: usize) -> Self {
        if node == NODES.len() - 1 { Self::Far } else { Self::Near }
    }

    /// A program that runs there.
    fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        match self {
            Self::Near => command = Command::new(program),
            Self::Far => {
                command.arg(format!("--net={}", set("CLUSTER_FAR"))).arg(program);
            }
        }
        command
    }

    fn filter(self, rules: &str) {
        let done = self.command("nft").arg(rules).status().expect("nft runs");
        assert!(done.success(), "{rules}");
    }
}

/// Starts the program that an environment variable names.
fn start(variable: &str, arguments: &[(&str, String)], addr: SocketAddr, end: End) -> Process {
    let mut program = end.command(program_in(variable, "tests/cluster/run").get_program());
    for (flag, value) in arguments {
        program.args([*flag, value]);
    }
    Process::start(program.env("JWT_SECRET", SECRET).env("GATEWAY_API_KEY", KEY), addr)
}

pub(crate) fn signal(process: &Process, signal: Signal) {
    kill_process(Pid::from_child(process.child()), signal).expect("it runs");
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut http = Http::connect(addr);
    http.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nX-Api-Key: {KEY}\r\n\r\n"));
    http.answer().text().to_owned()
}

fn get_json(addr: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&get(addr, path)).expect("it is JSON")
}

pub(crate) struct Nats {
    process: Process,
    monitor: SocketAddr,
}

impl Nats {
    fn start() -> Self {
        let own = || addr_on("CLUSTER_NEAR_ADDR");
        Self::start_at(own(), own())
    }

    fn start_at(addr: SocketAddr, monitor: SocketAddr) -> Self {
        let arguments = [
            ("-a", addr.ip().to_string()),
            ("-p", addr.port().to_string()),
            ("-m", monitor.port().to_string()),
            ("-l", "/dev/null".to_owned()),
        ];
        Self { process: start("CLUSTER_NATS_SERVER", &arguments, addr, End::Near), monitor }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn come_back(&mut self) {
        *self = Self::start_at(self.process.addr(), self.monitor);
    }

    pub(crate) fn signal(&self, it: Signal) {
        signal(&self.process, it);
    }

    pub(crate) fn number(&self, name: &str) -> f64 {
        get_json(self.monitor, "/varz")[name].as_f64().expect("a number")
    }

    /// Seconds of CPU that it has taken.
    pub(crate) fn cpu(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.process.child().id());
        let stat = fs::read_to_string(path).expect("it runs");
        // proc_pid_stat(5): behind the name in parentheses, utime and stime are the 12th and 13th, in ticks.
        let (_, fields) = stat.rsplit_once(')').expect("it has a name");
        let ticks = fields.split_ascii_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().expect("a number")).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }
}

/// A filter at both ends of the link, by which NATS and the far gateway do not reach each other.
pub(crate) struct Cut(u16);

impl Cut {
    fn new(port: u16) -> Self {
        for (end, link, side) in [(End::Near, "near", "dport"), (End::Far, "far", "sport")] {
            end.filter(&format!(
                "table netdev cut{port} {{ chain in {{ type filter hook ingress device {link} priority -1; \
                 tcp {side} {port} drop; }}; }}"
            ));
        }
        Self(port)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let Self(port) = self;
        [End::Near, End::Far]
            .iter()
            .for_each(|end| end.filter(&format!("delete table netdev cut{port}")));
    }
}

pub(crate) struct Site {
    pub(crate) nats: Nats,
    pub(crate) gateways: Vec<Process>,
}

impl Site {
    pub(crate) fn start() -> Self {
        let nats = Nats::start();
        let mut site = Self { nats, gateways: Vec::new() };
        for (node, _) in NODES.iter().enumerate() {
            let addr = match End::of(node) {
                End::Near => free_addr(),
                End::Far => addr_on("CLUSTER_FAR_ADDR"),
            };
            site.gateways.push(site.gateway(node, addr));
        }
        site
    }

    fn gateway(&self, node: usize, addr: SocketAddr) -> Process {
        let driver = env::var("RINGWIRE_DRIVER").unwrap_or_else(|_| "epoll".to_owned());
        let arguments = [
            ("--listen", addr.to_string()),
            ("--nats", format!("nats://{}", self.nats.process.addr())),
            ("--node", NODES[node].to_owned()),
            ("--driver", driver),
            ("--io-workers", "2".to_owned()),
            ("--pin", "none".to_owned()),
            ("--idle-timeout", "off".to_owned()),
            ("--rooms-history", "30".to_owned()),
        ];
        let gateway = start("CLUSTER_GATEWAY", &arguments, addr, End::of(node));
        wait_until("it is ready", || Http::connect(addr).get("/readyz").status() == 200);
        gateway
    }

    /// Cuts the far gateway off from NATS, until that is dropped.
    pub(crate) fn cut(&self) -> Cut {
        Cut::new(self.nats.process.addr().port())
    }

    /// Starts a node again that has ended.
    pub(crate) fn restart(&mut self, node: usize) {
        self.gateways[node] = self.gateway(node, self.addr(node));
    }

    pub(crate) fn addrs(&self) -> [SocketAddr; 3] {
        [0, 1, 2].map(|node| self.addr(node))
    }

    pub(crate) fn addr(&self, node: usize) -> SocketAddr {
        self.gateways[node].addr()
    }

    pub(crate) fn is_ready(&self, node: usize) -> bool {
        Http::connect(self.addr(node)).get("/readyz").status() == 200
    }

    /// How many users a node knows of, on all nodes.
    pub(crate) fn online(&self, node: usize) -> usize {
        let count = get_json(self.addr(node), "/ws/online?limit=1")["count"].as_u64();
        usize::try_from(count.expect("a number")).expect("it is small")
    }

    /// Waits until some nodes know of so many users.
    pub(crate) fn await_online(&self, nodes: &[usize], count: usize) {
        for node in nodes {
            wait_until(&format!("{} knows of {count} users", NODES[*node]), || {
                self.online(*node) == count
            });
        }
    }

    /// Waits until all nodes are ready, know of all users, and NATS of what they want.
    pub(crate) fn settle(&self, users: usize, rooms: usize) {
        for node in 0..NODES.len() {
            wait_until("it is ready", || self.is_ready(node));
            wait_until("it wants all rooms", || {
                self.metric(node, "ringwire_cluster_subscriptions") >= rooms as f64
            });
        }
        self.await_online(&[0, 1, 2], users);
        let wanted = (rooms * NODES.len()) as f64;
        wait_until("NATS knows", || self.nats.number("subscriptions") >= wanted);
    }

    /// A metric of a node; the sum, where there are several by labels.
    pub(crate) fn metric(&self, node: usize, name: &str) -> f64 {
        let metrics = get(self.addr(node), "/metrics");
        let is_it =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values = metrics.lines().filter(is_it);
        let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
        values.map(|line| value(line).expect("a number")).sum()
    }

    pub(crate) fn sum(&self, name: &str) -> f64 {
        (0..NODES.len()).map(|node| self.metric(node, name)).sum()
    }
}
