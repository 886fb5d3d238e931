//! HTTP for administrators, and the WebSocket of the dashboard.

use std::time::Duration;

use ringwire::testing::{Get, Peer, Reply, Stage};
use serde_json::{Value, json};

use crate::common::{admin_token, enter, hear, id_of, token};

scenes![
    only_administrators_are_answered,
    users_are_listed_in_pages,
    a_message_goes_to_one_user,
    a_broadcast_goes_to_everybody,
    a_user_is_disconnected,
    what_is_wrong_is_a_problem,
    dashboards_sign_in,
    dashboards_are_shown_who_is_online,
    pages_keep_others_out,
];

const ENVELOPE: &str = "envelope.json";

fn by_admin(get: Get) -> Get {
    get.with_header("authorization", &format!("Bearer {}", admin_token("root")))
}

fn post(target: &str, body: &Value) -> Get {
    by_admin(Get::post(target, body.to_string())).with_header("content-type", "application/json")
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn get(stage: &mut impl Stage, target: &str) -> Value {
    let reply = stage.request(by_admin(Get::new(target)));
    assert_eq!(reply.status, 200, "{}", reply.text());
    body(&reply)
}

/// RFC 9457 §3.1, and that nothing else is said.
fn expect_problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let body = body(reply);
    assert_eq!((&body["type"], &body["status"]), (&json!("about:blank"), &json!(status)));
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
}

/// Lets time pass until it holds.
fn until<S: Stage>(stage: &mut S, what: &str, mut holds: impl FnMut(&mut S) -> bool) {
    for _ in 0..1000 {
        if holds(stage) {
            return;
        }
        stage.advance(Duration::from_millis(10));
    }
    panic!("this was due: {what}");
}

/// The next message that is not of users who come and go.
fn hear_news(peer: &mut Peer) -> Value {
    loop {
        let message = hear(peer);
        if !message["message_type"].as_str().unwrap().starts_with("user_") {
            return message;
        }
    }
}

fn only_administrators_are_answered(stage: &mut impl Stage) {
    let gets = ["/ws/online", "/ws/stats"].map(Get::new);
    let posts = ["/ws/send", "/ws/broadcast", "/ws/disconnect", "/ws/cleanup"];
    let all: Vec<_> = gets.into_iter().chain(posts.map(|it| Get::post(it, "{}"))).collect();
    for get in all {
        let nobody = stage.request(get.clone());
        expect_problem(&nobody, 401);
        // RFC 6750 §3.1: no error where there was no token.
        assert_eq!(nobody.header("www-authenticate"), Some("Bearer"));
        let bearer = |token| get.clone().with_header("authorization", &format!("Bearer {token}"));
        let wrong = stage.request(bearer("nonsense".to_owned()));
        expect_problem(&wrong, 401);
        assert_eq!(wrong.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        expect_problem(&stage.request(bearer(token("root", -1))), 401);
        expect_problem(&stage.request(bearer(token("root", 60))), 403);
        // There is no key, so none is right.
        expect_problem(&stage.request(get.clone().with_header("x-api-key", "")), 401);
        expect_problem(&stage.request(get.with_header("x-api-key", "key")), 401);
    }
}

fn users_are_listed_in_pages(stage: &mut impl Stage) {
    assert_eq!(get(stage, "/ws/online"), json!({ "count": 0, "users": [], "next": null }));
    let mut peers: Vec<_> =
        ["ann", "ben", "cat", "ann"].iter().map(|it| enter(stage, it, ENVELOPE)).collect();
    let all = get(stage, "/ws/online");
    let names: Vec<_> = all["users"].as_array().unwrap().iter().map(|it| &it["username"]).collect();
    assert_eq!((json!(names), &all["count"]), (json!(["ann", "ben", "cat"]), &json!(3)));
    let first = get(stage, "/ws/online?limit=2");
    assert_eq!((first["users"].as_array().unwrap().len(), &first["count"]), (2, &json!(3)));
    assert_eq!(first["next"], json!(id_of("ben")));
    let second = get(stage, &format!("/ws/online?limit=2&after={}", id_of("ben")));
    assert_eq!((&second["users"][0]["username"], &second["next"]), (&json!("cat"), &json!(null)));
    let stats = get(stage, "/ws/stats");
    assert_eq!((&stats["total_connections"], &stats["unique_users"]), (&json!(4), &json!(3)));
    peers.truncate(1);
    until(stage, "the others are gone", |stage| get(stage, "/ws/online")["count"] == 1);
    assert!(peers[0].is_open());
}

fn a_message_goes_to_one_user(stage: &mut impl Stage) {
    let message = |to| {
        let data = json!({ "content": "for you" });
        post("/ws/send", &json!({ "to_user_id": to, "message_type": "notification", "data": data }))
    };
    expect_problem(&stage.request(message(id_of("ann"))), 404);
    let mut anns = [(); 2].map(|()| enter(stage, "ann", ENVELOPE));
    let mut ben = enter(stage, "ben", ENVELOPE);
    let reply = stage.request(message(id_of("ann")));
    assert_eq!((reply.status.as_u16(), &body(&reply)["connections"]), (202, &json!(2)));
    for ann in &mut anns {
        let heard = hear_news(ann);
        assert_eq!(heard["id"], body(&reply)["id"]);
        assert_eq!(
            (&heard["message_type"], &heard["data"]["content"]),
            (&json!("notification"), &json!("for you"))
        );
        assert_eq!(
            (&heard["from_user_id"], &heard["to_user_id"]),
            (&json!(id_of("root")), &json!(id_of("ann")))
        );
    }
    ben.expect_nothing();
    // Who speaks of rooms alone hears no envelopes.
    let _room = enter(stage, "cat", "rooms.text");
    expect_problem(&stage.request(message(id_of("cat"))), 404);
}

fn a_broadcast_goes_to_everybody(stage: &mut impl Stage) {
    let mut peers = ["ann", "ben", "cat"].map(|user| enter(stage, user, ENVELOPE));
    let _room = enter(stage, "dan", "rooms.text");
    let order = json!({ "message_type": "system_message", "data": { "content": "for all" } });
    let reply = stage.request(post("/ws/broadcast", &order));
    assert_eq!((reply.status.as_u16(), &body(&reply)["connections"]), (202, &json!(3)));
    for peer in &mut peers {
        let heard = hear_news(peer);
        assert_eq!((&heard["id"], &heard["data"]), (&body(&reply)["id"], &order["data"]));
        assert_eq!(heard.get("to_user_id"), None);
    }
}

fn a_user_is_disconnected(stage: &mut impl Stage) {
    let mut anns = [(); 2].map(|()| enter(stage, "ann", ENVELOPE));
    let ben = enter(stage, "ben", ENVELOPE);
    let order = json!({ "user_id": id_of("ann"), "reason": "account closed" });
    let reply = stage.request(post("/ws/disconnect", &order));
    assert_eq!((reply.status.as_u16(), body(&reply)), (202, json!({ "connections": 2 })));
    for ann in &mut anns {
        let closed = ann.closed();
        assert_eq!((closed.code, closed.reason.as_str()), (4003, "account closed"));
    }
    until(stage, "ann is gone", |stage| get(stage, "/ws/online")["count"] == 1);
    expect_problem(&stage.request(post("/ws/disconnect", &order)), 404);
    assert!(ben.is_open());
}

fn what_is_wrong_is_a_problem(stage: &mut impl Stage) {
    let good = json!({ "to_user_id": id_of("ann"), "message_type": "text", "data": {} });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for wrong in [
        json!([id_of("ann"), "text", {}]),
        json!({ "message_type": "text", "data": {} }),
        with("to_user_id", json!("ann")),
        with("message_type", json!("pong")),
        with("message_type", json!("user_left")),
        with("data", json!("text")),
        with("surplus", json!(1)),
    ] {
        expect_problem(&stage.request(post("/ws/send", &wrong)), 422);
    }
    for broken in ["", "{", "{\"a\":", "nonsense"] {
        let broken =
            by_admin(Get::post("/ws/send", broken)).with_header("content-type", "application/json");
        expect_problem(&stage.request(broken), 400);
    }
    expect_problem(&stage.request(by_admin(Get::post("/ws/send", good.to_string()))), 415);
    for query in ["limit=0", "limit=1001", "limit=x", "limit=", "after=ann", "after="] {
        expect_problem(&stage.request(by_admin(Get::new(&format!("/ws/online?{query}")))), 400);
    }
    expect_problem(&stage.request(Get::new("/nothing")), 404);
    let wrong = stage.request(by_admin(Get::new("/ws/send")));
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, Some("POST, OPTIONS")));
}

fn sign_in(peer: &mut Peer, secret: &str) {
    peer.send(json!({ "secret": secret }).to_string());
}

fn dashboards_sign_in(stage: &mut impl Stage) {
    let connect = |stage: &mut _| Stage::connect(stage, Get::new("/ws/live")).expect_open();
    for (secret, code, reason) in [
        ("", 4001, "missing"),
        ("nonsense", 4001, "malformed"),
        (&token("root", -1), 4102, "expired"),
        (&token("root", 60), 4007, "not_admin"),
    ] {
        let mut peer = connect(stage);
        sign_in(&mut peer, secret);
        let closed = peer.closed();
        assert_eq!((closed.code, closed.reason.as_str()), (code, reason));
    }
    // Whoever is not signed in sees nothing.
    let mut peer = connect(stage);
    peer.send(r#"{"after":null}"#);
    assert_eq!(peer.closed().code, 1008);
    let mut silent = connect(stage);
    stage.advance(Duration::from_secs(11));
    assert_eq!(silent.closed().code, 4001);
    let mut peer = connect(stage);
    sign_in(&mut peer, &admin_token("root"));
    assert_eq!(hear(&mut peer), json!({ "kind": "signed_in", "with": "token" }));
}

fn dashboards_are_shown_who_is_online(stage: &mut impl Stage) {
    let mut peer = stage.connect(Get::new("/ws/live")).expect_open();
    sign_in(&mut peer, &admin_token("root"));
    assert_eq!(hear(&mut peer)["kind"], "signed_in");
    let page = |peer: &mut Peer| {
        let news = hear(peer);
        assert_eq!(news["kind"], "users", "{news}");
        let users = news["users"].as_array().unwrap().clone();
        users.iter().map(|it| it["username"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(page(&mut peer).is_empty());
    let mut anns = vec![enter(stage, "ann", ENVELOPE)];
    assert_eq!(page(&mut peer), ["ann"]);
    // Another connection of the same user is no news.
    anns.push(enter(stage, "ann", ENVELOPE));
    let _ben = enter(stage, "ben", ENVELOPE);
    assert_eq!(page(&mut peer), ["ann", "ben"]);
    peer.send(json!({ "after": id_of("ann") }).to_string());
    assert_eq!(page(&mut peer), ["ben"]);
    peer.send(json!({ "after": null }).to_string());
    assert_eq!(page(&mut peer), ["ann", "ben"]);
    anns.clear();
    assert_eq!(page(&mut peer), ["ben"]);
}

fn pages_keep_others_out(stage: &mut impl Stage) {
    for path in
        ["/", "/chat", "/dashboard.js", "/chart.js", "/chat.js", "/gateway.js", "/gateway.css"]
    {
        let page = stage.request(Get::new(path));
        assert_eq!(page.status, 200, "{path}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        let tag = page.header("etag").unwrap().to_owned();
        let again = stage.request(Get::new(path).with_header("if-none-match", &tag));
        assert_eq!(again.status, 304, "{path}");
    }
    // What the description says is there.
    let description = body(&stage.request(Get::new("/openapi.json")));
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let get = Get::new(path).with_method(&method.to_uppercase());
            assert_eq!(stage.request(get).status, 401, "{method} {path}");
        }
    }
}
