//! What becomes of a publication for those who do not keep up.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share with threads, and wait"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::{
    Answer, Backpressure, CloseCode, Config, Ctx, Handler, Message, Request,
    topics::{PublishError, PublishOptions, TopicConfig},
};
use ringwire_peers::Client;

use super::{app, ask, obey, quiet, subscriber};
use crate::support::app::App;
use crate::support::process::{ran_alone, resident_len};
use crate::support::{PATIENCE, Server, ms, wait_until};

const LEN: usize = 1 << 10;
/// More of these than the sockets of both sides take.
const COUNT: usize = 12_000;

/// A subscriber with a small window, who does not read.
fn never_reading(addr: SocketAddr, topic: &str) -> Client {
    let stream = ringwire_peers::narrow(addr, LEN);
    let mut client = Client::upgrade(stream, &ringwire_peers::client_request("/"));
    ask(&mut client, &format!("sub {topic}"), "true");
    client
}

/// Publishes, and waits each time until `has_come` says that enough of it has come.
fn publish_all(server: &Server, topic: &str, has_come: impl Fn(usize) -> bool) {
    let handle = server.handle();
    for index in 0..COUNT {
        handle.publish(topic, format!("{index:>LEN$}").as_str()).expect("nobody is behind");
        if index % 32 == 31 {
            wait_until("it has come", || has_come(index + 1));
        }
    }
}

/// For a server without another subscriber.
fn publish_to_the_deaf(server: &Server) {
    publish_all(server, "hot", |count| server.stats().deliveries == count as u64);
}

fn slow_topics(policy: Backpressure) -> Config {
    let topics = TopicConfig::default().with_policy(">", policy);
    quiet().with_max_queued_len(128 << 10).with_topics(topics)
}

/// security.md: a topic is hot, and some of its subscribers never read. Their queues stay within the limit, the policy
/// is carried out, memory is bounded, and a subscriber that reads gets all of it in order.
#[test]
fn never_reading_peer() {
    if ran_alone(never_reading_peer) {
        return;
    }
    const BUDGET: usize = 1 << 20;
    const PEERS: usize = 20;
    for policy in [
        Backpressure::DropNewest,
        Backpressure::DropOldest,
        Backpressure::Close(CloseCode::TRY_AGAIN_LATER),
    ] {
        let mut config = slow_topics(policy).with_close_timeout(Duration::from_secs(1));
        config.topics.max_retained_len = BUDGET;
        let server = Server::start(config, |own| app(own).without_messages());
        let mut peers: Vec<_> = (0..PEERS).map(|_| never_reading(server.addr(), "hot")).collect();
        let mut reader = subscriber(server.addr(), &["hot"]);
        let come = Arc::new(AtomicUsize::new(0));
        let coming = Arc::clone(&come);
        let reading = thread::spawn(move || {
            for index in 0..COUNT {
                assert_eq!(reader.text().trim_start().parse(), Ok(index));
                coming.store(index + 1, Ordering::Relaxed);
            }
        });
        let before = resident_len();
        publish_all(&server, "hot", |count| come.load(Ordering::Relaxed) >= count);
        reading.join().expect("the reader gets all of it, in order");
        let grown = resident_len().saturating_sub(before);
        let stats = server.handle().stats();
        let total = stats.total();
        // What waits is shared: at most the budget, the 4 KiB that may always wait, and what the driver has.
        let most = BUDGET + PEERS * (4 << 10) + (1 << 20);
        assert!(stats.topics.retained_len <= most, "{policy:?}: {}", stats.topics.retained_len);
        assert!(grown < 24 << 20, "{policy:?}: {grown} bytes more");
        assert!(total.publications_dropped > 0, "{policy:?}");
        let waiting = u64::try_from(PEERS * (160 << 10)).expect("fits");
        assert!(total.queued_bytes <= waiting, "{policy:?}: {} wait", total.queued_bytes);
        println!(
            "{policy:?}: resident {} KiB more, retained {} KiB, queued {} KiB, dropped {} of {}",
            grown >> 10,
            stats.topics.retained_len >> 10,
            total.queued_bytes >> 10,
            total.publications_dropped,
            total.deliveries,
        );
        if matches!(policy, Backpressure::Close(_)) {
            wait_until("they are closed", || server.stats().open_connections == 0);
        } else {
            wait_until("only the reader has gone", || {
                server.stats().open_connections == PEERS as u64
            });
        }
        peers.clear();
    }
}

#[test]
fn what_was_missed_is_told_and_the_rest_is_in_order() {
    for policy in [Backpressure::DropNewest, Backpressure::DropOldest] {
        let server = Server::with_handler(slow_topics(policy), &["127.0.0.1:0"], |_, _| Telling);
        let mut slow = never_reading(server.addr(), "hot");
        publish_to_the_deaf(&server);
        let mut got = Vec::new();
        let count = loop {
            let text = slow.text();
            match text.strip_prefix("missed ") {
                Some(count) => break count.parse::<usize>().expect("a number"),
                None => got.push(text.trim_start().parse::<usize>().expect("a number")),
            }
        };
        assert!(got.is_sorted(), "{policy:?}");
        assert!(count > 0, "{policy:?}");
        let newest = policy == Backpressure::DropOldest;
        assert_eq!(got.contains(&(COUNT - 1)), newest, "{policy:?}");
        assert_eq!(got.len() + count, COUNT, "{policy:?}");
    }
}

/// Tells a client what it has missed.
struct Telling;

impl Handler for Telling {
    type State = u32;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<u32> {
        Answer::accept(0)
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, u32>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        obey(ctx, text);
    }

    fn on_missed(&mut self, ctx: &mut Ctx<'_, u32>, count: u32) {
        assert_eq!(ctx.queued_len(), 0);
        let _ = ctx.send(format!("missed {count}").as_str());
    }
}

#[test]
fn a_publication_with_a_key_replaces_the_one_that_waits() {
    let server = Server::start(slow_topics(Backpressure::DropOldest), app);
    let mut slow = never_reading(server.addr(), "hot");
    ask(&mut slow, "sub price", "true");
    publish_to_the_deaf(&server);
    let handle = server.handle();
    for value in 0..1000 {
        for key in [1, 2] {
            let options = PublishOptions::default().with_key(key);
            handle
                .publish_with("price", format!("{key} is {value}").as_str(), options)
                .expect("a topic");
        }
    }
    wait_until("all are given out", || server.stats().deliveries == COUNT as u64 + 2000);
    // The last is counted before it replaces another.
    server.looks();
    assert_eq!(server.stats().publications_replaced, 2 * 999);
    let mut prices = Vec::new();
    while prices.len() < 2 {
        let text = slow.text();
        if text.contains(" is ") {
            prices.push(text);
        }
    }
    assert_eq!(prices, ["1 is 999", "2 is 999"]);
}

/// One worker is stuck in its handler: the others' subscribers get everything, and who publishes is told.
#[test]
fn a_worker_that_is_stuck_holds_up_nobody_else() {
    let topics = TopicConfig::default().with_max_in_transit_len(64 << 10);
    let config = quiet().with_io_workers(2).with_topics(topics);
    let (gate, release) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let barriers = (Arc::clone(&gate), Arc::clone(&release));
    let server = Server::start(config, move |own: App| {
        let (gate, release) = (Arc::clone(&barriers.0), Arc::clone(&barriers.1));
        own.on_message(move |ctx, message| match message {
            Message::Text("stick") => {
                gate.wait();
                release.wait();
            }
            Message::Text(text) => obey(ctx, text),
            Message::Binary(_) => unreachable!("commands are texts"),
        })
    });
    let mut clients: Vec<_> = (0..16).map(|_| (Client::connect(server.addr()), 0)).collect();
    for (client, worker) in &mut clients {
        ask(client, "sub t", "true");
        *worker = server.opened().worker();
    }
    let stuck = clients[0].1;
    clients[0].0.send(Message::Text("stick"));
    gate.wait();
    let (text, mut missed) = ("x".repeat(1000), 0);
    for index in 0..1000 {
        match server.handle().publish("t", format!("{index} {text}").as_str()) {
            Ok(()) => assert_eq!(missed, 0, "it had room again"),
            Err(PublishError::Busy(1)) => missed += 1,
            // The other one may be busy as well, for a moment.
            Err(PublishError::Busy(2)) => panic!("the one that works is behind"),
            Err(error) => panic!("{error}"),
        }
        if index % 20 == 19 {
            for (client, _) in clients.iter_mut().filter(|(_, worker)| *worker != stuck) {
                for expected in index - 19..=index {
                    assert!(client.text().starts_with(&format!("{expected} ")));
                }
            }
        }
    }
    assert!((900..1000).contains(&missed), "{missed}");
    release.wait();
    for (client, _) in clients.iter_mut().filter(|(_, worker)| *worker == stuck) {
        for expected in 0..1000 - missed {
            assert!(client.text().starts_with(&format!("{expected} ")));
        }
    }
}

/// Publishers on connections and on threads; steady readers, peers that never read, that reset, that say nothing more.
#[test]
fn nobody_healthy_loses_anything_beside_those_who_are_not() {
    const EACH: usize = 500;
    const PUBLISHERS: usize = 4;
    let topics = TopicConfig::default().with_policy("hot", Backpressure::DropOldest);
    let config = quiet().with_io_workers(3).with_max_queued_len(8 << 20).with_topics(topics);
    let server = Server::start(config, |own| app(own).without_messages());
    let addr = server.addr();
    let sick: Vec<_> = (0..4).map(|_| never_reading(addr, "hot")).collect();
    let readers: Vec<_> = (0..12)
        .map(|number| {
            let topics: &[&str] = if number % 2 == 0 { &["hot"] } else { &["*", "hot"] };
            let mut client = subscriber(addr, topics);
            thread::spawn(move || {
                let mut next = HashMap::new();
                for _ in 0..PUBLISHERS * EACH {
                    let text = client.text();
                    let (publisher, index) = text.split_once(' ').expect("two words");
                    let index: usize = index.trim_start().parse().expect("a number");
                    let expected = next.entry(publisher.to_owned()).or_insert(0);
                    assert_eq!(index, *expected, "of {publisher}");
                    *expected += 1;
                }
            })
        })
        .collect();
    let resetting = thread::spawn(move || {
        for _ in 0..40 {
            let client = subscriber(addr, &["hot"]);
            thread::sleep(ms(5));
            client.reset();
        }
    });
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|number| {
            let handle = server.handle();
            thread::spawn(move || {
                let mut client = Client::connect(addr);
                for index in 0..EACH {
                    let said = format!("{number} {index:>1000}");
                    if number % 2 == 0 {
                        handle.publish("hot", said.as_str()).expect("nobody is behind");
                    } else {
                        client.send(Message::Text(&format!("pub hot {said}")));
                    }
                    if index % 50 == 0 {
                        thread::sleep(ms(2));
                    }
                }
                client
            })
        })
        .collect();
    let deadline = Instant::now() + 3 * PATIENCE;
    let clients: Vec<_> =
        publishers.into_iter().map(|publisher| publisher.join().expect("it publishes")).collect();
    for reader in readers {
        reader.join().expect("it gets everything, once and in order");
    }
    resetting.join().expect("they connect and reset");
    assert!(Instant::now() < deadline);
    drop((sick, clients));
}
