//! Programs as processes.

use std::env;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::wait_until;

/// A process that listens. It does not outlive the test.
#[derive(Debug)]
pub struct Process {
    child: Child,
    addr: SocketAddr,
}

impl Process {
    /// Starts a program, and waits until something listens at `addr`. What it writes to its standard output is lost.
    ///
    /// # Panics
    ///
    /// If it does not start, ends, or does not listen within [`PATIENCE`](crate::PATIENCE).
    pub fn start(command: &mut Command, addr: SocketAddr) -> Self {
        let child = command.stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut process = Self { child, addr };
        wait_until("it listens", || {
            let ended = process.child.try_wait().expect("it is a child");
            assert_eq!(ended, None, "{command:?}");
            TcpStream::connect(addr).is_ok()
        });
        process
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The process itself: to send it signals, say.
    #[must_use]
    pub const fn child(&self) -> &Child {
        &self.child
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    ///
    /// If the system says that it is no child of this one.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it is a child")
    }

    /// Kills it, and returns when it has ended.
    ///
    /// # Panics
    ///
    /// If the system says that it is no child of this one.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is a child");
        self.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that an environment variable names, as the script of the test sets it.
///
/// # Panics
///
/// If the variable is not set.
#[must_use]
pub fn program_in(variable: &str, script: &str) -> Command {
    let program = env::var_os(variable);
    Command::new(program.unwrap_or_else(|| panic!("{variable} is not set: run {script}")))
}

/// An address of this machine at which nothing listens.
///
/// # Panics
///
/// If there are no ports left.
#[must_use]
pub fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    listener.local_addr().expect("it listens")
}
