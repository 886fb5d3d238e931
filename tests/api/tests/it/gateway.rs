//! The gateway in a simulated network, and the same scenes on real sockets with both drivers.

use std::time::Duration;

use ringwire::senders::TrySendError;
use ringwire::testing::{Faults, Get, Live, Peer, Random, Reply, Sim, Stage};
use ringwire::{Config, DriverKind};
use ringwire_api_tests::USER;
use serde_json::{Value, json};

use crate::common::{SECRET, ask, claims, enter, enter_for, hear, make, sign, token};

fn sim(workers: usize) -> Sim {
    Sim::new(Config::default().with_io_workers(workers), make)
}

#[test]
fn scenes_in_the_simulation() {
    for workers in [1, 3] {
        every_scene(&mut sim(workers));
    }
}

#[test]
fn scenes_on_epoll() {
    every_scene(&mut Live::start(DriverKind::Epoll, make));
}

#[test]
fn scenes_on_io_uring() {
    every_scene(&mut Live::start(DriverKind::Uring, make));
}

fn every_scene(stage: &mut impl Stage) {
    tokens_are_checked(stage);
    tokens_expire_and_are_renewed(stage);
    a_room_hears_its_members(stage);
    a_name_of_a_room_is_no_pattern(stage);
    users_tell_each_other(stage);
    first_and_last_connections_are_news(stage);
    administrators_see_and_act(stage);
}

fn tokens_are_checked(stage: &mut impl Stage) {
    let header = json!({ "alg": "HS256" });
    let valid = token("ann", 60);
    let (signed, _) = valid.rsplit_once('.').unwrap();
    let wrong = [
        String::new(),
        "a.b.c".to_owned(),
        signed.to_owned(),
        format!("{signed}."),
        token("ann", -1),
        sign(&header, &claims("ann", 60), b"another secret"),
        sign(&json!({ "alg": "none" }), &claims("ann", 60), SECRET),
        sign(&header, &json!({ "sub": "ann" }), SECRET),
    ];
    for wrong in wrong {
        let target = format!("/chat?token={wrong}");
        let refusal = stage.connect(Get::new(&target)).expect_status(401);
        assert_eq!(json_of(&refusal)["error"], "a valid token is needed", "{wrong}");
    }
    stage.connect("/chat").expect_status(401);
    let get = Get::new("/chat").with_header("authorization", &format!("Bearer {valid}"));
    stage.connect(get).expect_open();
}

fn tokens_expire_and_are_renewed(stage: &mut impl Stage) {
    // Times that a machine which stalls for a second or two does not spend on the way.
    let mut ann = enter_for(stage, "ann", 5);
    let mut ben = enter_for(stage, "ben", 5);
    let refused = ask(&mut ben, &json!({ "op": "refresh", "token": token("ann", 3600) }));
    assert_eq!(refused["text"], "another user's token");
    let renewed = ask(&mut ben, &json!({ "op": "refresh", "token": token("ben", 3600) }));
    assert_eq!(renewed["event"], "refreshed");
    assert_eq!(ann.closed().code, 4401);
    stage.advance(Duration::from_secs(2));
    assert_eq!(ask(&mut ben, &json!({ "op": "join", "room": "x" }))["event"], "joined");
    let expiring = ask(&mut ben, &json!({ "op": "refresh", "token": token("ben", 4) }));
    assert_eq!(expiring["event"], "refreshed");
    assert_eq!(ben.closed().code, 4401);
}

fn a_room_hears_its_members(stage: &mut impl Stage) {
    let (mut ann, mut ben) = (enter(stage, "ann"), enter(stage, "ben"));
    let say = json!({ "op": "say", "room": "tea", "text": "hello" });
    assert_eq!(ask(&mut ann, &say)["text"], "not in room `tea`");
    for peer in [&mut ann, &mut ben] {
        let joined = ask(peer, &json!({ "op": "join", "room": "tea" }));
        assert_eq!(joined, json!({ "event": "joined", "room": "tea" }));
    }
    let said = json!({ "event": "said", "room": "tea", "from": "ann", "text": "hello" });
    assert_eq!(ask(&mut ann, &say), said);
    assert_eq!(hear(&mut ben), said);
    assert_eq!(ask(&mut ben, &json!({ "op": "leave", "room": "tea" }))["event"], "left");
    assert_eq!(ask(&mut ann, &say), said);
    assert_eq!(ask(&mut ben, &say)["event"], "problem");
    ben.send("what?");
    assert_eq!(hear(&mut ben)["event"], "problem");
}

fn a_name_of_a_room_is_no_pattern(stage: &mut impl Stage) {
    let (mut ann, mut eve) = (enter(stage, "ann"), enter(stage, "eve"));
    for room in ["7", "7.staff"] {
        ask(&mut ann, &json!({ "op": "join", "room": room }));
    }
    for room in [">", "*", "7.*", "7.>", "7%2Estaff", "", "a b", "\u{0}"] {
        let joined = ask(&mut eve, &json!({ "op": "join", "room": room }));
        assert_eq!(joined, json!({ "event": "joined", "room": room }));
    }
    for room in ["7", "7.staff"] {
        let said = ask(&mut ann, &json!({ "op": "say", "room": room, "text": "secret" }));
        assert_eq!(said["room"], room);
    }
    let refused = ask(&mut eve, &json!({ "op": "join", "room": "x".repeat(251) }));
    assert_eq!(refused["text"], "a topic is longer than 255 bytes");
}

fn users_tell_each_other(stage: &mut impl Stage) {
    let mut ann = enter(stage, "ann");
    let (mut laptop, mut phone) = (enter(stage, "ben"), enter(stage, "ben"));
    // They have their names once they have answered.
    for peer in [&mut laptop, &mut phone] {
        ask(peer, &json!({ "op": "join", "room": "x" }));
    }
    ann.send(json!({ "op": "tell", "user": "ben", "text": "psst" }).to_string());
    for peer in [&mut laptop, &mut phone] {
        assert_eq!(hear(peer), json!({ "event": "told", "from": "ann", "text": "psst" }));
    }
    let nobody = ask(&mut ann, &json!({ "op": "tell", "user": "zoe", "text": "psst" }));
    assert_eq!(nobody["text"], "`zoe` is not online");
}

/// Who has come or gone, as the peer hears it next.
fn presence(peer: &mut Peer) -> (String, String) {
    let news: Value = serde_json::from_str(&peer.text()).unwrap();
    let text = |key| news[key].as_str().unwrap_or_default().to_owned();
    (text("event"), text("user"))
}

/// Waits until the peer hears this of a user, passing over what it hears of others.
fn await_presence(peer: &mut Peer, event: &str, user: &str) {
    while presence(peer) != (event.to_owned(), user.to_owned()) {}
}

fn first_and_last_connections_are_news(stage: &mut impl Stage) {
    let mut watcher = enter(stage, "watcher");
    await_presence(&mut watcher, "online", "watcher");
    let mut laptop = enter(stage, "kim");
    await_presence(&mut watcher, "online", "kim");
    let mut phone = enter(stage, "kim");
    ask(&mut phone, &json!({ "op": "join", "room": "x" }));
    laptop.close(1000, "");
    let _ = laptop.closed();
    watcher.expect_nothing();
    phone.close(1000, "");
    assert_eq!(presence(&mut watcher), ("offline".to_owned(), "kim".to_owned()));
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

fn administrators_see_and_act(stage: &mut impl Stage) {
    let bearer = |token: String| format!("Bearer {token}");
    let mut root = claims("root", 3600);
    root["admin"] = true.into();
    let admin = bearer(sign(&json!({ "alg": "HS256" }), &root, SECRET));
    let mut request = |method: &str, target: &str, token: &str, body: &str| {
        let get = Get::post(target, body).with_method(method).with_header("authorization", token);
        let reply = stage.request(get);
        (reply.status.as_u16(), json_of(&reply))
    };
    let ann = bearer(token("ann", 60));
    assert_eq!(request("GET", "/admin/online", "", "").0, 401);
    assert_eq!(request("GET", "/admin/online", &ann, "").0, 403);
    assert_eq!(request("GET", "/admin/nothing", &ann, "").0, 403);
    assert_eq!(request("GET", "/admin/nothing", &admin, "").0, 404);
    assert_eq!(request("GET", "/admin/online?limit=x", &admin, "").0, 400);
    assert_eq!(request("POST", "/admin/send", &admin, "hello").0, 404);
    let offline = request("POST", "/admin/send?user=z%C3%B6e", &admin, "hello");
    assert_eq!(offline, (404, json!({ "error": "`zöe` is not online" })));

    let mut users = ["q1", "q2", "q2", "q3"].map(|user| enter(stage, user));
    for peer in &mut users {
        ask(peer, &json!({ "op": "join", "room": "x" }));
    }
    let mut request = |method: &str, target: &str, body: &str| {
        let get = Get::post(target, body).with_method(method).with_header("authorization", &admin);
        let reply = stage.request(get);
        (reply.status.as_u16(), json_of(&reply))
    };
    let page = json!({ "users": [["q1", 1], ["q2", 2]], "has_more": true });
    assert_eq!(request("GET", "/admin/online?after=q&limit=2", ""), (200, page));
    let (_, page) = request("GET", "/admin/online?after=q2&limit=1", "");
    assert_eq!(page["users"], json!([["q3", 1]]));
    assert_eq!(request("POST", "/admin/send?user=q3", "hello").0, 204);
    assert_eq!(hear(&mut users[3]), json!({ "event": "told", "from": "admin", "text": "hello" }));
    let closed = request("POST", "/admin/disconnect?user=q2", "");
    assert_eq!(closed, (200, json!({ "closed": 2 })));
    for peer in &mut users[1..3] {
        let end = peer.closed();
        assert_eq!((end.code, &*end.reason), (4410, "disconnected by an administrator"));
    }
}

/// A user of the scene with many seeds.
struct User {
    name: &'static str,
    peer: Peer,
    is_member: bool,
}

#[test]
fn what_is_said_and_who_is_online_holds_under_faults() {
    sim(2).seeds(0..300, |sim| {
        let mut random = sim.random();
        // A token is long, and with pieces and delays as they may be drawn, its request can take longer than a peer
        // waits.
        let mut faults = Faults::mixed(&mut random);
        (faults.reset, faults.fin) = (0.0, 0.0);
        faults.max_delay = faults.max_delay.min(Duration::from_millis(5));
        sim.faults(&faults);
        let mut watcher = enter(sim, "watcher");
        await_presence(&mut watcher, "online", "watcher");
        let mut users = Vec::new();
        for number in 0..random.within(10..=30) {
            step(sim, &mut watcher, &mut users, &mut random, number);
        }
        for user in &mut users {
            let left = ask(&mut user.peer, &json!({ "op": "leave", "room": "tea" }));
            assert_eq!(left["event"], if user.is_member { "left" } else { "problem" });
        }
    });
}

/// Somebody comes, goes, joins or says something, and all who should hear of it do, and nobody else.
fn step(
    sim: &mut Sim,
    watcher: &mut Peer,
    users: &mut Vec<User>,
    random: &mut Random,
    number: usize,
) {
    let count = |users: &[User], name| users.iter().filter(|user| user.name == name).count();
    if users.is_empty() || random.chance(0.3) {
        let name = ["ann", "ben", "cem"][random.below(3)];
        let mut peer = enter(sim, name);
        assert_eq!(ask(&mut peer, &json!({ "op": "join", "room": "tea" }))["event"], "joined");
        users.push(User { name, peer, is_member: true });
        if count(users, name) == 1 {
            assert_eq!(presence(watcher), ("online".to_owned(), name.to_owned()));
        }
        return;
    }
    let index = random.below(users.len());
    if random.chance(0.2) {
        let mut user = users.swap_remove(index);
        if random.chance(0.5) {
            user.peer.reset()
        } else {
            user.peer.close(1000, "")
        }
        if count(users, user.name) == 0 {
            assert_eq!(presence(watcher), ("offline".to_owned(), user.name.to_owned()));
        }
    } else if random.chance(0.3) {
        let user = &mut users[index];
        let (op, event) = if user.is_member { ("leave", "left") } else { ("join", "joined") };
        assert_eq!(ask(&mut user.peer, &json!({ "op": op, "room": "tea" }))["event"], event);
        user.is_member = !user.is_member;
    } else {
        let user = &mut users[index];
        let text = format!("{number} {}", "x".repeat(random.below(3000)));
        user.peer.send(json!({ "op": "say", "room": "tea", "text": text }).to_string());
        if !user.is_member {
            assert_eq!(hear(&mut user.peer)["text"], "not in room `tea`");
            return;
        }
        for member in users.iter_mut().filter(|user| user.is_member) {
            let heard = hear(&mut member.peer);
            assert!(heard["text"] == *text, "step {number}: {} hears {heard:.300}", member.name);
        }
    }
}

#[test]
fn a_sender_waits_for_a_slow_reader_and_loses_nothing() {
    sim(1).seeds(0..30, |sim| {
        let mut slow = enter(sim, "slow");
        ask(&mut slow, &json!({ "op": "join", "room": "x" }));
        slow.stop_reading();
        let handle = sim.handle();
        let sender = handle.sender(handle.connections(&format!("{USER}slow"))[0]).unwrap();
        let line = "x".repeat(10_000);
        let mut sent = 0_usize;
        let mut refusals = 0;
        // Full twice in a row, though there was time: nothing goes any further.
        while refusals < 2 {
            match sender.try_send(&format!("{sent} {line}")) {
                Ok(()) => (sent, refusals) = (sent + 1, 0),
                Err(TrySendError::Full) => refusals += 1,
                Err(error) => panic!("{error}"),
            }
            sim.advance(Duration::from_millis(100));
        }
        assert!(sent * line.len() > sender.capacity());
        slow.go_on_reading();
        for number in 0..sent {
            assert_eq!(slow.text(), format!("{number} {line}"));
        }
        assert!(slow.is_open() && !sender.is_closed());
    });
}
