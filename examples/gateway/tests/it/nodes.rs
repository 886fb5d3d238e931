//! Gateways that are nodes of a cluster, in one process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::cluster::{Bus, BusError, Node, Outgoing};
use ringwire::testing::{Get, Live, Peer, Stage};
use ringwire::tuning::Pinning;
use ringwire::{DriverKind, Server};
use ringwire_gateway::app::{App, router};
use ringwire_gateway::settings::Settings;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{admin_token, app, await_that, config, enter, hear, id_of};

const ENVELOPE: &str = "envelope.json";

/// A bus from all to all, which can be cut at a node.
#[derive(Clone, Debug, Default)]
struct Line(Arc<Mutex<Vec<Member>>>);

#[derive(Clone, Debug)]
struct Member {
    is_cut: Arc<AtomicBool>,
    letters: mpsc::Sender<(String, Vec<u8>)>,
}

/// A node's end of it.
#[derive(Debug)]
struct End(Line, Arc<AtomicBool>);

impl Bus for End {
    fn start(self: Box<Self>, node: Node) -> Result<(), BusError> {
        let Self(line, is_cut) = *self;
        let Node { mut outlet, mut inlet, .. } = node;
        let (letters, incoming) = mpsc::channel();
        let member = Member { is_cut: is_cut.clone(), letters };
        line.0.lock().unwrap_or_else(PoisonError::into_inner).push(member);
        outlet.set_connected(true);
        thread::spawn(move || {
            while let Some(next) = outlet.next_blocking() {
                let Outgoing::Publish(letter) = next else { continue };
                if is_cut.load(Ordering::Relaxed) {
                    continue;
                }
                for member in &*line.0.lock().unwrap_or_else(PoisonError::into_inner) {
                    if !member.is_cut.load(Ordering::Relaxed) {
                        let _ = member.letters.send((letter.topic().to_owned(), letter.to_bytes()));
                    }
                }
            }
        });
        thread::spawn(move || {
            let began = Instant::now();
            let mut wait = Duration::MAX;
            loop {
                match incoming.recv_timeout(wait) {
                    Ok::<(String, Vec<u8>), _>((topic, bytes)) => {
                        inlet.receive(&topic, &bytes, began.elapsed());
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                let now = began.elapsed();
                wait = inlet.expire(now).map_or(Duration::MAX, |at| at.saturating_sub(now));
            }
        });
        Ok(())
    }
}

/// One that numbers what is said in rooms for all nodes, and is away.
#[derive(Debug)]
struct Away;

impl Bus for Away {
    fn start(self: Box<Self>, node: Node) -> Result<(), BusError> {
        let Node { mut outlet, .. } = node;
        outlet.number_by_bus();
        outlet.number_here(Vec::new());
        thread::spawn(move || while outlet.next_blocking().is_some() {});
        Ok(())
    }
}

/// A gateway that is a node.
struct Site {
    live: Live,
    app: Arc<App>,
    is_cut: Arc<AtomicBool>,
}

fn sites(driver: DriverKind, lease: Duration, names: &[&str]) -> Vec<Site> {
    let line = Line::default();
    let site = |name: &&str| {
        let mut settings = Settings::default();
        settings.node = Some((*name).to_owned());
        settings.node_lease = lease;
        let (app, is_cut) = (app(&settings), Arc::<AtomicBool>::default());
        let shared = app.clone();
        let config = config(2).with_driver(driver).with_pinning(Pinning::Off);
        let server = Server::new(config).with_bus(End(line.clone(), is_cut.clone()));
        let live = Live::start_on(server, move |worker| router(&shared, worker));
        Site { live, app, is_cut }
    };
    let mut sites: Vec<_> = names.iter().map(site).collect();
    for site in &mut sites {
        await_nodes(site, names.len() - 1);
    }
    sites
}

fn await_nodes(site: &mut Site, count: usize) {
    let app = site.app.clone();
    let nodes = || app.presence.nodes().unwrap_or_default().len();
    await_that(&mut site.live, "it knows the other nodes", || nodes() == count);
}

/// What `/ws/online` says in pages of two: everybody's name.
fn online(site: &mut Site) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let get = Get::new(&format!("/ws/online?limit=2{after}"));
        let page = site.live.request(get.with_header("authorization", &bearer()));
        assert_eq!(page.status, 200);
        let page: Value = serde_json::from_str(&page.text()).unwrap();
        let users = page["users"].as_array().unwrap().iter();
        names.extend(users.map(|user| user["username"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return names,
        }
    }
}

/// How many connections a user has, and how many of them take envelopes.
fn counts(app: &App, user: Uuid) -> (usize, usize) {
    let user = app.presence.of(&user);
    user.map_or((0, 0), |user| (user.connection_count, user.profile.envelopes))
}

fn bearer() -> String {
    format!("Bearer {}", admin_token("root"))
}

fn await_online(site: &mut Site, names: &[&str]) {
    for _ in 0..1000 {
        if online(site) == names {
            return;
        }
        site.live.advance(Duration::from_millis(20));
    }
    panic!("{:?} are to be online, not {:?}", names, online(site));
}

/// Who comes or goes next.
fn news(peer: &mut Peer) -> (String, String) {
    let heard = hear(peer);
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    (word(&heard["message_type"]), word(&heard["data"]["username"]))
}

fn told(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

fn on_all_drivers(play: impl Fn(DriverKind)) {
    [DriverKind::Epoll, DriverKind::Uring].into_iter().for_each(play);
}

#[test]
fn users_join_and_leave_once_over_all_nodes() {
    on_all_drivers(|driver| {
        let mut sites = sites(driver, Duration::from_secs(60), &["a", "b", "c"]);
        let mut watchers: Vec<_> =
            sites.iter_mut().map(|site| enter(&mut site.live, "zoe", ENVELOPE)).collect();
        for site in &mut sites {
            await_online(site, &["zoe"]);
        }
        let first = enter(&mut sites[0].live, "ann", ENVELOPE);
        for (watcher, site) in watchers.iter_mut().zip(&mut sites) {
            assert_eq!(news(watcher), told("user_joined", "ann"));
            await_online(site, &["ann", "zoe"]);
        }
        let second = enter(&mut sites[1].live, "ann", ENVELOPE);
        let ben = enter(&mut sites[2].live, "ben", "rooms.text");
        for (watcher, site) in watchers.iter_mut().zip(&mut sites) {
            assert_eq!(news(watcher), told("user_joined", "ben"), "ann was there already");
            await_online(site, &["ann", "ben", "zoe"]);
            let (all, ann) = (site.app.clone(), id_of("ann"));
            await_that(&mut site.live, "both count", || counts(&all, ann) == (2, 2));
            // The watchers', ann's two, and ben's.
            let sums =
                || (all.presence.sum(|count, _| count), all.presence.sum(|_, it| it.envelopes));
            await_that(&mut site.live, "all count", || sums() == (6, 5));
            let get = Get::new("/ws/stats").with_header("authorization", &bearer());
            let stats: Value = serde_json::from_str(&site.live.request(get).text()).unwrap();
            let counts = (&stats["total_connections"], &stats["unique_users"]);
            assert_eq!(counts, (&json!(6), &json!(3)));
        }
        drop(first);
        for site in &mut sites {
            let (all, ann) = (site.app.clone(), id_of("ann"));
            await_that(&mut site.live, "one counts", || counts(&all, ann) == (1, 1));
        }
        drop(ben);
        for watcher in &mut watchers {
            assert_eq!(news(watcher), told("user_left", "ben"), "ann is still there");
        }
        drop(second);
        for (watcher, site) in watchers.iter_mut().zip(&mut sites) {
            assert_eq!(news(watcher), told("user_left", "ann"));
            await_online(site, &["zoe"]);
        }
    });
}

/// The protocols of a room have a topic each, and what one can't say to other nodes does not keep back the other.
#[test]
fn who_is_here_hears_what_is_said_while_the_bus_is_away() {
    on_all_drivers(|driver| {
        let mut settings = Settings::default();
        settings.node = Some("a".to_owned());
        let app = app(&settings);
        let config = settings.rooms.keep(config(2)).with_driver(driver).with_pinning(Pinning::Off);
        let server = Server::new(config).with_bus(Away);
        let mut live = Live::start_on(server, move |worker| router(&app, worker));
        let mut ann = enter(&mut live, "ann", "rooms.text");
        let mut ben = enter(&mut live, "ben", "rooms.text");
        for peer in [&mut ann, &mut ben] {
            assert_eq!(answer(peer, "JOIN tea"), "Joined room: tea");
        }
        ann.send("SEND tea hi");
        assert_eq!(ben.text(), "[tea] ann: hi");
        let mut heard = [ann.text(), ann.text()];
        heard.sort();
        assert!(heard[0].starts_with("ERROR the bus is disconnected"), "{heard:?}");
        assert_eq!(heard[1], "[tea] ann: hi");
    });
}

/// What the others hear of them does not wait for the lease.
#[test]
fn users_of_a_node_that_ends_leave_with_it() {
    on_all_drivers(|driver| {
        let mut sites = sites(driver, Duration::from_secs(60), &["a", "b"]);
        let mut watcher = enter(&mut sites[1].live, "zoe", ENVELOPE);
        let mut peers = ["ann", "ben"].map(|name| {
            let peer = enter(&mut sites[0].live, name, ENVELOPE);
            assert_eq!(news(&mut watcher), told("user_joined", name));
            peer
        });
        let Site { live, app, .. } = sites.remove(0);
        app.handle().shutdown(Duration::from_secs(5));
        peers.iter_mut().for_each(|peer| assert_eq!(peer.closed().code, 1001));
        // It waits until the bus has ended.
        drop(live);
        let mut left = [news(&mut watcher), news(&mut watcher)];
        left.sort();
        assert_eq!(left, [told("user_left", "ann"), told("user_left", "ben")]);
    });
}

/// What a client of `rooms.text` is answered.
fn answer(peer: &mut Peer, command: &str) -> String {
    peer.send(command);
    peer.text()
}

/// The same, where nodes are asked. A busy one that took too long for its answer is asked again.
fn answer_of_nodes(peer: &mut Peer, command: &str, expected: &str) {
    for _ in 0..20 {
        let answer = answer(peer, command);
        if answer == expected {
            return;
        }
        assert!(answer.contains("nodes that do not answer"), "{answer}, not {expected}");
    }
    panic!("too late again and again: {command}");
}

#[test]
fn rooms_are_those_of_all_nodes_that_answer() {
    on_all_drivers(|driver| {
        let mut sites = sites(driver, Duration::from_secs(60), &["a", "b", "c"]);
        let mut peers: Vec<_> = ["ann", "ben", "cem"]
            .iter()
            .zip(&mut sites)
            .map(|(name, site)| enter(&mut site.live, name, "rooms.text"))
            .collect();
        for peer in &mut peers {
            assert_eq!(answer(peer, "JOIN tea"), "Joined room: tea");
        }
        assert_eq!(answer(&mut peers[1], "JOIN coffee"), "Joined room: coffee");
        for peer in &mut peers {
            answer_of_nodes(peer, "WHO tea", "In tea: ann, ben, cem");
            answer_of_nodes(peer, "ROOMS", "Rooms: coffee (1), tea (3)");
        }
        // Somebody in it on two nodes is one user, and two members.
        let mut second = enter(&mut sites[0].live, "ben", "rooms.text");
        assert_eq!(answer(&mut second, "JOIN tea"), "Joined room: tea");
        answer_of_nodes(&mut second, "WHO tea", "In tea: ann, ben, cem");
        answer_of_nodes(&mut second, "ROOMS", "Rooms: coffee (1), tea (4)");
        drop(second);
        sites[2].is_cut.store(true, Ordering::Relaxed);
        let silent = "(nodes that do not answer: 1)";
        answer_of_nodes(&mut peers[1], "WHO coffee", &format!("In coffee: ben {silent}"));
        let alone = "In tea: cem (nodes that do not answer: 2)";
        answer_of_nodes(&mut peers[2], "WHO tea", alone);
        sites[2].is_cut.store(false, Ordering::Relaxed);
        answer_of_nodes(&mut peers[2], "WHO tea", "In tea: ann, ben, cem");
    });
}

#[test]
fn a_user_is_reached_wherever_he_is() {
    on_all_drivers(|driver| {
        let mut sites = sites(driver, Duration::from_secs(60), &["a", "b"]);
        let mut ann = enter(&mut sites[0].live, "ann", ENVELOPE);
        let mut ben = enter(&mut sites[1].live, "ben", ENVELOPE);
        assert_eq!(news(&mut ann), told("user_joined", "ben"));
        let text = |to: &str| {
            json!({
                "id": "1", "message_type": "text", "data": { "content": "hi" },
                "to_user_id": id_of(to),
            })
        };
        ann.send(text("ben").to_string());
        let heard = loop {
            let heard = hear(&mut ben);
            if heard["message_type"] == "text" {
                break heard;
            }
        };
        assert_eq!(heard["from_user_id"], json!(id_of("ann")));
        ann.send(text("cem").to_string());
        assert_eq!(hear(&mut ann)["data"]["error"], "offline");
        // An administrator at one node ends the connection at the other.
        let order = json!({ "user_id": id_of("ben"), "reason": "enough" }).to_string();
        let post = Get::post("/ws/disconnect", order)
            .with_header("authorization", &bearer())
            .with_header("content-type", "application/json");
        let answer = sites[0].live.request(post);
        assert_eq!((answer.status.as_u16(), &*answer.text()), (202, r#"{"connections":1}"#));
        let end = ben.closed();
        assert_eq!((end.code, &*end.reason), (ringwire_gateway::session::REVOKED.get(), "enough"));
        assert_eq!(news(&mut ann), told("user_left", "ben"));
    });
}

#[test]
fn users_of_a_node_that_is_cut_off_leave_and_come_back() {
    on_all_drivers(|driver| {
        let mut sites = sites(driver, Duration::from_secs(5), &["a", "b"]);
        let mut zoe = enter(&mut sites[0].live, "zoe", ENVELOPE);
        let _ann = enter(&mut sites[1].live, "ann", ENVELOPE);
        assert_eq!(news(&mut zoe), told("user_joined", "ann"));
        sites[1].is_cut.store(true, Ordering::Relaxed);
        assert_eq!(news(&mut zoe), told("user_left", "ann"));
        await_online(&mut sites[0], &["zoe"]);
        await_online(&mut sites[1], &["ann"]);
        // Meanwhile somebody comes there.
        let _ben = enter(&mut sites[1].live, "ben", ENVELOPE);
        sites[1].is_cut.store(false, Ordering::Relaxed);
        let mut back = [news(&mut zoe), news(&mut zoe)];
        back.sort();
        assert_eq!(back, [told("user_joined", "ann"), told("user_joined", "ben")]);
        for site in &mut sites {
            await_online(site, &["ann", "ben", "zoe"]);
        }
    });
}
