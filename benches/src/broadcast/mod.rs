//! `ringwire-bench broadcast`: one connection says something, and all the others have to hear it.
//!
//! The load is a closed loop: the next message is sent when the last one is with all subscribers, or when there is room
//! among those that may be on their way. The server sends what a connection says to all others, with no word on it.
//! Each message has a number and the time of its sending, and each delivery is compared with what was sent: a
//! subscriber that misses one, gets it twice or too late is an error. An application tells them in words of its own:
//! `told.rs` knows those.

mod client;
mod load;
mod order;
mod publications;
mod report;
#[cfg(test)]
mod tests;
mod told;
mod until;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire_examples::units::{parse_bytes, parse_duration};

use self::publications::STAMP_LEN;
pub(crate) use self::report::Report;
#[cfg(test)]
pub(crate) use self::report::test_report;
use self::until::Ceiling;
use crate::demand::{Demand, Service};
use crate::endpoint::{Endpoint, ServerArgs};
use crate::output::JsonArgs;
use crate::procstat::Account;
use crate::scenario::Condition;
use crate::target::Target;
use crate::units::CpuList;
use crate::{machine, tls};

/// Flags of `ringwire-bench broadcast`.
#[derive(Debug, clap::Args)]
pub(crate) struct BroadcastArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Connections that listen; one more speaks.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "until")]
    subscribers: u32,
    /// Runs with more and more subscribers until this holds, as of --fail-if of the scenarios; without a value
    /// p95>500ms. Latency is that of the last delivery of a message.
    #[arg(long, value_name = "CONDITION", num_args = 0..=1, require_equals = true, default_missing_value = "p95>500ms")]
    until: Option<Condition>,
    /// With --until: how many subscribers each run has more than the one before, and the first one has.
    #[arg(long, default_value = "1000", requires = "until", value_parser = clap::value_parser!(u32).range(1..))]
    step: u32,
    /// With --until: no more subscribers than that. By default what the limit of open files allows.
    #[arg(long, requires = "until", value_parser = clap::value_parser!(u32).range(1..))]
    max_subscribers: Option<u32>,
    /// Payload of a message, such as 64 or 16KiB; at least 12.
    #[arg(long, default_value = "64", value_parser = parse_bytes)]
    size: u64,
    /// Sends the text in a file instead. Eight hexadecimal digits of the message's number stand where {number} does,
    /// behind a word in the same quotation marks: a text that has both in it is a delivery, and others are left out of
    /// account.
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    payload_file: Option<PathBuf>,
    /// Messages that may be on their way at a time: the next is sent when one of so many is with all subscribers.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Measured time.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Time under load before the measured time.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    warmup: Duration,
    /// Time for a message to get to all subscribers. One that takes longer is an error, and the next is sent.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    patience: Duration,
    /// CPUs for the load, such as 1.
    #[arg(long)]
    cpu: Option<CpuList>,
    #[command(flatten)]
    json: JsonArgs,
}

/// One run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    /// For a target that speaks TLS.
    pub(crate) tls: Option<tls::Client>,
    /// Whose CPU time is the server's.
    pub(crate) server: Option<Account>,
    pub(crate) subscribers: u32,
    /// Bytes.
    pub(crate) payload_len: usize,
    /// A message of the user's, of that length, which an application tells in words of its own.
    pub(crate) text: Option<String>,
    /// Messages on their way at a time.
    pub(crate) window: usize,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    /// The longest that a message may take to get to everyone.
    pub(crate) patience: Duration,
}

/// Runs the subcommand. Whether everyone got everything.
pub(crate) fn command(mut args: BroadcastArgs) -> anyhow::Result<bool> {
    let read = |file: &PathBuf| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    let text = args.payload_file.as_ref().map(read).transpose()?;
    let payload_len = match &text {
        Some(text) => text.len(),
        None => usize::try_from(args.size).unwrap_or(usize::MAX),
    };
    let ceiling = args.until.as_ref().map(|_| Ceiling::of(&args)).transpose()?;
    let most = ceiling.as_ref().map_or(args.subscribers, |ceiling| ceiling.subscribers);
    let demand = Demand {
        connections: most.saturating_add(1),
        payload_len,
        service: Service::Broadcast,
        ..Demand::default()
    };
    let Endpoint { target, tls, account, own } = args.server.open(demand, &mut args.cpu)?;
    machine::pin_load(args.cpu.as_ref())?;
    let plan = Plan {
        target,
        tls,
        server: account,
        subscribers: args.subscribers,
        payload_len,
        text,
        window: args.window as usize,
        duration: args.duration,
        warmup: args.warmup,
        patience: args.patience,
    };
    if let Some((until, ceiling)) = args.until.zip(ceiling) {
        return until::command(plan, until, args.step, &ceiling, &args.json);
    }
    let report = run(&plan)?;
    drop(own);
    args.json.tell(report.table(), &report)?;
    Ok(report.is_clean())
}

/// Does one run, on the calling thread.
///
/// # Errors
/// When the run cannot be made at all. What goes wrong with connections and deliveries is in the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Report> {
    if plan.target.resource().is_none() {
        bail!("{}: broadcasts are messages, and raw bytes are none", plan.target);
    }
    if plan.payload_len < STAMP_LEN {
        bail!(
            "a message of {} bytes has no room for the {STAMP_LEN} of its number and time",
            plan.payload_len
        );
    }
    Ok(Report::new(plan, load::run(plan)?))
}
