//! Little that inflates to much.

use ringwire_codec::deflate::{Compressor, Level, WindowBits};
use ringwire_codec::{CloseCode, Config, Error, Limit, OpCode, Role};

use crate::ends::{End, Machine, Seen, deflated, frame, message};
use crate::streams::noise;

const TOO_LONG: Seen = Seen::Failed(Error::LimitExceeded(Limit::MessageLen));
const TOO_MUCH: Seen = Seen::Failed(Error::LimitExceeded(Limit::InflateRatio));

fn machines() -> [Machine; 2] {
    [Machine::shared(), Machine::Dedicated(None)]
}

/// A compressed message in fragments of `len` bytes.
fn fragments(payload: &[u8], len: usize) -> Vec<u8> {
    let count = payload.len().div_ceil(len);
    let mut wire = Vec::new();
    for (i, piece) in payload.chunks(len).enumerate() {
        let opcode = if i == 0 { OpCode::Binary } else { OpCode::Continuation };
        wire.extend(frame(Role::Client, opcode, i + 1 == count, i == 0, piece));
    }
    wire
}

#[test]
fn compression_bomb() {
    let limit = 1 << 20;
    assert_eq!(Config::default().max_message_len, limit);
    let config = Config::default().with_inflate_ratio_floor(limit as u64);
    for (len, fits) in [(limit, true), (limit + 1, false), (9 << 20, false)] {
        let payload = deflated(&vec![b'x'; len]);
        assert!(payload.len() * 900 < len, "1000:1");
        for wire in [message(OpCode::Binary, &payload), fragments(&payload, 7)] {
            for machine in machines() {
                for pieces in [wire.len(), 99] {
                    let mut end = End::server(match machine {
                        Machine::Shared(_) => Machine::shared(),
                        _ => Machine::Dedicated(None),
                    })
                    .with_config(config);
                    for piece in wire.chunks(pieces) {
                        end.receive(piece);
                        assert!(end.connection.buffered_len() <= limit + (200 << 10));
                    }
                    let seen = end.seen.first().cloned();
                    if fits {
                        assert_eq!(seen, Some(Seen::Binary(vec![b'x'; len])));
                    } else {
                        assert_eq!(seen, Some(TOO_LONG));
                    }
                    assert!(end.pool.max_capacity <= limit + 1, "{}", end.pool.max_capacity);
                    end.finish();
                }
            }
        }
    }
    assert_eq!(Error::LimitExceeded(Limit::MessageLen).close_code(), CloseCode::MESSAGE_TOO_BIG);
}

#[test]
fn compression_bomb_with_context_takeover() {
    // The second message is a copy of the first, in a few bytes.
    for (len, fits) in [(20_000, true), (20_001, false)] {
        let mut compressor = Compressor::new(Level::SMALLEST, WindowBits::MAX).with_takeover();
        let config = Config::default().with_max_message_len(20_000);
        let mut end = End::server(Machine::Dedicated(None)).with_config(config);
        let text = noise(20_000);
        let mut payload = Vec::new();
        compressor.compress(&text, &mut payload);
        end.receive(&message(OpCode::Binary, &payload));
        assert_eq!(end.seen, [Seen::Binary(text.clone())]);

        let again: Vec<u8> = text.iter().copied().cycle().take(len).collect();
        payload.clear();
        compressor.compress(&again, &mut payload);
        assert!(payload.len() < 500, "{} bytes", payload.len());
        end.receive(&fragments(&payload, 5));
        let expected = if fits { Seen::Binary(again) } else { TOO_LONG };
        assert_eq!(end.seen.get(1), Some(&expected));
    }
}

#[test]
fn compression_bomb_in_parts() {
    let config = Config::default().with_max_streamed_len(3 << 20).with_max_inflate_ratio(2000);
    for (len, fits) in [(3 << 20, true), ((3 << 20) + 1, false)] {
        let wire = message(OpCode::Binary, &deflated(&vec![0; len]));
        for machine in machines() {
            let mut end = End::server(machine).with_config(config).with_streaming(true);
            end.receive(&wire);
            let expected = if fits { Seen::Binary(vec![0; len]) } else { TOO_LONG };
            assert_eq!(end.seen, [expected]);
            assert!(end.pool.max_capacity <= 32 << 10, "{}", end.pool.max_capacity);
            end.finish();
        }
    }
}

#[test]
fn ratio() {
    let zeros = vec![0; 2 << 20];
    // Nothing but the same byte reaches the floor, and not a byte more.
    assert_eq!(Config::default().inflate_ratio_floor, 64 << 10);
    for (len, fits) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        for machine in machines() {
            let mut end = End::server(machine);
            end.receive(&message(OpCode::Binary, &deflated(&zeros[..len])));
            let expected = if fits { Seen::Binary(zeros[..len].to_vec()) } else { TOO_MUCH };
            assert_eq!(end.finish(), [expected]);
        }
    }
    // Above the floor, more than the ratio.
    let config = Config::default().with_max_message_len(4 << 20);
    let wire = message(OpCode::Binary, &deflated(&zeros));
    for machine in machines() {
        for streaming in [false, true] {
            let machine = match machine {
                Machine::Shared(_) => Machine::shared(),
                _ => Machine::Dedicated(None),
            };
            let mut end = End::server(machine).with_config(config).with_streaming(streaming);
            end.receive(&wire);
            assert_eq!(end.finish(), [TOO_MUCH]);
        }
    }
    assert_eq!(Error::LimitExceeded(Limit::InflateRatio).close_code(), CloseCode::MESSAGE_TOO_BIG);

    // The same below the floor, or with a higher ratio, or with enough else in the message.
    let honest = [&noise(20_000)[..], &zeros].concat();
    for (config, content) in [
        (config.with_inflate_ratio_floor(2 << 20), &zeros),
        (config.with_max_inflate_ratio(1032), &zeros),
        (config, &honest),
    ] {
        let mut end = End::server(Machine::shared()).with_config(config);
        end.receive(&message(OpCode::Binary, &deflated(content)));
        assert_eq!(end.finish(), [Seen::Binary(content.clone())]);
    }
}

/// An array of that length.
fn records(len: usize, record: impl Fn(usize) -> String) -> Vec<u8> {
    let mut text = "[".to_owned();
    for number in 0.. {
        if text.len() >= len - 1 {
            break;
        }
        text += &record(number);
    }
    text.truncate(len - 1);
    text.push(']');
    text.into_bytes()
}

/// Records that differ in no more than a number, deeply indented ones, hardly anything but zeros and nulls: what
/// compresses best of what programs send.
#[test]
fn json_is_no_bomb() {
    type Kind = (&'static str, fn(usize) -> String);
    let kinds: [Kind; 6] = [
        ("numbered", |i| format!("{{\"id\":{i},\"ok\":true,\"value\":null}},")),
        ("indented", |i| {
            format!("{}{{\n{}\"id\": {i}\n{}}},\n", " ".repeat(8), " ".repeat(12), " ".repeat(8))
        }),
        ("long keys", |i| {
            let key = "a_rather_long_name_of_a_field_that_is_the_same_in_all_of_them";
            format!("{{\"{key}\":{},\"{key}_too\":\"{key}\"}},", i % 100)
        }),
        ("coordinates", |i| format!("[{}.5,{}.25,0,0,0],", i % 640, i / 640)),
        ("times", |i| {
            format!("{{\"t\":\"2026-01-01T00:{:02}:{:02}Z\",\"v\":0}},", i / 60 % 60, i % 60)
        }),
        ("sparse", |i| if i % 50 == 0 { format!("{i},") } else { "0,".to_owned() }),
    ];
    for (kind, record) in kinds {
        for len in [100_000, 1 << 20] {
            let json = records(len, record);
            for level in [Level::default(), Level::SMALLEST] {
                let mut compressor = Compressor::new(level, WindowBits::MAX).with_takeover();
                let mut end = End::server(Machine::Dedicated(None));
                // And the same again.
                for count in 1..=2 {
                    let mut payload = Vec::new();
                    compressor.compress(&json, &mut payload);
                    end.receive(&message(OpCode::Binary, &payload));
                    let ratio = json.len() / payload.len();
                    assert!(ratio < 150, "{kind}, {len} bytes: {ratio}");
                    assert_eq!(end.seen.len(), count, "{kind}, {len} bytes: {ratio}");
                    assert!(end.seen.last() == Some(&Seen::Binary(json.clone())), "{kind}");
                }
                end.finish();
            }
        }
    }
}

/// However much it would be: its peer may take its time over the rest.
#[test]
fn an_unfinished_message_holds_what_has_arrived() {
    let config = Config::default().with_inflate_ratio_floor(1 << 20);
    let payload = deflated(&vec![0; 1 << 20]);
    let wire = fragments(&payload, payload.len());
    for pieces in [wire.len(), 99] {
        for machine in machines() {
            let mut end = End::server(machine).with_config(config);
            let (begin, rest) = wire.split_at(wire.len() - 1);
            for piece in begin.chunks(pieces) {
                end.receive(piece);
                let held = end.connection.buffered_len();
                assert!(held <= 2 * wire.len() + 500, "{held} for {} bytes", wire.len());
            }
            end.receive(rest);
            assert_eq!(end.finish(), [Seen::Binary(vec![0; 1 << 20])]);
        }
    }
    // The same with the defaults, for as long as they let it go on: a bomb after what is honest.
    let payload = deflated(&[&noise(40_000)[..], &vec![0; 900_000]].concat());
    for machine in machines() {
        let mut end = End::server(machine);
        for piece in fragments(&payload, payload.len() + 1)[..payload.len()].chunks(1000) {
            end.receive(piece);
            let held = end.connection.buffered_len();
            assert!(held <= (64 << 10) + 500, "{held}");
        }
    }
}

#[test]
fn declared_length_no_allocation() {
    let header = &message(OpCode::Binary, &vec![0; 1 << 20])[..14];
    let (mut shared, mut dedicated) =
        (End::server(Machine::shared()), End::server(Machine::Dedicated(None)));
    for end in [&mut shared, &mut dedicated] {
        end.receive(header);
        assert!(end.connection.buffered_len() < 500, "{}", end.connection.buffered_len());
    }
    // In shared mode a peer pays before it gets a decompressor.
    let payload = deflated(&noise(200_000));
    let wire = frame(Role::Client, OpCode::Binary, true, true, &payload);
    let mut end = End::server(Machine::shared());
    let (begin, rest) = wire.split_at(64 << 10);
    for piece in begin.chunks(100) {
        end.receive(piece);
        assert!(end.connection.buffered_len() <= (64 << 10) + 500);
    }
    end.receive(&rest[..100]);
    let begun_len = end.connection.buffered_len();
    assert!(begun_len > 64 << 10);
    end.receive(&rest[100..]);
    assert_eq!(end.finish(), [Seen::Binary(noise(200_000))]);
}

#[test]
fn inflate_garbage() {
    let garbage = Seen::Failed(Error::InvalidDeflate);
    let text = r#"{"id":12345,"name":"ringwire","other":[1,2,3]},"#;
    let good = deflated(text.repeat(9).as_bytes());
    for machine in machines() {
        for streaming in [false, true] {
            for cut in 1..good.len() {
                let machine = match machine {
                    Machine::Shared(_) => Machine::shared(),
                    _ => Machine::Dedicated(None),
                };
                let mut end = End::server(machine).with_streaming(streaming);
                end.receive(&message(OpCode::Binary, &good[..cut]));
                assert_eq!(
                    end.seen,
                    std::slice::from_ref(&garbage),
                    "the end is missing from {cut} on"
                );
                let mut close = Vec::new();
                end.connection.poll_transmit(&mut || [0; 4], &mut close);
                assert_eq!(close, [0x88, 2, 0x03, 0xef], "1007");
                end.finish();
            }
        }
    }
}
