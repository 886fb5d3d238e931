//! Both roles, with whatever they may agree on: what one sends is what the other receives, wherever
//! the wire is cut.

use proptest::collection::vec;
use proptest::prelude::*;
use ringwire_codec::deflate::{Offer, Policy};
use ringwire_codec::{Config, Message, OpCode, Role};

use crate::ends::{End, KEY, Machine, Seen, deflated, frame, shake};
use crate::streams::{any_bytes, any_level, any_window};

#[derive(Debug, Clone)]
enum Act {
    Compressed(Vec<u8>),
    Fragments(Vec<Vec<u8>>),
    Plain(Vec<u8>),
    Text(String),
    Ping,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => any_bytes().prop_map(Act::Compressed),
        2 => vec(any_bytes(), 1..4).prop_map(Act::Fragments),
        1 => any_bytes().prop_map(Act::Plain),
        2 => "[a-e€ß😀]{0,300}".prop_map(Act::Text),
        1 => Just(Act::Ping),
    ]
}

fn any_offer() -> impl Strategy<Value = Offer> {
    let window = || proptest::option::of(any_window());
    (any::<bool>(), any::<bool>(), window(), window()).prop_map(|(server, client, theirs, ours)| {
        let mut offer = Offer::default()
            .with_server_no_context_takeover(server)
            .with_client_no_context_takeover(client);
        offer.server_max_window_bits = theirs;
        offer.client_max_window_bits = ours;
        offer
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), any::<bool>(), any_window(), any_window()).prop_map(
        |(server, client, ours, theirs)| {
            Policy::default()
                .with_server_context_takeover(server)
                .with_client_context_takeover(client)
                .with_server_max_window_bits(ours)
                .with_client_max_window_bits(theirs)
        },
    )
}

/// What a sender's acts put on the wire, and what the receiver is to see.
fn send(sender: &mut End, acts: &[Act]) -> (Vec<u8>, Vec<Seen>) {
    let (mut wire, mut sent) = (Vec::new(), Vec::new());
    let End { connection, compressor, .. } = sender;
    let mut masks = || KEY;
    for act in acts {
        let result = match act {
            Act::Compressed(bytes) => {
                sent.push(Seen::Binary(bytes.clone()));
                connection.send_compressed(
                    Message::Binary(bytes),
                    compressor,
                    &mut masks,
                    &mut wire,
                )
            }
            Act::Text(text) => {
                sent.push(Seen::Text(text.clone()));
                connection.send_compressed(Message::Text(text), compressor, &mut masks, &mut wire)
            }
            Act::Fragments(parts) => {
                sent.push(Seen::Binary(parts.concat()));
                parts.iter().enumerate().try_for_each(|(i, part)| {
                    let fin = i + 1 == parts.len();
                    connection.send_compressed_fragment(
                        Message::Binary(part),
                        fin,
                        compressor,
                        &mut masks,
                        &mut wire,
                    )
                })
            }
            Act::Plain(bytes) => {
                sent.push(Seen::Binary(bytes.clone()));
                connection.send(Message::Binary(bytes), &mut masks, &mut wire)
            }
            Act::Ping => {
                sent.push(Seen::Control(b"!".to_vec()));
                connection.send_ping(b"!", &mut masks, &mut wire)
            }
        };
        assert_eq!(result, Ok(()));
    }
    (wire, sent)
}

fn cut<'a>(wire: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    let mut rest = wire;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let len = lengths.next().map_or(rest.len(), |len| (*len).clamp(1, rest.len()));
        let (piece, after) = rest.split_at(len);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn what_one_sends_the_other_receives(
        offer in any_offer(),
        policy in any_policy(),
        level in any_level(),
        acts in vec(any_act(), 0..8),
        lengths in vec(prop_oneof![1_usize..60, 1_usize..30_000], 1..4),
        streaming in any::<bool>(),
    ) {
        let shaken = shake(&[offer], Some(&policy));
        prop_assert_eq!(shaken.client, shaken.server);
        let agreement = shaken.client.expect("the library's own ends always agree");
        for (from, to) in [(Role::Client, Role::Server), (Role::Server, Role::Client)] {
            prop_assert!(agreement.window_bits(from) >= 9);
            let mut sender = End::agreed(from, agreement, level);
            let (wire, sent) = send(&mut sender, &acts);
            for pieces in [vec![&wire[..]], cut(&wire, &lengths)] {
                // Some of it repeats a byte.
                let config = Config::default().with_max_inflate_ratio(1032);
                let receiver = End::agreed(to, agreement, level).with_config(config);
                let mut receiver = receiver.with_streaming(streaming);
                for piece in pieces {
                    receiver.receive(piece);
                }
                prop_assert!(receiver.finish() == sent);
            }
        }
    }
}

/// Frames with what may or may not be a deflate stream, in sequence, mostly.
fn any_wire() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        2 => "[a-e€ß]{0,40}".prop_map(|text| deflated(text.as_bytes())),
        1 => vec(any::<u8>(), 0..60).prop_map(|bytes| deflated(&bytes)),
        1 => vec(any::<u8>(), 0..30),
        1 => (0_usize..500).prop_map(|len| deflated(&vec![b'x'; len])),
    ];
    let one = (payload, vec(1_usize..30, 0..3), any::<bool>(), 0_u8..5, any::<u8>());
    vec(one, 0..6).prop_map(|messages| {
        let mut wire = Vec::new();
        for (mut payload, cuts, is_text, rsv1, change) in messages {
            let len = payload.len();
            if let Some(byte) =
                payload.get_mut(usize::from(change) % len.max(1) * usize::from(change & 1))
            {
                *byte ^= if change < 40 { change } else { 0 };
            }
            let mut rest = &payload[..];
            let mut opcode = if is_text { OpCode::Text } else { OpCode::Binary };
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                let begins = opcode != OpCode::Continuation;
                wire.extend(frame(Role::Client, opcode, false, begins && rsv1 > 0, piece));
                wire.extend(frame(Role::Client, OpCode::Ping, true, false, b"?"));
                opcode = OpCode::Continuation;
                rest = after;
            }
            let begins = opcode != OpCode::Continuation;
            wire.extend(frame(Role::Client, opcode, true, begins && rsv1 > 0, rest));
        }
        wire
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn whole_byte_by_byte_and_cut_at_random_give_the_same(
        wire in any_wire(),
        lengths in vec(1_usize..60, 1..6),
        shared in any::<bool>(),
        streaming in any::<bool>(),
    ) {
        let config = Config::default().with_max_message_len(300).with_max_streamed_len(300);
        let see = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let machine = if shared { Machine::shared() } else { Machine::Dedicated(None) };
            let mut end = End::server(machine).with_config(config).with_streaming(streaming);
            for piece in pieces {
                end.receive(piece);
            }
            end.finish()
        };
        let whole = see(&mut std::iter::once(&wire[..]));
        prop_assert_eq!(&see(&mut wire.chunks(1)), &whole);
        prop_assert_eq!(&see(&mut cut(&wire, &lengths).into_iter()), &whole);
    }
}

#[test]
fn every_place_to_cut_once_gives_the_same() {
    for takeover in [false, true] {
        let mut sender = End::new(Role::Client, Machine::Off);
        if takeover {
            sender.compressor = sender.compressor.with_takeover();
        }
        let text = "grüß, grüß, €€€€ and more; ";
        let acts = [
            Act::Text(text.repeat(3)),
            Act::Fragments(vec![b"one ".repeat(30), Vec::new(), b"one two".repeat(9)]),
            Act::Ping,
            Act::Text(String::new()),
            Act::Text(text.repeat(9)),
            Act::Compressed(vec![7; 900]),
        ];
        let (wire, sent) = send(&mut sender, &acts);
        for streaming in [false, true] {
            for at in 0..=wire.len() {
                let machine = if takeover { Machine::Dedicated(None) } else { Machine::shared() };
                let mut receiver = End::server(machine).with_streaming(streaming);
                let (left, right) = wire.split_at(at);
                receiver.receive(left);
                receiver.receive(right);
                assert_eq!(receiver.finish(), sent, "{takeover} {streaming} {at}");
            }
        }
    }
}

#[test]
fn one_machine_serves_many_connections() {
    // Each message comes in two pieces, and the connections take turns.
    let mut machine = Machine::shared();
    let mut ends: Vec<End> = (0..5).map(|_| End::server(Machine::Off)).collect();
    let mut sender = End::new(Role::Client, Machine::Off);
    let texts: Vec<String> = (0..5).map(|i| format!("message of {i}; ").repeat(40)).collect();
    let wires: Vec<Vec<u8>> =
        texts.iter().map(|text| send(&mut sender, &[Act::Text(text.clone())]).0).collect();
    for half in 0..2 {
        for (end, wire) in ends.iter_mut().zip(&wires) {
            let (left, right) = wire.split_at(wire.len() / 2);
            std::mem::swap(&mut end.machine, &mut machine);
            end.receive(if half == 0 { left } else { right });
            std::mem::swap(&mut end.machine, &mut machine);
        }
    }
    for (end, text) in ends.into_iter().zip(texts) {
        assert_eq!(end.finish(), [Seen::Text(text)]);
    }
}
