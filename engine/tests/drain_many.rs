//! Ten thousand connections leave over a window, evenly: none is early, and few are late, as the machine may be busy.
//!
//! The clients are a process of their own, so that each end has its own limit of descriptors.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, wait, and look at the clock"
)]

#[expect(dead_code, reason = "the other programs use the rest")]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use ringwire::{CloseCode, CloseReason};
use ringwire_peers::{Client, frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use support::{PATIENCE, Server, config};

const COUNT: usize = 10_000;
const WINDOW: Duration = Duration::from_secs(8);
const RESTART: CloseCode = CloseCode::new(1012);
/// Where the clients find the server; they are clients if this is set.
const SERVER: &str = "RINGWIRE_TEST_SERVER";

#[test]
fn drain_many() {
    match std::env::var(SERVER) {
        Ok(address) => be_clients(address.parse().expect("it is an address")),
        Err(_) => drain_under_clients(),
    }
}

fn drain_under_clients() {
    let server = Server::start(config().with_io_workers(2), |app| app.without_messages());
    let myself = std::env::current_exe().expect("it has a name");
    // Room for the connections, and for what a process has beside them.
    let script = r#"ulimit -n 10100 && exec "$0" --exact drain_many --nocapture"#;
    let mut clients = Command::new("sh")
        .args(["-c", script])
        .arg(myself)
        .env(SERVER, server.addr().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut said = BufReader::new(clients.stdout.take().expect("it is a pipe")).lines();
    let mut hear = |what: &str| {
        let after = |line: String| Some(line.split_once(what)?.1.to_owned());
        said.by_ref().map_while(Result::ok).find_map(after).expect("the clients say so")
    };
    hear("connected");
    assert_eq!(server.stats().open_connections, COUNT as u64);

    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later");
    let draining = server.handle().drain(WINDOW, RESTART);
    let mut stdin = clients.stdin.take().expect("it is a pipe");
    writeln!(stdin, "{}", began.as_millis()).expect("they wait for it");
    drop(stdin);
    let tenths: Vec<usize> =
        hear("tenths").split_whitespace().map(|count| count.parse().expect("a number")).collect();
    let mut total = 0;
    for (number, count) in tenths.iter().enumerate() {
        total += count;
        let fair = COUNT / 10 * (number + 1);
        assert!(total <= fair + COUNT / 30, "too many after {} tenths: {tenths:?}", number + 1);
        assert!(total + COUNT / 5 >= fair, "too few after {} tenths: {tenths:?}", number + 1);
    }
    assert_eq!((tenths.len(), total), (10, COUNT));
    let report = draining.wait(PATIENCE).expect("all workers end");
    assert_eq!(report.connections, COUNT as u64);
    assert_eq!(report.closes[CloseReason::Shutdown], COUNT as u64);
    assert_eq!((report.cut_off.total(), report.unsent_len), (0, 0));
    assert!(clients.wait().expect("it is a child").success());
    server.join().expect("every worker ends well");
}

/// Connects, and says how many were closed in each tenth of the window, once it is told when that began.
fn be_clients(server: SocketAddr) {
    let mut streams: Vec<TcpStream> =
        (0..COUNT).map(|_| Client::connect(server).into_line().stream).collect();
    for stream in &streams {
        stream.set_nonblocking(true).expect("a socket can be that");
    }
    println!("connected");
    let mut word = String::new();
    std::io::stdin().read_to_string(&mut word).expect("the test says when");
    let began = Duration::from_millis(word.trim().parse().expect("a number"));
    let elapsed = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later");
        now.saturating_sub(began)
    };
    let expected = [&[0x88, 2][..], &RESTART.get().to_be_bytes()].concat();
    let mut tenths = [0_usize; 10];
    while !streams.is_empty() {
        assert!(elapsed() < WINDOW + PATIENCE, "{} were not closed", streams.len());
        for index in readable(&streams).into_iter().rev() {
            let mut bytes = [0; 16];
            let mut stream = streams.swap_remove(index);
            let len = stream.read(&mut bytes).expect("it is readable");
            assert_eq!(bytes[..len], expected, "a close frame, and nothing else");
            stream.write_all(&frame(0x88, &RESTART.get().to_be_bytes())).expect("there is room");
            let tenth = elapsed().as_millis() * 10 / WINDOW.as_millis();
            tenths[usize::try_from(tenth).map_or(9, |tenth| tenth.min(9))] += 1;
        }
    }
    println!("tenths {}", tenths.map(|count| count.to_string()).join(" "));
}

/// Which have something to read, in their order.
fn readable(streams: &[TcpStream]) -> Vec<usize> {
    let mut waiting: Vec<_> = streams.iter().map(|it| PollFd::new(it, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    poll(&mut waiting, Some(&limit)).expect("sockets can be polled");
    let ready = waiting.iter().enumerate().filter(|(_, it)| !it.revents().is_empty());
    ready.map(|(index, _)| index).collect()
}
