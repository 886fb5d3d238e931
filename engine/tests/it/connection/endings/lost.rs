//! Where output is lost all the same, the cause says how much.

use std::time::{Duration, Instant};

use ringwire::{Backpressure, CloseReason, Config};
use ringwire_peers::{Client, ENDS, Way, frame};

use super::peer::{open, serve};
use crate::support::{Server, config, wait_until};

/// More than sockets hold.
const REPLY_LEN: usize = 24 << 20;
const STALL: Duration = Duration::from_millis(500);

fn flooding(config: Config) -> Server {
    let roomy = config.with_max_queued_len(64 << 20).with_backpressure(Backpressure::DropNewest);
    serve(roomy.with_write_stall_timeout(STALL), |app| {
        app.on_message(|ctx, _| {
            let _ = ctx.send(vec![7; REPLY_LEN].as_slice());
        })
    })
}

/// All that was sent, when nothing is on its way to the kernel.
fn sent(server: &Server) -> u64 {
    wait_until("nothing waits", || server.stats().queued_bytes == 0);
    server.stats().bytes_sent
}

/// A reply has a header of ten bytes (RFC 6455 §5.2).
fn expected_len() -> u64 {
    u64::try_from(REPLY_LEN + 10).unwrap()
}

/// A peer that has ended its stream and takes nothing is ended by the write stall, and the cause counts each byte.
#[test]
fn the_cause_says_what_a_half_closed_peer_did_not_take() {
    let server = flooding(config());
    for (way, end) in ENDS {
        let mut peer = open(&server, way);
        let before = sent(&server);
        let begun = Instant::now();
        peer.raw(&frame(0x81, b"much"));
        peer.end_with(end);
        let cause = server.closed();
        assert!(begun.elapsed() > STALL, "{way:?}, {end:?}: after {:?}", begun.elapsed());
        assert_eq!(cause.reason, CloseReason::WriteStall, "{way:?}, {end:?}");
        let lost = u64::try_from(cause.unsent_len).unwrap();
        let all = lost + server.stats().bytes_sent - before;
        let expected = expected_len();
        // Records of TLS add less than a hundredth.
        let most = if way == Way::Plain { expected } else { expected + expected / 100 };
        assert!((expected..=most).contains(&all), "{way:?}, {end:?}: {all} bytes, {cause:?}");
        assert!(!cause.is_clean());
        drop(peer);
        wait_until("it is gone", || server.stats().connections == 0);
    }
}

#[test]
fn the_cause_says_what_was_lost_in_a_reset() {
    let server = flooding(config());
    let mut client = Client::connect(server.addr());
    let before = sent(&server);
    client.send("much");
    let mut sent = before;
    wait_until("the sockets take no more of the reply", || {
        let so_far = server.stats().bytes_sent;
        so_far > before && so_far == std::mem::replace(&mut sent, so_far)
    });
    client.reset();
    let cause = server.closed();
    assert!(matches!(cause.reason, CloseReason::Transport(_)), "{cause:?}");
    let lost = u64::try_from(cause.unsent_len).unwrap();
    assert_eq!(lost + server.stats().bytes_sent - before, expected_len(), "{cause:?}");
}
