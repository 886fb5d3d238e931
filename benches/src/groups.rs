//! `ringwire-bench --scenario FILE`: several groups of clients at once, each with a scenario and flags of its own.
//!
//! ```toml
//! url = "ws://127.0.0.1:9001/"    # what groups do not say themselves
//! duration = "30s"
//!
//! [[group]]
//! name = "talkers"
//! scenario = "rate"
//! clients = 100
//! mps = 10
//!
//! [[group]]
//! name = "newcomers"
//! scenario = "churn"
//! after = "10s"                   # begins so much later
//! messages = 3
//! header = ["X-Kind: new", "X-Api-Key: abc"]
//! ```
//!
//! A group is this program run again, so it takes every flag of its scenario, and a slow one holds up no other.
#![expect(clippy::disallowed_methods, reason = "a group may begin later than others")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire_examples::units::parse_duration;
use serde_json::{Value, json};
use toml::Table;

use crate::output::JsonArgs;

/// Loads that may be part of a file.
const SCENARIOS: [&str; 12] = [
    "echo",
    "broadcast",
    "handshakes",
    "storm",
    "throughput",
    "sustained",
    "rate",
    "million",
    "traffic",
    "tps",
    "idle",
    "churn",
];
/// Keys of a group that are no flags of its scenario.
const OWN_KEYS: [&str; 4] = ["name", "scenario", "url", "after"];
/// Flags that would have groups write over each other.
const REFUSED: [&str; 4] = ["json", "html", "hdr-log", "metrics"];

/// Flags of `ringwire-bench --scenario`.
#[derive(Debug, clap::Args)]
pub(crate) struct GroupArgs {
    /// The file, in TOML: `[[group]]` tables with `scenario`, `name`, `url`, `after`, and the flags of the scenario
    /// without their dashes. What stands above the groups holds for all that do not say otherwise.
    file: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

/// One group, as a command line.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    name: String,
    after: Duration,
    words: Vec<String>,
}

/// Runs the subcommand. Whether all groups were fine.
pub(crate) fn command(args: &GroupArgs) -> anyhow::Result<bool> {
    let shown = args.file.display();
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {shown}"))?;
    let groups = groups(&text).with_context(|| format!("{shown} cannot be run"))?;
    let dir = tempfile::tempdir().context("cannot make a folder for reports")?;
    let report_of = |index: usize| dir.path().join(format!("{index}.json"));
    let outputs = thread::scope(|scope| {
        let all: Vec<_> = groups
            .iter()
            .enumerate()
            .map(|(index, group)| scope.spawn(move || group.run(&report_of(index))))
            .collect();
        all.into_iter().map(|group| group.join().expect("it does not panic")).collect::<Vec<_>>()
    });
    let (mut reports, mut is_fine, mut said) = (BTreeMap::new(), true, String::new());
    for (index, (group, output)) in groups.iter().zip(outputs).enumerate() {
        let (code, text) = output?;
        if code == Some(2) || code.is_none() {
            bail!("{}: could not be run", group.name);
        }
        is_fine &= code == Some(0);
        said += &format!("=== {}\n{text}\n", group.name);
        let report = std::fs::read(report_of(index)).context("a group left no report")?;
        reports.insert(&group.name, serde_json::from_slice::<Value>(&report)?);
    }
    args.json.tell(said.trim_end(), &json!({ "groups": reports }))?;
    Ok(is_fine)
}

impl Group {
    /// Runs it to its end: its exit code, and what it printed.
    fn run(&self, report: &std::path::Path) -> anyhow::Result<(Option<i32>, String)> {
        thread::sleep(self.after);
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(own);
        command.args(&self.words).arg("--json").arg(report).stderr(Stdio::inherit());
        let output = command.output().with_context(|| format!("cannot run {}", self.name))?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}

/// The groups of a file.
fn groups(text: &str) -> anyhow::Result<Vec<Group>> {
    let mut common: Table = text.parse()?;
    let Some(toml::Value::Array(tables)) = common.remove("group") else {
        bail!("there is no [[group]] in it");
    };
    let mut groups = Vec::<Group>::new();
    for (index, table) in tables.into_iter().enumerate() {
        let mut all = common.clone();
        // What is no table has no scenario.
        all.extend(table.as_table().cloned().unwrap_or_default());
        let group = group(&all).with_context(|| format!("group {}", index + 1))?;
        if groups.iter().any(|other| other.name == group.name) {
            bail!("two groups are called {:?}: give each a name", group.name);
        }
        groups.push(group);
    }
    if groups.is_empty() {
        bail!("there is no [[group]] in it");
    }
    Ok(groups)
}

fn group(all: &Table) -> anyhow::Result<Group> {
    let text = |key: &str| match all.get(key) {
        Some(toml::Value::String(text)) => Ok(Some(text.clone())),
        None => Ok(None),
        Some(other) => bail!("{key} has to be a text, not a {}", other.type_str()),
    };
    let scenario = text("scenario")?.context("scenario is missing")?;
    if !SCENARIOS.contains(&scenario.as_str()) {
        bail!("scenario = {scenario:?}: is none of {}", SCENARIOS.join(", "));
    }
    let url = text("url")?.context("url is missing: groups share a server that runs already")?;
    let after = text("after")?.map(|after| parse_duration(&after)).transpose();
    let after = after.map_err(anyhow::Error::msg).context("after")?.unwrap_or_default();
    let mut words = vec![scenario.clone(), url];
    for (key, value) in all.iter().filter(|(key, _)| !OWN_KEYS.contains(&key.as_str())) {
        let flag = key.replace('_', "-");
        if REFUSED.contains(&flag.as_str()) {
            bail!("{key} is for one scenario: give --json beside --scenario");
        }
        add_flag(&mut words, &flag, value)?;
    }
    Ok(Group { name: text("name")?.unwrap_or(scenario), after, words })
}

fn add_flag(words: &mut Vec<String>, flag: &str, value: &toml::Value) -> anyhow::Result<()> {
    match value {
        toml::Value::Boolean(false) => {}
        toml::Value::Boolean(true) => words.push(format!("--{flag}")),
        toml::Value::String(text) => words.push(format!("--{flag}={text}")),
        toml::Value::Integer(number) => words.push(format!("--{flag}={number}")),
        toml::Value::Float(number) => words.push(format!("--{flag}={number}")),
        toml::Value::Array(several) => {
            for value in several {
                add_flag(words, flag, value)?;
            }
        }
        other => bail!("{flag}: no flag has a {} for its value", other.type_str()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        url = "ws://a/"
        duration = "3s"
        [[group]]
        scenario = "rate"
        clients = 5
        mps = 2.5
        text = true
        any_reply = false
        [[group]]
        name = "late"
        scenario = "churn"
        url = "ws://b/"
        after = "1s"
        header = ["X-A: 1", "X-B: 2"]
        duration = "1s"
    "#;

    #[test]
    fn keys_are_flags_and_groups_have_the_last_word() {
        let groups = groups(FILE).unwrap();
        let words = ["rate", "ws://a/", "--clients=5", "--duration=3s", "--mps=2.5", "--text"];
        assert_eq!(groups[0].words, words);
        let words = ["churn", "ws://b/", "--duration=1s", "--header=X-A: 1", "--header=X-B: 2"];
        assert_eq!(groups[1].words, words);
        assert_eq!((groups[1].name.as_str(), groups[1].after), ("late", Duration::from_secs(1)));
        assert_eq!(groups[0].name, "rate");
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        for (file, told) in [
            ("group = []", "no [[group]]"),
            ("[[group]]\nurl = 'ws://a/'", "scenario is missing"),
            ("[[group]]\nscenario = 'rate'", "url is missing"),
            ("[[group]]\nscenario = 'soak'\nurl = 'ws://a/'", "none of echo"),
            ("url = 'ws://a/'\njson = 'x'\n[[group]]\nscenario = 'rate'", "give --json beside"),
            (
                "url = 'ws://a/'\n[[group]]\nscenario = 'rate'\n[[group]]\nscenario = 'rate'",
                "two groups",
            ),
            ("url = 'ws://a/'\n[[group]]\nscenario = 'rate'\nafter = 3", "has to be a text"),
        ] {
            let error = format!("{:#}", groups(file).unwrap_err());
            assert!(error.contains(told), "{file}: {error}");
        }
    }
}
