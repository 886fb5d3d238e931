//! Frames for tests: right ones, wrong ones, random ones.

use proptest::collection::vec;
use proptest::prelude::*;
use ringwire_codec::{FrameHeader, OpCode, Role};

use crate::drive::KEY;

/// A frame as `sender` sends it, from its parts.
pub(crate) fn frame(sender: Role, opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let key = (sender == Role::Client).then_some(KEY);
    let mut wire = Vec::new();
    FrameHeader::new(opcode, fin, key, payload.len() as u64).encode(&mut wire);
    wire.extend(payload.iter().enumerate().map(|(i, byte)| match key {
        Some(key) => byte ^ key[i % 4],
        None => *byte,
    }));
    wire
}

/// A frame of a client.
pub(crate) fn client(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
    frame(Role::Client, opcode, fin, payload)
}

pub(crate) const fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

pub(crate) fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![2 => Just(Role::Server), 1 => Just(Role::Client)]
}

/// Text, whole or with its end cut off, or bytes.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z€ß😀]{0,12}".prop_map(String::into_bytes),
        2 => ("[ß€😀]{1,4}", 0_usize..16).prop_map(|(text, len)| {
            let mut bytes = text.into_bytes();
            bytes.truncate(len);
            bytes
        }),
        2 => vec(any::<u8>(), 0..40),
        1 => vec(Just(b'x'), 120..320),
        1 => (prop_oneof![995_u16..1020, 2995_u16..5005], "[a-zß]{0,20}").prop_map(|(code, reason)| {
            [&code.to_be_bytes(), reason.as_bytes()].concat()
        }),
    ]
}

/// Bytes that a peer of `role` might send: frames, most of them right, some with bytes changed, and
/// the end cut off or not.
pub(crate) fn any_wire(role: Role) -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![
        5 => Just(OpCode::Continuation),
        3 => Just(OpCode::Text),
        2 => Just(OpCode::Binary),
        2 => Just(OpCode::Ping),
        1 => Just(OpCode::Pong),
        1 => Just(OpCode::Close),
    ];
    let one = (opcode, proptest::bool::weighted(0.5), any_payload());
    (vec(one, 0..12), vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), 0_usize..400)
        .prop_map(move |(frames, changes, cut)| {
            let mut wire: Vec<u8> = Vec::new();
            let mut in_message = false;
            for (mut opcode, mut fin, mut payload) in frames {
                // Mostly, what comes is in sequence.
                if opcode.is_control() {
                    fin = true;
                    payload.truncate(if payload.len() == 125 { 126 } else { 125 });
                } else {
                    if opcode == OpCode::Continuation && !in_message {
                        opcode = OpCode::Text;
                    } else if in_message {
                        opcode = OpCode::Continuation;
                    }
                    in_message = !fin;
                }
                wire.extend(frame(other(role), opcode, fin, &payload));
            }
            for (at, change) in changes {
                // Changes of low value are none, so that about half of the inputs stay right.
                if change >= 128 && !wire.is_empty() {
                    let at = at.index(wire.len());
                    wire[at] ^= change;
                }
            }
            if cut < wire.len() / 3 {
                wire.truncate(wire.len() - cut);
            }
            wire
        })
}
