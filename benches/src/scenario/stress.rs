//! `ringwire-bench storm`, `throughput`, `sustained` and `all`.

use std::time::Duration;

use ringwire_examples::units::{parse_bytes, parse_duration};

use super::plan::Work;
use super::report::Report;
use super::{Common, Scenario};

/// Flags of all four, and of others like them.
#[derive(Debug, clap::Args)]
pub(crate) struct Stress {
    #[command(flatten)]
    pub(super) common: Common,
    /// Connections.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Connects outstanding at a time.
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: u32,
    /// Payload of a message, such as 64 or 16KiB.
    #[arg(long, default_value = "100", value_parser = parse_bytes)]
    size: u64,
    /// Time for one connection to become open.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// A reply that takes longer is an error.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    response_timeout: Duration,
}

/// The same, and what the work is.
#[derive(Debug, clap::Args)]
pub(crate) struct With<W: clap::Args> {
    #[command(flatten)]
    pub(super) stress: Stress,
    #[command(flatten)]
    pub(super) work: W,
}

/// Flags of `ringwire-bench storm`, of `throughput`, of `sustained`, and of all three.
pub(crate) type StormArgs = With<Nothing>;
pub(crate) type ThroughputArgs = With<Messages>;
pub(crate) type SteadyArgs = With<Pace>;
pub(crate) type AllArgs = With<All>;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Nothing {}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Messages {
    /// Messages of each connection, one in flight.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Pace {
    /// Time during which messages are due; a bare number is seconds.
    #[arg(long, default_value = "60", value_parser = parse_duration)]
    duration: Duration,
    /// Time between two messages of a connection; a bare number is milliseconds.
    #[arg(long, default_value = "100", value_parser = parse_interval)]
    message_interval: Duration,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct All {
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    pace: Pace,
}

/// A name and what is done with the connections.
pub(super) type Kind = (&'static str, Work);

pub(super) const STORM: Kind = ("storm", Work::Idle);

/// What flags ask for, one after the other.
pub(crate) trait Kinds: clap::Args {
    fn kinds(&self) -> Vec<Kind>;
}

impl Kinds for Nothing {
    fn kinds(&self) -> Vec<Kind> {
        vec![STORM]
    }
}

impl Kinds for Messages {
    fn kinds(&self) -> Vec<Kind> {
        vec![("throughput", Work::Each { messages: self.messages })]
    }
}

impl Kinds for Pace {
    fn kinds(&self) -> Vec<Kind> {
        let Self { message_interval: interval, duration } = *self;
        vec![("sustained", Work::Rate { interval, duration })]
    }
}

impl Kinds for All {
    fn kinds(&self) -> Vec<Kind> {
        [vec![STORM], self.messages.kinds(), self.pace.kinds()].concat()
    }
}

/// Runs one of the subcommands; whether no condition failed.
pub(crate) fn command(With { mut stress, work }: With<impl Kinds>) -> anyhow::Result<bool> {
    let mut reports = Vec::new();
    for (name, work) in work.kinds() {
        let scenario = stress.scenario(name, work);
        reports.push(stress.common.run(&scenario)?);
    }
    stress.common.conclude(&reports, Report::rows)
}

impl Stress {
    /// What these flags say of a scenario.
    pub(super) fn scenario(&self, name: &'static str, work: Work) -> Scenario {
        Scenario {
            max_concurrent: self.max_concurrent,
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            size: self.size,
            ..Scenario::new(name, self.connections, work)
        }
    }
}

/// Reads `100` as milliseconds, else a duration with its unit; not zero.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = match text.trim().parse::<u64>() {
        Ok(millis) => Duration::from_millis(millis),
        Err(_) => parse_duration(text)?,
    };
    if interval.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(interval) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;

    #[test]
    fn flags_are_those_of_published_tools() {
        let all: AllArgs = parse("").unwrap();
        let Stress { connections, max_concurrent, .. } = all.stress;
        assert_eq!((connections, max_concurrent, all.work.messages.messages), (100, 50, 10));
        assert_eq!(all.work.pace.duration, Duration::from_secs(60));
        assert_eq!(all.work.pace.message_interval, Duration::from_millis(100));
        let text = "--connections 30 --messages 20 --duration 120 --message-interval 5 \
                    --fail-if p99>5ms,errors>0";
        let all: AllArgs = parse(text).unwrap();
        assert_eq!((all.stress.connections, all.work.messages.messages), (30, 20));
        assert_eq!(all.work.pace.duration, Duration::from_secs(120));
        assert_eq!(all.work.pace.message_interval, Duration::from_millis(5));
        assert_eq!(all.stress.common.fail_if.len(), 2);
        let wrong = parse::<AllArgs>("--fail-if p98>5ms").unwrap_err().to_string();
        assert!(wrong.contains("\"p98\" is not measured"), "{wrong}");
        assert!(parse::<AllArgs>("--message-interval 0").is_err());
    }
}
