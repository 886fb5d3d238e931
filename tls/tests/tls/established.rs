//! Sessions that go on with a connection which another program has begun.

use std::io::{Read, Write};

use ringwire_tls::{Error, Handshake, Session, Version};
use rustls::{ClientConnection, Connection, ServerConnection};

use crate::interop::{buffered_client, buffered_server, carry, converse};
use crate::pair::{Authority, Side, VERSIONS};

/// A client and a server of rustls alone, whose handshake is over.
fn joined(version: Version) -> (Connection, ServerConnection) {
    let authority = Authority::new();
    let mut client = buffered_client(&authority, version);
    let mut server = buffered_server(&authority, version);
    while client.is_handshaking() || server.is_handshaking() {
        let to_server = written(&mut client);
        take(&mut server, &to_server);
        let mut to_client = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_client).expect("writes");
        }
        let mut rest = &to_client[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("reads");
            client.process_new_packets().expect("processes");
        }
    }
    (client.into(), server)
}

fn written(client: &mut ClientConnection) -> Vec<u8> {
    let mut out = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut out).expect("writes");
    }
    out
}

fn take(server: &mut ServerConnection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        server.read_tls(&mut bytes).expect("reads");
        server.process_new_packets().expect("processes");
    }
}

/// What the client says next.
fn said(client: &mut Connection, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    client.writer().write_all(plaintext).expect("writes");
    while client.wants_write() {
        client.write_tls(&mut out).expect("writes");
    }
    out
}

fn established(server: ServerConnection) -> Side {
    Side::new(Session::established(server).expect("its handshake is over"))
}

#[test]
fn both_sides_go_on_talking() {
    for version in VERSIONS {
        let (mut client, server) = joined(version);
        let mut side = established(server);
        converse(&mut client, &mut side);
        let facts = side.tls.facts().expect("the handshake is over");
        assert_eq!((facts.version, facts.handshake), (version, Handshake::Full));
        assert_eq!(facts.server_name, Some("localhost"));
        if version == Version::Tls13 {
            client.refresh_traffic_keys().expect("there are keys");
            converse(&mut client, &mut side);
        }
        side.close();
        assert_eq!(carry(&mut client, &mut side), b"");
        assert!(client.process_new_packets().expect("no fault").peer_has_closed());
        client.send_close_notify();
        carry(&mut client, &mut side);
        assert!(side.tls.peer_has_closed() && !side.tls.wants_read());
        assert_eq!(side.send(b"late"), Err(Error::Closed));
    }
}

#[test]
fn nothing_that_was_received_or_written_is_lost() {
    for version in VERSIONS {
        let (mut client, mut server) = joined(version);
        let read = said(&mut client, b"read, ");
        let unread = said(&mut client, b"unread, ");
        let cut = said(&mut client, b"cut, ");
        let last = said(&mut client, b"last");
        let (front, back) = cut.split_at(cut.len() / 2);
        take(&mut server, &read);
        let mut begin = [0; 6];
        server.reader().read_exact(&mut begin).expect("it is there");
        assert_eq!(&begin, b"read, ");
        take(&mut server, &[&unread, front].concat());
        server.writer().write_all(b"unwritten, ").expect("writes");

        let mut side = established(server);
        assert!(side.tls.wants_write());
        side.receive(&[]).expect("no fault");
        assert_eq!(side.plaintext, b"unread, ");
        side.send(b"written").expect("sends");
        side.receive(&[back, &last].concat()).expect("no fault");
        assert_eq!(side.plaintext, b"unread, cut, last");
        assert_eq!(carry(&mut client, &mut side), b"unwritten, written");
    }
}

#[test]
fn input_in_any_pieces() {
    for version in VERSIONS {
        for piece_len in [1, 7, 4096, 5000, 100_000] {
            let (mut client, server) = joined(version);
            let mut side = established(server);
            let message: Vec<u8> = (0_u8..250).cycle().take(40_000).collect();
            for piece in said(&mut client, &message).chunks(piece_len) {
                side.receive(piece).expect("no fault");
            }
            assert!(side.plaintext == message, "pieces of {piece_len}");
        }
    }
}

#[test]
fn what_came_before_a_fault_is_kept_and_the_alert_goes_out() {
    for version in VERSIONS {
        let (mut client, server) = joined(version);
        let mut side = established(server);
        let good = said(&mut client, b"good");
        let mut bad = said(&mut client, b"bad");
        *bad.last_mut().expect("a record") ^= 1;
        let result = side.receive(&[good, bad].concat());
        assert_eq!(result, Err(Error::Protocol(rustls::Error::DecryptError)));
        assert_eq!(side.plaintext, b"good");
        let alert = std::mem::take(&mut side.output);
        let mut rest = &alert[..];
        client.read_tls(&mut rest).expect("reads");
        let heard = client.process_new_packets().expect_err("an alert");
        assert!(matches!(heard, rustls::Error::AlertReceived(_)), "{heard}");
        assert_eq!(side.receive(b"more"), Err(Error::Closed));
    }
}

#[test]
fn a_handshake_that_is_not_over_is_refused() {
    let server = buffered_server(&Authority::new(), Version::Tls13);
    assert!(matches!(Session::established(server), Err(Error::NotReady)));
}
