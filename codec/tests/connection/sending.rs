//! What goes out: headers in their shortest form, fresh masks, fragments.

use ringwire_codec::{Connection, FrameHeader, Message, OpCode, Role, SendError};

fn no_masks() -> [u8; 4] {
    panic!("a server does not mask")
}

#[test]
fn lengths_are_in_their_shortest_form() {
    for (len, header) in [
        (0, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
        let mut out = Vec::new();
        let mut server = Connection::new(Role::Server);
        server.send(Message::Binary(&payload), &mut no_masks, &mut out).expect("it is open");
        assert_eq!(out, [header, &payload].concat(), "{len}");
    }
}

#[test]
fn a_client_takes_a_fresh_mask_for_each_frame() {
    let mut next = 0_u32;
    let mut masks = || {
        next += 1;
        next.to_be_bytes()
    };
    let mut out = b"already there".to_vec();
    let mut client = Connection::new(Role::Client);
    client.send(Message::Text("ab"), &mut masks, &mut out).expect("it is open");
    client.send_ping(b"", &mut masks, &mut out).expect("it is open");
    client.send_pong(b"\0\0\0\0\0", &mut masks, &mut out).expect("it is open");
    let expected = [
        &b"already there"[..],
        &[0x81, 0x82, 0, 0, 0, 1, b'a', b'b'],
        &[0x89, 0x80, 0, 0, 0, 2],
        &[0x8a, 0x85, 0, 0, 0, 3, 0, 0, 0, 3, 0],
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn fragments_begin_and_end_one_message() {
    let mut server = Connection::new(Role::Server);
    let mut out = Vec::new();
    let mut send = |fragment, fin| server.send_fragment(fragment, fin, &mut no_masks, &mut out);
    assert_eq!(send(Message::Text("a"), false), Ok(()));
    assert_eq!(send(Message::Binary(b"b"), false), Err(SendError::KindMismatch));
    assert_eq!(send(Message::Text(""), false), Ok(()));
    assert_eq!(send(Message::Text("c"), true), Ok(()));
    assert_eq!(send(Message::Binary(b"d"), true), Ok(()));
    assert_eq!(out, b"\x01\x01a\x00\x00\x80\x01c\x82\x01d");

    assert_eq!(server.send_fragment(Message::Text("e"), false, &mut no_masks, &mut out), Ok(()));
    out.clear();
    let refused = server.send(Message::Text("f"), &mut no_masks, &mut out);
    assert_eq!(refused, Err(SendError::MessageUnderWay));
    assert_eq!(server.send_ping(b"g", &mut no_masks, &mut out), Ok(()));
    assert_eq!(out, b"\x89\x01g", "control frames go between fragments");
}

#[test]
fn a_header_comes_back_from_the_wire() {
    for opcode in (0..=255).filter_map(OpCode::from_bits) {
        for masking_key in [None, Some([1, 2, 3, 4])] {
            for payload_len in [0, 125, 126, 65_535, 65_536, i64::MAX as u64] {
                let payload_len =
                    if opcode.is_control() { payload_len.min(125) } else { payload_len };
                let mut header = FrameHeader::new(opcode, true, masking_key, payload_len);
                header.rsv1 = payload_len % 2 == 0;
                header.rsv2 = payload_len % 3 == 0;
                header.rsv3 = payload_len % 5 == 0;
                let mut wire = Vec::new();
                header.encode(&mut wire);
                assert_eq!(FrameHeader::parse(&wire), Ok(Some((header, wire.len()))));
                for len in 0..wire.len() {
                    assert_eq!(FrameHeader::parse(&wire[..len]), Ok(None));
                }
            }
        }
    }
}
