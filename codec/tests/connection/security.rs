//! Bad input and hostile peers: the rows of the security list that frames alone can show.

use ringwire_codec::{
    CloseCode, Config, Connection, Error, Event, FrameHeader, Heap, Input, Limit, OpCode, Role,
    Violation,
};

use crate::drive::{KEY, Mode, Seen, drive};
use crate::frames::{client, frame};
use crate::memory::Counting;

fn header(opcode: OpCode, fin: bool, payload_len: u64) -> Vec<u8> {
    let mut wire = Vec::new();
    FrameHeader::new(opcode, fin, Some(KEY), payload_len).encode(&mut wire);
    wire
}

/// Receives all of `wire` and counts the messages.
fn receive(
    server: &mut Connection,
    config: &Config,
    buffers: &mut Counting,
    wire: &[u8],
) -> Result<usize, Error> {
    let mut wire = wire.to_vec();
    let mut input = Input::new(&mut wire);
    let mut message_count = 0;
    while let Some(event) = server.receive(config, buffers, &mut input)? {
        if let Event::Message(message) = event {
            message_count += 1;
            if let Some(buffer) = message.into_buffer() {
                ringwire_codec::Buffers::give(buffers, buffer);
            }
        }
    }
    Ok(message_count)
}

fn fails_with(wire: &[u8], error: Error) {
    let outcome = drive(Role::Server, Config::default(), Mode::Whole, [wire]);
    assert_eq!(outcome.seen, [Seen::Failed(error)], "{wire:02x?}");
    let mut close = vec![0x88, 2];
    close.extend(error.close_code().get().to_be_bytes());
    assert_eq!(outcome.owed, close);
}

#[test]
fn declared_length_no_allocation() {
    let config = Config::default();
    let too_long = Error::LimitExceeded(Limit::MessageLen);
    assert_eq!(too_long.close_code(), CloseCode::MESSAGE_TOO_BIG);
    for len in [config.max_message_len as u64 + 1, 1 << 40, i64::MAX as u64] {
        for fin in [true, false] {
            let mut server = Connection::new(Role::Server);
            let mut buffers = Counting::default();
            let wire = header(OpCode::Binary, fin, len);
            assert_eq!(receive(&mut server, &config, &mut buffers, &wire), Err(too_long));
            assert_eq!((buffers.taken.len(), server.buffered_len()), (0, 0));
        }
    }

    // What the limit allows is believed once 16 KiB have been paid for it.
    let len = config.max_message_len;
    let mut server = Connection::new(Role::Server);
    let mut buffers = Counting::default();
    let steps = [
        (header(OpCode::Binary, true, len as u64), &[][..]),
        (vec![0; 1], &[16 << 10]),
        (vec![0; (16 << 10) - 1], &[16 << 10]),
        (vec![0; 1], &[16 << 10, len]),
        (vec![0; len - (16 << 10) - 2], &[16 << 10, len]),
    ];
    for (wire, taken) in steps {
        assert_eq!(receive(&mut server, &config, &mut buffers, &wire), Ok(0));
        assert_eq!(buffers.taken, taken);
    }
    assert_eq!(receive(&mut server, &config, &mut buffers, &[0]), Ok(1));
    assert_eq!((buffers.out_count(), server.buffered_len()), (0, 0));

    // Never more than the length.
    for (len, taken) in [(100, &[100][..]), (16 << 10, &[16 << 10]), (20_000, &[16 << 10, 20_000])]
    {
        let wire = client(OpCode::Binary, true, &vec![7; len]);
        let mut buffers = Counting::default();
        for piece in wire.chunks(99) {
            receive(&mut server, &config, &mut buffers, piece).expect("it is within the limit");
        }
        assert_eq!(buffers.taken, taken);
    }
}

#[test]
fn no_memory_is_an_error_and_no_abort() {
    let config = Config::default();
    let mut server = Connection::new(Role::Server);
    let mut buffers = Counting { exhausted: true, ..Counting::default() };
    let wire = [header(OpCode::Binary, true, 1 << 20), vec![0; 20_000]].concat();
    assert_eq!(
        receive(&mut server, &config, &mut buffers, &wire),
        Err(Error::LimitExceeded(Limit::Memory))
    );
    assert_eq!((buffers.out_count(), server.buffered_len()), (0, 0));
}

#[test]
fn length_encoding() {
    let not_minimal = Error::PeerMisbehaved(Violation::LengthNotMinimal);
    let too_large = Error::PeerMisbehaved(Violation::LengthTooLarge);
    for (long, error) in [
        (125, not_minimal),
        (65_535, not_minimal),
        (1 << 63, too_large),
        (u64::MAX, too_large),
        (u64::MAX - 14, too_large),
        (i64::MAX as u64, Error::LimitExceeded(Limit::MessageLen)),
    ] {
        fails_with(&[&[0x82, 0xff][..], &long.to_be_bytes(), &KEY].concat(), error);
    }
    for (len, payload_len) in [(125, 0), (125, 125), (0, 0)] {
        let wire = [&[0x82, 0xfe, 0, len][..], &KEY, &vec![0; payload_len]].concat();
        fails_with(&wire, not_minimal);
    }

    // A sum that overflows, with a limit that does not help.
    let config = Config::default().with_max_message_len(usize::MAX);
    let wire = [
        client(OpCode::Binary, false, b"x"),
        header(OpCode::Continuation, false, i64::MAX as u64),
        vec![0; 100],
    ]
    .concat();
    let outcome = drive(Role::Server, config, Mode::Whole, [&wire[..]]);
    assert_eq!(outcome.seen, []);

    // Every header cut at every byte, then the end of the input.
    for (opcode, len) in [(OpCode::Ping, 125), (OpCode::Text, 126), (OpCode::Binary, 70_000)] {
        let wire = header(opcode, true, len);
        for cut in 1..=wire.len() {
            let mut server = Connection::new(Role::Server);
            let mut buffers = Counting::default();
            assert_eq!(receive(&mut server, &Config::default(), &mut buffers, &wire[..cut]), Ok(0));
            assert!(server.is_receiving_message());
            assert!(server.receive_eof().is_err());
            server.clear(&mut buffers);
            assert_eq!((buffers.out_count(), server.buffered_len()), (0, 0));
        }
    }
}

#[test]
fn reserved_bits() {
    let misbehaved = Error::PeerMisbehaved;
    for first in 0..=255_u8 {
        let mut wire = client(OpCode::Binary, true, b"");
        wire[0] = first;
        let error = match (first & 0x0f, first & 0x80 != 0) {
            (3..=7 | 11..=15, _) => misbehaved(Violation::ReservedOpCode),
            (8..=10, false) => misbehaved(Violation::FragmentedControl),
            _ if first & 0x70 != 0 => misbehaved(Violation::ReservedBits),
            (0, _) => misbehaved(Violation::ContinuationWithoutStart),
            _ => continue,
        };
        fails_with(&wire, error);
    }
    fails_with(&header(OpCode::Ping, true, 126), misbehaved(Violation::ControlTooLong));
    let unmasked = frame(Role::Server, OpCode::Text, true, b"x");
    fails_with(&unmasked, misbehaved(Violation::UnmaskedClientFrame));
    let masked = client(OpCode::Text, true, b"x");
    let outcome = drive(Role::Client, Config::default(), Mode::Whole, [&masked[..]]);
    assert_eq!(outcome.seen, [Seen::Failed(misbehaved(Violation::MaskedServerFrame))]);
}

#[test]
fn fragments_forever() {
    let config = Config::default();
    for (len, limit) in
        [(0, Limit::FragmentCount), (1, Limit::FragmentCount), (64 << 10, Limit::MessageLen)]
    {
        let mut server = Connection::new(Role::Server);
        let mut buffers = Counting::default();
        let mut received_len = 0;
        let mut wire = client(OpCode::Binary, false, &vec![7; len]);
        let error = loop {
            match receive(&mut server, &config, &mut buffers, &wire) {
                Ok(message_count) => assert_eq!(message_count, 0),
                Err(error) => break error,
            }
            received_len += wire.len();
            assert!(server.buffered_len() <= 2 * received_len + 2048, "{}", server.buffered_len());
            wire = client(OpCode::Continuation, false, &vec![7; len]);
        };
        assert_eq!(error, Error::LimitExceeded(limit), "fragments of {len}");
        assert_eq!(error.close_code(), CloseCode::MESSAGE_TOO_BIG);
        assert_eq!((buffers.out_count(), server.buffered_len()), (0, 0));
    }
}

/// 10^7 messages, and a tenth of that in a debug build, which would take half a minute. Five are
/// enough to show a counter that is not reset.
#[test]
fn fragments_forever_counters_reset() {
    let config = Config::default().with_max_message_len(30).with_max_fragment_count(20);
    let message = [
        client(OpCode::Binary, false, b"abc"),
        client(OpCode::Continuation, false, b"d"),
        client(OpCode::Continuation, true, b""),
    ]
    .concat();
    let batch = message.repeat(100);
    let mut server = Connection::new(Role::Server);
    let mut wire = batch.clone();
    let mut message_count = 0;
    let batch_count = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    for _ in 0..batch_count {
        wire.copy_from_slice(&batch);
        let mut input = Input::new(&mut wire);
        while let Some(event) =
            server.receive(&config, &mut Heap, &mut input).expect("the limits are per message")
        {
            assert!(matches!(event, Event::Message(_)));
            message_count += 1;
        }
    }
    assert_eq!((message_count, server.buffered_len()), (100 * batch_count, 0));
}

#[test]
fn pings_may_be_left_to_the_caller() {
    let config = Config::default().with_answers_pings(false);
    let mut server = Connection::new(Role::Server);
    let ping = client(OpCode::Ping, true, b"a");
    assert_eq!(receive(&mut server, &config, &mut Counting::default(), &ping), Ok(0));
    assert!(!server.wants_transmit());
    let mut out = Vec::new();
    assert_eq!(server.send_pong(b"a", &mut || KEY, &mut out), Ok(()));
    assert_eq!(out, [0x8a, 1, b'a']);
}

#[test]
fn control_flood() {
    let config = Config::default();
    let too_many = Error::LimitExceeded(Limit::ControlCount);
    assert_eq!(too_many.close_code(), CloseCode::POLICY_VIOLATION);

    // One pong at most is owed: the newest.
    let mut server = Connection::new(Role::Server);
    let mut buffers = Counting::default();
    for i in 0..config.max_control_count {
        let ping = client(OpCode::Ping, true, &i.to_be_bytes());
        assert_eq!(receive(&mut server, &config, &mut buffers, &ping), Ok(0));
        assert!(server.buffered_len() <= 126, "{}", server.buffered_len());
    }
    let mut out = Vec::new();
    assert!(server.poll_transmit(&mut || KEY, &mut out));
    assert_eq!(out, [0x8a, 2, 0, 255]);
    assert_eq!(
        receive(&mut server, &config, &mut buffers, &client(OpCode::Ping, true, b"")),
        Err(too_many)
    );
    out.clear();
    assert!(server.poll_transmit(&mut || KEY, &mut out));
    assert_eq!(out, [0x88, 2, 0x03, 0xf0], "the close frame alone");

    // Who keeps to the rate goes on for ever.
    let mut server = Connection::new(Role::Server);
    for _ in 0..10 {
        server.reset_control_window();
        let pongs = client(OpCode::Pong, true, b"x").repeat(256);
        assert_eq!(receive(&mut server, &config, &mut buffers, &pongs), Ok(0));
    }

    // Empty fragments count too, when their message ends.
    let message = [
        client(OpCode::Text, false, b""),
        client(OpCode::Continuation, false, b"").repeat(99),
        client(OpCode::Continuation, true, b""),
    ]
    .concat();
    let mut server = Connection::new(Role::Server);
    assert!(!server.has_counted_control());
    assert_eq!(receive(&mut server, &config, &mut buffers, &message.repeat(2)), Ok(2));
    assert!(server.has_counted_control(), "no event but the messages has said so");
    assert_eq!(receive(&mut server, &config, &mut buffers, &message), Err(too_many));
    assert_eq!(buffers.out_count(), 0);
}

#[test]
fn control_payload_exact() {
    for len in 0..=125_u8 {
        let payload: Vec<u8> = (0..len).map(|i| i ^ 0x5a).collect();
        for piece_len in [1, 3, 200] {
            let ping = client(OpCode::Ping, true, &payload);
            let outcome =
                drive(Role::Server, Config::default(), Mode::Whole, ping.chunks(piece_len));
            assert_eq!(outcome.seen, [Seen::Ping(payload.clone())]);
            assert_eq!(outcome.owed, [&[0x8a, len][..], &payload].concat());

            let pong = client(OpCode::Pong, true, &payload);
            let outcome =
                drive(Role::Server, Config::default(), Mode::Whole, pong.chunks(piece_len));
            assert_eq!(outcome.seen, [Seen::Pong(payload.clone())]);
            assert_eq!(outcome.owed, []);
        }
    }
    let reason = "why ".repeat(30) + "ß!";
    let close = client(OpCode::Close, true, &[b"\x0f\xa1", reason.as_bytes()].concat());
    for piece_len in [1, 3, 200] {
        let outcome = drive(Role::Server, Config::default(), Mode::Whole, close.chunks(piece_len));
        let code = Some(CloseCode::new(4001));
        assert_eq!(outcome.seen, [Seen::Close(code, reason.clone())]);
        assert_eq!(outcome.owed, [0x88, 2, 0x0f, 0xa1]);
    }
}

#[test]
fn close_codes() {
    for code in 0..=u16::MAX {
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let wire = client(OpCode::Close, true, &code.to_be_bytes());
        if valid {
            let outcome = drive(Role::Server, Config::default(), Mode::Whole, [&wire[..]]);
            assert_eq!(outcome.seen, [Seen::Close(Some(CloseCode::new(code)), String::new())]);
            assert_eq!(outcome.owed[2..], code.to_be_bytes());
        } else {
            fails_with(&wire, Error::PeerMisbehaved(Violation::BadCloseCode));
        }
        assert_eq!(CloseCode::new(code).is_sendable(), valid);
    }
    let half = client(OpCode::Close, true, &[0x03]);
    fails_with(&half, Error::PeerMisbehaved(Violation::HalfCloseCode));
    let wire = client(OpCode::Close, true, b"\x03\xe8\xc3");
    fails_with(&wire, Error::InvalidUtf8);
    assert_eq!(Error::InvalidUtf8.close_code(), CloseCode::INVALID_PAYLOAD);
}

#[test]
fn utf8_incremental() {
    // Each ends at its first wrong byte.
    for text in [
        &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0"[..],
        b"ab\xf4\x90",
        b"\xc0",
        b"x\x80",
        b"\xf0\x9f\x98\x41",
        b"\xe0\x80",
    ] {
        for mode in [Mode::Whole, Mode::Streaming, Mode::CloseSent] {
            let invalid = [Seen::Failed(Error::InvalidUtf8)];
            // Inside one frame that says to be much longer, a byte at a time.
            let mut wire = header(OpCode::Text, true, 60_000);
            wire.extend(text.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]));
            let config = Config::default();
            let (&last, good) = wire.split_last().expect("there is a payload");
            let outcome = drive(Role::Server, config, mode, good.chunks(1));
            assert_eq!(outcome.seen, [], "{text:x?} is not wrong yet");
            let outcome = drive(Role::Server, config, mode, good.chunks(1).chain([&[last][..]]));
            assert_eq!(outcome.seen, invalid, "{text:x?}");

            // Each byte in a fragment of its own.
            let mut wire = client(OpCode::Text, false, b"");
            for byte in text {
                wire.extend(client(OpCode::Continuation, false, &[*byte]));
            }
            let good_len = wire.len() - 1;
            let outcome = drive(Role::Server, config, mode, [&wire[..good_len]]);
            assert_eq!(outcome.seen, [], "{text:x?} is not wrong yet");
            let outcome = drive(Role::Server, config, mode, [&wire[..]]);
            assert_eq!(outcome.seen, invalid, "{text:x?}");
        }
    }
    // A message that ends inside a character.
    fails_with(&client(OpCode::Text, true, b"ok\xe2\x82"), Error::InvalidUtf8);
    let wire = [client(OpCode::Text, false, b"\xe2"), client(OpCode::Continuation, true, b"\x82")];
    fails_with(&wire.concat(), Error::InvalidUtf8);
}
