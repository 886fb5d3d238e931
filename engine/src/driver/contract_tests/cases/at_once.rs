//! What goes out while a handler runs.

use std::time::Duration;

use crate::driver::contract_tests::bench::{Bench, pattern};
use crate::driver::contract_tests::harness::{FarEnd as _, Harness};
use crate::driver::{SendNow as _, Token};

impl<H: Harness> Bench<H> {
    /// Sends bytes, cut in two, as far as the socket takes them now.
    fn send_now(&mut self, token: Token, bytes: &[u8]) -> usize {
        let (first, second) = bytes.split_at(bytes.len().min(7));
        self.harness.driver().send_now(token, [first, second])
    }
}

pub(in crate::driver::contract_tests) fn what_is_sent_at_once_comes_first<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, peer) = bench.open();
    let all = pattern(5000);
    let taken = bench.send_now(token, &all[..3000]);
    assert!(taken <= 3000);
    bench.see(token).persistent = true;
    bench.send(token, &all[taken..]);
    bench.until("all arrives", |bench| bench.peers[peer].received().len() == all.len());
    bench.until("the send is reported", |bench| !bench.seen(token).sending);
    assert_eq!(bench.peers[peer].received(), all);
    assert_eq!(
        bench.seen(token).sent,
        all.len() - taken,
        "what went out at once has no completion"
    );
}

pub(in crate::driver::contract_tests) fn nothing_is_sent_at_once_to_a_full_socket<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, peer) = bench.open();
    bench.peers[peer].set_reading(false);
    let all = pattern(H::TOO_MUCH);
    let mut taken = 0;
    let mut refused = 0;
    // A socket that takes nothing may have been about to move on what it has.
    while refused < 5 {
        let now = bench.send_now(token, &all[taken..]);
        taken += now;
        refused = if now == 0 { refused + 1 } else { 0 };
        bench.turn_for(Duration::from_millis(60));
    }
    assert!(taken > 0 && taken < H::TOO_MUCH, "a part went out, not {taken}");

    bench.peers[peer].set_reading(true);
    bench.see(token).persistent = true;
    bench.send(token, &all[taken..]);
    bench.until("all has arrived", |bench| bench.peers[peer].received().len() == all.len());
    assert!(bench.peers[peer].received() == all);
}

pub(in crate::driver::contract_tests) fn a_broken_connection_takes_nothing_at_once<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (token, peer) = bench.open();
    bench.receive(token);
    bench.peers[peer].reset();
    bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
    assert_eq!(bench.send_now(token, &pattern(5000)), 0);
    bench.send(token, &pattern(5000));
    bench.until("the send fails", |bench| bench.seen(token).send_error.is_some());
}
