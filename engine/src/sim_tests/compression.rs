//! Compression where time, memory or a full queue matter. That messages come through whatever was agreed on is what the
//! seeds are for.

use std::time::Duration;

use ringwire_codec::deflate::{Compressor, Decompressor, Offer};

use super::plan::{Ending, Plan};
use super::play::Play;
use super::seeds::scenes;
use super::time::{self, plan, secs};
use crate::config::Config;
use crate::conn::options::Backpressure;
use crate::layers::deflate::OWN_WINDOW;
use crate::{
    ConnId, SendOptions,
    compression::{Compress, CompressionConfig},
};

const COMPRESSOR_LEN: u64 = Compressor::memory_len_of(OWN_WINDOW) as u64;
const DECOMPRESSOR_LEN: u64 = Decompressor::MEMORY_LEN as u64;

/// A client that stays, offers compression and says this.
fn offering(says: &[&str]) -> Plan {
    Plan { offer: Some(Offer::default()), ..plan(Ending::Stay, says) }
}

fn dedicated() -> CompressionConfig {
    CompressionConfig::dedicated().with_threshold(1)
}

/// With clients that compress all they say.
fn play(config: &Config, plans: impl IntoIterator<Item = Plan>) -> Play {
    let mut play = time::play(config, plans);
    play.clients.iter_mut().for_each(|client| client.compresses = 1.0);
    play
}

fn id_of(play: &Play, client: usize) -> ConnId {
    play.scene.log.borrow().clients[client].id.expect("it is open")
}

fn text() -> String {
    "water and no water, na na na ".repeat(20)
}

fn a_compressor_that_nobody_uses_is_freed() {
    let config = Config::default().with_compression(dedicated());
    let long = text();
    let mut play = play(&config, [offering(&[&long])]);
    play.run_until(secs(1));
    assert_eq!(play.scene.stats().deflate_memory, COMPRESSOR_LEN + DECOMPRESSOR_LEN);
    // It counts from its last use.
    play.run_until(secs(30));
    let id = id_of(&play, 0);
    let always = SendOptions::default().with_compress(Compress::Always);
    play.scene.handle.send_with(id, format!("push:0:{long}").as_str(), always).expect("it lives");
    play.run_until(secs(89));
    assert_eq!(play.scene.stats().deflate_memory, COMPRESSOR_LEN + DECOMPRESSOR_LEN);
    play.run_until(secs(91));
    assert_eq!(play.scene.stats().deflate_memory, DECOMPRESSOR_LEN);
    let left = CompressionConfig::default().max_dedicated_len as u64 - DECOMPRESSOR_LEN;
    assert_eq!(play.scene.budget.left() as u64, left);
    // And the next message gets a new one, with which the client goes on.
    play.scene.handle.send_with(id, format!("push:1:{long}").as_str(), always).expect("it lives");
    play.run_until(secs(92));
    assert_eq!(play.clients[0].pushes, 2);
    assert_eq!(play.scene.stats().deflate_memory, COMPRESSOR_LEN + DECOMPRESSOR_LEN);
}

fn a_compressor_may_be_kept_for_good() {
    let config = Config::default().with_compression(dedicated().with_compressor_timeout(None));
    let mut play = play(&config, [offering(&[&text()])]);
    play.run_until(secs(3600));
    assert_eq!(play.scene.stats().deflate_memory, COMPRESSOR_LEN + DECOMPRESSOR_LEN);
}

fn an_idle_connection_holds_no_machines() {
    for compression in [CompressionConfig::shared(), dedicated().with_threshold(1000)] {
        let config = Config::default().with_compression(compression);
        let mut play = play(&config, [offering(&[])]);
        play.run_until(secs(10));
        assert!(play.clients[0].deflate.is_some());
        assert_eq!(play.scene.stats().deflate_memory, 0);
    }
}

fn without_room_connections_get_along() {
    // Room for a compressor and two decompressors.
    let len = usize::try_from(COMPRESSOR_LEN + 2 * DECOMPRESSOR_LEN).expect("it is not long");
    let config = Config::default().with_compression(dedicated().with_max_dedicated_len(len));
    let long = text();
    let says = [long.as_str(); 3];
    let late = |at| Plan { pace: Duration::from_millis(at), ..offering(&says) };
    let mut play = play(&config, [offering(&says), late(0), late(0)]);
    for (client, at) in play.clients.iter_mut().zip([0, 5, 10]) {
        client.at = secs(at);
        play.scene.world.alarm(secs(at));
    }
    play.run_until(secs(20));
    let takeover = |client: usize| play.clients[client].deflate.as_ref().map(|own| own.takeover);
    // The third has no decompressor set aside, and the second has to use the worker's compressor.
    assert_eq!((takeover(0), takeover(1), takeover(2)), (Some(true), Some(true), Some(false)));
    assert_eq!(play.scene.stats().deflate_memory, len as u64);
    assert_eq!(play.scene.budget.left(), 0);
    assert!(play.clients.iter().all(|client| client.heard == 4));
    assert!(!play.clients[2].deflate.as_ref().expect("it was agreed").compressor.takeover());
    // Who goes makes room for who comes.
    play.clients[0].plan.ending = Ending::HangUp;
    play.run_until(secs(21));
    assert_eq!(play.scene.budget.left() as u64, COMPRESSOR_LEN + DECOMPRESSOR_LEN);
    play.clients[1].plan.speeches = offering(&[&long]).speeches;
    play.run_until(secs(22));
    assert_eq!(play.scene.budget.left() as u64, DECOMPRESSOR_LEN);
    assert_eq!(play.clients[1].heard, 5);
}

/// The client cannot follow what refers to a message that it never gets.
fn none_refers_to_a_message_that_was_replaced() {
    let config = Config::default().with_compression(dedicated());
    let mut play = play(&config, [offering(&[&text()])]);
    play.run_until(secs(1));
    let (id, handle) = (id_of(&play, 0), play.scene.handle.clone());
    for round in 0..10 {
        // All of it waits when it is sent, so that each key replaces the one before.
        for part in 0..4 {
            let number = 4 * round + part;
            let other = "replaced or not".repeat(10 + part);
            let key = format!("key:{number}:{}{other}", text());
            handle.send_keyed(id, 1, key.as_str()).expect("it lives");
            let push = format!("push:{number}:{}{other}", text());
            handle.send(id, push.as_str()).expect("it lives");
        }
        play.run_until(secs(2 + round as u64));
    }
    assert_eq!(play.clients[0].pushes, 40);
    assert_eq!(play.scene.stats().messages_dropped, 30);
}

fn none_refers_to_a_message_that_was_dropped() {
    let config = Config::default()
        .with_compression(dedicated())
        .with_high_water(500)
        .with_max_queued_len(500)
        .with_backpressure(Backpressure::DropOldest);
    let client = Plan { lossy: true, ..offering(&[&text()]) };
    let mut play = play(&config, [client]);
    play.run_until(secs(1));
    let (id, handle) = (id_of(&play, 0), play.scene.handle.clone());
    let mut pushed = 0;
    for round in 0..10 {
        for _ in 0..20 {
            let push = format!("push:{pushed}:{}", text());
            handle.send(id, push.as_str()).expect("it lives");
            pushed += 1;
        }
        play.run_until(secs(2 + round));
        // The newest came in any case.
        assert_eq!(play.clients[0].pushes, pushed);
    }
    let stats = play.scene.stats();
    assert!(stats.messages_dropped > 100, "{}", stats.messages_dropped);
    assert_eq!(stats.deflated_messages, 201);
}

/// A turn does what it may and one message more, whoever has something to say; and in the end all have said it.
fn a_turn_inflates_so_much_and_not_so_much_for_each() {
    const LEN: usize = 30_000;
    let long = "x".repeat(LEN);
    let says = [long.as_str(); 10];
    for mode in [CompressionConfig::shared(), dedicated()] {
        // A message and its answer are 96 000 and more.
        let config = Config::default().with_compression(mode.with_work_per_turn(100_000));
        let mut play = play(&config, std::iter::repeat_n(offering(&says), 20));
        let (mut turns, mut before) = (0, 0);
        // Each has heard a welcome as well.
        while play.clients.iter().any(|client| client.heard <= says.len()) {
            play.step();
            let inflated = play.scene.stats().inflate_out_bytes;
            assert!(inflated - before <= 2 * LEN as u64, "{} bytes", inflated - before);
            turns += usize::from(inflated > before);
            before = inflated;
        }
        assert!(turns >= 100, "{turns}");
        assert_eq!(before, (20 * says.len() * LEN) as u64);
    }
}

scenes![
    a_turn_inflates_so_much_and_not_so_much_for_each,
    a_compressor_that_nobody_uses_is_freed,
    a_compressor_may_be_kept_for_good,
    an_idle_connection_holds_no_machines,
    without_room_connections_get_along,
    none_refers_to_a_message_that_was_replaced,
    none_refers_to_a_message_that_was_dropped,
];
