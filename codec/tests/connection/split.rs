//! Where the reads cut the input makes no difference.

use proptest::collection::vec;
use proptest::prelude::*;
use ringwire_codec::{OpCode, Role};

use crate::drive::{Mode, Seen, cut, drive, tight};
use crate::frames::{any_role, any_wire, client};
use crate::oracle::any_mode;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn whole_byte_by_byte_and_cut_at_random_give_the_same(
        (role, wire) in any_role().prop_flat_map(|role| (Just(role), any_wire(role))),
        mode in any_mode(),
        lengths in vec(1_usize..60, 1..6),
    ) {
        let whole = drive(role, tight(), mode, [&wire[..]]);
        prop_assert_eq!(&drive(role, tight(), mode, wire.chunks(1)), &whole);
        prop_assert_eq!(&drive(role, tight(), mode, cut(&wire, &lengths)), &whole);
    }
}

#[test]
fn every_place_to_cut_once_gives_the_same() {
    let long = "é".repeat(70_000);
    let wire = [
        client(OpCode::Text, true, "grüß".as_bytes()),
        client(OpCode::Binary, false, &[7; 300]),
        client(OpCode::Ping, true, b"between"),
        client(OpCode::Continuation, true, &[8; 3]),
        client(OpCode::Text, true, b""),
        client(OpCode::Close, true, b"\x03\xe8bye"),
    ]
    .concat();
    let config = ringwire_codec::Config::default();
    for mode in [Mode::Whole, Mode::Streaming, Mode::CloseSent] {
        let whole = drive(Role::Server, config, mode, [&wire[..]]);
        for at in 0..=wire.len() {
            let (left, right) = wire.split_at(at);
            assert_eq!(drive(Role::Server, config, mode, [left, right]), whole, "{mode:?} {at}");
        }
    }

    // A header of 14 bytes, and a text that is cut inside a character every time.
    let wire = client(OpCode::Text, true, long.as_bytes());
    for len in [1, 13, 14, 15, 4095, 65_537] {
        let outcome = drive(Role::Server, config, Mode::Whole, wire.chunks(len));
        assert_eq!(outcome.seen, [Seen::Text(long.clone())], "pieces of {len}");
    }
}
