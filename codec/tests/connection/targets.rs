//! What the fuzz targets assert of an input. The committed corpora are replayed through the same.

use ringwire_codec::{Config, Message, Role};

use crate::drive::{Driven, Mode, Seen, cut, drive, tight};
use crate::naive;

/// The first byte of an input says role and mode.
fn settings(byte: u8) -> (Role, Mode) {
    let role = if byte & 1 == 0 { Role::Server } else { Role::Client };
    let mode = match byte >> 1 & 3 {
        1 => Mode::Streaming,
        2 => Mode::CloseSent,
        _ => Mode::Whole,
    };
    (role, mode)
}

/// The connection and the naive decoder say the same.
pub(crate) fn frame_oracle(input: &[u8]) {
    let [first, wire @ ..] = input else { return };
    let (role, mode) = settings(*first);
    let expected = naive::decode(role, &tight(), mode, wire);
    assert_eq!(drive(role, tight(), mode, [wire]), expected);
}

/// Where the reads cut the input makes no difference. Three bytes say where they do.
pub(crate) fn split(input: &[u8]) {
    let [first, a, b, c, wire @ ..] = input else { return };
    let (role, mode) = settings(*first);
    let whole = drive(role, tight(), mode, [wire]);
    let lengths = [usize::from(*a), usize::from(*b), usize::from(*c)];
    assert_eq!(drive(role, tight(), mode, cut(wire, &lengths)), whole);
    assert_eq!(drive(role, tight(), mode, wire.chunks(1)), whole);
}

/// What a client sends, a server receives; and the other way round.
///
/// The input: how the wire is cut (2 bytes), then for each act a byte that says what, 4 of a masking
/// key, 2 of a length, and the payload.
pub(crate) fn round_trip(input: &[u8]) {
    let [a, b, acts @ ..] = input else { return };
    let lengths = [usize::from(*a), usize::from(*b) * 16];
    for sender in [Role::Client, Role::Server] {
        let (sent, wire) = send_all(sender, acts);
        let receiver = if sender == Role::Client { Role::Server } else { Role::Client };
        let config = Config::default().with_max_control_count(u16::MAX);
        let mut receiver = Driven::new(receiver, config, Mode::Whole);
        for piece in cut(&wire, &lengths) {
            receiver.receive(piece);
        }
        assert_eq!(receiver.seen, sent);
        receiver.finish();
    }
}

/// What the acts make the receiver see, and the bytes on the wire.
fn send_all(role: Role, mut acts: &[u8]) -> (Vec<Seen>, Vec<u8>) {
    let mut sender = Driven::new(role, Config::default(), Mode::Whole).connection;
    let (mut sent, mut wire) = (Vec::new(), Vec::new());
    // A fragmented message that is being sent: whether it is text, and its bytes.
    let mut begun: Option<(bool, Vec<u8>)> = None;
    while let [act, k0, k1, k2, k3, high, low, rest @ ..] = acts {
        let mut masks = || [*k0, *k1, *k2, *k3];
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (payload, rest) = rest.split_at(len);
        acts = rest;
        let text = String::from_utf8_lossy(payload);
        let is_text = act & 1 == 1;
        let message = if is_text { Message::Text(&text) } else { Message::Binary(payload) };
        let control = &payload[..len.min(125)];
        let result = match act >> 1 & 3 {
            0 => {
                if begun.is_none() {
                    sent.push(Seen::message(message));
                }
                sender.send(message, &mut masks, &mut wire)
            }
            1 => {
                let fin = act & 8 != 0;
                let (begun_text, mut bytes) = begun.take().unwrap_or_else(|| (is_text, Vec::new()));
                let result = sender.send_fragment(message, fin, &mut masks, &mut wire);
                let refused = begun_text != is_text;
                if !refused {
                    bytes.extend_from_slice(message.as_bytes());
                }
                if refused || !fin {
                    begun = Some((begun_text, bytes));
                } else if is_text {
                    let text = String::from_utf8(bytes).expect("its parts are text");
                    sent.push(Seen::Text(text));
                } else {
                    sent.push(Seen::Binary(bytes));
                }
                assert_eq!(result.is_err(), refused);
                continue;
            }
            2 => {
                sent.push(Seen::Ping(control.to_vec()));
                sender.send_ping(control, &mut masks, &mut wire)
            }
            _ => {
                sent.push(Seen::Pong(control.to_vec()));
                sender.send_pong(control, &mut masks, &mut wire)
            }
        };
        assert_eq!(result.is_err(), begun.is_some() && act >> 1 & 3 == 0);
    }
    (sent, wire)
}
