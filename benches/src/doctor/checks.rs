//! The checks, in the order in which a connection meets them.

use serde_json::{Value, json};

use super::goal::Goal;
use super::{Check, Figure, Status};
use crate::system::{Limit, System};
use crate::units::{show_bytes, show_count};

/// The longest queue of connections that wait to be accepted which is worth having.
const LONGEST_BACKLOG: u64 = 65_535;
/// Packets that wait for a CPU: connects of a load that is made as fast as it can be.
const NETDEV_BACKLOG: u64 = 10_000;
/// All ports that need no rights.
const ALL_PORTS: (u64, u64) = (1024, 65_535);
/// What Linux ships.
const MAP_COUNT: u64 = 65_530;
/// Memory that the rings of a few workers have, which kernels before 5.12 count as locked.
const LOCKED_MEMORY: u64 = 8 << 20;
const UNKNOWN: &str = "unknown";

/// All checks for a goal. `uring`: what the engine said of io_uring.
pub(super) fn all(goal: &Goal, system: &System, uring: Result<(), String>) -> Vec<Check> {
    let nr_open = "the limit of open files of any process is capped by it";
    let somaxconn = "connections that wait to be accepted: when many come at once and the queue is full, the kernel \
                     drops their packets, and they come again after a second. The setting listen_backlog of the \
                     server goes with it";
    let map_count = "pieces of address space of a process; connections take few, so that the kernel's default is \
                     enough";
    let mut checks = vec![
        open_files(goal, system),
        at_least(system, "fs.nr_open", goal.files(), nr_open),
        file_max(goal, system),
    ];
    if goal.accepts() {
        let backlog = goal.connections.min(LONGEST_BACKLOG);
        checks.push(at_least(system, "net.core.somaxconn", backlog, somaxconn));
        checks.push(syn_backlog(goal, system));
    }
    if goal.connects() {
        checks.push(ports(goal, system));
    }
    checks.extend([
        netdev_backlog(goal, system),
        conntrack(goal, system),
        tcp_mem(goal, system),
        tcp_buffers(goal, system),
        memory(goal, system),
        at_least(system, "vm.max_map_count", MAP_COUNT, map_count),
        io_uring(system, uring),
        locked_memory(system),
        cpus(system),
        governor(system),
    ]);
    checks
}

fn open_files(goal: &Goal, system: &System) -> Check {
    let (name, needed) = ("open files", goal.files());
    let why = "RLIMIT_NOFILE: each connection is an open file of its process. The engine raises the soft limit to \
               the hard one by itself";
    let Some(Limit { soft, hard }) = system.limit("Max open files") else {
        return unknown(name, needed, why);
    };
    let limit = |limit: Option<u64>| limit.map_or_else(unlimited, count);
    let (soft, hard_limit) = (limit(soft), limit(hard));
    let fix = [
        format!("ulimit -n {needed}    # as root, in the shell that starts the program"),
        format!("LimitNOFILE={needed}    # in [Service] of its systemd unit"),
        format!("*  -  nofile  {needed}    # in /etc/security/limits.conf, for the next login"),
    ];
    let text = format!("{} (soft {})", hard_limit.text, soft.text);
    let has = Figure { text, value: json!({"soft": soft.value, "hard": hard_limit.value}) };
    enough(name, hard.is_none_or(|hard| hard >= needed), has, count(needed), why, &fix)
}

fn file_max(goal: &Goal, system: &System) -> Check {
    let open = system.numbers("fs.file-nr").first().copied().unwrap_or_default();
    let why =
        "open files of all processes; both ends of a connection count, and what is open already";
    at_least(system, "fs.file-max", goal.connections * goal.ends() + open, why)
}

fn syn_backlog(goal: &Goal, system: &System) -> Check {
    let why = "connects that are half done; without SYN cookies those beyond it are dropped";
    let needed = goal.connections.min(LONGEST_BACKLOG);
    let check = at_least(system, "net.ipv4.tcp_max_syn_backlog", needed, why);
    let has_cookies = system.numbers("net.ipv4.tcp_syncookies").first().is_some_and(|on| *on > 0);
    if has_cookies {
        noted(check, "SYN cookies are on, which take over when it is full")
    } else {
        check
    }
}

fn ports(goal: &Goal, system: &System) -> Check {
    let name = "net.ipv4.ip_local_port_range";
    let why = "a client needs a port for each connection from one address to one server";
    let addresses = goal.source_addresses;
    let needed = goal.connections.div_ceil(addresses);
    let range = system.numbers(name);
    let [first, last] = range[..] else { return unknown(name, needed, why) };
    let ports = (last + 1).saturating_sub(first);
    let (lowest, highest) = ALL_PORTS;
    let all = highest + 1 - lowest;
    let mut fix = vec![format!("sysctl -w {name}='{lowest} {highest}'")];
    if needed > all {
        let addresses = goal.connections.div_ceil(all);
        fix.push(format!("# and connect from {} addresses at least", count(addresses).text));
    }
    let has = Figure {
        text: format!("{first} {last}, {} ports", count(ports).text),
        value: json!({"first": first, "last": last, "ports": ports}),
    };
    let from = if addresses == 1 {
        "one address".to_owned()
    } else {
        format!("each of {addresses} addresses")
    };
    let needs = Figure {
        text: format!("{} ports on {from}", count(needed).text),
        value: json!({"ports": needed, "addresses": addresses}),
    };
    enough(name, ports >= needed, has, needs, why, &fix)
}

fn netdev_backlog(goal: &Goal, system: &System) -> Check {
    let why = "packets that wait for a CPU; the loopback has this queue too, and what it drops is sent again";
    let needed = goal.connections.min(NETDEV_BACKLOG);
    let check = at_least(system, "net.core.netdev_max_backlog", needed, why);
    noted(check, "matters when many connect at once")
}

fn conntrack(goal: &Goal, system: &System) -> Check {
    let (name, max) = ("nf_conntrack", "net.netfilter.nf_conntrack_max");
    let why = "the firewall tracks connections, and packets of those beyond its limit are dropped";
    let Some(&limit) = system.numbers(max).first() else {
        return good(name, words("not loaded"), words("nothing"), why);
    };
    let tracked = system.numbers("net.netfilter.nf_conntrack_count").first().copied();
    let needed = goal.connections + tracked.unwrap_or_default();
    let fix = [
        format!("sysctl -w {max}={needed}"),
        "# or have the firewall leave these connections alone: nft's notrack".to_owned(),
    ];
    let check = enough(name, limit >= needed, count(limit), count(needed), why, &fix);
    match tracked {
        Some(0) => noted(check, "it tracks nothing at present"),
        _ => check,
    }
}

fn tcp_mem(goal: &Goal, system: &System) -> Check {
    let name = "net.ipv4.tcp_mem";
    let why = "pages that all of TCP may have for messages on their way, one at least for each; beyond them it \
               drops and slows down. Connections at rest have none (--active says how many are not)";
    let needed = goal.tcp_pages();
    let [low, pressure, most] = system.numbers(name)[..] else { return unknown(name, needed, why) };
    // Pressure begins at the second number.
    let fix = [format!(
        "sysctl -w {name}='{} {} {}'",
        low.max(needed * 3 / 4),
        pressure.max(needed),
        most.max(needed * 3 / 2)
    )];
    let has = Figure {
        text: format!("{low} {pressure} {most} pages"),
        value: json!({"low": low, "pressure": pressure, "max": most}),
    };
    let needs = Figure { text: format!("{} pages", count(needed).text), ..count(needed) };
    enough(name, pressure >= needed, has, needs, why, &fix)
}

fn tcp_buffers(goal: &Goal, system: &System) -> Check {
    let name = "net.ipv4.tcp_rmem, tcp_wmem";
    let (receive, send) =
        (system.numbers("net.ipv4.tcp_rmem"), system.numbers("net.ipv4.tcp_wmem"));
    let why = "what the kernel holds for a peer that does not read, or an application that does not; it is memory \
               only while something waits. The first number is held even under pressure";
    let ([receive_min, receive_default, _], [send_min, send_default, _]) =
        (&receive[..], &send[..])
    else {
        return unknown(name, 0, why);
    };
    let default = (receive_default + send_default) * goal.active * goal.ends();
    let available = system.memory("MemAvailable").unwrap_or(u64::MAX);
    let has = Figure {
        text: format!(
            "{} + {} a connection at first, {} + {} at least",
            bytes(*receive_default).text,
            bytes(*send_default).text,
            bytes(*receive_min).text,
            bytes(*send_min).text
        ),
        value: json!({
            "receive_default": receive_default,
            "send_default": send_default,
            "receive_min": receive_min,
            "send_min": send_min,
        }),
    };
    let fix = [
        "sysctl -w net.ipv4.tcp_rmem='4096 16384 4194304'".to_owned(),
        "sysctl -w net.ipv4.tcp_wmem='4096 16384 4194304'".to_owned(),
    ];
    let needs =
        Figure { text: format!("{} if all were full", bytes(default).text), ..bytes(default) };
    noted(
        enough(name, default <= available, has, needs, why, &fix),
        "smaller ones cost speed of single connections",
    )
}

fn memory(goal: &Goal, system: &System) -> Check {
    let why = "320 bytes of the process and 4.5 KiB of the kernel for each end of an idle plain connection, and a \
               page for each message on its way; an idle TLS connection takes 4.8 KiB more (docs/benchmarks/2026-11-22.md)";
    let (name, needed) = ("memory", goal.memory());
    let Some(available) = system.memory("MemAvailable") else { return unknown(name, needed, why) };
    let missing = needed.saturating_sub(available);
    let fix =
        [format!("# {} more memory, or fewer connections: no setting helps", bytes(missing).text)];
    let has = Figure { text: format!("{} available", bytes(available).text), ..bytes(available) };
    enough(name, missing == 0, has, bytes(needed), why, &fix)
}

fn io_uring(system: &System, tried: Result<(), String>) -> Check {
    let (name, needs) = ("io_uring", words("a faster driver from Linux 6.17 on; else epoll"));
    let setting = system.sysctl("kernel.io_uring_disabled");
    let shown = setting
        .as_deref()
        .map_or_else(String::new, |value| format!(", kernel.io_uring_disabled={value}"));
    match tried {
        Ok(()) => good(name, words(&format!("the engine can use it{shown}")), needs, ""),
        Err(said) => {
            let is_disabled = setting.is_some_and(|value| value != "0");
            let line = "sysctl -w kernel.io_uring_disabled=0".to_owned();
            let fix = if is_disabled { vec![line] } else { Vec::new() };
            let has = words(&format!("the engine cannot use it{shown}"));
            Check { name, status: Status::Note, has, needs, why: said, fix }
        }
    }
}

fn locked_memory(system: &System) -> Check {
    let name = "locked memory";
    let why = "RLIMIT_MEMLOCK: io_uring's rings count where the kernel is older than 5.12";
    let Some(Limit { hard, .. }) = system.limit("Max locked memory") else {
        return unknown(name, LOCKED_MEMORY, why);
    };
    let fix = [
        format!(
            "ulimit -l {}    # as root, in the shell that starts the program",
            LOCKED_MEMORY / 1024
        ),
        "LimitMEMLOCK=infinity    # in [Service] of its systemd unit".to_owned(),
    ];
    let has = hard.map_or_else(unlimited, bytes);
    let is_enough = hard.is_none_or(|hard| hard >= LOCKED_MEMORY);
    noted(
        enough(name, is_enough, has, bytes(LOCKED_MEMORY), why, &fix),
        "newer kernels do not count it",
    )
}

fn cpus(system: &System) -> Check {
    let why = "a worker has a CPU of its own; a load on the same machine needs others";
    let has = system.cpu_count();
    if has == 0 {
        return unknown("CPUs", 1, why);
    }
    let needs = Figure { text: "1 a worker".to_owned(), ..count(1) };
    good("CPUs", count(has as u64), needs, why)
}

fn governor(system: &System) -> Check {
    let name = "CPU frequency governor";
    let why = "figures depend on how soon a CPU that rested is fast again";
    let governor = system.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    let has = governor.unwrap_or_else(|| "none".to_owned());
    let is_fast = has == "none" || has == "performance";
    let fix = ["cpupower frequency-set --governor performance".to_owned()];
    let check = enough(name, is_fast, words(&has), words("performance"), why, &fix);
    noted(check, "nothing fails by it")
}

/// A sysctl of one number that should not be lower.
fn at_least(system: &System, name: &'static str, needed: u64, why: &str) -> Check {
    let Some(&has) = system.numbers(name).first() else { return unknown(name, needed, why) };
    let fix = [
        format!("sysctl -w {name}={needed}"),
        format!("{name} = {needed}    # in /etc/sysctl.d/90-connections.conf, to keep it"),
    ];
    enough(name, has >= needed, count(has), count(needed), why, &fix)
}

fn enough(
    name: &'static str,
    is_enough: bool,
    has: Figure,
    needs: Figure,
    why: &str,
    fix: &[String],
) -> Check {
    if is_enough {
        return good(name, has, needs, why);
    }
    Check { name, status: Status::Short, has, needs, why: why.to_owned(), fix: fix.to_vec() }
}

fn good(name: &'static str, has: Figure, needs: Figure, why: &str) -> Check {
    Check { name, status: Status::Ok, has, needs, why: why.to_owned(), fix: Vec::new() }
}

/// The check where `/proc` does not tell.
fn unknown(name: &'static str, needed: u64, why: &str) -> Check {
    let has = Figure { text: UNKNOWN.to_owned(), value: Value::Null };
    let needs = count(needed);
    Check { name, status: Status::Note, has, needs, why: why.to_owned(), fix: Vec::new() }
}

/// The same check, of which a lack is worth a note only.
fn noted(check: Check, because: &str) -> Check {
    match check.status {
        Status::Short => {
            let why = format!("{}; {because}", check.why);
            Check { status: Status::Note, why, ..check }
        }
        _ => check,
    }
}

fn count(value: u64) -> Figure {
    // What the kernel has for no limit at all.
    if value == u64::MAX >> 1 {
        return unlimited();
    }
    Figure { text: show_count(value as f64), value: value.into() }
}

fn bytes(value: u64) -> Figure {
    Figure { text: show_bytes(value as f64), value: value.into() }
}

fn unlimited() -> Figure {
    words("unlimited")
}

/// What is no figure.
fn words(text: &str) -> Figure {
    Figure { text: text.to_owned(), value: text.into() }
}
