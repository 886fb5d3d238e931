//! Messages there and back: every kind and length, whole, in fragments and in parts.

#![expect(clippy::disallowed_types, reason = "tests own sockets")]

use std::net::TcpStream;

use ringwire::{Accept, Message, tuning::ProtocolConfig};
use ringwire_peers::{Client, Got, connect, frame, masked, plain_request};

use crate::support::app::Seen;
use crate::support::{PATIENCE, Server, config};

/// Both sides of each step in the length of a header, and what neither fits one receive.
const LENGTHS: [usize; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 131_072, 1 << 20];

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn text_of(len: usize) -> String {
    // Characters of two bytes, so that reads and buffers end inside of some.
    let mut text = "é".repeat(len / 2);
    text.push_str(&"x".repeat(len % 2));
    text
}

#[test]
fn every_length_comes_back_as_it_was() {
    let server = Server::echo(config());
    let mut client = server.client();
    for len in LENGTHS {
        client.send(pattern(len).as_slice());
        assert!(client.binary() == pattern(len), "{len} bytes");
        client.send(text_of(len).as_str());
        assert!(client.text() == text_of(len), "text of {len} bytes");
    }
    client.leave();
    let stats = server.stats();
    assert_eq!(stats.messages_received, 2 * LENGTHS.len() as u64);
    assert_eq!(stats.messages_sent, stats.messages_received);
    assert_eq!(stats.messages_dropped, 0);
}

#[test]
fn sixteen_mebibytes_where_the_limit_allows() {
    const LEN: usize = 16 << 20;
    let config = config().with_max_message_len(LEN).with_max_queued_len(2 * LEN);
    let server = Server::echo(config);
    let mut client = server.client();
    let message = pattern(LEN);
    client.send(message.as_slice());
    assert!(client.binary() == message);
    // The next byte is one too many.
    client.raw(&masked(0x82, LEN as u64 + 1, &[]));
    assert_eq!(client.close_frame().0, 1009);
}

#[test]
fn messages_sent_together_come_back_in_order() {
    let server = Server::echo(config());
    let mut client = server.client();
    let numbers: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    let wire: Vec<u8> = numbers.iter().flat_map(|number| frame(0x81, number.as_bytes())).collect();
    client.raw(&wire);
    for number in &numbers {
        assert_eq!(client.text(), *number);
    }
}

#[test]
fn fragments_are_one_message() {
    let server = Server::echo(config());
    let mut client = server.client();
    client.send_fragments(&[Message::Text("one "), Message::Text(""), Message::Text("message")]);
    assert_eq!(client.text(), "one message");
    // A character in two fragments, and a ping between them.
    client.raw(&frame(0x01, &[0xc3]));
    client.raw(&frame(0x89, b"between"));
    assert_eq!(client.next(), Got::Pong(b"between".to_vec()));
    client.raw(&frame(0x80, &[0xa9]));
    assert_eq!(client.text(), "é");
    client.leave();
    assert!(server.drained().contains(&Seen::Ping(b"between".to_vec())));
}

#[test]
fn byte_by_byte() {
    let server = Server::echo(config());
    let mut client = server.client();
    for byte in [frame(0x81, b"slowly"), frame(0x82, &pattern(300))].concat() {
        client.raw(&[byte]);
    }
    assert_eq!(client.text(), "slowly");
    assert_eq!(client.binary(), pattern(300));
}

#[test]
fn tungstenite_is_understood() {
    use tungstenite::{Message, protocol::CloseFrame, protocol::frame::coding::CloseCode};
    let server = Server::echo(config());
    let stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let url = format!("ws://{}/", server.addr());
    let (mut client, response) = tungstenite::client(url, stream).unwrap();
    assert_eq!(response.status(), 101);
    for message in [
        Message::text("hello"),
        Message::binary(pattern(100_000)),
        Message::text(""),
        Message::binary(Vec::new()),
    ] {
        client.send(message.clone()).unwrap();
        assert_eq!(client.read().unwrap(), message);
    }
    client.send(Message::Ping(b"are you there".as_slice().into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong(b"are you there".as_slice().into()));
    let frame = CloseFrame { code: CloseCode::Away, reason: "leaving".into() };
    client.close(Some(frame.clone())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Close(Some(frame)));
    assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)));
    let cause = server.closed();
    assert_eq!((cause.code.unwrap().get(), cause.text.as_str()), (1001, "leaving"));
}

#[test]
fn a_streamed_message_may_be_longer_than_a_whole_one() {
    const LEN: usize = 300_000;
    let protocol = ProtocolConfig::default().with_max_message_len(1000);
    let protocol = protocol.with_max_streamed_len(LEN as u64);
    let server = Server::start(config().with_protocol(protocol), |app| {
        app.on_request(|_| Accept::new(0).with_streaming().into()).on_part(|ctx, part| {
            *ctx.state_mut() += u32::try_from(part.bytes.len()).unwrap();
            if part.is_last {
                let len = std::mem::take(ctx.state_mut());
                let _ = ctx.send(len.to_string().as_str());
            }
        })
    });
    let mut client = server.client();
    client.send(pattern(LEN).as_slice());
    assert_eq!(client.text(), LEN.to_string());
    client.send_fragments(&[Message::Text("in "), Message::Text("parts")]);
    assert_eq!(client.text(), "8");
    client.raw(&masked(0x82, LEN as u64 + 1, &[]));
    assert_eq!(client.close_frame().0, 1009);
    drop(client);

    let mut whole = Vec::new();
    let mut open = false;
    for seen in server.drained() {
        let Seen::Part { bytes, is_text: false, is_first, is_last } = seen else { continue };
        assert_eq!(is_first, !open, "the first part of a message says so");
        open = !is_last;
        whole.extend(bytes);
    }
    assert!(!open && whole == pattern(LEN));
}

#[test]
fn pings_are_answered_and_reported() {
    let server = Server::echo(config());
    let mut client = server.client();
    client.ping(b"a");
    assert_eq!(client.next(), Got::Pong(b"a".to_vec()));
    client.raw(&frame(0x8a, b"unasked"));
    client.send("after");
    assert_eq!(client.text(), "after");
    client.leave();
    let seen = server.drained();
    assert!(seen.contains(&Seen::Ping(b"a".to_vec())));
    assert!(seen.contains(&Seen::Pong(b"unasked".to_vec())));
}

#[test]
fn pings_may_be_left_to_the_handler() {
    let server = Server::echo(config().with_answers_pings(false));
    let mut client = server.client();
    client.ping(b"a");
    client.send("after");
    assert_eq!(client.next(), Got::Text("after".into()), "no pong is before it");
    client.leave();
    assert!(server.drained().contains(&Seen::Ping(b"a".to_vec())));
}

#[test]
fn pongs_need_not_be_reported() {
    let server = Server::echo(config().with_reports_pongs(false));
    let mut client = server.client();
    client.raw(&frame(0x8a, b"unasked"));
    client.ping(b"a");
    assert_eq!(client.next(), Got::Pong(b"a".to_vec()));
    client.leave();
    let seen = server.drained();
    assert!(seen.contains(&Seen::Ping(b"a".to_vec())));
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Pong(_))), "{seen:?}");
}

#[test]
fn the_application_may_ping() {
    let server = Server::start(config(), |app| {
        app.on_open(|ctx| {
            ctx.ping(b"hello?").unwrap();
            assert!(ctx.ping(&[0; 126]).is_err());
        })
    });
    let mut client = server.client();
    assert_eq!(client.next(), Got::Ping(b"hello?".to_vec()));
    server.find("on_pong", |_, seen| (seen == Seen::Pong(b"hello?".to_vec())).then_some(()));
}

#[test]
fn what_comes_with_the_request_is_not_lost() {
    let server = Server::echo(config());
    let mut stream = connect(server.addr());
    let request = plain_request();
    let mut wire = Vec::new();
    request.encode(&mut wire);
    wire.extend(frame(0x81, b"eager"));
    wire.extend(frame(0x81, b"and cut"));
    let cut = wire.split_off(wire.len() - 3);
    std::io::Write::write_all(&mut stream, &wire).unwrap();
    let mut client = Client::await_upgrade(stream, &request);
    assert_eq!(client.text(), "eager");
    client.raw(&cut);
    assert_eq!(client.text(), "and cut");
}
