//! Programs as processes.

use std::env;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram};
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

/// An address of the loopback that is this process's own: nobody else takes a port there while its server is away.
#[must_use]
pub fn own_loopback() -> Ipv4Addr {
    let [.., high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, middle, low)
}

/// Ports below those that the kernel gives to clients (`ip_local_port_range`): none of them takes one meanwhile.
const FREE_PORTS: Range<u16> = 10_000..30_000;

/// An address of this machine at which nothing listens. No other call is given it, in any process, while this one runs.
///
/// # Panics
///
/// If there are no ports left.
#[must_use]
pub fn free_addr() -> SocketAddr {
    let mut ports = FREE_PORTS.filter_map(|port| {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let claim = claim(port)?;
        TcpListener::bind(addr).ok()?;
        // Until the process ends.
        mem::forget(claim);
        Some(addr)
    });
    ports.next().expect("there are ports")
}

/// A socket with the port in its name, which the kernel gives to one process alone.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = format!("ringwire-test-port-{port}");
    let name = unix::SocketAddr::from_abstract_name(name).expect("a short name");
    UnixDatagram::bind_addr(&name).ok()
}
