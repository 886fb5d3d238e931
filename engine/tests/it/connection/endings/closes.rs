//! RFC 6455 §7.1.1: whoever ends a connection shuts down its sending side first, and reads and drops until the other's
//! end. Closed with unread input, or sent to when closed, a socket answers with a reset (RFC 9293 §3.6.1).

use std::io::Write as _;
use std::time::{Duration, Instant};

use ringwire::{CloseCode, CloseReason, Config, compression::CompressionConfig};
use ringwire_codec::Message;
use ringwire_peers::{ENDS, End, Got, Way, frame};

use super::peer::{offering, open, serve};
use crate::support::{Gate, config, ms, wait_until};

const CLOSE: &[u8] = b"\x03\xe8bye";

fn roomy() -> Config {
    config().with_protocol(ringwire_codec::Config::default().with_max_message_len(8 << 20))
}

fn reply_and_close(payload: &[u8]) -> [Got; 2] {
    [Got::Binary(payload.to_vec()), Got::Close(1000, "bye".into())]
}

#[test]
fn what_follows_a_close_frame_loses_neither_reply_nor_close() {
    let server = serve(roomy(), |app| app.without_messages());
    let late = [frame(0x89, b""), frame(0x81, b"late"), frame(0x88, &[3, 0xe8])];
    for way in [Way::Plain, Way::Tls13] {
        for len in [5, 300_000, 4 << 20] {
            for late in &late {
                let payload = vec![b'x'; len];
                let mut peer = open(&server, way);
                peer.raw(&[frame(0x82, &payload), frame(0x88, CLOSE)].concat());
                server.looks();
                // The server may have ended by then, but has not reset it.
                peer.raw(late);
                server.looks();
                let got = peer.rest_as_frames();
                assert!(got == reply_and_close(&payload), "{way:?}, {len} bytes, then {late:?}");
                drop(peer);
                let cause = server.closed();
                assert_eq!(cause.reason, CloseReason::Peer);
                assert!(cause.is_clean());
            }
        }
    }
}

#[test]
fn a_close_frame_and_the_end_behind_it_lose_nothing() {
    let server = serve(roomy(), |app| app.without_messages());
    for (way, end) in ENDS {
        for len in [5, 92_000, 100_000, 300_000, 1 << 20, 8 << 20] {
            let payload = vec![b'x'; len];
            let mut peer = open(&server, way);
            let all = [frame(0x82, &payload), frame(0x88, CLOSE)].concat();
            let sender = peer.raw_and_end(&all, end);
            server.looks();
            let got = peer.rest_as_frames();
            assert!(got == reply_and_close(&payload), "{way:?}, {end:?}, {len}");
            sender.join().unwrap();
            drop(peer);
            let cause = server.closed();
            assert!(cause.is_clean() && cause.unsent_len == 0, "{way:?}, {end:?}: {cause:?}");
        }
    }
}

#[test]
fn a_compressed_reply_before_a_close_is_whole() {
    for mode in [CompressionConfig::shared(), CompressionConfig::dedicated()] {
        let server = serve(roomy().with_compression(mode), |app| app.without_messages());
        // It deflates badly, so that the reply is long.
        let mut state = 1_u32;
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(1 << 20)
        .collect();
        for (way, end) in ENDS {
            let mut peer = offering(&server, way);
            let mut all = peer.encode_compressed(std::iter::once(Message::Binary(&payload)));
            all.extend(frame(0x88, CLOSE));
            let sender = peer.raw_and_end(&all, end);
            server.looks();
            assert!(peer.rest_as_frames() == reply_and_close(&payload), "{way:?}, {end:?}");
            sender.join().unwrap();
            assert!(server.closed().is_clean());
        }
    }
}

/// The application hears of the end when both close frames and FIN are out, whenever the peer's FIN comes.
#[test]
fn a_lingering_peer_keeps_no_application_waiting_and_is_closed_in_time() {
    let server = serve(config().with_close_timeout(ms(500)), |app| app);
    for way in [Way::Plain, Way::Tls12, Way::Tls13] {
        let mut peer = open(&server, way);
        peer.raw(&frame(0x88, CLOSE));
        assert!(server.closed().is_clean());
        assert_eq!(peer.rest_as_frames(), [Got::Close(1000, "bye".into())]);
        // It closes nothing itself, and the server does not wait for ever.
        wait_until("the socket is closed", || server.stats().connections == 0);
    }
}

/// A close that may take as long as it likes is no socket that stays for ever.
#[test]
fn a_connection_lingers_for_a_limited_time_whatever_the_close_timeout() {
    let server = serve(config().with_close_timeout(None), |app| app);
    let mut peer = open(&server, Way::Plain);
    peer.raw(&frame(0x88, CLOSE));
    assert!(server.closed().is_clean());
    assert_eq!(peer.rest_as_frames(), [Got::Close(1000, "bye".into())]);
    // A shutdown waits for a second of it at most.
    let begun = Instant::now();
    server.handle().shutdown(ms(60_000));
    server.join().unwrap();
    assert!(begun.elapsed() < ms(7_000), "{:?}", begun.elapsed());
}

/// What is dropped after a close has a limit, past which the peer is reset.
#[test]
fn a_peer_that_goes_on_and_on_after_a_close_is_reset() {
    let server = serve(config().with_close_timeout(ms(60_000)), |app| app);
    for way in [Way::Plain, Way::Tls13] {
        let mut peer = open(&server, way);
        peer.raw(&frame(0x88, CLOSE));
        assert!(server.closed().is_clean());
        let chunk = vec![0; 1 << 20];
        // Beside what is dropped, the sockets of both sides hold some.
        let taken = (0..64).take_while(|_| peer.stream.write_all(&chunk).is_ok()).count();
        assert!((16..64).contains(&taken), "{way:?}: {taken} MiB were taken");
        wait_until("the socket is closed", || server.stats().connections == 0);
    }
}

/// A peer that has ended its stream can't answer a close frame, and is not waited for.
#[test]
fn a_close_after_the_peer_has_ended_its_stream_is_not_waited_for() {
    let patient = config().with_compute_workers(1).with_close_timeout(ms(60_000));
    for (way, end) in ENDS {
        let (begun, go_on) = (Gate::new(), Gate::new());
        let gates = (begun.clone(), go_on.clone());
        let server = serve(patient.clone(), move |app| {
            let (begun, go_on) = gates.clone();
            app.on_message(move |ctx, _| {
                let (begun, go_on) = (begun.clone(), go_on.clone());
                let job = move || {
                    begun.open();
                    go_on.pass();
                };
                ctx.offload(job, |ctx, _| {
                    let _ = ctx.send("the last word");
                    ctx.close(CloseCode::new(4001), "enough").unwrap();
                })
                .unwrap();
            })
        });
        let mut peer = open(&server, way);
        peer.raw(&frame(0x81, b"job"));
        begun.pass();
        peer.end_with(end);
        server.looks();
        let since = Instant::now();
        go_on.open();
        let expected = [Got::Text("the last word".into()), Got::Close(4001, "enough".into())];
        assert_eq!(peer.rest_as_frames(), expected, "{way:?}, {end:?}");
        assert!(since.elapsed() < Duration::from_secs(5), "{way:?}, {end:?}: it was waited for");
        let cause = server.closed();
        assert_eq!(cause.unsent_len, 0, "{way:?}, {end:?}: {cause:?}");
        assert_eq!(cause.code, Some(CloseCode::new(4001)), "{way:?}, {end:?}: {cause:?}");
        drop(peer);
    }
}

/// A shutdown tells those that have ended their streams as well, and waits for no answer.
#[test]
fn a_shutdown_waits_for_no_peer_that_has_ended_its_stream() {
    for (way, end) in [(Way::Plain, End::Fin), (Way::Tls13, End::Notice), (Way::Tls13, End::Fin)] {
        let (begun, go_on) = (Gate::new(), Gate::new());
        let gates = (begun.clone(), go_on.clone());
        let server = serve(config().with_compute_workers(1), move |app| {
            let (begun, go_on) = gates.clone();
            app.on_message(move |ctx, _| {
                let (begun, go_on) = (begun.clone(), go_on.clone());
                let job = move || {
                    begun.open();
                    go_on.pass();
                };
                ctx.offload(job, |_, _| {}).unwrap();
            })
        });
        let mut peer = open(&server, way);
        peer.raw(&frame(0x81, b"job"));
        begun.pass();
        peer.end_with(end);
        server.looks();
        let since = Instant::now();
        server.handle().shutdown(ms(60_000));
        let got = peer.rest_as_frames();
        assert!(matches!(got[..], [Got::Close(1001, _)]), "{way:?}, {end:?}: {got:?}");
        drop(peer);
        go_on.open();
        server.join().unwrap();
        assert!(since.elapsed() < Duration::from_secs(5), "{way:?}, {end:?}: it was waited for");
    }
}
