//! Histories that JetStream numbers and keeps, for clients that leave one node and come back to another.

#![expect(clippy::disallowed_types, reason = "threads of a test share what they have heard")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{env, fs, process, thread};

use super::{Message, Nats, Node, wait_until};
use ringwire_peers::{Client, free_addr};
use ringwire_seeds::Random;

/// How many messages a topic of the example keeps.
const KEPT: u64 = 30;
/// A client misses fewer than these, which may be more than is kept.
const GAPS: usize = 40;
const TOPICS: [&str; 3] = ["kept.a", "kept.b", "kept.ü"];
const NAMES: [&str; 3] = ["one", "two", "three"];

type Position = (u64, u64);

/// A NATS with JetStream, and where it has its files.
struct JetStream {
    nats: Nats,
    folder: PathBuf,
}

impl JetStream {
    fn start(test: &str) -> Self {
        let folder = env::temp_dir().join(format!("ringwire-{test}-{}", process::id()));
        let nats = Nats::start_with(free_addr(), free_addr(), &flags(&folder));
        Self { nats, folder }
    }

    fn come_back(&mut self) {
        let (addr, monitor) = (self.nats.process.addr(), self.nats.monitor);
        self.nats = Nats::start_with(addr, monitor, &flags(&self.folder));
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.nats.process.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn flags(folder: &std::path::Path) -> [String; 3] {
    ["-js".to_owned(), "-sd".to_owned(), folder.display().to_string()]
}

fn nodes(nats: &Nats, storage: &str, patience: &str) -> Vec<Node> {
    let more = [("history", storage), ("history-patience", patience)];
    let nodes: Vec<_> = NAMES.iter().map(|name| Node::start_with(nats, name, &more)).collect();
    nodes.iter().for_each(Node::is_ready);
    nodes
}

/// A message with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    position: Position,
    /// `None`: the node does not know it.
    previous: Option<u64>,
    text: String,
}

/// Somebody who follows a topic.
struct Follower {
    client: Client,
    /// Where the topic was when it was subscribed to.
    came_at: Position,
    is_whole: bool,
}

impl Follower {
    fn come(node: &Node, topic: &str, since: Option<Position>) -> Self {
        let mut client = node.client(&[]);
        let since = since.map(|(epoch, offset)| format!(" {epoch} {offset}")).unwrap_or_default();
        client.send(Message::Text(&format!("from {topic}{since}")));
        let answer = client.text();
        let words: Vec<_> = answer.split(' ').collect();
        let [epoch, offset, word] = words[..] else { panic!("{answer}") };
        let came_at = (epoch.parse().expect("a number"), offset.parse().expect("a number"));
        Self { client, came_at, is_whole: word == "whole" }
    }

    fn hear(&mut self) -> Heard {
        let text = self.client.text();
        let mut words = text.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("{text}"));
        let position = (word().parse().expect("a number"), word().parse().expect("a number"));
        let previous = word().parse().ok();
        Heard { position, previous, text: word().to_owned() }
    }

    /// What is next behind a position.
    fn hear_next(&mut self, (epoch, offset): Position) -> Heard {
        let heard = self.hear();
        assert_eq!((heard.position.0, heard.previous), (epoch, Some(offset)), "{heard:?}");
        heard
    }

    fn say(&mut self, topic: &str, text: &str) {
        self.client.send(Message::Text(&format!("pub {topic} {text}")));
    }
}

/// One that came back: to which topic, from where; what it heard, or where the topic was if what it missed was gone.
struct Visit {
    topic: usize,
    since: Position,
    outcome: Result<Vec<Heard>, Position>,
}

/// All that was published to each topic, as followers on all nodes agree.
type Truth = [Mutex<BTreeMap<u64, Heard>>; TOPICS.len()];

/// Publishes to a topic by its nodes in turn, and hears each on all nodes, until `is_over`.
fn publish(
    nodes: &[Node],
    topic: usize,
    truth: &Truth,
    published: &AtomicU64,
    is_over: &AtomicBool,
) {
    let name = TOPICS[topic];
    let mut random = Random::new(topic as u64);
    let mut followers: Vec<_> = nodes.iter().map(|node| Follower::come(node, name, None)).collect();
    let mut at = followers[0].came_at;
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let text = format!("{number}");
        followers[random.below(3)].say(name, &text);
        let all: Vec<_> = followers.iter_mut().map(|follower| follower.hear_next(at)).collect();
        assert!(all.iter().all(|heard| *heard == all[0] && heard.text == text), "{all:?}");
        at = all[0].position;
        truth[topic].lock().expect("no thread has failed").insert(at.1, all[0].clone());
        published.fetch_add(1, Ordering::Relaxed);
    }
}

/// Comes to a node, goes, and comes back to another, over and over.
fn visit(nodes: &[Node], seed: u64, visits: usize, published: &[AtomicU64; 3]) -> Vec<Visit> {
    let mut random = Random::new(seed);
    let mut done = Vec::new();
    let topic = random.below(3);
    let mut since = None;
    while done.len() < visits {
        let node = &nodes[random.below(3)];
        let mut follower = Follower::come(node, TOPICS[topic], since);
        let mut at = match since {
            Some(since) if follower.is_whole => since,
            _ => follower.came_at,
        };
        // Some of what it missed, and of what comes by itself then.
        let missed = follower.is_whole.then_some(0);
        let mut heard = Vec::new();
        let live = random.below(5);
        while at.1 < follower.came_at.1 || heard.len() < live {
            let next = follower.hear_next(at);
            at = next.position;
            heard.push(next);
        }
        if let Some(since) = since {
            let outcome = missed.map(|_| heard).ok_or(follower.came_at);
            done.push(Visit { topic, since, outcome });
        }
        follower.client.leave();
        since = Some(at);
        let gap = random.below(GAPS) as u64;
        let until = published[topic].load(Ordering::Relaxed) + gap;
        wait_until("others publish", || published[topic].load(Ordering::Relaxed) >= until);
    }
    done
}

/// What visits heard is what was published since they were there, and gone is only what is long ago.
fn check(visits: &[Visit], truth: &Truth) -> (usize, usize) {
    let (mut whole, mut gone) = (0, 0);
    for Visit { topic, since, outcome } in visits {
        let truth = truth[*topic].lock().expect("no thread has failed");
        let mut behind = truth.range(since.1 + 1..).map(|(_, heard)| heard);
        match outcome {
            Ok(heard) => {
                whole += 1;
                for heard in heard {
                    // The last may be ahead of what publishers have noted when all ended.
                    assert!(behind.next().is_none_or(|it| it == heard), "{heard:?} is not next");
                }
            }
            Err(position) => {
                gone += 1;
                assert_eq!(position.0, since.0, "it is the same epoch");
                let missed = behind.take_while(|it| it.position.1 <= position.1).count() as u64;
                assert!(missed > KEPT / 2, "{missed} messages of {since:?} are gone");
            }
        }
    }
    (whole, gone)
}

/// How many come back, of each of eight.
fn visit_count(default: usize) -> usize {
    env::var("CLUSTER_VISITS").map_or(default, |text| text.parse().expect("a number"))
}

/// Has eight come and go while others publish, and `meanwhile` done.
fn come_and_go(nodes: &[Node], count: usize, meanwhile: impl FnOnce(&[AtomicU64; 3])) {
    let (truth, published, is_over) =
        (Truth::default(), Default::default(), AtomicBool::new(false));
    let visits = thread::scope(|scope| {
        for (topic, published) in (0..).zip(&published) {
            let (truth, is_over) = (&truth, &is_over);
            scope.spawn(move || publish(nodes, topic, truth, published, is_over));
        }
        let visitors: Vec<_> = (0..8)
            .map(|seed| {
                let published = &published;
                scope.spawn(move || visit(nodes, seed, count, published))
            })
            .collect();
        meanwhile(&published);
        let visits = visitors.into_iter().flat_map(|it| it.join().expect("it has seen no fault"));
        let visits: Vec<_> = visits.collect();
        is_over.store(true, Ordering::Relaxed);
        visits
    });
    let (whole, gone) = check(&visits, &truth);
    println!("{whole} gaps are filled, and {gone} are gone");
    assert!(whole > gone && gone > 0, "both happen");
    for node in nodes {
        assert_eq!((node.metric("outgoing_dropped_total"), node.metric("malformed_total")), (0, 0));
    }
}

#[test]
fn whoever_comes_back_to_any_node_gets_what_was_missed_or_hears_that_it_is_gone() {
    let jetstream = JetStream::start("visits");
    let nodes = nodes(&jetstream.nats, "memory", "20s");
    come_and_go(&nodes, visit_count(100), |_| {});
}

#[test]
fn gaps_are_filled_while_nats_restarts_that_keeps_in_files() {
    let mut jetstream = JetStream::start("restarts");
    let nodes = nodes(&jetstream.nats, "file", "60s");
    come_and_go(&nodes, visit_count(100), |published| {
        for _ in 0..2 {
            let before = published[0].load(Ordering::Relaxed);
            wait_until("some are published", || {
                published[0].load(Ordering::Relaxed) > before + 2 * KEPT
            });
            jetstream.nats.process.kill();
            nodes.iter().for_each(Node::is_apart);
            jetstream.come_back();
            nodes.iter().for_each(Node::is_ready);
        }
    });
}

#[test]
fn a_node_that_never_followed_a_topic_has_what_jetstream_keeps_and_no_more() {
    let jetstream = JetStream::start("oldest");
    let nodes = nodes(&jetstream.nats, "memory", "20s");
    let mut speaker = Follower::come(&nodes[0], "kept.a", None);
    assert!(speaker.is_whole);
    let mut places = vec![speaker.came_at];
    for number in 0..KEPT * 3 {
        speaker.say("kept.a", &number.to_string());
        let heard = speaker.hear_next(places[places.len() - 1]);
        places.push(heard.position);
    }
    let back = |count: u64| places[places.len() - 1 - usize::try_from(count).expect("small")];
    // The first is the first that any of this node has asked for the topic.
    for count in [KEPT, 0, 1, KEPT - 1, KEPT] {
        let mut follower = Follower::come(&nodes[1], "kept.a", Some(back(count)));
        assert!(follower.is_whole, "{count} are missed");
        let mut at = back(count);
        for number in KEPT * 3 - count..KEPT * 3 {
            let heard = follower.hear_next(at);
            assert_eq!(heard.text, number.to_string());
            at = heard.position;
        }
        assert_eq!(at, follower.came_at);
    }
    for (node, count) in [(2, KEPT + 1), (1, KEPT + 1), (2, KEPT * 3), (2, KEPT)] {
        let follower = Follower::come(&nodes[node], "kept.a", Some(back(count)));
        assert_eq!(follower.came_at, back(0));
        assert_eq!(follower.is_whole, count <= KEPT, "{count} are missed on {node}");
    }
    // What never was is gone as well.
    let (epoch, offset) = back(0);
    for since in [(epoch, offset + 1000), (epoch + 1, offset)] {
        assert!(!Follower::come(&nodes[2], "kept.a", Some(since)).is_whole, "{since:?}");
    }
}

/// The node goes on by itself, with an epoch of its own, and comes back to that of the stream.
#[test]
fn a_node_numbers_by_itself_while_jetstream_is_away() {
    let mut jetstream = JetStream::start("away");
    let nodes = nodes(&jetstream.nats, "file", "3s");
    let mut followers: Vec<_> =
        nodes.iter().map(|node| Follower::come(node, "kept.a", None)).collect();
    followers[0].say("kept.a", "before");
    let at = followers[1].came_at;
    let before = followers.iter_mut().map(|it| it.hear()).collect::<Vec<_>>();
    assert!(before.iter().all(|it| *it == before[0] && it.text == "before"), "{before:?} {at:?}");
    let before = before[0].position;
    jetstream.nats.process.kill();
    nodes.iter().for_each(Node::is_apart);
    // It waits for its patience at most, and is heard on its own node.
    followers[0].say("kept.a", "alone");
    let answer = followers[0].client.text();
    // Who publishes before the node has given up is not told, and who does later is.
    let is_told = answer.contains("missed the publication");
    let alone = if is_told { followers[0].client.text() } else { answer };
    let words: Vec<_> = alone.split(' ').collect();
    assert_eq!(words[3], "alone", "{alone}");
    let epoch: u64 = words[0].parse().expect("a number");
    assert_ne!(epoch, before.0);
    let local = (epoch, words[1].parse().expect("a number"));
    let again = Follower::come(&nodes[0], "kept.a", Some(local));
    assert!(again.is_whole && again.came_at == local);
    assert!(!Follower::come(&nodes[0], "kept.a", Some(before)).is_whole, "another epoch");
    // On a node where nobody has published, nothing is missed.
    let quiet = Follower::come(&nodes[1], "kept.a", Some(before));
    assert!(quiet.is_whole && quiet.came_at == before);

    jetstream.come_back();
    nodes.iter().for_each(Node::is_ready);
    followers[1].say("kept.a", "after");
    let after: Vec<_> = followers.iter_mut().map(|it| it.hear()).collect();
    assert!(after.iter().all(|it| it.text == "after" && it.position == after[0].position));
    assert_eq!((after[0].position.0, after[1].previous), (before.0, Some(before.1)));
    for node in &nodes {
        let mut follower = Follower::come(node, "kept.a", Some(before));
        assert!(follower.is_whole);
        assert_eq!(follower.hear_next(before).text, "after");
        assert!(!Follower::come(node, "kept.a", Some(local)).is_whole);
    }
    assert!(nodes[0].metric("outgoing_dropped_total") > 0, "what others missed is counted");
}

/// A NATS that forgets has another epoch, and nobody is given a wrong piece.
#[test]
fn what_was_only_in_the_memory_of_nats_is_gone_with_it() {
    let mut jetstream = JetStream::start("forgets");
    let nodes = nodes(&jetstream.nats, "memory", "60s");
    let mut followers: Vec<_> =
        nodes.iter().map(|node| Follower::come(node, "kept.a", None)).collect();
    for number in 0..5 {
        followers[number % 3].say("kept.a", &number.to_string());
        for follower in &mut followers {
            assert_eq!(follower.hear().text, number.to_string());
        }
    }
    let stale = Follower::come(&nodes[1], "kept.a", None).came_at;
    jetstream.nats.process.kill();
    nodes.iter().for_each(Node::is_apart);
    jetstream.come_back();
    nodes.iter().for_each(Node::is_ready);
    for number in 5..10 {
        followers[number % 3].say("kept.a", &number.to_string());
        for follower in &mut followers {
            let heard = follower.hear();
            assert_eq!(heard.text, number.to_string());
            assert_ne!(heard.position.0, stale.0);
        }
    }
    for node in &nodes {
        assert!(!Follower::come(node, "kept.a", Some(stale)).is_whole);
    }
}

#[test]
fn a_node_with_other_settings_stays_apart() {
    let jetstream = JetStream::start("settings");
    let more = [("history", "memory")];
    let one = Node::start_with(&jetstream.nats, "one", &more);
    one.is_ready();
    let two = Node::start_with(&jetstream.nats, "two", &[("history", "file")]);
    two.is_apart();
    wait_until("it is connected nevertheless", || {
        jetstream.nats.ask("/connz")["connections"]
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it["name"] == "two"))
    });
    two.is_apart();
    one.is_ready();
}
