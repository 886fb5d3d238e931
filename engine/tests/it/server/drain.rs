//! Draining over real sockets: two thousand connections that do not all leave at once, and who is refused meanwhile.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, wait, and look at the clock"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ClientSettings, Roots, ServerSettings};
use ringwire::{
    Accept, Answer, CloseCode, CloseReason, PostError,
    shutdown::{Drain, Draining, Readiness},
};
use ringwire_peers::{Client, Got, connect, frame, http, plain_request, read_answer, request};

use crate::support::{PATIENCE, Server, config, ms, wait_until};

const RESTART: CloseCode = CloseCode::new(1012);

/// Waits for the close frames of all, answers them, and says when each came.
fn closes_of(mut streams: Vec<TcpStream>, code: CloseCode) -> Vec<Instant> {
    let began = Instant::now();
    let mut closes = Vec::with_capacity(streams.len());
    for stream in &streams {
        stream.set_nonblocking(true).expect("a socket can be that");
    }
    let expected = [&[0x88, 2][..], &code.get().to_be_bytes()].concat();
    while !streams.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} were not closed", streams.len());
        streams.retain_mut(|stream| {
            let mut bytes = [0; 16];
            let Ok(len) = stream.read(&mut bytes) else { return true };
            assert_eq!(bytes[..len], expected, "a close frame, and nothing else");
            stream.write_all(&frame(0x88, &code.get().to_be_bytes())).expect("there is room");
            closes.push(Instant::now());
            false
        });
        thread::sleep(ms(5));
    }
    closes
}

#[test]
fn two_thousand_connections_leave_one_after_the_other() {
    const COUNT: usize = 2000;
    let window = Duration::from_secs(5);
    let server = Server::start(config().with_io_workers(2), |app| app.without_messages());
    let streams: Vec<_> = (0..COUNT).map(|_| server.client().into_line().stream).collect();
    wait_until("all are open", || server.stats().open_connections == COUNT as u64);
    let began = Instant::now();
    let draining = server.handle().drain(window, RESTART);
    let closes = closes_of(streams, RESTART);
    let gone = [1, 2, 3, 4].map(|fifths| {
        let end = began + window * fifths / 5;
        closes.iter().filter(|close| **close < end).count()
    });
    // A machine that is busy with other tests makes some late, and nobody early.
    let spare = COUNT / 5 * 3 / 5;
    let most = |fifths| COUNT / 5 * fifths + spare;
    assert!((1..).zip(gone).all(|(fifths, count)| count < most(fifths)), "{gone:?}");
    assert!(gone[3] > COUNT / 5, "{gone:?}");
    let report = draining.wait(PATIENCE).expect("all workers end");
    assert_eq!(report.connections, COUNT as u64);
    assert_eq!(report.closes[CloseReason::Shutdown], COUNT as u64);
    assert_eq!((report.cut_off.total(), report.unsent_len), (0, 0));
    server.join().unwrap();
}

#[test]
fn requests_are_refused_meanwhile() {
    let server = Server::start(config(), |app| {
        app.on_http(|_| ringwire::Response::new(http::StatusCode::IM_A_TEAPOT))
    });
    let handle = server.handle();
    assert_eq!((handle.is_draining(), handle.readiness()), (false, Readiness::Ready));
    let mut stays = server.client();
    server.opened();
    let mut early = connect(server.addr());
    wait_until("it is accepted", || server.stats().connections == 2);
    let drain = Drain::new(Duration::from_secs(600), RESTART).with_listeners_kept();
    let draining = handle.drain_with(&drain);
    assert_eq!((handle.is_draining(), handle.readiness()), (true, Readiness::Draining));

    early.write_all(request().as_bytes()).unwrap();
    for answer in [read_answer(&mut early), http(server.addr(), request())] {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let retry = answer.split("retry-after: ").nth(1).expect("it says when to come back");
        let secs: u64 = retry.split('\r').next().unwrap_or_default().parse().expect("seconds");
        assert!((1..=601).contains(&secs), "{secs}");
    }
    // A balancer's question is the application's to answer.
    let answer = http(server.addr(), "GET /ready HTTP/1.1\r\nHost: it\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 418 "), "{answer}");
    // Whoever is open is served until its moment.
    stays.send("still there?");
    assert_eq!(stays.text(), "still there?");
    assert_eq!(server.stats().drain_refusals, 2);
    assert_eq!(draining.wait(ms(10)), Err(PostError::Busy));

    handle.shutdown(PATIENCE);
    assert_eq!(stays.close_frame().0, 1001, "the last word holds");
    assert_eq!(draining.wait(PATIENCE).map(|report| report.refused), Ok(2));
    server.join().unwrap();
}

#[test]
fn a_request_that_was_deferred_is_refused() {
    let (sender, ids) = std::sync::mpsc::channel();
    let server = Server::start(config(), move |app| {
        let sender = sender.clone();
        app.on_request(move |request| {
            sender.send(request.id()).expect("the test waits for it");
            Answer::Defer
        })
    });
    let mut asking = connect(server.addr());
    asking.write_all(request().as_bytes()).unwrap();
    let id = ids.recv_timeout(PATIENCE).expect("the application is asked");
    let mut other = connect(server.addr());
    other.write_all(request().as_bytes()).unwrap();
    ids.recv_timeout(PATIENCE).expect("the application is asked");
    let draining = server.handle().drain(ms(600), RESTART);
    // The one is answered too late, the other never.
    server.handle().accept(id, Accept::new(0_u32)).unwrap();
    for stream in [&mut asking, &mut other] {
        let answer = read_answer(stream);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    assert_eq!(draining.wait(PATIENCE).map(|report| report.refused), Ok(2));
    server.join().unwrap();
}

#[test]
fn the_listeners_are_closed_at_once_unless_they_are_kept() {
    let server = Server::echo(config());
    let client = server.client();
    server.opened();
    let draining = server.handle().drain(ms(500), RESTART);
    wait_until("nobody listens", || TcpStream::connect(server.addr()).is_err());
    assert_eq!(closes_of(vec![client.into_line().stream], RESTART).len(), 1);
    let report = draining.wait(PATIENCE).expect("the worker ends before the grace is over");
    // What asked whether anybody listens may have been accepted before.
    assert!(report.connections >= 1, "{report:?}");
    assert_eq!(report.cut_off.total(), 0);
    assert_eq!(server.closed().code, Some(RESTART));
    server.join().unwrap();
}

/// A request, cut in the middle by the drain; what has come back when it is whole.
fn answer_to_a_cut_request(
    server: &Server,
    drain: &Drain,
    window_is_over: bool,
) -> (Client, Draining) {
    let asked = plain_request();
    let mut head = Vec::new();
    asked.encode(&mut head);
    let (first, second) = head.split_at(30);
    let mut stream = connect(server.addr());
    stream.write_all(first).expect("it is connected");
    wait_until("a part is there", || server.stats().bytes_received == first.len() as u64);
    let draining = server.handle().drain_with(drain);
    if window_is_over {
        thread::sleep(drain.window + ms(200));
    } else {
        server.looks();
    }
    stream.write_all(second).expect("it is connected");
    (Client::await_upgrade(stream, &asked), draining)
}

#[test]
fn a_request_under_way_is_served_where_a_successor_listens() {
    // The first is so long that the client is served within it, on a machine that is busy.
    for (window, window_is_over) in [(ms(3000), false), (ms(100), true), (ms(0), true)] {
        let server = Server::echo(config().with_io_workers(2));
        let successors = server.handle().listeners().unwrap();
        assert_eq!(successors.len(), 2, "each worker has a socket");
        let drain = Drain::new(window, RESTART);
        let (mut client, draining) = answer_to_a_cut_request(&server, &drain, window_is_over);
        if !window_is_over {
            client.send("still there?");
            assert_eq!(client.text(), "still there?");
        }
        assert_eq!(client.close_frame().0, 1012);
        assert_eq!(client.end(), Got::Eof);
        let report = draining.wait(PATIENCE).expect("all workers end");
        assert_eq!((report.refused, report.cut_off.total()), (0, 0));
        // Who comes now waits for the successor.
        TcpStream::connect(server.addr()).expect("somebody listens");
        drop(successors);
        assert!(server.handle().listeners().is_err(), "they are given up");
        let addr = server.addr();
        // Until its threads have ended, a driver may have the last descriptor.
        server.join().unwrap();
        // Processes that other tests start hold a copy until they run their program.
        wait_until("nobody is left who listens", || TcpStream::connect(addr).is_err());
    }
}

/// Without a successor it gets an answer as well, and may be late for it.
#[test]
fn a_request_under_way_is_answered_in_the_grace() {
    let server = Server::echo(config());
    let mut stream = connect(server.addr());
    stream.write_all(&request().as_bytes()[..30]).unwrap();
    wait_until("a part is there", || server.stats().bytes_received == 30);
    let draining = server.handle().drain(ms(100), RESTART);
    thread::sleep(ms(300));
    stream.write_all(&request().as_bytes()[30..]).unwrap();
    let answer = read_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(stream);
    let report = draining.wait(PATIENCE).expect("all workers end");
    assert_eq!((report.refused, report.cut_off.total()), (1, 0));
    server.join().unwrap();
}

#[test]
fn a_tls_handshake_under_way_is_finished() {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a name");
    let (cert, key) = (key.cert.pem(), key.signing_key.serialize_pem());
    let source = CertificateSource::pem(cert.clone(), key);
    let tls = ServerSettings::new(source).build(UnixTime::now()).expect("a good certificate");
    let trusting = ClientSettings::new(Roots::pem(cert)).build(UnixTime::now()).expect("a root");
    let server = Server::secure(config(), tls, |app| app);
    let address = server.addrs()[1];
    // The client finds a proxy that holds its first bytes back until the drain has begun.
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}", proxy.local_addr().unwrap());
    let client = thread::spawn(move || {
        let builder = ringwire::client::Client::builder().with_tls(trusting).without_proxy();
        let mut client = builder.with_read_timeout(PATIENCE).connect(&url).expect("it is served");
        match client.receive() {
            Err(ringwire::client::Error::Closed { code, .. }) => Some(code),
            other => panic!("{other:?} where a close frame was expected"),
        }
    });
    let mut near = proxy.accept().unwrap().0;
    let mut far = connect(address);
    wait_until("it is accepted", || server.stats().connections == 1);
    let _successors = server.handle().listeners().unwrap();
    let draining = server.handle().drain(ms(100), RESTART);
    thread::sleep(ms(200));
    let (mut back_near, mut back_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let forth = thread::spawn(move || std::io::copy(&mut near, &mut far));
    // Either way may end with a reset, once the other end is closed.
    let _ = std::io::copy(&mut back_far, &mut back_near);
    let _ = back_near.shutdown(std::net::Shutdown::Both);
    assert_eq!(client.join().unwrap(), Some(RESTART));
    let _ = forth.join().unwrap();
    let report = draining.wait(PATIENCE).expect("all workers end");
    assert_eq!(report.cut_off.total(), 0);
    server.join().unwrap();
}

/// Its time is up: a peer that reads nothing, and one that does not answer.
#[test]
fn what_was_left_is_reported_by_its_cause() {
    let config =
        config().with_close_timeout(None).with_max_queued_len(64 << 20).with_high_water(32 << 20);
    let server = Server::start(config, |app| {
        app.on_message(|ctx, _| {
            let _ = ctx.send(vec![7; 16 << 20].as_slice());
        })
    });
    let mut deaf = server.client();
    deaf.send("flood");
    wait_until("output waits", || server.stats().queued_bytes > 1 << 20);
    let mut silent = server.client();
    silent.answers = false;
    // A worker that is late still tells them before it cuts them off.
    let draining = server.handle().drain_with(&Drain::new(ms(100), RESTART).with_grace(ms(3000)));
    assert_eq!(silent.close_frame().0, 1012);
    let report = draining.wait(PATIENCE).expect("all is cut off in the end");
    assert_eq!((report.cut_off.unread, report.cut_off.unanswered), (1, 1), "{report:?}");
    assert_eq!(report.cut_off.total(), 2);
    assert!(report.unsent_len > 1 << 20);
    assert_eq!(server.stats().drain_cut_offs, 2);
    server.join().unwrap();
}
