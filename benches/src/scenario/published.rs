//! `ringwire-bench stress`: the flags, defaults and figures of two stress tools, as their documents write them.
//!
//! One has kinds of tests (`--test-type`), the other so many clients at a rate (`-clients=1000 -mps=100`, one dash).
//! The flags that are given say which one is meant.

use std::ffi::OsString;
use std::time::Duration;

use clap::ValueEnum;
use ringwire_examples::units::{parse_bytes, parse_duration};

use super::plan::Work;
use super::rate::interval;
use super::report::{Report, Row};
use super::stress::{self, parse_interval};
use super::{Common, Scenario};
use crate::units::{show_count, show_success};

/// Between two lines of totals.
const PROGRESS: Duration = Duration::from_secs(5);
/// A message to which an application server answers, and which an echo server returns.
const PING: &[u8] = b"{\"id\":\"{number}-0000-4000-8000-000000000000\",\"message_type\":\"ping\",\
    \"data\":{},\"timestamp\":\"2026-01-01T00:00:00Z\"}";
/// What answers have in them.
const ANSWERS: [&str; 2] = ["\"pong\"", "\"ping\""];

/// Flags of `ringwire-bench stress`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("url", |url| url
    .long("url")
    .visible_alias("server")
    .value_name("URL")
    .help("The server's URL. [default: ws://127.0.0.1:8000/ws, with --clients ws://localhost:9002/ws]")
    .long_help(None)))]
pub(crate) struct StressArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    kinds: Option<Kinds>,
    #[command(flatten)]
    clients: Option<Clients>,
    /// Time during which messages are due, with sustained and with --clients; a bare number is seconds.
    #[arg(long, default_value = "60", value_parser = parse_duration)]
    duration: Duration,
}

/// Flags of the tool with kinds of tests.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "kinds", conflicts_with = "clients-at-a-rate")]
struct Kinds {
    /// What is tested. [default: all]
    #[arg(long, value_enum)]
    test_type: Option<TestType>,
    /// Connections. [default: 100]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    connections: Option<u32>,
    /// Messages of each connection, with throughput. [default: 10]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// Connects outstanding at a time. [default: 50]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: Option<u32>,
    /// Time between two messages of a connection, with sustained; a bare number is milliseconds. [default: 100]
    #[arg(long, value_parser = parse_interval)]
    message_interval: Option<Duration>,
}

/// Flags of the tool with clients at a rate. One dash does too.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "clients-at-a-rate")]
struct Clients {
    /// Clients. [default: 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    clients: Option<u32>,
    /// Messages a second, of each client. [default: 1]
    #[arg(long)]
    mps: Option<f64>,
    /// Time for one connection to become open. [default: 10s]
    #[arg(long, value_parser = parse_duration)]
    conn_timeout: Option<Duration>,
    /// A reply that takes longer is an error. [default: 1s]
    #[arg(long, value_parser = parse_duration)]
    resp_timeout: Option<Duration>,
    /// Time over which the connects are spread. [default: 10s]
    #[arg(long, value_parser = parse_duration)]
    ramp_up: Option<Duration>,
    /// Payload of a message. [default: 100]
    #[arg(long, value_parser = parse_bytes)]
    msg_size: Option<u64>,
}

/// The value of `--test-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum TestType {
    /// Opens connections as fast as they go.
    Storm,
    /// Has each connection exchange a number of messages.
    Throughput,
    /// Has each connection send at an interval for a time.
    Sustained,
    /// All three, one after the other.
    #[default]
    All,
}

/// The command line with two dashes where `stress` may have one.
pub(crate) fn with_two_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<_> = args.into_iter().collect();
    if args.get(1).is_some_and(|name| name == "stress") {
        for arg in args.iter_mut().skip(2) {
            let is_long = |text: &str| {
                let name = text.strip_prefix('-').unwrap_or_default();
                name.len() > 1 && name.starts_with(|first: char| first.is_ascii_lowercase())
            };
            if let Some(text) = arg.to_str().filter(|text| is_long(text)) {
                *arg = format!("-{text}").into();
            }
        }
    }
    args
}

/// Runs the subcommand; whether no condition failed.
pub(crate) fn command(mut args: StressArgs) -> anyhow::Result<bool> {
    let scenarios = args.scenarios()?;
    args.fill_in();
    args.common.progress.get_or_insert(PROGRESS);
    let reports = scenarios.iter().map(|scenario| args.common.run(scenario));
    let reports = reports.collect::<anyhow::Result<Vec<_>>>()?;
    args.common.conclude(&reports, rows)
}

impl StressArgs {
    /// Where the server is, and what is said to it, where that is not given.
    fn fill_in(&mut self) {
        let has_kinds = self.clients.is_none();
        let url = if has_kinds { "ws://127.0.0.1:8000/ws" } else { "ws://localhost:9002/ws" };
        self.common.server.url.get_or_insert_with(|| url.to_owned());
        let Common { payload, payload_file, any_reply, reply_contains, .. } = &mut self.common;
        if has_kinds && payload_file.is_none() && !*any_reply && reply_contains.is_empty() {
            *payload = Some(PING.to_vec());
            *reply_contains = ANSWERS.map(str::to_owned).to_vec();
        }
    }

    fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        if let Some(clients) = &self.clients {
            return Ok(vec![self.of_clients(clients)?]);
        }
        let Kinds { test_type, connections, messages, max_concurrent, message_interval } =
            self.kinds.clone().unwrap_or_default();
        let scenario = |(name, work): stress::Kind| Scenario {
            max_concurrent: max_concurrent.unwrap_or(50),
            ..Scenario::new(name, connections.unwrap_or(100), work)
        };
        let throughput = ("throughput", Work::Each { messages: messages.unwrap_or(10) });
        let interval = message_interval.unwrap_or(Duration::from_millis(100));
        let sustained = ("sustained", Work::Rate { interval, duration: self.duration });
        let kinds = match test_type.unwrap_or_default() {
            TestType::Storm => vec![stress::STORM],
            TestType::Throughput => vec![throughput],
            TestType::Sustained => vec![sustained],
            TestType::All => vec![stress::STORM, throughput, sustained],
        };
        Ok(kinds.into_iter().map(scenario).collect())
    }

    fn of_clients(&self, clients: &Clients) -> anyhow::Result<Scenario> {
        let Clients { clients, mps, conn_timeout, resp_timeout, ramp_up, msg_size } = *clients;
        let ten_seconds = Duration::from_secs(10);
        let interval = interval("--mps", mps.unwrap_or(1.0))?;
        let work = Work::Rate { interval, duration: self.duration };
        Ok(Scenario {
            ramp_up: ramp_up.unwrap_or(ten_seconds),
            connect_timeout: conn_timeout.unwrap_or(ten_seconds),
            response_timeout: resp_timeout.unwrap_or(Duration::from_secs(1)),
            size: msg_size.unwrap_or(100),
            ..Scenario::new("rate", clients.unwrap_or(10), work)
        })
    }
}

/// The figures that the documents name, and below them what these leave out.
fn rows(report: &Report) -> Vec<Row> {
    let count = |count: u64| show_count(count as f64);
    let work = report.work.as_ref();
    let (sent, succeeded) = work.map_or((0, 0), |work| (work.sent, work.answered));
    let failed: u64 = report.errors.values().sum();
    // Without messages, connects are what succeeds.
    let fine = if work.is_some() { succeeded } else { report.opened };
    let mut rows = vec![
        ("total connections", count(report.opened)),
        ("active connections", count(report.active)),
        ("total messages", count(sent)),
        ("successful messages", count(succeeded)),
        ("failed", count(failed)),
        ("elapsed", format!("{:.1} s", report.seconds.len() as f64)),
        ("message rate", format!("{} msg/s", count_rate(report))),
        ("success rate", show_success(fine, failed)),
    ];
    rows.extend(report.rows());
    rows
}

fn count_rate(report: &Report) -> String {
    show_count(report.work.as_ref().map_or(0.0, |work| work.messages_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{parse, parse_words};

    fn scenarios(line: &str) -> Vec<Scenario> {
        let words = ["ringwire-bench", "stress"].into_iter().chain(line.split_whitespace());
        let words = with_two_dashes(words.map(OsString::from));
        parse_words::<StressArgs>(&words[2..]).unwrap().scenarios().unwrap()
    }

    /// Every command line of the documents, as it is written there.
    #[test]
    fn commands_of_the_documents_mean_what_they_meant() {
        let minute = Duration::from_secs(60);
        let tenth = Duration::from_millis(100);
        let all = scenarios("--test-type all");
        let works: Vec<_> = all.iter().map(|scenario| (scenario.name, scenario.work)).collect();
        let expected = [
            ("storm", Work::Idle),
            ("throughput", Work::Each { messages: 10 }),
            ("sustained", Work::Rate { interval: tenth, duration: minute }),
        ];
        assert_eq!(works, expected);
        assert!(all.iter().all(|it| (it.connections, it.max_concurrent) == (100, 50)));
        let [storm] = &scenarios("--test-type storm --connections 200")[..] else { panic!() };
        assert_eq!((storm.connections, storm.work), (200, Work::Idle));
        let line = "--test-type throughput --connections 50 --messages 20";
        let [throughput] = &scenarios(line)[..] else { panic!() };
        assert_eq!((throughput.connections, throughput.work), (50, Work::Each { messages: 20 }));
        let line = "--test-type sustained --duration 120 --connections 30 --message-interval 50";
        let [sustained] = &scenarios(line)[..] else { panic!() };
        let work = Work::Rate { interval: tenth / 2, duration: minute * 2 };
        assert_eq!((sustained.connections, sustained.work), (30, work));

        let [rate] = &scenarios("-clients=1000 -mps=100 -duration=5m")[..] else { panic!() };
        let work = Work::Rate { interval: tenth / 10, duration: minute * 5 };
        assert_eq!((rate.connections, rate.work, rate.size), (1000, work, 100));
        assert_eq!((rate.ramp_up, rate.connect_timeout), (minute / 6, minute / 6));
        assert_eq!(rate.response_timeout, Duration::from_secs(1));
        let [rate] = &scenarios("-clients=100 -mps=10 -msg-size=1024")[..] else { panic!() };
        assert_eq!((rate.size, rate.work.duration()), (1024, Some(minute)));
        let [rate] = &scenarios("-clients=500 -ramp-up=5s -duration=30s")[..] else { panic!() };
        assert_eq!((rate.connections, rate.ramp_up), (500, Duration::from_secs(5)));
        let [rate] = &scenarios("-conn-timeout 3s --resp-timeout=500ms")[..] else { panic!() };
        assert_eq!((rate.connections, rate.response_timeout), (10, minute / 120));
    }

    #[test]
    fn servers_have_the_defaults_of_the_documents() {
        let url = |line: &str| {
            let mut args: StressArgs = parse(line).unwrap();
            args.fill_in();
            args.common.server.url.unwrap()
        };
        assert_eq!(url(""), "ws://127.0.0.1:8000/ws");
        assert_eq!(url("--clients 3"), "ws://localhost:9002/ws");
        assert_eq!(url("--server ws://127.0.0.1:1/"), "ws://127.0.0.1:1/");
        assert_eq!(url("--url ws://127.0.0.1:2/"), "ws://127.0.0.1:2/");
    }

    #[test]
    fn flags_of_both_are_too_many() {
        let error = parse::<StressArgs>("--clients 3 --messages 4").unwrap_err().to_string();
        assert!(error.contains("cannot be used with"), "{error}");
        // Only this subcommand has one dash, and only its names.
        let kept = ["ringwire-bench", "echo", "-clients=1"].map(OsString::from);
        assert_eq!(with_two_dashes(kept.clone()), kept);
        let kept = ["ringwire-bench", "stress", "-H", "-", "--url", "-1"].map(OsString::from);
        assert_eq!(with_two_dashes(kept.clone()), kept);
    }
}
