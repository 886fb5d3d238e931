//! How much a receive takes: more of a peer whose messages are long, and of nobody else.

use std::time::Duration;

use super::plan::{Ending, Plan};
use super::time::{plan, play, secs};
use crate::config::Config;

/// That of the simulation without faults.
const RECEIVE_LEN: usize = 4096;
/// Of a masked frame (RFC 6455 §5.2).
const HEADER_LEN: usize = 8;

/// The longest receive of a client that says so many messages of a length.
fn longest(count: usize, len: usize, pace: Duration) -> usize {
    let config = Config::default().with_receive_buffer_len(RECEIVE_LEN);
    let text = "x".repeat(len);
    let plan = Plan { pace, ..plan(Ending::Stay, &vec![text.as_str(); count]) };
    let mut play = play(&config, [plan]);
    play.run_until(secs(60));
    let greeting = 1;
    assert_eq!(play.clients[0].heard, greeting + count);
    play.scene.world.longest_receive()
}

#[test]
fn after_a_long_message_the_next_one_comes_whole() {
    let len = RECEIVE_LEN;
    // The first one comes in two parts.
    assert_eq!(longest(1, len, secs(1)), RECEIVE_LEN);
    assert_eq!(longest(8, len, secs(1)), len + HEADER_LEN);
}

#[test]
fn short_messages_take_no_more_than_their_turn() {
    for len in [100, 1000, RECEIVE_LEN / 2] {
        assert!(longest(40, len, Duration::ZERO) <= RECEIVE_LEN, "messages of {len}");
    }
}
