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
    let config = Config::default();
    assert_eq!(config.max_message_len, limit);
    for (len, fits) in [(limit, true), (limit + 1, false), (9 << 20, false)] {
        let payload = deflated(&vec![b'x'; len]);
        assert!(payload.len() * 900 < len, "1000:1");
        for wire in [message(OpCode::Binary, &payload), fragments(&payload, 7)] {
            for machine in machines() {
                for pieces in [wire.len(), 99] {
                    let mut end = End::server(match machine {
                        Machine::Shared(_) => Machine::shared(),
                        _ => Machine::Dedicated(None),
                    });
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
