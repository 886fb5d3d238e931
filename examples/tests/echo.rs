//! How the echo server is configured, and how it gets along with a service manager.

#![expect(clippy::disallowed_types, reason = "tests own sockets")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use ringwire::CloseCode;
use ringwire::client::OwnedMessage;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything that must happen may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `echo --check`.
fn check(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_echo"))
        .arg("--check")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("it runs")
}

fn report(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = check(arguments, variables);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = check(arguments, variables);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).expect("it is text")
}

#[test]
fn flags_variables_and_file() {
    let dir = std::env::temp_dir().join(format!("ringwire-echo-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("there is room");
    let file = dir.join("echo.toml");
    fs::write(&file, "listen = ['127.0.0.1:1', '127.0.0.1:2']\nio_workers = 3\nmailbox_len = 9\n")
        .expect("there is room");
    let path = file.to_str().expect("it is text");
    let report = report(
        &["--io-workers", "2", "--set", "max_lifetime=1h"],
        &[("RINGWIRE_CONFIG", path), ("RINGWIRE_PIN", "none"), ("RINGWIRE_MAX_MESSAGE", "5MiB")],
    );
    for line in [
        format!("listen = \"127.0.0.1:1,127.0.0.1:2\" # {path}:1\n"),
        "io_workers = 2 # --io-workers\n".into(),
        format!("mailbox_len = 9 # {path}:3\n"),
        "max_lifetime = \"1h\" # --set\n".into(),
        "pinning = \"off\" # RINGWIRE_PIN\n".into(),
        "protocol.max_message_len = \"5MiB\" # RINGWIRE_MAX_MESSAGE\n".into(),
    ] {
        assert!(report.contains(&line), "{line}: {report}");
    }
    fs::remove_dir_all(dir).expect("it is ours");
}

#[test]
fn without_a_limit_on_silence_there_are_no_pings() {
    let variables = [("RINGWIRE_PONG_TIMEOUT", "3s")];
    let pings = report(&["--idle-timeout", "off"], &variables);
    assert!(pings.contains("ping_interval = \"off\" # --idle-timeout\n"), "{pings}");
    assert!(pings.contains("pong_timeout = \"3s\" # RINGWIRE_PONG_TIMEOUT\n"), "{pings}");
    let pings = report(&["--idle-timeout", "off", "--set", "ping_interval=5s"], &[]);
    assert!(pings.contains("ping_interval = \"5s\" # --set\n"), "{pings}");
}

#[test]
fn what_is_wrong_is_said() {
    assert!(refusal(&["--driver", "kqueue"], &[]).contains("--driver: driver can't be \"kqueue\""));
    assert!(refusal(&["--set", "io_worker=1"], &[]).contains("did you mean io_workers?"));
    let text = refusal(&[], &[("RINGWIRE_IDLE_TIMEUOT", "1s")]);
    assert!(text.contains("did you mean RINGWIRE_IDLE_TIMEOUT?"), "{text}");
    let text = refusal(&[], &[("RINGWIRE_FOO", "1")]);
    assert!(text.ends_with("there is no setting RINGWIRE_FOO\n"), "{text}");
    assert!(refusal(&["--config", "/nonexistent"], &[]).contains("cannot read /nonexistent"));
}

/// A service: the socket to listen on becomes descriptor 3, as a service manager has it.
struct Service(Child);

impl Service {
    fn start(listener: &TcpListener, variables: &[(&str, &str)]) -> Self {
        let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$0\" --listen inherited:echo --io-workers 1 \
            --pin none --driver epoll";
        let listener = OwnedFd::from(listener.try_clone().expect("there is room"));
        let child = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_echo")])
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "echo")
            .envs(variables.iter().copied())
            .stdin(listener)
            .stdout(Stdio::null())
            .spawn()
            .expect("there is a shell");
        Self(child)
    }

    fn terminate(&self) {
        let id = Pid::from_child(&self.0);
        kill_process(id, Signal::TERM).expect("it is ours");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already, or the test has failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn echo(url: &str) -> Result<(), ringwire::client::Error> {
    let mut client = ringwire::client::connect(url)?;
    client.send_text("hello")?;
    assert_eq!(client.receive()?, Some(OwnedMessage::from("hello")));
    client.close(CloseCode::NORMAL, "")
}

#[test]
fn a_service_is_restarted_and_nobody_is_refused() {
    let name = format!("ringwire-echo-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name"))
        .expect("nobody else has it");
    manager.set_read_timeout(Some(PATIENCE)).expect("it is a time");
    let until = |text: &str| loop {
        let mut buffer = [0; 64];
        let len = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{text}: {error}"));
        if buffer[..len] == *text.as_bytes() {
            return;
        }
    };
    let address = format!("@{name}");
    let variables = [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "200000")];

    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let url = format!("ws://{}", listener.local_addr().expect("it has an address"));
    // Who comes before the service waits for it.
    let early = thread::spawn({
        let url = url.clone();
        move || echo(&url)
    });
    let mut first = Service::start(&listener, &variables);
    until("READY=1");
    until("WATCHDOG=1");
    early.join().expect("it does not panic").expect("it is served");
    echo(&url).expect("it is served");
    first.terminate();
    until("STOPPING=1");
    assert!(first.0.wait().expect("it is ours").success());
    let between = thread::spawn({
        let url = url.clone();
        move || echo(&url)
    });
    let _second = Service::start(&listener, &variables);
    until("READY=1");
    between.join().expect("it does not panic").expect("it is served by the next");
    echo(&url).expect("it is served");
}

// Without a service manager

/// A process beside those that were started before it, or in their place.
struct Successive {
    child: Child,
    /// Read for as long as it runs.
    _stdout: BufReader<ChildStdout>,
    url: String,
}

impl Successive {
    fn start(path: &Path) -> Self {
        let path = path.to_str().expect("it is text");
        Self::start_with(&["--listen", "127.0.0.1:0", "--drain", "200ms", "--takeover", path])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_echo"))
            .args(["--io-workers", "2", "--pin", "none"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
        stdout.read_line(&mut line).expect("it says where it listens");
        let url = line.trim().strip_prefix("listening on ").expect("it says nothing else");
        Self { url: url.to_owned(), child, _stdout: stdout }
    }
}

impl Drop for Successive {
    fn drop(&mut self) {
        // It has ended already, or the test is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel takes a moment to close the sockets of a process that was killed, if it used io_uring.
#[test]
fn a_server_that_was_killed_is_started_again_at_once() {
    let dir = std::env::temp_dir().join(format!("ringwire-killed-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("there is room");
    let path = dir.join("echo.sock");
    let unix = format!("unix:{}", path.display());
    for driver in ["epoll", "uring"] {
        let mut address = format!("{}:0", ringwire_peers::own_loopback());
        for _ in 0..4 {
            let server = Successive::start_with(&[
                "--listen", &address, "--listen", &unix, "--driver", driver,
            ]);
            let clients: Vec<_> = (0..20).map(|_| ringwire::client::connect(&server.url)).collect();
            assert!(clients.iter().all(Result::is_ok), "{driver}");
            echo(&format!("ws+{unix}")).expect("it is served");
            address = server.url[5..].to_owned();
            // Killed (SIGKILL), and waited for.
            drop(server);
        }
    }
    fs::remove_dir_all(dir).expect("it is ours");
}

#[test]
fn a_second_server_on_a_port_says_why_it_ends() {
    let first = Successive::start_with(&["--listen", "127.0.0.1:0"]);
    let address = &first.url[5..];
    let arguments = ["--listen", address, "--set", "listen_timeout=0"];
    let second = Command::new(env!("CARGO_BIN_EXE_echo")).args(arguments).output();
    let second = second.expect("it runs");
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("another process uses that port"), "{text}");
    assert!(text.contains("exclusive = false"), "{text}");
    // Neither shares with the other alone.
    let both = ["--listen", "127.0.0.1:0", "--set", "exclusive=false"];
    let first = Successive::start_with(&both);
    let second = Successive::start_with(&["--listen", &first.url[5..], "--set", "exclusive=false"]);
    assert_eq!(second.url, first.url);
}

#[test]
fn a_new_version_takes_over() {
    let dir = std::env::temp_dir().join(format!("ringwire-takeover-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("there is room");
    let path = dir.join("echo.sock");
    let mut current = Successive::start(&path);
    let url = current.url.clone();
    for _ in 0..3 {
        let mut stays = ringwire::client::connect(&url).expect("it is served");
        stays.send_text("hello").expect("it is open");
        assert_eq!(stays.receive().expect("it is open"), Some(OwnedMessage::from("hello")));
        let next = Successive::start(&path);
        assert_eq!(next.url, url, "the same socket");
        match stays.receive() {
            Err(ringwire::client::Error::Closed { code, .. }) => assert_eq!(code.get(), 1012),
            other => panic!("{other:?} where a close frame was expected"),
        }
        assert!(current.child.wait().expect("it is ours").success(), "the old one ends by itself");
        echo(&url).expect("it is served");
        current = next;
    }
    drop(current);
    fs::remove_dir_all(dir).expect("it is ours");
}
