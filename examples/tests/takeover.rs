//! What becomes of a server when the one that takes over dies, hangs, or is one of many.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, and wait"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::CloseCode;
use ringwire::client::OwnedMessage;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything that must happen may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
const DRIVERS: [&str; 2] = ["epoll", "uring"];

/// A directory for a takeover's socket.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ringwire-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("there is room");
        Self(dir)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("takeover.sock")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What is left of it does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    url: String,
}

impl Process {
    /// Starts `echo`, and waits until it listens.
    fn start(driver: &str, socket: &Path, arguments: &[&str]) -> Self {
        let mut process = Self::begin(driver, socket, arguments);
        let line = process.until("listening");
        let (_, url) = line.split_once("ws://").expect("it says where");
        let port: String = url.chars().take_while(|it| *it != '"').collect();
        process.url = format!("ws://{port}");
        process
    }

    fn begin(driver: &str, socket: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_echo"))
            .args(["--io-workers", "2", "--pin", "none", "--driver", driver, "--takeover"])
            .arg(socket)
            .args(arguments)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("it is a pipe"));
        Self { child, log, url: String::new() }
    }

    /// The next line of its log that has this text.
    fn until(&mut self, text: &str) -> String {
        let mut all = String::new();
        loop {
            let start = all.len();
            let len = self.log.read_line(&mut all).expect("it is text");
            assert!(len > 0, "it ended without \"{text}\": {all}");
            if all[start..].contains(text) {
                return all[start..].to_owned();
            }
        }
    }

    /// How it ends, and the rest of its log.
    fn end(&mut self) -> (bool, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("it is text");
        (self.child.wait().expect("it is ours").success(), rest)
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    fn terminate(&self) {
        let id = Pid::from_child(&self.child);
        kill_process(id, Signal::TERM).expect("it is ours");
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, or the test is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that has been answered.
fn client(url: &str) -> ringwire::client::Client {
    let builder = ringwire::client::Client::builder().with_read_timeout(PATIENCE);
    let mut client = builder.connect(url).unwrap_or_else(|error| panic!("{url}: {error}"));
    client.send_text("hello").expect("it is open");
    assert_eq!(client.receive().expect("it is open"), Some(OwnedMessage::from("hello")));
    client
}

fn echo(url: &str) {
    client(url).close(CloseCode::NORMAL, "").expect("it is open");
}

/// It keeps its sockets until its drain ends, so who comes meanwhile waits and is served.
#[test]
fn a_server_whose_successor_dies_goes_on() {
    for driver in DRIVERS {
        let site = Site::new(&format!("died-{driver}"));
        let arguments = ["--listen", "127.0.0.1:0", "--drain", "20s"];
        let mut first = Process::start(driver, &site.socket(), &arguments);
        let url = first.url.clone();
        // Several times: one that has gone on is as good as new.
        for round in 0..3 {
            let _stay: Vec<_> = (0..10).map(|_| client(&url)).collect();
            let mut second = Process::start(driver, &site.socket(), &arguments);
            assert_eq!(second.url, url);
            first.until("this server drains");
            second.kill();
            first.until("accepts connections again");
            for _ in 0..20 {
                echo(&url);
            }
            assert!(first.is_alive(), "{driver} {round}");
        }
        // And can be replaced.
        let last =
            Process::start(driver, &site.socket(), &["--listen", &url[5..], "--drain", "1s"]);
        first.until("this server drains");
        echo(&last.url);
        first.terminate();
        assert!(first.end().0);
        echo(&last.url);
    }
}

/// A successor that is told to end takes the server with it: nobody accepts again.
#[test]
fn a_successor_that_ends_in_good_order_is_not_replaced_by_the_old_server() {
    for driver in DRIVERS {
        let site = Site::new(&format!("left-{driver}"));
        let arguments = ["--listen", "127.0.0.1:0", "--drain", "60s"];
        let mut first = Process::start(driver, &site.socket(), &arguments);
        let stays = client(&first.url);
        let mut second = Process::start(driver, &site.socket(), &arguments);
        first.until("this server drains");
        second.terminate();
        assert!(second.end().0);
        let address = first.url[5..].to_owned();
        let began = Instant::now();
        while std::net::TcpStream::connect(&address).is_ok() {
            assert!(began.elapsed() < PATIENCE, "the sockets are given up: {driver}");
        }
        assert!(first.is_alive(), "it drains: {driver}");
        drop(stays);
        let (success, log) = first.end();
        assert!(success && !log.contains("accepts connections again"), "{log}");
    }
}

/// One that has the sockets and never says that it is ready holds up nobody, and is refused when it does.
#[test]
fn a_successor_that_hangs_does_not_stand_in_the_way() {
    let site = Site::new("hung");
    let arguments = ["--listen", "127.0.0.1:0", "--drain", "100ms"];
    let mut first = Process::start("epoll", &site.socket(), &arguments);
    let mut hung = UnixStream::connect(site.socket()).expect("it can be asked");
    hung.set_read_timeout(Some(PATIENCE)).expect("it is a time");
    // The sockets, which come with these bytes.
    let mut head = [0; 8];
    hung.read_exact(&mut head).expect("it answers");
    let began = Instant::now();
    let second = Process::start("uring", &site.socket(), &arguments);
    let line = first.until("did not say that it is ready");
    assert!(line.contains(&format!("pid={}", std::process::id())), "{line}");
    first.until("this server drains");
    assert!(began.elapsed() < Duration::from_secs(9), "nobody waits for it");
    assert!(first.end().0);
    let mut word = [0; 6];
    hung.read_exact(&mut word).expect("it is told");
    assert_eq!(&word, b"other\n");
    echo(&second.url);
}

/// Of processes that start at once where one has left its file behind, one is left in the end, and the others have
/// ended.
#[test]
fn of_servers_that_start_at_once_one_serves() {
    for driver in DRIVERS {
        let site = Site::new(&format!("race-{driver}"));
        // Of this process alone: whoever takes any port of the loopback meanwhile does so at another address.
        let own = ringwire_peers::own_loopback();
        let free = std::net::TcpListener::bind((own, 0)).expect("there is a port");
        let address = free.local_addr().expect("it has one").to_string();
        drop(free);
        for _ in 0..3 {
            drop(UnixListener::bind(site.socket()).expect("it was removed"));
            let arguments = ["--listen", &address, "--drain", "50ms"];
            let mut all: Vec<_> =
                (0..4).map(|_| Process::begin(driver, &site.socket(), &arguments)).collect();
            let began = Instant::now();
            loop {
                let alive = all.iter_mut().filter_map(|it| it.is_alive().then_some(())).count();
                assert!(alive > 0, "nobody serves");
                if alive == 1 {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{alive} are left: {driver}");
                thread::sleep(Duration::from_millis(10));
            }
            echo(&format!("ws://{address}"));
            for process in &mut all {
                process.kill();
            }
            std::fs::remove_file(site.socket()).expect("the last one leaves it");
        }
    }
}
