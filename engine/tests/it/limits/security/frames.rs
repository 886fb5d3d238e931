//! Frames that declare much, break the rules, or never end.

use std::net::Shutdown;

use ringwire::{CloseReason, tuning::ProtocolConfig};
use ringwire_codec::{Error, Limit};
use ringwire_peers::{Got, frame, masked};

use super::{quiet, round_trip};
use crate::support::process::{ran_alone, resident_len};
use crate::support::{Server, config, ms, wait_until};

#[test]
fn declared_length_no_allocation() {
    if ran_alone(declared_length_no_allocation) {
        return;
    }
    let server = Server::echo(config());
    let mut bystander = server.client();
    for len in [(1 << 20) + 1, 1 << 40, (1 << 63) - 1] {
        let mut client = server.client();
        client.raw(&masked(0x82, len, b""));
        assert_eq!(client.close_frame().0, 1009, "{len} bytes");
        assert_eq!(client.end(), Got::Eof);
    }
    let mut client = server.client();
    client.raw(&masked(0x82, 1 << 63, b""));
    assert_eq!(client.close_frame().0, 1002, "the most significant bit");
    // A fragment that is within the limit, and its continuation beyond it.
    let mut client = server.client();
    client.raw(&frame(0x02, &[7; 1000]));
    client.raw(&masked(0x80, (1 << 20) - 999, b""));
    assert_eq!(client.close_frame().0, 1009);
    round_trip(&mut bystander);

    // Where so much is allowed, it is believed only as it comes.
    let roomy = Server::echo(quiet().with_max_message_len(1 << 30));
    let before = resident_len();
    let mut clients: Vec<_> = (0..100).map(|_| roomy.client()).collect();
    for client in &mut clients {
        client.raw(&masked(0x82, 1 << 30, &[7; 20_000]));
    }
    wait_until("all has arrived", || roomy.stats().bytes_received > 100 * 20_000);
    let grown = resident_len().saturating_sub(before);
    // 100 GiB were declared.
    assert!(grown < 256 << 20, "{grown} bytes");
    round_trip(&mut roomy.client());
}

#[test]
fn fragments_forever() {
    let protocol =
        ProtocolConfig::default().with_max_message_len(300_000).with_max_fragment_count(1000);
    let server = Server::echo(config().with_protocol(protocol));
    for (len, count) in [(0, 1000), (1, 1000), (64 << 10, 4)] {
        let mut client = server.client();
        client.raw(&frame(0x02, &vec![7; len]));
        for _ in 0..count {
            client.raw(&frame(0x00, &vec![7; len]));
        }
        assert_eq!(client.close_frame().0, 1009, "fragments of {len} bytes");
        assert_eq!(client.end(), Got::Eof);
    }
    // The counts begin anew with each message.
    let mut client = server.client();
    let message = [frame(0x02, &[1; 100]), frame(0x00, &[2; 100]), frame(0x80, &[3; 100])].concat();
    for _ in 0..20 {
        client.raw(&message.repeat(100));
        for _ in 0..100 {
            assert_eq!(client.binary().len(), 300);
        }
    }
    client.leave();
    let causes = std::iter::repeat_with(|| server.closed().reason);
    let too_long = |limit| CloseReason::Protocol(Error::LimitExceeded(limit));
    assert_eq!(
        causes.take(4).collect::<Vec<_>>(),
        [
            too_long(Limit::FragmentCount),
            too_long(Limit::FragmentCount),
            too_long(Limit::MessageLen),
            CloseReason::Peer,
        ]
    );
}

#[test]
fn length_encoding() {
    let server = Server::echo(config());
    let longest = masked(0x82, 70_000, &[7; 4]);
    let frames = [frame(0x81, b"text"), frame(0x82, &[7; 200]), longest, frame(0x89, b"ping")];
    let mut count = 0;
    for frame in frames {
        for cut in 1..frame.len().min(20) {
            let mut client = server.client();
            client.raw(&frame[..cut]);
            client.stream.shutdown(Shutdown::Write).unwrap();
            client.end();
            count += 1;
        }
    }
    wait_until("all are gone", || server.stats().connections == 0);
    assert_eq!(server.stats().closes.total(), count);
    for bytes in [
        masked(0x82, 1 << 63, b""),
        // A length of 5 in 16 bits, one of 500 in 64.
        vec![0x82, 0xfe, 0, 5, 1, 2, 3, 4],
        vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 1, 0xf4, 1, 2, 3, 4],
    ] {
        let mut client = server.client();
        client.raw(&bytes);
        assert_eq!(client.close_frame().0, 1002, "{bytes:x?}");
    }
}

#[test]
fn reserved_bits() {
    let server = Server::echo(config());
    let unmasked = vec![0x81, 2, b'h', b'i'];
    let fragmented_ping = frame(0x09, b"");
    let long_ping = frame(0x89, &[7; 126]);
    let mut wrong = vec![unmasked, fragmented_ping, long_ping];
    wrong.extend([0xc1, 0xa1, 0x91].map(|first| frame(first, b"x")));
    wrong.extend([0x83, 0x87, 0x8b, 0x8f].map(|first| frame(first, b"x")));
    for bytes in wrong {
        let mut client = server.client();
        client.raw(&bytes);
        assert_eq!(client.close_frame().0, 1002, "{bytes:x?}");
        assert_eq!(client.end(), Got::Eof);
    }
}

#[test]
fn control_payload_exact() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, message| ctx.ping(message.as_bytes()).unwrap())
    });
    let mut client = server.client();
    for len in 0..=125 {
        let payload: Vec<u8> = (1..=len).rev().collect();
        client.ping(&payload);
        assert_eq!(client.next(), Got::Pong(payload.clone()));
        client.send(payload.as_slice());
        assert_eq!(client.next(), Got::Ping(payload));
    }
    for reason in ["", "é", &"x".repeat(123)] {
        let mut client = server.client();
        client.close(4321, reason);
        assert_eq!(client.close_frame(), (4321, reason.to_owned()));
    }
}

#[test]
fn close_codes() {
    let server = Server::echo(config());
    let answer_to = |body: &[u8]| {
        let mut client = server.client();
        client.answers = false;
        client.raw(&frame(0x88, body));
        let answer = client.close_frame().0;
        assert_eq!(client.end(), Got::Eof);
        answer
    };
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4999]
    {
        assert_eq!(answer_to(&u16::to_be_bytes(code)), code);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(answer_to(&u16::to_be_bytes(code)), 1002, "{code}");
    }
    assert_eq!(answer_to(&[]), 1005);
    assert_eq!(answer_to(&[3]), 1002, "half a code");
    assert_eq!(answer_to(&[3, 0xe8, 0xff]), 1007, "a reason that is not UTF-8");
    assert_eq!(answer_to(&[3, 0xe8, 0xc3]), 1007, "a reason that ends in a character");
}

#[test]
fn utf8_incremental() {
    let server = Server::echo(config());
    let fails_after = |pieces: &[Vec<u8>]| {
        let mut client = server.client();
        for piece in pieces {
            client.raw(piece);
        }
        let (code, _) = client.close_frame();
        assert_eq!(client.end(), Got::Eof);
        code
    };
    // Most of the frame has not come, and never will.
    assert_eq!(fails_after(&[masked(0x81, 1000, b"so far so good \xff")]), 1007);
    assert_eq!(fails_after(&[masked(0x81, 1000, b"\xc0\xaf")]), 1007, "overlong");
    assert_eq!(fails_after(&[masked(0x81, 1000, b"\xed\xa0")]), 1007, "half of a surrogate");
    assert_eq!(fails_after(&[masked(0x81, 1000, b"\xf4\x90")]), 1007, "beyond U+10FFFF");
    // Across fragments: the first ends inside a character.
    let begin = frame(0x01, b"caf\xc3");
    assert_eq!(fails_after(&[begin.clone(), masked(0x00, 1000, b"x")]), 1007);
    assert_eq!(fails_after(&[begin, frame(0x80, b"")]), 1007, "the end of the message");
    // Across reads: nothing is wrong until the last of these bytes.
    let mut client = server.client();
    let wire = masked(0x81, 1000, b"\xf0\x9f\x98x");
    for byte in &wire[..wire.len() - 1] {
        client.raw(&[*byte]);
        assert_eq!(client.next_within(ms(5)), None);
    }
    client.raw(&wire[wire.len() - 1..]);
    assert_eq!(client.close_frame().0, 1007);
    // A close frame between does not matter to what is under way, and binary may be anything.
    let mut client = server.client();
    client.send(b"\xff\xfe".as_slice());
    assert_eq!(client.binary(), b"\xff\xfe");
}
