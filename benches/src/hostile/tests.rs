//! The peers against Ringwire's own server, and against servers that do not stand them.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "blocking servers are the simplest bad ones, and one of them rests"
)]

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use ringwire_examples::CompressionFlag;

use super::report::Verdict;
use super::*;
use crate::flags::parse;
use crate::own_server::OwnServer;

fn play(flags: &str) -> Report {
    run(&parse(flags).unwrap()).unwrap()
}

/// How long a server has patience with those that say nothing.
const IMPATIENT: Duration = Duration::from_secs(3);
/// The same among floods: a bystander whose pong comes late, since all of the machine is busy, is none of those.
const PATIENT: Duration = Duration::from_secs(10);

/// Ringwire's own, in this process, and the flags that name it.
fn own_server(
    driver: DriverFlag,
    secure: bool,
    patience: Duration,
) -> (OwnServer, String, tempfile::TempDir) {
    let demand = Demand {
        driver,
        compression: CompressionFlag::Shared,
        handshake_timeout: Some(patience),
        silence_limit: Some(patience),
        ..Demand::default()
    };
    let certificate = secure.then(|| OwnServer::make_certificate().unwrap());
    let own = OwnServer::start("127.0.0.1:0", &[], demand, certificate).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut flags = own.target().to_string();
    if let Some(pem) = own.certificate() {
        let file = dir.path().join("cert.pem");
        std::fs::write(&file, pem).unwrap();
        flags += &format!(" --ca {}", file.display());
    }
    (own, flags, dir)
}

/// What a bad server does with the first peer that violates the protocol.
#[derive(Clone, Copy, PartialEq)]
enum Bad {
    /// It closes its listener and all connections.
    Dies,
    /// It answers nobody any more.
    Hangs,
    /// It goes on as if nothing had been.
    GoesOn,
    /// It takes memory that it keeps.
    Hoards,
    /// It ends the peer, but everyone waits meanwhile.
    Dawdles,
}

/// An echo server with a thread for each connection, which is bad.
fn bad_server(bad: Bad) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let is_hit = Arc::new(AtomicBool::new(false));
    let all = Arc::new(Mutex::new(Vec::new()));
    let hoard = Arc::new(Mutex::new(Vec::new()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            if bad == Bad::Dies && is_hit.load(Ordering::Relaxed) {
                // The end of the loop is that of the listener.
                break;
            }
            let stream = stream.unwrap();
            all.lock().unwrap().push(stream.try_clone().unwrap());
            let (is_hit, all, hoard) = (Arc::clone(&is_hit), Arc::clone(&all), Arc::clone(&hoard));
            thread::spawn(move || {
                let mut rest = stream.try_clone().unwrap();
                if !serve(stream, bad, &is_hit, &hoard) {
                    return;
                }
                match bad {
                    Bad::Dies => {
                        is_hit.store(true, Ordering::Relaxed);
                        for stream in all.lock().unwrap().drain(..) {
                            let _ = stream.shutdown(std::net::Shutdown::Both);
                        }
                        // The listener wakes up.
                        let _ = TcpStream::connect(address);
                    }
                    Bad::GoesOn => while rest.read(&mut [0; 1024]).is_ok_and(|len| len > 0) {},
                    Bad::Hangs | Bad::Hoards | Bad::Dawdles => {}
                }
            });
        }
    });
    address
}

/// Echoes; whether the peer violated the protocol, rather than to go.
fn serve(stream: TcpStream, bad: Bad, is_hit: &AtomicBool, hoard: &Mutex<Vec<u8>>) -> bool {
    let Ok(mut socket) = tungstenite::accept(stream) else { return false };
    loop {
        let message = socket.read();
        if bad == Bad::Hangs && is_hit.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(60));
        }
        match message {
            Ok(message) if message.is_text() => {
                if bad == Bad::Dawdles && is_hit.swap(false, Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1300));
                }
                if socket.send(message).is_err() {
                    return false;
                }
            }
            Ok(_) => {}
            Err(tungstenite::Error::Protocol(_)) => {
                if bad == Bad::Hoards {
                    hoard.lock().unwrap().extend_from_slice(&vec![7; 80 << 20]);
                }
                is_hit.store(bad != Bad::Dies, Ordering::Relaxed);
                return true;
            }
            Err(_) => return false,
        }
    }
}

fn play_bad(bad: Bad, flags: &str) -> Report {
    // Long enough for a machine that is busy, and short for a server that never answers.
    let timeout = if bad == Bad::Hangs { "2s" } else { "30s" };
    let pid = std::process::id();
    play(&format!(
        "ws://{} --server-pid {pid} --peers 2 --time-limit 4s --bystander-timeout {timeout} --only {flags}",
        bad_server(bad)
    ))
}

/// Those who wait for the server to end them, or for their time limit.
const WAITING: [Kind; 5] =
    [Kind::Silent, Kind::SlowHead, Kind::SlowFrame, Kind::HalfOpen, Kind::SlowReader];

#[test]
fn ringwire_ends_those_who_have_to_be() {
    for driver in [DriverFlag::Epoll, DriverFlag::Uring] {
        let play = |limit: &str, waits: bool| {
            let patience = if waits { IMPATIENT } else { PATIENT };
            let (_own, flags, _dir) = own_server(driver, false, patience);
            let kinds =
                Kind::value_variants().iter().filter(|kind| WAITING.contains(kind) == waits);
            let names: Vec<_> = kinds.map(|kind| kind.name()).collect();
            let only = names.join(",");
            let report = play(&format!(
                "{flags} --peers 3 --time-limit {limit} --bystander-timeout 60s --only {only}"
            ));
            assert_eq!(report.rows.len(), names.len());
            check_stood(&report);
            report
        };
        let slow = play("12s", true);
        let slow = serde_json::to_value(&slow.rows[4]).unwrap();
        // It stops taking what waits to be sent back.
        assert_eq!(slow["kind"], "slow-reader");
        assert!(slow["sent_bytes"].as_u64() < Some(180 << 20), "{slow}");
        let report = play("60s", false);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["question"], "message");
        let ended = |name: &str, how: &str| {
            let rows = json["rows"].as_array().unwrap();
            let row = rows.iter().find(|row| row["kind"] == name).unwrap();
            assert_eq!(row["endings"][how], 3, "{name}: {row}");
        };
        ended("reserved-bit", "close 1002");
        ended("unmasked", "close 1002");
        ended("bad-utf8", "close 1007");
        ended("huge-length", "close 1009");
        ended("bomb", "close 1009");
        ended("long-head", "HTTP 431");
        ended("garbage-request", "HTTP 400");
        ended("empty-fragments", "close 1008");
        ended("tiny-fragments", "went on");
    }
}

#[test]
fn over_tls_as_well() {
    let kinds = "silent,garbage-request,unmasked,slow-reader,bomb";
    let (_own, flags, _dir) = own_server(DriverFlag::Auto, true, IMPATIENT);
    let report =
        play(&format!("{flags} --peers 2 --time-limit 10s --bystander-timeout 60s --only {kinds}"));
    assert_eq!(report.rows.len(), 5);
    check_stood(&report);
}

/// Nothing is wrong but perhaps how long answers took, which is the machine's.
fn check_stood(report: &Report) {
    assert!(report.is_fine(), "{}", report.text());
    let mut why = report.rows.iter().flat_map(|row| &row.why);
    assert!(why.all(|why| why.contains("waited for")), "{}", report.text());
}

#[test]
fn a_server_that_dies_fails() {
    let report = play_bad(Bad::Dies, "unmasked,reserved-bit");
    assert!(!report.is_fine(), "{}", report.text());
    assert_eq!(report.rows[0].verdict, Verdict::Failed);
    assert!(report.rows[0].why.iter().any(|why| why.contains("refused")), "{}", report.text());
    // The variants' order is that of the rows.
    assert_eq!(report.skipped, ["unmasked"], "{}", report.text());
}

#[test]
fn a_server_that_leaves_bystanders_unanswered_fails() {
    let report = play_bad(Bad::Hangs, "unmasked");
    assert!(!report.is_fine(), "{}", report.text());
    let why = report.rows[0].why.join("; ");
    assert!(why.contains("a bystander was not answered: no answer in 2 s"), "{why}");
}

#[test]
fn a_server_that_lets_bystanders_wait_is_suspicious() {
    let report = play_bad(Bad::Dawdles, "unmasked");
    assert_eq!(report.rows[0].verdict, Verdict::Suspicious, "{}", report.text());
    assert!(report.rows[0].why.join("; ").contains("a bystander waited"), "{}", report.text());
    assert!(report.is_fine());
}

#[test]
fn a_server_that_puts_up_with_violations_is_suspicious() {
    let report = play_bad(Bad::GoesOn, "unmasked");
    assert_eq!(report.rows[0].verdict, Verdict::Suspicious, "{}", report.text());
    assert!(report.rows[0].why.join("; ").contains("2 × kept open"), "{}", report.text());
}

#[test]
fn a_server_that_hoards_memory_is_suspicious() {
    let report = play_bad(Bad::Hoards, "unmasked");
    assert_eq!(report.rows[0].verdict, Verdict::Suspicious, "{}", report.text());
    assert!(report.rows[0].why.join("; ").contains("memory grew by"), "{}", report.text());
}

#[test]
fn a_server_that_does_not_echo_is_asked_with_pings() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Answers pings while it reads.
            thread::spawn(move || {
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while socket.read().is_ok() {}
            });
        }
    });
    let report = play(&format!("ws://{address} --peers 1 --time-limit 4s --only bad-utf8,bomb"));
    assert_eq!(report.question, Question::Ping);
    let text = report.text();
    assert!(text.contains("1 × no compression agreed"), "{text}");
    assert!(text.contains("unknown"), "its process is not known: {text}");
    assert!(report.is_fine(), "{text}");
}

#[test]
fn nobody_to_play_with_is_an_error() {
    let run = |flags: &str| format!("{:#}", run(&parse(flags).unwrap()).unwrap_err());
    let refused = run("ws://127.9.8.7:9/");
    assert!(refused.contains("answers neither a message nor a ping"), "{refused}");
    assert!(run("tcp://127.9.8.7:9").contains("ws:// or wss://"));
    assert!(run("--time-limit 0").contains("longer than nothing"));
    assert!(parse::<HostileArgs>("--only nonsense").is_err());
}
