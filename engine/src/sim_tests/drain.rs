//! Draining, in virtual time: closes that are flat over the window.

use std::time::Duration;

use ringwire_codec::CloseCode;

use super::app::Entry;
use super::plan::Ending;
use super::play::Play;
use super::seeds::{self, scenes};
use super::time::{plan, play, secs, upgrade};
use crate::config::Config;
use crate::conn::cause::CloseReason;
use crate::driver::sim::Faults;
use crate::limits::{Drain, DrainReport, Draining};
use crate::worker::Turn;

const COUNT: usize = 600;
const WINDOW: Duration = Duration::from_secs(60);
const RESTART: CloseCode = CloseCode::new(1012);

/// A patient server with so many connections that are open.
fn crowd(count: usize) -> Play {
    let plans = (0..count).map(|_| plan(Ending::Stay, &[])).collect();
    let mut play = Play::new(seeds::of_scene(), &Config::default(), Faults::none(), plans);
    play.run_until(secs(5));
    assert_eq!(play.scene.stats().open_connections, count as u64);
    play
}

/// Plays to the end, and says when after `began` each connection ended, in their order.
fn closes_of(play: &mut Play, began: Duration) -> Vec<Duration> {
    let count = play.clients.len();
    let mut ended = vec![None; count];
    loop {
        let turn = play.step();
        let log = play.scene.log.borrow();
        for (ended, entry) in ended.iter_mut().zip(&log.clients) {
            if entry.closed.is_some() {
                ended.get_or_insert(play.scene.world.clock() - began);
            }
        }
        if turn == Turn::Done {
            return ended.into_iter().map(|ended| ended.expect("each ends")).collect();
        }
    }
}

fn report(draining: &Draining) -> DrainReport {
    draining.wait(Duration::ZERO).expect("the worker has ended")
}

/// In each tenth of the window a tenth of the connections: chi-squared of what is spread at random would be 9.
fn closes_are_flat_over_the_window() {
    for count in [COUNT, 300, 1000] {
        let mut play = crowd(count);
        let began = play.clock();
        let draining = play.scene.handle.drain(WINDOW, RESTART);
        assert!(play.scene.handle.is_draining());
        let closes = closes_of(&mut play, began);
        let mut tenths = [0_u32; 10];
        for close in &closes {
            let tenth = close.as_millis() * 10 / WINDOW.as_millis();
            tenths[usize::try_from(tenth).map_or(9, |tenth| tenth.min(9))] += 1;
        }
        let fair = count as f64 / 10.0;
        let squares = tenths.iter().map(|count| (f64::from(*count) - fair).powi(2) / fair);
        let chi_squared: f64 = squares.sum();
        assert!(chi_squared < 9.0, "chi² = {chi_squared}: {tenths:?}");
        let most = tenths.iter().map(|count| (f64::from(*count) - fair).abs()).fold(0.0, f64::max);
        assert!(most <= fair * 0.2, "{tenths:?}");
        let last = closes.iter().max().expect("there are some");
        assert!(*last <= WINDOW + secs(1), "{last:?}");

        let report = report(&draining);
        assert_eq!(report.connections, count as u64);
        assert_eq!(report.closes[CloseReason::Shutdown], count as u64);
        assert_eq!((report.cut_off.total(), report.refused), (0, 0));
        play.wind_down();
        let farewell = |client: &super::client::Client| client.farewell.as_ref().map(|it| it.0);
        assert!(play.clients.iter().all(|client| farewell(client) == Some(Some(RESTART))));
    }
}

/// Not in the order in which they came, not at the same distance, and not the same each time.
fn closes_have_jitter() {
    let mut play = crowd(COUNT);
    let began = play.clock();
    play.scene.handle.drain(WINDOW, RESTART);
    let mut closes = closes_of(&mut play, began);
    let in_order = closes.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((COUNT / 5..COUNT * 4 / 5).contains(&in_order), "{in_order} come in their order");
    closes.sort_unstable();
    let fair = WINDOW / 1024;
    let gaps: Vec<_> = closes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().filter(|gap| **gap < fair / 2).count() > COUNT / 20, "as with a metronome");
    assert!(gaps.iter().all(|gap| *gap < WINDOW / 100), "a hole");
}

fn a_shutdown_hurries_a_drain() {
    let mut play = crowd(50);
    let began = play.clock();
    let draining = play.scene.handle.drain(secs(3600), RESTART);
    play.run_until(began + secs(600));
    let left = play.scene.stats().open_connections;
    assert!((35..48).contains(&left), "{left} are left after a sixth of the window");
    play.scene.handle.shutdown(secs(5));
    let closes = closes_of(&mut play, began);
    assert!(closes.iter().all(|close| *close < secs(606)));
    let report = report(&draining);
    assert_eq!(report.connections, 50, "the report is of the whole");
    assert_eq!(report.closes[CloseReason::Shutdown], 50);
}

fn what_is_left_after_the_grace_is_cut_off_and_reported() {
    let config = Config::default().with_close_timeout(None).with_ping_interval(secs(3600));
    let plans = (0..40).map(|number| plan([Ending::Stay, Ending::Mute][number % 2], &["hello"]));
    let mut play = play(&config, plans);
    play.run_until(secs(5));
    let silent = play.scene.world.connect(0);
    silent.write(b"GET / HTTP/1.1\r\n");
    play.run_until(secs(6));
    let drain = Drain::new(secs(2), RESTART).with_grace(secs(3));
    let draining = play.scene.handle.drain_with(&drain);
    while play.step() == Turn::Again {}
    let clock = play.clock();
    assert!(clock >= secs(11) && clock <= secs(12), "{clock:?}");
    let report = report(&draining);
    assert_eq!(report.connections, 41);
    assert_eq!(report.cut_off.unanswered, 20);
    assert_eq!(report.cut_off.requests, 1, "it had time to finish its request");
    assert_eq!(report.cut_off.total(), 21, "{report:?}");
    assert_eq!(play.scene.stats().drain_cut_offs, 21);
    assert!(silent.is_closed());
}

fn a_server_that_keeps_listening_refuses_until_the_window_is_over() {
    let mut play = play(&Config::default(), [plan(Ending::Stay, &[])]);
    play.run_until(secs(5));
    let drain = Drain::new(secs(30), RESTART).with_listeners_kept();
    let draining = play.scene.handle.drain_with(&drain);
    let request = "GET / HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for second in [6, 20, 34] {
        play.run_until(secs(second));
        let late = play.scene.world.connect(0);
        late.write(request.as_bytes());
        play.run_until(secs(second) + Duration::from_millis(500));
        let answer = String::from_utf8(late.read()).expect("an answer is text");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let left = 35 - second;
        let says =
            (left..=left + 1).any(|secs| answer.contains(&format!("retry-after: {secs}\r\n")));
        assert!(says, "{left} s are left: {answer}");
        late.finish();
    }
    while play.step() == Turn::Again {}
    assert!(play.clock() >= secs(35));
    assert_eq!(report(&draining).refused, 3);
}

fn a_server_that_goes_on_waits_for_its_peers_as_before() {
    let mut play = play(&Config::default(), []);
    play.scene.log.borrow_mut().clients.push(Entry::default());
    let peer = play.scene.world.connect(0);
    peer.write(&upgrade("/0", b""));
    play.run_until(secs(1));
    play.scene.handle.listeners().expect("a successor takes them");
    play.scene.handle.drain(secs(3600), RESTART);
    play.run_until(secs(2));
    assert!(play.scene.handle.undrain());
    play.run_until(secs(3));
    peer.write(b"\x88\x82\0\0\0\0\x03\xe8");
    play.run_until(secs(3) + Duration::from_millis(200));
    assert!(peer.read().ends_with(b"\x88\x02\x03\xe8") && peer.is_eof());
    // docs/architecture.md: 5 s, until the peer's FIN.
    play.run_until(secs(7));
    assert_eq!(play.scene.stats().connections, 1);
    play.run_until(secs(9));
    assert_eq!(play.scene.stats().connections, 0);
}

scenes![
    a_server_that_goes_on_waits_for_its_peers_as_before,
    closes_are_flat_over_the_window,
    closes_have_jitter,
    a_shutdown_hurries_a_drain,
    what_is_left_after_the_grace_is_cut_off_and_reported,
    a_server_that_keeps_listening_refuses_until_the_window_is_over,
];
