//! HTTP under simulation: every request is answered, once and in its order, whatever the network does.

use std::time::Duration;

use super::play::Play;
use super::seeds::{self, scenes};
use super::time::secs;
use crate::driver::sim::{Faults, Peer, Random};
use crate::worker::Turn;
use crate::{Config, Response};

/// Runs of each test.
const SEEDS: u64 = 500;

/// The answer to a request for `path` with a body of this length.
pub(super) fn page(path: &str, body_len: usize) -> Response {
    Response::text(format!("{path} {body_len} {}", "x".repeat(body_len % 1000)))
}

/// Requests, and what their answers are but for the date.
fn draw(random: &mut Random) -> (Vec<u8>, String) {
    let (mut requests, mut answers) = (String::new(), String::new());
    let count = random.within(1..=20);
    for number in 1..=count {
        let path = if random.chance(0.3) { "/later" } else { "/now" };
        let len = random.below(3000);
        let last = if number == count { "Connection: close\r\n" } else { "" };
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{last}");
        let body = "b".repeat(len);
        requests += &match random.below(3) {
            0 => format!("{head}Content-Length: {len}\r\n\r\n{body}"),
            1 if len > 0 => {
                format!("{head}Transfer-Encoding: chunked\r\n\r\n{len:x};e\r\n{body}\r\n0\r\n\r\n")
            }
            _ => format!("{head}Content-Length: 0\r\n\r\n"),
        };
        let len = if requests.ends_with("Content-Length: 0\r\n\r\n") { 0 } else { len };
        let body = page(path, len);
        let text = String::from_utf8_lossy(body.body());
        answers += "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n";
        answers += if number == count { "connection: close\r\n" } else { "" };
        answers += &format!("content-length: {}\r\n\r\n{text}", text.len());
    }
    (requests.into_bytes(), answers)
}

fn without_dates(text: &str) -> String {
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

/// The answers to the deferred requests that came so far.
pub(super) fn answer_deferred(play: &Play) {
    for (responder, body_len) in play.scene.log.borrow_mut().later.drain(..) {
        responder.send(page("/later", body_len));
    }
}

/// A request whose answer is deferred, others, and one that is cut off.
pub(super) fn cut_requests(between: &str) -> Vec<u8> {
    let first = "GET /later HTTP/1.1\r\nHost: a\r\n\r\n";
    format!("{first}{between}GET /b HTTP/1.1\r\nHo").into_bytes()
}

pub(super) fn answer_count(heard: &[u8]) -> usize {
    String::from_utf8_lossy(heard).matches("200 OK").count()
}

fn end(mut play: Play, peer: &Peer) {
    peer.close();
    play.scene.handle.shutdown(Duration::ZERO);
    while play.step() == Turn::Again {}
    play.scene.finish(0);
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let faults = Faults { reset: 0.0, fin: 0.0, ..Faults::mixed(&mut random) };
    // However slow the network is: what stands still is stuck.
    let config = Config::default()
        .with_handshake_timeout(None)
        .with_http_keep_alive_timeout(None)
        .with_write_stall_timeout(None)
        .with_close_timeout(None)
        .with_high_water(random.within(1..=5000))
        .with_messages_per_turn(random.within(1..=5));
    let mut play = Play::new(random.seed(), &config, faults, Vec::new());
    let (requests, expected) = draw(&mut random);
    let mut rest = &requests[..];
    let mut got = Vec::new();
    let half_closes = random.chance(0.3);
    // A connection over TCP, as a listener may be waiting for descriptors.
    let peer = play.scene.world.connect(0);
    while !peer.is_eof() {
        if !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.part_of(rest.len()).min(rest.len()));
            peer.write(piece);
            rest = behind;
            if rest.is_empty() && half_closes {
                peer.finish();
            }
        }
        if random.chance(0.5) {
            answer_deferred(&play);
        }
        let later = play.clock() + Duration::from_millis(20);
        play.run_until(later);
        got.extend(peer.read());
        assert!(!peer.is_reset(), "seed {seed}: reset at {:?}", play.clock());
        assert!(
            play.clock() < secs(1000),
            "seed {seed}: {} of {} bytes",
            got.len(),
            expected.len()
        );
    }
    got.extend(peer.read());
    assert_eq!(without_dates(&String::from_utf8_lossy(&got)), expected, "seed {seed}");
    end(play, &peer);
}

#[test]
fn requests_are_answered_in_their_order() {
    seeds::run_all(0..SEEDS, run);
}

fn a_connection_between_requests_is_closed_on_time() {
    let mut play = Play::new(seeds::of_scene(), &Config::default(), Faults::none(), Vec::new());
    let peer = play.scene.world.connect(0);
    for time in [1, 15, 29] {
        play.run_until(secs(time));
        assert!(!peer.is_eof(), "at {time} s");
        peer.write(b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    play.run_until(secs(30));
    assert_eq!(String::from_utf8_lossy(&peer.read()).matches("200 OK").count(), 3);
    play.run_until(secs(29 + 75));
    assert!(!peer.is_eof());
    play.run_until(secs(29 + 75) + Duration::from_millis(400));
    assert!(peer.is_eof());
    assert_eq!(play.scene.stats().handshake_failures, 0);
    end(play, &peer);
}

fn a_body_that_trickles_is_closed_on_time() {
    let mut play = Play::new(seeds::of_scene(), &Config::default(), Faults::none(), Vec::new());
    let peer = play.scene.world.connect(0);
    peer.write(b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
    play.run_until(secs(9));
    peer.write(b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    for second in 10..19 {
        peer.write(b"x");
        play.run_until(secs(second));
        assert!(!peer.is_closed(), "at {second} s");
    }
    play.run_until(secs(19) + Duration::from_millis(400));
    assert!(peer.is_closed());
    assert_eq!(play.scene.stats().handshake_failures, 1);
    end(play, &peer);
}

fn a_deferred_answer_has_its_time() {
    let mut play = Play::new(seeds::of_scene(), &Config::default(), Faults::none(), Vec::new());
    let peer = play.scene.world.connect(0);
    play.run_until(secs(5));
    peer.write(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    play.run_until(secs(14));
    assert!(peer.read().is_empty());
    play.run_until(secs(15) + Duration::from_millis(400));
    let answer = peer.read();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", answer.escape_ascii());
    assert!(peer.is_eof());
    end(play, &peer);
}

fn a_cut_request_behind_a_late_answer_ends_the_connection() {
    let config = Config::default().with_handshake_timeout(None).with_http_keep_alive_timeout(None);
    for between in ["", "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut play = Play::new(seeds::of_scene(), &config, Faults::none(), Vec::new());
        let peer = play.scene.world.connect(0);
        peer.write(&cut_requests(between));
        peer.finish();
        play.run_until(secs(1));
        answer_deferred(&play);
        play.run_until(secs(2));
        assert_eq!(answer_count(&peer.read()), 1 + usize::from(!between.is_empty()));
        assert!(peer.is_eof(), "it is kept");
        end(play, &peer);
    }
}

scenes![
    a_cut_request_behind_a_late_answer_ends_the_connection,
    a_connection_between_requests_is_closed_on_time,
    a_body_that_trickles_is_closed_on_time,
    a_deferred_answer_has_its_time,
];
