//! Rooms as the example `pubsub-client` speaks of them: with acknowledgements of the client library.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use ringwire::DriverKind;
use ringwire::client::{Client, JsonIds, Requests};
use serde_json::{Value, json};

use crate::common::{live, token};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client, and what is pushed to it. A thread of its own reads, which is how requests hear of their answers.
fn connect(url: &str, user: &str) -> (Requests<JsonIds>, Receiver<Value>) {
    let url = format!("{url}?token={}", token(user, 60));
    let client = Client::builder().without_proxy().with_subprotocol("rooms.json").connect(&url);
    let (requests, mut pushes) = Requests::split(client.unwrap(), JsonIds::default(), 16);
    let (sender, heard) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(Some(push)) = pushes.receive() {
            sender.send(serde_json::from_slice(push.as_bytes()).unwrap()).unwrap();
        }
    });
    (requests, heard)
}

fn ask(requests: &Requests<JsonIds>, request: &Value) -> Value {
    let answer = requests.begin(request.to_string().as_str()).unwrap().wait(PATIENCE).unwrap();
    serde_json::from_slice(answer.as_bytes()).unwrap()
}

#[test]
fn requests_are_acknowledged_and_publications_pushed() {
    for driver in [DriverKind::Epoll, DriverKind::Uring] {
        let live = live(driver, 2);
        let url = format!("ws://{}/ws", live.address());
        let (ann, heard) = connect(&url, "ann");
        let (ben, _heard) = connect(&url, "ben");
        let subscribed = ask(&ann, &json!({ "type": "subscribe", "topic": "news" }));
        assert!(subscribed.get("error").is_none(), "{subscribed}");
        for number in 0..100 {
            let publish = json!({ "type": "publish", "topic": "news", "message": number });
            let published = ask(&ben, &publish);
            assert!(published.get("error").is_none(), "{published}");
        }
        for number in 0..100 {
            let push = heard.recv_timeout(PATIENCE).unwrap();
            let expected =
                json!({ "type": "message", "topic": "news", "message": number, "from": "ben" });
            assert_eq!(push, expected);
        }
        let refused = ask(&ann, &json!({ "type": "subscribe", "topic": "a b" }));
        assert!(refused["error"].as_str().unwrap().starts_with("a room's name"), "{refused}");
    }
}
