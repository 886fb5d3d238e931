//! A whole worker in a simulated network: what no seed may bring about.
//!
//! Clients connect, talk and end in every way; the network cuts, delays and breaks; the server is shut down
//! at some time. Whatever happens, no message is lost, doubled, reordered or altered on a connection that
//! ends well, and what arrives on any other is a prefix of what was sent. Each run ends with everything given back.
//!
//! Seeds that fail are listed; `RINGWIRE_SIM_SEED=… cargo test -p ringwire --lib sim_tests` runs one again ([`seeds`]).

mod app;
mod assembly;
mod client;
mod cluster;
mod compression;
mod dialled;
mod drain;
mod faulty;
mod http;
mod memory;
mod offload;
mod plan;
mod play;
mod progress;
mod receives;
mod scene;
mod secure;
mod senders;
mod time;
mod topics;

use std::time::Duration;

use app::APP_CLOSE;
use client::Client;
use plan::{Ending, Plan, draw_config, draw_faults};
use play::Play;
use ringwire_seeds as seeds;
use scene::Scene;

use crate::driver::sim::Random;
use crate::worker::Turn;
use crate::{CloseCause, CloseCode, CloseReason};

/// Runs of the test.
const SEEDS: u64 = 2000;
/// No run takes longer, in virtual time.
const LONGEST: Duration = Duration::from_secs(3000);
/// When a server that takes only so many connections is shut down, though others wait to get in.
const PATIENCE: Duration = Duration::from_secs(1000);

#[test]
fn no_seed_loses_doubles_or_reorders_a_message() {
    seeds::run_all(0..SEEDS, run);
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let config = draw_config(&mut random);
    let faults = draw_faults(&mut random);
    let sound = faults.reset == 0.0 && faults.fin == 0.0;
    let count = random.within(1..=5);
    let plans: Vec<_> = (0..count).map(|_| Plan::draw(&mut random, &config)).collect();
    let mut play = Play::new(random.seed(), &config, faults, plans);

    let early = random.chance(0.3).then(|| random.up_to(Duration::from_secs(2)));
    let limit = [0, 3, 600].map(Duration::from_secs)[random.below(3)];
    let full = config.max_connections.fixed().map(|_| PATIENCE);
    let impatient = early.or(full);
    if let Some(at) = impatient {
        play.scene.world.alarm(at);
    }
    let (mut shut, mut settled) = (None, false);
    loop {
        if play.step() == Turn::Done {
            break;
        }
        let clock = play.clock();
        let stages = || play.clients.iter().map(|client| (client.stage, client.plan.ending));
        assert!(clock < LONGEST, "it does not end: {:?}", stages().collect::<Vec<_>>());
        if shut.is_some() {
            continue;
        }
        settled = play.clients.iter().all(Client::is_settled);
        if settled || impatient.is_some_and(|at| clock >= at) {
            play.scene.handle.shutdown(limit);
            shut = Some(clock);
        }
    }
    let shut = shut.expect("nothing else ends a worker");
    let took = play.clock().saturating_sub(shut);
    play.wind_down();
    let Play { scene, clients } = play;
    assert!(took <= limit + Duration::from_secs(1), "{took:?} for a shutdown within {limit:?}");
    for client in &clients {
        check(client, &scene, sound, sound && settled);
    }
    scene.finish(plan::LARGEST_MESSAGE);
}

/// What must hold for a client after the end.
fn check(client: &Client, scene: &Scene, sound: bool, undisturbed: bool) {
    let log = scene.log.borrow();
    let entry = &log.clients[client.number];
    let said = client.said.get(..entry.came.len());
    assert!(said == Some(&entry.came[..]), "the application heard something else than was said");

    let ending = client.plan.ending;
    if undisturbed && client.plan.is_forbidden() {
        assert!(client.refused, "the refusal of {:?} did not arrive", client.plan);
    }
    let Some(cause) = &entry.closed else { return };
    let farewell = client
        .farewell
        .as_ref()
        .map(|(code, text)| (code.map_or(1005, |code| code.get()), text.as_str()));
    let context = format!("{farewell:?} and {cause:?} for {:?}", client.plan);
    // It began to close by itself before the client's end came.
    if cause.code == Some(CloseCode::TRY_AGAIN_LATER) {
        return;
    }
    let polite = client.plan.closes() || matches!(ending, Ending::AskServer | Ending::Stay);
    let regular =
        matches!(cause.reason, CloseReason::Peer | CloseReason::Local | CloseReason::Shutdown);
    assert!(!sound || !polite || regular, "{context}");
    let delivered = cause.is_clean();
    assert!(!delivered || regular && (farewell.is_some() || !sound), "{context}");
    if !undisturbed {
        return;
    }
    let heard_all = entry.came.len() == client.said.len();
    let code = farewell.map(|(code, _)| code);
    let as_it_must = match ending {
        Ending::CloseFrame | Ending::CloseAndMore | Ending::CloseAndFinish => {
            assert!(heard_of_all(client), "{context}");
            assert!(!client.truncated, "no close_notify: {context}");
            let clean = cause.reason == CloseReason::Peer && cause.is_clean();
            clean && code == Some(3000) && heard_all
        }
        Ending::AskServer => {
            assert!(!client.truncated, "no close_notify: {context}");
            let clean = cause.reason == CloseReason::Local && cause.is_clean();
            clean && farewell == Some(APP_CLOSE) && heard_all
        }
        Ending::Garbage if client.broke_tls => cause.reason == CloseReason::Tls,
        Ending::Garbage => {
            let blamed = matches!(cause.reason, CloseReason::Protocol(_));
            blamed && matches!(code, Some(1002 | 1007 | 1009)) && heard_all
        }
        Ending::Mute => matches!(
            cause.reason,
            CloseReason::PongTimeout | CloseReason::WriteStall | CloseReason::IdleTimeout
        ),
        Ending::Finish => {
            // A half-close ends what the client says, not what it hears.
            let answered = client.plan.lossy || client.heard == entry.accepted.len();
            assert!(answered, "{} of {} replies: {context}", client.heard, entry.accepted.len());
            assert!(heard_of_all(client), "{context}");
            assert!(!client.truncated, "no close_notify: {context}");
            ended_under_it(cause) && heard_all && cause.unsent_len == 0
        }
        Ending::HangUp => ended_under_it(cause),
        Ending::Reset => matches!(cause.reason, CloseReason::Transport(_)),
        Ending::Stay => cause.reason == CloseReason::Shutdown,
        Ending::HalfAsk => false,
    };
    assert!(as_it_must, "{context}");
}

/// Whether all letters came that were posted for it, and the pong for its latest ping.
fn heard_of_all(client: &Client) -> bool {
    let pushed_all = client.plan.lossy || client.pushes == client.pushed;
    pushed_all && client.ponged == client.pings
}

fn ended_under_it(cause: &CloseCause) -> bool {
    matches!(cause.reason, CloseReason::EndOfStream | CloseReason::Transport(_))
}
