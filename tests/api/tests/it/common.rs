//! Users of the gateway, on whatever stage.

#![expect(clippy::disallowed_methods, reason = "tokens go by the wall clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use ringwire::testing::{Get, Peer, Stage};
use ringwire::{Handler, WorkerContext};
use ringwire_api_tests::gateway;
use serde_json::{Value, json};

pub(crate) const SECRET: &[u8] = b"a secret of the tests";

pub(crate) fn make(worker: &WorkerContext) -> impl Handler + use<> {
    gateway(worker.handle(), SECRET)
}

/// A user's token, for so many seconds from now.
pub(crate) fn token(user: &str, seconds: i64) -> String {
    sign(&json!({ "alg": "HS256" }), &claims(user, seconds), SECRET)
}

/// What a token of a user says that is valid for so many seconds from now.
pub(crate) fn claims(user: &str, seconds: i64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    json!({ "sub": user, "exp": now.saturating_add_signed(seconds) })
}

/// A token, as the service makes it where users log in.
pub(crate) fn sign(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let mac = Hmac::<sha2::Sha256>::new_from_slice(secret).expect("a secret has any length");
    format!("{signed}.{}", BASE64.encode(mac.chain_update(&signed).finalize().into_bytes()))
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
