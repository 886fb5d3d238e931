//! Answers of HTTP requests that come later: from where, for which request, and what if they do not come.

#![expect(clippy::disallowed_types, reason = "tests share with threads")]

use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use http::StatusCode;
use ringwire::{Config, Responder, Response, jobs::JobRefusal};
use ringwire_peers::{Http, get};

use crate::support::{Gate, PATIENCE, Server, config, ms, wait_until};

/// A server that answers `/now` at once, and gives the responders of all others away.
fn patient(config: Config) -> (Server, mpsc::Receiver<Responder>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Arc::new(Mutex::new(sender));
    let server = Server::start(config, move |app| {
        let sender = sender.lock().expect("nobody panics with it").clone();
        app.on_http_with(move |request, responder| match request.path() {
            "/now" => responder.send(Response::text("now")),
            "/dropped" => drop(responder),
            "/panic" => {
                sender.send(responder).expect("the test waits");
                panic!("provoked behind a responder");
            }
            _ => sender.send(responder).expect("the test waits"),
        })
    });
    (server, receiver)
}

fn next(responders: &mpsc::Receiver<Responder>) -> Responder {
    responders.recv_timeout(PATIENCE).expect("the handler is asked")
}

#[test]
fn answers_come_in_the_order_of_their_requests() {
    let (server, responders) = patient(config());
    let mut http = Http::connect(server.addr());
    http.send([get("/a"), get("/now"), get("/b"), get("/now")].concat());
    let first = next(&responders);
    let conn = first.conn();
    assert!(responders.recv_timeout(ms(50)).is_err(), "one request at a time");
    thread::spawn(move || first.send(Response::text("first"))).join().unwrap();
    let second = next(&responders);
    assert_eq!(second.conn(), conn);
    second.send(Ok::<_, StatusCode>(Response::text("second")));
    for text in ["first", "now", "second", "now"] {
        let answer = http.answer();
        assert_eq!((answer.status(), answer.text()), (200, text));
    }
    assert_eq!(server.stats().http_requests, 4);
}

#[test]
fn a_head_request_gets_the_length_of_a_late_body() {
    let (server, responders) = patient(config());
    let mut http = Http::connect(server.addr());
    http.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n");
    next(&responders).send(Response::text("four"));
    let head = http.head();
    assert_eq!((head.status(), head.header("content-length")), (200, Some("4")));
    assert_eq!(http.get("/now").text(), "now", "nothing came behind the head");
}

#[test]
fn a_responder_that_is_dropped_answers_500() {
    let (server, responders) = patient(config());
    let mut http = Http::connect(server.addr());
    assert_eq!(http.get("/dropped").status(), 500);
    http.send(get("/a"));
    drop(next(&responders));
    assert_eq!(http.answer().status(), 500);
    assert_eq!(http.get("/now").text(), "now", "the connection goes on");
}

#[test]
fn a_late_answer_reaches_no_other_request() {
    // The answer to the second request has to come within that.
    let (server, responders) = patient(config().with_handshake_timeout(ms(2000)));
    let mut http = Http::connect(server.addr());
    http.send(get("/a"));
    let late = next(&responders);
    assert_eq!(http.answer().status(), 503);
    http.end();
    drop(http);
    wait_until("its place is free", || server.stats().connections == 0);
    // A connection of the same place waits for its answer.
    let mut http = Http::connect(server.addr());
    http.send(get("/b"));
    let own = next(&responders);
    late.send(Response::text("late"));
    own.send(Response::text("own"));
    assert_eq!(http.answer().text(), "own");
}

#[test]
fn a_panic_is_the_answer_to_its_request() {
    let (server, responders) = patient(config());
    let mut http = Http::connect(server.addr());
    http.send(get("/panic"));
    assert_eq!(http.answer().status(), 500);
    next(&responders).send(Response::text("late"));
    http.end();
    assert_eq!(Http::connect(server.addr()).get("/now").text(), "now");
}

#[test]
fn a_client_may_leave_before_the_answer() {
    let (server, responders) = patient(config());
    let mut http = Http::connect(server.addr());
    http.send(get("/a"));
    let responder = next(&responders);
    drop(http);
    responder.send(Response::text("x".repeat(1 << 20)));
    wait_until("it is gone", || server.stats().connections == 0);
    assert_eq!(Http::connect(server.addr()).get("/now").text(), "now");
}

#[test]
fn a_responder_outlives_its_server() {
    let (server, responders) = patient(config());
    let mut http = Http::connect(server.addr());
    http.send(get("/a"));
    let responder = next(&responders);
    server.handle().shutdown(ms(0));
    server.join().unwrap();
    responder.send(Response::text("to nobody"));
}

/// A server that offloads each request: `/panic` panics, `/wait` waits for the gate.
fn offloading(config: Config, gate: &Gate) -> Server {
    let gate = gate.clone();
    Server::start(config, move |app| {
        let gate = gate.clone();
        app.on_http_with(move |request, responder| {
            let (path, gate) = (request.path().to_owned(), gate.clone());
            let offloaded = responder.offload(move || match &*path {
                "/panic" => panic!("provoked in a job"),
                "/wait" => {
                    gate.pass();
                    Response::text("waited")
                }
                path => Response::text(format!("{path} by {:?}", thread::current().name())),
            });
            if let Err(refused) = offloaded {
                let text = format!("{:?}", refused.reason);
                refused
                    .then
                    .send(Response::text(text).with_status(StatusCode::SERVICE_UNAVAILABLE));
            }
        })
    })
}

#[test]
fn a_job_answers() {
    let server = offloading(config().with_compute_workers(1), &Gate::new());
    let mut http = Http::connect(server.addr());
    http.send([get("/a"), get("/panic"), get("/b")].concat());
    assert_eq!(http.answer().text(), "/a by Some(\"compute-0\")");
    assert_eq!(http.answer().status(), 500);
    assert_eq!(http.answer().text(), "/b by Some(\"compute-0\")");
    let counted = || {
        let compute = server.handle().stats().compute;
        (compute.done, compute.panicked)
    };
    wait_until("all are counted", || counted() == (2, 1));
}

#[test]
fn a_job_that_is_not_taken_gives_the_responder_back() {
    let server = offloading(config(), &Gate::new());
    let answer = Http::connect(server.addr()).get("/a");
    let reason = format!("{:?}", JobRefusal::NoComputeWorkers);
    assert_eq!((answer.status(), answer.text()), (503, &*reason));

    let gate = Gate::new();
    let config = config().with_compute_workers(1).with_compute_queue_len(1);
    let server = offloading(config, &gate);
    let mut busy: Vec<Http> = Vec::new();
    let mut ask = |path: &str| {
        let mut http = Http::connect(server.addr());
        http.send(get(path));
        busy.push(http);
    };
    ask("/wait");
    wait_until("it runs", || server.handle().stats().compute.running == 1);
    ask("/wait");
    wait_until("another waits", || server.handle().stats().compute.waiting == 1);
    let answer = Http::connect(server.addr()).get("/a");
    let reason = format!("{:?}", JobRefusal::QueueFull);
    assert_eq!((answer.status(), answer.text()), (503, &*reason));
    gate.open();
    for mut http in busy {
        assert_eq!(http.answer().text(), "waited");
    }
}
