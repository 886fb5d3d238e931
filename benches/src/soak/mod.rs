//! `ringwire-bench soak`: a server that lives for long among peers of all kinds, and what becomes of it.
//!
//! The server is a process of its own ([`server`]), so that its memory and descriptors can be told from the clients'.
//! Beside healthy connections, each message of which has a number either way, there are peers ([`peers`]) that come and
//! go at a rate and end in every way, that read too slowly, and that fall silent. In the end [`verdict`] says whether
//! anything was lost, whether memory and latency stayed where they were, and whether all was given back.

mod healthy;
mod peers;
mod server;
mod verdict;

use std::time::Duration;

use ringwire_examples::DriverFlag;
use ringwire_examples::units::parse_duration;

use self::verdict::Record;
use crate::{machine, output};

/// Flags of `ringwire-bench soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// How long each server runs.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    duration: Duration,
    /// The server's kernel back end. May be given several times. Default: epoll, then uring.
    #[arg(long)]
    driver: Vec<DriverFlag>,
    /// The server's workers.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    io_workers: u16,
    /// Healthy connections that echo.
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Connections that come and go in a second.
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u16).range(1..=1000))]
    churn: u16,
    /// Is the server, until its standard input ends.
    #[arg(long, hide = true)]
    serve: bool,
}

/// Runs the subcommand. Whether every server stood it.
pub(crate) fn command(mut args: SoakArgs) -> anyhow::Result<bool> {
    if args.driver.is_empty() {
        args.driver = vec![DriverFlag::Epoll, DriverFlag::Uring];
    }
    if args.serve {
        let driver = args.driver.first().copied().unwrap_or_default();
        return server::serve(driver, usize::from(args.io_workers)).map(|()| true);
    }
    output::say(machine::describe())?;
    let mut all_well = true;
    for driver in &args.driver {
        let record = run(&args, *driver)?;
        let problems = record.problems();
        output::say(record.summary())?;
        for problem in &problems {
            output::say(format_args!("FAILED: {problem}"))?;
        }
        all_well &= problems.is_empty();
    }
    Ok(all_well)
}

/// One server's life.
fn run(args: &SoakArgs, driver: DriverFlag) -> anyhow::Result<Record> {
    let server = server::Process::start(driver, args.io_workers)?;
    output::say(format_args!("{} at {}, {:?}", server.driver(), server.address(), args.duration))?;
    let mut record = Record::begin(&server)?;
    let load = healthy::Load::new(server.address());
    let mut threads = healthy::start(&load, usize::from(args.connections))?;
    threads.extend(peers::start(&load, args.churn)?);
    record.watch(&server, &load, args.duration)?;
    load.stop();
    for thread in threads {
        if thread.join().is_err() {
            load.fail("a client panicked".to_owned());
        }
    }
    record.end(&server, &load)?;
    Ok(record)
}
