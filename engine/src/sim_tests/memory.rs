//! A burst of what is never finished: the budget of memory holds within a turn, and whoever comes next is let in.

use std::time::Duration;

use ringwire_codec::deflate::Offer;

use super::plan::{Ending, Plan};
use super::play::Play;
use super::scene::Scene;
use super::seeds;
use super::time::{plan, play, secs};
use crate::compression::CompressionConfig;
use crate::config::Config;
use crate::driver::sim::{Faults, Peer, Random};
use crate::worker::Turn;

/// Runs of each test.
const SEEDS: u64 = 20;
/// The budget, and what may be held beside it: what a worker does not look at again for, and what one receive may add.
const BUDGET: usize = 1 << 20;
const SLACK: usize = BUDGET / 16 + MESSAGE_LEN;
/// What a message without its end is said to be long.
const MESSAGE_LEN: usize = 128 << 10;
/// Who comes after the burst.
const NEWCOMERS: usize = 8;

fn request(path: usize) -> String {
    format!(
        "GET /{path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// What a peer begins with.
#[derive(Clone, Copy)]
enum Beginning {
    /// A request without its end.
    Head,
    /// A ClientHello without its end (RFC 8446 §4.1.2), in records (§5.1).
    Hello,
    /// A message without its end.
    Message,
    /// A message in fragments without the last.
    Fragments,
}

impl Beginning {
    fn listener(self) -> usize {
        usize::from(matches!(self, Self::Hello))
    }

    fn bytes(self, number: usize, len: usize) -> Vec<u8> {
        let rest = vec![b'a'; len];
        match self {
            Self::Head => {
                let lines = rest.chunks(4000).map(String::from_utf8_lossy);
                let lines = lines.map(|line| format!("X: {line}\r\n")).collect::<String>();
                format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}").into_bytes()
            }
            Self::Hello => {
                let hello = [&[1, 0, 0xff, 0xf0, 3, 3][..], &rest].concat();
                let record = |piece: &[u8]| {
                    let len = u16::try_from(piece.len()).expect("it is a record").to_be_bytes();
                    [&[22, 3, 1][..], &len, piece].concat()
                };
                hello.chunks(16 << 10).flat_map(record).collect()
            }
            Self::Message => {
                let said = (MESSAGE_LEN.max(len + 1) as u64).to_be_bytes();
                [request(number).as_bytes(), &[0x82, 0xff], &said, &[0; 4], &rest].concat()
            }
            Self::Fragments => {
                let fragment = |(index, piece): (usize, &[u8])| {
                    let len = u16::try_from(piece.len()).expect("it is short").to_be_bytes();
                    [&[if index == 0 { 2 } else { 0 }, 0xfe][..], &len, &[0; 4], piece].concat()
                };
                let fragments = rest.chunks(1000).enumerate().flat_map(fragment);
                request(number).into_bytes().into_iter().chain(fragments).collect()
            }
        }
    }
}

/// A burst of such beginnings, which are several times what the budget has room for.
fn burst(random: &mut Random, kinds: &[Beginning]) -> (Play, Vec<Peer>) {
    burst_beside(random, kinds, &[])
}

/// The same at a worker beside others that hold so much.
fn burst_beside(random: &mut Random, kinds: &[Beginning], others: &[usize]) -> (Play, Vec<Peer>) {
    let faults = Faults {
        short_receive: [0.0, 0.5][random.below(2)],
        delay: [0.0, 0.5][random.below(2)],
        receive_buffers: 64,
        receive_buffer_len: 1 << random.within(9..=16),
        ..Faults::none()
    };
    let count = random.within(200..=400);
    // What is not ended for want of memory stays.
    let config = Config::default()
        .with_max_memory(BUDGET)
        .with_handshake_timeout(None)
        .with_close_timeout(Duration::from_secs(1));
    let scene = Scene::beside(random.seed(), &config, faults, count + NEWCOMERS, others);
    let play = Play { scene, clients: Vec::new() };
    let peers: Vec<_> = (0..count)
        .map(|number| {
            let kind = kinds[random.below(kinds.len())];
            let peer = play.scene.world.connect(kind.listener());
            let most = [500, 15_000, 60_000][random.below(3)].min(match kind {
                Beginning::Head => 15_000,
                _ => usize::MAX,
            });
            peer.write(&kind.bytes(number, most - random.below(most / 2)));
            peer
        })
        .collect();
    (play, peers)
}

fn end(play: Play, peers: Vec<Peer>) {
    let peak = play.scene.memory_peak();
    assert!(peak <= BUDGET + SLACK, "{peak} bytes were held");
    for peer in peers {
        peer.close();
    }
    finish(play);
}

fn finish(mut play: Play) {
    play.scene.handle.shutdown(Duration::ZERO);
    while play.step() == Turn::Again {}
    play.scene.finish(1 << 20);
}

#[test]
fn a_burst_does_not_go_past_the_budget() {
    let kinds = [Beginning::Head, Beginning::Hello, Beginning::Message, Beginning::Fragments];
    seeds::run_all(0..SEEDS, |seed| {
        let mut random = Random::new(seed);
        let kinds = &kinds[random.below(kinds.len())..];
        let (mut play, peers) = burst(&mut random, kinds);
        play.run_until(Duration::from_secs(5));
        let stats = play.scene.stats();
        let ended = stats.memory_sheds + stats.memory_refusals;
        assert!(ended > 0 || play.scene.memory_peak() < BUDGET, "nobody was ended");
        end(play, peers);
    });
}

/// A worker that holds less than its share gives up nothing for others. What comes in meanwhile is given up all the
/// same.
#[test]
fn a_burst_does_not_go_past_a_worker_s_share_where_others_hold_the_rest() {
    const OTHER_LEN: usize = BUDGET / 4 * 3;
    // What one of two workers may keep (`Allowance::share`).
    const SHARE: usize = BUDGET / 32 * 11;
    seeds::run_all(0..SEEDS, |seed| {
        let mut random = Random::new(seed);
        let kinds = [Beginning::Hello, Beginning::Message, Beginning::Fragments];
        let kinds = &kinds[random.below(kinds.len())..];
        let (mut play, peers) = burst_beside(&mut random, kinds, &[OTHER_LEN]);
        play.run_until(Duration::from_secs(5));
        let stats = play.scene.stats();
        assert!(stats.memory_sheds + stats.memory_refusals > 0, "nobody was ended");
        let peak = play.scene.memory_peak();
        assert!(peak <= SHARE + SLACK, "{peak} bytes were held");
        end(play, peers);
    });
}

/// Requests that never end are not what others are refused for.
#[test]
fn whoever_comes_after_unfinished_requests_is_let_in() {
    seeds::run_all(0..SEEDS, |seed| {
        let mut random = Random::new(seed);
        let (mut play, peers) = burst(&mut random, &[Beginning::Head, Beginning::Hello]);
        play.run_until(Duration::from_secs(2));
        for number in peers.len()..peers.len() + NEWCOMERS {
            let newcomer = play.scene.world.connect(0);
            newcomer.write(request(number).as_bytes());
            let later = play.clock() + Duration::from_millis(100);
            play.run_until(later);
            let answer = newcomer.read();
            assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", answer.escape_ascii());
            newcomer.close();
        }
        end(play, peers);
    });
}

/// What cannot be had by ending it holds others up; nobody is ended for a little.
#[test]
fn nothing_more_is_received_of_messages_until_there_is_memory() {
    const TALKERS: usize = 12;
    let compression = CompressionConfig::dedicated().with_threshold(1);
    let config = Config::default().with_max_memory(BUDGET).with_compression(compression);
    let silent = Plan { offer: Some(Offer::default()), ..plan(Ending::Stay, &[]) };
    let mut play = play(&config, std::iter::repeat_n(silent, TALKERS + 1));
    play.clients[TALKERS].at = Duration::MAX;
    let peer = play.scene.world.connect(0);
    peer.write(request(TALKERS).as_bytes());
    play.run_until(secs(1));
    assert!(peer.read().starts_with(b"HTTP/1.1 101 "));
    // Their compressors are more than the budget.
    let text = "water and no water, na na na ".repeat(20);
    for client in &mut play.clients[..TALKERS] {
        client.plan.speeches = plan(Ending::Stay, &[&text]).speeches;
    }
    play.run_until(secs(2));
    assert!(play.scene.stats().deflate_memory > BUDGET as u64);

    let message = [&[0x82, 0xfe, 0x80, 0, 0, 0, 0, 0][..], &[7; 32 << 10]].concat();
    let pieces: Vec<_> = message.chunks(12 << 10).collect();
    peer.write(pieces[0]);
    let later = play.clock() + Duration::from_millis(50);
    play.run_until(later);
    assert_eq!(peer.unread(), 0);
    peer.write(pieces[1]);
    let later = play.clock() + Duration::from_millis(50);
    play.run_until(later);
    assert_eq!(peer.unread(), pieces[1].len(), "more of it was received");
    assert_eq!(play.scene.stats().memory_sheds, 0);
    for client in &mut play.clients[..TALKERS] {
        client.plan.ending = Ending::HangUp;
    }
    play.run_until(secs(3));
    assert_eq!(peer.unread(), 0);
    peer.write(pieces[2]);
    play.run_until(secs(4));
    // The welcome, and the echo behind its header (RFC 6455 §5.2).
    let answer = peer.read();
    assert_eq!(answer.len(), 4 + (32 << 10), "{}", answer[..4].escape_ascii());
}

/// Those who have begun what takes seven eighths of the budget, and no more than all of it.
const UNFINISHED: usize = 4;

fn unfinished(others: &[usize]) -> (Play, Vec<Peer>) {
    let header = [0x82, 0xff, 0, 0, 0, 0, 0, 3, 0x98, 0, 0, 0, 0, 0];
    let beginning = [&header[..], &[7; 229 << 10]].concat();
    let config = Config::default().with_max_memory(BUDGET).with_ping_interval(None);
    let config = config.with_idle_timeout(None);
    let clients = UNFINISHED + 2;
    let scene = Scene::beside(seeds::of_scene(), &config, Faults::none(), clients, others);
    let play = Play { scene, clients: Vec::new() };
    let talk = |number| {
        let peer = play.scene.world.connect(0);
        peer.write(request(number).as_bytes());
        peer.write(&beginning);
        peer
    };
    let peers = (0..UNFINISHED).map(talk).collect();
    (play, peers)
}

/// What a newcomer is answered.
fn ask(play: &mut Play, number: usize, at: Duration) -> Vec<u8> {
    play.run_until(at);
    let newcomer = play.scene.world.connect(0);
    newcomer.write(request(number).as_bytes());
    play.run_until(at + Duration::from_millis(100));
    let answer = newcomer.read();
    newcomer.close();
    answer
}

/// A worker that has its share, of a budget that is held all the same, asks the others.
#[test]
fn another_worker_has_what_is_beyond_a_share_given_up() {
    let (mut play, peers) = unfinished(&[1]);
    let early = ask(&mut play, UNFINISHED, secs(2));
    assert!(early.starts_with(b"HTTP/1.1 503 "), "{}", early.escape_ascii());
    assert_eq!(play.scene.stats().memory_sheds, 0);
    play.scene.hub.demand_memory(1);
    let late = ask(&mut play, UNFINISHED + 1, secs(3));
    assert!(late.starts_with(b"HTTP/1.1 101 "), "{}", late.escape_ascii());
    assert_eq!(play.scene.stats().memory_sheds, 1, "three of them are no more than that");
    play.scene.hub.demand_memory(1);
    play.run_until(secs(4));
    assert_eq!(play.scene.stats().memory_sheds, 1, "there is room");
    end(play, peers);
}

/// What is never finished does not keep others out for ever, though there is room for it.
#[test]
fn whoever_comes_after_unfinished_messages_is_let_in_after_a_while() {
    let (mut play, peers) = unfinished(&[]);
    let early = ask(&mut play, UNFINISHED, secs(4));
    assert!(early.starts_with(b"HTTP/1.1 503 "), "{}", early.escape_ascii());
    assert_eq!(play.scene.stats().memory_sheds, 0);
    let late = ask(&mut play, UNFINISHED + 1, secs(6));
    assert!(late.starts_with(b"HTTP/1.1 101 "), "{}", late.escape_ascii());
    assert!((1..=2).contains(&play.scene.stats().memory_sheds));
    end(play, peers);
}

/// What a burst took goes back once, when it has been free for long enough.
#[test]
fn memory_goes_back_after_a_burst() {
    const PEERS: usize = 6;
    for delay in [None, Some(secs(5)), Some(secs(60))] {
        let config = Config::default().with_memory_return_delay(delay);
        let scene = Scene::new(seeds::of_scene(), &config, Faults::none(), PEERS);
        let (mut play, mut peers) = (Play { scene, clients: Vec::new() }, Vec::new());
        for number in 0..PEERS {
            let peer = play.scene.world.connect(0);
            peer.write(&Beginning::Message.bytes(number, 900 << 10));
            peers.push(peer);
        }
        play.run_until(secs(2));
        assert!(play.scene.stats().memory_input > PEERS as u64 * (900 << 10));
        peers.iter().for_each(Peer::close);
        play.run_until(secs(4));
        assert!(play.scene.world.memory_returns().is_empty());
        play.run_until(secs(100));
        let returns = play.scene.world.memory_returns();
        assert_eq!(returns.len(), usize::from(delay.is_some()), "{returns:?}");
        // Looked at in ticks, of 100 ms.
        let delay = delay.unwrap_or_default();
        let late = Duration::from_millis(300);
        let is_in_time = |at: &Duration| (secs(2) + delay..=secs(2) + delay + late).contains(at);
        assert!(returns.iter().all(is_in_time), "{returns:?}");
        finish(play);
    }
}
