//! What all comparisons have: the servers that take part, where they run, and where the results go.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use ringwire_examples::CompressionFlag;
use serde::Serialize;
use tempfile::TempDir;

use super::child::Running;
use super::results::{Head, ServerRuns};
use super::servers::{Places, Server};
use crate::cert::{KeyKind, SelfSigned};
use crate::demand::Service;
use crate::endpoint::Endpoint;
use crate::procstat::Account;
use crate::target::Target;
use crate::tls::TlsArgs;
use crate::units::CpuList;
use crate::{machine, output, report};

/// A comparison takes no longer.
const CERTIFICATE_DAYS: u32 = 30;

/// Flags that all comparisons have.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FieldArgs {
    /// Rounds.
    #[arg(long, default_value = "4")]
    pub(super) rounds: usize,
    /// CPUs of the servers.
    #[arg(long, default_value = "0")]
    server_cpu: CpuList,
    /// CPUs of the load.
    #[arg(long, default_value = "1")]
    pub(super) load_cpu: CpuList,
    /// Folder of Ringwire's programs; by default the one of this program.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Another server that takes part: a command for `sh`, in which {port} stands for its port, {listen} for its
    /// address and port, {cpus} for its CPUs and, if it speaks TLS, {cert} and {key} for files in PEM. May be given
    /// again.
    #[arg(long = "peer", value_name = "NAME=COMMAND", value_parser = parse_peer)]
    peers: Vec<Peer>,
    /// The path of the URLs of these.
    #[arg(long, value_name = "PATH", default_value = "/")]
    peer_path: String,
    /// Folder of other projects' servers.
    #[arg(long, default_value = "benches/peers")]
    peers_dir: PathBuf,
    /// Writes all runs as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Writes the tables as Markdown; they are printed in any case.
    #[arg(long, value_name = "FILE")]
    markdown: Option<String>,
}

/// A server of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    name: String,
    command: String,
}

/// Reads `NAME=COMMAND`.
fn parse_peer(text: &str) -> Result<Peer, String> {
    let (name, command) = text
        .split_once('=')
        .filter(|(name, command)| !name.trim().is_empty() && !command.trim().is_empty())
        .ok_or_else(|| "write NAME=COMMAND, such as 'mine=./server --port {port}'".to_owned())?;
    if !["{port}", "{listen}"].iter().any(|place| command.contains(place)) {
        return Err("the command has no {port}, nor {listen}: where would it listen?".to_owned());
    }
    Ok(Peer { name: name.trim().to_owned(), command: command.trim().to_owned() })
}

impl Peer {
    fn server(&self, path: &str) -> Server {
        Server {
            name: self.name.clone(),
            program: "/bin/sh".into(),
            // In place of the shell, where it is one command: what is measured is that process.
            args: vec!["-c".to_owned(), format!("exec {}", self.command)],
            raw: false,
            secure: self.command.contains("{cert}"),
            path: path.to_owned(),
        }
    }
}

impl FieldArgs {
    /// Has the user's servers take part, behind those that are named.
    pub(super) fn add_peers(&self, names: &mut Vec<String>) {
        for peer in &self.peers {
            if !names.contains(&peer.name) {
                names.push(peer.name.clone());
            }
        }
    }

    /// Finds the servers with these names.
    pub(super) fn find(
        &self,
        names: &[String],
        service: Service,
        compression: CompressionFlag,
    ) -> anyhow::Result<Field> {
        let places = Places::new(self.bin_dir.clone(), self.peers_dir.clone())?;
        let server = |name: &String| match self.peers.iter().find(|peer| peer.name == *name) {
            Some(peer) => Ok(peer.server(&self.peer_path)),
            None => Server::find(name, service, compression, &places),
        };
        let servers: Vec<Server> = names.iter().map(server).collect::<anyhow::Result<_>>()?;
        let certificate = match servers.iter().any(|server| server.secure) {
            true => Some(TestCertificate::make()?),
            false => None,
        };
        Ok(Field { servers, rounds: self.rounds, cpus: self.server_cpu.0.clone(), certificate })
    }

    /// Has the load run where it shall.
    pub(super) fn pin_load(&self) -> anyhow::Result<()> {
        machine::pin_thread(&self.load_cpu.0).context("cannot pin to --load-cpu")
    }

    /// What was compared, for the top of a page.
    pub(super) fn head(&self, baseline: &str, duration: Duration) -> Head {
        Head {
            machine: machine::describe(),
            date: report::today(),
            commit: report::commit(),
            command: report::command_line(),
            baseline: baseline.to_owned(),
            rounds: self.rounds,
            seconds_per_run: duration.as_secs_f64(),
        }
    }

    /// Prints the page, and writes the files that were asked for.
    pub(super) fn write(&self, page: &str, runs: &impl Serialize) -> anyhow::Result<()> {
        if let Some(file) = &self.markdown {
            output::write_text(file, page)?;
        }
        if let Some(file) = &self.json {
            output::write_json(file, runs)?;
        }
        output::say(page)
    }
}

/// The servers of a comparison.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) servers: Vec<Server>,
    rounds: usize,
    /// Of the servers.
    cpus: Vec<usize>,
    /// Of those that speak TLS.
    certificate: Option<TestCertificate>,
}

impl Field {
    /// Has all servers take turns. `run` gets the number of the round too.
    pub(super) fn take_turns<R>(
        &self,
        mut run: impl FnMut(&Server, usize) -> anyhow::Result<R>,
    ) -> anyhow::Result<Vec<ServerRuns<R>>> {
        let named = |server: &Server| ServerRuns { server: server.name.clone(), runs: Vec::new() };
        let mut results: Vec<ServerRuns<R>> = self.servers.iter().map(named).collect();
        for round in 1..=self.rounds {
            for (server, result) in self.servers.iter().zip(&mut results) {
                result.runs.push(run(server, round)?);
            }
        }
        Ok(results)
    }

    /// Starts a server. It ends when the first of the two is dropped; the second is for the load.
    pub(super) fn start(
        &self,
        server: &Server,
        tls: &TlsArgs,
    ) -> anyhow::Result<(Running, Endpoint)> {
        let certificate = self.certificate.as_ref();
        let files = certificate.map(|certificate| &certificate.files);
        let running = Running::start(server, &self.cpus, files)?;
        let target = Target::from_url(&server.url(running.address()))?;
        let tls = tls.client(&target, certificate.map(|own| own.pem.as_str()))?;
        let account = Some(Account::Process(running.pid()));
        Ok((running, Endpoint { target, tls, account, own: None }))
    }
}

/// The certificate of all servers that speak TLS, in a folder that goes with it.
#[derive(Debug)]
struct TestCertificate {
    files: (PathBuf, PathBuf),
    pem: String,
    _dir: TempDir,
}

impl TestCertificate {
    fn make() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a folder for the certificate")?;
        let made = SelfSigned::generate(KeyKind::EcdsaP256, &[], CERTIFICATE_DAYS)?;
        let files = made.write(dir.path(), false)?;
        Ok(Self { files, pem: made.certificate, _dir: dir })
    }
}
