//! `ringwire-bench rate`: clients that each send messages at a rate, whatever the server does.

use std::time::Duration;

use anyhow::bail;
use ringwire_examples::units::{parse_bytes, parse_duration};

use super::plan::Work;
use super::report::Report;
use super::{Common, Scenario};

/// Connects outstanding at a time: those of the ramp that the server has not answered.
const MAX_CONCURRENT: u32 = 512;

/// Flags of `ringwire-bench rate`.
#[derive(Debug, clap::Args)]
pub(crate) struct RateArgs {
    #[command(flatten)]
    common: Common,
    /// Connections.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Messages a second, of each client.
    #[arg(long, default_value = "1")]
    mps: f64,
    /// Time during which messages are due.
    #[arg(long, default_value = "1m", value_parser = parse_duration)]
    duration: Duration,
    /// Time for one connection to become open.
    #[arg(long = "conn-timeout", default_value = "10s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// A reply that takes longer is an error, and still counts in the latencies.
    #[arg(long = "resp-timeout", default_value = "1s", value_parser = parse_duration)]
    response_timeout: Duration,
    /// Time over which the connects are spread.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    ramp_up: Duration,
    /// Payload of a message, at least 8 bytes for its number.
    #[arg(long = "msg-size", default_value = "100", value_parser = parse_bytes)]
    size: u64,
}

/// Runs the subcommand; whether no condition failed.
pub(crate) fn command(mut args: RateArgs) -> anyhow::Result<bool> {
    let scenario = Scenario {
        name: "rate",
        connections: args.clients,
        max_concurrent: MAX_CONCURRENT,
        ramp_up: args.ramp_up,
        connect_timeout: args.connect_timeout,
        response_timeout: args.response_timeout,
        size: args.size,
        work: Work::Rate { interval: interval(args.mps)?, duration: args.duration },
        hold: Duration::ZERO,
        server_apart: false,
    };
    let report = args.common.run(&scenario)?;
    args.common.conclude(&[report], Report::rows)
}

/// The time between two messages of a client.
fn interval(mps: f64) -> anyhow::Result<Duration> {
    match Duration::try_from_secs_f64(mps.recip()) {
        Ok(interval) if mps > 0.0 && !interval.is_zero() => Ok(interval),
        _ => bail!("--mps {mps}: more than 0 and at most a thousand million messages a second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_intervals() {
        assert_eq!(interval(4.0).unwrap(), Duration::from_millis(250));
        assert_eq!(interval(0.5).unwrap(), Duration::from_secs(2));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
