//! Three gateways, each a process, and a real NATS: what tests/cluster/run runs. `CLUSTER_NATS_SERVER` is the NATS,
//! `CLUSTER_GATEWAY` the gateway, `CLUSTER_CLIENTS` how many clients there are, and `CLUSTER_OUTAGE` for how many
//! seconds NATS is away. One gateway runs in the network namespace `CLUSTER_FAR`, at the far end of a link that loses
//! packets; the ends have `CLUSTER_NEAR_ADDR` and `CLUSTER_FAR_ADDR`.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests take the time, and share with threads"
)]

mod crowd;
mod site;
mod token;

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use ringwire::client::Client;
use rustix::process::Signal;

use crate::crowd::{Crowd, MEMBERS, Member, Node, PACE, Report};
use crate::site::{LEASE, NODES, PATIENCE, Site, signal, wait_until};
use crate::token::token;

/// Those that end or stop: one whose links are in order.
const VICTIM: usize = 1;
const OTHERS: [usize; 2] = [0, 2];

/// What is said without NATS waits, in a bounded queue.
const SLOW: Duration = Duration::from_millis(500);

fn number_in(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Three gateways, and clients on each, who talk.
fn talking() -> (Site, Crowd) {
    let began = Instant::now();
    let site = Site::start();
    let crowd = Crowd::come(site.addrs(), number_in("CLUSTER_CLIENTS", 270));
    site.settle(crowd.users, crowd.room_count());
    println!("{} clients are known to all nodes after {:?}", crowd.users, began.elapsed());
    crowd.talk();
    crowd.rounds(5);
    (site, crowd)
}

/// Waits until the others know that the users of the node have left which ended or stopped.
fn users_leave(site: &Site, crowd: &Crowd) {
    site.await_online(&OTHERS, crowd.users / NODES.len() * OTHERS.len());
}

/// Has a node that has ended run again and its clients come back, and all talk.
fn comes_back(site: &mut Site, crowd: &Crowd, node: usize) {
    site.restart(node);
    crowd.node(node, Node::Back);
    site.settle(crowd.users, crowd.room_count());
    crowd.node(node, Node::Up);
    crowd.rounds(5);
}

/// Ends all, and nodes have dropped and missed nothing.
fn nothing_is_lost(site: &Site, crowd: Crowd) {
    nothing_is_dropped(site, &crowd.end());
    nothing_is_missed(site, &[0, 1, 2]);
}

/// Nodes have dropped nothing.
fn nothing_is_dropped(site: &Site, report: &Report) {
    println!("{report:?}");
    for name in ["incoming_dropped_total", "outgoing_dropped_total"] {
        assert_eq!(site.sum(&format!("ringwire_cluster_{name}")), 0.0, "{name}");
    }
    assert_eq!(report.refused, 0);
}

/// Some nodes have missed nothing from others, and nothing came twice.
fn nothing_is_missed(site: &Site, nodes: &[usize]) {
    for node in nodes {
        for name in ["missed_total", "passed_over_total"] {
            let count = site.metric(*node, &format!("ringwire_cluster_{name}"));
            assert_eq!(count, 0.0, "{name} of {}", NODES[*node]);
        }
    }
}

/// Each delivery has its number, from the speaker and from the node. On connections of nodes that live nothing is lost,
/// doubled or out of order, while another node is killed and comes back and the link of one of them loses packets. The
/// users of the node that was killed leave within the lease.
#[test]
fn one_node_is_killed_and_one_link_loses_packets() {
    let (mut site, crowd) = talking();
    crowd.node(VICTIM, Node::Dying);
    site.gateways[VICTIM].kill();
    let killed = Instant::now();
    users_leave(&site, &crowd);
    println!("the users of a node that was killed have left after {:?}", killed.elapsed());
    assert!(killed.elapsed() > LEASE / 2, "within the lease it may come back");
    crowd.rounds(5);
    comes_back(&mut site, &crowd, VICTIM);
    nothing_is_lost(&site, crowd);
}

/// Whom a node's stop hurts: nobody, if it is short. If it is longer than the lease, its users leave, and are back when
/// it goes on. Its own clients hear what was said meanwhile, as far as NATS has kept it, and what it missed it counts.
#[test]
fn a_node_is_stopped_for_less_than_the_lease_and_for_more() {
    let (site, crowd) = talking();
    for time in [LEASE / 2, LEASE * 2] {
        crowd.node(VICTIM, Node::Stopped);
        signal(&site.gateways[VICTIM], Signal::STOP);
        let stopped = Instant::now();
        if time < LEASE {
            loop {
                let online = OTHERS.map(|node| site.online(node));
                // What a busy machine has told late may be told after the lease.
                if stopped.elapsed() >= time {
                    break;
                }
                assert_eq!(online, OTHERS.map(|_| crowd.users));
                thread::sleep(Duration::from_millis(20));
            }
        } else {
            users_leave(&site, &crowd);
            println!("the users of a node that is stopped have left after {:?}", stopped.elapsed());
            thread::sleep(time.saturating_sub(stopped.elapsed()));
        }
        crowd.rounds(5);
        signal(&site.gateways[VICTIM], Signal::CONT);
        let continued = Instant::now();
        site.settle(crowd.users, crowd.room_count());
        println!("all are back after {:?}", continued.elapsed());
        crowd.node(VICTIM, Node::Up);
        crowd.rounds(5);
    }
    let report = crowd.end();
    nothing_is_dropped(&site, &report);
    nothing_is_missed(&site, &OTHERS);
    misses_are_counted(&site, &report);
}

/// A node takes a publication in once for all its members of a room.
fn misses_are_counted(site: &Site, report: &Report) {
    for (node, gaps) in report.gaps.iter().enumerate() {
        assert_eq!(gaps[node], 0, "a node hears itself");
        let missed = site.metric(node, "ringwire_cluster_missed_total");
        let by_members: u64 = gaps.iter().sum();
        let by_members = by_members as f64 / (MEMBERS / NODES.len()) as f64;
        println!("{} has missed {missed} publications, its rooms {by_members}", NODES[node]);
        assert!(missed >= by_members, "what is lost is counted");
    }
}

/// A node that is to end tells its clients, and what it has let them hear is heard by all.
#[test]
fn a_node_is_drained_and_restarted() {
    let (mut site, crowd) = talking();
    for _ in 0..2 {
        crowd.node(VICTIM, Node::Draining);
        signal(&site.gateways[VICTIM], Signal::TERM);
        let ended = site.gateways[VICTIM].wait();
        assert!(ended.success(), "{ended}");
        users_leave(&site, &crowd);
        crowd.rounds(5);
        comes_back(&mut site, &crowd, VICTIM);
    }
    nothing_is_lost(&site, crowd);
}

/// Without NATS each node goes on with its own clients and is not ready, and its users are all that are online. When
/// NATS is back, all is, without a restart. What is lost is counted.
#[test]
fn nats_is_stopped_and_killed() {
    let outage = Duration::from_secs(number_in("CLUSTER_OUTAGE", 10) as u64);
    let (mut site, crowd) = talking();
    for is_killed in [false, true] {
        crowd.tell(|phase| (phase.nodes, phase.pace) = ([Node::Apart; 3], SLOW));
        let began = Instant::now();
        match is_killed {
            true => site.nats.kill(),
            false => site.nats.signal(Signal::STOP),
        }
        for node in 0..NODES.len() {
            wait_until("it is apart", || !site.is_ready(node));
        }
        site.await_online(&[0, 1, 2], crowd.users / NODES.len());
        crowd.rounds(5);
        thread::sleep(outage.saturating_sub(began.elapsed()));
        match is_killed {
            true => site.nats.come_back(),
            false => site.nats.signal(Signal::CONT),
        }
        let returned = Instant::now();
        site.settle(crowd.users, crowd.room_count());
        println!("all is well {:?} after NATS is back", returned.elapsed());
        crowd.tell(|phase| (phase.nodes, phase.pace) = ([Node::Up; 3], PACE));
        crowd.rounds(5);
    }
    let report = crowd.end();
    nothing_is_dropped(&site, &report);
    misses_are_counted(&site, &report);
}

/// A node whose link to NATS is cut goes on with its own clients, and the others with theirs, who miss nothing. When
/// the link is back, all is.
#[test]
fn one_node_is_cut_off() {
    const FAR: usize = 2;
    let (site, crowd) = talking();
    crowd.tell(|phase| (phase.nodes[FAR], phase.pace) = (Node::Apart, SLOW));
    let cut = site.cut();
    wait_until("it is apart", || !site.is_ready(FAR));
    let share = crowd.users / NODES.len();
    site.await_online(&[0, 1], 2 * share);
    site.await_online(&[FAR], share);
    crowd.rounds(5);
    drop(cut);
    site.settle(crowd.users, crowd.room_count());
    crowd.tell(|phase| (phase.nodes[FAR], phase.pace) = (Node::Up, PACE));
    crowd.rounds(5);
    let report = crowd.end();
    nothing_is_dropped(&site, &report);
    misses_are_counted(&site, &report);
    assert_eq!((report.gaps[0][1], report.gaps[1][0]), (0, 0));
}

/// What a delivery costs, how long it takes within a node and across nodes, and that a client which loses its
/// connection comes back to its node for what it missed.
#[test]
fn what_it_costs() {
    let (site, crowd) = talking();
    let names = ["ringwire_deliveries_total", "process_cpu_seconds_total"];
    let numbers = ["in_msgs", "out_msgs", "out_bytes"];
    let look = || {
        (names.map(|name| site.sum(name)), numbers.map(|it| site.nats.number(it)), site.nats.cpu())
    };
    let (before, nats_before, nats_cpu_before) = look();
    let began = Instant::now();
    thread::sleep(Duration::from_secs(number_in("CLUSTER_MEASURE", 5) as u64));
    let (after, nats, nats_cpu) = look();
    let time = began.elapsed().as_secs_f64();
    let [delivered, cpu] = [0, 1].map(|it| after[it] - before[it]);
    let [into, out, bytes] = [0, 1, 2].map(|it| nats[it] - nats_before[it]);
    let nats_cpu = nats_cpu - nats_cpu_before;
    println!(
        "{:.0} deliveries a second, {:.1} µs of CPU of gateways each",
        delivered / time,
        cpu / delivered * 1e6
    );
    println!(
        "NATS: {:.0} messages a second in, {:.0} out, {:.0} bytes each, {:.1} µs of its CPU a message in or out",
        into / time,
        out / time,
        bytes / out,
        nats_cpu / (into + out) * 1e6
    );
    crowd.end();
    latencies(&site);
    recovers(&site);
    all_are_listed(&site);
}

/// Members of a room of their own, one for each place.
fn room_of(site: &Site, room: usize) -> Vec<Member> {
    let come = |place| {
        let addr = site.addr(place % NODES.len());
        Member::come(addr, room * MEMBERS + place, None).expect("it is let in").0
    };
    (0..MEMBERS).map(come).collect()
}

/// How long a message takes to a member on its speaker's node, and to one on another.
fn latencies(site: &Site) {
    let room = 1_000_000;
    let mut members = room_of(site, room);
    site.settle(MEMBERS, 1);
    let mut number = 0;
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..500 {
        // Three are on the first node: 0, 3 and 6. The one that hears first is measured.
        for (listener, times) in [3, 1].into_iter().zip(&mut all) {
            number += 1;
            let began = Instant::now();
            members[0].say(room, number).expect("it is open");
            members[listener].expect(0, number);
            times.push(began.elapsed());
            members.iter_mut().for_each(|member| member.expect(0, number));
        }
    }
    for (name, mut times) in ["within a node", "across nodes"].into_iter().zip(all) {
        times.sort_unstable();
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("{name}: p50 {p50:?}, p99 {p99:?}");
    }
}

/// A client that loses its connection comes back to its node for what it missed.
fn recovers(site: &Site) {
    let room = 1_000_001;
    let mut members = room_of(site, room);
    site.settle(MEMBERS, 1);
    let mut number = 0;
    for lost in 1..MEMBERS {
        number += 1;
        members[0].say(room, number).expect("it is open");
        members.iter_mut().for_each(|member| member.expect(0, number));
        let before = members.remove(lost);
        for _ in 0..10 {
            number += 1;
            members[0].say(room, number).expect("it is open");
        }
        members.iter_mut().for_each(|member| member.expect(0, number));
        let (user, addr) = (room * MEMBERS + lost, site.addr(lost % NODES.len()));
        let (member, is_complete) = Member::come(addr, user, Some(&before)).expect("it is let in");
        assert!(is_complete);
        members.insert(lost, member);
        members[lost].expect(0, number);
    }
}

/// Who is in a room is asked of all nodes.
fn all_are_listed(site: &Site) {
    let mut clients: Vec<_> = (0..NODES.len())
        .map(|node| {
            let url = format!("ws://{}/ws?token={}", site.addr(node), token(2_000_000 + node));
            let builder = Client::builder().without_proxy().with_subprotocol("rooms.text");
            builder.with_read_timeout(PATIENCE).connect(url).expect("it is let in")
        })
        .collect();
    let mut ask = |node: usize, command: &str| {
        // A node that is busy may take too long for its answer.
        for _ in 0..20 {
            clients[node].send_text(command).expect("it is open");
            let answer = clients[node].receive().expect("it is open").expect("it is not closed");
            let answer = answer.as_text().expect("a text").to_owned();
            if !answer.contains("nodes that do not answer") {
                return answer;
            }
        }
        panic!("nodes do not answer: {command}");
    };
    (0..NODES.len()).for_each(|node| assert_eq!(ask(node, "JOIN tea"), "Joined room: tea"));
    for node in 0..NODES.len() {
        assert_eq!(ask(node, "WHO tea"), "In tea: user2000000, user2000001, user2000002");
        assert_eq!(ask(node, "ROOMS"), "Rooms: tea (3)");
    }
}
