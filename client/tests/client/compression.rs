//! Compressed messages, with servers that agree to it, decline it, and misuse it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;

use ringwire_client::{Client, DeflateConfig, Error, OwnedMessage};
use ringwire_client::{CloseCode, Message};
use ringwire_codec::deflate::{
    Agreement, Compressor, Decompressor, Inflate, Level, Policy, WindowBits,
};
use ringwire_codec::handshake::{HandshakeError, HeadLimits, server};
use ringwire_codec::{Config, Connection, Error as ProtocolError, Event, Heap, Input, Limit, Role};
use ringwire_peers::PATIENCE;
use ringwire_peers::server::{
    agreement, answering, drain, frame, read_frame, read_head, serve, upgrading,
};

use crate::peer::{builder, connect, refusal_of, url};

/// Shakes hands, and agrees to compression as the policy says.
fn agree(stream: &mut TcpStream, policy: &Policy) -> Agreement {
    let head = read_head(stream);
    let request = server::Request::parse(head.as_bytes(), &HeadLimits::default()).unwrap();
    let upgrade = request.check_upgrade().unwrap();
    let agreed = upgrade.deflate(policy);
    let mut out = Vec::new();
    server::Accept::new().with_deflate(agreed).encode(&upgrade, &mut out).unwrap();
    stream.write_all(&out).unwrap();
    agreed.unwrap()
}

fn no_mask() -> [u8; 4] {
    panic!("a server does not mask")
}

/// Echoes until the client closes, with a compressor and a decompressor of its own, and gives the bytes received.
fn echo(mut stream: TcpStream, policy: &Policy) -> usize {
    let agreed = agree(&mut stream, policy);
    let mut codec = Connection::new(Role::Server).with_deflate();
    let mut compressor = Compressor::new(Level::default(), agreed.compressor_window(Role::Server));
    if agreed.takeover(Role::Server) {
        compressor = compressor.with_takeover();
    }
    let (mut shared, mut own) = (Decompressor::new(), None);
    let config = Config::default().with_max_message_len(4 << 20);
    let (mut received_len, mut bytes) = (0, vec![0; 10_000]);
    loop {
        let len = stream.read(&mut bytes).unwrap();
        if len == 0 {
            return received_len;
        }
        received_len += len;
        let mut input = Input::new(&mut bytes[..len]);
        let mut out = Vec::new();
        loop {
            let inflate = if agreed.takeover(Role::Client) {
                Inflate::Dedicated(&mut own)
            } else {
                Inflate::Shared(&mut shared)
            };
            match codec.receive_with(&config, &mut Heap, inflate, &mut input).unwrap() {
                Some(Event::Message(message)) => codec
                    .send_compressed(message.as_message(), &mut compressor, &mut no_mask, &mut out)
                    .unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        codec.poll_transmit(&mut no_mask, &mut out);
        stream.write_all(&out).unwrap();
        if codec.close_state() == ringwire_codec::CloseState::Closed {
            return received_len;
        }
    }
}

fn everything() -> Policy {
    Policy::default().with_client_context_takeover(true).with_server_context_takeover(true)
}

fn connect_compressing(address: SocketAddr, compression: DeflateConfig) -> Client {
    builder()
        .with_max_message_len(4 << 20)
        .with_compression(compression)
        .with_close_timeout(PATIENCE)
        .connect(url(address))
        .unwrap()
}

fn round_trip(client: &mut Client, message: Message<'_>) {
    client.send(message).unwrap();
    let received = client.receive().unwrap().unwrap();
    assert!(received == OwnedMessage::from(message), "{} bytes", message.as_bytes().len());
}

#[test]
fn every_length_comes_back_as_it_was() {
    let small = everything()
        .with_server_max_window_bits(WindowBits::MIN)
        .with_client_max_window_bits(WindowBits::MIN);
    for (policy, takeover) in [everything(), small, Policy::default()]
        .into_iter()
        .flat_map(|it| [(it, true), (it, false)])
    {
        let address = serve(move |stream, _| {
            echo(stream, &policy);
        });
        let compression = DeflateConfig::default()
            .with_takeover(takeover)
            .with_max_window(WindowBits::MAX)
            .with_threshold(0);
        let mut client = connect_compressing(address, compression);
        assert!(client.has_compression());
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 18] {
            let text = "compressible, ".repeat(len / 14 + 1);
            round_trip(&mut client, Message::Text(&text[..len]));
            // No compressor makes this shorter.
            let noise: Vec<u8> = (0..len as u64)
                .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0])
                .collect();
            round_trip(&mut client, Message::Binary(&noise));
            round_trip(&mut client, Message::Binary(&noise));
        }
        client.close(CloseCode::NORMAL, "").unwrap();
    }
}

#[test]
fn messages_refer_to_those_before_them_if_that_is_agreed_on() {
    let message: String =
        (0..100_u32).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_769))).collect();
    let sent_len = |policy: Policy, compression| {
        let (report, reported) = mpsc::channel();
        let address = serve(move |stream, _| report.send(echo(stream, &policy)).unwrap());
        let mut client = connect_compressing(address, compression);
        for _ in 0..20 {
            round_trip(&mut client, Message::Text(&message));
        }
        client.close(CloseCode::NORMAL, "").unwrap();
        reported.recv().unwrap()
    };
    let with_takeover = sent_len(everything(), DeflateConfig::default());
    let asked_without = sent_len(everything(), DeflateConfig::default().with_takeover(false));
    let told_without = sent_len(Policy::default(), DeflateConfig::default());
    let short = DeflateConfig::default().with_threshold(message.len() + 1);
    let not_compressed = sent_len(everything(), short);
    assert!(with_takeover * 4 < asked_without, "{with_takeover}, {asked_without}");
    assert_eq!(asked_without, told_without);
    assert!(asked_without < not_compressed && 20 * message.len() < not_compressed);
}

#[test]
fn what_is_shorter_than_the_threshold_goes_out_as_it_is() {
    let address = serve(|mut stream, _| {
        agree(&mut stream, &everything());
        let (first, payload) = read_frame(&mut stream);
        assert_eq!((first, payload.as_slice()), (0x81, &[b'x'; 99][..]));
        let (first, payload) = read_frame(&mut stream);
        assert_eq!(first, 0xc1);
        assert!(payload.len() < 20);
        drain(stream);
    });
    let mut client = connect_compressing(address, DeflateConfig::default().with_threshold(100));
    client.send_text(&"x".repeat(99)).unwrap();
    client.send_text(&"x".repeat(100)).unwrap();
}

#[test]
fn a_server_may_decline() {
    let address = upgrading(|mut stream| {
        assert_eq!(read_frame(&mut stream), (0x81, vec![b'x'; 100]));
        stream.write_all(&frame(0x81, b"plain")).unwrap();
        stream.write_all(&frame(0xc1, b"not agreed on")).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        drain(stream);
    });
    let mut client = connect_compressing(address, DeflateConfig::default().with_threshold(0));
    assert!(!client.has_compression());
    client.send_text(&"x".repeat(100)).unwrap();
    assert_eq!(client.receive().unwrap(), Some("plain".into()));
    assert!(matches!(client.receive(), Err(Error::Protocol(ProtocolError::PeerMisbehaved(_)))));
    assert!(!connect(upgrading(|stream| drop(drain(stream)))).has_compression());
}

#[test]
fn a_server_that_agrees_to_what_was_not_offered() {
    let plain = Some(DeflateConfig::default());
    let without = plain.map(|it| it.with_takeover(false));
    for (compression, chosen, expected) in [
        (None, "permessage-deflate", HandshakeError::UnofferedExtension),
        (plain, "permessage-bzip2", HandshakeError::UnofferedExtension),
        (plain, "permessage-deflate, permessage-deflate", HandshakeError::UnofferedExtension),
        (plain, "permessage-deflate; client_max_window_bits=10", HandshakeError::DeflateParams),
        (plain, "permessage-deflate; server_max_window_bits=16", HandshakeError::DeflateParams),
        (plain, "permessage-deflate; x=y", HandshakeError::DeflateParams),
        (without, "permessage-deflate", HandshakeError::DeflateParams),
        (
            plain.map(|it| it.with_max_window(WindowBits::MIN)),
            "permessage-deflate; client_max_window_bits=10",
            HandshakeError::DeflateParams,
        ),
        (plain, "permessage-deflate; =", HandshakeError::InvalidExtensions),
    ] {
        let address = serve(move |mut stream, _| {
            let head = read_head(&mut stream);
            let header = format!("Sec-WebSocket-Extensions: {chosen}\r\n");
            stream.write_all(agreement(&head, &header).as_bytes()).unwrap();
            drain(stream);
        });
        let builder = match compression {
            Some(compression) => builder().with_compression(compression),
            None => builder(),
        };
        let error = refusal_of(&builder, address);
        assert!(matches!(error, Error::Handshake(was) if was == expected), "{chosen}: {error}");
    }
    let refusing = answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let error = refusal_of(&builder().with_compression(DeflateConfig::default()), refusing);
    assert!(matches!(error, Error::Refused(_)), "{error}");
}

/// The error that a message ends with, and the code that the server is told.
fn error_of(takeover: bool, max_len: usize, message: Vec<u8>) -> (Error, u16) {
    let (report, reported) = mpsc::channel();
    let address = serve(move |mut stream, _| {
        agree(&mut stream, &everything());
        stream.write_all(&message).unwrap();
        let (first, payload) = read_frame(&mut stream);
        assert_eq!(first, 0x88);
        report.send(u16::from_be_bytes([payload[0], payload[1]])).unwrap();
        drain(stream);
    });
    let mut client = builder()
        .with_max_message_len(max_len)
        .with_compression(DeflateConfig::default().with_takeover(takeover))
        .connect(url(address))
        .unwrap();
    let error = client.receive().unwrap_err();
    (error, reported.recv().unwrap())
}

#[test]
fn garbage() {
    for takeover in [true, false] {
        for payload in [&[0xff; 20][..], &[0x06], b"neither a stream nor anything else"] {
            let (error, code) = error_of(takeover, 1 << 20, frame(0xc2, payload));
            assert!(matches!(error, Error::Protocol(ProtocolError::InvalidDeflate)), "{error}");
            assert_eq!(code, 1007);
        }
        let mut text = Vec::new();
        Compressor::new(Level::default(), WindowBits::MAX).compress(&[0xff; 3], &mut text);
        let (error, code) = error_of(takeover, 1 << 20, frame(0xc1, &text));
        assert!(matches!(error, Error::Protocol(ProtocolError::InvalidUtf8)), "{error}");
        assert_eq!(code, 1007);
        // A control frame is never compressed (RFC 7692 §6.1).
        let (error, code) = error_of(takeover, 1 << 20, frame(0xc9, b""));
        assert!(matches!(error, Error::Protocol(ProtocolError::PeerMisbehaved(_))), "{error}");
        assert_eq!(code, 1002);
    }
}

#[test]
fn bombs() {
    const MAX_LEN: usize = 100_000;
    let bomb = |len: usize| {
        let mut compressor = Compressor::new(Level::SMALLEST, WindowBits::MAX);
        let (zeros, mut frame) = (vec![0; len], Vec::new());
        Connection::new(Role::Server)
            .with_deflate()
            .send_compressed(Message::Binary(&zeros), &mut compressor, &mut no_mask, &mut frame)
            .unwrap();
        assert!(frame.len() < len / 500);
        frame
    };
    for takeover in [true, false] {
        for len in [MAX_LEN + 1, 5_000_000] {
            let (error, code) = error_of(takeover, MAX_LEN, bomb(len));
            let limit = ProtocolError::LimitExceeded(Limit::MessageLen);
            assert!(matches!(error, Error::Protocol(was) if was == limit), "{len}: {error}");
            assert_eq!(code, 1009);
        }
        let message = bomb(MAX_LEN);
        let address = serve(move |mut stream, _| {
            agree(&mut stream, &everything());
            stream.write_all(&message).unwrap();
            drain(stream);
        });
        let mut client = builder()
            .with_max_message_len(MAX_LEN)
            .with_compression(DeflateConfig::default().with_takeover(takeover))
            .connect(url(address))
            .unwrap();
        assert_eq!(client.receive().unwrap(), Some(OwnedMessage::Binary(vec![0; MAX_LEN])));
    }
}
