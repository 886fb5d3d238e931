//! Envelopes: who receives a message, and who hears of users that come and go.

use std::time::Duration;

use ringwire::testing::{Get, Peer, Stage};
use serde_json::{Value, json};

use crate::common::{ask, enter, get, hear, id_of, token};

const ENVELOPE: &str = "envelope.json";

scenes![
    requests_need_tokens,
    subprotocols_are_agreed_on,
    pings_get_pongs,
    texts_reach_everybody_else,
    texts_reach_one_user_and_the_senders_others,
    what_is_wrong_is_said_with_its_id,
    data_is_never_null,
    tokens_expire_and_are_refreshed,
    joining_and_leaving_is_told_once_and_to_others,
    a_user_has_so_many_connections,
    chat_is_the_same_conversation,
    binary_messages_are_refused,
];

/// A connection that speaks envelopes.
fn open(stage: &mut impl Stage, user: &str) -> Peer {
    enter(stage, user, ENVELOPE)
}

fn text(id: &str, content: &str) -> Value {
    json!({ "id": id, "message_type": "text", "data": { "content": content } })
}

/// Two users who have heard of each other.
fn two(stage: &mut impl Stage) -> (Peer, Peer) {
    let mut ann = open(stage, "ann");
    let ben = open(stage, "ben");
    assert_eq!(hear(&mut ann)["message_type"], "user_joined");
    (ann, ben)
}

fn requests_need_tokens(stage: &mut impl Stage) {
    for (target, reason) in [
        ("/ws".to_owned(), "missing"),
        ("/ws?token=".to_owned(), "missing"),
        ("/ws?token=abc".to_owned(), "malformed"),
        (format!("/ws?token={}", token("ann", -1)), "expired"),
    ] {
        let reply = stage.connect(Get::new(&target)).expect_status(401);
        assert_eq!(reply.text(), reason, "{target}");
    }
    let bearer = format!("Bearer {}", token("ann", 60));
    stage.connect(Get::new("/ws").with_header("authorization", &bearer)).expect_open();
}

fn subprotocols_are_agreed_on(stage: &mut impl Stage) {
    let bearer = || Get::new("/ws").with_subprotocol("bearer").with_subprotocol(&token("ann", 60));
    let unknown = Get::new(&format!("/ws?token={}", token("ann", 60)));
    for (get, agreed) in [
        (bearer(), Some("bearer")),
        (bearer().with_subprotocol("rooms.text"), Some("rooms.text")),
        (unknown.with_subprotocol("mqtt"), None),
        (get("ann", "chat.json").with_subprotocol("rooms.text"), Some("chat.json")),
    ] {
        let peer = stage.connect(get).expect_open();
        assert_eq!(peer.reply().unwrap().header("sec-websocket-protocol"), agreed);
    }
}

fn pings_get_pongs(stage: &mut impl Stage) {
    let mut ann = open(stage, "ann");
    let ping = json!({ "id": "7", "message_type": "ping", "data": { "at": [1, 2.50] } });
    let pong = ask(&mut ann, &ping);
    assert_eq!((&pong["id"], &pong["message_type"]), (&json!("7"), &json!("pong")));
    assert_eq!(pong["data"], ping["data"]);
    assert_eq!(pong.get("from_user_id"), None);
    ann.send(json!({ "id": "8", "message_type": "pong", "data": {} }).to_string());
    ann.expect_nothing();
}

fn texts_reach_everybody_else(stage: &mut impl Stage) {
    let (mut ann, mut ben) = two(stage);
    let mut phone = open(stage, "ann");
    let mut claimed = text("t1", "hello \u{1f600} \"all\"");
    claimed["from_user_id"] = json!(id_of("ben"));
    claimed["timestamp"] = json!("1970-01-01T00:00:00Z");
    ann.send(claimed.to_string());
    for peer in [&mut ben, &mut phone] {
        let heard = hear(peer);
        assert_eq!((&heard["id"], &heard["message_type"]), (&json!("t1"), &json!("text")));
        assert_eq!(heard["data"], claimed["data"]);
        assert_eq!(heard["from_user_id"], json!(id_of("ann")));
        let timestamp = heard["timestamp"].as_str().unwrap();
        assert!(timestamp > "2026" && timestamp.ends_with('Z'), "{timestamp}");
        assert_eq!(heard.get("to_user_id"), None);
    }
    ann.expect_nothing();
}

fn texts_reach_one_user_and_the_senders_others(stage: &mut impl Stage) {
    let (mut ann, mut ben) = two(stage);
    let (mut phone, mut tablet) = (open(stage, "ann"), open(stage, "ben"));
    let mut cem = open(stage, "cem");
    for peer in [&mut ann, &mut ben, &mut phone, &mut tablet] {
        assert_eq!(hear(peer)["data"]["username"], "cem");
    }
    let mut private = text("p", "psst");
    private["to_user_id"] = json!(id_of("ben"));
    ann.send(private.to_string());
    for peer in [&mut ben, &mut tablet, &mut phone] {
        let heard = hear(peer);
        assert_eq!(heard["data"]["content"], "psst");
        assert_eq!(heard["to_user_id"], json!(id_of("ben")));
        assert_eq!(heard["from_user_id"], json!(id_of("ann")));
    }
    private["to_user_id"] = json!(id_of("ann"));
    ann.send(private.to_string());
    assert_eq!(hear(&mut phone)["to_user_id"], json!(id_of("ann")));
    private["to_user_id"] = json!(id_of("zoe"));
    let offline = ask(&mut ann, &private);
    assert_eq!((&offline["id"], &offline["data"]["error"]), (&json!("p"), &json!("offline")));
    for peer in [&mut ann, &mut ben, &mut phone, &mut tablet, &mut cem] {
        peer.expect_nothing();
    }
}

fn what_is_wrong_is_said_with_its_id(stage: &mut impl Stage) {
    let mut ann = open(stage, "ann");
    for (message, id, error) in [
        (r#"{"id":"1","message_type":"shout","data":{}}"#, Some("1"), "unknown_type"),
        (r#"{"id":"2","message_type":"user_joined","data":{}}"#, Some("2"), "not_allowed"),
        (r#"{"id":"3","message_type":"system_message"}"#, Some("3"), "not_allowed"),
        (r#"{"id":"4","data":{}}"#, Some("4"), "malformed"),
        (r#"{"id":"5","message_type":"text","to_user_id":"ben"}"#, Some("5"), "malformed"),
        (r#"{"id":"6","message_type":"text","data":{"content":"#, Some("6"), "malformed"),
        (r#"{"id":7,"message_type":"ping"}"#, Some("7"), "malformed"),
        (r#"{"id":[7],"message_type":"shout"}"#, Some("[7]"), "malformed"),
        (r#"{"id":null,"message_type":"shout"}"#, None, "unknown_type"),
        (r#"{"id":"10","message_type":"refresh","data":"hi"}"#, Some("10"), "malformed"),
        (r#"{"id":"8","message_type":"refresh","data":{}}"#, Some("8"), "malformed"),
        (r#"["9","ping",{}]"#, None, "malformed"),
        ("what?", None, "malformed"),
        ("", None, "malformed"),
    ] {
        ann.send(message);
        let heard = hear(&mut ann);
        assert_eq!(heard["message_type"], "error", "{message}");
        assert_eq!(heard["data"]["error"], error, "{message}");
        let own = &heard["id"];
        let is_new = || own.as_str().is_some_and(|own| own.len() == 36);
        let json = own.to_string();
        let is_right = id.map_or_else(is_new, |id| own == id || json == id);
        assert!(is_right, "{message}: {heard}");
    }
}

/// Clients read `data.content`, which fails where `data` is `null`.
fn data_is_never_null(stage: &mut impl Stage) {
    let (mut ann, mut ben) = two(stage);
    for data in ["", r#","data":null"#, r#","data":{}"#] {
        ann.send(format!(r#"{{"message_type":"text"{data}}}"#));
        // It may hear of her as well.
        let heard = std::iter::repeat_with(|| hear(&mut ben));
        let said = { heard }.find(|it| it["message_type"] == "text").unwrap();
        assert_eq!(said["data"], json!({}), "{data}");
        ann.send(format!(r#"{{"message_type":"ping"{data}}}"#));
        assert_eq!(hear(&mut ann)["data"], json!({}), "{data}");
    }
    for data in [json!("hi"), json!([1, { "n": 2.5 }]), json!(false)] {
        let ping = json!({ "id": "p", "message_type": "ping", "data": data });
        assert_eq!(ask(&mut ann, &ping)["data"], data);
    }
}

fn tokens_expire_and_are_refreshed(stage: &mut impl Stage) {
    let begin = |seconds| format!("/ws?token={}", token("ann", seconds));
    let mut short = stage.connect(Get::new(&begin(2))).expect_open();
    let mut renewed = stage.connect(Get::new(&begin(2))).expect_open();
    let refresh =
        |token: &str| json!({ "id": "r", "message_type": "refresh", "data": { "token": token } });
    let answer = ask(&mut renewed, &refresh(&token("ben", 3600)));
    assert_eq!((&answer["id"], &answer["data"]["error"]), (&json!("r"), &json!("claims")));
    let array = json!({ "id": "r", "message_type": "refresh", "data": [token("ann", 3600)] });
    assert_eq!(ask(&mut renewed, &array)["data"]["error"], "malformed");
    let answer = ask(&mut renewed, &refresh(&token("ann", -1)));
    assert_eq!(answer["data"]["error"], "expired");
    let answer = ask(&mut renewed, &refresh(&token("ann", 3600)));
    assert_eq!((&answer["id"], &answer["message_type"]), (&json!("r"), &json!("refresh")));
    assert!(answer["data"]["until"].is_string());
    let end = short.closed();
    assert_eq!((end.code, &*end.reason), (4102, "expired: refresh first"));
    stage.advance(Duration::from_millis(500));
    assert_eq!(ask(&mut renewed, &json!({ "message_type": "ping" }))["message_type"], "pong");
}

fn joining_and_leaving_is_told_once_and_to_others(stage: &mut impl Stage) {
    let mut watcher = open(stage, "watcher");
    let mut laptop = open(stage, "kim");
    let joined = hear(&mut watcher);
    assert_eq!(
        (&joined["message_type"], &joined["data"]["username"]),
        (&json!("user_joined"), &json!("kim"))
    );
    assert_eq!(joined["data"]["user_id"], json!(id_of("kim")));
    let phone = enter(stage, "kim", "rooms.text");
    laptop.close(1000, "");
    let _ = laptop.closed();
    watcher.expect_nothing();
    let mut phone = phone;
    phone.close(1000, "");
    let left = hear(&mut watcher);
    assert_eq!(
        (&left["message_type"], &left["data"]["username"]),
        (&json!("user_left"), &json!("kim"))
    );
    let mut again = open(stage, "kim");
    assert_eq!(hear(&mut watcher)["message_type"], "user_joined");
    again.expect_nothing();
}

fn a_user_has_so_many_connections(stage: &mut impl Stage) {
    let _all: Vec<_> = (0..16).map(|_| open(stage, "ann")).collect();
    let mut more = stage.connect(get("ann", ENVELOPE)).expect_open();
    assert_eq!(more.closed().code, 4010);
}

fn chat_is_the_same_conversation(stage: &mut impl Stage) {
    let mut ann = open(stage, "ann");
    let mut ben = enter(stage, "ben", "chat.json");
    assert_eq!(hear(&mut ann)["data"]["username"], "ben");
    ann.send(text("1", "hello").to_string());
    let heard = hear(&mut ben);
    assert_eq!(
        (&heard["Chat"]["user"], &heard["Chat"]["message"]),
        (&json!("ann"), &json!("hello"))
    );
    assert!(heard["Chat"]["timestamp"].as_u64().unwrap() > 1_700_000_000);
    ben.send(json!({ "Chat": { "user": "ann", "message": "hi", "timestamp": 0 } }).to_string());
    let heard = hear(&mut ann);
    assert_eq!((&heard["message_type"], &heard["data"]["content"]), (&json!("text"), &json!("hi")));
    assert_eq!(heard["from_user_id"], json!(id_of("ben")));
    ann.send(json!({ "message_type": "text", "data": { "n": 1 } }).to_string());
    let mut cem = enter(stage, "cem", "chat.json");
    // What is no text is for envelopes alone.
    assert_eq!(hear(&mut ben), json!({ "Join": "cem" }));
    assert_eq!(hear(&mut ann)["data"]["username"], "cem");
    cem.reset();
    assert_eq!(hear(&mut ben), json!({ "Leave": "cem" }));
    for wrong in [json!({ "Join": "eve" }), json!({ "Error": "x" }), json!({ "Chat": {} })] {
        assert!(ask(&mut ben, &wrong)["Error"].is_string());
    }
}

fn binary_messages_are_refused(stage: &mut impl Stage) {
    let mut ann = open(stage, "ann");
    ann.send(ringwire::OwnedMessage::Binary(b"{}".to_vec()));
    assert_eq!(ann.closed().code, 1003);
}
