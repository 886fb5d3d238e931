//! A driver that goes, and what outlives it.

use super::stuck_send;
use crate::base::wake::Wake as _;
use crate::driver::Driver as _;
use crate::driver::contract_tests::bench::Bench;
use crate::driver::contract_tests::harness::{FarEnd as _, Harness};

pub(in crate::driver::contract_tests) fn a_driver_that_goes_closes_all<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (_, stuck) = stuck_send(bench);
    let (token, receiving) = bench.open();
    bench.receive(token);
    let (_, idle) = bench.open();
    // One that waits to be accepted, or was and is not reported.
    let waiting = bench.connect(0);
    bench.harness.end();
    bench.peers[stuck].set_reading(true);
    for peer in [stuck, receiving, idle, waiting] {
        bench.until("the peer sees the end", |bench| {
            bench.peers[peer].saw_eof() || bench.peers[peer].saw_reset()
        });
    }
    assert!(bench.peers[stuck].received().len() < H::TOO_MUCH, "a part of it was never sent");
    let late = bench.connect(0);
    bench.until("who comes later is refused", |bench| bench.peers[late].saw_reset());
}

pub(in crate::driver::contract_tests) fn what_the_worker_has_outlives_the_driver<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, peer) = bench.open();
    bench.keep = Some(token);
    bench.receive(token);
    bench.peers[peer].write(b"kept");
    bench.until("a buffer is held", |bench| bench.seen(token).received == b"kept");
    let accepted = bench.connect(0);
    bench.until("the connection is accepted", |bench| !bench.accepted.is_empty());
    let waker = bench.harness.driver().waker();
    bench.harness.end();

    waker.wake();
    assert_eq!(bench.kept.iter().flat_map(|buffer| buffer.to_vec()).collect::<Vec<_>>(), b"kept");
    bench.until("the open socket is closed", |bench| {
        bench.peers[peer].saw_eof() || bench.peers[peer].saw_reset()
    });
    assert!(!bench.peers[accepted].saw_eof() && !bench.peers[accepted].saw_reset());
    bench.accepted.clear();
    bench.until("so is the accepted one", |bench| bench.peers[accepted].saw_eof());
}
