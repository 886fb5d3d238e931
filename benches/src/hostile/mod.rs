//! `ringwire-bench hostile`: peers that mean harm, one kind after the other, and what a server does with them.
//!
//! Some peers of a kind ([`kinds`]) play at a time ([`row`]), each on a thread and a connection ([`mod@line`]) of its
//! own. A well-behaved connection beside them ([`bystander`]) has to be answered, and the memory of the server is
//! looked at where its process is known. [`report`] has the rule by which a row is fine. Peers that come and go for
//! long are those of `soak`.

mod bystander;
mod ending;
mod heard;
mod kinds;
mod line;
mod report;
mod row;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum as _;
use ringwire_examples::DriverFlag;
use ringwire_examples::units::parse_duration;

use self::bystander::Question;
use self::kinds::Kind;
use self::line::Goal;
use self::report::{Report, Row};
use self::row::Setup;
use crate::demand::Demand;
use crate::echo::Progress;
use crate::endpoint::ServerArgs;
use crate::scenario::Servers;
use crate::{machine, output};

/// Connections beside the peers.
const BYSTANDERS: u32 = 2;

/// Flags of `ringwire-bench hostile`. The exit code is 1 if a bystander was not answered or the server died, else 0.
#[derive(Debug, clap::Args)]
pub(crate) struct HostileArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The kernel back end of a server that is started.
    #[arg(long, value_enum, default_value_t, env = "RINGWIRE_DRIVER")]
    driver: DriverFlag,
    /// Kinds of peers to play; by default all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Kind>,
    /// Peers of a kind at a time.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u16).range(1..=1000))]
    peers: u16,
    /// The longest that a peer plays. Should be longer than the server's timeouts for its handshake and for pongs: a
    /// peer that has to be ended and is not by then is suspicious.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    time_limit: Duration,
    /// Time for an answer to the well-behaved connection.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    bystander_timeout: Duration,
    /// Writes the result as JSON to a file, or to the standard output for `-`.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

/// Runs the subcommand. Whether every bystander was answered, by a server that lives.
pub(crate) fn command(args: &HostileArgs) -> anyhow::Result<bool> {
    let report = run(args)?;
    if args.json.as_deref() != Some("-") {
        print!("{}", report.text());
    }
    if let Some(file) = &args.json {
        output::write_json(file, &report)?;
    }
    Ok(report.is_fine())
}

/// Plays.
///
/// # Errors
/// When it cannot begin, or the server answers nothing to begin with.
fn run(args: &HostileArgs) -> anyhow::Result<Report> {
    if args.time_limit.is_zero() || args.bystander_timeout.is_zero() {
        bail!("--time-limit and --bystander-timeout: longer than nothing");
    }
    // A socket and what waits for it.
    machine::allow_descriptors(u32::from(args.peers) + BYSTANDERS, 2)?;
    let servers = match args.server.url {
        Some(_) => Servers::open(&args.server, Demand::default(), &mut None)?,
        // In a process of its own its memory can be told.
        None => Servers::start_guarded(&args.server, args.time_limit, args.driver)?,
    };
    let target = servers.target.clone();
    if target.resource().is_none() {
        bail!("{target}: these peers need a WebSocket server, ws:// or wss://");
    }
    let tls = match &servers.certificate {
        Some(pem) => args.server.tls.client_of(&target, pem)?,
        None => args.server.tls.client(&target)?,
    };
    let goal = Goal { target, tls };
    let setup = Setup {
        question: Question::of(&goal, args.bystander_timeout)?,
        goal,
        servers: &servers,
        peers: args.peers,
        time_limit: args.time_limit,
        bystander_timeout: args.bystander_timeout,
    };
    let (rows, skipped) = setup.play_all(&args.only)?;
    Ok(Report {
        target: setup.goal.target.to_string(),
        machine: machine::describe(),
        peers: args.peers,
        time_limit_seconds: args.time_limit.as_secs_f64(),
        question: setup.question,
        rows,
        skipped,
    })
}

impl Setup<'_> {
    /// Has all kinds play, or those that are given, and says which had nobody left to play with.
    fn play_all(&self, only: &[Kind]) -> anyhow::Result<(Vec<Row>, Vec<String>)> {
        let progress = Progress::new(true);
        let (mut rows, mut skipped, mut is_gone) = (Vec::new(), Vec::new(), false);
        let is_wanted = |kind: &Kind| only.is_empty() || only.contains(kind);
        for kind in Kind::value_variants().iter().copied().filter(is_wanted) {
            if is_gone {
                skipped.push(kind.name());
                continue;
            }
            progress.show(&kind.name(), 0);
            let seen = self.play(kind)?;
            is_gone = seen.is_dead || seen.refused.is_some();
            rows.push(Row::new(seen));
        }
        Ok((rows, skipped))
    }
}
