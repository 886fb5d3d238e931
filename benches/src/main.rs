//! Load generator for WebSocket servers, the raw TCP floor, and their comparison.

mod ask;
mod bottleneck;
mod broadcast;
mod cert;
mod cgroup;
mod compare;
mod demand;
mod disturbance;
mod doctor;
mod echo;
mod endpoint;
mod flags;
mod floor;
mod groups;
mod growth;
mod handshakes;
mod hostile;
mod machine;
#[cfg(feature = "manual")]
mod manual;
mod output;
mod own_server;
mod presets;
mod procstat;
mod report;
mod scenario;
mod schema;
mod soak;
mod spent;
mod system;
mod target;
mod texts;
mod tls;
mod units;
mod withheld;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code where nobody reads the standard output any more: 128 and the number of SIGPIPE, as shells say it.
const UNREAD: u8 = 128 + 13;

/// Measures WebSocket servers.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Runs messages through a server and reports speed, latency and CPU time.
    Echo(echo::EchoArgs),
    /// Has one connection say what many others hear, and reports speed, latency and CPU time of deliveries.
    Broadcast(broadcast::BroadcastArgs),
    /// Runs the same load against several servers in turn and prints ratios.
    Compare(compare::CompareArgs),
    /// Opens connections one after the other and reports handshakes per second and their CPU time.
    Handshakes(handshakes::HandshakeArgs),
    /// Opens connections to several servers in turn, with full and with resumed TLS sessions.
    CompareHandshakes(compare::CompareHandshakesArgs),
    /// Runs the same broadcasts through several servers in turn and prints ratios.
    CompareBroadcast(compare::CompareBroadcastArgs),
    /// Writes docs/benchmarks.md, its plots and its tables from what `compare` and `compare-broadcast` found.
    Page(compare::PageArgs),
    /// Runs four scenarios of which figures are published: 100 sequential connects over TLS, then 50, 100
    /// and 200 clients with 10, 20 and 50 messages each.
    WssPresets(presets::PresetArgs),
    /// Runs a server among peers of all kinds for long, and says whether it lost, leaked or slowed down.
    Soak(soak::SoakArgs),
    /// Plays hostile peers, and says what a server does with each kind.
    Hostile(hostile::HostileArgs),
    /// Takes the flags of two published stress tools, `--test-type all` or `-clients=1000 -mps=100`, and has their
    /// figures.
    Stress(scenario::StressArgs),
    /// Opens connections as fast as they go, so many at a time.
    Storm(scenario::StormArgs),
    /// Runs the WebSocket profiles of HttpArena: 512, 4 096 and 16 384 connections, the best of three runs each.
    Arena(scenario::ArenaArgs),
    /// Has each connection exchange a number of messages, one in flight.
    Throughput(scenario::ThroughputArgs),
    /// Has each connection send at an interval for a time, whatever becomes of the replies.
    Sustained(scenario::SteadyArgs),
    /// Runs storm, throughput and sustained one after the other.
    All(scenario::AllArgs),
    /// Has clients send messages at a rate each, open loop: latency counts from the moment a message was due.
    Rate(scenario::RateArgs),
    /// Opens a million connections, holds them, and has them echo: in several processes where one may not have so many.
    Million(scenario::MillionArgs),
    /// Has messages go round for a time, so many in flight on each connection, and reports bandwidth.
    Traffic(scenario::TrafficArgs),
    /// Has messages go round for a time, and reports the messages of each second.
    Tps(scenario::TpsArgs),
    /// Opens connections and holds them for minutes, and reports what the server's memory does.
    Idle(scenario::IdleArgs),
    /// Opens connections, has them echo and closes them, again and again.
    Churn(scenario::ChurnArgs),
    /// Looks for the highest rate of messages at which latencies stay under a limit.
    Search(scenario::SearchArgs),
    /// Runs several groups of clients at once, each with a scenario and flags of its own, from a file.
    #[command(long_flag = "scenario")]
    Groups(groups::GroupArgs),
    /// Prints what the JSON of loads has, as a JSON Schema.
    Schema,
    #[cfg(feature = "manual")]
    #[command(hide = true)]
    WriteManual(manual::ManualArgs),
    #[command(hide = true)]
    LoadWorker(scenario::ChildArgs),
    #[command(hide = true)]
    ServerWorker(scenario::ChildArgs),
    /// Says what this machine is short of for so many connections, and the lines that mend it.
    Doctor(doctor::DoctorArgs),
    /// Writes a self-signed certificate and its key, for tests of TLS.
    Cert(cert::CertArgs),
    /// Serves raw TCP echo: the least work an echo server can do.
    Floor(floor::FloorArgs),
}

fn main() -> ExitCode {
    let args = scenario::with_two_dashes(std::env::args_os());
    let result = match Command::parse_from(args) {
        Command::Echo(args) => echo::command(args),
        Command::Broadcast(args) => broadcast::command(args),
        Command::Compare(args) => compare::command(args),
        Command::Handshakes(args) => handshakes::command(args),
        Command::CompareHandshakes(args) => compare::compare_handshakes(args),
        Command::CompareBroadcast(args) => compare::compare_broadcast(args),
        Command::Page(args) => compare::page(&args).map(|()| true),
        Command::WssPresets(args) => presets::command(args),
        Command::Soak(args) => soak::command(args),
        Command::Hostile(args) => hostile::command(&args),
        Command::Stress(args) => scenario::stress_command(args),
        Command::Storm(args) => scenario::stress(args),
        Command::Arena(args) => scenario::arena(args),
        Command::Throughput(args) => scenario::stress(args),
        Command::Sustained(args) => scenario::stress(args),
        Command::All(args) => scenario::stress(args),
        Command::Rate(args) => scenario::rate(args),
        Command::Million(args) => scenario::million(args),
        Command::Traffic(args) => scenario::traffic(args),
        Command::Tps(args) => scenario::tps(args),
        Command::Idle(args) => scenario::idle(args),
        Command::Churn(args) => scenario::churn(args),
        Command::Search(args) => scenario::search(args),
        Command::LoadWorker(args) => scenario::load_worker(&args).map(|()| true),
        Command::ServerWorker(args) => scenario::server_worker(&args).map(|()| true),
        #[cfg(feature = "manual")]
        Command::WriteManual(args) => manual::command(&args).map(|()| true),
        Command::Groups(args) => groups::command(&args),
        Command::Schema => schema::command().map(|()| true),
        Command::Doctor(args) => doctor::command(&args),
        Command::Cert(args) => cert::command(&args).map(|()| true),
        Command::Floor(args) => floor::run(&args).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // As if SIGPIPE had ended it, which Rust has ignored.
        Err(error) if output::is_unread(&error) => ExitCode::from(UNREAD),
        Err(error) => {
            // Nobody may read it.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Command::command().debug_assert();
    }
}
