//! Topics that keep what was published, and connections that come back for it.

#![expect(clippy::disallowed_types, reason = "tests own sockets, and share with threads")]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ringwire::topics::{HistoryConfig, Position, PublishOptions, TopicConfig, TopicError};
use ringwire::{Config, Ctx, Message};
use ringwire_peers::Client;
use ringwire_seeds::Random;

use crate::cluster::Line;
use crate::support::app::App;
use crate::support::{Server, wait_until};
use crate::topics::quiet;

const KEPT: u64 = 24;

fn stamp(message: Message<'_>, Position { epoch, offset }: Position, _: Option<u64>) -> Vec<u8> {
    let mut stamped = format!("{epoch} {offset} ").into_bytes();
    stamped.extend_from_slice(message.as_bytes());
    stamped
}

fn config(workers: usize) -> Config {
    let history = HistoryConfig::default()
        .with_max_count(usize::try_from(KEPT).expect("it is small"))
        .with_max_age(None)
        .with_stamp(stamp);
    quiet()
        .with_io_workers(workers)
        .with_topics(TopicConfig::default().with_history("room.*", history))
}

/// `TOPIC`, or `TOPIC EPOCH OFFSET`: subscribes, says where the topic is, and what was missed.
fn follow(ctx: &mut Ctx<'_, u32>, command: &str) {
    let mut words = command.split(' ');
    let topic = words.next().expect("a topic");
    let mut number = || words.next().map(|word| word.parse().expect("a number"));
    let since = number().zip(number()).map(|(epoch, offset)| Position { epoch, offset });
    let recovery = match ctx.subscribe_since(topic, since) {
        Ok(recovery) => recovery,
        Err(error) => {
            let _ = ctx.send(&error.to_string());
            return;
        }
    };
    let Position { epoch, offset } = recovery.position;
    let word = if recovery.missed.is_some() { "whole" } else { "gone" };
    ctx.send(&format!("{epoch} {offset} {word}")).expect("there is room");
    for recorded in recovery.missed.unwrap_or_default() {
        assert_eq!(recorded.position().epoch, epoch);
        ctx.send(recorded.message()).expect("there is room");
    }
}

fn app(app: App) -> App {
    app.on_message(|ctx, message| follow(ctx, message.as_text().expect("commands are texts")))
}

fn parse(text: &str) -> (Position, &str) {
    let mut words = text.splitn(3, ' ');
    let mut number = || words.next()?.parse().ok();
    let position = Position { epoch: number().expect(text), offset: number().expect(text) };
    (position, words.next().expect("more"))
}

/// Subscribes; where the topic is, and whether what was missed follows.
fn come_back(client: &mut Client, topic: &str, since: Option<Position>) -> (Position, bool) {
    let since = since.map(|it| format!(" {} {}", it.epoch, it.offset)).unwrap_or_default();
    client.send(Message::Text(&format!("{topic}{since}")));
    let answer = client.text();
    let (position, word) = parse(&answer);
    (position, word == "whole")
}

/// What was published, as all who hear it agree.
#[derive(Default)]
struct Truth(Mutex<HashMap<(usize, u64), String>>);

impl Truth {
    fn check(&self, topic: usize, position: Position, text: &str) {
        let mut all = self.0.lock().expect("no thread has failed");
        let known = all.entry((topic, position.offset)).or_insert_with(|| text.to_owned());
        assert_eq!(known, text, "topic {topic}, {position:?}");
    }
}

/// 10 000 times a client goes and comes back to a topic to which others publish all the time: it gets what it missed
/// exactly, or is told that this is gone, which is so if it is more than the topic keeps. What comes then goes on from
/// there without a gap.
#[test]
fn gaps_are_filled_exactly_or_told_as_gone() {
    const THREADS: usize = 8;
    const VISITS: u64 = 10_000 / THREADS as u64;
    const TOPICS: [&str; 3] = ["room.a", "room.b", "room.c"];
    let server = Server::start(config(2), app);
    let (handle, addr) = (server.handle(), server.addr());
    let published: [AtomicU64; 3] = Default::default();
    let (whole, gone, live) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let truth = Truth::default();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (handle, published, truth) = (&handle, &published, &truth);
            let (whole, gone, live) = (&whole, &gone, &live);
            scope.spawn(move || {
                let mut random = Random::new(number as u64 + 1);
                let mut said = 0;
                let mut publish = |topic: usize, count| {
                    for _ in 0..count {
                        said += 1;
                        let text = format!("{number} {said}");
                        handle.publish(TOPICS[topic], &*text).expect("no worker is behind");
                        published[topic].fetch_add(1, Ordering::Relaxed);
                    }
                };
                let mut heard = [None::<Position>; TOPICS.len()];
                for _ in 0..VISITS {
                    let topic = random.below(3);
                    let since = heard[topic];
                    let mut client = Client::connect(addr);
                    let (position, is_whole) = come_back(&mut client, TOPICS[topic], since);
                    let missed = since.map_or(0, |since| position.offset - since.offset);
                    assert!(since.is_none_or(|since| since.epoch == position.epoch));
                    assert_eq!(is_whole, missed <= KEPT, "{since:?} {position:?}");
                    if is_whole { whole } else { gone }.fetch_add(1, Ordering::Relaxed);
                    let first = since.filter(|_| is_whole).unwrap_or(position).offset + 1;
                    let more = random.below(4);
                    publish(topic, more);
                    live.fetch_add(more, Ordering::Relaxed);
                    let more = more as u64;
                    for expected in first..=position.offset + more {
                        let text = client.text();
                        let (position, text) = parse(&text);
                        assert_eq!(position.offset, expected, "{since:?} {is_whole}");
                        truth.check(topic, position, text);
                    }
                    heard[topic] = Some(Position { offset: position.offset + more, ..position });
                    drop(client);
                    let gap = random.below(3);
                    publish(random.below(3), gap);
                }
            });
        }
    });
    let truth = truth.0.into_inner().expect("no thread has failed");
    for (topic, published) in published.iter().enumerate() {
        let (position, _) = come_back(&mut Client::connect(addr), TOPICS[topic], None);
        assert_eq!(position.offset, published.load(Ordering::Relaxed), "each has a number");
        let mut last = HashMap::<&str, u64>::new();
        for offset in 1..=position.offset {
            let Some(text) = truth.get(&(topic, offset)) else { continue };
            let (who, index) = text.split_once(' ').expect("two words");
            let index = index.parse().expect("a number");
            let before = last.insert(who, index);
            assert!(before.is_none_or(|before| before < index), "what one thread says is in order");
        }
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    println!("{} filled, {} gone, {} live", count(&whole), count(&gone), count(&live));
    assert!(count(&gone) > 100 && count(&whole) > 100, "both happen");
    assert!(handle.stats().topics.history_len > 0);
}

#[test]
fn whoever_subscribes_again_gets_nothing_twice() {
    const ROUNDS: u64 = KEPT;
    let server = Server::start(config(1), app);
    let handle = server.handle();
    let mut client = server.client();
    for topic in (0..20).map(|number| format!("room.{number}")) {
        let (start, _) = come_back(&mut client, &topic, None);
        // Some of what is given as missed is still under way as well.
        for round in 0..ROUNDS {
            handle.publish(&topic, "x").expect("there is room");
            client.send(Message::Text(&format!("{topic} {} {round}", start.epoch)));
        }
        let (mut heard, mut answers) = (0, 0);
        while answers < ROUNDS || heard < ROUNDS {
            let text = client.text();
            let (position, rest) = parse(&text);
            if rest == "whole" {
                // What was missed since then follows.
                (heard, answers) = (answers, answers + 1);
            } else {
                heard += 1;
                assert_eq!(position.offset, heard, "after {answers} answers");
            }
        }
    }
}

#[test]
fn nobody_is_left_out_of_what_is_numbered() {
    let server = Server::start(config(2), app);
    let mut client = server.client();
    let (start, is_whole) = come_back(&mut client, "room.a", None);
    assert!(is_whole && start.offset == 0);
    let options = PublishOptions::default().with_key(7).with_except_name("ann");
    for text in ["one", "two"] {
        server.handle().publish_with("room.a", text, options).expect("there is room");
    }
    server.handle().publish("room.a", &[1, 2][..]).expect("there is room");
    for (offset, text) in [(1, "one"), (2, "two")] {
        assert_eq!(client.text(), format!("{} {offset} {text}", start.epoch));
    }
    assert_eq!(
        client.binary(),
        stamp(Message::Binary(&[1, 2]), Position { offset: 3, ..start }, Some(2))
    );
}

/// Its subscription is there already, and takes no other place.
#[test]
fn whoever_has_the_last_place_can_come_back_to_it() {
    let config = config(1);
    let topics = config.topics.clone().with_max_subscriptions(1);
    let server = Server::start(config.with_topics(topics), app);
    let mut client = server.client();
    let (start, _) = come_back(&mut client, "room.1", None);
    assert_eq!(come_back(&mut client, "room.1", Some(start)), (start, true));
    client.send(Message::Text("room.2"));
    assert_eq!(client.text(), TopicError::TooMany.to_string());
    server.handle().publish("room.1", "x").expect("there is room");
    assert_eq!(client.text(), format!("{} 1 x", start.epoch));
}

#[test]
fn topics_without_a_history_have_no_position() {
    let server = Server::start(config(1), app);
    let mut client = server.client();
    client.send(Message::Text("news"));
    assert_eq!(client.text(), TopicError::NoHistory.to_string());
    client.send(Message::Text("room.*"));
    assert_eq!(client.text(), TopicError::Wildcard.to_string());
    assert_eq!(server.handle().stats().topics.history_len, 0);
}

#[test]
fn what_is_too_old_is_gone() {
    let history = HistoryConfig::default().with_max_age(Duration::ZERO).with_stamp(stamp);
    let topics = TopicConfig::default().with_history(">", history);
    let server = Server::start(quiet().with_topics(topics), app);
    let (start, _) = come_back(&mut server.client(), "a", None);
    server.handle().publish("a", "x").expect("there is room");
    wait_until("it is older than that", || !come_back(&mut server.client(), "a", Some(start)).1);
    let end = Position { offset: 1, ..start };
    assert!(come_back(&mut server.client(), "a", Some(end)).1, "it has missed nothing");
}

/// Each node of a cluster numbers for itself, so a position of another one is gone.
#[test]
fn nodes_have_histories_of_their_own() {
    let bus = Line::default();
    let nodes: Vec<_> = (0..2)
        .map(|_| {
            let server = ringwire::Server::new(config(2)).listen("127.0.0.1:0");
            Server::listening(server.with_bus(bus.clone()), |seen, _| app(App::new(seen)))
        })
        .collect();
    let mut clients: Vec<_> = nodes.iter().map(Server::client).collect();
    let starts: Vec<_> =
        clients.iter_mut().map(|client| come_back(client, "room.a", None).0).collect();
    for node in &nodes {
        wait_until("the other one brings it", || {
            node.handle().stats().cluster.is_some_and(|cluster| cluster.subscriptions == 1)
        });
    }
    for (node, text) in nodes.iter().zip(["one", "two"]) {
        node.handle().publish("room.a", text).expect("there is room");
        for (client, start) in clients.iter_mut().zip(&starts) {
            let offset = if text == "one" { 1 } else { 2 };
            assert_eq!(client.text(), format!("{} {offset} {text}", start.epoch));
        }
    }
    for (number, start) in starts.iter().enumerate() {
        let mut client = nodes[number].client();
        assert!(come_back(&mut client, "room.a", Some(*start)).1);
        assert_eq!(client.text(), format!("{} 1 one", start.epoch));
        assert!(!come_back(&mut nodes[1 - number].client(), "room.a", Some(*start)).1);
    }
}
