//! `ringwire-bench doctor`: what this machine is short of for so many connections, and the lines that mend it.
//!
//! Each check compares what `/proc` and `/sys` say with what the goal asks for, and says why it asks for it. The checks
//! ([`checks`]) read below a root directory and ask nothing else of the machine; that the engine can use io_uring is
//! tried.

mod checks;
mod goal;

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use serde_json::Value;

use self::goal::Goal;
use crate::demand::Demand;
use crate::output::JsonArgs;
use crate::own_server::OwnServer;
use crate::report::Table;
use crate::system::System;
use crate::units::show_count;

/// Flags of `ringwire-bench doctor`. The exit code is 1 if something is short, else 0.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Connections that are to be open at a time.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Which ends of them are on this machine. With both, each end is one process, and they meet on the loopback.
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// Connections that have a message on its way at a time; by default all.
    #[arg(long)]
    active: Option<u32>,
    /// Addresses that a client connects from; by default one, and with both ends those of 127.0.0.0/8.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    source_addresses: Option<u32>,
    #[command(flatten)]
    json: JsonArgs,
}

/// Which ends of the connections are on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// The side that accepts.
    #[default]
    Server,
    /// The side that connects.
    Client,
    /// Both of them.
    Both,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// Connections or messages fail, or wait for seconds.
    Short,
    /// Works, but not at its best, or only under a condition that is told.
    Note,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    has: Figure,
    needs: Figure,
    why: String,
    /// Lines for a shell with root's rights, or for a file that is named by a comment; none where all is well.
    fix: Vec<String>,
}

/// What there is, or should be: in words for people, and as JSON has it.
#[derive(Clone, Debug)]
struct Figure {
    text: String,
    /// A number, in bytes or pages or of things; an object of such, where a setting has several; null if it is unknown.
    /// `unlimited`, and what is no figure, are words.
    value: Value,
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// All of it, for JSON.
#[derive(Debug, Serialize)]
struct Examination {
    goal: Goal,
    /// Whether nothing is short.
    ok: bool,
    checks: Vec<Check>,
}

/// Runs the subcommand. Whether nothing is short.
pub(crate) fn command(args: &DoctorArgs) -> anyhow::Result<bool> {
    let goal = Goal::new(args.connections, args.role, args.active, args.source_addresses);
    let examination = Examination::of(goal, &System::real(), try_uring());
    args.json.tell(examination.text(), &examination)?;
    Ok(examination.ok)
}

/// Starts a server on io_uring, as the engine's probe is part of that. What it says if it cannot.
fn try_uring() -> Result<(), String> {
    let demand = Demand { driver: ringwire_examples::DriverFlag::Uring, ..Demand::default() };
    let started = OwnServer::start("127.0.0.1:0", &[], demand, None);
    started.map(drop).map_err(|error| format!("{error:#}"))
}

impl Examination {
    fn of(goal: Goal, system: &System, uring: Result<(), String>) -> Self {
        let checks = checks::all(&goal, system, uring);
        let ok = checks.iter().all(|check| check.status != Status::Short);
        Self { goal, ok, checks }
    }

    /// For people: a table, then the reasons and lines of what is not well.
    fn text(&self) -> String {
        let row = |check: &Check| {
            let cells = [check.name, &check.has.text, &check.needs.text, check.status.text()];
            cells.map(str::to_owned).to_vec()
        };
        let table = Table::new(&["", "has", "needs", ""], self.checks.iter().map(row));
        let mut text = format!("{}\n\n{table}\n", self.goal);
        for check in self.checks.iter().filter(|check| check.status != Status::Ok) {
            text += &format!("\n{}: {}\n", check.name, check.why);
            for line in &check.fix {
                text += &format!("    {line}\n");
            }
        }
        let short = self.checks.iter().filter(|check| check.status == Status::Short).count();
        text += &match short {
            0 => "\nNothing is short.".to_owned(),
            count => format!("\n{} of these are short.", show_count(count as f64)),
        };
        text
    }
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Short => "SHORT",
            Self::Note => "note",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::tests::made_up;

    /// A machine as distributions ship it, with 16 GiB and two CPUs.
    const DEFAULTS: [(&str, &str); 15] = [
        (
            "proc/self/limits",
            "Max open files            1024                 524288               files\n\
             Max locked memory         8388608              8388608              bytes\n",
        ),
        ("proc/meminfo", "MemTotal:       16777216 kB\nMemAvailable:   15728640 kB\n"),
        ("proc/cpuinfo", "processor\t: 0\nprocessor\t: 1\n"),
        ("proc/sys/fs/file-max", "9223372036854775807\n"),
        ("proc/sys/fs/file-nr", "1200\t0\t9223372036854775807\n"),
        ("proc/sys/fs/nr_open", "1048576\n"),
        ("proc/sys/net/core/somaxconn", "4096\n"),
        ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "1024\n"),
        ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("proc/sys/net/ipv4/tcp_mem", "190000\t253000\t380000\n"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
        ("proc/sys/vm/max_map_count", "65530\n"),
    ];

    fn examine(goal: Goal, changes: &[(&str, &str)]) -> Examination {
        let mut files: Vec<_> = DEFAULTS.to_vec();
        for change in changes {
            files.retain(|file| file.0 != change.0);
            files.push(*change);
        }
        let (_dir, system) = made_up(&files);
        Examination::of(goal, &system, Ok(()))
    }

    fn goal(connections: u32, role: Role) -> Goal {
        Goal::new(connections, role, Some(1000), None)
    }

    fn check<'a>(examination: &'a Examination, name: &str) -> &'a Check {
        let mut checks = examination.checks.iter();
        checks.find(|check| check.name == name).unwrap_or_else(|| panic!("{name} is not looked at"))
    }

    fn short(examination: &Examination) -> Vec<&str> {
        let short = examination.checks.iter().filter(|check| check.status == Status::Short);
        short.map(|check| check.name).collect()
    }

    #[test]
    fn a_thousand_connections_need_nothing() {
        for role in [Role::Server, Role::Client, Role::Both] {
            let examination = examine(goal(1000, role), &[]);
            assert!(examination.ok, "{}", examination.text());
            assert!(examination.text().ends_with("Nothing is short."));
        }
    }

    #[test]
    fn each_limit_has_a_line_that_mends_it() {
        let examination = examine(goal(2_000_000, Role::Server), &[]);
        assert!(!examination.ok);
        assert_eq!(short(&examination), ["open files", "fs.nr_open", "net.core.somaxconn"]);
        let lines = [
            ("open files", "ulimit -n 2001024"),
            ("open files", "LimitNOFILE=2001024"),
            ("fs.nr_open", "sysctl -w fs.nr_open=2001024"),
            ("net.core.somaxconn", "sysctl -w net.core.somaxconn=65535"),
        ];
        for (name, line) in lines {
            let fix = &check(&examination, name).fix;
            assert!(fix.iter().any(|fix| fix.contains(line)), "{line}: {fix:?}");
        }
        assert!(examination.text().contains("3 of these are short"), "{}", examination.text());
    }

    #[test]
    fn what_the_lines_set_is_enough() {
        let limits = "Max open files            2001024              2001024              files\n\
             Max locked memory         unlimited            unlimited            bytes\n";
        let mended = [
            ("proc/self/limits", limits),
            ("proc/sys/fs/nr_open", "2001024"),
            ("proc/sys/net/core/somaxconn", "65535"),
        ];
        let examination = examine(goal(2_000_000, Role::Server), &mended);
        assert!(examination.ok, "{}", examination.text());
    }

    #[test]
    fn a_soft_limit_alone_is_raised_by_the_engine() {
        let examination = examine(goal(400_000, Role::Server), &[]);
        assert_eq!(check(&examination, "open files").status, Status::Ok);
    }

    #[test]
    fn ports_are_counted_for_each_source_address() {
        let examination = examine(goal(100_000, Role::Client), &[]);
        let ports = check(&examination, "net.ipv4.ip_local_port_range");
        assert_eq!(ports.status, Status::Short);
        assert!(ports.fix[0].contains("ip_local_port_range='1024 65535'"), "{ports:?}");
        assert!(ports.fix[1].contains("2 addresses"), "{ports:?}");
        assert_eq!(short(&examine(goal(100_000, Role::Both), &[])), ["net.core.somaxconn"]);
        let one = Goal::new(28_000, Role::Client, Some(10), Some(1));
        assert!(examine(one, &[]).ok);
    }

    #[test]
    fn messages_on_their_way_need_tcp_memory() {
        let all = examine(Goal::new(500_000, Role::Server, None, None), &[]);
        let memory = check(&all, "net.ipv4.tcp_mem");
        assert_eq!(memory.status, Status::Short);
        assert!(memory.fix[0].contains("sysctl -w net.ipv4.tcp_mem='"), "{memory:?}");
        let few = examine(goal(500_000, Role::Server), &[]);
        assert_eq!(check(&few, "net.ipv4.tcp_mem").status, Status::Ok);
    }

    #[test]
    fn memory_that_is_missing_has_no_setting() {
        let meminfo = "MemTotal:       4194304 kB\nMemAvailable:   2097152 kB\n";
        let examination = examine(goal(1_000_000, Role::Both), &[("proc/meminfo", meminfo)]);
        let memory = check(&examination, "memory");
        assert_eq!(memory.status, Status::Short);
        assert!(memory.fix[0].starts_with("# "), "{memory:?}");
    }

    #[test]
    fn connection_tracking_counts_where_it_is_loaded() {
        let none = examine(goal(300_000, Role::Server), &[]);
        assert_eq!(check(&none, "nf_conntrack").has.text, "not loaded");
        let files = [
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "17"),
        ];
        let tracked = examine(goal(300_000, Role::Server), &files);
        let conntrack = check(&tracked, "nf_conntrack");
        assert_eq!(conntrack.status, Status::Short);
        assert!(conntrack.fix[0].contains("nf_conntrack_max=300017"), "{conntrack:?}");
        let unused = [files[0], ("proc/sys/net/netfilter/nf_conntrack_count", "0")];
        let unused = examine(goal(300_000, Role::Server), &unused);
        assert_eq!(check(&unused, "nf_conntrack").status, Status::Note);
    }

    #[test]
    fn json_has_numbers() {
        let examination = examine(goal(20_000, Role::Both), &[]);
        let json = serde_json::to_value(&examination).unwrap();
        let find = |name: &str| {
            let checks = json["checks"].as_array().unwrap();
            checks.iter().find(|check| check["name"] == name).unwrap().clone()
        };
        let files = find("open files");
        assert_eq!((&files["has"]["hard"], &files["has"]["soft"]), (&524_288.into(), &1024.into()));
        assert_eq!(files["needs"], 21_024);
        assert_eq!(find("net.core.somaxconn")["has"], 4096);
        assert_eq!(find("fs.file-max")["has"], "unlimited");
        assert_eq!(find("memory")["has"], 15_728_640_u64 << 10);
        let ports = find("net.ipv4.ip_local_port_range");
        assert_eq!(
            (&ports["has"]["ports"], &ports["needs"]["ports"]),
            (&28_232.into(), &79.into())
        );
        assert_eq!(find("net.ipv4.tcp_mem")["has"]["pressure"], 253_000);
        assert_eq!(find("net.ipv4.tcp_mem")["needs"], 2000);
        let buffers = find("net.ipv4.tcp_rmem, tcp_wmem");
        assert_eq!(buffers["has"]["receive_default"], 131_072, "{buffers}");
        assert!(buffers["needs"].is_u64(), "{buffers}");
        assert_eq!((&find("CPUs")["has"], &find("CPUs")["needs"]), (&2.into(), &1.into()));
        assert_eq!(find("locked memory")["has"], 8_388_608);
        // What is no figure stays in words.
        assert_eq!(find("nf_conntrack")["has"], "not loaded");
        assert!(examination.text().contains("21 024"), "{}", examination.text());
    }

    #[test]
    fn io_uring_is_a_matter_of_speed() {
        let (_dir, system) = made_up(&[("proc/sys/kernel/io_uring_disabled", "2")]);
        let goal = goal(10, Role::Server);
        let refused = Examination::of(goal, &system, Err("io_uring is disabled".to_owned()));
        let uring = check(&refused, "io_uring");
        assert_eq!(uring.status, Status::Note);
        assert!(uring.has.text.contains("kernel.io_uring_disabled=2"), "{uring:?}");
        assert!(uring.why.contains("io_uring is disabled"), "{uring:?}");
        assert_eq!(uring.fix, ["sysctl -w kernel.io_uring_disabled=0"]);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let (_dir, system) = made_up(&[]);
        let examination = Examination::of(goal(10, Role::Both), &system, Ok(()));
        for name in ["open files", "memory", "net.core.somaxconn"] {
            let check = check(&examination, name);
            let (status, has) = (check.status, check.has.text.as_str());
            assert_eq!((status, has), (Status::Note, "unknown"), "{check:?}");
            assert_eq!(check.has.value, Value::Null);
        }
        assert!(examination.ok);
    }

    #[test]
    fn governor_that_saves_power_is_told() {
        let path = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        let saving = examine(goal(10, Role::Server), &[(path, "powersave\n")]);
        assert_eq!(check(&saving, "CPU frequency governor").status, Status::Note);
        let fast = examine(goal(10, Role::Server), &[(path, "performance\n")]);
        assert_eq!(check(&fast, "CPU frequency governor").status, Status::Ok);
    }
}
