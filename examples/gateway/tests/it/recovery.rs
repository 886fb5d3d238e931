//! Rooms that keep what is said, and clients that come back for it.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use ringwire::client::{Backoff, Client, Reconnecting, RetryPolicy, RoomUpdate, Rooms};
use ringwire::testing::{Live, Peer, Sim};
use ringwire::tuning::Pinning;
use ringwire::{CloseCode, DriverKind};
use ringwire_gateway::app::router;
use ringwire_gateway::settings::Settings;
use serde_json::{Value, json};

use crate::common::{app, ask, config, enter, hear, id_of, sim_with, token};

const PATIENCE: Duration = Duration::from_secs(60);

fn settings(history: usize) -> Settings {
    let mut settings = Settings::default();
    settings.rooms.history = history;
    settings
}

fn keeping(history: usize) -> Sim {
    let settings = settings(history);
    sim_with(settings.rooms.keep(config(2)), &settings)
}

fn subscribe(peer: &mut Peer, recover: &Value) -> Value {
    ask(peer, &json!({ "type": "subscribe", "topic": "tea", "recover": recover, "id": 1 }))
}

fn say(peer: &mut Peer, message: &Value) {
    let publish = json!({ "type": "publish", "topic": "tea", "message": message, "id": 2 });
    assert_eq!(ask(peer, &publish), json!({ "ack": 2 }));
}

#[test]
fn what_was_missed_follows_the_answer_or_is_gone() {
    let mut sim = keeping(3);
    let mut ben = enter(&mut sim, "ben", "rooms.json");
    let mut ann = enter(&mut sim, "ann", "rooms.json");
    let answer = subscribe(&mut ann, &json!({}));
    let epoch = answer["epoch"].as_u64().unwrap();
    let recovery = |offset: u64, complete: bool| {
        json!({
            "type": "recovery", "topic": "tea", "epoch": epoch, "offset": offset,
            "complete": complete, "ack": 1,
        })
    };
    let message = |offset: u64| {
        json!({
            "type": "message", "topic": "tea", "message": { "n": offset }, "from": "ben",
            "epoch": epoch, "offset": offset,
        })
    };
    let at = |offset: u64| json!({ "epoch": epoch, "offset": offset });
    assert_eq!(answer, recovery(0, true));
    for offset in 1..=4 {
        say(&mut ben, &json!({ "n": offset }));
        assert_eq!(hear(&mut ann), message(offset));
    }
    let mut back = enter(&mut sim, "ann", "rooms.json");
    assert_eq!(subscribe(&mut back, &at(2)), recovery(4, true));
    assert_eq!([hear(&mut back), hear(&mut back)], [message(3), message(4)]);
    say(&mut ben, &json!({ "n": 5 }));
    assert_eq!(hear(&mut back), message(5));
    // Of five the room has the last three.
    let mut late = enter(&mut sim, "ann", "rooms.json");
    assert_eq!(subscribe(&mut late, &at(1)), recovery(5, false));
    assert_eq!(
        subscribe(&mut late, &json!({ "epoch": epoch + 1, "offset": 5 })),
        recovery(5, false)
    );
    assert_eq!(subscribe(&mut late, &at(5)), recovery(5, true));
    late.expect_nothing();
}

#[test]
fn half_a_position_is_an_error() {
    let mut sim = keeping(3);
    let mut ann = enter(&mut sim, "ann", "rooms.json");
    let error = "`recover` has an epoch and an offset, or neither";
    for half in [json!({ "epoch": 1 }), json!({ "offset": 1 })] {
        let answer = subscribe(&mut ann, &half);
        assert_eq!(answer, json!({ "type": "error", "error": error, "ack": 1 }), "{half}");
    }
}

#[test]
fn rooms_that_keep_nothing_say_so() {
    let mut sim = keeping(0);
    let mut ann = enter(&mut sim, "ann", "rooms.json");
    let error = "the topic has no history to recover from: add one with TopicConfig::with_history";
    assert_eq!(
        subscribe(&mut ann, &json!({})),
        json!({ "type": "error", "error": error, "ack": 1 })
    );
    let publish = json!({ "type": "publish", "topic": "tea", "message": 1 });
    ann.send(publish.to_string());
    ann.expect_nothing();
}

/// A client of rooms, on a thread of its own, and what it is told.
fn follow(url: &str, rooms: &[&str]) -> Receiver<RoomUpdate> {
    let backoff = Backoff::default()
        .with_first_delay(Duration::from_millis(1))
        .with_max_delay(Duration::from_millis(20));
    let builder = Client::builder().without_proxy().with_subprotocol("rooms.json");
    let client = Reconnecting::new(builder, format!("{url}?token={}", token("ann", 600)))
        .with_policy(RetryPolicy::default().with_backoff(backoff));
    let mut client = Rooms::new(client);
    rooms.iter().for_each(|room| client.join(room));
    let (sender, updates) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(Some(update)) = client.next_update() {
            if sender.send(update).is_err() {
                return;
            }
        }
    });
    updates
}

#[test]
fn a_client_that_is_cut_off_again_and_again_misses_nothing() {
    const BATCHES: u64 = 40;
    const BATCH: u64 = 20;
    for driver in [DriverKind::Epoll, DriverKind::Uring] {
        let settings = settings(100);
        let app = app(&settings);
        let shared = app.clone();
        let config = settings.rooms.keep(config(2)).with_driver(driver).with_pinning(Pinning::Off);
        let mut live = Live::start_with(config, move |worker| router(&shared, worker));
        let url = format!("ws://{}/ws", live.address());
        let mut ben = enter(&mut live, "ben", "rooms.json");
        let updates = follow(&url, &["tea", "coffee"]);
        let mut joined = 0;
        while joined < 2 {
            if let RoomUpdate::Joined { .. } = updates.recv_timeout(PATIENCE).unwrap() {
                joined += 1;
            }
        }
        let mut cuts = 0;
        for batch in 0..BATCHES {
            for number in 0..BATCH {
                if number == batch % BATCH {
                    for conn in app.presence.connections(&id_of("ann")) {
                        // One that has ended is none.
                        let _ = app.handle().close(conn, CloseCode::SERVICE_RESTART, "again");
                    }
                }
                for topic in ["tea", "coffee"] {
                    let message = batch * BATCH + number;
                    let publish = json!({ "type": "publish", "topic": topic, "message": message });
                    ben.send(publish.to_string());
                }
            }
            let mut next = [batch * BATCH; 2];
            while next != [(batch + 1) * BATCH; 2] {
                match updates.recv_timeout(PATIENCE).unwrap() {
                    RoomUpdate::Said(said) => {
                        let next = &mut next[usize::from(said.room == "tea")];
                        assert_eq!((said.message, &*said.from), (json!(*next), "ben"));
                        *next += 1;
                    }
                    RoomUpdate::Disconnected { .. } => cuts += 1,
                    RoomUpdate::Connected => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(cuts >= BATCHES / 2, "it was cut off {cuts} times");
    }
}
