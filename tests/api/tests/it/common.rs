//! Users of the gateway, on whatever stage.

#![expect(clippy::disallowed_methods, reason = "tokens go by the wall clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringwire::testing::{Get, Peer, Stage};
use ringwire::{Handler, WorkerContext};
use ringwire_api_tests::gateway;
use ringwire_api_tests::token::{Claims, Key};
use serde_json::Value;

pub(crate) fn make(worker: &WorkerContext) -> impl Handler + use<> {
    gateway(worker.handle(), &key())
}

pub(crate) fn key() -> Key {
    Key::new(b"a secret of the tests")
}

/// A user's token, for so many seconds from now.
pub(crate) fn token(user: &str, seconds: i64) -> String {
    sign(&key(), user, seconds, false)
}

pub(crate) fn sign(key: &Key, user: &str, seconds: i64, admin: bool) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let exp = now.saturating_add_signed(seconds).try_into().expect("it is before 2106");
    key.sign(&Claims { sub: user.to_owned(), exp, admin })
}

/// A connection of a user.
pub(crate) fn enter(stage: &mut impl Stage, user: &str) -> Peer {
    enter_for(stage, user, 3600)
}

/// A connection of a user whose token lasts so many seconds.
pub(crate) fn enter_for(stage: &mut impl Stage, user: &str, seconds: i64) -> Peer {
    let target = format!("/chat?token={}", token(user, seconds));
    stage.connect(Get::new(&target)).expect_open()
}

/// What the peer hears next but for who comes and goes.
pub(crate) fn hear(peer: &mut Peer) -> Value {
    loop {
        let news: Value = serde_json::from_str(&peer.text()).expect("the gateway speaks JSON");
        if news["event"] != "online" && news["event"] != "offline" {
            return news;
        }
    }
}

/// Asks for something, and gives what is heard next.
pub(crate) fn ask(peer: &mut Peer, order: &Value) -> Value {
    peer.send(order.to_string());
    hear(peer)
}
