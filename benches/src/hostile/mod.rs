//! `ringwire-bench hostile`: peers that mean harm, one kind after the other, and what a server does with them.
//!
//! Some peers of a kind ([`kinds`]) play at a time ([`row`]), each on a thread and a connection ([`mod@line`]) of its
//! own. A well-behaved connection beside them ([`bystander`]) has to be answered, and the memory of the server is
//! looked at where its process is known. [`report`] has the rule by which a row is fine. Peers that come and go for
//! long are those of `soak`.

mod bystander;
mod crowd;
mod ending;
mod heard;
mod kinds;
mod line;
mod log;
mod report;
mod row;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum as _;
use ringwire_examples::DriverFlag;
use ringwire_examples::units::{parse_bytes, parse_duration};

use self::bystander::Question;
use self::ending::Ending;
use self::kinds::Kind;
use self::line::Goal;
use self::log::Log;
use self::report::{Report, Row};
use self::row::{Budget, End, Seen, Setup};
use crate::demand::Demand;
use crate::echo::{Payload, Progress};
use crate::endpoint::ServerArgs;
use crate::machine;
use crate::output::JsonArgs;
use crate::scenario::Servers;

/// What a server that is started may hold for its connections: little, so that floods go beyond it.
const MAX_MEMORY: u64 = 16 << 20;
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
    /// Connections of each peer of the kinds that are crowds.
    #[arg(long, default_value = "500", value_parser = clap::value_parser!(u16).range(1..=5000))]
    crowd: u16,
    /// The server's budget of memory (max_memory), for the limits of floods. A server that is started gets it; 16 MiB
    /// by default, or with --cgroup what it takes there by itself.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_memory: Option<u64>,
    /// Starts the server in a control group of its own with so much memory.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "url")]
    cgroup: Option<u64>,
    /// The longest that a peer plays. Should be longer than the server's timeouts for its handshake and for pongs: a
    /// peer that has to be ended and is not by then is suspicious.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    time_limit: Duration,
    /// The well-behaved connection sends what is in a file, as text if it is UTF-8.
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
    /// Time for an answer to the well-behaved connection.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    bystander_timeout: Duration,
    #[command(flatten)]
    json: JsonArgs,
}

/// Runs the subcommand. Whether every bystander was answered, by a server that lives.
pub(crate) fn command(args: &HostileArgs) -> anyhow::Result<bool> {
    let report = run(args)?;
    args.json.tell(report.text().trim_end(), &report)?;
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
    let plays_crowds = Kind::value_variants()
        .iter()
        .any(|kind| kind.is_crowd() && (args.only.is_empty() || args.only.contains(kind)));
    let each = if plays_crowds { u32::from(args.crowd) } else { 1 };
    // A socket and what waits for it.
    machine::allow_descriptors(u32::from(args.peers) * each + BYSTANDERS, 2)?;
    let (servers, max_memory) = open_servers(args)?;
    let at_rest = servers.resident()?.map(|resident| resident.all);
    let budget =
        max_memory.zip(at_rest).map(|(max_memory, at_rest)| Budget { max_memory, at_rest });
    if servers.target.resource().is_none() {
        let target = &servers.target;
        bail!("{target}: these peers need a WebSocket server, ws:// or wss://");
    }
    let goal = goal_of(args, &servers)?;
    let setup = Setup {
        question: Question::of(&goal, args.bystander_timeout)?,
        goal,
        servers: &servers,
        peers: args.peers,
        crowd: args.crowd,
        budget,
        time_limit: args.time_limit,
        bystander_timeout: args.bystander_timeout,
    };
    let (rows, skipped) = setup.play_all(args)?;
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

/// Where peers connect.
fn goal_of(args: &HostileArgs, servers: &Servers) -> anyhow::Result<Goal> {
    let target = servers.target.clone();
    let tls = args.server.tls.client(&target, servers.certificate.as_deref())?;
    let payload = args.payload_file.as_ref().map(|file| Payload::read(file)).transpose()?;
    Ok(Goal { target, tls, payload })
}

/// The server, and its budget of memory where that is known.
fn open_servers(args: &HostileArgs) -> anyhow::Result<(Servers, Option<u64>)> {
    if args.server.url.is_some() {
        let servers = Servers::open(&args.server, Demand::default(), &mut None)?;
        return Ok((servers, args.max_memory));
    }
    // In a process of its own its memory can be told.
    let start = |max_memory: Option<u64>| {
        let max_memory = max_memory.map(usize::try_from).transpose()?;
        let (limit, driver) = (args.time_limit, args.driver);
        Servers::start_guarded(&args.server, limit, driver, max_memory, args.cgroup, None)
    };
    match (args.max_memory, args.cgroup) {
        // By default a server takes half of what it may have.
        (None, Some(limit)) => Ok((start(None)?, Some(limit / 2))),
        (given, _) => {
            let max_memory = Some(given.unwrap_or(MAX_MEMORY));
            Ok((start(max_memory)?, max_memory))
        }
    }
}

impl Setup<'_> {
    /// Has all kinds play, or those that are given, and says which had nobody left to play with.
    fn play_all(&self, args: &HostileArgs) -> anyhow::Result<(Vec<Row>, Vec<String>)> {
        let only = &args.only;
        let progress = Progress::new(true);
        let (mut rows, mut skipped, mut is_gone) = (Vec::new(), Vec::new(), false);
        let is_wanted = |kind: &Kind| only.is_empty() || only.contains(kind);
        for kind in Kind::value_variants().iter().copied().filter(is_wanted) {
            if is_gone {
                skipped.push(kind.name());
                continue;
            }
            progress.show(&kind.name(), 0);
            let seen = match kind.log() {
                Some(log) => self.play_before_a_log(kind, log, args)?,
                None => self.play(kind)?,
            };
            is_gone = seen.is_dead || seen.refused.is_some();
            rows.push(Row::new(seen));
        }
        Ok((rows, skipped))
    }

    /// Has a kind play against a server of its own, whose log goes nowhere.
    fn play_before_a_log(&self, kind: Kind, log: Log, args: &HostileArgs) -> anyhow::Result<Seen> {
        if args.server.url.is_some() {
            return Ok(Seen::nothing(kind, Ending::Inapplicable));
        }
        let (stderr, unread) = log.open()?;
        let (limit, driver) = (args.time_limit, args.driver);
        let mut servers =
            Servers::start_guarded(&args.server, limit, driver, None, None, Some(stderr))?;
        let goal = goal_of(args, &servers)?;
        let setup = Setup { goal, servers: &servers, budget: None, ..*self };
        let seen = setup.play(kind)?;
        let was_full = unread.is_full();
        let is_in_time = servers.end_within(args.bystander_timeout);
        Ok(Seen { end: Some(End { was_full, is_in_time }), ..seen })
    }
}
