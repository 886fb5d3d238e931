//! Work that is told by time, and what is watched: `traffic`, `tps`, `idle` and `churn`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn go_round(in_flight: u32, duration: Duration) -> Work {
    Work::Loop { in_flight, duration }
}

fn as_fast(messages: u64, duration: Duration) -> Work {
    Work::Churn { messages, interval: Duration::ZERO, duration }
}

/// A server whose connections are each served by `serve` once they are open, in a thread that ends with it.
pub(super) fn serve_with(serve: impl Fn(TcpStream) + Copy + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                if let Ok(socket) = tungstenite::accept(stream) {
                    serve(socket.into_inner());
                }
            });
        }
    });
    url
}

#[test]
fn messages_go_round_until_the_time_is_up() {
    for driver in ["epoll", "uring"] {
        let mut common = common(&format!("--driver {driver}"));
        let report = common.run(&scenario(5, go_round(4, SECOND))).unwrap();
        assert!(report.is_clean(), "{:?}", report.errors);
        let work = report.work.as_ref().unwrap();
        assert!(work.answered >= 20 && work.seconds >= 1.0, "{work:?}");
        assert_eq!((work.answered, work.in_flight), (work.sent, Some(20)));
        // 64 bytes with a header of two, and with a mask where the client sends them.
        let bytes = (work.traffic.bytes_sent, work.traffic.bytes_received);
        assert_eq!(bytes, (work.sent * 70, work.answered * 66));
        let mbps = bytes.0 as f64 * 8.0 / 1e6 / work.seconds;
        assert!((work.traffic.up_mbps - mbps).abs() < 1e-6, "{work:?}");
        let each = work.each_second.as_ref().unwrap();
        assert!(each.counts.len() == 1 && each.counts[0] <= work.answered, "{each:?}");
    }
}

#[test]
fn each_second_is_told() {
    let report = common("").run(&scenario(3, go_round(1, SECOND * 3))).unwrap();
    let each = report.work.unwrap().each_second.unwrap();
    assert_eq!(each.counts.len(), 3);
    let (min, max) = (each.counts.iter().min().unwrap(), each.counts.iter().max().unwrap());
    assert_eq!((each.span.min, each.span.max), (*min as f64, *max as f64));
    // A machine that stalls may have a second without any.
    assert!(*max > 0, "{each:?}");
    let all: u64 = report.seconds.iter().map(|second| second.answered).sum();
    assert!(each.counts.iter().sum::<u64>() <= all, "{each:?}");
}

#[test]
fn no_more_and_no_fewer_are_in_flight_than_asked_for() {
    // The first message is answered; from then on four have to be there before one is.
    let (held, most) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
    let peak = Arc::clone(&most);
    let server = TestServer::start(move |ctx, message| {
        let mut held = held.lock().unwrap();
        let Some(waiting) = &mut *held else {
            *held = Some(Vec::new());
            let _ = ctx.send(message);
            return;
        };
        waiting.push(message.as_bytes().to_vec());
        peak.fetch_max(waiting.len(), Ordering::Relaxed);
        if waiting.len() == 4 {
            for bytes in waiting.drain(..) {
                let _ = ctx.send(&bytes[..]);
            }
        }
    });
    let round = Scenario { response_timeout: SECOND * 2, ..scenario(1, go_round(4, SECOND * 2)) };
    let report = common(&server.url()).run(&round).unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 4);
    let work = report.work.unwrap();
    assert!(work.answered > 8, "{work:?}");
    // At the end fewer than four are left, to which it says nothing.
    let unanswered = report.errors.get("unanswered").copied().unwrap_or_default();
    assert_eq!(work.sent - work.answered, unanswered, "{:?}", report.errors);
    assert!(unanswered < 4, "{:?}", report.errors);
}

#[test]
fn replies_that_never_come_are_told() {
    let seen = Arc::new(AtomicUsize::new(0));
    let server =
        TestServer::start(move |ctx, message| match seen.fetch_add(1, Ordering::Relaxed) {
            0..10 => {
                let _ = ctx.send(message);
            }
            10 => ctx.close(ringwire::CloseCode::new(1008), "").unwrap(),
            _ => {}
        });
    let round = Scenario { response_timeout: SECOND * 3, ..scenario(2, go_round(3, SECOND * 3)) };
    let report = common(&server.url()).run(&round).unwrap();
    assert_eq!(report.work.unwrap().answered, 10);
    // The messages of the connection that was closed went with it.
    let errors = [("close frame 1008".to_owned(), 1), ("unanswered".to_owned(), 3)];
    assert_eq!(report.errors, errors.into());
}

#[test]
fn connections_come_and_go() {
    for flags in ["--driver epoll", "--driver uring", "--tls --text --threads 2"] {
        let report = common(flags).run(&scenario(8, as_fast(2, SECOND * 2))).unwrap();
        assert!(report.is_clean(), "{flags}: {:?}", report.errors);
        let (churn, work) = (report.churn.as_ref().unwrap(), report.work.as_ref().unwrap());
        assert!(report.opened > 8, "{report:?}");
        assert_eq!((churn.closed_cleanly, churn.closed_otherwise), (report.opened, 0), "{flags}");
        // Those that are open when the time is up are closed after the message that is on its way.
        assert_eq!(work.sent, work.answered, "{flags}");
        let fewest = (report.opened - 8) * 2;
        assert!((fewest..=report.opened * 2).contains(&work.answered), "{flags}: {work:?}");
        assert_eq!(report.metric("p99"), report.connect_us.map(|connect| connect.p99));
        let each = churn.each_second.as_ref().unwrap();
        assert!(each.counts.len() == 2 && each.counts.iter().any(|count| *count > 0), "{each:?}");
        let table = show_rows(&report.rows());
        assert!(table.contains("clean, 0 not") && table.contains("µs of the server's"), "{table}");
    }
}

#[test]
fn connects_keep_to_their_rate() {
    let (interval, duration) = (Duration::from_millis(20), Duration::from_millis(500));
    let work = Work::Churn { messages: 0, interval, duration };
    let report = common("").run(&scenario(8, work)).unwrap();
    assert_eq!(report.churn.unwrap().asked, Some(25));
    assert!((1..=25).contains(&report.opened), "{}", report.opened);
    assert!(report.errors.is_empty() && report.work.is_none(), "{:?}", report.errors);
}

/// Connections without messages to a server that does `serve` once it has a connection, and answers a close in time.
fn churn_against(
    serve: impl Fn(TcpStream) + Copy + Send + 'static,
    response_timeout: Duration,
) -> Report {
    let churn =
        Scenario { response_timeout, ..scenario(3, as_fast(0, Duration::from_millis(300))) };
    common(&serve_with(serve)).run(&churn).unwrap()
}

#[test]
fn close_that_is_never_answered_is_not_clean() {
    let report = churn_against(
        |mut stream| {
            // Reads the close frame, says nothing, and waits for the end.
            let _ = stream.read_to_end(&mut Vec::new());
        },
        Duration::from_millis(200),
    );
    let churn = report.churn.as_ref().unwrap();
    assert_eq!((churn.closed_cleanly, churn.closed_otherwise), (0, report.opened));
    let errors = [("closed here: close_timeout".to_owned(), report.opened)];
    assert_eq!(report.errors, errors.into());
    assert!(report.opened >= 3, "{report:?}");
}

#[test]
fn connection_that_is_reset_is_not_clean() {
    let report = churn_against(
        |mut stream| {
            // The end of a socket without lingering, with a frame unread, is a reset.
            let _ = stream.read(&mut [0]);
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        },
        SECOND * 20,
    );
    let churn = report.churn.as_ref().unwrap();
    assert_eq!((churn.closed_cleanly, churn.closed_otherwise), (0, report.opened));
    assert_eq!(report.errors, [("reset".to_owned(), report.opened)].into());
    assert!(report.opened >= 3, "{report:?}");
}

#[test]
fn close_that_the_server_begins_is_not_the_one_asked_for() {
    let report = churn_against(
        |mut stream| {
            // A close frame with code 1001, then the end of the stream.
            let _ = stream.write_all(&[0x88, 2, 0x03, 0xe9]);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        },
        SECOND * 20,
    );
    let churn = report.churn.as_ref().unwrap();
    // Where both close at once, either was first: an answer is what the client takes it for.
    let told = report.errors.get("close frame 1001").copied().unwrap_or_default();
    assert_eq!(churn.closed_otherwise, told, "{:?}", report.errors);
    assert_eq!(churn.closed_cleanly + told, report.opened, "{:?}", report.errors);
}

#[test]
fn churn_without_a_server_ends_with_its_time() {
    let duration = Duration::from_millis(200);
    let report = common("ws://127.9.8.7:9/").run(&scenario(2, as_fast(1, duration))).unwrap();
    assert_eq!(report.opened, 0);
    let errors: Vec<_> = report.errors.keys().map(String::as_str).collect();
    assert_eq!(errors, ["connect refused"]);
}

#[test]
fn memory_is_looked_at_while_connections_are_held() {
    let (duration, interval) = (Duration::from_millis(400), Duration::from_millis(100));
    let watch = Watch::Memory { duration, interval };
    let idle = Scenario { watch, ..scenario(10, Work::Each { messages: 2 }) };
    // In this process: its memory is the load's as well.
    let report = common("").run(&idle).unwrap();
    assert!(report.is_clean(), "{:?}", report.errors);
    assert_eq!(report.work.as_ref().unwrap().answered, 20);
    let held = report.held.as_ref().unwrap();
    assert!(held.samples.len() == 5 && held.seconds >= 0.4, "{held:?}");
    let slab = held.kernel_slab.unwrap();
    assert!(slab.min <= slab.median && slab.median <= slab.max, "{slab:?}");
    assert_eq!(slab.last, held.samples[4].kernel_slab);
    assert_eq!((held.server_resident, held.has_grown), (None, None));
    assert!(show_rows(&report.rows()).contains("--server-pid"));
    assert_eq!(report.metric("growth"), None);

    // This process, which is the server's only by name.
    let server = TestServer::start(|ctx, message| {
        let _ = ctx.send(message);
    });
    let flags = format!("{} --server-pid {}", server.url(), std::process::id());
    let report = common(&flags).run(&idle).unwrap();
    let held = report.held.as_ref().unwrap();
    let resident = held.server_resident.unwrap();
    assert!(resident.first > 0 && held.has_grown.is_some(), "{held:?}");
    assert!(held.server_anonymous.unwrap().max <= resident.max, "{held:?}");
    let growth = resident.last as f64 - resident.first as f64;
    assert_eq!(report.metric("growth"), Some(growth));
}

#[test]
fn connections_that_end_while_held_are_errors() {
    let server = TestServer::start(|ctx, message| {
        let _ = ctx.send(message);
        ctx.set_deadline(Duration::from_millis(100), ringwire::CloseCode::new(4000)).unwrap();
    });
    let watch = Watch::Memory { duration: SECOND * 3, interval: SECOND };
    let idle = Scenario { watch, ..scenario(4, Work::Each { messages: 1 }) };
    let report = common(&server.url()).run(&idle).unwrap();
    assert_eq!(report.errors, [("close frame 4000".to_owned(), 4)].into());
}

#[test]
fn as_many_messages_are_asked_for_as_are_due() {
    // The connections take turns: 0, 100, 200 and 300 ms, and again after 400 ms. Two threads have two each.
    let work = Work::Rate { interval: Duration::from_millis(400), duration: SECOND };
    for flags in ["", "--threads 2", "--threads 3"] {
        // A machine that is busy with others is late now and then, and not each time.
        let mut runs = (0..5).map(|_| common(flags).run(&scenario(4, work)).unwrap().work.unwrap());
        let work = runs.find(|work| !work.fell_behind()).expect("one of five is in time");
        assert_eq!((work.asked, work.answered), (Some(work.sent), work.sent), "{flags}");
        assert!(work.sent == 10 || flags == "--threads 3", "{flags}: {}", work.sent);
    }
}

#[test]
fn connections_that_open_and_end_do_not_stand_for_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                thread::sleep(if number < 5 { Duration::ZERO } else { SECOND });
                // An upgrade, and the end.
                drop(tungstenite::accept(stream));
            });
        }
    });
    let watch = Watch::Memory { duration: SECOND * 3, interval: SECOND };
    let idle = Scenario { watch, ..scenario(10, Work::Idle) };
    let report = common(&url).run(&idle).unwrap();
    assert_eq!((report.opened, report.active), (10, 0), "{:?}", report.errors);
    assert_eq!(report.errors.values().sum::<u64>(), 10, "{:?}", report.errors);
}
