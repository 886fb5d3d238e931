//! Deadlines, in virtual time and with the settings that a server has by itself.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use ringwire_codec::CloseCode;

use super::app::{DEADLINE_CODE, Entry, Said, State};
use super::client::Stage;
use super::plan::{Ending, Entrance, Plan, Speech};
use super::play::Play;
use super::seeds::{self, scenes};
use crate::Accept;
use crate::config::Config;
use crate::conn::cause::{CloseCause, CloseReason};
use crate::conn::options::Backpressure;
use crate::driver::sim::Faults;
use crate::limits::{Excess, RateLimit};
use crate::worker::Turn;

pub(super) fn plan(ending: Ending, says: &[&str]) -> Plan {
    let say = |text: &&str| Speech::Say(Said { text: true, bytes: text.as_bytes().to_vec() });
    Plan {
        entrance: Entrance::Connect,
        query: String::new(),
        speeches: says.iter().map(say).collect::<VecDeque<_>>(),
        ending,
        pace: Duration::ZERO,
        slow: false,
        window: 64 * 1024,
        receive_len: 0,
        lossy: false,
        offer: None,
    }
}

pub(super) fn play(config: &Config, plans: impl IntoIterator<Item = Plan>) -> Play {
    Play::new(seeds::of_scene(), config, Faults::none(), plans.into_iter().collect())
}

/// A request for a WebSocket, and what comes behind it.
pub(super) fn upgrade(target: &str, behind: &[u8]) -> Vec<u8> {
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    [head.as_bytes(), behind].concat()
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Deadlines fire up to two ticks late, never early.
fn assert_time(play: &Play, at: RangeInclusive<u64>) {
    let (clock, late) = (play.clock(), Duration::from_millis(200));
    assert!(clock >= secs(*at.start()), "{clock:?} is early");
    assert!(clock <= secs(*at.end()) + late, "{clock:?} is late");
}

fn assert_gone_away(play: &Play, cause: &CloseCause, reason: CloseReason) {
    assert_eq!(cause.reason, reason);
    assert_eq!(cause.code, Some(CloseCode::GOING_AWAY));
    let farewell = play.clients[0].farewell.as_ref().expect("a close frame came");
    assert_eq!(farewell.0, Some(CloseCode::GOING_AWAY));
}

fn a_peer_that_answers_no_ping_is_given_up() {
    let mut play = play(&Config::default(), [plan(Ending::Mute, &["hello"])]);
    let cause = play.run_to_the_end_of(0);
    assert_eq!(cause.reason, CloseReason::PongTimeout);
    assert_time(&play, 40..=40);
}

fn a_peer_that_answers_pings_stays() {
    let mut play = play(&Config::default(), [plan(Ending::Stay, &["hello"])]);
    play.run_until(secs(3 * 3600));
    assert_eq!(play.clients[0].stage, Stage::Open);
    let stats = play.scene.stats();
    assert_eq!(stats.open_connections, 1);
    // A ping, its pong and a look or two every half minute.
    assert!(stats.turns < 3 * 3600 / 30 * 10, "{} turns", stats.turns);
}

fn an_idle_peer_is_sent_away_where_nobody_asks() {
    let config = Config::default().with_ping_interval(None);
    let mut play = play(&config, [plan(Ending::Stay, &[])]);
    let cause = play.run_to_the_end_of(0);
    assert_gone_away(&play, &cause, CloseReason::IdleTimeout);
    assert_time(&play, 120..=120);
}

fn a_connection_lives_as_long_as_it_may() {
    let config = Config::default().with_max_lifetime(secs(3600));
    let mut play = play(&config, [plan(Ending::Stay, &[])]);
    let cause = play.run_to_the_end_of(0);
    assert_gone_away(&play, &cause, CloseReason::Lifetime);
    assert_time(&play, 3600..=3600);
}

/// However long the application takes over an upgrade: what came behind the request is answered.
fn a_request_that_waited_for_its_answer_is_not_idle() {
    let config = Config::default().with_idle_timeout(secs(1)).with_ping_interval(None);
    let mut play = play(&config, []);
    play.scene.log.borrow_mut().clients.push(Entry::default());
    let peer = play.scene.world.connect(0);
    peer.write(&upgrade("/0?defer", b"\x81\x82\0\0\0\0hi"));
    play.run_until(Duration::from_millis(500));
    let id = play.scene.log.borrow().clients[0].id.expect("it has asked");
    // The worker has nothing to do until then, and its timers stand still.
    play.scene.world.alarm(secs(2));
    while play.clock() < secs(2) {
        play.scene.world.advance();
    }
    play.scene.handle.accept(id, Accept::new(State::new(0))).expect("the worker lives");
    play.run_until(secs(2) + Duration::from_millis(500));
    let answer = peer.read();
    assert!(answer.ends_with(b"\x81\x02hi"), "{}", answer.escape_ascii());
}

/// So many messages of a client that says them all at once.
fn talkative(count: usize) -> Plan {
    plan(Ending::Stay, &vec!["message"; count])
}

fn a_peer_that_says_too_much_is_held_up_and_nothing_is_lost() {
    let limit = RateLimit::default().with_messages_per_second(10).with_message_burst(50);
    let config = Config::default().with_rate_limit(limit);
    let mut play = play(&config, [talkative(1000), talkative(50)]);
    let came = |play: &Play| {
        play.scene.log.borrow().clients.iter().map(|it| it.came.len()).collect::<Vec<_>>()
    };
    for second in [5, 20, 50, 90] {
        play.run_until(secs(second));
        let most = 50 + usize::try_from(second).expect("a small number") * 10;
        let (first, second) = (came(&play)[0], came(&play)[1]);
        assert!(first <= most && first * 5 >= most * 4, "{first} where {most} are allowed");
        assert_eq!(second, 50, "whoever keeps to it is not concerned");
    }
    // It is not said to be idle, and answers pings once it is heard.
    play.run_until(secs(200));
    assert_eq!(came(&play), [1000, 50]);
    assert_eq!(play.clients[0].stage, Stage::Open);
    assert_eq!(play.clients[0].heard, 1001);
    let stats = play.scene.stats();
    assert!(stats.throttles > 10 && stats.turns < 5000, "{stats:?}");
}

fn bytes_are_limited_as_messages_are() {
    let limit = RateLimit::default().with_bytes_per_second(10_000);
    let config = Config::default().with_rate_limit(limit).with_receive_buffer_len(64 * 1024);
    let long = "x".repeat(2000);
    let mut play = play(&config, [plan(Ending::Stay, &[long.as_str(); 100])]);
    play.run_until(secs(3));
    // A burst, three seconds' worth, and a piece that goes past it, though more is received at once.
    let came = play.scene.log.borrow().clients[0].came.len();
    assert!((15..=28).contains(&came), "{came}");
    play.run_until(secs(40));
    assert_eq!(play.scene.log.borrow().clients[0].came.len(), 100);
    assert_eq!(play.clients[0].stage, Stage::Open);
}

fn a_peer_that_says_too_much_is_sent_away_where_that_is_asked_for() {
    let limit = RateLimit::default()
        .with_messages_per_second(10)
        .with_excess(Excess::Close(CloseCode::POLICY_VIOLATION));
    let config = Config::default().with_rate_limit(limit);
    let mut play = play(&config, [talkative(200), talkative(5)]);
    let cause = play.run_to_the_end_of(0);
    assert_eq!(cause.reason, CloseReason::RateLimit);
    assert_eq!(cause.code, Some(CloseCode::POLICY_VIOLATION));
    play.run_until(secs(60));
    assert_eq!(play.clients[1].stage, Stage::Open);
}

fn a_deadline_closes_with_its_code() {
    let plans = [plan(Ending::Stay, &["!deadline 90000"]), plan(Ending::Stay, &["hello"])];
    let mut play = play(&Config::default(), plans);
    let cause = play.run_to_the_end_of(0);
    assert_eq!((cause.reason, cause.code), (CloseReason::Deadline, Some(DEADLINE_CODE)));
    assert_time(&play, 90..=90);
    play.run_until(secs(100));
    assert_eq!(play.clients[0].farewell.as_ref().expect("a close frame").0, Some(DEADLINE_CODE));
    assert_eq!(play.clients[1].stage, Stage::Open);
    assert_eq!(play.scene.stats().closes[CloseReason::Deadline], 1);
}

fn a_deadline_can_be_moved_and_cleared() {
    let later = plan(Ending::Stay, &["!deadline 10000", "!deadline 300000"]);
    let sooner = plan(Ending::Stay, &["!deadline 300000", "!deadline 10000"]);
    let cleared = plan(Ending::Stay, &["!deadline 10000", "!clear"]);
    let paused = plan(Ending::Stay, &["!deadline 40000", "!pause"]);
    let mut play = play(&Config::default(), [later, sooner, cleared, paused]);
    let reason = play.run_to_the_end_of(1).reason;
    assert_eq!(reason, CloseReason::Deadline);
    assert_time(&play, 10..=10);
    assert_eq!(play.run_to_the_end_of(3).reason, CloseReason::Deadline);
    assert_time(&play, 40..=40);
    assert_eq!(play.run_to_the_end_of(0).reason, CloseReason::Deadline);
    assert_time(&play, 300..=300);
    play.run_until(secs(3600));
    assert_eq!(play.clients[2].stage, Stage::Open);
}

fn a_deadline_ends_with_its_connection() {
    let leaves = plan(Ending::CloseFrame, &["!deadline 20000"]);
    let mut play = play(&Config::default(), [leaves, plan(Ending::Stay, &["hello"])]);
    // The second has the slot of the first.
    play.clients[1].at = secs(10);
    play.scene.world.alarm(secs(10));
    play.run_until(secs(60));
    let log = play.scene.log.borrow();
    assert_eq!(log.clients[0].closed.as_ref().map(|cause| cause.reason), Some(CloseReason::Peer));
    assert_eq!(play.clients[1].stage, Stage::Open);
}

fn a_close_that_is_not_answered_times_out() {
    let mut play = play(&Config::default(), [plan(Ending::Mute, &["hello"])]);
    play.run_until(secs(7));
    let id = play.scene.log.borrow().clients[0].id.expect("it is open");
    play.scene.handle.close(id, CloseCode::new(4001), "go").expect("the worker lives");
    let cause = play.run_to_the_end_of(0);
    assert_eq!((cause.reason, cause.code), (CloseReason::CloseTimeout, Some(CloseCode::new(4001))));
    assert_time(&play, 12..=12);
}

fn output_that_nobody_takes_stalls() {
    let config = Config::default().with_high_water(1000);
    let deaf = Plan { slow: true, window: 512, ..plan(Ending::Mute, &["!flood 10 3000"]) };
    let mut play = play(&config, [deaf]);
    let cause = play.run_to_the_end_of(0);
    assert_eq!(cause.reason, CloseReason::WriteStall);
    assert!(cause.unsent_len > 0);
    assert_time(&play, 20..=40);
}

fn a_peer_that_never_reads_is_sent_away_at_the_limit() {
    let code = CloseCode::TRY_AGAIN_LATER;
    let config = Config::default()
        .with_high_water(10_000)
        .with_max_queued_len(50_000)
        .with_backpressure(Backpressure::Close(code));
    let deaf = Plan { slow: true, window: 512, ..plan(Ending::Mute, &["!flood 100 3000"]) };
    let mut play = play(&config, [deaf, plan(Ending::Stay, &["hello"])]);
    let cause = play.run_to_the_end_of(0);
    assert_eq!(cause.code, Some(code));
    assert_time(&play, 5..=5);
    let stats = play.scene.stats();
    assert_eq!(stats.queued_bytes, 0, "what waited is given back");
    assert!(play.scene.log.borrow().clients[0].most_queued < 54_000);
    assert_eq!(play.clients[1].stage, Stage::Open);
}

fn requests_that_trickle_are_closed_on_time() {
    let count = 300;
    let mut play = play(&Config::default(), [plan(Ending::Stay, &["hello"])]);
    let mut request: Vec<u8> = b"GET / HTTP/1.1\r\nHost: sim\r\nX-Slow: ".to_vec();
    request.resize(200, b'x');
    // The one client that means it comes late.
    play.clients[0].at = secs(9);
    play.scene.world.alarm(secs(9));
    let peers: Vec<_> = (0..count).map(|_| play.scene.world.connect(0)).collect();
    for (second, byte) in (1..).zip(&request[..9]) {
        for peer in &peers {
            peer.write(&[*byte]);
        }
        play.run_until(secs(second));
    }
    assert!(peers.iter().all(|peer| !peer.is_closed()));
    assert_eq!(play.scene.stats().connections, count);
    play.run_until(secs(10) + Duration::from_millis(200));
    assert!(peers.iter().all(|peer| peer.is_closed()));
    let stats = play.scene.stats();
    assert_eq!((stats.connections, stats.handshake_failures), (1, count));
    // And the deadline ends with the upgrade.
    play.run_until(secs(60));
    assert_eq!(play.clients[0].stage, Stage::Open);
}

fn a_paused_connection_is_held_up_and_nothing_is_lost() {
    let mut play = play(&Config::default(), [plan(Ending::Stay, &["hello"])]);
    play.run_until(secs(1));
    let id = play.scene.log.borrow().clients[0].id.expect("it is open");
    play.scene.handle.pause(id).expect("the worker lives");
    play.run_until(secs(2));
    let long = "x".repeat(3000);
    play.clients[0].plan.speeches = plan(Ending::Stay, &[long.as_str(); 100]).speeches;
    play.run_until(secs(4));
    assert!(play.clients[0].plan.speeches.is_empty());
    assert!(play.clients[0].peer().unread() >= 300_000, "the worker reads although it is paused");
    // Silence says nothing while nobody listens.
    play.run_until(secs(3600));
    assert_eq!(play.scene.log.borrow().clients[0].came.len(), 1);

    play.scene.handle.resume(id).expect("the worker lives");
    play.run_until(secs(3601));
    assert_eq!(play.clients[0].peer().unread(), 0);
    // Each echo and the welcome.
    assert_eq!(play.clients[0].heard, 102);
}

/// Has a worker that did nothing for a while resume the connection in the very turn in which all timers of that time
/// are due.
fn resume_late(play: &Play, late: Duration) {
    let id = play.scene.log.borrow().clients[0].id.expect("it is open");
    let at = play.clock() + late;
    play.scene.world.alarm(at);
    while play.clock() < at {
        play.scene.world.advance();
    }
    play.scene.handle.resume(id).expect("the worker lives");
}

/// Its peer's answer to a ping waits unread.
fn a_pong_counts_that_waited_for_a_resume() {
    for late in (0..40).map(secs) {
        let mut play = play(&Config::default(), [plan(Ending::Stay, &["hello"])]);
        // The ping goes out; its pong comes once nobody listens.
        play.clients[0].reads_at = secs(50);
        play.scene.world.alarm(secs(50));
        play.run_until(secs(32));
        pause(&play);
        play.run_until(secs(90));
        resume_late(&play, late);
        play.run_until(secs(200));
        assert_eq!(play.clients[0].stage, Stage::Open, "{late:?} late");
    }
}

/// All that its peer has to say waits unread, for longer than one may be silent.
fn silence_counts_from_a_resume_on() {
    let config = Config::default().with_ping_interval(None).with_messages_per_turn(10);
    for late in (0..40).map(secs) {
        let mut play = play(&config, [plan(Ending::Stay, &["hello"])]);
        play.run_until(secs(1));
        pause(&play);
        play.run_until(secs(2));
        play.clients[0].plan.speeches = plan(Ending::Stay, &["message"; 300]).speeches;
        play.run_until(secs(300));
        assert_eq!(play.scene.log.borrow().clients[0].came.len(), 1);
        resume_late(&play, late);
        let resumed = play.clock();
        play.run_until(resumed + secs(119));
        assert_eq!(play.scene.log.borrow().clients[0].came.len(), 301, "{late:?} late");
        assert_eq!(play.clients[0].stage, Stage::Open, "{late:?} late");
    }
}

fn pause(play: &Play) {
    let id = play.scene.log.borrow().clients[0].id.expect("it is open");
    play.scene.handle.pause(id).expect("the worker lives");
}

fn a_shutdown_takes_no_longer_than_its_limit() {
    let mute = plan(Ending::Mute, &["hello"]);
    let mut play = play(&Config::default(), [mute.clone(), plan(Ending::Stay, &[]), mute]);
    play.run_until(secs(1));
    play.scene.handle.shutdown(secs(3));
    while play.step() == Turn::Again {}
    assert_time(&play, 4..=4);
    let log = play.scene.log.borrow();
    let reasons = log.clients.iter().map(|entry| entry.closed.as_ref().map(|cause| cause.reason));
    assert!(reasons.eq([Some(CloseReason::Shutdown); 3]));
    assert_eq!(
        play.clients[1].farewell.as_ref().expect("a close frame").0,
        Some(CloseCode::GOING_AWAY)
    );
}

fn out_of_descriptors_accepting_rests_and_goes_on() {
    let faults = Faults { accept_error: 0.9, ..Faults::none() };
    let plans = (0..20).map(|_| plan(Ending::Stay, &["hello"])).collect();
    let mut play = Play::new(1, &Config::default(), faults, plans);
    // Those who are in are served while the others wait.
    let served = |play: &Play| play.clients.iter().filter(|client| client.heard == 2).count();
    while served(&play) == 0 {
        play.step();
    }
    assert!(served(&play) < 20);
    play.run_until(secs(120));
    assert_eq!(served(&play), 20);
    let stats = play.scene.stats();
    assert!(stats.accept_failures > 10, "{}", stats.accept_failures);
    assert!(stats.turns < 5000, "{} turns", stats.turns);
}

scenes![
    a_peer_that_answers_no_ping_is_given_up,
    a_peer_that_answers_pings_stays,
    a_request_that_waited_for_its_answer_is_not_idle,
    an_idle_peer_is_sent_away_where_nobody_asks,
    a_connection_lives_as_long_as_it_may,
    a_peer_that_says_too_much_is_held_up_and_nothing_is_lost,
    bytes_are_limited_as_messages_are,
    a_peer_that_says_too_much_is_sent_away_where_that_is_asked_for,
    a_deadline_closes_with_its_code,
    a_deadline_can_be_moved_and_cleared,
    a_deadline_ends_with_its_connection,
    a_close_that_is_not_answered_times_out,
    output_that_nobody_takes_stalls,
    a_peer_that_never_reads_is_sent_away_at_the_limit,
    requests_that_trickle_are_closed_on_time,
    a_paused_connection_is_held_up_and_nothing_is_lost,
    a_pong_counts_that_waited_for_a_resume,
    silence_counts_from_a_resume_on,
    a_shutdown_takes_no_longer_than_its_limit,
    out_of_descriptors_accepting_rests_and_goes_on,
];
