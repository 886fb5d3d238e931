//! Three gateways, each a process, and a real NATS: what tests/cluster/run runs. `CLUSTER_NATS_SERVER` is the NATS,
//! `CLUSTER_GATEWAY` the gateway, `CLUSTER_CLIENTS` how many clients there are.

#![expect(clippy::disallowed_methods, reason = "tests take the time")]

use std::env;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringwire::client::Client;
use ringwire_gateway::auth::{Claims, Signer};
use ringwire_peers::{Http, Process, free_addr, program_in, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

const SECRET: &str = "a secret of the tests, and long enough";
const KEY: &str = "the key of the tests";
const NODES: [&str; 3] = ["a", "b", "c"];
/// Members of a room, as many on each node.
const MEMBERS: usize = 9;
const ROUNDS: usize = 10;
const LEASE: Duration = Duration::from_secs(5);

/// Starts the program that an environment variable names.
fn start(variable: &str, arguments: &[(&str, String)], addr: SocketAddr) -> Process {
    let mut program = program_in(variable, "tests/cluster/run");
    for (flag, value) in arguments {
        program.args([*flag, value]);
    }
    Process::start(program.env("JWT_SECRET", SECRET).env("GATEWAY_API_KEY", KEY), addr)
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut http = Http::connect(addr);
    http.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nX-Api-Key: {KEY}\r\n\r\n"));
    http.answer().text().to_owned()
}

fn get_json(addr: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&get(addr, path)).expect("it is JSON")
}

fn metric(addr: SocketAddr, name: &str) -> f64 {
    let metrics = get(addr, "/metrics");
    let values = metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    values.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect(line)).sum()
}

struct Nats {
    process: Process,
    monitor: SocketAddr,
}

impl Nats {
    fn start() -> Self {
        let (addr, monitor) = (free_addr(), free_addr());
        let arguments = [
            ("-a", "127.0.0.1".to_owned()),
            ("-p", addr.port().to_string()),
            ("-m", monitor.port().to_string()),
            ("-l", "/dev/null".to_owned()),
        ];
        Self { process: start("CLUSTER_NATS_SERVER", &arguments, addr), monitor }
    }

    fn number(&self, name: &str) -> u64 {
        get_json(self.monitor, "/varz")[name].as_u64().expect("a number")
    }
}

fn gateway(nats: &Nats, name: &str, addr: SocketAddr) -> Process {
    let driver = env::var("RINGWIRE_DRIVER").unwrap_or_else(|_| "epoll".to_owned());
    let arguments = [
        ("--listen", addr.to_string()),
        ("--nats", format!("nats://{}", nats.process.addr())),
        ("--node", name.to_owned()),
        ("--driver", driver),
        ("--io-workers", "2".to_owned()),
        ("--pin", "none".to_owned()),
        ("--idle-timeout", "off".to_owned()),
    ];
    let gateway = start("CLUSTER_GATEWAY", &arguments, addr);
    wait_until("it is ready", || Http::connect(addr).get("/readyz").status() == 200);
    gateway
}

fn token(user: usize) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs();
    let claims = Claims {
        sub: Uuid::from_u128(user as u128 + 1),
        username: format!("user{user}"),
        email: format!("user{user}@example.com"),
        exp: now + 3600,
        iat: now,
        nbf: None,
        jti: format!("token {user}"),
        role: None,
    };
    Signer::hs256(SECRET.as_bytes()).expect("it is one").sign(&claims).expect("it is signed")
}

/// A client of a room, and where it has heard that to.
struct Member {
    client: Client,
    position: (u64, u64),
}

impl Member {
    /// Comes to a room, from where it was heard to; whether all that was missed follows.
    fn come(addr: SocketAddr, number: usize, heard: Option<(u64, u64)>) -> (Self, bool) {
        let url = format!("ws://{addr}/ws?token={}", token(number));
        let builder = Client::builder().without_proxy().with_subprotocol("rooms.json");
        let mut client = builder.connect(&url).expect("it is let in");
        let recover = heard.map_or_else(
            || json!({}),
            |(epoch, offset)| json!({ "epoch": epoch, "offset": offset }),
        );
        let room = format!("room{}", number / MEMBERS);
        let subscribe = json!({ "type": "subscribe", "topic": room, "recover": recover, "id": 1 });
        client.send_text(&subscribe.to_string()).expect("it is open");
        let mut member = Self { client, position: (0, 0) };
        let answer = member.hear();
        assert_eq!(answer["type"], "recovery", "{answer}");
        let number = |name: &str| answer[name].as_u64().expect("a number");
        member.position = (number("epoch"), number("offset"));
        let is_complete = answer["complete"] == true;
        if is_complete {
            member.position = heard.unwrap_or(member.position);
        }
        (member, is_complete)
    }

    fn hear(&mut self) -> Value {
        let message = self.client.receive().expect("it is open").expect("it is not closed");
        serde_json::from_str(message.as_text().expect("a text")).expect("it is JSON")
    }

    fn say(&mut self, room: usize, message: &Value) {
        let publish =
            json!({ "type": "publish", "topic": format!("room{room}"), "message": message });
        self.client.send_text(&publish.to_string()).expect("it is open");
    }

    /// The next message, which is this one and has the next number.
    fn expect(&mut self, message: &Value) {
        let heard = self.hear();
        let (epoch, offset) = self.position;
        self.position = (epoch, offset + 1);
        let expected = (message, &json!(epoch), &json!(offset + 1));
        assert_eq!((&heard["message"], &heard["epoch"], &heard["offset"]), expected);
    }
}

struct Cluster {
    nats: Nats,
    gateways: Vec<Process>,
    /// Of rooms one after the other; each is on the node that its number says.
    members: Vec<Option<Member>>,
    said: usize,
}

impl Cluster {
    fn start(count: usize) -> Self {
        let nats = Nats::start();
        let gateways = NODES.iter().map(|name| gateway(&nats, name, free_addr())).collect();
        let mut cluster = Self { nats, gateways, members: Vec::new(), said: 0 };
        for number in 0..count {
            let (member, _) = Member::come(cluster.addr(number % NODES.len()), number, None);
            cluster.members.push(Some(member));
        }
        cluster.settle();
        cluster
    }

    fn addr(&self, node: usize) -> SocketAddr {
        self.gateways[node].addr()
    }

    /// Waits until all nodes know of all users, and NATS of what they want.
    fn settle(&self) {
        let here = self.members.iter().flatten().count();
        let rooms = self.members.len() / MEMBERS;
        for gateway in &self.gateways {
            wait_until("it knows everybody", || self.online(gateway.addr()) == here);
            wait_until("it wants all rooms", || {
                metric(gateway.addr(), "ringwire_cluster_subscriptions") >= rooms as f64
            });
        }
        let wanted = (rooms * NODES.len()) as u64;
        wait_until("NATS knows", || self.nats.number("subscriptions") >= wanted);
    }

    fn online(&self, addr: SocketAddr) -> usize {
        let count = get_json(addr, "/ws/online?limit=1")["count"].as_u64().expect("a number");
        usize::try_from(count).expect("it is small")
    }

    /// In each room a member that is there says something, and all that are there hear it next.
    fn round(&mut self) {
        self.said += 1;
        let message = json!(self.said);
        let rooms = self.members.len() / MEMBERS;
        for room in 0..rooms {
            let members = &mut self.members[room * MEMBERS..(room + 1) * MEMBERS];
            let count = members.iter().flatten().count();
            let speaker = members.iter_mut().flatten().nth(self.said % count).expect("some are");
            speaker.say(room, &message);
        }
        for member in self.members.iter_mut().flatten() {
            member.expect(&message);
        }
    }

    /// How long a message takes to a member on its speaker's node, and to one on another.
    fn latencies(&mut self, count: usize) -> [Vec<Duration>; 2] {
        let mut all = [Vec::new(), Vec::new()];
        for _ in 0..count {
            self.said += 1;
            let message = json!(self.said);
            // Three are on the first node: 0, 3 and 6. The one that is asked first is measured.
            for (listener, times) in [3, 1].into_iter().zip(&mut all) {
                let began = Instant::now();
                self.member(0).say(0, &message);
                self.member(listener).expect(&message);
                times.push(began.elapsed());
                (0..MEMBERS)
                    .filter(|it| *it != listener)
                    .for_each(|it| self.member(it).expect(&message));
            }
        }
        all.each_mut().map(|times| {
            times.sort_unstable();
            std::mem::take(times)
        })
    }

    fn member(&mut self, number: usize) -> &mut Member {
        self.members[number].as_mut().expect("it is there")
    }

    fn sum(&self, name: &str) -> f64 {
        self.gateways.iter().map(|gateway| metric(gateway.addr(), name)).sum()
    }
}

/// Members of rooms over three nodes hear each message once and in order, while a node is killed and comes back. The
/// users of that node leave within the lease, and return when it does. They are told that what they missed is gone.
#[test]
fn rooms_and_presence_over_gateways_one_of_which_is_killed() {
    let count = env::var("CLUSTER_CLIENTS").map_or(270, |text| text.parse().expect("a number"));
    let count = count / MEMBERS * MEMBERS;
    let began = Instant::now();
    let mut cluster = Cluster::start(count);
    println!("{count} clients are there and known to all nodes after {:?}", began.elapsed());
    let deliveries = |cluster: &Cluster| cluster.sum("ringwire_deliveries_total");
    let cpu = |cluster: &Cluster| cluster.sum("process_cpu_seconds_total");
    let (cpu_before, delivered_before) = (cpu(&cluster), deliveries(&cluster));
    let out_before = ["out_msgs", "out_bytes"].map(|name| cluster.nats.number(name));
    (0..ROUNDS).for_each(|_| cluster.round());
    let delivered = deliveries(&cluster) - delivered_before;
    let cpu = (cpu(&cluster) - cpu_before) / delivered * 1e6;
    let out = ["out_msgs", "out_bytes"].map(|name| cluster.nats.number(name));
    let published = (ROUNDS * count / MEMBERS) as f64;
    println!(
        "{delivered} deliveries, {cpu:.1} µs of CPU each; NATS sent {:.2} messages and {:.0} bytes a publication",
        (out[0] - out_before[0]) as f64 / published,
        (out[1] - out_before[1]) as f64 / published,
    );
    let [within, across] = cluster.latencies(500);
    for (name, times) in [("within a node", within), ("across nodes", across)] {
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("{name}: p50 {p50:?}, p99 {p99:?}");
    }

    let killed = Instant::now();
    cluster.gateways[2].kill();
    let gone: Vec<_> = (0..count).filter(|number| number % NODES.len() == 2).collect();
    let heard: Vec<_> = gone
        .iter()
        .map(|number| cluster.members[*number].take().expect("it was there").position)
        .collect();
    // The others do not wait for that.
    (0..ROUNDS).for_each(|_| cluster.round());
    for node in 0..2 {
        let addr = cluster.addr(node);
        wait_until("its users have left", || cluster.online(addr) == count - gone.len());
    }
    println!("the users of a node that was killed have left after {:?}", killed.elapsed());
    assert!(killed.elapsed() > LEASE / 2, "within the lease it may come back");

    let addr = cluster.addr(2);
    cluster.gateways[2] = gateway(&cluster.nats, NODES[2], addr);
    for (number, heard) in gone.iter().zip(heard) {
        let (member, is_complete) = Member::come(addr, *number, Some(heard));
        assert!(!is_complete, "a node that was killed has no history");
        cluster.members[*number] = Some(member);
    }
    cluster.settle();
    (0..ROUNDS).for_each(|_| cluster.round());

    // A client that loses its connection comes back to its node for what it missed.
    let mut lost: Vec<_> =
        (0..count / MEMBERS).map(|room| room * MEMBERS + room % MEMBERS).collect();
    lost.retain(|number| number % NODES.len() != 2);
    let heard: Vec<_> = lost
        .iter()
        .map(|number| cluster.members[*number].take().expect("it was there").position)
        .collect();
    let missed = cluster.said + 1;
    (0..ROUNDS).for_each(|_| cluster.round());
    for (number, heard) in lost.iter().zip(heard) {
        let addr = cluster.addr(number % NODES.len());
        let (mut member, is_complete) = Member::come(addr, *number, Some(heard));
        assert!(is_complete);
        (missed..=cluster.said).for_each(|message| member.expect(&json!(message)));
        cluster.members[*number] = Some(member);
    }
    (0..ROUNDS).for_each(|_| cluster.round());
    for gateway in &cluster.gateways {
        for name in ["incoming_dropped_total", "outgoing_dropped_total", "passed_over_total"] {
            assert_eq!(metric(gateway.addr(), &format!("ringwire_cluster_{name}")), 0.0, "{name}");
        }
    }
    println!("all of it took {:?}", began.elapsed());
}
