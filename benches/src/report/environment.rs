//! What a run depended on and a reader of its report wants to know: command line, machine, limits, sysctls, versions.

use std::process::Command;

use time::OffsetDateTime;

use super::Table;
use crate::system::{Limit, SYSCTLS, System};
use crate::units::{show_bytes, show_count};

/// Limits of the process that matter to many connections.
const LIMITS: [&str; 3] = ["Max open files", "Max locked memory", "Max processes"];

/// Names and values, in groups.
pub(super) fn tables() -> Vec<Table> {
    let system = System::real();
    vec![
        Table::of_pairs("Run", run()),
        Table::of_pairs("Machine", machine(&system)),
        Table::of_pairs("Limits of this process, soft and hard", limits(&system)),
        Table::of_pairs("Sysctls", sysctls(&system)),
    ]
}

/// Flags whose values may be secrets.
const SECRET: [&str; 4] = ["--header", "-H", "--cookie", "--first-message"];

/// The command line of this process; words with white space are quoted, and secrets are left out.
pub(crate) fn command_line() -> String {
    shown(std::env::args().skip(1))
}

/// The commit of the working directory, with `-dirty` where files were changed since; `None` outside a repository.
pub(crate) fn commit() -> Option<String> {
    let described =
        Command::new("git").args(["describe", "--always", "--dirty", "--exclude", "*"]).output();
    let output = described.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn shown(words: impl Iterator<Item = String>) -> String {
    let mut text = "ringwire-bench".to_owned();
    let mut is_secret = false;
    for word in words {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        let names_secret = SECRET.contains(&name);
        let shown = match (is_secret, names_secret && name.len() < word.len()) {
            (true, _) => "…".to_owned(),
            (false, true) => format!("{name}=…"),
            (false, false) if word.contains(char::is_whitespace) => format!("'{word}'"),
            (false, false) => word.clone(),
        };
        is_secret = !is_secret && names_secret && name.len() == word.len();
        text = format!("{text} {shown}");
    }
    text
}

fn run() -> Vec<(&'static str, String)> {
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    vec![
        ("command", command_line()),
        ("date", today()),
        ("ringwire-bench", format!("{}, {build}", env!("CARGO_PKG_VERSION"))),
    ]
}

fn machine(system: &System) -> Vec<(&'static str, String)> {
    let mut facts = vec![("CPUs", show_count(system.cpu_count() as f64))];
    facts.extend(system.cpu_model().map(|model| ("CPU", model)));
    facts.extend(system.memory("MemTotal").map(|bytes| ("memory", show_bytes(bytes as f64))));
    facts.extend(system.sysctl("kernel.osrelease").map(|release| ("Linux", release)));
    facts.extend(system.sysctl("kernel.version").map(|version| ("kernel build", version)));
    let governor = system.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    facts.extend(governor.map(|governor| ("CPU frequency governor", governor)));
    facts
}

fn limits(system: &System) -> Vec<(&'static str, String)> {
    let show =
        |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |at| at.to_string());
    let pair = |Limit { soft, hard }| format!("{}, {}", show(soft), show(hard));
    LIMITS.into_iter().filter_map(|name| Some((name, pair(system.limit(name)?)))).collect()
}

fn sysctls(system: &System) -> Vec<(&'static str, String)> {
    SYSCTLS.into_iter().filter_map(|name| Some((name, system.sysctl(name)?))).collect()
}

/// The civil date (UTC), as year-month-day.
pub(crate) fn today() -> String {
    OffsetDateTime::now_utc().date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_keep_secrets() {
        let words = ["storm", "--header", "X: abc", "--cookie=a=b", "-H", "-H", "--html", "a b"];
        let line = shown(words.into_iter().map(str::to_owned));
        assert_eq!(line, "ringwire-bench storm --header … --cookie=… -H … --html 'a b'");
    }
}
