//! close_notify, end of stream and garbage in every state.

use ringwire_tls::{AlertDescription, ClientAuth, Error};

use crate::pair::{Pair, Setup, VERSIONS, record_lens};

/// How far a handshake has come: this many flights were delivered.
const STATES: std::ops::RangeInclusive<usize> = 0..=5;

/// A pair after so many flights, with the next one undelivered.
fn pair_after(setup: &Setup, flight_count: usize) -> Pair {
    let mut pair = setup.pair();
    for flight in 0..flight_count {
        if flight % 2 == 0 {
            let bytes = pair.client.transmit();
            pair.server.receive(&bytes).expect("receives");
        } else {
            let bytes = pair.server.transmit();
            pair.client.receive(&bytes).expect("receives");
        }
    }
    pair
}

#[test]
fn eof_is_truncation_in_every_state() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        for state in STATES {
            let mut pair = pair_after(&setup, state);
            for side in [&mut pair.client, &mut pair.server] {
                assert_eq!(side.tls.receive_eof(), Err(Error::Truncated));
                assert!(!side.tls.wants_read() && !side.tls.wants_write());
                assert_eq!(side.send(b"late"), Err(Error::Closed));
                assert_eq!(side.receive(b"late"), Err(Error::Closed));
                assert_eq!(side.tls.poll_transmit(&mut Vec::new()), Err(Error::Closed));
            }
        }
    }
}

#[test]
fn closing_in_every_state_is_quiet_or_says_close_notify() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        for state in STATES {
            for client_closes in [true, false] {
                let mut pair = pair_after(&setup, state);
                let (closed, other) = if client_closes {
                    (&mut pair.client, &mut pair.server)
                } else {
                    (&mut pair.server, &mut pair.client)
                };
                let on_its_way = closed.transmit();
                let was_handshaking = closed.tls.is_handshaking();
                closed.close();
                let said = closed.transmit();
                assert_eq!(said.is_empty(), was_handshaking);
                assert_eq!(closed.send(b"late"), Err(Error::Closed));
                closed.close();
                assert!(closed.output.is_empty(), "close_notify is said once");
                if !was_handshaking {
                    other.receive(&[on_its_way, said].concat()).expect("receives");
                    assert!(other.tls.peer_has_closed() && !other.tls.wants_read());
                    assert_eq!(other.tls.receive_eof(), Ok(()));
                }
            }
        }
    }
}

#[test]
fn plaintext_close_notify_in_every_state_never_counts() {
    let close_notify = [21, 3, 3, 0, 2, 1, 0];
    for version in VERSIONS {
        let setup = Setup::new(version);
        for state in STATES {
            let mut pair = pair_after(&setup, state);
            for side in [&mut pair.client, &mut pair.server] {
                // It may be an error or be passed over; it never is the end of what the peer said.
                let _ = side.receive(&close_notify);
                assert!(!side.tls.peer_has_closed());
                assert_eq!(side.tls.receive_eof(), Err(Error::Truncated));
            }
        }
    }
}

#[test]
fn garbage_fails_with_an_alert_in_every_state() {
    let garbage: [&[u8]; 6] = [
        &[0xff; 64],
        &[0; 64],
        b"\x16\x03\x03\x00\x05\xff\x00\x00\x01\x00",
        b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        b"\x16\x03\x03\xff\xff",
        b"\x15\x03\x03\x00\x02\x09\x09",
    ];
    for version in VERSIONS {
        let setup = Setup::new(version);
        for state in STATES {
            for bytes in garbage {
                let mut pair = pair_after(&setup, state);
                for side in [&mut pair.client, &mut pair.server] {
                    side.transmit();
                    let error = side.receive(bytes).expect_err("garbage");
                    let is_known =
                        matches!(error, Error::Protocol(_) | Error::PeerAlert(_) | Error::NotTls);
                    assert!(is_known, "{error:?}");
                    if matches!(error, Error::Protocol(_) | Error::NotTls) {
                        // An alert, which looks like data where it is encrypted.
                        assert!(matches!(side.output.first(), Some(21 | 23)), "{state} {error:?}");
                        assert_eq!(record_lens(&side.output), [side.output.len()]);
                    }
                    assert!(!side.tls.wants_read() && !side.tls.wants_write());
                    assert_eq!(side.receive(b"more"), Err(Error::Closed));
                    assert_eq!(side.send(b"more"), Err(Error::Closed));
                    side.output.clear();
                    side.close();
                    assert!(side.output.is_empty());
                }
            }
        }
    }
}

#[test]
fn a_record_that_was_changed_is_refused_and_the_peer_learns_it() {
    for version in VERSIONS {
        let mut pair = Setup::new(version).open_pair();
        pair.client.send(b"first").expect("sends");
        pair.client.send(b"second").expect("sends");
        let mut bytes = pair.client.transmit();
        *bytes.last_mut().expect("bytes") ^= 1;
        let error = pair.server.receive(&bytes).expect_err("a wrong tag");
        assert_eq!(error, Error::Protocol(rustls::Error::DecryptError));
        assert_eq!(pair.server.plaintext, b"first");
        let alert = pair.server.output.clone();
        let error = pair.client.receive(&alert).expect_err("an alert");
        assert_eq!(error, Error::PeerAlert(AlertDescription::BadRecordMac));
    }
}

#[test]
fn what_follows_close_notify_is_ignored() {
    for version in VERSIONS {
        let mut pair = Setup::new(version).open_pair();
        pair.client.send(b"last words").expect("sends");
        pair.client.close();
        let mut bytes = pair.client.transmit();
        bytes.extend_from_slice(&[0xff; 100]);
        pair.server.receive(&bytes).expect("receives");
        pair.server.receive(b"more garbage").expect("ignores");
        assert_eq!(pair.server.plaintext, b"last words");
        assert!(pair.server.tls.peer_has_closed());

        // The other direction stays open.
        pair.server.send(b"answer").expect("sends");
        pair.server.close();
        pair.handshake().expect("carries");
        assert_eq!(pair.client.plaintext, b"answer");
        assert!(pair.client.tls.peer_has_closed());
        assert_eq!(pair.client.tls.receive_eof(), Ok(()));
    }
}

#[test]
fn data_still_comes_in_after_closing() {
    for version in VERSIONS {
        let mut pair = Setup::new(version).open_pair();
        pair.server.close();
        pair.client.send(b"on its way").expect("sends");
        let bytes = pair.client.transmit();
        pair.server.receive(&bytes[..9]).expect("receives");
        pair.server.receive(&bytes[9..]).expect("receives");
        assert_eq!(pair.server.plaintext, b"on its way");
        assert!(pair.server.tls.wants_read());
    }
}

#[test]
fn garbage_after_closing_is_an_error_and_no_panic() {
    for version in VERSIONS {
        let mut pair = Setup::new(version).open_pair();
        pair.server.close();
        pair.server.transmit();
        let error = pair.server.receive(&[0xff; 64]).expect_err("garbage");
        assert!(matches!(error, Error::Protocol(_) | Error::Internal));
        assert!(!pair.server.tls.wants_read() && !pair.server.tls.peer_has_closed());
    }
}

#[test]
fn plain_http_is_told_apart_however_it_is_cut() {
    let setup = Setup::new(ringwire_tls::Version::Tls13);
    let request = b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for at in 0..request.len() {
        let mut server = setup.pair().server;
        let result = server.receive(&request[..at]).and_then(|()| server.receive(&request[at..]));
        assert_eq!(result, Err(Error::PlainHttp));
        assert!(server.output.is_empty() && !server.tls.wants_read());
    }
    let mut server = setup.pair().server;
    assert!(matches!(server.receive(b"OPTIMIST"), Err(Error::NotTls)));
    // Behind a handshake it is nothing but garbage.
    let mut server = setup.open_pair().server;
    assert!(matches!(server.receive(request), Err(Error::Protocol(_))));
}

#[test]
fn a_client_hello_in_tiny_records_is_bounded() {
    let setup = Setup::new(ringwire_tls::Version::Tls13);
    let mut pair = setup.pair();
    let hello = pair.client.transmit();
    let in_records = |message: &[u8]| -> Vec<u8> {
        message.iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect()
    };
    // One byte in each record is odd, but allowed.
    pair.server.receive(&in_records(&hello[5..])).expect("receives");
    pair.handshake().expect("a handshake");
    assert!(!pair.is_handshaking());

    // A message of 64 KiB in such records is not.
    for piece_len in [1, 6, 1_000, 600_000] {
        let mut server = setup.pair().server;
        let endless = [&[1, 0, 0xff, 0xff][..], &[0; 60_000]].concat();
        let bytes = in_records(&endless);
        let fails = bytes.chunks(piece_len).find_map(|piece| server.receive(piece).err());
        assert_eq!(fails, Some(Error::TooMuchRetained));
        assert!(server.tls.memory_len() < 2_000);
    }
}

#[test]
fn certificate_demanded_and_not_shown_ends_the_handshake() {
    for version in VERSIONS {
        let setup = Setup::with(
            version,
            |server, authority| server.with_client_auth(ClientAuth::Require(authority.roots())),
            |client, _| client,
        );
        let mut pair = setup.pair();
        assert!(matches!(pair.handshake(), Err(Error::Protocol(_))));
        let alert = pair.server.output.clone();
        let error = pair.client.receive(&alert).expect_err("an alert");
        let wanted = [AlertDescription::CertificateRequired, AlertDescription::HandshakeFailure];
        assert!(matches!(error, Error::PeerAlert(alert) if wanted.contains(&alert)), "{error:?}");
    }
}
