//! Bursts of what is never finished, as hostile peers have them: the process stays within its budget, whoever comes
//! next is let in, and afterwards the memory goes back.
//!
//! The server is this program once more, since what is measured is a process.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, and read what another process reports"
)]

#[expect(dead_code, reason = "the other programs use the rest")]
mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ServerSettings};
use ringwire::{Config, Running, Server, Sizing};
use ringwire_peers::{connect, masked, request};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{PATIENCE, config, ms, wait_until};

const MIB: usize = 1 << 20;
const BUDGET: &str = "RINGWIRE_TEST_BUDGET";
/// Numbers of workers. Where there are two, each of them sees late what the other one holds.
const NUMBERS: [usize; 2] = [1, 2];
const WORKERS: &str = "RINGWIRE_TEST_WORKERS";
/// How long newcomers may be kept out.
const SOON: Duration = Duration::from_secs(2);

/// Bursts get the machine for themselves.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("it is allowed");
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server's side: serves until its input ends, where the environment says with how much memory.
#[test]
fn serves_where_it_is_told_to() {
    let Ok(budget) = std::env::var(BUDGET) else { return };
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let certificates = CertificateSource::pem(
        key.cert.pem().as_bytes(),
        key.signing_key.serialize_pem().as_bytes(),
    );
    let settings = ServerSettings::new(certificates);
    let tls = settings.build(UnixTime::now()).expect("they are settings");
    // 0: what the process may have.
    let budget = match budget.parse().expect("a number") {
        0 => Sizing::Auto,
        len => Sizing::Fixed(len),
    };
    let workers: usize = std::env::var(WORKERS).expect("it is set").parse().expect("a number");
    let config: Config = config().with_max_memory(budget).with_io_workers(workers);
    let running: Running = Server::new(config)
        .listen("127.0.0.1:0")
        .listen_tls("127.0.0.1:0", tls)
        .start(|_| ringwire::on_message(|ctx, message| ctx.send(message)))
        .expect("the server starts");
    let [plain, tls] = running.local_addrs() else { panic!("there are two listeners") };
    println!("\nlistening {plain} {tls}");
    let _ = std::io::stdin().read(&mut [0]);
    running.handle().shutdown(Duration::ZERO);
    running.join().expect("it ends");
}

/// A server in a process of its own.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    /// Kept, so that its harness can go on to speak.
    _output: BufReader<ChildStdout>,
    plain: SocketAddr,
    tls: SocketAddr,
    budget: usize,
}

impl Process {
    fn start(budget: usize, workers: usize) -> Self {
        let command = Command::new(std::env::current_exe().expect("it runs"));
        Self::run(budget, workers, command)
    }

    /// A server with so much address space, which is all that it knows of its budget.
    fn start_within(address_space: usize) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {} && exec \"$0\" \"$@\"", address_space >> 10)]);
        command.arg(std::env::current_exe().expect("it runs"));
        Self::run(0, 1, command)
    }

    fn run(budget: usize, workers: usize, mut command: Command) -> Self {
        let mut child = command
            .args(["--exact", "serves_where_it_is_told_to", "--nocapture", "--test-threads=1"])
            .env(BUDGET, budget.to_string())
            .env(WORKERS, workers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs once more");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut lines = output.by_ref().lines().map_while(Result::ok);
        let line = lines.find_map(|line| Some(line.strip_prefix("listening ")?.to_owned()));
        let line = line.expect("the server says where it listens");
        let (plain, tls) = line.split_once(' ').expect("there are two addresses");
        let addr = |text: &str| text.parse().expect("it is an address");
        let (plain, tls) = (addr(plain), addr(tls));
        Self { child, input, _output: output, plain, tls, budget }
    }

    /// A line of proc_pid_status(5), in bytes.
    fn status(&self, name: &str) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("the server runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("it has that line");
        kib.parse::<usize>().expect("a number") << 10
    }

    fn resident_len(&self) -> usize {
        self.status("VmRSS:")
    }

    /// The most that was ever resident, but for the program's file, is what the budget and the rest of it are worth.
    /// The 8 MiB that a server may have beside five quarters of its budget are half file, in a release build.
    fn assert_within_budget(&self, what: &str) {
        let (peak, most) = (self.status("VmHWM:"), self.budget / 4 * 5 + 4 * MIB);
        let peak = peak - self.status("RssFile:");
        assert!(peak <= most, "{what}: {peak} bytes were resident, and {most} are the most");
    }

    /// Newcomers are let in, if not at once then in time.
    fn assert_lets_in(&self, patience: Duration, what: &str) {
        let deadline = Instant::now() + patience;
        for _ in 0..10 {
            while !self.is_let_in() {
                assert!(Instant::now() < deadline, "{what}: others are kept out");
                std::thread::sleep(ms(20));
            }
        }
    }

    fn is_let_in(&self) -> bool {
        let answer = ask(&mut connect(self.plain));
        assert!(answer.starts_with("HTTP/1.1 101 ") || answer.starts_with("HTTP/1.1 503 "));
        answer.starts_with("HTTP/1.1 101 ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Sends a request for a WebSocket, and reads the head of the answer.
fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(request().as_bytes()).expect("it goes");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("there is an answer");
        head.extend(byte);
    }
    String::from_utf8(head).expect("it is text")
}

/// Many peers that begin the same, as fast as it goes. They stay.
fn burst(addr: SocketAddr, count: usize, beginning: &[u8]) -> Vec<TcpStream> {
    (0..count).map(|_| begin(connect(addr), beginning)).collect()
}

/// Writes what the socket takes. The server may have ended the connection already.
fn begin(mut stream: TcpStream, beginning: &[u8]) -> TcpStream {
    stream.set_nonblocking(true).expect("a socket");
    let mut rest = beginning;
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(len) => rest = &rest[len..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    stream
}

/// Peers whose connections are open, and the same of each.
fn open_burst(addr: SocketAddr, count: usize, beginning: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = connect(addr);
        let answer = ask(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        stream
    };
    let opened: Vec<_> = (0..count).map(open).collect();
    opened.into_iter().map(|stream| begin(stream, beginning)).collect()
}

/// A request without its end.
fn head(len: usize) -> Vec<u8> {
    let lines = "a".repeat(4000).into_bytes();
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    while head.len() < len {
        head.extend_from_slice(b"X: ");
        let rest = len.saturating_sub(head.len());
        head.extend_from_slice(&lines[..rest.min(lines.len())]);
        head.extend_from_slice(b"\r\n");
    }
    head.truncate(len);
    head
}

/// A ClientHello without its end (RFC 8446 §4.1.2), in records (§5.1).
fn hello(len: usize) -> Vec<u8> {
    let hello = [&[1, 0, 0xff, 0xf0, 3, 3][..], &vec![0; len]].concat();
    let record = |piece: &[u8]| {
        let len = u16::try_from(piece.len()).expect("it is a record").to_be_bytes();
        [&[22, 3, 1][..], &len, piece].concat()
    };
    hello.chunks(16 << 10).flat_map(record).take(len).collect()
}

/// A burst at servers with one worker and with several: each stays within its budget, and lets others in in time.
fn check(
    what: &str,
    budget: usize,
    patience: [Duration; NUMBERS.len()],
    burst: impl Fn(&Process) -> Vec<TcpStream>,
) {
    let _alone = alone();
    for (workers, patience) in NUMBERS.into_iter().zip(patience) {
        let server = Process::start(budget, workers);
        let peers = burst(&server);
        server.assert_lets_in(patience, what);
        server.assert_within_budget(what);
        drop(peers);
    }
}

#[test]
fn heads_without_an_end() {
    let heads = |server: &Process| burst(server.plain, 4000, &head(16_000));
    check("heads of 16 KB", 16 * MIB, [SOON; 2], heads);
}

#[test]
fn heads_that_have_just_begun() {
    let heads = |server: &Process| burst(server.plain, 4000, &head(400));
    check("half heads", 4 * MIB, [SOON; 2], heads);
}

#[test]
fn hellos_without_an_end() {
    let hellos = |server: &Process| burst(server.tls, 1500, &hello(64 << 10));
    check("unfinished ClientHellos", 16 * MIB, [SOON; 2], hellos);
}

#[test]
fn messages_without_an_end() {
    let message = |len| masked(0x82, MIB as u64, &vec![7; len]);
    let fragment = masked(0x02, 3900, &[7; 3900]);
    // Unlike a request, what has begun may keep others out for five seconds, where it is less than all of the budget.
    let late = Duration::from_secs(8);
    for (what, count, beginning, patience) in [
        ("messages", 600, message(500_000), [SOON, late]),
        ("beginnings of messages", 4000, message(64 << 10), [late; 2]),
        ("fragments", 4000, fragment, [SOON, late]),
    ] {
        check(what, 16 * MIB, patience, |server| open_burst(server.plain, count, &beginning));
    }
}

/// RLIMIT_AS, setrlimit(2): an allocation beyond it would end the process.
#[test]
fn an_address_space_is_enough_whatever_it_is() {
    let _alone = alone();
    let beginning = masked(0x82, MIB as u64, &vec![7; 900_000]);
    for address_space in [300, 500] {
        let server = Process::start_within(address_space * MIB);
        let peers = burst(server.plain, 2000, &head(16_000));
        let fat = open_burst(server.plain, address_space, &beginning);
        assert!(server.resident_len() < address_space * MIB);
        drop((peers, fat));
        // What the kernel has of them is read first.
        wait_until("others are let in", || server.is_let_in());
    }
}

/// What bursts took does not stay with the allocator.
#[test]
fn memory_goes_back_after_bursts() {
    let _alone = alone();
    let server = Process::start(64 * MIB, 1);
    let before = server.resident_len();
    for _ in 0..2 {
        let peers = burst(server.plain, 2000, &head(16_000));
        let fat = open_burst(server.plain, 10, &masked(0x82, MIB as u64, &vec![7; 900_000]));
        assert!(server.is_let_in());
        assert!(server.resident_len() > before + 24 * MIB, "{} bytes", server.resident_len());
        drop((peers, fat));
    }
    // Silence. Free buffers of all kinds may stay, and the tables of connections.
    let deadline = Instant::now() + PATIENCE;
    while server.resident_len() > before + 6 * MIB {
        assert!(Instant::now() < deadline, "{} of {before}", server.resident_len());
        std::thread::sleep(ms(100));
    }
    assert!(server.is_let_in());
}
