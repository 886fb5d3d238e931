//! What a worker never does. Real drivers put up with it, so that a mistake costs one connection at most. The simulated
//! one panics, so that no mistake goes unnoticed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{A_WHILE, stuck_send};
use crate::base::output::Output;
use crate::driver::contract_tests::bench::{Bench, Socket};
use crate::driver::contract_tests::harness::{FarEnd as _, Harness};
use crate::driver::{Driver as _, ListenerId, Op, SendBuffer, Token};

/// Submits what a worker must not.
#[track_caller]
fn breach<H: Harness>(bench: &mut Bench<H>, op: Op<Socket<H>>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| bench.submit(op)));
    assert_eq!(outcome.is_err(), H::JUDGES, "it panics in the simulation only");
}

fn hello() -> SendBuffer {
    SendBuffer::new(Output::Own(b"hello".to_vec()))
}

pub(in crate::driver::contract_tests) fn an_unknown_token_is_nobody<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (live, peer) = bench.open();
    bench.see(live).echo = true;
    bench.receive(live);
    let (closed, _) = bench.open();
    bench.close(closed);
    let (closing, _) = bench.open();
    bench.receive(closing);
    bench.turn_for(A_WHILE);
    bench.submit(Op::Close { token: closing });
    let never = Token { slot: 5000, generation: 0 };
    let next = Token { generation: live.generation + 1, ..live };
    for token in [closing, closed, never, next] {
        bench.unknown.insert(token);
        breach(bench, Op::Receive { token });
        breach(bench, Op::StopReceive { token });
        breach(bench, Op::Shutdown { token });
        breach(bench, Op::Send { token, buffer: hello() });
        breach(bench, Op::Close { token });
    }
    for token in [closed, never, next] {
        assert_eq!(bench.delivery(token), None);
        assert!(bench.harness.driver().traffic(token).is_none());
    }
    // Any other completion of theirs would be noticed.
    bench.until("it is closed", |bench| bench.seen(closing).closed);
    bench.turn_for(A_WHILE);
    let refused = bench.refused.iter().map(SendBuffer::remaining);
    assert_eq!(refused.collect::<Vec<_>>(), vec![b"hello"; if H::JUDGES { 0 } else { 4 }]);
    bench.peers[peer].write(b"still here");
    bench.until("who is known is served", |bench| bench.peers[peer].received() == b"still here");
}

pub(in crate::driver::contract_tests) fn an_unknown_listener_is_nobody<H: Harness>(
    bench: &mut Bench<H>,
) {
    bench.accept(0);
    bench.connect(0);
    bench.until("it is accepted", |bench| bench.accepted.len() == 1);
    bench.close_listener(0);
    for listener in [ListenerId(0), ListenerId(99)] {
        breach(bench, Op::Accept { listener });
        breach(bench, Op::StopAccept { listener });
        breach(bench, Op::CloseListener { listener });
    }
    let late = bench.connect(0);
    bench.until("it is refused", |bench| bench.peers[late].saw_reset());
    assert_eq!(bench.accepted.len(), 1);
}

pub(in crate::driver::contract_tests) fn receiving_twice_is_receiving<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, peer) = bench.open();
    bench.see(token).echo = true;
    bench.receive(token);
    breach(bench, Op::Receive { token });
    bench.peers[peer].write(b"once");
    bench.until("it comes back", |bench| bench.peers[peer].received().len() >= 4);
    bench.turn_for(A_WHILE);
    assert_eq!(bench.peers[peer].received(), b"once");
}

pub(in crate::driver::contract_tests) fn the_end_is_reported_once<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, peer) = bench.open();
    bench.receive(token);
    bench.peers[peer].finish();
    bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
    breach(bench, Op::Receive { token });
    bench.turn_for(A_WHILE);
    // The socket has something to say again.
    bench.peers[peer].reset();
    bench.turn_for(A_WHILE);
    breach(bench, Op::Receive { token });
    bench.turn_for(A_WHILE);
    assert_eq!(bench.seen(token).ended, Some(Ok(())));
}

pub(in crate::driver::contract_tests) fn nothing_is_sent_after_a_shutdown<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, peer) = bench.open();
    bench.submit(Op::Shutdown { token });
    bench.until("the peer sees the end", |bench| bench.peers[peer].saw_eof());
    bench.see(token).sending = !H::JUDGES;
    breach(bench, Op::Send { token, buffer: hello() });
    bench.until("it comes back", |bench| !bench.seen(token).sending);
    assert_eq!(bench.seen(token).send_error.is_some(), !H::JUDGES);
    assert_eq!(bench.peers[peer].received(), b"");
}

pub(in crate::driver::contract_tests) fn a_shutdown_fails_a_stuck_send<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, peer) = stuck_send(bench);
    breach(bench, Op::Shutdown { token });
    if H::JUDGES {
        return;
    }
    bench.until("it comes back", |bench| !bench.seen(token).sending);
    assert!(bench.seen(token).send_error.is_some() && bench.seen(token).returned.is_some());
    bench.peers[peer].set_reading(true);
    bench.until("the peer sees the end", |bench| bench.peers[peer].saw_eof());
}

/// Real drivers check it in builds with assertions.
pub(in crate::driver::contract_tests) fn one_send_at_a_time<H: Harness>(bench: &mut Bench<H>) {
    let (token, _) = stuck_send(bench);
    if H::JUDGES || cfg!(debug_assertions) {
        let send = AssertUnwindSafe(|| bench.submit(Op::Send { token, buffer: hello() }));
        catch_unwind(send).expect_err("one is in flight");
    }
}
