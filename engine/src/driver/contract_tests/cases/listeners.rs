//! Accepting, and the ways in which it ends.

use super::A_WHILE;
use crate::driver::contract_tests::bench::Bench;
use crate::driver::contract_tests::harness::{FarEnd as _, Harness};
use crate::driver::{ListenerId, Token};

pub(in crate::driver::contract_tests) fn accept_names_the_listener<H: Harness>(
    bench: &mut Bench<H>,
) {
    bench.accept(0);
    bench.accept(1);
    for listener in [1, 0, 1] {
        bench.connect(listener);
        bench.until("the connection is accepted", |bench| !bench.accepted.is_empty());
        let (id, _socket) = bench.accepted.pop_front().unwrap();
        assert_eq!(id, ListenerId(u32::try_from(listener).unwrap()));
    }
}

pub(in crate::driver::contract_tests) fn stop_accept_leaves_connections_waiting<H: Harness>(
    bench: &mut Bench<H>,
) {
    bench.open();
    bench.stop_accept(0);
    bench.turn_for(A_WHILE);
    assert!(bench.accepted.is_empty());
    let peer = bench.connect(0);
    bench.peers[peer].write(b"early");
    bench.turn_for(A_WHILE);
    assert!(bench.accepted.is_empty());

    bench.accept(0);
    bench.until("the connection is accepted", |bench| !bench.accepted.is_empty());
    let token = Token { slot: 1000, generation: 0 };
    let (_, socket) = bench.accepted.pop_front().unwrap();
    bench.take(token, socket);
    bench.receive(token);
    bench.until("what came early is received", |bench| bench.seen(token).received == b"early");
}

pub(in crate::driver::contract_tests) fn a_closed_listener_refuses<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, before) = bench.open();
    bench.see(token).echo = true;
    bench.receive(token);
    bench.stop_accept(0);
    bench.turn_for(A_WHILE);
    let waiting = bench.connect(0);
    bench.turn_for(A_WHILE);
    bench.close_listener(0);
    bench.until("who waited is refused", |bench| bench.peers[waiting].saw_reset());
    let late = bench.connect(0);
    bench.until("who comes later is refused", |bench| bench.peers[late].saw_reset());
    assert!(bench.accepted.is_empty());

    bench.peers[before].write(b"still here");
    bench.until("who is in is served", |bench| bench.peers[before].received() == b"still here");
    // The other listener goes on.
    bench.accept(1);
    bench.connect(1);
    bench.until("the connection is accepted", |bench| !bench.accepted.is_empty());
}

pub(in crate::driver::contract_tests) fn a_listener_is_left_once_all_is_reported<H: Harness>(
    bench: &mut Bench<H>,
) {
    bench.accept(0);
    bench.connect(0);
    bench.until("the connection is accepted", |bench| bench.accepted.len() == 1);
    bench.leave_listener(0, true, false);
    bench.until("it is left", |bench| bench.left == [ListenerId(0)]);
    // One at which nothing was accepted.
    bench.leave_listener(1, true, false);
    bench.until("it is left", |bench| bench.left == [ListenerId(0), ListenerId(1)]);
    bench.connect(0);
    bench.turn_for(A_WHILE);
    assert_eq!((bench.accepted.len(), bench.left.len()), (1, 2));
}

pub(in crate::driver::contract_tests) fn a_listener_that_is_kept_is_accepted_from_again<
    H: Harness,
>(
    bench: &mut Bench<H>,
) {
    for round in 1..=3 {
        bench.accept(0);
        bench.connect(0);
        bench.until("it is accepted", |bench| bench.accepted.len() == 2 * round - 1);
        bench.leave_listener(0, true, true);
        bench.until("it is left", |bench| bench.left.len() == round);
        // As in the backlog, for whoever accepts.
        bench.connect(0);
        bench.turn_for(A_WHILE);
        assert_eq!(bench.accepted.len(), 2 * round - 1);
        bench.accept(0);
        bench.until("it is accepted", |bench| bench.accepted.len() == 2 * round);
        bench.stop_accept(0);
    }
    bench.accept(0);
    bench.leave_listener(0, true, true);
    bench.until("it is left", |bench| bench.left.len() == 4);
    bench.close_listener(0);
    bench.connect(0);
    bench.turn_for(A_WHILE);
    assert_eq!(bench.accepted.len(), 6, "it is closed for good");
}

pub(in crate::driver::contract_tests) fn who_waits_at_a_listener_that_is_left_is_not_lost<
    H: Harness,
>(
    bench: &mut Bench<H>,
) {
    for (listener, takes_rest) in [(0, false), (1, true)] {
        bench.accept(listener);
        bench.connect(listener);
        bench.until("it is accepted", |bench| !bench.accepted.is_empty());
        bench.stop_accept(listener);
        bench.turn_for(A_WHILE);
        bench.accepted.clear();
        bench.connect(listener);
        bench.turn_for(A_WHILE);
        assert!(bench.accepted.is_empty(), "it waits");

        let left = bench.left.len();
        bench.leave_listener(listener, takes_rest, true);
        bench.until("it is left", |bench| bench.left.len() > left);
        assert!(takes_rest || bench.accepted.is_empty(), "it is for others");
        // Reported as the rest, or still there for whoever listens.
        bench.accept(listener);
        bench.until("it is accepted", |bench| bench.accepted.len() == 1);
        bench.turn_for(A_WHILE);
        assert_eq!(bench.accepted.len(), 1);
        bench.accepted.clear();
    }
}
