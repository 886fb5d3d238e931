//! `ringwire-bench compare`: the same load against several servers, in turn, round after round.
//!
//! Each run starts its server anew on CPUs of its own. Servers take turns within a round (A B A B …), so
//! that what changes on the machine meanwhile changes all of them; ratios are taken within a round.
#![expect(clippy::disallowed_methods, reason = "a comparison tells the time that is left")]

mod broadcast;
mod child;
mod field;
mod handshakes;
mod html;
mod markdown;
mod page;
mod results;
mod servers;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ringwire_examples::CompressionFlag;
use ringwire_examples::units::{parse_bytes, parse_duration};

pub(crate) use self::broadcast::{CompareBroadcastArgs, command as compare_broadcast};
pub(crate) use self::handshakes::{CompareHandshakesArgs, command as compare_handshakes};
pub(crate) use self::page::{PageArgs, command as page};

use self::field::{Field, FieldArgs};
use self::results::{CellResult, Load, Results};
use self::servers::Server;
use crate::demand::Service;
use crate::echo::{self, LoadArgs, Payload, Plan, Report};
use crate::endpoint::Endpoint;
use crate::tls::TlsArgs;
use crate::units::{show_bytes, show_count};

/// What a run takes beside its time under load: starting, connecting, settling.
const OVERHEAD: Duration = Duration::from_millis(400);
/// How fast connections are made, for the estimate.
const CONNECTS_PER_SECOND: u32 = 10_000;
/// The same with TLS.
const TLS_CONNECTS_PER_SECOND: u32 = 2_000;

/// Flags of `ringwire-bench compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Servers, in the order of their turns. With -tls behind its name a server speaks TLS, with a
    /// certificate made for the comparison. [default: ringwire-epoll, floor-epoll, and the others]
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Compares servers over TLS with Ringwire's own plain echo: other defaults for --servers and --baseline.
    #[arg(long)]
    tls: bool,
    /// Compares servers that compress (permessage-deflate) as far as they can be told at level 1, without context
    /// takeover, or with takeover both ways: other defaults for --servers and --baseline. The memory of an idle
    /// connection is that after its first message.
    #[arg(long, value_enum, default_value_t, conflicts_with = "tls")]
    compression: CompressionFlag,
    /// What messages say.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "noise")]
    payload: Vec<Payload>,
    /// The server that the others are compared with. [default: floor-epoll, with --tls or --compression
    /// ringwire-epoll]
    #[arg(long)]
    baseline: Option<String>,
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    connections: Vec<u32>,
    /// Payloads.
    #[arg(long, value_delimiter = ',', default_value = "64,512,1024,16384", value_parser = parse_bytes)]
    sizes: Vec<u64>,
    /// Messages in flight on each connection.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    in_flight: Vec<usize>,
    /// Leaves out loads that have more payload than this on the way at a time: the kernel has no room
    /// for it, and what is measured is how it copes.
    #[arg(long, default_value = "512MiB", value_parser = parse_bytes)]
    max_outstanding: u64,
    /// Measured time of a run.
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    duration: Duration,
    /// Time under load before it.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Load threads.
    #[arg(long, default_value = "1")]
    threads: usize,
    #[command(flatten)]
    field: FieldArgs,
    /// Writes a page with plots, ratios first, which needs nothing but a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<String>,
}

/// The servers of a comparison without `--servers`, and what they are compared with.
const PLAIN_SERVERS: &str =
    "ringwire-epoll,floor-epoll,tokio-tungstenite,fastwebsockets,sockudo-ws,bun";
const PLAIN_BASELINE: &str = "floor-epoll";
/// The same with `--tls`.
const TLS_SERVERS: &str = "ringwire-epoll,ringwire-uring,ringwire-epoll-tls,ringwire-uring-tls,\
                           tokio-tungstenite-tls,sockudo-ws-tls,bun-tls";
const TLS_BASELINE: &str = "ringwire-epoll";
/// The same with `--compression`.
const COMPRESSING_SERVERS: &str = "ringwire-epoll,ringwire-uring,sockudo-ws,yawc,ws,bun";
const COMPRESSING_BASELINE: &str = "ringwire-epoll";

/// What one load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    connections: u32,
    in_flight: usize,
    payload_bytes: u64,
    payload: Payload,
}

impl Cell {
    /// Bytes that may be on the way at a time, in one direction.
    fn outstanding_bytes(&self) -> u64 {
        u64::from(self.connections)
            .saturating_mul(self.in_flight as u64)
            .saturating_mul(self.payload_bytes)
    }

    fn load(self) -> Load {
        let Self { connections, in_flight, payload_bytes, payload } = self;
        Load::Echo { connections, in_flight, payload_bytes, payload: payload.to_string() }
    }
}

/// Runs the subcommand. Whether there were no errors.
pub(crate) fn command(mut args: CompareArgs) -> anyhow::Result<bool> {
    args.fill_in_servers();
    let args = &args;
    let field = args.find_servers()?;
    let cells = args.cells();
    args.field.pin_load()?;
    let (rounds, servers) = (args.field.rounds, field.servers.len());
    let runs = cells.len() * rounds * servers;
    crate::output::note(format_args!(
        "{} loads × {rounds} rounds × {servers} servers = {runs} runs, about {:.1} min",
        cells.len(),
        args.estimate(&cells).as_secs_f64() / 60.0
    ));
    let mut ticker = Ticker { started: Instant::now(), done: 0, runs };
    let mut results = Vec::new();
    for cell in cells {
        let load = cell.load();
        let servers = field.take_turns(|server, round| {
            let report = args.run(cell, server, &field)?;
            ticker.show(&load, round, &server.name, &report);
            Ok(serde_json::to_value(&report)?)
        })?;
        results.push(CellResult { load, servers });
    }
    let head = args.field.head(args.baseline(), args.duration);
    let results = Results { head, cells: results };
    args.field.write(&markdown::page(&results), &results)?;
    if let Some(file) = &args.html {
        html::page(&results).write(file)?;
    }
    Ok(results.is_clean())
}

impl CompareArgs {
    /// What was not given on the command line.
    fn fill_in_servers(&mut self) {
        let (servers, baseline) = match (self.compression, self.tls) {
            (CompressionFlag::Off, true) => (TLS_SERVERS, TLS_BASELINE),
            (CompressionFlag::Off, false) => (PLAIN_SERVERS, PLAIN_BASELINE),
            _ => (COMPRESSING_SERVERS, COMPRESSING_BASELINE),
        };
        if self.servers.is_empty() {
            self.servers = servers.split(',').map(str::to_owned).collect();
        }
        self.field.add_peers(&mut self.servers);
        self.baseline.get_or_insert_with(|| baseline.to_owned());
    }

    fn baseline(&self) -> &str {
        self.baseline.as_deref().unwrap_or_default()
    }

    fn find_servers(&self) -> anyhow::Result<Field> {
        if !self.servers.iter().any(|name| name == self.baseline()) {
            bail!("--baseline {} is none of --servers", self.baseline());
        }
        self.field.find(&self.servers, Service::Echo, self.compression)
    }

    /// All loads but those that are too much for the kernel, which are told.
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &connections in &self.connections {
            for &in_flight in &self.in_flight {
                for &payload in &self.payload {
                    cells.extend(self.sizes.iter().map(|&payload_bytes| Cell {
                        connections,
                        in_flight,
                        payload_bytes,
                        payload,
                    }));
                }
            }
        }
        cells.retain(|cell| {
            let outstanding = cell.outstanding_bytes();
            let fits = outstanding <= self.max_outstanding;
            if !fits {
                let (outstanding, load) = (show_bytes(outstanding as f64), cell.load());
                crate::output::note(format_args!(
                    "left out: {load} has {outstanding} on the way (--max-outstanding)"
                ));
            }
            fits
        });
        cells
    }

    fn estimate(&self, cells: &[Cell]) -> Duration {
        let rounds = u32::try_from(self.field.rounds).unwrap_or(u32::MAX);
        let run = |cell: &Cell, server: &str| {
            let rate = match servers::is_secure(server) {
                true => TLS_CONNECTS_PER_SECOND,
                false => CONNECTS_PER_SECOND,
            };
            let connect = Duration::from_secs(1) * cell.connections / rate;
            self.warmup + self.duration + OVERHEAD + connect
        };
        let round =
            |cell: &Cell| self.servers.iter().map(|server| run(cell, server)).sum::<Duration>();
        cells.iter().map(round).sum::<Duration>() * rounds
    }

    fn run(&self, cell: Cell, server: &Server, field: &Field) -> anyhow::Result<Report> {
        let (_running, endpoint) = field.start(server, &TlsArgs::default())?;
        let load = LoadArgs {
            connections: cell.connections,
            in_flight: cell.in_flight,
            size: cell.payload_bytes,
            payload: cell.payload,
            compression: self.compression,
            duration: self.duration,
            warmup: self.warmup,
            threads: self.threads,
            cpu: Some(self.field.load_cpu.clone()),
            ..LoadArgs::default()
        };
        let Endpoint { target, tls, account, .. } = endpoint;
        let plan = Plan { target, load, tls, server: account, show_progress: false };
        echo::run(&plan).with_context(|| format!("{}, {}", server.name, cell.load()))
    }
}

/// Says after each run what came out and how long the rest takes.
struct Ticker {
    started: Instant,
    done: usize,
    runs: usize,
}

impl Ticker {
    fn show(&mut self, load: &Load, round: usize, server: &str, report: &Report) {
        self.done += 1;
        let each = self.started.elapsed().as_secs_f64() / self.done as f64;
        let minutes_left = each * (self.runs - self.done) as f64 / 60.0;
        let rate = show_count(report.messages_per_second);
        let cpu = report.server.and_then(|server| server.cpu_us_per_message).unwrap_or_default();
        let errors: u64 = report.errors.values().sum();
        let errors = if errors > 0 { format!(", {errors} ERRORS") } else { String::new() };
        crate::output::note(format_args!(
            "[{}/{}, {minutes_left:.1} min left] {load}, round {round}, {server}: {rate}/s, \
             {cpu:.2} µs CPU, {:?}{errors}",
            self.done, self.runs, report.bottleneck
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{parse, parse_words};

    fn args(flags: &str) -> CompareArgs {
        let mut args: CompareArgs = parse(flags).unwrap();
        args.fill_in_servers();
        args
    }

    #[test]
    fn loads_too_large_for_the_kernel_are_left_out() {
        let args = args("--connections 100,10000 --sizes 64,16KiB --in-flight 1,16");
        let cells = args.cells();
        assert_eq!(cells.len(), 7);
        assert!(cells.iter().all(|cell| cell.outstanding_bytes() <= 512 << 20));
    }

    #[test]
    fn estimate_counts_every_run() {
        let args = args(
            "--servers a,b-tls --rounds 3 --duration 2s --warmup 600ms --connections 10000 --sizes 1,2 \
             --in-flight 1",
        );
        let plain = Duration::from_millis(2000 + 600 + 1000) + OVERHEAD;
        let secure = Duration::from_millis(2000 + 600 + 5000) + OVERHEAD;
        assert_eq!(args.estimate(&args.cells()), (plain + secure) * 2 * 3);
    }

    #[test]
    fn tls_is_compared_with_the_plain_echo() {
        let plain = args("");
        assert_eq!((plain.baseline(), plain.servers.len()), ("floor-epoll", 6));
        let tls = args("--tls");
        assert_eq!(tls.baseline(), "ringwire-epoll");
        assert!(tls.servers.contains(&tls.baseline().to_owned()));
        assert_eq!(tls.servers.iter().filter(|name| name.ends_with("-tls")).count(), 5);
        let chosen = args("--tls --servers bun-tls,bun --baseline bun");
        assert_eq!((chosen.baseline(), chosen.servers.len()), ("bun", 2));
    }

    #[test]
    fn compression_has_servers_and_payloads_of_its_own() {
        let flags = "--compression shared --payload json,letters --sizes 512,4KiB --connections 9";
        let args = args(flags);
        assert_eq!((args.baseline(), args.servers.len()), ("ringwire-epoll", 6));
        let cells: Vec<_> = args.cells().iter().map(|cell| cell.load().to_string()).collect();
        assert_eq!(cells.len(), 8);
        assert_eq!(
            cells[..3],
            ["9 × 1 × 512 B json", "9 × 1 × 4 KiB json", "9 × 1 × 512 B letters"]
        );
    }

    #[test]
    fn servers_of_the_user_take_part() {
        let peers = ["--peer", "mine=./server -p {port} -c {cert}", "--peer-path", "/ws"];
        let flags = peers.into_iter().chain(["--servers", "floor-epoll"]);
        let mut args: CompareArgs = parse_words(flags).unwrap();
        args.fill_in_servers();
        assert_eq!(args.servers, ["floor-epoll", "mine"]);
        let field = args.find_servers().unwrap();
        let mine = &field.servers[1];
        assert_eq!((mine.name.as_str(), mine.secure), ("mine", true));
        assert_eq!(mine.args, ["-c", "exec ./server -p {port} -c {cert}"]);
        assert_eq!(mine.url(([127, 0, 0, 1], 9).into()), "wss://127.0.0.1:9/ws");
        for (wrong, told) in
            [("mine", "NAME=COMMAND"), ("=x {port}", "NAME=COMMAND"), ("a=x", "{port}")]
        {
            let error = parse_words::<CompareArgs>(["--peer", wrong]).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn outstanding_bytes_do_not_overflow() {
        let payload = Payload::Noise;
        let cell = Cell { connections: 1000, in_flight: 16, payload_bytes: 1024, payload };
        assert_eq!(cell.outstanding_bytes(), 1000 * 16 * 1024);
        let most = Cell { connections: u32::MAX, in_flight: 7 << 40, payload_bytes: 9, payload };
        assert_eq!(most.outstanding_bytes(), u64::MAX);
    }

    #[test]
    fn baseline_must_take_part() {
        let error = args("--servers bun --baseline floor-epoll").find_servers().unwrap_err();
        assert!(error.to_string().contains("floor-epoll is none of --servers"), "{error}");
    }
}
