//! What RSV1 may stand on (RFC 7692 §6.1), and what is in between.

use ringwire_codec::deflate::{Compressor, Inflate, Level, WindowBits};
use ringwire_codec::{
    CloseCode, Config, Connection, Error, Heap, Input, Limit, OpCode, Role, Violation,
};

use crate::ends::{End, KEY, Machine, Seen, deflated, frame, message};

const RESERVED: Seen = Seen::Failed(Error::PeerMisbehaved(Violation::ReservedBits));

fn machines() -> [Machine; 2] {
    [Machine::shared(), Machine::Dedicated(None)]
}

fn see(machine: Machine, wire: &[u8]) -> Vec<Seen> {
    let mut end = End::server(machine);
    end.receive(wire);
    end.finish()
}

fn client(opcode: OpCode, fin: bool, rsv1: bool, payload: &[u8]) -> Vec<u8> {
    frame(Role::Client, opcode, fin, rsv1, payload)
}

#[test]
fn reserved_bits() {
    let hello = deflated(b"Hello");
    for machine in machines() {
        assert_eq!(see(machine, &message(OpCode::Text, &hello)), [Seen::Text("Hello".to_owned())]);
    }
    // Never on control frames and continuations, nor together with the other bits.
    for opcode in [OpCode::Ping, OpCode::Pong, OpCode::Close, OpCode::Continuation] {
        for begun in [false, true] {
            let mut wire = Vec::new();
            if begun {
                wire.extend(client(OpCode::Text, false, true, &hello[..3]));
            }
            wire.extend(client(opcode, true, true, b""));
            for machine in machines() {
                assert_eq!(see(machine, &wire), [RESERVED], "{opcode:?}, {begun}");
            }
        }
    }
    for bits in [0x20, 0x10, 0x30, 0x60, 0x50, 0x70] {
        let mut wire = message(OpCode::Text, &hello);
        wire[0] = 0x81 | bits;
        for machine in machines() {
            assert_eq!(see(machine, &wire), [RESERVED], "{bits:x}");
        }
    }
    // Nor where it was not agreed on, or where nothing can inflate.
    assert_eq!(see(Machine::Off, &message(OpCode::Text, &hello)), [RESERVED]);
    let mut wire = message(OpCode::Text, &hello);
    let mut server = Connection::new(Role::Server);
    let mut own = None;
    let result = server.receive_with(
        &Config::default(),
        &mut Heap,
        Inflate::Dedicated(&mut own),
        &mut Input::new(&mut wire),
    );
    assert_eq!(result.map(drop), Err(Error::PeerMisbehaved(Violation::ReservedBits)));
    assert!(own.is_none(), "and none is made");
}

#[test]
fn control_frames_in_between() {
    let text = "Hello, and hello again".repeat(20);
    let payload = deflated(text.as_bytes());
    let mut wire = Vec::new();
    for (i, byte) in payload.iter().enumerate() {
        let opcode = if i == 0 { OpCode::Text } else { OpCode::Continuation };
        wire.extend(client(opcode, false, i == 0, &[*byte]));
        if i % 9 == 0 {
            wire.extend(client(OpCode::Ping, true, false, b"here"));
        }
    }
    wire.extend(client(OpCode::Continuation, true, false, b""));
    wire.extend(client(OpCode::Text, true, false, b"plain"));
    for machine in machines() {
        for streaming in [false, true] {
            let machine = match machine {
                Machine::Shared(_) => Machine::shared(),
                _ => Machine::Dedicated(None),
            };
            let mut end = End::server(machine).with_streaming(streaming);
            end.receive(&wire);
            let (controls, messages): (Vec<_>, Vec<_>) =
                end.finish().into_iter().partition(|seen| matches!(seen, Seen::Control(_)));
            assert_eq!(controls.len(), payload.len().div_ceil(9));
            assert_eq!(messages, [Seen::Text(text.clone()), Seen::Text("plain".to_owned())]);
        }
    }
}

#[test]
fn utf8_incremental() {
    let mut payload = Vec::new();
    // Stored blocks, so that each byte is inflated when it arrives.
    for byte in b"ab\xe2\x82" {
        payload.extend([0, 1, 0, 0xfe, 0xff, *byte]);
    }
    let mut wrong = payload.clone();
    wrong.extend([0, 1, 0, 0xfe, 0xff, 0x41]);
    for streaming in [false, true] {
        let mut end = End::server(Machine::Dedicated(None)).with_streaming(streaming);
        end.receive(&client(OpCode::Text, false, true, &payload));
        assert_eq!(end.seen, []);
        let mut other = End::server(Machine::Dedicated(None)).with_streaming(streaming);
        other.receive(&client(OpCode::Text, false, true, &wrong));
        if !streaming {
            // One that is handed over whole is inflated at its end.
            assert_eq!(other.seen, []);
            other.receive(&client(OpCode::Continuation, true, false, &[0]));
        }
        assert_eq!(other.finish(), [Seen::Failed(Error::InvalidUtf8)]);
        // Half a character at the end.
        end.receive(&client(OpCode::Continuation, true, false, &[0]));
        assert_eq!(end.finish(), [Seen::Failed(Error::InvalidUtf8)]);
    }
    for machine in machines() {
        let half = message(OpCode::Text, &deflated(b"a\xe2\x82"));
        assert_eq!(see(machine, &half), [Seen::Failed(Error::InvalidUtf8)]);
    }
    let bytes = message(OpCode::Binary, &deflated(b"a\xe2\x82"));
    assert_eq!(see(Machine::shared(), &bytes), [Seen::Binary(b"a\xe2\x82".to_vec())]);
}

#[test]
fn no_connection_reads_what_another_has_sent() {
    // The second message refers to the first, which came to the same machine.
    let secret = "a secret of someone else, long enough to be referred to";
    let mut compressor = Compressor::new(Level::BALANCED, WindowBits::MAX).with_takeover();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    compressor.compress(secret.as_bytes(), &mut first);
    compressor.compress(secret.as_bytes(), &mut second);
    for cut in [0, 7, 9] {
        let mut one = End::server(Machine::shared());
        one.receive(&message(OpCode::Text, &first));
        assert_eq!(one.seen, [Seen::Text(secret.to_owned())]);
        let mut other = End::server(std::mem::replace(&mut one.machine, Machine::Off));
        let wire = message(OpCode::Text, &second);
        let (left, right) = wire.split_at(cut);
        other.receive(left);
        other.receive(right);
        assert_eq!(other.finish(), [Seen::Failed(Error::InvalidDeflate)]);
    }
}

#[test]
fn empty_messages() {
    let wire = [
        message(OpCode::Text, &[0]),
        message(OpCode::Text, &[]),
        client(OpCode::Binary, false, true, &[]),
        client(OpCode::Continuation, true, false, &[0]),
        client(OpCode::Binary, false, true, &[]),
        client(OpCode::Continuation, true, false, &[]),
    ]
    .concat();
    for streaming in [false, true] {
        for machine in machines() {
            let mut end = End::server(machine).with_streaming(streaming);
            end.receive(&wire);
            let text = Seen::Text(String::new());
            let binary = Seen::Binary(Vec::new());
            assert_eq!(end.finish(), [text.clone(), text, binary.clone(), binary]);
        }
    }
}

#[test]
fn after_the_own_close_frame_nothing_is_inflated() {
    let bomb = message(OpCode::Binary, &deflated(&vec![0; 8 << 20]));
    for cut in [0, 1, 6, 40] {
        let mut end = End::server(Machine::Dedicated(None));
        let (left, right) = bomb.split_at(cut);
        end.receive(left);
        end.connection
            .close(CloseCode::NORMAL, "", &mut || KEY, &mut Vec::new())
            .expect("it is open");
        end.receive(right);
        end.receive(&client(OpCode::Text, false, true, b"not deflate"));
        end.receive(&client(OpCode::Continuation, true, false, b"at all"));
        end.receive(&client(OpCode::Close, true, false, b""));
        assert_eq!(end.finish(), [Seen::Close]);
    }
}

#[test]
fn limits_hold_for_what_is_declared() {
    let config = Config::default().with_max_message_len(1000);
    let too_long = Seen::Failed(Error::LimitExceeded(Limit::MessageLen));
    for machine in machines() {
        let mut end = End::server(machine).with_config(config);
        // As long as it is when nothing in it can be compressed, and one byte beyond.
        let stored = [&[0, 0xe8, 3, 0x17, 0xfc][..], &[7; 1000], &[0]].concat();
        end.receive(&message(OpCode::Binary, &stored));
        assert_eq!(end.seen, [Seen::Binary(vec![7; 1000])]);
        end.seen.clear();
        let header = &message(OpCode::Binary, &vec![0; 1190])[..8];
        end.receive(header);
        assert_eq!(end.finish(), std::slice::from_ref(&too_long));
    }
}
