//! One test for each [`Violation`], of its name, and that none of them takes a second frame.

use ringwire_codec::{CloseCode, Config, Error, FrameHeader, OpCode, Role, Violation};

use crate::drive::{KEY, Mode, Seen, drive};
use crate::frames::{client, frame};

/// `wire` fails with `violation`, however it is cut; what follows it is ignored, and the peer is
/// told 1002.
fn violates(receiver: Role, wire: &[u8], violation: Violation) {
    let error = Error::PeerMisbehaved(violation);
    assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
    let mut followed = wire.to_vec();
    followed.extend(client(OpCode::Ping, true, b"ignored"));
    for mode in [Mode::Whole, Mode::Streaming] {
        for pieces in [vec![&followed[..]], followed.chunks(1).collect()] {
            let outcome = drive(receiver, Config::default(), mode, pieces);
            assert_eq!(outcome.seen.last(), Some(&Seen::Failed(error)), "{wire:02x?}");
            match receiver {
                Role::Server => assert_eq!(outcome.owed, [0x88, 2, 0x03, 0xea]),
                Role::Client => assert_eq!(
                    outcome.owed,
                    [
                        [0x88, 0x82],
                        [KEY[0], KEY[1]],
                        [KEY[2], KEY[3]],
                        [0x03 ^ KEY[0], 0xea ^ KEY[1]]
                    ]
                    .concat()
                ),
            }
        }
    }
    // After this side's close frame the peer's frames are still judged, and nothing is sent.
    let outcome = drive(receiver, Config::default(), Mode::CloseSent, [wire]);
    assert_eq!(outcome.seen.last(), Some(&Seen::Failed(error)), "{wire:02x?}");
    assert_eq!(outcome.owed, [0_u8; 0]);
}

#[test]
fn reserved_bits() {
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [OpCode::Text, OpCode::Binary, OpCode::Ping, OpCode::Close] {
            let mut wire = client(opcode, true, b"");
            wire[0] |= bit;
            violates(Role::Server, &wire, Violation::ReservedBits);
        }
    }
}

#[test]
fn reserved_op_code() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for first in [opcode, 0x80 | opcode] {
            violates(Role::Server, &[first, 0x80, 0, 0, 0, 0], Violation::ReservedOpCode);
        }
    }
}

#[test]
fn length_not_minimal() {
    for len in [0_u16, 1, 125] {
        let [high, low] = len.to_be_bytes();
        let wire = [0x82, 0xfe, high, low, 0, 0, 0, 0];
        violates(Role::Server, &wire, Violation::LengthNotMinimal);
        violates(Role::Client, &[0x82, 0x7e, high, low], Violation::LengthNotMinimal);
    }
    for len in [0_u64, 125, 126, 65_535] {
        let wire = [&[0x82, 0xff][..], &len.to_be_bytes(), &[0; 4]].concat();
        violates(Role::Server, &wire, Violation::LengthNotMinimal);
    }
}

#[test]
fn length_too_large() {
    for len in [1_u64 << 63, u64::MAX] {
        let wire = [&[0x82, 0xff][..], &len.to_be_bytes(), &[0; 4]].concat();
        violates(Role::Server, &wire, Violation::LengthTooLarge);
    }
}

#[test]
fn unmasked_client_frame() {
    for opcode in [OpCode::Text, OpCode::Binary, OpCode::Ping, OpCode::Close] {
        let wire = frame(Role::Server, opcode, true, b"");
        violates(Role::Server, &wire, Violation::UnmaskedClientFrame);
    }
}

#[test]
fn masked_server_frame() {
    for opcode in [OpCode::Text, OpCode::Binary, OpCode::Ping, OpCode::Close] {
        violates(Role::Client, &client(opcode, true, b""), Violation::MaskedServerFrame);
    }
}

#[test]
fn fragmented_control() {
    for opcode in [OpCode::Ping, OpCode::Pong, OpCode::Close] {
        violates(Role::Server, &client(opcode, false, b""), Violation::FragmentedControl);
    }
}

#[test]
fn control_too_long() {
    for opcode in [OpCode::Ping, OpCode::Pong, OpCode::Close] {
        for len in [126, 65_536] {
            let mut wire = Vec::new();
            FrameHeader::new(opcode, true, Some(KEY), len).encode(&mut wire);
            violates(Role::Server, &wire, Violation::ControlTooLong);
        }
    }
}

#[test]
fn continuation_without_start() {
    for fin in [false, true] {
        let wire = client(OpCode::Continuation, fin, b"x");
        violates(Role::Server, &wire, Violation::ContinuationWithoutStart);
        let after_message = [client(OpCode::Text, true, b"whole"), wire].concat();
        violates(Role::Server, &after_message, Violation::ContinuationWithoutStart);
    }
}

#[test]
fn message_inside_message() {
    for opcode in [OpCode::Text, OpCode::Binary] {
        for fin in [false, true] {
            let wire = [client(OpCode::Text, false, b"begun"), client(opcode, fin, b"x")].concat();
            violates(Role::Server, &wire, Violation::MessageInsideMessage);
        }
    }
}

#[test]
fn half_close_code() {
    violates(Role::Server, &client(OpCode::Close, true, &[3]), Violation::HalfCloseCode);
}

#[test]
fn bad_close_code() {
    let wire = client(OpCode::Close, true, &1005_u16.to_be_bytes());
    violates(Role::Server, &wire, Violation::BadCloseCode);
}
