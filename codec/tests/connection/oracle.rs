//! The connection and the naive decoder say the same.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::drive::{Mode, cut, drive, tight};
use crate::frames::{any_role, any_wire};
use crate::naive;

pub(crate) fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => Just(Mode::Whole), 1 => Just(Mode::Streaming), 1 => Just(Mode::CloseSent)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn the_naive_decoder_agrees(
        (role, wire) in any_role().prop_flat_map(|role| (Just(role), any_wire(role))),
        mode in any_mode(),
        lengths in vec(1_usize..40, 0..6),
    ) {
        let expected = naive::decode(role, &tight(), mode, &wire);
        let outcome = drive(role, tight(), mode, cut(&wire, &lengths));
        prop_assert_eq!(outcome, expected);
    }

    #[test]
    fn the_naive_decoder_agrees_on_any_bytes(
        role in any_role(),
        mode in any_mode(),
        mut wire in vec(any::<u8>(), 0..60),
        masked in any::<bool>(),
    ) {
        // Else nearly every input ends at its first two bytes.
        if let [first, second, ..] = &mut wire[..] {
            *first &= 0x8a;
            *second = *second & 0x7f | u8::from(masked) << 7;
        }
        let expected = naive::decode(role, &tight(), mode, &wire);
        prop_assert_eq!(drive(role, tight(), mode, [&wire[..]]), expected);
    }
}
