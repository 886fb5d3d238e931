//! Servers that are nodes of a cluster: what passes over the bus, what waits for it, and what is told of it.

#![expect(clippy::disallowed_types, reason = "tests own sockets, and share with threads")]

use std::sync::{Arc, Barrier, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use ringwire::cluster::{
    Bus, BusError, ClusterConfig, Kept, KeptHistory, Node, Numbered, Outgoing,
};
use ringwire::shutdown::Readiness;
use ringwire::stats::ClusterStats;
use ringwire::topics::{HistoryConfig, PublishError, PublishOptions, Reach, TopicConfig};
use ringwire::{Config, Error, Handle, Message, Router, on_message};
use ringwire_peers::{Http, stays_so_for};

use crate::support::{Server, ms, wait_until};
use crate::topics::{app, ask, quiet};

/// A bus that carries from node to node, all to all, as it comes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Arc<Mutex<Vec<Member>>>);

/// Where a node is given topics and letters.
type Member = mpsc::Sender<(String, Vec<u8>)>;

impl Bus for Line {
    fn start(self: Box<Self>, node: Node) -> Result<(), BusError> {
        let Node { mut outlet, mut inlet, .. } = node;
        let (sender, incoming) = mpsc::channel::<(String, Vec<u8>)>();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        outlet.set_connected(true);
        thread::spawn(move || {
            while let Some(next) = outlet.next_blocking() {
                let Outgoing::Publish(letter) = next else { continue };
                for member in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
                    // One that has ended hears nothing.
                    let _ = member.send((letter.topic().to_owned(), letter.to_bytes()));
                }
            }
        });
        thread::spawn(move || {
            while let Ok((topic, bytes)) = incoming.recv() {
                inlet.receive(&topic, &bytes, Duration::ZERO);
            }
        });
        Ok(())
    }
}

/// A bus that does nothing: the test is handed the node.
#[derive(Clone, Debug, Default)]
struct ByHand(Arc<Mutex<Option<Node>>>);

impl Bus for ByHand {
    fn start(self: Box<Self>, node: Node) -> Result<(), BusError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        Ok(())
    }
}

/// A bus that can't begin.
#[derive(Debug)]
struct Broken;

impl Bus for Broken {
    fn start(self: Box<Self>, _node: Node) -> Result<(), BusError> {
        Err("no bus today".into())
    }
}

fn node(config: Config, bus: impl Bus) -> Server {
    let server = ringwire::Server::new(config).listen("127.0.0.1:0").with_bus(bus);
    Server::listening(server, |seen, _| app(crate::support::app::App::new(seen)))
}

fn by_hand(config: Config) -> (Server, Node) {
    let bus = ByHand::default();
    let server = node(config, bus.clone());
    let node = bus.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    (server, node.expect("the bus was started"))
}

fn cluster(handle: &Handle) -> ClusterStats {
    handle.stats().cluster.expect("it is a node")
}

/// What the bus is told next, in short.
fn next(node: &mut Node) -> String {
    match node.outlet.next_blocking() {
        Some(Outgoing::Subscribe(text)) => format!("+{text}"),
        Some(Outgoing::Unsubscribe(text)) => format!("-{text}"),
        Some(Outgoing::Publish(letter)) => format!("!{}", letter.topic()),
        other => panic!("{other:?}"),
    }
}

fn publish(server: &Server, topic: &str, text: &str) {
    server.handle().publish(topic, text).expect("there is room");
}

#[test]
fn publications_reach_subscribers_of_all_nodes_once_and_in_order() {
    const ROUNDS: usize = 200;
    let bus = Line::default();
    let nodes: Vec<_> = (0..3).map(|_| node(quiet().with_io_workers(2), bus.clone())).collect();
    let mut clients: Vec<_> = (0..12).map(|number| nodes[number % 3].client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        ask(client, ["sub room.7", "like room.*"][number / 3 % 2], "true");
    }
    // The nodes know what they have subscribers for.
    for node in &nodes {
        wait_until("one subscription takes in the other", || {
            cluster(&node.handle()).subscriptions == 1
        });
    }
    for round in 0..ROUNDS {
        clients[round % 12].send(Message::Text(&format!("pub room.7 {} {round}", round % 12)));
        publish(&nodes[round % 3], "room.7", &format!("server {round}"));
    }
    for client in &mut clients {
        let mut last = std::collections::HashMap::new();
        for _ in 0..2 * ROUNDS {
            let text = client.text();
            let (publisher, round) = text.rsplit_once(' ').expect("who and when");
            let before = last.insert(
                match publisher {
                    "server" => format!("server {}", round.parse::<usize>().unwrap() % 3),
                    client => client.to_owned(),
                },
                round.parse::<usize>().unwrap(),
            );
            assert!(before.is_none_or(|before| before < round.parse().unwrap()), "{text}");
        }
        assert_eq!(last.len(), 12 + 3);
    }
    for node in &nodes {
        let stats = cluster(&node.handle());
        let expected = ROUNDS * 4 / 3;
        wait_until("all of the others'", || {
            cluster(&node.handle()).received.abs_diff(expected as u64) <= 2
        });
        assert_eq!((stats.missed, stats.malformed, stats.incoming_dropped), (0, 0, 0));
        // This bus brings a node its own.
        wait_until("its own", || cluster(&node.handle()).passed_over > 0);
    }
    // Nothing comes twice, and what is for one server does not leave it.
    let here = PublishOptions::default().with_reach(Reach::Server);
    nodes[0].handle().publish_with("room.7", "here", here).expect("there is room");
    publish(&nodes[0], "room.7", "everywhere");
    for (number, client) in clients.iter_mut().enumerate() {
        if number % 3 == 0 {
            assert_eq!(client.text(), "here");
        }
        assert_eq!(client.text(), "everywhere");
    }
}

#[test]
fn binary_and_keyed_publications_are_the_same_on_the_other_side() {
    let ((here, mut one), (there, mut other)) = (by_hand(quiet()), by_hand(quiet()));
    let mut client = there.client();
    ask(&mut client, "sub a", "true");
    assert_eq!(next(&mut other), "+a");
    let handle = here.handle();
    let keyed = PublishOptions::default().with_key(7);
    handle.publish_with("a", Message::Binary(b"\0\xff"), keyed).expect("there is room");
    handle.publish("a", "").expect("there is room");
    let others = PublishOptions::default().with_except_name("ann");
    handle.publish_with("a", "of ann", others).expect("there is room");
    for _ in 0..3 {
        let Some(Outgoing::Publish(letter)) = one.outlet.next_blocking() else { panic!() };
        other.inlet.receive(letter.topic(), &letter.to_bytes(), Duration::ZERO);
    }
    assert_eq!(client.binary(), b"\0\xff");
    assert_eq!(client.text(), "");
    assert_eq!(client.text(), "of ann");
}

#[test]
fn the_bus_is_asked_for_what_has_subscribers_on_any_worker() {
    let (server, mut node) = by_hand(quiet().with_io_workers(3));
    let mut clients: Vec<_> = (0..9).map(|_| server.client()).collect();
    for client in &mut clients {
        ask(client, "sub room.1", "true");
    }
    assert_eq!(next(&mut node), "+room.1");
    ask(&mut clients[0], "like room.*", "true");
    assert_eq!([next(&mut node), next(&mut node)], ["+room.*", "-room.1"]);
    ask(&mut clients[0], "unlike room.*", "true");
    assert_eq!([next(&mut node), next(&mut node)], ["+room.1", "-room.*"]);
    for client in clients {
        client.leave();
    }
    assert_eq!(next(&mut node), "-room.1");
    assert_eq!(cluster(&server.handle()).subscriptions, 0);
    // What has come to nothing before the bus looks, it does not hear of: this one follows at once.
    let mut client = server.client();
    ask(&mut client, "sub b", "true");
    assert_eq!(next(&mut node), "+b");
}

#[test]
fn the_bus_is_asked_behind_many_changes_that_ask_for_nothing() {
    // Changes are read in no order of theirs: each time it is behind others.
    (0..4).for_each(|_| ask_behind_many_changes());
}

fn ask_behind_many_changes() {
    let (server, mut node) = by_hand(quiet());
    let handle = server.handle();
    let hear = |topic: &str| handle.hear_others(topic, |_, _| {}).expect("a topic");
    let mut poll = || node.outlet.poll_next(&mut Context::from_waker(Waker::noop()));
    hear("room.*");
    assert!(matches!(poll(), Poll::Ready(Some(Outgoing::Subscribe(text))) if text == "room.*"));
    assert!(poll().is_pending());
    // The pattern takes them in.
    (0..3000).for_each(|number| hear(&format!("room.{number}")));
    hear("other");
    let next = poll();
    let is_asked = matches!(&next, Poll::Ready(Some(Outgoing::Subscribe(text))) if text == "other");
    assert!(is_asked, "{next:?}");
    assert!(poll().is_pending());
}

#[test]
fn a_subscription_ends_after_those_that_take_its_place() {
    let (server, mut node) = by_hand(quiet().with_io_workers(2));
    let (mut pattern, mut topics) = (server.client(), server.client());
    ask(&mut pattern, "like room.*", "true");
    assert_eq!(next(&mut node), "+room.*");
    (0..32).for_each(|number| ask(&mut topics, &format!("sub room.{number}"), "true"));
    ask(&mut pattern, "unlike room.*", "true");
    let mut told: Vec<_> = (0..32).map(|_| next(&mut node)).collect();
    assert_eq!(next(&mut node), "-room.*", "after {told:?}");
    told.sort_unstable();
    let mut expected: Vec<_> = (0..32).map(|number| format!("+room.{number}")).collect();
    expected.sort_unstable();
    assert_eq!(told, expected);
    // What has gone before the bus looks takes no place.
    ask(&mut pattern, "like room.*", "true");
    let mut told: Vec<_> = (0..33).map(|_| next(&mut node)).collect();
    assert_eq!(told.remove(0), "+room.*");
    (0..32).for_each(|number| ask(&mut topics, &format!("unsub room.{number}"), "true"));
    ask(&mut pattern, "unlike room.*", "true");
    assert_eq!(next(&mut node), "-room.*");
    assert!(node.outlet.poll_next(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(cluster(&server.handle()).subscriptions, 0);
}

#[test]
fn what_the_bus_does_not_take_is_bounded_and_told() {
    let config = quiet().with_cluster(ClusterConfig::default().with_max_outgoing_len(1000));
    let (server, mut node) = by_hand(config);
    let handle = server.handle();
    let mut client = server.client();
    ask(&mut client, "sub a", "true");
    assert_eq!(next(&mut node), "+a");
    let mut told = Vec::new();
    for number in 0..50 {
        let outcome = handle.publish("a", format!("{number} {}", "x".repeat(60)).as_str());
        told.push(outcome.map_err(|error| assert_eq!(error, PublishError::Cluster)).is_ok());
    }
    let taken = told.iter().filter(|is_taken| **is_taken).count();
    assert!((10..20).contains(&taken), "{taken} of 1000 bytes");
    // Subscribers of this server have all.
    for number in 0..50 {
        assert!(client.text().starts_with(&format!("{number} ")));
    }
    let stats = cluster(&handle);
    assert_eq!(stats.outgoing_dropped, 50 - taken as u64);
    assert!((900..=1000).contains(&stats.outgoing_len), "{}", stats.outgoing_len);
    // The older ones wait, in their order.
    for _ in 0..taken {
        assert_eq!(next(&mut node), "!a");
    }
    assert_eq!(cluster(&handle).outgoing_len, 0);
    handle.publish("a", "there is room again").expect("there is room");
    assert_eq!(next(&mut node), "!a");
    assert_eq!(cluster(&handle).sent, taken as u64 + 1);
    // A bus that has ended takes nothing.
    drop(node);
    assert_eq!(handle.publish("a", "nobody"), Err(PublishError::Cluster));
}

#[test]
fn what_a_worker_is_too_far_behind_for_is_dropped_and_counted() {
    let gates = Arc::new([Barrier::new(2), Barrier::new(2)]);
    let topics = TopicConfig::default().with_max_in_transit_len(100);
    let bus = ByHand::default();
    let inside = Arc::clone(&gates);
    let server = ringwire::Server::new(quiet().with_topics(topics))
        .listen("127.0.0.1:0")
        .with_bus(bus.clone());
    let server = Server::listening(server, move |_, _| {
        let gates = Arc::clone(&inside);
        on_message(move |ctx, _| {
            ctx.subscribe("a").expect("a topic");
            let _ = ctx.send("stuck");
            gates[0].wait();
            gates[1].wait();
        })
    });
    let mut node = bus.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap();
    let (other, mut sender) = by_hand(quiet());
    let mut client = server.client();
    client.send(Message::Text("go"));
    gates[0].wait();
    assert_eq!(next(&mut node), "+a");
    for number in 0..10 {
        other.handle().publish("a", format!("{number} {}", "x".repeat(30)).as_str()).unwrap();
        let Some(Outgoing::Publish(letter)) = sender.outlet.next_blocking() else { panic!() };
        node.inlet.receive("a", &letter.to_bytes(), Duration::ZERO);
    }
    let stats = cluster(&server.handle());
    assert_eq!((stats.received, stats.incoming_dropped), (10, 8), "100 bytes are 2 of 34");
    gates[1].wait();
    assert_eq!(client.text(), "stuck");
    for number in 0..2 {
        assert!(client.text().starts_with(&format!("{number} ")));
    }
}

#[test]
fn what_is_no_letter_is_counted_and_goes_nowhere() {
    let (server, mut node) = by_hand(quiet());
    let mut client = server.client();
    ask(&mut client, "sub a", "true");
    assert_eq!(next(&mut node), "+a");
    for bytes in [&b""[..], b"hello", &[9; 60], &[0; 26]] {
        node.inlet.receive("a", bytes, Duration::ZERO);
    }
    assert_eq!(cluster(&server.handle()).malformed, 4);
    ask(&mut client, "has a", "true");
}

#[test]
fn a_gap_is_waited_for_and_then_given_up() {
    let ((here, mut one), (there, mut other)) = (by_hand(quiet()), by_hand(quiet()));
    let mut client = there.client();
    ask(&mut client, "sub a", "true");
    assert_eq!(next(&mut other), "+a");
    let letters: Vec<_> = (0..6)
        .map(|number| {
            publish(&here, "a", &number.to_string());
            match one.outlet.next_blocking() {
                Some(Outgoing::Publish(letter)) => letter.to_bytes(),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    // 0 comes, 2 and 1 change places, 3 is lost, and 4 comes twice.
    for number in [0, 2, 1, 4, 4, 5] {
        other.inlet.receive("a", &letters[number], ms(1000));
    }
    let texts = [client.text(), client.text(), client.text()];
    assert_eq!(texts, ["0", "1", "2"]);
    assert_eq!(other.inlet.expire(ms(1249)), Some(ms(1250)));
    assert!(cluster(&there.handle()).held_len > 0);
    assert_eq!(other.inlet.expire(ms(1250)), None);
    assert_eq!([client.text(), client.text()], ["4", "5"]);
    let stats = cluster(&there.handle());
    assert_eq!((stats.missed, stats.passed_over, stats.held_len), (1, 1, 0));
}

#[test]
fn readiness_and_metrics_tell_of_the_connection() {
    for unready_apart in [true, false] {
        let bus = ByHand::default();
        let config =
            quiet().with_cluster(ClusterConfig::default().with_unready_apart(unready_apart));
        let server = ringwire::Server::new(config).listen("127.0.0.1:0").with_bus(bus.clone());
        let server =
            Server::listening(server, |_, context| Router::new().monitoring(context.handle()));
        let node = bus.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap();
        let mut http = Http::connect(server.addr());
        let mut look = |is_connected: bool| {
            let answer = http.get("/readyz");
            let expected = if is_connected || !unready_apart {
                (200, "ready\n")
            } else {
                (503, "apart from the cluster\n")
            };
            assert_eq!((answer.status(), answer.text()), expected);
            let metrics = http.get("/metrics").text().to_owned();
            let line = format!("ringwire_cluster_connected {}", u8::from(is_connected));
            assert!(metrics.lines().any(|each| each == line), "{line}");
        };
        look(false);
        node.outlet.set_connected(true);
        look(true);
        assert_eq!(server.handle().readiness(), Readiness::Ready);
        node.outlet.note_undeliverable(2);
        assert_eq!(cluster(&server.handle()).undeliverable, 2);
        drop(node);
        look(false);
    }
    let alone = Server::echo(quiet());
    assert_eq!(alone.handle().stats().cluster, None);
    assert_eq!(alone.handle().readiness(), Readiness::Ready);
}

#[test]
fn the_end_waits_for_what_the_bus_was_given() {
    let bus = ByHand::default();
    let server = ringwire::Server::new(quiet().with_io_workers(2)).with_bus(bus.clone());
    let server = server.start(|_| on_message(|ctx, message| ctx.send(message))).expect("it starts");
    let handle = server.handle();
    let mut node = bus.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap();
    for _ in 0..3 {
        handle.publish("a", "last words").expect("there is room");
    }
    handle.shutdown(Duration::ZERO);
    let joining = thread::spawn(move || server.join());
    stays_so_for(ms(200), "it waits for the bus", || !joining.is_finished());
    for _ in 0..3 {
        assert_eq!(next(&mut node), "!a");
    }
    assert!(node.outlet.next_blocking().is_none());
    drop(node);
    joining.join().expect("no panic").expect("no error");
}

#[test]
fn a_bus_that_cannot_begin_keeps_the_server_from_starting() {
    let server = ringwire::Server::new(quiet()).listen("127.0.0.1:0").with_bus(Broken);
    let error = server.start(|_| on_message(|ctx, message| ctx.send(message))).unwrap_err();
    assert!(matches!(error, Error::Bus(_)), "{error}");
    assert!(error.to_string().contains("no bus today"), "{error}");
}

#[test]
fn code_hears_what_other_nodes_publish() {
    let bus = Line::default();
    let nodes: Vec<_> = (0..2).map(|_| node(quiet().with_io_workers(2), bus.clone())).collect();
    let (sender, heard) = mpsc::channel();
    let handle = nodes[0].handle();
    handle
        .hear_others("orders.*", move |topic, message| {
            let text = message.as_text().expect("orders are texts");
            sender.send(format!("{topic} {text}")).expect("the test waits");
        })
        .expect("the pattern is one");
    handle.hear_others("a..b", |_, _| {}).expect_err("the pattern is none");
    wait_until("the bus was asked", || cluster(&handle).subscriptions == 1);
    publish(&nodes[0], "orders.own", "not heard");
    for number in 0..100 {
        publish(&nodes[1], "news", "not asked for");
        publish(&nodes[1], "orders.x", &number.to_string());
    }
    for number in 0..100 {
        assert_eq!(heard.recv().expect("it comes"), format!("orders.x {number}"));
    }
    assert!(heard.try_recv().is_err(), "nothing else comes");
    let alone = Server::start(quiet(), app);
    alone.handle().hear_others(">", |_, _| {}).expect("nobody is there to be heard");
}

#[test]
fn code_hears_what_a_bus_that_numbers_brings_and_what_it_has_kept_once() {
    let topics = TopicConfig::default().with_history("a", HistoryConfig::default());
    let (server, mut node) = by_hand(quiet().with_topics(topics));
    let (other, mut sender) = by_hand(quiet());
    let handle = server.handle();
    let (tell, heard) = mpsc::channel();
    let hear = move |_: &str, message: Message<'_>| {
        tell.send(message.as_text().expect("a text").to_owned()).expect("the test waits");
    };
    handle.hear_others("a", hear).expect("a topic");
    assert_eq!(next(&mut node), "+a");
    node.outlet.number_by_bus();
    let mut letter = |text: &str| {
        publish(&other, "a", text);
        match sender.outlet.next_blocking() {
            Some(Outgoing::Publish(letter)) => letter.to_bytes(),
            other => panic!("{other:?}"),
        }
    };
    let (one, two, three, four) = (letter("1"), letter("2"), letter("3"), letter("4"));
    publish(&server, "a", "own");
    let own = match node.outlet.next_blocking() {
        Some(Outgoing::Record(letter)) => letter.to_bytes(),
        other => panic!("{other:?}"),
    };
    let numbered = |offset: u64, bytes| Numbered {
        epoch: 7,
        offset,
        previous: offset.checked_sub(1).filter(|previous| *previous > 0),
        bytes,
    };
    node.inlet.receive_numbered("a", numbered(1, &one));
    // What it missed meanwhile, with what it has heard and its own.
    let kept = |offset, bytes: &[u8]| Kept { offset, age: Duration::ZERO, bytes: bytes.to_vec() };
    let entries = vec![kept(1, &one), kept(2, &two), kept(3, &own), kept(4, &[]), kept(5, &three)];
    let history = KeptHistory { epoch: 7, floor: 0, is_whole: true, entries };
    node.inlet.load("a", &history);
    node.inlet.load("a", &history);
    node.inlet.receive_numbered("a", numbered(5, &three));
    node.inlet.receive_numbered("a", numbered(6, &four));
    let texts: Vec<_> = heard.try_iter().collect();
    assert_eq!(texts, ["1", "2", "3", "4"]);
    assert_eq!(cluster(&handle).received, 4);
}
