//! Servers that lie: each kind is told, in closed loops and in open ones.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;

use super::timed::serve_with;
use super::*;

/// Small enough to be over within a few seconds, and long enough for each lie to be told a hundred times, on a machine
/// that stalls for a second or two.
const EACH: Work = Work::Each { messages: 100 };
const CHURN: Work =
    Work::Churn { messages: 100, interval: Duration::ZERO, duration: Duration::from_secs(3) };
const WINDOW: Work = Work::Loop { in_flight: 4, duration: Duration::from_secs(3) };
const POOL: Work = Work::Pool { messages: 200, in_flight: 2 };
const OPEN: Work =
    Work::Rate { interval: Duration::from_millis(10), duration: Duration::from_secs(1) };

/// Errors of a run with two connections, by kind.
fn told(url: &str, work: Work) -> (u64, BTreeMap<String, u64>) {
    let scenario = Scenario { response_timeout: Duration::from_secs(4), ..scenario(2, work) };
    let report = common(url).run(&scenario).unwrap();
    assert!(!report.is_clean(), "{work:?}");
    // Messages whose connection is gone are no fault of the load's.
    let lag = report.work.as_ref().and_then(|work| work.send_lag_us);
    if lag.is_none_or(|lag| lag.p99 < 20_000.0) {
        let blamed = report.notes.iter().find(|note| note.contains("fell behind"));
        assert_eq!(blamed, None, "{work:?}");
    }
    (report.work.map_or(0, |work| work.answered), report.errors)
}

#[test]
fn replies_that_come_twice_are_told() {
    let server = TestServer::start(|ctx, message| {
        for _ in 0..2 {
            let _ = ctx.send(message);
        }
    });
    // Where several are in flight, one that comes again is one that comes late.
    for (work, kinds) in [
        (EACH, &["delivery doubled"][..]),
        (POOL, &["delivery doubled"]),
        (CHURN, &["delivery doubled"]),
        (WINDOW, &["delivery doubled", "delivery out of order"]),
        (OPEN, &["delivery out of order"]),
    ] {
        let (answered, errors) = told(&server.url(), work);
        assert!(errors.keys().all(|kind| kinds.contains(&kind.as_str())), "{work:?}: {errors:?}");
        // The last ones may come when nobody counts any more.
        let count: u64 = errors.values().sum();
        assert!(count >= 90 && count <= answered, "{work:?}: {answered}, {errors:?}");
    }
}

#[test]
fn replies_in_another_order_are_told() {
    for work in [WINDOW, OPEN] {
        // Every second message waits for the one after it, which is answered first.
        let held = Arc::new(Mutex::new(Vec::<(ringwire::ConnId, Vec<u8>)>::new()));
        let server = TestServer::start(move |ctx, message| {
            let mut held = held.lock().unwrap();
            match held.iter().position(|(conn, _)| *conn == ctx.id()) {
                Some(place) => {
                    let (_, earlier) = held.swap_remove(place);
                    let _ = ctx.send(message);
                    let _ = ctx.send(&earlier[..]);
                }
                // With a window the first message is alone in flight.
                None if message.as_bytes().starts_with(b"00000000") => {
                    let _ = ctx.send(message);
                }
                None => held.push((ctx.id(), message.as_bytes().to_vec())),
            }
        });
        let (answered, errors) = told(&server.url(), work);
        assert!(answered >= 50, "{work:?}: {answered}, {errors:?}");
        for kind in ["reply missing", "delivery out of order"] {
            assert!(errors.get(kind).is_some_and(|count| *count >= 50), "{work:?}: {errors:?}");
        }
    }
}

#[test]
fn replies_that_a_window_loses_are_told() {
    let server = TestServer::start(|ctx, message| {
        if !message.as_bytes().starts_with(b"00000005") {
            let _ = ctx.send(message);
        }
    });
    let (answered, errors) = told(&server.url(), WINDOW);
    // One on each connection, and the loop goes on.
    assert_eq!(errors, [("reply missing".to_owned(), 2)].into());
    assert!(answered > 100, "{answered}");
}

#[test]
fn connections_that_end_without_a_word_are_told() {
    fn after_the_first_message(mut stream: TcpStream, end: fn(&TcpStream)) {
        // A header, its mask and 64 bytes.
        let mut frame = [0; 70];
        if stream.read_exact(&mut frame).is_ok() {
            end(&stream);
        }
    }
    let url = serve_with(|stream| {
        after_the_first_message(stream, |stream| {
            let _ = stream.shutdown(Shutdown::Both);
        });
    });
    for work in [EACH, WINDOW, OPEN] {
        let (answered, errors) = told(&url, work);
        assert_eq!(answered, 0, "{work:?}");
        let ended = errors.get("unexpected end").copied().unwrap_or_default();
        let reset = errors.get("reset").copied().unwrap_or_default();
        assert_eq!(ended + reset, 2, "{work:?}: {errors:?}");
    }
}

#[test]
fn replies_beyond_what_was_sent_do_not_count() {
    let server = TestServer::start(|ctx, message| {
        for _ in 0..3 {
            let _ = ctx.send(message);
        }
    });
    // Without a number any of the three may be the reply.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "always the same").unwrap();
    let without = format!("--payload-file {} {}", file.path().display(), server.url());
    let (answered, errors) = told(&without, OPEN);
    assert!(answered <= 200, "{answered} of 200");
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["delivery doubled"]);

    let any = format!("--any-reply {}", server.url());
    let report = common(&any).run(&scenario(2, OPEN)).unwrap();
    assert!(report.is_clean(), "{:?}", report.errors);
    let work = report.work.unwrap();
    assert_eq!((work.sent, work.answered), (200, 200));
}
