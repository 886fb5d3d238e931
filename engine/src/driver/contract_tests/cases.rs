//! The cases. Each says by its name what a driver must do.

mod at_once;
mod breaches;
mod endings;
mod listeners;

use std::io::ErrorKind;
use std::time::Duration;

pub(super) use self::at_once::*;
pub(super) use self::breaches::*;
pub(super) use self::endings::*;
pub(super) use self::listeners::*;
use super::bench::{Bench, pattern};
use super::harness::{FarEnd as _, Harness};
use crate::base::wake::Wake as _;
use crate::driver::{Driver as _, Op, SendBuffer, Token};

/// Long enough for whatever is on its way.
const A_WHILE: Duration = Duration::from_millis(60);
/// A wait that must not last.
const FOREVER: Duration = Duration::from_secs(20);

pub(super) fn echo<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.see(token).echo = true;
    bench.receive(token);
    let mut all = Vec::new();
    for len in [1, 5, 4095, 4096, 4097, 100, 20_000] {
        all.extend(pattern(len));
        bench.peers[peer].write(&pattern(len));
        bench.until("all has come back", |bench| bench.peers[peer].received().len() == all.len());
    }
    assert_eq!(bench.peers[peer].received(), all);
    assert_eq!(bench.seen(token).received, all);
    assert_eq!(bench.seen(token).ended, None);
}

pub(super) fn nothing_is_received_unasked<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.peers[peer].write(b"waiting");
    bench.peers[peer].finish();
    bench.turn_for(A_WHILE);
    assert_eq!(bench.seen(token).receive_completions, 0);
    assert_eq!(bench.seen(token).ended, None);
    bench.receive(token);
    bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
    assert_eq!(bench.seen(token).received, b"waiting");
}

pub(super) fn fin_ends_receiving_after_all_data<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.receive(token);
    for _ in 0..10 {
        bench.peers[peer].write(&pattern(1000));
        bench.turn(Duration::ZERO);
    }
    bench.peers[peer].finish();
    bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
    assert_eq!(bench.seen(token).ended, Some(Ok(())));
    assert_eq!(bench.seen(token).received, pattern(1000).repeat(10));
}

pub(super) fn data_and_fin_together<H: Harness>(bench: &mut Bench<H>) {
    // Lengths around the receive buffer's: the last read is full, or the first is short.
    for len in [1, 512, 4096, 8192, 10_000] {
        let (token, peer) = bench.open();
        bench.peers[peer].write(&pattern(len));
        bench.peers[peer].finish();
        bench.turn_for(Duration::from_millis(10));
        bench.receive(token);
        bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
        assert_eq!(bench.seen(token).ended, Some(Ok(())));
        assert_eq!(bench.seen(token).received, pattern(len));
    }
}

pub(super) fn reset_fails_receiving<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.receive(token);
    bench.peers[peer].write(b"before");
    bench.until("it arrives", |bench| bench.seen(token).received == b"before");
    bench.peers[peer].reset();
    bench.until("the failure is reported", |bench| bench.seen(token).ended.is_some());
    assert_eq!(bench.seen(token).ended, Some(Err(ErrorKind::ConnectionReset)));
    bench.turn_for(A_WHILE);
}

pub(super) fn reset_fails_a_stuck_send<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = stuck_send(bench);
    bench.peers[peer].reset();
    bench.until("the send has failed", |bench| !bench.seen(token).sending);
    assert!(bench.seen(token).send_error.is_some());
    assert!(bench.seen(token).returned.is_some());
}

pub(super) fn sending_to_a_broken_connection_fails<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.peers[peer].reset();
    let mut sends = 0;
    while bench.seen(token).send_error.is_none() {
        assert!(sends < 100, "nobody is there to read it");
        sends += 1;
        bench.send(token, b"hello");
        bench.until("the send is done", |bench| !bench.seen(token).sending);
        bench.turn_for(Duration::from_millis(10));
    }
    let returned = bench.see(token).returned.take().unwrap();
    assert_eq!(returned.remaining(), b"hello");
}

pub(super) fn more_than_one_buffer<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    let all = pattern(300_000);
    bench.receive(token);
    bench.peers[peer].write(&all);
    bench.until("all arrives", |bench| bench.seen(token).received.len() == all.len());
    assert!(bench.seen(token).received == all);
}

pub(super) fn what_is_expected_may_come_at_once<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    let (other, other_peer) = bench.open();
    let all = pattern(300_000);
    bench.expect(token, all.len());
    bench.peers[peer].write(&all[..1000]);
    bench.turn_for(A_WHILE);
    assert!(bench.seen(token).received.is_empty(), "it is expected, and was not asked for");

    bench.receive(token);
    bench.receive(other);
    bench.peers[peer].write(&all[1000..]);
    bench.peers[other_peer].write(b"short");
    bench.until("all arrives", |bench| {
        let received = bench.seen(token).received.len();
        bench.expect(token, all.len() - received);
        received == all.len()
    });
    assert!(bench.seen(token).received == all);
    // More than will ever come.
    bench.expect(token, usize::MAX);
    bench.peers[peer].finish();
    bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
    bench.until("the other is served", |bench| bench.seen(other).received == b"short");
}

pub(super) fn a_held_buffer_hurts_nobody<H: Harness>(bench: &mut Bench<H>) {
    let (held, holder) = bench.open();
    let (other, peer) = bench.open();
    bench.keep = Some(held);
    bench.receive(held);
    bench.see(other).echo = true;
    bench.receive(other);
    bench.peers[holder].write(b"k");
    bench.until("a buffer is held", |bench| !bench.kept.is_empty());

    bench.peers[peer].write(&pattern(20_000));
    bench.until("all has come back", |bench| bench.peers[peer].received().len() == 20_000);
    assert_eq!(bench.peers[peer].received(), pattern(20_000));
    assert_eq!(&*bench.kept[0], b"k");
}

pub(super) fn stop_receive_loses_nothing<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    let all = pattern(30_000);
    let pieces: Vec<_> = all.chunks(10_000).collect();
    bench.receive(token);
    bench.peers[peer].write(pieces[0]);
    bench.until("some arrives", |bench| !bench.seen(token).received.is_empty());
    bench.submit(Op::StopReceive { token });
    bench.peers[peer].write(pieces[1]);
    bench.turn_for(A_WHILE * 3);

    let so_far = bench.seen(token).received.len();
    bench.peers[peer].write(pieces[2]);
    bench.peers[peer].finish();
    bench.turn_for(A_WHILE * 3);
    assert_eq!(bench.seen(token).received.len(), so_far, "it was told to stop");
    assert_eq!(bench.seen(token).ended, None, "it was told to stop");

    bench.receive(token);
    bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
    assert_eq!(bench.seen(token).received, all);
}

/// A send that is stuck for good, since the peer reads nothing and everything is full.
fn stuck_send<H: Harness>(bench: &mut Bench<H>) -> (Token, usize) {
    let (token, peer) = bench.open();
    bench.peers[peer].set_reading(false);
    bench.see(token).persistent = true;
    bench.send(token, &pattern(H::TOO_MUCH));
    let mut before = usize::MAX;
    while bench.seen(token).sent != before {
        before = bench.seen(token).sent;
        bench.turn_for(Duration::from_millis(300));
    }
    let seen = bench.seen(token);
    assert!(seen.sending, "more was taken than fits");
    assert!(seen.sent > 0 && seen.sent < H::TOO_MUCH, "a part went out, not {}", seen.sent);
    (token, peer)
}

pub(super) fn a_send_waits_for_the_peer<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = stuck_send(bench);
    let completions = bench.seen(token).send_completions;
    bench.turn_for(A_WHILE);
    assert_eq!(bench.seen(token).send_completions, completions, "no completion without a byte");

    bench.peers[peer].set_reading(true);
    bench.until("all has gone out", |bench| bench.seen(token).sent == H::TOO_MUCH);
    bench.until("all has arrived", |bench| bench.peers[peer].received().len() == H::TOO_MUCH);
    assert!(bench.peers[peer].received() == pattern(H::TOO_MUCH));
    assert!(bench.seen(token).returned.as_ref().is_some_and(SendBuffer::is_empty));
}

pub(super) fn delivery_tells_who_takes_something<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = stuck_send(bench);
    bench.turn_for(A_WHILE);
    let full = bench.delivery(token).expect("an open socket can be asked");
    assert!(full.waiting > 0);
    bench.turn_for(A_WHILE);
    let later = bench.delivery(token).expect("an open socket can be asked");
    assert!(!later.has_moved_since(&full), "{full:?}, then {later:?} where nobody reads");

    bench.peers[peer].set_reading(true);
    bench.until("some of it is taken", |bench| {
        bench.delivery(token).is_some_and(|now| now.has_moved_since(&later))
    });
    bench.until("all has arrived", |bench| bench.peers[peer].received().len() == H::TOO_MUCH);
    bench.until("all is acknowledged", |bench| {
        bench.delivery(token).is_some_and(|now| now.waiting == 0)
    });
    let all = bench.delivery(token).and_then(|now| now.acked).zip(full.acked);
    assert!(all.is_none_or(|(all, full)| all > full && all >= H::TOO_MUCH as u64));

    bench.until("the buffer is back", |bench| !bench.seen(token).sending);
    bench.submit(Op::Close { token });
    bench.until("it is closed", |bench| bench.seen(token).closed);
    assert_eq!(bench.delivery(token), None, "nobody is asked after the end");
}

pub(super) fn what_the_kernel_holds_of_a_stuck_send_is_known_and_can_be_dropped<H: Harness>(
    bench: &mut Bench<H>,
) {
    let (idle, _) = bench.open();
    let (token, peer) = stuck_send(bench);
    bench.until("it is stuck", |bench| bench.harness.driver().stuck_count() == 1);
    let driver = bench.harness.driver();
    assert_eq!(driver.unsent_memory(idle), 0);
    assert!(driver.unsent_memory(token) > 0);
    driver.discard(token);
    bench.submit(Op::Close { token });
    bench.until("it is closed", |bench| bench.seen(token).closed);
    bench.turn_for(A_WHILE);
    bench.until("the kernel holds nothing of it", |bench| {
        let driver = bench.harness.driver();
        (driver.stuck_count(), driver.unsent_memory(token)) == (0, 0)
    });
    bench.peers[peer].set_reading(true);
    bench.until("the peer sees a reset", |bench| bench.peers[peer].saw_reset());
    let sent = bench.seen(token).sent;
    assert!(bench.peers[peer].received().len() < sent, "all {sent} bytes were delivered");
}

/// An echo is over before the next turn, and its sender is not given up.
pub(super) fn nothing_is_dropped_of_what_was_delivered<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.receive(token);
    bench.see(token).persistent = true;
    bench.send(token, b"bye");
    bench.until("it has arrived", |bench| {
        bench.delivery(token).is_some_and(|delivery| delivery.waiting == 0)
            && bench.peers[peer].received() == b"bye"
    });
    assert_eq!(bench.harness.driver().stuck_count(), 0);
    bench.harness.driver().discard(token);
    bench.close(token);
    bench.until("the peer sees the end", |bench| bench.peers[peer].saw_eof());
    assert!(!bench.peers[peer].saw_reset());
}

pub(super) fn large_send<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    let all = pattern(H::TOO_MUCH / 4);
    bench.see(token).persistent = true;
    bench.send(token, &all);
    bench.until("all has arrived", |bench| bench.peers[peer].received().len() == all.len());
    assert!(bench.peers[peer].received() == all);
    bench.until("the buffer is back", |bench| !bench.seen(token).sending);
    assert_eq!(bench.seen(token).sent, all.len());
    // The connection is as good as before.
    bench.send(token, b"more");
    bench.until("more has arrived", |bench| bench.peers[peer].received().ends_with(b"more"));
}

pub(super) fn shutdown_leaves_receiving<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.receive(token);
    bench.see(token).persistent = true;
    bench.send(token, &pattern(5000));
    bench.until("it is sent", |bench| bench.seen(token).sent == 5000);
    bench.submit(Op::Shutdown { token });
    bench.until("the peer sees the end", |bench| bench.peers[peer].saw_eof());
    assert_eq!(bench.peers[peer].received(), pattern(5000));

    bench.peers[peer].write(b"still here");
    bench.until("it arrives", |bench| bench.seen(token).received == b"still here");
    assert_eq!(bench.seen(token).ended, None);
    bench.peers[peer].finish();
    bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
    assert_eq!(bench.seen(token).ended, Some(Ok(())));
}

pub(super) fn peer_finished_first<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.receive(token);
    bench.peers[peer].finish();
    bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
    assert_eq!(bench.seen(token).ended, Some(Ok(())));
    bench.see(token).persistent = true;
    bench.send(token, &pattern(100_000));
    bench.until("all has arrived", |bench| bench.peers[peer].received().len() == 100_000);
    assert!(bench.peers[peer].received() == pattern(100_000));
}

pub(super) fn close_is_seen_by_the_peer<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.receive(token);
    bench.see(token).persistent = true;
    bench.send(token, b"bye");
    bench.until("it is sent", |bench| bench.seen(token).sent == 3);
    bench.close(token);
    bench.until("the peer sees the end", |bench| bench.peers[peer].saw_eof());
    assert_eq!(bench.peers[peer].received(), b"bye");
}

pub(super) fn close_returns_the_send_first<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = stuck_send(bench);
    bench.see(token).persistent = false;
    bench.submit(Op::Close { token });
    // That the buffer comes before `Closed` is checked for every token.
    bench.until("the token is forgotten", |bench| bench.seen(token).closed);
    assert!(bench.seen(token).send_error.is_some());
    let sent = bench.seen(token).sent;
    let returned = bench.see(token).returned.take().unwrap();
    assert_eq!(returned.remaining().len(), H::TOO_MUCH - sent);

    bench.peers[peer].set_reading(true);
    bench.until("the peer sees the end", |bench| {
        bench.peers[peer].saw_eof() || bench.peers[peer].saw_reset()
    });
    assert!(pattern(H::TOO_MUCH).starts_with(bench.peers[peer].received()));
}

pub(super) fn close_in_the_middle_of_data<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.receive(token);
    bench.peers[peer].write(&pattern(200_000));
    bench.until("some arrives", |bench| bench.seen(token).received.len() > 1000);
    bench.submit(Op::Close { token });
    bench.until("the token is forgotten", |bench| bench.seen(token).closed);
    assert!(pattern(200_000).starts_with(&bench.seen(token).received));

    // What was still on its way is not taken for the next connection's.
    let next = Token { slot: token.slot, generation: token.generation + 1 };
    let peer = bench.open_as(next);
    bench.receive(next);
    bench.turn_for(A_WHILE);
    assert_eq!(bench.seen(next).receive_completions, 0);
    bench.peers[peer].write(b"mine");
    bench.until("it arrives", |bench| bench.seen(next).received == b"mine");
}

pub(super) fn a_slot_is_used_again<H: Harness>(bench: &mut Bench<H>) {
    for generation in 0..5 {
        let token = Token { slot: 7, generation };
        let peer = bench.open_as(token);
        bench.see(token).echo = true;
        bench.receive(token);
        bench.peers[peer].write(&pattern(3000));
        bench.until("all has come back", |bench| bench.peers[peer].received().len() == 3000);
        bench.until("the send is done", |bench| !bench.seen(token).sending);
        if generation % 2 == 0 {
            bench.peers[peer].finish();
            bench.until("the end is reported", |bench| bench.seen(token).ended.is_some());
        }
        bench.close(token);
        bench.until("the peer sees the end", |bench| bench.peers[peer].saw_eof());
    }
}

pub(super) fn an_unopened_socket_is_closed<H: Harness>(bench: &mut Bench<H>) {
    bench.accept(0);
    let peer = bench.connect(0);
    bench.until("the connection is accepted", |bench| !bench.accepted.is_empty());
    bench.accepted.clear();
    bench.until("the peer sees the end", |bench| bench.peers[peer].saw_eof());
}

pub(super) fn wake_ends_a_wait<H: Harness>(bench: &mut Bench<H>) {
    for _ in 0..3 {
        let start = bench.now();
        bench.harness.wake_soon();
        bench.turn(FOREVER);
        assert!(bench.harness.woke(), "it ended before");
        assert!(bench.now() - start < FOREVER, "it did not end the wait");
    }
}

pub(super) fn several_wakes_are_one<H: Harness>(bench: &mut Bench<H>) {
    let waker = bench.harness.driver().waker();
    for _ in 0..3 {
        let start = bench.now();
        waker.wake();
        waker.wake();
        bench.harness.driver().waker().wake();
        bench.turn(FOREVER);
        let woken = bench.now();
        assert!(woken - start < FOREVER, "a wake before the wait counts");
        bench.turn(A_WHILE);
        assert!(bench.now() - woken >= A_WHILE, "the wakes were used up");
    }
}

pub(super) fn wait_keeps_its_timeout<H: Harness>(bench: &mut Bench<H>) {
    for timeout in [0, 1, 20, 100].map(Duration::from_millis) {
        let start = bench.now();
        bench.turn(timeout);
        let waited = bench.now() - start;
        assert!(waited >= timeout, "{waited:?} is less than {timeout:?}");
        assert!(waited < timeout + Duration::from_secs(5), "{waited:?} is more than {timeout:?}");
    }
}

pub(super) fn a_wait_does_not_sleep_over_an_outcome<H: Harness>(bench: &mut Bench<H>) {
    let (token, peer) = bench.open();
    bench.peers[peer].write(b"early");
    bench.turn_for(A_WHILE);
    let start = bench.now();
    bench.receive(token);
    while bench.seen(token).received != b"early" {
        bench.turn(FOREVER);
    }
    bench.send(token, b"late");
    while bench.seen(token).sending {
        bench.turn(FOREVER);
    }
    bench.submit(Op::Close { token });
    while !bench.seen(token).closed {
        bench.turn(FOREVER);
    }
    assert!(bench.now() - start < FOREVER, "it slept");
}

pub(super) fn what_is_held_is_counted<H: Harness>(bench: &mut Bench<H>) {
    fn held<H: Harness>(bench: &mut Bench<H>, token: Token) -> usize {
        let driver = bench.harness.driver();
        let (all, own) = (driver.held_len(), driver.held_of(token.slot));
        assert_eq!(all, own, "nothing is held of others");
        own
    }
    let (token, peer) = bench.open();
    bench.open();
    let piece = pattern(3000);
    for round in 0..4 {
        bench.receive(token);
        bench.peers[peer].write(&piece);
        bench.until("some arrives", |bench| bench.seen(token).received.len() > round * 6000);
        bench.submit(Op::StopReceive { token });
        bench.peers[peer].write(&piece);
        let until = bench.now() + A_WHILE;
        while bench.now() < until {
            bench.turn(Duration::ZERO);
            held(bench, token);
            bench.turn(Duration::from_millis(1));
        }
        bench.receive(token);
        let all = (round + 1) * 6000;
        bench.until("all arrives", |bench| bench.seen(token).received.len() == all);
        assert_eq!(held(bench, token), 0, "it was handed over");
        bench.submit(Op::StopReceive { token });
        bench.turn_for(A_WHILE);
    }
    bench.peers[peer].write(&piece);
    bench.turn_for(A_WHILE);
    bench.close(token);
    assert_eq!(held(bench, token), 0, "it went with its socket");
}

pub(super) fn a_flood_holds_up_nobody<H: Harness>(bench: &mut Bench<H>) {
    let (flooded, flood) = bench.open();
    let (modest, peer) = bench.open();
    bench.receive(flooded);
    bench.receive(modest);
    for round in 1..=10 {
        bench.peers[peer].write(b"x");
        bench.until("the other is heard", |bench| {
            bench.peers[flood].write(&pattern(16 << 10));
            bench.seen(modest).received.len() == round
        });
    }
    assert!(!bench.seen(flooded).received.is_empty());
}

pub(super) fn many_sockets<H: Harness>(bench: &mut Bench<H>) {
    const COUNT: u16 = 150;
    bench.accept(0);
    let first = bench.peers.len();
    for index in 1..=COUNT {
        bench.connect(0);
        // Connecting blocks once the listener's backlog is full.
        if index % 64 == 0 {
            bench.turn(Duration::ZERO);
        }
    }
    bench.until("all are accepted", |bench| bench.accepted.len() == usize::from(COUNT));
    for slot in 0..u32::from(COUNT) {
        let token = Token { slot, generation: 0 };
        let (_, socket) = bench.accepted.pop_front().unwrap();
        bench.take(token, socket);
        bench.see(token).echo = true;
        bench.receive(token);
    }
    for round in 1..=2 {
        for (index, peer) in bench.peers[first..].iter_mut().enumerate() {
            peer.write(&pattern(100 + index));
        }
        bench.until("all has come back", |bench| {
            let peers = bench.peers[first..].iter().enumerate();
            peers.fold(true, |all, (index, peer)| {
                all && peer.received().len() == round * (100 + index)
            })
        });
    }
    for (index, peer) in bench.peers[first..].iter().enumerate() {
        assert_eq!(peer.received(), pattern(100 + index).repeat(2));
    }
}

pub(super) fn adopt<H: Harness>(bench: &mut Bench<H>) {
    let (mut peer, fd) = bench.harness.adoptable();
    peer.write(b"early");
    bench.peers.push(peer);
    let peer = bench.peers.len() - 1;
    let socket = bench.harness.driver().adopt(fd).unwrap();
    // Given away again, as to another worker's driver, it is what it was.
    let fd = bench.harness.driver().detach(socket);
    let socket = bench.harness.driver().adopt(fd).unwrap();
    let token = Token { slot: 3, generation: 9 };
    bench.take(token, socket);
    bench.see(token).echo = true;
    bench.receive(token);
    bench.until("it comes back", |bench| bench.peers[peer].received() == b"early");
    bench.peers[peer].finish();
    bench.until("the end is reported", |bench| bench.seen(token).ended == Some(Ok(())));
    // An adopted socket doesn't block the driver.
    bench.turn_for(A_WHILE);
}
