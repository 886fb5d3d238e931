//! The contract of [`Driver`](super::Driver), checked on every implementation.
//!
//! [`cases`] says what must hold, `contract!` below on which drivers. The simulated network runs each
//! case with a network as one wishes it and with a hostile one, the latter from many seeds.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the peers of real drivers are real sockets"
)]

mod bench;
mod cases;
mod harness;

use std::time::Duration;

use bench::Bench;
use harness::{Harness, OnSim, OnSockets};

use super::busy::BusyPoll;
use super::epoll::Epoll;
use super::sim::Faults;
use super::uring::{Layout, Uring};

/// Seeds of the hostile network for each case.
const SEEDS: u64 = 20;

macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        const CASES: &[&str] = &[$(stringify!($case)),*];

        mod epoll {
            $(#[test] fn $case() { super::check(super::epoll(), super::cases::$case); })*
        }
        mod uring {
            $(#[test] fn $case() { super::check(super::uring(true), super::cases::$case); })*
        }
        mod uring_with_whole_buffers {
            $(#[test] fn $case() { super::check(super::uring(false), super::cases::$case); })*
        }
        mod epoll_that_looks {
            $(#[test] fn $case() { super::check(super::looking_epoll(), super::cases::$case); })*
        }
        mod uring_that_looks {
            $(#[test] fn $case() { super::check(super::looking_uring(), super::cases::$case); })*
        }
        mod sim {
            $(#[test] fn $case() { super::check(super::benign(), super::cases::$case); })*
        }
        mod hostile_sim {
            $(#[test] fn $case() { super::check_seeds(super::cases::$case); })*
        }
    };
}

contract!(
    accept_names_the_listener,
    stop_accept_leaves_connections_waiting,
    a_closed_listener_refuses,
    a_listener_is_left_once_all_is_reported,
    a_listener_that_is_kept_is_accepted_from_again,
    who_waits_at_a_listener_that_is_left_is_not_lost,
    an_unknown_listener_is_nobody,
    echo,
    nothing_is_received_unasked,
    fin_ends_receiving_after_all_data,
    data_and_fin_together,
    reset_fails_receiving,
    reset_fails_a_stuck_send,
    sending_to_a_broken_connection_fails,
    more_than_one_buffer,
    what_is_expected_may_come_at_once,
    a_held_buffer_hurts_nobody,
    stop_receive_loses_nothing,
    a_send_waits_for_the_peer,
    delivery_tells_who_takes_something,
    what_the_kernel_holds_of_a_stuck_send_is_known_and_can_be_dropped,
    nothing_is_dropped_of_what_was_delivered,
    large_send,
    what_is_sent_at_once_comes_first,
    nothing_is_sent_at_once_to_a_full_socket,
    a_broken_connection_takes_nothing_at_once,
    shutdown_leaves_receiving,
    peer_finished_first,
    close_is_seen_by_the_peer,
    close_returns_the_send_first,
    close_in_the_middle_of_data,
    a_slot_is_used_again,
    an_unopened_socket_is_closed,
    wake_ends_a_wait,
    several_wakes_are_one,
    wait_keeps_its_timeout,
    a_wait_does_not_sleep_over_an_outcome,
    a_flood_holds_up_nobody,
    many_sockets,
    adopt,
    what_is_held_is_counted,
    an_unknown_token_is_nobody,
    receiving_twice_is_receiving,
    the_end_is_reported_once,
    one_send_at_a_time,
    a_shutdown_fails_a_stuck_send,
    nothing_is_sent_after_a_shutdown,
    a_driver_that_goes_closes_all,
    what_the_worker_has_outlives_the_driver,
);

fn epoll() -> OnSockets<Epoll> {
    OnSockets::new(|listeners| Epoll::new(listeners, 4096))
}

/// With so few buffers that they run out, and half of them in the ring where they are shared.
fn uring(incremental: bool) -> OnSockets<Uring> {
    let ring_count = if incremental { 2 } else { 4 };
    let layout = Layout { piece_len: 4096, piece_count: 4, ring_count, incremental, turn_len: 0 };
    OnSockets::new(|listeners| Uring::new(listeners, layout))
}

/// Looks for what comes, and sleeps after a while that is shorter than some waits and longer than others.
const LOOKING: BusyPoll = BusyPoll {
    worker: Some(Duration::from_millis(2)),
    napi: Some(Duration::from_micros(50)),
    prefers_napi: false,
};

fn looking_epoll() -> OnSockets<Epoll> {
    OnSockets::new(|listeners| Epoll::new(listeners, 4096)?.with_busy_poll(LOOKING))
}

fn looking_uring() -> OnSockets<Uring> {
    let layout =
        Layout { piece_len: 4096, piece_count: 4, ring_count: 2, incremental: true, turn_len: 0 };
    OnSockets::new(|listeners| Uring::new(listeners, layout)?.with_busy_poll(LOOKING))
}

fn benign() -> OnSim {
    OnSim::new(0, Faults::none())
}

fn check<H: Harness>(harness: H, case: impl FnOnce(&mut Bench<H>)) {
    let mut bench = Bench::new(harness);
    case(&mut bench);
    bench.finish();
}

fn check_seeds(case: impl Fn(&mut Bench<OnSim>)) {
    for seed in 0..SEEDS {
        // Shown when the case fails.
        println!("seed {seed}");
        // A wait that ends for no reason is no breach, but the cases about time could not tell.
        let faults = Faults { spurious_wake: 0.0, ..Faults::hostile() };
        check(OnSim::new(seed, faults), &case);
    }
}

/// A word in backticks that has an underscore is the name of a case.
#[test]
fn each_rule_has_a_case_and_each_case_a_rule() {
    let contract = include_str!("../mod.rs").lines().take_while(|line| line.starts_with("//!"));
    let contract = contract.collect::<Vec<_>>().join("\n");
    let is_name = |word: &&str| {
        let is_word = word.chars().all(|it| it == '_' || it.is_ascii_lowercase());
        CASES.contains(word) || is_word && word.contains('_')
    };
    let mut named: Vec<_> = contract.split('`').skip(1).step_by(2).filter(is_name).collect();
    named.sort_unstable();
    named.dedup();
    let mut cases = CASES.to_vec();
    cases.sort_unstable();
    assert_eq!(named, cases);
}
