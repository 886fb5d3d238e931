//! What takes threads of its own: a client that comes back, and a producer. On real sockets, with both drivers.

use std::sync::mpsc;
use std::time::Duration;

use ringwire::DriverKind;
use ringwire::testing::{Live, Peer, Stage};
use ringwire_api_tests::USER;
use ringwire_api_tests::client::{client, flood};
use ringwire_client::{Backoff, Client, Error, Reconnecting, RetryPolicy};
use serde_json::{Value, json};

use crate::common::{ask, enter, make, token};

#[test]
fn a_client_comes_back_with_new_tokens_on_epoll() {
    comes_back(DriverKind::Epoll);
}

#[test]
fn a_client_comes_back_with_new_tokens_on_io_uring() {
    comes_back(DriverKind::Uring);
}

/// The first token has expired, so it is refused; the second expires soon; the third lasts.
fn comes_back(driver: DriverKind) {
    let live = Live::start(driver, make);
    let (whys, reasons) = mpsc::channel();
    let mut validities = [-1, 5, 3600].into_iter();
    let issue = move |why: Option<&Error>| {
        whys.send(why.map(|error| match error {
            Error::Refused(refusal) => refusal.status.as_u16(),
            Error::Closed { code, .. } => code.get(),
            _ => 0,
        }))?;
        Ok(token("ann", validities.next().ok_or("there are three tokens")?))
    };
    let url = format!("ws://{}/chat", live.address());
    let quick = Backoff::default().with_first_delay(Duration::from_millis(10));
    // The connection of the second token is over before it counts as stable.
    let policy = RetryPolicy::default().with_backoff(quick).with_max_renewals(2);
    let builder = Client::builder().without_proxy();
    let mut ann = client(builder, &url, issue, "tea").with_policy(policy);
    for _ in 0..2 {
        assert_eq!(next_of(&mut ann, "joined")["room"], "tea");
    }
    let say = json!({ "op": "say", "room": "tea", "text": "back again" });
    ann.sender().send(&say.to_string()).unwrap();
    assert_eq!(next_of(&mut ann, "said")["text"], "back again");
    assert_eq!(reasons.try_iter().collect::<Vec<_>>(), [None, Some(401), Some(4401)]);
}

fn next_of(client: &mut Reconnecting, event: &str) -> Value {
    loop {
        let message = client.receive().expect("it comes back").expect("nobody closes it");
        let news: Value = serde_json::from_slice(message.as_bytes()).unwrap();
        if news["event"] == event {
            return news;
        }
    }
}

#[test]
fn a_producer_waits_for_the_slow_and_not_for_others_on_epoll() {
    producer(DriverKind::Epoll);
}

#[test]
fn a_producer_waits_for_the_slow_and_not_for_others_on_io_uring() {
    producer(DriverKind::Uring);
}

fn producer(driver: DriverKind) {
    const LINES: usize = 3000;
    let mut live = Live::start(driver, make);
    let handle = live.handle();
    let mut open = |user: &str| {
        let mut peer = enter(&mut live, user);
        ask(&mut peer, &json!({ "op": "join", "room": "x" }));
        let conn = handle.connections(&format!("{USER}{user}"))[0];
        (peer, conn)
    };
    let (mut fast, fast_conn) = open("fast");
    let (mut slow, slow_conn) = open("slow");
    slow.stop_reading();
    let to_slow = flood(handle.sender(slow_conn).unwrap(), LINES, 8192);
    let to_fast = flood(handle.sender(fast_conn).unwrap(), LINES, 8192);
    read_lines(&mut fast, LINES);
    to_fast.join().unwrap().unwrap();
    assert!(!to_slow.is_finished(), "more is on its way than sockets hold");
    slow.go_on_reading();
    read_lines(&mut slow, LINES);
    to_slow.join().unwrap().unwrap();
    for peer in [&mut fast, &mut slow] {
        assert_eq!(ask(peer, &json!({ "op": "leave", "room": "x" }))["event"], "left");
    }
    assert_eq!(handle.stats().total().closes.total(), 0);
}

fn read_lines(peer: &mut Peer, count: usize) {
    let mut next = 0;
    while next < count {
        let line = peer.text();
        if !line.starts_with('{') {
            assert_eq!(line.trim_end(), next.to_string());
            next += 1;
        }
    }
}
