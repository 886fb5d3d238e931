//! The same bytes, cut anywhere.
#![expect(clippy::disallowed_types, reason = "proptest's own")]

use proptest::prelude::*;
use ringwire_tls::Version;

use crate::pair::{Pair, Setup, VERSIONS};

/// Runs a handshake and a conversation over a wire that cuts, and returns what each side has read.
fn converse(pair: &mut Pair, cut: &mut impl FnMut(Vec<u8>) -> Vec<Vec<u8>>) -> (Vec<u8>, Vec<u8>) {
    pair.carry(&mut *cut).expect("a handshake");
    assert!(!pair.is_handshaking());
    for len in [1, 100, 20_000] {
        pair.client.send(&vec![b'c'; len]).expect("sends");
        pair.server.send(&vec![b's'; len]).expect("sends");
        pair.server.send(b"!").expect("sends");
    }
    pair.client.close();
    pair.carry(&mut *cut).expect("carries");
    assert!(pair.server.tls.peer_has_closed());
    pair.server.close();
    pair.carry(&mut *cut).expect("carries");
    assert!(pair.client.tls.peer_has_closed());
    assert_eq!(pair.client.tls.receive_eof(), Ok(()));
    assert_eq!(pair.server.tls.receive_eof(), Ok(()));
    (std::mem::take(&mut pair.client.plaintext), std::mem::take(&mut pair.server.plaintext))
}

fn expected() -> (Vec<u8>, Vec<u8>) {
    let said = |byte: u8, end: &[u8]| {
        [1, 100, 20_000].iter().flat_map(|len| [&vec![byte; *len], end].concat()).collect()
    };
    (said(b's', b"!"), said(b'c', b""))
}

fn setup(version: Version) -> Setup {
    // With a client's certificate, so that both flights are long.
    Setup::with(
        version,
        |server, authority| {
            server.with_client_auth(ringwire_tls::ClientAuth::Require(authority.roots()))
        },
        |client, authority| client.with_certificate(authority.issue(&["client"]).source()),
    )
}

#[test]
fn whole_and_byte_by_byte() {
    for version in VERSIONS {
        let setup = setup(version);
        assert!(converse(&mut setup.pair(), &mut |bytes| vec![bytes]) == expected());
        let mut bytewise = |bytes: Vec<u8>| bytes.into_iter().map(|byte| vec![byte]).collect();
        assert!(converse(&mut setup.pair(), &mut bytewise) == expected());
    }
}

#[test]
fn cut_once_at_every_place_of_the_handshake() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        for at in 0..700 {
            let mut pair = setup.pair();
            let mut cut = |bytes: Vec<u8>| {
                let (head, tail) = bytes.split_at(at.min(bytes.len()));
                vec![head.to_vec(), tail.to_vec()]
            };
            pair.carry(&mut cut).expect("a handshake");
            assert!(!pair.is_handshaking());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cut_at_random(
        version in proptest::sample::select(&VERSIONS[..]),
        lens in proptest::collection::vec(prop_oneof![0..8_usize, 1..400_usize, 1..40_000_usize], 1..40),
    ) {
        let setup = setup(version);
        let mut lens = lens.into_iter().cycle();
        let mut cut = |bytes: Vec<u8>| {
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            // Some pieces are empty; the last may be anything.
            for len in lens.by_ref().take(1_000) {
                let (piece, tail) = rest.split_at(len.min(rest.len()));
                pieces.push(piece.to_vec());
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            pieces.push(rest.to_vec());
            pieces
        };
        prop_assert!(converse(&mut setup.pair(), &mut cut) == expected());
    }
}
