//! A gateway of the tests, and its users.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringwire::testing::{Get, Live, Peer, Sim, Stage};
use ringwire::tuning::Pinning;
use ringwire::{Backpressure, CloseCode, Config, DriverKind, WorkerContext};
use ringwire_gateway::app::{App, router};
use ringwire_gateway::auth::{Claims, Signer, Verifier};
use ringwire_gateway::settings::Settings;
use serde_json::Value;
use uuid::Uuid;

pub(crate) const SECRET: &[u8] = b"a secret of the tests, and long enough";

/// Of connections that are too slow.
pub(crate) const TOO_SLOW: CloseCode = CloseCode::new(4108);

thread_local! {
    /// The gateway of the simulation that runs on this thread.
    static APP: RefCell<Option<Arc<App>>> = const { RefCell::new(None) };
}

pub(crate) fn app(settings: &Settings) -> Arc<App> {
    App::new(settings.clone(), Verifier::hs256(SECRET), None)
}

/// The gateway of the simulation that runs on this thread.
pub(crate) fn simulated() -> Arc<App> {
    APP.with_borrow(Clone::clone).expect("a simulation runs")
}

/// A simulation of a gateway with so many workers.
pub(crate) fn sim(workers: usize, settings: &Settings) -> Sim {
    sim_with(config(workers), settings)
}

pub(crate) fn sim_with(config: Config, settings: &Settings) -> Sim {
    let settings = settings.clone();
    Sim::new(config, move |worker: &WorkerContext| {
        // The workers of a simulation are made on its thread, in their order.
        if worker.index() == 0 {
            APP.set(Some(app(&settings)));
        }
        router(&simulated(), worker)
    })
}

/// A gateway on a free port.
pub(crate) fn live(driver: DriverKind, workers: usize) -> Live {
    live_with(driver, workers, &app(&Settings::default()))
}

pub(crate) fn live_with(driver: DriverKind, workers: usize, app: &Arc<App>) -> Live {
    let app = app.clone();
    let config = config(workers).with_driver(driver).with_pinning(Pinning::Off);
    Live::start_with(config, move |worker| router(&app, worker))
}

pub(crate) fn config(workers: usize) -> Config {
    Config::default().with_io_workers(workers).with_backpressure(Backpressure::Close(TOO_SLOW))
}

/// A user's id, which follows from the name.
pub(crate) fn id_of(user: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(user.bytes()).for_each(|(byte, of)| *byte = of);
    Uuid::from_bytes(bytes)
}

/// A user's token, for so many seconds from now.
pub(crate) fn token(user: &str, seconds: i64) -> String {
    signed(user, seconds, None)
}

/// An administrator's token.
pub(crate) fn admin_token(user: &str) -> String {
    signed(user, 3600, Some("admin".to_owned()))
}

fn signed(user: &str, seconds: i64, role: Option<String>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = Claims {
        sub: id_of(user),
        username: user.to_owned(),
        email: format!("{user}@example.com"),
        exp: now.saturating_add_signed(seconds),
        iat: now,
        nbf: None,
        jti: format!("token of {user}"),
        role,
    };
    Signer::hs256(SECRET).unwrap().sign(&claims).unwrap()
}

/// A request of a user for a WebSocket.
pub(crate) fn get(user: &str, protocol: &str) -> Get {
    get_for(user, protocol, 3600)
}

/// A request with a token for so many seconds.
pub(crate) fn get_for(user: &str, protocol: &str, seconds: i64) -> Get {
    Get::new(&format!("/ws?token={}", token(user, seconds))).with_subprotocol(protocol)
}

/// A connection of a user, which is there when this returns.
pub(crate) fn enter(stage: &mut impl Stage, user: &str, protocol: &str) -> Peer {
    let mut peer = stage.connect(get(user, protocol)).expect_open();
    assert_eq!(peer.reply().unwrap().header("sec-websocket-protocol"), Some(protocol));
    settle(&mut peer, protocol);
    peer
}

/// Asks something, and passes over all that is heard before the answer.
pub(crate) fn settle(peer: &mut Peer, protocol: &str) {
    peer.send(question(protocol));
    let answer = match protocol {
        "rooms.text" => "ERROR unknown command",
        "rooms.json" => r#""ack":"?""#,
        "chat.json" => r#"{"Error":"#,
        _ => r#""message_type":"pong""#,
    };
    while !peer.text().contains(answer) {}
}

/// What is answered at once, and changes nothing.
pub(crate) fn question(protocol: &str) -> &'static str {
    match protocol {
        "rooms.text" => "?",
        "rooms.json" => r#"{"id":"?"}"#,
        "chat.json" => "{}",
        _ => r#"{"id":"?","message_type":"ping"}"#,
    }
}

/// What the peer hears next, as JSON.
pub(crate) fn hear(peer: &mut Peer) -> Value {
    serde_json::from_str(&peer.text()).unwrap()
}

/// Sends JSON, and gives what is heard next.
pub(crate) fn ask(peer: &mut Peer, message: &Value) -> Value {
    peer.send(message.to_string());
    hear(peer)
}

/// Lets time pass until it holds.
pub(crate) fn await_that(stage: &mut impl Stage, what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        stage.advance(Duration::from_millis(10));
    }
    panic!("this was due: {what}");
}
