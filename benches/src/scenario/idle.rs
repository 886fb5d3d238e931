//! `ringwire-bench idle`: opens connections, holds them, and looks at the server's memory meanwhile.

use std::time::Duration;

use anyhow::bail;
use ringwire_examples::units::parse_duration;

use super::plan::Work;
use super::report::Report;
use super::stress::Stress;
use super::{Scenario, Watch};

/// Flags of `ringwire-bench idle`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("connections", |arg| arg.default_value("10000")))]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    stress: Stress,
    /// Messages of each connection, one in flight, before they are held: memory after traffic.
    #[arg(long, default_value = "0")]
    messages: u64,
    /// How long the connections are held; a bare number is seconds.
    #[arg(long, default_value = "4m", value_parser = parse_duration)]
    duration: Duration,
    /// Time between two looks at memory; a bare number is seconds.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
}

/// Runs the subcommand; whether no condition failed.
pub(crate) fn command(mut args: IdleArgs) -> anyhow::Result<bool> {
    let scenario = args.scenario()?;
    args.stress.common.run_one(&scenario, Report::rows)
}

impl IdleArgs {
    fn scenario(&self) -> anyhow::Result<Scenario> {
        let Self { messages, duration, interval, .. } = *self;
        if interval.is_zero() {
            bail!("--interval has to be longer than nothing");
        }
        let work = if messages > 0 { Work::Each { messages } } else { Work::Idle };
        Ok(Scenario {
            watch: Watch::Memory { duration, interval },
            // In a process of its own its memory can be told.
            server_apart: true,
            ..self.stress.scenario("idle", work)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;

    #[test]
    fn flags_say_how_long_and_after_what() {
        let scenario = |flags: &str| parse::<IdleArgs>(flags).unwrap().scenario();
        let idle = scenario("").unwrap();
        let (duration, interval) = (Duration::from_secs(240), Duration::from_secs(1));
        assert_eq!(idle.watch, Watch::Memory { duration, interval });
        assert_eq!((idle.connections, idle.work, idle.server_apart), (10_000, Work::Idle, true));
        let after = scenario("--connections 7 --messages 3 --duration 90 --interval 5s").unwrap();
        let (duration, interval) = (Duration::from_secs(90), Duration::from_secs(5));
        assert_eq!(after.watch, Watch::Memory { duration, interval });
        assert_eq!((after.connections, after.work), (7, Work::Each { messages: 3 }));
        let error = scenario("--interval 0").unwrap_err().to_string();
        assert!(error.contains("--interval"), "{error}");
    }
}
