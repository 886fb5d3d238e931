#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a server that stalls sleeps, and its workers share when"
)]

mod lies;
mod timed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ringwire::{Config, Ctx, Message, Running, Server, on_message, tuning::Pinning};

use super::*;
use crate::echo::Bottleneck;

/// A small plan.
pub(crate) fn plan(url: &str) -> Plan {
    Plan {
        url: url.to_owned(),
        connections: 10,
        max_concurrent: 10,
        connect_timeout: Duration::from_secs(5),
        limit: Duration::from_secs(20),
        response_timeout: Duration::from_secs(2),
        size: 100,
        threads: 1,
        ..Plan::default()
    }
}

fn common(flags: &str) -> Common {
    crate::flags::parse(flags).unwrap()
}

fn scenario(connections: u32, work: Work) -> Scenario {
    Scenario {
        max_concurrent: 16,
        connect_timeout: Duration::from_secs(20),
        // Longer than a machine that is busy with other tests may stand still.
        response_timeout: Duration::from_secs(10),
        size: 64,
        ..Scenario::new("test", connections, work)
    }
}

/// Ends with the test.
struct TestServer(Option<Running>);

impl TestServer {
    /// A server with one worker that calls `f` with every message.
    fn start(f: impl Fn(&mut Ctx<'_, ()>, Message<'_>) + Clone + Send + Sync + 'static) -> Self {
        let config = Config::default().with_io_workers(1).with_pinning(Pinning::Off);
        let server = Server::new(config).listen("127.0.0.1:0");
        Self(Some(server.start(move |_| on_message(f.clone())).unwrap()))
    }

    fn url(&self) -> String {
        let running = self.0.as_ref().unwrap();
        running.urls().next().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.handle().shutdown(Duration::ZERO);
            running.join().unwrap();
        }
    }
}

const RATE: Work =
    Work::Rate { interval: Duration::from_millis(20), duration: Duration::from_secs(3) };

#[test]
fn stall_of_a_second_is_in_the_latencies() {
    let seen = Arc::new(AtomicU64::new(0));
    let server = TestServer::start(move |ctx, message| {
        if seen.fetch_add(1, Ordering::Relaxed) == 300 {
            thread::sleep(Duration::from_secs(1));
        }
        let _ = ctx.send(message);
    });
    let report = common(&server.url()).run(&scenario(10, RATE)).unwrap();
    let work = report.work.unwrap();
    let latency = work.latency_us.unwrap();
    // A closed loop would have ten slow messages, of which p99 would know nothing.
    assert!(latency.p999 >= 900_000.0, "{latency:?}");
    assert!(latency.p95 >= 600_000.0, "{latency:?}");
    assert_eq!((work.sent, work.answered), (1500, 1500), "{:?}", report.errors);
    let p99 = report.seconds.iter().filter_map(|second| Some(second.sample.latency_us?.p99));
    let slow = p99.fold(0.0, f64::max);
    assert!(slow >= 900_000.0, "{:?}", report.seconds);
}

#[test]
fn late_replies_are_errors() {
    let server = TestServer::start(|ctx, message| {
        thread::sleep(Duration::from_millis(50));
        let _ = ctx.send(message);
    });
    let response_timeout = Duration::from_millis(20);
    let each = Scenario { response_timeout, ..scenario(1, Work::Each { messages: 1 }) };
    // The timeout is also when nothing more is waited for, so the reply may be missed altogether.
    let report = common(&server.url()).run(&each).unwrap();
    let errors: Vec<_> = report.errors.keys().map(String::as_str).collect();
    assert!(errors.iter().all(|kind| ["reply late", "unanswered"].contains(kind)), "{errors:?}");
    assert!(!errors.is_empty());
}

#[test]
fn every_hundredth_reply_that_is_missing_is_told() {
    let count = Arc::new(AtomicU64::new(0));
    let server = TestServer::start(move |ctx, message| {
        if !(count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(100) {
            let _ = ctx.send(message);
        }
    });
    let report = common(&server.url()).run(&scenario(10, RATE)).unwrap();
    let work = report.work.as_ref().unwrap();
    assert_eq!((work.sent, work.answered), (1500, 1485));
    // The last message of a connection has no later one to tell by.
    let count = |kind: &str| report.errors.get(kind).copied().unwrap_or_default();
    assert_eq!(count("reply missing") + count("unanswered"), 15, "{:?}", report.errors);
    assert!(count("reply missing") >= 5, "{:?}", report.errors);
    assert_eq!(report.metric("errors"), Some(15.0));
}

#[test]
fn wrong_replies_and_closes_are_told() {
    let server = TestServer::start(|ctx, message| {
        if message.is_text() {
            ctx.close(ringwire::CloseCode::new(1008), "").unwrap();
        } else {
            let _ = ctx.send(&b"something else"[..]);
        }
    });
    let each = scenario(3, Work::Each { messages: 1 });
    let each = Scenario { response_timeout: Duration::from_secs(3), ..each };
    let report = common(&server.url()).run(&each).unwrap();
    assert_eq!(report.errors.get("reply payload mismatch"), Some(&3), "{:?}", report.errors);
    let report = common(&format!("--text {}", server.url())).run(&each).unwrap();
    assert_eq!(report.errors.get("close frame 1008"), Some(&3), "{:?}", report.errors);
    let report = common(&format!("--any-reply {}", server.url())).run(&each).unwrap();
    assert!(report.is_clean(), "{:?}", report.errors);
    assert_eq!(report.work.unwrap().answered, 3);
}

#[test]
fn generator_that_falls_behind_is_marked() {
    let work =
        Work::Rate { interval: Duration::from_nanos(200), duration: Duration::from_millis(300) };
    let too_fast = Scenario { response_timeout: Duration::from_millis(300), ..scenario(4, work) };
    let report = common("").run(&too_fast).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("fell behind")), "{:?}", report.notes);
    let table = show_rows(&report.rows());
    // Of a machine whose time was stolen that is said first.
    if report.bottleneck != Bottleneck::Disturbed {
        assert_eq!(report.bottleneck, Bottleneck::Generator, "{table}");
        assert!(table.contains("THE GENERATOR"), "{table}");
    }
}

#[test]
fn each_scenario_runs_on_both_drivers() {
    for driver in ["epoll", "uring"] {
        let mut common = common(&format!("--driver {driver}"));
        let idle = common.run(&scenario(40, Work::Idle)).unwrap();
        assert!(idle.is_clean() && idle.work.is_none() && idle.opened == 40, "{idle:?}");
        assert!(idle.connect_us.unwrap().p50 > 0.0 && idle.connects_per_second > 0.0);

        let each = common.run(&scenario(20, Work::Each { messages: 25 })).unwrap();
        let work = each.work.as_ref().unwrap();
        assert_eq!((work.asked, work.sent, work.answered), (Some(500), 500, 500), "{each:?}");
        assert!(each.is_clean(), "{:?}", each.errors);

        let closed = Work::Loop { in_flight: 1, duration: Duration::from_secs(1) };
        let closed = common.run(&scenario(20, closed)).unwrap();
        let work = closed.work.as_ref().unwrap();
        assert!(work.sent >= 40 && work.sent == work.answered, "{closed:?}");
        assert_eq!((work.asked, work.in_flight), (None, Some(20)), "{closed:?}");
        assert!(work.seconds >= 1.0 && closed.is_clean(), "{closed:?}");

        let pool = Work::Pool { messages: 1000, in_flight: 7 };
        let pool = common.run(&scenario(30, pool)).unwrap();
        let work = pool.work.as_ref().unwrap();
        assert_eq!((work.sent, work.answered, work.in_flight), (1000, 1000, Some(7)), "{pool:?}");
        assert!(pool.is_clean(), "{:?}", pool.errors);
        let server = pool.server.unwrap();
        assert!(server.cpus > 0.0 && server.cpu_us_per_message > Some(0.0), "{server:?}");

        let interval = Duration::from_millis(10);
        let rate = Work::Rate { interval, duration: Duration::from_millis(500) };
        let rate = common.run(&scenario(5, rate)).unwrap();
        let work = rate.work.as_ref().unwrap();
        assert_eq!((work.asked, work.sent, work.answered), (Some(250), 250, 250), "{rate:?}");
        assert_eq!(rate.seconds.iter().map(|second| second.answered).sum::<u64>(), 250);
    }
}

#[test]
fn a_closed_loop_whose_replies_stop_is_told() {
    let count = Arc::new(AtomicU64::new(0));
    let server = TestServer::start(move |ctx, message| {
        if count.fetch_add(1, Ordering::Relaxed) < 100 {
            let _ = ctx.send(message);
        }
    });
    let closed = scenario(5, Work::Loop { in_flight: 1, duration: Duration::from_secs(3) });
    let closed = Scenario { response_timeout: Duration::from_secs(3), ..closed };
    let report = common(&server.url()).run(&closed).unwrap();
    let work = report.work.as_ref().unwrap();
    assert_eq!((work.sent, work.answered), (105, 100), "{:?}", report.errors);
    assert_eq!(report.errors, [("unanswered".to_owned(), 5)].into());
}

#[test]
fn compression_is_agreed_on_or_told() {
    let work = Work::Loop { in_flight: 2, duration: Duration::from_secs(3) };
    let letters = Scenario { size: 4096, ..scenario(3, work) };
    for flags in ["--compression shared", "--compression dedicated"] {
        let report = common(&format!("--text {flags}")).run(&letters).unwrap();
        assert!(report.is_clean(), "{flags}: {:?}", report.errors);
        let work = report.work.unwrap();
        // Small letters have less than five bits each.
        let sent = work.traffic.bytes_sent as f64 / work.sent as f64;
        assert!(work.answered > 10 && sent < 4096.0 * 0.75, "{flags}: {sent}");
        assert!(report.notes.iter().any(|note| note.contains("compressed")), "{:?}", report.notes);
    }
    let server = TestServer::start(|ctx, message| {
        let _ = ctx.send(message);
    });
    let report = common(&format!("{} --compression shared", server.url())).run(&letters).unwrap();
    assert_eq!(report.errors.get("compression declined"), Some(&3), "{:?}", report.errors);
    assert_eq!(report.opened, 0);
}

#[test]
fn load_over_tls_with_several_threads() {
    let mut common = common("--tls --threads 2 --text");
    let pool = Work::Pool { messages: 200, in_flight: 8 };
    let report = common.run(&scenario(20, pool)).unwrap();
    assert!(report.is_clean(), "{:?}", report.errors);
    assert_eq!(report.work.unwrap().answered, 200);
    assert!(report.target.starts_with("wss://"), "{}", report.target);
}

#[test]
fn server_that_is_not_there_is_told() {
    // Nobody listens on the discard port of a loopback address that is nobody's.
    let report = common("ws://127.9.8.7:9/").run(&scenario(5, RATE)).unwrap();
    assert_eq!(report.errors, [("connect refused".to_owned(), 5)].into());
    assert_eq!((report.opened, report.metric("p99")), (0, None));
    let error = common("tcp://127.0.0.1:9").run(&scenario(1, Work::Idle)).unwrap_err();
    assert!(format!("{error:#}").contains("ws:// or wss://"), "{error:#}");
}

#[test]
fn processes_follow_from_the_limit_of_open_files() {
    let layout = |flags: &str, connections, apart| {
        let scenario = Scenario { server_apart: apart, ..scenario(connections, Work::Idle) };
        common(flags).layout(&scenario, 20_000)
    };
    let small = layout("", 1000, false).unwrap();
    assert_eq!(small, Layout { generators: 1, apart: false, servers: 0 });
    let both = layout("", 15_000, false).unwrap();
    assert_eq!(both, Layout { generators: 1, apart: false, servers: 1 });
    let million = layout("", 1_000_000, true).unwrap();
    assert_eq!(million, Layout { generators: 51, apart: true, servers: 53 });
    let foreign = layout("ws://127.0.0.1:9/", 1_000_000, true).unwrap();
    assert_eq!(foreign, Layout { generators: 51, apart: true, servers: 0 });
    let error = layout("--processes 2", 100_000, true).unwrap_err().to_string();
    assert!(error.contains("need 6 processes") && error.contains("ulimit -Hn"), "{error}");
    assert!(layout("--processes 3", 2, true).is_err());
}
