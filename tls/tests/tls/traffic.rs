//! What a session does with whole and cut input, in both versions.

use crate::pair::{Setup, VERSIONS, record_lens};
use ringwire_tls::{Error, Handshake};

#[test]
fn data_goes_both_ways() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        let mut pair = setup.pair();
        assert!(pair.client.tls.wants_write() && !pair.server.tls.wants_write());
        assert_eq!(pair.server.send(b"early"), Err(Error::NotReady));
        assert_eq!(pair.client.send(b"early"), Err(Error::NotReady));
        assert!(pair.client.tls.facts().is_none());
        pair.handshake().expect("a handshake");
        assert!(!pair.is_handshaking());
        pair.client.send(b"question").expect("sends");
        pair.handshake().expect("carries");
        pair.server.send(b"answer").expect("sends");
        pair.handshake().expect("carries");
        assert_eq!(pair.server.plaintext, b"question");
        assert_eq!(pair.client.plaintext, b"answer");

        let facts = pair.server.tls.facts().expect("facts");
        assert_eq!(facts.version, version);
        assert_eq!(facts.server_name, Some("localhost"));
        assert_eq!(facts.alpn, Some(&b"http/1.1"[..]));
        assert_eq!(facts.handshake, Handshake::Full);
        assert!(facts.peer_certificates.is_empty());
        assert!(facts.cipher_suite.starts_with("TLS"));
        let facts = pair.client.tls.facts().expect("facts");
        assert_eq!((facts.version, facts.peer_certificates.len()), (version, 1));
    }
}

#[test]
fn large_messages_take_few_records() {
    for version in VERSIONS {
        let mut pair = Setup::new(version).open_pair();
        let message: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[1]).collect();
        pair.server.send(&message).expect("sends");
        assert_eq!(record_lens(&pair.server.output).len(), message.len().div_ceil(16_384));
        pair.handshake().expect("carries");
        assert!(pair.client.plaintext == message);

        let exact = 64 * 1024;
        pair.client.send(&message[..exact]).expect("sends");
        assert_eq!(record_lens(&pair.client.output).len(), 4);
        pair.handshake().expect("carries");
        assert!(pair.server.plaintext == message[..exact]);
    }
}

#[test]
fn output_is_appended_and_an_empty_message_is_none() {
    for version in VERSIONS {
        let mut pair = Setup::new(version).open_pair();
        pair.server.output.extend_from_slice(b"before");
        pair.server.send(b"").expect("sends");
        assert_eq!(pair.server.output, b"before");
        pair.server.send(b"payload").expect("sends");
        assert!(pair.server.output.starts_with(b"before"));
        let record = pair.server.output.split_off(b"before".len());
        assert_eq!(record_lens(&record), [record.len()]);
        pair.client.receive(&record).expect("receives");
        assert_eq!(pair.client.plaintext, b"payload");
    }
}

#[test]
fn many_records_of_one_byte_in_one_input() {
    for version in VERSIONS {
        let mut pair = Setup::new(version).open_pair();
        for byte in 0..=255_u8 {
            pair.client.send(&[byte]).expect("sends");
        }
        assert_eq!(record_lens(&pair.client.output).len(), 256);
        pair.handshake().expect("carries");
        assert_eq!(pair.server.plaintext, (0..=255).collect::<Vec<u8>>());
    }
}

#[test]
fn nothing_is_kept_but_the_beginning_of_a_record() {
    for version in VERSIONS {
        let mut pair = Setup::new(version).open_pair();
        let idle_len = pair.server.tls.memory_len();
        pair.client.send(&[7; 10_000]).expect("sends");
        let record = pair.client.transmit();
        pair.server.receive(&record[..4_000]).expect("receives");
        let cut_len = pair.server.tls.memory_len();
        assert!((idle_len + 4_000..idle_len + 8_000).contains(&cut_len));
        pair.server.receive(&record[4_000..]).expect("receives");
        assert_eq!(pair.server.tls.memory_len(), idle_len);
        assert_eq!(pair.server.plaintext, [7; 10_000]);
    }
}

#[test]
fn tickets_resume_a_session_until_they_are_off() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        assert_eq!(handshake_of(&setup), Handshake::Full);
        assert_eq!(handshake_of(&setup), Handshake::Resumed);

        let off = Setup::with(version, |server, _| server.with_tickets(false), |client, _| client);
        assert_eq!(handshake_of(&off), Handshake::Full);
        assert_eq!(handshake_of(&off), Handshake::Full);

        let off =
            Setup::with(version, |server, _| server, |client, _| client.with_resumption(false));
        assert_eq!(handshake_of(&off), Handshake::Full);
        assert_eq!(handshake_of(&off), Handshake::Full);
    }
}

#[test]
fn a_resumed_session_has_a_name_and_carries_data() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        setup.open_pair();
        let mut pair = setup.open_pair();
        let facts = pair.server.tls.facts().expect("facts");
        assert_eq!((facts.handshake, facts.server_name), (Handshake::Resumed, Some("localhost")));
        pair.client.send(b"hello").expect("sends");
        pair.handshake().expect("carries");
        assert_eq!(pair.server.plaintext, b"hello");
    }
}

fn handshake_of(setup: &Setup) -> Handshake {
    let pair = setup.open_pair();
    let of_server = pair.server.tls.facts().expect("facts").handshake;
    assert_eq!(pair.client.tls.facts().expect("facts").handshake, of_server);
    of_server
}
