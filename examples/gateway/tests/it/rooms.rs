//! Rooms, in text and in JSON.

use ringwire::testing::{Peer, Stage};
use serde_json::json;

use crate::common::{ask, enter, hear, token};

scenes![
    commands_are_followed,
    commands_that_are_wrong_get_errors,
    who_leaves_or_ends_is_no_member,
    the_same_room_in_text_and_in_json,
    nobody_hears_twice_for_being_in_two_rooms,
    what_is_said_is_one_line,
    nobody_publishes_to_what_is_no_room,
    names_are_no_patterns,
    topics_are_acknowledged,
    tokens_are_refreshed,
    rooms_are_limited,
];

fn say(peer: &mut Peer, command: &str) -> String {
    peer.send(command);
    peer.text()
}

fn commands_are_followed(stage: &mut impl Stage) {
    let (mut ann, mut ben) = (enter(stage, "ann", "rooms.text"), enter(stage, "ben", "rooms.text"));
    assert_eq!(say(&mut ann, "ROOMS"), "Rooms:");
    assert_eq!(say(&mut ann, "JOIN tea"), "Joined room: tea");
    assert_eq!(say(&mut ben, "JOIN tea"), "Joined room: tea");
    assert_eq!(say(&mut ben, "JOIN coffee"), "Joined room: coffee");
    assert_eq!(say(&mut ann, "ROOMS"), "Rooms: coffee (1), tea (2)");
    assert_eq!(say(&mut ann, "WHO tea"), "In tea: ann, ben");
    ann.send("SEND tea hello,  all ");
    for peer in [&mut ann, &mut ben] {
        assert_eq!(peer.text(), "[tea] ann: hello,  all");
    }
    assert_eq!(say(&mut ann, "LEAVE tea"), "Left room: tea");
    assert_eq!(say(&mut ben, "SEND tea alone"), "[tea] ben: alone");
    ann.expect_nothing();
    let mut cem = enter(stage, "cem", "rooms.text");
    ben.send("BROADCAST to all");
    for peer in [&mut ann, &mut ben, &mut cem] {
        assert_eq!(peer.text(), "ben: to all");
    }
}

fn commands_that_are_wrong_get_errors(stage: &mut impl Stage) {
    let mut ann = enter(stage, "ann", "rooms.text");
    for (command, error) in [
        ("", "unknown command"),
        ("join tea", "unknown command"),
        ("JOIN", "JOIN needs a room"),
        ("JOIN ", "JOIN needs a room"),
        ("JOIN a b", "a room's name has 1 to 64 bytes, without spaces and control characters"),
        ("LEAVE", "LEAVE needs a room"),
        ("LEAVE tea", "not in this room"),
        ("SEND tea", "SEND needs a room and a text"),
        ("SEND tea hello", "not in this room"),
        ("BROADCAST", "BROADCAST needs a text"),
        ("WHO", "WHO needs a room"),
        ("WHO tea", "not in this room"),
        ("REFRESH", "REFRESH needs a token"),
        ("REFRESH x", "malformed"),
    ] {
        assert_eq!(say(&mut ann, command), format!("ERROR {error}"), "{command:?}");
    }
}

fn who_leaves_or_ends_is_no_member(stage: &mut impl Stage) {
    let mut ann = enter(stage, "ann", "rooms.text");
    say(&mut ann, "JOIN tea");
    for end in ["LEAVE", "close", "reset", "FIN"] {
        let mut ben = enter(stage, "ben", "rooms.text");
        say(&mut ben, "JOIN tea");
        assert_eq!(say(&mut ann, "WHO tea"), "In tea: ann, ben");
        match end {
            "LEAVE" => drop(say(&mut ben, "LEAVE tea")),
            "close" => ben.close(1000, ""),
            "reset" => ben.reset(),
            _ => ben.half_close(),
        }
        // What a peer does goes its way for a while.
        for attempt in 0.. {
            match &*say(&mut ann, "WHO tea") {
                "In tea: ann" => break,
                "In tea: ann, ben" if attempt < 1000 => {
                    stage.advance(std::time::Duration::from_millis(10));
                }
                other => panic!("after {end}: {other}"),
            }
        }
        assert_eq!(say(&mut ann, "SEND tea hello"), "[tea] ann: hello");
    }
}

fn the_same_room_in_text_and_in_json(stage: &mut impl Stage) {
    let (mut ann, mut ben) = (enter(stage, "ann", "rooms.text"), enter(stage, "ben", "rooms.json"));
    say(&mut ann, "JOIN tea");
    let subscribe = json!({ "id": 1, "type": "subscribe", "topic": "tea" });
    assert_eq!(ask(&mut ben, &subscribe), json!({ "ack": 1 }));
    ann.send("SEND tea \"hi\"");
    assert_eq!(ann.text(), "[tea] ann: \"hi\"");
    let message = json!({ "type": "message", "topic": "tea", "message": "\"hi\"", "from": "ann" });
    assert_eq!(hear(&mut ben), message);
    let data = json!({ "type": "publish", "topic": "tea", "message": { "n": [1, null] } });
    ben.send(data.to_string());
    assert_eq!(ann.text(), r#"[tea] ben: {"n":[1,null]}"#);
    assert_eq!(hear(&mut ben)["message"], data["message"]);
    ann.send("BROADCAST all");
    assert_eq!(ann.text(), "ann: all");
    assert_eq!(hear(&mut ben)["topic"], json!(null));
    assert_eq!(say(&mut ann, "WHO tea"), "In tea: ann, ben");
}

fn nobody_hears_twice_for_being_in_two_rooms(stage: &mut impl Stage) {
    let (mut ann, mut ben) = (enter(stage, "ann", "rooms.text"), enter(stage, "ben", "rooms.text"));
    for peer in [&mut ann, &mut ben] {
        for room in ["a", "b", "a"] {
            assert_eq!(say(peer, &format!("JOIN {room}")), format!("Joined room: {room}"));
        }
    }
    for (command, heard) in [("BROADCAST x", "ann: x"), ("SEND a y", "[a] ann: y")] {
        ann.send(command);
        for peer in [&mut ann, &mut ben] {
            assert_eq!(peer.text(), heard);
            peer.expect_nothing();
        }
    }
}

/// Nobody writes what looks like a line of somebody else, nor what a terminal obeys.
fn what_is_said_is_one_line(stage: &mut impl Stage) {
    let mut ann = enter(stage, "ann", "rooms.text");
    let mut eve = enter(stage, "eve\n[tea] ben: yes", "rooms.text");
    let mut joe = enter(stage, "joe", "rooms.json");
    for peer in [&mut ann, &mut eve] {
        assert_eq!(say(peer, "JOIN tea"), "Joined room: tea");
    }
    assert_eq!(say(&mut ann, "WHO tea"), "In tea: ann, eve [tea] ben: yes");
    eve.send("SEND tea a\r\n[tea] ann: b\u{1b}[2J\u{2028}c");
    assert_eq!(ann.text(), "[tea] eve [tea] ben: yes: a  [tea] ann: b [2J c");
    let order = json!({ "type": "publish", "topic": "tea", "message": { "a": "b\nc" } });
    // White space between members may be a line break as well.
    joe.send(format!("{order:#}"));
    assert_eq!(ann.text(), "[tea] joe: {     \"a\": \"b\\nc\"   }");
    joe.send(json!({ "type": "publish", "topic": "tea", "message": "b\nc" }).to_string());
    assert_eq!(ann.text(), "[tea] joe: b c");
}

fn nobody_publishes_to_what_is_no_room(stage: &mut impl Stage) {
    let mut ann = enter(stage, "ann", "rooms.json");
    for topic in ["", "a b", "a\n", &"x".repeat(65)] {
        let order = json!({ "type": "publish", "topic": topic, "message": "m", "id": 1 });
        let error = "a room's name has 1 to 64 bytes, without spaces and control characters";
        assert_eq!(ask(&mut ann, &order), json!({ "type": "error", "error": error, "ack": 1 }));
    }
}

fn names_are_no_patterns(stage: &mut impl Stage) {
    let (mut ann, mut eve) = (enter(stage, "ann", "rooms.text"), enter(stage, "eve", "rooms.text"));
    for room in ["7", "7.staff"] {
        say(&mut ann, &format!("JOIN {room}"));
    }
    for room in [">", "*", "7.*", "7.>", "7%2Estaff"] {
        assert_eq!(say(&mut eve, &format!("JOIN {room}")), format!("Joined room: {room}"));
    }
    for room in ["7", "7.staff"] {
        assert_eq!(say(&mut ann, &format!("SEND {room} secret")), format!("[{room}] ann: secret"));
    }
    eve.expect_nothing();
}

fn topics_are_acknowledged(stage: &mut impl Stage) {
    let mut ann = enter(stage, "ann", "rooms.json");
    let order =
        |kind: &str, id: &str| json!({ "type": kind, "topic": "news", "message": "m", "id": id });
    assert_eq!(ask(&mut ann, &order("subscribe", "s")), json!({ "ack": "s" }));
    ann.send(order("publish", "p").to_string());
    // Publications go out behind what is sent in their turn.
    assert_eq!(hear(&mut ann), json!({ "ack": "p" }));
    assert_eq!(hear(&mut ann)["message"], "m");
    assert_eq!(ask(&mut ann, &order("unsubscribe", "u")), json!({ "ack": "u" }));
    let error = |error: &str, ack: &str| json!({ "type": "error", "error": error, "ack": ack });
    assert_eq!(ask(&mut ann, &order("unsubscribe", "u")), error("not in this room", "u"));
    let unknown = error("there is no message of this type", "x");
    assert_eq!(ask(&mut ann, &order("shout", "x")), unknown);
    let malformed = json!({ "type": "error", "error": "a message is a JSON object with a `type`" });
    ann.send("[]");
    assert_eq!(hear(&mut ann), malformed);
    // Nobody asks for an answer.
    ann.send(json!({ "type": "subscribe", "topic": "quiet" }).to_string());
    ann.expect_nothing();
}

fn tokens_are_refreshed(stage: &mut impl Stage) {
    let mut ann = enter(stage, "ann", "rooms.text");
    assert_eq!(say(&mut ann, &format!("REFRESH {}", token("ann", 60))), "Refreshed");
    assert_eq!(say(&mut ann, &format!("REFRESH {}", token("ben", 60))), "ERROR claims");
    let mut ben = enter(stage, "ben", "rooms.json");
    let refresh = |user: &str| json!({ "type": "refresh", "token": token(user, 60), "id": 4 });
    assert_eq!(ask(&mut ben, &refresh("ben")), json!({ "ack": 4 }));
    let refused = json!({ "type": "error", "error": "claims", "ack": 4 });
    assert_eq!(ask(&mut ben, &refresh("ann")), refused);
}

fn rooms_are_limited(stage: &mut impl Stage) {
    let (mut one, mut two) = (enter(stage, "ann", "rooms.text"), enter(stage, "ann", "rooms.json"));
    for number in 0..100 {
        assert_eq!(say(&mut one, &format!("JOIN {number}")), format!("Joined room: {number}"));
    }
    assert_eq!(say(&mut one, "JOIN more"), "ERROR you are in 100 rooms already");
    let subscribe = |room: &str| json!({ "type": "subscribe", "topic": room, "id": 0 });
    assert_eq!(ask(&mut two, &subscribe("more"))["error"], "you are in 100 rooms already");
    assert_eq!(ask(&mut two, &subscribe("7")), json!({ "ack": 0 }));
    assert_eq!(say(&mut one, "LEAVE 7"), "Left room: 7");
    assert_eq!(ask(&mut two, &subscribe("more"))["error"], "you are in 100 rooms already");
    assert_eq!(say(&mut one, "LEAVE 8"), "Left room: 8");
    assert_eq!(ask(&mut two, &subscribe("more")), json!({ "ack": 0 }));
}
