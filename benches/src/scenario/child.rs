//! Generators and servers as processes of their own, for more connections than one process may have.
//!
//! This program runs itself again. What a child is to do is a line of JSON on its standard input, and so is what it
//! says on its standard output; it ends when its input does, or when the thread that started it is gone.
#![expect(unsafe_code, reason = "a child is set up between fork and exec")]
#![expect(clippy::disallowed_methods, reason = "the end of a child is waited for")]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ringwire_examples::DriverFlag;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::compression_of;
use crate::cert::SelfSigned;
use crate::demand::Demand;
use crate::flags::name_of;
use crate::machine;
use crate::own_server::OwnServer;

/// Flags of the hidden subcommands.
#[derive(Debug, clap::Args)]
pub(crate) struct ChildArgs {
    /// The kernel back end.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: DriverFlag,
}

/// What a server of its own process is to do.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct ServerPlan {
    pub(crate) listen: String,
    pub(crate) payload_len: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) certificate: Option<SelfSigned>,
    /// For a server among hostile peers: those that fall silent are given up after this.
    pub(crate) silence_limit: Option<Duration>,
    /// Compression that it agrees to, as in a plan.
    pub(crate) takeover: Option<bool>,
    /// Its budget of memory, unless the default.
    pub(crate) max_memory: Option<usize>,
    /// It is one of several on one port.
    pub(crate) shares_port: bool,
    /// It logs all that it does to its standard error.
    pub(crate) logs: bool,
}

/// A child. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
}

impl Process {
    /// Runs a hidden subcommand of this program, or of the one that a shell's `command` runs.
    pub(crate) fn start(
        subcommand: &str,
        driver: DriverFlag,
        command: Option<&str>,
        log: Option<Stdio>,
    ) -> anyhow::Result<(Self, BufReader<ChildStdout>)> {
        let words = [subcommand, "--driver", &name_of(&driver)];
        let mut command = if let Some(text) = command {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("exec {text} {}", words.join(" ")));
            shell
        } else {
            let mut own = Command::new("/proc/self/exe");
            own.args(words);
            own
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(log) = log {
            command.stderr(log).env("RUST_LOG", "trace");
        }
        // SAFETY: the closure makes one system call and allocates only when that fails.
        unsafe {
            command.pre_exec(machine::die_with_parent);
        }
        let mut child = command.spawn().context("cannot start a process of the load")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("it is piped")?;
        Ok((Self { child, input }, BufReader::new(output)))
    }

    /// Ends it, without waiting until it has ended.
    pub(crate) fn kill(&mut self) {
        self.input = None;
        // Tens of thousands of sockets are closed quickest by the end of the process. Fails only if it is gone already.
        let _ = self.child.kill();
    }

    /// Tells it to end, and waits for that. Whether it has ended within the time.
    pub(crate) fn end_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.input = None;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
                ended => return matches!(ended, Ok(Some(status)) if status.success()),
            }
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to it.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn write(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("a process of the load has ended")?;
        let mut line = serde_json::to_string(value)?;
        line.push('\n');
        input.write_all(line.as_bytes()).context("a process of the load is gone")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Reads a line.
///
/// # Errors
/// When there is none, or it is of another kind.
pub(crate) fn read<T: DeserializeOwned>(input: &mut impl io::BufRead) -> anyhow::Result<T> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        bail!("the other side has ended");
    }
    Ok(serde_json::from_str(&line)?)
}

/// Runs the hidden subcommand `server-worker`: an echo server, until its input ends.
pub(crate) fn server_worker(args: &ChildArgs) -> anyhow::Result<()> {
    let mut input = BufReader::new(io::stdin());
    let plan: ServerPlan = read(&mut input)?;
    if plan.logs {
        ringwire::program::init_log();
    }
    let demand = Demand {
        payload_len: plan.payload_len,
        driver: args.driver,
        handshake_timeout: Some(plan.handshake_timeout),
        silence_limit: plan.silence_limit,
        max_memory: plan.max_memory,
        shares_port: plan.shares_port,
        compression: compression_of(plan.takeover),
        ..Demand::default()
    };
    let started = OwnServer::start(&plan.listen, &[], demand, plan.certificate);
    let told: Result<String, String> = match &started {
        Ok(own) => Ok(own.target().to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    write_line(&told)?;
    let _own = started?;
    for line in input.lines() {
        line?;
    }
    Ok(())
}

/// Writes a line to who started this process.
///
/// # Errors
/// When that is gone.
pub(crate) fn write_line(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    let mut output = io::stdout().lock();
    output.write_all(line.as_bytes())?;
    Ok(output.flush()?)
}
