//! A process that runs out of descriptors: accepting rests and goes on, nobody who is connected is hurt, and no
//! core is burnt.
//!
//! The limit is one of the process, so the test runs itself again in a process of its own, under a lower limit.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, wait, and look at the clock"
)]

#[expect(dead_code, reason = "the other programs use the rest")]
mod support;

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ringwire_peers::{Client, Got, plain_request};

use support::{Server, config, ms, wait_until};

const LIMITED: &str = "RINGWIRE_TEST_LIMITED";

#[test]
fn fd_exhaustion() {
    if std::env::var_os(LIMITED).is_some() {
        return with_few_descriptors();
    }
    let myself = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -n 64 && exec "$0" --exact fd_exhaustion --nocapture"#])
        .arg(myself)
        .env(LIMITED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
}

/// The time that this process has run for, on all cores. Holds its file open, for when no other can be opened.
struct CpuTime(File);

impl CpuTime {
    fn new() -> Self {
        Self(File::open("/proc/self/stat").expect("procfs is there"))
    }

    /// User and system time, in steps of 10 ms.
    fn get(&self) -> Duration {
        const TICK: Duration = Duration::from_millis(10);
        let mut stat = [0; 1024];
        let len = self.0.read_at(&mut stat, 0).expect("procfs can be read");
        let stat = String::from_utf8_lossy(&stat[..len]);
        // The name may have spaces in it; behind it, the times are fields 14 and 15 of all (proc(5)).
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
        let times = fields.split(' ').skip(11).take(2);
        times.map(|ticks| TICK * ticks.parse::<u32>().expect("a number")).sum()
    }
}

/// Everything that is left, but `spare`.
fn take_descriptors(spare: usize) -> Vec<File> {
    let mut files: Vec<File> =
        std::iter::from_fn(|| File::open("/dev/null").ok()).take(10_000).collect();
    files.truncate(files.len() - spare);
    files
}

fn with_few_descriptors() {
    let cpu_time = CpuTime::new();
    let server = Server::echo(config().with_max_connections(1000));
    let mut early = server.client();
    early.send("before");
    assert_eq!(early.text(), "before");

    // One is left for the client's own end: the kernel connects it, and the server can't take it.
    let files = take_descriptors(1);
    let waiting = TcpStream::connect(server.addr()).expect("the kernel connects it");
    wait_until("accepting fails", || server.stats().accept_failures > 0);
    early.send("meanwhile");
    assert_eq!(early.text(), "meanwhile", "who is connected is served");

    let (began, cpu_before, turns_before) = (Instant::now(), cpu_time.get(), server.stats().turns);
    for _ in 0..10 {
        thread::sleep(ms(100));
        early.send("still");
        assert_eq!(early.text(), "still");
    }
    let (pause, cpu) = (began.elapsed(), cpu_time.get() - cpu_before);
    assert!(cpu < pause / 4, "{cpu:?} of {pause:?}");
    let turns = server.stats().turns - turns_before;
    assert!(turns < 200, "{turns} turns");
    let failures = server.stats().accept_failures;
    assert!((2..30).contains(&failures), "it tries again now and then: {failures}");

    // There is room again: the one that waits gets in by itself.
    drop(files);
    waiting.set_read_timeout(Some(support::PATIENCE)).expect("a time above zero");
    let mut late = Client::upgrade(waiting, &plain_request());
    late.send("after");
    assert_eq!(late.next(), Got::Text("after".into()));
    early.send("all the time");
    assert_eq!(early.text(), "all the time");
    assert_eq!(server.stats().accepts, 2);
}
