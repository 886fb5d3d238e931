//! The end of a server: everybody is told, nobody is waited for too long, nothing is left.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, wait, and look at the clock"
)]

use std::collections::HashSet;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use ringwire::{Answer, CloseReason, Config, Error};
use ringwire_peers::{Got, connect, request};

use crate::support::app::Seen;
use crate::support::{Gate, Server, config, in_time, join_in_time, ms, wait_until};

/// No deadline of a connection plays a part.
fn patient() -> Config {
    config().with_close_timeout(None).with_handshake_timeout(None).with_idle_timeout(None)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_thousand_connections_are_told() {
    const COUNT: usize = 1000;
    let server = Server::echo(config().with_io_workers(2));
    let addr = server.addr();
    let mut clients: Vec<_> = (0..COUNT).map(|_| server.client()).collect();
    let ids: HashSet<_> = clients.iter().map(|_| server.opened()).collect();
    assert_eq!(ids.len(), COUNT, "each has an identity of its own");
    let handle = server.handle();
    handle.shutdown(LONG);
    for client in &mut clients {
        assert_eq!(client.close_frame(), (1001, String::new()));
        assert_eq!(client.end(), Got::Eof);
    }
    let mut closed = HashSet::new();
    for _ in 0..COUNT {
        let (id, cause) = server.find("on_close", |id, seen| match seen {
            Seen::Close(cause) => Some((id, cause)),
            _ => None,
        });
        assert_eq!(cause.reason, CloseReason::Shutdown);
        assert!(closed.insert(id), "once for each");
    }
    assert_eq!(closed, ids);
    server.join().unwrap();
    let total = handle.stats().total();
    assert_eq!((total.connections, total.closes[CloseReason::Shutdown]), (0, 1000));
    let refused = std::net::TcpStream::connect(addr).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn those_who_do_not_answer_are_cut_off() {
    let server = Server::echo(patient());
    let mut clients: Vec<_> = (0..50).map(|_| server.client()).collect();
    for client in &mut clients {
        client.answers = false;
    }
    wait_until("all are open", || server.stats().open_connections == 50);
    let began = Instant::now();
    server.handle().shutdown(ms(300));
    for client in &mut clients {
        assert_eq!(client.close_frame().0, 1001);
        assert_eq!(client.end(), Got::Eof);
    }
    for _ in 0..50 {
        let cause = server.closed();
        assert_eq!(cause.code.map(ringwire::CloseCode::get), Some(1001));
        assert!(!cause.is_clean());
    }
    server.join().unwrap();
    assert!(began.elapsed() >= ms(300), "they had their time");
}

#[test]
fn a_limit_of_zero_cuts_off_at_once() {
    let server = Server::echo(patient());
    let mut client = server.client();
    server.opened();
    server.handle().shutdown(Duration::ZERO);
    client.end();
    assert_eq!(server.closed().reason, CloseReason::Shutdown);
    server.join().unwrap();
}

#[test]
fn a_second_shutdown_may_hurry_the_first() {
    let server = Server::echo(patient());
    let mut client = server.client();
    client.answers = false;
    server.opened();
    server.handle().shutdown(LONG);
    assert_eq!(client.close_frame().0, 1001);
    assert_eq!(client.next_within(ms(100)), None, "the first is patient");
    server.handle().shutdown(Duration::ZERO);
    client.end();
    server.join().unwrap();
}

#[test]
fn a_draining_server_takes_nobody_in() {
    let server = Server::echo(patient());
    let mut stubborn = server.client();
    stubborn.answers = false;
    server.opened();
    server.handle().shutdown(LONG);
    assert_eq!(stubborn.close_frame().0, 1001);
    // The kernel refuses it, or gives it to another process that listens there.
    let late = std::net::TcpStream::connect(server.addr()).unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::ConnectionRefused);
    // Neither is one that was handed over.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = connect(listener.local_addr().unwrap());
    server.handle().adopt(listener.accept().unwrap().0, Vec::new()).unwrap();
    assert_eq!(ringwire_peers::read_answer(&mut client), "");
    assert_eq!(server.stats().handshakes, 1);
    stubborn.close(1000, "");
    server.join().unwrap();
}

#[test]
fn handshakes_under_way_are_ended() {
    let server =
        Server::start(patient(), |app| app.on_request(|_| Answer::Defer).without_messages());
    let silent = connect(server.addr());
    let mut partial = connect(server.addr());
    partial.write_all(&request().as_bytes()[..30]).unwrap();
    let mut deferred = connect(server.addr());
    deferred.write_all(request().as_bytes()).unwrap();
    wait_until("all were read", || {
        let stats = server.stats();
        stats.connections == 3 && stats.bytes_received == 30 + request().len() as u64
    });
    let handle = server.handle();
    handle.shutdown(LONG);
    for mut stream in [silent, partial, deferred] {
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
    }
    assert_eq!(server.drained(), [], "none was open");
    server.join().unwrap();
    assert_eq!(handle.stats().total().handshake_failures, 3);
}

#[test]
fn what_was_sent_before_goes_out_first() {
    let server = Server::start(patient().with_max_queued_len(16 << 20), |app| {
        app.on_message(|ctx, message| {
            let _ = ctx.send(vec![7; 8 << 20].as_slice());
            let _ = ctx.send(message);
        })
    });
    let mut client = server.client();
    client.send("go");
    server.find("the message", |_, seen| matches!(seen, Seen::Text(_)).then_some(()));
    server.handle().shutdown(LONG);
    server.looks();
    assert_eq!(client.binary().len(), 8 << 20);
    assert_eq!(client.text(), "go");
    assert_eq!(client.close_frame().0, 1001);
    server.join().unwrap();
}

#[test]
fn what_was_posted_before_goes_out_first() {
    let server = Server::echo(patient());
    let mut client = server.client();
    let id = server.opened();
    let handle = server.handle();
    for number in 0..100 {
        handle.send(id, number.to_string().as_str()).unwrap();
    }
    handle.shutdown(LONG);
    for number in 0..100 {
        assert_eq!(client.text(), number.to_string());
    }
    assert_eq!(client.close_frame().0, 1001);
    server.join().unwrap();
}

#[test]
fn a_handler_may_shut_its_server_down() {
    let server = Server::with_handler(patient(), &["127.0.0.1:0"], |seen, context| {
        let handle = context.handle().clone();
        crate::support::app::App::new(seen).on_message(move |_, _| handle.shutdown(LONG))
    });
    let mut client = server.client();
    client.send("enough");
    assert_eq!(client.close_frame().0, 1001);
    assert_eq!(client.end(), Got::Eof);
    server.join().unwrap();
}

#[test]
fn a_full_mailbox_does_not_keep_a_shutdown_out() {
    let gate = Gate::new();
    let blocked = gate.clone();
    let server = Server::start(patient().with_mailbox_len(1), move |app| {
        let blocked = blocked.clone();
        app.on_message(move |_, _| blocked.pass())
    });
    let mut client = server.client();
    let id = server.opened();
    client.send("block");
    server.find("the message", |_, seen| matches!(seen, Seen::Text(_)).then_some(()));
    server.handle().send(id, "fills the mailbox").unwrap();
    let handle = server.handle();
    let shutting_down = thread::spawn(move || handle.shutdown(LONG));
    wait_until("it has begun", || server.handle().is_draining());
    gate.open();
    shutting_down.join().unwrap();
    assert_eq!(client.text(), "fills the mailbox");
    assert_eq!(client.close_frame().0, 1001);
    server.join().unwrap();
}

#[test]
fn a_worker_that_dies_takes_the_others_along() {
    let running = ringwire::Server::new(config().with_io_workers(3))
        .listen("127.0.0.1:0")
        .start(|context| {
            assert_ne!(context.index(), 1, "provoked in the factory");
            ringwire::on_message(|_, _| {})
        })
        .unwrap();
    let handle = running.handle();
    match join_in_time(running) {
        Err(Error::Thread { worker, problem }) => {
            assert_eq!(worker, 1);
            assert_eq!(problem, "panicked");
        }
        other => panic!("{other:?}"),
    }
    let total = in_time("the figures can still be read", move || handle.stats().total());
    assert_eq!(total.connections, 0);
}
