//! A server under comparison: a child process on its own CPUs that never outlives its run.
#![expect(unsafe_code, reason = "a child is set up between fork and exec")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "waits for a server to listen, by connecting to it"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::servers::{Placement, Server};
use crate::machine;

/// Time for a server to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Starts of a server, each on another port.
const TRIES: u32 = 3;

/// A running server. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    /// Starts `server` on `cpus`, with a certificate and key if it speaks TLS, and waits until it listens.
    pub(crate) fn start(
        server: &Server,
        cpus: &[usize],
        certificate: Option<&(PathBuf, PathBuf)>,
    ) -> anyhow::Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            let address = free_address().context("no free port")?;
            match Self::start_at(address, server, cpus, certificate) {
                // Somebody else may have taken the port meanwhile.
                Err(_) if tries < TRIES => {}
                done => return done,
            }
        }
    }

    fn start_at(
        address: SocketAddr,
        server: &Server,
        cpus: &[usize],
        certificate: Option<&(PathBuf, PathBuf)>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(&server.program);
        command.args(server.arguments(&Placement { address, cpus, certificate }));
        // What it starts itself ends with it.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let cpus = cpus.to_vec();
        // SAFETY: the closure makes two system calls and allocates only when the first one fails.
        unsafe {
            command.pre_exec(move || {
                machine::pin_thread(&cpus)?;
                machine::die_with_parent()
            });
        }
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut running = Self { child, address };
        running.wait_until_ready().with_context(|| format!("{}: {command:?}", server.name))?;
        Ok(running)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while !is_listened_on(self.address) {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at once with {status}");
            }
            if started.elapsed() > START_TIMEOUT {
                bail!("it does not listen on {} after {START_TIMEOUT:?}", self.address);
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fail only if it is gone already.
        machine::kill_group(&self.child);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody listens there. A port that is nobody's may be given to the connection itself, which then succeeds.
fn is_listened_on(address: SocketAddr) -> bool {
    TcpStream::connect(address)
        .and_then(|stream| Ok(stream.local_addr()? != address))
        .unwrap_or_default()
}

/// An address that nobody listens on.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(program: &str, args: &[&str]) -> Server {
        Server {
            name: "test".to_owned(),
            program: program.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            raw: true,
            secure: false,
            path: "/".to_owned(),
        }
    }

    #[test]
    fn server_that_ends_at_once_is_told() {
        let error =
            Running::start(&server("/bin/sh", &["-c", "exit 3"]), &[0], None).err().unwrap();
        let text = format!("{error:#}");
        assert!(text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn missing_program_is_told() {
        let error = Running::start(&server("/nowhere/echo", &[]), &[0], None).err().unwrap();
        assert!(format!("{error:#}").contains("/nowhere/echo"));
    }
}
