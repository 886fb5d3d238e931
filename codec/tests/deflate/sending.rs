//! What goes out.

use ringwire_codec::deflate::{Compressor, Level, WindowBits};
use ringwire_codec::{CloseCode, Connection, FrameHeader, Message, OpCode, Role, SendError};

use crate::ends::{End, KEY, Machine, Seen};
use crate::naive;
use crate::streams::noise;

fn compressor() -> Compressor {
    Compressor::new(Level::BALANCED, WindowBits::MAX)
}

fn server() -> Connection {
    Connection::new(Role::Server).with_deflate()
}

/// The frames in what a server sent.
fn frames(mut wire: &[u8]) -> Vec<(FrameHeader, &[u8])> {
    let mut frames = Vec::new();
    while let Ok(Some((header, len))) = FrameHeader::parse(wire) {
        let payload_len = usize::try_from(header.payload_len).expect("it is in memory");
        let (frame, rest) = wire.split_at(len + payload_len);
        frames.push((header, &frame[len..]));
        wire = rest;
    }
    assert!(wire.is_empty(), "whole frames");
    frames
}

#[test]
fn lengths_of_every_form() {
    let text = "Lorem ipsum dolor sit amet. ";
    for role in [Role::Client, Role::Server] {
        for takeover in [false, true] {
            let other = if role == Role::Client { Role::Server } else { Role::Client };
            let mut receiver = End::new(other, Machine::Dedicated(None));
            receiver.config = receiver.config.with_max_message_len(1 << 24);
            let mut sender = Connection::new(role).with_deflate();
            let mut compressor = compressor();
            if takeover {
                compressor = compressor.with_takeover();
            }
            let mut expected = Vec::new();
            let mut wire = b"before".to_vec();
            let mut masks = || KEY;
            // Compressed, the length has as long a form, a shorter one, and with noise in a context,
            // a longer one.
            for len in [1, 30, 125, 126, 200, 1000, 65_535, 65_536, 100_000, 3_000_000] {
                let payload = text.repeat(len / text.len() + 1);
                let payload = &payload[..len];
                let sent = sender.send_compressed(
                    Message::Text(payload),
                    &mut compressor,
                    &mut masks,
                    &mut wire,
                );
                assert_eq!(sent, Ok(()));
                expected.push(Seen::Text(payload.to_owned()));
                let payload = noise(len);
                let sent = sender.send_compressed(
                    Message::Binary(&payload),
                    &mut compressor,
                    &mut masks,
                    &mut wire,
                );
                assert_eq!(sent, Ok(()));
                expected.push(Seen::Binary(payload));
            }
            receiver.receive(wire.strip_prefix(b"before").expect("it was appended to"));
            assert!(receiver.finish() == expected, "{role:?} {takeover}");
        }
    }
}

#[test]
fn what_gets_no_shorter_goes_out_as_it_is() {
    let (mut server, mut out) = (server(), Vec::new());
    let mut compressor = compressor();
    let mut masks = || KEY;
    for payload in [&noise(100)[..], &noise(40_000), b"", b"a"] {
        out.clear();
        server
            .send_compressed(Message::Binary(payload), &mut compressor, &mut masks, &mut out)
            .expect("it is open");
        let [(header, sent)] = frames(&out)[..] else { panic!("one frame") };
        assert_eq!((header.rsv1, sent), (false, payload));
    }

    // With a context the window has advanced, unless it is given up.
    let mut compressor = compressor.with_takeover();
    let other_noise = noise(40_000).iter().map(|byte| byte ^ 0x55).collect();
    for (payload, rsv1) in [(noise(100), true), (other_noise, false)] {
        out.clear();
        server
            .send_compressed(Message::Binary(&payload), &mut compressor, &mut masks, &mut out)
            .expect("it is open");
        let [(header, _)] = frames(&out)[..] else { panic!("one frame") };
        assert_eq!(header.rsv1, rsv1);
    }
    // What follows does not refer to what the peer has not inflated.
    out.clear();
    let text = noise(100).repeat(2);
    server
        .send_compressed(Message::Binary(&text), &mut compressor, &mut masks, &mut out)
        .expect("it is open");
    let [(header, sent)] = frames(&out)[..] else { panic!("one frame") };
    assert!(header.rsv1);
    assert_eq!(naive::inflate(sent, b"").map(|naive| naive.bytes), Some(text));
}

#[test]
fn fragments() {
    let (mut server, mut out) = (server(), Vec::new());
    let mut shared = compressor();
    let mut masks = || KEY;
    let parts = ["one, two, three, ", "", "one, two, three, ", ""];
    for (i, part) in parts.iter().enumerate() {
        let fin = i + 1 == parts.len();
        server
            .send_compressed_fragment(Message::Text(part), fin, &mut shared, &mut masks, &mut out)
            .expect("it is open");
        server.send_ping(b"", &mut masks, &mut out).expect("it is open");
        // Another connection's message, with the same compressor.
        let mut other = Connection::new(Role::Server).with_deflate();
        let message = Message::Text("one, two, three, four, five, six");
        other
            .send_compressed(message, &mut shared, &mut masks, &mut Vec::new())
            .expect("it is open");
    }
    let frames = frames(&out);
    let rsv1: Vec<_> = frames
        .iter()
        .filter(|(header, _)| !header.opcode.is_control())
        .map(|(header, _)| (header.rsv1, header.opcode, header.fin))
        .collect();
    assert_eq!(
        rsv1,
        [
            (true, OpCode::Text, false),
            (false, OpCode::Continuation, false),
            (false, OpCode::Continuation, false),
            (false, OpCode::Continuation, true),
        ]
    );
    assert!(frames.iter().all(|(header, _)| !header.opcode.is_control() || !header.rsv1));
    let mut client = End::new(Role::Client, Machine::shared());
    client.receive(&out);
    client.seen.retain(|seen| !matches!(seen, Seen::Control(_)));
    assert_eq!(client.finish(), [Seen::Text(parts.concat())]);
}

#[test]
fn refusals_write_nothing() {
    let (mut compressor, mut masks, mut out) = (compressor(), || KEY, Vec::new());
    let text = Message::Text("text");
    let mut plain = Connection::new(Role::Server);
    assert_eq!(
        plain.send_compressed(text, &mut compressor, &mut masks, &mut out),
        Err(SendError::DeflateNotAgreed)
    );
    assert_eq!(
        plain.send_compressed_fragment(text, true, &mut compressor, &mut masks, &mut out),
        Err(SendError::DeflateNotAgreed)
    );
    assert!(!plain.deflate() && out.is_empty());

    let mut server = server();
    assert!(server.deflate());
    assert_eq!(
        server.send_compressed_fragment(text, false, &mut compressor, &mut masks, &mut out),
        Ok(())
    );
    let begun = out.clone();
    assert_eq!(
        server.send_compressed(text, &mut compressor, &mut masks, &mut out),
        Err(SendError::MessageUnderWay)
    );
    assert_eq!(server.send(text, &mut masks, &mut out), Err(SendError::MessageUnderWay));
    assert_eq!(
        server.send_fragment(text, true, &mut masks, &mut out),
        Err(SendError::KindMismatch)
    );
    let bytes = Message::Binary(b"bytes");
    assert_eq!(
        server.send_compressed_fragment(bytes, true, &mut compressor, &mut masks, &mut out),
        Err(SendError::KindMismatch)
    );
    assert_eq!(out, begun);
    assert_eq!(
        server.send_compressed_fragment(text, true, &mut compressor, &mut masks, &mut out),
        Ok(())
    );
    assert_eq!(server.send_fragment(text, false, &mut masks, &mut out), Ok(()));
    assert_eq!(
        server.send_compressed_fragment(text, true, &mut compressor, &mut masks, &mut out),
        Err(SendError::KindMismatch)
    );
    assert_eq!(server.close(CloseCode::NORMAL, "", &mut masks, &mut out), Ok(()));
    out.clear();
    assert_eq!(
        server.send_compressed(text, &mut compressor, &mut masks, &mut out),
        Err(SendError::Closing)
    );
    assert!(out.is_empty());
}
