//! An echo server that also hashes, which takes long: on the worker, or on compute threads with `--offload`.
//!
//! The text `hash N` is answered with the SHA-1 of N MiB, everything else is sent back. `--ask URL` is the other side:
//! connections that keep such a server busy.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use ringwire::client::{self, OwnedMessage};
use ringwire::program::{announce, handle_signals, with_log};
use ringwire::{Config, Ctx, Message, Server, Sizing, on_message};
use ringwire_examples::{Cores, DriverFlag};
use sha1::{Digest, Sha1};

/// How long connections may take to close on SIGTERM or SIGINT.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// The most that one message may ask for, in MiB.
const MAX_MIB: u32 = 64;

/// An echo server that answers the text `hash N` with the SHA-1 of N MiB.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: String,
    /// Hashes on compute threads instead of the worker.
    #[arg(long)]
    offload: bool,
    /// Threads that do IO. Default: one for each core that the others leave, half of them at least.
    #[arg(long)]
    io_workers: Option<usize>,
    /// Threads that hash, with `--offload`.
    #[arg(long, default_value_t = 1)]
    compute_workers: usize,
    /// The cores of the IO workers: a list such as 0,1, `none`, or `auto`, one core for each.
    #[arg(long, default_value = "auto")]
    pin: Cores,
    /// The kernel back end.
    #[arg(long, value_enum, default_value_t)]
    driver: DriverFlag,
    /// Does not serve, but asks the server there for hashes, one after the other, until it closes.
    #[arg(long, value_name = "URL")]
    ask: Option<String>,
    /// Connections that ask.
    #[arg(long, default_value_t = 4, requires = "ask")]
    connections: usize,
    /// What they ask for, in MiB.
    #[arg(long, default_value_t = 8, requires = "ask", value_parser = clap::value_parser!(u32).range(1..=64))]
    mib: u32,
}

fn main() -> ExitCode {
    with_log(run)
}

fn run() -> Result<()> {
    let flags = Flags::parse();
    match &flags.ask {
        Some(url) => ask(url, &flags),
        None => serve(&flags),
    }
}

fn serve(flags: &Flags) -> Result<()> {
    let config = Config::default()
        .with_driver(flags.driver.into())
        .with_io_workers(flags.io_workers.map_or(Sizing::Auto, Sizing::Fixed))
        .with_compute_workers(if flags.offload { flags.compute_workers } else { 0 })
        .with_pinning(flags.pin.clone().into());
    let offload = flags.offload;
    let server = Server::new(config)
        .listen(&flags.listen)
        .start(move |_worker| on_message(move |ctx, message| answer(ctx, message, offload)))?;
    handle_signals(server.handle(), SHUTDOWN_LIMIT).context("cannot handle signals")?;
    announce(server.urls().map(|url| format!("listening on {url}")));
    let handle = server.handle();
    server.join()?;
    let jobs = handle.stats().compute;
    if offload {
        announce([format!(
            "{} jobs, which waited {:?} at most and ran {:?} at most; {} cancelled, {} refused",
            jobs.done, jobs.wait.max, jobs.run.max, jobs.cancelled, jobs.refused
        )]);
    }
    Ok(())
}

fn answer(ctx: &mut Ctx<'_, ()>, message: Message<'_>, offload: bool) {
    let asked_for = match message {
        Message::Text(text) => text.strip_prefix("hash ").and_then(|count| count.parse().ok()),
        Message::Binary(_) => None,
    };
    let Some(mib) = asked_for.filter(|mib| (1..=MAX_MIB).contains(mib)) else {
        let _ = ctx.send(message);
        return;
    };
    if !offload {
        let _ = ctx.send(hash(mib).as_str());
        return;
    }
    let offloaded = ctx.offload(
        move || hash(mib),
        |ctx, result| {
            let _ = ctx.send(result.unwrap_or_else(|error| error.to_string()).as_str());
        },
    );
    if let Err(refused) = offloaded {
        // A busy server says so; one that may not lose the job would pause the connection.
        let _ = ctx.send(refused.to_string().as_str());
    }
}

/// The SHA-1 of this many MiB, in hexadecimal.
fn hash(mib: u32) -> String {
    let block = vec![0x5a; 1 << 20];
    let mut hasher = Sha1::new();
    for _ in 0..mib {
        hasher.update(&block);
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ask(url: &str, flags: &Flags) -> Result<()> {
    let question = format!("hash {}", flags.mib);
    thread::scope(|scope| {
        let asking: Vec<_> =
            (0..flags.connections).map(|_| scope.spawn(|| ask_on(url, &question))).collect();
        for thread in asking {
            let count = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            writeln!(io::stdout(), "{count} answers")?;
        }
        Ok(())
    })
}

fn ask_on(url: &str, question: &str) -> Result<usize> {
    let mut client = client::connect(url).with_context(|| format!("cannot connect to {url}"))?;
    let mut count = 0;
    loop {
        if client.send_text(question).is_err() {
            return Ok(count);
        }
        match client.receive() {
            Ok(Some(OwnedMessage::Text(_))) => count += 1,
            _ => return Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_all_of_it() {
        let whole = Sha1::digest(vec![0x5a; 2 << 20]);
        let hex: String = whole.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash(2), hex);
        assert_ne!(hash(1), hex);
    }
}
