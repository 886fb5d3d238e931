//! `ringwire-bench churn`: connections that are opened, echo, are closed, and are opened again.

use std::time::Duration;

use ringwire_examples::units::parse_duration;

use super::Scenario;
use super::plan::Work;
use super::rate::interval;
use super::report::Report;
use super::stress::With;

/// Flags of `ringwire-bench churn`. `--connections` are at a time.
pub(crate) type ChurnArgs = With<Sessions>;

#[derive(Debug, clap::Args)]
pub(crate) struct Sessions {
    /// Messages of each connection, one in flight, between its connect and its close.
    #[arg(long, default_value = "1")]
    messages: u64,
    /// Connects a second; without this as fast as they go, --max-concurrent at a time.
    #[arg(long)]
    rate: Option<f64>,
    /// How long connections are opened; a bare number is seconds.
    #[arg(long, default_value = "30", value_parser = parse_duration)]
    duration: Duration,
}

/// Runs the subcommand; whether no condition failed.
pub(crate) fn command(mut args: ChurnArgs) -> anyhow::Result<bool> {
    let scenario = args.scenario()?;
    args.stress.common.run_one(&scenario, Report::rows)
}

impl ChurnArgs {
    fn scenario(&self) -> anyhow::Result<Scenario> {
        let interval = self.work.rate.map(|rate| interval("--rate", rate)).transpose()?;
        let work = Work::Churn {
            messages: self.work.messages,
            interval: interval.unwrap_or_default(),
            duration: self.work.duration,
        };
        Ok(self.stress.scenario("churn", work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;

    #[test]
    fn flags_say_how_fast_and_how_long() {
        let work = |flags: &str| parse::<ChurnArgs>(flags).unwrap().scenario();
        let duration = Duration::from_secs(30);
        let as_fast = Work::Churn { messages: 1, interval: Duration::ZERO, duration };
        assert_eq!(work("").unwrap().work, as_fast);
        let paced = Work::Churn {
            messages: 0,
            interval: Duration::from_millis(2),
            duration: Duration::from_secs(5),
        };
        assert_eq!(work("--messages 0 --rate 500 --duration 5").unwrap().work, paced);
        let error = work("--rate 0").unwrap_err().to_string();
        assert!(error.contains("--rate 0"), "{error}");
    }
}
