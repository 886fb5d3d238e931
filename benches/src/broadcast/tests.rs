//! The load against servers in this process: Ringwire's own, and one on tungstenite that does as it likes.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a blocking server is the simplest other side, and one of them is slow"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use tungstenite::{Message, WebSocket};

use super::*;
use crate::flags::parse;
use crate::own_server::OwnServer;
use crate::tls::TlsArgs;

impl Plan {
    /// A short run.
    pub(crate) fn for_tests(url: &str) -> Self {
        Self {
            target: Target::from_url(url).unwrap(),
            tls: None,
            server: None,
            subscribers: 20,
            payload_len: 64,
            text: None,
            window: 1,
            duration: Duration::from_secs(1),
            warmup: Duration::from_millis(50),
            patience: Duration::from_secs(20),
        }
    }
}

fn own_server(secure: bool) -> (OwnServer, Plan) {
    let demand = Demand { service: Service::Broadcast, ..Demand::default() };
    let own = OwnServer::for_tests(demand, secure);
    let mut plan = Plan::for_tests(&own.target().to_string());
    plan.server = Some(own.account());
    plan.tls = TlsArgs::default().client(&plan.target, own.certificate()).unwrap();
    (own, plan)
}

/// A server whose first connection is heard by all others as `tell` has it, which is given the number of each message,
/// the message, and the others.
fn serve_with(
    tell: impl Fn(u64, Message, &mut [WebSocket<TcpStream>]) + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let all = Arc::new(Mutex::new(Vec::new()));
    thread::spawn(move || {
        // The publisher is the first to connect.
        let publisher = listener.accept().unwrap().0;
        let (heard, tell) = (Arc::clone(&all), tell.clone());
        thread::spawn(move || {
            let mut publisher = tungstenite::accept(publisher).unwrap();
            let mut number = 0;
            while let Ok(message) = publisher.read() {
                if message.is_binary() || message.is_text() {
                    tell(number, message, &mut heard.lock().unwrap());
                    number += 1;
                }
            }
        });
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            all.lock().unwrap().push(tungstenite::accept(stream).unwrap());
        }
    });
    address
}

/// What a load finds with a server that [tells](serve_with) as this does.
fn errors_with(
    window: usize,
    tell: impl Fn(u64, Message, &mut [WebSocket<TcpStream>]) + Clone + Send + 'static,
) -> Report {
    let mut plan = Plan::for_tests(&format!("ws://{}/", serve_with(tell)));
    plan.window = window;
    run_with_three(plan)
}

fn run_with_three(mut plan: Plan) -> Report {
    plan.subscribers = 3;
    let report = run(&plan).unwrap();
    assert_eq!(report.opened, 3);
    report
}

fn to_all(message: &Message, subscribers: &mut [WebSocket<TcpStream>]) {
    for subscriber in subscribers {
        // The load ends by resetting its connections.
        let _ = subscriber.send(message.clone());
    }
}

fn check(report: &Report) {
    assert_eq!(report.errors, [].into(), "{report:?}");
    assert!(report.is_clean());
    assert_eq!(report.opened, u64::from(report.subscribers));
    assert!(report.deliveries >= report.publications * (report.opened - 1), "{report:?}");
    assert!(report.publications > 0, "{report:?}");
    let latency = report.latency_us.unwrap();
    assert!(latency.p50 > 0.0 && latency.p50 <= latency.p99 && latency.p99 <= latency.max);
    assert!(report.server_cpu_us_per_delivery.unwrap() > 0.0);
    assert!(report.generator_cpu_us_per_delivery.unwrap() > 0.0);
}

#[test]
fn everyone_hears_everything() {
    let (_own, mut plan) = own_server(false);
    for (subscribers, payload_len, window) in
        [(20, 64, 1), (1, 12, 1), (7, 126, 5), (3, 100_000, 2), (50, 1024, 3)]
    {
        (plan.subscribers, plan.payload_len, plan.window) = (subscribers, payload_len, window);
        check(&run(&plan).unwrap());
    }
}

#[test]
fn deliveries_are_found_in_the_words_of_an_application() {
    let run_with = |told: fn(u64, &str) -> String| {
        let address = serve_with(move |number, message, all| {
            to_all(&Message::text(r#"{"joined":"somebody","note":"tick tock"}"#), all);
            to_all(&Message::text(told(number, message.to_text().unwrap())), all);
        });
        let mut plan = Plan::for_tests(&format!("ws://{address}/"));
        plan.text = Some(r#"{"to":"all","content":"a tick, number {number}, of many"}"#.to_owned());
        run_with_three(plan)
    };
    // Of a length that changes, and that some frames have in two bytes.
    let report = run_with(|number, message| {
        let space = " ".repeat(usize::try_from(number % 50).unwrap());
        format!(r#"{{"at":"{number}",{space}"data":{message},"from":"me"}}"#)
    });
    assert_eq!(report.errors, [].into(), "{report:?}");
    assert!(report.is_clean() && report.deliveries > 0);
    let lost = run_with(|number, message| match number % 10 {
        3 => "{}".to_owned(),
        _ => message.to_owned(),
    });
    assert!(lost.errors["delivery lost"] > 0, "{:?}", lost.errors);
    let cut = run_with(|_, message| message.replace(" of many", ""));
    assert_eq!(cut.errors["reply payload mismatch"], 3, "{:?}", cut.errors);
}

#[test]
fn over_tls_as_well() {
    let (_own, plan) = own_server(true);
    let report = run(&plan).unwrap();
    check(&report);
    assert_eq!(report.tls.unwrap().full, 21);
}

#[test]
fn a_server_that_loses_every_hundredth_message_is_told() {
    let run_with = |address: SocketAddr, window, patience| {
        let mut plan = Plan::for_tests(&format!("ws://{address}/"));
        plan.window = window;
        plan.duration = Duration::from_secs(2);
        plan.patience = patience;
        run_with_three(plan)
    };
    // One subscriber misses it, which holds up the publisher for its patience.
    let address = serve_with(|number, message, subscribers| {
        let count = if number % 100 == 99 { 2 } else { 3 };
        to_all(&message, &mut subscribers[..count]);
    });
    let report = run_with(address, 1, Duration::from_millis(200));
    let (lost, overdue) = (report.errors["delivery lost"], report.errors["publication overdue"]);
    assert_eq!(report.errors.len(), 2, "{report:?}");
    assert!(lost > 0 && overdue >= lost, "{report:?}");
    assert!(!report.is_clean());
    // With more of them on their way, the next one tells that all have missed it.
    let address = serve_with(|number, message, subscribers| {
        if number % 100 != 99 {
            to_all(&message, subscribers);
        }
    });
    let report = run_with(address, 8, Duration::from_secs(20));
    assert!(report.errors["delivery lost"] >= 3, "{report:?}");
    assert_eq!(report.errors["delivery lost"] % 3, 0, "{report:?}");
}

#[test]
fn doubled_and_reordered_deliveries_are_told() {
    let report = errors_with(1, |number, message, subscribers| {
        to_all(&message, subscribers);
        if number == 5 {
            to_all(&message, &mut subscribers[..1]);
        }
    });
    assert_eq!(report.errors, [("delivery doubled".to_owned(), 1)].into());
    let held = Arc::new(Mutex::new(None));
    let report = errors_with(4, move |number, message, subscribers| {
        if number == 1 {
            *held.lock().unwrap() = Some(message);
            return;
        }
        to_all(&message, subscribers);
        if let Some(earlier) = held.lock().unwrap().take() {
            to_all(&earlier, subscribers);
        }
    });
    assert_eq!(report.errors, [("delivery out of order".to_owned(), 3)].into());
}

#[test]
fn what_was_never_published_is_told() {
    let report = errors_with(1, |number, message, subscribers| {
        let mut bytes = message.into_data().to_vec();
        if number == 3 {
            bytes[40] ^= 1;
        }
        to_all(&Message::binary(bytes), subscribers);
    });
    assert_eq!(report.errors, [("reply payload mismatch".to_owned(), 3)].into());
    let report = errors_with(1, |_, _, subscribers| {
        to_all(&Message::text("hello"), subscribers);
    });
    assert_eq!(report.errors, [("reply header mismatch".to_owned(), 3)].into());
}

#[test]
fn an_echo_is_no_broadcast() {
    let own = OwnServer::start("127.0.0.1:0", &[0], Demand::default(), None).unwrap();
    let report = run(&Plan::for_tests(&own.target().to_string())).unwrap();
    assert_eq!(report.errors["message to the publisher"], 1);
    assert_eq!(report.deliveries, 0);
}

#[test]
fn nobody_to_connect_to_and_no_room_for_a_stamp() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut plan = Plan::for_tests(&format!("ws://{}/", listener.local_addr().unwrap()));
    drop(listener);
    let report = run(&plan).unwrap();
    assert_eq!(report.errors, [("connect refused".to_owned(), 21)].into());
    plan.payload_len = 11;
    assert!(run(&plan).unwrap_err().to_string().contains("no room"));
    plan.target = Target::from_url("tcp://127.0.0.1:1").unwrap();
    assert!(run(&plan).unwrap_err().to_string().contains("raw bytes"));
}

fn search(plan: Plan, until: &str, step: u32, most: u32) -> until::Search {
    until::search(plan, &until.parse().unwrap(), step, &Ceiling::for_tests(most)).unwrap()
}

#[test]
fn subscribers_grow_until_there_may_be_no_more() {
    let (_own, plan) = own_server(false);
    let search = search(plan, "p95>100s", 20, 50);
    assert_eq!(search.ended_by, until::EndedBy::Ceiling, "{search:?}");
    let steps: Vec<_> = search.steps.iter().map(|step| (step.subscribers, step.opened)).collect();
    assert_eq!((steps, search.held), (vec![(20, 20), (40, 40), (50, 50)], Some(50)));
    let text = search.text();
    assert!(text.ends_with("50 subscribers held; the test ends the search"), "{text}");
}

#[test]
fn the_last_step_before_the_condition_held() {
    let (_own, plan) = own_server(false);
    let search = search(plan, "opened>40", 20, 100);
    assert_eq!((search.held, search.ended_by), (Some(40), until::EndedBy::Condition), "{search:?}");
    assert_eq!(search.steps.len(), 3);
    assert!(search.text().ends_with("40 subscribers held; opened>40 holds"), "{}", search.text());
}

#[test]
fn a_server_that_is_too_slow_holds_nobody() {
    let address = serve_with(|_, message, subscribers| {
        thread::sleep(Duration::from_millis(60));
        to_all(&message, subscribers);
    });
    let plan = Plan::for_tests(&format!("ws://{address}/"));
    let search = search(plan, "p95>50ms", 3, 30);
    assert_eq!((search.held, search.ended_by), (None, until::EndedBy::Condition), "{search:?}");
    assert_eq!(search.steps.len(), 1);
    assert!(search.text().contains("no number of subscribers held; p95>50ms holds"));
}

#[test]
fn errors_end_the_search() {
    let mut plan = Plan::for_tests("ws://127.9.8.7:9/");
    plan.duration = Duration::from_millis(50);
    let search = search(plan, "p95>500ms", 3, 30);
    assert_eq!((search.held, search.ended_by), (None, until::EndedBy::Errors), "{search:?}");
    assert!(search.text().contains("4 × connect refused"), "{}", search.text());
}

#[test]
fn a_search_ends_where_open_files_do() {
    let ceiling = |flags: &str| Ceiling::of(&parse(flags).unwrap()).unwrap();
    let (own, other) = (ceiling("--until"), ceiling("ws://127.0.0.1:1/ --until"));
    // Both ends are in this process, or one is.
    assert!(other.subscribers / 2 - own.subscribers <= 1, "{own:?} {other:?}");
    for each in [1, 2] {
        let most = [&other, &own][each - 1].subscribers;
        machine::allow_descriptors(most + 1, each as u64).unwrap();
    }
    assert!(format!("{own:?}").contains("limit of open files ends the search"), "{own:?}");
    assert_eq!(ceiling("--until --max-subscribers 7").subscribers, 7);
    let too_many = ceiling("--until --max-subscribers 4000000000");
    assert!(format!("{too_many:?}").contains("open files"), "{too_many:?}");
    for wrong in ["--step 3", "--until --subscribers 3", "--until=p98>1s"] {
        assert!(parse::<BroadcastArgs>(wrong).is_err(), "{wrong}");
    }
}
