//! Three nodes, each a process, and a real NATS: what tests/cluster/run runs. `CLUSTER_NATS_SERVER` is the NATS, and
//! `CLUSTER_NODE` the example of this crate.

mod histories;

use std::collections::HashMap;
use std::env;
use std::net::SocketAddr;

use ringwire::Message;
use ringwire_peers::{Client, Http, Process, free_addr, program_in, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Starts the program that an environment variable names.
fn start(variable: &str, arguments: &[String], addr: SocketAddr) -> Process {
    Process::start(program_in(variable, "tests/cluster/run").args(arguments), addr)
}

fn signal(process: &Process, signal: Signal) {
    kill_process(Pid::from_child(process.child()), signal).expect("it runs");
}

/// A NATS that can be killed and come back.
struct Nats {
    process: Process,
    monitor: SocketAddr,
}

impl Nats {
    fn start() -> Self {
        Self::start_at(free_addr(), free_addr())
    }

    fn start_at(addr: SocketAddr, monitor: SocketAddr) -> Self {
        Self::start_with(addr, monitor, &[])
    }

    fn start_with(addr: SocketAddr, monitor: SocketAddr, more: &[String]) -> Self {
        let flags = ["-a", "127.0.0.1", "-p", &addr.port().to_string()].map(str::to_owned);
        let monitoring = ["-m", &monitor.port().to_string()].map(str::to_owned);
        let all = [&flags[..], &monitoring[..], &["-l".to_owned(), "/dev/null".to_owned()], more]
            .concat();
        Self { process: start("CLUSTER_NATS_SERVER", &all, addr), monitor }
    }

    fn come_back(&mut self) {
        *self = Self::start_at(self.process.addr(), self.monitor);
    }

    fn ask(&self, path: &str) -> Value {
        let answer = Http::connect(self.monitor).get(path);
        serde_json::from_str(answer.text()).expect("it is JSON")
    }

    /// Messages that NATS was given, and that it has given to nodes.
    fn messages(&self) -> (u64, u64) {
        let all = self.ask("/varz");
        let count = |name: &str| all[name].as_u64().expect("a number");
        (count("in_msgs"), count("out_msgs"))
    }

    /// What a node has asked for.
    fn subjects_of(&self, node: &str) -> Vec<String> {
        let all = self.ask("/connz?subs=1");
        let connections = all["connections"].as_array().expect("a list");
        let own = connections.iter().find(|it| it["name"] == node);
        let list = own.and_then(|own| own["subscriptions_list"].as_array());
        // Beside them is one for answers.
        let own = |text: &&str| text.starts_with("ringwire.");
        let text = |subject: &Value| subject.as_str().filter(own).map(str::to_owned);
        let mut list: Vec<_> = list.into_iter().flatten().filter_map(text).collect();
        list.sort_unstable();
        list
    }
}

struct Node(Process);

impl Node {
    fn start(nats: &Nats, name: &str) -> Self {
        let node = Self::start_with(nats, name, &[]);
        node.is_ready();
        node
    }

    fn start_with(nats: &Nats, name: &str, more: &[(&str, &str)]) -> Self {
        let addr = free_addr();
        let driver = env::var("RINGWIRE_DRIVER").unwrap_or_else(|_| "epoll".to_owned());
        let arguments = [
            ("listen", addr.to_string()),
            ("nats", format!("nats://{}", nats.process.addr())),
            ("node", name.to_owned()),
            // Three that are not answered make NATS one that is not there.
            ("nats-ping", "1s".to_owned()),
            ("driver", driver),
            ("io-workers", "2".to_owned()),
            ("pin", "none".to_owned()),
            ("idle-timeout", "off".to_owned()),
        ];
        let is_other = |flag: &str| more.iter().any(|(other, _)| *other == flag);
        let arguments = arguments.into_iter().filter(|(flag, _)| !is_other(flag));
        let more = more.iter().map(|(flag, value)| (*flag, (*value).to_owned()));
        let arguments: Vec<_> =
            arguments.chain(more).flat_map(|(flag, value)| [format!("--{flag}"), value]).collect();
        Self(start("CLUSTER_NODE", &arguments, addr))
    }

    fn http(&self) -> Http {
        Http::connect(self.0.addr())
    }

    fn readiness(&self) -> (u16, String) {
        let answer = self.http().get("/readyz");
        (answer.status(), answer.text().to_owned())
    }

    fn is_ready(&self) {
        wait_until("it is ready", || self.readiness().0 == 200);
    }

    fn is_apart(&self) {
        let apart = (503, "apart from the cluster\n".to_owned());
        wait_until("it is apart", || self.readiness() == apart);
        assert_eq!(self.metric("connected"), 0);
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = self.http().get("/metrics").text().to_owned();
        let prefix = format!("ringwire_cluster_{name} ");
        let mut values = metrics.lines().filter_map(|line| line.strip_prefix(&prefix));
        values.next().expect("the metric is there").parse().expect("a whole number")
    }

    fn client(&self, commands: &[&str]) -> Client {
        let mut client = Client::connect(self.0.addr());
        for command in commands {
            client.send(Message::Text(command));
            assert_eq!(client.text(), "ok", "{command}");
        }
        client
    }
}

/// NATS, and nodes that are connected with it.
fn cluster(names: &[&str]) -> (Nats, Vec<Node>) {
    let nats = Nats::start();
    let nodes = names.iter().map(|name| Node::start(&nats, name)).collect();
    (nats, nodes)
}

/// Waits until NATS knows what a node wants.
fn wants(nats: &Nats, node: &str, subjects: &[&str]) {
    wait_until(&format!("{node} wants {subjects:?}"), || nats.subjects_of(node) == subjects);
}

/// One client on each node, all in a room.
struct Room {
    clients: Vec<Client>,
    /// How many each has published.
    said: usize,
    /// By listener and publisher: what was heard last, and how many in all.
    heard: Vec<HashMap<usize, (usize, usize)>>,
}

impl Room {
    fn new(nodes: &[Node]) -> Self {
        let clients: Vec<_> = nodes.iter().map(|node| node.client(&["sub room.7"])).collect();
        let heard = clients.iter().map(|_| HashMap::new()).collect();
        Self { clients, said: 0, heard }
    }

    /// Each publishes once.
    fn speak(&mut self) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            client.send(Message::Text(&format!("pub room.7 {number} {}", self.said)));
        }
        self.said += 1;
    }

    /// One hears something, which comes in order and once.
    fn hear(&mut self, listener: usize) {
        let text = self.clients[listener].text();
        let (publisher, number) = text.split_once(' ').expect("who and what");
        let number: usize = number.parse().expect("a number");
        let entry = self.heard[listener].entry(publisher.parse().expect("a number"));
        let (last, count) = entry.or_insert((0, 0));
        assert!(*count == 0 || *last < number, "{listener} hears {text} after {last}");
        (*last, *count) = (number, *count + 1);
    }

    /// Each hears on until it has heard the last of all.
    fn settle(&mut self) {
        let last = self.said - 1;
        for listener in 0..self.clients.len() {
            let is_done = |heard: &HashMap<usize, (usize, usize)>, who: usize| {
                heard.get(&who).is_some_and(|heard| heard.0 == last)
            };
            let count = self.clients.len();
            while !(0..count).all(|who| is_done(&self.heard[listener], who)) {
                self.hear(listener);
            }
        }
    }

    /// How many of the others' a listener did not hear.
    fn missed(&self, listener: usize) -> usize {
        let others = self.heard[listener].iter().filter(|(who, _)| **who != listener);
        others.map(|(_, (_, count))| self.said - count).sum()
    }

    fn talk(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.speak();
            for listener in 0..self.clients.len() {
                self.hear(listener);
            }
        }
        self.settle();
    }
}

#[test]
fn a_name_and_a_password_stand_in_the_address() {
    let asked = ["--user", "ann", "--pass", "p@ss"].map(str::to_owned);
    let nats = Nats::start_with(free_addr(), free_addr(), &asked);
    let addr = nats.process.addr();
    let known = format!("nats://ann:p%40ss@{addr}");
    Node::start_with(&nats, "known", &[("nats", &known)]).is_ready();
}

#[test]
fn publications_cross_once_and_in_order_while_nats_is_killed_and_comes_back() {
    let names = ["one", "two", "three"];
    let (mut nats, nodes) = cluster(&names);
    let mut room = Room::new(&nodes);
    for name in names {
        wants(&nats, name, &["ringwire.room.7"]);
    }
    room.talk(300);
    for (listener, node) in nodes.iter().enumerate() {
        assert_eq!(room.missed(listener), 0);
        assert_eq!((node.metric("missed_total"), node.metric("passed_over_total")), (0, 0));
        assert_eq!(node.metric("received_total"), 600);
    }
    for _ in 0..2 {
        nats.process.kill();
        nodes.iter().for_each(Node::is_apart);
        // Those of a node hear each other.
        for _ in 0..50 {
            room.speak();
            (0..names.len()).for_each(|listener| room.hear(listener));
        }
        for node in &nodes {
            assert!(node.metric("outgoing_bytes") > 0);
        }
        nats.come_back();
        nodes.iter().for_each(Node::is_ready);
        for name in names {
            wants(&nats, name, &["ringwire.room.7"]);
        }
        room.talk(300);
    }
    for (listener, node) in nodes.iter().enumerate() {
        let missed = node.metric("missed_total");
        println!("{}: {missed} of {} missed", names[listener], 2 * room.said);
        assert_eq!(missed, room.missed(listener) as u64, "what is lost is counted");
        assert_eq!(room.heard[listener][&listener].1, room.said, "its own");
        assert_eq!((node.metric("outgoing_bytes"), node.metric("outgoing_dropped_total")), (0, 0));
    }
}

#[test]
fn a_nats_that_does_not_answer_is_one_that_is_not_there() {
    let (nats, nodes) = cluster(&["one", "two"]);
    let mut room = Room::new(&nodes);
    wants(&nats, "one", &["ringwire.room.7"]);
    wants(&nats, "two", &["ringwire.room.7"]);
    room.talk(5);
    signal(&nats.process, Signal::STOP);
    nodes.iter().for_each(Node::is_apart);
    room.speak();
    (0..2).for_each(|listener| room.hear(listener));
    signal(&nats.process, Signal::CONT);
    nodes.iter().for_each(Node::is_ready);
    wants(&nats, "one", &["ringwire.room.7"]);
    wants(&nats, "two", &["ringwire.room.7"]);
    room.talk(20);
    for (listener, node) in nodes.iter().enumerate() {
        assert_eq!(node.metric("missed_total"), room.missed(listener) as u64);
    }
}

#[test]
fn a_publication_crosses_once_for_each_node_that_wants_it() {
    let (nats, nodes) = cluster(&["one", "two", "three"]);
    // Topic and pattern overlap, and the publisher's node has subscribers too.
    let mut here = nodes[0].client(&["sub room.7"]);
    let mut there = [
        nodes[1].client(&["sub room.7"]),
        nodes[1].client(&["like room.*"]),
        nodes[1].client(&["like room.>"]),
    ];
    let _elsewhere = nodes[2].client(&["sub room.8"]);
    wants(&nats, "one", &["ringwire.room.7"]);
    wants(&nats, "two", &["ringwire.room.>"]);
    wants(&nats, "three", &["ringwire.room.8"]);
    let before = nats.messages();
    for number in 0..50 {
        here.send(Message::Text(&format!("pub room.7 {number}")));
    }
    for client in there.iter_mut().chain([&mut here]) {
        for number in 0..50 {
            assert_eq!(client.text(), number.to_string());
        }
    }
    // NATS counts what it has read and passed on once it has done so.
    let counted = || {
        let now = nats.messages();
        (now.0 - before.0, now.1 - before.1)
    };
    wait_until("NATS has counted", || counted().0 >= 50 && counted().1 >= 50);
    assert_eq!(counted(), (50, 50), "in, and to one node");
    let counts = nodes.iter().map(|node| node.metric("received_total"));
    assert_eq!(counts.collect::<Vec<_>>(), [0, 50, 0]);
}

#[test]
fn a_node_wants_what_has_subscribers_and_loses_nothing_when_that_changes() {
    /// So many are on their way.
    const AHEAD: usize = 5;
    let (nats, nodes) = cluster(&["one", "two"]);
    let mut speaker = nodes[0].client(&[]);
    let mut listener = nodes[1].client(&["sub café.7"]);
    wants(&nats, "two", &["ringwire.caf%C3%A9.7"]);
    let mut other = nodes[1].client(&[]);
    // Between a topic and a pattern that takes it in, to and fro, in the middle of what comes.
    for number in 0..400 {
        speaker.send(Message::Text(&format!("pub café.7 {number}")));
        if number % 10 == 0 {
            let verb = ["like", "unlike"][number / 10 % 2];
            other.send(Message::Text(&format!("{verb} café.*")));
        }
        if number >= AHEAD {
            assert_eq!(listener.text(), (number - AHEAD).to_string());
        }
    }
    for number in 400 - AHEAD..400 {
        assert_eq!(listener.text(), number.to_string());
    }
    assert_eq!(nodes[1].metric("missed_total"), 0);
    wants(&nats, "two", &["ringwire.caf%C3%A9.7"]);
    listener.send(Message::Text("unsub café.7"));
    assert_eq!(listener.text(), "ok");
    wants(&nats, "two", &[]);
    assert_eq!(nodes[1].metric("subscriptions"), 0);
}

#[test]
fn what_is_too_long_for_nats_is_counted_and_holds_nothing_up() {
    let (nats, nodes) = cluster(&["one", "two"]);
    let mut speaker = nodes[0].client(&[]);
    let mut listener = nodes[1].client(&["sub a"]);
    wants(&nats, "two", &["ringwire.a"]);
    // With what stands before it, it is longer than the 1 MiB that NATS takes.
    let long = "x".repeat((1 << 20) - 10);
    speaker.send(Message::Text(&format!("pub a {long}")));
    speaker.send(Message::Text("pub a short"));
    assert_eq!(listener.text(), "short");
    assert_eq!(nodes[0].metric("undeliverable_total"), 1);
}

#[test]
fn the_last_words_of_a_node_arrive_and_one_that_was_killed_comes_back() {
    let (nats, mut nodes) = cluster(&["one", "two"]);
    let mut listener = nodes[0].client(&["sub a"]);
    wants(&nats, "one", &["ringwire.a"]);
    let mut speaker = nodes[1].client(&["sub a"]);
    for number in 0..200 {
        speaker.send(Message::Text(&format!("pub a {number}")));
    }
    for number in 0..200 {
        assert_eq!(speaker.text(), number.to_string());
    }
    signal(&nodes[1].0, Signal::TERM);
    let ended = nodes[1].0.wait();
    assert!(ended.success(), "{ended}");
    for number in 0..200 {
        assert_eq!(listener.text(), number.to_string());
    }
    for life in 0..3 {
        nodes[1] = Node::start(&nats, "two");
        let mut speaker = nodes[1].client(&[]);
        speaker.send(Message::Text(&format!("pub a life {life}")));
        assert_eq!(listener.text(), format!("life {life}"));
        nodes[1].0.kill();
    }
    assert_eq!(nodes[0].metric("missed_total"), 0);
}
