//! `ringwire-bench rate`: clients that each send messages at a rate, whatever the server does.

use std::time::Duration;

use anyhow::bail;
use ringwire_examples::units::{parse_bytes, parse_duration};

use super::pace::{Pace, Stage, parse_stage};
use super::plan::Work;
use super::report::Report;
use super::{Common, Scenario};

/// Connects outstanding at a time: those of the ramp that the server has not answered.
pub(super) const MAX_CONCURRENT: u32 = 512;

/// Flags of `ringwire-bench rate` and of others that send at a rate.
#[derive(Debug, clap::Args)]
pub(crate) struct Clients {
    #[command(flatten)]
    pub(super) common: Common,
    /// Connections.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) clients: u32,
    /// Time for one connection to become open.
    #[arg(long = "conn-timeout", default_value = "10s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// A reply that takes longer is an error, and still counts in the latencies.
    #[arg(long = "resp-timeout", default_value = "1s", value_parser = parse_duration)]
    response_timeout: Duration,
    /// Payload of a message, at least 8 bytes for its number.
    #[arg(long = "msg-size", visible_alias = "size", default_value = "100", value_parser = parse_bytes)]
    size: u64,
}

/// Flags of `ringwire-bench rate`.
#[derive(Debug, clap::Args)]
pub(crate) struct RateArgs {
    #[command(flatten)]
    clients: Clients,
    /// Messages a second, of each client.
    #[arg(long, default_value = "1")]
    mps: f64,
    /// Time during which messages are due.
    #[arg(long, default_value = "1m", value_parser = parse_duration)]
    duration: Duration,
    /// Stages in place of --duration: within each the rate of each client goes evenly from that before it, at first
    /// --mps, to its own.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "DURATION:MPS",
        value_parser = parse_stage,
        conflicts_with = "duration"
    )]
    stages: Vec<Stage>,
    /// Time over which the connects are spread.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    ramp_up: Duration,
}

/// Runs the subcommand; whether no condition failed.
pub(crate) fn command(mut args: RateArgs) -> anyhow::Result<bool> {
    let (interval, duration) = args.pace()?;
    let scenario = args.clients.scenario("rate", interval, duration);
    let scenario = Scenario { ramp_up: args.ramp_up, ..scenario };
    args.clients.common.run_one(&scenario, Report::rows)
}

impl RateArgs {
    /// Between two messages of a client, unless that changes, and how long they are due.
    fn pace(&mut self) -> anyhow::Result<(Duration, Duration)> {
        if self.stages.is_empty() {
            return Ok((interval("--mps", self.mps)?, self.duration));
        }
        if !(0.0..=1e9).contains(&self.mps) {
            bail!("--mps {}: 0 or more to begin with", self.mps);
        }
        let pace = Pace { start: self.mps, stages: self.stages.clone() };
        let duration = pace.duration();
        self.clients.common.pace = Some(pace);
        // Not used, but for being one.
        Ok((duration, duration))
    }
}

impl Clients {
    /// Each sends a message at each interval.
    pub(super) fn scenario(
        &self,
        name: &'static str,
        interval: Duration,
        duration: Duration,
    ) -> Scenario {
        Scenario {
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
            size: self.size,
            ..Scenario::new(name, self.clients, Work::Rate { interval, duration })
        }
    }
}

/// The time between two things of which there are so many a second, as a flag says.
pub(super) fn interval(flag: &str, rate: f64) -> anyhow::Result<Duration> {
    match Duration::try_from_secs_f64(rate.recip()) {
        Ok(interval) if rate > 0.0 && !interval.is_zero() => Ok(interval),
        _ => bail!("{flag} {rate}: more than 0 and at most a thousand million a second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;

    #[test]
    fn stages_take_the_place_of_a_duration() {
        let mut args: RateArgs = parse("--mps 0 --stages 10s:10,1m:10").unwrap();
        let (_, duration) = args.pace().unwrap();
        assert_eq!(duration, Duration::from_secs(70));
        assert_eq!(args.clients.common.pace.unwrap().messages(2), 1300);
        assert!(parse::<RateArgs>("--stages 1s:1 --duration 1s").is_err());
    }

    #[test]
    fn rates_are_intervals() {
        assert_eq!(interval("--mps", 4.0).unwrap(), Duration::from_millis(250));
        assert_eq!(interval("--mps", 0.5).unwrap(), Duration::from_secs(2));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert!(interval("--mps", wrong).is_err(), "{wrong}");
        }
    }
}
